"""The training loop: killed, resumed, poisoned and moved to other devices, it stays exact."""

import os
import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures.prepared import make_prepared_directory
from fixtures.trained import STEPS, read_jsonl, tiny_config

from int_ra_jax.common import config as configuration
from int_ra_jax.common.log import MetricLog, read_metrics
from int_ra_jax.common.params import flatten
from int_ra_jax.data.batches import make_batches
from int_ra_jax.run.workdir import open_run
from int_ra_jax.training import loop, sharding
from int_ra_jax.training.loop import NotFiniteError, prepare, start, train

KEYS = ("train/loss/total", "train/loss/retrieval", "train/loss/intention", "train/gradient_norm")


@pytest.fixture
def config(trained):
    """Makes configs of runs on the same records as ``trained``."""

    def make(**changes):
        records = str(trained.workdir / "tfds")
        return tiny_config(trained.prepared, data__tfds_dir=records, **changes)

    return make


def state_of(workdir: Path, step: int):
    """Everything that a checkpoint holds, by path."""
    trainer = prepare(configuration.load(workdir), workdir)
    with trainer.run.checkpoints() as checkpoints:
        return flatten(checkpoints.restore(step, trainer.abstract_state))


def steps_in(workdir: Path) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


def test_another_seed_draws_other_parameters_by_the_same_program(config, tmp_path, monkeypatch):
    programs, create = [], sharding.create_sharded

    def watched(function, shardings, *arguments):
        lowered = jax.jit(function, out_shardings=shardings).lower(*arguments)
        programs.append(lowered.as_text())
        return create(function, shardings, *arguments)

    monkeypatch.setattr(sharding, "create_sharded", watched)
    drawn = [
        flatten(loop.initial_params(prepare(config(seed=seed), tmp_path / str(seed)))[0])
        for seed in (5, 6)
    ]
    assert programs[0] == programs[1]
    path = "text/embeddings/word_embeddings/embedding"
    assert not np.array_equal(drawn[0][path], drawn[1][path])


def test_a_run_that_is_stopped_by_a_signal_and_resumed_is_the_run_that_was_not(
    trained, config, tmp_path, monkeypatch
):
    seen, place, write = [], loop.place, MetricLog.write

    def watched(batch, mesh):
        seen.append(batch.example.tolist())
        return place(batch, mesh)

    def interrupted(log, step, *arguments, **options):
        write(log, step, *arguments, **options)
        if step == 2:  # the end of step 2, which is not saved: step 3 has to be
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop, "place", watched)
    monkeypatch.setattr(MetricLog, "write", interrupted)
    workdir = tmp_path / "stopped"
    assert train(config(), workdir) == {}
    assert steps_in(workdir) == [3]
    assert len(seen) == 4
    seen.pop()  # placed ahead, and not used
    monkeypatch.setattr(MetricLog, "write", write)
    # Validations fall elsewhere now, and logging too: neither may matter.
    results = train(config(train__log_steps=1, train__eval_steps=6), workdir)
    assert results == trained.results

    run = open_run(trained.workdir)
    text = run.config.text
    stream = make_batches(run.dataset, run.tokenizer, text, "train", 8, run.config.seed)
    expected = [next(stream).example.tolist() for _ in range(STEPS)]
    assert seen == expected
    assert len({tuple(rows) for rows in expected}) == STEPS

    straight, resumed = state_of(trained.workdir, STEPS), state_of(workdir, STEPS)
    assert any(path.startswith("opt_state/") for path in straight)
    assert "bank_embedding" in straight
    assert straight.keys() == resumed.keys()
    for path, value in straight.items():
        np.testing.assert_array_equal(resumed[path], value, err_msg=path)
    curves = [read_metrics(d / "metrics.jsonl") for d in (trained.workdir, workdir)]
    for key in KEYS:
        one, other = (dict(zip(*curve[key], strict=True)) for curve in curves)
        common = one.keys() & other.keys()
        assert common >= {2, 4, 6, 8, 10, 12}
        assert {step: one[step] for step in common} == {step: other[step] for step in common}


