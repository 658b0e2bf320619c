"""IRRA (Jiang and Ye 2023): CLIP's two towers, trained by what the batch says matches.

Three losses: similarity distribution matching (SDM), a classifier of what a pair is about, and
hidden words guessed from the sticker (``irra_reasoning``). Only SDM's cosines are left when it
ranks. docs/baselines/irra.md tells what is the reference implementation's and what is ours.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx, struct
from jaxtyping import Array, Bool, Float, Float32, Int

from int_ra_jax.common.types import Bank, Batch, Context, Sticker
from int_ra_jax.models import losses
from int_ra_jax.models.compared import Compared, first
from int_ra_jax.models.interface import Candidates, LossAndMetrics, Setup
from int_ra_jax.models.layers import Linear, clip_projection, dropout, split_key, unit_norm
from int_ra_jax.models.systems.irra_reasoning import (
    HiddenWords,
    InteractionEncoder,
    WordHead,
    hide_words,
    masked_word_loss,
)

_TINY = 1e-8  # keeps the logarithm of an impossible match finite: 18.4 per unit of mass
_EXTRA_ROLES = frozenset({"bias", "cross", "joint"})


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
        log_p = jax.nn.log_softmax(logits, axis=1)  # [B, B], f32
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


class IRRA(Compared):
    """IRRA on a BERT and a CLIP tower; see configs/irra.py for the switches.

    A loss of weight 0 leaves out its modules as well.

    Args:
      setup: of which the sections model, loss and optim.multipliers are read.

    Raises:
      ValueError: if words are to be hidden and the vocabulary has no [MASK].
    """

    def __init__(self, setup: Setup) -> None:
        config, facts, dtype, rngs = setup.config, setup.facts, setup.dtype, setup.rngs
        model, loss = config.model, config.loss
        self.by_sticker = loss.match_label == "sticker"
        predicts = bool(loss.lambda_id) and not self.by_sticker
        super().__init__(setup, predicts_intention=predicts)
        if loss.lambda_mlm and facts.special_ids.mask < 0:
            raise ValueError(
                "loss.lambda_mlm hides words behind [MASK], which the text tower's vocabulary does "
                "not have. Use --config.loss.lambda_mlm=0, or another text tower."
            )
        width = model.joint_width
        self.text_projection, self.image_projection = (
            clip_projection(size, width, dtype=dtype, rngs=rngs) for size in setup.widths
        )
        self.scale = 1.0 / loss.temperature
        self.lambda_ret, self.lambda_id = loss.lambda_ret, loss.lambda_id
        self.lambda_mlm = loss.lambda_mlm
        classes = facts.num_stickers if self.by_sticker else facts.num_intentions
        self.classifier = identity_classifier(width, classes, rngs) if loss.lambda_id else None
        hides = bool(loss.lambda_mlm)
        self.interaction = InteractionEncoder(model, dtype, rngs) if hides else None
        self.mlm_head = WordHead(model, facts.text, dtype, rngs) if hides else None
        self.special, self.vocabulary = facts.special_ids, facts.text.vocab_size
        self.split_roles = not _EXTRA_ROLES.isdisjoint(config.optim.multipliers)

    # ---- the two sides ------------------------------------------------------------------------

    def encode_context(self, batch: Batch, *, key: Array | None = None) -> IrraContext:
        """Returns unit queries; with a key also the masked conversations, hidden anew each time."""
        tower_key, dropout_key, hide_key, masked_key = split_key(key, 4)
        h = self.conversation_vectors(batch, tower_key, dropout_key)
        feature = self.text_projection(h).astype(jnp.float32)
        context = IrraContext(query=unit_norm(feature))
        if self.intention_match and self.match_classifier is None and self.classifier is not None:
            context = dataclasses.replace(context, intention_logits=self.classifier(feature))
        context = self.matched(context, h)
        if hide_key is None:
            return context
        if not self.lambda_mlm:
            return dataclasses.replace(context, feature=feature)
        tokens, hidden = hide_words(batch.context, self.special, self.vocabulary, hide_key)
        # What is cached of frozen layers is that of the whole text; the masked one goes through.
        masked = self.text_projection(self.text_tokens(tokens, None, masked_key))  # [B, L, D]
        return dataclasses.replace(context, feature=feature, masked=masked, hidden=hidden)

    def encode_sticker(self, bank: Bank, *, key: Array | None = None) -> IrraSticker:
        """Returns unit embeddings of the class token; with a key also all tokens."""
        features = self.image_tokens(bank)
        if key is None:
            v = self.image_projection(features[:, 0]).astype(jnp.float32)
            return self.annotated(IrraSticker(embedding=unit_norm(v)), bank)
        tokens = self.image_projection(dropout(features, self.dropout, key))  # [N, 1+P, D]
        v = tokens[:, 0].astype(jnp.float32)
        sticker = IrraSticker(
            embedding=unit_norm(v), feature=v, tokens=tokens if self.lambda_mlm else None
        )
        return self.annotated(sticker, bank)

    # ---- loss ---------------------------------------------------------------------------------

    def loss(
        self, context: Context, sticker: Sticker, batch: Batch, candidates: Candidates, key: Array
    ) -> LossAndMetrics:
        """Returns lambda_ret L_sdm + lambda_id L_id + lambda_mlm L_mlm and its parts.

        Nothing is drawn here: the words were hidden when the conversations were encoded.
        """
        context, sticker = self.unmatched(context, sticker)
        assert isinstance(context, IrraContext) and isinstance(sticker, IrraSticker)
        golds = first(sticker, batch.sticker.shape[0])
        label, known = (
            (batch.sticker, "sticker") if self.by_sticker else (batch.intention, "intention")
        )
        if self.over_gallery:
            retrieval = self.gallery_loss(context, sticker, batch, candidates, key)
        else:
            match = label[:, None] == label[None, :]
            retrieval = similarity_distribution_matching(
                self.score(context, sticker), match, self.scale
            )
        more, metrics = self.match_terms(context, batch)
        terms = {"retrieval": (self.lambda_ret, retrieval), **more}
        metrics["label/entropy"] = label_entropy(label)
        if self.classifier is not None:
            by_text = self.classifier(context.feature)  # [B, stickers or K]
            by_image = self.classifier(golds.feature)
            identity = 0.5 * (
                losses.cross_entropy(by_text, label) + losses.cross_entropy(by_image, label)
            )
            terms["identity"] = (self.lambda_id, identity)
            metrics[f"{known}/accuracy"] = losses.accuracy(by_text, label)
        if context.hidden is not None:
            words, counted = context.hidden.words, context.hidden.counted
            logits = self.word_logits(context, golds, batch)
            terms["masked_words"] = (self.lambda_mlm, masked_word_loss(logits, words, counted))
            right = jnp.sum((jnp.argmax(logits, axis=-1) == words) & counted)
            metrics["masked_words/accuracy"] = right / jnp.maximum(jnp.sum(counted), 1)
        return losses.weighted_sum(terms, metrics)

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
        )  # [B, M, D]
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
            "head": r"(?:(?:classifier|mlm_head|match_classifier|attribute_projection)/.*)"
            r"|logit_scale",
            "bias": r"(?:.*/)?bias",
            "cross": r"interaction/(?:cross_attention|blocks)/.*",
            "joint": r"(?:(?:text|image)_projection|interaction)/.*",
            "text": r"text/.*",
            "image": r"image/.*",
        }
        heads = (self.classifier, self.mlm_head, self.match_classifier, self.attribute_projection)
        if not self.over_gallery and all(head is None for head in heads):
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
    return Linear(width, classes, kernel_init=jax.nn.initializers.normal(0.001), rngs=rngs)
