"""MOD: a conversation says which image features its sticker has. docs/baselines/mod.md.

Source: Fei et al. 2021 (DSTC10, track 1). The text tower stands for its GPT-2, and the last real
token, the [SEP] behind the replying user, for its [TAG].
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from int_ra_jax.common.types import Bank, Batch, Context, Sticker
from int_ra_jax.models import losses
from int_ra_jax.models.compared import Compared
from int_ra_jax.models.interface import Candidates, LossAndMetrics, Setup
from int_ra_jax.models.layers import HeadLinear, split_key, unit_norm


def regression_loss(
    r: Float[Array, "B D"], f: Float[Array, "B D"], reduction: str
) -> Float[Array, ""]:
    """Returns the squared distance of predictions from their targets, mean over the batch.

    Args:
      r: what was predicted.
      f: what it should have been.
      reduction: over the channels. "sum", or "mean" as in the original, which for targets of
        length 1 is D times smaller and vanishes beside a cross-entropy.
    """
    squares = jnp.square(r.astype(jnp.float32) - f.astype(jnp.float32))
    return jnp.mean(jnp.sum(squares, axis=1) if reduction == "sum" else jnp.mean(squares, axis=1))


def augmented_query(r: Float[Array, "*B D"]) -> Float32[Array, "*B D1"]:
    """Returns [r; 1]: its product with ``augmented_item`` orders as the distance does."""
    r = r.astype(jnp.float32)
    return jnp.concatenate([r, jnp.ones_like(r[..., :1])], axis=-1)


def augmented_item(f: Float[Array, "*N D"]) -> Float32[Array, "*N D1"]:
    """Returns [f; -||f||^2 / 2], since -||r - f||^2 = 2 (r f - ||f||^2 / 2) - ||r||^2."""
    f = f.astype(jnp.float32)
    return jnp.concatenate([f, -0.5 * jnp.sum(f * f, axis=-1, keepdims=True)], axis=-1)


class MOD(Compared):
    """Regresses the sticker's image features, or classifies its id; see configs/mod.py.

    The image tower never trains, whatever ``model.image.frozen_layers`` says: under "regress" its
    features are the target, which would otherwise shrink to one point for all stickers, and under
    "id" they are not read.

    Args:
      setup: of which the sections model and loss are read.
    """

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup, predicts_intention=True, temperature=1.0)
        self.image_frozen = self.image.config.num_hidden_layers
        loss, facts, rngs = setup.config.loss, setup.facts, setup.rngs
        width, image_width = setup.widths
        regresses = setup.config.model.head == "regress"
        self.regression = HeadLinear(width, image_width, rngs=rngs) if regresses else None
        self.sticker_classifier = (
            None if regresses else HeadLinear(width, facts.num_stickers, rngs=rngs)
        )
        self.intention_classifier = HeadLinear(width, facts.num_intentions, rngs=rngs)
        self.embedding_width = self.matched_width(1 + (image_width if regresses else width))
        self.encodes_unseen = regresses  # the classifier's rows are those of the run's gallery
        self.mse: str = loss.mse
        self.lambda_ret: float = loss.lambda_ret
        self.lambda_int: float = loss.lambda_int

    def encode_context(self, batch: Batch, *, key: Array | None = None) -> Context:
        """Returns [r; 1], or under "id" [h; 1], and intention logits from the same state h."""
        h = self.conversation_vectors(batch, *split_key(key, 2))
        predicted = h if self.regression is None else self.regression(h)  # [B, Dv or Dt]
        logits = self.intention_classifier(h)
        return self.matched(Context(query=augmented_query(predicted), intention_logits=logits))

    def encode_sticker(self, bank: Bank, *, key: Array | None = None) -> Sticker:
        """Returns [f; -||f||^2 / 2], or under "id" the classifier's [W_s; b_s]; nothing is drawn.

        No gradient passes through f where it is a target: what a sticker's attributes add to it
        stays as it was drawn. A loss over the gallery, which has negatives, trains that.
        """
        if self.sticker_classifier is not None:
            kernel, bias = self.sticker_classifier.kernel, self.sticker_classifier.bias
            assert bias is not None  # a linear layer has one unless told otherwise
            rows = jnp.concatenate([kernel[...].T, bias[...][:, None]], axis=1)  # [N, Dt + 1]
            return self.annotated(Sticker(embedding=rows[bank.index]), bank)
        f = unit_norm(self.image_tokens(bank)[:, 0])
        f = f if self.over_gallery else jax.lax.stop_gradient(f)
        return self.annotated(Sticker(embedding=augmented_item(f)), bank)

    def loss(
        self, context: Context, sticker: Sticker, batch: Batch, candidates: Candidates, key: Array
    ) -> LossAndMetrics:
        """Returns lambda_ret * L_ret + lambda_int * L_int and its parts; nothing is drawn."""
        context, sticker = self.unmatched(context, sticker)
        predicted = context.query[:, :-1]
        if self.over_gallery:
            retrieval = self.gallery_loss(context, sticker, batch, candidates, key)
        elif self.sticker_classifier is not None:  # one class for each sticker of the gallery
            logits = self.sticker_classifier(predicted)  # [B, N]
            retrieval = losses.cross_entropy(logits, batch.sticker)
        else:
            retrieval = regression_loss(predicted, sticker.embedding[:, :-1], self.mse)
        intention = losses.cross_entropy(context.intention_logits, batch.intention)
        return losses.weighted_sum(
            {"retrieval": (self.lambda_ret, retrieval), "intention": (self.lambda_int, intention)},
            {"intention/accuracy": losses.accuracy(context.intention_logits, batch.intention)},
        )

    def frozen_patterns(self) -> tuple[str, ...]:
        """Returns regexes of the frozen parameters: the whole image tower, and the text's.

        With a target that no gradient passes through also what makes it of the attributes.
        """
        frozen = (*super().frozen_patterns(), r"image/.*")
        drawn = self.attribute_projection is not None and not self.over_gallery
        return (*frozen, r"attribute_projection/.*") if drawn else frozen

    @property
    def stickers_frozen(self) -> bool:
        """Whether no layer trains below the heads of the sticker side; the image tower never."""
        return not self.reads or self.text_frozen == self.text.config.num_hidden_layers
