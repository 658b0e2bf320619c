"""The command line of validation."""

import subprocess
import sys

from fixtures.prepared import make_prepared_directory

from int_ra_jax.data.validation import validate


def run(*arguments):
    command = [sys.executable, "-m", "data_prep.describe", "validate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_valid_directory_exits_with_zero_and_counts(tmp_path):
    result = run(make_prepared_directory(tmp_path / "d"))
    assert result.returncode == 0, result.stderr
    assert "0 problems; good: 16 train, 4 valid, 4 test conversations, 12 stickers" in result.stdout


def test_problems_exit_with_one_and_a_cleaned_copy_is_valid(tmp_path):
    directory = make_prepared_directory(tmp_path / "d")
    lines = (directory / "conversations.jsonl").read_text().splitlines()
    lines[3] = lines[3].replace('"intention"', '"intent"')
    (directory / "conversations.jsonl").write_text("\n".join(lines) + "\n")
    result = run(directory)
    assert result.returncode == 1
    assert "conversations.jsonl:4: missing key intention" in result.stdout
    cleaned = run(directory, f"--skip-bad={tmp_path / 'clean'}")
    assert cleaned.returncode == 0, cleaned.stderr
    assert "left out: conversations.jsonl:4: 'conversation_0003'" in cleaned.stdout
    assert validate(tmp_path / "clean") == []
    assert len((tmp_path / "clean/conversations.jsonl").read_text().splitlines()) == 23
