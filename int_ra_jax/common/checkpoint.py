"""Saved training states; the only module that touches Orbax.

A checkpoint is one folder per step with three parts: the state (a flat dict of path -> array, so
that what is stored does not depend on the classes of optimiser states), metadata (JSON: the
config's fingerprint, the data position, ...) and one checksum per array, because Orbax restores
flipped bytes without a word. The newest few and the best by a validation metric are kept.
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, SupportsFloat

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Array, UInt32
from orbax.checkpoint import checkpoint_managers

from int_ra_jax.common.params import flatten

_LISTED = 20  # problems printed per kind; the rest is counted
_TEMPORARY = ".orbax-checkpoint-tmp"


class Checkpoints:
    """The checkpoints of one run.

    Opening a directory neither creates nor changes anything; the first ``save`` creates it. A
    save that was killed leaves a folder with ``.orbax-checkpoint-tmp`` in its name, which is
    ignored.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        primary_metric: str,
        greater_is_better: bool,
        keep_newest: int = 1,
    ) -> None:
        """Opens a directory of checkpoints.

        Args:
          directory: local folder or a path that Orbax understands.
          primary_metric: key of ``metrics`` by which the best checkpoint is chosen; the best one
            is kept besides the newest, and among equals the newest counts as best.
          greater_is_better: direction of that metric.
          keep_newest: how many of the newest checkpoints are kept, >= 1.

        Raises:
          ValueError: if ``keep_newest`` is below 1.
        """
        if keep_newest < 1:
            raise ValueError(
                f"keep_newest is {keep_newest} (config.checkpoint.keep_newest): at least the "
                "newest checkpoint must be kept. Use 1 or more."
            )
        self._directory = Path(directory).absolute()
        self._primary_metric = primary_metric
        self._sign = 1.0 if greater_is_better else -1.0
        keep = checkpoint_managers.AnyPreservationPolicy(
            [
                checkpoint_managers.LatestN(keep_newest),
                # The default keeps every checkpoint without metrics forever.
                checkpoint_managers.BestN(
                    get_metric_fn=self._quality, n=1, keep_checkpoints_without_metrics=False
                ),
            ]
        )
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                create=False, preservation_policy=keep, best_fn=self._quality, best_mode="max"
            ),
            item_handlers={
                "state": ocp.PyTreeCheckpointHandler(),
                "metadata": ocp.JsonCheckpointHandler(),
                "checksums": ocp.JsonCheckpointHandler(),
            },
        )

    def save(
        self,
        step: int,
        tree: Any,
        *,
        metrics: Mapping[str, SupportsFloat] | None,
        metadata: Mapping[str, Any],
    ) -> bool:
        """Starts to write a checkpoint and returns as soon as the arrays may be overwritten.

        Saves have to be in the order of their steps. A failure while writing in the background
        is raised by the next ``save``, ``wait`` or ``close``.

        Args:
          step: the number of updates that ``tree`` has seen.
          tree: pytree of arrays of at most 32 bits; a typed random key is passed as its raw data.
          metrics: validation metrics at this step, with the primary one; None if there are none.
          metadata: anything that JSON can hold.

        Returns:
          False if this step is already stored, and nothing is done; else True.

        Raises:
          ValueError: if the step is older than the newest one, a leaf cannot be stored exactly,
            the primary metric is missing, or the metadata are not JSON.
        """
        newest = self.latest_step()
        if step == newest:
            return False
        if newest is not None and step < newest:
            raise ValueError(
                f"step {step} is older than the newest checkpoint {newest} in "
                f"{self._directory}. Continue from that one, or use another directory."
            )
        values = {} if metrics is None else {name: float(x) for name, x in metrics.items()}
        if metrics is not None and self._primary_metric not in values:
            raise ValueError(
                f"metrics at step {step} lack the primary metric {self._primary_metric!r}; "
                f"there are: {', '.join(sorted(values)) or 'none'}."
            )
        leaves = _storable(tree)
        _check_json(metadata)
        checksums = _checksums(leaves)
        self._directory.mkdir(parents=True, exist_ok=True)
        return self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeSave(leaves),
                metadata=ocp.args.JsonSave(dict(metadata)),
                checksums=ocp.args.JsonSave(checksums),
            ),
            # An empty dict and not None: Orbax warns on every save without metrics.
            metrics=values,
            force=True,
        )

    def latest_step(self) -> int | None:
        """Returns the newest step, or None if there is no complete checkpoint."""
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """Returns the best step by the primary metric, or None if no checkpoint has it."""
        step = self._manager.best_step()
        if step is None or self._primary_metric not in (self._manager.metrics(step) or {}):
            return None
        return step

    def find(self, which: Literal["latest", "best"] | int) -> int:
        """Returns the step that is asked for, and says what there is if it does not exist.

        Args:
          which: "latest", "best", or a step.

        Returns:
          The step of a complete checkpoint.

        Raises:
          FileNotFoundError: if there is no such checkpoint.
        """
        steps = list(self._manager.all_steps())
        if which == "latest":
            step = self.latest_step()
        elif which == "best":
            step = self.best_step()
        else:
            step = which if which in steps else None
        if step is None:
            raise FileNotFoundError(self._nothing_found(which, steps))
        return step

    def restore(self, step: int, abstract_tree: Any, *, partial: bool = False) -> Any:
        """Reads a checkpoint into the shapes, types and shardings of ``abstract_tree``.

        Args:
          step: as returned by ``find``.
          abstract_tree: pytree of jax.ShapeDtypeStruct (or arrays) with the structure that was
            saved. Its shardings say where each array goes, on any number of devices; without one
            it goes to the first device.
          partial: read only the leaves of ``abstract_tree`` and leave the others of the checkpoint
            alone, for instance the parameters without the optimiser's state.

        Returns:
          The pytree of arrays, bit for bit as saved.

        Raises:
          FileNotFoundError: if there is no checkpoint of this step.
          ValueError: if paths, shapes or types differ from what is stored (all are listed), or if
            the arrays read are not those that were written.
        """
        self.wait()
        step = self.find(step)
        targets = {path: _target(leaf) for path, leaf in flatten(abstract_tree).items()}
        self._check_tree(step, targets, partial)
        arguments = {path: _restore_argument(target) for path, target in targets.items()}
        read = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeRestore(
                    targets, restore_args=arguments, partial_restore=partial
                ),
                checksums=ocp.args.JsonRestore(),
            ),
        )
        leaves = {path: read["state"][path] for path in targets}
        self._check_content(step, leaves, read["checksums"])
        return jax.tree.unflatten(jax.tree.structure(abstract_tree), list(leaves.values()))

    def restore_metadata(self, step: int) -> dict[str, Any]:
        """Returns the metadata that were saved with ``step``."""
        self.wait()
        step = self.find(step)
        arguments = ocp.args.Composite(metadata=ocp.args.JsonRestore())
        return self._manager.restore(step, args=arguments)["metadata"]

    def wait(self) -> None:
        """Waits until everything is written, and raises what went wrong meanwhile."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and frees the writing threads."""
        self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _quality(self, metrics: Mapping[str, float]) -> float:
        value = metrics.get(self._primary_metric, math.nan)
        return -math.inf if math.isnan(value) else self._sign * value

    def _nothing_found(self, which: str | int, steps: list[int]) -> str:
        if not self._directory.is_dir():
            there = "the directory does not exist"
        elif steps:
            there = f"it holds the steps {', '.join(map(str, steps))}"
        else:
            names = sorted(entry.name for entry in self._directory.iterdir())
            there = f"it holds {', '.join(names[:_LISTED]) or 'nothing'}"
            if any(_TEMPORARY in name for name in names):
                there += f" (a name with {_TEMPORARY} is a save that was interrupted)"
        if which == "best" and steps:
            todo = f"none has the metric {self._primary_metric!r}. Ask for the latest instead."
        else:
            todo = "Check the working directory, or train first."
        wanted = f"step {which}" if isinstance(which, int) else f"{which} checkpoint"
        return f"no {wanted} in {self._directory}: {there}. {todo}"

    def _check_tree(
        self, step: int, targets: Mapping[str, jax.ShapeDtypeStruct], partial: bool
    ) -> None:
        stored = self._manager.item_metadata(step)["state"].tree
        problems = _listing("not in the checkpoint", targets.keys() - stored.keys())
        if not partial:
            problems += _listing("in the checkpoint only", stored.keys() - targets.keys())
        differing = []
        for path in targets.keys() & stored.keys():
            target, there = targets[path], stored[path]
            if target.shape != tuple(there.shape) or target.dtype != there.dtype:
                want = f"{target.dtype}{list(target.shape)}"
                differing.append(f"{path}: {there.dtype}{list(there.shape)}, expected {want}")
        problems += _listing("of another shape or type", differing)
        if problems:
            raise ValueError(
                f"checkpoint {step} in {self._directory} does not fit this model:\n"
                + "\n".join(problems)
                + "\nUse the config with which it was trained, or another working directory."
            )

    def _check_content(
        self, step: int, leaves: Mapping[str, Array], stored: Mapping[str, int]
    ) -> None:
        found = _checksums(leaves)
        damaged = [path for path, value in found.items() if value != stored[path]]
        if damaged:
            raise ValueError(
                f"checkpoint {step} in {self._directory} is damaged:\n"
                + "\n".join(_listing("whose checksum differs from the saved one", damaged))
                + "\nUse another step; delete this one."
            )


