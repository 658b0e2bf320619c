"""Step 3, filter: messages with offensive words are left out, by lists that can be replaced.

Privacy: nothing is added, and what is left out is counted by list and never shown.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.chats import step, word_lists

_CJK = re.compile(r"[\u4e00-\u9fff]")


def filter_offensive(source: Path, out: Path, lists: Path | None = None) -> step.Counts:
    """Leaves out messages that a list names; a sticker sent with such words goes with them.

    Args:
      source: the result of the step anonymise.
      out: the step's directory.
      lists: a folder of ``NAME.txt``, one expression a line; None takes the lists that ship.

    Returns:
      What was counted: messages left out by the list that named them first.

    Raises:
      ValueError: if the folder holds no list.
    """
    folder = lists or word_lists.shipped("offensive")
    files = sorted(folder.glob("*.txt"))
    if not files:
        raise ValueError(f"{folder} holds no list *.txt")
    settings = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    patterns = {path.stem: pattern(word_lists.lines(path)) for path in files}

    def work(building: Path) -> step.Counts:
        removed: Counter[str] = Counter()

        def kept() -> Iterator[dict[str, Any]]:
            for message in step.read_messages(source, "filtering"):
                named = (name for name, one in patterns.items() if one.search(message.text))
                if (first := next(named, None)) is not None:
                    removed[first] += 1
                else:
                    yield message.to_json()

        count = step.write_lines(building, step.MESSAGES_FILE, kept())
        step.pass_on(source, building)
        return {"messages": count, "left_out": {name: removed[name] for name in patterns}}

    identity = step.identity(source, "filter_offensive")
    return step.run_step("filter_offensive", identity, out, settings, work)


def pattern(expressions: list[str]) -> re.Pattern[str]:
    """Returns what finds any of the expressions, in any case.

    Args:
      expressions: whole words, with a * at the end for any ending; Chinese ones count anywhere.
    """
    parts = []
    for expression in expressions:
        stem = re.escape(expression.removesuffix("*")).replace(r"\ ", r"\s+")
        if _CJK.search(expression):
            parts.append(stem)
        else:
            parts.append(rf"(?<!\w){stem}" + (r"\w*" if expression.endswith("*") else r"(?!\w)"))
    return re.compile("|".join(parts) or r"(?!)", re.I)
