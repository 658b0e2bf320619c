"""Results of models in append-only files: what was answered once is never asked again.

One line is one result: ``{"key": ..., "value": ..., "model": ..., "prompt": ...}``. The key is a
hash of everything that decides the value. Raw answers are kept, so that better cleaning needs no
model. A run appends to a file of its own, named by its shard, and reads those of all others, so
that machines that share a folder, or whose files are copied into one, need no coordination.
"""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from absl import logging
from filelock import FileLock, Timeout

MODEL_FILES = (
    "*.json",
    "*.safetensors",
    "pytorch_model*.bin",
    "*.txt",
    "*.model",
    "*.spm",
    "*.jinja",
)
"""What decides a model's answers; fetched from the hub, and hashed to tell models apart."""


@dataclass(frozen=True)
class Shard:
    """The part of the work that one machine does: number ``index`` of ``count``, from 1."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Reads ``i/n``.

        Raises:
          ValueError: unless 1 <= i <= n.
        """
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise ValueError(f"--shard={text}: write i/n with 1 <= i <= n, such as 2/8")
        return cls(int(match[1]), int(match[2]))

    def owns(self, digest: str) -> bool:
        """Tells whether something with this content hash is this shard's to do."""
        return int(digest[:16], 16) % self.count == self.index - 1

    def file_name(self, kind: str) -> str:
        """Returns the name of the file that this shard appends to."""
        return f"{kind}.jsonl" if self.count == 1 else f"{kind}-{self.index}-of-{self.count}.jsonl"


ALL = Shard()


class ResultStore:
    """Results by key. Use it as a context: entering locks the shard's own file for writing."""

    def __init__(self, folder: Path, kind: str, shard: Shard = ALL) -> None:
        """Names the files; reads nothing yet.

        Args:
          folder: holds the files of all shards; created when entered.
          kind: first part of the files' names.
          shard: whose file is appended to.
        """
        self._folder, self._kind = folder, kind
        self._own = folder / shard.file_name(kind)
        self._lock = FileLock(f"{self._own}.lock", timeout=0)
        self._where: dict[str, tuple[Path, int]] = {}
        self._readers: dict[Path, IO[bytes]] = {}
        self._writer: IO[bytes] | None = None

    def __enter__(self) -> Self:
        """Takes the lock, cuts off a line that a killed run left torn, and indexes all files.

        Raises:
          ValueError: if another process appends to the same file.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout as error:
            raise ValueError(
                f"another run writes {self._own}. Wait for it, or give each run its own --shard."
            ) from error
        self._writer = self._own.open("ab")
        self._cut_torn_line()
        for path in sorted(self._folder.glob(f"{self._kind}*.jsonl")):
            self._index(path)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the files and gives the lock back."""
        for file in (self._writer, *self._readers.values()):
            if file is not None:
                file.close()
        self._lock.release()

    def __contains__(self, key: str) -> bool:
        return key in self._where

    def __len__(self) -> int:
        return len(self._where)

    def __getitem__(self, key: str) -> Any:
        """Returns the value of a key.

        Raises:
          KeyError: if there is none.
        """
        path, offset = self._where[key]
        if path not in self._readers:
            self._readers[path] = path.open("rb")
        self._readers[path].seek(offset)
        return json.loads(self._readers[path].readline())["value"]

    def add(self, results: Sequence[tuple[str, Any]], **provenance: str) -> None:
        """Appends results and waits until they are on the disk.

        Args:
          results: (key, value) pairs; values are JSON.
          **provenance: written beside each: model, prompt.
        """
        assert self._writer is not None, "enter the store first"
        for key, value in results:
            self._where[key] = (self._own, self._writer.tell())
            line = json.dumps({"key": key, "value": value, **provenance}, ensure_ascii=False)
            # A model may answer with half a surrogate pair, which no UTF-8 file can hold.
            self._writer.write(line.encode("utf-8", "replace") + b"\n")
        self._writer.flush()
        os.fsync(self._writer.fileno())

    def _cut_torn_line(self) -> None:
        with self._own.open("rb+") as file:
            size = end = file.seek(0, os.SEEK_END)
            while end:
                start = max(0, end - 65536)
                file.seek(start)
                newline = file.read(end - start).rfind(b"\n")
                if newline >= 0:
                    end = start + newline + 1
                    break
                end = start
            if end != size:
                file.truncate(end)

    def _index(self, path: Path) -> None:
        offset = 0
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.endswith(b"\n"):  # without one it is torn, or being written this moment
                    key = _key_of(line)
                    if key is None:
                        logging.warning("%s:%d: not a result; it is asked again", path, number)
                    else:
                        self._where[key] = (path, offset)
                offset += len(line)


def _key_of(line: bytes) -> str | None:
    try:
        record = json.loads(line)
        key = record["key"] if "value" in record else None
    except (ValueError, RecursionError, TypeError, KeyError):
        return None
    return key if isinstance(key, str) else None


def digest_of(*parts: Any) -> str:
    """Returns a SHA-256 of JSON values."""
    text = json.dumps(parts, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def model_identity(directory: Path) -> str:
    """Returns a hash of a checkpoint's files: the same model anywhere, whatever its path.

    All weights are read, since two fine-tunings differ in nothing else; a few seconds for a
    gigabyte.

    Raises:
      FileNotFoundError: if the directory holds none of ``MODEL_FILES``.
    """
    paths = sorted({path for pattern in MODEL_FILES for path in directory.glob(pattern)})
    if not paths:
        raise FileNotFoundError(f"{directory} holds no model: none of {', '.join(MODEL_FILES)}")
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{content}  {path.name}\n".encode())
    return f"sha256:{digest.hexdigest()}"
