"""Writing small files so that a process that is killed leaves the old one or the new one."""

import os
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
