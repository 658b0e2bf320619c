"""The command that builds records ahead of training."""

import subprocess
import sys
from pathlib import Path

from fixtures.prepared import make_prepared_directory

ROOT = Path(__file__).parents[2]


def build(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "int_ra_jax.data.build", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip


def test_records_are_built_and_counted(tmp_path):
    directory = make_prepared_directory(tmp_path / "d", num_conversations=20)
    done = build(directory, tmp_path / "records")
    assert done.returncode == 0, done.stderr
    assert "12 stickers" in done.stdout
    assert (tmp_path / "records/sticker_int").is_dir()


def test_what_is_wrong_is_one_message(tmp_path):
    done = build(tmp_path / "nothing", tmp_path / "records")
    assert done.returncode == 1
    assert "no prepared directory at" in done.stderr
    assert "Traceback" not in done.stderr
