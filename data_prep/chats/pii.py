"""Personal data in a message: where it stands, of which kind, and the message without it."""

import functools
import itertools
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import phonenumbers

from data_prep.chats import pii_names, pii_patterns, word_lists

# Where two overlap, the earlier kind is taken: digits in a link are no telephone number.
KINDS = ("link", "email", "id", "card", "phone", "address", "handle", "name")
REGIONS = ("CN", "US", "GB")
KNOWN_REGIONS = frozenset(phonenumbers.SUPPORTED_REGIONS)
_GRAMMAR = "function_words.txt"
_EVERYDAY = (_GRAMMAR, "contact_labels.txt")
_CJK = re.compile(r"[\u4e00-\u9fff]")
_JOINED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff]"
)  # of scripts that set no blanks between words
_HANGUL = re.compile("[\uac00-\ud7a3]")
_MARKS = "\u0300-\u036f\u0900-\u0dff"  # on letters, and with them in the scripts of India
_ENDED = re.compile(rf"(?:[^\W\d_]|[{_MARKS}]){{3,}}")
_LETTERS = "LM"  # and the marks that stand on them
_LONGEST_ENDING = 3  # letters that grammar sets behind a name
_SHORTEST = 4  # letters of a name behind which an ending is looked for; two syllables of Hangul
_FALLS_OFF = re.compile(
    "(?<=[\u0400-\u04ff]{3})(?:[иы]й|ая|яя|[аяоеыйьії])$"
)  # in other cases of a name
_SET_BEFORE = re.compile("^[והבכלמש](?=[\u05d0-\u05ea]{3})|^(?:وال|[وبلكف])(?=[\u0620-\u064a]{3})")
_WORD = re.compile(r"[^\W\d_]")


@dataclass(frozen=True, order=True)
class Span:
    """Personal data from ``start`` to ``end`` of a message."""

    start: int
    end: int
    kind: str


class SenderNames:
    """Finds the names of the people who write in the chats, wherever they are mentioned.

    Of a name in several words each word counts, of a Chinese name the given name as well. A word
    that everybody uses ("Will", "Work") is looked for with its capital only, and one of grammar
    ("The Boss") within the whole name alone.
    """

    def __init__(self, names: Iterable[str]) -> None:
        """Prepares the search.

        Args:
          names: as the export writes them.
        """
        common = frozenset().union(*pii_names.doubtful(), *map(_listed, _EVERYDAY))
        loose: set[str] = set()
        exact: set[str] = set()
        for name in names:
            written = (unicodedata.normalize(form, name.strip()) for form in ("NFC", "NFD"))
            for form in itertools.chain.from_iterable(map(_forms, dict.fromkeys(written))):
                (exact if form.lower() in common or len(form) < 3 else loose).add(form)
        self._forms = [_Forms(loose, _caseless), _Forms(exact - loose, str)]
        named = (form for form in loose | exact if form.lower() not in common)
        self._stems = {_stem(form) for form in named if _may_end(form)}

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """Yields where one of them is mentioned."""
        for forms in self._forms:
            yield from forms.find(text)
        yield from self._ended(text)

    def _ended(self, text: str) -> Iterator[tuple[int, int]]:
        """Yields where a name has an ending ("Tobins", "Тобину", "토빈아") or "to" before it."""
        for word in _ENDED.finditer(text) if self._stems else ():
            folded = _caseless(word[0])
            has_case = folded != folded.upper()
            if has_case and not word[0][0].isupper():
                continue
            for start in _SET_BEFORE.sub("", folded), folded:
                ends = range(len(start), len(start) - _LONGEST_ENDING - 1, -1)
                if any(start[:end] in self._stems for end in ends):
                    yield word.span()
                    break


def _is_joined(form: str) -> bool:
    """Whether a name may stand within other letters; one kana or Thai letter is no name there."""
    return bool(_CJK.search(form) or (len(form) > 1 and _JOINED.search(form)))


def _may_end(form: str) -> bool:
    """Whether a name is long enough to be known by its beginning, and one word."""
    least = 2 if _HANGUL.match(form) else _SHORTEST if form[:1].upper() != form[:1].lower() else 3
    letters = all(unicodedata.category(one)[0] in _LETTERS for one in form)
    return len(form) >= least and letters and not _JOINED.search(form)


def _stem(form: str) -> str:
    return _FALLS_OFF.sub("", _caseless(form))


