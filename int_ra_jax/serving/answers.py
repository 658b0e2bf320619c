"""Stickers as answers show them, and why they were found."""

import re
from collections.abc import Mapping
from urllib.parse import quote

from int_ra_jax.retrieval.stickers import GallerySticker
from int_ra_jax.serving.schemas import StickerOut, Why

_SAYS_LITTLE = frozenset(
    ("about", "all", "and", "are", "but", "can", "did", "does", "for", "from", "get", "got", "had",
     "has", "have", "her", "him", "his", "how", "its", "just", "not", "our", "out", "she", "than",
     "that", "the", "their", "then", "there", "they", "this", "was", "what", "who", "will", "with",
     "you", "your")
)  # fmt: skip
_MATCHED = 3  # attributes and tags that are named
_LEAST = 0.05  # of the probability that an intention has by both


def show(sticker: GallerySticker) -> StickerOut:
    """Returns a sticker as answers show it."""
    intentions = sorted((sticker.intentions or {}).items(), key=lambda one: -one[1])
    return StickerOut(
        id=sticker.id,
        pack=sticker.pack,
        name=sticker.name,
        tags=list(sticker.tags),
        emoji=list(sticker.emoji),
        attributes={name: text for name, text in sticker.attributes.items() if text},
        words=sticker.words or "",
        language=sticker.language or "",
        adult=sticker.adult,
        approved=sticker.approved,
        hidden=sticker.hidden,
        intentions=dict(intentions),
        intentions_given=sticker.intentions_given,
        picture=picture_address(sticker.id) + ("?adult=true" if sticker.adult else ""),
    )


def picture_address(sticker: str) -> str:
    """Returns where the picture of the sticker of an id is."""
    return f"/v1/stickers/{quote(sticker, safe='')}/picture"


def words_of(text: str) -> frozenset[str]:
    """Returns the words of a text that say something; of Chinese, all pairs of signs."""
    found: set[str] = set()
    for run in re.findall(r"[a-z0-9]+|[\u3400-\u9fff]+", text.lower()):
        if run[0] >= "\u3400":
            found.update(run[at : at + 2] for at in range(max(1, len(run) - 1)))
        elif len(run) > 2 and run not in _SAYS_LITTLE:
            found.add(run)
    return frozenset(found)


def why(sticker: GallerySticker, predicted: Mapping[str, float], said: frozenset[str]) -> Why:
    """Returns what a conversation or a search and a sticker have in common.

    Args:
      sticker: that was found.
      predicted: probabilities of the conversation's intentions.
      said: words of the conversation's end, or of the search.
    """
    own = sticker.intentions or {}
    shared = {name: share * own.get(name, 0.0) for name, share in predicted.items()}
    best = max(shared, key=lambda name: shared[name], default=None)
    texts = [*sticker.attributes.values(), *sticker.tags, sticker.name, sticker.words or ""]
    matched = dict.fromkeys(text for text in texts if text and words_of(text) & said)
    return Why(
        intention=best if best is not None and shared[best] >= _LEAST * predicted[best] else None,
        matched=list(matched)[:_MATCHED],
    )
