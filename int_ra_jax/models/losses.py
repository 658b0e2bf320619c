"""Losses as pure functions of arrays: they know no model, no batch and no parameter tree.

A retrieval loss sees a score matrix [B, C] of B anchors against C candidate columns, of which
column b < B is the gold sticker of anchor b, and boolean masks that say which pairs count.
All arithmetic is float32. ``RETRIEVAL`` holds those that Int-RA can be trained with, and which of
them read the whole gallery, so that every other system can be trained with them too.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

_MASKED = -1e30  # finite, so that a row without any candidate has a finite gradient


def positive_scores(scores: Float[Array, "B C"]) -> Float[Array, "B"]:
    """Returns each anchor's score against its own gold sticker (column b of row b)."""
    return jnp.diagonal(scores[:, : scores.shape[0]])


def negative_pairs(
    gold: Int[Array, "B"],
    intention: Int[Array, "B"],
    column: Int[Array, "C"],
    column_intentions: Bool[Array, "C K"],
    mask_same_intention: bool,
    unseen_negatives: bool = True,
) -> Bool[Array, "B C"]:
    """Returns which (anchor, column) pairs are valid negatives.

    The gold sticker is never a negative, however often it stands among the columns: with 1,025
    stickers for 1,269 conversations, one sticker answers several conversations of a batch.

    Args:
      gold: gallery index of each anchor's gold sticker.
      intention: class id of each anchor's intention.
      column: gallery index of each column.
      column_intentions: intentions with which each column's sticker is annotated in train.
      mask_same_intention: also spare stickers annotated with the anchor's intention, which
        evaluation counts as correct.
      unseen_negatives: False spares stickers without any annotation in train: no conversation of
        train was answered by one, so it can never be a positive and would only be pushed away.
    """
    negative = gold[:, None] != column[None, :]
    if mask_same_intention:
        negative &= ~column_intentions[:, intention].T
    if not unseen_negatives:
        negative &= jnp.any(column_intentions, axis=1)[None, :]
    return negative


def hinge_loss(
    scores: Float[Array, "B C"],
    negative: Bool[Array, "B C"],
    margin: float,
    positive: Float[Array, "B"] | None = None,
) -> Float[Array, ""]:
    """Returns the mean over valid pairs of max(0, margin - s_pos + s_neg).

    Deviates from Eq. (14) as printed, which lowers the positive's similarity and is symmetric in
    positive and negative; this is its only consistent reading, where rho_pos is a distance.
    A batch without any valid negative gives 0.

    Args:
      scores: of anchors and columns.
      negative: which pairs count.
      margin: of the scores.
      positive: each anchor's score against its positive; by default that of column b for row b.
    """
    positive = positive_scores(scores) if positive is None else positive
    violations = jax.nn.relu(margin - positive[:, None] + scores)  # [B, C]
    return jnp.sum(violations * negative) / jnp.maximum(jnp.sum(negative), 1)


def literal_eq14(
    scores: Float[Array, "B C"], negative: Bool[Array, "B C"], margin: float
) -> Float[Array, ""]:
    """Returns Eq. (14) as printed, mean over pairs: max(0, cos_neg - (1 - cos_pos) + margin).

    Kept to show the defect: both derivatives are +1, so descent pushes the positive away.
    """
    terms = jax.nn.relu(scores - (1.0 - positive_scores(scores)[:, None]) + margin)
    return jnp.sum(terms * negative) / jnp.maximum(jnp.sum(negative), 1)


