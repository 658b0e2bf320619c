"""What one split of a data set gives away about another, and what stands in it twice."""

import hashlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import imagehash
import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from int_ra_jax.data import images, schema
from int_ra_jax.data.schema import Conversation, PreparedDirectory, StickerEntry

NEAR_TEXT = 0.9  # cosine of TF-IDF over character 4-grams
NEAR_PICTURE = 8  # of the perceptual hash's 256 bits
LONG_TURN = 20  # columns, of which a Chinese character takes two; "how are you?" recurs by nature
_ROWS = 64  # of a sparse product at a time, which bounds its memory
_CJK = ("CJK UNIFIED", "CJK COMPATIBILITY", "HIRAGANA", "KATAKANA", "HANGUL")
_CJK_SHARE = 0.3  # of the letters; then spaces do not separate words


@dataclass(frozen=True)
class Finding:
    """Two things that are alike, or one that is missing.

    Attributes:
      kind: what was looked for; one of ``KINDS``.
      first: split and id, or id, or name.
      second: what it is like; empty where something is missing.
      value: how alike, or how often; as text.
    """

    kind: str
    first: str
    second: str = ""
    value: str = ""


KINDS = {
    "same text": "conversations of two splits whose texts are equal but for case, width and spaces",
    "near text": f"conversations of two splits whose texts are alike (cosine >= {NEAR_TEXT} of "
    "TF-IDF over character 4-grams; 2-grams of Chinese, Japanese and Korean)",
    "repeated text": "conversations that repeat the text of an earlier one of their own split",
    "shared turn": f"conversations with a turn of {LONG_TURN} or more characters "
    f"({LONG_TURN // 2} Chinese ones) that stands word for word in another split",
    "same sticker": "gold stickers of valid or test that are gold in train too",
    "sticker not in train": "gold stickers of valid or test that are never gold in train",
    "unused sticker": "stickers of the gallery that are never gold in train",
    "intention not in train": "intentions of valid or test that train lacks",
    "same picture": "pairs of stickers with the same pixels",
    "near picture": f"pairs of stickers whose perceptual hashes, which see no colour, differ in at "
    f"most {NEAR_PICTURE} of 256 bits",
}


def find(prepared: PreparedDirectory) -> list[Finding]:
    """Looks for everything in ``KINDS``; the findings come in that order."""
    return [
        *text_findings(prepared.conversations),
        *turn_findings(prepared.conversations),
        *sticker_findings(prepared),
        *intention_findings(prepared.conversations),
        *picture_findings(prepared.path, prepared.stickers),
    ]


