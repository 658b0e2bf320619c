"""Conversations to token rows, as Eq. (3) composes them.

``[CLS] turn_1 [SEP] ... turn_n [SEP] s_j [SEP] C_know [SEP]``: token type 0 up to the replying user
s_j, 1 for the knowledge, each with a budget of its own. Where the conversation is too long the
oldest turns go first, so the newest words are always read. Attributes and intention names take the
short way, ``[CLS] text [SEP]``. Only numpy here: the same code serves training and an online query.
"""

import itertools
import json
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import tokenizers
from jaxtyping import Bool, Int32, UInt8

from int_ra_jax.common.types import ATTRIBUTES, RELATIONS, Tokens
from int_ra_jax.data.emoji_names import has_emoji
from int_ra_jax.data.schema import Conversation, StickerEntry
from int_ra_jax.data.tokenizer import Tokenizer

_COMMONEST, _SHOWN = 5, 20  # unknown tokens are told, and characters of each
_SPELT = 0.5  # of the letters of Latin words: more of them as tokens of their own are told


@runtime_checkable
class TextConfig(Protocol):
    """The section ``config.text``.

    Attributes:
      context_tokens: budget of the conversation, [CLS] and every [SEP] included.
      knowledge_tokens: budget of the knowledge, its [SEP] included.
      attribute_tokens: A, width of an attribute row, [CLS] and [SEP] included.
      name_tokens: L', width of an intention name, likewise.
      speakers: "prefix" puts a letter before each turn and names the replying user last; "off".
      knowledge: "append" or "off".
    """

    context_tokens: int
    knowledge_tokens: int
    attribute_tokens: int
    name_tokens: int
    speakers: str
    knowledge: str


@dataclass(frozen=True)
class Unread:
    """What a text tower does not read of conversations: what did not fit, and what it cannot spell.

    Attributes:
      conversations: number of conversations composed.
      turns_dropped: old turns left out as a whole.
      newest_cut: conversations whose newest turn alone was too long and lost its beginning.
      knowledge_cut: conversations whose knowledge lost its end.
      tokens: words, or parts of words, of the turns that were not dropped and of the knowledge.
      unknown: the text of those that the vocabulary lacks, with how often.
      letters: of words in Latin script.
      spelt: Latin letters that are tokens of their own.
    """

    conversations: int = 0
    turns_dropped: int = 0
    newest_cut: int = 0
    knowledge_cut: int = 0
    tokens: int = 0
    unknown: Counter[str] = field(default_factory=Counter)
    letters: int = 0
    spelt: int = 0

    @classmethod
    def together(cls, parts: Iterable["Unread"]) -> "Unread":
        """Returns the counts of several."""
        parts = list(parts)
        unknown: Counter[str] = Counter()
        for part in parts:
            unknown.update(part.unknown)
        numbers = (name for name in vars(cls()) if name != "unknown")
        return cls(**{n: sum(getattr(p, n) for p in parts) for n in numbers}, unknown=unknown)

    def to_array(self) -> UInt8[np.ndarray, " bytes"]:
        """Returns the counts as what is kept beside arrays."""
        return np.frombuffer(json.dumps(vars(self)).encode(), np.uint8)

    def notes(self, emoji: str) -> dict[str, str]:
        """Tells a reader of the log what is not read, and what can be done about emoji.

        Args:
          emoji: ``config.text.emoji``.
        """
        number, commonest = self.unknown.total(), self.unknown.most_common(_COMMONEST)
        lacking = f"{number} of {self.tokens} ({100 * number / max(self.tokens, 1):.1f}%)"
        if commonest:
            lacking += ": " + ", ".join(f"{word[:_SHOWN]} ({n})" for word, n in commonest)
        if emoji == "keep" and any(has_emoji(word) for word, _ in commonest):
            lacking += "; --config.text.emoji=words reads emoji as their names"
        notes = {
            "truncation": f"{self.turns_dropped} old turns dropped, {self.newest_cut} newest turns "
            f"cut, {self.knowledge_cut} knowledge texts cut",
            "tokens unknown to the text tower": lacking,
        }
        # A vocabulary that was trimmed to other scripts lacks no letter, and no word is unknown.
        if self.spelt > _SPELT * self.letters:
            notes["words spelt letter by letter"] = (
                f"{self.spelt} tokens for {self.letters} letters: the text tower's vocabulary has "
                "hardly a word in Latin script. Use one that has, such as an E5-small that was "
                "unpacked with --scripts=LATIN"
            )
        return notes

    @classmethod
    def from_array(cls, kept: UInt8[np.ndarray, " bytes"]) -> "Unread":
        """Returns what ``to_array`` has kept."""
        counts = json.loads(kept.tobytes())
        return cls(**{**counts, "unknown": Counter(counts["unknown"])})


