"""Two processes on one directory decide alike which checkpoint is damaged."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

# Arguments: address, process, directory, steps to save after restoring.
PROGRAM = """
import sys
import jax, jax.numpy as jnp, numpy as np
address, process, directory, *steps = sys.argv[1:]
jax.distributed.initialize(address, 2, int(process))
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from int_ra_jax.run.checkpoint import Checkpoints

mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
split = NamedSharding(mesh, PartitionSpec("data"))
def values(step):
    return np.random.default_rng(step).normal(size=(64, 32)).astype(np.float32)
def tree(step):
    return {"x": jax.make_array_from_callback((64, 32), split, lambda at: values(step)[at])}

with Checkpoints(directory, primary_metric="mAP", greater_is_better=True, keep_newest=3) as opened:
    if not opened.empty:
        target = {"x": jax.ShapeDtypeStruct((64, 32), np.float32, sharding=split)}
        restored, step = opened.restore_intact("latest", target)
        for shard in restored["x"].addressable_shards:
            np.testing.assert_array_equal(shard.data, values(step)[shard.index])
        print("\\nrestored", step)
    for step in map(int, steps):
        opened.save(step, tree(step), metrics=None, metadata={})
"""


def run_both(directory, *steps):
    """Runs the program in two processes, and returns what each prints of the step it restored."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    environment["PYTHONPATH"] = str(REPOSITORY)
    rest = [str(directory), *map(str, steps)]
    both = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, address, str(process), *rest],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )
        for process in (0, 1)
    ]  # fmt: skip
    try:
        ended = [process.communicate(timeout=300) for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0], ended
    return [re.findall(r"^restored (\d+)$", output, re.MULTILINE) for output, _ in ended]


@pytest.mark.slow
def test_damage_that_one_process_would_meet_is_passed_over_by_both(tmp_path):
    directory = tmp_path / "checkpoints"
    assert run_both(directory, 10, 20) == [[], []]
    (file,) = [
        path
        for path in (directory / "20" / "state" / "ocdbt.process_1").rglob("*")
        if path.is_file() and path.stat().st_size > 3_000
    ]
    content = bytearray(file.read_bytes())
    content[:200] = bytes(200)  # the beginning of what the second process wrote and would read
    file.write_bytes(content)
    assert run_both(directory, 20) == [["10"]] * 2
    assert {path.name for path in directory.iterdir()} == {"10", "20", "damaged_20"}
    assert run_both(directory) == [["20"]] * 2