class _Forms:
    """Finds any of many words, the longest first, in a time that does not grow with their number.

    A pattern of alternatives would try each of a large group's names at each character. Names of
    scripts without blanks are found anywhere, others between the edges of words.
    """

    def __init__(self, forms: Iterable[str], fold: Callable[[str], str]) -> None:
        self._fold = fold
        self._known = {fold(form) for form in forms}
        lengths: dict[str, set[int]] = {}
        for form in self._known:
            lengths.setdefault(form[0], set()).add(len(form))
        self._lengths = {first: sorted(found, reverse=True) for first, found in lengths.items()}
        # Where a form may begin: at a word's edge, and one of a script without blanks anywhere.
        anywhere = sorted({re.escape(form[0]) for form in self._known if _is_joined(form)})
        self._begins = re.compile("|".join((r"(?<![^\W\d_])\S", *anywhere)))

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        folded, free = self._fold(text), 0
        for begin in self._begins.finditer(folded):
            start = begin.start()
            for length in self._lengths.get(begin[0], ()) if start >= free else ():
                if self._stands(folded, start, start + length):
                    free = start + length
                    yield start, free
                    break

    def _stands(self, text: str, start: int, end: int) -> bool:
        form = text[start:end]
        if end > len(text) or form not in self._known:
            return False
        # A word's edge counts between letters of an alphabet; Chinese does not separate words.
        joined = _WORD.match(text, start - 1) if start else None
        return _is_joined(form) or not (joined or _WORD.match(text, end))


def _caseless(text: str) -> str:
    """Returns the text without case, of the same length: places in it are places in the text."""
    folded = text.casefold()
    if len(folded) == len(text):
        return folded
    return "".join(one if len(one.casefold()) > 1 else one.casefold() for one in text)


@functools.cache
def _listed(name: str) -> frozenset[str]:
    return word_lists.words(word_lists.shipped(name))


def _forms(name: str) -> Iterator[str]:
    kept = (one if unicodedata.category(one)[0] in _LETTERS else " " for one in name)
    parts = "".join(kept).split()
    if not parts:
        return  # a number: found as such
    yield name
    for part in parts:
        if len(part) > 1 and part.lower() not in _listed(_GRAMMAR):
            yield part
        if len(part) == 3 and (all(map(_CJK.match, part)) or all(map(_HANGUL.match, part))):
            yield part[1:]


def find(
    text: str, senders: SenderNames | None = None, regions: tuple[str, ...] = REGIONS
) -> list[Span]:
    """Finds personal data.

    Args:
      text: a message.
      senders: names to look for besides the common ones.
      regions: countries whose telephone numbers are written without the country's code.

    Returns:
      Spans in order, none overlapping another.
    """
    found = {kind: finder(text) for kind, finder in pii_patterns.FINDERS.items()}
    found["phone"] = pii_patterns.phones(text, regions)
    found["address"] = pii_patterns.addresses(text)
    found["handle"] = pii_patterns.handles(text)
    chinese = pii_names.chinese(text) if _CJK.search(text) else iter(())
    named = senders.find(text) if senders else iter(())
    found["name"] = itertools.chain(named, chinese, pii_names.english(text))
    taken: list[Span] = []
    for kind in KINDS:
        # The longest first: a full name before its parts.
        for start, end in sorted(found[kind], key=lambda span: (span[0] - span[1], span)):
            if kind == "name":
                start, end = _beside(text, start, end, taken)
            if start < end and all(end <= one.start or one.end <= start for one in taken):
                taken.append(Span(start, end, kind))
    return sorted(taken)


def _beside(text: str, start: int, end: int, taken: Iterable[Span]) -> tuple[int, int]:
    """Returns what of a name is not taken: of "@Zorp Oak" the handle is "@Zorp" alone."""
    for one in taken:
        if one.start <= start < one.end:
            start = min(one.end, end)
        if one.start < end <= one.end:
            end = max(one.start, start)
    words = text[start:end]
    return start + len(words) - len(words.lstrip()), end - len(words) + len(words.rstrip())


def mask(text: str, spans: Iterable[Span]) -> str:
    """Returns the message with "[kind]" in the place of each span."""
    parts, place = [], 0
    for span in spans:
        parts += [text[place : span.start], f"[{span.kind}]"]
        place = span.end
    return "".join([*parts, text[place:]])
