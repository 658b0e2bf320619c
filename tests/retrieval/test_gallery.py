"""What is changed is changed in every process, what is written stays, what is wrong is refused."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from fixtures.galleries import PACKS, SAID, ids
from fixtures.pictures import drawn, sticker
from hypothesis import given, settings
from hypothesis import strategies as st

from int_ra_jax.retrieval import shelf
from int_ra_jax.retrieval.gallery import Gallery
from int_ra_jax.retrieval.retriever import Retriever
from int_ra_jax.retrieval.shelved import ReadOnlyError
from int_ra_jax.retrieval.stickers import Filters, GallerySticker, Habits


def test_change_takes_fields_and_names_everything_that_is_wrong_at_once(gallery):
    gallery.put([sticker(1, tags=("old",), words="早"), sticker(2)])
    before = gallery.row("s1")
    after = gallery.change("s1", adult=True, pack="others")
    assert (after.tags, after.adult, after.words) == (("old",), True, "早")
    np.testing.assert_allclose(gallery.row("s1"), before, atol=1e-6)  # no model reads either
    assert gallery.change("s1", tags=["new"]).attributes["verbal"] == "早, new"
    assert np.abs(gallery.row("s1") - before).max() > 0
    version = gallery.version
    assert gallery.change("s1", attributes={"facial": "a grin"}).attributes["facial"] == "a grin"
    assert np.abs(gallery.row("s1") - before).max() > 0 and gallery.version > version
    assert gallery.change("s1", words="hello").language == "en"
    assert gallery.change("s2", picture=drawn(9)).picture == drawn(9)
    with pytest.raises(ValueError, match=r"cannot change tag \(did you mean tags\?\), id\."):
        gallery.change("s1", tag=("x",), id="s9")
    with pytest.raises(ValueError, match="'s1': name with half a character; tag with a NUL"):
        gallery.change("s1", name="\ud83d", tags=["a\0b"])
    with pytest.raises(ValueError, match="'s1': no picture that can be read"):
        gallery.change("s1", picture=b"GIF89a")
    with pytest.raises(KeyError):
        gallery.change("nobody", adult=True)


names_of = st.integers(0, 5).map(lambda number: f"s{number}")
steps = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 5), st.integers(0, 2)),
    st.tuples(st.just("flag"), st.integers(0, 5), st.booleans()),
    st.tuples(st.sampled_from(["hide", "show", "remove"]), st.lists(names_of, max_size=3)),
    st.tuples(st.just("remove_pack"), st.sampled_from(PACKS)),
)


@given(st.lists(steps, min_size=3, max_size=8))
@settings(max_examples=8)
def test_any_changes_leave_what_a_dictionary_would_hold_in_every_process(
    encoder, tmp_path_factory, changes
):
    path = tmp_path_factory.mktemp("steps") / "g"
    writer, reader = Gallery.open(path, encoder), Gallery.open(path, encoder)
    expected = {}
    for what, *arguments in changes:
        if what == "put":
            number, pack = arguments
            writer.put([sticker(number, pack=PACKS[pack])])
            before = expected.get(f"s{number}", ["", False, False])
            expected[f"s{number}"] = [PACKS[pack] or before[0], *before[1:]]
        elif what == "flag":
            number, adult = arguments
            if f"s{number}" in expected:
                writer.change(f"s{number}", adult=adult)
                expected[f"s{number}"][1] = adult
        elif what == "remove_pack":
            gone = [id for id, (pack, _, _) in expected.items() if pack == arguments[0]]
            assert writer.remove_pack(arguments[0]) == len(gone)
            expected = {id: one for id, one in expected.items() if id not in gone}
        else:
            wanted = {*arguments[0]} & {*expected}
            if what != "remove":
                wanted = {id for id in wanted if expected[id][2] == (what == "show")}
            assert getattr(writer, what)(arguments[0]) == len(wanted)
            for id in wanted:
                if what == "remove":
                    del expected[id]
                else:
                    expected[id][2] = what == "hide"
    reader.refresh()
    assert not reader.refresh()
    for gallery in (writer, reader, Gallery.open(path, encoder)):
        found = {one.id: [one.pack, one.adult, one.hidden] for one in gallery.stickers()}
        assert found == expected and len(gallery) == len(expected)
        for flags in ((), ("hidden",), ("hidden", "adult")):
            seen = [
                pack
                for pack, adult, hidden in expected.values()
                if not ((adult and "adult" in flags) or (hidden and "hidden" in flags))
            ]
            assert gallery.packs(without_flags=flags) == Counter(seen)
        mask = gallery.shelf.mask(Filters(adult=True))
        shown = {id for id, (_, _, hidden) in expected.items() if not hidden}
        assert {*gallery.shelf.row_ids(np.flatnonzero(mask))} == shown
        held = np.asarray(gallery.shelf.encoded.embedding)
        for id in expected:
            np.testing.assert_array_equal(held[gallery.shelf.rows[id]], gallery.row(id))


def test_a_put_compiles_nothing_and_moves_no_other_sticker(evaluated, gallery):
    gallery.put([sticker(number) for number in range(10)])
    retriever = Retriever.from_workdir(evaluated.workdir, gallery)
    retriever.reply(SAID)
    programs, written = len(retriever._engine._programs), shelf._written._cache_size()
    rows = dict(gallery.shelf.rows)
    gallery.put([sticker(11)])
    gallery.put([sticker(12), sticker(3, pack="x")])
    assert len(ids(retriever.reply(SAID, packs=["", "x"]))) == 5
    assert ids(retriever.reply(SAID, packs=["x"])) == ["s3"]
    assert {id: gallery.shelf.rows[id] for id in rows} == rows
    assert len(retriever._engine._programs) == programs
    assert shelf._written._cache_size() <= written + 2  # one and two rows


# ---- refusals ----------------------------------------------------------------------------------


def test_a_runs_own_gallery_only_answers(evaluated):
    retriever = Retriever.from_workdir(evaluated.workdir)
    gallery = retriever.gallery
    assert not gallery.writable and gallery.version == 0
    writes = [partial(gallery.remove_pack, "cats"), partial(gallery.change, "s1", adult=True)]
    for write in (gallery.put, gallery.hide, gallery.show, gallery.remove):
        writes.append(partial(write, []))
    for write in writes:
        with pytest.raises(ReadOnlyError, match="only answers: name one by --gallery=DIR"):
            write()
    assert len(gallery) == len([*gallery.stickers()]) == sum(gallery.packs().values()) == 12
    first = next(gallery.stickers())
    assert first.id in gallery and gallery.get(first.id).approved
    with pytest.raises(KeyError):
        gallery.picture("nobody")
    with pytest.raises(ValueError, match="run's own gallery"):
        retriever.move_to(evaluated.workdir)


@pytest.mark.parametrize("exact_up_to", [8, 0])
def test_an_empty_gallery_answers_with_nothing(evaluated, encoder, tmp_path, exact_up_to):
    gallery = Gallery.open(tmp_path / "g", encoder, exact_up_to=exact_up_to)
    retriever = Retriever.from_workdir(evaluated.workdir, gallery)
    for ranked in (
        retriever.reply(SAID, top_k=10**9),
        retriever.reply(SAID, variety=0.5, recent=["s1"], habits=Habits(("s1",))),
        retriever.search("cat", top_k=10**9),
    ):
        assert ids(ranked) == [] and ranked.eligible == 0
    assert gallery.put([]).records_in == gallery.remove(["s1"]) == gallery.hide([]) == 0
    gallery.put([sticker(1, tags=("cat",))])
    for ranked in (retriever.reply(SAID, top_k=10**9), retriever.search("cat", top_k=10**9)):
        assert ids(ranked) == ["s1"]


def test_a_gallery_that_is_not_there_is_not_made_unless_it_may_be(encoder, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no gallery"):
        Gallery.open(tmp_path / "none", encoder, create=False)
    assert not (tmp_path / "none").exists()


def test_ids_and_texts_of_any_letters_come_back_as_they_were(gallery):
    odd = ["it's", 'a"b', "猫 1", "x'; DROP TABLE", "..", "a/b", "%", "\\"]
    gallery.put([GallerySticker(id, picture=drawn(n), tags=(id,)) for n, id in enumerate(odd)])
    assert sorted(one.id for one in gallery.stickers()) == sorted(odd)
    for id in odd:
        assert gallery.get(id).tags == (id,)
    assert gallery.hide(odd[:2]) == 2 and gallery.remove(odd[:3]) == 3 and len(gallery) == 5


def test_a_search_does_not_wait_for_a_writer(evaluated, gallery, encoder):
    gallery.put([sticker(1)])
    retriever = Retriever.from_workdir(evaluated.workdir, gallery)
    other = Gallery.open(gallery._store.uri, encoder)
    with ThreadPoolExecutor(1) as pool, gallery._store.writing(), gallery._changing:
        assert ids(pool.submit(retriever.reply, SAID).result(60)) == ["s1"]
        assert not pool.submit(other.refresh).result(60)


def test_threads_that_search_and_put_at_once_see_whole_stickers(evaluated, gallery):
    retriever = Retriever.from_workdir(evaluated.workdir, gallery)
    with ThreadPoolExecutor(4) as pool:
        puts = [pool.submit(gallery.put, [sticker(number)]) for number in range(6)]
        asks = [pool.submit(partial(retriever.reply, SAID, top_k=8)) for _ in range(12)]
        assert all(put.result().kept == 1 for put in puts)
        assert all(len(ask.result().stickers) == ask.result().eligible for ask in asks)
    assert len(ids(retriever.reply(SAID, top_k=8))) == 6
