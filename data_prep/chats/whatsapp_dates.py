"""Date and time at the start of a line of WhatsApp's export, whatever the phone's language.

``3/4/21`` is April in London and March in Boston. No line says which, but the whole file nearly
always does: a number above 12 is no month, and messages stand in the order of time.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

ORDERS = ("dmy", "mdy", "ymd")
_DAYTIME = "上午|下午|凌晨|早上|中午|晚上"
HEAD = re.compile(
    r"^(?P<open>\[)?(?P<a>\d{1,4})[/.-](?P<b>\d{1,2})[/.-](?P<c>\d{1,4}),?\s"
    rf"(?P<before>{_DAYTIME})?\s?(?P<hour>\d{{1,2}})[:.](?P<minute>\d{{2}})(?:[:.](?P<second>\d{{2}}))?"
    r"(?:\s?(?P<after>[ap]\.?\s?m\.?))?(?(open)\]\s?|\s-\s)",
    re.I,
)


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

    @classmethod
    def of(cls, match: re.Match[str]) -> "Head":
        """Reads what ``HEAD`` matched."""
        hour = int(match["hour"])
        half = (match["after"] or "").lower()[:1]
        if match["before"]:
            half = "a" if match["before"] in ("上午", "凌晨", "早上") else "p"
        if half:
            hour = hour % 12 + (12 if half == "p" else 0)
        numbers = (int(match["a"]), int(match["b"]), int(match["c"]))
        clock = (hour, int(match["minute"]), int(match["second"] or 0))
        return cls(numbers, len(match["a"]) == 4, clock)

    def seconds(self, order: str) -> int:
        """Returns seconds since 1970, the local time taken as UTC.

        Raises:
          ValueError: if there is no such day.
        """
        parts = dict(zip(order, self.numbers, strict=True))
        year = parts["y"] if parts["y"] > 99 else 2000 + parts["y"]
        try:
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


def decide(heads: Iterable[Head], wanted: str = "auto") -> Decision:
    """Decides the order of a file's dates from all of them.

    An order under which a date does not exist is out. Of the others, the one under which time runs
    backwards least often is taken; day before month where that is open still, with a word on it.

    Args:
      heads: of all messages, in the order of the file.
      wanted: an order, which is taken as it is; or "auto".

    Raises:
      ValueError: if there is no date, or no order fits all of them.
    """
    backwards: dict[str, int] = dict.fromkeys(ORDERS, 0)
    last: dict[str, int] = {}
    count = 0
    for head in heads:
        count += 1
        for order in list(backwards):
            try:
                # 21/3/4 with two digits may still begin with the year.
                written = head.year_first or max(head.numbers) > 99
                if written and head.year_first != (order == "ymd"):
                    raise ValueError("the year stands elsewhere")
                now = head.seconds(order)
            except ValueError:
                del backwards[order]
                continue
            backwards[order] += now < last.get(order, now)
            last[order] = now
    if not count:
        raise ValueError("no line begins with a date and a time")
    if wanted != "auto":
        return Decision(wanted)
    if not backwards:
        raise ValueError("the dates fit neither day/month/year nor month/day/year nor y/m/d")
    best = min(backwards.values())
    fitting = [order for order in ORDERS if backwards.get(order) == best]
    doubt = f"the dates fit {' and '.join(fitting)} equally well" if len(fitting) > 1 else ""
    return Decision(fitting[0], doubt)
