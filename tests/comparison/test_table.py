"""Runs of a table: what is done, what is left, and what is written in the end."""

import csv
import json
from contextlib import closing
from pathlib import Path

import jax
import pytest
from fixtures.compared import write_evaluation

from configs import table as presets
from int_ra_jax.comparison import table, table_config, table_run
from int_ra_jax.comparison.table_run import DivergedError, RunFailedError
from int_ra_jax.comparison.trials import Trials

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = ROOT / "launch.py"
SYSTEMS = ("int_ra", "clip")


class Fake:
    """Runs a job by writing what training and evaluation would leave."""

    def __init__(self, fails=(), diverges=()):
        self.done, self.fails, self.diverges = [], set(fails), set(diverges)

    def __call__(self, job):
        self.done.append(f"{job.entry.name}, {job.label}")
        if self.done[-1] in self.fails:
            raise RunFailedError("its disk was full at step 3")
        if self.done[-1] in self.diverges:
            raise DivergedError("loss was not finite at step 3")
        job.workdir.mkdir(parents=True, exist_ok=True)
        best = job.config.optim.lr * 100 + (job.config.model.name == "clip") / 100
        values = {"step": job.stop, "wall_time": 0.0, "valid/retrieval/mAP": best}
        (job.workdir / "metrics.jsonl").write_text(json.dumps(values) + "\n")
        if job.evaluates:
            write_evaluation(job.workdir, job.config.model.name, job.config.seed, 1.0, 12)


@pytest.fixture
def settings(prepared_dir):
    """Two systems, two seeds, two trials and one reading."""
    config = presets.get_config("smoke")
    with config.unlocked():
        for name in set(config.systems) - set(SYSTEMS):
            del config.systems[name]
        for name in set(config.readings) - {"without_attribute"}:
            del config.readings[name]
        config.prepared_dir, config.resamples, config.also_tested = str(prepared_dir), 50, ()
        for section in config.systems.values():
            section.space = presets.nested({})
    return config


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_trials_come_first_then_seeds_and_the_winner_s_own_seed_is_not_trained_twice(
    settings, tmp_path
):
    fake = Fake()
    lines = table.make(settings, tmp_path, LAUNCHER, fake)
    assert fake.done == [
        "int_ra, trial 0", "int_ra, trial 1", "clip, trial 0", "clip, trial 1",
        "int_ra, seed 0", "clip, seed 0", "without_attribute, seed 0",
        "int_ra, seed 1", "clip, seed 1", "without_attribute, seed 1",
    ]  # fmt: skip
    assert lines[-1] == f"table: {tmp_path / 'table' / 'table.html'}"
    folders = {path.parent.relative_to(tmp_path / "runs") for path in tmp_path.rglob("eval")}
    assert sorted(map(str, folders)) == [
        "clip/trial-001", "clip/trial-001-seed-1", "int_ra/trial-001", "int_ra/trial-001-seed-1",
        "without_attribute/trial-001-seed-0", "without_attribute/trial-001-seed-1",
    ]  # fmt: skip
    trials = read_csv(tmp_path / "table" / "trials.csv")
    assert [(t["optim.lr"], t["chosen"]) for t in trials] == 2 * [
        ("0.001", "False"), ("0.003", "True"),
    ]  # fmt: skip
    rows = {row["row"]: row["seeds"] for row in read_csv(tmp_path / "table" / "table.csv")}
    assert rows["int_ra"] == rows["clip"] == rows["without_attribute"] == "0 1"


def test_what_trials_alone_set_is_not_in_the_runs_of_the_table(settings, tmp_path):
    settings.search.overrides = presets.nested({"train.rows": 9, "train.log_steps": 3})
    jobs = []
    table.make(settings, tmp_path, LAUNCHER, lambda job: (jobs.append(job), Fake()(job)))
    rows = {f"{job.entry.name}, {job.label}": job.config.train.rows for job in jobs}
    assert rows == {
        "int_ra, trial 0": 9, "int_ra, trial 1": 9, "clip, trial 0": 9, "clip, trial 1": 9,
        "int_ra, seed 0": 0, "clip, seed 0": 0, "without_attribute, seed 0": 0,
        "int_ra, seed 1": 0, "clip, seed 1": 0, "without_attribute, seed 1": 0,
    }  # fmt: skip
    # The winner is trained anew, on all rows and in a folder of its own.
    chosen = {job.entry.name: job for job in jobs if job.label == "seed 0"}
    assert chosen["clip"].workdir.name == "trial-001-seed-0"
    assert chosen["clip"].config.optim.lr == 0.003


