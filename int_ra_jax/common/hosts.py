"""Several processes as one run: joining them, and who does what.

Every process runs the same program on its own devices. The first one alone writes files; each
reads its own rows of a batch. With one process nothing here communicates.
"""

import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax._src import distributed  # the key-value store, which jax.distributed does not show
from jax.sharding import AxisType, NamedSharding, PartitionSpec

_Result = TypeVar("_Result")
_WAIT_MS = 24 * 3600 * 1000  # a process that dies ends the wait of the others at once
_calls = itertools.count()


def connect(
    address: str | None = None,
    number: int | None = None,
    index: int | None = None,
    heartbeat_seconds: int = 100,
) -> int:
    """Joins the processes of a run; to be called before anything touches a device.

    Without arguments jax asks the cluster (Slurm, Open MPI, Kubernetes, Cloud TPU).

    Args:
      address: host:port at which process 0 is reached.
      number: how many processes there are.
      index: of this process, from 0.
      heartbeat_seconds: after so long without a sign of life a process counts as dead, and all
        others are ended.

    Returns:
      The index of this process.

    Raises:
      ValueError: if only some are given, or the cluster says nothing.
    """
    given = {"coordinator_address": address, "num_processes": number, "process_id": index}
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if 0 < len(missing) < len(given):
        raise ValueError(f"{' and '.join(missing)} missing: several processes need all three.")
    # On CPUs the processes' collectives are paired by their order, so programs must not overlap.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    # It would take SIGTERM away from the training loop, which asks ``any_process`` instead, and
    # Orbax, told of it, fails when it computes how much work was saved.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            address,
            number,
            index,
            heartbeat_timeout_seconds=heartbeat_seconds,
        )
    except ValueError as error:
        raise ValueError(
            f"the processes cannot be joined: {error} Name them with --coordinator_address="
            "HOST:PORT --num_processes=N --process_id=I (I from 0; the address is process 0's)."
        ) from error
    return jax.process_index()


def any_process(flag: bool) -> jax.Array:
    """Starts to ask all processes, and returns bool[], whether any of them gave True.

    Every process has to call it, in the same order as its other programs.
    """
    rows, ask = _question()
    own = np.full(jax.local_device_count(), flag)
    return ask(jax.make_array_from_process_local_data(rows, own))


@cache
def _question() -> tuple[NamedSharding, Callable[[jax.Array], jax.Array]]:
    mesh = jax.make_mesh((jax.device_count(),), ("devices",), axis_types=(AxisType.Auto,))
    whole = NamedSharding(mesh, PartitionSpec())
    return NamedSharding(mesh, PartitionSpec("devices")), jax.jit(jnp.any, out_shardings=whole)


def is_first() -> bool:
    """Says whether this process is the one that writes."""
    return jax.process_index() == 0


@contextmanager
def announced() -> Iterator[None]:
    """Says at once what went wrong inside, if this process is one of several.

    What is done on the way out, such as ending a save, may wait for a process that died, until its
    missing heartbeat ends this one too.
    """
    try:
        yield
    except Exception as error:
        if distributed.global_state.client is not None:
            logging.error(
                "process %d of %d has to stop: %s",
                distributed.global_state.process_id, distributed.global_state.num_processes, error,
            )  # fmt: skip
        raise


def leave(message: str) -> None:
    """Ends this process at once with an error if it is one of several; with one it returns.

    The ordinary way out waits for the other processes, and one that died never comes.

    Args:
      message: what went wrong.
    """
    if distributed.global_state.client is None:
        return
    index, number = distributed.global_state.process_id, distributed.global_state.num_processes
    logging.error(
        "%s\nProcess %d of %d stops here. If another one died, its own output says why. Start all "
        "of them again: training goes on from the newest complete checkpoint.",
        message, index, number,
    )  # fmt: skip
    if index == 0:
        time.sleep(2)  # the others lose their connection with it, before they have said a word
    os._exit(2)


def first_alone(action: Callable[[], _Result]) -> _Result | None:
    """Runs an action on process 0 while the others wait for its end; it fails on all or on none.

    For what writes files on the shared filesystem. Not a collective of the devices, which would
    time out while process 0 is busy for minutes.

    Args:
      action: every process calls this function with its own, in the same order.

    Returns:
      What the action returned; None on the other processes.

    Raises:
      ValueError: on the other processes, with process 0's message, if it failed there.
    """
    if jax.process_count() == 1:
        return action()
    store, key = distributed.global_state.client, f"int_ra_jax/first_alone/{next(_calls)}"
    assert store is not None  # there is one whenever there are several processes
    if is_first():
        verdict = "failed without a message"
        try:
            result = action()
            verdict = ""
        except Exception as error:
            verdict = str(error)
            raise
        finally:
            store.key_value_set(key, f"verdict:{verdict}")
        return result
    verdict = store.blocking_key_value_get(key, _WAIT_MS).removeprefix("verdict:")
    if verdict:
        raise ValueError(f"process 0 could not go on: {verdict}")
    return None


