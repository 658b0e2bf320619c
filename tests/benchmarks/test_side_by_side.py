"""The race: processes of their own, alternating rounds, and failures that reach the caller."""

import json

import pytest

from benchmarks import side_by_side
from benchmarks.side_by_side import Contestant


def test_contestants_take_turns_in_processes_of_their_own(tmp_path):
    logs = {name: tmp_path / name for name in ("one", "other")}
    results = side_by_side.race(
        {
            name: Contestant("fixtures.contestants:sleeper", {"seconds": 0.01, "log": str(log)})
            for name, log in logs.items()
        },
        rounds=3,
    )
    rows = [
        (name, *line.split()) for name, log in logs.items() for line in log.read_text().splitlines()
    ]
    assert len({process for name, process, _ in rows}) == 2
    # One run for the first result and one to warm up, then three timed rounds in turn.
    order = [name for name, _, _ in sorted(rows, key=lambda row: float(row[2]))]
    assert order == ["one"] * 2 + ["other"] * 2 + ["one", "other"] * 3
    for result in results.values():
        assert result.first == 0.01
        assert len(result.seconds) == 3
        assert result.median >= 0.01
        assert result.facts == {"flops": 7}
        assert 1e6 < result.peak_bytes < 1e12
        assert json.loads(json.dumps(result.to_json()))["median"] == result.median


def test_a_contestant_that_fails_is_named_with_its_traceback():
    contestant = Contestant("benchmarks.side_by_side:no_such_factory", {})
    with pytest.raises(RuntimeError, match=r"the slow one failed(.|\n)*no_such_factory"):
        side_by_side.race({"the slow one": contestant}, rounds=1)


def test_a_contestant_whose_process_dies_is_named():
    contestant = Contestant("os:_exit", {"status": 1})
    with pytest.raises(RuntimeError, match="The process of the slow one ended without an answer"):
        side_by_side.race({"the slow one": contestant}, rounds=1)
