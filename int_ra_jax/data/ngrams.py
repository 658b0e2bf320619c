"""What was said as a bag of n-grams, whose vocabulary is learnt from train.

Characters and words of the newest turn and, with half the weight, of the whole conversation, each
weighed by TF-IDF: characters also serve scripts without spaces. A logistic regression on these
counts is the evaluation's row ``linear``, which a frozen text tower alone does not reach
(docs/results.md); a model may read them beside its tower (``model.wide``).
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from jaxtyping import Float32, Int32
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from int_ra_jax.common.files import replace_text
from int_ra_jax.data.schema import Conversation

FILE = "ngrams.json"  # beside a saved tokenizer
# Words, of scripts that part them: a "word" of a script that does not is a whole phrase, which
# tells one post from another and nothing else. The range begins with the radicals of Chinese.
_WORD = r"[^\W\u2e80-\U0010ffff]+"
# Part of a conversation -> its weight, and what is counted in it: analyzer, longest n-gram, most
# n-grams. A part has unit length over both: one word among characters would be half of it else.
PARTS: dict[str, tuple[float, tuple[tuple[str, int, int], ...]]] = {
    "newest": (1.0, (("char", 3, 20_000), ("word", 2, 10_000))),
    "whole": (0.5, (("char", 2, 5_000), ("word", 1, 5_000))),
}


@dataclass(frozen=True)
class Texts:
    """Conversations as n-grams are counted in them; neither speakers nor knowledge.

    Attributes:
      newest: the text of the newest turn, the replier's own words where there are any.
      whole: all turns, one a line.
    """

    newest: Sequence[str]
    whole: Sequence[str]

    @classmethod
    def of(cls, conversations: Sequence[Conversation]) -> "Texts":
        """Returns the texts of conversations."""
        turns = [[turn.text for turn in conversation.turns] for conversation in conversations]
        return cls([one[-1] for one in turns], ["\n".join(one) for one in turns])


class Ngrams:
    """A vocabulary of n-grams, and how much each one says.

    Attributes:
      size: V, how many there are.
    """

    def __init__(self, counted: Mapping[str, Sequence[TfidfVectorizer]]) -> None:
        """Takes fitted vectorisers, by part; see ``learn`` and ``load``."""
        self._counted = counted
        self.size: int = sum(len(one.vocabulary_) for each in counted.values() for one in each)

    @classmethod
    def learn(cls, texts: Texts) -> "Ngrams":
        """Learns the vocabulary of some conversations: of each kind the most frequent n-grams.

        Raises:
          ValueError: if there is no text at all.
        """
        counted = {}
        for part, (_, kinds) in PARTS.items():
            said: Sequence[str] = getattr(texts, part)
            words = any(re.search(_WORD, text) for text in said)
            counted[part] = [
                _vectorizer(analyzer, longest, max_features=most).fit(said)
                for analyzer, longest, most in kinds
                if words or analyzer != "word"
            ]
        return cls(counted)

    def matrix(self, texts: Texts) -> scipy.sparse.csr_matrix:
        """Returns f32[M, V], a row a conversation; n-grams that are not known are passed over."""
        parts = []
        for part, (weight, _) in PARTS.items():
            said = getattr(texts, part)
            found = scipy.sparse.hstack(
                [one.transform(said) for one in self._counted[part]], format="csr"
            )
            parts.append(weight * normalize(found))
        return scipy.sparse.hstack(parts, format="csr", dtype=np.float32)

    def rows(
        self, texts: Texts, most: int
    ) -> tuple[Int32[np.ndarray, "M G"], Float32[np.ndarray, "M G"]]:
        """Returns the heaviest n-grams of each conversation, as arrays of one width.

        Args:
          texts: M conversations.
          most: G; of a conversation with more, the lightest are left out.

        Returns:
          Ids in [0, V) and their weights; 0 and 0 where a conversation has fewer.
        """
        matrix = self.matrix(texts)
        number = len(texts.newest)
        ids, weights = np.zeros((number, most), np.int32), np.zeros((number, most), np.float32)
        for row in range(number):
            there = slice(matrix.indptr[row], matrix.indptr[row + 1])
            heaviest = np.argsort(-matrix.data[there], kind="stable")[:most]
            ids[row, : len(heaviest)] = matrix.indices[there][heaviest]
            weights[row, : len(heaviest)] = matrix.data[there][heaviest]
        return ids, weights

    def to_json(self) -> dict[str, Any]:
        """Returns part -> the kinds that are counted in it: n-grams in order, each with its IDF."""
        return {
            part: [
                {
                    "analyzer": one.analyzer,
                    "longest": one.ngram_range[1],
                    "ngrams": sorted(one.vocabulary_, key=one.vocabulary_.__getitem__),
                    "idf": one.idf_.tolist(),
                }
                for one in each
            ]
            for part, each in self._counted.items()
        }

    def save(self, directory: Path) -> None:
        """Writes the vocabulary beside a tokenizer."""
        content = json.dumps(self.to_json(), ensure_ascii=False)
        replace_text(directory / FILE, content + "\n")


def load(directory: Path) -> Ngrams | None:
    """Reads the vocabulary beside a tokenizer; None where there is none.

    Raises:
      ValueError: if the file is damaged.
    """
    path = directory / FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Ngrams({part: [*map(_fitted, content[part])] for part in PARTS})
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"cannot read {path}: {error}; fetch it again") from None


def _fitted(kind: Mapping[str, Any]) -> TfidfVectorizer:
    ngrams, idf = kind["ngrams"], np.asarray(kind["idf"], np.float32)
    if len(ngrams) != len(idf) or not np.isfinite(idf).all():
        raise ValueError(f"{len(ngrams)} n-grams have {len(idf)} weights, or one is not finite")
    vocabulary = {ngram: index for index, ngram in enumerate(ngrams)}
    fitted = _vectorizer(kind["analyzer"], kind["longest"], vocabulary=vocabulary)
    fitted.idf_ = idf
    return fitted


def _vectorizer(analyzer: str, longest: int, **options: Any) -> TfidfVectorizer:
    return TfidfVectorizer(
        analyzer=analyzer,
        ngram_range=(1, longest),
        token_pattern=_WORD if analyzer == "word" else None,
        sublinear_tf=True,
        norm=None,
        dtype=np.float32,  # half of the time
        **options,
    )
