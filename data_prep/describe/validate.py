"""Every problem of a prepared directory, and a copy of it without the bad records."""

from pathlib import Path

from int_ra_jax.data import schema
from int_ra_jax.data.validation import Inspection, inspect


def validate(directory: Path, cleaned: Path | None = None) -> None:
    """Prints every problem of a directory, what is odd in it, and what is good of it.

    Args:
      directory: a prepared directory.
      cleaned: where to write a copy without the bad records, which ends in order.

    Raises:
      ValueError: if there is any problem and no copy without it was asked for.
      ValueError, FileExistsError: as ``write_cleaned``.
    """
    found = inspect(directory, keeps=cleaned is not None, gallery=True)
    for problem in found.problems:
        print(problem)
    for warning in found.warnings:
        print(f"warning: {warning}")
    print(_summary(directory, found))
    if cleaned:
        write_cleaned(found, cleaned)
        for line in found.left_out:
            print(f"left out: {line}")
        print(f"wrote {cleaned}; left out {len(found.left_out)} records")
    elif found.problems:
        raise ValueError(
            f"{len(found.problems)} problems; --skip_bad=NEW_DIR writes a copy without them"
        )


def write_cleaned(found: Inspection, directory: Path) -> None:
    """Writes the good records of an inspection as a prepared directory of their own.

    Raises:
      ValueError: if no sticker, intention or conversation is good.
      FileExistsError: if ``directory`` holds anything.
    """
    prepared = found.prepared
    conversations = [c for split in schema.SPLITS for c in prepared.conversations[split]]
    enough = conversations or prepared.info.get("gallery") is True
    if not (enough and prepared.stickers and prepared.intentions):
        raise ValueError(
            f"nothing usable is left of {prepared.path}: {len(conversations)} conversations, "
            f"{len(prepared.stickers)} stickers, {len(prepared.intentions)} intentions."
        )
    info = dict(prepared.info) | {"left_out": len(found.left_out)}
    pictures = {s.image: schema.confined(prepared.path, s.image) for s in prepared.stickers}
    schema.write_prepared(
        directory, conversations, prepared.stickers, prepared.intentions, info, pictures
    )


def _summary(directory: Path, found: Inspection) -> str:
    counts = ", ".join(f"{found.sizes[split]} {split}" for split in schema.SPLITS)
    odd = f"; {len(found.warnings)} warnings" if found.warnings else ""
    return (
        f"{directory}: {len(found.problems)} problems; good: {counts} conversations, "
        f"{len(found.prepared.stickers)} stickers, {len(found.prepared.intentions)} intentions{odd}"
    )
