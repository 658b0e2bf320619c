"""The one training step, for every system: encode, score, differentiate, update.

Pure functions of (state, batch, resident); the loop jits them with shardings. Imports nothing of
the data pipeline, so it runs on a machine that has only jax, flax, optax and orbax.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Int

from int_ra_jax.common.params import flatten, path_string
from int_ra_jax.common.types import Bank, Batch, Resident, Sticker
from int_ra_jax.models.interface import Candidates, Negatives, Params, System, merge
from int_ra_jax.training.state import TrainState

Metrics = dict[str, Any]
TrainStep = Callable[[TrainState, Batch, Resident], tuple[TrainState, Metrics]]


def make_train_step(
    graphdef: nnx.GraphDef, optimizer: optax.GradientTransformation, trainable: frozenset[str]
) -> TrainStep:
    """Returns the step function of a system.

    Its metrics are the loss's own, ``gradient_norm`` (over the trainable parameters) and
    ``leaf_gradient_norms`` {parameter path: norm}, from which the loop names parameters that a
    configuration leaves without gradient.

    Args:
      graphdef: structure of the system.
      optimizer: maps gradients to updates; frozen parameters get none.
      trainable: paths of the parameters that are not frozen.
    """

    def train_step(
        state: TrainState, batch: Batch, resident: Resident
    ) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)

        def loss_fn(params: Params) -> tuple[Array, Metrics]:
            system: System = merge(graphdef, params)
            return compute_loss(system, batch, resident, state.bank_embedding, key)

        gradients, metrics = jax.grad(loss_fn, has_aux=True)(state.params)
        norms = {
            path: jnp.sqrt(jnp.sum(jnp.square(leaf.astype(jnp.float32))))
            for path, leaf in flatten(gradients).items()
            if path in trainable
        }
        norm = jnp.sqrt(sum(jnp.square(value) for value in norms.values()))
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = merge(graphdef, state.params).post_update(
            optax.apply_updates(state.params, updates)
        )
        finite = jnp.isfinite(metrics["loss/total"]) & jnp.isfinite(norm) & (state.bad_step < 0)
        # Frozen parameters are passed on untouched: selecting between equal arrays would read and
        # write a whole tower in every step.
        kept_params = jax.tree_util.tree_map_with_path(
            lambda path, new, old: (
                jnp.where(finite, new, old) if path_string(path) in trainable else old
            ),
            params,
            state.params,
        )
        kept_opt_state = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old), opt_state, state.opt_state
        )
        bad_step = jnp.where(finite | (state.bad_step >= 0), state.bad_step, state.step)
        state = dataclasses.replace(
            state,
            step=state.step + 1,
            params=kept_params,
            opt_state=kept_opt_state,
            bad_step=bad_step,
        )
        return state, {**metrics, "gradient_norm": norm, "leaf_gradient_norms": norms}

    return train_step


def compute_loss(
    system: System,
    batch: Batch,
    resident: Resident,
    bank_embedding: Array | None,
    key: Array,
) -> tuple[Array, Metrics]:
    """Returns the loss of one batch and its metrics, differentiable in the system's parameters.

    The batch's gold stickers are encoded live. The bank's section of the score matrix (see
    ``Candidates``) is live too where the towers are frozen and cached; else it is read whole, its
    golds included, from ``bank_embedding``, through which no gradient flows.
    """
    context_key, sticker_key, sample_key = jax.random.split(key, 3)
    batch = resident.attach(batch)
    bank, negatives = resident.bank, system.negatives
    context = system.encode_context(batch, key=context_key)
    columns = batch.sticker
    if not negatives.bank:
        sticker = system.encode_sticker(bank.rows(columns), key=sticker_key)
    elif negatives.live:
        columns = jnp.concatenate([columns, sample_columns(bank, negatives, sample_key)])
        sticker = system.encode_sticker(bank.rows(columns), key=sticker_key)
        golds = jnp.arange(batch.sticker.shape[0])
        columns = jnp.concatenate([batch.sticker, columns])
        sticker = Sticker(jnp.concatenate([sticker.embedding[golds], sticker.embedding]))
    else:
        if bank_embedding is None:
            raise ValueError("stale columns need TrainState.bank_embedding; see state.create.")
        sticker = system.encode_sticker(bank.rows(columns), key=sticker_key)
        stale = jnp.concatenate([columns, sample_columns(bank, negatives, sample_key)])
        columns = jnp.concatenate([columns, stale])
        embedding = jax.lax.stop_gradient(bank_embedding[stale])
        sticker = Sticker(jnp.concatenate([sticker.embedding, embedding]))
    candidates = Candidates(index=columns, intentions=bank.intentions[columns])
    return system.loss(context, sticker, batch, candidates)


def sample_columns(bank: Bank, negatives: Negatives, key: Array) -> Int[Array, "C"]:
    """Returns gallery rows to train against besides the batch's own: a sample, or all."""
    gallery = bank.index.shape[0]
    if not negatives.size or negatives.size >= gallery:
        return jnp.arange(gallery, dtype=jnp.int32)
    return jax.random.choice(key, gallery, (negatives.size,), replace=False).astype(jnp.int32)
