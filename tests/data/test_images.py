"""Decoding: one frame, on white, equal to the reference processor, and never without bounds."""

import importlib
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageDraw

from int_ra_jax.common.pixels import normalise
from int_ra_jax.data.grounds import DARK, ground_of
from int_ra_jax.data.images import (
    MAX_PIXELS,
    RESIZES,
    as_upright,
    decode,
    load_frames,
    load_pixels,
    oddities,
    traits,
)


def encoded(image, kind, **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


@pytest.fixture
def photo():
    values = np.random.default_rng(0).integers(0, 256, (61, 97, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((194, 122), Image.Resampling.BICUBIC)


def processor(name, **options):
    module = {
        "CLIPImageProcessorPil": "clip.image_processing_pil_clip",
        "ChineseCLIPImageProcessorPil": "chinese_clip.image_processing_pil_chinese_clip",
    }[name]
    return getattr(importlib.import_module(f"transformers.models.{module}"), name)(**options)


@pytest.mark.parity
@pytest.mark.parametrize("name", ["CLIPImageProcessorPil", "ChineseCLIPImageProcessorPil"])
@settings(max_examples=25, deadline=None)
@given(
    width=st.integers(1, 90), height=st.integers(1, 90), size=st.sampled_from([7, 32]),
    resize=st.sampled_from(RESIZES), seed=st.integers(0, 99),
)  # fmt: skip
def test_pixels_equal_the_reference_processors(name, width, height, size, resize, seed):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(values)
    square = {"height": size, "width": size}
    reference = (
        processor(name, size=square, do_center_crop=False)
        if resize == "squeeze"
        else processor(name, size={"shortest_edge": size}, crop_size=square)
    )
    raw = reference(image, do_rescale=False, do_normalize=False, return_tensors="np")
    pixels = load_pixels(encoded(image, "PNG"), size, resize=resize)
    np.testing.assert_array_equal(pixels, raw["pixel_values"][0].transpose(1, 2, 0))
    scaled = reference(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    np.testing.assert_allclose(normalise(pixels), scaled, atol=2e-6, rtol=0)


def test_a_crop_keeps_the_middle_and_a_squeeze_keeps_everything():
    image = Image.new("RGB", (60, 20), "white")
    image.paste((255, 0, 0), (0, 0, 10, 20))  # left of the middle square
    assert (load_pixels(encoded(image, "PNG"), 20, resize="crop") == 255).all()
    assert (load_pixels(encoded(image, "PNG"), 20)[:, :2] == (255, 0, 0)).all()


def test_a_crop_never_stretches_a_line_to_a_bomb():
    line = encoded(Image.new("L", (1_000_000, 1)), "PNG")
    assert load_pixels(line, 48).shape == (48, 48, 3)
    with pytest.raises(ValueError, match="long and thin"):
        load_pixels(line, 48, resize="crop")
    with pytest.raises(ValueError, match="resize is 'pad'"):
        load_pixels(line, 48, resize="pad")


def test_normalise_is_the_same_for_numpy_and_on_the_device(photo):
    pixels = load_pixels(encoded(photo, "PNG"), 32)[None]
    on_device = jax.jit(normalise)(jnp.asarray(pixels))
    assert on_device.dtype == jnp.float32
    np.testing.assert_allclose(normalise(pixels), on_device, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize("hidden", [(0, 0, 0), (255, 0, 0)])
def test_transparency_is_white_whatever_it_hides(kind, hidden):
    image = Image.new("RGBA", (20, 20), (*hidden, 0))
    image.paste((0, 0, 255, 255), (0, 0, 10, 20))
    pixels = load_pixels(encoded(image, kind, lossless=True), 20)
    assert (pixels[:, 12:] == 255).all()
    assert (pixels[:, :8] == (0, 0, 255)).all()


def test_half_transparent_colour_is_mixed_with_white():
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    np.testing.assert_allclose(load_pixels(encoded(image, "PNG"), 4), 127, atol=1)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK", "PA"])
def test_every_colour_mode_is_read(mode):
    kind = "JPEG" if mode == "CMYK" else "PNG"
    if mode == "I;16":
        image = Image.fromarray(np.full((8, 8), 65535, np.uint16))
    elif mode == "PA":
        image = Image.new("P", (8, 8), 1)
        image.putpalette([0, 0, 0, 255, 255, 255])
        image.info["transparency"] = 0
    else:
        image = Image.new("RGB", (8, 8), "white").convert(mode)
    assert (load_pixels(encoded(image, kind), 8) == 255).all()


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_the_stated_frame_of_an_animation_is_taken(kind):
    frames = [Image.new("RGB", (16, 16), (0, 0, 50 * n)) for n in range(5)]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
    assert load_pixels(content, 8, "first")[0, 0, 2] == pytest.approx(0, abs=3)
    assert load_pixels(content, 8, "middle")[0, 0, 2] == pytest.approx(100, abs=3)


@pytest.mark.parametrize(("total", "places"), [(1, [0, 0, 0]), (2, [0, 1, 1]), (9, [1, 4, 7])])
def test_frames_stand_evenly_in_an_animation(total, places):
    frames = [Image.new("RGB", (16, 16), (0, 0, 25 * n)) for n in range(total)]
    more = {"save_all": True, "append_images": frames[1:]} if total > 1 else {}
    found = load_frames(encoded(frames[0], "WEBP", lossless=True, **more), 8, 3)
    assert found.shape == (3, 8, 8, 3)
    assert [int(one[0, 0, 2]) for one in found] == [25 * place for place in places]


def test_a_still_image_has_its_first_frame_in_the_middle(photo):
    content = encoded(photo, "PNG")
    np.testing.assert_array_equal(load_pixels(content, 24), load_pixels(content, 24, "middle"))


def test_a_path_and_its_bytes_give_the_same(photo, tmp_path):
    (tmp_path / "x.png").write_bytes(encoded(photo, "PNG"))
    from_path = load_pixels(tmp_path / "x.png", 24)
    np.testing.assert_array_equal(from_path, load_pixels(encoded(photo, "PNG"), 24))
    np.testing.assert_array_equal(from_path, load_pixels(str(tmp_path / "x.png"), 24))


def test_what_is_too_large_or_of_no_known_kind_is_refused(photo):
    edge = int(MAX_PIXELS**0.5) + 10
    with pytest.raises(ValueError, match="decompression bomb"):
        decode(encoded(Image.new("1", (edge, edge)), "PNG"))
    for content, found in (
        (encoded(photo, "TIFF"), "it is TIFF"),
        (encoded(photo, "BMP"), "it is BMP"),
        (encoded(photo, "AVIF"), "it is HEIC or AVIF"),
        (b"\n<svg/>", "it is SVG"),
        (b"", "the file is empty"),
        (b"?", "no known format"),
    ):
        with pytest.raises(ValueError, match=f"unreadable.*{found}.*save it as PNG"):
            decode(content)
    with pytest.raises(ValueError, match="frame is 'last'"):
        decode(encoded(photo, "PNG"), "last")


# What a camera stores for a picture that is seen upright, by EXIF's table of orientations.
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def corners(mode="RGB"):
    image = Image.new("RGB", (48, 32), "white")
    image.paste("red", (0, 0, 24, 16))
    image.paste("blue", (24, 16, 48, 32))
    return image.convert(mode)


def near(one, other):
    difference = np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16))
    return one.size == other.size and difference.mean() < 8


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize(
    ("kind", "mode"),
    [("JPEG", "RGB"), ("JPEG", "CMYK"), ("PNG", "P"), ("PNG", "LA"), ("WEBP", "RGB")],
)
def test_a_picture_stands_as_its_exif_says_with_the_metadata_and_without(kind, mode, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Artist] = "SECRET"
    upright = corners(mode)
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(upright.transpose(STORED[orientation]), kind, exif=exif, **options)
    turned = as_upright(content)
    assert as_upright(turned) is turned != content
    for one in (content, turned):
        assert near(decode(one), upright.convert("RGB"))
    with Image.open(io.BytesIO(turned)) as image:  # as one sees it who reads no EXIF
        assert image.mode == mode and near(image.convert("RGB"), upright.convert("RGB"))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_every_frame_of_an_animation_stands_upright(kind):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    frames = [Image.new("RGB", (20, 40), (0, 0, 50 * n)) for n in range(3)]
    more = {"save_all": True, "append_images": frames[1:], "exif": exif, "duration": [40, 80, 120]}
    content = encoded(frames[0], kind, lossless=True, **more)
    turned = as_upright(content)
    assert traits(turned).frames == traits(content).frames == 3
    for one in (content, turned):
        middle = decode(one, "middle")
        assert middle.size == (40, 20) and abs(middle.getpixel((5, 5))[2] - 50) < 4


def test_an_animation_too_large_to_be_turned_is_refused(monkeypatch):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    frames = [Image.new("RGB", (20, 40), (0, 0, 50 * n)) for n in range(3)]
    content = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:], exif=exif)
    monkeypatch.setattr("int_ra_jax.data.images._TURNED", 2399)
    with pytest.raises(ValueError, match="cannot be turned upright"):
        as_upright(content)
    assert decode(content).size == (40, 20)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_metadata_neither_hide_a_picture_nor_how_it_stands():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    good = encoded(corners().transpose(STORED[6]), "JPEG", exif=exif)
    plain = encoded(corners(), "JPEG")
    start = good.index(b"Exif")
    for place in range(start, start + 32):
        broken = good[:place] + b"\xff" + good[place + 1 :]
        assert decode(broken).size in ((48, 32), (32, 48))
        assert decode(as_upright(broken)).size == decode(broken).size
    for wrong in (0, 1, 9, 65535):
        exif[ExifTags.Base.Orientation] = wrong
        content = encoded(corners(), "JPEG", exif=exif)
        assert as_upright(content) is content and near(decode(content), decode(plain))


def drawing(colour, mode="RGBA", on=(0, 0, 0, 0)):
    image = Image.new("RGBA", (64, 48), on)
    ImageDraw.Draw(image).ellipse((8, 8, 40, 40), fill=colour)
    return image if mode == "RGBA" else image.convert(mode)


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "RGBA"), ("PNG", "LA"), ("WEBP", "RGBA")])
@pytest.mark.parametrize("colour", ["white", "#f4f4f4", (255, 255, 255, 120)])
def test_what_white_would_hide_is_seen_on_a_dark_ground(kind, mode, colour):
    content = encoded(drawing(colour, mode), kind, lossless=True)
    seen = np.asarray(decode(content), np.int16)
    assert (seen[0, 0] == 105).all() and np.abs(seen[24, 24] - seen[0, 0]).min() > 6
    assert "hidden by white" in oddities(content)[0]
    assert (load_pixels(content, 32)[0, 0] == 105).all()


