"""What a process that does many runs on the same data reads once, and keeps.

Off by default: a process does one run, whose files may change until the next one.
"""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

_Value = TypeVar("_Value")
_kept: dict[Hashable, Any] | None = None


def switch_on() -> None:
    """Keeps, from now on, whatever ``once`` is asked for."""
    global _kept
    _kept = {} if _kept is None else _kept


def once(key: Hashable, compute: Callable[[], _Value]) -> _Value:
    """Returns what ``compute`` returns, or returned the first time for this key.

    Args:
      key: names the value and everything that it depends on.
      compute: makes the value; nobody may change it.
    """
    if _kept is None:
        return compute()
    if key not in _kept:
        _kept[key] = compute()
    value: _Value = _kept[key]
    return value
