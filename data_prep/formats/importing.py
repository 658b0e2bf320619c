"""One import from start to end: a release in, a prepared directory or a report out."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from absl import logging

from data_prep.formats import mod, multichat, stickerint, stickerint_lmdb
from data_prep.formats.labels import Labels
from data_prep.formats.reading import InputDirectory
from data_prep.formats.staging import Description, Staging
from data_prep.problems import Problems

Reader = Callable[[InputDirectory, Staging], Labels]
PUBLISHED: dict[str, tuple[Reader, Description]] = {
    "stickerint": (stickerint.read, stickerint.DESCRIPTION),
    "stickerint-lmdb": (stickerint_lmdb.read, stickerint_lmdb.DESCRIPTION),
    "multichat": (multichat.read, multichat.DESCRIPTION),
    "mod": (mod.read, mod.DESCRIPTION),
}


def import_published(
    name: str,
    source: Path,
    out: Path,
    leaks: str = "refuse",
    language: str | None = None,
    dry_run: bool = False,
) -> None:
    """Writes a published data set as a prepared directory, or everything that is wrong with it.

    Args:
      name: one of ``PUBLISHED``.
      source: its directory.
      out: must not exist yet, or be empty.
      leaks: "refuse" or "drop" a text that stands in two splits.
      language: of MOD, "c" or "e"; None where the directory holds one of them.
      dry_run: check everything and write nothing; ``out`` is not touched.

    Raises:
      BadInputError: with every problem of the input; then nothing was written.
      FileNotFoundError: if ``source`` is no directory.
      FileExistsError: if ``out`` holds anything.
      ImportError: if a package that the format needs is missing.
    """
    if not source.is_dir():
        raise FileNotFoundError(f"{source} is no directory. Name the directory of the release.")
    read, description = PUBLISHED[name]
    problems = Problems(source)
    with tempfile.TemporaryDirectory(prefix="import-", ignore_cleanup_errors=True) as scratch:
        target = Path(scratch) / "out" if dry_run else out
        with Staging(target, problems, leaks) as staging:
            directory = InputDirectory(source, problems)
            if name == "mod":
                labels = mod.read(directory, staging, language)
            else:
                labels = read(directory, staging)
            staging.check_splits()
            problems.stop_if_any()
            counts = ", ".join(f"{count} {split}" for split, count in staging.counts.items())
            found = f"{counts} conversations, {len(staging.pictures.taken)} stickers"
            if not dry_run:
                staging.write(labels.in_order(), description, [mod.UNLABELLED])
            for reason, count in sorted(staging.left_out.items()):
                logging.info("left out: %d (%s)", count, reason)
            verb = "would write" if dry_run else "wrote"
            logging.info("%s %s: %s, %d warnings", verb, out, found, problems.warnings)
