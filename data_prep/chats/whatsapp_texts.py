"""What is said in a record of WhatsApp's export: words, a sticker, another file, a placeholder.

An iPhone sets the mark U+200E before everything that the program wrote, in every language. Android
sets none before its placeholders: there the program's own sentences are known, whole and in several
languages (lists/whatsapp_*.txt). Words that a person wrote are never judged by parts of them.
"""

import functools
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.chats import word_lists
from data_prep.chats.message import StickerLeftOut
from data_prep.chats.whatsapp_heads import MARK, RIGHT_MARK, Line, clean
from int_ra_jax.common.ledger import LeftOut

_NAME = r"[^<>\n/\\:\"*?|]{1,200}\.(?=\w*[^\W\d_])\w{1,10}"
_IS_NAME = re.compile(rf"^{_NAME}$")
_IN_BRACKETS = re.compile(
    rf"\u200e?[<\uff1c\u2039]\s?[^<>:\uff1a\n]{{2,40}}?\s?[:\uff1a]\s?(?P<file>{_NAME})\s?[>\uff1e\u203a]"
)
_WITH_PHRASE = re.compile(
    rf"^(?P<file>{_NAME}) [(\uff08](?P<phrase>[^()\uff08\uff09\n]{{3,60}})[)\uff09]$"
)
# Names that WhatsApp itself gives; whatever stands behind them means "attached" in this file.
_OWN_NAME = re.compile(r"^(?:IMG|VID|AUD|PTT|STK|DOC|GIF)-\d{8}-WA\d{4,}\.\w+$")
_PLACEHOLDER = re.compile(r"^[<\uff1c](?P<words>[^<>\n\uff1c\uff1e]{3,60})[>\uff1e]$")
_PROGRAM_END = re.compile(r"\u200e[<\uff1c][^<>\n]{3,80}[>\uff1e]\s*$")
_LAST_WORDS = re.compile(r"[<\uff1c](?P<words>[^<>\n]{3,80})[>\uff1e]\s*$")
_PLACE = re.compile(
    r"(?:[^\n:\uff1a]{2,40}[:\uff1a]\s?)?https://maps\.google\.com/\?q=-?[\d.]+,-?[\d.]+"
)
_VOTES = r"[:\uff1a] [^\n]*\((?=[^()\n]{1,40}\))[^()\n]*\d[^()\n]*\)"
_POLL = re.compile(
    rf"\w{{2,30}}[:\uff1a]\n[^\n]+\n(?P<word>\w{{2,30}}){_VOTES}(?:\n(?P=word){_VOTES})+"
)
_MARKED = re.compile(r"[:\uff1a]\s?\u200e")
_AFTER_NAME = re.compile(r"[:\uff1a]\s?")
_STICKER_NAME = re.compile(r"(?:STK-|-STICKER-)", re.I)
_PHOTO_NAME = re.compile(r"(?:IMG-|-PHOTO-)", re.I)
_STICKER = re.compile(
    "sticker|贴图|貼圖|スタンプ|ステッカー|스티커|стикер|наклейк|ملصق|figurinha|autocollant|adesivo|çıkartma|naklejka",
    re.I,
)
_KINDS = {
    "photo": "jpg jpeg png heic webp gif",
    "video": "mp4 mov 3gp mkv avi webm",
    "voice or audio": "opus ogg mp3 m4a aac amr wav",
    "contact": "vcf",
}
# What Android writes without its mark, in any language.
_FORMS = {"location": _PLACE, "poll": _POLL}
_KIND_OF = {suffix: kind for kind, suffixes in _KINDS.items() for suffix in suffixes.split()}


@functools.cache
def _sentences(name: str) -> frozenset[str]:
    lines = word_lists.lines(word_lists.shipped(f"whatsapp_{name}.txt"))
    return frozenset(_bare(line) for line in lines)


def _bare(text: str) -> str:
    return " ".join(clean(text).casefold().split()).rstrip(".\u3002")


