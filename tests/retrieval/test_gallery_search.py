"""What an open gallery is asked for: filters, typed words, what is alike, a person's order."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from fixtures.galleries import OTHER, PACKS, SAID, ids, varied
from fixtures.pictures import drawn, sticker
from hypothesis import given, settings
from hypothesis import strategies as st

from int_ra_jax.retrieval import on_disk
from int_ra_jax.retrieval.gallery import Gallery
from int_ra_jax.retrieval.habits import Mixture
from int_ra_jax.retrieval.ordering import chosen_of
from int_ra_jax.retrieval.retriever import Retriever
from int_ra_jax.retrieval.stickers import Filters, Habits


@pytest.fixture(scope="module")
def filled(encoder, tmp_path_factory):
    """A gallery of 24 varied stickers, which tests do not change."""
    gallery = Gallery.open(tmp_path_factory.mktemp("filled") / "gallery", encoder)
    gallery.put([varied(number) for number in range(24)])
    return gallery


@pytest.fixture(scope="module")
def retriever(evaluated, filled):
    return Retriever.from_workdir(evaluated.workdir, filled)


@pytest.fixture(scope="module")
def scores(retriever, filled):
    """Every sticker's score for SAID, hidden ones too, by a matrix product of its own."""
    engine = retriever._engine
    query, _ = engine.queries(engine.compose([SAID])[0])
    rows = {id: filled.row(id) for id in (f"s{number}" for number in range(24))}
    return {id: float(row @ query[0]) for id, row in rows.items()}


# ---- filters -----------------------------------------------------------------------------------

choices = {
    "packs": st.none() | st.lists(st.sampled_from((*PACKS, "birds")), max_size=2),
    "tags": st.none() | st.lists(st.sampled_from(("SAD", "happy", "猫", "none")), max_size=2),
    "languages": st.none() | st.lists(st.sampled_from(("zh", "en", "ja")), max_size=2),
    "adult": st.booleans(),
    "approved_only": st.booleans(),
    "exclude": st.lists(st.integers(0, 30).map(lambda number: f"s{number}"), max_size=5),
    "without_packs": st.lists(st.sampled_from((*PACKS, "birds")), max_size=2),
    "top_k": st.integers(1, 30),
}


def passing(which):
    """The ids that pass, by the sentences of ``Filters``."""
    found = []
    for one in map(varied, range(24)):
        tags = {tag.casefold() for tag in one.tags}
        asked = {tag.casefold() for tag in which["tags"] or ()}
        if (
            not one.hidden
            and (which["adult"] or not one.adult)
            and (one.approved or not which["approved_only"])
            and (which["packs"] is None or one.pack in which["packs"])
            and (which["tags"] is None or tags & asked)
            and (which["languages"] is None or one.language in ("", *which["languages"]))
            and one.id not in which["exclude"]
            and one.pack not in which["without_packs"]
        ):
            found.append(one.id)
    return found


@given(st.fixed_dictionaries(choices))
@settings(max_examples=25)
def test_the_best_of_those_that_pass_are_found_as_by_a_loop(retriever, scores, which):
    expected = sorted(passing(which), key=lambda id: -scores[id])
    ranked = retriever.reply(SAID, **which)
    assert ids(ranked) == expected[: which["top_k"]] and ranked.eligible == len(expected)
    given_scores = [one.score for one in ranked.stickers]
    np.testing.assert_allclose(given_scores, [scores[id] for id in ids(ranked)], atol=1e-5)
    assert {one.sticker for one in retriever.search("won", **which).stickers} <= {*expected}
    assert len(ids(retriever.similar("s7", **which))) == min(
        which["top_k"], len({*expected} - {"s7"})
    )


def test_conversations_of_one_batch_have_filters_of_their_own(retriever):
    asked = [Filters(), Filters(packs=frozenset(["cats"])), Filters(adult=True)]
    conversations = [SAID, OTHER, SAID]
    together = retriever.reply_many(conversations, top_k=4, asked=asked)
    for conversation, which, ranked in zip(conversations, asked, together, strict=True):
        alone = retriever.reply_many([conversation], top_k=4, asked=which)[0]
        assert ids(ranked) == ids(alone) and ranked.eligible == alone.eligible
    with pytest.raises(ValueError, match="2 filters for 3 conversations"):
        retriever.reply_many(conversations, asked=asked[:2])


@pytest.mark.parametrize("name", ["packs", "tags", "languages", "exclude", "without_packs"])
def test_one_text_in_the_place_of_several_is_refused(retriever, name):
    with pytest.raises(ValueError, match=f"{name}: give a list"):
        retriever.reply(SAID, **{name: "cats"})


