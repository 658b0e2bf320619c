"""The store of answers, and stickers as models and the OCR see them."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from data_prep.extraction.frames import Picture, sampled
from data_prep.extraction.ocr import StickerReader
from data_prep.extraction.store import ResultStore, Shard, digest_of, model_identity

VALUES = st.recursive(
    st.none() | st.integers() | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)  # each result is synced to the disk
@given(st.dictionaries(st.text("abc", min_size=1), VALUES, max_size=6), st.data())
def test_a_file_cut_anywhere_keeps_every_whole_result(tmp_path_factory, results, data):
    folder = tmp_path_factory.mktemp("store")
    with ResultStore(folder, "kind") as store:
        store.add(list(results.items()), model="m", prompt="p")
        assert {key: store[key] for key in results} == results
    file = folder / "kind.jsonl"
    content = file.read_bytes()
    file.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    whole = file.read_bytes().count(b"\n")
    with ResultStore(folder, "kind") as store:
        assert len(store) == whole
        assert all(store[key] == results[key] for key in results if key in store)
        store.add([("new", 1)], model="m", prompt="p")
    assert len([json.loads(line) for line in file.read_bytes().splitlines()]) == whole + 1


def test_a_line_that_is_no_result_is_passed_over(tmp_path, caplog):
    (tmp_path / "kind.jsonl").write_bytes(
        b'{"key": "a", "value": 1}\nrubbish\n[]\n{"key": 3, "value": 1}\n\xff\n'
        b'{"key": "b", "value": 2}\n'
    )
    with ResultStore(tmp_path, "kind") as store:
        assert len(store) == 2 and store["a"] == 1 and store["b"] == 2


def test_two_runs_of_one_shard_are_refused_and_of_two_shards_are_not(tmp_path):
    with ResultStore(tmp_path, "kind", Shard(1, 2)) as one:
        one.add([("a", 1)], model="m", prompt="p")
        with ResultStore(tmp_path, "kind", Shard(2, 2)) as two:
            assert two["a"] == 1
        with (
            pytest.raises(ValueError, match="another run writes"),
            ResultStore(tmp_path, "kind", Shard(1, 2)),
        ):
            pass


@given(st.integers(1, 12), st.text())
def test_each_content_belongs_to_exactly_one_shard(count, text):
    shards = [Shard.parse(f"{index}/{count}") for index in range(1, count + 1)]
    assert sum(shard.owns(digest_of(text)) for shard in shards) == 1


@pytest.mark.parametrize("text", ["", "0/2", "3/2", "1/0", "1", "a/b", "-1/2", "1/2/3"])
def test_a_shard_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="i/n"):
        Shard.parse(text)


def test_a_model_is_known_by_its_files_and_not_by_its_place(tmp_path):
    for name, weights in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_bytes(weights)
    a, b, c = (model_identity(tmp_path / name) for name in "abc")
    assert a == b != c
    with pytest.raises(FileNotFoundError, match="holds no model"):
        model_identity(tmp_path)


@given(st.integers(1, 1000), st.integers(1, 50))
def test_sampled_frames_are_distinct_in_order_and_inside(total, wanted):
    frames = sampled(total, wanted)
    assert len(frames) == min(total, wanted) and frames == sorted(set(frames))
    assert frames[0] >= 0 and frames[-1] < total


def test_an_animation_is_shown_by_frames_and_its_holes_by_the_ground(tmp_path):
    frames = [Image.new("RGBA", (90, 75), (level, 0, 0, 255)) for level in (10, 90, 170, 250)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    picture = Picture.of(tmp_path / "a.webp", frames=2, side=45)
    shown = picture.load()
    assert picture.shown == len(shown) == 2 and shown[0].size == (45, 38)
    assert [image.getpixel((5, 5))[0] for image in shown] == [90, 250]
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "b.png")
    hole = Picture.of(tmp_path / "b.png", 4, 64)
    assert hole.is_transparent() and hole.load()[0].getpixel((1, 1)) == (255, 255, 255)
    assert not picture.is_transparent()


@pytest.mark.parametrize("size", [(1, 1), (1000, 2), (2, 1000), (20, 12), (3000, 40)])
def test_a_model_is_shown_nothing_too_small_or_too_thin_for_it(size, tmp_path):
    Image.new("RGB", size, "red").save(tmp_path / "a.png")
    picture = Picture.of(tmp_path / "a.png", frames=4, side=768)
    (shown,) = picture.load()
    assert min(shown.size) >= 32 and max(shown.size) <= 50 * min(shown.size)
    assert shown.getpixel(((shown.width - 1) // 2, (shown.height - 1) // 2)) == (255, 0, 0)
    # Another answer than the one to the bare picture: its key is another one.
    assert picture.key == (picture.digest, 4, 768, "padded")


def test_only_a_picture_that_is_shown_otherwise_than_it_lies_has_another_key(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 8
    wide, white = Image.new("RGB", (80, 40), "red"), Image.new("RGBA", (80, 40), (0, 0, 0, 0))
    white.paste("white", (10, 10, 30, 30))
    wide.save(tmp_path / "plain.png")
    wide.save(tmp_path / "lying.jpg", exif=exif)
    white.save(tmp_path / "white.png")
    Image.fromarray(np.full((40, 80), 65535, np.uint16)).save(tmp_path / "deep.png")
    pictures = {path.name: Picture.of(path, 4, 768) for path in tmp_path.iterdir()}
    assert {name: picture.key[3:] for name, picture in pictures.items()} == {
        "plain.png": (), "lying.jpg": ("upright",), "white.png": ("dimgray",), "deep.png": (),
    }  # fmt: skip
    assert pictures["lying.jpg"].load()[0].size == (40, 80)
    assert [name for name, one in pictures.items() if one.is_transparent()] == ["white.png"]
    (tmp_path / "plain.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"plain\.png"):
        pictures["plain.png"].load()


@given(st.text("ab晚8 ", min_size=1, max_size=4), st.floats(0.7, 1))
def test_little_writing_needs_more_confidence_than_much(text, confidence):
    reader = StickerReader.__new__(StickerReader)  # without the models
    reader._engine = lambda _: SimpleNamespace(txts=(text,), scores=(confidence,))
    read, _ = reader.read_image(Image.new("RGB", (4, 4)))
    signs = len(text.replace(" ", ""))
    least = {0: 2, 1: 0.995, 2: 0.95}.get(signs, 0.7)
    assert read == (text.strip() if confidence >= least else "")


def test_the_ocr_reads_light_and_dark_words_on_nothing(tmp_path):
    pytest.importorskip("rapidocr", reason="reading words needs rapidocr")
    pytest.importorskip("onnxruntime", reason="reading words needs onnxruntime")
    reader = StickerReader()
    for colour in ("black", "white"):
        image = Image.new("RGBA", (240, 120), (0, 0, 0, 0))
        font = ImageFont.load_default(size=36)
        ImageDraw.Draw(image).text((20, 40), "HELLO YOU", fill=colour, font=font)
        image.save(tmp_path / "a.png")
        read = reader.read(Picture.of(tmp_path / "a.png", 1, 768))
        assert read.replace(" ", "") == "HELLOYOU"
    Image.new("RGBA", (240, 120), (0, 0, 0, 0)).save(tmp_path / "a.png")
    assert reader.read(Picture.of(tmp_path / "a.png", 1, 768)) == ""
