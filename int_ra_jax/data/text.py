"""Conversations to token rows, as Eq. (3) composes them.

``[CLS] turn_1 [SEP] ... turn_n [SEP] s_j [SEP] C_know [SEP]``: token type 0 up to the replying user
s_j, 1 for the knowledge, each with a budget of its own. Where the conversation is too long the
oldest turns go first, so the newest words are always read. Attributes and intention names take the
short way, ``[CLS] text [SEP]``. Only numpy here: the same code serves training and an online query.
"""

import itertools
import string
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import tokenizers
from jaxtyping import Bool, Int32

from int_ra_jax.common.sources import resolve_directory
from int_ra_jax.common.types import ATTRIBUTES, RELATIONS, Tokens
from int_ra_jax.data.schema import Conversation, StickerEntry

SPEAKERS = ("prefix", "off")
KNOWLEDGE = ("append", "off")
_MIN_VOCABULARY = 200


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
class Truncation:
    """What did not fit; add two of them for the counts of both.

    Attributes:
      conversations: number of conversations composed.
      turns_dropped: old turns left out as a whole.
      newest_cut: conversations whose newest turn alone was too long and lost its beginning.
      knowledge_cut: conversations whose knowledge lost its end.
    """

    conversations: int = 0
    turns_dropped: int = 0
    newest_cut: int = 0
    knowledge_cut: int = 0

    def __add__(self, other: "Truncation") -> "Truncation":
        return Truncation(*(a + b for a, b in zip(self._counts(), other._counts(), strict=True)))

    def _counts(self) -> tuple[int, ...]:
        return (self.conversations, self.turns_dropped, self.newest_cut, self.knowledge_cut)


class Tokenizer:
    """A checkpoint's own tokenizer, without its special tokens, truncation and padding.

    Tokenizer files may carry a truncation length and a padding of their own (128 in MiniLM's), and
    would read "[SEP]" in a user's message as a real separator. Both are switched off here; special
    ids enter a row only through the composition below.

    Attributes:
      cls_id: id that opens a row.
      sep_id: id that closes a segment.
      pad_id: id of padding; the mask, not this id, says what is real.
      vocab_size: number of rows the embedding table must have at least.
    """

    def __init__(self, directory: Path) -> None:
        """Loads ``tokenizer.json`` or the vocabulary of a directory; see ``load_tokenizer``."""
        # Imported late: it costs seconds, and brings torch along where that is installed.
        from transformers import AutoTokenizer

        self._source = AutoTokenizer.from_pretrained(directory, use_fast=True)
        special = {
            name: getattr(self._source, f"{name}_token_id") for name in ("cls", "sep", "pad")
        }
        absent = [name for name, value in special.items() if value is None]
        if absent:
            raise ValueError(
                f"the tokenizer in {directory} has no {', '.join(absent)} token. "
                "Use the tokenizer of a BERT-shaped text tower."
            )
        self.cls_id, self.sep_id, self.pad_id = special.values()
        self._backend = self._source.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = True
        self._prefixes: dict[str, list[int]] = {}
        self.vocab_size = max(self._backend.get_vocab(with_added_tokens=True).values()) + 1

    def encode(self, texts: Sequence[str]) -> list[tokenizers.Encoding]:
        """Tokenises texts as ordinary words, whatever they contain."""
        return self._backend.encode_batch(list(texts), add_special_tokens=False)

    def save(self, directory: Path) -> None:
        """Writes the tokenizer, so that a working directory can be used without its source."""
        self._source.save_pretrained(directory)

    def prefix(self, letter: str) -> list[int]:
        """Returns the token group that names a speaker, ``A :``."""
        if letter not in self._prefixes:
            self._prefixes[letter] = self.encode([f"{letter} :"])[0].ids
        return self._prefixes[letter]


