"""Trains the model of ``whether`` on replies with and without a sticker.

    python -m int_ra_jax.retrieval.fit_whether REPLIES... --out=whether.npz
        [--base_rate=0.286] [--own_words]

REPLIES hold one reply a line, as JSON or gzip of it: ``turns`` [{text}] that it answers,
``own_words`` (the replier's words beside the sticker), ``sticker`` ("" for none), ``split`` (train,
valid or test) and, if there are any, ``thread``: replies to one post belong together.

Without ``--own_words`` the model decides before the replier has typed anything, and their words are
not read. With it, it judges what was typed, and replies that are a sticker alone are left out:
there is nothing to judge.

``--base_rate`` is for data that was not drawn as it came, such as all replies with a sticker and
some of those without: the share of replies with a sticker, among those that count. Each thread is
then weighted to this share, the rarer kind whole and the other kind down, because how often a
sticker was sent in a thread is what such a draw has lost. The model learns what tells replies of a
thread apart, and nothing of what tells threads apart. Without it the shares of the data are taken
as they are.
"""

import argparse
import gzip
import json
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import minimize

from int_ra_jax.data.schema import SPLITS
from int_ra_jax.retrieval.whether import Moment, Whether, features

_INVERSE_PENALTY = 1.0
_ITERATIONS = 60
_SHOWN = 20  # lines that are told
_FORM = (
    'a line is one reply: {"turns": [{"text": ...}], "own_words": "", "sticker": "", '
    '"split": "train"}'
)


@dataclass(frozen=True)
class Reply:
    """One reply.

    Attributes:
      moment: when it was decided.
      sent: whether it has a sticker.
      thread: what it belongs to.
      split: train, valid or test.
    """

    moment: Moment
    sent: bool
    thread: str
    split: str


def main(line: Sequence[str] | None = None) -> None:
    """Trains what the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("replies", nargs="+", type=Path, metavar="REPLIES")
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    parser.add_argument("--base_rate", type=float, help="share of replies with a sticker")
    parser.add_argument("--own_words", action="store_true", help="judge what was typed")
    arguments = parser.parse_args(line)
    try:
        replies = read_all(arguments.replies)
        model = fit(replies, own_words=arguments.own_words, base_rate=arguments.base_rate)
        model.save(arguments.out)
    except (ValueError, OSError) as error:
        sys.exit(f"fit_whether: {error}")
    print(
        f"{arguments.out}: trained on {sum(one.split == 'train' for one in replies):,} replies; "
        f"base rate {model.base_rate:.3f}, threshold {model.threshold:.3f}"
    )


def read_all(paths: Sequence[Path]) -> list[Reply]:
    """Returns the replies of all files, with the problems of all at once; see ``read``."""
    replies, problems = [], []
    for path in paths:
        try:
            replies += read(path)
        except (ValueError, OSError) as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))
    return replies


def read(path: Path) -> list[Reply]:
    """Returns the replies of a file; blank lines are passed over.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it cannot be read, or for all lines that are no replies, with their numbers.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    replies, problems = [], []
    try:
        with opened(path, "rt", encoding="utf-8-sig") as file:
            for number, text in enumerate(file, start=1):
                if not text.strip():
                    continue
                try:
                    replies.append(_reply(json.loads(text), f"{path.name}:{number}"))
                except (ValueError, KeyError, TypeError, RecursionError) as error:
                    problems.append(f"  line {number}: {type(error).__name__}: {error}")
    except (EOFError, UnicodeDecodeError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} cannot be read: {error}; save it again, in UTF-8.") from None
    if problems:
        more = [f"  and {len(problems) - _SHOWN:,} more"] * (len(problems) > _SHOWN)
        raise ValueError("\n".join([f"{path}: {_FORM}", *problems[:_SHOWN], *more]))
    return replies


def _reply(record: Any, name: str) -> Reply:
    turns = tuple(turn["text"] for turn in record["turns"])
    words, sticker = record["own_words"] or "", record["sticker"] or ""
    if not all(isinstance(one, str) for one in (*turns, words, sticker)):
        raise TypeError("texts and the sticker must be strings")
    if record["split"] not in SPLITS:
        raise ValueError(f"split {record['split']!r} is none of {', '.join(SPLITS)}")
    thread = str(record.get("thread", name))
    return Reply(Moment(turns, words), bool(sticker), thread, record["split"])


