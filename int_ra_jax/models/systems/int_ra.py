"""Int-RA: an intention-aware query and a relation-aware sticker, ranked by cosine.

Every equation of the paper has its line here or in ``relation.py``; docs/fidelity.md walks
through them. The sticker side never sees the query, so a gallery is encoded once and searched by
dot product. Pooling, the classifier, unit vectors, scores and losses are float32 whatever the
towers and projections compute in (``model.dtype``).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Float32

from int_ra_jax.common.types import Bank, Batch, Context, Labels, Sticker
from int_ra_jax.models import losses
from int_ra_jax.models.interface import Candidates, LossAndMetrics, Negatives, Setup
from int_ra_jax.models.layers import (
    HeadLinear,
    LayerNorm,
    dropout,
    split_key,
    unit_norm,
)
from int_ra_jax.models.systems.relation import RelationAwareSticker
from int_ra_jax.models.two_towers import (
    TwoTowers,
    dot_products,
    learnt_temperature,
    one_comparison,
)


class IntRA(TwoTowers):
    """The paper's model with all its readings; see configs/int_ra.py for the switches.

    Args:
      setup: of which the sections model and loss are read.
    """

    reads = frozenset({"attributes", "names"})

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        model, loss, facts = setup.config.model, setup.config.loss, setup.facts
        dtype, rngs = setup.dtype, setup.rngs
        self.intention_fusion = model.intention_fusion
        self.attribute_tokens, self.regions = model.attribute_tokens, model.regions

        width, image_width = setup.widths
        # A frozen tower's features differ in spread from channel to channel, unless standardised.
        normed = model.newest_turn and not model.text.standardise
        self.newest_norm = LayerNorm(width, epsilon=1e-5, rngs=rngs) if normed else None
        self.intention_classifier = HeadLinear(width, facts.num_intentions, rngs=rngs)
        fused = self.intention_fusion == "fused"
        self.intention_fuse = (
            HeadLinear(2 * width, width, dtype=dtype, rngs=rngs) if fused else None
        )
        self.intention_norm = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs) if fused else None
        self.query_projection = HeadLinear(width, model.joint_width, dtype=dtype, rngs=rngs)
        self.relation = RelationAwareSticker(width, image_width, model, dtype, rngs)

        self.retrieval_loss, self.margin = loss.retrieval, loss.margin
        learns = losses.RETRIEVAL[loss.retrieval].learns_temperature
        self.logit_scale = learnt_temperature(loss.temperature) if learns else None
        self.in_batch = loss.negatives in ("in_batch", "both")
        self.mask_same_intention = loss.mask_same_intention
        self.lambda_ret, self.lambda_int = loss.lambda_ret, loss.lambda_int
        self.label_smoothing = loss.label_smoothing
        self.class_weights = (
            _balanced(facts.intention_counts) if loss.class_weights == "balanced" else None
        )
        self.negatives = Negatives(
            bank=loss.negatives in ("bank", "both"),
            size=loss.bank_size,
            # Whatever lies below the heads is then read from a cache, or is never recomputed.
            live=self.towers_frozen,
            refresh_steps=loss.bank_refresh_steps,
        )
        if loss.negatives == "bank" and not self.negatives.live:
            raise ValueError(
                "loss.negatives='bank' gives the stickers no gradient while a tower trains, since "
                "the bank's columns are stale then. Use --config.loss.negatives=both, or freeze "
                "both towers with frozen_layers=-1."
            )

    # ---- conversations: Eq. 3 to 6 ------------------------------------------------------------

    def encode_context(self, batch: Batch, *, key: Array | None = None) -> Context:
        """Returns queries and intention logits (Eq. 3 to 6 and the left side of Eq. 13).

        Queries are unit vectors; with ``model.intention_match`` the intention's probabilities,
        times that weight, stand behind them.
        """
        h = self._conversation(batch, key)
        logits = self.intention_classifier(h)  # [B, K], of the un-normalised pooled state
        h_y = self._intention_representation(h, logits, batch.labels)
        query = unit_norm(self.query_projection(h_y))
        return self.matched(Context(query=query, intention_logits=logits))

    def _conversation(self, batch: Batch, key: Array | None) -> Float32[Array, "B Dt"]:
        tower_key, dropout_key = split_key(key, 2)
        if self.newest_norm is None:
            return self.conversation_vectors(batch, tower_key, dropout_key)
        features = self.text_tokens(batch.context, batch.context_hidden, tower_key)
        h = self.newest_norm(self.pooled(features, self.read(batch.context)))
        return dropout(h, self.dropout, dropout_key)

    def _intention_representation(
        self, h: Float32[Array, "B Dt"], logits: Float[Array, "B K"], labels: Labels | None
    ) -> Float32[Array, "B Dt"]:
        # H^Y. As printed (hard_label) the query depends on the label alone and argmax stops the
        # gradient; "fused" keeps the conversation beside the expected label embedding.
        if self.intention_fusion == "off":
            return h
        if labels is None:
            raise ValueError(
                "batch.labels is missing: attach the intention names (Resident.attach)."
            )
        names = self.text_vectors(labels.tokens, labels.hidden)  # [K, Dt]
        soft = jax.nn.softmax(logits)
        hard = jax.nn.one_hot(jnp.argmax(logits, axis=1), logits.shape[1])
        weights = {
            "fused": soft,
            "soft_label": soft,
            "hard_label": hard,
            "straight_through": soft + jax.lax.stop_gradient(hard - soft),
        }[self.intention_fusion]
        expected = weights @ names  # [B, Dt]
        if self.intention_fuse is None or self.intention_norm is None:
            return expected
        fused = self.intention_fuse(jnp.concatenate([h, expected], axis=1))
        return self.intention_norm(fused.astype(jnp.float32))

    # ---- stickers: Eq. 7 to 12 ----------------------------------------------------------------

    def encode_sticker(self, bank: Bank, *, key: Array | None = None) -> Sticker:
        """Returns sticker embeddings (Eq. 8 to 12 and the right side of Eq. 13).

        They are unit vectors; with ``model.intention_match`` the intentions that train annotates
        the sticker with stand behind them, so that a dot product adds their probability.
        """
        h_r, _, _ = self._related(bank, key)
        return self.annotated(Sticker(embedding=unit_norm(h_r)), bank)

    def attention_maps(self, bank: Bank) -> Float[Array, "N J P"] | None:
        """Returns what each attribute attends to: the mean over heads, and over its real tokens."""
        _, mass, mask = self._related(bank, None)
        if mass is None or mask is None or self.regions == "cls":
            return None
        maps = mass[:, :, 1:] if self.regions == "patches+cls" else mass  # [N, Q, P]
        if self.attribute_tokens == "all":
            shape = (*bank.attribute_index.shape, -1)
            weight = mask.reshape(shape)[..., None]  # [N, J, A, 1]
            maps = maps.reshape(*shape, maps.shape[-1])  # [N, J, A, P]
            maps = jnp.sum(maps * weight, 2) / jnp.maximum(jnp.sum(weight, 2), 1)
        return maps

    def _related(
        self, bank: Bank, key: Array | None
    ) -> tuple[Float[Array, "N D"], Float[Array, "N Q R"] | None, Bool[Array, "N Q"] | None]:
        """Returns H^R, the attention mass of attributes on regions, and which attributes are."""
        text_key, relation_key = split_key(key, 2)
        spans = {"patches": slice(1, None), "patches+cls": slice(None), "cls": slice(0, 1)}
        regions = self.image_tokens(bank)[:, spans[self.regions]]  # [N, R, Dv]
        attributes, mask = None, None
        if self.relation.attention is not None:
            attributes, mask = self._attributes(bank, text_key)
        return *self.relation(regions, attributes, mask, relation_key), mask

    def _attributes(
        self, bank: Bank, key: Array | None
    ) -> tuple[Float[Array, "N Q Dt"], Bool[Array, "N Q"]]:
        if self.attribute_tokens == "pooled":
            return self.attribute_vectors(bank, key), bank.attribute_mask
        texts, hidden, index = self.attribute_texts(bank)
        tokens = self.text_tokens(texts, hidden, key)
        mask = texts.mask[index] & bank.attribute_mask[:, :, None]  # [N, J, A]
        tokens = tokens.astype(jnp.float32)  # a text's gradient adds up over its stickers
        rows, width = index.shape[0], tokens.shape[-1]
        return tokens[index].reshape(rows, -1, width), mask.reshape(rows, -1)  # Q = J A

    # ---- score and loss: Eq. 13 and 14 --------------------------------------------------------

    def loss(
        self, context: Context, sticker: Sticker, batch: Batch, candidates: Candidates, key: Array
    ) -> LossAndMetrics:
        """Returns lambda_ret * L_ret + lambda_int * L_int and its parts; nothing is drawn."""
        context, sticker = self.unmatched(context, sticker)
        scores = dot_products(context.query, sticker.embedding)  # [B, C], f32
        sections = self._sections(*scores.shape)
        retrieval = sum(
            self._retrieval_loss(scores[:, section], batch, candidates.columns(section))
            for section in sections
        ) / len(sections)
        weights = None if self.class_weights is None else jnp.asarray(self.class_weights)
        intention = losses.cross_entropy(
            context.intention_logits, batch.intention, weights, self.label_smoothing
        )
        return losses.weighted_sum(
            {"retrieval": (self.lambda_ret, retrieval), "intention": (self.lambda_int, intention)},
            {"intention/accuracy": losses.accuracy(context.intention_logits, batch.intention)},
        )

    def _sections(self, size: int, columns: int) -> list[np.ndarray]:
        """Returns the columns of each comparison; column b of each is the gold of anchor b."""
        live, bank = np.arange(size), np.arange(size, columns)
        if not self.negatives.bank:
            return [live]
        if not self.in_batch:
            return [bank]
        if losses.RETRIEVAL[self.retrieval_loss].compares_once:
            return [one_comparison(size, columns)]
        # A live positive against stale negatives would reward embeddings for merely moving away
        # from what they were at the last refresh (docs/tables/history.md): two comparisons.
        return [live, bank]

    def _retrieval_loss(
        self, scores: Float[Array, "B C"], batch: Batch, candidates: Candidates
    ) -> Float[Array, ""]:
        comparison = self.comparison(
            scores,
            batch,
            candidates,
            None if self.logit_scale is None else self.logit_scale[...],
            margin=self.margin,
            spare_intention=self.mask_same_intention,
        )
        return losses.RETRIEVAL[self.retrieval_loss].compute(comparison)


def _balanced(counts: Sequence[int]) -> tuple[float, ...]:
    # As scikit-learn's class_weight="balanced": the mean weight over the examples is 1.
    present = [max(count, 1) for count in counts]
    return tuple(sum(present) / (len(present) * count) for count in present)
