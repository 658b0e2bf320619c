"""Stopping in good order: a signal asks the training loop to save and leave.

Cluster schedulers send SIGTERM before they take a machine away, and a person presses Ctrl-C. Both
only set a flag, which the loop reads between two steps; nothing is interrupted half-way. Of
several processes all stop after the same step, whichever of them was told.
"""

import signal
from types import FrameType
from typing import Any

import jax
from absl import logging

from int_ra_jax.common import hosts


class PreemptionGuard:
    """Turns SIGTERM and SIGINT into the flag ``requested`` while the context is open.

    A second SIGINT raises KeyboardInterrupt at once, for a person who does not want to wait. Can
    only be entered in the main thread, as Python allows signal handlers nowhere else.
    """

    _SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.requested = False
        self._alone = jax.process_count() == 1
        self._asked: jax.Array | None = None
        self._interrupted = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "PreemptionGuard":
        for number in self._SIGNALS:
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            # None stands for a handler that was not installed from Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous.clear()

    def agreed(self) -> bool:
        """Says whether to stop after this step; the same on every process.

        Several processes ask each other on the devices, and read the answer a step later, when it
        is there: none waits for the step that is under way. Each of them calls this once a step.
        """
        if self._alone:
            return self.requested
        answer, self._asked = self._asked, hosts.any_process(self.requested)
        return answer is not None and bool(answer)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._interrupted:
            raise KeyboardInterrupt
        self._interrupted |= number == signal.SIGINT
        self.requested = True
        logging.warning(
            "%s received: stopping after this step, with a checkpoint%s",
            signal.Signals(number).name,
            " (again to stop at once)" if number == signal.SIGINT else "",
        )
