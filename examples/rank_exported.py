"""Ranks exported stickers for a chat: with neither JAX nor this project (docs/export.md).

    pip install numpy onnxruntime pyarrow tokenizers
    python examples/rank_exported.py EXPORT chat.json

A chat is {"turns": [{"speaker": "ann", "text": "we won!"}], "reply_speaker": "bo"}.
"""

import itertools
import json
import re
import string
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import tokenizers
from pyarrow import parquet


def with_names(text: str, emoji: dict[str, Any]) -> str:
    """Writes names in the place of emoji; the same one several times in a row is named once."""
    parts, end, before = [], 0, ""
    text = text.translate({0xFE0E: None, 0xFE0F: None})
    for found in re.finditer(emoji["pattern"], text):
        between, name = text[end : found.start()], emoji["names"].get(found[1], "")
        if not name or name != before or between.strip():
            parts += [between, f" {name} " if name else found[0]]
        before, end = name, found.end()
    return "".join([*parts, text[end:]])


def joined(knowledge: dict[str, list[str]], relations: list[str]) -> str:
    """Joins what is inferred of a chat, each phrase once."""
    seen, parts = {"", "none"}, []
    for relation in relations:
        fresh = {}
        for phrase in map(str.strip, knowledge.get(relation, ())):
            key = " ".join(phrase.casefold().rstrip(".").split())
            if key not in seen:
                fresh[key] = phrase
                seen.add(key)
        parts += [", ".join(fresh.values())] if fresh else []
    return "; ".join(parts)


def inputs_of(chat: dict[str, Any], folder: Path) -> dict[str, np.ndarray]:
    """Returns what the encoder reads of a chat: the newest turns that fit, each a row [1, L]."""
    how = json.loads((folder / "export.json").read_text("utf-8"))["text"]
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / how["tokenizer"]))
    emoji = json.loads((folder / how["emoji"]).read_text("utf-8")) if how["emoji"] else None

    def encoded(text: str) -> tokenizers.Encoding:
        return tokenizer.encode(with_names(text, emoji) if emoji else text)

    people = dict.fromkeys([*(turn["speaker"] for turn in chat["turns"]), chat["reply_speaker"]])
    letters = (itertools.product(string.ascii_uppercase, repeat=n) for n in itertools.count(1))
    called = dict(zip(people, map("".join, itertools.chain.from_iterable(letters)), strict=False))
    named = {who: encoded(f"{called[who]} :").ids if how["speakers"] else [] for who in people}
    reply = named[chat["reply_speaker"]]
    room = how["context_tokens"] - 1 - (len(reply) + 1 if reply else 0)
    parts: list[tuple[list[int], int, int]] = []
    for turn in (turn for turn in reversed(chat["turns"]) if turn["text"].strip()):
        code, space = encoded(turn["text"]), room - len(named[turn["speaker"]]) - 1
        ids, of_word, start = code.ids, code.word_ids, len(code.ids) - space
        if start > 0 and parts:
            break
        if start > 0:  # the newest turn alone is too long: its end, from where a word begins
            begins = (at for at in range(start, len(ids)) if of_word[at] != of_word[at - 1])
            ids = ids[next(begins, start) :]
        parts.insert(0, ([*named[turn["speaker"]], *ids], 0, len(parts) + 1))
        room = space - len(ids)
    known = joined(chat.get("knowledge") or {}, how["relations"]) if how["knowledge_tokens"] else ""
    parts += [(reply, 0, 0), (encoded(known).ids[: max(how["knowledge_tokens"] - 1, 0)], 1, 0)]
    row = [(how["cls"], 0, 0)]
    row += [(id, kind, turn) for ids, kind, turn in parts if ids for id in (*ids, how["sep"])]
    ids, kinds, turns = np.array(row, np.int64).T[:, None]
    return {"ids": ids, "mask": np.ones_like(ids), "type_ids": kinds, "turn": turns}


def best(chat: dict[str, Any], folder: Path, number: int = 5) -> list[tuple[str, float]]:
    """Returns the ids of the best stickers with their scores, the best first."""
    session = onnxruntime.InferenceSession(folder / "encoder.onnx")
    (query,) = session.run(["query"], inputs_of(chat, folder))
    table = parquet.read_table(folder / "gallery.parquet")  # or the columns that are needed
    flat = table["embedding"].combine_chunks().flatten().to_numpy()
    scores = flat.reshape(len(table), -1) @ query[0]
    left_out = np.any([table[flag].to_numpy() for flag in ("hidden", "adult")], axis=0)
    order = np.argsort(np.where(left_out, np.inf, -scores), kind="stable")
    shown = order[: min(number, len(table) - left_out.sum())]
    return [(table["id"][row].as_py(), float(scores[row])) for row in shown.tolist()]


if __name__ == "__main__":
    for name, score in best(json.loads(Path(sys.argv[2]).read_text("utf-8")), Path(sys.argv[1])):
        print(f"{score:+.4f}  {name}")
