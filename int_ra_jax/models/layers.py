"""The pieces that towers and heads are made of.

Modules hold parameters in float32 under the names of Hugging Face's Flax models (kernel, bias,
scale, embedding). Randomness enters through an explicit key, so that every call is a pure function.

Precision, where ``dtype`` is bfloat16: matrix products, activations, dropout and what passes from
layer to layer are bfloat16. Looked-up rows, the adding of biases, LayerNorm, softmax, pooling and
losses are float32, and so is every sum over a batch that gives a parameter its gradient.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Float32, Int, PRNGKeyArray

BERT_INIT = jax.nn.initializers.truncated_normal(0.02)  # of every weight created from scratch


class Linear(nnx.Linear):
    """A dense layer; parameters ``kernel`` [in, out] and ``bias`` [out], with LoRA two more.

    The bias is added in float32: its gradient is then summed over the batch in float32.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        use_bias: bool = True,
        dtype: DTypeLike = jnp.float32,
        kernel_init: nnx.Initializer = BERT_INIT,
        rngs: nnx.Rngs,
    ) -> None:
        super().__init__(
            in_features,
            out_features,
            use_bias=use_bias,
            dtype=dtype,
            kernel_init=kernel_init,
            rngs=rngs,
        )
        self.lora_a: nnx.Param[jax.Array] | None = nnx.data(None)
        self.lora_b: nnx.Param[jax.Array] | None = nnx.data(None)
        self.lora_scale = 1.0

    def add_lora(self, rank: int, alpha: float, rngs: nnx.Rngs) -> None:
        """Adds an update of low rank, zero at first, and stops the kernel's and bias's gradient.

        Args:
          rank: channels between ``lora_a`` [in, rank] and ``lora_b`` [rank, out], at least 1.
          alpha: the update is scaled by alpha / rank.
          rngs: the stream ``params`` draws ``lora_a``.
        """
        init = jax.nn.initializers.normal(self.in_features**-0.5)
        self.lora_a = nnx.Param(init(rngs.params(), (self.in_features, rank), jnp.float32))
        self.lora_b = nnx.Param(jnp.zeros((rank, self.out_features)))
        self.lora_scale = alpha / rank

    def __call__(  # type: ignore[override]  # without nnx's out_sharding, which nothing here sets
        self, x: Float[Array, "*B I"]
    ) -> Float[Array, "*B O"]:
        """Returns x W + b, and with LoRA + (alpha / rank) (x A) B, in the compute dtype."""
        x = x.astype(self.dtype)
        kernel, bias = self.kernel[...], None if self.bias is None else self.bias[...]
        if self.lora_a is None or self.lora_b is None:
            y = x @ kernel.astype(self.dtype)
        else:
            kernel, bias = jax.lax.stop_gradient((kernel, bias))
            update = x @ self.lora_a[...].astype(self.dtype) @ self.lora_b[...].astype(self.dtype)
            y = x @ kernel.astype(self.dtype) + self.lora_scale * update
        return y if bias is None else (y.astype(jnp.float32) + bias).astype(self.dtype)


