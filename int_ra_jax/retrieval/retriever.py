"""What a product imports: a conversation in, ranked stickers out.

    retriever = Retriever.from_workdir("runs/demo")
    ranked = retriever.search(conversation, top_k=5)

Loading encodes the gallery once; a search then encodes one conversation.
"""

import difflib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from int_ra_jax.common.types import RELATIONS, Batch, RankedList, RankedSticker, Tokens
from int_ra_jax.data.schema import Conversation, Turn
from int_ra_jax.data.text import compose_context
from int_ra_jax.models.interface import Params
from int_ra_jax.run.encode import Encoder
from int_ra_jax.run.ranking import top_k as best_of
from int_ra_jax.run.workdir import Run, open_run


class Retriever:
    """Searches the gallery of a trained run.

    Args:
      run: the open workdir.
      params: parameters of its system.
    """

    def __init__(self, run: Run, params: Params) -> None:
        self._run = run
        self._params = jax.device_put(params)
        self._encoder = Encoder(run)
        self._sticker = self._encoder.gallery(self._params)

    @classmethod
    def from_workdir(cls, workdir: str | Path) -> "Retriever":
        """Loads the best checkpoint of a run; nothing but the directory is needed.

        Raises:
          FileNotFoundError: if the workdir or its checkpoint does not exist.
        """
        run = open_run(Path(workdir))
        return cls(run, run.restore_best()[0])

    def search(self, conversation: Conversation, top_k: int = 5) -> RankedList:
        """Returns the best stickers for a conversation, and its predicted intention.

        Args:
          conversation: its turns, reply speaker and, if there is any, knowledge; see
            ``read_conversation``. Split, sticker and intention are not read.
          top_k: how many stickers, at most the gallery's size.

        Raises:
          ValueError: if top_k is not in [1, N].
        """
        return self.search_many([conversation], top_k)[0]

    def search_many(self, conversations: list[Conversation], number: int = 5) -> list[RankedList]:
        """Returns one ranked list per conversation, encoded as one batch."""
        run = self._run
        stickers = run.dataset.stickers
        if not 1 <= number <= len(stickers):
            raise ValueError(
                f"top_k={number} of a gallery of {len(stickers)} stickers; "
                f"use 1 to {len(stickers)}."
            )
        knows = run.dataset.has_knowledge
        tokens, _ = compose_context(run.tokenizer, conversations, run.config.text, knows)
        context = self._encoder.encode_context(
            self._params, _batch(tokens, len(conversations)), self._encoder.labels
        )
        scores = self._encoder.score(self._params, context, self._sticker)
        values, rows = jax.device_get(best_of(scores, number))
        logits = context.intention_logits
        # A system that predicts no intention has no probability of any.
        none = np.zeros((len(conversations), 0))
        probabilities = none if logits is None else np.asarray(jax.nn.softmax(logits, axis=1))
        return [
            self._ranked(value, row, probability)
            for value, row, probability in zip(values, rows, probabilities, strict=True)
        ]

    def _ranked(
        self, scores: np.ndarray, rows: np.ndarray, probabilities: np.ndarray
    ) -> RankedList:
        entries = [self._run.dataset.stickers[row] for row in rows]
        names = self._run.dataset.intentions
        order = np.argsort(-probabilities, kind="stable")
        return RankedList(
            stickers=[
                RankedSticker(rank, entry.id, float(score), entry.image, dict(entry.attributes))
                for rank, (entry, score) in enumerate(zip(entries, scores, strict=True), start=1)
            ],
            intention=names[order[0]] if len(order) else None,
            intention_probabilities={names[k]: float(probabilities[k]) for k in order},
        )


def read_conversation(path: Path) -> Conversation:
    """Reads {turns: [{speaker, text}, ...], reply_speaker, knowledge?} from a JSON file.

    Raises:
      FileNotFoundError: if the file does not exist.
      ValueError: one error with every problem of the file.
    """
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.json")], 1)
        hint = f" Did you mean {path.parent / near[0]}?" if near else ""
        raise FileNotFoundError(f"--conversation={path}: no such file.{hint}")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"--conversation={path} is not UTF-8 JSON: {error}") from error
    problems = list(_problems(record))
    if problems:
        raise ValueError(f"--conversation={path}:\n  " + "\n  ".join(problems))
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


def _problems(record: Any) -> list[str]:
    if not isinstance(record, dict):
        return [f"a JSON object is expected, not {type(record).__name__}"]
    problems = []
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
                near = difflib.get_close_matches(name, RELATIONS, 1, 0.0)[0]
                problems.append(f'knowledge "{name}": did you mean "{near}"?')
            elif not isinstance(values, list) or not all(isinstance(v, str) for v in values):
                problems.append(f'knowledge "{name}" must be a list of strings')
    return problems


def _batch(tokens: Tokens, size: int) -> Batch:
    zeros = jnp.zeros(size, jnp.int32)
    return Batch(
        context=jax.tree.map(jnp.asarray, tokens),
        sticker=zeros,
        intention=zeros,
        example=zeros,
        valid=jnp.ones(size, bool),
    )