def judged(replies: Sequence[Reply], split: str, own_words: bool) -> list[Reply]:
    """Returns the replies of a split that a model decides about."""
    return [
        one
        for one in replies
        if one.split == split and (not own_words or one.moment.own_words.strip())
    ]


def fit(replies: Sequence[Reply], *, own_words: bool, base_rate: float | None = None) -> Whether:
    """Trains on train, and calibrates on valid.

    Args:
      replies: with and without a sticker; test is not read.
      own_words: whether the model reads what the replier typed.
      base_rate: share of replies with a sticker; None takes the data as they are.

    Raises:
      ValueError: if train or valid lacks replies with or without a sticker, or the base rate is
        not between 0 and 1.
    """
    if base_rate is not None and not 0 < base_rate < 1:
        raise ValueError(f"base_rate={base_rate}; use a share between 0 and 1.")
    train, valid = (judged(replies, split, own_words) for split in ("train", "valid"))
    for split, chosen in (("train", train), ("valid", valid)):
        if len({one.sent for one in chosen}) < 2:
            raise ValueError(
                f"{split} has {len(chosen):,} replies to judge, and not both with and without a "
                "sticker; both kinds are needed."
            )
    from sklearn.linear_model import LogisticRegression  # seconds, and for this alone

    weight, sent = weights(train, base_rate), _sent(train)
    kept = weight > 0
    inputs = features(
        [one.moment for one, taken in zip(train, kept, strict=True) if taken], own_words
    )
    model = LogisticRegression(C=_INVERSE_PENALTY, max_iter=_ITERATIONS, tol=1e-3)
    model.fit(inputs, sent[kept], sample_weight=weight[kept])
    weight, sent = weights(valid, base_rate), _sent(valid)
    logits = model.decision_function(features([one.moment for one in valid], own_words))
    slope, shift = calibration(logits, sent, weight)
    rate = float(np.average(sent, weights=weight))
    return Whether(
        (slope * model.coef_[0]).astype(np.float32),
        float(slope * model.intercept_[0] + shift),
        own_words,
        _threshold(1 / (1 + np.exp(-(slope * logits + shift))), weight, rate),
        rate,
    )


def weights(replies: Sequence[Reply], base_rate: float | None) -> Float[np.ndarray, " Q"]:
    """Returns how much each reply counts, so that every thread has the base rate.

    Of the kind that a thread has too few of, each counts 1; of the other kind, less. A thread with
    one kind alone counts nothing.

    Args:
      replies: Q of them.
      base_rate: share of replies with a sticker; None for all ones.
    """
    if base_rate is None:
        return np.ones(len(replies))
    number: dict[str, int] = {}
    thread = np.array([number.setdefault(one.thread, len(number)) for one in replies])
    sent = _sent(replies)
    with_, without = np.bincount(thread, sent), np.bincount(thread, ~sent)
    size = np.minimum(with_ / base_rate, without / (1 - base_rate))[thread]
    share = np.where(sent, base_rate, 1 - base_rate)
    return size * share / np.where(sent, with_[thread], without[thread])


def calibration(
    logits: Float[np.ndarray, " Q"], sent: Bool[np.ndarray, " Q"], weight: Float[np.ndarray, " Q"]
) -> tuple[float, float]:
    """Returns slope (not negative) and shift that make the logits most likely (Platt scaling)."""

    def loss(values: np.ndarray) -> float:
        logit = values[0] * logits + values[1]
        return float(np.average(np.logaddexp(0, np.where(sent, -logit, logit)), weights=weight))

    found = minimize(loss, [1.0, 0.0], method="L-BFGS-B", bounds=[(0, 10), (-10, 10)])
    return float(found.x[0]), float(found.x[1])


def _threshold(
    probability: Float[np.ndarray, " Q"], weight: Float[np.ndarray, " Q"], rate: float
) -> float:
    """Returns the probability that a share ``rate`` of the replies reaches."""
    order = np.argsort(-probability)
    reached = np.cumsum(weight[order]) / weight.sum()
    return float(probability[order][min(int(np.searchsorted(reached, rate)), len(order) - 1)])


def _sent(replies: Sequence[Reply]) -> Bool[np.ndarray, " Q"]:
    return np.array([one.sent for one in replies], bool)


if __name__ == "__main__":
    main()