def plain(text: str) -> str:
    """Returns a text without what makes equal texts look different: case, width, spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def separates_no_words(conversations: Mapping[str, Sequence[Conversation]]) -> bool:
    """Tells whether the text is Chinese, Japanese or Korean, by the share of its letters."""
    letters: Counter[str] = Counter()
    for members in conversations.values():
        for conversation in members:
            for turn in conversation.turns:
                letters.update(turn.text)
    known = {char: n for char, n in letters.items() if char.isalpha()}
    cjk = sum(n for char, n in known.items() if unicodedata.name(char, "").startswith(_CJK))
    return cjk > _CJK_SHARE * sum(known.values())


def _columns(text: str) -> int:
    return len(text) + sum(unicodedata.east_asian_width(char) in "WF" for char in text)


def _text(conversation: Conversation) -> str:
    return "\n".join(plain(turn.text) for turn in conversation.turns if turn.text.strip())


def text_findings(conversations: Mapping[str, Sequence[Conversation]]) -> Iterator[Finding]:
    """Finds conversations of the same or nearly the same text."""
    texts = {s: {c.id: _text(c) for c in members} for s, members in conversations.items()}
    texts = {s: {one: text for one, text in found.items() if text} for s, found in texts.items()}
    for a, b in combinations(schema.SPLITS, 2):
        known = {text: one for one, text in texts[a].items()}
        for one, text in texts[b].items():
            if text in known:
                yield Finding("same text", f"{b} {one}", f"{a} {known[text]}")
    if any(texts.values()):
        # Two Chinese characters say as much as four or more letters.
        yield from _near_texts(texts, 2 if separates_no_words(conversations) else 4)
    for split, found in texts.items():
        seen: dict[str, str] = {}
        for one, text in found.items():
            if text in seen:
                yield Finding("repeated text", f"{split} {one}", f"{split} {seen[text]}")
            seen.setdefault(text, one)


def _near_texts(texts: Mapping[str, Mapping[str, str]], size: int) -> Iterator[Finding]:
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(size, size), dtype=np.float32)
    # Signs on both sides give the shortest text an n-gram too; spaces would be merged into one.
    padded = {s: [f"\x02\x02{text}\x03\x03" for text in t.values()] for s, t in texts.items()}
    vectorizer.fit([text for members in padded.values() for text in members])
    vectors = {s: vectorizer.transform(members) for s, members in padded.items() if members}
    for a, b in combinations(schema.SPLITS, 2):
        if a not in vectors or b not in vectors:
            continue
        ids_a, ids_b = list(texts[a]), list(texts[b])
        for row, column, value in _alike(vectors[b], vectors[a]):
            first, second = ids_b[row], ids_a[column]
            if texts[b][first] != texts[a][second]:
                yield Finding("near text", f"{b} {first}", f"{a} {second}", f"{value:.3f}")


def _alike(rows: sparse.csr_matrix, columns: sparse.csr_matrix) -> Iterator[tuple[int, int, float]]:
    turned = columns.T.tocsr()
    for start in range(0, rows.shape[0], _ROWS):
        cosine = (rows[start : start + _ROWS] @ turned).tocoo()
        for index in np.flatnonzero(cosine.data >= NEAR_TEXT):
            yield start + int(cosine.row[index]), int(cosine.col[index]), float(cosine.data[index])


def turn_findings(conversations: Mapping[str, Sequence[Conversation]]) -> Iterator[Finding]:
    """Finds conversations of which a long turn stands in an earlier split."""
    first_met: dict[str, str] = {}
    splits_of: dict[str, str] = {}
    for split in schema.SPLITS:
        for one in conversations[split]:
            said = {plain(turn.text) for turn in one.turns}
            for text in sorted(text for text in said if _columns(text) >= LONG_TURN):
                if splits_of.setdefault(text, split) != split:
                    where = f"{splits_of[text]} {first_met[text]}"
                    yield Finding("shared turn", f"{split} {one.id}", where)
                    break
                first_met.setdefault(text, one.id)


def sticker_findings(prepared: PreparedDirectory) -> Iterator[Finding]:
    """Finds gold stickers that train shares or lacks, and stickers that train never uses."""
    gold = {s: {c.sticker for c in members} for s, members in prepared.conversations.items()}
    for kind in ("same sticker", "sticker not in train"):
        for split in schema.SPLITS[1:]:
            common = gold[split] & gold["train"]
            chosen = common if kind == "same sticker" else gold[split] - common
            yield from (Finding(kind, f"{split} {one}") for one in sorted(chosen))
    for sticker in prepared.stickers:
        if sticker.id not in gold["train"]:
            yield Finding("unused sticker", sticker.id)


def intention_findings(conversations: Mapping[str, Sequence[Conversation]]) -> Iterator[Finding]:
    """Finds intentions that can be asked for and were never learned."""
    names = {s: [c.intention for c in members] for s, members in conversations.items()}
    for split in schema.SPLITS[1:]:
        for name in sorted(set(names[split]) - set(names["train"])):
            count = f"{names[split].count(name)} conversations"
            yield Finding("intention not in train", f"{split} {name}", value=count)


def picture_findings(directory: Path, stickers: Sequence[StickerEntry]) -> list[Finding]:
    """Finds stickers that look the same; of an animation the first frame is compared."""
    bits, pixels = [], defaultdict(list)
    for sticker in stickers:
        picture = images.decode((directory / sticker.image).read_bytes())
        pixels[picture.size, hashlib.sha256(picture.tobytes()).digest()].append(sticker.id)
        bits.append(imagehash.phash(picture, hash_size=16).hash.ravel())
    same = {pair for ids in pixels.values() for pair in combinations(ids, 2)}
    found = [Finding("same picture", a, b) for a, b in sorted(same)]
    packed = (
        np.packbits(np.array(bits, dtype=bool), axis=1) if bits else np.zeros((0, 32), np.uint8)
    )
    near = []
    for row in range(len(stickers)):
        distance = np.bitwise_count(packed[row + 1 :] ^ packed[row]).sum(axis=1, dtype=int)
        for other in np.flatnonzero(distance <= NEAR_PICTURE):
            pair = (stickers[row].id, stickers[row + 1 + int(other)].id)
            if pair not in same:
                near.append(Finding("near picture", *pair, f"{distance[other]} bits"))
    return [*found, *sorted(near, key=lambda one: (int(one.value.split()[0]), one.first))]
