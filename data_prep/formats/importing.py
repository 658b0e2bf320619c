"""One import from start to end: a release in, a prepared directory or a report out."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from absl import logging

from data_prep.formats import ced, choices, galleries, mod, multichat, stickerint, stickerint_lmdb
from data_prep.formats.labels import Labels
from data_prep.formats.reading import InputDirectory
from data_prep.formats.staging import Description, Staging
from data_prep.problems import Problems
from int_ra_jax.data import schema


class Format(NamedTuple):
    """How a published form is read.

    Attributes:
      read: from the directory into the staging, with its own options by name.
      description: for dataset.json.
      options: names of what ``read`` takes besides.
      needed: those of them that it cannot do without.
    """

    read: Callable[..., Labels]
    description: Description
    options: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()


PUBLISHED: dict[str, Format] = {
    "stickerint": Format(stickerint.read, stickerint.DESCRIPTION),
    "stickerint-lmdb": Format(stickerint_lmdb.read, stickerint_lmdb.DESCRIPTION),
    "multichat": Format(multichat.read, multichat.DESCRIPTION),
    "mod": Format(mod.read, mod.DESCRIPTION, ("language",)),
    "ced": Format(
        ced.read,
        ced.DESCRIPTION,
        ("stickers", "rumours", "per_thread", "no_echoes"),
        ("stickers",),
    ),
    "choices": Format(
        choices.read,
        choices.DESCRIPTION,
        ("stickers", "per_thread", "no_echoes"),
        ("stickers",),
    ),
}


PACK = "pack"  # stickers without conversations, which become a gallery


def import_published(
    name: str,
    source: Path,
    out: Path,
    leaks: str = "refuse",
    dry_run: bool = False,
    **options: Any,
) -> None:
    """Writes a published data set as a prepared directory, or everything that is wrong with it.

    Args:
      name: one of ``PUBLISHED``, or ``PACK``.
      source: its directory; of packs a file or a folder (``galleries.import_packs``).
      out: must not exist yet, or be empty.
      leaks: "refuse" or "drop" a text that stands in two splits.
      dry_run: check everything and write nothing; ``out`` is not touched.
      **options: what the format takes besides: ``language`` of MOD, "c" or "e"; ``stickers`` of CED
        and of choices, the pack, ``per_thread`` and ``no_echoes``, what training gets;
        ``rumours`` of CED. None, False and 0 are not given.

    Raises:
      BadInputError: with every problem of the input; then nothing was written.
      FileNotFoundError: if ``source`` is no directory, or no pack.
      FileExistsError: if ``out`` holds anything.
      ImportError: if a package that the format needs is missing.
      ValueError: for an option that the format does not take, or one that it lacks.
    """
    form = None if name == PACK else PUBLISHED[name]
    read, needed = (form.options, form.needed) if form else ((), ())
    given = {key: value for key, value in options.items() if value}
    wrong = [f"--{key} is not read by --format={name}" for key in given if key not in read]
    wrong += [f"--format={name} needs --{key}" for key in needed if key not in given]
    if wrong:
        raise ValueError("; ".join(wrong))
    if form is None:
        galleries.import_packs(source, out, dry_run)
        return
    if not source.is_dir():
        raise FileNotFoundError(f"{source} is no directory. Name the directory of the release.")
    problems = Problems(source)
    with tempfile.TemporaryDirectory(prefix="import-", ignore_cleanup_errors=True) as scratch:
        target = Path(scratch) / "out" if dry_run else out
        with Staging(target, problems, leaks) as staging:
            labels = form.read(InputDirectory(source, problems), staging, **given)
            staging.check_splits()
            problems.stop_if_any()
            counts = ", ".join(f"{count} {split}" for split, count in staging.counts.items())
            found = f"{counts} conversations, {len(staging.pictures.taken)} stickers"
            if not dry_run:
                staging.write(labels.in_order(), form.description, [mod.UNLABELLED])
            for reason, count in sorted(staging.left_out.items()):
                logging.info("left out: %d (%s)", count, reason)
            if staging.ledger.records_in:
                logging.info("%s", staging.ledger)
            verb = "would write" if dry_run else "wrote"
            logging.info("%s %s: %s, %d warnings", verb, out, found, problems.warnings)
    if not dry_run:
        logging.info("%s: content hash %s", out, schema.content_hash(out))
