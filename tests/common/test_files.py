"""Where files are written: as a whole, and only where they can be."""

import errno
import tempfile

import pytest

from int_ra_jax.common.files import check_writable


def test_what_cannot_be_written_is_refused_before_any_work(tmp_path, monkeypatch):
    check_writable(tmp_path / "run/eval")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "eval").write_text("no directory")
    with pytest.raises(OSError, match=r"eval cannot be written \(Not a directory\)"):
        check_writable(tmp_path / "eval")

    def refuse(**_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(OSError, match=r"cannot be written \(Read-only file system\)"):
        check_writable(tmp_path / "run")
