"""Compiled programs, kept on disk from start to start."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

PROGRAMS = "compiled"  # folder of a workdir
_DIRECTORY = "jax_compilation_cache_dir"


@contextmanager
def kept_programs(where: str, workdir: Path) -> Iterator[None]:
    """Keeps what is compiled inside on disk, so that the next start need not compile it.

    Every program is kept, however small: a start consists of hundreds. A cache that is set
    already, as by JAX_COMPILATION_CACHE_DIR, is left as it is. With several processes the first
    one writes.

    Args:
      where: ``train.compilation_cache``: "workdir", "off", or a directory.
      workdir: of the run.
    """
    if where == "off" or getattr(jax.config, _DIRECTORY):
        yield
        return
    directory = workdir / PROGRAMS if where == "workdir" else Path(where)
    settings = {
        _DIRECTORY: str(directory.absolute()),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    _configure(settings)
    try:
        yield
    finally:
        _configure(before)


def _configure(settings: dict[str, Any]) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # jax reads the settings once, at the first compilation