def test_what_is_also_tested_is_tested_as_the_main_system_is(settings, tmp_path):
    settings.also_tested, settings.search.trials = ("clip",), 0
    lines = table.make(settings, tmp_path, LAUNCHER, Fake())
    tests = read_csv(tmp_path / "table" / "significance.csv")
    pairs = {(test["system"], test["other"]) for test in tests if test["family"] == "systems"}
    assert pairs == {("int_ra", "clip"), ("int_ra", "linear"), ("clip", "linear")}
    assert any(line.startswith("clip reaches ") for line in lines)


def test_a_reading_inherits_what_was_chosen_for_the_main_system(settings, tmp_path):
    jobs = []
    table.make(settings, tmp_path, LAUNCHER, lambda job: (jobs.append(job), Fake()(job)))
    reading = next(job for job in jobs if job.entry.name == "without_attribute")
    assert reading.config.optim.lr == 0.003 and reading.config.model.attributes == "off"


def test_what_is_done_is_not_done_again_and_what_was_lost_is(settings, tmp_path):
    table.make(settings, tmp_path, LAUNCHER, Fake())
    again = Fake()
    table.make(settings, tmp_path, LAUNCHER, again)
    assert again.done == []
    (tmp_path / "runs" / "clip" / "trial-001-seed-1" / table_run.RECORD).unlink()
    (tmp_path / "runs" / "int_ra" / "trial-001-seed-1" / table_run.RECORD).write_text("{")
    table.make(settings, tmp_path, LAUNCHER, again)
    assert again.done == ["int_ra, seed 1", "clip, seed 1"]


def test_another_config_or_other_data_is_not_taken_for_done(settings, tmp_path):
    settings.search.trials = 0
    table.make(settings, tmp_path, LAUNCHER, Fake())
    path = tmp_path / "runs" / "clip" / "seed-0" / table_run.RECORD
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "content_hash": "of other data"}))
    again = Fake()
    table.make(settings, tmp_path, LAUNCHER, again)
    assert again.done == ["clip, seed 0"]
    settings.overrides.train.max_steps = 61
    table.make(settings, tmp_path, LAUNCHER, again)
    assert len(again.done) == 1 + 6


def test_a_run_that_fails_is_reported_and_the_others_make_the_table(settings, tmp_path):
    fake = Fake(fails=["clip, trial 1", "int_ra, seed 1"])
    with pytest.raises(ValueError) as caught:
        table.make(settings, tmp_path, LAUNCHER, fake)
    message = str(caught.value)
    assert "2 of the runs failed" in message and "disk was full at step 3" in message
    assert "clip, trial 1" in message and "int_ra, seed 1" in message
    rows = {row["row"]: row["seeds"] for row in read_csv(tmp_path / "table" / "table.csv")}
    assert rows["int_ra"] == "0" and rows["clip"] == "0 1"
    assert "int_ra: seed 1 missing" in (tmp_path / "table" / "table.md").read_text().replace(
        "\\", ""
    )
    chosen = [t for t in read_csv(tmp_path / "table" / "trials.csv") if t["chosen"] == "True"]
    assert [(t["system"], t["trial"]) for t in chosen] == [("int_ra", "1"), ("clip", "0")]
    notes = (tmp_path / "table" / "table.md").read_text()
    assert "clip: chosen without trial 1, which is not complete" in notes


def test_a_trial_that_diverges_is_a_bad_one_and_is_not_tried_again(settings, tmp_path):
    class Late(Fake):
        """Its validation was good before it diverged."""

        def __call__(self, job):
            try:
                super().__call__(job)
            except DivergedError:
                job.workdir.mkdir(parents=True)
                values = {"step": 2, "wall_time": 0.0, "valid/retrieval/mAP": 0.9}
                (job.workdir / "metrics.jsonl").write_text(json.dumps(values) + "\n")
                raise

    table.make(settings, tmp_path, LAUNCHER, Late(diverges=["clip, trial 1"]))
    trials = {row["trial"]: row for row in read_csv(tmp_path / "table" / "trials.csv")[2:]}
    assert trials["0"]["chosen"] == "True" and trials["1"]["chosen"] == "False"
    assert trials["1"]["validation mAP"] == "" and "not finite at step 3" in trials["1"]["error"]
    assert "not complete" not in (tmp_path / "table" / "table.md").read_text()
    again = Fake()
    table.make(settings, tmp_path, LAUNCHER, again)
    assert again.done == []
    with closing(Trials(tmp_path, settings.search)) as search:
        entry = table_config.read(settings, ROOT).systems["clip"]
        assert [trial.value for trial in search._study(entry).trials][1] == 0.0


