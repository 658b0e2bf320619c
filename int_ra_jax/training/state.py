"""What changes while training: the only pytree that a checkpoint holds."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from int_ra_jax.common.params import flatten, replace_leaves
from int_ra_jax.models.interface import Params


@struct.dataclass
class TrainState:
    """Everything that the next step depends on, besides the data.

    The batch is f(seed, step), so ``step`` is also the position in the data. Fields are ``Any``
    for the reason given in ``common.types``: JAX also maps shapes and shardings over them.

    Attributes:
      step: i32[], optimiser steps done.
      params: nested dict of parameters.
      opt_state: optax state of the trainable parameters.
      key: u32[2], the run's random key; step t uses fold_in(key, t).
      bad_step: i32[], the first step whose loss or gradient was not finite, else -1. From then on
        no step changes the parameters, so that nothing is lost before the host notices.
      bank_embedding: f32[N, D], the gallery as it was encoded at the last refresh; None where no
        stale columns are used.
      ema: {path: f32[...]}, running average of the parameters that train; None without one.
    """

    step: Any
    params: Any
    opt_state: Any
    key: Any
    bad_step: Any
    bank_embedding: Any = None
    ema: Any = None

    @property
    def evaluated_params(self) -> Params:
        """The parameters that validation reads and a run is judged by: averaged where they are."""
        return self.params if self.ema is None else replace_leaves(self.params, self.ema)


def create(
    params: Params,
    optimizer: optax.GradientTransformation,
    seed: int,
    bank_shape: tuple[int, int] | None,
    averaged: frozenset[str] = frozenset(),
) -> TrainState:
    """Returns the state before the first step; a pure function, so it can be created sharded.

    Args:
      params: initial parameters.
      optimizer: creates its own state from them.
      seed: of dropout and sampled negatives.
      bank_shape: (N, D) where stale columns are used, else None.
      averaged: paths of the parameters to keep a running average of, which starts at their initial
        values; none for no average.
    """
    leaves = flatten(params) if averaged else {}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        key=jax.random.key_data(jax.random.key(seed)),
        bad_step=jnp.full((), -1, jnp.int32),
        bank_embedding=None if bank_shape is None else jnp.zeros(bank_shape, jnp.float32),
        # Copies: a donated state must not hold one array twice.
        ema={path: jnp.copy(leaves[path]) for path in sorted(averaged)} if averaged else None,
    )