class Standardise(nnx.Module):
    """Scales and shifts channels by constants, so that features have mean 0 and deviation 1.

    The constants are parameters that never train: a checkpoint holds them. They change nothing
    until a run measures them (``training.standardise``).

    Args:
      width: channels.
    """

    def __init__(self, width: int) -> None:
        self.scale = nnx.Param(jnp.ones(width, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(width, jnp.float32))

    def __call__(self, x: Float[Array, "*B W"]) -> Float[Array, "*B W"]:
        """Returns x * scale + bias, computed in float32, in the dtype of x."""
        scale, bias = (jax.lax.stop_gradient(p[...]) for p in (self.scale, self.bias))
        return (x.astype(jnp.float32) * scale + bias).astype(x.dtype)


# The layers above the towers, which start from larger kernels than BERT's.
HeadLinear = partial(Linear, kernel_init=jax.nn.initializers.lecun_normal())


class LayerNorm(nnx.LayerNorm):
    """Layer normalisation over the last axis; parameters ``scale`` and ``bias``.

    ``epsilon`` has no default: BERT uses 1e-12 and CLIP 1e-5, and either in the other's place
    breaks parity. The variance is the two-pass one, which does not cancel for large means.
    """

    def __init__(
        self, features: int, *, epsilon: float, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> None:
        super().__init__(features, epsilon=epsilon, dtype=dtype, use_fast_variance=False, rngs=rngs)


class Embed(nnx.Module):
    """A lookup table; parameter ``embedding`` [entries, features].

    Rows are float32 whatever the tower computes in: a LayerNorm reads their sum, and the gradient
    of a row adds up what comes from all over the batch. An id outside the table gives NaN and not
    another row.
    """

    def __init__(self, entries: int, features: int, *, rngs: nnx.Rngs) -> None:
        self.embedding = nnx.Param(BERT_INIT(rngs.params(), (entries, features), jnp.float32))

    def __call__(self, ids: Int[Array, "*B"]) -> Float32[Array, "*B D"]:
        """Returns one row per id.

        Args:
          ids: [*B] row numbers in [0, entries).

        Returns:
          [*B, D] float32 rows.
        """
        return jnp.take(self.embedding[...], ids, axis=0, mode="fill", fill_value=jnp.nan)


def clip_projection(
    features: int, width: int, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
) -> Linear:
    """Returns CLIP's projection into the joint space: no bias, kernel drawn N(0, 1 / features)."""
    init = jax.nn.initializers.normal(features**-0.5)
    return Linear(features, width, use_bias=False, dtype=dtype, kernel_init=init, rngs=rngs)


def split_key(key: PRNGKeyArray | None, number: int) -> tuple[PRNGKeyArray | None, ...]:
    """Returns ``number`` independent keys, or as many None where there is no key: in evaluation."""
    return (None,) * number if key is None else tuple(jax.random.split(key, number))


def dropout(x: Float[Array, "*B"], rate: float, key: PRNGKeyArray | None) -> Float[Array, "*B"]:
    """Returns x with entries zeroed at random and the others scaled to keep the mean.

    Args:
      x: any activations.
      rate: share that is zeroed, in [0, 1).
      key: random key; None (evaluation) returns x itself, as does rate 0.

    Returns:
      The same shape and dtype as x.
    """
    if key is None or rate == 0.0:
        return x
    kept = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(kept, x / (1.0 - rate), 0).astype(x.dtype)


def quick_gelu(x: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """Returns x sigmoid(1.702 x), the approximation that CLIP was trained with."""
    return x * jax.nn.sigmoid(1.702 * x)


Activation = Callable[[jax.Array], jax.Array]
_gelu_tanh = partial(jax.nn.gelu, approximate=True)
ACTIVATIONS: dict[str, Activation] = {
    "gelu": partial(jax.nn.gelu, approximate=False),  # with erf; not the default of JAX
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "quick_gelu": quick_gelu,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}
"""Activations by the name that ``hidden_act`` has in a Hugging Face config.json."""


def unit_norm(x: Float[Array, "*B D"]) -> Float32[Array, "*B D"]:
    """Returns float32 vectors of length 1; a zero vector keeps a finite gradient."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12)


def last_token(tokens: Float[Array, "*B L D"], mask: Bool[Array, "*B L"]) -> Float32[Array, "*B D"]:
    """Returns the features of each row's last real token; the first one's where none is real."""
    places = jnp.arange(mask.shape[-1])
    last = jnp.max(jnp.where(mask, places, 0), axis=-1)
    rows = jnp.take_along_axis(tokens, last[..., None, None], axis=-2)  # [*B, 1, D]
    return rows[..., 0, :].astype(jnp.float32)


def masked_mean(
    tokens: Float[Array, "*B L D"], mask: Bool[Array, "*B L"]
) -> Float32[Array, "*B D"]:
    """Returns the mean over the real tokens.

    Args:
      tokens: [*B, L, D] features.
      mask: [*B, L], True where a token is real; a row without any gives zeros.

    Returns:
      [*B, D] float32.
    """
    total = jnp.einsum(
        "...ld,...l->...d", tokens, mask.astype(tokens.dtype), preferred_element_type=jnp.float32
    )
    number = jnp.maximum(mask.sum(-1, keepdims=True), 1)
    return total / number


def attend(
    query: Float[Array, "B Q I"],
    key: Float[Array, "B M I"],
    value: Float[Array, "B M I"],
    heads: int,
    mask: Bool[Array, "B M"] | None = None,
    *,
    rate: float = 0.0,
    dropout_key: PRNGKeyArray | None = None,
) -> tuple[Float[Array, "B Q I"], Float32[Array, "B H Q M"]]:
    """Returns scaled dot-product attention by several heads, and its weights.

    Masked keys get a weight of exactly zero. A row whose keys are all masked gets equal weights:
    finite numbers with a finite gradient, which the caller must not read.

    Args:
      query: [B, Q, I], projected; each head reads I / H of the channels.
      key: [B, M, I].
      value: [B, M, I].
      heads: H, which divides I.
      mask: [B, M], True where a key may be attended to; None where all may.
      rate: dropout rate of the attention weights.
      dropout_key: random key for that dropout; None for none.

    Returns:
      [B, Q, I] in the dtype of value, the heads beside each other; and the weights before dropout,
      which sum to 1 over M.
    """
    # Heads before tokens once and for all: XLA on a CPU otherwise moves them in every product.
    query, key, value = (
        x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2) for x in (query, key, value)
    )  # [B, H, Q or M, C]
    logits = _dot_by_head(query, key) * query.shape[-1] ** -0.5  # [B, H, Q, M], f32
    if mask is not None:
        # The lowest finite number and not -inf, which would make NaN of a fully masked row.
        logits = jnp.where(mask[:, None, None, :], logits, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(logits, axis=-1)
    kept = dropout(weights, rate, dropout_key).astype(value.dtype)
    mixed = jnp.einsum("bhqm,bhmc->bhqc", kept, value).swapaxes(1, 2)  # [B, Q, H, C]
    return mixed.reshape(*mixed.shape[:2], -1), weights


@jax.custom_vjp
def _dot_by_head(query: jax.Array, key: jax.Array) -> jax.Array:
    return jnp.einsum("bhqc,bhmc->bhqm", query, key, preferred_element_type=jnp.float32)


def _dot_by_head_forward(
    query: jax.Array, key: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _dot_by_head(query, key), (query, key)


def _dot_by_head_backward(
    operands: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    # Left to itself, a float32 result makes float32 products of its whole backward pass, which an
    # accelerator computes many times more slowly.
    query, key = operands
    cotangent = cotangent.astype(query.dtype)
    return (
        jnp.einsum("bhqm,bhmc->bhqc", cotangent, key),
        jnp.einsum("bhqm,bhqc->bhmc", cotangent, query),
    )


_dot_by_head.defvjp(_dot_by_head_forward, _dot_by_head_backward)
