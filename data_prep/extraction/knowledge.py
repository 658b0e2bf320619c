"""What a model infers about the replier of a chat, from raw output to clean phrases (eq. 1, 2).

COMET's beams hold "none", the same thought in several spellings, and phrases that stop in the
middle. A chat model's answer is one JSON object or is refused.
"""

import json
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from data_prep.extraction.dialogue import Dialogue, Message
from data_prep.extraction.prompts import Prompt
from int_ra_jax.common.types import RELATIONS
from int_ra_jax.data.schema import Conversation

MAX_PHRASE = 120  # characters; longer ones are no phrase
MAX_PHRASES = 10  # of one relation that a chat model may give
_MAX_ANSWER = 20_000
_NOTHING = frozenset(
    ("none", "n/a", "na", "null", "nothing", "unknown", "unclear", "no-one", "nobody")
)
_NOTHING_ZH = frozenset(("无", "没有", "未知", "不知道", "不适用"))
# A phrase that ends so was cut off. "to", "in", "at" are not here: "to be listened to" is whole.
_DANGLING = frozenset(("a", "an", "the", "of", "and", "or", "but", "than", "because", "as", "if"))
_OWNED = frozenset(("his", "their", "its", "my", "your", "our"))
_OPENINGS = frozenset(("to", "is", "are", "be", "gets", "get", "personx"))
_OWNERS = frozenset(("his", "her", "their", "its", "one's"))
_PERSON = re.compile(r"\bperson\s*([xyz])\b", re.IGNORECASE)
_EDGES = string.whitespace + ".,;:!?\"'`*-–—。，；：！？、“”‘’「」()（）"


def clean_phrases(raw: Iterable[str], keep: int) -> tuple[str, ...]:
    """Returns the first phrases that say something, each thought once, in the model's order.

    Left out are "none" and its like, placeholders (``___``), phrases cut off in the middle, and
    those that differ from an earlier one in letter case, punctuation, an opening "to", "gets" or
    "PersonX", or in whose something is.

    Args:
      raw: as the model gave them.
      keep: phrases at most.
    """
    kept: dict[tuple[str, ...], str] = {}
    for text in raw:
        phrase = _PERSON.sub(lambda m: f"Person{m[1].upper()}", " ".join(text.split()))
        phrase = phrase.strip(_EDGES)
        words = phrase.casefold().split()
        if _says_nothing(phrase, words):
            continue
        kept.setdefault(_thought(words), phrase)
    return tuple(kept.values())[:keep]


def _says_nothing(phrase: str, words: Sequence[str]) -> bool:
    letters = sum(character.isalpha() for character in phrase)
    wide = any(ord(character) > 0x2E7F for character in phrase)  # one Chinese character is a word
    if letters < (1 if wide else 2) or len(phrase) > MAX_PHRASE or "__" in phrase or "[" in phrase:
        return True
    if phrase.casefold() in _NOTHING | _NOTHING_ZH or words[-1] in _DANGLING | _OWNED:
        return True
    return all(word in _OPENINGS for word in words)


def _thought(words: Sequence[str]) -> tuple[str, ...]:
    """What two spellings of one thought have in common."""
    plain = [word.strip(_EDGES) for word in words]
    while plain and plain[0] in _OPENINGS:
        plain = plain[1:]
    return tuple("their" if word in _OWNERS else word for word in plain if word)


def clean_knowledge(raw: Mapping[str, Sequence[str]], keep: int) -> dict[str, tuple[str, ...]]:
    """Returns relation -> clean phrases, for all five relations in their order."""
    return {relation: clean_phrases(raw.get(relation, ()), keep) for relation in RELATIONS}


def parse_answer(text: str) -> dict[str, list[str]] | str:
    """Reads a chat model's answer.

    Args:
      text: one JSON object, with or without a fence or words around it.

    Returns:
      Relation -> phrases; or, as a string, what is wrong with the answer.
    """
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        return "it holds no JSON object"
    if len(text) > _MAX_ANSWER:
        return f"it has more than {_MAX_ANSWER} characters"
    try:
        answer: Any = json.loads(text[start : end + 1])
    except (ValueError, RecursionError) as error:
        return f"it is not JSON ({str(error)[:80]})"
    problems = []
    if missing := [relation for relation in RELATIONS if relation not in answer]:
        problems.append(f"missing keys: {', '.join(missing)}")
    if unknown := [str(key)[:20] for key in answer if key not in RELATIONS]:
        problems.append(f"unknown keys: {', '.join(unknown[:5])}")
    for relation in RELATIONS:
        phrases = answer.get(relation, [])
        if not isinstance(phrases, list) or not all(isinstance(one, str) for one in phrases):
            problems.append(f"{relation} is not a list of strings")
        elif len(phrases) > MAX_PHRASES:
            problems.append(f"{relation} has {len(phrases)} phrases; at most {MAX_PHRASES}")
        elif any(len(phrase) > MAX_PHRASE for phrase in phrases):
            problems.append(f"a phrase of {relation} is longer than {MAX_PHRASE} characters")
    return "; ".join(problems) or answer


def knowledge_dialogue(prompt: Prompt, conversation: Conversation, language: str) -> Dialogue:
    """Asks for the five relations, and once more if the answer cannot be used.

    Speakers become letters: no name reaches the model.

    Returns:
      Relation -> phrases; None if neither answer can be used.
    """
    letters: dict[str, str] = {}
    for speaker in [turn.speaker for turn in conversation.turns] + [conversation.reply_speaker]:
        letters.setdefault(speaker, letter(len(letters)))
    lines = [f"{letters[turn.speaker]}: {turn.text}" for turn in conversation.turns if turn.text]
    asked = prompt.text(
        "ask",
        dialogue="\n".join(lines),
        replier=letters[conversation.reply_speaker],
        language=language or prompt.parts["language"],
    )
    messages = [Message("system", prompt.text("system")), Message("user", asked)]
    answer = yield messages
    found = parse_answer(answer)
    if isinstance(found, str):
        repair = Message("user", prompt.text("repair", problem=found))
        found = parse_answer((yield [*messages, Message("assistant", answer), repair]))
    return None if isinstance(found, str) else found


def letter(number: int) -> str:
    """Returns A to Z, then A1, B1 and so on."""
    return chr(ord("A") + number % 26) + (str(number // 26) if number >= 26 else "")
