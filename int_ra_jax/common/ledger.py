"""What became of every record that a reader met: kept, or left out for a reason that has a name."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

Value = TypeVar("Value")


class LeftOut(Exception):
    """Raised for a record that is not kept; its message is the reason's name.

    Attributes:
      names: of people whom the record names, and who may be spoken of in others.
    """

    names: tuple[str, ...] = ()


@dataclass
class Reason:
    """How often records were left out for one reason, and where first (file:line, or an id)."""

    count: int
    first: str


@dataclass
class Ledger:
    """Counts records so that ``records_in == kept + sum of left_out``, always.

    A reader passes each record through ``judge``, which either returns what became of it or notes
    why there is nothing, so that no record can vanish in between.

    Attributes:
      records_in: records met.
      kept: records that became something.
      left_out: reason -> count and first place.
    """

    records_in: int = 0
    kept: int = 0
    left_out: dict[str, Reason] = field(default_factory=dict)

    def judge(self, place: str, make: Callable[[], Value]) -> Value | None:
        """Returns what ``make`` returns, or None where it raises LeftOut, which is noted.

        Args:
          place: where the record stands, as a reader finds it again.
          make: turns the record into something, or raises LeftOut with the reason's name.
        """
        self.records_in += 1
        try:
            made = make()
        except LeftOut as reason:
            noted = self.left_out.setdefault(str(reason), Reason(0, place))
            noted.count += 1
            return None
        self.kept += 1
        return made

    def to_json(self) -> dict[str, Any]:
        """Returns ``{"records_in", "kept", "left_out": {reason: {"count", "first"}}}``."""
        return {
            "records_in": self.records_in,
            "kept": self.kept,
            "left_out": {name: vars(reason) for name, reason in sorted(self.left_out.items())},
        }

    def __str__(self) -> str:
        lines = [f"{self.records_in} records in, {self.kept} kept"]
        lines += [
            f"  left out: {reason.count} ({name}; first {reason.first})"
            for name, reason in sorted(self.left_out.items())
        ]
        return "\n".join(lines)
