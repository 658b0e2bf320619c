"""SRS: utterances and stickers compared pair by pair, word by word and region by region.

Both sides are encoded once, into words and regions of one width; then every pair of a conversation
and a sticker runs through the network of ``srs_layers.py``, so no vector is left to search by.
docs/baselines/srs.md walks through the equations.
Source: Learning to Respond with Stickers (Gao et al. 2020).
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from int_ra_jax.common.types import Bank, Batch, Context, Sticker, Tokens
from int_ra_jax.models import losses
from int_ra_jax.models.compared import Compared
from int_ra_jax.models.interface import Candidates, LossAndMetrics, Negatives, Setup, SpecialIds
from int_ra_jax.models.layers import HeadLinear, dropout, masked_mean, split_key
from int_ra_jax.models.systems.srs_layers import (
    MATCH_PARTS,
    MatchFusion,
    deep_interaction,
    match_vectors,
)
from int_ra_jax.models.two_towers import negative_pairs, one_comparison

# ---- formulas ---------------------------------------------------------------------------------


def split_utterances(tokens: Tokens, number: int, length: int, special: SpecialIds) -> Tokens:
    """Takes the turns of conversations apart into rows ``[CLS] words [SEP]``.

    The newest turns are kept and stand first to last in the first slots; rows after them are
    masked as a whole. A turn that is too long keeps its end, as the data pipeline has it.

    Args:
      tokens: Tokens [B, L], without speakers.
      number: utterances at most. A row of L tokens holds L / 2, so U = min(number, L // 2).
      length: T, tokens of an utterance, [CLS] and [SEP] included.
      special: ids of the vocabulary.

    Returns:
      Tokens [B, U, T] without ``turn``.
    """
    rows, width = tokens.ids.shape
    slots = max(min(number, width // 2), 1)
    turn = jnp.where(tokens.words, tokens.turn, 0)  # i32[B, L], 1 = the newest
    slot = jnp.minimum(jnp.max(turn, axis=1, keepdims=True), slots) - turn  # < 0 for older turns
    member = (turn > 0)[:, None] & (slot[:, None] == jnp.arange(slots)[:, None])  # [B, U, L]
    words = jnp.minimum(jnp.sum(member, axis=2, keepdims=True), length - 2)  # i32[B, U, 1]
    end = jnp.max(jnp.where(member, jnp.arange(width) + 1, 0), axis=2, keepdims=True)
    column = jnp.arange(length)
    source = jnp.clip(end - words + column - 1, 0, width - 1)  # i32[B, U, T]
    said = tokens.ids[jnp.arange(rows)[:, None, None], source]
    is_word = (column >= 1) & (column <= words)
    mask = (column <= words + 1) & (words > 0)
    framed = jnp.where(column == 0, special.cls, jnp.where(is_word, said, special.sep))
    ids = jnp.where(mask, framed, special.pad).astype(tokens.ids.dtype)
    return Tokens(ids, mask, type_ids=jnp.zeros_like(ids), words=is_word)


def pooled_grid(patches: Float[Array, "N P Dv"], window: int) -> Float[Array, "N R Dv"]:
    """Returns the means of windows of neighbouring patches, window x window to one region.

    Args:
      patches: of a square grid, row by row, whose side the window divides.
      window: 1 leaves the patches as they are.
    """
    if window == 1:
        return patches
    rows = math.isqrt(patches.shape[1]) // window
    grid = patches.reshape(patches.shape[0], rows, window, rows, window, -1)
    pooled = jnp.mean(grid, axis=(2, 4), dtype=jnp.float32).astype(patches.dtype)  # [N, ., ., Dv]
    return pooled.reshape(patches.shape[0], rows * rows, -1)


def draw_negatives(
    allowed: Bool[Array, "B S"], number: int, key: PRNGKeyArray
) -> tuple[Int[Array, "B J"], Bool[Array, "B J"]]:
    """Draws columns for each anchor, uniformly among those allowed and none twice.

    Args:
      allowed: which columns are negatives of which anchor.
      number: J at most; fewer where there are fewer columns.
      key: of the draw.

    Returns:
      The columns, and whether each is a real one: an anchor may have fewer than J.
    """
    noise = jnp.where(allowed, jax.random.uniform(key, allowed.shape), -1.0)
    value, column = jax.lax.top_k(noise, min(number, allowed.shape[1]))
    return column, value >= 0


def smoothed_cross_entropy(
    logits: Float[Array, "C K"],
    labels: Bool[Array, "C K"],
    weight: Float[Array, "C"],
    smoothing: float,
) -> Float[Array, ""]:
    """Returns the weighted mean cross-entropy with a uniform distribution over each row's labels.

    Args:
      logits: unscaled by softmax.
      labels: a row's right classes; a row without any counts as nothing.
      weight: how often each row counts.
      smoothing: probability moved from the labels to the uniform distribution over all classes.
    """
    number = jnp.sum(labels, axis=1, keepdims=True)
    target = labels / jnp.maximum(number, 1) * (1.0 - smoothing) + smoothing / labels.shape[1]
    entropy = -jnp.sum(target * jax.nn.log_softmax(logits.astype(jnp.float32)), axis=1)
    weight = weight * (number[:, 0] > 0)
    return jnp.sum(weight * entropy) / jnp.maximum(jnp.sum(weight), 1.0)


# ---- the system -------------------------------------------------------------------------------


@struct.dataclass
class Utterances(Context):
    """A conversation as SRS compares it: the words of its utterances.

    Attributes:
      words: f32[B, U, T, D].
      word_mask: bool[B, U, T], True where a token is a word; an utterance without any is none.
    """

    words: Any = None
    word_mask: Any = None


@struct.dataclass
class Regions(Sticker):
    """A sticker as SRS compares it: a grid of regions and the whole.

    Attributes:
      regions: f32[N, R, D].
      summary: f32[N, D].
      intention_logits: f32[N, K], unscaled by softmax; in training only, where the loss reads them.
    """

    regions: Any = None
    summary: Any = None
    intention_logits: Any = None


class SRS(Compared):
    """Sticker Response Selector on the shared towers; see configs/srs.py for the switches.

    Args:
      setup: of which the sections model, loss and text are read.

    Raises:
      ValueError: if conversations come with speakers or knowledge, if the vocabulary lacks a
        special token, or if sizes do not fit together.
    """

    frames = ("utterances", "utterance_tokens")

    def __init__(self, setup: Setup) -> None:
        width, (said, seen) = setup.config.model.joint_width, setup.widths
        super().__init__(setup, match_width=said, temperature=1.0)
        _check(setup)
        self.embedding_width = self.matched_width(0)  # pairs are compared
        model, loss = setup.config.model, setup.config.loss
        facts, dtype, rngs = setup.facts, setup.dtype, setup.rngs
        self.special = facts.special_ids
        self.utterances, self.utterance_tokens = model.utterances, model.utterance_tokens
        self.original_masking = model.original_masking
        self.region_window: int = model.region_window

        self.word_projection = HeadLinear(said, width, dtype=dtype, rngs=rngs)
        self.region_projection = HeadLinear(seen, width, use_bias=False, dtype=dtype, rngs=rngs)
        self.summary_projection = HeadLinear(seen, width, use_bias=False, dtype=dtype, rngs=rngs)
        self.sticker_intention = HeadLinear(seen, facts.num_intentions, rngs=rngs)
        self.fusion = MatchFusion(MATCH_PARTS * width, model, dtype, rngs)

        self.candidates, self.margin = loss.candidates, loss.margin
        self.spare_intention = loss.negatives_from == "other_intent"
        self.lambda_ret, self.lambda_int = loss.lambda_ret, loss.lambda_int
        self.label_smoothing = loss.label_smoothing
        # Encoded live even while a tower trains: nothing but the score tells a stale sticker from
        # a live one, and a pair's score has no gradient without the sticker's.
        self.negatives = Negatives(bank=True, size=loss.bank_size)

    def hidden_text(self, tokens: Tokens) -> Array | None:
        """Returns the frozen lower layers' output f[B, U, T, Dt] for the utterances, or None.

        The cache's axis 1 is U where other systems have L, and ``Resident.attach`` cuts it to a
        batch's width: harmless, since a row of L tokens has no more than L / 2 utterances.
        """
        if not self.text_frozen:
            return None
        if tokens.turn is None:  # no conversation, but what a sticker shows
            return super().hidden_text(tokens)
        framed = self.text_rows(tokens)
        return self._text_prefix(_flat(framed)).reshape(*framed.ids.shape, -1)

    def encode_context(self, batch: Batch, *, key: Array | None = None) -> Utterances:
        """Returns X_u, the words of the newest utterances, each encoded on its own."""
        tower_key, dropout_key = split_key(key, 2)
        framed = self.text_rows(batch.context)
        hidden = batch.context_hidden
        if hidden is not None:  # the cache was computed for rows at least as wide
            hidden = hidden[:, : framed.ids.shape[1]]
            hidden = hidden.reshape(-1, *hidden.shape[2:])  # [B U, T, Dt]
        features = self.text_tokens(_flat(framed), hidden, tower_key)
        features = dropout(features, self.dropout, dropout_key)
        words = self.word_projection(features)
        words = words.astype(jnp.float32).reshape(*framed.ids.shape, -1)  # [B, U, T, D]
        context = Utterances(words=words, word_mask=framed.words)
        if not self.intention_match:
            return context
        rows = (framed.ids.shape[0], -1)  # of words, whatever utterance they stand in
        said = features.reshape(*rows, features.shape[-1])
        return self.matched(context, masked_mean(said, framed.words.reshape(rows)))

    def encode_sticker(self, bank: Bank, *, key: Array | None = None) -> Regions:
        """Returns G' and s: the sticker's regions, and its class token in their width."""
        tokens = self.image_tokens(bank)
        cls, patches = tokens[:, 0], pooled_grid(tokens[:, 1:], self.region_window)
        sticker = Regions(
            regions=self.region_projection(patches).astype(jnp.float32),
            summary=self.summary_projection(dropout(cls, self.dropout, key)).astype(jnp.float32),
            intention_logits=None if key is None else self.sticker_intention(cls),
        )
        return self.annotated(sticker, bank)

    def score(self, context: Context, sticker: Sticker) -> Float[Array, "B N"]:
        """Returns the scores of all pairs, one conversation after the other.

        They have no scale of their own: only those of one conversation can be compared.
        """
        assert isinstance(context, Utterances) and isinstance(sticker, Regions)
        scores = jax.lax.map(
            lambda said: self._match(said[0], said[1], sticker.regions, sticker.summary),
            (context.words, context.word_mask),
        )
        return scores + super().score(context, sticker) if self.intention_match else scores

    def gallery_loss(
        self, context: Context, sticker: Sticker, batch: Batch, candidates: Candidates, key: Array
    ) -> Float[Array, ""]:
        """Returns the loss over the gallery, each conversation's gold beside the bank's section.

        The others compare with the batch's other golds as well, which costs them nothing. Here
        every pair runs through the network: B x (1 + S) of them and not B x (B + S).
        """
        assert self.logit_scale is not None
        scale = self.logit_scale[...]
        size = batch.sticker.shape[0]
        golds = jnp.arange(size)[:, None]
        bank = jnp.broadcast_to(
            jnp.arange(2 * size, candidates.index.shape[0]),
            (size, candidates.index.shape[0] - 2 * size),
        )
        columns = jnp.concatenate([golds, bank], axis=1)  # i32[B, 1 + S]
        scores = self.trained_scores(context, sticker, columns, key)

        def of_one(
            scores: Float[Array, "C"], sticker: Array, intention: Array, columns: Int[Array, "C"]
        ) -> Float[Array, ""]:
            one = dataclasses.replace(batch, sticker=sticker[None], intention=intention[None])
            comparison = self.comparison(scores[None], one, candidates.columns(columns), scale)
            return losses.RETRIEVAL[self.retrieval_loss].compute(comparison)

        return jnp.mean(jax.vmap(of_one)(scores, batch.sticker, batch.intention, columns))

    def trained_scores(
        self,
        context: Context,
        sticker: Sticker,
        columns: np.ndarray | Int[Array, "B C"],
        key: PRNGKeyArray,
    ) -> Float[Array, "B C"]:
        """Returns the scores with some of the columns, one conversation at a time.

        The columns are the same for all, i[C], or each conversation has its own. The backward pass
        runs each conversation's pairs through the network again.
        """
        assert isinstance(context, Utterances) and isinstance(sticker, Regions)
        size = context.words.shape[0]

        @jax.checkpoint
        def scores(said: tuple[Array, Array, Array, PRNGKeyArray]) -> Float[Array, "C"]:
            words, mask, columns, key = said
            return self._match(words, mask, sticker.regions[columns], sticker.summary[columns], key)

        own = jnp.broadcast_to(jnp.asarray(columns), (size, columns.shape[-1]))
        keys = jax.random.split(key, size)
        found: Array = jax.lax.map(scores, (context.words, context.word_mask, own, keys))
        return found

    def loss(
        self, context: Context, sticker: Sticker, batch: Batch, candidates: Candidates, key: Array
    ) -> LossAndMetrics:
        """Returns lambda_ret * hinge + lambda_int * the stickers' intention, and its parts.

        Each anchor is scored against its gold sticker and ``loss.candidates`` - 1 of its own among
        the columns drawn for the step: B x candidates pairs and not B x C. A loss over the gallery
        compares it with all of the columns drawn: ``loss.bank_size`` says how many.
        """
        assert isinstance(context, Utterances) and isinstance(sticker, Regions)
        more, metrics = self.match_terms(context, batch)
        if self.over_gallery:
            retrieval = self.gallery_loss(context, sticker, batch, candidates, key)
            rows: Any = one_comparison(batch.sticker.shape[0], candidates.index.shape[0])
            weight = jnp.ones(len(rows))
        else:
            retrieval, rows, weight, best = self._hinge(context, sticker, batch, candidates, key)
            metrics["candidates/hit@1"] = best
        intention = smoothed_cross_entropy(
            sticker.intention_logits[rows],
            candidates.intentions[rows],
            weight,
            self.label_smoothing,
        )
        terms = {
            "retrieval": (self.lambda_ret, retrieval),
            "intention": (self.lambda_int, intention),
        }
        return losses.weighted_sum({**terms, **more}, metrics)

    def _hinge(
        self,
        context: Utterances,
        sticker: Regions,
        batch: Batch,
        candidates: Candidates,
        key: Array,
    ) -> tuple[Array, Array, Array, Array]:
        """Returns the hinge, the columns of its pairs and their weights, and hit@1 among them."""
        size = batch.sticker.shape[0]
        draw_key, dropout_key = jax.random.split(key)
        sampled = candidates.columns(slice(2 * size, None))  # after the golds, live and once more
        allowed = negative_pairs(
            batch, sampled, self.spare_intention, self.unseen_negatives
        )  # [B, S]
        drawn, counts = draw_negatives(allowed, self.candidates - 1, draw_key)
        golds = jnp.arange(size)[:, None]
        pairs = jnp.concatenate([golds, 2 * size + drawn], axis=1)  # i32[B, candidates]
        scores = jax.vmap(self._match)(
            context.words,
            context.word_mask,
            sticker.regions[pairs],
            sticker.summary[pairs],
            jax.random.split(dropout_key, size),
        )  # [B, candidates], f32
        retrieval = losses.hinge_loss(scores[:, 1:], counts, self.margin, positive=scores[:, 0])
        weight = jnp.pad(counts, ((0, 0), (1, 0)), constant_values=True).reshape(-1)
        best = jnp.max(jnp.where(counts, scores[:, 1:], -jnp.inf), axis=1)
        hit = jnp.mean((scores[:, 0] > best).astype(jnp.float32))
        return retrieval, pairs.reshape(-1), weight.astype(jnp.float32), hit

    def text_rows(self, tokens: Tokens) -> Tokens:
        """Returns the utterances that are read, Tokens [B, U, T]."""
        return split_utterances(tokens, self.utterances, self.utterance_tokens, self.special)

    def _match(
        self,
        words: Float[Array, "U T D"],
        word_mask: Bool[Array, "U T"],
        regions: Float[Array, "N R D"],
        summary: Float[Array, "N D"],
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "N"]:
        said, seen = deep_interaction(
            regions, words, word_mask, original_masking=self.original_masking
        )
        vectors = match_vectors(said, seen, summary)
        return self.fusion(vectors, jnp.any(word_mask, axis=1), key)


def _flat(framed: Tokens) -> Tokens:
    """Returns the utterances of all conversations as rows of their own."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, leaf.shape[-1]), framed)


def _check(setup: Setup) -> None:
    config, facts = setup.config, setup.facts
    problems = []
    if config.text.speakers != "off" or config.text.knowledge != "off":
        problems.append(
            f"text.speakers={config.text.speakers!r}, text.knowledge={config.text.knowledge!r}: "
            "each utterance is read on its own, without either; set both to 'off'"
        )
    special = facts.special_ids
    if min(special.pad, special.cls, special.sep) < 0:
        problems.append("the vocabulary lacks [PAD], [CLS] or [SEP], which frame an utterance")
    grid, window = facts.image.grid, config.model.region_window
    if grid % window:
        problems.append(f"model.region_window={window} does not divide the {grid} x {grid} patches")
    if problems:
        raise ValueError("SRS:\n  " + "\n  ".join(problems))
