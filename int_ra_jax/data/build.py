"""Builds the records that training reads, here or on a cluster.

    python -m int_ra_jax.data.build PREPARED_DIR RECORDS_DIR
    python -m int_ra_jax.data.build PREPARED_DIR RECORDS_DIR --beam='--runner=DirectRunner'

Training builds them itself where they are missing; for millions of conversations build them first
and give the directory as --config.data.tfds_dir. ``--beam`` takes the options of an Apache Beam
pipeline: docs/scaling.md has those of Dataflow, Flink and Spark.
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

_BEAM = flags.DEFINE_string("beam", None, "Options of an Apache Beam pipeline; none: build here.")


def main(argv: Sequence[str]) -> None:
    """Builds the records named on the command line."""
    if len(argv) != 3:
        raise app.UsageError("Name a prepared directory and one for the records.")
    from int_ra_jax.data.sticker_int import prepare

    beam = None if _BEAM.value is None else shlex.split(_BEAM.value)
    try:
        dataset = prepare(Path(argv[1]), Path(argv[2]), beam)
    except (ValueError, OSError) as error:
        sys.exit(f"build: {error}")
    sizes = ", ".join(f"{dataset.size(split)} {split}" for split in dataset.splits)
    print(f"{argv[2]}: {sizes} conversations, {len(dataset.stickers)} stickers")


if __name__ == "__main__":
    app.run(main)
