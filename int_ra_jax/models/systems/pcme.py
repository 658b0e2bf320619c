"""PCME: both sides are Gaussians of the joint space, matched by the distances of their samples.

One context fits many stickers, and the scale of its Gaussian says how many. Training compares
samples of every pair of the batch; ranking takes the means, the sums of samples or the match
probability, as ``model.score`` says. docs/baselines/pcme.md walks through the equations.
Source: Chun et al. 2021, Probabilistic Embeddings for Cross-Modal Retrieval.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, struct
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Float32, Int

from int_ra_jax.common.types import Bank, Batch, Context, Sticker
from int_ra_jax.models import losses
from int_ra_jax.models.compared import Compared, first
from int_ra_jax.models.interface import Candidates, LossAndMetrics, Setup
from int_ra_jax.models.layers import HeadLinear, LayerNorm, Linear, dropout, split_key, unit_norm
from int_ra_jax.models.two_towers import dot_products, negative_pairs

# The losses are sums: beta and lambda weigh what they weighed at the original's batch size.
ORIGINAL_BATCH = 128
UNIFORMITY_POINTS = 128
_XAVIER = jax.nn.initializers.xavier_uniform()
_CONTEXTS, _STICKERS = 0, 1  # no conversation draws the evaluation noise of a sticker


@struct.dataclass
class SampledContext(Context):
    """Encoded conversations.

    Attributes:
      samples: f32[B, J, D], of each Gaussian; None where ranking does not read them.
      log_scale: f32[B, D], logarithm of the standard deviation; None at evaluation.
    """

    samples: Any = None
    log_scale: Any = None


@struct.dataclass
class SampledSticker(Sticker):
    """Encoded stickers; ``samples`` [N, J, D] and ``log_scale`` [N, D] as for conversations."""

    samples: Any = None
    log_scale: Any = None


def squared_distances(
    x: Float[Array, "B J D"], y: Float[Array, "N M D"]
) -> Float[Array, "B N J M"]:
    """Returns |x - y|^2 for every pair of items and every pair of their samples.

    Computed from a matrix product, which needs no array [B, N, J, M, D]; for vectors of about
    length 1 its rounding stays below the 1e-6 that ``distances`` adds.
    """
    products = jnp.einsum(
        "bjd,nmd->bnjm", x, y, precision="highest", preferred_element_type=jnp.float32
    )
    own = jnp.sum(x * x, axis=-1)[:, None, :, None] + jnp.sum(y * y, axis=-1)[None, :, None, :]
    return jnp.maximum(own - 2.0 * products, 0.0)


def distances(x: Float[Array, "B J D"], y: Float[Array, "N M D"]) -> Float[Array, "B N J M"]:
    """Returns sqrt(|x - y|^2 + 1e-6), whose gradient is finite where two samples are equal."""
    return jnp.sqrt(squared_distances(x, y) + 1e-6)


def match_probability(
    x: Float[Array, "B J D"],
    y: Float[Array, "N M D"],
    slope: Float[Array, ""] | float,
    shift: Float[Array, ""] | float,
) -> Float[Array, "B N"]:
    """Returns the mean over pairs of samples of sigmoid(2 s), s = -slope * distance + shift.

    The original's e^s / (e^s + e^-s) is the same number, but overflows for s above 88.
    """
    s = shift - slope * distances(x, y)  # [B, N, J, M], f32
    return jnp.mean(jax.nn.sigmoid(2.0 * s), axis=(2, 3))


def match_nll(
    x: Float[Array, "B J D"],
    y: Float[Array, "N M D"],
    match: Bool[Array, "B N"],
    slope: Float[Array, ""] | float,
    shift: Float[Array, ""] | float,
) -> Float[Array, "B N"]:
    """Returns -ln p where a pair matches and -ln(1 - p) where not, p = ``match_probability``.

    Symmetric in its sides, so that one direction is all that has to be computed.
    """
    s = shift - slope * distances(x, y)  # [B, N, J, M], f32
    sign = jnp.where(match, 1.0, -1.0)[:, :, None, None]
    pairs = s.shape[2] * s.shape[3]
    return jnp.log(pairs) - jax.nn.logsumexp(jax.nn.log_sigmoid(2.0 * sign * s), axis=(2, 3))


def vib(
    mean: Float[Array, "B D"], log_scale: Float[Array, "B D"], kl: str = "code"
) -> Float[Array, ""]:
    """Returns the information bottleneck: the sum over all Gaussians of their KL to N(0, I).

    Args:
      mean: of each Gaussian; the original takes that of its samples.
      log_scale: logarithm of the standard deviation.
      kl: "code" takes it for the logarithm of the variance, as the original's code does here and
        nowhere else; "correct" is the divergence.
    """
    log_variance = log_scale if kl == "code" else 2.0 * log_scale
    return -0.5 * jnp.sum(1.0 + log_variance - mean**2 - jnp.exp(log_variance))


def uniformity(points: Float[Array, "P D"]) -> Float[Array, ""]:
    """Returns ln of the mean over pairs of different points of exp(-2 |x - y|^2).

    Source: Wang and Isola 2020, Eq. (5) with t = 2.
    """
    number = points.shape[0]
    row, column = jnp.triu_indices(number, k=1)
    squares = squared_distances(points[:, None], points[:, None])[:, :, 0, 0]
    return jax.nn.logsumexp(-2.0 * squares[row, column]) - jnp.log(number * (number - 1) / 2)


def evaluation_noise(
    index: Int[Array, "B"], samples: int, width: int, side: int
) -> Float[Array, "B J D"]:
    """Returns noise that depends on an item's own index alone, so that rankings never change."""
    key = jax.random.fold_in(jax.random.key(0), side)
    return jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i), (samples, width)))(
        index
    )


