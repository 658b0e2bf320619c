"""What a checkpoint says of itself: which arrays, their checksums, metrics and metadata.

One JSON file beside the arrays, sealed with a hash of its own. It is read before anything else, and
whatever disagrees with it is damaged: Orbax restores flipped bytes of an array without a word, and
a flipped digit in plain JSON would pass for another metric or another config.
"""

import gc
import hashlib
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from int_ra_jax.common.config import as_before
from int_ra_jax.common.params import flatten
from int_ra_jax.run.checksum import checksums

_LISTED = 20  # problems printed per kind; the rest is counted


class DamagedCheckpointError(ValueError):
    """A checkpoint is not what was saved; the message says what is wrong with it."""


@dataclass(frozen=True)
class StoredArray:
    """One array of a checkpoint: dtype by name, shape, and ``checksum`` of its content."""

    dtype: str
    shape: tuple[int, ...]
    checksum: int


@dataclass(frozen=True)
class Record:
    """The record of one checkpoint.

    Attributes:
      arrays: by path.
      metrics: validation metrics; empty where there were none.
      metadata: the caller's, as JSON gives it back.
    """

    arrays: Mapping[str, StoredArray]
    metrics: Mapping[str, float]
    metadata: Mapping[str, Any]

    @classmethod
    def of(
        cls, leaves: Mapping[str, Array], metrics: Mapping[str, float], metadata: Mapping[str, Any]
    ) -> "Record":
        """Describes arrays that are about to be saved.

        Args:
          leaves: path -> array.
          metrics: validation metrics.
          metadata: anything that JSON can hold.

        Raises:
          ValueError: if the metadata are not JSON.
        """
        try:
            metadata = json.loads(json.dumps(dict(metadata)))
        except TypeError as error:
            raise ValueError(f"checkpoint metadata must be JSON: {error}.") from error
        arrays = {
            path: StoredArray(leaves[path].dtype.name, tuple(leaves[path].shape), value)
            for path, value in checksums(leaves).items()
        }
        return cls(arrays, dict(metrics), metadata)

    def to_json(self) -> dict[str, Any]:
        """Returns the sealed JSON object."""
        content = json.loads(json.dumps(asdict(self)))
        return {"seal": _seal(content), "content": content}

    @classmethod
    def read(cls, path: Path) -> "Record":
        """Reads a record and checks its seal.

        Raises:
          DamagedCheckpointError: if the file is missing, unreadable or altered.
        """
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            content = stored["content"]
            intact = stored["seal"] == _seal(content)
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise DamagedCheckpointError(
                f"{path} cannot be read ({type(error).__name__}: {brief(error)})"
            ) from error
        if not intact:
            raise DamagedCheckpointError(f"{path} was altered: its content does not fit its hash")
        arrays = {
            path: StoredArray(array["dtype"], tuple(array["shape"]), array["checksum"])
            for path, array in content["arrays"].items()
        }
        return cls(arrays, content["metrics"], content["metadata"])

    def misfits(self, targets: Mapping[str, jax.ShapeDtypeStruct], partial: bool) -> list[str]:
        """Lists which targets the checkpoint cannot fill, and what it holds besides.

        Args:
          targets: path -> what is wanted there.
          partial: whether the checkpoint may hold more than that.
        """
        lines = _listing("not in the checkpoint", targets.keys() - self.arrays.keys())
        if not partial:
            lines += _listing("in the checkpoint only", self.arrays.keys() - targets.keys())
        differing = []
        for path in targets.keys() & self.arrays.keys():
            target, there = targets[path], self.arrays[path]
            if (target.dtype.name, target.shape) != (there.dtype, there.shape):
                want = f"{target.dtype}{list(target.shape)}"
                differing.append(f"{path}: {there.dtype}{list(there.shape)}, expected {want}")
        return lines + _listing("of another shape or type", differing)

    def check(self, leaves: Mapping[str, Array]) -> None:
        """Compares arrays that were read with what was written.

        Raises:
          DamagedCheckpointError: with the path of every array that differs.
        """
        found = checksums(leaves)
        damaged = [path for path, value in found.items() if value != self.arrays[path].checksum]
        if damaged:
            raise DamagedCheckpointError(
                "\n".join(_listing("whose checksum differs from the saved one", damaged))
            )


