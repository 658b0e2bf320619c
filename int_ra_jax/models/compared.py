"""What every compared system is offered besides its own method, all of it off by default.

Int-RA reads the stickers' attributes, trains against the whole gallery and may add what train says
of a sticker's intentions. A system that lacks these loses to it for want of them and not of a
method. Here each of them is had by every system, once, in one way (docs/comparison.md):

- ``loss.retrieval``: a loss over the gallery in place of the system's own retrieval loss;
- ``model.intention_match``: the intention's probability in the score (``TwoTowers.matched``);
- ``model.attributes``: what the sticker's attributes say, added to its image features.
"""

from typing import TypeVar

import jax
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from int_ra_jax.common.types import Bank, Batch, Context, Sticker
from int_ra_jax.models import losses
from int_ra_jax.models.interface import Candidates, Negatives, Setup
from int_ra_jax.models.layers import HeadLinear, masked_mean
from int_ra_jax.models.two_towers import (
    TwoTowers,
    dot_products,
    learnt_temperature,
    one_comparison,
)

_S = TypeVar("_S", bound=Sticker)
OWN = "own"  # the value of ``loss.retrieval`` that leaves a system its own loss


class Compared(TwoTowers):
    """Two towers with what is offered to all systems.

    Args:
      setup: of which ``model.attributes``, ``model.intention_match`` and ``loss`` are read here.
      match_width: channels that the classifier of ``model.intention_match`` reads; Dt by default.
      predicts_intention: whether the system predicts the conversation's intention by itself; else
        it gets a classifier of its own for ``model.intention_match``.
      temperature: initial one of a loss over the gallery; 1 where scores are no cosines.
      learns_temperature: whether the system's own loss learns one too.
    """

    def __init__(
        self,
        setup: Setup,
        *,
        match_width: int | None = None,
        predicts_intention: bool = False,
        temperature: float = 0.07,
        learns_temperature: bool = False,
    ) -> None:
        super().__init__(setup)
        model, loss, rngs = setup.config.model, setup.config.loss, setup.rngs
        text_width, image_width = setup.widths
        self.retrieval_loss: str = loss.retrieval
        reads = model.attributes == "on"
        self.reads = frozenset({"attributes"} if reads else ())
        # Without a bias, so that a sticker without any attribute stays as it is.
        self.attribute_projection = (
            HeadLinear(text_width, image_width, use_bias=False, dtype=setup.dtype, rngs=rngs)
            if reads
            else None
        )
        if self.intention_match and not predicts_intention:
            width = match_width or text_width
            self.match_classifier = HeadLinear(width, self.num_intentions, rngs=rngs)
        learns = learns_temperature or self.over_gallery
        self.logit_scale = learnt_temperature(temperature) if learns else None
        if self.over_gallery:
            self.negatives = Negatives(
                bank=True,
                size=loss.bank_size,
                live=self.stickers_frozen,
                refresh_steps=loss.bank_refresh_steps,
            )

    @property
    def over_gallery(self) -> bool:
        """Whether a loss over the gallery stands in place of the system's own."""
        return self.retrieval_loss != OWN

    @property
    def stickers_frozen(self) -> bool:
        """Whether no layer trains below the heads of the sticker side, so that it is cheap."""
        text = self.text_frozen == self.text.config.num_hidden_layers or not self.reads
        return text and self.image_frozen == self.image.config.num_hidden_layers

    def image_tokens(self, bank: Bank) -> Float[Array, "N T Dv"]:
        """Returns the features of stickers, the class token first, T = 1 + P.

        With ``model.attributes`` the mean of the attributes' vectors is added to every token: each
        system reads other ones of them.
        """
        features = super().image_tokens(bank)
        if self.attribute_projection is None:
            return features
        mean = masked_mean(self.attribute_vectors(bank), bank.attribute_mask)  # [N, Dt], f32
        return features + self.attribute_projection(mean)[:, None].astype(features.dtype)

    # ---- losses ------------------------------------------------------------------------------

    def gallery_loss(
        self, context: Context, sticker: Sticker, batch: Batch, candidates: Candidates, key: Array
    ) -> Float[Array, ""]:
        """Returns the loss over the gallery, computed and compared exactly as Int-RA's.

        Args:
          context: without ``model.intention_match``; see ``unmatched``.
          sticker: likewise; the batch's golds, then the bank's section.
          batch: the conversations.
          candidates: the columns.
          key: for dropout, where pairs run through a network.
        """
        assert self.logit_scale is not None
        columns = one_comparison(batch.sticker.shape[0], candidates.index.shape[0])
        scores = self.trained_scores(context, sticker, columns, key)
        comparison = self.comparison(
            scores, batch, candidates.columns(columns), self.logit_scale[...]
        )
        return losses.RETRIEVAL[self.retrieval_loss].compute(comparison)

    def trained_scores(
        self, context: Context, sticker: Sticker, columns: np.ndarray, key: PRNGKeyArray
    ) -> Float[Array, "B C"]:
        """Returns the scores that a loss over the gallery compares, of some of the columns.

        Dot products, for which nothing is drawn; a system that compares pairs has its own.
        """
        return dot_products(context.query, sticker.embedding[columns])

    def match_terms(
        self, context: Context, batch: Batch
    ) -> tuple[dict[str, tuple[float, Array]], dict[str, Array]]:
        """Returns loss term and metric of the classifier that ``model.intention_match`` adds.

        Both empty where there is none: a system's own prediction has its own loss.
        """
        if self.match_classifier is None:
            return {}, {}
        logits = context.intention_logits
        return (
            {"match_intention": (1.0, losses.cross_entropy(logits, batch.intention))},
            {"intention/accuracy": losses.accuracy(logits, batch.intention)},
        )


def first(sticker: _S, number: int) -> _S:
    """Returns the first stickers: the batch's golds, where a bank's section follows them."""
    rows: _S = jax.tree.map(lambda leaf: leaf[:number], sticker)
    return rows
