"""The command line of validation."""

import subprocess
import sys

from fixtures.prepared import make_prepared_directory
from PIL import Image, ImageDraw

from data_prep.describe import validate as command
from int_ra_jax.data import schema
from int_ra_jax.data.validation import read_prepared, validate


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


def test_pictures_of_which_nothing_is_seen_are_warned_of_and_kept(tmp_path, capsys):
    prepared = read_prepared(make_prepared_directory(tmp_path / "d", num_stickers=4))
    white = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    white.save(tmp_path / "empty.png")
    ImageDraw.Draw(white).ellipse((10, 10, 50, 50), fill="white")
    white.save(tmp_path / "white.png")
    pictures = {s.image: prepared.path / s.image for s in prepared.stickers}
    pictures |= {"images/sticker_001.png": tmp_path / "white.png"}
    pictures |= {"images/sticker_002.png": tmp_path / "empty.png"}
    conversations = [c for split in schema.SPLITS for c in prepared.conversations[split]]
    schema.write_prepared(
        tmp_path / "new", conversations, prepared.stickers, prepared.intentions, prepared.info,
        pictures,
    )  # fmt: skip
    command.validate(tmp_path / "new")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("'")[0::2] for line in lines[:-1]] == [
        ["warning: stickers.jsonl:2: image ", " is hidden by white: it is shown on dimgray"],
        [
            "warning: stickers.jsonl:3: image ",
            " shows nothing: a frame that a model may see is of one colour",
        ],
    ]
    assert "0 problems; good:" in lines[-1] and lines[-1].endswith("2 warnings")
