"""The one training step, for every system, and the state that it changes.

A step encodes, scores, differentiates and updates; the state is the only pytree that a checkpoint
holds. Pure functions of (state, batch, resident); the loop jits them with shardings. Imports
nothing of the data pipeline, so it runs on a machine that has only jax, flax, optax and orbax.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx, struct
from jaxtyping import Array, Int

from int_ra_jax.common.params import flatten, path_string, replace_leaves
from int_ra_jax.common.types import Bank, Batch, Context, Resident, Sticker
from int_ra_jax.models.interface import Candidates, Negatives, Params, System, merge

Metrics = dict[str, Any]


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


def create_state(
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


TrainStep = Callable[[TrainState, Batch, Resident], tuple[TrainState, Metrics]]


def make_train_step(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    trainable: frozenset[str],
    *,
    micro_batches: int = 1,
    ema_decay: float = 0.0,
    gather: Callable[[Params], Params] = lambda params: params,
) -> TrainStep:
    """Returns the step function of a system.

    Its metrics are the loss's own, ``gradient_norm`` (over the trainable parameters) and
    ``leaf_gradient_norms`` {parameter path: norm}, from which the loop names parameters that a
    configuration leaves without gradient.

    Args:
      graphdef: structure of the system.
      optimizer: maps gradients to updates; frozen parameters get none.
      trainable: paths of the parameters that are not frozen.
      micro_batches: parts in which a batch is encoded; see ``encode_in_parts``.
      ema_decay: of ``TrainState.ema``, read where the state has one.
      gather: makes sharded parameters whole for their use; see ``sharding.gather_for_use``.
    """

    def train_step(
        state: TrainState, batch: Batch, resident: Resident
    ) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)

        def loss_fn(params: Params) -> tuple[Array, Metrics]:
            system: System = merge(graphdef, gather(params))
            return compute_loss(system, batch, resident, state.bank_embedding, key, micro_batches)

        gradients, metrics = jax.grad(loss_fn, has_aux=True)(state.params)
        norms = {
            path: jnp.sqrt(jnp.sum(jnp.square(leaf.astype(jnp.float32))))
            for path, leaf in flatten(gradients).items()
            if path in trainable
        }
        norm = jnp.sqrt(sum(jnp.square(value) for value in norms.values()))
        finite = jnp.isfinite(metrics["loss/total"]) & jnp.isfinite(norm) & (state.bad_step < 0)
        updates, opt_state = optimizer.update(
            gradients, state.opt_state, state.params, finite=finite
        )
        kept_params = merge(graphdef, state.params).post_update(
            _apply_where(finite, state.params, updates, trainable)
        )
        # The optimiser has kept its moments itself; its counters are kept here.
        kept_opt_state = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old) if new.ndim == 0 else new,
            opt_state,
            state.opt_state,
        )
        bad_step = jnp.where(finite | (state.bad_step >= 0), state.bad_step, state.step)
        ema = state.ema
        if ema is not None:
            leaves = flatten(kept_params)
            ema = {
                path: jnp.where(finite, old + (1.0 - ema_decay) * (leaves[path] - old), old)
                for path, old in ema.items()
            }
        state = dataclasses.replace(
            state,
            step=state.step + 1,
            params=kept_params,
            opt_state=kept_opt_state,
            bad_step=bad_step,
            ema=ema,
        )
        return state, {**metrics, "gradient_norm": norm, "leaf_gradient_norms": norms}

    return train_step


def _apply_where(
    finite: Array, params: Params, updates: Params, trainable: frozenset[str]
) -> Params:
    """Adds the updates of a finite step; frozen parameters are passed on untouched.

    Adding zero to them would read and write a whole tower in every step.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, old, update: (
            old + jnp.where(finite, update, 0) if path_string(path) in trainable else old
        ),
        params,
        updates,
    )


