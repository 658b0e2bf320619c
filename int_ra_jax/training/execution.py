"""How a run's programs are kept from start to start, and recorded by the profiler."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from absl import logging
from jax.experimental.compilation_cache import compilation_cache

PROGRAMS = "compiled"  # folder of a workdir
PROFILE = "profile"
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


class ProfileWindow:
    """Records some steps with the profiler, for TensorBoard's or Perfetto's trace viewer.

    ``with ProfileWindow((100, 104), workdir / PROFILE) as window: window.before(step); ...;
    window.after(step, results)``. Process 0 records what happens on its own devices.
    """

    def __init__(self, steps: tuple[int, int], directory: Path) -> None:
        """Records nothing yet.

        Args:
          steps: first and last step; (0, 0) for none.
          directory: where the trace goes.
        """
        self._first, self._last = steps
        self._directory = directory
        self._records = self._last > 0 and jax.process_index() == 0
        self._running = False

    def before(self, step: int) -> None:
        """To be called before a step is started."""
        if self._records and not self._running and self._first <= step <= self._last:
            jax.profiler.start_trace(self._directory)
            self._running = True

    def after(self, step: int, results: Any) -> None:
        """To be called once a step is started; waits for its results after the last one."""
        if self._running and step >= self._last:
            jax.block_until_ready(results)
            self._stop()

    def __enter__(self) -> "ProfileWindow":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._running:  # the run ended inside the window
            self._stop()

    def _stop(self) -> None:
        jax.profiler.stop_trace()
        self._running = False
        logging.info("profile of steps %d to %d: %s", self._first, self._last, self._directory)


def _configure(settings: dict[str, Any]) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # jax reads the settings once, at the first compilation
