"""Knowledge without a model: what COMET said of the nearest event among those that it was asked.

HEADS is a file of COMET's generations, one head and relation a line:

    {"head": "PersonX calls PersonY ambulance", "relation": "xNeed", "generations": ["to dial"]}

For each relation a conversation gets the generations of the head that is nearest to its newest
turns. That is not what eq. 1 and 2 infer, so it is called retrieved, how near the heads are is
reported, and ``shuffled`` is the control: the same phrases, each conversation with another's.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from sklearn.feature_extraction.text import TfidfVectorizer

from data_prep.extraction.store import ResultStore
from data_prep.problems import Problems, short
from int_ra_jax.common.ledger import Ledger, LeftOut
from int_ra_jax.common.types import RELATIONS
from int_ra_jax.data.schema import Conversation

_TURNS = 2  # newest turns that are compared with heads: one event, not the whole chat
_ROWS = 1024  # conversations compared at once
_QUANTILES = (0, 25, 50, 75, 100)


@dataclass
class FromHeads:
    """The nearest head's generations, by cosine of TF-IDF over words and parts of words.

    Attributes:
      heads: the file.
      shuffled: give each conversation what is nearest to another one, drawn with a fixed seed.
      similarity: relation -> cosines of conversations and their heads at ``_QUANTILES`` percent;
        empty before ``answers`` has run.
      ledger: what became of the file's lines, likewise.
    """

    heads: Path
    shuffled: bool = False
    similarity: dict[str, list[float]] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)

    def record(self) -> dict[str, Any]:
        """Returns what dataset.json says of the source."""
        return {
            "generator": "retrieved",
            "heads": self.heads.name,
            "identity": hashlib.sha256(self.heads.read_bytes()).hexdigest(),
            "shuffled": self.shuffled,
            "similarity": {"percent": list(_QUANTILES), **self.similarity},
            "heads_ledger": self.ledger.to_json(),
        }

    def answers(
        self, todo: Mapping[str, Conversation], store: ResultStore, ask: bool
    ) -> Iterator[tuple[str, Mapping[str, Sequence[str]] | None]]:
        """Yields (content, raw phrases) of every conversation, as ``FromComet.answers`` does.

        Args:
          todo: conversations by content.
          store: not read: retrieving again takes no longer.
          ask: likewise.

        Raises:
          BadInputError: for a file of another form, with every line that is.
        """
        known, self.ledger = read_heads(self.heads)
        if not (contents := list(todo)):
            return
        asked = [" ".join(turn.text for turn in todo[one].turns[-_TURNS:]) for one in contents]
        found: list[dict[str, Sequence[str]]] = [{} for _ in contents]
        places = np.arange(len(contents))
        if self.shuffled:
            places = np.random.default_rng(0).permutation(places)
        for relation, generations in known.items():
            rows, cosines = _nearest(asked, list(generations))
            said = list(generations.values())
            for place, row in zip(places, rows, strict=True):
                found[place][relation] = said[row]
            self.similarity[relation] = np.percentile(cosines, _QUANTILES).round(3).tolist()
            logging.info(
                "%s: %d heads; the nearest has a median cosine of %.2f",
                relation, len(generations), np.median(cosines),
            )  # fmt: skip
        yield from zip(contents, found, strict=True)


def read_heads(path: Path) -> tuple[dict[str, dict[str, Sequence[str]]], Ledger]:
    """Reads relation -> head -> generations, of the five relations alone, and counts the rest.

    Raises:
      BadInputError: with every line that is not of the form, or if none has one of the relations.
      FileNotFoundError: if there is no such file.
    """
    problems, ledger = Problems(path.parent), Ledger()
    known: dict[str, dict[str, Sequence[str]]] = {relation: {} for relation in RELATIONS}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            record = json.loads(line)
            head, relation = record["head"], record["relation"]
            said = record["generations"]
            if not all(isinstance(one, str) for one in (head, relation, *said)):
                raise TypeError("head, relation or a generation is no text")
        except (ValueError, KeyError, TypeError) as error:
            problems.add(path.name, number, f"no head with generations ({short(str(error))})")
            continue
        ledger.judge(f"{path.name}:{number}", partial(_take, known, head, relation, said))
    if missing := [relation for relation, heads in known.items() if not heads]:
        problems.add(path.name, 0, f"no head has the relation {', '.join(missing)}")
    problems.stop_if_any()
    return known, ledger


def _take(
    known: Mapping[str, dict[str, Sequence[str]]], head: str, relation: str, said: Sequence[str]
) -> None:
    if relation not in known:
        raise LeftOut("relation is none of the five")
    if head in known[relation]:
        raise LeftOut("the head has this relation already")
    known[relation][head] = said


def _nearest(asked: Sequence[str], heads: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the row of each text's nearest head, and their cosine."""
    # Words alone would leave most chats without any head; PersonX and PersonY stand in all.
    vectorizer = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, min_df=1, dtype=np.float32
    )
    plain = [head.replace("PersonX", "").replace("PersonY", "") for head in heads]
    table = vectorizer.fit_transform(plain)
    rows, cosines = [], []
    for start in range(0, len(asked), _ROWS):
        scores = (vectorizer.transform(asked[start : start + _ROWS]) @ table.T).toarray()
        rows.append(scores.argmax(axis=1))
        cosines.append(scores.max(axis=1))
    return np.concatenate(rows), np.concatenate(cosines)
