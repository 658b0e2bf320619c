"""Checks a prepared directory, and can write a copy of it without the bad records.

    python -m data_prep.describe.validate DIRECTORY
    python -m data_prep.describe.validate DIRECTORY --skip-bad=CLEANED

Prints one line ``file:line: message`` for each problem and a summary; exits with 1 if there is any.
A cleaned copy lists on stdout what it left out, and carries fresh counts and hashes.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

from int_ra_jax.data import schema
from int_ra_jax.data.validation import Inspection, inspect

_SKIP_BAD = flags.DEFINE_string("skip-bad", None, "Where to write a copy without the bad records.")


def main(argv: Sequence[str]) -> None:
    """Validates the directory named on the command line."""
    if len(argv) != 2:
        raise app.UsageError("Name one prepared directory.")
    directory = Path(argv[1])
    found = inspect(directory, keeps=bool(_SKIP_BAD.value))
    for problem in found.problems:
        print(problem)
    print(_summary(directory, found))
    if _SKIP_BAD.value:
        write_cleaned(found, Path(_SKIP_BAD.value))
        for line in found.left_out:
            print(f"left out: {line}")
        print(f"wrote {_SKIP_BAD.value}; left out {len(found.left_out)} records")
    elif found.problems:
        sys.exit(1)


def write_cleaned(found: Inspection, directory: Path) -> None:
    """Writes the good records of an inspection as a prepared directory of their own.

    Raises:
      ValueError: if no sticker, intention or conversation is good.
      FileExistsError: if ``directory`` holds anything.
    """
    prepared = found.prepared
    conversations = [c for split in schema.SPLITS for c in prepared.conversations[split]]
    if not (conversations and prepared.stickers and prepared.intentions):
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
    return (
        f"{directory}: {len(found.problems)} problems; good: {counts} conversations, "
        f"{len(found.prepared.stickers)} stickers, {len(found.prepared.intentions)} intentions"
    )


if __name__ == "__main__":
    app.run(main)
