"""What every system is built on: two towers, the cut between frozen and live layers, and roles.

A system adds its heads, how it encodes both sides, its loss, and its score where that is no dot
product. What it need not repeat: texts and stickers become features here, from pixels and ids or
from the cache of the frozen layers' output.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Float32, Int

from int_ra_jax.common.pixels import normalise
from int_ra_jax.common.types import Bank, Batch, Context, Sticker, Tokens
from int_ra_jax.models import losses
from int_ra_jax.models.interface import Candidates, Negatives, Params, Setup
from int_ra_jax.models.layers import Linear, Standardise, dropout, last_token, masked_mean
from int_ra_jax.models.towers import lora
from int_ra_jax.models.towers.bert import BertModel
from int_ra_jax.models.towers.clip_vision import ClipVisionModel

MAX_LOGIT_SCALE = float(np.log(100.0))  # CLIP's cap on the inverse temperature
_C = TypeVar("_C", bound=Context)
_S = TypeVar("_S", bound=Sticker)


def negative_pairs(
    batch: Batch, candidates: Candidates, spare_intention: bool, unseen_negatives: bool = True
) -> Bool[Array, "B C"]:
    """Returns which pairs of a conversation and a column are negatives; see ``losses``."""
    gold, columns = (batch.sticker, batch.intention), (candidates.index, candidates.intentions)
    return losses.negative_pairs(*gold, *columns, spare_intention, unseen_negatives)


def one_comparison(batch_size: int, columns: int) -> np.ndarray:
    """Returns the columns of one comparison with the bank: the live golds, then its stickers.

    The bank's own copy of the batch's golds is left out. Where the whole gallery follows, each of
    them stands in it once more.

    Args:
      batch_size: B.
      columns: C, of ``interface.Candidates`` with a bank.
    """
    return np.concatenate([np.arange(batch_size), np.arange(2 * batch_size, columns)])


def dot_products(query: Float[Array, "B D"], embedding: Float[Array, "C D"]) -> Float[Array, "B C"]:
    """Returns float32 dot products, never rounded to the few bits of an accelerator's default."""
    return jnp.einsum("bd,nd->bn", query, embedding, precision=jax.lax.Precision.HIGHEST)


def learnt_temperature(temperature: float) -> nnx.Param:
    """Returns the parameter ``logit_scale``, the logarithm of an inverse temperature."""
    return nnx.Param(jnp.asarray(-np.log(temperature), jnp.float32))


