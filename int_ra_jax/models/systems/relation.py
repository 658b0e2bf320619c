"""The sticker side of Int-RA: attributes attend to image regions and weigh them (Eq. 9 to 12).

    regions   [N, R, Dv] --f_vis--> h^I [N, R, D] --+-- keys, values
    attributes[N, Q, Dt] --f_des--> h^A [N, Q, D] --+-- queries --> M_j [N, Q, D]
    M = pool of M_j over the attributes present;  H^R = v + M * v,  v = mean of h^I over regions

The printed "relation score" cannot be a scalar: cosine would ignore it (see ``relation: scalar``).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float
from ml_collections import ConfigDict

from int_ra_jax.models.layers import HeadLinear, attend, dropout


def pool_attributes(
    values: Float[Array, "N Q D"], mask: Bool[Array, "N Q"], how: str
) -> Float[Array, "N D"]:
    """Pools over the attributes present; a sticker without any attribute gives zeros.

    Source: Int-RA paper, M = max_j M_j, Sec. 4.2.

    Args:
      values: one vector per query (an attribute, or one of its tokens).
      mask: True where the query is real.
      how: max | mean | logsumexp.
    """
    weight = mask[:, :, None]
    if how == "mean":
        return jnp.sum(values * weight, axis=1) / jnp.maximum(jnp.sum(weight, axis=1), 1)
    # Absent queries must not win; an all-absent row is replaced first so that its gradient is 0.
    any_present = jnp.any(weight, axis=1, keepdims=True)
    kept = jnp.where(weight | ~any_present, values, -1e30)
    pooled = jnp.max(kept, axis=1) if how == "max" else jax.nn.logsumexp(kept, axis=1)
    return jnp.where(any_present[:, 0], pooled, 0.0)


class RelationAttention(nnx.Module):
    """Multi-head attention from attributes to regions, one parameter set for the attributes.

    The keys carry no bias: softmax over the regions cancels it, so it would never get a gradient.
    Source: Int-RA paper, Eq. (11).

    Args:
      model: the section: joint_width, heads (which divide it) and output_projection.
      dtype: compute dtype of the projections.
      rngs: for the initial parameters.
    """

    def __init__(self, model: ConfigDict, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        width, heads = model.joint_width, model.heads
        self.heads = heads
        self.query = HeadLinear(width, width, dtype=dtype, rngs=rngs)
        self.key = HeadLinear(width, width, use_bias=False, dtype=dtype, rngs=rngs)
        self.value = HeadLinear(width, width, dtype=dtype, rngs=rngs)
        projects = model.output_projection
        self.out = HeadLinear(width, width, dtype=dtype, rngs=rngs) if projects else None

    def __call__(
        self, attributes: Float[Array, "N Q D"], regions: Float[Array, "N R D"]
    ) -> tuple[Float[Array, "N Q D"], Float[Array, "N H Q R"]]:
        """Returns the attended values M_j and the attention weights (each sums to 1 over R)."""
        query, key, value = self.query(attributes), self.key(regions), self.value(regions)
        attended, weights = attend(query, key, value, self.heads)
        return (attended if self.out is None else self.out(attended)), weights


class RelationAwareSticker(nnx.Module):
    """Fuses a sticker's regions and attributes into one vector H^R (Eq. 9 to 12).

    Args:
      text_width: Dt.
      image_width: Dv.
      model: the section: joint_width, heads, output_projection, attributes, relation,
        relation_pool, residual, dropout.
      dtype: compute dtype of the projections.
      rngs: for the initial parameters.
    """

    def __init__(
        self,
        text_width: int,
        image_width: int,
        model: ConfigDict,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        width = model.joint_width
        self.relation = model.relation
        self.relation_pool = model.relation_pool
        self.residual = model.residual
        self.dropout = model.dropout
        self.f_vis = HeadLinear(image_width, width, dtype=dtype, rngs=rngs)
        reads = model.attributes == "on"
        self.f_des = HeadLinear(text_width, width, dtype=dtype, rngs=rngs) if reads else None
        self.attention = RelationAttention(model, dtype, rngs) if reads else None

    def __call__(
        self,
        regions: Float[Array, "N R Dv"],
        attributes: Float[Array, "N Q Dt"] | None,
        mask: Bool[Array, "N Q"] | None,
        key: Array | None = None,
    ) -> tuple[Float[Array, "N D"], Float[Array, "N Q R"] | None]:
        """Returns H^R (float32, not normalised) and the attention mass averaged over heads.

        Args:
          regions: image tokens.
          attributes: one token per attribute, or all their tokens; None is ``attributes: off``.
          mask: True where the query is real.
          key: switches dropout on.
        """
        h_i = dropout(self.f_vis(regions), self.dropout, key)  # [N, R, D]
        pooled = jnp.mean(h_i.astype(jnp.float32), axis=1)  # v, [N, D]
        if self.attention is None or self.f_des is None or attributes is None or mask is None:
            return pooled, None
        m, weights = self.attention(self.f_des(attributes), h_i)  # [N, Q, D], [N, H, Q, R]
        mass = jnp.mean(weights.astype(jnp.float32), axis=1)  # [N, Q, R]
        if self.relation == "region":
            weight = pool_attributes(mass, mask, self.relation_pool)  # [N, R]
            weighed = jnp.einsum("nr,nrd->nd", weight, h_i.astype(jnp.float32))
        else:
            m = m.astype(jnp.float32)
            if self.relation == "scalar":
                m = jnp.mean(m, axis=2, keepdims=True)  # [N, Q, 1]: one score per attribute
            weighed = pool_attributes(m, mask, self.relation_pool) * pooled
        return (pooled + weighed if self.residual else weighed), mass
