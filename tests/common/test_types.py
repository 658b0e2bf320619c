"""The pytrees: what gathering and attaching leave alone, and what a search returns as JSON."""

import json

import numpy as np
from fixtures.toy_system import GALLERY, make_bank, make_tokens

from int_ra_jax.common.types import Batch, Labels, RankedList, RankedSticker, Resident


def test_gathering_rows_keeps_each_stickers_own_index_and_the_whole_table_of_texts():
    bank = make_bank(np.random.default_rng(0))
    rows = np.array([5, 0, 5])
    some = bank.rows(rows)
    for name in ("pixels", "attribute_index", "attribute_mask", "intentions", "index"):
        np.testing.assert_array_equal(getattr(some, name), np.asarray(getattr(bank, name))[rows])
    assert some.attributes is bank.attributes
    np.testing.assert_array_equal(some.index, rows)
    everything = bank.rows(np.arange(GALLERY))
    np.testing.assert_array_equal(everything.pixels, bank.pixels)


def test_a_gallery_without_pixels_is_gathered_from_its_cache():
    bank = make_bank(np.random.default_rng(0))
    cache = np.random.default_rng(1).normal(size=(GALLERY, 10, 4))
    some = bank.replace(pixels=None, image_hidden=cache).rows(np.array([2, 1]))
    assert some.pixels is None
    np.testing.assert_array_equal(some.image_hidden, cache[[2, 1]])


def test_a_batch_is_given_the_names_and_the_cached_rows_of_its_own_examples():
    rng = np.random.default_rng(0)
    labels = Labels(make_tokens(rng, (3,), 4))
    zeros = np.zeros(2, np.int32)
    batch = Batch(make_tokens(rng, (2,), 6), zeros, zeros, np.array([4, 1]), np.ones(2, bool))
    hidden = rng.normal(size=(6, 6, 2))
    attached = Resident(make_bank(rng), labels, hidden).attach(batch)
    assert attached.labels is labels
    np.testing.assert_array_equal(attached.context_hidden, hidden[[4, 1]])
    assert Resident(make_bank(rng), labels).attach(batch).context_hidden is None


def test_a_ranked_list_survives_json():
    sticker = RankedSticker(1, "wave", 0.5, "images/wave.png", {"verbal": "你好"})
    ranked = RankedList([sticker], "joy", {"joy": 0.75, "anger": 0.25})
    read = json.loads(json.dumps(ranked.to_json(), ensure_ascii=False))
    assert RankedSticker(**read["stickers"][0]) == sticker
    assert (read["intention"], read["intention_probabilities"]) == (
        "joy",
        {"joy": 0.75, "anger": 0.25},
    )
