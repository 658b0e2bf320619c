"""A conversation in a JSON file, and texts that no model can read."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from int_ra_jax.common.nearest import nearest
from int_ra_jax.common.types import RELATIONS
from int_ra_jax.data.schema import Conversation, Turn

_HALF = (
    "holds half a character (a lone surrogate), as where an emoji was cut in two; write it whole "
    "or leave it out"
)
_FORM = 'One object is read: {"turns": [{"speaker": "A", "text": "..."}], "reply_speaker": "B"}'
_SHOWN = 20  # problems of a file that are told


def read_conversation(path: Path) -> Conversation:
    """Reads {turns: [{speaker, text}, ...], reply_speaker, knowledge?} from a JSON file.

    UTF-8, UTF-16 and UTF-32 are read, with a byte order mark or without.

    Raises:
      FileNotFoundError: if the file does not exist.
      ValueError: one error with every problem of the file.
    """
    if not path.is_file():
        near = nearest(path.name, [p.name for p in path.parent.glob("*.json")], cutoff=0.6)
        hint = f" Did you mean {path.parent / near}?" if near else ""
        raise FileNotFoundError(f"--conversation={path}: no such file.{hint}")
    content = path.read_bytes()
    if not content.strip(b"\0 \t\r\n"):
        raise ValueError(f"--conversation={path} is empty. {_FORM}")
    try:
        record = json.loads(content)
        problems = list(_problems(record))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"--conversation={path} is not in UTF-8, UTF-16 or UTF-32: {error}. Save it as UTF-8."
        ) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"--conversation={path} is not JSON: {error}. {_FORM}") from None
    if problems:
        before = "\n  " if len(problems) > 1 else " "
        told = problems[:_SHOWN]
        if len(problems) > _SHOWN:
            told.append(f"and {len(problems) - _SHOWN:,} more")
        raise ValueError(f"--conversation={path}:{before}" + "\n  ".join(told))
    unread = sorted(set(record) - {"id", "turns", "reply_speaker", "knowledge"})
    if unread:
        logging.info("not read from %s: %s", path, ", ".join(unread))
    return Conversation(
        id=str(record.get("id", path.stem)),
        split="test",
        turns=tuple(Turn(turn["speaker"], turn["text"]) for turn in record["turns"]),
        reply_speaker=record["reply_speaker"],
        sticker="",
        intention="",
        knowledge={k: tuple(v) for k, v in record["knowledge"].items()}
        if record.get("knowledge")
        else None,
    )


def check_readable(conversations: Sequence[Conversation]) -> None:
    """Checks that no text of conversations holds half a character.

    Raises:
      ValueError: with every place that does.
    """
    problems = [
        f"conversation {one.id!a}: {where} {_HALF}"
        for one in conversations
        for where in _halves(
            {
                "turns": [{"speaker": turn.speaker, "text": turn.text} for turn in one.turns],
                "reply_speaker": one.reply_speaker,
                "knowledge": {key: list(said) for key, said in (one.knowledge or {}).items()},
            }
        )
    ]
    if problems:
        raise ValueError("\n".join(problems))


def _problems(record: Any) -> list[str]:
    if not isinstance(record, dict):
        return [f"a JSON object is expected, not {type(record).__name__}"]
    problems = [f"{where} {_HALF}" for where in _halves(record)]
    turns = record.get("turns")
    if not isinstance(turns, list) or not turns:
        problems.append('"turns" must be a list of at least one {"speaker", "text"}')
    else:
        for number, turn in enumerate(turns, start=1):
            for key in ("speaker", "text"):
                if not isinstance(turn, dict) or not isinstance(turn.get(key), str):
                    problems.append(f'turn {number}: "{key}" must be a string')
    if not isinstance(record.get("reply_speaker"), str):
        problems.append('"reply_speaker" must name who replies')
    knowledge = record.get("knowledge") or {}
    if not isinstance(knowledge, dict):
        problems.append(f'"knowledge" must be an object with lists for {RELATIONS}')
    else:
        for name, values in knowledge.items():
            if name not in RELATIONS:
                near = nearest(name, RELATIONS)
                problems.append(f'knowledge "{name}": did you mean "{near}"?')
            elif not isinstance(values, list) or not all(isinstance(v, str) for v in values):
                problems.append(f'knowledge "{name}" must be a list of strings')
    return problems


def _halves(value: Any, where: str = "") -> Iterator[str]:
    """Yields where a text has half a character: legal in JSON, but no model can read it."""
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            around = value[max(0, error.start - 20) : error.end]
            yield f"{where.lstrip('.: ')}: {around!a}"
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _halves(key, f"{where}: a key")
            yield from _halves(inner, f"{where}.{key}")
    elif isinstance(value, list):
        for number, inner in enumerate(value, start=1):
            yield from _halves(inner, f"{where}[{number}]")
