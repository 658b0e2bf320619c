"""A gallery goes over to another checkpoint, and reads what other processes write."""

import contextlib
import threading
import time

import jax
import pytest
from fixtures.galleries import OTHER, SAID, ids
from fixtures.pictures import drawn, sticker

from int_ra_jax.data.schema import Conversation, Turn
from int_ra_jax.retrieval import stored_shelf
from int_ra_jax.retrieval.gallery import EXACT, Gallery, StaleGalleryError
from int_ra_jax.retrieval.gallery_store import GalleryStore
from int_ra_jax.retrieval.retriever import Retriever
from int_ra_jax.retrieval.sticker_encoder import StickerEncoder
from int_ra_jax.retrieval.stickers import Habits
from int_ra_jax.run.workdir import Run

LONG = Conversation("l", "test", (Turn("ann", "we won the game " * 30),), "bo", "", "")


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


def test_going_over_deletes_nothing_and_the_way_back_embeds_what_was_put_since_alone(
    gallery, encoder, other_encoder, monkeypatch
):
    third = StickerEncoder(encoder.run, jax.tree.map(lambda leaf: leaf * 0.9, encoder.params))
    gallery.put([sticker(1), sticker(2)])
    for one in (other_encoder, third):
        assert gallery.rebuild(one).wait(600.0)
    assert {*gallery.others()} == {encoder.checksum, other_encoder.checksum}
    gallery.put([sticker(3)])
    encoded, encode = [], StickerEncoder.encode

    def counted(self, some):
        encoded.extend(one.id for one in some)
        return encode(self, some)

    monkeypatch.setattr(StickerEncoder, "encode", counted)
    assert gallery.rebuild(encoder).wait(600.0) and gallery.checksum == encoder.checksum
    assert encoded == ["s3"]


