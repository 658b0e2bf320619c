"""The log: complete after a kill, doubled by nothing, readable by strict JSON parsers."""

import json
import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from absl import logging

from int_ra_jax.common.log import MetricLog, log_start, progress, read_metrics, versions


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def lines(monkeypatch):
    """Collects what is logged, with its arguments filled in."""
    collected = []
    monkeypatch.setattr(logging, "info", lambda text, *values: collected.append(text % values))
    return collected


def open_log(workdir, **changes):
    arguments = {"total_steps": 5000, "batch_size": 4, "tensorboard": False, **changes}
    return MetricLog(workdir, **arguments)


def test_what_is_written_is_read_back(tmp_path):
    with open_log(tmp_path / "run") as log:
        log.write(1, {"train/loss/total": jnp.float32(2.5), "train/loss/intention": 1})
        log.write(2, {"train/loss/total": 1.25})
        log.write(2, {"valid/retrieval/mAP": 0.5})
    curves = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert curves.pop("perf/examples_per_sec")[0] == [1, 2]
    assert curves == {
        "perf/input_wait_share": ([1, 2], [0.0, 0.0]),
        "train/loss/total": ([1, 2], [2.5, 1.25]),
        "train/loss/intention": ([1], [1.0]),
        "valid/retrieval/mAP": ([2], [0.5]),
    }


def test_the_share_of_waiting_is_of_the_time_between_two_lines_without_what_is_untimed(tmp_path):
    clock = Clock()
    with open_log(tmp_path, clock=clock) as log:
        with log.waiting():
            clock.now += 5  # before the first step: not counted
        clock.now += 3
        log.first_step(1, 8.0)
        for step, (waited, worked, validated) in enumerate([(1, 3, 0), (0, 2, 50)], start=2):
            with log.waiting():
                clock.now += waited
            with log.untimed():
                clock.now += validated
            clock.now += worked
            log.write(step, {"train/loss/total": 1.0})
    curves = read_metrics(tmp_path / "metrics.jsonl")
    assert curves["perf/first_step_sec"] == ([1], [8.0])
    assert curves["perf/input_wait_share"] == ([2, 3], [0.25, 0.0])
    assert curves["perf/examples_per_sec"] == ([2, 3], [1.0, 2.0])


def test_every_line_is_strict_json_even_if_the_loss_is_not_finite(tmp_path):
    with open_log(tmp_path) as log:
        log.write(1, {"train/loss/total": math.nan, "train/loss/retrieval": math.inf})

    def refuse(constant):
        raise AssertionError(constant)

    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    entry = json.loads(line, parse_constant=refuse)
    assert entry["step"] == 1
    assert entry["wall_time"] > 1e9
    assert entry["train/loss/total"] is None
    assert math.isnan(read_metrics(tmp_path / "metrics.jsonl")["train/loss/total"][1][0])


def test_a_resumed_run_has_every_step_once_and_a_new_one_starts_empty(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with open_log(tmp_path) as log:
        for step in range(1, 6):
            log.write(step, {"train/loss/total": float(step)})
    with path.open("a") as file:
        file.write('{"step": 6, "wall_ti')
    assert read_metrics(path)["train/loss/total"][0] == [1, 2, 3, 4, 5]
    with open_log(tmp_path, resume_step=3) as log:
        log.write(4, {"train/loss/total": 40.0})
    assert read_metrics(path)["train/loss/total"] == ([1, 2, 3, 4], [1.0, 2.0, 3.0, 40.0])
    open_log(tmp_path).close()
    assert read_metrics(path) == {}
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_damage_inside_the_record_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step"\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl:2 is not JSON"):
        read_metrics(path)


def test_the_progress_line_tells_speed_and_time_left(tmp_path, lines):
    clock = Clock()
    log = open_log(tmp_path, resume_step=200, clock=clock)
    clock.now += 10
    log.write(1200, {"train/loss/total": 1.93}, show=["train/loss/total"])
    clock.now += 40
    log.write(1200, {"valid/retrieval/mAP": 0.25}, show=["valid/retrieval/mAP"])
    log.close()
    assert lines == [
        "step 1200/5000 24% | loss 1.93 | 400 ex/s | ETA 0:00:38",
        "step 1200/5000 24% | mAP 0.25 | ETA 0:03:10",
    ]


def test_validation_does_not_count_in_the_examples_per_second(tmp_path, lines):
    clock = Clock()
    with open_log(tmp_path, clock=clock) as log:
        clock.now += 1
        with log.untimed():
            clock.now += 99
        clock.now += 1
        log.write(10, {"train/loss/total": 1.0})
    assert "20 ex/s" in lines[0]
    assert read_metrics(tmp_path / "metrics.jsonl")["perf/examples_per_sec"] == ([10], [20.0])


def test_a_metric_without_a_split_is_refused(tmp_path):
    with open_log(tmp_path) as log, pytest.raises(ValueError, match="metric names loss: use split"):
        log.write(1, {"loss": 1.0, "train/loss/total": 1.0})


def test_only_the_first_host_writes(tmp_path, monkeypatch, lines, capfd):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with open_log(tmp_path / "run", tensorboard=True) as log:
        log.write(1, {"train/loss/total": 1.0})
    with progress("rank", 1, "queries") as bar:
        bar.update()
    assert not lines and not (tmp_path / "run").exists() and not capfd.readouterr().err


def test_the_tensorboard_mirror_has_the_same_values_and_needs_no_tensorflow(tmp_path, pytestconfig):
    script = """
import sys
from int_ra_jax.common.log import MetricLog
log = MetricLog(sys.argv[1], 10, batch_size=1, resume_step=3)
log.write(4, {"train/loss/total": 2.5})
log.close()
assert "tensorflow" not in sys.modules
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    subprocess.run(command, check=True, cwd=pytestconfig.rootpath)
    (file,) = (tmp_path / "tensorboard").iterdir()
    content = file.read_bytes()
    assert b"train/loss/total" in content and b"perf/examples_per_sec" in content


def test_progress_says_what_is_done_and_how_far_it_is(capfd):
    with progress("encode gallery", 10, "stickers") as bar:
        bar.update(10)
    printed = capfd.readouterr().err
    assert "encode gallery: 100%" in printed and "10/10" in printed and " stickers/s" in printed


def test_the_start_of_a_run_is_on_record(lines):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    log_start(
        mesh=mesh,
        batch_size=8,
        total_steps=50,
        parameters={"text": (1_000_000, 10), "head": (20, 20)},
        notes={"start": "pretrained towers"},
    )
    text = "\n".join(lines)
    assert f"jax {jax.__version__}" in text and versions()["python"] in text
    for part in (
        "devices: 2 x cpu on 1 host(s), mesh data=2",
        "batch: 8 conversations a step, 8 on each host; 50 steps",
        "parameters: text 1,000,000, 10 of them train",
        "start: pretrained towers",
    ):
        assert part in text