def load_tokenizer(path_or_name: str) -> Tokenizer:
    """Loads the tokenizer of a text tower.

    Args:
      path_or_name: a directory, ``package:NAME/PATH`` or a hub name.

    Raises:
      ValueError: if it has no [CLS], [SEP] or padding token.
      FileNotFoundError: if there is no such directory.
    """
    return Tokenizer(resolve_directory(path_or_name))


def train_wordpiece(texts: Iterable[str], directory: Path, vocab_size: int) -> None:
    """Learns a lower-case WordPiece vocabulary and writes it as a tokenizer directory.

    For towers that start from random weights and so have no vocabulary of their own. Every
    frequent word is one entry, and any other is spelt from its characters. The trainers of
    ``tokenizers`` break ties by an order that changes from run to run; this one is reproducible.

    Args:
      texts: what to learn from; training texts only.
      directory: where the tokenizer goes.
      vocab_size: at most so many entries, the five special ones included; at least 200.

    Raises:
      ValueError: if ``vocab_size`` is too small for the alphabet.
    """
    from transformers import PreTrainedTokenizerFast

    if vocab_size < _MIN_VOCABULARY:
        raise ValueError(
            f"a vocabulary of {vocab_size} is too small. Use {_MIN_VOCABULARY} or more."
        )
    special = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    normaliser = tokenizers.normalizers.BertNormalizer(lowercase=True)
    splitter = tokenizers.pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for text in texts:
        pieces = splitter.pre_tokenize_str(normaliser.normalize_str(text))
        words.update(word for word, _ in pieces)
    # What the composition itself writes (letters of speakers, joints of knowledge) is always there.
    entries = [*special.values(), *string.ascii_lowercase, *string.digits, *":;,"]
    entries += [f"##{character}" for character in string.ascii_lowercase + string.digits]
    characters: Counter[str] = Counter()
    for word, count in words.items():
        for start, character in enumerate(word):
            characters[f"##{character}" if start else character] += count
    # No more than half for characters: in Chinese chats these are the words, and number thousands.
    entries += _commonest(characters)[: max(vocab_size // 2 - len(entries), 0)]
    vocabulary = list(dict.fromkeys(entries + _commonest(words)))[:vocab_size]
    learnt = tokenizers.models.WordPiece(
        {entry: index for index, entry in enumerate(vocabulary)}, unk_token=special["unk"]
    )
    tokenizer = tokenizers.Tokenizer(learnt)
    tokenizer.normalizer, tokenizer.pre_tokenizer = normaliser, splitter
    tokenizer.decoder = tokenizers.decoders.WordPiece()
    named = {f"{name}_token": token for name, token in special.items()}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(directory)


def _commonest(counts: Counter[str]) -> list[str]:
    return sorted(counts, key=lambda entry: (-counts[entry], entry))


def context_length(text: TextConfig, has_knowledge: bool) -> int:
    """Returns L, the static width of a context row."""
    with_knowledge = has_knowledge and text.knowledge == "append"
    return text.context_tokens + (text.knowledge_tokens if with_knowledge else 0)


def compose_context(
    tokenizer: Tokenizer,
    conversations: Sequence[Conversation],
    text: TextConfig,
    has_knowledge: bool,
) -> tuple[Tokens, Truncation]:
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
      Tokens [B, L] of numpy leaves with L = ``context_length(text, has_knowledge)``, and what was
      cut.

    Raises:
      ValueError: if a switch has an unknown value or ``context_tokens`` cannot hold one word.
    """
    _check_text(text)
    texts = [[turn for turn in c.turns if turn.text.strip()] for c in conversations]
    knowledge = [""] * len(conversations)
    if has_knowledge and text.knowledge == "append":
        knowledge = [join_knowledge(conversation) for conversation in conversations]
    # One call for all strings of the batch, as the tokenizer works on them in parallel.
    flat = [turn.text for turns in texts for turn in turns]
    encoded = iter(tokenizer.encode(flat + knowledge))
    turn_codes = [list(itertools.islice(encoded, len(turns))) for turns in texts]
    rows, total = [], Truncation()
    for conversation, turns, codes, known in zip(
        conversations, texts, turn_codes, encoded, strict=True
    ):
        letters = _letters(conversation)
        prefix = text.speakers == "prefix"
        prefixes = [tokenizer.prefix(letters[t.speaker]) if prefix else [] for t in turns]
        reply = tokenizer.prefix(letters[conversation.reply_speaker]) if prefix else []
        ids, cut = _compose_turns(tokenizer, prefixes, codes, reply, text.context_tokens)
        knowledge_ids = known.ids[: text.knowledge_tokens - 1]
        cut += Truncation(1, knowledge_cut=int(len(knowledge_ids) < len(known.ids)))
        rows.append((ids, [*knowledge_ids, tokenizer.sep_id] if knowledge_ids else []))
        total += cut
    return _pad(rows, tokenizer.pad_id, context_length(text, has_knowledge)), total


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
    rows: list[tuple[list[int], list[int]]] = [
        ([tokenizer.cls_id, *code.ids[: length - 2], tokenizer.sep_id], [])
        for code in tokenizer.encode(texts)
    ]
    return _pad(rows, tokenizer.pad_id, length)


def _compose_turns(
    tokenizer: Tokenizer,
    prefixes: list[list[int]],
    codes: list[tokenizers.Encoding],
    reply: list[int],
    budget: int,
) -> tuple[list[int], Truncation]:
    """Takes turns from the newest back while they fit; the first always, if need be cut."""
    tail = [*reply, tokenizer.sep_id] if reply else []
    room = budget - 1 - len(tail)
    segments: list[list[int]] = []
    newest_cut = 0
    for prefix, code in zip(reversed(prefixes), reversed(codes), strict=True):
        ids = code.ids
        space = room - len(prefix) - 1
        if len(ids) > space:
            if segments:
                break
            if space < 1:
                raise ValueError(
                    f"config.text.context_tokens={budget} leaves no room for a word between the "
                    f"special tokens and the speakers. Use at least {budget + 1 - space}."
                )
            ids = _newest_words(code, space)
            newest_cut = 1
        segments.append([*prefix, *ids, tokenizer.sep_id])
        room -= len(segments[-1])
    dropped = len(codes) - len(segments)
    kept = [token for segment in reversed(segments) for token in segment]
    return [tokenizer.cls_id, *kept, *tail], Truncation(0, dropped, newest_cut)


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
    return dict(zip(dict.fromkeys(speakers), _letter_names(), strict=False))


def _letter_names() -> Iterator[str]:
    for width in itertools.count(1):
        for letters in itertools.product(string.ascii_uppercase, repeat=width):
            yield "".join(letters)


def _pad(rows: Sequence[tuple[list[int], list[int]]], pad_id: int, length: int) -> Tokens:
    """Rows of (ids of type 0, ids of type 1) to arrays [B, length]."""
    ids = np.full((len(rows), length), pad_id, np.int32)
    mask = np.zeros(ids.shape, np.bool_)
    type_ids = np.zeros(ids.shape, np.int32)
    for row, (first, second) in enumerate(rows):
        end = len(first) + len(second)
        ids[row, :end] = first + second
        mask[row, :end] = True
        type_ids[row, len(first) : end] = 1
    return Tokens(ids=ids, mask=mask, type_ids=type_ids)


def _check_text(text: TextConfig) -> None:
    for key, allowed in (("speakers", SPEAKERS), ("knowledge", KNOWLEDGE)):
        if getattr(text, key) not in allowed:
            raise ValueError(
                f"config.text.{key} is {getattr(text, key)!r}. Choose one of {', '.join(allowed)}."
            )
    if text.knowledge == "append" and text.knowledge_tokens < 2:
        raise ValueError(
            f"config.text.knowledge_tokens={text.knowledge_tokens} cannot hold a word and [SEP]. "
            "Use 2 or more, or config.text.knowledge=off."
        )
