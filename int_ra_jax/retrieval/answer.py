"""From a question to what is found in a gallery, and to the answer that a caller reads."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Int

from int_ra_jax.common.types import RankedList, RankedSticker, Tokens
from int_ra_jax.data.text import Unread
from int_ra_jax.retrieval.engine import Engine
from int_ra_jax.retrieval.gallery import Gallery
from int_ra_jax.retrieval.shelved import RunGallery, Shelved
from int_ra_jax.retrieval.stickers import GallerySticker


def best_of(
    engine: Engine, gallery: Shelved, tokens: Tokens, masks: Sequence[np.ndarray], number: int
) -> tuple[list[list[tuple[str, float]]], np.ndarray]:
    """Returns the best of those that pass, for each of Q conversations, and the intentions.

    The latter are probabilities f32[Q, K].

    Args:
      engine: of the checkpoint whose embeddings are searched.
      gallery: inside its ``lock``.
      tokens: of the conversations.
      masks: which stickers pass, for each conversation.
      number: how many at most.
    """
    encoded, number = gallery.shelf.encoded, min(number, gallery.shelf.capacity)
    if encoded is None:
        assert isinstance(gallery, Gallery)  # a run's own gallery is in memory
        queries, probable = engine.queries(tokens)
        return gallery.best_on_disk(queries, masks, number), probable
    ranked = engine.rank(tokens, encoded, masks, number)
    each = zip(ranked.scores, ranked.rows, strict=True)
    return [passing(gallery, *one) for one in each], ranked.probabilities


def listed(
    gallery: Shelved,
    found: Sequence[tuple[str, float]],
    eligible: int,
    probabilities: np.ndarray,
    unread: Unread,
    names: Sequence[str],
) -> RankedList:
    """Returns an answer.

    Args:
      gallery: in which it was found.
      found: ids and scores, the best first.
      eligible: stickers that pass the filters.
      probabilities: f32[K] of the intentions; K = 0 where none is predicted.
      unread: what the text tower does not read of the conversation.
      names: of the intentions.
    """
    stickers = gallery.read([id for id, _ in found])
    # Another thread may have removed one between search and reading.
    known = [(stickers[id], score) for id, score in found if id in stickers]
    order = np.argsort(-probabilities, kind="stable")
    return RankedList(
        stickers=[
            RankedSticker(
                rank, one.id, float(score), _image(gallery, one), dict(one.attributes), one.pack
            )
            for rank, (one, score) in enumerate(known, start=1)
        ],
        intention=names[order[0]] if len(order) else None,
        intention_probabilities={names[k]: float(probabilities[k]) for k in order},
        tokens=unread.tokens,
        unknown=dict(unread.unknown),
        eligible=eligible,
    )


def passing(
    gallery: Shelved, scores: Float32[np.ndarray, "k"], rows: Int[np.ndarray, "k"]
) -> list[tuple[str, float]]:
    """Returns ids and scores of what passes the filters; inside the gallery's ``lock``.

    Args:
      gallery: that was searched.
      scores: of the best, -inf behind the last that passes.
      rows: of its shelf.
    """
    passed = scores > -np.inf
    ids = gallery.shelf.row_ids(rows[passed])
    return [*zip(ids, scores[passed].tolist(), strict=True)]


def _image(gallery: Shelved, sticker: GallerySticker) -> str:
    return gallery.image(sticker.id) if isinstance(gallery, RunGallery) else ""
