"""CLIP: both sides on one unit sphere, trained on the batch's own pairs. docs/baselines/clip.md.

Source: Radford et al. 2021, Fig. 3. On the shared towers it is a trained dual encoder and not
zero-shot CLIP: a BERT and CLIP's image tower were never aligned with each other.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool

from int_ra_jax.common.types import Bank, Batch, Context, Sticker
from int_ra_jax.models import losses
from int_ra_jax.models.compared import Compared
from int_ra_jax.models.interface import Candidates, LossAndMetrics, Setup
from int_ra_jax.models.layers import clip_projection, dropout, split_key, unit_norm
from int_ra_jax.models.two_towers import negative_pairs


class CLIP(Compared):
    """A dual encoder with a learnt temperature; see configs/clip.py for the switches.

    Args:
      setup: of which the sections model and loss are read; by default no label of the data set is.
    """

    def __init__(self, setup: Setup) -> None:
        loss, width = setup.config.loss, setup.config.model.joint_width
        super().__init__(setup, temperature=loss.temperature, learns_temperature=True)
        self.query_projection, self.image_projection = (
            clip_projection(size, width, dtype=setup.dtype, rngs=setup.rngs)
            for size in setup.widths
        )
        self.dup_policy: str = loss.dup_policy

    def encode_context(self, batch: Batch, *, key: Array | None = None) -> Context:
        """Returns unit queries."""
        h = self.conversation_vectors(batch, *split_key(key, 2))
        return self.matched(Context(query=unit_norm(self.query_projection(h))), h)

    def encode_sticker(self, bank: Bank, *, key: Array | None = None) -> Sticker:
        """Returns unit embeddings of the class token."""
        cls = dropout(self.image_tokens(bank)[:, 0], self.dropout, key)  # [N, Dv]
        return self.annotated(Sticker(embedding=unit_norm(self.image_projection(cls))), bank)

    def loss(
        self, context: Context, sticker: Sticker, batch: Batch, candidates: Candidates, key: Array
    ) -> LossAndMetrics:
        """Returns the symmetric contrastive loss of the batch; nothing is drawn."""
        assert self.logit_scale is not None
        scale = self.logit_scale[...]
        context, sticker = self.unmatched(context, sticker)
        if self.over_gallery:
            retrieval = self.gallery_loss(context, sticker, batch, candidates, key)
        else:
            negative = negatives(batch, candidates, self.dup_policy)
            retrieval = losses.infonce(self.score(context, sticker), negative, scale)
        terms, metrics = self.match_terms(context, batch)
        return losses.weighted_sum(
            {"retrieval": (1.0, retrieval), **terms}, {"retrieval/scale": jnp.exp(scale), **metrics}
        )


def negatives(batch: Batch, candidates: Candidates, dup_policy: str) -> Bool[Array, "B C"]:
    """Returns which pairs stand in the denominators besides the diagonal.

    Args:
      batch: of B conversations.
      candidates: their gold stickers.
      dup_policy: "none", as the original: every other pair, also where two conversations of the
        batch were answered by one sticker. "mask_same_sticker": not those.
    """
    if dup_policy == "none":
        return ~jnp.eye(batch.sticker.shape[0], candidates.index.shape[0], dtype=bool)
    return negative_pairs(batch, candidates, spare_intention=False)