def test_a_system_all_of_whose_trials_diverge_is_not_in_the_table(settings, tmp_path):
    fake = Fake(diverges=["clip, trial 0", "clip, trial 1"])
    table.make(settings, tmp_path, LAUNCHER, fake)
    assert "clip, seed 0" not in fake.done
    missing = {row["system"]: row["error"] for row in read_csv(tmp_path / "table" / "runs.csv")}
    assert missing["clip"] == "no trial is complete"


def test_a_seed_that_diverges_has_failed(settings, tmp_path):
    settings.search.trials = 0
    with pytest.raises(ValueError, match="clip, seed 1: loss was not finite"):
        table.make(settings, tmp_path, LAUNCHER, Fake(diverges=["clip, seed 1"]))


def test_another_choice_has_folders_of_its_own(settings, tmp_path):
    """A trial that failed may win the next time, and a workdir belongs to one config."""

    class Strict(Fake):
        def __call__(self, job):
            config = job.workdir / "config.json"
            job.workdir.mkdir(parents=True, exist_ok=True)
            flat = json.dumps(job.wanted["config"])
            if config.exists() and config.read_text() != flat:
                raise RunFailedError("the workdir belongs to another config")
            config.write_text(flat)
            super().__call__(job)

    with pytest.raises(ValueError, match="clip, trial 1"):
        table.make(settings, tmp_path, LAUNCHER, Strict(fails=["clip, trial 1"]))
    mended = Strict()
    table.make(settings, tmp_path, LAUNCHER, mended)
    assert mended.done == ["clip, trial 1", "clip, seed 0", "clip, seed 1"]
    runs = {path.name for path in (tmp_path / "runs" / "clip").iterdir()}
    assert {"trial-000-seed-1", "trial-001-seed-1"} <= runs


def test_the_winner_s_time_is_that_of_its_training_and_its_evaluation(settings, tmp_path):
    jobs = []

    def execute(job):
        Fake()(job)
        jobs.append(job)

    table.make(settings, tmp_path, LAUNCHER, execute)
    trial, winner = (
        job for job in jobs if job.workdir.name == "trial-001" and job.entry.name == "clip"
    )
    assert not trial.evaluates and winner.evaluates
    (winner.workdir / table_run.RECORD).unlink()
    trial.finish(100.0)
    winner.finish(7.0)
    assert winner.record()["seconds"] == 107.0
    winner.finish(7.0)
    assert winner.record()["seconds"] == 7.0


def test_a_recipe_of_one_s_own_is_said(settings, tmp_path):
    settings.systems.clip.overrides = presets.nested({"model.dropout": 0.5})
    lines = table.make(settings, tmp_path, LAUNCHER, Fake())
    [note] = [line for line in lines if "model.dropout (" in line]
    assert note == "note: each system its own: model.dropout (int_ra 0.0, clip 0.5)"
    assert not any("optim.lr (" in line for line in lines)


def test_the_same_command_tries_a_failed_run_again(settings, tmp_path):
    settings.search.trials = 0
    with pytest.raises(ValueError, match="1 of the runs failed"):
        table.make(settings, tmp_path, LAUNCHER, Fake(fails=["clip, seed 1"]))
    mended = Fake()
    table.make(settings, tmp_path, LAUNCHER, mended)
    assert mended.done == ["clip, seed 1"]


def test_a_table_whose_trials_are_suggested_goes_on_with_those_it_had_begun(settings, tmp_path):
    settings.search.update({"sampler": "tpe", "trials": 3})
    settings.search.space.optim.lr = (1e-3, 2e-3, 3e-3, 4e-3, 5e-3)
    with pytest.raises(ValueError, match="clip, trial 1"):
        table.make(settings, tmp_path, LAUNCHER, Fake(fails=["clip, trial 1"]))
    before = read_csv(tmp_path / "table" / "trials.csv")
    mended = Fake()
    lines = table.make(settings, tmp_path, LAUNCHER, mended)
    assert mended.done[0] == "clip, trial 1" and "clip, trial 0" not in mended.done
    after = read_csv(tmp_path / "table" / "trials.csv")
    assert [row["optim.lr"] for row in before] == [row["optim.lr"] for row in after]
    assert len(after) == 6 and not any(row["error"] for row in after)
    assert any("3 trials for each system, suggested by TPE" in line for line in lines)


def test_a_system_without_a_complete_trial_waits_and_is_named(settings, tmp_path):
    fake = Fake(fails=["clip, trial 0", "clip, trial 1"])
    with pytest.raises(ValueError, match="clip, trial 0"):
        table.make(settings, tmp_path, LAUNCHER, fake)
    assert not any(name.startswith("clip, seed") for name in fake.done)
    runs = [run for run in read_csv(tmp_path / "table" / "runs.csv") if run["system"] == "clip"]
    assert {run["error"] for run in runs} == {"no trial is complete"}


