"""CLIP: both sides on one unit sphere, trained on the batch's own pairs. docs/baselines/clip.md.

Source: Radford et al. 2021, Fig. 3. On the shared towers it is a trained dual encoder and not
zero-shot CLIP: a BERT and CLIP's image tower were never aligned with each other.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float
from ml_collections import ConfigDict

from int_ra_jax.common.types import Bank, Batch, Context, Sticker
from int_ra_jax.models import losses
from int_ra_jax.models.interface import Candidates, Facts
from int_ra_jax.models.layers import Linear, dropout, unit_norm
from int_ra_jax.models.towers.bert import BertModel
from int_ra_jax.models.towers.clip_vision import ClipVisionModel
from int_ra_jax.models.two_towers import TwoTowers


class CLIP(TwoTowers):
    """A dual encoder with a learnt temperature; see configs/clip.py for the switches.

    Args:
      text: the text tower; reads conversations.
      image: the image tower.
      config: the resolved configuration (sections model and loss).
      facts: of the towers and the data set; no label of it is read.
      rngs: for both projections.
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
        super().__init__(text, image, config)
        width, dtype = config.model.joint_width, jnp.dtype(config.model.dtype)
        projection = partial(Linear, use_bias=False, dtype=dtype, rngs=rngs)
        self.query_projection, self.image_projection = (
            projection(size, width, kernel_init=jax.nn.initializers.normal(size**-0.5))
            for size in (text.config.hidden_size, image.config.hidden_size)
        )
        self.logit_scale = nnx.Param(jnp.asarray(-np.log(config.loss.temperature), jnp.float32))
        self.dup_policy: str = config.loss.dup_policy

    def encode_context(self, batch: Batch, *, key: Array | None = None) -> Context:
        """Returns unit queries."""
        keys = (None, None) if key is None else tuple(jax.random.split(key))
        h = self.text_vectors(batch.context, batch.context_hidden, keys[0])
        return Context(query=unit_norm(self.query_projection(dropout(h, self.dropout, keys[1]))))

    def encode_sticker(
        self, bank: Bank, *, key: Array | None = None, attention: bool = False
    ) -> Sticker:
        """Returns unit embeddings of the class token; nothing attends to attributes here."""
        cls = dropout(self.image_tokens(bank)[:, 0], self.dropout, key)
        return Sticker(embedding=unit_norm(self.image_projection(cls)))

    def loss(
        self,
        context: Context,
        sticker: Sticker,
        batch: Batch,
        candidates: Candidates,
        *,
        key: Array,
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        """Returns the symmetric contrastive loss of the batch; nothing is drawn."""
        scale = self.logit_scale[...]
        negative = negatives(batch, candidates, self.dup_policy)
        total = losses.infonce(self.score(context, sticker), negative, scale)
        return total, {
            "loss/total": total,
            "loss/retrieval": total,
            "retrieval/scale": jnp.exp(scale),
        }


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
    return losses.negative_pairs(
        batch.sticker, batch.intention, candidates.index, candidates.intentions, False
    )
