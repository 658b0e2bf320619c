"""Writing small files so that a process that is killed leaves the old one or the new one."""

import os
import tempfile
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Writes a text file as a whole: never is there half of it, nor an empty one.

    Args:
      path: of the file; its folder is created.
      text: the new content.

    Raises:
      OSError: if it cannot be written; the old file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(text, encoding="utf-8", newline="\n")
    os.replace(beside, path)


def check_writable(directory: Path) -> None:
    """Makes sure, before long work, that its results can be written; leaves nothing behind.

    Args:
      directory: where files are to be written; it need not exist.

    Raises:
      OSError: if none can be.
    """
    existing = next(one for one in (directory, *directory.absolute().parents) if one.exists())
    try:
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        raise OSError(
            f"{directory} cannot be written ({error.strerror}), and the results go there. Make it "
            "writable, or copy the directory to where it is."
        ) from None
