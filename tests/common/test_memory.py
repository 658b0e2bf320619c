"""Memory that was given back is not taken from the system again."""

import subprocess
import sys

import pytest

from int_ra_jax.common import memory

# In a process of its own: the setting holds for the whole process.
_SCRIPT = """
import resource, sys
import numpy as np
from int_ra_jax.common import memory
if sys.argv[1] == "kept":
    assert memory.keep_freed()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**23)  # 64 MiB, 16,384 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(max(faults() for _ in range(3)))
"""


def page_faults(how):
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, how], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc")
def test_an_array_freed_and_asked_for_again_costs_no_page_faults():
    assert page_faults("default") > 8 * (page_faults("kept") + 1)


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(memory.platform, "libc_ver", lambda: ("musl", "1.2"))
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: pytest.fail("loaded"))
    assert memory.keep_freed() is False
