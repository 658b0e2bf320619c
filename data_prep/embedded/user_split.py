"""Splits pairs of users into train, valid and test so that no user is in two of them.

Almost all users of the chats hang together through a few very busy ones, so connected components
do not help. Groups for valid and test are grown user by user, each time by the one who brings the
largest share of his examples along; pairs with one user inside and one outside are left out.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from data_prep.embedded.chitchat import order_key

_BUSIEST = 5  # users that stay in train, since any group with them would lose most of its pairs
_STARTS = 8  # starting users tried for each group; the group that loses the least is taken


@dataclass(frozen=True)
class UserSplit:
    """Where each user belongs.

    Attributes:
      split: user -> "train", "valid" or "test".
      lost: examples left out because their two users are in different splits.
    """

    split: Mapping[str, str]
    lost: int

    def of(self, users: frozenset[str]) -> str | None:
        """The split of a pair of users; None if it is left out."""
        found = {self.split[user] for user in users}
        return found.pop() if len(found) == 1 else None


def split_users(weights: Mapping[frozenset[str], int], fraction: float, seed: int) -> UserSplit:
    """Finds disjoint groups of users for the three splits.

    Args:
      weights: how many examples each pair of users has.
      fraction: the share of all examples that valid and test each should get, in (0, 0.5).
      seed: chooses the starting users.

    Returns:
      The split of each user and the number of examples lost.
    """
    links: dict[str, dict[str, int]] = defaultdict(dict)
    for pair, weight in weights.items():
        one, other = sorted(pair)
        links[one][other] = links[other][one] = weight
    total = {user: sum(linked.values()) for user, linked in links.items()}
    goal = int(fraction * sum(weights.values()))
    busiest = sorted(total, key=lambda user: (-total[user], user))[:_BUSIEST]
    split = dict.fromkeys(sorted(links), "train")
    taken = set(busiest)
    for name in ("test", "valid"):
        free = sorted(set(links) - taken, key=lambda user: order_key(f"{name}/{user}", seed))
        groups = [_grow(links, total, taken, start, goal) for start in free[:_STARTS]]
        group = min(groups, key=lambda found: (_lost(links, found), sorted(found)))
        taken |= group
        split |= dict.fromkeys(group, name)
    lost = sum(
        weight for pair, weight in weights.items() if len({split[user] for user in pair}) > 1
    )
    return UserSplit(split, lost)


def _grow(
    links: Mapping[str, Mapping[str, int]],
    total: Mapping[str, int],
    taken: set[str],
    start: str,
    goal: int,
) -> set[str]:
    """The group around ``start`` that holds about ``goal`` examples among its own users."""
    group: set[str] = set()
    inside: Counter[str] = Counter()
    queue, held = [(0.0, start)], 0
    rest = iter(sorted(set(links) - taken))
    while held < goal:
        if not queue:
            following = next((user for user in rest if user not in group), None)
            if following is None:
                break
            queue = [(0.0, following)]
        _, user = heapq.heappop(queue)
        if user in group:
            continue
        group.add(user)
        held += inside[user]
        for other, weight in links[user].items():
            inside[other] += weight
            if other not in group and other not in taken:
                heapq.heappush(queue, (-inside[other] / (total[other] + 1), other))
    return group


def _lost(links: Mapping[str, Mapping[str, int]], group: set[str]) -> int:
    return sum(
        weight for user in group for other, weight in links[user].items() if other not in group
    )
