"""Who speaks in a line of WhatsApp's export: ``NAME: TEXT``, where both may hold colons.

A notice of the program has no name before it, and may still hold a colon ("Mira changed the subject
from "Trip: north" to ..."). What decides is the whole file, in no language: who speaks at all, and
which names go on behind a colon.
"""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import zip_longest

from data_prep.chats.whatsapp_heads import MARK, clean, passed

_COLON = re.compile(r"\s?[:\uff1a](?=\s|$)")
_TIGHT = re.compile(r"[:\uff1a](?=[^\s/])")
_EDGE = "~\u223c\u202f\xa0 \t"
_QUOTES = re.compile('["\u201c\u201d\u201e\u00ab\u00bb\u2039\u203a\u300c\u300d\u300e\u300f]')
_PARTS = 3  # colons that a name may hold, and the one behind it
_LONGEST = 80  # characters of a name


class Senders:
    """Learns the names of a file's senders, and splits its lines by them."""

    def __init__(self) -> None:
        """Starts without any name."""
        self._spoken: Counter[str] = Counter()  # a beginning before a colon -> lines that have it
        self._longer: dict[str, set[str]] = {}  # the beginnings that go on behind it
        self._alone: set[str] = set()  # beginnings that some line has without a longer one
        self._tight: Counter[str] = Counter()  # beginnings before a colon without a blank
        self._with_colon: frozenset[str] | None = None

    def add(self, rest: str) -> None:
        """Learns from the first line of what follows a head."""
        self._with_colon = None
        text = _named_part(rest)
        found = list(_beginnings(text))
        names = [name for name, _ in found]
        for name, longer in zip_longest(names, names[1:]):
            self._spoken[name] += 1
            if longer is None:
                self._alone.add(name)
                self._longer.pop(name, None)
            if name in self._alone:
                break  # it never goes on, so what stands behind it is words, and not kept
            self._longer.setdefault(name, set()).add(longer)
        tight = _TIGHT.search(text[:_LONGEST])
        if tight and (not found or tight.start() < found[0][1] - 1):
            self._tight[text[: tight.start()].strip(_EDGE)] += 1

    def split(self, rest: str, certain: bool) -> tuple[str, str] | None:
        """Returns the sender and what was said, with its marks; None where nobody speaks.

        Args:
          rest: what follows a head, its first line.
          certain: whether each line of this style has a name, so that one colon is enough.
        """
        text = _named_part(rest)
        found = list(_beginnings(text))
        chosen = found[0] if found else None
        for name, end in found[1:]:
            if chosen is None or not self._goes_on(chosen[0]):
                break
            chosen = name, end
        tight = _TIGHT.search(text[:_LONGEST])
        if tight and (chosen is None or tight.start() < chosen[1] - 1):
            name = text[: tight.start()].strip(_EDGE)
            digits = text[tight.start() - 1 : tight.end() + 1]
            clock = len(digits) == 3 and digits[0].isdigit() and digits[2].isdigit()
            usual = chosen is not None and self._spoken[chosen[0]] > 1
            usual &= chosen is not None and self._spoken[chosen[0]] >= self._tight[name]
            speaks = certain or len(name.split()) <= 3
            if name and speaks and not clock and not usual:
                chosen = name, tight.end()
        if chosen is None or self._is_notice(rest, text, chosen[0]):
            return None
        return chosen[0], rest[passed(rest, chosen[1]) :]

    def knows(self, rest: str) -> bool:
        """Whether a line begins with somebody who speaks elsewhere in the file."""
        first = next(_beginnings(_named_part(rest)), None)
        return first is not None and self._spoken[first[0]] > 0

    def _goes_on(self, name: str) -> bool:
        """Whether a beginning is part of a longer name: every line goes on behind its colon.

        And with few ways to do so; a person who writes "Note: ..." once writes other things too.
        Where there are few lines to tell, what looks like a name is one, because a name that stays
        in the words stays readable when names are masked.
        """
        longer = self._longer.get(name)
        if not longer:
            return False
        few = 2 * len(longer) <= self._spoken[name]
        return few or all(_looks_like_name(one[len(name) :]) for one in longer)

    def _names_with_colon(self) -> frozenset[str]:
        if self._with_colon is None:
            found = (self._longer[name] for name in self._longer if self._goes_on(name))
            self._with_colon = frozenset().union(*found)
        return self._with_colon

    def _is_notice(self, rest: str, text: str, name: str) -> bool:
        """Whether what stands before the colon is no name."""
        if not name or len(name) > _LONGEST or "//" in name or len(_QUOTES.findall(name)) % 2:
            return True
        often = self._spoken[name] + self._tight[name] > 1
        if rest.lstrip().startswith(MARK) and not often:
            return True
        for other in self._names_with_colon():
            if not name.startswith(other) and 0 < text.find(other) < len(name):
                return True  # its colon belongs to a name that is mentioned
        return self._tells_of_somebody(name, often)

    def _tells_of_somebody(self, name: str, often: bool) -> bool:
        """Whether a name is a sentence: "Mira added Tobin", or many words without capitals."""
        words = name.split()
        for count in range(1, len(words) - 1):
            others = words[count:]
            known = self._spoken[" ".join(words[:count])] > 0
            if known and others[0][0].islower() and (len(others) >= 4 or not often):
                return True
        return not often and len(words) >= 5 and sum(word[0].islower() for word in words) >= 3


def _named_part(rest: str) -> str:
    """Returns what may hold a name: without marks, and up to what the program wrote by its mark."""
    colon = re.search("[:\uff1a]", rest)
    end = rest.find(MARK, colon.end()) if colon else -1
    return clean(rest if end < 0 else rest[:end])


def _beginnings(text: str) -> Iterator[tuple[str, int]]:
    """Yields what may be the name, up to each of the first colons, and where the rest begins."""
    for _, match in zip(range(_PARTS), _COLON.finditer(text[: 2 * _LONGEST]), strict=False):
        if name := text[: match.start()].strip(_EDGE):
            yield name, match.end()


def _looks_like_name(text: str) -> bool:
    words = text.strip(" :\uff1a").split()
    return 1 <= len(words) <= 3 and all(map(_has_capital, words))


def _has_capital(word: str) -> bool:
    """Whether a word begins with a capital, or is short in a script that has none."""
    first = word[0]
    if first.lower() == first.upper():
        return first.isalpha() and len(word) <= 4
    return first != first.lower()
