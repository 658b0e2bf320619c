"""The rows that stand beside every table of results, besides chance (``metrics``).

``majority_scores`` answers the commonest intention, ``prior_scores`` is the best that a system can
do without reading the conversation, ``linear_scores`` what counting its words gives. All see train
texts and annotations only. Where stickers carry several intentions, the prior row is far
above the majority row: a few versatile stickers suit most queries, so a retriever can look good
by answering them always. Only what lies above the prior row was learnt from conversations.
"""

from collections.abc import Sequence

import numpy as np
import sklearn
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline, make_union

from int_ra_jax.evaluation.checks import check_ids

# Inverse strength of the L2 penalty: among 0.1, 0.3, 1, 3 and 10 the lowest log loss on the
# validation conversations of the embedded data set. Fixed, so that the row is the same everywhere.
_INVERSE_PENALTY = 0.3
# Of each kind. Three times as many cost twice the time and predicted no better.
_MAX_FEATURES = 10_000
# What a kept linear row depends on besides texts and annotations.
SETTINGS = (
    f"linear: C={_INVERSE_PENALTY}, {_MAX_FEATURES} features, scikit-learn {sklearn.__version__}"
)


def majority_scores(
    train_intentions: ArrayLike, annotations: Bool[np.ndarray, "N K"], queries: int
) -> Float[np.ndarray, "Q N"]:
    """Answers every query with the stickers of the commonest intention, then of the next, ...

    A sticker with several intentions counts with its commonest one. Equally common intentions are
    ordered by class id, so that the first answer is always a single intention.

    Args:
      train_intentions: [M] int, class ids of the train conversations.
      annotations: [N, K] bool, intentions of each sticker in train.
      queries: Q, number of rows wanted.

    Returns:
      f64[Q, N] read-only view of one row: K for stickers of the commonest intention, 1 for those
      of the rarest, 0 for stickers without any.

    Raises:
      ValueError: if a class id is out of range, or there are no train conversations.
    """
    num_classes = annotations.shape[1]
    classes = _check_train(train_intentions, num_classes)
    frequency = np.bincount(classes, minlength=num_classes)
    weight = np.empty(num_classes)
    weight[np.argsort(-frequency, kind="stable")] = np.arange(num_classes, 0, -1)
    return np.broadcast_to((annotations * weight).max(axis=1), (queries, len(annotations)))


def prior_scores(
    train_intentions: ArrayLike, annotations: Bool[np.ndarray, "N K"], queries: int
) -> Float[np.ndarray, "Q N"]:
    """Answers every query with the stickers that suit the most train conversations.

    This is what ``linear_scores`` becomes when the text says nothing; no other fixed answer has a
    higher hit@1 on the train conversations.

    Args:
      train_intentions: [M] int, class ids of the train conversations.
      annotations: [N, K] bool, intentions of each sticker in train.
      queries: Q, number of rows wanted.

    Returns:
      f64[Q, N] read-only view of one row: the share of train conversations whose intention the
      sticker carries.

    Raises:
      ValueError: if a class id is out of range, or there are no train conversations.
    """
    classes = _check_train(train_intentions, annotations.shape[1])
    frequency = np.bincount(classes, minlength=annotations.shape[1])
    share = (annotations * frequency).sum(axis=1) / len(classes)
    return np.broadcast_to(share, (queries, len(annotations)))


def linear_scores(
    train_texts: Sequence[str],
    train_intentions: ArrayLike,
    query_texts: Sequence[str],
    annotations: Bool[np.ndarray, "N K"],
) -> tuple[Float[np.ndarray, "Q N"], Float[np.ndarray, "Q K"]]:
    """Ranks stickers by a logistic regression on the n-grams of the conversation's text.

    Words and word pairs, and character n-grams that also serve scripts without spaces, weighted by
    TF-IDF. A sticker's score is the sum, not the maximum, of the probabilities of the intentions it
    carries: a query has one intention, so the sum is the probability that the sticker is a right
    answer. The fit is deterministic; nothing is drawn at random.

    Args:
      train_texts: [M] conversations as text, turns joined by newlines.
      train_intentions: [M] int class ids.
      query_texts: [Q] conversations in the same form.
      annotations: [N, K] bool, intentions of each sticker in train.

    Returns:
      Scores f64[Q, N], and the probabilities f64[Q, K] (0 for intentions absent from train).

    Raises:
      ValueError: if texts and intentions differ in number, a class id is out of range, or train
        holds fewer than two intentions.
    """
    num_classes = annotations.shape[1]
    classes = _check_train(train_intentions, num_classes)
    if len(train_texts) != len(classes):
        raise ValueError(f"{len(train_texts)} train texts but {len(classes)} train intentions.")
    if len(np.unique(classes)) < 2:
        raise ValueError("The linear reference needs at least two intentions in train.")
    model = _text_classifier()
    model.fit(train_texts, classes)
    probabilities = np.zeros((len(query_texts), num_classes))
    probabilities[:, model.classes_] = model.predict_proba(query_texts)
    # Stickers with the same intentions must tie exactly, which one large product does not promise.
    kinds, kind = np.unique(annotations, axis=0, return_inverse=True)
    return (probabilities @ kinds.T.astype(np.float64))[:, kind], probabilities


def _check_train(train_intentions: ArrayLike, num_classes: int) -> Int[np.ndarray, " M"]:
    """Checks the class ids of the train conversations."""
    classes = np.atleast_1d(train_intentions)
    if not len(classes):
        raise ValueError("There are no train conversations to count intentions in.")
    return check_ids("train_intentions", classes, len(classes), num_classes)


def _text_classifier() -> Pipeline:
    """Builds the vectoriser and classifier; every setting that matters is pinned here."""
    words = TfidfVectorizer(
        analyzer="word",
        ngram_range=(1, 2),
        token_pattern=r"(?u)\b\w+\b",
        sublinear_tf=True,
        max_features=_MAX_FEATURES,
    )
    characters = TfidfVectorizer(
        analyzer="char_wb",
        ngram_range=(1, 3),
        sublinear_tf=True,
        max_features=_MAX_FEATURES,
    )
    classifier = LogisticRegression(C=_INVERSE_PENALTY, solver="lbfgs", tol=1e-3, max_iter=1000)
    return make_pipeline(make_union(words, characters), classifier)
