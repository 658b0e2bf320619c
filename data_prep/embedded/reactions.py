"""Finds reactions ("hahaha", "oh no", "thanks so much", ":)") in chat messages and reads them.

A reaction is what a sticker replaces. A message is one only if every word of it belongs to a
phrase of the lexicon or to a filler, and if its strongest phrases agree on one intention;
whatever cannot be decided is left alone. A message that opens or closes with a reaction is split
into the reaction and the sender's own words, which gives the case of a sticker that supplements.
"""

import itertools
import re
from dataclasses import dataclass, replace
from functools import cache

from data_prep.embedded.reaction_lexicon import (
    EMOTICONS,
    FILLERS,
    RULES,
    SPELLINGS,
    UNDECIDED,
    Rule,
    Strength,
)

_SCANNER = re.compile(
    "|".join(f"(?P<{name}>{pattern})" for name, pattern in EMOTICONS.items())
    + r"|(?P<word>[^\W_]+(?:['’‘`´][^\W_]+)*)|(?P<query>[?!]*\?[?!]*)|(?P<stop>[^\w\s'’\"*]+)"
)
# Words that set themselves off: no punctuation is needed between them and the own words.
_SET_OFF = frozenset(
    {"haha", "lol", "wow", "whoa", "woah", "aw", "ugh", "omg", "yikes", "phew", "ew"}
) | {f"<{name}>" for name in EMOTICONS}
_YES = frozenset({"yes", "yeah", "yep", "yup", "ya", "yea", "yeh", "no", "nope", "nah"})
_STOPS = frozenset({"|", "?", "?!"})
_CLOSING = frozenset({"amusement", "gratitude", "joy", "love", "optimism", "sadness", "caring"})
MIN_OWN_WORDS = 3


@dataclass(frozen=True)
class Token:
    """A normalised word, emoticon or stop with its place in the message."""

    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Reaction:
    """What a message, or a part of it, says as a reaction.

    Attributes:
      text: the reaction as it was typed.
      intention: its intention.
      phrases: the normalised phrases that decided, strongest first.
      answer: True where the words may merely answer a question.
      strength: how much the deciding phrases say by themselves (reaction_lexicon).
      own_words: what the sender says besides; empty when the whole message is the reaction.
    """

    text: str
    intention: str
    phrases: tuple[str, ...]
    answer: bool
    strength: int
    own_words: str = ""


@cache
def _vocabulary() -> frozenset[str]:
    source = " ".join([*(rule.pattern for rule in RULES), FILLERS.pattern])
    return frozenset(re.findall(r"[a-z]{2,}", source))


@cache
def normalise_word(word: str) -> str:
    """Lower-cases a word, drops its apostrophes and undoes elongation ("Niceee" -> "nice").

    A run of letters is shortened only where that yields a word of the lexicon.

    Args:
      word: one word without surrounding punctuation.

    Returns:
      The normal form that the lexicon's patterns are written in.
    """
    word = re.sub(r"['’‘`´]", "", word.lower())
    for pattern, form in SPELLINGS:
        if pattern.fullmatch(word):
            return form
    if word in _vocabulary():
        return word
    runs = [(letter, len(list(group))) for letter, group in itertools.groupby(word)]
    choices = [[letter * 2, letter] if count > 1 else [letter] for letter, count in runs]
    if sum(count > 1 for _, count in runs) <= 6:
        for shorter in map("".join, itertools.product(*choices)):
            if shorter in _vocabulary():
                return shorter
    return word


def tokenise(text: str) -> list[Token]:
    """Splits a message into normalised words, emoticons as ``<smile>``, ``?`` and stops ``|``."""
    tokens = []
    for found in _SCANNER.finditer(text):
        kind = str(found.lastgroup)
        if kind == "word":
            form = normalise_word(found.group())
        elif kind == "query":
            form = "?!" if "!" in found.group() else "?"
        elif kind == "stop":
            form = "|"
        else:
            form = f"<{kind}>"
        tokens.append(Token(form, *found.span()))
    return tokens


@cache
def _compiled() -> tuple[tuple[re.Pattern[str], Rule], ...]:
    # A written "\\?" also takes "?!"; "[?]" does not.
    patterns = (rule.pattern.replace("\\?", "\\?!?") for rule in RULES)
    return tuple(
        (re.compile(f"(?:{pattern})(?= |$)"), rule)
        for pattern, rule in zip(patterns, RULES, strict=True)
    )


@cache
def _any_phrase() -> re.Pattern[str]:
    """Whether any phrase or filler can start at a place; one search instead of one per rule."""
    return re.compile("|".join([FILLERS.pattern, *(pattern.pattern for pattern, _ in _compiled())]))