def compute_loss(
    system: System,
    batch: Batch,
    resident: Resident,
    bank_embedding: Array | None,
    key: Array,
    micro_batches: int = 1,
) -> tuple[Array, Metrics]:
    """Returns the loss of one batch and its metrics, differentiable in the system's parameters.

    The batch's gold stickers are encoded live. The bank's section of the score matrix (see
    ``Candidates``) is live too where the system says so, and each sticker is encoded once where
    that section is the whole gallery; else it is read whole, its golds included, from
    ``bank_embedding``, through which no gradient flows.
    """
    context_key, sticker_key, sample_key = jax.random.split(key, 3)
    batch = resident.attach(batch)
    bank, negatives = resident.bank, system.negatives

    def encode_context(rows: Batch, key: Array) -> Context:
        return system.encode_context(dataclasses.replace(rows, labels=batch.labels), key=key)

    def encode_sticker(rows: Array, key: Array) -> Sticker:
        return system.encode_sticker(bank.rows(rows), key=key)

    def stickers(columns: Array) -> Sticker:
        encoded: Sticker = encode_in_parts(encode_sticker, columns, sticker_key, micro_batches)
        return encoded

    unlabelled = dataclasses.replace(batch, labels=None)
    context = encode_in_parts(encode_context, unlabelled, context_key, micro_batches)
    columns = batch.sticker
    if not negatives.bank:
        sticker = stickers(columns)
    elif negatives.live:
        drawn = sample_columns(bank, negatives, sample_key)
        columns = jnp.concatenate([batch.sticker, batch.sticker, drawn])
        golds = jnp.arange(batch.sticker.shape[0])
        if drawn.shape[0] == bank.index.shape[0]:  # the golds are among them
            encoded, rows = stickers(drawn), columns
        else:
            encoded = stickers(jnp.concatenate([batch.sticker, drawn]))
            rows = jnp.concatenate([golds, jnp.arange(columns.shape[0] - golds.shape[0])])
        sticker = jax.tree.map(lambda leaf: leaf[rows], encoded)
    else:
        if bank_embedding is None:
            raise ValueError("stale columns need TrainState.bank_embedding; see create_state.")
        live = stickers(columns)
        stale = jnp.concatenate([columns, sample_columns(bank, negatives, sample_key)])
        columns = jnp.concatenate([columns, stale])
        old = jax.lax.stop_gradient(bank_embedding[stale])
        # What else a system's loss reads of a sticker, it reads of the batch's golds alone.
        embedding = jnp.concatenate([live.embedding, old])
        sticker = dataclasses.replace(live, embedding=embedding)
    candidates = Candidates(index=columns, intentions=bank.intentions[columns])
    return system.loss(context, sticker, batch, candidates, key=jax.random.fold_in(key, 3))


def encode_in_parts(encode: Callable[[Any, Array], Any], rows: Any, key: Array, parts: int) -> Any:
    """Returns ``encode(rows, key)``, computed part by part in the memory of one part.

    Only the results of a part are kept; the backward pass encodes it again. The loss sees all rows
    at once, so contrastive negatives and the gradient are those of the undivided batch, which
    averaging the gradients of smaller batches would not give.
    Source: gradient cache (Gao et al. 2021), by rematerialisation.

    Args:
      encode: function of (some rows, key), row by row.
      rows: pytree of arrays with the same leading size; where ``parts`` does not divide it, the
        last row is encoded more than once.
      key: random key; each part gets its own.
      parts: how many, >= 1.
    """
    if parts == 1:
        return encode(rows, key)
    size = jax.tree.leaves(rows)[0].shape[0]
    share = -(-size // parts)
    index = jnp.minimum(jnp.arange(share * parts), size - 1)

    def divide(leaf: Array) -> Array:
        # Row i goes to part i modulo parts: rows of one device stay there, and each part has some
        # of every device.
        filled = leaf if share * parts == size else leaf[index]
        return filled.reshape(share, parts, *leaf.shape[1:]).swapaxes(0, 1)

    def unite(leaf: Array) -> Array:
        return leaf.swapaxes(0, 1).reshape(share * parts, *leaf.shape[2:])[:size]

    keys = jax.random.split(key, parts)
    encoded = jax.lax.map(
        jax.checkpoint(lambda part: encode(*part)), (jax.tree.map(divide, rows), keys)
    )
    return jax.tree.map(unite, encoded)


def sample_columns(bank: Bank, negatives: Negatives, key: Array) -> Int[Array, "C"]:
    """Returns gallery rows to train against besides the batch's own: a sample, or all."""
    gallery = bank.index.shape[0]
    if not negatives.size or negatives.size >= gallery:
        return jnp.arange(gallery, dtype=jnp.int32)
    return jax.random.choice(key, gallery, (negatives.size,), replace=False).astype(jnp.int32)
