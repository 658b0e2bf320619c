"""The text tower: a BERT encoder whose parameters have the names of Hugging Face's Flax BERT.

One tower reads conversations, intention names and sticker attributes. ``prefix`` and ``suffix``
cut it at a layer, so that the output of frozen lower layers can be computed once and cached.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from int_ra_jax.models.layers import ACTIVATIONS, Embed, LayerNorm, Linear, attend, dropout
from int_ra_jax.models.towers.tower import Tower, TowerConfig


@dataclass(frozen=True)
class BertConfig(TowerConfig):
    """The shape of a BERT encoder; names and defaults are those of Hugging Face's config.json.

    A config.json may leave out what equals the default, so the defaults here are part of the file
    format and not a matter of taste.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12

    @classmethod
    def unsupported(cls, config: Mapping[str, Any]) -> list[str]:
        """Returns what a config asks for that this encoder does not do."""
        problems = []
        if config.get("position_embedding_type", "absolute") != "absolute":
            problems.append(
                f"position_embedding_type {config['position_embedding_type']!r}: only 'absolute'"
            )
        for switch in ("is_decoder", "add_cross_attention"):
            if config.get(switch):
                problems.append(f"{switch}: only an encoder can be a text tower")
        return problems


class BertModel(Tower):
    """BERT without its pooler: ids in, one feature vector per token out.

    Args:
      config: the shape; static.
      dtype: of the computation; parameters are float32.
      rngs: the stream ``params`` draws the initial parameters.
    """

    def __init__(
        self, config: BertConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> None:
        self.config = config
        self.embeddings = _Embeddings(config, dtype, rngs)
        layers = [_Layer(config, dtype, rngs) for _ in range(config.num_hidden_layers)]
        self.encoder = nnx.Dict(layer=nnx.List(layers))

    def __call__(
        self,
        ids: Int[Array, "B L"],
        mask: Bool[Array, "B L"],
        type_ids: Int[Array, "B L"],
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "B L Dt"]:
        """Returns the last hidden state; for the arguments see ``prefix``.

        Values at tokens that are not real are finite and unread; a row without real tokens is
        finite too, and means nothing.
        """
        hidden = self.prefix(ids, mask, type_ids, 0, key=key)
        return self.suffix(hidden, mask, 0, key=key)

    def prefix(
        self,
        ids: Int[Array, "B L"],
        mask: Bool[Array, "B L"],
        type_ids: Int[Array, "B L"],
        stop: int,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "B L Dt"]:
        """Returns the hidden state that enters layer ``stop``: what is cached of frozen layers.

        Args:
          ids: [B, L] vocabulary ids; L is at most ``config.max_position_embeddings``.
          mask: [B, L], True where a token is real.
          type_ids: [B, L], 0 for the conversation, 1 for the knowledge.
          stop: number of layers to run, 0 (embeddings only) to ``config.num_hidden_layers``.
          key: random key for dropout; the same key must reach ``suffix``.

        Returns:
          [B, L, Dt]; ``suffix(prefix(..., n), mask, n)`` is the whole tower for every n.

        Raises:
          ValueError: if L exceeds the position table or ``stop`` the number of layers.
        """
        hidden = self.embeddings(ids, type_ids, _fold(key, 0))
        return self._layers(hidden, mask, 0, stop, key)

    def suffix(
        self,
        hidden: Float[Array, "B L Dt"],
        mask: Bool[Array, "B L"],
        start: int,
        *,
        key: PRNGKeyArray | None = None,
        cls_only: bool = False,
    ) -> Float[Array, "B T Dt"]:
        """Returns the last hidden state from the one that enters layer ``start``.

        Args:
          hidden: [B, L, Dt] from ``prefix`` with the same number.
          mask: [B, L], True where a token is real.
          start: first layer to run, 0 to ``config.num_hidden_layers``.
          key: random key for dropout.
          cls_only: whether to return the first token alone, T = 1. The last layer then computes
            the others' keys and values and nothing else, which leaves a sixth of it.

        Returns:
          [B, T, Dt] features in the compute dtype, T = L unless ``cls_only``.

        Raises:
          ValueError: if ``start`` exceeds the number of layers.
        """
        last = self.config.num_hidden_layers
        if not cls_only:
            return self._layers(hidden, mask, start, last, key)
        if start < last:
            hidden = self._layers(hidden, mask, start, last - 1, key)  # [B, L, Dt]
            return self._layers(hidden, mask, last - 1, last, key, hidden[:, :1])
        return self._layers(hidden, mask, start, last, key)[:, :1]

    def _layers(
        self,
        hidden: jax.Array,
        mask: jax.Array,
        start: int,
        stop: int,
        key: PRNGKeyArray | None,
        wanted: jax.Array | None = None,
    ) -> jax.Array:
        def arguments(index: int) -> tuple[Any, ...]:
            return mask, _fold(key, index + 1), wanted

        return self.run(self.encoder["layer"], hidden, start, stop, arguments)


def _fold(key: PRNGKeyArray | None, number: int) -> PRNGKeyArray | None:
    """Derives a key by layer number, so that a tower cut in two draws what the whole one draws."""
    return None if key is None else jax.random.fold_in(key, number)


class _Embeddings(nnx.Module):
    def __init__(self, config: BertConfig, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        width = config.hidden_size
        self.word_embeddings = Embed(config.vocab_size, width, rngs=rngs)
        self.position_embeddings = Embed(config.max_position_embeddings, width, rngs=rngs)
        self.token_type_embeddings = Embed(config.type_vocab_size, width, rngs=rngs)
        self.LayerNorm = LayerNorm(width, epsilon=config.layer_norm_eps, dtype=dtype, rngs=rngs)
        self.rate = config.hidden_dropout_prob
        self.max_length = config.max_position_embeddings

    def __call__(self, ids: jax.Array, type_ids: jax.Array, key: PRNGKeyArray | None) -> jax.Array:
        length = ids.shape[-1]
        if length > self.max_length:
            raise ValueError(
                f"text of {length} tokens exceeds the {self.max_length} positions of this tower; "
                "lower the token budgets"
            )
        hidden = self.word_embeddings(ids) + self.token_type_embeddings(type_ids)  # [B, L, Dt]
        hidden = hidden + self.position_embeddings(jnp.arange(length))
        return dropout(self.LayerNorm(hidden), self.rate, key)


class _Layer(nnx.Module):
    def __init__(self, config: BertConfig, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        width, inner = config.hidden_size, config.intermediate_size
        linear = partial(Linear, dtype=dtype, rngs=rngs)
        projections = {name: linear(width, width) for name in ("query", "key", "value")}
        mixing = _Output(width, width, config, dtype, rngs)
        self.attention: Any = nnx.Dict({"self": nnx.Dict(projections), "output": mixing})
        self.intermediate = nnx.Dict(dense=linear(width, inner))
        self.output = _Output(inner, width, config, dtype, rngs)
        self.heads = config.num_attention_heads
        self.rate = config.attention_probs_dropout_prob
        self.act = ACTIVATIONS[config.hidden_act]

    def __call__(
        self,
        hidden: jax.Array,
        mask: jax.Array,
        key: PRNGKeyArray | None,
        wanted: jax.Array | None = None,
    ) -> jax.Array:
        # wanted [B, T, Dt]: the tokens of hidden whose features are asked for; None for all.
        wanted = hidden if wanted is None else wanted
        project = self.attention["self"]
        query, key_, value = (
            project["query"](wanted),
            project["key"](hidden),
            project["value"](hidden),
        )
        mixed, _ = attend(
            query, key_, value, self.heads, mask, rate=self.rate, dropout_key=_fold(key, 0)
        )
        mixed = self.attention["output"](mixed, wanted, _fold(key, 1))  # [B, T, Dt]
        inner = self.act(self.intermediate["dense"](mixed))
        return self.output(inner, mixed, _fold(key, 2))


class _Output(nnx.Module):
    """Projection, dropout, residual, LayerNorm: the end of both halves of a layer."""

    def __init__(
        self, inner: int, width: int, config: BertConfig, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> None:
        self.dense = Linear(inner, width, dtype=dtype, rngs=rngs)
        self.LayerNorm = LayerNorm(width, epsilon=config.layer_norm_eps, dtype=dtype, rngs=rngs)
        self.rate = config.hidden_dropout_prob

    def __call__(self, x: jax.Array, residual: jax.Array, key: PRNGKeyArray | None) -> jax.Array:
        return self.LayerNorm(dropout(self.dense(x), self.rate, key) + residual)
