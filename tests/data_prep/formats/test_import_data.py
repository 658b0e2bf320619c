"""The command that imports data: every format end to end, and what it leaves behind."""

import json
import subprocess
import sys

import pytest
from fuzz import releases

from data_prep.formats.importing import import_published
from data_prep.problems import BadInputError
from int_ra_jax.data.validation import read_prepared, validate


def run(*arguments):
    command = [sys.executable, "-m", "data_prep.formats", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def beside(directory):
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("form", releases.WRITERS)
def test_every_published_format_becomes_a_valid_prepared_directory(form, tmp_path):
    if form == "stickerint-lmdb":
        pytest.importorskip("lmdb")
    import_published(form, releases.WRITERS[form](tmp_path / "in"), tmp_path / "out")
    assert validate(tmp_path / "out") == []
    prepared = read_prepared(tmp_path / "out")
    assert all(prepared.conversations.values())
    assert prepared.intentions == releases.LABELS
    assert len(prepared.stickers) == 4
    assert beside(tmp_path) == ["in", "out"]


def test_jsonl_and_lmdb_of_one_release_give_the_same_conversations(tmp_path):
    pytest.importorskip("lmdb")
    import_published("stickerint", releases.stickerint(tmp_path / "a"), tmp_path / "out_a")
    import_published(
        "stickerint-lmdb", releases.stickerint_lmdb(tmp_path / "b"), tmp_path / "out_b"
    )

    def stored(name):
        lines = (tmp_path / name / "conversations.jsonl").read_text().splitlines()
        # "response" is no field of the database.
        return [{k: v for k, v in json.loads(line).items() if k != "response"} for line in lines]

    assert stored("out_a") == stored("out_b")
    stickers = [(tmp_path / name / "stickers.jsonl").read_bytes() for name in ("out_a", "out_b")]
    assert stickers[0] == stickers[1]


def test_the_command_reports_everything_once_without_a_traceback_and_writes_nothing(tmp_path):
    source = releases.stickerint(tmp_path / "in")
    with (source / "train_contexts_total_key.jsonl").open("a") as file:
        file.write('{"image_ids": \n')
    (source / "intent_label.txt").write_text("0\tjoy\tx\n1\tanger\tx\n")
    result = run("--format=stickerint", source, tmp_path / "out")
    assert result.returncode == 1
    assert "train_contexts_total_key.jsonl:5: not JSON" in result.stderr
    assert "test_contexts_total_key.jsonl:3: intention 'sadness' is not in" in result.stderr
    assert "4 problems" in result.stderr
    assert "Traceback" not in result.stderr
    assert beside(tmp_path) == ["in"]


def test_the_command_writes_and_counts(tmp_path):
    result = run("--format=stickerint", releases.stickerint(tmp_path / "in"), tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert "4 test, 4 valid, 4 train conversations, 4 stickers" in result.stderr
    assert beside(tmp_path) == ["in", "out"]


def test_a_dry_run_reports_and_writes_nothing(tmp_path):
    source = releases.stickerint(tmp_path / "in")
    import_published("stickerint", source, tmp_path / "out", dry_run=True)
    (source / "train_imgs.tsv").write_text("")
    with pytest.raises(BadInputError, match=r"train_imgs\.tsv:0: file is empty"):
        import_published("stickerint", source, tmp_path / "out", dry_run=True)
    assert beside(tmp_path) == ["in"]


def test_a_target_that_holds_something_is_never_touched(tmp_path):
    source = releases.stickerint(tmp_path / "in")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("keep")
    with pytest.raises(FileExistsError, match="not empty"):
        import_published("stickerint", source, tmp_path / "out")
    assert beside(tmp_path / "out") == ["mine"]


def test_an_import_that_fails_while_writing_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("int_ra_jax.data.schema.describe_files", full)
    with pytest.raises(OSError, match="No space"):
        import_published("stickerint", releases.stickerint(tmp_path / "in"), tmp_path / "out")
    assert beside(tmp_path) == ["in"]


def test_what_a_killed_import_left_is_named_and_not_overwritten(tmp_path):
    (tmp_path / "out.importing").mkdir()
    with pytest.raises(FileExistsError, match=r"out\.importing is there"):
        import_published("stickerint", releases.stickerint(tmp_path / "in"), tmp_path / "out")
    assert beside(tmp_path) == ["in", "out.importing"]


def test_a_source_that_is_no_directory_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(FileNotFoundError, match="no directory"):
        import_published("mod", tmp_path / "absent", tmp_path / "out")
    assert beside(tmp_path) == []