def or_damage(read: Callable[[], Any]) -> Any:
    """Reads arrays, and calls damage whatever the storage layer raises meanwhile.

    It has no exception of its own for that. Other reads that were under way when one failed print
    a page each as they are freed, which would bury the message.

    Raises:
      DamagedCheckpointError: if something was raised, except for want of memory.
    """
    asyncio_log = logging.getLogger("asyncio")
    was_disabled, asyncio_log.disabled = asyncio_log.disabled, True
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # coroutines that were never awaited
            try:
                return read()
            except (MemoryError, jax.errors.JaxRuntimeError):
                raise  # no room for the arrays is another matter
            except Exception as error:
                problem = f"its arrays cannot be read ({type(error).__name__}: {brief(error)})"
            gc.collect()
    finally:
        sys.unraisablehook, asyncio_log.disabled = hook, was_disabled
    raise DamagedCheckpointError(problem)


def brief(error: BaseException) -> str:
    """Returns the first line of what an error says of its cause, cut to a readable length."""
    while error.__cause__ is not None:
        error = error.__cause__
    # TensorStore adds its whole configuration to what it says.
    lines = str(error).split(" [tensorstore_spec")[0].strip().splitlines() or [""]
    # The reason stands at the end, behind the paths.
    return lines[0] if len(lines[0]) <= 300 else f"{lines[0][:100]} ... {lines[0][-200:]}"


def _listing(what: str, lines: Iterable[str]) -> list[str]:
    ordered = sorted(lines)
    if not ordered:
        return []
    shown = [f"  {line}" for line in ordered[:_LISTED]]
    if len(ordered) > _LISTED:
        shown.append(f"  ... and {len(ordered) - _LISTED} more")
    return [f"{len(ordered)} leaves {what}:", *shown]


def storable_leaves(tree: Any) -> dict[str, Array]:
    """Returns the leaves of a tree by path, as arrays.

    Raises:
      ValueError: with every leaf that would not come back as it is.
    """
    leaves, problems = {}, []
    for path, leaf in flatten(tree).items():
        if not isinstance(leaf, jax.Array | np.ndarray):
            problems.append(f"{path}: {type(leaf).__name__}; wrap it in an array")
        elif jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            problems.append(f"{path}: typed random key; pass jax.random.key_data(key)")
        elif leaf.dtype.itemsize > 4:
            problems.append(f"{path}: {leaf.dtype}; use 32 bits")
        elif leaf.size == 0:
            problems.append(f"{path}: no elements (shape {leaf.shape}); leave it out")
        else:
            leaves[path] = jnp.asarray(leaf)
    if problems:
        raise ValueError("\n".join(_listing("that cannot be saved", problems)))
    return leaves


def check_fingerprint(stored: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Raises if a checkpoint was made under another configuration.

    Args:
      stored: flat config of the checkpoint, dotted key -> value as JSON gives it back.
      current: flat config of this run; tuples count as lists.

    Raises:
      ValueError: with every key that differs and both values.
    """
    stored, current = as_before(stored), as_before(json.loads(json.dumps(dict(current))))
    lines = []
    for key in sorted(stored.keys() | current.keys()):
        before = json.dumps(stored[key]) if key in stored else "absent"
        now = json.dumps(current[key]) if key in current else "absent"
        if before != now:
            lines.append(f"  {key}: {before} in the checkpoint, {now} now")
    if lines:
        raise ValueError(
            "fingerprint mismatch: the checkpoint was made with another config:\n"
            + "\n".join(lines)
            + "\nSet these keys back, or start in another working directory."
        )


def _seal(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