def test_a_palette_with_a_hole_has_the_same_ground():
    image = Image.new("P", (32, 32), 0)
    image.putpalette([9, 9, 9, 255, 255, 255])
    image.paste(1, (4, 4, 20, 20))
    for kind in ("PNG", "GIF"):
        seen = decode(encoded(image, kind, transparency=0))
        assert seen.getpixel((0, 0)) == (105,) * 3 and seen.getpixel((8, 8)) == (255,) * 3


def test_eyes_alone_do_not_make_a_white_drawing_seen():
    ghost = drawing("white")
    for left in (18, 27):
        ImageDraw.Draw(ghost).ellipse((left, 18, left + 3, 21), fill="black")
    assert decode(encoded(ghost, "PNG")).getpixel((0, 0)) == (105, 105, 105)


@pytest.mark.parametrize("colour", ["black", "gold", "#dddddd"])
def test_what_is_seen_on_white_stays_on_white(colour):
    framed, cut = drawing("white"), drawing("white")
    ImageDraw.Draw(framed).ellipse((8, 8, 40, 40), outline=colour, width=2)
    ImageDraw.Draw(cut).ellipse((12, 12, 36, 36), fill=colour)
    large = Image.new("RGBA", (900, 700), (0, 0, 0, 0))
    ImageDraw.Draw(large).ellipse((50, 50, 640, 640), fill="white", outline=colour, width=2)
    for image in (drawing(colour), framed, cut, large, drawing("white", on="white")):
        content = encoded(image, "PNG")
        assert decode(content).getpixel((0, 0)) == (255, 255, 255)
    assert oddities(encoded(drawing(colour), "PNG")) == []


