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
from ml_collections import ConfigDict

from int_ra_jax.common.pixels import normalise
from int_ra_jax.common.types import Bank, Batch, Context, Labels, Sticker, Tokens
from int_ra_jax.models import lora, losses
from int_ra_jax.models.bert import BertModel
from int_ra_jax.models.clip_vision import ClipVisionModel
from int_ra_jax.models.interface import Candidates, Negatives, Params
from int_ra_jax.models.layers import HeadLinear, dropout, masked_mean
from int_ra_jax.models.relation import RelationAwareSticker

MAX_LOGIT_SCALE = float(np.log(100.0))  # CLIP's cap on the inverse temperature


def unit_norm(x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """Returns float32 vectors of length 1; a zero vector keeps a finite gradient."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12)


class IntRA(nnx.Module):
    """The paper's model with all its readings; see configs/int_ra.py for the switches.

    Args:
      text: the text tower; reads conversations, attributes and intention names.
      image: the image tower.
      config: the resolved configuration (sections model and loss).
      num_intentions: K.
      intention_counts: how often each intention occurs in train, for class_weights=balanced.
      rngs: for the heads' initial parameters.
    """

    requires = frozenset({"context", "sticker", "intention", "labels"})

    def __init__(
        self,
        text: BertModel,
        image: ClipVisionModel,
        config: ConfigDict,
        *,
        num_intentions: int,
        intention_counts: Sequence[int],
        rngs: nnx.Rngs,
    ) -> None:
        model, loss = config.model, config.loss
        dtype = jnp.dtype(model.dtype)
        self.text, self.image = text, image
        self.text_frozen = _frozen_layers(model.text.frozen_layers, text, "model.text")
        self.image_frozen = _frozen_layers(model.image.frozen_layers, image, "model.image")
        self.text_lora, self.image_lora = model.text.lora_rank > 0, model.image.lora_rank > 0
        self.text_pool, self.dropout = model.text_pool, model.dropout
        self.intention_fusion = model.intention_fusion
        self.attribute_tokens, self.regions = model.attribute_tokens, model.regions

        width = text.config.hidden_size
        self.intention_classifier = HeadLinear(width, num_intentions, rngs=rngs)
        fused = self.intention_fusion == "fused"
        self.intention_fuse = (
            HeadLinear(2 * width, width, dtype=dtype, rngs=rngs) if fused else None
        )
        self.intention_norm = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs) if fused else None
        self.query_projection = HeadLinear(width, model.joint_width, dtype=dtype, rngs=rngs)
        self.relation = RelationAwareSticker(width, image.config.hidden_size, model, dtype, rngs)

        self.retrieval_loss, self.margin = loss.retrieval, loss.margin
        self.logit_scale = (
            nnx.Param(jnp.asarray(-np.log(loss.temperature), jnp.float32))
            if loss.retrieval in ("infonce", "multi_positive")
            else None
        )
        self.in_batch = loss.negatives in ("in_batch", "both")
        self.mask_same_intention = loss.mask_same_intention
        self.lambda_ret, self.lambda_int = loss.lambda_ret, loss.lambda_int
        self.label_smoothing = loss.label_smoothing
        self.class_weights = (
            _balanced(intention_counts) if loss.class_weights == "balanced" else None
        )
        self.negatives = Negatives(
            bank=loss.negatives in ("bank", "both"),
            size=loss.bank_size,
            # Whatever lies below the heads is then read from a cache, or is never recomputed.
            live=self._towers_frozen(),
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
        """Returns unit queries and intention logits (Eq. 3 to 6 and the left side of Eq. 13)."""
        keys = (None, None) if key is None else tuple(jax.random.split(key))
        h = self._text_vectors(batch.context, batch.context_hidden, keys[0])
        h = dropout(h, self.dropout, keys[1])
        logits = self.intention_classifier(h)  # un-normalised pooled state
        h_y = self._intention_representation(h, logits, batch.labels)
        return Context(query=unit_norm(self.query_projection(h_y)), intention_logits=logits)

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
        names = self._text_vectors(labels.tokens, labels.hidden)
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

    def encode_sticker(
        self, bank: Bank, *, key: Array | None = None, attention: bool = False
    ) -> Sticker:
        """Returns unit sticker embeddings (Eq. 8 to 12 and the right side of Eq. 13)."""
        keys = (None, None) if key is None else tuple(jax.random.split(key))
        regions = self._regions(self._image_tokens(bank))
        attributes, mask = None, None
        if self.relation.attention is not None:
            attributes, mask = self._attributes(bank, keys[0])
        h_r, mass = self.relation(regions, attributes, mask, keys[1])
        maps = None
        if attention and mass is not None and mask is not None and self.regions != "cls":
            maps = mass[:, :, 1:] if self.regions == "patches+cls" else mass
            if self.attribute_tokens == "all":  # mean over an attribute's real tokens
                shape = (*bank.attribute_index.shape, -1)
                weight = mask.reshape(shape)[..., None]
                maps = maps.reshape(*shape, maps.shape[-1])
                maps = jnp.sum(maps * weight, 2) / jnp.maximum(jnp.sum(weight, 2), 1)
        return Sticker(embedding=unit_norm(h_r), attention=maps)

    def _regions(self, tokens: Float[Array, "N T Dv"]) -> Float[Array, "N R Dv"]:
        spans = {"patches": slice(1, None), "patches+cls": slice(None), "cls": slice(0, 1)}
        return tokens[:, spans[self.regions]]

    def _attributes(
        self, bank: Bank, key: Array | None
    ) -> tuple[Float[Array, "N Q Dt"], Bool[Array, "N Q"]]:
        # Identical texts are encoded once; a few stickers gather theirs first.
        texts, hidden, index = bank.attributes, bank.attribute_hidden, bank.attribute_index
        if index.size < texts.ids.shape[0]:
            flat = index.reshape(-1)
            texts = jax.tree.map(lambda leaf: leaf[flat], texts)
            hidden = None if hidden is None else hidden[flat]
            index = jnp.arange(index.size).reshape(index.shape)
        if self.attribute_tokens == "pooled":
            return self._text_vectors(texts, hidden, key)[index], bank.attribute_mask
        tokens = self._text_tokens(texts, hidden, key)
        mask = texts.mask[index] & bank.attribute_mask[:, :, None]  # [N, J, A]
        width = tokens.shape[-1]
        tokens = tokens.astype(jnp.float32)  # a text's gradient adds up over its stickers
        return tokens[index].reshape(index.shape[0], -1, width), mask.reshape(index.shape[0], -1)

    # ---- score and loss: Eq. 13 and 14 --------------------------------------------------------

    def score(self, context: Context, sticker: Sticker) -> Float[Array, "B N"]:
        """Returns cosines (Eq. 13); queries and stickers are unit vectors already."""
        return jnp.einsum("bd,nd->bn", context.query, sticker.embedding)

    def loss(
        self, context: Context, sticker: Sticker, batch: Batch, candidates: Candidates
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        """Returns lambda_ret * L_ret + lambda_int * L_int and its parts."""
        size = batch.sticker.shape[0]
        scores = self.score(context, sticker)
        sections = self._sections(size, candidates.index.shape[0])
        retrieval = sum(
            self._retrieval_loss(
                scores[:, section],
                batch,
                Candidates(candidates.index[section], candidates.intentions[section]),
            )
            for section in sections
        ) / len(sections)
        weights = None if self.class_weights is None else jnp.asarray(self.class_weights)
        intention = losses.intention_loss(
            context.intention_logits, batch.intention, weights, self.label_smoothing
        )
        total = self.lambda_ret * retrieval + self.lambda_int * intention
        hits = jnp.argmax(context.intention_logits, axis=1) == batch.intention
        return total, {
            "loss/total": total,
            "loss/retrieval": retrieval,
            "loss/intention": intention,
            "intention/accuracy": jnp.mean(hits.astype(jnp.float32)),
        }

    def _sections(self, size: int, columns: int) -> list[np.ndarray]:
        """Returns the columns of each comparison; column b of each is the gold of anchor b."""
        live, bank = np.arange(size), np.arange(size, columns)
        if not self.negatives.bank:
            return [live]
        if not self.in_batch:
            return [bank]
        if self.retrieval_loss == "multi_positive":
            # The bank's stickers of the gold intention are positives too, so nothing is won by
            # moving away from the bank, and one softmax over the gallery keeps each sticker's
            # share of the answers, which the batch's own stickers alone would cancel.
            return [np.concatenate([live, bank[size:]])]
        # A live positive against stale negatives would reward embeddings for merely moving away
        # from what they were at the last refresh (docs/results.md): two comparisons.
        return [live, bank]

    def _retrieval_loss(
        self, scores: Float[Array, "B C"], batch: Batch, candidates: Candidates
    ) -> Float[Array, ""]:
        negative = losses.negative_pairs(
            batch.sticker,
            batch.intention,
            candidates.index,
            candidates.intentions,
            self.mask_same_intention,
        )
        if self.retrieval_loss == "hinge":
            return losses.hinge_loss(scores, negative, self.margin)
        if self.retrieval_loss == "literal_eq14":
            return losses.literal_eq14(scores, negative, self.margin)
        assert self.logit_scale is not None  # created for the two losses below
        scale = self.logit_scale[...]
        if self.retrieval_loss == "infonce":
            return losses.infonce(scores, negative, scale)
        same = candidates.intentions[:, batch.intention].T
        positive = same | jnp.eye(scores.shape[0], scores.shape[1], dtype=bool)
        return losses.multi_positive(scores, positive, negative & ~positive, scale)

    # ---- frozen lower layers and their caches -------------------------------------------------

    def hidden_text(self, tokens: Tokens) -> Array | None:
        """Returns the frozen lower layers' output f[B, L, Dt], or None where none is frozen."""
        return self._text_prefix(tokens) if self.text_frozen else None

    def hidden_image(self, pixels: Array) -> Array | None:
        """Returns the frozen lower layers' output f[N, 1+P, Dv], or None where none is frozen."""
        return self._image_prefix(pixels) if self.image_frozen else None

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
        if self.text_lora:
            text.append(f"text/{lora.FROZEN}")
        if self.image_lora:
            image.append(f"image/{lora.FROZEN}")
        return (*text, *image)

    def post_update(self, params: Params) -> Params:
        """Projects the temperature into CLIP's range after an optimiser step.

        A clamp in the forward pass would have no gradient beyond the cap and never come back.
        """
        if "logit_scale" not in params:
            return params
        return {**params, "logit_scale": jnp.clip(params["logit_scale"], 0.0, MAX_LOGIT_SCALE)}

    def _towers_frozen(self) -> bool:
        towers = ((self.text, self.text_frozen), (self.image, self.image_frozen))
        return all(frozen == tower.config.num_hidden_layers for tower, frozen in towers)

    def _text_prefix(self, tokens: Tokens, key: Array | None = None) -> Float[Array, "B L Dt"]:
        key = None if self.text_frozen else key  # what is cached is drawn once and for all
        hidden = self.text.prefix(
            tokens.ids, tokens.mask, tokens.type_ids, self.text_frozen, key=key
        )
        # LoRA leaves the embeddings as they are.
        return jax.lax.stop_gradient(hidden) if self.text_frozen or self.text_lora else hidden

    def _text_tokens(
        self,
        tokens: Tokens,
        hidden: Array | None,
        key: Array | None = None,
        *,
        cls_only: bool = False,
    ) -> Float[Array, "B T Dt"]:
        hidden = self._text_prefix(tokens, key) if hidden is None else hidden
        return self.text.suffix(hidden, tokens.mask, self.text_frozen, key=key, cls_only=cls_only)

    def _text_vectors(
        self, tokens: Tokens, hidden: Array | None, key: Array | None = None
    ) -> Float32[Array, "B Dt"]:
        if self.text_pool == "mean":
            return masked_mean(self._text_tokens(tokens, hidden, key), tokens.mask)
        cls = self._text_tokens(tokens, hidden, key, cls_only=True)
        return cls[:, 0].astype(jnp.float32)

    def _image_prefix(self, pixels: Array) -> Float[Array, "N T Dv"]:
        shape = self.image.config
        scaled = normalise(pixels, shape.image_mean, shape.image_std)
        hidden = self.image.prefix(jnp.asarray(scaled), self.image_frozen)
        return jax.lax.stop_gradient(hidden) if self.image_frozen or self.image_lora else hidden

    def _image_tokens(self, bank: Bank) -> Float[Array, "N T Dv"]:
        hidden = bank.image_hidden
        hidden = self._image_prefix(bank.pixels) if hidden is None else hidden
        return self.image.suffix(hidden, self.image_frozen)


def _frozen_layers(asked: int, tower: BertModel | ClipVisionModel, where: str) -> int:
    layers = tower.config.num_hidden_layers
    if not -1 <= asked <= layers:
        raise ValueError(
            f"{where}.frozen_layers={asked}: the tower has {layers} layers; "
            f"give 0 to {layers}, or -1 for all."
        )
    return layers if asked == -1 else asked


def _balanced(counts: Sequence[int]) -> tuple[float, ...]:
    # As scikit-learn's class_weight="balanced": the mean weight over the examples is 1.
    present = [max(count, 1) for count in counts]
    return tuple(sum(present) / (len(present) * count) for count in present)
