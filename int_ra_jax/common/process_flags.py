"""The command line: flags by which processes find each other, and those that a mode does not read.

Nothing heavy is imported before they are read.
"""

from collections.abc import Collection, Mapping

from absl import flags

_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "This process is one of several of a cluster."
)
_ADDRESS = flags.DEFINE_string("coordinator_address", None, "host:port of process 0.")
_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes there are.")
_PROCESS = flags.DEFINE_integer("process_id", None, "The number of this process, from 0.")
_HEARTBEAT = flags.DEFINE_integer(
    "heartbeat_seconds", 100, "How many seconds of silence mean that a process is dead."
)


def refuse_unread(mode: str, read_by: Mapping[str, Collection[str]]) -> None:
    """Refuses flags that were given and that the mode does not read.

    Args:
      mode: that was asked for.
      read_by: flag -> the modes that read it; a flag that is not among them is read by all.

    Raises:
      ValueError: once, with every such flag.
    """
    unread = [
        f"--{name} is read by --mode={' and --mode='.join(modes)} alone"
        for name, modes in read_by.items()
        if flags.FLAGS[name].present and mode not in modes
    ]
    if unread:
        raise ValueError("\n  ".join([f"--mode={mode} does not read all that is given:", *unread]))


def connect(alone: bool = False) -> None:
    """Joins the other processes where a flag names any; a process alone is left as it is.

    Args:
      alone: whether the mode is one process's work.

    Raises:
      ValueError: as ``hosts.connect``, or if a flag names others where ``alone``.
    """
    given = (_ADDRESS.value, _PROCESSES.value, _PROCESS.value)
    if _DISTRIBUTED.value or given != (None, None, None):
        if alone:
            raise ValueError("this mode starts its runs itself: leave out the flags of processes.")
        from int_ra_jax.common import hosts, log

        log.set_up_console(hosts.connect(*given, heartbeat_seconds=_HEARTBEAT.value))