@dataclass(frozen=True)
class Placement:
    """Where batches lie on the devices of all processes, and which rows this process reads.

    A batch is cut into as many parts as the mesh splits its rows; a process reads one share of it,
    the parts of its own devices.

    Attributes:
      rows: sharding of a batch, by its leading axis.
      whole: sharding of what every device holds in full.
      parts: into how many parts a batch is cut.
      share: index of this process's share; processes may have the same one.
      shares: how many shares there are.
      order: position on the devices of each part, in the order in which the parts are read.
    """

    rows: NamedSharding
    whole: NamedSharding
    parts: int
    share: int
    shares: int
    order: tuple[int, ...]

    def place(self, tree: Any) -> Any:
        """Puts this process's share of a batch, [B / shares, ...], where it belongs in it."""

        def placed(leaf: np.ndarray) -> jax.Array:
            shape = (leaf.shape[0] * self.shares, *leaf.shape[1:])
            return jax.make_array_from_process_local_data(self.rows, leaf, shape)

        return jax.tree.map(placed, tree)

    def scatter(self, tree: Any) -> Any:
        """Cuts host arrays that every process has in full, [B, ...], into rows."""
        return jax.tree.map(lambda leaf: put(leaf, self.rows), tree)

    def everywhere(self, tree: Any) -> Any:
        """Puts arrays that every process has in full on each device."""
        return jax.tree.map(lambda leaf: put(leaf, self.whole), tree)

    def as_read(self, tree: Any) -> Any:
        """Returns rows computed from a placed batch in the order of the split, [B, ...]."""
        if self.order == tuple(range(self.parts)):
            return tree

        def reordered(leaf: Any) -> Any:
            positions = np.arange(leaf.shape[0]).reshape(self.parts, -1)
            return leaf[positions[np.asarray(self.order)].reshape(-1)]

        return jax.tree.map(reordered, tree)


def placement(rows: NamedSharding, whole: NamedSharding) -> Placement:
    """Works out who reads what.

    Args:
      rows: sharding of a batch's leading axis.
      whole: replicated sharding on the same mesh.

    Raises:
      ValueError: if the mesh gives two processes rows that are neither the same nor apart.
    """
    axes = rows.spec[0]
    names = (axes,) if isinstance(axes, str) else tuple(axes or ())
    parts = int(np.prod([rows.mesh.shape[name] for name in names], dtype=int))
    held: dict[int, set[int]] = {}
    device: Any
    for device, (block,) in rows.devices_indices_map((parts,)).items():
        held.setdefault(device.process_index, set()).add(block.start or 0)
    share, shares, order = shares_of(held, jax.process_index())
    return Placement(rows, whole, parts, share, shares, order)


def shares_of(held: Mapping[int, set[int]], process: int) -> tuple[int, int, tuple[int, ...]]:
    """Returns a process's share, how many there are, and the parts in the order of the shares.

    A mesh need not give a process neighbouring parts: that depends on how its devices are wired.

    Args:
      held: process -> parts of a batch that lie on its devices.
      process: the one whose share is asked for; without a device in the mesh it reads share 0.

    Raises:
      ValueError: if two processes hold parts that are neither the same nor apart, or unequally
        many.
    """
    shares = sorted({tuple(sorted(parts)) for parts in held.values()})
    order = tuple(part for share in shares for part in share)
    if len({len(share) for share in shares}) > 1 or len(set(order)) < len(order):
        raise ValueError(
            f"the mesh gives processes overlapping shares of a batch ({held}); use sizes of "
            "config.mesh for which the devices of one process split no axis half-way."
        )
    own = tuple(sorted(held.get(process, shares[0])))
    return shares.index(own), len(shares), order


def put(leaf: Any, where: jax.sharding.Sharding) -> jax.Array:
    """Puts an array, the same on every process, where a sharding wants it.

    Host memory goes to each device in the part it needs, and nothing is sent between processes.
    """
    if isinstance(leaf, jax.Array):
        return jax.device_put(leaf, where)
    array = np.asarray(leaf)
    return jax.make_array_from_callback(array.shape, where, lambda index: array[index])
