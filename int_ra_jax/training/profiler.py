"""Some steps of a run, recorded by the profiler."""

from pathlib import Path
from typing import Any

import jax
from absl import logging

PROFILE = "profile"  # folder of a workdir


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
