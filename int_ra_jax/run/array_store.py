"""Arrays that many runs would compute alike, kept on disk under what they are computed from."""

import contextlib
import hashlib
import os
import uuid
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from int_ra_jax.common import process_memory


class ArrayStore:
    """A folder of arrays, each under the hash of everything that it was computed from.

    Two processes may use one folder: what both compute, the later one writes over the other's equal
    file. A file that cannot be read, or whose checksum is wrong, is computed again.
    """

    def __init__(self, directory: str) -> None:
        """Opens a folder.

        Args:
          directory: an existing folder; where it is "" or does not exist, as after a move to
            another machine, nothing is kept. What cannot be written, as in a folder to read from
            or on a full disk, is not kept either, and a warning says so.
        """
        self._directory = Path(directory) if directory and Path(directory).is_dir() else None

    def get(
        self,
        name: str,
        sources: Callable[[], Iterable[str | bytes | np.ndarray]],
        compute: Callable[[], np.ndarray | jax.Array | None],
    ) -> np.ndarray | jax.Array | None:
        """Returns the array from the folder, or computes and keeps it; see ``get_all``.

        ``compute`` may return None, for "there is none", which is not kept.
        """

        def compute_all() -> dict[str, np.ndarray | jax.Array]:
            array = compute()
            return {} if array is None else {name: array}

        return self.get_all(name, sources, compute_all).get(name)

    def get_all(
        self,
        name: str,
        sources: Callable[[], Iterable[str | bytes | np.ndarray]],
        compute: Callable[[], Mapping[str, np.ndarray | jax.Array]],
    ) -> Mapping[str, np.ndarray | jax.Array]:
        """Returns some arrays by their names from the folder, or computes and keeps them.

        Args:
          name: what they are, in the file's name and in messages.
          sources: returns all that the result depends on, in a fixed order; called only where
            something is kept.
          compute: returns the arrays.
        """
        if self._directory is None:
            return compute()
        path = self._directory / f"{name}-{digest(sources())}.npz"
        return process_memory.once(path, lambda: self._get_all(name, path, compute))

    def _get_all(
        self,
        name: str,
        path: Path,
        compute: Callable[[], Mapping[str, np.ndarray | jax.Array]],
    ) -> Mapping[str, np.ndarray | jax.Array]:
        if path.is_file():
            try:
                return _read(path)
            except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as bad:
                logging.warning("%s cannot be used (%s); computed again", path, bad)
        arrays = compute()
        if arrays:
            try:
                _write(path, {key: np.ascontiguousarray(leaf) for key, leaf in arrays.items()})
            except OSError as error:  # no reason not to answer
                logging.warning("%s is not kept: %s", name, error)
        return arrays

    def forget(self, name: str, but: str = "") -> None:
        """Deletes what is kept under a name, from whatever it was computed, if it can be.

        Args:
          name: that files begin with.
          but: longer beginning of those that stay; none do by default.
        """
        if self._directory is not None:
            for path in self._directory.glob(f"{name}-*.npz"):
                if not (but and path.name.startswith(f"{but}-")):
                    with contextlib.suppress(OSError):
                        path.unlink(missing_ok=True)


def digest(sources: Iterable[str | bytes | np.ndarray]) -> str:
    """Returns the hash of texts, bytes and arrays, in hexadecimal."""
    state = hashlib.blake2b(digest_size=16)
    for source in sources:
        if isinstance(source, np.ndarray):
            state.update(f"{source.dtype} {source.shape} ".encode())
            state.update(np.ascontiguousarray(source).reshape(-1).view(np.uint8).data)
        else:
            content = source.encode() if isinstance(source, str) else source
            state.update(f"{len(content)} ".encode())  # so that "a", "bc" is not "ab", "c"
            state.update(content)
    return state.hexdigest()


def _read(path: Path) -> dict[str, np.ndarray]:
    # A ZIP, whose members have checksums, which numpy's own format has not.
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        named = zip(file["names"].tolist(), file["dtypes"].tolist(), strict=True)
        return {
            name: file[f"bits{i}"].view(jnp.dtype(dtype)) for i, (name, dtype) in enumerate(named)
        }


def _write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    # Processes of several hosts, which may have one number, can write to one folder.
    beside = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    # numpy's format knows no bfloat16.
    bits: dict[str, Any] = {
        f"bits{i}": array.view(f"u{array.dtype.itemsize}")
        for i, array in enumerate(arrays.values())
    }
    dtypes = np.array([str(array.dtype) for array in arrays.values()])
    try:
        with beside.open("wb") as file:
            np.savez(file, names=np.array(list(arrays)), dtypes=dtypes, **bits)
        os.replace(beside, path)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
