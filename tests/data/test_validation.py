"""Every kind of fault is found, with its file and line, in one run; and nothing goes silently."""

import io
import json
import struct
import zlib

import pytest
from fixtures.prepared import make_prepared_directory
from PIL import Image

from int_ra_jax.data import images, schema
from int_ra_jax.data.validation import PreparedDataError, inspect, read_prepared, validate

CONVERSATIONS, STICKERS = "conversations.jsonl", "stickers.jsonl"


@pytest.fixture
def directory(tmp_path):
    return make_prepared_directory(tmp_path / "d")


def edit(directory, file, line, change):
    """Applies ``change`` to the JSON object on a line (from 1) and restates the hashes."""
    lines = (directory / file).read_text().splitlines()
    record = json.loads(lines[line - 1])
    replaced = change(record)
    lines[line - 1] = json.dumps(record if replaced is None else replaced)
    (directory / file).write_text("\n".join(lines) + "\n")
    restate(directory)


def restate(directory):
    info = json.loads((directory / "dataset.json").read_text())
    info["files"] = schema.describe_files(directory)
    (directory / "dataset.json").write_text(json.dumps(info))


def sole_problem(directory):
    problems = validate(directory)
    assert len(problems) == 1, problems
    return problems[0]


def png_header(width, height):
    """A PNG that promises much and holds nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    start = struct.pack(">I", len(header)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + start + struct.pack(">I", 8) + b"IDAT"


def test_a_made_directory_is_valid(directory):
    assert validate(directory) == []
    prepared = read_prepared(directory)
    assert [len(prepared.conversations[split]) for split in schema.SPLITS] == [16, 4, 4]
    assert len(prepared.stickers) == 12
    assert prepared.info["name"] == "tiny"


def set_key(key, value):
    return lambda record: record.__setitem__(key, value)


CONVERSATION_FAULTS = {
    "missing key sticker": lambda r: r.pop("sticker") and None,
    "turns is a string, expected a list": set_key("turns", "hello"),
    "id is 7, expected a string": set_key("id", 7),
    "id is empty": set_key("id", ""),
    "unknown intention 'sadnes'. Did you mean 'sadness'": set_key("intention", "sadnes"),
    "unknown split 'validation'": set_key("split", "validation"),
    "turns[0].text is null, expected a string": lambda r: r["turns"][0].update(text=None),
    "turns[0] is a string, expected an object": set_key("turns", ["hello"]),
    "missing key turns[0].speaker": lambda r: r["turns"][0].pop("speaker") and None,
    "turns[0].sticker is 3": lambda r: r["turns"][0].update(sticker=3),
    "unknown sticker 'sticker_0011'. Did you mean": set_key("sticker", "sticker_0011"),
    "unknown sticker 'cat'": lambda r: r["turns"][0].update(sticker="cat"),
    "empty context": set_key("turns", []),
    "empty context: no turn": set_key("turns", [{"speaker": "a", "text": " "}]),
    "knowledge is a list, expected an object": set_key("knowledge", []),
    "knowledge.xNeed is a string, expected a list": set_key("knowledge", {"xNeed": "to go"}),
    "knowledge.xNeed holds something": set_key("knowledge", {"xNeed": [None]}),
    "expected a JSON object, found a list": lambda r: [1],
    "text is not UTF-8": lambda r: r["turns"][0].update(text="\ud800"),
    "duplicate id 'conversation_0000', first on line 1, in the same split": set_key(
        "id", "conversation_0000"
    ),
}


@pytest.mark.parametrize("message", CONVERSATION_FAULTS)
def test_a_faulty_conversation_is_reported_with_its_line(directory, message):
    edit(directory, CONVERSATIONS, 3, CONVERSATION_FAULTS[message])
    problem = sole_problem(directory)
    assert (problem.file, problem.line) == (CONVERSATIONS, 3)
    assert message in problem.message
    with pytest.raises(PreparedDataError, match=r"conversations.jsonl:3: "):
        read_prepared(directory)
    assert len(read_prepared(directory, skip_bad=True).conversations["train"]) == 15


STICKER_FAULTS = {
    "missing key image": lambda r: r.pop("image") and None,
    "attributes is a string": set_key("attributes", "smile"),
    "missing key attributes.facial": lambda r: r["attributes"].pop("facial") and None,
    "attributes.facial is null": lambda r: r["attributes"].update(facial=None),
    "tags is a string": set_key("tags", "cat"),
    "unknown intention 'joyy'. Did you mean 'joy'": set_key("intentions", ["joyy"]),
    "duplicate id 'sticker_000', first on line 1": set_key("id", "sticker_000"),
    "image 'images/none.png' does not exist": set_key("image", "images/none.png"),
    "path '/etc/x.png' leaves the directory": set_key("image", "/etc/x.png"),
    "path 'images/../../x.png' leaves the directory": set_key("image", "images/../../x.png"),
}


@pytest.mark.parametrize("message", STICKER_FAULTS)
def test_a_faulty_sticker_is_reported_with_its_line(directory, message):
    edit(directory, STICKERS, 2, STICKER_FAULTS[message])
    # A new id leaves the conversations of the old one without a sticker.
    problem = next(p for p in validate(directory) if p.file == STICKERS)
    assert problem.line == 2
    assert message in problem.message


def animated_gif():
    frames = [Image.new("RGB", (30, 30), (9 * n, 200 - 9 * n, 7)) for n in range(6)]
    content = io.BytesIO()
    frames[0].save(content, "GIF", save_all=True, append_images=frames[1:])
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda png: png[: len(png) // 2], "unreadable or truncated"),
        (lambda png: b"not an image", "unreadable or truncated"),
        (lambda png: b"", "unreadable or truncated"),
        (lambda png: b"%!PS-Adobe-3.0 EPSF-3.0\n", "unreadable or truncated"),
        (lambda png: png_header(6_400, 6_400), "decompression bomb"),
        (lambda png: png_header(100_000, 100_000), "decompression bomb"),
        (lambda png: bytes(images.MAX_BYTES + 1), "bytes"),
    ],
)
def test_a_bad_image_is_reported_with_the_line_of_its_sticker(directory, content, message):
    path = directory / "images/sticker_004.png"
    path.write_bytes(content(path.read_bytes()))
    restate(directory)
    problem = sole_problem(directory)
    assert (problem.file, problem.line) == (STICKERS, 5)
    assert message in problem.message


def test_a_link_out_of_the_directory_is_reported(directory, tmp_path):
    path = directory / "images/sticker_004.png"
    path.rename(tmp_path / "outside.png")
    path.symlink_to(tmp_path / "outside.png")
    assert "leaves the directory" in sole_problem(directory).message


def test_a_conversation_in_two_splits_is_found_by_id_and_by_text(directory):
    lines = (directory / CONVERSATIONS).read_text().splitlines()
    copy = json.loads(lines[0]) | {"split": "test"}
    renamed = copy | {"id": "another"}
    within = json.loads(lines[0]) | {"id": "repeated"}
    records = [*lines, *(json.dumps(record) for record in (copy, renamed, within))]
    (directory / CONVERSATIONS).write_text("\n".join(records) + "\n")
    restate(directory)
    by_id, by_text = validate(directory)  # the repetition within train is no fault
    assert (by_id.line, by_text.line) == (25, 26)
    assert (
        "duplicate id 'conversation_0000', first on line 1, in split 'train' too" in by_id.message
    )
    assert "the same text as line 1 of split 'train'" in by_text.message


def test_lines_that_cannot_be_read_do_not_hide_those_that_can(directory):
    content = (directory / CONVERSATIONS).read_bytes().splitlines(keepends=True)
    content[1] = b'{"id": \n'
    content[2] = b'{"id": "\xff\xfe"}\n'
    content[3] = b"[" * 100_000 + b"\n"
    (directory / CONVERSATIONS).write_bytes(b"".join(content))
    restate(directory)
    problems = validate(directory)
    assert [problem.line for problem in problems] == [2, 3, 4]
    assert ["JSON" in p.message or "UTF-8" in p.message for p in problems] == [True] * 3


@pytest.mark.parametrize(
    "file", ["conversations.jsonl", "stickers.jsonl", "intentions.txt", "dataset.json"]
)
def test_a_missing_file_is_reported(directory, file):
    (directory / file).unlink()
    assert any(p.file == file and "missing" in p.message for p in validate(directory))
    with pytest.raises(PreparedDataError):
        read_prepared(directory)


def test_faults_of_the_other_files_are_reported(directory):
    with (directory / "intentions.txt").open("ab") as file:
        file.write(b"joy\n\xff\n")
    messages = [str(problem) for problem in validate(directory)]
    assert any(
        "intentions.txt:5: duplicate intention 'joy', first on line 1" in m for m in messages
    )
    assert any("intentions.txt:6: text is not UTF-8" in m for m in messages)
    assert any("dataset.json:0: files.intentions.txt.sha256 is" in m for m in messages)
    (directory / "dataset.json").write_text('{"name": "x",\n "version": }')
    assert any(m.startswith("dataset.json:2: not JSON") for m in map(str, validate(directory)))
    (directory / "dataset.json").write_text('{"name": "x"}')
    assert any("dataset.json:0: missing key licence" in m for m in map(str, validate(directory)))


def test_an_image_that_changed_unnoticed_is_a_hash_mismatch(directory):
    path = directory / "images/sticker_000.png"
    path.write_bytes((directory / "images/sticker_001.png").read_bytes())
    assert "files.images.sha256 is" in sole_problem(directory).message


def test_one_error_lists_fifty_problems_and_counts_the_rest(tmp_path):
    directory = make_prepared_directory(tmp_path / "d", num_conversations=90)
    lines = (directory / CONVERSATIONS).read_text().replace('"intention": "', '"intention": "not_')
    (directory / CONVERSATIONS).write_text(lines)
    restate(directory)
    with pytest.raises(PreparedDataError) as caught:
        read_prepared(directory)
    assert len(caught.value.problems) == 93  # each line, and each split that is empty now
    assert str(caught.value).count("unknown intention") + str(caught.value).count("no valid") == 50
    assert "and 43 more" in str(caught.value)


def test_leaving_out_a_sticker_leaves_out_and_names_its_conversations(directory):
    lost = read_prepared(directory).conversations["train"][0].sticker
    (directory / f"images/{lost}.png").write_bytes(b"broken")
    restate(directory)
    found = inspect(directory)
    assert len(found.problems) == 1
    ids = {s.id for s in found.prepared.stickers}
    kept = [c for split in found.prepared.conversations.values() for c in split]
    assert lost not in ids
    assert {c.sticker for c in kept} <= ids
    users = [line for line in found.left_out if f"its sticker {lost!r} is left out" in line]
    assert users
    assert len(kept) + len(users) == 24


def test_a_readable_animation_is_no_problem(directory):
    (directory / "images/sticker_004.gif").write_bytes(animated_gif())
    edit(directory, STICKERS, 5, set_key("image", "images/sticker_004.gif"))
    assert validate(directory) == []
