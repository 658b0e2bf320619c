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


_VERY = (
    r"(?:(?:so|very|really|pretty|super|way|too|quite|just|truly|actually|totally|freaking|kinda|"
    r"extremely|absolutely|definitely|always|also|such|a|an|the|still|rather|seriously|real|dang|"
    r"insanely|crazy|honestly|legit) )*"
)
_THAT = (
    r"(?:(?:thats|that is|that was|sounds|that sounds|it sounds|that must be|that must have been|"
    r"that had to be|that has to be|thats got to be|youre|you are|how|i think thats|"
    r"i think that is|thats like|that seems|that looks) (?:like )?)?"
)
_AFTER = (
    r"(?: (?:man|dude|bro|though|tho|haha|too|of you|to hear|to me|story|stuff|then|actually))*"
)


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


def _rule(entry: Mapping[str, Any]) -> Rule:
    """Builds a rule from an entry of reaction_lexicon.toml."""
    words = "".join(line.strip() for line in entry["words"].split("\n"))
    strength = Strength[entry.get("strength", "SAID")]
    if entry.get("judgement"):  # such as "(that's so) WORDS"
        pattern = f"{_THAT}{_VERY}(?:{words}){_AFTER}"
        return Rule(entry["intention"], strength, pattern, answer=True)
    return Rule(entry["intention"], strength, f"(?:{words})", entry.get("answer", False))


_FILE = Path(__file__).with_name("reaction_lexicon.toml")
RULES = tuple(_rule(entry) for entry in tomllib.loads(_FILE.read_text("utf-8"))["rule"])

FILLERS = re.compile(
    r"(?:yeah|yes|yep|yup|yea|ya|yeh|man|dude|bro|well|girl|buddy|friend|so|oh|ah|like|"
    r"i mean|honestly|literally|seriously|wait|though|tho|just|then|now|too|again|actually|huh|"
    r"dang|gosh|indeed|lets see|i guess|i think|i know|my friend|for you|ooh|right|"
    r"<doubt>)(?= |$)"
)
