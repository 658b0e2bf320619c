"""Arrays that many runs would compute alike, kept on disk under what they are computed from."""

import hashlib
import os
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

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
        """Returns the array from the folder, or computes and keeps it.

        Args:
          name: what it is, in the file's name and in messages.
          sources: returns all that the result depends on, in a fixed order; called only where
            something is kept.
          compute: returns the array; None, for "there is none", is not kept.

        Raises:
          OSError: if the array cannot be written.
        """
        if self._directory is None:
            return compute()
        path = self._directory / f"{name}-{_digest(sources())}.npz"
        if path.is_file():
            try:
                return _read(path)
            except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as bad:
                logging.warning("%s cannot be used (%s); computed again", path, bad)
        array = compute()
        if array is not None:
            _write(path, np.ascontiguousarray(jax.device_get(array)))
        return array


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


def _read(path: Path) -> np.ndarray:
    # A ZIP, whose members have checksums, which numpy's own format has not.
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        array: np.ndarray = file["bits"].view(jnp.dtype(str(file["dtype"])))
        return array


def _write(path: Path, array: np.ndarray) -> None:
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            # numpy's format knows no bfloat16.
            bits = array.view(f"u{array.dtype.itemsize}")
            np.savez(file, bits=bits, dtype=np.array(str(array.dtype)))
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
