"""Whether a sticker would be sent at all: a calibrated probability, and when to act on it.

    whether = Whether.load("whether.npz")
    probability = whether.probability(moment(conversation))
    if Policy(whether.threshold).sends(probability, turns_since_last=4): ...

A logistic regression on hashed n-grams; ``python -m int_ra_jax.retrieval.fit_whether`` trains it on
replies with and without a sticker. The file holds no word of them. There are two kinds, told by
``own_words``: one decides before the replier has typed anything, the other about a message that was
typed, and reads it. The first never sees it, so that it cannot tell more than there is to know.
"""

import io
import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from int_ra_jax.data.schema import Conversation

FILE = "whether.npz"  # of a workdir, where the service looks for one
FORM = 1  # of the file; another one is not read
_BUCKETS = 2**16
_WORD = r"[^\W\u2e80-\U0010ffff]+"  # of scripts that part words
_GRAMS: Mapping[str, tuple[str, int]] = {"characters": ("char", 3), "words": ("word", 2)}
_READ = 200  # last characters of a part
_NUMBERS = 3  # lengths of three parts; see _numbers
_LONGEST = math.log1p(_READ)


@dataclass(frozen=True)
class Moment:
    """A conversation at the time of the decision.

    Attributes:
      turns: what was said, oldest first; "" for a turn without words.
      own_words: what the replier has typed and not sent, "" for nothing.
    """

    turns: tuple[str, ...]
    own_words: str = ""

    @property
    def newest(self) -> str:
        """What was said last."""
        return self.turns[-1] if self.turns else ""

    @property
    def before(self) -> str:
        """What was said before that, one turn a line."""
        return "\n".join(self.turns[:-1])


def moment(conversation: Conversation) -> Moment:
    """Returns the moment of a conversation: its last turns are own words if the replier's."""
    turns = [turn.text for turn in conversation.turns]
    others = len(turns)
    while others and conversation.turns[others - 1].speaker == conversation.reply_speaker:
        others -= 1
    return Moment(tuple(turns[:others]), "\n".join(turns[others:]))