class TwoTowers(nnx.Module):
    """A text tower and an image tower, each with its frozen lower layers.

    Args:
      setup: of which the towers and ``config.model`` are read here.

    Attributes:
      reads: which texts besides the conversation the system encodes; see ``interface.System``.
      frames: which keys say in which pieces it encodes a conversation: none, as one text.
      sharding_rules: of what its heads hold besides linear layers; likewise.
      negatives: the batch's own gold stickers, unless a system says otherwise.
      embedding_width: channels of a sticker's embedding; see ``interface.System``.
      intention_width: channels at its end that hold the sticker's intentions.
      encodes_unseen: whether it encodes stickers that training has not known.
    """

    reads: frozenset[str] = frozenset()
    frames: tuple[str, ...] = ()
    sharding_rules: tuple[tuple[str, PartitionSpec], ...] = ()

    def __init__(self, setup: Setup) -> None:
        model = setup.config.model
        self.text, self.image = setup.text, setup.image
        self.text_frozen = _frozen_layers(model.text.frozen_layers, self.text, "model.text")
        self.image_frozen = _frozen_layers(model.image.frozen_layers, self.image, "model.image")
        self.text_lora, self.image_lora = model.text.lora_rank > 0, model.image.lora_rank > 0
        text_width, image_width = setup.widths
        self.text_standard = Standardise(text_width) if model.text.standardise else None
        self.image_standard = Standardise(image_width) if model.image.standardise else None
        self.text_pool: Literal["cls", "mean", "last"] = model.text_pool
        self.newest_turn: bool = model.newest_turn
        self.dropout: float = model.dropout
        self.compute_dtype = setup.dtype
        facts = setup.facts
        self.num_intentions, self.num_stickers = facts.num_intentions, facts.num_stickers
        self.intention_match: float = model.intention_match
        self.embedding_width: int = self.matched_width(model.joint_width)
        self.intention_width: int = self.matched_width(0)
        self.encodes_unseen: bool = True
        self.unseen_negatives: bool = setup.config.loss.unseen_negatives
        self.match_classifier: Linear | None = nnx.data(None)
        self.negatives = Negatives()

    @property
    def towers_frozen(self) -> bool:
        """Whether no layer of either tower trains."""
        towers = ((self.text, self.text_frozen), (self.image, self.image_frozen))
        return all(frozen == tower.config.num_hidden_layers for tower, frozen in towers)

    # ---- frozen lower layers and their caches -------------------------------------------------

    def text_rows(self, tokens: Tokens) -> Tokens:
        """Returns the texts of conversations that are read apart: one each, Tokens [B, L]."""
        return tokens

    def hidden_text(self, tokens: Tokens) -> Array | None:
        """Returns the frozen lower layers' output f[B, L, Dt], or None where none is frozen."""
        return self._text_prefix(tokens) if self.text_frozen else None

    def hidden_image(self, pixels: Array) -> Array | None:
        """Returns the frozen lower layers' output, or None where none is frozen.

        Args:
          pixels: u8[N, S, S, 3], or u8[N, F, S, S, 3] of several frames.

        Returns:
          f[N, 1+P, Dv], or f[N, F, 1+P, Dv].
        """
        return self._image_prefix(pixels) if self.image_frozen else None

    # ---- features -----------------------------------------------------------------------------

    def text_tokens(
        self,
        tokens: Tokens,
        hidden: Array | None,
        key: Array | None = None,
        *,
        cls_only: bool = False,
    ) -> Float[Array, "B T Dt"]:
        """Returns the features of texts, token by token.

        Args:
          tokens: Tokens [B, L].
          hidden: the frozen layers' output for them where it is cached, else None.
          key: for dropout in the live layers.
          cls_only: whether the first token is all that is wanted, T = 1; T = L otherwise.
        """
        if hidden is None:
            hidden = self._text_prefix(tokens, key)
        else:  # which may be kept in half precision
            hidden = hidden.astype(self.compute_dtype)
        features = self.text.suffix(
            hidden, tokens.mask, self.text_frozen, key=key, cls_only=cls_only
        )
        return features if self.text_standard is None else self.text_standard(features)

    def text_vectors(
        self, tokens: Tokens, hidden: Array | None, key: Array | None = None
    ) -> Float32[Array, "B Dt"]:
        """Returns one vector a text, pooled as ``model.text_pool`` says; see ``text_tokens``."""
        if self.text_pool == "cls":
            cls = self.text_tokens(tokens, hidden, key, cls_only=True)  # [B, 1, Dt]
            return cls[:, 0].astype(jnp.float32)
        return self.pooled(self.text_tokens(tokens, hidden, key), tokens)

    def pooled(self, features: Float[Array, "B L Dt"], tokens: Tokens) -> Float32[Array, "B Dt"]:
        """Returns one vector a text from all its tokens' features."""
        if self.text_pool == "mean":
            return masked_mean(features, tokens.mask)
        if self.text_pool == "last":
            return last_token(features, tokens.mask)
        return features[:, 0].astype(jnp.float32)

    def conversation_vectors(
        self, batch: Batch, tower_key: Array | None, dropout_key: Array | None
    ) -> Float32[Array, "B Dt"]:
        """Returns one vector a conversation, pooled and dropped out."""
        tokens = batch.context
        if self.newest_turn:
            features = self.text_tokens(tokens, batch.context_hidden, tower_key)
            h = self.pooled(features, self.read(tokens))
        else:
            h = self.text_vectors(tokens, batch.context_hidden, tower_key)  # [B, Dt], f32
        return dropout(h, self.dropout, dropout_key)

    def read(self, tokens: Tokens) -> Tokens:
        """Returns what a query reads of conversations: all of it, or only their newest turns.

        The tower has read every turn in either case.
        """
        if not self.newest_turn:
            return tokens
        newest = tokens.turn == 1
        return dataclasses.replace(tokens, mask=newest, words=tokens.words & newest)

    def attribute_vectors(self, bank: Bank, key: Array | None = None) -> Float32[Array, "N J Dt"]:
        """Returns one vector for each attribute; what stands where one is absent is any text's."""
        texts, hidden, index = self.attribute_texts(bank)
        return self.text_vectors(texts, hidden, key)[index]

    def attribute_texts(self, bank: Bank) -> tuple[Tokens, Array | None, Int[Array, "N J"]]:
        """Returns attribute texts, their cached output if there is one, and whose they are.

        Identical texts are encoded once; a few stickers gather theirs first.
        """
        texts, hidden, index = bank.attributes, bank.attribute_hidden, bank.attribute_index
        if index.size < texts.ids.shape[0]:
            flat = index.reshape(-1)
            texts = jax.tree.map(lambda leaf: leaf[flat], texts)
            hidden = None if hidden is None else hidden[flat]
            index = jnp.arange(index.size).reshape(index.shape)
        return texts, hidden, index

    def image_tokens(self, bank: Bank) -> Float[Array, "N T Dv"]:
        """Returns the features of stickers, the class token first, T = 1 + P.

        Those of a sticker with several frames are the mean over them.
        """
        hidden = bank.image_hidden
        hidden = self._image_prefix(bank.pixels) if hidden is None else hidden
        if hidden.ndim == 4:
            each = _of_frames(lambda rows: self.image.suffix(rows, self.image_frozen), hidden)
            features = jnp.mean(each.astype(jnp.float32), axis=1).astype(each.dtype)
        else:
            features = self.image.suffix(hidden, self.image_frozen)
        return features if self.image_standard is None else self.image_standard(features)

    def attention_maps(self, bank: Bank) -> Float[Array, "N J P"] | None:
        """Returns None: attributes attend to patches in Int-RA alone."""
        return None

    # ---- score --------------------------------------------------------------------------------

    def score(self, context: Context, sticker: Sticker) -> Float[Array, "B N"]:
        """Returns dot products: cosines, where both sides are unit vectors.

        With ``model.intention_match`` they hold that weight times the probability that the query's
        intention is one of those that train annotates the sticker with.
        """
        return dot_products(context.query, sticker.embedding)

    def matched_width(self, width: int) -> int:
        """Returns the channels of an embedding, those of ``model.intention_match`` included."""
        return width + (self.num_intentions if self.intention_match else 0)

    def matched(self, context: _C, features: Float[Array, "B W"] | None = None) -> _C:
        """Returns queries behind which the probabilities of the intentions stand, weighed.

        Args:
          context: encoded conversations. Where their query is None, since pairs are compared, it
            becomes these probabilities alone.
          features: what the classifier reads where the system has no prediction of its own.
        """
        if not self.intention_match:
            return context
        logits = context.intention_logits
        if self.match_classifier is not None:
            assert features is not None  # a system without a prediction of its own gives them
            logits = self.match_classifier(features)
        probable = self.intention_match * jax.nn.softmax(logits)
        return dataclasses.replace(
            context, query=_beside(context.query, probable), intention_logits=logits
        )

    def annotated(self, sticker: _S, bank: Bank) -> _S:
        """Returns embeddings behind which the intentions stand that train annotates them with."""
        if not self.intention_match:
            return sticker
        known = bank.intentions.astype(jnp.float32)
        return dataclasses.replace(sticker, embedding=_beside(sticker.embedding, known))

    def unmatched(self, context: _C, sticker: _S) -> tuple[_C, _S]:
        """Returns both sides as the losses see them, without ``model.intention_match``.

        The score learns to rank by itself and the intention's probability by its own loss: trained
        as a sum, each unlearns what the other knows (docs/tables/history.md).
        """
        if not self.intention_match:
            return context, sticker
        query, embedding = (
            x[:, : x.shape[1] - self.num_intentions] for x in (context.query, sticker.embedding)
        )
        plain = dataclasses.replace(context, query=query)
        return plain, dataclasses.replace(sticker, embedding=embedding)

    # ---- comparisons with the bank ------------------------------------------------------------

    def comparison(
        self,
        scores: Float[Array, "B C"],
        batch: Batch,
        candidates: Candidates,
        logit_scale: Float[Array, ""] | None,
        *,
        margin: float = 0.0,
        spare_intention: bool = True,
    ) -> losses.Comparison:
        """Returns what a loss of ``losses.RETRIEVAL`` reads.

        Args:
          scores: column b of row b is the gold sticker of conversation b.
          batch: the conversations.
          candidates: the columns.
          logit_scale: logarithm of the inverse temperature, where one is learnt.
          margin: of the scores.
          spare_intention: whether stickers annotated with the conversation's intention are no
            negatives.
        """
        negative = negative_pairs(batch, candidates, spare_intention, self.unseen_negatives)
        same = candidates.intentions[:, batch.intention].T  # [B, C]
        allowed = jnp.any(candidates.intentions, axis=1) | self.unseen_negatives
        return losses.Comparison(
            scores,
            positive=same | jnp.eye(scores.shape[0], scores.shape[1], dtype=bool),
            negative=negative,
            gold=batch.sticker[:, None] == candidates.index[None, :],
            allowed=allowed,
            copies=losses.copies(candidates.index, self.num_stickers),
            margin=margin,
            logit_scale=logit_scale,
        )

    # ---- parameters ---------------------------------------------------------------------------

    def param_groups(self) -> dict[str, str]:
        """Returns {role: regex}; the first full match counts."""
        return {"text": r"text/.*", "image": r"image/.*", "head": r".*"}

    def frozen_patterns(self) -> tuple[str, ...]:
        """Returns regexes of the parameters of frozen layers, and of those that LoRA freezes."""
        text = [rf"text/encoder/layer/{i}/.*" for i in range(self.text_frozen)]
        image = [rf"image/encoder/layers/{i}/.*" for i in range(self.image_frozen)]
        if text:
            text.append(r"text/embeddings/.*")
        if image:
            image += [r"image/embeddings/.*", r"image/pre_layrnorm/.*"]
        if self.image_frozen == self.image.config.num_hidden_layers:
            image.append(r"image/post_layernorm/.*")
        if self.text_standard is not None:
            text.append(r"text_standard/.*")
        if self.image_standard is not None:
            image.append(r"image_standard/.*")
        if self.text_lora:
            text.append(f"text/{lora.FROZEN}")
        if self.image_lora:
            image.append(f"image/{lora.FROZEN}")
        return (*text, *image)

    def post_update(self, params: Params) -> Params:
        """Projects a learnt temperature into CLIP's range after an optimiser step.

        A clamp in the forward pass would have no gradient beyond the cap and never come back.
        """
        if "logit_scale" not in params:
            return params
        return {**params, "logit_scale": jnp.clip(params["logit_scale"], 0.0, MAX_LOGIT_SCALE)}

    def _text_prefix(self, tokens: Tokens, key: Array | None = None) -> Float[Array, "B L Dt"]:
        key = None if self.text_frozen else key  # what is cached is drawn once and for all
        hidden = self.text.prefix(
            tokens.ids, tokens.mask, tokens.type_ids, self.text_frozen, key=key
        )
        # LoRA leaves the embeddings as they are.
        return jax.lax.stop_gradient(hidden) if self.text_frozen or self.text_lora else hidden

    def _image_prefix(self, pixels: Array) -> Float[Array, "*N T Dv"]:
        if pixels.ndim == 5:
            return _of_frames(self._image_prefix, pixels)
        shape = self.image.config
        scaled = normalise(pixels, shape.image_mean, shape.image_std)  # [N, S, S, 3], f32
        hidden = self.image.prefix(jnp.asarray(scaled), self.image_frozen)
        return jax.lax.stop_gradient(hidden) if self.image_frozen or self.image_lora else hidden


def _of_frames(compute: Callable[[Array], Array], frames: Array) -> Array:
    """Returns what is computed of [N * F, ...] for [N, F, ...], as [N, F, ...]."""
    number, count = frames.shape[:2]
    computed = compute(frames.reshape(number * count, *frames.shape[2:]))
    return computed.reshape(number, count, *computed.shape[1:])


def _beside(vectors: Array | None, others: Array) -> Array:
    return others if vectors is None else jnp.concatenate([vectors, others], axis=1)


def _frozen_layers(asked: int, tower: BertModel | ClipVisionModel, where: str) -> int:
    layers = tower.config.num_hidden_layers
    if not -1 <= asked <= layers:
        raise ValueError(
            f"{where}.frozen_layers={asked}: the tower has {layers} layers; "
            f"give 0 to {layers}, or -1 for all."
        )
    return layers if asked == -1 else asked
