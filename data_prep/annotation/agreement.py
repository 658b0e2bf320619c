"""How far annotators agree: Cohen's kappa of each pair, Fleiss' kappa of all.

"None fits" counts as a category of its own. What somebody skipped or never saw is no rating:
Cohen's kappa is over what both of a pair rated, Fleiss' over what all rated. Each figure says how
many these are, and how many that only some of them rated it leaves out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from statsmodels.stats.inter_rater import aggregate_raters, cohens_kappa, fleiss_kappa

from data_prep.annotation import workspace
from data_prep.annotation.decisions import TIE, by_conversation, decide
from data_prep.annotation.workspace import SENT, Votes

_FIT = ("does not fit", "fits")


@dataclass(frozen=True)
class Kappa:
    """One figure of agreement.

    Attributes:
      annotators: whom it compares.
      conversations: how many all of them rated.
      left_out: how many only some of them rated; the figure says nothing about these.
      same: share of these on which all gave the same answer; None without any.
      kappa: None where it is undefined: nothing rated by all, or one answer used throughout.
      low: lower end of the 95% interval; None where there is none (Fleiss' has none).
      high: upper end.
    """

    annotators: tuple[str, ...]
    conversations: int
    left_out: int
    same: float | None
    kappa: float | None
    low: float | None = None
    high: float | None = None


def cohen(votes: Votes, classes: Sequence[str]) -> list[Kappa]:
    """Compares each pair of annotators, in the order of their names; ``classes`` can be voted."""
    found = []
    for pair in combinations(sorted(votes), 2):
        ratings, left_out = _ratings(votes, pair, classes)
        counts = (len(ratings), left_out, _same(ratings))
        if _undefined(ratings):
            found.append(Kappa(pair, *counts, None))
            continue
        table = np.zeros((len(classes) + 1,) * 2, dtype=int)
        np.add.at(table, tuple(ratings.T), 1)
        used = np.flatnonzero(table.sum(0) + table.sum(1))
        with np.errstate(invalid="ignore", divide="ignore"):  # a z value that nobody reads
            result = cohens_kappa(table[np.ix_(used, used)])
        low, high = (_finite(value) for value in (result.kappa_low, result.kappa_upp))
        found.append(Kappa(pair, *counts, float(result.kappa), low, high))
    return found


def fleiss(votes: Votes, classes: Sequence[str]) -> Kappa | None:
    """Compares all annotators who rated anything; None with fewer than two."""
    names = tuple(name for name in sorted(votes) if votes[name])
    if len(names) < 2:
        return None
    ratings, left_out = _ratings(votes, names, classes)
    counts = (len(ratings), left_out, _same(ratings))
    if _undefined(ratings):
        return Kappa(names, *counts, None)
    table, _ = aggregate_raters(ratings)
    return Kappa(names, *counts, float(fleiss_kappa(table)))


def _ratings(votes: Votes, names: Sequence[str], classes: Sequence[str]) -> tuple[np.ndarray, int]:
    """What all of them rated, and the number of conversations that only some of them did.

    Returns:
      [conversations, annotators] class ids, the last one "none fits"; and the number.
    """
    number = {name: index for index, name in enumerate(classes)} | {None: len(classes)}
    rated = [set(votes[name]) for name in names]
    common = sorted(set.intersection(*rated))
    rows = [[number[votes[name][one]] for name in names] for one in common]
    left_out = len(set.union(*rated)) - len(common)
    return np.array(rows, dtype=int).reshape(len(rows), len(names)), left_out


def _undefined(ratings: np.ndarray) -> bool:
    return np.unique(ratings).size < 2


def _same(ratings: np.ndarray) -> float | None:
    return float((ratings == ratings[:, :1]).all(axis=1).mean()) if len(ratings) else None


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def summary_lines(workdir: Path) -> list[str]:
    """Says in lines how much was rated, what is still to be adjudicated, and each kappa.

    Raises:
      FileNotFoundError: if no annotation was begun there.
      BadInputError: if a file has a line that is no event.
    """
    settings = workspace.read_settings(workdir)
    said = workspace.read_votes(workdir, settings)
    intentions, stickers = workspace.read_adjudication(workdir, settings)
    decided, fitting = decide(said.intentions, intentions), decide(said.stickers, stickers)
    counts = ", ".join(f"{name} {len(given)}" for name, given in said.intentions.items())
    ties = {one for found in (decided, fitting) for one in found if found[one].how == TIE}
    return [
        f"rated: {counts or 'nobody yet'}",
        f"{len(decided)} conversations, {len(intentions)} adjudicated, "
        f"{len(ties)} ties to adjudicate",
        *_kappas(said.intentions, settings.intentions),
        *sticker_lines(said.stickers),
    ]


def sticker_lines(votes: Votes) -> list[str]:
    """Says in lines how far annotators agree that stickers fit, and on which others would.

    Kappa is on the first alone: which sticker another one would be is chosen out of so many that
    chance has no part in it.

    Args:
      votes: annotator -> conversation -> the sticker; see ``workspace.sticker_votes_in``.

    Returns:
      No lines where nobody was asked.
    """
    asked = {name: given for name, given in votes.items() if given}
    if not asked:
        return []
    fits = {name: {c: _FIT[vote == SENT] for c, vote in g.items()} for name, g in asked.items()}
    others = [
        [vote for vote in given.values() if vote] for given in by_conversation(asked).values()
    ]
    several = [chosen for chosen in others if len(chosen) > 1]
    alike = sum(len({*chosen}) == 1 for chosen in several)
    shares = (
        f"{name} {sum(vote == _FIT[True] for vote in given.values())} of {len(given)}"
        for name, given in fits.items()
    )
    return [
        "the sticker that was sent fits: " + ", ".join(shares),
        *(f"whether it fits, {line}" for line in _kappas(fits, _FIT)),
        f"another sticker: chosen for {sum(map(bool, others))} conversations, by two or more for "
        f"{len(several)}, by these alike for {alike}",
    ]


def _kappas(votes: Votes, classes: Sequence[str]) -> list[str]:
    both = fleiss(votes, classes)
    return [
        *(f"Cohen's kappa {_line(pair)}" for pair in cohen(votes, classes)),
        f"Fleiss' kappa {_line(both)}" if both else "Fleiss' kappa needs two annotators",
    ]


def _line(found: Kappa) -> str:
    names = ", ".join(found.annotators)
    left_out = f"{found.left_out} rated by some of them are left out"
    if found.same is None:
        return f"{names}: undefined, no conversation rated by all of them ({left_out})"
    alike = f"{100 * found.same:.1f}% alike"
    rated = f"{found.conversations} conversations rated by all, {alike}; {left_out}"
    if found.kappa is None:
        return f"{names}: undefined, only one answer was used ({rated})"
    interval = "" if found.low is None else f" [{found.low:.3f}, {found.high:.3f}]"
    return f"{names}: {found.kappa:.3f}{interval} ({rated})"
