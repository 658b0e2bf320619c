"""Runs on the same data take from each other what all of them would compute alike."""

import json
import shutil

import numpy as np
import pytest
from fixtures.trained import tiny_config

from configs import clip, srs
from int_ra_jax.data import schema
from int_ra_jax.evaluation import reference
from int_ra_jax.evaluation.evaluate import evaluate
from int_ra_jax.run import workdir
from int_ra_jax.run.array_store import ArrayStore, digest
from int_ra_jax.run.encode import Encoder
from int_ra_jax.run.workdir import open_run
from int_ra_jax.training import create, loop
from int_ra_jax.training.loop import train


def figures(workdir):
    run = open_run(workdir)
    evaluate(run, *run.restore_best())
    rows = json.loads((workdir / "eval" / "report.json").read_text())["systems"]
    return {name: {m: cell["value"] for m, cell in row.items()} for name, row in rows.items()}


def test_an_evaluation_takes_what_another_run_left_and_finds_the_same(
    trained, tmp_path, monkeypatch
):
    shared = tmp_path / "shared"
    config = tiny_config(
        trained.prepared,
        clip,
        train__max_steps=4,
        data__tfds_dir=str(trained.workdir / "tfds"),
        model__text__frozen_layers=-1,
        train__shared_cache=str(shared),
    )
    train(config, tmp_path / "run")
    first = figures(tmp_path / "run")
    kept = {path.name.rsplit("-", 1)[0] for path in shared.iterdir()}
    assert kept == {
        *(
            f"{what}-{split}"
            for what in ("hidden", "tokens")
            for split in ("train", "valid", "test")
        ),
        *("linear", "vocabulary"),
    }
    with monkeypatch.context() as patched:
        patched.delattr(reference, "linear_scores")
        patched.delattr(Encoder, "_compute_hidden")
        assert figures(tmp_path / "run") == first
    shutil.rmtree(shared)  # as after a move to another machine
    again = figures(tmp_path / "run")
    assert not shared.exists()
    for name, row in first.items():
        assert again[name] == pytest.approx(row, abs=1e-6), name


def test_other_utterances_or_other_code_are_never_taken_from_before(trained, tmp_path, monkeypatch):
    asked, get = [], ArrayStore.get

    def noted(store, name, sources, compute):
        if not name.startswith("hidden"):
            return get(store, name, sources, compute)
        return asked.append([*sources()])

    monkeypatch.setattr(ArrayStore, "get", noted)
    changes = ({}, {"model__utterances": 3}, {"model__utterance_tokens": 9}, {"optim__lr": 0.5})
    for number, change in enumerate(changes):
        config = tiny_config(
            trained.prepared,
            srs,
            data__tfds_dir=str(trained.workdir / "tfds"),
            model__text__frozen_layers=-1,
            **change,
        )
        run = create.create_workdir(config, tmp_path / str(number))
        Encoder(run).hidden({"text": {}}, "train")
    monkeypatch.setattr(
        workdir, "_PACKAGE", shutil.copytree(workdir._PACKAGE, tmp_path / "package")
    )
    with (tmp_path / "package" / "run" / "frozen_texts.py").open("a") as file:
        file.write("# computed in another way\n")
    Encoder(open_run(tmp_path / "0")).hidden({"text": {}}, "train")
    base, fewer, shorter, rate, code = map(digest, asked)
    assert len({base, fewer, shorter, code}) == 4
    assert rate == base


def test_other_labels_leave_what_the_frozen_layers_say_of_the_same_texts(
    trained, tmp_path, monkeypatch
):
    monkeypatch.setattr(Encoder, "_compute_hidden", lambda *_: np.zeros((2, 3, 4)))
    shared = tmp_path / "shared"
    relabelled = shutil.copytree(trained.prepared, tmp_path / "relabelled")
    lines = (relabelled / "conversations.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    intentions = {row["intention"] for row in rows}
    for row in rows:
        row["intention"] = min(intentions - {row["intention"]})
    (relabelled / "conversations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    about = json.loads((relabelled / "dataset.json").read_text())
    about["files"] = schema.describe_files(relabelled)
    (relabelled / "dataset.json").write_text(json.dumps(about))
    hashes = set()
    for name, prepared in (("first", trained.prepared), ("second", relabelled)):
        config = tiny_config(
            prepared, clip, model__text__frozen_layers=-1, train__shared_cache=str(shared)
        )
        run = create.create_workdir(config, tmp_path / name)
        hashes.add(run.dataset.content_hash)
        Encoder(run).hidden({"text": {}}, "train")
    assert len(hashes) == 2
    assert len([*shared.glob("tokens-train-*")]) == 2
    assert len([*shared.glob("hidden-train-*")]) == 1


def test_lengths_are_those_of_the_run_that_measured_them(trained, tmp_path, monkeypatch):
    config = tiny_config(
        trained.prepared,
        clip,
        data__tfds_dir=str(trained.workdir / "tfds"),
        train__shared_cache=str(tmp_path / "shared"),
        train__bucket_tokens=4,
    )
    first = loop.prepare(config, tmp_path / "first")
    with monkeypatch.context() as patched:
        patched.setattr(loop, "measure", lambda *_: pytest.fail("measured again"))
        second = loop.prepare(config, tmp_path / "second")
    assert second.unread == first.unread
    np.testing.assert_array_equal(second.buckets.lengths, first.buckets.lengths)
    with config.unlocked():
        config.text.context_tokens = 12
    shorter = loop.prepare(config, tmp_path / "shorter")
    assert shorter.buckets.lengths.max() <= 12 < first.buckets.lengths.max()


def test_a_second_run_takes_the_vocabulary_that_the_first_one_learnt(
    trained, tmp_path, monkeypatch
):
    config = tiny_config(trained.prepared, clip, train__shared_cache=str(tmp_path / "shared"))
    dataset = open_run(trained.workdir).dataset
    for name in ("shared", "first", "second"):
        (tmp_path / name).mkdir()
    create._learn_vocabulary(config, dataset, tmp_path / "first")
    monkeypatch.delattr(create, "train_wordpiece")
    create._learn_vocabulary(config, dataset, tmp_path / "second")
    kept = {path.name: path.read_bytes() for path in (tmp_path / "first").iterdir()}
    assert kept == {path.name: path.read_bytes() for path in (tmp_path / "second").iterdir()}
    # without a cache between runs it would have been the same
    alone = trained.workdir / "towers" / "text" / "tokenizer.json"
    assert kept["tokenizer.json"] == alone.read_bytes()
