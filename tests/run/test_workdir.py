"""A workdir stands alone, wherever it is moved."""

import json
import shutil
import sys

import numpy as np
import pytest
from fixtures.trained import tiny_config

from int_ra_jax.common import config as configuration
from int_ra_jax.common.params import flatten
from int_ra_jax.run.workdir import open_run
from int_ra_jax.training.create import create_workdir


def test_a_moved_workdir_is_evaluated_without_its_origins(trained, evaluated):
    # The fixture evaluated the copy while workdir and prepared directory were out of reach.
    assert evaluated.workdir != trained.workdir
    names = {"report.json", "report.html", "per_query.jsonl", "pr_curve.csv"}
    assert names <= {path.name for path in (evaluated.workdir / "eval").iterdir()}
    assert not (trained.workdir / "eval").exists()


def test_opening_a_workdir_again_gives_the_same_system_tokenizer_and_gallery(trained):
    one, other = open_run(trained.workdir), open_run(trained.workdir)
    assert one.fingerprint == other.fingerprint
    assert one.facts == other.facts
    assert flatten(one.abstract_params) == flatten(other.abstract_params)
    for name in ("pixels", "attribute_index", "attribute_mask", "intentions", "index"):
        np.testing.assert_array_equal(getattr(one.bank, name), getattr(other.bank, name))
    assert one.labels.tokens.ids.shape == (len(one.dataset.intentions), 6)


def test_creating_a_workdir_twice_changes_nothing_a_checkpoint_depends_on(trained, tmp_path):
    workdir = trained.copy(tmp_path / "copy")
    kept = ["data.json", "towers/text/config.json", "towers/image/config.json"]
    kept += ["towers/text/tokenizer.json", "config.json"]
    before = {name: (workdir / name).read_bytes() for name in kept}
    run = create_workdir(tiny_config(trained.prepared), workdir)
    assert {name: (workdir / name).read_bytes() for name in kept} == before
    assert run.fingerprint == open_run(trained.workdir).fingerprint


def test_a_workdir_reads_emoji_as_it_was_begun_without_the_names_of_the_package(
    trained, tmp_path, monkeypatch
):
    kept = open_run(trained.workdir)
    sad, happy = (kept.tokenizer.encode([text])[0].ids for text in ("so 😭", "so 😂"))
    assert sad == happy and kept.tokenizer.emoji is None
    config = tiny_config(
        trained.prepared, data__tfds_dir=str(trained.workdir / "tfds"), text__emoji="words"
    )
    create_workdir(config, tmp_path / "run")
    monkeypatch.setitem(sys.modules, "emoji", None)
    run = create_workdir(config, tmp_path / "run")
    assert run.config.text.emoji == "words"
    read = run.tokenizer.encode(["so 😭", "so loudly crying face", "so 😂"])
    assert read[0].ids == read[1].ids != read[2].ids
    with pytest.raises(ValueError, match=r"text\.emoji"):
        run.check({"fingerprint": kept.fingerprint})


def test_a_run_on_some_rows_of_train_knows_these_alone_wherever_it_is_opened(trained, tmp_path):
    records = str(trained.workdir / "tfds")
    whole = open_run(trained.workdir)

    def created(rows, name):
        config = tiny_config(trained.prepared, data__tfds_dir=records, train__rows=rows)
        return create_workdir(config, tmp_path / name)

    def ids(run, split="train"):
        return [one.id for one in run.dataset.conversations(split)]

    run, more = created(9, "nine"), created(20, "twenty")
    assert len(ids(run)) == run.dataset.size("train") == 9
    assert {*ids(run)} < {*ids(more)} < {*ids(whole)}
    assert ids(run) == [one for one in ids(whole) if one in {*ids(run)}]  # in the split's order
    assert ids(run, "valid") == ids(whole, "valid")
    # Opened again it is the same run, and neither the whole nor another share of it.
    again = open_run(tmp_path / "nine")
    assert ids(again) == ids(run) and again.fingerprint == run.fingerprint
    for other in (whole, more):
        with pytest.raises(ValueError, match=r"train\.rows"):
            other.check({"fingerprint": run.fingerprint})
    # Nothing else of train is known to it.
    counts = np.bincount(run.dataset.targets(run.dataset.conversations("train"))[1], minlength=4)
    assert run.facts.intention_counts == again.facts.intention_counts == (*counts.tolist(),)
    used = {one.sticker for one in run.dataset.conversations("train")}
    known = np.flatnonzero(run.bank.intentions.any(axis=1))
    assert {run.dataset.stickers[row].id for row in known} == used
    # More than there are is all of them.
    assert ids(created(10_000, "all")) == ids(whole)


def test_shared_records_are_found_from_any_directory(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained.workdir / "tfds", tmp_path / "records")
    create_workdir(tiny_config(trained.prepared, data__tfds_dir="records"), tmp_path / "run")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert open_run(tmp_path / "run").dataset.size("test") == 22
    assert not (tmp_path / "run" / "tfds").exists()


def test_a_checkpoint_of_another_config_is_refused_with_the_keys_that_differ(trained, tmp_path):
    workdir = trained.copy(tmp_path / "edited")
    record = json.loads((workdir / "config.json").read_text())
    record["loss"]["margin"], record["seed"], record["eval"]["batch_size"] = 0.3, 1, 5
    (workdir / "config.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="made with another config") as raised:
        open_run(workdir).restore_best()
    assert "loss.margin: 0.2 in the checkpoint, 0.3 now" in str(raised.value)
    assert "seed: 0 in the checkpoint, 1 now" in str(raised.value)
    assert "eval.batch_size" not in str(raised.value)


def test_a_workdir_without_a_checkpoint_says_so(trained, tmp_path):
    workdir = trained.copy(tmp_path / "bare")
    shutil.rmtree(workdir / "checkpoints")
    with pytest.raises(FileNotFoundError, match="no latest checkpoint"):
        open_run(workdir).restore_best()


def test_a_workdir_without_its_records_says_so(trained, tmp_path):
    workdir = trained.copy(tmp_path / "bare")
    shutil.rmtree(workdir / "tfds")
    with pytest.raises(FileNotFoundError, match="Copy the working directory whole"):
        open_run(workdir)


def test_a_tower_that_does_not_exist_is_an_error_before_anything_is_built(trained, tmp_path):
    (tmp_path / "bert-tiny").mkdir()
    config = tiny_config(trained.prepared, model__text__source=str(tmp_path / "bert-tinny"))
    with pytest.raises(FileNotFoundError, match="bert-tiny"):
        create_workdir(config, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert configuration.load(trained.workdir).model.text.source == ""
