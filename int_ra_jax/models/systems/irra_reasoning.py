"""IRRA's implicit relation reasoning: hidden words are guessed with the help of the sticker.

Words of a conversation are hidden on the device, the masked text goes through the text tower, and
what an encoder makes of it beside the sticker's tokens is compared with the vocabulary. All of it
serves training alone.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx, struct
from jaxtyping import Array, Bool, Float, Float32, Int
from ml_collections import ConfigDict

from int_ra_jax.common.types import Tokens
from int_ra_jax.models.interface import SpecialIds
from int_ra_jax.models.layers import LayerNorm, Linear, attend, quick_gelu
from int_ra_jax.models.towers.bert import BertConfig

MASK_RATE = 0.15  # of the words, in the reference implementation
_SHARES = (0.8, 0.9)  # of them, up to here [MASK], up to here another word; the rest stay
_EPSILON = 1e-5  # of CLIP's LayerNorm
_normal = jax.nn.initializers.normal


@struct.dataclass
class HiddenWords:
    """The words of B texts that are to be guessed, at most M of each.

    Attributes:
      positions: i32[B, M], where they stand; distinct within a row.
      words: i32[B, M], what stood there.
      counted: bool[B, M], False where a row has fewer.
    """

    positions: Any
    words: Any
    counted: Any


def most_hidden(length: int) -> int:
    """Returns M, for how many hidden words a text of ``length`` tokens has room.

    Few rows ever draw more, and logits over a vocabulary are dear: B L V of them for every token.
    """
    return min(length, math.ceil(MASK_RATE * length) + 8)


def hide_words(
    tokens: Tokens, special: SpecialIds, vocabulary: int, key: Array
) -> tuple[Tokens, HiddenWords]:
    """Hides 15% of the words: 80% behind [MASK], 10% behind another word, 10% are left to see.

    A row in which none was drawn hides its first word; a row without any word hides nothing.
    Special tokens and padding are never hidden, nor do they ever stand in for a word. The letters
    that name speakers are words like others.

    Args:
      tokens: Tokens [B, L].
      special: ids that are no words; has a [MASK].
      vocabulary: number of ids.
      key: random key.

    Returns:
      The masked texts, and what is hidden in them.
    """
    reserved = sorted({i for i in (special.pad, special.cls, special.sep, special.mask) if i >= 0})
    draw_key, kind_key, word_key = jax.random.split(key, 3)
    is_word = tokens.words & (tokens.ids != special.mask)  # a user may write "[MASK]" as well
    draw = jax.random.uniform(draw_key, tokens.ids.shape)
    chosen = is_word & (draw < MASK_RATE)
    forced = ~jnp.any(chosen, axis=1, keepdims=True) & is_word
    chosen |= forced & (jnp.cumsum(is_word, axis=1) == 1)
    # The smallest draws, so that where there is no room for all, those left out are random.
    room = most_hidden(tokens.ids.shape[1])
    positions = jax.lax.top_k(-jnp.where(chosen, draw, 2.0), room)[1]  # i32[B, M]

    def at_positions(leaf: Array) -> Array:
        return jnp.take_along_axis(leaf, positions, axis=1)

    words, counted = at_positions(tokens.ids), at_positions(chosen)
    kind = jnp.where(at_positions(forced), 0.0, jax.random.uniform(kind_key, positions.shape))
    other = jax.random.randint(word_key, positions.shape, 0, vocabulary - len(reserved))
    for index in reserved:  # ascending: each id that is no word moves those behind it by one
        other += other >= index
    seen = jnp.where(kind < _SHARES[0], special.mask, jnp.where(kind < _SHARES[1], other, words))
    seen = jnp.where(counted, seen, words).astype(tokens.ids.dtype)
    rows = jnp.arange(positions.shape[0])[:, None]
    masked = tokens.replace(ids=tokens.ids.at[rows, positions].set(seen))  # type: ignore[attr-defined]
    return masked, HiddenWords(positions, words, counted)


def masked_word_loss(
    logits: Float[Array, "B M V"], words: Int[Array, "B M"], counted: Bool[Array, "B M"]
) -> Float32[Array, ""]:
    """Returns the cross-entropy of the hidden words, mean over all of the batch; 0 without any.

    Source: IRRA (Jiang and Ye 2023), implicit relation reasoning.

    Args:
      logits: unscaled by softmax.
      words: ids of what is hidden.
      counted: which of them count.
    """
    likelihood = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    found = jnp.take_along_axis(likelihood, words[..., None], axis=-1)[..., 0]
    return -jnp.sum(jnp.where(counted, found, 0.0)) / jnp.maximum(jnp.sum(counted), 1)


class InteractionEncoder(nnx.Module):
    """Masked text tokens read the sticker's tokens once, and then one another.

    Nothing is added around the cross-attention, so that what follows sees the text only through
    what it asked of the image. Parameters are drawn as CLIP's are for this width and depth.
    Source: IRRA, cross-modal interaction encoder.

    Args:
      model: the section ``config.model``: joint_width, heads and interaction_layers.
      dtype: compute dtype.
      rngs: for the initial parameters.
    """

    def __init__(self, model: ConfigDict, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        width, depth = model.joint_width, model.interaction_layers

        def norm() -> LayerNorm:
            return LayerNorm(width, epsilon=_EPSILON, dtype=dtype, rngs=rngs)

        self.norm_text, self.norm_image, self.norm_out = norm(), norm(), norm()
        self.cross_attention = _Attention(width, model.heads, depth, dtype, rngs)
        self.blocks = nnx.List(
            [_Block(width, model.heads, depth, dtype, rngs) for _ in range(depth)]
        )

    def __call__(
        self,
        text: Float[Array, "B L D"],
        mask: Bool[Array, "B L"],
        image: Float[Array, "B T D"],
        positions: Int[Array, "B M"],
    ) -> Float[Array, "B M D"]:
        """Returns features of the tokens at ``positions``; row b of image is row b's sticker.

        Args:
          text: features of the masked texts.
          mask: which text tokens are real; the others are read by none.
          image: features of the stickers.
          positions: where the hidden words stand; the last block computes no other token.
        """
        hidden = self.cross_attention(self.norm_text(text), self.norm_image(image))  # [B, L, D]
        *lower, last = self.blocks
        for block in lower:
            hidden = block(hidden, mask)
        wanted = jnp.take_along_axis(hidden, positions[..., None], axis=1)  # [B, M, D]
        return self.norm_out(last(hidden, mask, wanted))


class WordHead(nnx.Module):
    """From a hidden word's feature to logits over the vocabulary.

    With ``tie_mlm`` the words' vectors are the text tower's own table instead of a matrix of this
    head: 61 million parameters less with M-BERT's vocabulary.

    Args:
      model: the section ``config.model``: joint_width, tie_mlm, and interaction_layers, which the
        spread of the first kernels follows.
      text: the shape of the text tower, whose words are guessed.
      dtype: compute dtype.
      rngs: for the initial parameters.
    """

    def __init__(
        self, model: ConfigDict, text: BertConfig, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        width, tied = model.joint_width, model.tie_mlm
        _, out, fc = _spreads(width, model.interaction_layers)
        self.dense = Linear(width, width, dtype=dtype, kernel_init=_normal(fc), rngs=rngs)
        self.norm = LayerNorm(width, epsilon=_EPSILON, dtype=dtype, rngs=rngs)
        self.output = Linear(
            width,
            text.hidden_size if tied else text.vocab_size,
            use_bias=not tied,  # with a table, the bias is one of the words and stands below
            dtype=dtype,
            kernel_init=_normal(out),
            rngs=rngs,
        )
        self.bias = nnx.Param(jnp.zeros(text.vocab_size)) if tied else None

    def __call__(
        self, features: Float[Array, "B M D"], table: Float[Array, "V Dt"] | None
    ) -> Float32[Array, "B M V"]:
        """Returns logits; ``table`` is the text tower's word table where the head is tied."""
        hidden = self.output(self.norm(quick_gelu(self.dense(features))))
        if self.bias is None or table is None:
            return hidden.astype(jnp.float32)
        logits = jnp.einsum("bmd,vd->bmv", hidden, table.astype(hidden.dtype))  # [B, M, V]
        return logits.astype(jnp.float32) + self.bias[...]


