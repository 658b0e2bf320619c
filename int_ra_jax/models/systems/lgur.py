"""LGUR: both sides rebuilt from one dictionary, then read by the same few queries.

    X   = BiLSTM of the conversation's tokens [B, L, W]      I = the sticker's patches [N, R, W]
    X_d = Rec(X, dictionary)                                 I_d = m * Rec(I, dictionary)
    training only:                                           I_g = m * Rec(I, X), pair by pair
    parts = Dec(queries, any of the four), each part projected by its own matrix [*, K, P]

A conversation is ranked by the parts of X_d and I_d alone, so a gallery is encoded once. I_g has
read the conversation it is compared with, hence it exists only inside ``loss``.
Source: Shao et al. 2022; docs/baselines/lgur.md walks through it.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx, struct
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Float32, Int

from int_ra_jax.common.types import Bank, Batch, Context, Sticker
from int_ra_jax.models import losses
from int_ra_jax.models.compared import Compared, first
from int_ra_jax.models.interface import Candidates, LossAndMetrics, Setup
from int_ra_jax.models.layers import (
    HeadLinear,
    LayerNorm,
    Linear,
    attend,
    dropout,
    split_key,
    unit_norm,
)
from int_ra_jax.models.systems.lgur_losses import different_pairs, ranking_loss
from int_ra_jax.models.two_towers import dot_products

_DECODER_BLOCKS = 2


class BiLSTM(nnx.Module):
    """One layer of LSTM in each direction, without biases; the two outputs are averaged.

    Padded steps leave the state as it is, so the backward direction starts at the last real token
    whatever the row's length. Not ``nnx.RNN``: it carries the parameters through its loop, which
    fails where a batch is encoded in parts, and its cells cannot leave out the bias.
    """

    def __init__(self, inputs: int, width: int, *, dtype: Any, rngs: nnx.Rngs) -> None:
        # Uniform in +-width**-0.5 for both kernels, as the reference's library draws them.
        read, carried = (
            jax.nn.initializers.variance_scaling(size / (3 * width), "fan_in", "uniform")
            for size in (inputs, width)
        )
        # Both directions read in one product; each carries its own state.
        self.read = Linear(
            inputs, 8 * width, use_bias=False, dtype=dtype, kernel_init=read, rngs=rngs
        )
        self.ahead, self.back = (
            Linear(width, 4 * width, use_bias=False, dtype=dtype, kernel_init=carried, rngs=rngs)
            for _ in range(2)
        )

    def __call__(
        self, tokens: Float[Array, "B L Dt"], mask: Bool[Array, "B L"]
    ) -> Float32[Array, "B L W"]:
        """Returns the average of both directions' hidden states.

        Args:
          tokens: [B, L, Dt].
          mask: [B, L], True where a token is real; the real ones come first.

        Returns:
          [B, L, W]; what stands at the padding must not be read.
        """
        read = self.read(tokens).swapaxes(0, 1)  # [L, B, 8 W]: time first
        ahead, back = jnp.split(read, 2, axis=-1)
        both = self._run(self.ahead, ahead, mask.T) + self._run(self.back, back, mask.T, True)
        return (0.5 * both).swapaxes(0, 1)

    def _run(self, cell: Linear, inputs: Array, mask: Array, reverse: bool = False) -> Array:
        zero = jnp.zeros((inputs.shape[1], cell.in_features), jnp.float32)

        def step(state: tuple[Array, Array], at: tuple[Array, Array]) -> Any:
            (memory, hidden), (x, real) = state, at
            gates = x.astype(jnp.float32) + cell(hidden).astype(jnp.float32)
            let_in, keep, value, let_out = jnp.split(gates, 4, axis=-1)
            new = jax.nn.sigmoid(keep) * memory + jax.nn.sigmoid(let_in) * jnp.tanh(value)
            seen = jax.nn.sigmoid(let_out) * jnp.tanh(new)
            real = real[:, None]
            memory, hidden = jnp.where(real, new, memory), jnp.where(real, seen, hidden)
            return (memory, hidden), hidden

        return jax.lax.scan(step, (zero, zero), (inputs, mask), reverse=reverse)[1]


class CrossBlock(nnx.Module):
    """x + Attn(LN(x), LN(y)), then x + FFN(LN'(x)); no attention among the x themselves.

    One LayerNorm serves x and y. Source: LGUR's blocks of DGA and of PGU.
    """

    def __init__(
        self, width: int, heads: int, head_width: int, hidden: int, *, dtype: Any, rngs: nnx.Rngs
    ) -> None:
        inner = heads * head_width
        self.heads = heads
        self.norm = LayerNorm(width, epsilon=1e-5, dtype=dtype, rngs=rngs)
        self.query, self.key, self.value = (
            HeadLinear(width, inner, use_bias=False, dtype=dtype, rngs=rngs) for _ in range(3)
        )
        self.out = HeadLinear(inner, width, dtype=dtype, rngs=rngs)
        self.ffn_norm = LayerNorm(width, epsilon=1e-5, dtype=dtype, rngs=rngs)
        self.ffn_in = HeadLinear(width, hidden, dtype=dtype, rngs=rngs)
        self.ffn_out = HeadLinear(hidden, width, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "B Q W"],
        y: Float[Array, "B M W"],
        mask: Bool[Array, "B M"] | None = None,
    ) -> Float[Array, "B Q W"]:
        """Returns x with what it found in y.

        Args:
          x: [B, Q, W].
          y: [B, M, W].
          mask: [B, M], True where y may be read; None where all of it may.
        """
        asked, read = self.norm(x), self.norm(y)
        query, key, value = self.query(asked), self.key(read), self.value(read)
        mixed, _ = attend(query, key, value, self.heads, mask)  # [B, Q, I]
        x = x + self.out(mixed)
        return x + self.ffn_out(jax.nn.relu(self.ffn_in(self.ffn_norm(x))))


@struct.dataclass
class LgurContext(Context):
    """``query`` is all that ranking reads; the other leaves are None at evaluation.

    Attributes:
      tokens: f[B, L, W], X, which the guided stickers are rebuilt from.
      mask: bool[B, L], True where a token is real.
      plain_parts: f32[B, K, P], of X.
      rebuilt_parts: f32[B, K, P], of X_d.
    """

    tokens: Any = None
    mask: Any = None
    plain_parts: Any = None
    rebuilt_parts: Any = None


@struct.dataclass
class LgurSticker(Sticker):
    """``embedding`` is all that ranking reads; the other leaves are None at evaluation.

    Attributes:
      patches: f[N, R, W], I.
      foreground: f32[N, R, 1], m.
      rebuilt_parts: f32[N, K, P], of I_d.
    """

    patches: Any = None
    foreground: Any = None
    rebuilt_parts: Any = None


class LGUR(Compared):
    """Dictionary-based granularity alignment and prototype-based granularity unification.

    The image tower's patches are read, not its class token.

    Args:
      setup: of which the sections model and loss are read.
    """

    sharding_rules = ((r"dictionary|queries", PartitionSpec("fsdp")),)

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup, predicts_intention=True)
        model, loss = setup.config.model, setup.config.loss
        dtype, rngs = setup.dtype, setup.rngs
        if model.joint_width % model.parts:
            raise ValueError(
                f"model.joint_width={model.joint_width} is not divisible by "
                f"model.parts={model.parts}: every part has the same width."
            )
        width, part_width = model.token_width, model.joint_width // model.parts
        text_width, image_width = setup.widths
        normal = jax.nn.initializers.normal

        def block(head_width: int, hidden: int) -> CrossBlock:
            return CrossBlock(width, model.heads, head_width, hidden, dtype=dtype, rngs=rngs)

        self.words = BiLSTM(text_width, width, dtype=dtype, rngs=rngs)
        self.patches = HeadLinear(image_width, width, dtype=dtype, rngs=rngs)
        self.foreground = HeadLinear(width, 1, rngs=rngs)
        self.dictionary = nnx.Param(normal(1.0)(rngs.params(), (model.dictionary_size, width)))
        self.rebuild = block(model.rebuild_head, model.rebuild_ffn)
        self.queries = nnx.Param(normal(1.0)(rngs.params(), (model.parts, width)))
        self.decoder = nnx.List(
            block(model.decoder_head, model.decoder_ffn) for _ in range(_DECODER_BLOCKS)
        )
        fan_out = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        self.projections = nnx.List(
            Linear(width, part_width, use_bias=False, dtype=dtype, kernel_init=fan_out, rngs=rngs)
            for _ in range(model.parts)
        )
        self.classifiers = nnx.List(
            Linear(part_width, setup.facts.num_intentions, kernel_init=normal(0.001), rngs=rngs)
            for _ in range(model.parts)
        )
        self.margin, self.include_hard = loss.margin, loss.include_hard
        self.match_label = loss.match_label
        self.lambda_ret, self.lambda_int = loss.lambda_ret, loss.lambda_int

    def param_groups(self) -> dict[str, str]:
        """Returns {role: regex}; the reference trains the role ``fast`` at ten times the rate."""
        fast = r"(?:words|projections|classifiers)/.*"
        return {"text": r"text/.*", "image": r"image/.*", "fast": fast, "head": r".*"}

    # ---- both sides ---------------------------------------------------------------------------

    def from_dictionary(self, tokens: Float[Array, "B T W"]) -> Float[Array, "B T W"]:
        """Returns Rec(tokens, dictionary).

        No token sees another one here, so all of them ask as one long row, and the dictionary's
        keys and values are computed once and not once a row.
        """
        row = tokens.reshape(1, -1, tokens.shape[-1])  # [1, B T, W]
        return self.rebuild(row, self.dictionary[...][None]).reshape(tokens.shape)

    def parts(
        self, tokens: Float[Array, "B T W"], mask: Bool[Array, "B T"] | None = None
    ) -> Float32[Array, "B K P"]:
        """Returns Dec(queries, tokens), each part projected by its own matrix."""
        queries = self.queries[...]
        x = jnp.broadcast_to(queries, (tokens.shape[0], *queries.shape))  # [B, K, W]
        for block in self.decoder:
            x = block(x, tokens, mask)
        projected = [linear(x[:, part]) for part, linear in enumerate(self.projections)]  # [B, P]
        return jnp.stack(projected, axis=1).astype(jnp.float32)

    def encode_context(self, batch: Batch, *, key: Array | None = None) -> LgurContext:
        """Returns unit queries, the parts of X_d; in training also what the losses read."""
        mask = batch.context.mask
        tower_key, dropout_key = split_key(key, 2)
        tokens = self.text_tokens(batch.context, batch.context_hidden, tower_key)
        words = self.words(dropout(tokens, self.dropout, dropout_key), mask)  # [B, L, W]
        mask = self.read(batch.context).mask
        rebuilt = self.from_dictionary(words)
        if key is None:
            return self._context(self.parts(rebuilt, mask))
        # Both are read in one pass.
        both = self.parts(jnp.concatenate([rebuilt, words]), jnp.concatenate([mask, mask]))
        rebuilt_parts, plain_parts = jnp.split(both, 2)
        return dataclasses.replace(
            self._context(rebuilt_parts),
            tokens=words,
            mask=mask,
            plain_parts=plain_parts,
            rebuilt_parts=rebuilt_parts,
        )

    def _context(self, parts: Float32[Array, "B K P"]) -> LgurContext:
        context = LgurContext(query=as_vector(parts))
        if self.intention_match:
            logits = jnp.mean(jnp.stack(self._intentions(parts)), axis=0)
            context = dataclasses.replace(context, intention_logits=logits)
        return self.matched(context)

    def encode_sticker(self, bank: Bank, *, key: Array | None = None) -> LgurSticker:
        """Returns unit sticker embeddings, the parts of I_d; in training also I and its mask."""
        patches = self.patches(dropout(self.image_tokens(bank)[:, 1:], self.dropout, key))
        foreground = jax.nn.sigmoid(self.foreground(patches))  # [N, R, 1], f32
        rebuilt = self.parts(foreground * self.from_dictionary(patches))
        sticker = self.annotated(LgurSticker(embedding=as_vector(rebuilt)), bank)
        if key is None:
            return sticker
        return dataclasses.replace(
            sticker, patches=patches, foreground=foreground, rebuilt_parts=rebuilt
        )

    # ---- training -----------------------------------------------------------------------------

    def guided_parts(self, context: LgurContext, sticker: LgurSticker) -> Float32[Array, "B K P"]:
        """Returns the parts of I_g: sticker b rebuilt from the tokens of its own conversation b."""
        guided = self.rebuild(sticker.patches, context.tokens, context.mask)  # [B, R, W]
        return self.parts(sticker.foreground * guided)

    def loss(
        self, context: Context, sticker: Sticker, batch: Batch, candidates: Candidates, key: Array
    ) -> LossAndMetrics:
        """Returns lambda_ret * (four ranking losses) + lambda_int * (two of intentions)."""
        context, sticker = self.unmatched(context, sticker)
        assert isinstance(context, LgurContext) and isinstance(sticker, LgurSticker)
        golds = first(sticker, batch.sticker.shape[0])
        guided = self.guided_parts(context, golds)
        text, text_d, image_d = context.plain_parts, context.rebuilt_parts, golds.rebuilt_parts
        pairs = {
            "guided": (guided, text),
            "dictionary": (image_d, text_d),
            "text": (text, text_d),
            "image": (guided, image_d),
        }
        parts: dict[str, Array] = {}
        metrics: dict[str, Array] = {}
        if self.over_gallery:
            retrieval: Any = self.gallery_loss(context, sticker, batch, candidates, key)
        else:
            parts, metrics["ranking/active"] = self._ranking_losses(pairs, batch, key)
            retrieval = sum(parts.values())
        for name in ("guided", "dictionary"):
            of_image, of_text = (self._intention_loss(s, batch.intention) for s in pairs[name])
            parts[f"loss/intention_{name}"] = of_image + of_text
        intention = parts["loss/intention_guided"] + parts["loss/intention_dictionary"]
        return losses.weighted_sum(
            {"retrieval": (self.lambda_ret, retrieval), "intention": (self.lambda_int, intention)},
            {**parts, **metrics},
        )

    def _ranking_losses(
        self, pairs: dict[str, tuple[Array, Array]], batch: Batch, key: Array
    ) -> tuple[dict[str, Array], Float[Array, ""]]:
        """Returns the four ranking losses by name, and the share of anchors that have a term."""
        different = different_pairs(batch.sticker, batch.intention, self.match_label)
        parts, active = {}, []
        for (name, (rows, columns)), draw in zip(
            pairs.items(), jax.random.split(key, len(pairs)), strict=True
        ):
            scores = dot_products(as_vector(rows), as_vector(columns))  # [B, B], f32
            parts[f"loss/ranking_{name}"], share = ranking_loss(
                scores, different, self.margin, draw, include_hard=self.include_hard
            )
            active.append(share)
        return parts, jnp.mean(jnp.stack(active))

    def _intention_loss(
        self, parts: Float32[Array, "B K P"], intention: Int[Array, "B"]
    ) -> Float[Array, ""]:
        each = [losses.cross_entropy(logits, intention) for logits in self._intentions(parts)]
        return jnp.mean(jnp.stack(each))

    def _intentions(self, parts: Float32[Array, "B K P"]) -> list[Array]:
        """Returns logits of the intentions, part by part.

        Each part has a classifier that both modalities and branches share.
        """
        return [classifier(parts[:, part]) for part, classifier in enumerate(self.classifiers)]


def as_vector(parts: Float[Array, "B K P"]) -> Float32[Array, "B D"]:
    """Returns all parts beside each other as one unit vector."""
    return unit_norm(parts.reshape(parts.shape[0], -1))
