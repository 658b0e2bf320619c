"""The flags by which several processes of one run find each other.

Nothing heavy is imported before they are read.
"""

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