def check_fingerprint(stored: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Raises if a checkpoint was made under another configuration.

    Args:
      stored: flat config of the checkpoint, dotted key -> value as JSON gives it back.
      current: flat config of this run; tuples count as lists.

    Raises:
      ValueError: with every key that differs and both values.
    """
    current = json.loads(json.dumps(dict(current)))
    lines = []
    for key in sorted(stored.keys() | current.keys()):
        before = json.dumps(stored[key]) if key in stored else "absent"
        now = json.dumps(current[key]) if key in current else "absent"
        if before != now:
            lines.append(f"  {key}: {before} in the checkpoint, {now} now")
    if lines:
        raise ValueError(
            "fingerprint mismatch: the checkpoint was made with another config:\n"
            + "\n".join(lines)
            + "\nSet these keys back, or start in another working directory."
        )


@jax.jit
def checksum(leaf: Array) -> UInt32[Array, ""]:
    """Returns a number that changes if one element does, on any sharding.

    The sum of a bijective hash of (bits, position) modulo 2^32: a sum has no order, so the result
    does not depend on the devices, and it is computed where the array is.
    """
    if leaf.dtype == jnp.bool_:
        bits = leaf.astype(jnp.uint32)
    else:
        unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
        bits = jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)
    position = jnp.zeros(leaf.shape, jnp.uint32)
    for axis, size in enumerate(leaf.shape):
        position = position * np.uint32(size) + jax.lax.broadcasted_iota(
            jnp.uint32, leaf.shape, axis
        )
    mixed = bits ^ (position * np.uint32(0x9E3779B9))
    # The finaliser of MurmurHash3. Without it two flipped sign bits would cancel in the sum.
    mixed = (mixed ^ (mixed >> 16)) * np.uint32(0x85EBCA6B)
    mixed = (mixed ^ (mixed >> 13)) * np.uint32(0xC2B2AE35)
    return jnp.sum(mixed ^ (mixed >> 16), dtype=jnp.uint32)


def _checksums(leaves: Mapping[str, Array]) -> dict[str, int]:
    # One after the other: on several simulated devices, programs that run at the same time wait for
    # each other's threads.
    return {path: int(checksum(leaf)) for path, leaf in leaves.items()}


def _storable(tree: Any) -> dict[str, Array]:
    """Returns the flat tree, or raises with every leaf that would not come back as it is."""
    leaves, problems = {}, []
    for path, leaf in flatten(tree).items():
        if not isinstance(leaf, jax.Array | np.ndarray):
            problems.append(f"{path}: {type(leaf).__name__}; wrap it in an array")
        elif jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            problems.append(f"{path}: typed random key; pass jax.random.key_data(key)")
        elif leaf.dtype.itemsize > 4:
            problems.append(f"{path}: {leaf.dtype}; use 32 bits")
        elif leaf.size == 0:
            problems.append(f"{path}: no elements (shape {leaf.shape}); leave it out")
        else:
            leaves[path] = jnp.asarray(leaf)
    if problems:
        raise ValueError("\n".join(_listing("that cannot be saved", problems)))
    return leaves


def _check_json(metadata: Mapping[str, Any]) -> None:
    try:
        json.dumps(dict(metadata))
    except TypeError as error:
        raise ValueError(f"checkpoint metadata must be JSON: {error}.") from error


def _target(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _restore_argument(target: jax.ShapeDtypeStruct) -> ocp.ArrayRestoreArgs:
    return ocp.ArrayRestoreArgs(
        restore_type=jax.Array,
        dtype=target.dtype,
        sharding=target.sharding,
        global_shape=target.shape,
    )


def _listing(what: str, lines: Iterable[str]) -> list[str]:
    ordered = sorted(lines)
    if not ordered:
        return []
    shown = [f"  {line}" for line in ordered[:_LISTED]]
    if len(ordered) > _LISTED:
        shown.append(f"  ... and {len(ordered) - _LISTED} more")
    return [f"{len(ordered)} leaves {what}:", *shown]
