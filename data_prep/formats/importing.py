"""Imports a data set in a published format, or exported chats, as a prepared directory.

    python -m data_prep.formats.importing --format=stickerint SRC OUT
    python -m data_prep.formats.importing --format=mod --language=c SRC OUT --leaks=drop
    python -m data_prep.formats.importing --format=stickerint SRC OUT --dry_run

docs/importing.md describes the formats. Everything that is wrong with the input is reported in one
run, with file and line; then the exit status is 1 and nothing was written. --dry_run only reports.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags, logging

from data_prep.formats import mod, multichat, stickerint, stickerint_lmdb
from data_prep.formats.labels import Labels
from data_prep.formats.reading import InputDirectory
from data_prep.formats.staging import LEAKS, Description, Gathering
from data_prep.problems import Problems

Reader = Callable[[InputDirectory, Gathering], Labels]
PUBLISHED: dict[str, tuple[Reader, Description]] = {
    "stickerint": (stickerint.read, stickerint.DESCRIPTION),
    "stickerint-lmdb": (stickerint_lmdb.read, stickerint_lmdb.DESCRIPTION),
    "multichat": (multichat.read, multichat.DESCRIPTION),
    "mod": (mod.read, mod.DESCRIPTION),
}
CHATS = ("jsonl", "telegram", "whatsapp")

_FORMAT = flags.DEFINE_enum("format", None, [*PUBLISHED, *CHATS], "What SRC holds.")
_LEAKS = flags.DEFINE_enum(
    "leaks",
    "refuse",
    list(LEAKS),
    "A text that stands in two splits: refuse the input, or drop it from train (and from valid "
    "where test has it).",
)
_LANGUAGE = flags.DEFINE_enum("language", None, list(mod.LANGUAGES), "Of MOD: Chinese or English.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Report what is wrong and write nothing.")


def main(argv: Sequence[str]) -> None:
    """Imports the data set named on the command line."""
    if len(argv) != 3 or _FORMAT.value is None:
        raise app.UsageError("Name --format=FORMAT, one source and one target.")
    source, out = Path(argv[1]), Path(argv[2])
    try:
        if _FORMAT.value in CHATS:
            import_chats(_FORMAT.value, source, out)
        else:
            import_published(
                _FORMAT.value, source, out, _LEAKS.value, _LANGUAGE.value, _DRY_RUN.value
            )
    except (ValueError, OSError, ImportError) as error:
        print(error, file=sys.stderr)
        sys.exit(1)


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
    scratch = Path(tempfile.mkdtemp(prefix="import-")) if dry_run else None
    try:
        with Gathering(scratch / "out" if scratch else out, problems, leaks) as gathering:
            directory = InputDirectory(source, problems)
            if name == "mod":
                labels = mod.read(directory, gathering, language)
            else:
                labels = read(directory, gathering)
            gathering.check_splits()
            problems.stop_if_any()
            counts = ", ".join(f"{count} {split}" for split, count in gathering.counts.items())
            found = f"{counts} conversations, {len(gathering.pictures.taken)} stickers"
            if not dry_run:
                gathering.write(labels.in_order(), description, [mod.UNLABELLED])
            for reason, count in sorted(gathering.left_out.items()):
                logging.info("left out: %d (%s)", count, reason)
            verb = "would write" if dry_run else "wrote"
            logging.info("%s %s: %s, %d warnings", verb, out, found, problems.warnings)
    finally:
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)


def import_chats(name: str, source: Path, out: Path) -> None:
    """Builds a data set out of exported chats.

    Args:
      name: one of ``CHATS``.
      source: the export.
      out: must not exist yet, or be empty.

    Raises:
      ValueError: if the input is refused, as the construction says.
    """
    from data_prep.chats.construct import construct  # needs packages that the others do not

    construct(name, source, out)


if __name__ == "__main__":
    app.run(main)