def test_similar_stickers_are_those_of_the_largest_cosines(retriever, filled, encoder):
    width = encoder.layout.width - encoder.run.system.intention_width
    rows = {one.id: filled.row(one.id)[:width] for one in filled.stickers()}
    own = rows["s8"]
    cosines = {
        id: row @ own / np.linalg.norm(row) / np.linalg.norm(own) for id, row in rows.items()
    }
    ranked = retriever.similar("s8", top_k=6, adult=True)
    allowed = [id for id in cosines if int(id[1:]) % 7 and id != "s8"]
    assert ids(ranked) == sorted(allowed, key=lambda id: -cosines[id])[:6]
    by_id = {one.sticker: one.score for one in ranked.stickers}
    assert by_id == pytest.approx({id: cosines[id] for id in by_id}, abs=1e-5)
    with pytest.raises(KeyError):
        retriever.similar("nobody")


def test_a_gallery_on_disk_answers_as_one_in_memory(
    evaluated, filled, retriever, encoder, monkeypatch
):
    disk = Gallery.open(filled._store.uri, encoder, exact_up_to=8)
    assert not disk.in_memory and filled.in_memory
    searched = Retriever.from_workdir(evaluated.workdir, disk)
    asks = [{}, {"packs": ["cats"]}, {"top_k": 30, "adult": True}, {"approved_only": True}]
    for rounds in (3, 0):  # by candidates that the index gives, and by looking at all
        for selected in (4096, 0):
            monkeypatch.setattr(on_disk, "_SELECTED", selected)
            monkeypatch.setattr(on_disk, "_ROUNDS", rounds)
            for which in asks:
                expected = retriever.reply(SAID, **which)
                assert ids(searched.reply(SAID, **which)) == ids(expected)
    assert ids(searched.similar("s8")) == ids(retriever.similar("s8"))


def test_a_gallery_goes_to_disk_when_it_grows_and_back_when_it_shrinks(encoder, tmp_path):
    gallery = Gallery.open(tmp_path / "g", encoder, exact_up_to=8)
    states = []
    for number in range(12):
        gallery.put([sticker(number)])
        states.append(gallery.in_memory)
    assert states == [True] * 8 + [False] * 4
    for number in range(12):
        gallery.remove([f"s{number}"])
        states.append(gallery.in_memory)
    assert states[12:] == [False] * 7 + [True] * 5 and len(gallery) == 0


# ---- typed words -------------------------------------------------------------------------------


def test_typed_words_find_tags_words_and_emoji_in_both_languages_within_filters(evaluated, gallery):
    gallery.put(
        [
            sticker(1, tags=("猫", "挥手"), pack="cats"),
            sticker(2, emoji=("😭",), pack="cats"),
            sticker(3, words="good morning", pack="words"),
            sticker(4, name="a dancing frog", pack="words"),
        ]
    )
    retriever = Retriever.from_workdir(evaluated.workdir, gallery)
    wanted = {
        "猫": "s1",
        "挥手的猫": "s1",
        "Crying": "s2",
        "哭": "s2",
        "MORNING": "s3",
        "frogs": "s4",
    }
    assert {words: ids(retriever.search(words))[0] for words in wanted} == wanted
    assert ids(retriever.search("哭", packs=["words"])) == []  # a tiny tower reads no Chinese
    gallery.change("s4", tags=("哭",))
    assert ids(retriever.search("哭", packs=["words"])) == ["s4"]
    gallery.remove(["s1"])
    assert "s1" not in ids(retriever.search("猫"))
    with pytest.raises(ValueError, match="nothing but blanks"):
        retriever.search("  ")
    with pytest.raises(ValueError, match="half a character"):
        retriever.search("cat \ud83d")


def test_the_text_tower_finds_what_has_no_word_in_common(evaluated, gallery, encoder):
    gallery.put([sticker(number, name=name) for number, name in enumerate(["sun", "moon", "star"])])
    retriever = Retriever.from_workdir(evaluated.workdir, gallery)
    found = ids(retriever.search("rain"))
    asked = encoder.said([sticker(9, name="rain")])[0]
    likeness = encoder.said([gallery.get(f"s{number}") for number in range(3)]) @ asked
    assert found == [f"s{number}" for number in np.argsort(-likeness, kind="stable")]
    disk = Retriever.from_workdir(
        evaluated.workdir, Gallery.open(gallery._store.uri, encoder, exact_up_to=0)
    )
    assert ids(disk.search("rain")) == [] and ids(disk.search("moon")) == ["s1"]


