"""The optimiser: which parameter learns how fast, which one decays, which one is frozen.

Every parameter belongs to one group, found by matching its whole path: its role comes from the
system (``param_groups``), frozen ones from patterns, and only kernels decay, so neither LayerNorm
nor biases, embeddings and the temperature do. Frozen parameters cost no optimiser memory.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from int_ra_jax.common.params import flatten, label_by_pattern, matching

_KERNEL = r"(?:.*/)?kernel"


@dataclass(frozen=True)
class Group:
    """One row of the table that is logged when training starts.

    Attributes:
      name: role and state: decayed, plain (no decay) or frozen.
      tensors: number of arrays.
      parameters: number of numbers in them.
      learning_rate: at the end of warm-up; 0 if frozen.
      weight_decay: per step, times the learning rate; 0 for none.
      frozen: whether the group keeps its values.
    """

    name: str
    tensors: int
    parameters: int
    learning_rate: float
    weight_decay: float
    frozen: bool


@dataclass(frozen=True)
class OptimiserInfo:
    """What the optimiser was built from, for the log, the loop and the step.

    Attributes:
      groups: sorted by name; together they hold every parameter once.
      trainable: paths of the parameters that are not frozen.
      schedule: step (0 = first update) -> learning rate before the roles' multipliers.
    """

    groups: tuple[Group, ...]
    trainable: frozenset[str]
    schedule: Callable[[Any], Any]


def make_optimizer(
    optim: Any,
    params: Any,
    roles: Mapping[str, str],
    *,
    total_steps: int,
    frozen: Sequence[str] = (),
) -> tuple[optax.GradientTransformation, OptimiserInfo]:
    """Builds the optimiser of a run.

    Args:
      optim: the section ``config.optim``: name, lr, schedule, warmup_steps, weight_decay, b1, b2,
        eps, clip_norm (global norm over the trainable parameters, 0 = off), multipliers
        {role: factor of lr} and frozen (regexes of paths).
      params: pytree of parameters, concrete or abstract.
      roles: {role: regex of paths}; the first full match counts.
      total_steps: updates of the whole run; the schedules end there.
      frozen: more regexes of frozen paths, those of the system.

    Returns:
      The optax transformation, and what it was built from.

    Raises:
      ValueError: if the run is no longer than its warm-up, a role has no multiplier, a parameter
        no role, a pattern matches nothing, or nothing is left to train.
    """
    problems = _problems(optim, roles, total_steps)
    if problems:
        raise ValueError("config.optim cannot be used:\n  " + "\n  ".join(problems))
    schedule = make_schedule(optim, total_steps)
    members = _assign(optim, params, roles, (*optim.frozen, *frozen))
    label_of = {path: member.label for path, member in members.items()}
    structure = jax.tree.structure(params)
    updates = {member.label: _group_update(optim, schedule, member) for member in members.values()}
    steps = [optax.partition(updates, jax.tree.unflatten(structure, list(label_of.values())))]
    if optim.clip_norm:
        # Gradients of frozen parameters must not count in the norm.
        is_frozen = [member.frozen for member in members.values()]
        steps.insert(0, optax.masked(optax.set_to_zero(), jax.tree.unflatten(structure, is_frozen)))
        steps.insert(1, optax.clip_by_global_norm(optim.clip_norm))
    info = OptimiserInfo(
        groups=_groups(optim, flatten(params), members),
        trainable=frozenset(path for path, member in members.items() if not member.frozen),
        schedule=schedule,
    )
    return optax.chain(*steps), info


def make_schedule(optim: Any, total_steps: int) -> Callable[[Any], Any]:
    """Returns step -> learning rate; steps count from 0.

    Warm-up rises in equal parts and is complete after ``warmup_steps`` updates; its first update
    already has lr / warmup_steps, not 0. Cosine and linear end at 0 after ``total_steps``.
    """
    warmup, rest = optim.warmup_steps, total_steps - optim.warmup_steps
    main: optax.Schedule = {
        "constant": optax.constant_schedule(optim.lr),
        "cosine": optax.cosine_decay_schedule(optim.lr, rest),
        "linear": optax.linear_schedule(optim.lr, 0.0, rest),
    }[optim.schedule]
    if not warmup:
        return main
    rise = optax.linear_schedule(0.0, optim.lr, warmup)
    return optax.join_schedules([lambda step: rise(step + 1), main], [warmup])


def describe(info: OptimiserInfo) -> str:
    """Returns the table of parameter groups, one line each, for the log."""
    rows = [("group", "tensors", "parameters", "learning rate", "weight decay")]
    for group in info.groups:
        rate = "frozen" if group.frozen else f"{group.learning_rate:g}"
        decay = f"{group.weight_decay:g}" if group.weight_decay else "-"
        rows.append((group.name, f"{group.tensors}", f"{group.parameters:,}", rate, decay))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def guarded_adam(b1: float, b2: float, eps: float) -> optax.GradientTransformationExtraArgs:
    """Returns optax.scale_by_adam whose moments stay as they are in a step that is not finite.

    Selecting between old and new moments after the update costs several times the update: the new
    ones are then needed twice, before and after the selection, and are written out on the side.
    Here the parameters' update reads the moments that were selected, so each array is updated in
    place. ``update`` takes ``finite``, bool[], True by default; where it is False the update means
    nothing and the count goes on, both of which the step drops.
    Source: Kingma and Ba 2015, algorithm 1.
    """

    def init(params: Any) -> optax.ScaleByAdamState:
        mu, nu = (jax.tree.map(jnp.zeros_like, params) for _ in range(2))
        return optax.ScaleByAdamState(count=jnp.zeros((), jnp.int32), mu=mu, nu=nu)

    def update(
        gradients: Any,
        state: optax.ScaleByAdamState,
        params: Any = None,
        *,
        finite: Any = True,
        **_: Any,
    ) -> tuple[Any, optax.ScaleByAdamState]:
        count = optax.safe_increment(state.count)
        mu = jax.tree.map(
            lambda g, m: jnp.where(finite, b1 * m + (1 - b1) * g, m),
            gradients,
            state.mu,
        )
        nu = jax.tree.map(
            lambda g, v: jnp.where(finite, b2 * v + (1 - b2) * g * g, v),
            gradients,
            state.nu,
        )
        first, second = 1 - b1**count, 1 - b2**count
        updates = jax.tree.map(lambda m, v: m / first / (jnp.sqrt(v / second) + eps), mu, nu)
        return updates, optax.ScaleByAdamState(count=count, mu=mu, nu=nu)

    return optax.GradientTransformationExtraArgs(init, update)


@dataclass(frozen=True)
class _Member:
    """The group of one parameter."""

    role: str
    decay: bool
    frozen: bool

    @property
    def label(self) -> str:
        state = "frozen" if self.frozen else "decayed" if self.decay else "plain"
        return f"{self.role} {state}"


def _assign(
    optim: Any, params: Any, roles: Mapping[str, str], patterns: tuple[str, ...]
) -> dict[str, _Member]:
    """Returns path -> group, in the tree's order."""
    role_of = flatten(label_by_pattern(params, [(roles[role], role) for role in roles]))
    frozen = matching(params, patterns)
    if len(frozen) == len(role_of):
        raise ValueError(f"every parameter is frozen by {patterns}: nothing is left to train.")
    decays = optim.name == "adamw" and optim.weight_decay > 0
    rules = [(_KERNEL, decays), (r".*", False)]
    decay = flatten(label_by_pattern(params, rules, allow_unused=True))
    return {
        path: _Member(role, decay[path] and path not in frozen, path in frozen)
        for path, role in role_of.items()
    }


