"""Where the attributes of a sticker look, for stickers of the run and for new ones."""

import dataclasses

import jax
import numpy as np
import pytest

from int_ra_jax.common.types import ATTRIBUTES
from int_ra_jax.retrieval.sticker_encoder import StickerEncoder
from int_ra_jax.retrieval.stickers import GallerySticker
from int_ra_jax.run.encode import Encoder


@pytest.fixture(scope="module")
def encoder(evaluated):
    return StickerEncoder.from_workdir(evaluated.workdir)


def own(encoder, row):
    entry = encoder.run.dataset.stickers[row]
    picture = encoder.run.dataset.image(row)
    return GallerySticker(entry.id, picture, attributes=dict(entry.attributes))


def test_a_sticker_looks_as_it_does_in_the_run_s_own_gallery(encoder):
    rows = np.arange(3)
    maps = np.asarray(Encoder(encoder.run).attention_maps(encoder.params, rows))
    grid = encoder.run.grid
    for row in rows:
        sticker = own(encoder, int(row))
        looked = encoder.attention(sticker)
        assert looked.keys() == {name for name in ATTRIBUTES if sticker.attributes[name]}
        for name, found in looked.items():
            expected = maps[row, ATTRIBUTES.index(name)].reshape(grid, grid)
            np.testing.assert_allclose(found, expected, atol=1e-5)
            assert found.min() >= 0


def test_an_attribute_that_a_sticker_lacks_looks_nowhere(encoder):
    sticker = own(encoder, 0)
    name = next(name for name, text in sticker.attributes.items() if text)
    less = dataclasses.replace(sticker, attributes={**sticker.attributes, name: ""})
    assert encoder.attention(less).keys() == encoder.attention(sticker).keys() - {name}


def test_one_sticker_is_encoded_by_a_program_that_can_be_compiled_before(encoder, monkeypatch):
    fresh, compiled, sizes = StickerEncoder(encoder.run, encoder.params), [], []
    maps = Encoder.newcomers_maps

    def counted(self, params, bank):
        sizes.append(len(bank.index))
        return maps(self, params, bank)

    def note(event, seconds, **_):
        compiled.extend([event] if event.endswith("backend_compile_duration") else [])

    monkeypatch.setattr(Encoder, "newcomers_maps", counted)
    fresh.warm_attention()
    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        assert fresh.attention(own(encoder, 0))
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
    assert sizes == [1, 1] and compiled == []


def test_without_attention_nothing_is_shown(encoder, monkeypatch):
    monkeypatch.setattr(Encoder, "newcomers_maps", lambda *_: None)
    assert encoder.attention(own(encoder, 0)) == {}
