"""Saved training states; the only module that touches Orbax.

A checkpoint is one folder per step with two parts: the state (a flat dict of path -> array, so
that what is stored does not depend on the classes of optimiser states) and its record
(``checkpoint_record``), by which damage is found. The newest few and the best by a validation
metric are kept. Reading never changes anything on disk; the first save sets damaged checkpoints
aside and clears away what interrupted saves have left.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, SupportsFloat

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils
from jaxtyping import Array

from int_ra_jax.common.params import flatten
from int_ra_jax.run.checkpoint_ledger import RECORD, Ledger
from int_ra_jax.run.checkpoint_record import (
    DamagedCheckpointError,
    Record,
    brief,
    or_damage,
    storable_leaves,
)

_VERDICT_BYTES = 2000  # of a message between processes


class CheckpointWriteError(OSError):
    """A checkpoint could not be written; those that were complete before still are."""


class Checkpoints:
    """The checkpoints of one run.

    Opening a directory neither creates nor changes anything; the first ``save`` creates it. A
    save that was killed leaves a folder with ``.orbax-checkpoint-tmp`` in its name, which is
    ignored until the next save removes it. Several processes may work on one directory; all of them
    make the same calls.
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
          directory: a folder that every process sees.
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
        self._ledger = Ledger(self._directory, primary_metric, greater_is_better, keep_newest)
        self._tidy = False
        self._open()

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
          CheckpointWriteError: if this or the last save could not be written.
        """
        with self._writing():
            self._tidy_up()
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
        leaves = storable_leaves(tree)
        record = Record.of(leaves, values, metadata)
        with self._writing():
            self._directory.mkdir(parents=True, exist_ok=True)
            # Known before the old ones are judged, which Orbax does inside the save.
            self._ledger.add(step, record)
            return self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(leaves),
                    record=ocp.args.JsonSave(record.to_json()),
                ),
                force=True,
            )

    @property
    def empty(self) -> bool:
        """Whether there is no complete checkpoint at all, damaged ones included."""
        return not self._manager.all_steps()

    def latest_step(self) -> int | None:
        """Returns the newest step, or None if there is no complete checkpoint.

        Checkpoints that are known to be damaged do not count.
        """
        return max(self._ledger.intact(self._manager.all_steps()), default=None)

    def best_step(self) -> int | None:
        """Returns the best step by the primary metric, or None if no checkpoint has it."""
        return self._ledger.best(self._manager.all_steps())

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
            raise FileNotFoundError(self._ledger.nothing_found(which, steps))
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
          ValueError: if paths, shapes or types differ from what is stored (all are listed).
          DamagedCheckpointError: if the arrays read are not those that were written.
        """
        self.wait()
        step = self.find(step)
        record = self._ledger.record(step)
        targets = {path: _target(leaf) for path, leaf in flatten(abstract_tree).items()}
        problems = record.misfits(targets, partial)
        if problems:
            raise ValueError(
                f"checkpoint {step} in {self._directory} does not fit this model:\n"
                + "\n".join(problems)
                + "\nUse the config with which it was trained, or another working directory."
            )
        try:
            if jax.process_count() > 1:
                self._agree_that_it_is_intact(step, targets)
            leaves = self._read(step, targets, partial)
            record.check(leaves)
        except DamagedCheckpointError as error:
            raise self._ledger.damage(step, str(error)) from error
        self._ledger.damaged.pop(step, None)
        return jax.tree.unflatten(jax.tree.structure(abstract_tree), list(leaves.values()))

    def restore_intact(
        self,
        which: Literal["latest", "best"],
        abstract_tree: Any,
        *,
        partial: bool = False,
        accept: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> tuple[Any, int]:
        """Reads the newest or the best checkpoint that is not damaged.

        Each damaged one is passed over with a warning. "best" falls back to the next best, and
        to the newest where none was validated.

        Args:
          which: "latest" or "best".
          abstract_tree: as for ``restore``.
          partial: as for ``restore``.
          accept: called with the metadata of a checkpoint before its arrays are read; what it
            raises is raised.

        Returns:
          The pytree of arrays, bit for bit as saved, and its step.

        Raises:
          FileNotFoundError: if there is no complete checkpoint.
          DamagedCheckpointError: if all are damaged, with what is wrong with each.
          ValueError: if a checkpoint does not fit ``abstract_tree``, or from ``accept``.
        """
        self.wait()
        order = self._ledger.order(which, self._manager.all_steps())
        if not order:
            raise FileNotFoundError(self._ledger.nothing_found("latest", []))
        for place, step in enumerate(order):
            try:
                if accept is not None:
                    accept(self.restore_metadata(step))
                tree = self.restore(step, abstract_tree, partial=partial)
            except DamagedCheckpointError:
                continue
            self._ledger.warn(order[:place], step)
            return tree, step
        raise DamagedCheckpointError(self._ledger.all_damaged(order))

    def restore_metadata(self, step: int) -> dict[str, Any]:
        """Returns the metadata that were saved with ``step``."""
        step = self.find(step)
        return dict(self._ledger.record(step).metadata)

    def wait(self) -> None:
        """Waits until everything is written, and raises what went wrong meanwhile."""
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and frees the writing threads."""
        with self._writing():
            self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
            return
        try:
            self.close()
        except CheckpointWriteError as second:  # must not hide the first
            logging.warning("%s", second)

    def _open(self) -> None:
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                create=False,
                preservation_policy=self._ledger,
                # Only names are read: a damaged file must not stop the directory from opening.
                lightweight_initialize=True,
            ),
            item_handlers={
                "state": ocp.PyTreeCheckpointHandler(),
                "record": ocp.JsonCheckpointHandler(filename=RECORD),
            },
        )
        self._ledger.read(self._manager.all_steps())

    def _read(
        self, step: int, targets: Mapping[str, jax.ShapeDtypeStruct], partial: bool
    ) -> dict[str, Array]:
        arguments = {path: _restore_argument(target) for path, target in targets.items()}
        read = or_damage(
            lambda: self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeRestore(
                        dict(targets), restore_args=arguments, partial_restore=partial
                    )
                ),
            )["state"]
        )
        return {path: read[path] for path in targets}

    def _agree_that_it_is_intact(
        self, step: int, targets: Mapping[str, jax.ShapeDtypeStruct]
    ) -> None:
        """Lets the first process read everything before all of them read their parts.

        A process that fails alone inside a common read would leave the others waiting for it.
        """
        problem = ""
        if jax.process_index() == 0:
            alone = ocp.options.MultiprocessingOptions(
                primary_host=0, active_processes={0}, barrier_sync_key_prefix="alone"
            )
            handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
            try:
                on_host = ocp.RestoreArgs(restore_type=np.ndarray)
                arguments = ocp.args.PyTreeRestore(
                    dict(targets),
                    restore_args=dict.fromkeys(targets, on_host),
                    partial_restore=True,
                )
                folder = self._ledger.folder(step) / "state"
                read = or_damage(lambda: handler.restore(folder, args=arguments))
                self._ledger.record(step).check({path: jnp.asarray(x) for path, x in read.items()})
            except DamagedCheckpointError as error:
                problem = str(error)
        message = np.zeros(_VERDICT_BYTES, np.uint8)
        encoded = np.frombuffer(problem.encode()[:_VERDICT_BYTES], np.uint8)
        message[: encoded.size] = encoded
        told = np.asarray(multihost_utils.broadcast_one_to_all(message)).tobytes()
        if text := told.rstrip(b"\0").decode(errors="replace"):
            raise DamagedCheckpointError(text)

    def _tidy_up(self) -> None:
        """Leaves nothing in the way of a save: neither damaged steps nor interrupted ones."""
        if self._tidy and not self._ledger.damaged:
            return
        self._manager.close()
        if jax.process_index() == 0:
            self._ledger.tidy_up()
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("checkpoints tidied up")
        self._open()
        self._tidy = True

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns what the storage layer raises into one message about the whole run."""
        try:
            yield
        except Exception as error:
            newest = self._ledger.newest_on_disk()
            kept = "none is complete yet" if newest is None else f"that of step {newest} is kept"
            raise CheckpointWriteError(
                f"a checkpoint could not be written to {self._directory}: {brief(error)} "
                f"({kept}). Make room or mend the storage, and start the same command again."
            ) from error


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
