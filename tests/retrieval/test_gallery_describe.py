"""What a describer sees in new stickers is kept with them; the gallery does not depend on it."""

import threading

import pytest
from fixtures.pictures import drawn, sticker
from hypothesis import given
from hypothesis import strategies as st

from int_ra_jax.common.types import ATTRIBUTES
from int_ra_jax.retrieval.completion import MAX_TEXT, completed, derived_attributes
from int_ra_jax.retrieval.description import Descriptions
from int_ra_jax.retrieval.gallery import Gallery

EMPTY = dict.fromkeys(ATTRIBUTES, "")
SEEN = {"gesture": "waving", "facial": "a grin"}
PICTURE = drawn(1)


class Describer:
    """Says what a test tells it to, and remembers which pictures it was asked about."""

    def __init__(self, says):
        self.says, self.asked = says, []

    def __call__(self, picture):
        self.asked.append(picture)
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


@pytest.fixture
def describer():
    return Describer(SEEN)


@pytest.fixture
def gallery(encoder, tmp_path, describer):
    return Gallery.open(tmp_path / "g", encoder, describe=describer)


def test_what_is_seen_is_found_and_not_given_and_what_is_not_is_derived(gallery, describer):
    gallery.put([sticker(1, emoji=("😭", "💃"), name="cat")])
    found = gallery.get("s1")
    assert found.attributes == SEEN | {"posture": "woman dancing", "verbal": "cat"}
    assert (found.attributes_given, found.attributes_described) == ((), ("gesture", "facial"))
    assert describer.asked == [drawn(1)]
    assert gallery.matches("waving", 9) == ["s1"]


def test_given_attributes_win_and_nobody_is_asked(gallery, describer):
    gallery.put([sticker(1, attributes={"verbal": "hi"}, emoji=("😭",))])
    found = gallery.get("s1")
    assert found.attributes == EMPTY | {"verbal": "hi"} and describer.asked == []
    assert (found.attributes_given, found.attributes_described) == (ATTRIBUTES, None)


def test_a_description_is_kept_as_long_as_the_picture_is_and_asked_for_once(
    gallery, describer, encoder
):
    gallery.put([sticker(1, emoji=("😭",), name="cat")])
    gallery.change("s1", tags=("x",), hidden=True)
    gallery.change("s1", name="dog", emoji=("💃",))
    gallery.put([sticker(1, words="hm")])
    found = gallery.change("s1", picture=drawn(1), attributes={"facial": "tears"})
    assert found.attributes == {
        "gesture": "waving", "posture": "woman dancing", "facial": "tears", "verbal": "dog, hm, x",
    }  # fmt: skip
    assert (found.attributes_given, found.attributes_described) == (("facial",), ("gesture",))
    # Whoever opens the gallery without a describer keeps what was seen.
    other = Gallery.open(gallery._store.uri, encoder)
    assert other.change("s1", name="owl").attributes["gesture"] == "waving"
    assert len(describer.asked) == 1


def test_another_picture_is_described_anew_by_put_and_change(gallery, describer, encoder):
    gallery.put([sticker(1, name="cat")])
    describer.says = {"posture": "lying"}
    gallery.put([sticker(1, picture=drawn(2))])
    assert gallery.get("s1").attributes == EMPTY | {"posture": "lying", "verbal": "cat"}
    gallery.change("s1", attributes={"facial": "tears"})
    describer.says = {"facial": "a grin", "gesture": "waving"}
    found = gallery.change("s1", picture=drawn(3))
    assert found.attributes == EMPTY | {"facial": "tears", "gesture": "waving", "verbal": "cat"}
    assert describer.asked == [drawn(1), drawn(2), drawn(3)]
    # What was seen in a picture does not outlast it.
    other = Gallery.open(gallery._store.uri, encoder)
    found = other.change("s1", picture=drawn(4))
    assert found.attributes == EMPTY | {"facial": "tears", "verbal": "cat"}
    assert found.attributes_described is None


def test_four_empty_attributes_are_all_found_again(gallery, describer):
    gallery.put([sticker(1, name="cat", attributes={"verbal": "hi"})])
    expected = EMPTY | SEEN | {"verbal": "cat"}
    assert gallery.change("s1", attributes=EMPTY).attributes == expected
    assert describer.asked == [drawn(1)]
    # The text in the place of what was seen is gone, so that this is asked for again.
    gallery.change("s1", attributes={"facial": "tears"})
    assert gallery.change("s1", attributes=EMPTY).attributes == expected