@dataclass(frozen=True)
class Whether:
    """A trained model.

    Attributes:
      weights: f32[P], of the hashed n-grams and of three lengths.
      bias: in nats of odds.
      own_words: whether it reads what the replier has typed.
      threshold: under which it would send as often as people did in the data.
      base_rate: share of replies with a sticker that its probabilities stand for.
    """

    weights: Float[np.ndarray, " P"]
    bias: float
    own_words: bool
    threshold: float
    base_rate: float

    def probability(self, moment: Moment) -> float:
        """Returns the probability of a sticker; see ``probabilities``."""
        return float(self.probabilities([moment])[0])

    def probabilities(self, moments: Sequence[Moment]) -> Float[np.ndarray, " Q"]:
        """Returns the probability that a sticker would be sent, for each moment.

        Own words are not read unless the model decides about them (``own_words``).

        Args:
          moments: Q of them.

        Raises:
          ValueError: if the model reads own words and a moment has none: whoever has typed nothing
            yet needs the other kind.
        """
        if self.own_words and not all(one.own_words.strip() for one in moments):
            raise ValueError(
                "This model judges messages that were typed, and a moment has no own words. Train "
                "one without --own_words for decisions before anything is typed."
            )
        if not moments:
            return np.zeros(0)
        logits = features(moments, self.own_words) @ self.weights.astype(np.float64) + self.bias
        return 1 / (1 + np.exp(-np.clip(logits, -50, 50)))

    def save(self, path: Path) -> None:
        """Writes it as one file of NumPy arrays, half precision."""
        head = {"form": FORM, "own_words": self.own_words, "bias": self.bias} | {
            "threshold": self.threshold,
            "base_rate": self.base_rate,
        }
        with path.open("wb") as file:
            np.savez_compressed(
                file, head=np.array(json.dumps(head)), weights=self.weights.astype(np.float16)
            )

    @classmethod
    def load(cls, path: str | Path) -> "Whether":
        """Reads what ``save`` wrote.

        Raises:
          FileNotFoundError: if there is no such file.
          ValueError: if it is not such a file, or of another version of this library.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: no such file. python -m int_ra_jax.retrieval.fit_whether writes one."
            )
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
                head, weights = json.loads(str(stored["head"])), stored["weights"]
            form = head.pop("form")
            found = cls(weights.astype(np.float32), **head)
        except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} cannot be read ({error}); train it again.") from None
        if form != FORM or weights.shape != (width(found.own_words),):
            raise ValueError(f"{path} is of another version of this library; train it again.")
        return found


@dataclass(frozen=True)
class Policy:
    """When to send: often enough, and not too often.

    Attributes:
      threshold: probability from which on a sticker is sent; ``Whether.threshold`` sends as often
        as people did in the data, a higher one less often.
      at_most_one_in: turns among which there is at most one sticker.

    Raises:
      ValueError: for a threshold outside [0, 1], or fewer than one turn.
    """

    threshold: float
    at_most_one_in: int = 4

    def __post_init__(self) -> None:
        """Checks both values at once."""
        problems = []
        if not 0 <= self.threshold <= 1:
            problems.append(f"threshold={self.threshold}; use 0 to 1.")
        if self.at_most_one_in < 1:
            problems.append(f"at_most_one_in={self.at_most_one_in}; use 1 or more.")
        if problems:
            raise ValueError(" ".join(problems))

    def sends(self, probability: float, turns_since_last: int | None = None) -> bool:
        """Tells whether to send one now.

        Args:
          probability: of a sticker.
          turns_since_last: turns that came after the last sticker, 0 if that was the last turn;
            None if there was none.
        """
        rested = turns_since_last is None or turns_since_last >= self.at_most_one_in - 1
        return rested and probability >= self.threshold


def width(own_words: bool) -> int:
    """Returns the number P of features."""
    return len(_parts(own_words)) * len(_GRAMS) * _BUCKETS + _NUMBERS


def features(moments: Sequence[Moment], own_words: bool) -> Any:
    """Returns what the model reads of each moment.

    Args:
      moments: Q of them.
      own_words: whether own words are read.

    Returns:
      A sparse matrix of SciPy's, f64[Q, P].
    """
    import scipy.sparse  # sparse and sklearn here: seconds, and for this alone

    columns = []
    for part in _parts(own_words):
        texts = [_whole(getattr(one, part)[-_READ:]) for one in moments]
        # Hundreds of replies have the same post before them.
        place = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        rows = [place[text] for text in texts]
        for analyzer, longest in _GRAMS.values():
            columns.append(_hashed(analyzer, longest).transform(list(place))[rows])
    numbers = scipy.sparse.csr_matrix(np.array([_numbers(one, own_words) for one in moments]))
    return scipy.sparse.hstack([*columns, numbers], format="csr")


def _parts(own_words: bool) -> tuple[str, ...]:
    return ("newest", "before", *(("own_words",) if own_words else ()))


def _whole(text: str) -> str:
    """Returns a text without halves of characters, which cannot be hashed."""
    return text.encode("utf-8", "replace").decode()


def _hashed(analyzer: str, longest: int) -> Any:
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(
        analyzer=analyzer,
        ngram_range=(1, longest),
        token_pattern=_WORD if analyzer == "word" else None,
        n_features=_BUCKETS,
    )


def _numbers(one: Moment, own_words: bool) -> tuple[float, float, float]:
    """Returns lengths, laid out from 0 to 1: of own words, newest turn, and turns."""
    own = math.log1p(min(len(one.own_words), _READ)) / _LONGEST if own_words else 0.0
    newest = math.log1p(min(len(one.newest), _READ)) / _LONGEST
    return own, newest, min(len(one.turns), 8) / 8
