"""The known names most like one that is not known, for errors that say what was meant."""

import difflib
from collections.abc import Collection


def nearest(name: str, known: Collection[str], cutoff: float = 0.0) -> str:
    """Returns the known name most like another, or "" where none is like it enough.

    Args:
      name: what was given.
      known: what there is.
      cutoff: how like the two must be, from 0 (whatever there is) to 1 (the same).
    """
    return next(iter(difflib.get_close_matches(name, list(known), 1, cutoff)), "")


def did_you_mean(name: str, known: Collection[str]) -> str:
    """Returns the end of a message, with up to three names much like ``name``; "" for none."""
    matches = difflib.get_close_matches(name, list(known), n=3)
    return f". Did you mean {' or '.join(map(repr, matches))}?" if matches else ""