@pytest.mark.parametrize(
    "says", [OSError("a grin on 猫"), None, ["a grin"], {"facial": 3}, {"verbal": None}]
)
def test_who_fails_stops_no_put_leaves_what_is_derived_and_is_asked_by_the_next_put(
    says, gallery, describer, caplog
):
    describer.says = says
    assert gallery.put([sticker(1, emoji=("😭",), name="猫"), sticker(2)]).kept == 2
    found = gallery.get("s1")
    assert found.attributes == EMPTY | {"facial": "loudly crying face", "verbal": "猫"}
    assert found.attributes_described is None
    told = [one.getMessage() for one in caplog.records if "not described" in one.getMessage()]
    assert len(told) == 1 and told[0].startswith("2 stickers are not described (")
    assert "猫" not in caplog.text and "grin" not in caplog.text
    describer.says = SEEN
    gallery.change("s1", name="cat")
    assert len(describer.asked) == 2
    gallery.put([sticker(1)])
    assert gallery.get("s1").attributes == EMPTY | SEEN | {"verbal": "cat"}


def test_what_shows_nothing_is_not_asked_about_again(gallery, describer):
    describer.says = EMPTY
    gallery.put([sticker(1)])
    gallery.put([sticker(1, name="cat")])
    found = gallery.get("s1")
    assert (found.attributes_described, found.attributes["verbal"]) == ((), "cat")
    assert describer.asked == [drawn(1)]


def test_a_broken_picture_is_shown_to_nobody(gallery, describer):
    assert gallery.put([sticker(1, picture=b"GIF89a"), sticker(2, tags=("x",) * 101)]).kept == 0
    gallery.put([sticker(3)])
    with pytest.raises(ValueError, match="no picture that can be read"):
        gallery.change("s3", picture=b"GIF89a")
    with pytest.raises(KeyError):
        gallery.change("s4", picture=drawn(4))
    assert describer.asked == [drawn(3)]


def test_others_write_while_somebody_waits_for_a_description_which_is_asked_for_once(
    gallery, describer, encoder, monkeypatch
):
    gallery.put([sticker(1), sticker(2)])
    other, see = Gallery.open(gallery._store.uri, encoder), describer.__call__

    def slow(picture):
        written = threading.Thread(target=other.change, args=("s1",), kwargs={"tags": ("new",)})
        written.start()
        written.join(60)
        assert not written.is_alive()
        return see(picture)

    monkeypatch.setattr(gallery, "_describe", slow)
    assert gallery.put([sticker(1, picture=drawn(3))]).kept == 1
    found = gallery.get("s1")
    assert (found.tags, found.attributes["facial"]) == (("new",), "a grin")
    assert gallery.change("s1", picture=drawn(4)).attributes["facial"] == "a grin"
    assert describer.asked[2:] == [drawn(3), drawn(4)]


TEXTS = st.text(max_size=12) | st.just("x" * 2000) | st.sampled_from(["\0", " ", "\ud800", "a\nb"])
OF_ATTRIBUTES = st.dictionaries(st.sampled_from(ATTRIBUTES), TEXTS)


@given(
    says=st.dictionaries(st.sampled_from((*ATTRIBUTES, "colour")), TEXTS),
    named=OF_ATTRIBUTES.map(lambda one: {name: " ".join(text.split()) for name, text in one.items()
                                         if text.isprintable() and len(text) < 99}),
)  # fmt: skip
def test_each_attribute_is_what_was_given_else_what_is_seen_else_what_is_derived(says, named):
    given = tuple(name for name in ATTRIBUTES if name in named)
    new = sticker(1, picture=PICTURE, attributes=named, attributes_given=given, emoji=("😭",))
    made = completed(new, describe=Descriptions(lambda _: says).of)
    derived = derived_attributes(("😭",))
    for name in ATTRIBUTES:
        text = made.attributes[name]
        assert len(text) <= MAX_TEXT and text.encode() is not None and "\0" not in text
        if name in given:
            assert text == named[name]
        elif name in (made.attributes_described or ()):
            assert text and name in says
        else:
            assert text == derived[name]
    again = completed(made, describe=Descriptions(None).of)
    assert (again.attributes, again.attributes_described) == (
        made.attributes, made.attributes_described,
    )  # fmt: skip