def _spreads(width: int, depth: int) -> tuple[float, float, float]:
    """Returns the standard deviations of CLIP's kernels: reading, writing, and MLP's first."""
    return width**-0.5, width**-0.5 * (2 * depth) ** -0.5, (2 * width) ** -0.5


class _Attention(nnx.Module):
    """Multi-head attention; its keys have no bias, which softmax would cancel."""

    def __init__(
        self, width: int, heads: int, depth: int, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        read, write, _ = _spreads(width, depth)

        def linear(spread: float, *, use_bias: bool = True) -> Linear:
            init = _normal(spread)
            return Linear(width, width, use_bias=use_bias, dtype=dtype, kernel_init=init, rngs=rngs)

        self.query, self.value, self.out = linear(read), linear(read), linear(write)
        self.key = linear(read, use_bias=False)
        self.heads = heads

    def __call__(
        self, wanted: jax.Array, others: jax.Array, mask: jax.Array | None = None
    ) -> jax.Array:
        query, key, value = self.query(wanted), self.key(others), self.value(others)
        mixed, _ = attend(query, key, value, self.heads, mask)
        return self.out(mixed)


class _Block(nnx.Module):
    """CLIP's residual block: attention and MLP, each behind its own LayerNorm."""

    def __init__(
        self, width: int, heads: int, depth: int, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        _, write, fc = _spreads(width, depth)
        self.norm_attention = LayerNorm(width, epsilon=_EPSILON, dtype=dtype, rngs=rngs)
        self.attention = _Attention(width, heads, depth, dtype, rngs)
        self.norm_mlp = LayerNorm(width, epsilon=_EPSILON, dtype=dtype, rngs=rngs)
        self.fc1 = Linear(width, 4 * width, dtype=dtype, kernel_init=_normal(fc), rngs=rngs)
        self.fc2 = Linear(4 * width, width, dtype=dtype, kernel_init=_normal(write), rngs=rngs)

    def __call__(
        self, hidden: jax.Array, mask: jax.Array, wanted: jax.Array | None = None
    ) -> jax.Array:
        # wanted [B, M, D]: the tokens of hidden whose features are asked for; None for all.
        keys = self.norm_attention(hidden)
        queries = keys if wanted is None else self.norm_attention(wanted)
        hidden = hidden if wanted is None else wanted
        hidden = hidden + self.attention(queries, keys, mask)
        return hidden + self.fc2(quick_gelu(self.fc1(self.norm_mlp(hidden))))
