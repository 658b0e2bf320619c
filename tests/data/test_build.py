"""The command that builds records ahead of training."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from fixtures.prepared import make_prepared_directory

from int_ra_jax.data import build

ROOT = Path(__file__).parents[2]


def test_records_are_built_and_counted(tmp_path):
    directory = make_prepared_directory(tmp_path / "d", num_conversations=20)
    done = subprocess.run(
        [sys.executable, "-m", "int_ra_jax.data.build", directory, tmp_path / "records"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "12 stickers" in done.stdout
    assert (tmp_path / "records/sticker_int").is_dir()


def test_what_is_wrong_is_one_message(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "_BEAM", SimpleNamespace(value=None))
    with pytest.raises(SystemExit) as ended:
        build.main(["build", str(tmp_path / "nothing"), str(tmp_path / "records")])
    # Python prints it, and ends with status 1.
    assert str(ended.value.code).startswith("build: no prepared directory at")