def test_after_going_over_the_questions_that_were_asked_before_compile_nothing(
    evaluated, gallery, encoder, other_encoder, monkeypatch
):
    gallery.put([sticker(number, emoji=("👋",)) for number in range(3)])
    retriever = Retriever.from_workdir(evaluated.workdir, gallery)
    monkeypatch.setattr(Run, "restore_best", lambda run: (other_encoder.params, 1))
    compiled, during = [], []

    def ask():
        retriever.reply_many([SAID, OTHER])
        for said in (SAID, LONG):
            retriever.reply(said, recent=["s1"], variety=0.5)
        retriever.search("waving at the moon")
        retriever.similar("s1")
        retriever.attention(gallery.get("s1"))

    def note(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(threading.current_thread().name)
            during.append(gallery.checksum)

    ask()
    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        assert retriever.move_to(evaluated.workdir).wait(600.0)
        before = len(compiled)
        ask()
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
    assert gallery.checksum == other_encoder.checksum
    assert before and compiled[before:] == []
    assert {*during} == {encoder.checksum}  # which answered all the while


# ---- stickers without an embedding ---------------------------------------------------------------


@pytest.mark.parametrize("exact_up_to", [EXACT, 2])
def test_what_a_checkpoint_cannot_embed_is_kept_and_told_and_locks_nothing(
    gallery, encoder, other_encoder, monkeypatch, exact_up_to
):
    gallery.put([sticker(number, pack="cats", name="frog") for number in range(5)])
    path, encode = gallery._store.uri, StickerEncoder.encode

    def picky(self, some):
        if self is other_encoder and any(one.id == "s3" for one in some):
            raise ValueError("frame 2 is broken")
        return encode(self, some)

    monkeypatch.setattr(StickerEncoder, "encode", picky)
    with pytest.raises(StaleGalleryError, match="5 of 5 stickers"):
        Gallery.open(path, other_encoder)
    Gallery.open(path, other_encoder, rebuild=True)
    opened = Gallery.open(path, other_encoder, exact_up_to=exact_up_to)
    assert opened.unsearched() == {"s3": "frame 2 is broken"} and gallery.unsearched() == {}
    assert len(opened) == 5 and opened.packs() == {"cats": 5} and "s3" in opened
    assert [one.id for one in opened.stickers("cats")] == [f"s{number}" for number in range(5)]
    retriever = Retriever(encoder.run, other_encoder.params, opened)
    for found in (
        retriever.reply(SAID, top_k=9),
        retriever.reply(SAID, top_k=9, variety=0.5, recent=["s3"], habits=Habits(("s3",))),
        retriever.search("frog", top_k=9),
    ):
        assert sorted(ids(found)) == ["s0", "s1", "s2", "s4"] and found.eligible == 4
    with pytest.raises(ValueError, match="has no embedding"):
        retriever.similar("s3")
    assert opened.hide(["s3", "s4"]) == 2 and opened.get("s3").hidden and opened.show(["s3"]) == 1
    assert opened.unsearched() == {"s3": "frame 2 is broken"}
    assert sorted(ids(retriever.reply(SAID, top_k=9))) == ["s0", "s1", "s2"]
    # Going over to it while the other one answers is not held up either.
    assert gallery.rebuild(other_encoder).wait(600.0) and "s3" in gallery.unsearched()
    # A rebuild tries again, and who is open already finds what it makes.
    monkeypatch.setattr(StickerEncoder, "encode", encode)
    Gallery.open(path, other_encoder, rebuild=True)
    assert opened.refresh() and opened.unsearched() == {} and not opened.refresh()
    assert sorted(ids(retriever.reply(SAID, top_k=9))) == ["s0", "s1", "s2", "s3"]
    assert opened.remove_pack("cats") == 5 and len(opened) == 0


def test_what_another_checkpoint_puts_waits_until_it_is_embedded(
    evaluated, gallery, encoder, other_encoder
):
    gallery.put([sticker(1)])
    path = gallery._store.uri
    other = Gallery.open(path, other_encoder, rebuild=True)
    other.put([sticker(2), sticker(1, emoji=("👋",))])
    retriever = Retriever.from_workdir(evaluated.workdir, gallery)
    gallery.refresh()
    assert gallery.unsearched().keys() == {"s1", "s2"} and ids(retriever.reply(SAID)) == []
    Gallery.open(path, encoder, rebuild=True)
    gallery.refresh()
    assert gallery.unsearched() == {} and sorted(ids(retriever.reply(SAID))) == ["s1", "s2"]


def test_embeddings_of_other_checkpoints_stay_until_they_are_forgotten(
    gallery, encoder, other_encoder
):
    gallery.put([sticker(1), sticker(2)])
    other = Gallery.open(gallery._store.uri, other_encoder, rebuild=True)
    assert other.others() == [encoder.checksum] and gallery.others() == [other_encoder.checksum]
    assert len(Gallery.open(gallery._store.uri, encoder)) == 2
    other.forget([encoder.checksum, other_encoder.checksum, "unknown"])
    assert other.others() == [] and other._store.checksums() == [other_encoder.checksum]
    with pytest.raises(StaleGalleryError, match="2 of 2"):
        Gallery.open(gallery._store.uri, encoder)
    assert other.put([sticker(3)]).kept == 1


# ---- other processes and threads -----------------------------------------------------------------


def test_whoever_reads_sees_what_another_process_wrote_without_a_search(
    gallery, encoder, monkeypatch
):
    gallery.put([sticker(1, pack="cats")])
    reader = Gallery.open(gallery._store.uri, encoder)
    monkeypatch.setattr(stored_shelf, "_LOOK_SECONDS", 0.0)
    gallery.put([sticker(2, pack="dogs")])
    assert reader.picture("s2")[0] == drawn(2)
    gallery.put([sticker(3, pack="dogs")])
    assert reader.packs() == {"cats": 1, "dogs": 2}
    gallery.put([sticker(4, pack="dogs")])
    assert "s4" in reader
    gallery.remove(["s1"])
    assert len(reader) == 3
    gallery.change("s2", approved=True)
    assert reader.read(["s2"])["s2"].approved
    gallery.hide(["s3"])
    assert [one.hidden for one in reader.stickers("dogs")] == [False, True, False]
    gallery.show(["s3"])
    assert reader.version == gallery.version


@pytest.mark.parametrize("many", [False, True])
def test_a_reader_and_a_writer_of_one_process_never_wait_for_each_other(
    gallery, encoder, monkeypatch, many
):
    """The reader is held inside its refresh until the writer has the lock on what is stored."""
    ours = Gallery.open(gallery._store.uri, encoder, exact_up_to=4 if many else EXACT)
    ours.put([sticker(1)])
    gallery.put([sticker(number) for number in range(2, 8)])  # more than ``ours`` has in memory
    reading, writing = threading.Event(), threading.Event()
    changed_since, entered = GalleryStore.changed_since, GalleryStore.writing

    def held(store, *arguments):
        if threading.current_thread().name == "reader":
            reading.set()
            assert writing.wait(60)
        return changed_since(store, *arguments)

    @contextlib.contextmanager
    def told(store):
        with entered(store):
            if threading.current_thread().name == "writer":
                writing.set()
            yield

    monkeypatch.setattr(GalleryStore, "changed_since", held)
    monkeypatch.setattr(GalleryStore, "writing", told)
    reader = threading.Thread(target=ours.refresh, name="reader", daemon=True)
    writer = threading.Thread(target=ours.hide, args=(["s1"],), name="writer", daemon=True)
    reader.start()
    assert reading.wait(60)
    writer.start()
    for thread in (reader, writer):
        thread.join(60)
        assert not thread.is_alive(), f"the {thread.name} waits for ever"
    assert len(ours) == 7 and ours.get("s1").hidden and ours.in_memory == (not many)


def test_the_index_is_made_by_who_writes_and_not_by_who_searches(gallery, encoder, monkeypatch):
    made = []
    monkeypatch.setattr(
        GalleryStore, "index", lambda store, _: made.append(threading.current_thread().name)
    )
    reader = Gallery.open(gallery._store.uri, encoder, exact_up_to=2)
    writer = Gallery.open(gallery._store.uri, encoder, exact_up_to=2)
    writer.put([sticker(number) for number in range(4)])
    assert not writer.in_memory and made == ["MainThread"]
    reader.refresh()
    assert not reader.in_memory and made == ["MainThread"]
    Gallery.open(gallery._store.uri, encoder, exact_up_to=2)
    assert len(made) == 2
