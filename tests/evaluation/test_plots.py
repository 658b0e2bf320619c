"""Pictures of the report: where attention was, and stickers that keep their shape."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from int_ra_jax.evaluation import plots


@settings(max_examples=25, deadline=None)
@given(hnp.arrays(np.float64, (7, 7), elements=st.floats(0, 0.2)), st.integers(0, 48))
def test_the_overlay_is_hottest_on_the_strongest_patch(attention, where):
    attention.flat[where] = 5.0
    image = Image.open(io.BytesIO(plots.heat_png(attention))).convert("RGBA")
    alpha = np.asarray(image)[..., 3].astype(float)
    row, column = np.unravel_index(alpha.argmax(), alpha.shape)
    side = alpha.shape[0] / 7
    assert (int(row / side), int(column / side)) == divmod(where, 7)


@pytest.mark.parametrize("level", [0.0, 1 / 49])
def test_flat_attention_stays_clear(level):
    attention = np.full((7, 7), level)
    image = Image.open(io.BytesIO(plots.heat_png(attention))).convert("RGBA")
    assert np.asarray(image)[..., 3].max() == 0
    assert plots.attention_peak(attention) == 1


@pytest.mark.parametrize("suffix", ["png", "gif", "webp"])
def test_thumbnails_are_square_on_white_and_never_stretched(tmp_path, suffix):
    path = tmp_path / f"wide.{suffix}"
    wide = Image.new("RGBA", (400, 200), (0, 0, 0, 0))
    wide.paste((200, 0, 0, 255), (0, 0, 200, 200))
    wide.save(path)
    image = Image.open(io.BytesIO(plots.thumbnail(path))).convert("RGB")
    assert image.size == (176, 176)
    red, right, above = (image.getpixel(at) for at in [(44, 88), (132, 88), (88, 10)])
    assert red[0] > 180 and red[1] < 40
    assert min(right) > 245 and min(above) > 245


def test_a_thumbnail_stands_upright_and_shows_what_is_white(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = Image.new("RGB", (40, 80), "white")
    lying.paste("red", (0, 40, 40, 80))  # upright it is at the left
    lying.save(tmp_path / "lying.jpg", exif=exif)
    image = Image.open(io.BytesIO(plots.thumbnail(tmp_path / "lying.jpg")))
    assert image.getpixel((10, 40))[1] < 60 and min(image.getpixel((70, 40))) > 200
    white = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    white.paste("white", (10, 10, 30, 30))
    white.save(tmp_path / "white.png")
    image = Image.open(io.BytesIO(plots.thumbnail(tmp_path / "white.png")))
    assert min(image.getpixel((20, 20))) > 240 and max(image.getpixel((2, 2))) < 120
    (tmp_path / "white.png").write_bytes(b"BM")
    with pytest.raises(ValueError, match=r"cannot read the sticker .*white\.png"):
        plots.thumbnail(tmp_path / "white.png")


def test_no_two_of_the_lines_of_a_table_look_alike():
    assert len({plots.line_style(number) for number in range(32)}) == 32
