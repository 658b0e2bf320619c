"""Personal data in a message: where it stands, of which kind, and the message without it."""

import functools
import itertools
import re
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
_PARTS = re.compile(r"[^\W\d_]+")
_WORD = re.compile(r"\w")


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
            for form in _forms(name.strip()):
                (exact if form.lower() in common or len(form) < 3 else loose).add(form)
        self._forms = [_Forms(loose, _caseless), _Forms(exact - loose, str)]

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """Yields where one of them is mentioned."""
        for forms in self._forms:
            yield from forms.find(text)


class _Forms:
    """Finds any of many words, the longest first, in a time that does not grow with their number.

    A pattern of alternatives would try each of a large group's names at each character.
    """

    def __init__(self, forms: Iterable[str], fold: Callable[[str], str]) -> None:
        self._fold = fold
        self._known = {fold(form) for form in forms}
        lengths: dict[str, set[int]] = {}
        for form in self._known:
            lengths.setdefault(form[0], set()).add(len(form))
        self._lengths = {first: sorted(found, reverse=True) for first, found in lengths.items()}
        # Where a form may begin: at a word's edge, and one with Chinese in it anywhere.
        anywhere = sorted({re.escape(form[0]) for form in self._known if _CJK.search(form)})
        self._begins = re.compile("|".join((r"(?<!\w)\S", *anywhere)))

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
        return bool(_CJK.search(form)) or not (joined or _WORD.match(text, end))


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
    parts = _PARTS.findall(name)
    if not parts:
        return  # a number: found as such
    yield name
    for part in parts:
        if len(part) > 1 and part.lower() not in _listed(_GRAMMAR):
            yield part
        if len(part) == 3 and all(map(_CJK.match, part)):
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
            if start < end and all(end <= one.start or one.end <= start for one in taken):
                taken.append(Span(start, end, kind))
    return sorted(taken)


def mask(text: str, spans: Iterable[Span]) -> str:
    """Returns the message with "[kind]" in the place of each span."""
    parts, place = [], 0
    for span in spans:
        parts += [text[place : span.start], f"[{span.kind}]"]
        place = span.end
    return "".join([*parts, text[place:]])
