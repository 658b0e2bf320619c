"""What one JSON record of a prepared directory must look like, whatever the other records say.

Each function yields messages, one per fault, and never raises on a value of the wrong type: a
record with five faults is reported five times in one run.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

Kinds = Mapping[str, type]
CONVERSATION: Kinds = {
    "id": str,
    "split": str,
    "turns": list,
    "reply_speaker": str,
    "sticker": str,
    "intention": str,
}
TURN: Kinds = {"speaker": str, "text": str}
STICKER: Kinds = {"id": str, "image": str, "attributes": dict}
# Where a data set comes from may be a sentence or an object.
INFO: Kinds = {"name": str, "version": str, "licence": str, "source": object, "files": dict}
_NAMES: dict[Any, str] = {str: "a string", list: "a list", dict: "an object"}


def key_messages(
    record: Mapping[str, Any], kinds: Kinds, where: str = "", may_be_empty: bool = False
) -> Iterator[str]:
    """Checks that keys are present, of the right type and (unless allowed) not empty strings."""
    for key, kind in kinds.items():
        if key not in record:
            yield f"missing key {where}{key}"
        elif not isinstance(record[key], kind):
            yield f"{where}{key} is {kind_of(record[key])}, expected {_NAMES[kind]}"
        elif record[key] == "" and not may_be_empty:
            yield f"{where}{key} is empty"


def list_messages(record: Mapping[str, Any], key: str, where: str = "") -> Iterator[str]:
    """Checks that the value of ``key``, where present, is a list of strings."""
    value = record.get(key, [])
    if not isinstance(value, list):
        yield f"{where}{key} is {kind_of(value)}, expected a list"
    elif len(strings_in(value)) < len(value):
        yield f"{where}{key} holds something that is not a string"


def turn_messages(turns: Any) -> Iterator[str]:
    """Checks the turns of a conversation, and that there is something to read in them."""
    if not isinstance(turns, list):
        return  # reported with the keys
    for position, turn in enumerate(turns):
        where = f"turns[{position}]"
        if not isinstance(turn, dict):
            yield f"{where} is {kind_of(turn)}, expected an object"
            continue
        yield from key_messages(turn, TURN, f"{where}.", may_be_empty=True)
        if not isinstance(turn.get("sticker"), str | None):
            yield f"{where}.sticker is {kind_of(turn['sticker'])}, expected a string"
    # A turn of the wrong form may have meant some text, and is reported as what it is.
    texts = [turn.get("text") if isinstance(turn, dict) else None for turn in turns]
    if all(isinstance(text, str) and not text.strip() for text in texts):
        yield "empty context: no turn has any text"


def knowledge_messages(knowledge: Any) -> Iterator[str]:
    """Checks that knowledge, where present, maps relations to lists of phrases."""
    if knowledge is None:
        return
    if not isinstance(knowledge, dict):
        yield f"knowledge is {kind_of(knowledge)}, expected an object"
        return
    for relation in knowledge:
        yield from list_messages(knowledge, relation, "knowledge.")


def kind_of(value: Any) -> str:
    """Returns how a message calls a value: its JSON type, or a scalar as it is written."""
    if value is None:
        return "null"
    return _NAMES.get(type(value), f"{json.dumps(value)}")


def strings_in(value: Any) -> list[str]:
    """Returns the strings of a list, and nothing where the value is no list."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def stickers_in(record: Mapping[str, Any]) -> set[str]:
    """Returns the ids of all stickers that a conversation names, its turns included."""
    turns = record.get("turns")
    objects = [turn for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []
    named = [record.get("sticker"), *(turn.get("sticker") for turn in objects)]
    return {name for name in named if isinstance(name, str) and name}