class Segment(NamedTuple):
    """A stretch of a row, which a [SEP] closes.

    Attributes:
      words: vocabulary ids, the speaker's prefix among them.
      type_id: 0 for the conversation and 1 for the knowledge.
      turn: 1 for the newest turn, 2 for the one before it; 0 for what is no turn.
    """

    words: list[int]
    type_id: int = 0
    turn: int = 0


def context_length(text: TextConfig, has_knowledge: bool) -> int:
    """Returns L, the static width of a context row."""
    with_knowledge = has_knowledge and text.knowledge == "append"
    return text.context_tokens + (text.knowledge_tokens if with_knowledge else 0)


def compose_context(
    tokenizer: Tokenizer,
    conversations: Sequence[Conversation],
    text: TextConfig,
    has_knowledge: bool,
) -> tuple[Tokens, list[Unread]]:
    """Composes conversations into the rows that the text tower reads.

    Turns without text (a sticker alone) are passed over. Names of users never reach the model: each
    gets a letter in the order in which they first speak.
    Source: Int-RA paper, Eq. (1) to (3). Deviates from it where it does not fit: the paper does not
    say what is cut, and cutting the end, as its code does, loses the newest turn and all knowledge.

    Args:
      tokenizer: of the text tower.
      conversations: B of them.
      text: budgets and switches.
      has_knowledge: whether the data set has any; without, no width is spent on it.

    Returns:
      Tokens [B, L] of numpy leaves with L = ``context_length(text, has_knowledge)``, and what of
      each conversation is not read.

    Raises:
      ValueError: if ``context_tokens`` cannot hold one word.
    """
    texts = [[turn for turn in c.turns if turn.text.strip()] for c in conversations]
    knowledge = [""] * len(conversations)
    if has_knowledge and text.knowledge == "append":
        knowledge = [join_knowledge(conversation) for conversation in conversations]
    # One call for all strings of the batch, as the tokenizer works on them in parallel.
    flat = [turn.text for turns in texts for turn in turns]
    encoded = iter(tokenizer.encode(flat + knowledge))
    turn_codes = [list(itertools.islice(encoded, len(turns))) for turns in texts]
    named = text.speakers == "prefix"
    rows, unread = [], []
    for conversation, turns, codes, inferred, known in zip(
        conversations, texts, turn_codes, knowledge, encoded, strict=True
    ):
        letters = _letters(conversation)
        prefixes = [tokenizer.prefix(letters[t.speaker]) if named else [] for t in turns]
        reply = tokenizer.prefix(letters[conversation.reply_speaker]) if named else []
        row, newest_cut = _newest_turns(prefixes, codes, reply, text.context_tokens)
        dropped = len(codes) - len(row)
        kept = [(turn.text, code) for turn, code in zip(turns, codes, strict=True)][dropped:]
        counts = _counts(tokenizer, [*kept, (inferred, known)])
        if reply:
            row.append(Segment(reply))
        if knowledge_ids := known.ids[: text.knowledge_tokens - 1]:
            row.append(Segment(knowledge_ids, type_id=1))
        knowledge_cut = int(len(knowledge_ids) < len(known.ids))
        unread.append(Unread(1, dropped, newest_cut, knowledge_cut, *counts))
        rows.append(row)
    return _assemble(tokenizer, rows, context_length(text, has_knowledge)), unread


def join_knowledge(conversation: Conversation) -> str:
    """Joins the inferred phrases of a conversation, relation after relation.

    What the extractor answers for "nothing" (``none``) is left out, and so is a phrase that was
    said before: without the relation's name beside it a repetition tells nothing.
    Source: Int-RA paper, Eq. (1) and (2).

    Returns:
      Phrases joined by ", " within a relation and by "; " between relations; "" if there is none.
    """
    seen = {"", "none"}
    parts = []
    for relation in RELATIONS:
        fresh = []
        for phrase in (conversation.knowledge or {}).get(relation, ()):
            phrase = phrase.strip()
            key = " ".join(phrase.casefold().rstrip(".").split())
            if key not in seen:
                seen.add(key)
                fresh.append(phrase)
        if fresh:
            parts.append(", ".join(fresh))
    return "; ".join(parts)


