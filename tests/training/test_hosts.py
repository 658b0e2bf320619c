"""Several processes are one run: they read shares, agree when to stop, and no death goes unseen."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from fixtures.trained import STEPS, read_jsonl, tiny_config

from configs import int_ra
from int_ra_jax.common import config as configuration
from int_ra_jax.common import hosts
from int_ra_jax.common.log import read_metrics
from int_ra_jax.training import sharding
from int_ra_jax.training.loop import train

ROOT = Path(__file__).resolve().parents[2]
ENDLESS = 100_000
LIMIT = 240  # seconds until a hang counts as one
KEYS = ("train/loss/total", "train/loss/retrieval", "train/loss/intention", "train/gradient_norm")


class Pair:
    """Two processes of one device each, started by the command line; killed at the end."""

    def __init__(self, config, workdir, cache):
        usual, wanted = (configuration.flatten(c) for c in (int_ra.get_config("smoke"), config))
        changes = [f"--config.{key}={wanted[key]}" for key in usual if usual[key] != wanted[key]]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        flags = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=1")
        environment = os.environ | {"XLA_FLAGS": flags, "JAX_COMPILATION_CACHE_DIR": str(cache)}
        self.workdir = workdir
        self.said = [workdir.with_name(f"{workdir.name}.{i}.log") for i in range(2)]
        self.files = [said.open("w") for said in self.said]
        self.processes = [
            subprocess.Popen(
                [
                    sys.executable, "launch.py", "--mode=train", "--config=configs/int_ra.py:smoke",
                    f"--workdir={workdir}", f"--coordinator_address={address}",
                    "--num_processes=2", f"--process_id={i}", "--heartbeat_seconds=10", *changes,
                ],
                cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=said,
            )
            for i, said in enumerate(self.files)
        ]  # fmt: skip

    def output(self):
        return "\n\n".join(said.read_text() for said in self.said)

    def wait_until(self, reached):
        limit = time.monotonic() + LIMIT
        while not reached():
            assert time.monotonic() < limit, f"hangs\n{self.output()}"
            assert all(p.poll() is None for p in self.processes), self.output()
            time.sleep(0.1)

    def codes(self, seconds=120):
        """Waits for both to end."""
        for process in self.processes:
            process.wait(seconds)
        return [process.returncode for process in self.processes]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()
        for said in self.files:
            said.close()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled_by_two")


@pytest.fixture
def config(trained):
    """Makes configs on the records of ``trained``; parameters are split between the processes."""

    def make(**changes):
        records = str(trained.workdir / "tfds")
        split = {"mesh__fsdp": 2, "train__max_steps": ENDLESS, "data__tfds_dir": records}
        return tiny_config(trained.prepared, **{**split, **changes})

    return make


def newest(workdir):
    names = (path.name for path in (workdir / "checkpoints").glob("*"))
    return max((int(name) for name in names if name.isdigit()), default=0)


def assert_same_curves(one, other, steps):
    curves = [read_metrics(workdir / "metrics.jsonl") for workdir in (one, other)]
    for key in KEYS:
        first, second = (dict(zip(*curve[key], strict=True)) for curve in curves)
        for step in steps:
            np.testing.assert_allclose(
                second[step], first[step], rtol=1e-5, atol=1e-6, err_msg=f"{key} {step}"
            )


@pytest.mark.long
def test_a_process_that_is_killed_stops_the_other_and_one_alone_goes_on_from_what_both_saved(
    trained, config, cache, tmp_path
):
    workdir = tmp_path / "killed"
    with Pair(config(), workdir, cache) as pair:
        pair.wait_until(lambda: newest(workdir) >= 8)
        pair.processes[1].kill()
        died = time.monotonic()
        code = pair.codes()[0]
        assert time.monotonic() - died < 45
        # Either a collective fails in our hands, or jax misses the heartbeat and ends the process.
        assert code in (2, -signal.SIGABRT), pair.output()
        text = pair.said[0].read_text()
        assert "process 0 of 2 has to stop:" in text or "another task died" in text
    assert_same_curves(trained.workdir, workdir, (2, 4, 6, 8))
    judged = [read_metrics(w / "metrics.jsonl") for w in (trained.workdir, workdir)]
    for name in ("valid/retrieval/mAP", "valid/retrieval/intention_accuracy"):
        np.testing.assert_allclose(judged[1][name][1][:2], judged[0][name][1][:2], atol=1e-6)

    kept = newest(workdir)
    alone = config(mesh__fsdp=1, train__max_steps=kept + 4)
    assert train(alone, workdir)
    assert read_jsonl(workdir / "metrics.jsonl")[-1]["step"] == kept + 4


@pytest.mark.long
def test_two_processes_go_on_from_one_and_a_signal_to_either_stops_both_after_the_same_step(
    trained, config, cache, tmp_path
):
    straight, workdir = (trained.copy(tmp_path / name) for name in ("straight", "signalled"))
    train(tiny_config(trained.prepared, train__max_steps=STEPS + 4), straight)
    changed = config(data__tfds_dir="", train__eval_steps=ENDLESS)
    with Pair(changed, workdir, cache) as pair:
        pair.wait_until(lambda: read_jsonl(workdir / "metrics.jsonl")[-1]["step"] >= STEPS + 4)
        pair.processes[1].send_signal(signal.SIGTERM)
        assert pair.codes() == [0, 0], pair.output()
        assert "stopped by a signal after step" in pair.said[0].read_text()
    last = read_jsonl(workdir / "metrics.jsonl")[-1]["step"]
    assert newest(workdir) == last
    assert_same_curves(straight, workdir, (STEPS + 2, STEPS + 4))


def test_the_shares_of_processes_are_the_rows_of_their_devices():
    split = {0: {0, 1}, 1: {2, 3}}
    assert hosts.shares_of(split, 0) == (0, 2, (0, 1, 2, 3))
    assert hosts.shares_of(split, 1) == (1, 2, (0, 1, 2, 3))
    # All processes hold parts of the same rows: the tensor axis runs across them.
    assert hosts.shares_of({0: {0}, 1: {0}}, 1) == (0, 1, (0,))
    # Wired otherwise: the second share lies on parts 1 and 3.
    assert hosts.shares_of({0: {0, 2}, 1: {1, 3}}, 1) == (1, 2, (0, 2, 1, 3))
    for uneven in ({0: {0, 1}, 1: {1, 2}}, {0: {0, 1, 2}, 1: {3}}):
        with pytest.raises(ValueError, match="overlapping shares"):
            hosts.shares_of(uneven, 0)


def test_rows_come_back_in_the_order_in_which_they_were_read():
    mesh = sharding.make_mesh({"data": 4, "fsdp": 1, "tensor": 2})
    plain = sharding.placement(mesh)
    assert (plain.parts, plain.share, plain.shares, plain.order) == (4, 0, 1, (0, 1, 2, 3))
    rows = np.arange(8)
    np.testing.assert_array_equal(plain.as_read(plain.place(rows)), rows)
    np.testing.assert_array_equal(plain.place(rows), plain.scatter(rows))
    assert plain.everywhere(rows).sharding.is_fully_replicated
    # What two processes with the parts (0, 2) and (1, 3) have read, as it lies on the devices.
    wired = hosts.Placement(plain.rows, plain.whole, 4, 0, 2, (0, 2, 1, 3))
    np.testing.assert_array_equal(wired.as_read(np.array([0, 1, 4, 5, 2, 3, 6, 7])), rows)


def test_a_flag_of_any_process_is_heard_on_every_device():
    for flag in (True, False):
        answer = hosts.any_process(flag)
        assert bool(answer) is flag
        assert len(answer.sharding.device_set) == 8


def test_one_process_does_alone_what_the_first_would():
    assert hosts.first_alone(lambda: 5) == 5
    assert jax.process_count() == 1
    assert sharding.for_evaluation({"a": jax.ShapeDtypeStruct((1,), "float32")}) == (None, None)
    hosts.leave("with one process the caller raises its own error")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("127.0.0.1:1", None, 0), "--num_processes missing: several processes need all three"),
        ((None, 2, None), "--coordinator_address and --process_id missing"),
    ],
)
def test_processes_that_are_named_by_halves_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        hosts.connect(*given)
