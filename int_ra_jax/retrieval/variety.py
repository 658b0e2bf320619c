"""Variety: no copies side by side, little that is alike, and not again what was just sent.

Source: maximal marginal relevance, Carbonell and Goldstein 1998, "The Use of MMR, Diversity-Based
Reranking for Reordering Documents and Producing Summaries".
"""

from collections.abc import Callable, Collection

import numpy as np
from jaxtyping import Bool, Float

Alike = Callable[[int], Bool[np.ndarray, " M"]]
"""Tells which of M candidates are copies of the one in a place."""

_CANDIDATES = 50  # at least, so that there is something to choose from


def candidates(top_k: int, recent: int = 0) -> int:
    """Returns how many of the best stickers ``varied`` should choose from.

    Args:
      top_k: how many will be shown.
      recent: how many were just sent.
    """
    return max(_CANDIDATES, 4 * top_k) + recent


def varied(
    scores: Float[np.ndarray, " M"],
    embeddings: Float[np.ndarray, "M D"],
    top_k: int,
    *,
    variety: float = 0.0,
    alike: Alike | None = None,
    recent: Collection[int] = (),
) -> list[int]:
    """Chooses stickers one after the other, the next being good and unlike those before it.

    That is the one with the greatest (1 - variety) relevance - variety similarity: its score, and
    the greatest cosine with a chosen one, both laid out from 0 to 1 over the candidates. Copies of
    a chosen one wait until nothing else is left, and what was just sent, and its copies, until
    nothing else is left at all. So the first ``top_k`` are always full.

    Args:
      scores: of M candidates, finite, higher is better; equal ones keep their order.
      embeddings: of the candidates, of any length.
      top_k: how many to choose.
      variety: in [0, 1]. 0 is the order of the scores, copies included; 1 looks at the score for
        the first one alone.
      alike: tells copies, such as ``Fingerprints.copies_of``; None for no copies. It is asked once
        for each sticker that was just sent or is chosen.
      recent: places of the candidates that were just sent.

    Returns:
      Places of the chosen candidates, the first one first; fewer than ``top_k`` only where there
      are fewer candidates.

    Raises:
      ValueError: if variety is not in [0, 1], top_k is below 1, a score is not finite, or numbers
        do not fit together.
    """
    _check(scores, embeddings, top_k, variety, recent)
    order = np.argsort(-scores, kind="stable")
    none = np.zeros(len(scores), bool)
    copies: Alike = alike if alike is not None else lambda place: none
    stale = none.copy()
    for place in {*recent}:
        stale |= copies(place)
        stale[place] = True
    groups = order[~stale[order]], order[stale[order]]
    if variety == 0:
        return [int(place) for place in np.concatenate(groups)[:top_k]]
    relevance, similarity = _spread(scores), _similarity(embeddings)
    chosen: list[int] = []
    copied, nearest = none.copy(), np.zeros(len(scores))  # of those that are chosen
    for left in groups:
        while len(left) and len(chosen) < top_k:
            new = left if copied[left].all() else left[~copied[left]]
            gain = (1 - variety) * relevance[new] - variety * nearest[new]
            best = int(new[gain.argmax()] if chosen else new[0])
            chosen.append(best)
            left = left[left != best]
            copied |= copies(best)
            nearest = np.maximum(nearest, similarity[best])
    return chosen


def _spread(values: np.ndarray) -> np.ndarray:
    """Lays values out from 0 to 1; all 0 where they are equal."""
    low, high = (values.min(), values.max()) if values.size else (0.0, 0.0)
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def _similarity(embeddings: Float[np.ndarray, "M D"]) -> Float[np.ndarray, "M M"]:
    """Returns the cosines of all pairs, from 0 for the least alike to 1 for the same."""
    vectors = embeddings.astype(np.float64)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return _spread(vectors @ vectors.T)


def _check(
    scores: np.ndarray,
    embeddings: np.ndarray,
    top_k: int,
    variety: float,
    recent: Collection[int],
) -> None:
    problems = []
    if not 0 <= variety <= 1:
        problems.append(f"variety={variety}; use 0 to 1.")
    if top_k < 1:
        problems.append(f"top_k={top_k}; use 1 or more.")
    if len(scores) != len(embeddings):
        problems.append(f"{len(scores)} scores and {len(embeddings)} embeddings; give one each.")
    if not (np.isfinite(scores).all() and np.isfinite(embeddings).all()):
        problems.append("a score or an embedding is not finite; leave that candidate out.")
    if wrong := sorted(p for p in recent if not 0 <= p < len(scores)):
        problems.append(f"recent: places {wrong[:10]} of {len(scores)} candidates.")
    if problems:
        raise ValueError("\n".join(problems))