def _group_update(
    optim: Any, schedule: Callable[[Any], Any], member: _Member
) -> optax.GradientTransformation:
    if member.frozen:
        return optax.set_to_zero()
    multiplier = optim.multipliers[member.role]
    steps = [guarded_adam(optim.b1, optim.b2, optim.eps)]
    if member.decay:
        steps.append(optax.add_decayed_weights(optim.weight_decay))
    steps.append(optax.scale_by_learning_rate(lambda step: multiplier * schedule(step)))
    return optax.chain(*steps)


def _groups(
    optim: Any, leaves: Mapping[str, Any], members: Mapping[str, _Member]
) -> tuple[Group, ...]:
    paths_of: dict[_Member, list[str]] = {}
    for path, member in members.items():
        paths_of.setdefault(member, []).append(path)
    return tuple(
        Group(
            name=member.label,
            tensors=len(paths),
            parameters=sum(math.prod(leaves[path].shape) for path in paths),
            learning_rate=0.0 if member.frozen else optim.lr * optim.multipliers[member.role],
            weight_decay=optim.weight_decay if member.decay else 0.0,
            frozen=member.frozen,
        )
        for member, paths in sorted(paths_of.items(), key=lambda item: item[0].label)
    )


def _problems(optim: Any, roles: Mapping[str, str], total_steps: int) -> list[str]:
    problems = []
    if not 0 <= optim.warmup_steps < total_steps:
        problems.append(
            f"warmup_steps is {optim.warmup_steps}; use 0 or more, and less than the "
            f"{total_steps} steps of this run."
        )
    missing = [role for role in roles if role not in optim.multipliers]
    if missing:
        problems.append(f"multipliers has no factor for {', '.join(missing)}.")
    return problems
