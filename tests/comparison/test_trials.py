"""Trials: which ones are drawn, and that a table that was stopped goes on with the same."""

import csv
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from ml_collections import ConfigDict

from configs import table as presets
from int_ra_jax.comparison import table_config
from int_ra_jax.comparison.table_config import Entry
from int_ra_jax.comparison.trials import Trials

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ConfigDict({"optim": {"lr": 1e-3}, "seed": 0})
SPACE = {"optim.lr": [1e-3, 2e-3, 4e-3, 8e-3], "model.regions": ["cls", "patches"]}


def entry(space=None, budget=4):
    space = space or SPACE
    return Entry("clip", "configs/clip.py", {}, CONFIG, space, budget)


def run_some(folder, search, system, numbers, value=lambda point: point["optim.lr"]):
    with closing(Trials(folder, ConfigDict(search))) as trials:
        for number in numbers:
            trials.begin(system, number)
            trials.tell(system, number, value(trials.drawn(system)[number]))
        return trials.drawn(system)


@pytest.mark.parametrize(
    ("preset", "file", "rates"),
    [
        ("demo", "embedded", (2e-3, 1e-3, 4e-3)),
        ("multilingual", "chinese", (2e-3, 1e-3)),
        ("scratch", "chinese_scratch", (3e-4, 6e-4)),
    ],
)
def test_the_published_tables_commands_try_what_was_published(tmp_path, preset, file, rates):
    settings = presets.get_config(preset)
    with settings.unlocked():
        settings.prepared_dir, settings.search.trials = "somewhere", 2 * len(rates)
        settings.search.space.optim.lr = rates
    systems = table_config.read(settings, ROOT).systems
    path = ROOT / "docs" / "tables" / f"{file}_trials.csv"
    with (
        path.open(encoding="utf-8", newline="") as published,
        closing(Trials(tmp_path, settings.search)) as trials,
    ):
        for row in csv.DictReader(published):
            point = trials.drawn(systems[row["system"]])[int(row["trial"])]
            tried = {key: value for key, value in row.items() if "." in key and value}
            assert {key: str(value) for key, value in point.items()} == tried


@pytest.mark.parametrize("sampler", table_config.SAMPLERS)
def test_a_search_that_was_stopped_tries_the_same_as_one_that_was_not(tmp_path, sampler):
    search, system = {"sampler": sampler, "seed": 3}, entry(budget=6)
    whole = run_some(tmp_path / "a", search, system, range(6))
    run_some(tmp_path / "b", search, system, range(2))
    with closing(Trials(tmp_path / "b", ConfigDict(search))) as killed:
        killed.begin(system, 2)
    assert run_some(tmp_path / "b", search, system, range(2, 6)) == whole
    assert len({tuple(point.values()) for point in whole}) == 6


def test_tpe_goes_where_validation_was_better(tmp_path):
    space = {"optim.lr": [float(n) for n in range(60)]}
    search = {"sampler": "tpe", "seed": 0}
    tried = run_some(
        tmp_path, search, entry(space, 24), range(24), lambda point: float(point["optim.lr"] >= 40)
    )
    later = [point["optim.lr"] for point in tried[10:]]
    assert len(set(later)) == 14
    drawn = run_some(tmp_path / "random", {**search, "sampler": "random"}, entry(space, 24), [])
    assert tried[:10] != drawn[:10]


def test_a_space_without_more_points_than_trials_is_taken_whole_and_in_order(tmp_path):
    for sampler in table_config.SAMPLERS:
        tried = run_some(tmp_path / sampler, {"sampler": sampler, "seed": 5}, entry(budget=8), [0])
        assert [tuple(point.values()) for point in tried] == [
            (rate, regions) for rate in SPACE["optim.lr"] for regions in SPACE["model.regions"]
        ]


def test_what_was_tried_is_a_study_that_optuna_reads(tmp_path):
    system = entry(budget=2)
    drawn = run_some(tmp_path, {"seed": 0}, system, [0])
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'trials.db'}")
    [summary] = optuna.get_all_study_summaries(storage)
    assert summary.study_name.startswith("clip ")
    assert summary.best_trial.value == drawn[0]["optim.lr"]
    assert summary.best_trial.params == {key: repr(value) for key, value in drawn[0].items()}
    storage.remove_session()
    storage.engine.dispose()


def test_another_space_or_another_config_is_another_search(tmp_path):
    search = {"sampler": "tpe", "seed": 0}
    run_some(tmp_path, search, entry(), [0, 1])
    wider = entry({**SPACE, "optim.lr": [*SPACE["optim.lr"], 1.0]})
    assert run_some(tmp_path, search, wider, []) == []
    assert len(run_some(tmp_path, search, entry(), [])) == 2


def test_a_damaged_file_is_named_and_loses_nothing(tmp_path):
    path = tmp_path / "trials.db"
    path.write_bytes(b"no database" * 100)
    with pytest.raises(ValueError, match=r"trials\.db cannot be used .*move it away"):
        run_some(tmp_path, {"seed": 0}, entry(), [0])
    path.unlink()
    assert len(run_some(tmp_path, {"seed": 0}, entry(), [0])) == 4
