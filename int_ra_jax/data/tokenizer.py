"""Words to ids: the tokenizer of a pretrained text tower, or a vocabulary learnt from the data.

Nothing is known here of how rows are composed; that is ``text``.
"""

import copy
import json
import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from int_ra_jax.common import process_memory
from int_ra_jax.common.files import replace_text
from int_ra_jax.common.model_directory import DESCRIPTION_FILES, is_lfs_pointer, resolve_directory
from int_ra_jax.data import emoji_names
from int_ra_jax.data.emoji_names import EmojiNames

_MIN_VOCABULARY = 200
_LATIN = re.compile("[A-Za-z]{3,}")
_OPENED = "opened.json"  # beside a saved tokenizer: what opening it gave
_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json")


class Tokenizer:
    """A checkpoint's own tokenizer, without its special tokens, truncation and padding.

    Tokenizer files may carry a truncation length and a padding of their own (128 in MiniLM's), and
    would read "[SEP]" in a user's message as a real separator. Both are switched off here; special
    ids enter a row only through the composition of ``text``.

    Attributes:
      cls_id: id that opens a row: what the tokenizer itself puts before a text, [CLS] or <s>.
      sep_id: id that closes a segment: what it puts behind a text, [SEP] or </s>.
      pad_id: id of padding; the mask, not this id, says what is real.
      mask_id: id that stands for a hidden word, [MASK]; None where the vocabulary has none.
      unknown_id: id of what the vocabulary lacks, [UNK]; None where it can spell everything.
      vocab_size: number of rows the embedding table must have at least.
      emoji: names that are read in the place of emoji; None reads them as they are.
    """

    def __init__(self, directory: Path) -> None:
        """Loads ``tokenizer.json`` or the vocabulary of a directory; see ``load_tokenizer``."""
        self._directory = directory
        self._backend, special = _saved(directory) or _pretrained(directory)
        self.cls_id, self.sep_id, self.pad_id = special["cls"], special["sep"], special["pad"]
        self.mask_id: int | None = special["mask"]
        _read_literals_as_text(self._backend, {self.cls_id, self.sep_id, self.pad_id})
        self._prefixes: dict[str, list[int]] = {}
        # Of the models, that of a sentencepiece vocabulary does not tell.
        unknown = getattr(self._backend.model, "unk_token", None) or "<unk>"
        self.unknown_id: int | None = self._backend.token_to_id(unknown)
        self.emoji: EmojiNames | None = emoji_names.load(directory)
        self.vocab_size = max(self._backend.get_vocab(with_added_tokens=True).values()) + 1

    def encode(self, texts: Sequence[str]) -> list[tokenizers.Encoding]:
        """Tokenises texts as ordinary words, whatever they contain."""
        read = [self._as_read(text) for text in texts]
        return self._backend.encode_batch(read, add_special_tokens=False)

    def unknown(self, text: str, code: tokenizers.Encoding) -> list[str]:
        """Returns the parts of a text that the vocabulary lacks, one for each unknown token.

        Args:
          text: what was encoded.
          code: its encoding.
        """
        if self.unknown_id not in code.ids:
            return []
        text = self._as_read(text)
        spans = zip(code.ids, code.offsets, strict=True)
        return [text[slice(*span)].strip() for one, span in spans if one == self.unknown_id]

    def latin(self, text: str, code: tokenizers.Encoding) -> tuple[int, int]:
        """Returns how many letters Latin words have, and how many letters are tokens by themselves.

        Args:
          text: what was encoded.
          code: its encoding.
        """
        text = self._as_read(text)
        letters = sum(map(len, _LATIN.findall(text)))
        if not letters:
            return 0, 0
        alone = (text[start] for start, end in code.offsets if end == start + 1)
        return letters, sum(one.isascii() and one.isalpha() for one in alone)

    def _as_read(self, text: str) -> str:
        return self.emoji.to_words(text) if self.emoji else text

    def with_emoji(self, names: EmojiNames | None) -> "Tokenizer":
        """Returns the tokenizer that reads names in the place of emoji, or emoji as they are."""
        other = copy.copy(self)
        other.emoji = names
        return other

    def save(self, directory: Path) -> None:
        """Writes the tokenizer, so that a working directory can be used without its source."""
        _open(self._directory).save_pretrained(directory)
        names = ("cls", "sep", "pad", "mask")
        ids = dict(zip(names, (self.cls_id, self.sep_id, self.pad_id, self.mask_id), strict=True))
        opened = {"special": ids, "tokenizer": json.loads(self._backend.to_str())}
        replace_text(directory / _OPENED, json.dumps(opened, ensure_ascii=False) + "\n")
        if self.emoji:
            self.emoji.save(directory)

    def plain(self) -> str:
        """Returns a file of the package tokenizers that reads texts as ``encode`` does.

        Emoji must be written as words before. No token that is special stands in it, nor what adds
        any: whoever reads it with any options gets ordinary words alone.
        """
        content = json.loads(self._backend.to_str())
        content["added_tokens"] = [one for one in content["added_tokens"] if not one["special"]]
        content["post_processor"] = None
        return json.dumps(content, ensure_ascii=False) + "\n"

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
      ValueError: if there is no tokenizer, its files are damaged, or it does not open and close a
        text and pad it.
      FileNotFoundError: if there is no such directory.
    """
    directory = resolve_directory(path_or_name)
    # The same in the workdirs of all runs with one tower that read emoji alike.
    saved = [directory / name for name in (_OPENED, emoji_names.FILE)]
    files = [path.read_bytes() if path.is_file() else None for path in saved]
    key = directory if files[0] is None else tuple(files)
    return process_memory.once(("tokenizer", key), lambda: Tokenizer(directory))


def _saved(directory: Path) -> tuple[tokenizers.Tokenizer, dict[str, Any]] | None:
    """Opens what ``Tokenizer.save`` has written: without transformers, whose import takes seconds.

    Returns:
      The tokenizer and its special ids; None where the directory is somebody else's.
    """
    path = directory / _OPENED
    if not path.is_file():
        return None
    try:
        opened = json.loads(path.read_text(encoding="utf-8"))
        backend = tokenizers.Tokenizer.from_str(json.dumps(opened["tokenizer"]))
        special = {name: opened["special"][name] for name in ("cls", "sep", "pad", "mask")}
    except Exception as error:  # anything, by where a damaged file breaks it
        raise ValueError(
            f"cannot read the tokenizer {path} ({type(error).__name__}: {error}); "
            "delete it, and the tokenizer is opened from the files beside it"
        ) from error
    return backend, special


def _pretrained(directory: Path) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    """Opens a checkpoint's own tokenizer, and finds the ids that frame and pad a text."""
    source = _open(directory)
    backend: tokenizers.Tokenizer = source.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    frame = backend.encode("").ids
    if len(frame) != 2:  # no post-processor that frames a text; the files may name the tokens
        frame = [source.cls_token_id, source.sep_token_id]
    special = dict(zip(("cls", "sep", "pad"), [*frame, source.pad_token_id], strict=True))
    absent = [name for name, value in special.items() if value is None]
    if absent:
        raise ValueError(
            f"the tokenizer in {directory} has no {', '.join(absent)} token. "
            "Use the tokenizer of a BERT-shaped text tower."
        )
    return backend, {**special, "mask": source.mask_token_id}


