"""LoRA on a tower: small matrices train in place of the linear layers, which stay as they are.

y = x W + b + (alpha / rank) (x A) B, with A random and B zero, so that a tower starts as the plain
one. The parameters ``lora_a`` and ``lora_b`` stand beside ``kernel``; a tower without LoRA has none
of them. Source: Hu et al. 2022, LoRA, Sec. 4.1.
"""

from typing import Any

import jax.numpy as jnp
from flax import nnx

from int_ra_jax.models.layers import Linear

# Of a tower's parameters, those that stay as they are under LoRA: all but its own.
FROZEN = r"(?:.*/)?(?!lora_[ab]$)[^/]+"
_OWN = ("lora_a", "lora_b")


def add_lora(tower: nnx.Module, rank: int, alpha: float, rngs: nnx.Rngs) -> None:
    """Gives every linear layer of a tower, attention and MLP alike, its two matrices, in place.

    Args:
      tower: a plain tower.
      rank: channels between the two matrices, at least 1.
      alpha: the update is scaled by alpha / rank.
      rngs: the stream ``params`` draws the A of each layer.
    """
    for _, module in nnx.iter_modules(tower):
        if isinstance(module, Linear):
            module.add_lora(rank, alpha, rngs)


def merge_lora(params: dict[str, Any], alpha: float) -> dict[str, Any]:
    """Returns the plain tower that computes the same: kernel + (alpha / rank) A B.

    Args:
      params: parameters of a tower, or of a system; layers without LoRA are passed on.
      alpha: ``lora_alpha`` of the tower's config; it is not in the tree.
    """
    plain = {
        name: merge_lora(leaf, alpha) if isinstance(leaf, dict) else leaf
        for name, leaf in params.items()
        if name not in _OWN
    }
    if "lora_a" in params:
        a, b = params["lora_a"], params["lora_b"]
        plain["kernel"] += alpha / a.shape[-1] * jnp.matmul(a, b, precision="highest")
    return plain
