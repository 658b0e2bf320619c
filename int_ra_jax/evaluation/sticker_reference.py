"""The rows beside a system where the sticker that was sent is the one right answer.

``popular_scores`` answers what was sent most, ``linear_scores`` what counting characters and words
gives, ``zero_shot`` what a pretrained text tower knows before any training. The first two learn
from train alone; both are log-probabilities, smoothed by one use of every sticker, so that stickers
that train never used are tied below all others.
"""

import warnings
from collections.abc import Sequence

import numpy as np
import sklearn
from jaxtyping import Float
from numpy.typing import ArrayLike
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import cosine_similarity

from int_ra_jax.data.ngrams import PARTS, Ngrams, Texts
from int_ra_jax.data.schema import StickerEntry
from int_ra_jax.evaluation.checks import check_ids

# Of some inverse penalties and weights of the whole conversation, those with the lowest
# cross-entropy on the validation conversations of the Chinese choices (docs/evaluation.md has the
# figures). Fixed, so that the row is the same everywhere.
_INVERSE_PENALTY = 1.0
_PASSES = 10
# What a kept linear row depends on besides texts and stickers.
SETTINGS = (
    f"linear onto stickers: {PARTS}, C={_INVERSE_PENALTY}, {_PASSES} passes, "
    f"scikit-learn {sklearn.__version__}"
)


def sticker_text(sticker: StickerEntry) -> str:
    """Returns a sticker's name and attributes as one text: "party popper, confetti flies"."""
    parts = [*sticker.tags, *sticker.attributes.values()]
    return ", ".join(dict.fromkeys(part.strip() for part in parts if part.strip()))


def popular_scores(train_gold: ArrayLike, stickers: int, queries: int) -> Float[np.ndarray, "Q N"]:
    """Answers every query with the stickers that were sent most in train.

    Args:
      train_gold: [M] int, gallery row of each train conversation's sticker.
      stickers: N, the size of the gallery.
      queries: Q, number of rows wanted.

    Returns:
      f64[Q, N] read-only view of one row: log((uses + 1) / (M + N)).

    Raises:
      ValueError: if a gallery row is out of range.
    """
    gold = check_ids("train_gold", np.asarray(train_gold), len(np.asarray(train_gold)), stickers)
    uses = np.bincount(gold, minlength=stickers)
    return np.broadcast_to(np.log((uses + 1) / (len(gold) + stickers)), (queries, stickers))


def linear_scores(
    train: Texts, train_gold: ArrayLike, queries: Sequence[Texts], stickers: int
) -> list[Float[np.ndarray, "Q N"]]:
    """Ranks stickers by a logistic regression on the n-grams of what was said.

    What is counted is in ``data.ngrams``. The solver's order is seeded, so that the same texts give
    the same scores.

    Args:
      train: M conversations.
      train_gold: [M] int, gallery row of each one's sticker.
      queries: the splits to score, fitted once for all.
      stickers: N, the size of the gallery.

    Returns:
      For each split f64[Q, N], log((M p + 1) / (M + N)) with p the regression's probability; where
      the text says nothing it is about ``popular_scores``.

    Raises:
      ValueError: if texts and stickers differ in number, a gallery row is out of range, or train
        holds fewer than two stickers.
    """
    gold = check_ids("train_gold", np.asarray(train_gold), len(train.whole), stickers)
    if len(np.unique(gold)) < 2:
        raise ValueError("The linear reference needs at least two stickers in train.")
    ngrams = Ngrams.learn(train)
    model = LogisticRegression(C=_INVERSE_PENALTY, solver="saga", max_iter=_PASSES, random_state=0)
    with warnings.catch_warnings():
        # The passes are bounded on purpose.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(ngrams.matrix(train), gold)
    scored = []
    for texts in queries:
        p = np.zeros((len(texts.whole), stickers))
        p[:, model.classes_] = model.predict_proba(ngrams.matrix(texts))
        scored.append(np.log((len(gold) * p + 1) / (len(gold) + stickers)))
    return scored


def cosines(
    conversations: Float[np.ndarray, "Q D"], stickers: Float[np.ndarray, "N D"]
) -> Float[np.ndarray, "Q N"]:
    """Returns the cosines of two sets of vectors; 0 for a vector of zeros."""
    return cosine_similarity(conversations, stickers)
