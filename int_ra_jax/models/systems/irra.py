"""IRRA (Jiang and Ye 2023): CLIP's two towers, trained by what the batch says matches.

Three losses: similarity distribution matching (SDM), a classifier of what a pair is about, and
hidden words guessed from the sticker (``irra_reasoning``). Only SDM's cosines are left when it
ranks. docs/baselines/irra.md tells what is the reference implementation's and what is ours.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx, struct
from jaxtyping import Array, Bool, Float, Float32, Int
from ml_collections import ConfigDict

from int_ra_jax.common.types import Bank, Batch, Context, Sticker
from int_ra_jax.models import losses
from int_ra_jax.models.interface import Candidates, Facts
from int_ra_jax.models.layers import Linear, dropout, unit_norm
from int_ra_jax.models.systems.irra_reasoning import (
    HiddenWords,
    InteractionEncoder,
    WordHead,
    hide_words,
    masked_word_loss,
)
from int_ra_jax.models.towers.bert import BertModel
from int_ra_jax.models.towers.clip_vision import ClipVisionModel
from int_ra_jax.models.two_towers import TwoTowers

_TINY = 1e-8  # keeps the logarithm of an impossible match finite: 18.4 per unit of mass
_EXTRA_ROLES = frozenset({"bias", "cross", "joint"})
_normal = jax.nn.initializers.normal


def similarity_distribution_matching(
    scores: Float[Array, "B B"], match: Bool[Array, "B B"], scale: float
) -> Float32[Array, ""]:
    """Returns KL(p || q) of both directions: p the softmax of scores, q even over what matches.

    The reverse direction of KL: mass on what does not match is punished, and it need not lie on
    every match. Each q is divided by the sum of its own row; the reference implementation divides
    column j by the sum of row j, which is the same only where matching is an equivalence.
    Source: IRRA, similarity distribution matching; there is no label smoothing.

    Args:
      scores: cosines of conversation i and sticker j.
      match: which pairs match; every row and column has at least one.
      scale: inverse temperature, a constant.
    """

    def one_way(logits: Float[Array, "B B"], match: Bool[Array, "B B"]) -> Float[Array, ""]:
        log_p = jax.nn.log_softmax(logits, axis=1)
        q = match / jnp.sum(match, axis=1, keepdims=True)
        return jnp.mean(jnp.sum(jnp.exp(log_p) * (log_p - jnp.log(q + _TINY)), axis=1))

    logits = scale * scores.astype(jnp.float32)
    return one_way(logits, match) + one_way(logits.T, match.T)


def label_entropy(label: Int[Array, "B"]) -> Float32[Array, ""]:
    """Returns the entropy of a batch's labels, in nats: at 0, SDM pulls all pairs together."""
    share = jnp.mean(label[:, None] == label[None, :], axis=1)
    return -jnp.mean(jnp.log(share))


@struct.dataclass
class IrraContext(Context):
    """What the losses read besides the query; None in evaluation.

    Attributes:
      feature: f32[B, D], the query before it is made a unit vector.
      masked: f[B, L, D], the masked text's tokens in the joint space.
      hidden: the words to guess.
    """

    feature: Any = None
    masked: Any = None
    hidden: HiddenWords | None = None


@struct.dataclass
class IrraSticker(Sticker):
    """What the losses read besides the embedding; None in evaluation.

    Attributes:
      feature: f32[N, D], the embedding before it is made a unit vector.
      tokens: f[N, 1+P, D], all tokens in the joint space.
    """

    feature: Any = None
    tokens: Any = None


