"""Finds another sticker for an annotator: by what it is called, or by what it has in common.

Nothing is trained: a sticker is the words of its tags, its attributes and its id, rare ones
counting more, and two are compared by the cosine of these. What stickers mean (their intentions in
the data) is left out, since annotators are not to see it.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from int_ra_jax.data.schema import StickerEntry

# Scripts without spaces are taken character by character, and so are emoji.
_WORD = re.compile(r"[^\W\d_\u2e80-\u9fff\uac00-\ud7af\U00020000-\U0003ffff]+|\d+|[^\s\d\x00-\x7f]")


class Similar:
    """An index of a gallery's words; thousands of stickers are searched in milliseconds."""

    def __init__(self, stickers: Sequence[StickerEntry]) -> None:
        """Reads the words of a gallery."""
        self._texts = {one.id: _plain(_text(one)) for one in stickers}
        counted = {one: Counter(set(_WORD.findall(text))) for one, text in self._texts.items()}
        used = Counter(word for words in counted.values() for word in words)
        self._weights: dict[str, dict[str, float]] = {}
        for one, words in counted.items():
            # A word that every sticker has tells nothing of any.
            weights = {word: math.log(len(counted) / used[word]) for word in words}
            length = math.hypot(*weights.values())
            self._weights[one] = {w: x / length for w, x in weights.items()} if length else {}

    def search(self, sticker: str, words: str = "") -> list[str]:
        """Returns the other stickers of the gallery, the likest first.

        Args:
          sticker: id of the one that is to be replaced.
          words: only stickers that have each of them, or a part of a word, in tags, attributes or
            id; "" takes all.
        """
        wanted = _plain(words).split()
        like = self._weights[sticker]
        found = [
            (-sum(weight * like.get(word, 0.0) for word, weight in self._weights[one].items()), one)
            for one, text in self._texts.items()
            if one != sticker and all(word in text for word in wanted)
        ]
        # Stable: as likely ones stay in the gallery's order.
        return [one for _, one in sorted(found, key=lambda pair: round(pair[0], 9))]


def _text(sticker: StickerEntry) -> str:
    return " ".join([sticker.id, *sticker.tags, *sticker.attributes.values()])


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().replace("_", " ")
