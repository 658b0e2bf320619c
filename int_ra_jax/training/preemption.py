"""Stopping in good order: a signal asks the training loop to save and leave.

Cluster schedulers send SIGTERM before they take a machine away, and a person presses Ctrl-C. Both
only set a flag, which the loop reads between two steps; nothing is interrupted half-way.
"""

import signal
from types import FrameType, TracebackType
from typing import Any

from absl import logging


class PreemptionGuard:
    """Turns SIGTERM and SIGINT into the flag ``requested`` while the context is open.

    A second SIGINT raises KeyboardInterrupt at once, for a person who does not want to wait. Can
    only be entered in the main thread, as Python allows signal handlers nowhere else.
    """

    _SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.requested = False
        self._interrupted = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "PreemptionGuard":
        for number in self._SIGNALS:
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
