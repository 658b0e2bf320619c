"""A gallery is encoded once for each checkpoint, and never read under another one."""

import shutil

import jax
import numpy as np
import pytest
from fixtures.trained import tiny_config

from configs import clip, lgur, pcme, srs
from int_ra_jax.run import array_store, workdir
from int_ra_jax.run.encode import Encoder
from int_ra_jax.run.workdir import SEARCH, open_run
from int_ra_jax.training.create import create_workdir
from int_ra_jax.training.loop import prepare, start


def assert_equal(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def opened(trained, tmp_path):
    run = open_run(trained.copy(tmp_path / "run"))
    return run, run.restore_best()[0]


def test_the_first_search_reads_no_conversation_of_train(opened, monkeypatch):
    run, params = opened
    expected = run.bank.intentions
    again = open_run(run.workdir)
    with monkeypatch.context() as patched:
        patched.setattr(again.dataset, "conversations", lambda *_: pytest.fail("train is read"))
        Encoder(again).kept_gallery(params)
        np.testing.assert_array_equal(again.bank.intentions, expected)
    assert expected.dtype == np.bool_ and expected.any()


def test_the_second_time_nothing_is_encoded(opened, monkeypatch):
    run, params = opened
    first = Encoder(run).kept_gallery(params)
    (file,) = (run.workdir / SEARCH).glob("gallery-*")
    monkeypatch.setattr(Encoder, "gallery", lambda *_: pytest.fail("encoded again"))
    assert_equal(Encoder(open_run(run.workdir)).kept_gallery(params), first)
    assert [path.name for path in (run.workdir / SEARCH).glob("gallery-*")] == [file.name]


def test_other_parameters_are_encoded_anew_and_replace_what_was_kept(opened):
    run, params = opened
    encoder = Encoder(run)
    before = encoder.kept_gallery(params)
    (file,) = (run.workdir / SEARCH).glob("gallery-*")
    moved = jax.tree.map(lambda leaf: leaf * 1.5, params)
    after = encoder.kept_gallery(moved)
    assert_equal(after, encoder.gallery(moved))
    assert not np.array_equal(before.embedding, after.embedding)
    (other,) = (run.workdir / SEARCH).glob("gallery-*")
    assert other.name != file.name


def test_a_damaged_file_is_encoded_again(opened):
    run, params = opened
    first = Encoder(run).kept_gallery(params)
    (file,) = (run.workdir / SEARCH).glob("gallery-*")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    assert_equal(Encoder(run).kept_gallery(params), first)


def test_a_workdir_that_cannot_be_written_is_searched_with_what_it_holds(opened, monkeypatch):
    run, params = opened
    first = Encoder(run).kept_gallery(params)

    def refused(*_):
        raise OSError("read-only file system")

    monkeypatch.setattr(array_store, "_write", refused)
    monkeypatch.setattr(Encoder, "gallery", lambda *_: pytest.fail("encoded again"))
    assert_equal(Encoder(open_run(run.workdir)).kept_gallery(params), first)


@pytest.mark.parametrize("system", [clip, lgur, pcme, srs])
def test_every_kind_of_encoded_sticker_comes_back_as_it_was(system, trained, tmp_path):
    config = tiny_config(trained.prepared, system, data__tfds_dir=str(trained.workdir / "tfds"))
    trainer = prepare(config, tmp_path / "run")
    with trainer.run.checkpoints() as checkpoints:
        params = start(trainer, checkpoints)[0].params
    run = open_run(tmp_path / "run")
    first = Encoder(run).kept_gallery(params)
    assert_equal(Encoder(run).kept_gallery(params), first)
    assert_equal(first, Encoder(run).gallery(params))


def test_a_workdir_from_before_they_were_noted_opens_as_the_same_run(trained, tmp_path):
    workdir = tmp_path / "run"
    now = create_workdir(tiny_config(trained.prepared), workdir)
    (workdir / "towers" / "text" / "opened.json").unlink()
    text = (workdir / "data.json").read_text().partition(',\n  "intention_counts"')[0]
    (workdir / "data.json").write_text(text + "\n}\n")
    then = open_run(workdir)
    assert then.facts == now.facts
    texts = ["Good morning, [SEP] story 3!", "早上好"]
    for one, other in zip(then.tokenizer.encode(texts), now.tokenizer.encode(texts), strict=True):
        assert one.ids == other.ids


def test_a_full_disk_keeps_nothing_and_stops_nothing(opened, monkeypatch):
    run, params = opened

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(array_store, "_write", full)
    assert_equal(Encoder(run).kept_gallery(params), Encoder(run).gallery(params))
    assert not list((run.workdir / SEARCH).glob("gallery-*"))


def test_changed_code_of_a_model_is_never_answered_from_before(opened, monkeypatch, tmp_path):
    run, params = opened
    Encoder(run).kept_gallery(params)
    (before,) = (run.workdir / SEARCH).glob("gallery-*")
    package = shutil.copytree(workdir._PACKAGE, tmp_path / "package")
    monkeypatch.setattr(workdir, "_PACKAGE", package)
    Encoder(run).kept_gallery(params)
    assert [path.name for path in (run.workdir / SEARCH).glob("gallery-*")] == [before.name]
    with (package / "models" / "layers.py").open("a") as file:
        file.write("# another reading\n")
    Encoder(run).kept_gallery(params)
    (after,) = (run.workdir / SEARCH).glob("gallery-*")
    assert after.name != before.name


def test_a_damaged_saved_tokenizer_says_what_to_delete(opened):
    run, _ = opened
    (run.workdir / "towers" / "text" / "opened.json").write_text("{")
    with pytest.raises(ValueError, match=r"opened\.json .*delete it"):
        open_run(run.workdir)
    (run.workdir / "towers" / "text" / "opened.json").unlink()
    assert open_run(run.workdir).tokenizer.cls_id == run.tokenizer.cls_id
