"""A gallery goes over to another checkpoint, and reads what other processes write."""

import threading
import time

import pytest
from fixtures.galleries import SAID, ids
from fixtures.pictures import sticker

from int_ra_jax.retrieval.gallery import Gallery, StaleGalleryError
from int_ra_jax.retrieval.gallery_store import GalleryStore
from int_ra_jax.retrieval.retriever import Retriever
from int_ra_jax.retrieval.sticker_encoder import StickerEncoder
from int_ra_jax.run.workdir import Run


def test_another_checkpoint_answers_once_all_is_embedded_and_never_before(
    evaluated, gallery, encoder, other_encoder, monkeypatch
):
    gallery.put([sticker(number) for number in range(70)])
    retriever = Retriever.from_workdir(evaluated.workdir, gallery)
    before, between = retriever.reply(SAID, top_k=70), []
    monkeypatch.setattr(Run, "restore_best", lambda run: (other_encoder.params, 1))

    def progress(done, total):
        between.append((done, total, retriever.reply(SAID, top_k=70)))
        if len(between) == 1:
            gallery.put([sticker(99)])  # searched at once, and by the next one too

    rebuild = retriever.move_to(evaluated.workdir, progress)
    assert rebuild.wait(600.0) and rebuild.finished
    assert [one[:2] for one in between] == [(64, 70), (70, 70), (71, 71)]
    assert between[0][2] == before and between[1][2].eligible == 71
    old = {one.sticker: one.score for one in before.stickers}
    during = {one.sticker: one.score for one in between[1][2].stickers if one.sticker in old}
    assert len(during) >= 69 and during == {id: old[id] for id in during}
    after = retriever.reply(SAID, top_k=80)
    assert gallery.checksum == other_encoder.checksum and after.eligible == 71
    fresh = Retriever.from_workdir(
        evaluated.workdir, Gallery.open(gallery._store.uri, other_encoder)
    )
    expected = {one.sticker: one.score for one in fresh.reply(SAID, top_k=80).stickers}
    assert {s.sticker: s.score for s in after.stickers} == pytest.approx(expected, abs=1e-6)
    assert before.stickers[0].score != pytest.approx(expected[before.stickers[0].sticker], abs=1e-6)


def test_a_gallery_of_another_checkpoint_is_refused_until_it_is_rebuilt_where_it_stopped(
    gallery, other_encoder, monkeypatch
):
    gallery.put([sticker(number) for number in range(70)])
    path = gallery._store.uri
    with pytest.raises(StaleGalleryError, match=r"70 of 70 stickers have no embedding .* rebuild$"):
        Gallery.open(path, other_encoder)
    begun, told = threading.Event(), threading.Event()
    rebuild = gallery.rebuild(other_encoder, lambda done, total: (begun.set(), told.wait(60)))
    assert begun.wait(60) and (rebuild.done, rebuild.total) == (64, 70)
    threading.Timer(0.1, told.set).start()
    rebuild.stop()
    assert not rebuild.finished and gallery.checksum != other_encoder.checksum
    with pytest.raises(StaleGalleryError, match="6 of 70 stickers"):
        Gallery.open(path, other_encoder)
    encoded = []
    encode = StickerEncoder.encode

    def counted(self, some):
        encoded.append(len(some))
        return encode(self, some)

    monkeypatch.setattr(StickerEncoder, "encode", counted)
    assert len(Gallery.open(path, other_encoder, rebuild=True)) == 70
    assert encoded == [6]
    assert len(gallery._store.checksums()) == 2


def test_a_gallery_whose_embeddings_are_all_gone_takes_new_ones(gallery, encoder):
    gallery.put([sticker(1)])
    gallery.remove(["s1"])
    with gallery._store.writing():
        gallery._store.vectors(gallery.checksum).delete("true")
    again = Gallery.open(gallery._store.uri, encoder)
    assert again.put([sticker(2)]).kept == 1 and "s2" in again


def test_what_is_put_while_a_gallery_is_opened_is_there(gallery, encoder, monkeypatch):
    gallery.put([sticker(1)])
    read = GalleryStore.all_embeddings

    def put_after(store, *arguments, **given):
        found = read(store, *arguments, **given)
        if len(gallery) == 1:
            gallery.put([sticker(2)])
        return found

    monkeypatch.setattr(GalleryStore, "all_embeddings", put_after)
    other = Gallery.open(gallery._store.uri, encoder)
    other.refresh()
    assert {one.id for one in other.stickers()} == {"s1", "s2"}


def test_an_open_gallery_of_another_checkpoint_is_refused(evaluated, other_encoder, tmp_path):
    gallery = Gallery.open(tmp_path / "g", other_encoder)
    with pytest.raises(ValueError, match="embeddings of another checkpoint"):
        Retriever.from_workdir(evaluated.workdir, gallery)


def test_a_reader_finds_within_a_second_what_another_process_puts(evaluated, encoder, gallery):
    gallery.put([sticker(1)])
    reader = Retriever.from_workdir(evaluated.workdir, Gallery.open(gallery._store.uri, encoder))
    reader.reply(SAID)
    gallery.put([sticker(2)])
    began = time.monotonic()
    while "s2" not in ids(reader.reply(SAID)):
        assert time.monotonic() - began < 30  # a busy machine; the rule is a quarter of a second
        time.sleep(0.05)