def test_a_runs_own_gallery_is_searched_for_words_too(evaluated):
    retriever = Retriever.from_workdir(evaluated.workdir)
    one = next(
        one for one in retriever.gallery.stickers() if one.tags or any(one.attributes.values())
    )
    said = " ".join(one.tags or [text for text in one.attributes.values() if text])
    found = retriever.search(said, top_k=12)
    assert one.id in ids(found)
    assert ids(Retriever.from_workdir(evaluated.workdir).search(said, top_k=12)) == ids(found)


# ---- a person's order ---------------------------------------------------------------------------


def test_what_a_person_sends_rises_and_nothing_else_moves(retriever, filled):
    plain = retriever.reply(SAID, top_k=24, adult=True)
    last = ids(plain)[-1]
    asked, bare = {"top_k": 24, "adult": True}, Mixture(scale=1.0)
    for gallery in (filled, Gallery.open(filled._store.uri, filled.encoder, exact_up_to=8)):
        searched = Retriever(retriever.run, filled.encoder.params, gallery)
        leaning = searched.reply(SAID, **asked, habits=Habits((last,) * 30 + ("gone",), bare))
        assert ids(leaning) == [last, *ids(plain)[:-1]]
        # What was sent rises although it is not among the best that are asked for.
        assert ids(
            searched.reply(SAID, top_k=1, adult=True, habits=Habits((last,) * 30, bare))
        ) == [last]
        by_id = {one.sticker: one.score for one in plain.stickers}
        for one in leaning.stickers[1:]:
            assert one.score == pytest.approx(by_id[one.sticker], abs=1e-5)
    hidden = Habits(("s7", "s0"))  # hidden, both
    assert ids(retriever.reply(SAID, **asked, habits=hidden)) == ids(plain)


def test_habits_weigh_against_log_probabilities_and_not_bare_cosines(
    retriever, evaluated, tmp_path
):
    # The hinge learns no temperature.
    assert retriever._engine.scale == 1 / retriever.run.config.loss.temperature > 2
    # One use of the last sticker does not make it the first, as it would on cosines.
    plain = ids(retriever.reply(SAID, top_k=24, adult=True))
    once = ids(retriever.reply(SAID, top_k=24, adult=True, habits=Habits((plain[-1],))))
    assert once != plain and [one for one in once if one != plain[-1]] == plain[:-1]
    # What an evaluation under ``exact`` fitted comes first.
    workdir = Path(shutil.copytree(evaluated.workdir, tmp_path / "run"))
    report = workdir / "eval" / "report.json"
    told = json.loads(report.read_text())
    report.write_text(json.dumps(told | {"scales": {told["main_system"]: 7.5}}))
    assert Retriever.from_workdir(workdir)._engine.scale == 7.5


def test_what_was_just_sent_comes_last_with_its_copies(evaluated, gallery):
    gallery.put([sticker(number) for number in range(6)])
    gallery.put([sticker(9, picture=drawn(3))])  # a copy of s3
    retriever = Retriever.from_workdir(evaluated.workdir, gallery)
    plain = ids(retriever.reply(SAID, top_k=7))
    sent = ids(retriever.reply(SAID, top_k=7, recent=["s3", "gone"]))
    stale = [id for id in plain if id in ("s3", "s9")]
    assert sent == [id for id in plain if id not in stale] + stale
    varied = ids(retriever.reply(SAID, top_k=7, variety=0.5))
    assert varied[-1] in stale and varied[0] == plain[0] and sorted(varied) == sorted(plain)
    assert len(ids(retriever.reply(SAID, top_k=2, recent=plain))) == 2
    with pytest.raises(ValueError, match=r"variety=1\.5; use 0 to 1"):
        retriever.reply(SAID, variety=1.5)


def test_what_is_removed_while_an_answer_is_put_in_order_is_left_out(gallery, monkeypatch):
    gallery.put([varied(number) for number in range(5)])
    looks = gallery.looks

    def removed_meanwhile(ids):
        gallery.remove(["s1"])
        found = looks(ids)
        gallery.remove(["s2"])
        return found

    monkeypatch.setattr(gallery, "looks", removed_meanwhile)
    scores = {f"s{number}": float(number) for number in range(5)}
    found = chosen_of(gallery, scores, 5, variety=0.0, recent=["s4"], left_out=0)
    assert sorted(id for id, _ in found) == ["s0", "s3", "s4"]


def test_a_runs_own_gallery_knows_copies_too(evaluated):
    retriever = Retriever.from_workdir(evaluated.workdir)
    plain = ids(retriever.reply(SAID, top_k=12))
    recent = ids(retriever.reply(SAID, top_k=12, recent=plain[:1]))
    assert plain[0] in recent[-2:] and sorted(recent) == sorted(plain)