def test_a_run_that_ended_early_is_not_taken_for_done(settings, tmp_path):
    def stops(job):
        Fake()(job)
        path = job.workdir / "metrics.jsonl"
        path.write_text(path.read_text().replace(f'"step": {job.stop}', '"step": 7'))

    settings.search.trials, settings.only = 0, ("clip",)
    with pytest.raises(ValueError, match="stopped at step 7 of 60; the same command goes on"):
        table.make(settings, tmp_path, LAUNCHER, stops)


def test_only_what_is_asked_for_is_trained_and_the_table_holds_all_there_is(settings, tmp_path):
    settings.only = ("clip",)
    fake = Fake()
    table.make(settings, tmp_path, LAUNCHER, fake)
    assert all(name.startswith("clip, ") for name in fake.done)
    settings.only = ("without_attribute",)
    fake = Fake()
    table.make(settings, tmp_path, LAUNCHER, fake)
    assert fake.done == [
        "int_ra, trial 0", "int_ra, trial 1", "without_attribute, seed 0",
        "without_attribute, seed 1",
    ]  # fmt: skip
    rows = [row["row"] for row in read_csv(tmp_path / "table" / "table.csv")]
    assert rows[-2:] == ["clip", "without_attribute"]


def test_the_table_can_be_written_without_training_and_without_the_data(settings, tmp_path):
    table.make(settings, tmp_path, LAUNCHER, Fake())
    before = (tmp_path / "table" / "table.csv").read_text()
    (tmp_path / "table" / "table.csv").unlink()
    settings.write_only, settings.prepared_dir = True, ""
    fake = Fake()
    table.make(settings, tmp_path, LAUNCHER, fake)
    assert fake.done == [] and (tmp_path / "table" / "table.csv").read_text() == before


def test_a_space_smaller_than_the_budget_is_said(settings, tmp_path):
    settings.search.trials = 3
    table.make(settings, tmp_path, LAUNCHER, Fake())
    text = (tmp_path / "table" / "table.md").read_text().replace("\\", "")
    assert "clip: its space has no more than 2 points, 2 trials of the budget of 3" in text


def job(settings, tmp_path, **changes):
    jobs = []
    settings.search.trials, settings.only = 0, ("clip",)
    for key, value in changes.items():
        settings.overrides[key] = value
    table.make(settings, tmp_path, LAUNCHER, lambda job: (jobs.append(job), Fake()(job)))
    return jobs[0]


def test_what_is_set_for_one_system_alone_is_said(settings, tmp_path):
    settings.systems.clip.overrides = presets.nested({"loss.dup_policy": "mask_same_sticker"})
    lines = table.make(settings, tmp_path, LAUNCHER, Fake())
    assert "note: clip: set for it alone: loss.dup_policy=mask_same_sticker" in lines


def test_a_run_s_commands_say_all_that_differs_from_the_preset(settings, tmp_path):
    settings.overrides.train.max_steps = 11
    train, evaluate = job(settings, tmp_path).commands(LAUNCHER)
    assert train[2:4] == ["--mode=train", f"--config={ROOT / 'configs/clip.py'}:smoke"]
    assert "--config.train.max_steps=11" in train
    assert f"--config.data.tfds_dir={tmp_path / 'records'}" in train
    assert f"--config.train.compilation_cache={tmp_path / 'compiled'}" in train
    assert f"--config.train.shared_cache={tmp_path / 'shared'}" in train
    assert not any(flag.startswith("--config.optim") for flag in train)
    assert evaluate[2:] == ["--mode=eval", f"--workdir={tmp_path / 'runs' / 'clip' / 'seed-0'}"]


@pytest.mark.long
def test_real_runs_are_trained_evaluated_and_continued(
    settings, tmp_path, compiled_once, monkeypatch
):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
    settings.search.trials, settings.only, settings.seeds = 0, ("int_ra",), (0,)
    settings.overrides.train.update({"max_steps": 5, "eval_steps": 5})
    settings.overrides.eval.update({"resamples": 50, "conversations": 2})
    table.make(settings, tmp_path, LAUNCHER)
    settings.overrides.train.max_steps = 10
    lines = table.make(settings, tmp_path, LAUNCHER)
    workdir = tmp_path / "runs" / "int_ra" / "seed-0"
    assert f"starts from: checkpoint of step 5 in {workdir}" in (workdir / table_run.LOG).read_text(
        encoding="utf-8"
    )
    record = json.loads((workdir / table_run.RECORD).read_text())
    assert record["evaluated"] and record["config"]["train.max_steps"] == 10
    assert any(line.startswith("int_ra reaches ") for line in lines)

    def never(job):
        raise AssertionError("it is done")

    table.make(settings, tmp_path, LAUNCHER, never)
