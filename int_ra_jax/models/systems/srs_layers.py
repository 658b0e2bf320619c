"""SRS from one conversation and N stickers to N scores: interaction, match vectors, fusion.

Everything here sees the utterances of one conversation and the stickers it is scored against, so
that ranking can go conversation by conversation in bounded memory. Axis letters besides those of
``common/types.py``: U utterances, T tokens of an utterance, M channels of a match vector, W
channels of the fusion. Logits, softmaxes and the recurrent state are float32.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Float32, PRNGKeyArray
from ml_collections import ConfigDict

from int_ra_jax.models.layers import HeadLinear, LayerNorm, attend, dropout, split_key

MATCH_PARTS = 5  # vectors that a match vector concatenates
_LOWEST = float(jnp.finfo(jnp.float32).min)  # finite, so that a row without any word is no NaN
_EPSILON = 1e-6  # of the encoder's layer norms


def word_and_region_weights(
    regions: Float[Array, "N R D"], words: Float[Array, "T D"], mask: Bool[Array, "T"]
) -> tuple[Float32[Array, "N T"], Float32[Array, "N R"]]:
    """Returns how much each word and each region of a sticker counts in one utterance.

    A = G' X^T / sqrt(D); a word's weight is its largest share of any region's softmax over words, a
    region's its largest share of any word's softmax over regions. Neither sums to 1.
    Source: SRS (Gao et al. 2020), deep interaction.

    Args:
      regions: G', one grid a sticker.
      words: X, one row a token.
      mask: which tokens are read; where none is, all weights are 0.
    """
    logits = jnp.einsum("nrd,td->nrt", regions, words, preferred_element_type=jnp.float32)
    logits = logits * words.shape[-1] ** -0.5  # [N, R, T], f32
    over_words = jax.nn.softmax(jnp.where(mask, logits, _LOWEST), axis=2)
    over_regions = jax.nn.softmax(logits, axis=1)
    return (
        jnp.where(mask, jnp.max(over_words, axis=1), 0.0),
        jnp.max(jnp.where(mask, over_regions, 0.0), axis=2),
    )


def deep_interaction(
    regions: Float[Array, "N R D"],
    words: Float[Array, "U T D"],
    mask: Bool[Array, "U T"],
    *,
    original_masking: bool = False,
) -> tuple[Float32[Array, "N U D"], Float32[Array, "N U D"]]:
    """Returns what each utterance says to each sticker (c) and what it sees in it (g).

    One utterance after the other: N x R x T logits at a time and not U times as many.

    Args:
      regions: G', one grid a sticker.
      words: X, the utterances' tokens.
      mask: which tokens are words.
      original_masking: as the authors' code: rows are read whole, pads included, and the mean is
        taken over the row's width, so that a short turn is both diluted and contaminated.
    """
    read = jnp.ones_like(mask) if original_masking else mask

    def one(utterance: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        words, read = utterance
        word_weights, region_weights = word_and_region_weights(regions, words, read)
        said = word_weights @ words.astype(jnp.float32) / jnp.maximum(jnp.sum(read), 1)
        seen = jnp.einsum("nr,nrd->nd", region_weights, regions.astype(jnp.float32))
        return said, seen / regions.shape[1]

    said, seen = jax.lax.map(one, (words, read))  # [U, N, D]
    return said.swapaxes(0, 1), seen.swapaxes(0, 1)


def match_vectors(
    said: Float[Array, "N U D"], seen: Float[Array, "N U D"], summary: Float[Array, "N D"]
) -> Float[Array, "N U M"]:
    """Returns f_u = [c + s; c * s; c; s; g], M = 5 D."""
    whole = jnp.broadcast_to(summary[:, None], said.shape)
    return jnp.concatenate([said + whole, said * whole, said, whole, seen], axis=-1)


class GRU(nnx.Module):
    """A gated recurrent unit over the utterances; parameters ``inputs`` and ``state``.

    The reset gate is applied after the state's product, as in torch and Flax; TensorFlow 1, which
    the authors used, applies it before. An absent utterance leaves the state as it is, so that the
    last state is that of the last utterance, and zeros where there is none.
    """

    def __init__(
        self, features: int, width: int, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> None:
        self.inputs = HeadLinear(features, 3 * width, dtype=dtype, rngs=rngs)
        self.state = HeadLinear(width, 3 * width, dtype=dtype, rngs=rngs)
        self.width = width

    def __call__(
        self, x: Float[Array, "N U M"], mask: Bool[Array, "U"]
    ) -> tuple[Float32[Array, "N U W"], Float32[Array, "N W"]]:
        """Returns the states at every utterance and the last one.

        Args:
          x: inputs.
          mask: which utterances there are.
        """
        # The inputs' part of all gates is one product for all steps.
        gates = self.inputs(x).astype(jnp.float32).swapaxes(0, 1)  # [U, N, 3 W]

        def step(
            state: jax.Array, given: tuple[jax.Array, jax.Array]
        ) -> tuple[jax.Array, jax.Array]:
            gate, present = given
            own = self.state(state).astype(jnp.float32)
            reset, update = jnp.split(
                jax.nn.sigmoid(gate[:, : -self.width] + own[:, : -self.width]), 2, axis=1
            )
            new = jnp.tanh(gate[:, -self.width :] + reset * own[:, -self.width :])
            state = jnp.where(present, (1.0 - update) * new + update * state, state)
            return state, state

        start = jnp.zeros((x.shape[0], self.width), jnp.float32)
        last, states = jax.lax.scan(step, start, (gates, mask))
        return states.swapaxes(0, 1), last


class MatchFusion(nnx.Module):
    """From the match vectors of a conversation's utterances to one score a sticker.

    A recurrent encoder Y reads how the utterances follow each other (short range), a self-attention
    encoder Z how they relate at any distance (long range); every Z looks up its Y, and a second
    recurrent unit reads what comes of it. The last layer has no bias: neither the ranking nor the
    hinge would read it.
    Source: SRS (Gao et al. 2020), fusion network.

    Args:
      features: M, channels of a match vector.
      model: the section ``config.model``: fusion_width, fusion_heads, fusion_inner, fusion_layers
        and dropout.
      dtype: of the computation.
      rngs: the stream ``params``.

    Raises:
      ValueError: if the heads do not divide the width.
    """

    def __init__(self, features: int, model: ConfigDict, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        width = model.fusion_width
        if width % model.fusion_heads:
            raise ValueError(
                f"model.fusion_width={width} is not divisible by "
                f"model.fusion_heads={model.fusion_heads}"
            )
        self.dropout: float = model.dropout
        self.short = GRU(features, width, dtype=dtype, rngs=rngs)
        self.long = nnx.List(
            [
                _EncoderLayer(width if index else features, model, dtype, rngs)
                for index in range(model.fusion_layers)
            ]
        )
        self.long_norm = LayerNorm(width, epsilon=_EPSILON, dtype=dtype, rngs=rngs)
        self.cross = HeadLinear(width, width, use_bias=False, dtype=dtype, rngs=rngs)
        self.mix = HeadLinear(2 * width, width, dtype=dtype, rngs=rngs)
        self.final = GRU(width, width, dtype=dtype, rngs=rngs)
        self.output = HeadLinear(width, 1, use_bias=False, rngs=rngs)

    def __call__(
        self, f: Float[Array, "N U M"], mask: Bool[Array, "U"], key: PRNGKeyArray | None = None
    ) -> Float32[Array, "N"]:
        """Returns the scores.

        Args:
          f: match vectors of N stickers.
          mask: which utterances there are, the first ones.
          key: random key for dropout; None for none.
        """
        short, _ = self.short(f, mask)
        long = f * self.cross.in_features**0.5 + _sinusoids(f.shape[1], f.shape[2])
        long = dropout(long, self.dropout, None if key is None else jax.random.fold_in(key, 0))
        for index, layer in enumerate(self.long):
            long = layer(long, mask, None if key is None else jax.random.fold_in(key, index + 1))
        long = self.long_norm(long).astype(jnp.float32)
        logits = jnp.einsum("nuw,nvw->nuv", long, self.cross(short).astype(jnp.float32))  # f32
        weights = jax.nn.softmax(jnp.where(mask, logits, _LOWEST), axis=2)
        found = weights @ short  # [N, U, W]
        o = jax.nn.relu(self.mix(jnp.concatenate([found * long, found - long], axis=-1)))
        _, e = self.final(o, mask)
        return self.output(e)[:, 0]


class _EncoderLayer(nnx.Module):
    """Self-attention and a feed-forward pair, each behind a layer norm.

    Where the input is wider than the layer, the attention has no residual.
    """

    def __init__(self, features: int, model: ConfigDict, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        width = model.fusion_width
        self.heads, self.rate = model.fusion_heads, model.dropout
        self.attention_norm = LayerNorm(features, epsilon=_EPSILON, dtype=dtype, rngs=rngs)
        self.query_key_value = HeadLinear(features, 3 * width, dtype=dtype, rngs=rngs)
        self.out = HeadLinear(width, width, dtype=dtype, rngs=rngs)
        self.inner_norm = LayerNorm(width, epsilon=_EPSILON, dtype=dtype, rngs=rngs)
        self.inner = HeadLinear(width, model.fusion_inner, dtype=dtype, rngs=rngs)
        self.outer = HeadLinear(model.fusion_inner, width, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: Float[Array, "N U I"], mask: Bool[Array, "U"], key: PRNGKeyArray | None
    ) -> Float[Array, "N U W"]:
        keys = split_key(key, 4)
        projected = self.query_key_value(self.attention_norm(x))
        query, key_, value = jnp.split(projected, 3, axis=-1)  # [N, U, W] each
        present = jnp.broadcast_to(mask, x.shape[:2])
        mixed, _ = attend(
            query, key_, value, self.heads, present, rate=self.rate, dropout_key=keys[0]
        )
        mixed = dropout(self.out(mixed), self.rate, keys[1])
        x = x + mixed if x.shape == mixed.shape else mixed
        inner = dropout(jax.nn.relu(self.inner(self.inner_norm(x))), self.rate, keys[2])
        return x + dropout(self.outer(inner), self.rate, keys[3])


def _sinusoids(length: int, features: int) -> Float32[Array, "U M"]:
    """Returns sines in the even and cosines in the odd channels, wavelengths 2 pi to 20,000 pi."""
    channel = jnp.arange(features)
    rate = 10_000.0 ** (-(channel // 2 * 2) / features)
    angle = jnp.arange(length)[:, None] * rate
    return jnp.where(channel % 2 == 0, jnp.sin(angle), jnp.cos(angle)).astype(jnp.float32)
