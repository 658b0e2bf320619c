"""Wrong input of every kind: one report with file and line, and nothing written.

Inputs that break an importer under tests/fuzz/fuzz_import.py belong here too.
"""

import base64
import json
import struct
import zlib

import pytest
from fuzz import releases
from PIL import Image

from data_prep.formats.importing import import_published
from data_prep.problems import SHOWN, BadInputError

TRAIN, IMAGES, LABELS = "train_contexts_total_key.jsonl", "train_imgs.tsv", "intent_label.txt"


def chunk(name, content):
    crc = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + crc


def png_bomb(width=60_000, height=60_000):
    """A picture of a few bytes that promises 3,600 million pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def text_bomb():
    """A picture whose comment unpacks to 64 MiB."""
    content = b"c\0\0" + zlib.compress(bytes(2**26))
    good = releases.picture(0)
    return good[:33] + chunk(b"zTXt", content) + good[33:]


def line(sticker, content):
    return f"{sticker}\t{base64.b64encode(content).decode()}\n".encode()


def changed(**changes):
    return (json.dumps(releases.row("train", 9, **changes)) + "\n").encode()


# file, what is appended to it, and what the report says of line 5 (labels: line 4)
APPENDED = {
    "broken JSON": (TRAIN, b'{"image_ids": [\n', "not JSON"),
    "deep JSON": (TRAIN, b'{"a":' * 100_000 + b"\n", "nested too deeply"),
    "deep list": (TRAIN, b"[" * 100_000 + b"\n", "nested too deeply"),
    "no object": (TRAIN, b"[1]\n", "expected an object"),
    "code": (TRAIN, b"__import__('os').system('touch /tmp/x')\n", "not JSON"),
    "lone surrogate": (TRAIN, changed(text="\tx\ud800[SEP]"), "not UTF-8"),
    "NUL byte": (TRAIN, b'{"a": "\0"}\n', "NUL byte"),
    "NUL in a text": (TRAIN, changed(text="\tx\0y[SEP]"), "NUL character"),
    "GBK": (TRAIN, '{"text": "表情"}\n'.encode("gbk"), "GB18030"),
    "unknown label": (TRAIN, changed(fined_intent="joyy"), "Did you mean 'joy'?"),
    "no label": (TRAIN, changed(fined_intent=None), "intention is None"),
    "unknown sticker": (TRAIN, changed(image_ids=["boba_9"]), "sticker 'boba_9' has no image"),
    "id that leaves": (TRAIN, changed(image_ids=["../boba_1"]), "unsafe as a file name"),
    "textid that leaves": (TRAIN, changed(textid="../../x"), "conversation's id"),
    "no sticker": (TRAIN, changed(image_ids=[]), "image_ids is []"),
    "sticker twice": (TRAIN, changed(image_ids=["boba_1"] * 2), "duplicate id 'train-9-boba_1'"),
    "row twice": (TRAIN, changed(textid=1, image_ids=["boba_1"]), f"first in {TRAIN}:2"),
    "text is a list": (TRAIN, changed(text=["a"]), "text is ['a']"),
    "no TAB": (TRAIN, changed(text="a[SEP]b[SEP]"), "empty context"),
    "blank turns": (TRAIN, changed(text="\t [SEP]\t[SEP]"), "empty context"),
    "three keywords": (TRAIN, changed(keyword="a,b,c"), "keyword has 3 parts"),
    "foreign keyword": (TRAIN, changed(keyword={"gesture": 1}), "keyword is {'gesture': 1}"),
    "comet of numbers": (TRAIN, changed(comet={"xWant": [1]}), "comet holds [1]"),
    "speaker is a number": (TRAIN, changed(speaker=3), "speaker is 3"),
    "base64": (IMAGES, b"boba_8\tAA*A\n", "base64 does not decode"),
    "no TAB in images": (IMAGES, b"boba_8\n", "found 0 TABs"),
    "two TABs": (IMAGES, b"boba_8\tAAAA\tAAAA\n", "found 2 TABs"),
    "image id that leaves": (IMAGES, line("../../boba_8", releases.picture(1)), "unsafe"),
    "hidden image": (IMAGES, line(".boba", releases.picture(1)), "unsafe"),
    "absolute image": (IMAGES, line("/etc/passwd", releases.picture(1)), "unsafe"),
    "image twice": (
        IMAGES,
        line("boba_1", releases.PICTURES["boba_1"]),
        "first in train_imgs.tsv:2",
    ),
    "other image": (IMAGES, line("boba_1", releases.picture(5)), "with another image"),
    "PNG bomb": (IMAGES, line("boba_8", png_bomb()), "decompression bomb"),
    "text bomb": (IMAGES, line("boba_8", text_bomb()), "unreadable or truncated"),
    "ZIP": (IMAGES, line("boba_8", b"PK\3\4" + bytes(40)), "unreadable or truncated"),
    "truncated": (IMAGES, line("boba_8", releases.picture(0)[:40]), "unreadable or truncated"),
    "SVG": (IMAGES, line("boba_8", b"<svg/>"), "unreadable or truncated"),
    "empty image": (IMAGES, b"boba_8\t\n", "unreadable or truncated"),
    "label without a name": (LABELS, b"3\t\tx\n", "name of the intention is ''"),
    "label without an id": (LABELS, b"three\tlove\tx\n", "expected id TAB name"),
    "label without columns": (LABELS, b"love\n", "expected id TAB name"),
    "label id twice": (LABELS, b"1\tlove\tx\n", "duplicate id 1, first on line 2"),
    "label twice": (LABELS, b"3\tJoy\tx\n", "duplicate name 'joy', first on line 2"),
    "label in GBK": (LABELS, "3\t爱\n".encode("gbk"), "not UTF-8"),
}


@pytest.mark.parametrize("kind", APPENDED)
def test_a_bad_line_is_reported_with_file_and_line_and_nothing_is_written(kind, tmp_path):
    name, content, message = APPENDED[kind]
    source = releases.stickerint(tmp_path / "in")
    with (source / name).open("ab") as file:
        file.write(content)
    with pytest.raises(BadInputError) as error:
        import_published("stickerint", source, tmp_path / "out")
    number = 4 if name == LABELS else 5
    (problem,) = [str(one) for one in error.value.problems]
    assert problem.startswith(f"{name}:{number}: ")
    assert message in problem
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


# file, what it is replaced with (None: it is removed), and how the report begins
REPLACED = {
    "no rows": (TRAIN, b"", f"{TRAIN}:0: file is empty"),
    "blank rows": (TRAIN, b"\n \n", "train:0: no usable conversation"),
    "rows missing": (TRAIN, None, f"{TRAIN}:0: file is missing"),
    "UTF-16 rows": (TRAIN, "{}".encode("utf-16"), f"{TRAIN}:1: file is UTF-16"),
    "UTF-16 labels": (LABELS, "0\tjoy".encode("utf-16"), f"{LABELS}:1: file is UTF-16"),
    "no labels": (LABELS, b"", f"{LABELS}:0: file is empty"),
    "UTF-16 images": (IMAGES, "a\tb".encode("utf-16"), f"{IMAGES}:1: file is UTF-16"),
}


@pytest.mark.parametrize("kind", REPLACED)
def test_a_bad_file_is_reported(kind, tmp_path):
    name, content, message = REPLACED[kind]
    source = releases.stickerint(tmp_path / "in")
    (source / name).unlink()
    if content is not None:
        (source / name).write_bytes(content)
    with pytest.raises(BadInputError) as error:
        import_published("stickerint", source, tmp_path / "out")
    assert any(str(one).startswith(message) for one in error.value.problems)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_every_problem_of_every_file_is_in_one_report(tmp_path):
    source = releases.stickerint(tmp_path / "in")
    for kind in ("broken JSON", "unknown sticker", "base64", "PNG bomb", "label twice"):
        name, content, _ = APPENDED[kind]
        with (source / name).open("ab") as file:
            file.write(content)
    with pytest.raises(BadInputError) as error:
        import_published("stickerint", source, tmp_path / "out")
    places = {(one.file, one.line) for one in error.value.problems}
    assert places == {(TRAIN, 5), (TRAIN, 6), (IMAGES, 5), (IMAGES, 6), (LABELS, 4)}


def test_a_bad_image_is_reported_once_and_not_for_each_of_its_uses(tmp_path):
    source = releases.stickerint(tmp_path / "in", pictures=releases.PICTURES | {"boba_0": b"x"})
    with pytest.raises(BadInputError) as error:
        import_published("stickerint", source, tmp_path / "out")
    files = [problem.file for problem in error.value.problems]
    assert files == ["train_imgs.tsv", "valid_imgs.tsv", "test_imgs.tsv"]


def test_a_file_of_rubbish_is_counted_and_not_kept(tmp_path):
    source = releases.stickerint(tmp_path / "in")
    (source / TRAIN).write_bytes(b"x\n" * 5000)
    with pytest.raises(BadInputError, match=r"and \d+ more") as error:
        import_published("stickerint", source, tmp_path / "out")
    assert error.value.total == 5001
    assert len(error.value.problems) == SHOWN


def test_without_a_label_file_the_intentions_are_those_that_occur(tmp_path):
    source = releases.stickerint(tmp_path / "in")
    (source / LABELS).unlink()
    import_published("stickerint", source, tmp_path / "out")
    assert (tmp_path / "out" / "intentions.txt").read_text() == "anger\njoy\nsadness\n"


def test_pictures_keep_their_bytes_and_get_the_ending_of_their_form(tmp_path):
    import_published("stickerint", releases.stickerint(tmp_path / "in"), tmp_path / "out")
    files = {path.name: path.read_bytes() for path in (tmp_path / "out" / "images").iterdir()}
    assert sorted(files) == ["boba_0.png", "boba_1.webp", "boba_2.jpg", "boba_3.gif"]
    assert all(files[name] == releases.PICTURES[name.split(".")[0]] for name in files)
    for path in (tmp_path / "out" / "images").iterdir():
        with Image.open(path) as image:
            assert image.format == {".jpg": "JPEG"}.get(path.suffix, path.suffix[1:].upper())
