"""Habits: what a person sent lately, mixed into a model's ranking; nothing is kept about anybody.

The caller passes a person's recent stickers, the newest first. They give a habit,

    h(s) = (c(s) + backing b(s)) / (sum of c + backing),   c(s) = sum of 2^(-age / half_life),

decayed counts that back off to the popularity b of each sticker: the ages are 0 for the newest use,
1 for the one before it, and so on. Model and habit are experts that both know what is popular, so
that it is counted once:

    log p(s) = scale score(s) + weight (log h(s) - log b(s)) + constant
             = scale score(s) + weight log(1 + c(s) / (backing b(s))) + constant

Only stickers that were sent are lifted, all others stay in the model's order, and without a history
nothing moves. How much history there is acts through ``backing``: a first use counts little, the
tenth of the same sticker much. A further weight that grows with the length of the history was
tried, and fitted to a constant (docs/ranking.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import logsumexp

UNKNOWN = -1  # row of a sticker that was sent and is not in the gallery: it ages the others
_CUTS = (1, 2, 4, 8, 16, None)  # newest uses that are shown in fitting; None for all
# scale, weight, backing, half-life
_BOUNDS = ((1e-3, 1e4), (1e-3, 3.0), (1e-2, 1e3), (1.0, 1e3))


@dataclass(frozen=True)
class Mixture:
    """How much a person's habit counts beside the model.

    The defaults were fitted on a chat with emoji, and rounded; ``fit`` finds them for other data.

    Attributes:
      scale: makes log-probabilities of the model's scores (its inverse temperature); evaluations
        under ``exact`` fit it, and report.json has it under ``scales``. 1 for log-probabilities.
      weight: of the habit; 0 leaves the model alone.
      backing: uses that popularity is worth.
      half_life: uses after which an earlier one counts half.

    Raises:
      ValueError: for a weight below 0, or another value that is not above 0.
    """

    scale: float = 1.0
    weight: float = 0.8  # not in paper
    backing: float = 4.0  # not in paper
    half_life: float = 20.0  # not in paper

    def __post_init__(self) -> None:
        """Checks all values at once."""
        values = vars(self)
        wrong = [
            f"{name}={value}"
            for name, value in values.items()
            if not (np.isfinite(value) and (value > 0 or (name == "weight" and value == 0)))
        ]
        if wrong:
            raise ValueError(f"{', '.join(wrong)}: use numbers above 0; weight may be 0.")

    def lifts(
        self, recent: Sequence[int], popularity: Float[np.ndarray, " N"]
    ) -> Mapping[int, float]:
        """Returns by how many nats each sticker rises that the person sent; 0 for all others.

        Args:
          recent: gallery rows of the person's stickers, the newest first; ``UNKNOWN`` for one that
            the gallery does not hold.
          popularity: see ``popularity``.

        Raises:
          ValueError: if a row is out of range.
        """
        _check_rows("recent", recent, len(popularity), lowest=UNKNOWN)
        counts: dict[int, float] = {}
        for age, row in enumerate(recent):
            if row != UNKNOWN:
                counts[row] = counts.get(row, 0.0) + 2.0 ** (-age / self.half_life)
        return {
            row: self.weight * float(np.log1p(count / (self.backing * popularity[row])))
            for row, count in counts.items()
        }

    def mix(
        self, scores: ArrayLike, recent: Sequence[int], popularity: Float[np.ndarray, " N"]
    ) -> Float[np.ndarray, " N"]:
        """Returns the log-probabilities of one conversation's stickers.

        Args:
          scores: [N] of the model; -inf for a sticker that may not be sent.
          recent: see ``lifts``.
          popularity: see ``popularity``.

        Returns:
          f64[N], in nats; -inf where the score is.

        Raises:
          ValueError: if scores and popularity differ in length, a score is NaN or +inf, none is
            finite, or a row is out of range.
        """
        mixed = self.scale * np.asarray(scores, np.float64)
        if mixed.shape != popularity.shape:
            raise ValueError(
                f"scores have shape {mixed.shape}, popularity {popularity.shape}: give one of each "
                "for every sticker of the gallery."
            )
        if (
            np.isnan(mixed).any()
            or not mixed.max(initial=-np.inf) > -np.inf
            or mixed.max() == np.inf
        ):
            raise ValueError(
                "scores must be finite, or -inf for what may not be sent; not all -inf."
            )
        for row, lift in self.lifts(recent, popularity).items():
            mixed[row] += lift
        return mixed - logsumexp(mixed)


def popularity(uses: ArrayLike) -> Float[np.ndarray, " N"]:
    """Returns each sticker's share of all uses, smoothed by one use of every sticker.

    Args:
      uses: [N] how often each was sent by anybody; zeros where nothing is known.

    Returns:
      f64[N], above 0, of sum 1.

    Raises:
      ValueError: for negative or non-finite numbers, or none.
    """
    counts = np.asarray(uses, np.float64)
    if counts.ndim != 1 or not counts.size or not (np.isfinite(counts) & (counts >= 0)).all():
        raise ValueError("uses must be one number, 0 or more, for each sticker of the gallery.")
    return (counts + 1) / (counts.sum() + counts.size)


def fit(
    scores: ArrayLike,
    gold: Sequence[int],
    recents: Sequence[Sequence[int]],
    popular: Float[np.ndarray, " N"],
) -> Mixture:
    """Fits a mixture, by the likelihood of what was sent.

    Each choice is seen with its newest 1, 2, 4, 8, 16 and all earlier uses, so that the mixture is
    right for short histories too, of which a validation split in time order has few.

    Args:
      scores: [Q, N] finite, of the model, on choices that it did not learn from.
      gold: gallery row of each choice's sticker.
      recents: each writer's earlier stickers, the newest first; see ``Mixture.lifts``.
      popular: see ``popularity``; of data before these choices.

    Raises:
      ValueError: for numbers that do not fit together, scores that are not finite, or rows that are
        out of range.
    """
    table = np.asarray(scores, np.float64)
    if table.ndim != 2 or not len(table) == len(gold) == len(recents):
        raise ValueError(
            f"scores of shape {table.shape}, {len(gold)} stickers and {len(recents)} histories: "
            "give one row of scores, one sticker and one history for each choice."
        )
    if table.shape[1:] != popular.shape or not table.size or not np.isfinite(table).all():
        raise ValueError("scores must be finite, with one column for each sticker of popularity.")
    _check_rows("gold", gold, len(popular), lowest=0)
    uses = _Uses.of(table, np.asarray(gold), recents, popular)
    bounds = np.log(_BOUNDS)
    start = np.clip(np.log([1.0, 0.8, 4.0, 20.0]), *bounds.T)
    found = minimize(lambda logs: uses.loss(*np.exp(logs)), start, method="L-BFGS-B", bounds=bounds)
    return Mixture(*np.exp(found.x).tolist())


@dataclass(frozen=True)
class _Uses:
    """Histories for fitting, cut to several lengths: only what was sent differs from the model.

    A pair is a sticker in one cut history of a choice; a use belongs to a pair.

    Attributes:
      scores: [Q, N] of the model.
      gold: [Q] rows.
      seen: [U] the pair of each use;  ages: [U].
      cases: [P] the choice, and the cut, of each pair, as ``choice + Q * cut``.
      rows: [P] the pair's sticker.
      popular: [P] its popularity.
    """

    scores: Float[np.ndarray, "Q N"]
    gold: Int[np.ndarray, " Q"]
    seen: Int[np.ndarray, " U"]
    ages: Int[np.ndarray, " U"]
    cases: Int[np.ndarray, " P"]
    rows: Int[np.ndarray, " P"]
    popular: Float[np.ndarray, " P"]

    @classmethod
    def of(
        cls,
        scores: Float[np.ndarray, "Q N"],
        gold: Int[np.ndarray, " Q"],
        recents: Sequence[Sequence[int]],
        popular: Float[np.ndarray, " N"],
    ) -> "_Uses":
        queries, stickers = scores.shape
        keys, ages = [], []
        for query, recent in enumerate(recents):
            _check_rows(f"the history of choice {query}", recent, stickers, lowest=UNKNOWN)
            rows = np.asarray(recent, np.int64)
            for place, cut in enumerate(_CUTS):
                known = np.flatnonzero(rows[:cut] != UNKNOWN)
                keys.append((query + queries * place) * stickers + rows[known])
                ages.append(known)
        pairs, seen = np.unique(np.concatenate(keys), return_inverse=True)
        cases, rows = np.divmod(pairs.astype(np.int64), stickers)
        return cls(scores, gold, seen, np.concatenate(ages), cases, rows, popular[rows])

    def loss(self, scale: float, weight: float, backing: float, half_life: float) -> float:
        """Returns the mean cross-entropy of the stickers that were sent, in nats."""
        queries = len(self.gold)
        counts = np.bincount(self.seen, 2.0 ** (-self.ages / half_life), len(self.rows))
        lifts = weight * np.log1p(counts / (backing * self.popular))
        logs = scale * self.scores - logsumexp(scale * self.scores, axis=1, keepdims=True)
        choices = self.cases % queries
        # Of a sum over the gallery only the lifted stickers change.
        more = np.exp(logs[choices, self.rows]) * np.expm1(lifts)
        rest = np.log1p(np.bincount(self.cases, more, queries * len(_CUTS)))
        lifted = np.bincount(self.cases, lifts * (self.rows == self.gold[choices]), rest.size)
        return float(np.mean(rest - lifted) - logs[np.arange(queries), self.gold].mean())


def _check_rows(name: str, rows: Sequence[int], stickers: int, lowest: int) -> None:
    wrong = sorted({int(row) for row in rows if not lowest <= row < stickers})
    if wrong:
        raise ValueError(
            f"{name}: rows {wrong[:10]} of a gallery of {stickers} stickers; use {lowest} to "
            f"{stickers - 1}."
        )
