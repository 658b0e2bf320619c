"""A gallery is open: what is put is found, what is hidden is not, and what is written stays."""

import dataclasses
import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from fixtures.pictures import drawn, sticker
from fixtures.trained import tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import mod, pcme, srs
from int_ra_jax.common.types import ATTRIBUTES
from int_ra_jax.data.schema import Conversation, Turn
from int_ra_jax.retrieval import on_disk, shelf
from int_ra_jax.retrieval.gallery import Gallery, StaleGalleryError
from int_ra_jax.retrieval.gallery_store import GalleryStore
from int_ra_jax.retrieval.habits import Mixture
from int_ra_jax.retrieval.ordering import chosen_of
from int_ra_jax.retrieval.retriever import Retriever
from int_ra_jax.retrieval.shelved import ReadOnlyError
from int_ra_jax.retrieval.sticker_encoder import StickerEncoder
from int_ra_jax.retrieval.stickers import Filters, GallerySticker, Habits
from int_ra_jax.run.workdir import Run
from int_ra_jax.training.create import create_workdir

SAID = Conversation("c", "test", (Turn("ann", "we won the game"),), "bo", "", "")
OTHER = Conversation("d", "test", (Turn("ann", "i lost my keys"), Turn("bo", "no")), "ann", "", "")
PACKS, TAGS, LANGUAGES = ("cats", "dogs", ""), ("Sad", "happy", "猫", ""), ("zh", "en", "")


@pytest.fixture(scope="module")
def encoder(evaluated):
    return StickerEncoder.from_workdir(evaluated.workdir)


@pytest.fixture(scope="module")
def other_encoder(encoder):
    """Another checkpoint: every parameter is a little larger."""
    return StickerEncoder(encoder.run, jax.tree.map(lambda leaf: leaf * 1.1, encoder.params))


@pytest.fixture
def gallery(encoder, tmp_path):
    return Gallery.open(tmp_path / "gallery", encoder)


def varied(number):
    """A sticker whose pack, tag, language and flags depend on its number."""
    return sticker(
        number,
        pack=PACKS[number % 3],
        tags=(TAGS[number % 4], "all"),
        language=LANGUAGES[number % 3],
        words="" if number % 3 == 2 else "hm",
        adult=number % 5 == 0,
        approved=number % 2 == 0,
        hidden=number % 7 == 0,
        emoji=("😭",) if number % 2 else ("👋",),
    )


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


def ids(ranked):
    return [one.sticker for one in ranked.stickers]


# ---- filters -----------------------------------------------------------------------------------