def encode_attributes(
    tokenizer: Tokenizer, stickers: Sequence[StickerEntry], attribute_tokens: int
) -> tuple[Tokens, Int32[np.ndarray, "N J"], Bool[np.ndarray, "N J"]]:
    """Tokenises the gallery's attributes, each distinct text once.

    Args:
      tokenizer: of the text tower.
      stickers: the N rows of the gallery.
      attribute_tokens: A; longer texts lose their end.

    Returns:
      Tokens [U, A] of the U distinct texts, at least one row; for each sticker and attribute the
      row of its text; and True where it has that attribute. Where it is False the index is 0, a
      row that is there but not meant.
    """
    rows: dict[str, int] = {}
    index = np.zeros((len(stickers), len(ATTRIBUTES)), np.int32)
    mask = np.zeros(index.shape, np.bool_)
    for n, sticker in enumerate(stickers):
        for j, name in enumerate(ATTRIBUTES):
            if attribute := sticker.attributes[name].strip():
                index[n, j] = rows.setdefault(attribute, len(rows))
                mask[n, j] = True
    return _encode_short(tokenizer, list(rows) or [""], attribute_tokens), index, mask


def encode_names(tokenizer: Tokenizer, names: Sequence[str], name_tokens: int) -> Tokens:
    """Tokenises the K intention names to Tokens [K, name_tokens]."""
    return _encode_short(tokenizer, names, name_tokens)


def _encode_short(tokenizer: Tokenizer, texts: Sequence[str], length: int) -> Tokens:
    """``[CLS] text [SEP]``; an empty text still has its two special tokens, so no row is masked."""
    if length < 3:
        raise ValueError(f"{length} tokens cannot hold [CLS], one word and [SEP]. Use 3 or more.")
    rows = [[Segment(code.ids[: length - 2])] for code in tokenizer.encode(texts)]
    tokens = _assemble(tokenizer, rows, length)
    return Tokens(tokens.ids, tokens.mask, tokens.type_ids)  # conversations alone have turns


def _newest_turns(
    prefixes: list[list[int]], codes: list[tokenizers.Encoding], reply: list[int], budget: int
) -> tuple[list[Segment], int]:
    """Takes turns from the newest back while they fit; the first always, if need be cut: then 1."""
    room = budget - 1 - (len(reply) + 1 if reply else 0)
    turns: list[Segment] = []
    newest_cut = 0
    for prefix, code in zip(reversed(prefixes), reversed(codes), strict=True):
        words = code.ids
        space = room - len(prefix) - 1
        if len(words) > space:
            if turns:
                break
            if space < 1:
                raise ValueError(
                    f"config.text.context_tokens={budget} leaves no room for a word between the "
                    f"special tokens and the speakers. Use at least {budget + 1 - space}."
                )
            words, newest_cut = _newest_words(code, space), 1
        turns.append(Segment([*prefix, *words], turn=len(turns) + 1))
        room = space - len(words)
    return turns[::-1], newest_cut


def _counts(
    tokenizer: Tokenizer, encoded: Iterable[tuple[str, tokenizers.Encoding]]
) -> tuple[int, Counter[str], int, int]:
    """Counts the tokens of some texts, what the vocabulary lacks, and what it spells."""
    tokens, unknown, letters, spelt = 0, Counter[str](), 0, 0
    for text, code in encoded:
        tokens += len(code.ids)
        unknown.update(tokenizer.unknown(text, code))
        of_words, alone = tokenizer.latin(text, code)
        letters, spelt = letters + of_words, spelt + alone
    return tokens, unknown, letters, spelt


def _newest_words(code: tokenizers.Encoding, space: int) -> list[int]:
    """The last tokens of a turn, from the start of a word unless one word fills the space."""
    start = len(code.ids) - space
    whole = start
    while whole < len(code.ids) and code.word_ids[whole] == code.word_ids[whole - 1]:
        whole += 1
    return code.ids[whole if whole < len(code.ids) else start :]


def _letters(conversation: Conversation) -> dict[str, str]:
    """A, B, ... Z, AA, AB, ... in the order of first appearance, the replying user last."""
    speakers = [turn.speaker for turn in conversation.turns] + [conversation.reply_speaker]
    letters = (
        "".join(name)
        for width in itertools.count(1)
        for name in itertools.product(string.ascii_uppercase, repeat=width)
    )
    return dict(zip(dict.fromkeys(speakers), letters, strict=False))


def _assemble(tokenizer: Tokenizer, rows: Sequence[Sequence[Segment]], length: int) -> Tokens:
    """Writes each row as [CLS] and its segments, and pads it to ``length``."""
    shape = (len(rows), length)
    ids = np.full(shape, tokenizer.pad_id, np.int32)
    mask, words = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    type_ids, turn = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    ids[:, 0] = tokenizer.cls_id
    for row, segments in enumerate(rows):
        end = 1
        for segment in segments:
            start, end = end, end + len(segment.words) + 1
            ids[row, start:end] = [*segment.words, tokenizer.sep_id]
            type_ids[row, start:end] = segment.type_id
            turn[row, start:end] = segment.turn
            words[row, start : end - 1] = True
        mask[row, :end] = True
    return Tokens(ids, mask, type_ids, turn, words)
