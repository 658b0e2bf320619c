"""What training, evaluation and retrieval may touch of a system; nothing else.

A system is an NNX module. Outside this package it exists as a pair (graphdef, params), where
params is a plain nested dict of arrays with string keys: easy to match by path, to shard, to
save and to compare. ``merge`` puts the two together inside a jitted function.
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx, struct
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from int_ra_jax.common.types import Bank, Batch, Context, Sticker, Tokens
from int_ra_jax.models.towers.bert import BertConfig, BertModel
from int_ra_jax.models.towers.clip_vision import ClipVisionConfig, ClipVisionModel

Params = dict[str, Any]
LossAndMetrics = tuple[Float[Array, ""], dict[str, Array]]


@dataclass(frozen=True)
class SpecialIds:
    """Vocabulary ids of the text tower that are no words; -1 where the vocabulary has none."""

    pad: int
    cls: int
    sep: int
    mask: int


@dataclass(frozen=True)
class Facts:
    """What a system must know about its towers and its data set before it can be built.

    Attributes:
      text: shape of the text tower.
      image: shape of the image tower.
      num_intentions: K.
      num_stickers: N.
      intention_counts: how often each intention occurs in train.
      special_ids: of the text tower's vocabulary.
    """

    text: BertConfig
    image: ClipVisionConfig
    num_intentions: int
    num_stickers: int
    intention_counts: tuple[int, ...]
    special_ids: SpecialIds


@dataclass(frozen=True)
class Setup:
    """What every system is built from.

    Attributes:
      text: the text tower; every system reads conversations with it.
      image: the image tower.
      config: the resolved configuration.
      facts: of the towers and the data set.
      rngs: the stream ``params`` draws the initial parameters of the heads.
    """

    text: BertModel
    image: ClipVisionModel
    config: ConfigDict
    facts: Facts
    rngs: nnx.Rngs

    @property
    def dtype(self) -> Any:
        """What the heads compute in."""
        return jnp.dtype(self.config.model.dtype)

    @property
    def widths(self) -> tuple[int, int]:
        """Dt and Dv, the channels of the text tower's and of the image tower's features."""
        return self.text.config.hidden_size, self.image.config.hidden_size


@struct.dataclass
class Candidates:
    """The columns of a training score matrix.

    The first B columns are the batch's gold stickers, encoded live: column b belongs to anchor b.
    Where a system trains against the bank, a second section follows, which begins with the same B
    gold stickers as the bank holds them and goes on with the gallery's.

    Attributes:
      index: i32[C], gallery index of each column.
      intentions: bool[C, K], intentions with which each column is annotated in train.
    """

    index: jax.Array
    intentions: jax.Array

    def columns(self, which: Any) -> "Candidates":
        """Returns some of the columns: a slice, or their numbers."""
        return Candidates(self.index[which], self.intentions[which])


@runtime_checkable
class System(Protocol):
    """One retrieval system: two encoders, a score, a loss, and the roles of its parameters.

    Attributes:
      reads: which texts besides the conversation it encodes: "attributes" of the stickers, "names"
        of the intentions. Only these are cached where the text tower is frozen.
      frames: keys of ``config.model`` that say in which pieces a conversation is encoded; what is
        cached of it depends on them.
      text_frozen: lower layers of the text tower that do not train.
      negatives: which columns it trains against.
      embedding_width: channels of a sticker's embedding, those of its intentions included; 0 where
        pairs are compared and these are not.
      intention_width: channels at its end that hold the sticker's intentions.
      encodes_unseen: whether it encodes stickers that training has not known, by what they show.
      sharding_rules: (regex, axes) of what its heads hold besides kernels, biases, scales and
        ``logit_scale``; see ``training.sharding``. The regex matches the end of a parameter's
        path, from the start of a name on.
    """

    reads: frozenset[str]
    frames: tuple[str, ...]
    text_frozen: int
    negatives: "Negatives"
    embedding_width: int
    intention_width: int
    encodes_unseen: bool
    sharding_rules: tuple[tuple[str, PartitionSpec], ...]

    def encode_context(self, batch: Batch, *, key: Array | None = None) -> Context:
        """Encodes B conversations.

        ``key`` marks training: dropout is on, and what the loss alone reads is computed as well.
        """
        ...

    def encode_sticker(self, bank: Bank, *, key: Array | None = None) -> Sticker:
        """Encodes N stickers; ``key`` as for conversations."""
        ...

    def attention_maps(self, bank: Bank) -> Float[Array, "N J P"] | None:
        """Returns the share of its attention that each attribute gives to each patch, or None.

        None where attributes do not attend to patches.
        """
        ...

    def score(self, context: Context, sticker: Sticker) -> Float[Array, "B N"]:
        """Returns float32 scores, higher is better; a row or column never depends on others."""
        ...

    def loss(
        self, context: Context, sticker: Sticker, batch: Batch, candidates: Candidates, key: Array
    ) -> LossAndMetrics:
        """Returns the total loss and its parts and metrics, all scalars.

        ``key`` is for what the loss itself draws, such as negatives.
        """
        ...

    def text_tokens(self, tokens: Tokens, hidden: Array | None) -> Array:
        """Returns the features of texts, f[B, L, Dt]; hidden is ``hidden_text`` where cached."""
        ...

    def image_tokens(self, bank: Bank) -> Array:
        """Returns the features of stickers, f[N, T, Dv]."""
        ...

    def text_rows(self, tokens: Tokens) -> Tokens:
        """Returns the texts of conversations that are read apart, Tokens [B, L] or [B, U, T]."""
        ...

    def hidden_text(self, tokens: Tokens) -> Array | None:
        """Returns the frozen lower layers' output for texts, or None where none is frozen.

        Of conversations, Tokens with ``turn``, it is that of ``text_rows``; others are one text.
        """
        ...

    def hidden_image(self, pixels: Array) -> Array | None:
        """Returns the frozen lower layers' output for images, or None where none is frozen."""
        ...

    def param_groups(self) -> dict[str, str]:
        """Returns {role: regex of parameter paths}; together they cover every parameter."""
        ...

    def frozen_patterns(self) -> tuple[str, ...]:
        """Returns regexes of the parameters that the frozen layers hold."""
        ...

    def post_update(self, params: Params) -> Params:
        """Projects parameters back into their range after an optimiser step."""
        ...