choices = {
    "packs": st.none() | st.lists(st.sampled_from((*PACKS, "birds")), max_size=2),
    "tags": st.none() | st.lists(st.sampled_from(("SAD", "happy", "猫", "none")), max_size=2),
    "languages": st.none() | st.lists(st.sampled_from(("zh", "en", "ja")), max_size=2),
    "adult": st.booleans(),
    "approved_only": st.booleans(),
    "exclude": st.lists(st.integers(0, 30).map(lambda number: f"s{number}"), max_size=5),
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


@pytest.mark.parametrize("name", ["packs", "tags", "languages", "exclude"])
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


# ---- what is put -------------------------------------------------------------------------------


def test_the_runs_own_stickers_put_into_a_gallery_answer_as_they_do_in_the_run(
    evaluated, encoder, gallery
):
    own = Retriever.from_workdir(evaluated.workdir)
    names = [one.sticker for one in own.reply(SAID, top_k=50).stickers]
    ledger = gallery.put([own.gallery.get(name) for name in names])
    assert (ledger.records_in, ledger.kept) == (len(names), len(names))
    opened = Retriever.from_workdir(evaluated.workdir, gallery)
    for conversation in (SAID, OTHER):
        expected = own.reply(conversation, top_k=50)
        found = opened.reply(conversation, top_k=50)
        by_id = {one.sticker: one.score for one in found.stickers}
        assert by_id == pytest.approx({o.sticker: o.score for o in expected.stickers}, abs=1e-5)
        assert found.intention_probabilities == expected.intention_probabilities
    again = opened.gallery.get(names[0])
    assert again.picture == own.gallery.picture(names[0])[0]
    assert again.attributes == own.gallery.get(names[0]).attributes


def untrained(system, trained, tmp_path, **changes):
    """A run of another system with parameters that were drawn."""
    tfds = str(trained.workdir / "tfds")
    config = tiny_config(trained.prepared, system, data__tfds_dir=tfds, **changes)
    run, rng = create_workdir(config, tmp_path / "run"), np.random.default_rng(0)

    def draw(leaf):
        return (0.2 * rng.standard_normal(leaf.shape)).astype(leaf.dtype)

    return run, jax.tree.map(draw, run.abstract_params)


@pytest.mark.parametrize("system", [srs, pcme])
def test_systems_with_more_than_one_vector_a_sticker_answer_through_the_same_gallery(
    system, trained, tmp_path
):
    changes = {"model__score": "match_prob"} if system is pcme else {}
    run, params = untrained(system, trained, tmp_path, **changes)
    own = Retriever(run, params)
    expected = own.reply(SAID, top_k=12)
    gallery = Gallery.open(tmp_path / "g", StickerEncoder(run, params), exact_up_to=4)
    assert gallery.put([own.gallery.get(one.sticker) for one in expected.stickers]).kept == 12
    found = Retriever(run, params, gallery).reply(SAID, top_k=12)
    assert len(ids(found)) == 12
    if system is srs:  # PCME draws for each sticker, by its row in the run and by its id here
        by_id = {one.sticker: one.score for one in expected.stickers}
        assert {o.sticker: o.score for o in found.stickers} == pytest.approx(by_id, abs=1e-4)
        with pytest.raises(ValueError, match="compares pairs"):
            own.similar(ids(found)[0])


def test_a_system_that_knows_the_stickers_of_its_training_alone_says_so(trained, tmp_path):
    run, params = untrained(mod, trained, tmp_path, model__head="id")
    with pytest.raises(ValueError, match="classifier over those of its training"):
        Retriever(run, params, tmp_path / "g")
    assert len(ids(Retriever(run, params).reply(SAID, top_k=3))) == 3


def broken():
    cut, untyped = drawn(3)[:-30], sticker(61)
    object.__setattr__(untyped, "attributes", {"verbal": 3})  # what no type checker has seen
    return {
        "no picture": sticker(50, picture=b""),
        "no picture that can be read": sticker(51, picture=cut),
        "tag with half a character": sticker(52, tags=("half \ud83d",)),
        "name with a NUL": sticker(53, name="a\0b"),
        "words of more than 1000 characters": sticker(54, words="x" * 1001),
        "intention that the run does not know": sticker(55, intentions={"glee": 0.5}),
        "intention whose probability is not in [0, 1]": sticker(56, intentions={"joy": np.nan}),
        "tag list that is no list of at most 100 texts": sticker(57, tags=("x",) * 101),
        "attribute that is none of gesture, posture, facial, verbal": sticker(
            58, attributes={"smell": "good"}
        ),
        "id that cannot be printed": dataclasses.replace(sticker(59), id="a\nb"),
        "id that is not of 1 to 200 characters": dataclasses.replace(sticker(59), id=""),
        "picture that is too large": sticker(60, picture=b"\x89PNG" + bytes(32 * 2**20)),
        "attribute that is no text": untyped,
        "replaced by a later sticker of the same id": sticker(62, tags=("first",)),
    }


def test_a_broken_sticker_is_left_out_with_its_reason_and_stops_no_other(gallery):
    bad = broken()
    progress = []
    whole = [*bad.values(), *(sticker(number) for number in range(3)), sticker(62, tags=("last",))]
    ledger = gallery.put(whole, lambda done, total: progress.append((done, total)))
    assert {name: reason.count for name, reason in ledger.left_out.items()} == dict.fromkeys(bad, 1)
    assert (ledger.records_in, ledger.kept, len(gallery)) == (len(whole), 4, 4)
    assert gallery.get("s62").tags == ("last",)
    assert progress == [(len(whole), len(whole))]


@pytest.mark.parametrize(
    ("form", "frames", "media_type"),
    [("JPEG", 1, "image/jpeg"), ("WEBP", 3, "image/webp"), ("GIF", 3, "image/gif")],
)
def test_other_formats_and_animations_are_kept_byte_for_byte(gallery, form, frames, media_type):
    content = drawn(5, form, frames)
    assert gallery.put([sticker(5, picture=content)]).kept == 1
    assert gallery.picture("s5") == (content, media_type)


@pytest.mark.parametrize(
    ("fields", "attributes"),
    [
        ({"emoji": ("👋",)}, {"gesture": "waving hand"}),
        ({"emoji": ("😭", "😂")}, {"facial": "loudly crying face, face with tears of joy"}),
        ({"emoji": ("🤷‍♀️",)}, {"gesture": "woman shrugging"}),
        ({"emoji": ("💃",)}, {"posture": "woman dancing"}),
        ({"emoji": ("🎉",), "name": "party"}, {"verbal": "party, party popper"}),
        ({"emoji": ("no emoji", "🫥🫥")}, {"facial": "dotted line face"}),
        ({"words": "早安"}, {"verbal": "早安"}),
        ({"attributes": {"facial": "a grin"}, "emoji": ("👋",)}, {"facial": "a grin"}),
        ({}, {}),
    ],
)
def test_attributes_that_nobody_gave_come_from_emoji_name_and_words(gallery, fields, attributes):
    gallery.put([sticker(1, **fields)])
    assert gallery.get("s1").attributes == dict.fromkeys(ATTRIBUTES, "") | attributes


def test_words_are_read_from_the_picture_and_their_language_from_their_letters(encoder, tmp_path):
    read = {
        drawn(1): "早安  大家",
        drawn(2): "good morning",
        drawn(3): "おはよう",
        drawn(4): "!? 3",
    }
    gallery = Gallery.open(tmp_path / "g", encoder, read_words=lambda content: read[content])
    gallery.put([sticker(number) for number in (1, 2, 3, 4)])
    found = {one.id: (one.words, one.language) for one in gallery.stickers()}
    assert found == {
        "s1": ("早安 大家", "zh"),
        "s2": ("good morning", "en"),
        "s3": ("おはよう", "ja"),
        "s4": ("!? 3", ""),
    }


def test_intentions_are_predicted_unless_they_are_given_and_are_part_of_the_score(gallery, encoder):
    names = encoder.run.dataset.intentions
    gallery.put([sticker(1, emoji=("😭",)), sticker(2, intentions={names[1]: 0.25}), sticker(3)])
    predicted, stated, unknown = (gallery.get(f"s{number}") for number in (1, 2, 3))
    assert not predicted.intentions_given and stated.intentions_given
    assert sum(predicted.intentions.values()) == pytest.approx(1, abs=1e-5)
    assert stated.intentions == {names[1]: 0.25}
    assert set(unknown.intentions.values()) == {0.0}  # nothing tells what it expresses
    known = encoder.encode([predicted, stated, unknown]).intentions
    assert known[1].tolist() == [0.25 * (name == names[1]) for name in names]


# ---- changes -----------------------------------------------------------------------------------


def test_change_takes_fields_and_names_everything_that_is_wrong_at_once(gallery):
    gallery.put([sticker(1, tags=("old",), words="早"), sticker(2)])
    before = gallery.row("s1")
    after = gallery.change("s1", tags=["new"], adult=True)
    assert (after.tags, after.adult, after.words) == (("new",), True, "早")
    np.testing.assert_allclose(gallery.row("s1"), before, atol=1e-6)  # no model reads tags
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
            expected[f"s{number}"] = [PACKS[pack], False, False]
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
        assert sum(gallery.packs().values()) == len(expected)
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


# ---- other checkpoints -------------------------------------------------------------------------


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
