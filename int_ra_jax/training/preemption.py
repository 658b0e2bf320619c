"""Stopping in good order: a signal asks the training loop to save and leave.

Cluster schedulers send SIGTERM before they take a machine away, and a person presses Ctrl-C. Both
only set a flag, which the loop reads between two steps; nothing is interrupted half-way. Of
several processes all stop after the same step, whichever of them was told.
"""

import os
import signal
from types import FrameType, TracebackType
from typing import Any

import jax
from absl import logging
from jax.experimental import multihost_utils


class PreemptionGuard:
    """Turns SIGTERM and SIGINT into the flag ``requested`` while the context is open.

    With several processes SIGTERM belongs to jax, which has been watching for it since they were
    joined and spreads the news in the background; SIGINT is passed on to it.

    A second SIGINT raises KeyboardInterrupt at once, for a person who does not want to wait. Can
    only be entered in the main thread, as Python allows signal handlers nowhere else.
    """

    def __init__(self) -> None:
        self.requested = False
        self._alone = jax.process_count() == 1
        self._interrupted = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "PreemptionGuard":
        own = (signal.SIGTERM, signal.SIGINT) if self._alone else (signal.SIGINT,)
        for number in own:
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            # None stands for a handler that was not installed from Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous.clear()

    def agreed(self, step: int) -> bool:
        """Says whether to stop after this step; the same on every process.

        Does not wait, for devices or for other processes. Each process calls it once a step.
        """
        return (
            self.requested if self._alone else multihost_utils.reached_preemption_sync_point(step)
        )

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._interrupted:
            raise KeyboardInterrupt
        self._interrupted |= number == signal.SIGINT
        self.requested = True
        if not self._alone:
            os.kill(os.getpid(), signal.SIGTERM)
        logging.warning(
            "%s received: stopping after this step, with a checkpoint%s",
            signal.Signals(number).name,
            " (again to stop at once)" if number == signal.SIGINT else "",
        )
