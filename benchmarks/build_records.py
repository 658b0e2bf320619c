"""What it takes to validate a prepared directory and to build its records, at any size.

    python -m benchmarks.build_records [--conversations=100000] [--stickers=1000] [--out=FILE]
        [--beam='--runner=DirectRunner']

Generates a prepared directory of distinct conversations of 6 turns and 12 words each, then runs
``data_prep.validate`` and ``int_ra_jax.data.build`` as a user does, each in a process of its own,
and prints seconds, peak memory and bytes, with what a million conversations would take if all of
it grew in proportion. ``--beam`` builds with Apache Beam, in the environment of ``make test-beam``.
"""

import argparse
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import side_by_side
from int_ra_jax.common.types import ATTRIBUTES
from int_ra_jax.data import schema
from int_ra_jax.data.schema import Conversation, StickerEntry, Turn

INTENTIONS = ("joy", "sadness", "anger")
MILLION = 1_000_000


def main() -> None:
    """Prints one table."""
    arguments = _parse()
    with tempfile.TemporaryDirectory() as folder:
        directory, records = Path(folder) / "prepared", Path(folder) / "records"
        begin = time.perf_counter()
        generate(directory, arguments.conversations, arguments.stickers)
        print(f"generated in {time.perf_counter() - begin:.0f} s", file=sys.stderr)
        build = ["int_ra_jax.data.build", str(directory), str(records)]
        build += [] if arguments.beam is None else [f"--beam={arguments.beam}"]
        results = {
            "validate": measured(["data_prep.validate", str(directory)]),
            "build": measured(build),
        }
        sizes = {
            "conversations.jsonl": (directory / schema.CONVERSATIONS_FILE).stat().st_size,
            "records": sum(f.stat().st_size for f in records.rglob("*") if f.is_file()),
        }
    factor = MILLION / arguments.conversations
    rows = [["", "seconds", "peak GB", "seconds a million"]]
    rows += [
        [name, f"{seconds:.1f}", f"{peak / 1e9:.2f}", f"{factor * seconds:.0f}"]
        for name, (seconds, peak) in results.items()
    ]
    print(f"{arguments.conversations:,} conversations, {arguments.stickers:,} stickers")
    print(side_by_side.table(rows))
    print(", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in sizes.items()))
    content = {"arguments": vars(arguments), "results": results, "bytes": sizes}
    side_by_side.write_json(arguments.out, content)


def generate(directory: Path, conversations: int, stickers: int) -> None:
    """Writes a valid prepared directory of distinct texts; the same bytes every time.

    Args:
      directory: must not exist yet, or be empty.
      conversations: eight of ten in train.
      stickers: in the gallery, pictures of noise.
    """
    entries = [
        StickerEntry(f"s{i}", f"images/s{i}.png", dict.fromkeys(ATTRIBUTES, "wave"))
        for i in range(stickers)
    ]
    images = {entry.image: _picture(i) for i, entry in enumerate(entries)}
    info = {"name": "generated", "version": "1.0.0", "licence": "none", "source": "generated"}
    schema.write_prepared(
        directory, _conversations(conversations, stickers), entries, INTENTIONS, info, images
    )


def measured(module: Sequence[str]) -> tuple[float, int]:
    """Runs ``python -m MODULE ARGUMENTS``; returns seconds, and peak bytes of its largest process.

    Raises:
      RuntimeError: with what it printed, if it fails.
    """
    begin = time.perf_counter()
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(
            [sys.executable, "-m", *module], stdout=printed, stderr=subprocess.STDOUT
        )
        # Reaped here, so that the peak memory of it, or of a larger child, comes with it.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            printed.seek(0)
            raise RuntimeError(f"{' '.join(module)} failed:\n{printed.read()}")
    unit = 1 if sys.platform == "darwin" else 1024
    return time.perf_counter() - begin, usage.ru_maxrss * unit


def _conversations(number: int, stickers: int) -> Iterator[Conversation]:
    rng = np.random.default_rng(0)
    words = np.array([f"word{i}" for i in range(20_000)])
    for row in range(number):
        said = words[rng.integers(0, len(words), (6, 12))]
        turns = tuple(Turn("ab"[i % 2], " ".join(line)) for i, line in enumerate(said))
        split = schema.SPLITS[max(0, row % 10 - 7)]
        yield Conversation(
            f"c{row}", split, turns, "a", f"s{row % stickers}", INTENTIONS[row % len(INTENTIONS)]
        )


def _picture(number: int) -> bytes:
    rng = np.random.default_rng(number)
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def _parse() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--conversations", type=int, default=100_000)
    parser.add_argument("--stickers", type=int, default=1_000)
    parser.add_argument("--beam", default=None, help="options of an Apache Beam pipeline")
    parser.add_argument("--out", default="", help="JSON file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
