"""What training and evaluation read from: random access to the records of a built data set.

``sticker_int.prepare`` makes a ``Dataset``; everything behind it sees conversations and stickers,
and neither files nor TensorFlow.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32

from int_ra_jax.common import process_memory
from int_ra_jax.data.schema import Conversation, StickerEntry


@runtime_checkable
class Records(Protocol):
    """Random access to serialised records, as ``tfds``'s ``as_data_source`` gives it."""

    def __len__(self) -> int: ...

    def __getitem__(self, record_key: int) -> Mapping[str, Any]: ...


class _Chosen:
    """Some of the records of a split."""

    def __init__(self, records: Records, rows: np.ndarray) -> None:
        self._records, self._rows = records, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, record_key: int) -> Mapping[str, Any]:
        return self._records[int(self._rows[record_key])]


class UnreadableRecordsError(OSError):
    """Built records are damaged or gone; the message names the files and the remedy."""


class Dataset:
    """A built data set: conversations by split and row, and the gallery.

    Attributes:
      name: of the data set.
      content_hash: SHA-256 of the prepared directory it was built from.
      intentions: names; the position is the class id.
      has_knowledge: whether any conversation carries inferred knowledge.
      info: dataset.json of the prepared directory.
    """

    def __init__(
        self, splits: Mapping[str, Records], gallery: Records, metadata: Mapping[str, Any]
    ) -> None:
        """Wraps open records.

        Args:
          splits: split name -> Records of conversations.
          gallery: Records of stickers, in gallery order.
          metadata: what the builder stored: content_hash, intentions, has_knowledge, info.
        """
        self._splits = splits
        self._limited = dict[int, Dataset]()
        self._targets = dict[str, tuple[np.ndarray, np.ndarray]]()
        self._gallery = gallery
        self.content_hash: str = metadata["content_hash"]
        self.intentions: tuple[str, ...] = tuple(metadata["intentions"])
        self.has_knowledge: bool = metadata["has_knowledge"]
        self.info: Mapping[str, Any] = metadata["info"]
        self.name: str = self.info["name"]

    def limited(self, rows: int) -> "Dataset":
        """Returns the data set with some conversations of train, and all of the other splits.

        They are the first of one shuffled order, so that fewer are among more, and stand in the
        order of the split.

        Args:
          rows: how many at most; 0, or no fewer than there are, returns the data set itself.
        """
        size = self.size("train")
        if not 0 < rows < size:
            return self
        if rows in self._limited:
            return self._limited[rows]
        chosen = np.sort(np.random.default_rng(0).permutation(size)[:rows])
        metadata = {
            # What is kept under the hash of the data is another's.
            "content_hash": f"{self.content_hash}, {rows} rows of train",
            "intentions": self.intentions,
            "has_knowledge": self.has_knowledge,
            "info": self.info,
        }
        splits = {**self._splits, "train": _Chosen(self._splits["train"], chosen)}
        self._limited[rows] = Dataset(splits, self._gallery, metadata)
        return self._limited[rows]

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return tuple(self._splits)

    def size(self, split: str) -> int:
        """Returns M, the number of conversations in a split."""
        return len(self._records(split))

    def conversations(self, split: str, rows: Sequence[int] | None = None) -> list[Conversation]:
        """Reads conversations by row, or all of a split in their order."""
        if rows is None:
            key = ("conversations", self.content_hash, split)
            return list(
                process_memory.once(key, lambda: self._read(split, range(self.size(split))))
            )
        return self._read(split, rows)

    def _read(self, split: str, rows: Sequence[int]) -> list[Conversation]:
        records = self._records(split)
        # One by one: the bulk read starts threads, which is slower for a batch, and fails in a
        # prefetching thread once the interpreter has begun to shut down.
        found = (records[row]["conversation"] for row in rows)
        return [Conversation.from_json(json.loads(record)) for record in found]

    @cached_property
    def stickers(self) -> tuple[StickerEntry, ...]:
        """The N stickers of the gallery, in order, without their images."""
        return tuple(
            StickerEntry.from_json(json.loads(self._gallery[row]["sticker"]))
            for row in range(len(self._gallery))
        )

    @cached_property
    def sticker_rows(self) -> Mapping[str, int]:
        """Sticker id -> gallery row."""
        return {sticker.id: row for row, sticker in enumerate(self.stickers)}

    @cached_property
    def intention_ids(self) -> Mapping[str, int]:
        """Intention name -> class id."""
        return {name: index for index, name in enumerate(self.intentions)}

    def image(self, row: int) -> bytes:
        """Returns the image file of a sticker, byte for byte as it was prepared."""
        return self._gallery[row]["image"]

    def targets(
        self, conversations: Sequence[Conversation]
    ) -> tuple[Int32[np.ndarray, "B"], Int32[np.ndarray, "B"]]:
        """Returns the gallery rows of the gold stickers, and the class ids of the intentions."""
        stickers = [self.sticker_rows[conversation.sticker] for conversation in conversations]
        intentions = [self.intention_ids[conversation.intention] for conversation in conversations]
        return np.array(stickers, np.int32), np.array(intentions, np.int32)

    def targets_of(self, split: str) -> tuple[Int32[np.ndarray, "M"], Int32[np.ndarray, "M"]]:
        """Returns the targets of a whole split, which is read once."""
        if split not in self._targets:
            self._targets[split] = self.targets(self.conversations(split))
        return self._targets[split]

    def _records(self, split: str) -> Records:
        if split not in self._splits:
            raise ValueError(f"unknown split {split!r}. Choose one of {', '.join(self._splits)}.")
        return self._splits[split]
