"""What is put into a gallery is found, with what was found out of it."""

import dataclasses

import jax
import numpy as np
import pytest
from fixtures.galleries import OTHER, SAID, ids
from fixtures.pictures import drawn, sticker
from fixtures.trained import tiny_config

from configs import mod, pcme, srs
from int_ra_jax.common.types import ATTRIBUTES
from int_ra_jax.retrieval import gallery as gallery_module
from int_ra_jax.retrieval.gallery import Gallery
from int_ra_jax.retrieval.retriever import Retriever
from int_ra_jax.retrieval.sticker_encoder import StickerEncoder
from int_ra_jax.training.create import create_workdir


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
    system, trained, tmp_path, monkeypatch
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
        # No loss of these pairs has a temperature, and there is no vector to have a width.
        assert own._engine.scale == 1.0 and own.width == 0
        # A gallery that is full takes what it has already, and nothing else.
        monkeypatch.setattr(gallery_module, "_PAIRS", 12 * gallery.encoder.layout.width)
        there = [gallery.get(one) for one in ids(found)]
        assert gallery.put([*there, there[0]]).kept == 12
        with pytest.raises(ValueError, match=r"13 stickers .* at most 12"):
            gallery.put([*there, sticker(1)])


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
        ({"tags": ("猫", "cat")}, {"verbal": "猫, cat"}),
        # A pack's tags repeat its emoji and the sticker's name.
        (
            {"tags": ("👋", "hello", "cat"), "emoji": ("👋",), "name": "hello"},
            {"gesture": "waving hand", "verbal": "hello, cat"},
        ),
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


# ---- what is put again ---------------------------------------------------------------------------


def test_a_sticker_that_is_put_again_keeps_what_is_not_given(gallery, encoder):
    name = encoder.run.dataset.intentions[1]
    first = sticker(
        1, pack="cats", name="cat", tags=("猫",), emoji=("😭",), words="hm", language="de",
        attributes={"facial": "a grin"}, intentions={name: 0.5},
        adult=True, approved=True, hidden=True,
    )  # fmt: skip
    gallery.put([first])
    before = gallery.get("s1")
    gallery.put([sticker(1)])
    assert gallery.get("s1") == before
    assert gallery.put([sticker(1, picture=drawn(9), tags=("犬",))]).kept == 1
    again = {"picture": drawn(9), "tags": ("犬",)}
    after = gallery.get("s1")
    assert after == dataclasses.replace(before, **again, looks=after.looks)
    assert after.looks != before.looks
    # What is named is replaced, though it says nothing.
    gallery.put([sticker(1)], given=lambda one: ("adult", "tags", "intentions"))
    found = gallery.get("s1")
    assert (found.adult, found.tags, found.intentions_given) == (False, (), False)
    assert (found.approved, found.hidden, found.pack, found.emoji) == (True, True, "cats", ("😭",))
    # What is left out leaves what is there.
    assert gallery.put([sticker(1, picture=b"GIF89a", tags=("new",))]).kept == 0
    assert gallery.get("s1") == found


def test_what_is_changed_while_a_put_embeds_is_not_lost(gallery, encoder, monkeypatch):
    gallery.put([sticker(1, tags=("old",))])
    other, encode, begun = Gallery.open(gallery._store.uri, encoder), encoder.encode, []

    def hidden_meanwhile(some):
        if not begun:
            begun.append(True)
            other.change("s1", hidden=True, tags=("new",))
        return encode(some)

    monkeypatch.setattr(encoder, "encode", hidden_meanwhile)
    assert gallery.put([sticker(1, name="cat")]).kept == 1
    found = gallery.get("s1")
    assert (found.hidden, found.tags, found.name) == (True, ("new",), "cat")
    assert gallery.row("s1").tolist() == encode([found]).rows[0].tolist()


def test_what_was_found_out_of_a_sticker_is_found_anew_and_what_was_given_stays(gallery):
    gallery.put(
        [sticker(1, emoji=("😭",), name="cat"), sticker(2, attributes={"facial": "a grin"})]
    )
    empty = dict.fromkeys(ATTRIBUTES, "")
    waving = gallery.change("s1", emoji=("👋",))
    assert waving.attributes == empty | {"gesture": "waving hand", "verbal": "cat"}
    renamed = gallery.change("s1", name="dog", tags=("x",), words="早安")
    assert renamed.attributes == empty | {"gesture": "waving hand", "verbal": "dog, 早安, x"}
    assert renamed.language == "zh"
    gallery.put([sticker(1, emoji=("💃",))])
    assert gallery.get("s1").attributes == empty | {
        "posture": "woman dancing",
        "verbal": "dog, 早安, x",
    }
    assert gallery.matches("waving", 9) == [] and gallery.matches("dancing", 9) == ["s1"]
    given = gallery.change("s2", emoji=("👋",), name="bird").attributes
    assert given == empty | {"facial": "a grin"}


def test_of_attributes_that_are_changed_the_others_stay_given_or_found(gallery):
    gallery.put(
        [
            sticker(1, emoji=("😭",), name="cat"),
            sticker(2, emoji=("😭",), name="cat", attributes={"facial": "a grin"}),
        ]
    )
    empty = dict.fromkeys(ATTRIBUTES, "")
    change = {"posture": "lying"}
    found = gallery.change("s1", attributes=change)
    assert found.attributes == empty | change | {"facial": "loudly crying face", "verbal": "cat"}
    assert found.attributes_given == ("posture",)
    # What nobody gave follows what it is found from; what was given does not, though it is empty.
    assert gallery.change("s1", attributes={"verbal": ""}).attributes["verbal"] == ""
    found = gallery.change("s1", emoji=("👋",), name="dog")
    assert found.attributes == empty | change | {"gesture": "waving hand"}
    gallery.put([sticker(1, emoji=("💃", "😭"))])
    assert gallery.get("s1").attributes == empty | change | {"facial": "loudly crying face"}
    assert gallery.change("s1", attributes=empty).attributes == empty | {
        "posture": "woman dancing", "facial": "loudly crying face", "verbal": "dog",
    }  # fmt: skip
    # Of a sticker that was put with one, all four are given.
    found = gallery.change("s2", attributes={"verbal": "hi"}, emoji=("👋",))
    assert found.attributes == empty | {"facial": "a grin", "verbal": "hi"}
    assert found.attributes_given == ATTRIBUTES


def test_words_that_were_read_are_read_again_from_another_picture(encoder, tmp_path):
    read = {drawn(1): "早安", drawn(2): "good morning", drawn(3): ""}
    gallery = Gallery.open(tmp_path / "g", encoder, read_words=lambda content: read[content])
    gallery.put([sticker(1), sticker(2, words="given")])
    found = gallery.change("s1", picture=drawn(2))
    assert (found.words, found.language, found.attributes["verbal"]) == (
        "good morning", "en", "good morning",
    )  # fmt: skip
    assert gallery.change("s1", picture=drawn(3)).attributes["verbal"] == ""
    assert gallery.change("s2", picture=drawn(3)).words == "given"


def test_after_warming_no_put_of_one_sticker_compiles(gallery, monkeypatch):
    encoder = gallery.encoder
    encoder.warm()
    sizes = {
        "texts": encoder._encoder._means._cache_size(),
        "rows": encoder._encoder._encode_rows._cache_size(),
    }
    for number, name in enumerate(("", "a", "a b c d e f g h i j k l m n", "word " * 60)):
        gallery.put([sticker(number, name=name, emoji=("👋",))])
    assert encoder._encoder._means._cache_size() == sizes["texts"] > 0
    assert encoder._encoder._encode_rows._cache_size() == sizes["rows"] > 0
