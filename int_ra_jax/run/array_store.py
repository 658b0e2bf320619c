"""Arrays that many runs would compute alike, kept on disk under what they are computed from."""

import hashlib
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging


class ArrayStore:
    """A folder of arrays, each under the hash of everything that it was computed from.

    Two processes may use one folder: what both compute, the later one writes over the other's equal
    file. A file that cannot be read, or whose checksum is wrong, is computed again.
    """

    def __init__(self, directory: str) -> None:
        """Opens a folder.

        Args:
          directory: an existing folder; where it is "" or does not exist, as after a move to
            another machine, nothing is kept.
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

        Raises:
          OSError: if the arrays cannot be written.
        """
        if self._directory is None:
            return compute()
        path = self._directory / f"{name}-{_digest(sources())}.npz"
        if path.is_file():
            try:
                return _read(path)
            except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as bad:
                logging.warning("%s cannot be used (%s); computed again", path, bad)
        arrays = compute()
        if arrays:
            _write(path, {key: np.ascontiguousarray(leaf) for key, leaf in arrays.items()})
        return arrays

    def forget(self, name: str) -> None:
        """Deletes what is kept under a name, from whatever it was computed."""
        if self._directory is not None:
            for path in self._directory.glob(f"{name}-*.npz"):
                path.unlink(missing_ok=True)


def _digest(sources: Iterable[str | bytes | np.ndarray]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for source in sources:
        if isinstance(source, np.ndarray):
            digest.update(f"{source.dtype} {source.shape} ".encode())
            digest.update(np.ascontiguousarray(source).reshape(-1).view(np.uint8).data)
        else:
            content = source.encode() if isinstance(source, str) else source
            digest.update(f"{len(content)} ".encode())  # so that "a", "bc" is not "ab", "c"
            digest.update(content)
    return digest.hexdigest()


def _read(path: Path) -> dict[str, np.ndarray]:
    # A ZIP, whose members have checksums, which numpy's own format has not.
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        named = zip(file["names"].tolist(), file["dtypes"].tolist(), strict=True)
        return {
            name: file[f"bits{i}"].view(jnp.dtype(dtype)) for i, (name, dtype) in enumerate(named)
        }


def _write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
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
        beside.unlink(missing_ok=True)
