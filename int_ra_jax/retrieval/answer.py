"""From what was found in a gallery to the answer that a caller reads."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Int

from int_ra_jax.common.types import RankedList, RankedSticker
from int_ra_jax.data.text import Unread
from int_ra_jax.retrieval.shelved import RunGallery, Shelved
from int_ra_jax.retrieval.stickers import GallerySticker


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
