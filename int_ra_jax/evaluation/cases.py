"""What the conversations of real choices say of themselves: their post, and which case each is.

Such conversations carry in ``extra`` the ``thread`` that they belong to (the post, or the writer's
log), ``case`` ("alone" or "own_words"), and, where the source tells them, ``direct`` (the reply
answers the post itself) and ``echo`` (the sticker stands in the context already, docs/data.md).
Data sets without threads have no cases: each conversation stands for itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from int_ra_jax.data.schema import Conversation

ECHO = "echo"
# Case -> key of ``extra`` and its value, in the order in which they are shown.
_CASES = {
    "alone": ("case", "alone"),
    "own_words": ("case", "own_words"),
    "direct": ("direct", True),
    "chain": ("direct", False),
    ECHO: ("echo", True),
}


@dataclass(frozen=True)
class Cases:
    """Queries by post and by case.

    Attributes:
      clusters: what intervals resample together: each query's thread, else its own id.
      headline: which queries count in the headline: all but echoes.
      named: case -> its queries; only those that occur and leave other queries out.
      threads: whether the data has threads at all.
    """

    clusters: Sequence[str]
    headline: Bool[np.ndarray, " Q"]
    named: Mapping[str, Bool[np.ndarray, " Q"]]
    threads: bool

    def of(self, query: int) -> dict[str, Any]:
        """Returns what a line of per_query.jsonl says of one query."""
        return {
            "cluster": self.clusters[query],
            "headline": bool(self.headline[query]),
            "cases": [name for name, queries in self.named.items() if queries[query]],
        }


def cases(conversations: Sequence[Conversation], unseen: Bool[np.ndarray, " Q"]) -> Cases:
    """Reads the cases of a split's conversations.

    Args:
      conversations: the queries.
      unseen: whether a query's sticker never occurs in train; gives the cases seen and unseen.
    """
    extras = [conversation.extra for conversation in conversations]
    threads = any("thread" in extra for extra in extras)
    everyone = np.ones(len(extras), np.bool_)
    if not threads:
        return Cases([c.id for c in conversations], everyone, {}, threads)
    found = {
        name: np.array([extra.get(key) == value for extra in extras], np.bool_)
        for name, (key, value) in _CASES.items()
    }
    echo = found[ECHO]
    found |= {"seen": ~unseen, "unseen": unseen}
    return Cases(
        clusters=[str(c.extra.get("thread", c.id)) for c in conversations],
        # A split of echoes alone would leave nothing to report.
        headline=everyone if echo.all() else ~echo,
        named={name: rows for name, rows in found.items() if rows.any() and not rows.all()},
        threads=threads,
    )
