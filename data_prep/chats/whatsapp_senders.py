"""Who speaks in a line of WhatsApp's export: ``NAME: TEXT``, where both may hold colons.

A notice of the program has no name before it, and may still hold a colon ("Mira changed the subject
from "Trip: north" to ..."). What decides is the whole file, in no language: who speaks at all, and
which names go on behind a colon.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterator

from data_prep.chats.whatsapp_heads import MARK, clean, passed

_COLON = re.compile(r"\s?[:\uff1a](?=\s|$)")
_TIGHT = re.compile(r"[:\uff1a](?=[^\s/])")
_EDGE = "~\u223c\u202f\xa0 \t"
_QUOTES = re.compile('["\u201c\u201d\u201e\u00ab\u00bb\u2039\u203a\u300c\u300d\u300e\u300f]')
_SENTENCE_END = re.compile(r"[.!?]\s|[\u3002\uff01\uff1f]")
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
        self._decided: dict[str, bool] = {}  # a beginning -> whether it goes on

    def add(self, rest: str) -> None:
        """Learns from the first line of what follows a head."""
        self._decided.clear()
        text = _named_part(rest)
        found = list(_beginnings(text))
        names = [name for name, _ in found]
        for name, longer in itertools.zip_longest(names, names[1:]):
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
        if name not in self._decided:
            longer = self._longer.get(name, set())
            few = 2 * len(longer) <= self._spoken[name]
            names = few or all(_looks_like_name(one[len(name) :]) for one in longer)
            self._decided[name] = bool(longer) and names
        return self._decided[name]

    def _is_notice(self, rest: str, text: str, name: str) -> bool:
        """Whether what stands before the colon is no name."""
        if not name or len(name) > _LONGEST or "//" in name or len(_QUOTES.findall(name)) % 2:
            return True
        often = self._spoken[name] + self._tight[name] > 1
        if rest.lstrip().startswith(MARK) and not often:
            return True
        return self._mentions_a_longer_name(text, name) or self._tells_of_somebody(name, often)

    def _mentions_a_longer_name(self, text: str, name: str) -> bool:
        """Whether the colon belongs to a name within: "Mira added Work: Tobin Oak"."""
        begin = text.index(name)
        for word in itertools.islice(re.finditer(r"\S+", name), 1, None):
            part = text[begin + word.start() :]
            first = next(_beginnings(part), None)
            if first and self._goes_on(first[0]):
                ends = range(first[1], min(len(part), 2 * _LONGEST) + 1)
                if any(part[:end] in self._longer[first[0]] for end in ends):
                    return True
        return False

    def _tells_of_somebody(self, name: str, often: bool) -> bool:
        """Whether a name is a sentence: "Mira added Tobin", or many words without capitals."""
        words = name.split()
        for count in range(1, len(words) - 1):
            others = words[count:]
            known = self._spoken[" ".join(words[:count])] > 0
            if known and others[0][0].islower() and (len(others) >= 4 or not often):
                return True
        if often:
            return False
        if _SENTENCE_END.search(name) and (len(words) >= 5 or not name.isascii()):
            return True
        # Scripts without capitals and blanks: somebody's name, and a sentence that goes on with it.
        joined = (end for end in range(1, len(name) - 4) if _caseless(name[end]))
        if any(self._spoken[name[:end]] > 0 for end in joined):
            return True
        return len(words) >= 5 and sum(word[0].islower() for word in words) >= 3


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
    return len(word) <= 4 if _caseless(word[0]) else word[0] != word[0].lower()


def _caseless(letter: str) -> bool:
    return letter.isalpha() and letter.lower() == letter.upper()