class IRRA(TwoTowers):
    """IRRA on a BERT and a CLIP tower; see configs/irra.py for the switches.

    A loss of weight 0 leaves out its modules as well.

    Args:
      text: the text tower; reads conversations, and their masked copies in training.
      image: the image tower.
      config: the resolved configuration (sections model, loss and optim.multipliers).
      facts: of the towers and the data set.
      rngs: for the heads' initial parameters.

    Raises:
      ValueError: if words are to be hidden and the vocabulary has no [MASK].
    """

    def __init__(
        self,
        text: BertModel,
        image: ClipVisionModel,
        config: ConfigDict,
        *,
        facts: Facts,
        rngs: nnx.Rngs,
    ) -> None:
        model, loss = config.model, config.loss
        dtype = jnp.dtype(model.dtype)
        super().__init__(text, image, config)
        if loss.lambda_mlm and facts.special_ids.mask < 0:
            raise ValueError(
                "loss.lambda_mlm hides words behind [MASK], which the text tower's vocabulary does "
                "not have. Use --config.loss.lambda_mlm=0, or another text tower."
            )
        text_width, image_width = text.config.hidden_size, image.config.hidden_size
        width = model.joint_width

        def projection(features: int) -> Linear:
            init = _normal(features**-0.5)
            return Linear(features, width, use_bias=False, dtype=dtype, kernel_init=init, rngs=rngs)

        self.text_projection = projection(text_width)
        self.image_projection = projection(image_width)
        self.by_sticker = loss.match_label == "sticker"
        self.scale = 1.0 / loss.temperature
        self.lambda_ret, self.lambda_id = loss.lambda_ret, loss.lambda_id
        self.lambda_mlm = loss.lambda_mlm
        classes = facts.num_stickers if self.by_sticker else facts.num_intentions
        vocabulary = facts.text.vocab_size
        self.classifier = identity_classifier(width, classes, rngs) if loss.lambda_id else None
        self.interaction = InteractionEncoder(model, dtype, rngs) if loss.lambda_mlm else None
        self.mlm_head = (
            WordHead(
                width,
                (vocabulary, text_width),
                model.interaction_layers,
                tied=model.tie_mlm,
                dtype=dtype,
                rngs=rngs,
            )
            if loss.lambda_mlm
            else None
        )
        self.special, self.vocabulary = facts.special_ids, vocabulary
        self.split_roles = not _EXTRA_ROLES.isdisjoint(config.optim.multipliers)

    # ---- the two sides ------------------------------------------------------------------------

    def encode_context(self, batch: Batch, *, key: Array | None = None) -> IrraContext:
        """Returns unit queries; with a key also the masked conversations, hidden anew each time."""
        if key is None:
            return IrraContext(query=unit_norm(self._query(batch, None, None)))
        tower_key, head_key, hide_key, masked_key = jax.random.split(key, 4)
        feature = self._query(batch, tower_key, head_key)
        context = IrraContext(query=unit_norm(feature), feature=feature)
        if not self.lambda_mlm:
            return context
        tokens, hidden = hide_words(batch.context, self.special, self.vocabulary, hide_key)
        # What is cached of frozen layers is that of the whole text; the masked one goes through.
        masked = self.text_projection(self.text_tokens(tokens, None, masked_key))
        return context.replace(masked=masked, hidden=hidden)  # type: ignore[attr-defined,no-any-return]

    def _query(
        self, batch: Batch, tower_key: Array | None, head_key: Array | None
    ) -> Float32[Array, "B D"]:
        h = self.text_vectors(batch.context, batch.context_hidden, tower_key)
        h = dropout(h, self.dropout, head_key)
        return self.text_projection(h).astype(jnp.float32)

    def encode_sticker(
        self, bank: Bank, *, key: Array | None = None, attention: bool = False
    ) -> IrraSticker:
        """Returns unit embeddings of the class token; with a key also all tokens."""
        features = self.image_tokens(bank)
        if key is None:
            v = self.image_projection(features[:, 0]).astype(jnp.float32)
            return IrraSticker(embedding=unit_norm(v))
        tokens = self.image_projection(dropout(features, self.dropout, key))
        v = tokens[:, 0].astype(jnp.float32)
        return IrraSticker(
            embedding=unit_norm(v), feature=v, tokens=tokens if self.lambda_mlm else None
        )

    # ---- loss ---------------------------------------------------------------------------------

    def loss(
        self,
        context: Context,
        sticker: Sticker,
        batch: Batch,
        candidates: Candidates,
        *,
        key: Array,
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        """Returns lambda_ret L_sdm + lambda_id L_id + lambda_mlm L_mlm and its parts.

        Nothing is drawn here: the words were hidden when the conversations were encoded.
        """
        assert isinstance(context, IrraContext) and isinstance(sticker, IrraSticker)
        label = batch.sticker if self.by_sticker else batch.intention
        match = label[:, None] == label[None, :]
        retrieval = similarity_distribution_matching(
            self.score(context, sticker), match, self.scale
        )
        total = self.lambda_ret * retrieval
        parts = {"loss/retrieval": retrieval, "label/entropy": label_entropy(label)}
        if self.classifier is not None:
            by_text, by_image = self.classifier(context.feature), self.classifier(sticker.feature)
            identity = 0.5 * (
                losses.cross_entropy(by_text, label) + losses.cross_entropy(by_image, label)
            )
            total += self.lambda_id * identity
            parts["loss/identity"] = identity
            known = "sticker" if self.by_sticker else "intention"
            parts[f"{known}/accuracy"] = _mean(jnp.argmax(by_text, axis=1) == label)
        if context.hidden is not None:
            words, counted = context.hidden.words, context.hidden.counted
            logits = self.word_logits(context, sticker, batch)
            masked_words = masked_word_loss(logits, words, counted)
            total += self.lambda_mlm * masked_words
            parts["loss/masked_words"] = masked_words
            right = jnp.sum((jnp.argmax(logits, axis=-1) == words) & counted)
            parts["masked_words/accuracy"] = right / jnp.maximum(jnp.sum(counted), 1)
        return total, {"loss/total": total, **parts}

    def word_logits(
        self, context: IrraContext, sticker: IrraSticker, batch: Batch
    ) -> Float32[Array, "B M V"]:
        """Returns logits of the hidden words, conversation b read beside sticker b.

        Args:
          context: as encoded for training.
          sticker: likewise; row b is the gold sticker of conversation b.
          batch: the conversations.
        """
        assert self.interaction is not None and self.mlm_head is not None
        assert context.hidden is not None
        features = self.interaction(
            context.masked, batch.context.mask, sticker.tokens, context.hidden.positions
        )
        table = self.text.embeddings.word_embeddings.embedding[...]
        if self.text_frozen or self.text_lora:  # saves a gradient that nobody would use
            table = jax.lax.stop_gradient(table)
        return self.mlm_head(features, table)

    # ---- parameters ---------------------------------------------------------------------------

    def param_groups(self) -> dict[str, str]:
        """Returns {role: regex}; the first full match counts.

        Where the config has learning-rate factors for them, the reference implementation's roles:
        it tells biases, the interaction encoder and the heads apart by their names.
        """
        if not self.split_roles:
            return super().param_groups()
        groups = {
            "head": r"(?:classifier|mlm_head)/.*",
            "bias": r"(?:.*/)?bias",
            "cross": r"interaction/(?:cross_attention|blocks)/.*",
            "joint": r"(?:(?:text|image)_projection|interaction)/.*",
            "text": r"text/.*",
            "image": r"image/.*",
        }
        if self.classifier is None and self.mlm_head is None:
            del groups["head"]
        if self.interaction is None:
            del groups["cross"]
        return groups


def identity_classifier(width: int, classes: int, rngs: nnx.Rngs) -> Linear:
    """Returns the classifier of both sides' features; near zero, so that its loss starts at ln C.

    Args:
      width: D.
      classes: C.
      rngs: for the initial parameters.
    """
    return Linear(width, classes, kernel_init=_normal(0.001), rngs=rngs)


def _mean(hits: Bool[Array, "*B"]) -> Float32[Array, ""]:
    return jnp.mean(hits.astype(jnp.float32))
