"""What it takes to validate a prepared directory and to build its records, at any size.

    python -m benchmarks.build_records [--conversations=100000] [--stickers=1000] [--out=FILE]
        [--beam='--runner=DirectRunner']

Generates a prepared directory of distinct conversations of 6 turns and 12 words each, then runs
``data_prep.describe validate`` and ``int_ra_jax.data.build`` as a user does, each in a process of
its own, and prints seconds, peak memory and bytes, with what a million conversations would take if
all of it grew in proportion. ``--beam`` builds with Apache Beam, in the environment of ``make
test-beam``.
"""

import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import command
from int_ra_jax.common.types import ATTRIBUTES
from int_ra_jax.data import schema
from int_ra_jax.data.schema import Conversation, StickerEntry, Turn

INTENTIONS = ("joy", "sadness", "anger")
MILLION = 1_000_000


@dataclass(frozen=True)
class Used:
    """What a process took.

    Attributes:
      seconds: from its start to its end.
      processor_seconds: over all threads and child processes.
      peak_bytes: of the largest of them.
    """

    seconds: float
    processor_seconds: float
    peak_bytes: int


def main() -> None:
    """Prints one table."""
    parser = command.parser(__doc__)
    parser.add_argument("--conversations", type=int, default=100_000)
    parser.add_argument("--stickers", type=int, default=1_000)
    parser.add_argument("--beam", default=None, help="options of an Apache Beam pipeline")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        directory, records = Path(folder) / "prepared", Path(folder) / "records"
        begin = time.perf_counter()
        generate(directory, arguments.conversations, arguments.stickers)
        command.say(f"generated in {time.perf_counter() - begin:.0f} s")
        build = ["int_ra_jax.data.build", str(directory), str(records)]
        build += [] if arguments.beam is None else [f"--beam={arguments.beam}"]
        results = {
            "validate": measured(["data_prep.describe", "validate", str(directory)]),
            "build": measured(build),
        }
        sizes = {
            "conversations.jsonl": (directory / schema.CONVERSATIONS_FILE).stat().st_size,
            "records": sum(f.stat().st_size for f in records.rglob("*") if f.is_file()),
        }
    rows = [
        {
            "": name,
            "seconds": f"{used.seconds:.1f}",
            "peak GB": f"{used.peak_bytes / 1e9:.2f}",
            "seconds a million": f"{used.seconds * MILLION / arguments.conversations:.0f}",
        }
        for name, used in results.items()
    ]
    written = ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in sizes.items())
    text = (
        f"{arguments.conversations:,} conversations, {arguments.stickers:,} stickers\n\n"
        f"{command.table(rows)}\n\n{written}"
    )
    plain = {name: asdict(used) for name, used in results.items()}
    command.publish(arguments, text, results=plain, bytes=sizes)


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
    images = {entry.image: noise(i, 48) for i, entry in enumerate(entries)}
    info = {"name": "generated", "version": "1.0.0", "licence": "none", "source": "generated"}
    schema.write_prepared(
        directory, _conversations(conversations, stickers), entries, INTENTIONS, info, images
    )


def split_of(row: int) -> str:
    """Returns the split of a generated row: eight of ten are in train."""
    return schema.SPLITS[max(0, row % 10 - 7)]


def noise(seed: int, side: int) -> bytes:
    """Returns a square PNG of noise, not compressed where that would only cost time."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=0 if side > 48 else -1)
    return file.getvalue()


def measured(module: Sequence[str]) -> Used:
    """Runs ``python -m MODULE ARGUMENTS`` and returns what it took.

    Raises:
      RuntimeError: with what it printed, if it fails.
    """
    begin = time.perf_counter()
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(
            [sys.executable, "-m", *module], stdout=printed, stderr=subprocess.STDOUT
        )
        # Reaped here, so that the usage of it and its children comes with it.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            printed.seek(0)
            raise RuntimeError(f"{' '.join(module)} failed:\n{printed.read()}")
    unit = 1 if sys.platform == "darwin" else 1024
    processor = usage.ru_utime + usage.ru_stime
    return Used(time.perf_counter() - begin, processor, usage.ru_maxrss * unit)


def _conversations(number: int, stickers: int) -> Iterator[Conversation]:
    rng = np.random.default_rng(0)
    words = np.array([f"word{i}" for i in range(20_000)])
    for row in range(number):
        said = words[rng.integers(0, len(words), (6, 12))]
        turns = tuple(Turn("ab"[i % 2], " ".join(line)) for i, line in enumerate(said))
        sticker, intention = f"s{row % stickers}", INTENTIONS[row % len(INTENTIONS)]
        yield Conversation(f"c{row}", split_of(row), turns, "a", sticker, intention)


if __name__ == "__main__":
    main()