def infonce(
    scores: Float[Array, "B C"], negative: Bool[Array, "B C"], logit_scale: Float[Array, ""]
) -> Float[Array, ""]:
    """Returns the symmetric contrastive loss, false negatives left out of both softmaxes.

    Conversations choose among all columns; stickers choose among the batch's conversations.
    Source: CLIP (Radford et al. 2021), Fig. 3; it is what the released Int-RA code really trains.

    Args:
      scores: cosines; column b of row b is the positive.
      negative: which pairs may stand in a denominator besides the positive.
      logit_scale: logarithm of the inverse temperature.
    """
    batch = scores.shape[0]
    logits = scores * jnp.exp(logit_scale)  # [B, C], f32
    positive = jnp.eye(batch, scores.shape[1], dtype=bool)

    def one_way(logits: Float[Array, "R M"], allowed: Bool[Array, "R M"]) -> Float[Array, ""]:
        allowed = allowed | positive[:, : logits.shape[1]]
        masked = jnp.where(allowed, logits, _MASKED)
        return jnp.mean(jax.nn.logsumexp(masked, axis=1) - positive_scores(logits))

    square = logits[:, :batch]
    return 0.5 * (one_way(logits, negative) + one_way(square.T, negative[:, :batch].T))


def multi_positive(
    scores: Float[Array, "B C"],
    positive: Bool[Array, "B C"],
    negative: Bool[Array, "B C"],
    logit_scale: Float[Array, ""],
) -> Float[Array, ""]:
    """Returns -mean over positives of log softmax, the softmax over positives and negatives.

    Every sticker of the gold intention is a positive, as the evaluation defines it.
    Source: SupCon (Khosla et al. 2020), Eq. (2).

    Args:
      scores: cosines.
      positive: which pairs are positives; every row has at least one.
      negative: which pairs are negatives.
      logit_scale: logarithm of the inverse temperature.
    """
    logits = jnp.where(positive | negative, scores * jnp.exp(logit_scale), _MASKED)
    log_probabilities = jax.nn.log_softmax(logits, axis=1)  # [B, C], f32
    per_row = jnp.sum(jnp.where(positive, log_probabilities, 0.0), axis=1)  # [B]
    return -jnp.mean(per_row / jnp.maximum(jnp.sum(positive, axis=1), 1))


def gold_softmax(
    scores: Float[Array, "B C"],
    gold: Bool[Array, "B C"],
    allowed: Bool[Array, "C"],
    copies: Int[Array, "C"],
    logit_scale: Float[Array, ""],
) -> Float[Array, ""]:
    """Returns -mean log softmax over the gallery at the gold sticker, the one right answer.

    A sticker that stands in several columns, as the batch's gold stickers do, shares one place of
    the softmax among them, so that the loss learns how often each sticker is sent: counted as
    often as it stands there, a popular one would be held down by its own frequency. Where columns
    of one sticker differ, live and stale ones, each has its share of the positive too, and nothing
    is won by moving the live ones away from the others.

    Args:
      scores: of anchors and columns.
      gold: which columns are the anchor's gold sticker; every row has at least one.
      allowed: which columns may stand in a denominator; gold ones do anyway.
      copies: in how many columns the sticker of each column stands.
      logit_scale: logarithm of the inverse temperature.
    """
    logits = scores * jnp.exp(logit_scale)  # [B, C], f32
    shared = jnp.where(gold | allowed[None, :], logits - jnp.log(copies), _MASKED)
    at_gold = jnp.sum(jnp.where(gold, logits, 0.0), axis=1) / jnp.sum(gold, axis=1)
    return jnp.mean(jax.nn.logsumexp(shared, axis=1) - at_gold)


def copies(column: Int[Array, "C"], num_stickers: int) -> Int[Array, "C"]:
    """Returns in how many of the columns the sticker of each one stands.

    Args:
      column: gallery index of each column.
      num_stickers: N.
    """
    return jnp.bincount(column, length=num_stickers)[column]


class Comparison(NamedTuple):
    """What a retrieval loss may read: B anchors beside C columns.

    Attributes:
      scores: f32[B, C], cosines; column b of row b is the gold sticker of anchor b.
      positive: bool[B, C], stickers of the anchor's intention, its gold sticker among them.
      negative: bool[B, C], which pairs count as negatives; see ``negative_pairs``.
      gold: bool[B, C], which columns are the anchor's gold sticker.
      allowed: bool[C], which columns may be negatives of anybody.
      copies: i32[C], in how many columns the sticker of each column stands.
      margin: cosine.
      logit_scale: f32[], logarithm of the inverse temperature; None where none is learnt.
    """

    scores: jax.Array
    positive: jax.Array
    negative: jax.Array
    gold: jax.Array
    allowed: jax.Array
    copies: jax.Array
    margin: float
    logit_scale: Any