@struct.dataclass
class Negatives:
    """Which columns a system trains against, besides the batch's own gold stickers.

    Attributes:
      bank: whether gallery stickers outside the batch are columns.
      size: how many of them are sampled per step; 0 = the whole gallery.
      live: whether they are encoded with gradient in every step (cheap once the towers are
        frozen and cached) or read from embeddings that are refreshed every ``refresh_steps``.
      refresh_steps: steps between refreshes; read when not live.
    """

    bank: bool = struct.field(pytree_node=False, default=False)
    size: int = struct.field(pytree_node=False, default=0)
    live: bool = struct.field(pytree_node=False, default=True)
    refresh_steps: int = struct.field(pytree_node=False, default=1)


def split(model: nnx.Module) -> tuple[nnx.GraphDef, Params]:
    """Takes a module apart into its structure and a plain dict of its parameters."""
    graphdef, state = nnx.split(model, nnx.Param)
    return graphdef, _string_keys(nnx.to_pure_dict(state))


def merge(graphdef: nnx.GraphDef, params: Params) -> Any:
    """Puts a module together again, as a rule a ``System``; inverse of ``split``.

    Parameters may be abstract: ``negatives`` and the like do not depend on their values.
    """
    return nnx.merge(graphdef, nnx.State(_layer_keys(params)))


def _string_keys(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    return {str(key): _string_keys(value) for key, value in tree.items()}


def _layer_keys(tree: Any) -> Any:
    # NNX addresses the layers of a list by int.
    if not isinstance(tree, dict):
        return nnx.Param(tree)
    return {int(key) if key.isdigit() else key: _layer_keys(value) for key, value in tree.items()}
