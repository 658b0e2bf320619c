"""The lexicon of chat reactions: which phrases ("hahaha", "oh no", "thanks so much") mean what.

A reaction is what a sticker replaces. The lexicon is precise before it is complete: a message is a
reaction only if *every* word of it belongs to a listed phrase or to a small set of fillers, and if
the phrases agree on one intention. What it cannot decide it leaves alone (returns None).
Definitions with examples for each intention, and the precision measured by reading samples, are in
docs/data.md.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

_NAMES = """admiration amusement anger annoyance approval caring confusion curiosity desire
    disappointment disapproval disgust embarrassment excitement fear gratitude grief joy love
    nervousness optimism pride realization relief remorse sadness surprise neutral"""
# The 27 categories of GoEmotions in alphabetical order, and neutral.
GOEMOTIONS: tuple[str, ...] = tuple(_NAMES.split())
# The mark of phrases that are no reaction by themselves.
UNDECIDED = "undecided"


class Strength(IntEnum):
    """How much a phrase says by itself.

    "haha thanks" is gratitude and "wow, so sad" is sadness: only the strongest phrases of a message
    decide, and they must agree.
    """

    NODDED, SMILED, LAUGHED, EXCLAIMED, SAID = range(5)


@dataclass(frozen=True)
class Rule:
    """A phrase family of the lexicon.

    Attributes:
      intention: a name out of GOEMOTIONS, or UNDECIDED.
      strength: how much it says by itself.
      pattern: regular expression over normalised words joined by single spaces.
      answer: True where the same words may merely answer a question ("great", "awesome").
    """

    intention: str
    strength: Strength
    pattern: str
    answer: bool = False


def _joined(words: str) -> str:
    return "".join(line.strip() for line in words.split("\n"))


_TABLES = tomllib.loads(Path(__file__).with_name("reaction_lexicon.toml").read_text("utf-8"))
_BEFORE, _DEGREE, _AFTER = (_joined(_TABLES[part]) for part in ("before", "degree", "after"))


def _rule(entry: Mapping[str, Any]) -> Rule:
    """Builds a rule from an entry of the tables."""
    words, strength = _joined(entry["words"]), Strength[entry.get("strength", "SAID")]
    if entry.get("judgement"):  # such as "(that's so) WORDS"
        pattern = f"{_BEFORE}{_DEGREE}(?:{words}){_AFTER}"
        return Rule(entry["intention"], strength, pattern, answer=True)
    return Rule(entry["intention"], strength, f"(?:{words})", entry.get("answer", False))


RULES = tuple(map(_rule, _TABLES["rule"]))
FILLERS = re.compile(_joined(_TABLES["fillers"]))
EMOTICONS: dict[str, str] = _TABLES["emoticons"]
SPELLINGS = tuple((re.compile(words), form) for form, words in _TABLES["spellings"].items())