def test_a_run_that_is_finished_trains_no_further(trained, config, tmp_path):
    workdir = trained.copy(tmp_path / "finished")
    before = (workdir / "metrics.jsonl").read_text()
    assert train(tiny_config(trained.prepared), workdir) == {}
    assert (workdir / "metrics.jsonl").read_text() == before
    assert steps_in(workdir) == steps_in(trained.workdir)


def test_the_record_holds_training_and_validation_by_increasing_steps(trained):
    record = read_jsonl(trained.workdir / "metrics.jsonl")
    training = [line["step"] for line in record if "train/loss/total" in line]
    validation = [line for line in record if "valid/retrieval/mAP" in line]
    assert training == [2, 4, 6, 8, 10, 12]
    assert [line["step"] for line in validation] == [4, 8, 12]
    assert [line["step"] for line in record] == sorted(line["step"] for line in record)
    for line in record:
        assert all(np.isfinite(value) for value in line.values())
    last = {f"valid/retrieval/{name}": value for name, value in trained.results.items()}
    assert last == {name: validation[-1][name] for name in last}
    assert not any("leaf_gradient_norms" in name for line in record for name in line)


def test_training_lowers_the_loss(trained):
    _, values = read_metrics(trained.workdir / "metrics.jsonl")["train/loss/total"]
    assert values[-1] < 0.8 * values[0]


def test_the_best_checkpoint_by_validation_and_the_newest_are_kept(trained):
    steps, values = read_metrics(trained.workdir / "metrics.jsonl")["valid/retrieval/mAP"]
    best = max(zip(values, steps, strict=True))[1]
    assert steps_in(trained.workdir) == sorted({best, 8, 12})
    params, step = open_run(trained.workdir).restore_best()
    assert step == best
    stored = state_of(trained.workdir, best)
    for path, value in flatten(params).items():
        np.testing.assert_array_equal(value, stored[f"params/{path}"], err_msg=path)


def test_a_step_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(
    config, tmp_path, monkeypatch
):
    refresh = loop.refresh

    def poisoned(trainer, state):
        state = refresh(trainer, state)
        bad = int(state.step) >= 4
        return state.replace(bank_embedding=state.bank_embedding * (jnp.nan if bad else 1.0))

    monkeypatch.setattr(loop, "refresh", poisoned)
    workdir = tmp_path / "poisoned"
    with pytest.raises(NotFiniteError, match=r"step 5\. The checkpoint of step 4 is kept; lower"):
        train(config(train__log_steps=3), workdir)
    assert steps_in(workdir) == [4]
    assert all(line["step"] <= 4 for line in read_jsonl(workdir / "metrics.jsonl"))
    kept = state_of(workdir, 4)
    assert int(kept["bad_step"]) == -1
    assert all(np.all(np.isfinite(value)) for value in kept.values())


def test_a_workdir_of_another_config_is_refused_with_every_key_that_differs(trained):
    before = (trained.workdir / "config.json").read_text()
    changed = tiny_config(trained.prepared, optim__lr=0.5, seed=3, loss__margin=0.1)
    with pytest.raises(ValueError, match="holds a run of another config") as raised:
        train(changed, trained.workdir)
    for line in ("optim.lr: 0.003 in the checkpoint, 0.5 now", "seed: 0", "loss.margin: 0.2"):
        assert line in str(raised.value)
    assert "train.max_steps" not in str(raised.value)
    assert (trained.workdir / "config.json").read_text() == before


def test_a_workdir_of_other_data_is_refused_and_left_as_it_was(trained, tmp_path):
    workdir = trained.copy(tmp_path / "copy")
    other = make_prepared_directory(tmp_path / "other", seed=1)
    with pytest.raises(ValueError, match="holds a run on other data"):
        train(tiny_config(other), workdir)
    for name in ("data.json", "config.json"):
        assert (workdir / name).read_text() == (trained.workdir / name).read_text()
    open_run(workdir).restore_best()