def _longest(text: str, place: int) -> tuple[int, Rule | None]:
    """The end of the longest phrase or filler of ``text`` at ``place``, and its rule."""
    best, chosen = place, None
    if not _any_phrase().match(text, place):
        return best, chosen
    for pattern, rule in _compiled():
        found = pattern.match(text, place)
        if found is None:
            continue
        # "a|a b" stops at the first alternative that fits, so longer ends are tried by hand.
        ends = [place + gap.start() for gap in re.finditer(r"(?= |$)", text[place : place + 80])]
        end = next(
            (
                end
                for end in reversed(ends)
                if end > found.end() and pattern.fullmatch(text, place, end)
            ),
            found.end(),
        )
        if (end, rule.strength) > (best, chosen.strength if chosen else -1):
            best, chosen = end, rule
    filler = FILLERS.match(text, place)
    if filler and filler.end() > best:
        return filler.end(), None
    return best, chosen


def _phrases(words: list[str]) -> list[tuple[str, Rule]] | None:
    """The lexicon's phrases that make up ``words``, or None where a word belongs to none."""
    text = " ".join(word for word in words if word != "|")
    place, phrases = 0, []
    while place < len(text):
        if text[place] == " ":
            place += 1
            continue
        end, rule = _longest(text, place)
        if end == place:
            return None
        if rule is not None:
            phrases.append((text[place:end], rule))
        place = end
    return phrases


def _decide(phrases: list[tuple[str, Rule]]) -> tuple[str, list[tuple[str, Rule]]] | None:
    """The intention on which the strongest phrases agree, and those phrases."""
    if not phrases:
        return None
    top = max(rule.strength for _, rule in phrases)
    strongest = [(phrase, rule) for phrase, rule in phrases if rule.strength == top]
    intentions = {rule.intention for _, rule in strongest}
    if len(intentions) > 1 or UNDECIDED in intentions:
        return None
    return intentions.pop(), strongest


def _read(tokens: list[Token], text: str) -> Reaction | None:
    """The reaction that all of ``tokens`` make, if they make one."""
    phrases = _phrases([token.text for token in tokens])
    decided = _decide(phrases) if phrases else None
    if decided is None or phrases is None:
        return None
    intention, strongest = decided
    return Reaction(
        text=text[tokens[0].start : tokens[-1].end],
        intention=intention,
        phrases=tuple(phrase for phrase, _ in strongest),
        # "yes haha" after a question is mostly the yes.
        answer=any(rule.answer for _, rule in strongest)
        or (strongest[0][1].strength <= Strength.LAUGHED and any(t.text in _YES for t in tokens)),
        strength=strongest[0][1].strength,
    )


def read_reaction(text: str) -> Reaction | None:
    """Reads a message that is a reaction and nothing else.

    Args:
      text: one chat message as typed.

    Returns:
      The reaction, or None where any word is not part of one or the phrases disagree.
    """
    tokens = tokenise(text)
    return _read(tokens, text) if tokens else None


def asks(text: str) -> bool:
    """Whether a message ends with a question; laughter and emoticons after it do not count."""
    words = [token.text for token in tokenise(text) if token.text not in _SET_OFF | {"|"}]
    return bool(words) and words[-1] in {"?", "?!"}


def split_reaction(text: str) -> Reaction | None:
    """Splits a message that opens or closes with a reaction from the sender's own words.

    The border is punctuation, or a word that sets itself off ("haha so you still feel tired").
    At the end of a message only reactions that commonly close one are taken, since "..., awesome"
    there mostly tells of the sender's own matter.

    Args:
      text: one chat message as typed.

    Returns:
      The reaction with ``own_words`` filled, or None where there is no such split.
    """
    tokens = tokenise(text)
    for border in range(len(tokens) - 1, 0, -1):
        before, after = tokens[border - 1], tokens[border]
        if before.text not in _STOPS and before.text not in _SET_OFF:
            continue
        if _own_words(tokens[border:]) < MIN_OWN_WORDS or after.text in _STOPS:
            continue
        found = _read(tokens[:border], text)
        if found and found.strength > Strength.NODDED:
            return _with_own_words(found, text[after.start :])
    return _closing(tokens, text)


def _closing(tokens: list[Token], text: str) -> Reaction | None:
    for border in range(1, len(tokens)):
        before, after = tokens[border - 1], tokens[border]
        if before.text not in _STOPS and after.text not in _SET_OFF:
            continue
        if _own_words(tokens[:border]) < MIN_OWN_WORDS or after.text in _STOPS:
            continue
        found = _read(tokens[border:], text)
        if found and found.intention in _CLOSING:
            return _with_own_words(found, text[: after.start])
    return None


def _own_words(tokens: list[Token]) -> int:
    return sum(token.text not in _STOPS for token in tokens)


def _with_own_words(found: Reaction, words: str) -> Reaction:
    return replace(found, own_words=words.strip(" ,-—"))
