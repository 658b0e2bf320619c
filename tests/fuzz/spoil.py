"""What every fuzzer of the importers asks: spoilt files give a valid directory or one report."""

import functools
import json
import shutil
import tempfile
from pathlib import Path

from fuzz import releases

from data_prep.formats.importing import import_published
from data_prep.problems import BadInputError
from int_ra_jax.data.validation import validate

FORMATS = ("stickerint", "multichat", "mod")  # a database is fuzzed through its pickles


@functools.cache
def originals(form: str) -> dict[str, bytes]:
    """Returns the files of a good release by name."""
    with tempfile.TemporaryDirectory() as folder:
        root = releases.WRITERS[form](Path(folder) / "in")
        paths = [path for path in root.rglob("*") if path.is_file()]
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def import_or_report(form: str, files: dict[str, bytes], work: Path) -> bool:
    """Imports files and checks the outcome.

    Args:
      form: the format.
      files: the content of each file of the release.
      work: a directory to use; it is removed.

    Returns:
      Whether the files were imported.

    Raises:
      AssertionError: if the result is not valid, or something was written in spite of a report.
    """
    try:
        for name, content in files.items():
            path = work / "in" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        try:
            import_published(form, work / "in", work / "out")
        except BadInputError as error:
            str(error).encode("utf-8")
            assert {path.name for path in work.iterdir()} == {"in"}
            return False
        assert {path.name for path in work.iterdir()} == {"in", "out"}
        assert validate(work / "out") == []
        for line in (work / "out" / "conversations.jsonl").read_text("utf-8").split("\n")[:-1]:
            json.loads(line)
        return True
    finally:
        shutil.rmtree(work, ignore_errors=True)
