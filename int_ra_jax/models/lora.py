"""LoRA on a tower: small matrices train in place of the linear layers, which stay as they are.

y = x W + b + (alpha / rank) (x A) B, with A random and B zero, so that a tower starts as the plain
one. The parameters ``lora_a`` and ``lora_b`` stand beside ``kernel``; a tower without LoRA has none
of them. Source: Hu et al. 2022, LoRA, Sec. 4.1.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from int_ra_jax.common.params import flatten, path_string, shown
from int_ra_jax.models.interface import Params
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


def merge_lora(params: Params, alpha: float) -> Params:
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


def fill_plain(params: Params, plain: Params) -> Params:
    """Returns a tower's parameters with those of a plain tower in place; LoRA's own are kept.

    Args:
      params: parameters of the tower, with LoRA or without.
      plain: the plain tower's, as a checkpoint gives them.

    Raises:
      ValueError: names every parameter that only one of the two has, and every other shape.
    """
    ours, theirs = flatten(params), flatten(plain)
    missing = [name for name in ours.keys() - theirs if not name.endswith(_OWN)]
    differing = [
        f"{name}: {ours[name].shape} here, {theirs[name].shape} there"
        for name in ours.keys() & theirs
        if ours[name].shape != theirs[name].shape
    ]
    problems = [
        f"{len(names)} {what}: {shown(sorted(names))}"
        for what, names in (
            ("parameters are not in the plain tower", missing),
            ("parameters are only in the plain tower", list(theirs.keys() - ours)),
            ("parameters have another shape", differing),
        )
        if names
    ]
    if problems:
        raise ValueError(
            "the parameters are of another tower:\n  "
            + "\n  ".join(problems)
            + "\nLoad the tower whose shape the system was built with."
        )
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: theirs.get(path_string(path), leaf), params
    )