def _open(directory: Path) -> Any:
    """Opens a tokenizer with its own library, which takes damaged files for small vocabularies."""
    files = [file for pattern in DESCRIPTION_FILES for file in directory.glob(pattern)]
    files = [file for file in dict.fromkeys(files) if file.is_file()]
    problems = [
        f"{file.name} is empty; fetch it again" for file in files if not file.stat().st_size
    ]
    problems += [
        f"{file.name} is a git-LFS pointer; run `git lfs pull`"
        for file in files
        if is_lfs_pointer(file)
    ]
    if not any((directory / name).is_file() for name in _VOCABULARIES):
        problems.append(f"there is no vocabulary; one of {', '.join(_VOCABULARIES)} is needed")
    if problems:
        raise ValueError(f"cannot read a tokenizer from {directory}:\n  " + "\n  ".join(problems))
    # Imported late: it costs seconds, and brings torch along where that is installed.
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(directory, use_fast=True, trust_remote_code=False)
    except Exception as error:  # anything, by where a damaged file breaks it
        raise ValueError(
            f"cannot read a tokenizer from {directory} ({type(error).__name__}: {error}); "
            "fetch its files again, or write them with transformers' save_pretrained"
        ) from error


def _read_literals_as_text(backend: tokenizers.Tokenizer, special: set[int]) -> None:
    """Makes a message with "[SEP]" or "</s>" in it say that and no more."""
    backend.encode_special_tokens = True
    # A sentencepiece vocabulary holds them as pieces of words too. Split behind their first
    # character, after any normalisation, they are matched no more.
    literals = [backend.id_to_token(index) or "" for index in special]
    leaking = [
        f"{re.escape(text[0])}(?={re.escape(text[1:])})"
        for text in literals
        if special.intersection(backend.encode(text, add_special_tokens=False).ids)
    ]
    if leaking:
        apart = tokenizers.pre_tokenizers.Split(tokenizers.Regex("|".join(leaking)), "isolated")
        before = [backend.pre_tokenizer] if backend.pre_tokenizer else []
        backend.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([*before, apart])


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