@dataclass
class Texts:
    """Learns how one file attaches, and reads what its records say.

    Attributes:
      folder: where the chat's files lie.
      phrases: what stands behind the name of an attached file.
      marked: whether the program's mark is set in the file.
      documents: names of the text files that the chat attaches.
    """

    folder: Path
    phrases: set[str] = field(default_factory=set)
    marked: bool = False
    documents: set[str] = field(default_factory=set)
    _behind: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def add(self, rest: str) -> None:
        """Learns from the first line of what follows a head."""
        self.marked |= _MARKED.search(rest) is not None
        bracketed = _IN_BRACKETS.search(rest)
        attached = _WITH_PHRASE.match(_AFTER_NAME.split(clean(rest))[-1].strip())
        if attached:
            phrase = _bare(attached["phrase"])
            files = self._behind[phrase]
            files.add(attached["file"])
            if _OWN_NAME.match(attached["file"]) or (len(files) > 2 and " " in phrase):
                self.phrases.add(phrase)
                self._behind[phrase].clear()
        if (match := bracketed or attached) and match["file"].lower().endswith(".txt"):
            self.documents.add(clean(match["file"]).strip())

    def read(self, said: str, line: Line) -> tuple[str, str | None]:
        """Returns the words and the sticker's file, either of which may be missing but not both.

        Args:
          said: all lines of it, with their marks.
          line: the record's first.

        Raises:
          LeftOut: with the reason, if there is neither.
          StickerLeftOut: if it is a sticker that the export does not hold.
        """
        said = said.strip()
        file, words = self._attached(said, line)
        if file is None:
            words = self._without_placeholder(said, line)
            if kind := next((name for name, form in _FORMS.items() if form.fullmatch(words)), None):
                raise LeftOut(f"{kind} without words")
            if not words:
                raise LeftOut("message without words")
            return words, None
        suffix = file.rpartition(".")[2].lower()
        named = _STICKER_NAME.search(file) and suffix in ("webp", "png", "gif", "was")
        if named or suffix == "was" or (suffix == "webp" and not _PHOTO_NAME.search(file)):
            return words, file
        if _IS_NAME.match(words) and words.lower().endswith(f".{suffix}"):
            words = ""  # the title of a document
        if not words:
            raise LeftOut(f"{_KIND_OF.get(suffix, 'document')} without words")
        return words, None

    def _attached(self, said: str, line: Line) -> tuple[str | None, str]:
        """Returns the attached file, or None, and the words beside it."""
        match = _IN_BRACKETS.search(said)
        alone = line.style.startswith("bracket") and match is not None and match[0].strip() == said
        if match and (MARK in match[0] or alone):
            before, after = said[: match.start()], said[match.end() :]
            label = "\u2022" in before and MARK in before  # "plan.pdf • 2 pages"
            words = _spoken(after) if label else _spoken(f"{before}\n{after}")
            return clean(match["file"]).strip(), words
        first, _, rest = said.partition("\n")
        match = _WITH_PHRASE.match(clean(first).strip())
        if match and self._means_attached(match["file"], match["phrase"]):
            return match["file"], _spoken(rest)
        return None, ""

    def _means_attached(self, file: str, phrase: str) -> bool:
        known = self.phrases | _sentences("attached")
        own = _OWN_NAME.match(file) is not None
        return own or _bare(phrase) in known or self._is_there(file)

    def _is_there(self, file: str) -> bool:
        try:
            return (self.folder / clean(file).strip()).is_file()
        except (OSError, ValueError):
            return False

    def _without_placeholder(self, said: str, line: Line) -> str:
        """Returns what the person wrote of a record without a file."""
        said = _PROGRAM_END.sub("", said)
        marked = line.marked and line.style.startswith("bracket") and said.startswith(RIGHT_MARK)
        if marked or said.startswith(MARK):
            raise _left_out(said)
        if line.marked and MARK in said:
            said, _, label = said.rpartition(MARK)
            if "\u2022" in said:
                raise _left_out(label)  # the name of a document
            return _spoken(said)
        last = _LAST_WORDS.search(said)
        if last and _bare(last["words"]) in _sentences("edited"):
            said = said[: last.start()]
        first, _, rest = said.partition("\n")
        if self._is_placeholder(clean(first).strip(), line):
            if not rest.strip():
                raise _left_out(first)
            return _spoken(rest)
        return _spoken(said)

    def _is_placeholder(self, first: str, line: Line) -> bool:
        """Whether a line without the mark is the program's, by its form or as a known sentence."""
        if line.style.startswith("bracket"):
            # An iPhone's: marked, but for files that lost the marks.
            return not self.marked and _bare(first.strip("<>")) in _sentences("placeholders_ios")
        if match := _PLACEHOLDER.match(first):
            words = match["words"]
            return len(words.split()) > 1 or not any(one != one.swapcase() for one in words)
        return _bare(first) in _sentences("placeholders_android")


def _spoken(text: str) -> str:
    return clean(text).strip()


def _left_out(words: str) -> LeftOut:
    if _STICKER.search(words) and len(words) < 40:
        return StickerLeftOut("file not in the export")
    return LeftOut("placeholder or notice of the program")
