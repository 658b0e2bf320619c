"""Programs, kept on disk from start to start: compiled ones, and traced ones."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from int_ra_jax.run.array_store import ArrayStore

PROGRAMS = "compiled"  # folder of a workdir
_DIRECTORY = "jax_compilation_cache_dir"
_lock = threading.Lock()
_inside: list[Path] = []  # directories asked for by those who are inside now
_before: dict[str, Any] = {}  # JAX's settings before the first of them came


@contextmanager
def kept_programs(where: str, workdir: Path) -> Iterator[None]:
    """Keeps what is compiled inside on disk, so that the next start need not compile it.

    Every program is kept, however small: a start consists of hundreds. A cache that is set
    already, as by JAX_COMPILATION_CACHE_DIR, is left as it is. With several processes the first
    one writes. It may be entered by several threads: JAX knows one directory at a time, so the
    first one's is used until the last one has left.

    Args:
      where: ``train.compilation_cache``: "workdir", "off", or a directory.
      workdir: of the run.
    """
    directory = workdir / PROGRAMS if where == "workdir" else Path(where)
    settings = {
        _DIRECTORY: str(directory.absolute()),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    with _lock:
        ours = where != "off" and bool(_inside or not getattr(jax.config, _DIRECTORY))
        if ours and not _inside:
            _before.update({name: getattr(jax.config, name) for name in settings})
            _configure(settings)
        if ours:
            _inside.append(directory)
    try:
        yield
    finally:
        with _lock:
            if ours:
                _inside.remove(directory)
            if ours and not _inside:
                _configure(_before)


def traced(
    store: ArrayStore,
    name: str,
    sources: Iterable[str | bytes],
    function: Callable[..., Any],
    *arguments: Any,
) -> Callable[..., Any]:
    """Returns a jitted function of the leaves of some arguments, traced anew only where it must be.

    What JAX traces is kept as it stands, so that the results are the same bits. Compiling is left
    to ``kept_programs``.

    Args:
      store: keeps it.
      name: of the program; only the newest one of a name is kept.
      sources: what the function depends on besides shapes: its code, and what it closes over.
      function: of pytrees of arrays; returns nothing but tuples and lists of arrays.
      arguments: of that function; their values do not matter.
    """
    leaves, structure = jax.tree.flatten(arguments)

    def depends() -> Iterator[str | bytes]:
        yield f"{[(leaf.shape, leaf.dtype) for leaf in leaves]} {structure}"
        yield from sources

    def trace() -> np.ndarray:
        store.forget(name)
        program = jax.jit(lambda *leaves: function(*jax.tree.unflatten(structure, leaves)))
        return np.frombuffer(jax.export.export(program)(*leaves).serialize(), np.uint8)

    kept = store.get(name, depends, trace)
    return jax.jit(jax.export.deserialize(bytearray(np.asarray(kept).tobytes())).call)


def _configure(settings: dict[str, Any]) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # jax reads the settings once, at the first compilation
