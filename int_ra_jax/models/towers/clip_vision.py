"""The image tower: a CLIP vision transformer under the names of Hugging Face's Flax CLIP.

It returns every token, because attributes attend to the image region by region. As with the text
tower, ``prefix`` and ``suffix`` cut it at a layer, so that frozen lower layers can be cached.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from int_ra_jax.common.pixels import CLIP_MEAN, CLIP_STD, Channels
from int_ra_jax.models.layers import ACTIVATIONS, BERT_INIT, Embed, LayerNorm, Linear, attend
from int_ra_jax.models.towers.tower import Tower, TowerConfig


@dataclass(frozen=True)
class ClipVisionConfig(TowerConfig):
    """The shape of a CLIP vision tower; names and defaults are those of Hugging Face's config.

    A config.json may leave out what equals the default, so the defaults here are part of the file
    format and not a matter of taste. ``image_size`` and ``patch_size`` are in pixels;
    ``image_mean`` and ``image_std`` stand in preprocessor_config.json and are for ``normalise``.
    """

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    image_size: int = 224
    patch_size: int = 32
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    image_mean: Channels = CLIP_MEAN
    image_std: Channels = CLIP_STD

    @property
    def grid(self) -> int:
        """Patches along one side of the image."""
        return self.image_size // self.patch_size

    @property
    def num_tokens(self) -> int:
        """Tokens of one image: CLS and the P patches."""
        return 1 + self.grid**2

    @classmethod
    def unsupported(cls, config: Mapping[str, Any]) -> list[str]:
        """Returns what a config asks for that this tower does not do."""
        channels = config.get("num_channels", 3)
        return [] if channels == 3 else [f"num_channels {channels}: only RGB (3)"]


class ClipVisionModel(Tower):
    """CLIP's vision transformer: normalised pixels in, one feature vector per token out.

    Args:
      config: the shape; static.
      dtype: of the computation; parameters are float32.
      rngs: the stream ``params`` draws the initial parameters.
    """

    def __init__(
        self, config: ClipVisionConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> None:
        self.config = config
        width, epsilon = config.hidden_size, config.layer_norm_eps
        self.embeddings = _Embeddings(config, dtype, rngs)
        self.pre_layrnorm = LayerNorm(width, epsilon=epsilon, dtype=dtype, rngs=rngs)
        layers = [_Layer(config, dtype, rngs) for _ in range(config.num_hidden_layers)]
        self.encoder = nnx.Dict(layers=nnx.List(layers))
        self.post_layernorm = LayerNorm(width, epsilon=epsilon, dtype=dtype, rngs=rngs)

    def __call__(self, pixels: Float[Array, "N S S 3"]) -> Float[Array, "N P1 Dv"]:
        """Returns all tokens after the final LayerNorm, CLS first, patches row by row.

        Hugging Face's ``last_hidden_state`` is taken before that LayerNorm, and its
        ``pooler_output`` is token 0 of what is returned here. For the pixels see ``prefix``.
        """
        return self.suffix(self.prefix(pixels, 0), 0)

    def prefix(self, pixels: Float[Array, "N S S 3"], stop: int) -> Float[Array, "N P1 Dv"]:
        """Returns the hidden state that enters layer ``stop``: what is cached of frozen layers.

        Args:
          pixels: [N, S, S, 3] RGB, normalised by the config's mean and standard deviation; S is
            ``config.image_size``.
          stop: number of layers to run, 0 (embeddings only) to ``config.num_hidden_layers``.

        Returns:
          [N, 1+P, Dv]; ``suffix(prefix(pixels, n), n)`` is the whole tower for every n.

        Raises:
          ValueError: if S differs from the tower's, or ``stop`` exceeds the number of layers.
        """
        return self._layers(self.pre_layrnorm(self.embeddings(pixels)), 0, stop)

    def suffix(self, hidden: Float[Array, "N P1 Dv"], start: int) -> Float[Array, "N P1 Dv"]:
        """Returns all tokens after the final LayerNorm from the state that enters ``start``.

        Args:
          hidden: [N, 1+P, Dv] from ``prefix`` with the same number.
          start: first layer to run, 0 to ``config.num_hidden_layers``.

        Returns:
          [N, 1+P, Dv] features in the compute dtype.

        Raises:
          ValueError: if ``start`` exceeds the number of layers.
        """
        hidden = self._layers(hidden, start, self.config.num_hidden_layers)
        return self.post_layernorm(hidden)

    def _layers(self, hidden: jax.Array, start: int, stop: int) -> jax.Array:
        return self.run(self.encoder["layers"], hidden, start, stop, lambda index: ())


class _PatchEmbedding(nnx.Module):
    """A convolution whose stride is its size; ``kernel`` [height, width, in, out] is stored so."""

    def __init__(self, config: ClipVisionConfig, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        shape = (config.patch_size, config.patch_size, 3, config.hidden_size)
        self.kernel = nnx.Param(BERT_INIT(rngs.params(), shape, jnp.float32))
        self.dtype = dtype

    def __call__(self, pixels: jax.Array) -> jax.Array:
        # Patches do not overlap, so that it is one matrix product of flattened patches, which on a
        # CPU takes two thirds of the time of the convolution and its gradient.
        patch, _, channels, width = self.kernel.shape
        number, grid = pixels.shape[0], pixels.shape[1] // patch
        cut = pixels[:, : grid * patch, : grid * patch].astype(self.dtype)
        patches = cut.reshape(number, grid, patch, grid, patch, channels).swapaxes(2, 3)
        kernel = self.kernel[...].reshape(-1, width).astype(self.dtype)
        return patches.reshape(number, grid * grid, -1) @ kernel  # [N, P, Dv]


class _Embeddings(nnx.Module):
    def __init__(self, config: ClipVisionConfig, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        width = config.hidden_size
        self.class_embedding = nnx.Param(BERT_INIT(rngs.params(), (width,), jnp.float32))
        self.patch_embedding = _PatchEmbedding(config, dtype, rngs)
        self.position_embedding = Embed(config.num_tokens, width, rngs=rngs)
        self.image_size = config.image_size

    def __call__(self, pixels: jax.Array) -> jax.Array:
        if pixels.shape[1] != self.image_size:
            raise ValueError(
                f"images of {pixels.shape[1]} pixels for a tower of {self.image_size} pixels; "
                "resize them, or load the tower with image_size set"
            )
        patches = self.patch_embedding(pixels).astype(jnp.float32)
        number, _, width = patches.shape
        cls = jnp.broadcast_to(self.class_embedding[...], (number, 1, width))
        hidden = jnp.concatenate([cls, patches], axis=1)  # [N, 1+P, Dv]
        return hidden + self.position_embedding(jnp.arange(hidden.shape[1]))


class _Layer(nnx.Module):
    def __init__(self, config: ClipVisionConfig, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        width, inner = config.hidden_size, config.intermediate_size
        norm = partial(LayerNorm, width, epsilon=config.layer_norm_eps, dtype=dtype, rngs=rngs)
        linear = partial(Linear, dtype=dtype, rngs=rngs)
        names = ("q_proj", "k_proj", "v_proj", "out_proj")
        self.layer_norm1 = norm()
        self.self_attn = nnx.Dict({name: linear(width, width) for name in names})
        self.layer_norm2 = norm()
        self.mlp = nnx.Dict(fc1=linear(width, inner), fc2=linear(inner, width))
        self.heads = config.num_attention_heads
        self.act = ACTIVATIONS[config.hidden_act]

    def __call__(self, hidden: jax.Array) -> jax.Array:
        project, read = self.self_attn, self.layer_norm1(hidden)  # [N, 1+P, Dv]
        query, key, value = (project[name](read) for name in ("q_proj", "k_proj", "v_proj"))
        mixed, _ = attend(query, key, value, self.heads)
        hidden = hidden + project["out_proj"](mixed)
        inner = self.act(self.mlp["fc1"](self.layer_norm2(hidden)))
        return hidden + self.mlp["fc2"](inner)
