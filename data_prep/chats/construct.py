"""All steps in a row, with their default settings: an export in, a prepared directory out."""

import shutil
from pathlib import Path

from data_prep.chats import anonymise, collect, deduplicate, filter_offensive, segment, split, step

SALT = "salt"


def construct(format: str, source: Path, out: Path) -> None:
    """Builds a data set from a chat export.

    The steps' directories stand in ``OUT.steps`` beside the result while it is built, the first of
    them with names and all, and are deleted at the end. Stopped, the same call goes on behind the
    last finished step. The salt is ``OUT.salt`` beside the result: keep it to get the same
    pseudonyms again, delete it to make that impossible.

    Args:
      format: "jsonl", "telegram" or "whatsapp".
      source: the export's folder, or its file with the stickers beside it.
      out: the prepared directory to write; must not exist yet, or be empty.

    Raises:
      BadInputError: once, with everything that is wrong with the export.
      ValueError: if there is nothing to build, such as no sticker with a context.
      FileNotFoundError: if there is no export.
      FileExistsError: if ``out`` holds anything.
    """
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty. Choose a new directory or remove it.")
    if not source.exists():
        raise FileNotFoundError(f"no chat export at {source}.")
    steps = out.with_name(f"{out.name}.steps")
    out.parent.mkdir(parents=True, exist_ok=True)
    steps.mkdir(mode=0o700, exist_ok=True)
    collected, anonymised, filtered, segmented, deduplicated = (
        steps / name for name in step.ORDER[:-1]
    )
    collect.collect(format, source, collected)
    anonymise.anonymise(collected, anonymised, out.with_name(f"{out.name}.{SALT}"))
    filter_offensive.filter_offensive(anonymised, filtered)
    segment.segment(filtered, segmented)
    deduplicate.deduplicate(segmented, deduplicated)
    split.split(deduplicated, out)
    shutil.rmtree(steps)
