"""A file of conversations in pieces that can be read one apart from the other, on any machine."""

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from int_ra_jax.data.schema import Conversation

LINES = 5_000  # in a chunk: seconds of work, and a few megabytes


@dataclass(frozen=True)
class Chunk:
    """Some consecutive lines of a valid ``conversations.jsonl``.

    Attributes:
      path: the file.
      offset: bytes before the first line.
      lines: how many, blank ones included.
      first_rows: split -> the row, within its split, of its first conversation in this chunk.
    """

    path: Path
    offset: int
    lines: int
    first_rows: Mapping[str, int]


def cut(path: Path, lines: int = LINES) -> Iterator[Chunk]:
    """Cuts a file in order; it is read once, and a chunk of it is in memory.

    Args:
      path: a ``conversations.jsonl`` that validation has accepted.
      lines: in each chunk but the last.
    """
    rows: Counter[str] = Counter()
    offset = 0
    with path.open("rb") as file:
        while part := list(itertools.islice(file, lines)):
            yield Chunk(path, offset, len(part), dict(rows))
            rows.update(json.loads(line)["split"] for line in part if line.strip())
            offset += sum(map(len, part))


def conversations(chunk: Chunk, split: str) -> Iterator[tuple[int, Conversation]]:
    """Reads the conversations of one split, each with its row in that split.

    Args:
      chunk: of the file, which must not have changed since it was cut.
      split: name of the split.
    """
    row = chunk.first_rows.get(split, 0)
    with chunk.path.open("rb") as file:
        file.seek(chunk.offset)
        for line in itertools.islice(file, chunk.lines):
            if line.strip() and (record := json.loads(line))["split"] == split:
                yield row, Conversation.from_json(record)
                row += 1
