"""Graded relevance: what many people sent under one post, and how often an answer agrees.

One gold sticker a query calls every other sticker wrong, also where people differ. Under a post
with many direct replies their distribution is known, so a system's answer to the post can be graded
by the share of people who sent it, beside what people reach themselves: how often two of them
agree, and what the best single answer and the best five would cover in hindsight. The best answers
are chosen on the very people whom they cover, so they lie somewhat above what anybody could know.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from sklearn.metrics import ndcg_score

from int_ra_jax.data.schema import Conversation
from int_ra_jax.evaluation.page import MINUS
from int_ra_jax.evaluation.report_data import Difference, Interval

MINIMUM = 20  # direct replies from which a post's distribution is worth reading
PEOPLE = ("two_agree", "best_one", "best_five")
ANSWERS = ("first", "five", "ndcg")


@dataclass(frozen=True)
class Post:
    """A post with enough direct replies.

    Attributes:
      name: its thread.
      uses: how many of its direct replies sent each sticker; echoes are not counted.
      query: row of a query whose context is the post alone.
    """

    name: str
    uses: Int[np.ndarray, " N"]
    query: int

    @property
    def replies(self) -> int:
        """How many direct replies were counted."""
        return int(self.uses.sum())

    @property
    def shares(self) -> Float[np.ndarray, " N"]:
        """The share of people who sent each sticker."""
        return self.uses / self.uses.sum()


def find_posts(
    conversations: Sequence[Conversation], gold: Int[np.ndarray, " Q"], stickers: int
) -> list[Post]:
    """Finds the posts of a split whose direct replies are many enough.

    A post that nobody answered with a sticker alone is left out: no query's context is it alone.
    All such queries read the same, so the first one stands for them.

    Args:
      conversations: the queries.
      gold: gallery row of each query's sticker.
      stickers: N, the size of the gallery.

    Returns:
      Posts in the order in which they first occur; none where the data has no threads.
    """
    uses: dict[str, np.ndarray] = {}
    asked: dict[str, int] = {}
    for query, conversation in enumerate(conversations):
        extra = conversation.extra
        if "thread" not in extra or extra.get("direct") is not True:
            continue
        thread = str(extra["thread"])
        counted = uses.setdefault(thread, np.zeros(stickers, np.int64))
        counted[gold[query]] += extra.get("echo") is not True
        if extra.get("case") == "alone":
            asked.setdefault(thread, query)
    return [
        Post(name, counted, asked[name])
        for name, counted in uses.items()
        if counted.sum() >= MINIMUM and name in asked
    ]


def people(uses: Int[np.ndarray, " N"]) -> dict[str, float]:
    """Returns what people reach under one post, as shares of its direct replies.

    Args:
      uses: how many of them sent each sticker, at least two in all.

    Returns:
      ``two_agree``: the probability that two different people sent the same sticker, without bias
      sum of n (n - 1) over N (N - 1); ``best_one`` and ``best_five``: the share of people that the
      best single answer, or the five best, would cover.
    """
    total = uses.sum()
    ordered = np.sort(uses)[::-1]
    return {
        "two_agree": float((uses * (uses - 1)).sum() / (total * (total - 1))),
        "best_one": float(ordered[0] / total),
        "best_five": float(ordered[:5].sum() / total),
    }


def answer(scores: Float[np.ndarray, " N"], shares: Float[np.ndarray, " N"]) -> dict[str, float]:
    """Grades one ranking of the gallery by what people sent; the mean over all orders of ties.

    Args:
      scores: of the gallery for the post alone; higher is better.
      shares: the share of people who sent each sticker, summing to 1.

    Returns:
      ``first``: the probability that a random person sent the first answer; ``five``: the share
      of people whom the first five cover; ``ndcg``: nDCG over the whole gallery with people's
      shares as gains.
    """
    return {
        "first": _covered(scores, shares, 1),
        "five": _covered(scores, shares, 5),
        "ndcg": float(ndcg_score([shares], [scores])),
    }


def graded(
    posts: Iterable[Post], tables: Mapping[str, Float[np.ndarray, "Q N"]]
) -> list[dict[str, Any]]:
    """Grades every system on every post.

    Args:
      posts: see ``find_posts``.
      tables: row -> scores of all queries.

    Returns:
      One object a post: ``post``, ``direct`` (replies counted), ``people`` and ``systems``.
    """
    return [
        {
            "post": post.name,
            "direct": post.replies,
            "people": people(post.uses),
            "systems": {
                name: answer(np.asarray(scores[post.query], np.float64), post.shares)
                for name, scores in tables.items()
            },
        }
        for post in posts
    ]


def sentence(
    system: str,
    answers: Mapping[str, Interval],
    reached: Mapping[str, Interval],
    over_people: Difference,
    over_best: Difference,
    share_of_best: Interval,
) -> str:
    """Says whether a system names the sticker that a person sends more often than another person.

    Args:
      system: its name.
      answers: its ``first``, over posts.
      reached: what people reach.
      over_people: ``first`` minus ``two_agree``, paired over posts.
      over_best: ``first`` minus ``best_one``, likewise.
      share_of_best: ``first`` divided by ``best_one``.
    """
    first, two, best = answers["first"].value, reached["two_agree"].value, reached["best_one"].value
    reading = "there is no clear difference"
    if over_people.low > 0:
        reading = "it names that sticker more often than another person does"
    elif over_people.high < 0:
        reading = "it names that sticker less often than another person does"
    return (
        f"Under a post, the first answer of {system} is the sticker that a person sent "
        f"{100 * first:.1f}% of the time, another person's is {100 * two:.1f}%: {reading} "
        f"({_points(over_people)}). The best single answer, known in hindsight alone, would be "
        f"{100 * best:.1f}% ({_points(over_best)}), of which {system} reaches "
        f"{share_of_best.value:.0%}."
    )


def _points(row: Difference) -> str:
    text = f"{100 * row.difference:+.1f} points [{100 * row.low:.1f}, {100 * row.high:.1f}]"
    return text.replace("-", MINUS)


def _covered(scores: Float[np.ndarray, " N"], shares: Float[np.ndarray, " N"], n: int) -> float:
    """Sums the shares of the first n; of scores tied at the boundary, the part that fits."""
    n = min(n, len(scores))
    boundary = np.partition(scores, -n)[-n]
    ahead, tied = scores > boundary, scores == boundary
    part = (n - ahead.sum()) / tied.sum()
    return float(shares[ahead].sum() + part * shares[tied].sum())