def test_a_missing_or_unnamed_prepared_directory_is_an_error_before_anything_is_written(tmp_path):
    (tmp_path / "embedded").mkdir()
    with pytest.raises(FileNotFoundError, match=r"Did you mean .*embedded\?"):
        train(tiny_config(tmp_path / "embeded"), tmp_path / "new")
    with pytest.raises(ValueError, match=r"data\.prepared_dir is empty"):
        train(tiny_config(""), tmp_path / "new")
    assert not (tmp_path / "new" / "config.json").exists()


def start_of(config, workdir):
    trainer = prepare(config, workdir)
    with trainer.run.checkpoints() as checkpoints:
        return trainer, *start(trainer, checkpoints)


@pytest.mark.parametrize("mesh", [(1, 1, 1), (2, 2, 2)])
def test_another_workdir_gives_the_parameters_and_nothing_else(trained, config, tmp_path, mesh):
    axes = dict(zip(("mesh__data", "mesh__fsdp", "mesh__tensor"), mesh, strict=True))
    changed = config(checkpoint__resume_from=str(trained.workdir), **axes)
    trainer, state, resumed = start_of(changed, tmp_path / "new")
    assert not resumed
    assert int(state.step) == 0
    best = flatten(open_run(trained.workdir).restore_best()[0])
    for path, value in flatten(state.params).items():
        np.testing.assert_array_equal(value, best[path], err_msg=path)
        assert value.sharding.mesh == trainer.mesh
    assert all(not np.any(value) for value in flatten(state.opt_state).values())


def test_parameters_of_another_shape_are_refused_by_name(trained, config, tmp_path):
    changed = config(checkpoint__resume_from=str(trained.workdir), model__joint_width=8)
    with pytest.raises(ValueError, match=r"does not fit this model:[^$]*query_projection/kernel"):
        start_of(changed, tmp_path / "new")


def test_a_checkpoint_of_one_device_continues_on_eight(trained, tmp_path):
    workdir = trained.copy(tmp_path / "copy")
    changed = tiny_config(trained.prepared, mesh__data=2, mesh__fsdp=2, mesh__tensor=2)
    _, state, resumed = start_of(changed, workdir)
    assert resumed
    stored = state_of(trained.workdir, STEPS)
    for path, value in flatten(state).items():
        np.testing.assert_array_equal(value, stored[path], err_msg=path)
        assert len(value.sharding.device_set) == 8


@pytest.mark.long
def test_training_on_eight_devices_gives_the_losses_of_one(trained, config, tmp_path):
    spread = config(mesh__data=2, mesh__fsdp=2, mesh__tensor=2, train__max_steps=6)
    train(spread, tmp_path / "spread")
    one, other = (
        read_metrics(workdir / "metrics.jsonl")
        for workdir in (trained.workdir, tmp_path / "spread")
    )
    for key in KEYS:
        np.testing.assert_allclose(other[key][1][:3], one[key][1][:3], atol=1e-3, err_msg=key)
    key = "valid/retrieval/mAP"
    np.testing.assert_allclose(other[key][1][0], one[key][1][0], atol=0.02)


def test_the_cache_of_frozen_layers_changes_no_loss(config, tmp_path):
    frozen = {
        "model__text__frozen_layers": -1,
        "model__image__frozen_layers": -1,
        "train__max_steps": 4,
        "train__log_steps": 1,
    }
    curves = []
    for cached in (True, False):
        workdir = tmp_path / str(cached)
        train(config(train__cache_frozen=cached, **frozen), workdir)
        curves.append(read_metrics(workdir / "metrics.jsonl"))
    for key in (*KEYS, "valid/retrieval/mAP", "valid/retrieval/intention_accuracy"):
        (steps, one), (_, other) = (curve[key] for curve in curves)
        assert steps
        np.testing.assert_allclose(one, other, atol=1e-5, err_msg=key)


def test_a_cache_that_is_too_large_is_refused_before_it_is_computed(config, tmp_path):
    changed = config(model__text__frozen_layers=-1, train__cache_limit_gib=1e-6)
    with pytest.raises(ValueError, match=r"above train\.cache_limit_gib=1e-06.*cache_frozen=False"):
        train(changed, tmp_path / "new")
