"""How the C library treats memory that is given back to it."""

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # of glibc's malloc.h


def keep_freed() -> bool:
    """Tells the C library to keep freed memory for the next request, from now on.

    Each step of a compiled program on a CPU asks for gigabytes and frees them. By default glibc
    takes such arrays from the system and gives them back, and the system clears every page anew
    in the next step: a third of a paper-sized step (docs/performance.md). A process keeps its
    peak until it ends, so this is for programs of their own and not for a library to call.

    Returns:
      Whether the C library did so: not on other systems than Linux with glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    # Never a map of its own for a large array; never the top of the heap back to the system; one
    # heap for all threads, since the others' are too small for large arrays and are trimmed.
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_ARENA_MAX, 1))
    return all([libc.mallopt(name, value) == 1 for name, value in settings])
