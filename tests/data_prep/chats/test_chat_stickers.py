"""Sticker files: metadata taken off, copies merged; offensive messages left out and counted."""

import io
import json

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageDraw, PngImagePlugin

from benchmarks.sticker_copies import copies
from data_prep.chats import filter_offensive, pictures, step
from data_prep.chats.anonymise import anonymise
from data_prep.chats.collect import collect
from data_prep.chats.deduplicate import deduplicate, merge
from data_prep.formats.pictures import suffix_of
from int_ra_jax.data import images
from int_ra_jax.data.copies import MAX_BITS, MAX_COLOUR, Fingerprint


def picture(seed):
    """Draws a smooth random picture, unlike any of another seed."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    return Image.fromarray(small).resize((160, 160), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "JPEG"])
def test_metadata_is_taken_off_and_the_pixels_stay(form):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[0x013B] = "SECRET-ARTIST"
    note = PngImagePlugin.PngInfo()
    note.add_text("Comment", "SECRET-NOTE")
    more = {"pnginfo": note} if form == "PNG" else {"comment": b"SECRET"} if form == "JPEG" else {}
    buffer = io.BytesIO()
    lying = picture(1).crop((0, 0, 160, 80)).transpose(Image.Transpose.ROTATE_90)
    lying.save(buffer, form, exif=exif, lossless=True, **more)
    assert b"SECRET" in buffer.getvalue()
    cleaned = pictures.without_metadata(buffer.getvalue())
    assert b"SECRET" not in cleaned and b"Exif" not in cleaned
    before, after = (images.decode(one) for one in (buffer.getvalue(), cleaned))
    assert after.size == (160, 80)
    # JPEG has to be encoded anew to be turned; a level or two are its loss.
    tolerance = 6 if form == "JPEG" else 0
    np.testing.assert_allclose(np.asarray(before, int), np.asarray(after, int), atol=tolerance)
    assert pictures.without_metadata(cleaned) == cleaned


def test_transparency_becomes_white_and_rubbish_is_refused():
    buffer = io.BytesIO()
    Image.new("RGBA", (8, 8), (9, 9, 9, 0)).save(buffer, "PNG")
    frame = images.decode(buffer.getvalue())
    assert frame.getpixel((3, 3)) == (255, 255, 255) and suffix_of(buffer.getvalue()) == ".png"
    for rubbish in (b"", b"PK\x03\x04", buffer.getvalue()[:40]):
        with pytest.raises(ValueError, match="unreadable or truncated image"):
            images.decode(rubbish)


def test_scaled_and_compressed_copies_merge_and_other_pictures_do_not():
    originals = [picture(seed) for seed in range(6)]
    prints = [Fingerprint.of(image) for image in originals]
    assert merge(prints, MAX_BITS, MAX_COLOUR) == list(range(6))
    merged = total = 0
    for place, image in enumerate(originals):
        for copy in copies(image):
            chosen = merge([*prints, Fingerprint.of(copy)], MAX_BITS, MAX_COLOUR)[-1]
            assert chosen in (place, 6)
            merged, total = merged + (chosen == place), total + 1
    assert merged / total > 0.8


def test_pictures_that_differ_in_colour_alone_stay_apart():
    one = Image.new("RGB", (64, 64), "white")
    other = one.copy()
    one.paste((220, 30, 30), (16, 16, 48, 48))
    other.paste((30, 90, 30), (16, 16, 48, 48))
    prints = [Fingerprint.of(one), Fingerprint.of(other)]
    assert merge(prints, MAX_BITS, MAX_COLOUR) == [0, 1]
    assert merge(prints, 64, 255) == [0, 0]


def test_offensive_messages_are_counted_by_list_and_their_words_never_shown(tmp_path, caplog):
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "fruit.txt").write_text("# note\nbanan*\nbad pear\n", "utf-8")
    (lists / "zh.txt").write_text("香蕉\n", "utf-8")
    said = ["BANANAS!", "a bad  pear", "pear", "吃香蕉吗", "urban anatomy"]
    rows = [{"chat": "c", "time": i, "sender": "a", "text": t} for i, t in enumerate(said)]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, rows)))
    collect("jsonl", tmp_path / "c.jsonl", tmp_path / "one")
    anonymise(tmp_path / "one", tmp_path / "two", tmp_path / "salt")
    caplog.clear()
    counts = filter_offensive.filter_offensive(tmp_path / "two", tmp_path / "three", lists)
    assert counts == {"messages": 2, "left_out": {"fruit": 2, "zh": 1}}
    kept = [message.text for message in step.read_messages(tmp_path / "three", "")]
    assert kept == ["pear", "urban anatomy"]
    assert "anana" not in caplog.text + (tmp_path / "three/step.json").read_text()


def test_white_drawings_on_nothing_are_not_one_sticker(tmp_path):
    def draw_all(building):
        for name, draw in shapes.items():
            image = Image.new("RGBA", (120, 120), (0, 0, 0, 0))
            draw(ImageDraw.Draw(image))
            image.save(building / step.STICKERS / f"{name}.png")
        ball = Image.open(building / step.STICKERS / "ball.png")
        ball.resize((90, 90)).save(building / step.STICKERS / "ball, smaller.png")
        step.write_lines(building, step.CONTEXTS_FILE, ())
        step.write_report(building, {})
        return {}

    shapes = {
        "bar": lambda draw: draw.rectangle((10, 10, 30, 110), fill="white"),
        "ball": lambda draw: draw.ellipse((30, 20, 110, 100), fill="white"),
        "line": lambda draw: draw.line((5, 100, 115, 10), fill="#fafafa", width=12),
        "dark ball": lambda draw: draw.ellipse((30, 20, 110, 100), fill="black"),
        # Alike on white: a black corner, and a white caption that only a dark ground shows.
        "corner": lambda draw: draw.rectangle((0, 0, 50, 50), fill="black"),
        "corner, captioned": lambda draw: (
            draw.rectangle((0, 0, 50, 50), fill="black"),
            draw.rectangle((20, 80, 115, 110), fill="white"),
        ),
        "empty": lambda draw: None,
        "empty, too": lambda draw: draw.point((5, 5), fill=(255, 255, 255, 1)),
    }
    step.run_step("segment", "x", tmp_path / "segmented", {}, draw_all)
    counts = deduplicate(tmp_path / "segmented", tmp_path / "out")
    merged = [json.loads(line) for line in (tmp_path / "out/merged.jsonl").read_text().splitlines()]
    assert merged == [{"sticker": "ball.png", "merged_into": "ball, smaller.png"}]
    assert counts["stickers"] == len(shapes) + 1
