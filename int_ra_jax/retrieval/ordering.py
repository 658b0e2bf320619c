"""What stands beside the model: typed words, a person's habits, variety, and nothing twice."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float32

from int_ra_jax.data.copies import Fingerprints
from int_ra_jax.retrieval.shelved import Shelved
from int_ra_jax.retrieval.stickers import Habits, Lifting
from int_ra_jax.retrieval.variety import varied
from int_ra_jax.retrieval.words import fused

_DEPTH = 100  # of each ranking that is fused, or four times those that are wanted
_MORE = 8  # times as many are asked for, where few pass


def by_words(
    gallery: Shelved,
    query: str,
    vector: Float32[np.ndarray, "Dt"] | None,
    mask: Bool[np.ndarray, "C"],
    top_k: int,
) -> list[tuple[str, float]]:
    """Returns the stickers that suit typed words, with the sums of their fused ranks.

    Args:
      gallery: inside its ``lock``.
      query: the words.
      vector: of the words, of unit length; None where the text tower does not read them.
      mask: which stickers pass.
      top_k: how many at most.
    """
    shelf = gallery.shelf
    depth = max(_DEPTH, 4 * min(top_k, shelf.capacity))
    asked = depth
    while True:
        matched = gallery.matches(query, asked)
        passed = [id for id in matched if id in shelf.rows and mask[shelf.rows[id]]]
        if len(passed) >= depth or len(matched) < asked:
            break
        asked *= _MORE  # many match and few pass
    rankings = [passed[:depth]]
    said = None if vector is None else gallery.said()
    if said is not None:
        rows = np.flatnonzero(mask)
        likeness = said[rows] @ vector
        best = np.argsort(-likeness, kind="stable")[:depth]
        rankings.append(shelf.row_ids(rows[best]))
    return fused(rankings)[:top_k]


def lifted(
    scores: Mapping[str, float], habits: Habits, eligible: int, scale: float
) -> dict[str, float]:
    """Returns log-probabilities, but for a constant: what a person sends often is above its score.

    Args:
      scores: id -> the model's score, of the best stickers and of those in the history that pass.
      habits: of the person.
      eligible: stickers that could be sent.
      scale: makes log-probabilities of the scores, where the habits bring no mixture.
    """
    from int_ra_jax.retrieval.habits import Mixture  # here, because few answers need SciPy

    mixture: Lifting = Mixture(scale=scale) if habits.mixture is None else habits.mixture
    known = [*dict.fromkeys(id for id in habits.recent if id in scores)]
    places = {id: place for place, id in enumerate(known)}
    uses = np.array([habits.uses.get(id, 0.0) for id in known], np.float64)
    popular = (uses + 1) / (sum(habits.uses.values()) + max(eligible, 1))
    lifts = mixture.lifts([places.get(id, -1) for id in habits.recent], popular)
    return {
        id: mixture.scale * score + lifts.get(places.get(id, -1), 0.0)
        for id, score in scores.items()
    }


def chosen_of(
    gallery: Shelved,
    scores: Mapping[str, float],
    top_k: int,
    variety: float,
    recent: Sequence[str],
    left_out: int,
) -> list[tuple[str, float]]:
    """Returns stickers with their scores in the order in which they are shown; see ``varied``.

    Args:
      gallery: that holds them.
      scores: id -> score.
      top_k: how many.
      variety: in [0, 1].
      recent: ids that were just sent.
      left_out: channels at the end of an embedding that are not compared.

    Raises:
      ValueError: if variety is out of range.
    """
    looks = gallery.looks([*scores])  # not of those that were removed since they were ranked
    with gallery.lock:
        there = [id for id in looks if gallery.shelf.searched(id)]
        ids = sorted(there, key=lambda id: (-scores[id], id))
        vectors = gallery.vectors(ids)
    values = np.array([scores[id] for id in ids])
    vectors = vectors[:, : max(0, vectors.shape[1] - left_out)]
    sent = {*recent}
    places = varied(
        values,
        vectors,
        top_k,
        variety=variety,
        alike=Fingerprints([looks[id] for id in ids]).copies_of,
        recent=[place for place, id in enumerate(ids) if id in sent],
    )
    return [(ids[place], float(values[place])) for place in places]
