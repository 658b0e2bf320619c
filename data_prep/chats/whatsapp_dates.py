"""The order of day, month and year in the dates of a WhatsApp export.

``3/4/21`` is April in London and March in Boston. No line says which, but the whole file nearly
always does: a number above 12 is no month, and messages stand in the order of time.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

ORDERS = ("dmy", "mdy", "ymd")
_YEARS = range(1990, 2101)
_BUDDHIST = 543  # years before the Gregorian year one


@dataclass(frozen=True)
class Head:
    """Date and time as they are written.

    Attributes:
      numbers: the three numbers of the date, in the order in which they stand.
      year_first: whether the first has four digits.
      clock: (hour, minute, second), the hour from 0 to 23.
    """

    numbers: tuple[int, int, int]
    year_first: bool
    clock: tuple[int, int, int]

    def seconds(self, order: str) -> int:
        """Returns seconds since 1970, the local time taken as UTC.

        Raises:
          ValueError: if there is no such day.
        """
        parts = dict(zip(order, self.numbers, strict=True))
        year = parts["y"] if parts["y"] > 99 else 2000 + parts["y"]
        if year - _BUDDHIST in _YEARS:
            year -= _BUDDHIST
        try:
            if year not in _YEARS:
                raise ValueError(f"{year} is no year of a chat")
            moment = datetime(year, parts["m"], parts["d"], *self.clock, tzinfo=UTC)
        except ValueError as error:
            raise ValueError(f"{self.numbers} is no date in the order {order}") from error
        return int(moment.timestamp())


@dataclass(frozen=True)
class Decision:
    """The order of the dates of a file.

    Attributes:
      order: "dmy", "mdy" or "ymd".
      doubt: why another order is as good, or empty.
    """

    order: str
    doubt: str = ""


class Orders:
    """Learns the order from the heads of a file, one after the other.

    Attributes:
      count: of the heads.
    """

    def __init__(self) -> None:
        """Starts without any head."""
        self.count = 0
        self._impossible = dict.fromkeys(ORDERS, 0)
        self._backwards = dict.fromkeys(ORDERS, 0)
        self._last: dict[str, int] = {}

    def add(self, head: Head) -> None:
        """Counts the orders in which there is no such date, or time runs backwards."""
        self.count += 1
        # 21/3/4 with two digits may still begin with the year.
        written = head.year_first or max(head.numbers) > 99
        for order in ORDERS:
            try:
                if written and head.year_first != (order == "ymd"):
                    raise ValueError("the year stands elsewhere")
                now = head.seconds(order)
            except ValueError:
                self._impossible[order] += 1
                continue
            self._backwards[order] += now < self._last.get(order, now)
            self._last[order] = now

    def fits(self, order: str) -> bool:
        """Whether no other order has fewer impossible dates."""
        return self._impossible[order] == min(self._impossible.values())

    def decide(self, wanted: str = "auto") -> Decision:
        """Decides the order.

        The one with the fewest impossible dates is taken; of several, the one under which time runs
        backwards least often; day before month where that is open still, with a word on it.

        Args:
          wanted: an order, which is taken as it is; or "auto".

        Raises:
          ValueError: if there is no date, or no order fits any of them.
        """
        if not self.count:
            raise ValueError("no line begins with a date and a time")
        if wanted != "auto":
            return Decision(wanted)
        if min(self._impossible.values()) == self.count:
            raise ValueError(
                "the dates fit neither day/month/year nor month/day/year nor y/m/d, "
                "in the Gregorian or the Buddhist calendar"
            )
        faults = {order: (self._impossible[order], self._backwards[order]) for order in ORDERS}
        fitting = [order for order in ORDERS if faults[order] == min(faults.values())]
        doubt = f"the dates fit {' and '.join(fitting)} equally well" if len(fitting) > 1 else ""
        return Decision(fitting[0], doubt)


def decide(heads: Iterable[Head], wanted: str = "auto") -> Decision:
    """Decides the order of a file's dates from all of its heads (``Orders.decide``)."""
    orders = Orders()
    for head in heads:
        orders.add(head)
    return orders.decide(wanted)