@pytest.mark.parametrize(
    ("image", "ground"),
    [
        (drawing((0, 0, 0, 20)), "white"),  # on dark it would be seen less
        (drawing("#f5f5f5", on="white"), "white"),
        (drawing("#fafafa", "LA", on="#f0f0f0"), "white"),
        (drawing((255, 255, 255, 40)), DARK),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_faint_picture_has_the_ground_that_shows_more_and_is_warned_of(image, ground, kind):
    content = encoded(image, kind, lossless=True)
    assert traits(content).ground == ground and "shows little" in oddities(content)[0]


def test_a_soft_shadow_does_not_make_a_white_drawing_seen():
    shadow = drawing((0, 0, 0, 60), on=(0, 0, 0, 0)).transform(
        (64, 48), Image.Transform.AFFINE, (1, 0, -6, 0, 1, -6)
    )
    content = encoded(Image.alpha_composite(shadow, drawing("white")), "PNG")
    assert decode(content).getpixel((0, 0)) == (105, 105, 105)


def test_grey_of_16_bits_with_a_hole_is_seen_through():
    values = np.zeros((32, 32), np.uint16)
    values[8:24, 8:24] = 65535
    seen = decode(encoded(Image.fromarray(values), "PNG", transparency=0))
    assert seen.getpixel((0, 0)) == (105,) * 3 and seen.getpixel((16, 16)) == (255,) * 3


def test_what_shows_nothing_is_said_to():
    for image in (
        Image.new("RGBA", (8, 8)),
        Image.new("RGB", (8, 8), "red"),
        Image.new("L", (1, 1)),
    ):
        assert "shows nothing" in oddities(encoded(image, "PNG"))[0]
    grey = Image.fromarray(np.full((8, 8), 65535, np.uint16))
    assert ground_of(grey) != DARK and "shows nothing" in oddities(encoded(grey, "PNG"))[0]