@dataclass(frozen=True)
class RetrievalLoss:
    """A retrieval loss of Int-RA.

    Attributes:
      compute: the loss of a comparison.
      learns_temperature: whether it reads ``logit_scale``.
      compares_once: whether the batch's stickers and the bank's stand in one comparison; in two
        otherwise, of which each has its own gold column. Those that do are offered to every
        system (``compared``).
    """

    compute: Callable[[Comparison], Float[Array, ""]]
    learns_temperature: bool = False
    compares_once: bool = False


RETRIEVAL: dict[str, RetrievalLoss] = {
    "hinge": RetrievalLoss(lambda c: hinge_loss(c.scores, c.negative, c.margin)),
    "literal_eq14": RetrievalLoss(lambda c: literal_eq14(c.scores, c.negative, c.margin)),
    "infonce": RetrievalLoss(
        lambda c: infonce(c.scores, c.negative, c.logit_scale), learns_temperature=True
    ),
    # The bank's stickers of the gold intention are positives too, so nothing is won by moving away
    # from the bank, and one softmax over the gallery keeps each sticker's share of the answers,
    # which the batch's own stickers alone would cancel.
    "multi_positive": RetrievalLoss(
        lambda c: multi_positive(c.scores, c.positive, c.negative & ~c.positive, c.logit_scale),
        learns_temperature=True,
        compares_once=True,
    ),
    "gold_softmax": RetrievalLoss(
        lambda c: gold_softmax(c.scores, c.gold, c.allowed, c.copies, c.logit_scale),
        learns_temperature=True,
        compares_once=True,
    ),
}
"""By the value of ``loss.retrieval``; configs/int_ra.py lists the values."""


def cross_entropy(
    logits: Float[Array, "B K"],
    label: Int[Array, "B"],
    class_weights: Float[Array, "K"] | None = None,
    label_smoothing: float = 0.0,
) -> Float[Array, ""]:
    """Returns the cross-entropy of a label, such as the intention: one log-softmax, mean over rows.

    The released Int-RA code applies softmax twice, which floors its loss at ln(e + K - 1) - 1.
    Source: Int-RA paper, Eq. (4) to (6).

    Args:
      logits: unscaled by softmax.
      label: class ids.
      class_weights: weight of each class, or None; the mean is then weighted.
      label_smoothing: probability moved from the gold class to the uniform distribution.
    """
    num_classes = logits.shape[1]
    target = jax.nn.one_hot(label, num_classes)
    target = target * (1.0 - label_smoothing) + label_smoothing / num_classes
    losses = -jnp.sum(target * jax.nn.log_softmax(logits.astype(jnp.float32)), axis=1)  # [B]
    if class_weights is None:
        return jnp.mean(losses)
    weights = class_weights[label]
    return jnp.sum(weights * losses) / jnp.maximum(jnp.sum(weights), 1e-12)


def accuracy(logits: Float[Array, "B K"], label: Int[Array, "B"]) -> Float[Array, ""]:
    """Returns the share of rows whose largest logit is that of their label."""
    return jnp.mean((jnp.argmax(logits, axis=1) == label).astype(jnp.float32))


def weighted_sum(
    terms: Mapping[str, tuple[float, Any]], metrics: Mapping[str, jax.Array]
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Returns the sum of a system's loss terms, and all that is logged of them.

    Args:
      terms: name -> (weight, value), in the order of summation; logged as ``loss/NAME``, unweighed.
      metrics: what else is logged, by name.

    Returns:
      The total, and the terms and metrics by the names under which they are logged.
    """
    total: Any = sum(weight * value for weight, value in terms.values())
    parts = {f"loss/{name}": value for name, (_, value) in terms.items()}
    return total, {"loss/total": total, **parts, **metrics}
