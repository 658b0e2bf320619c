"""Personal data in a message: where it stands, of which kind, and the message without it."""

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import phonenumbers

from data_prep.chats import pii_names, pii_patterns

# Where two overlap, the earlier kind is taken: digits in a link are no telephone number.
KINDS = ("link", "email", "id", "card", "phone", "address", "handle", "name")
REGIONS = ("CN", "US", "GB")
KNOWN_REGIONS = frozenset(phonenumbers.SUPPORTED_REGIONS)
_CJK = re.compile(r"[\u4e00-\u9fff]")
_PARTS = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True, order=True)
class Span:
    """Personal data from ``start`` to ``end`` of a message."""

    start: int
    end: int
    kind: str


class SenderNames:
    """Finds the names of the people who write in the chats, wherever they are mentioned.

    Of a name in several words each word counts, of a Chinese name the given name as well. A word
    that everybody uses ("Will") is looked for with its capital only.
    """

    def __init__(self, names: Iterable[str]) -> None:
        """Prepares the search.

        Args:
          names: as the export writes them.
        """
        common = frozenset().union(*pii_names.doubtful())
        loose: set[str] = set()
        exact: set[str] = set()
        for name in names:
            for form in _forms(name.strip()):
                (exact if form.lower() in common or len(form) < 3 else loose).add(form)
        self._patterns = [
            re.compile(_alternatives(forms), flags)
            for forms, flags in ((loose, re.I), (exact - loose, re.NOFLAG))
            if forms
        ]

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """Yields where one of them is mentioned."""
        for pattern in self._patterns:
            yield from (match.span() for match in pattern.finditer(text))


def _forms(name: str) -> Iterator[str]:
    if not _PARTS.search(name):
        return  # a number: found as such
    yield name
    for part in _PARTS.findall(name):
        if len(part) > 1:
            yield part
        if len(part) == 3 and all(map(_CJK.match, part)):
            yield part[1:]


def _alternatives(forms: set[str]) -> str:
    ordered = sorted(forms, key=lambda form: (-len(form), form))
    # A word's edge counts between letters of an alphabet; Chinese does not separate words.
    return "|".join(
        re.escape(form) if _CJK.search(form) else rf"(?<!\w){re.escape(form)}(?!\w)"
        for form in ordered
    )


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
