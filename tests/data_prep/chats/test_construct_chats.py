"""From an export to a valid prepared directory, as a user runs it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep.chats import deduplicate, neutral
from data_prep.chats.construct import construct
from data_prep.problems import BadInputError
from int_ra_jax.data import schema
from int_ra_jax.data.validation import read_prepared, validate


@pytest.mark.parametrize("format", ["jsonl", "telegram", "whatsapp"])
def test_an_export_becomes_a_valid_directory_that_names_nobody(format, tmp_path, exports):
    source = exports.MAKERS[format](tmp_path / "export")
    construct(format, source, tmp_path / "out")
    assert validate(tmp_path / "out") == []
    written = "".join(
        path.read_text("utf-8") for path in (tmp_path / "out").iterdir() if path.is_file()
    )
    # Hashes are random, so that one of a hundred runs has four given digits in one of them.
    told = re.sub(r"[0-9a-f]{16,}", "", written)
    for secret in ("Alice", "Bob", "Wonder", "13800138000", "alice@example.com", "2021"):
        assert secret not in told, secret
    assert "[name]" in written and "[phone]" in written and "[email]" in written
    assert not (tmp_path / "out.steps").exists()
    salt = (tmp_path / "out.salt").read_text().strip()
    assert len(salt) == 64 and salt not in written


def test_no_two_splits_share_a_segment_or_a_text(tmp_path, exports):
    construct("jsonl", exports.jsonl(tmp_path / "export"), tmp_path / "out")
    prepared = read_prepared(tmp_path / "out")
    for key in (
        lambda one: one.extra["segment"],
        lambda one: tuple(turn.text.casefold() for turn in one.turns if turn.text),
    ):
        found = [{key(one) for one in prepared.conversations[split]} for split in schema.SPLITS]
        assert all(found)
        assert sum(map(len, found)) == len(set().union(*found))


def test_the_same_export_and_salt_give_the_same_bytes(tmp_path, exports):
    source = exports.telegram(tmp_path / "export")
    construct("telegram", source, tmp_path / "one")
    (tmp_path / "two.salt").write_bytes((tmp_path / "one.salt").read_bytes())
    construct("telegram", source, tmp_path / "two")
    assert schema.content_hash(tmp_path / "one") == schema.content_hash(tmp_path / "two")


def test_annotated_stickers_keep_their_intention_and_others_wait_for_one(tmp_path, exports):
    construct("jsonl", exports.jsonl(tmp_path / "export"), tmp_path / "out")
    prepared = read_prepared(tmp_path / "out")
    assert set(prepared.intentions) == {"amusement", "unlabelled"}


def test_another_construction_goes_on_behind_the_last_finished_step(tmp_path, monkeypatch, exports):
    source = exports.jsonl(tmp_path / "export")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(deduplicate, "merge", killed)
        with pytest.raises(KeyboardInterrupt):
            construct("jsonl", source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    before = (tmp_path / "out.steps/collect/step.json").stat().st_mtime_ns
    collected = tmp_path / "out.steps/collect/messages.jsonl"
    assert collected.is_file() and before
    with monkeypatch.context() as patched:
        patched.setattr(neutral, "read", killed)  # a finished step reads nothing
        construct("jsonl", source, tmp_path / "out")
    assert validate(tmp_path / "out") == []


def test_a_bad_export_writes_nothing_and_names_every_line(tmp_path, exports):
    source = exports.jsonl(tmp_path / "export")
    lines = (source / "chat.jsonl").read_text("utf-8").splitlines()
    lines[3] = lines[3][:-5]
    lines[7] = json.dumps({"chat": "a", "time": "yesterday", "sender": "b", "text": "c"})
    lines[9] = json.dumps({"chat": "a", "time": 1, "sender": "b", "sticker": "../../x.png"})
    lines[11] = json.dumps({"chat": "a", "time": 1, "sender": "b", "sticker": "none.png"})
    (source / "chat.jsonl").write_text("\n".join(lines))
    with pytest.raises(BadInputError) as raised:
        construct("jsonl", source, tmp_path / "out")
    assert [problem.line for problem in raised.value.problems] == [4, 8, 10, 12]
    assert not (tmp_path / "out").exists()


# Each step as `python -m` runs it, in a copy of one process, so that imports are paid for once.
RUNNER = """
import json, os, runpy, sys
import data_prep.chats.__main__
for arguments in json.loads(sys.argv[1]):
    if not os.fork():
        sys.argv = ["chats", *arguments]
        runpy.run_module("data_prep.chats", run_name="__main__")
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


def test_each_step_is_a_command_and_bad_input_is_one_message(tmp_path, exports):
    source = exports.whatsapp(tmp_path / "export")
    names = ("collected", "anonymised", "filtered", "segmented", "deduplicated", "out", "new")
    paths = [str(tmp_path / name) for name in names]
    commands = [
        ["collect", "--format=whatsapp", str(source), paths[0]],
        ["anonymise", f"--salt={tmp_path / 'salt'}", *paths[0:2]],
        ["filter_offensive", *paths[1:3]],
        ["segment", "--gap_minutes=60", *paths[2:4]],
        ["deduplicate", *paths[3:5]],
        ["split", "--valid=0.2", *paths[4:6]],
        ["split", "--valid=0.2", *paths[4:6]],
        ["segment", paths[0], paths[6]],
        ["split", "--valid=0.9", paths[4], paths[6]],
        ["segment", "--gap_minute=60", *paths[2:4]],
    ]
    result = subprocess.run(
        [sys.executable, "-c", RUNNER, json.dumps(commands)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[3],
    )
    assert result.stdout.split() == ["0"] * 7 + ["1", "1", "2"], result.stderr
    for message in (
        f"split: {paths[5]} is finished already",
        "the step 'collect'; expected the result of filter_offensive",
        "valid=0.9, test=0.1: both above 0, together below 1",
        "unrecognized arguments: --gap_minute=60. Did you mean --gap_minutes?",
    ):
        assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert validate(paths[5]) == []
    assert not Path(paths[6]).exists()


def test_an_export_that_is_not_there_leaves_nothing_behind(tmp_path):
    with pytest.raises(FileNotFoundError, match="no chat export"):
        construct("telegram", tmp_path / "nothing", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