class LocalAttention(nnx.Module):
    """Pools tokens by softmax(w2 tanh(W1 z)); a row without any token gives zeros."""

    def __init__(self, width: int, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.hidden = Linear(
            width, width // 2, use_bias=False, dtype=dtype, kernel_init=_XAVIER, rngs=rngs
        )
        self.weight = Linear(
            width // 2, 1, use_bias=False, dtype=dtype, kernel_init=_XAVIER, rngs=rngs
        )

    def __call__(
        self, tokens: Float[Array, "B L W"], mask: Bool[Array, "B L"]
    ) -> Float32[Array, "B W"]:
        """Returns one vector a row from the tokens that the mask keeps."""
        logits = self.weight(jnp.tanh(self.hidden(tokens)))[:, :, 0].astype(jnp.float32)  # [B, L]
        # The lowest finite number and not -inf, which would make NaN of a fully masked row.
        weights = jax.nn.softmax(jnp.where(mask, logits, jnp.finfo(jnp.float32).min)) * mask
        return jnp.einsum(
            "bl,blw->bw", weights.astype(tokens.dtype), tokens, preferred_element_type=jnp.float32
        )


class GaussianHead(nnx.Module):
    """Turns one side's features into the mean and the log scale of a Gaussian.

    Args:
      width: of the tower's features.
      joint_width: D.
      logsig_bias: what the log scale starts from, a constant beside the learnt bias.
      dtype: compute dtype of the linear layers.
      rngs: for the initial parameters.
    """

    def __init__(
        self, width: int, joint_width: int, logsig_bias: float, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        self.mean_attention = LocalAttention(width, dtype, rngs)
        self.mean_global = HeadLinear(width, joint_width, dtype=dtype, rngs=rngs)
        self.mean_local = Linear(width, joint_width, dtype=dtype, kernel_init=_XAVIER, rngs=rngs)
        self.mean_norm = LayerNorm(joint_width, epsilon=1e-5, rngs=rngs)
        self.scale_attention = LocalAttention(width, dtype, rngs)
        self.scale_local = Linear(width, joint_width, dtype=dtype, kernel_init=_XAVIER, rngs=rngs)
        self.logsig_bias = logsig_bias
        # A bias of its own would be the one above a second time.
        self.scale_global = HeadLinear(width, joint_width, use_bias=False, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        pooled: Float[Array, "B W"],
        tokens: Float[Array, "B L W"],
        mask: Bool[Array, "B L"],
    ) -> tuple[Float32[Array, "B D"], Float32[Array, "B D"]]:
        """Returns the unit mean and the log scale.

        Args:
          pooled: the whole item's feature.
          tokens: its local features.
          mask: which of them count.
        """
        local = self.mean_local(self.mean_attention(tokens, mask)).astype(jnp.float32)
        whole = self.mean_global(pooled).astype(jnp.float32)
        mean = unit_norm(self.mean_norm(whole + jax.nn.sigmoid(local)))
        local = self.scale_local(self.scale_attention(tokens, mask)).astype(jnp.float32)
        whole = self.scale_global(pooled).astype(jnp.float32)
        return mean, self.logsig_bias + local + whole


class PCME(Compared):
    """Probabilistic cross-modal embeddings; see configs/pcme.py for the switches.

    Args:
      setup: of which the sections model and loss are read.
    """

    sharding_rules = ((r"slope|shift", PartitionSpec()),)

    def __init__(self, setup: Setup) -> None:
        model, loss = setup.config.model, setup.config.loss
        self.scoring, self.samples = model.score, model.samples
        super().__init__(setup)
        self.context_head, self.sticker_head = (
            GaussianHead(width, model.joint_width, model.logsig_bias, setup.dtype, setup.rngs)
            for width in setup.widths
        )
        # Of the match probability, which a loss over the gallery reads only where it ranks.
        reads = not self.over_gallery or self.scoring == "match_prob"
        self.slope, self.shift = (
            nnx.Param(jnp.asarray(start, jnp.float32)) if reads else None
            for start in (loss.slope, loss.shift)
        )
        self.match, self.kl = loss.match, loss.kl
        self.beta, self.lambda_uniformity = loss.beta, loss.lambda_uniformity

    # ---- the two Gaussians --------------------------------------------------------------------

    def encode_context(self, batch: Batch, *, key: Array | None = None) -> SampledContext:
        """Returns what the score reads of each conversation; with a key, what the loss reads too.

        Without a key the samples are those of ``batch.example``.
        """
        tower_key, dropout_key, sample_key = split_key(key, 3)
        tokens = batch.context
        features = self.text_tokens(tokens, batch.context_hidden, tower_key)
        features = dropout(features, self.dropout, dropout_key)  # [B, L, Dt]
        tokens = self.read(tokens)
        pooled = self.pooled(features, tokens)
        gaussian = self.context_head(pooled, features, tokens.words)
        query, read = self._encoded(*gaussian, sample_key, batch.example, _CONTEXTS)
        return self.matched(SampledContext(query=query, **read), pooled)

    def encode_sticker(self, bank: Bank, *, key: Array | None = None) -> SampledSticker:
        """Returns what the score reads of each sticker; with a key, what the loss reads too.

        Without a key the samples are those of ``bank.index``.
        """
        _, dropout_key, sample_key = split_key(key, 3)
        features = dropout(self.image_tokens(bank), self.dropout, dropout_key)
        patches = features[:, 1:]  # [N, P, Dv]
        gaussian = self.sticker_head(features[:, 0], patches, jnp.ones(patches.shape[:2], bool))
        embedding, read = self._encoded(*gaussian, sample_key, bank.index, _STICKERS)
        return self.annotated(SampledSticker(embedding=embedding, **read), bank)

    def _encoded(
        self,
        mean: Float[Array, "B D"],
        log_scale: Float[Array, "B D"],
        key: Array | None,
        index: Int[Array, "B"],
        side: int,
    ) -> tuple[Float[Array, "B D"] | None, dict[str, Array | None]]:
        """Returns the vector that ranks, and what else is read of a Gaussian; None what is not."""
        size, width = mean.shape
        if key is None:
            noise = evaluation_noise(index, self.samples, width, side)
        else:
            noise = jax.random.normal(key, (size, self.samples, width))
        # Not brought back to length 1: the original does not either.
        samples = mean[:, None] + jnp.exp(log_scale)[:, None] * noise  # [B, J, D]
        # sum_jk z_j . z'_k, the original's score by samples, is one dot product of the sums.
        ranks = {"mean": mean, "matmul": jnp.sum(samples, axis=1), "match_prob": None}
        sampled = key is not None or self.scoring == "match_prob"
        return ranks[self.scoring], {
            "samples": samples if sampled else None,
            "log_scale": None if key is None else log_scale,
        }

    # ---- score and loss -----------------------------------------------------------------------

    def score(self, context: Context, sticker: Sticker) -> Float[Array, "B N"]:
        """Returns dot products of means or of summed samples, or match probabilities."""
        if self.scoring != "match_prob":
            return super().score(context, sticker)
        assert isinstance(context, SampledContext) and isinstance(sticker, SampledSticker)
        scores = self._probabilities(context, sticker)
        return scores + super().score(context, sticker) if self.intention_match else scores

    def trained_scores(
        self, context: Context, sticker: Sticker, columns: np.ndarray, key: Array
    ) -> Float[Array, "B C"]:
        """Returns what ranks, of some of the columns; nothing is drawn."""
        if self.scoring != "match_prob":
            return dot_products(context.query, sticker.embedding[columns])
        assert isinstance(context, SampledContext) and isinstance(sticker, SampledSticker)
        some = dataclasses.replace(sticker, samples=sticker.samples[columns])
        return self._probabilities(context, some)

    @property
    def stickers_frozen(self) -> bool:
        """Whether stickers are encoded live: samples, which pairs are compared by, are not kept."""
        return super().stickers_frozen or self.scoring == "match_prob"

    def _probabilities(
        self, context: SampledContext, sticker: SampledSticker
    ) -> Float[Array, "B N"]:
        assert self.slope is not None and self.shift is not None
        gallery, slope, shift = sticker.samples, self.slope[...], self.shift[...]
        # One conversation at a time: J x J distances to each sticker are held, not B of them.
        return jax.lax.map(
            lambda row: match_probability(row[None], gallery, slope, shift)[0], context.samples
        )

    def loss(
        self, context: Context, sticker: Sticker, batch: Batch, candidates: Candidates, key: Array
    ) -> LossAndMetrics:
        """Returns L_pair + beta * VIB + lambda * Unif, its parts and the mean log scales.

        The pair term grows with the square of the batch, VIB with the batch and Unif not at all;
        all are brought to the original's batch size, where beta and lambda are meant.
        """
        context, sticker = self.unmatched(context, sticker)
        assert isinstance(context, SampledContext) and isinstance(sticker, SampledSticker)
        golds = first(sticker, batch.sticker.shape[0])
        ratio = ORIGINAL_BATCH / batch.sticker.shape[0]
        if self.over_gallery:
            retrieval = self.gallery_loss(context, sticker, batch, candidates, key)
        else:
            retrieval = self._pair_loss(context, sticker, batch, candidates)
        bottleneck = ratio * sum(
            vib(jnp.mean(side.samples, axis=1), side.log_scale, self.kl)
            for side in (context, golds)
        )
        more, metrics = self.match_terms(context, batch)
        terms = {"retrieval": (1.0, retrieval), "vib": (self.beta, bottleneck), **more}
        if self.lambda_uniformity:
            spread = uniformity(_some_points(context.samples, golds.samples, key))
            terms["uniformity"] = (self.lambda_uniformity, spread)
        return losses.weighted_sum(
            terms,
            {
                "log_scale/context": jnp.mean(context.log_scale),
                "log_scale/sticker": jnp.mean(golds.log_scale),
                **metrics,
            },
        )

    def _pair_loss(
        self, context: SampledContext, sticker: SampledSticker, batch: Batch, candidates: Candidates
    ) -> Float[Array, ""]:
        assert self.slope is not None and self.shift is not None
        # A gold sticker that stands in several columns matches in each: as a mismatch it would be
        # told to be near and far at once.
        match = ~negative_pairs(batch, candidates, spare_intention=self.match == "label")
        nll = match_nll(context.samples, sticker.samples, match, self.slope[...], self.shift[...])
        ratio = ORIGINAL_BATCH / batch.sticker.shape[0]
        return 2.0 * ratio**2 * jnp.sum(nll)  # both directions, which are equal


def _some_points(
    contexts: Float[Array, "B J D"], stickers: Float[Array, "N J D"], key: Array
) -> Float[Array, "P D"]:
    # Without replacement: a point drawn twice is at distance 0 from itself, where Unif is largest.
    points = jnp.concatenate([contexts, stickers]).reshape(-1, contexts.shape[-1])  # [(B+N) J, D]
    number = points.shape[0]
    chosen = jax.random.choice(key, number, (min(UNIFORMITY_POINTS, number),), replace=False)
    return points[chosen]
