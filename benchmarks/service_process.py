"""A service in a process of its own, for as long as a benchmark asks it."""

import contextlib
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_START_SECONDS = 1800.0  # a first start compiles every shape


class Served(NamedTuple):
    """Where a service listens, and the number of its process."""

    port: int
    process: int


@contextlib.contextmanager
def served(line: Sequence[str]) -> Iterator[Served]:
    """Runs a service until the block ends; enters it once the service is ready.

    Args:
      line: command line, to which ``--port=`` is added.

    Raises:
      RuntimeError: if it ends, or is not ready within half an hour.
    """
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    process = subprocess.Popen([*line, f"--port={port}"])
    try:
        limit = time.monotonic() + _START_SECONDS
        while True:
            if process.poll() is not None:
                raise RuntimeError(f"{' '.join(line)} ended with {process.returncode}")
            if time.monotonic() > limit:
                raise RuntimeError(f"{' '.join(line)} was not ready in {_START_SECONDS:.0f} s")
            with contextlib.suppress(OSError, urllib.error.HTTPError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=60).close()
                break
            time.sleep(0.5)
        yield Served(port, process.pid)
    finally:
        process.terminate()
        process.wait(30)
