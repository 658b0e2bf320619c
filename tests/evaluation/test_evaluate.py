"""What an evaluation writes agrees with itself, with validation, and with the split."""

import json
import time

import jax
import numpy as np
import pytest
from fixtures.trained import read_jsonl
from hypothesis import given
from hypothesis import strategies as st

from int_ra_jax.evaluation import examples
from int_ra_jax.evaluation.judge import judge, known_splits, validate
from int_ra_jax.evaluation.metrics import MEANS
from int_ra_jax.run.encode import Encoder
from int_ra_jax.run.workdir import open_run

SYSTEMS = {"int_ra", "linear", "prior", "majority_intention", "chance"}


@pytest.fixture(scope="module")
def report(evaluated):
    return json.loads((evaluated.workdir / "eval" / "report.json").read_text())


@pytest.fixture(scope="module")
def queries(evaluated):
    return read_jsonl(evaluated.workdir / "eval" / "per_query.jsonl")


@pytest.fixture(scope="module")
def run(evaluated):
    return open_run(evaluated.workdir)


def test_every_system_has_every_metric_with_its_interval(report):
    assert set(report["systems"]) == SYSTEMS
    metrics = [set(row) for row in report["systems"].values()]
    assert all(row == metrics[0] for row in metrics)
    assert {"hit@1", "hit@3", "hit@5", "precision@5", "mAP", "mrr"} <= metrics[0]
    for row in report["systems"].values():
        for interval in row.values():
            assert set(interval) == {"value", "low", "high"}
            assert interval["low"] - 1e-9 <= interval["value"] <= interval["high"] + 1e-9


def test_the_per_query_file_gives_the_means_of_the_report(report, queries):
    for system, row in report["systems"].items():
        for metric in queries[0]["systems"][system]:
            values = [query["systems"][system][metric] for query in queries]
            mean = np.mean([value for value in values if value is not None])
            found = row[MEANS[metric]]["value"]
            assert found == pytest.approx(mean, abs=1e-9), (system, metric)


def test_data_that_tells_no_posts_gets_no_key_that_is_about_them(report, queries, evaluated):
    assert not {"scales", "cases", "agreement", "cold_start", "remarks"} & set(report)
    assert set(queries[0]) == {
        "id", "seed", "intention", "predicted_intention", "sticker", "systems",
    }  # fmt: skip
    assert "gold_nll" not in queries[0]["systems"]["int_ra"]
    assert not (evaluated.workdir / "eval" / "per_post.jsonl").exists()
    assert "over queries" in report["interval_note"]


def test_every_conversation_of_the_split_is_counted_once_and_in_order(queries, run):
    conversations = run.dataset.conversations("test")
    assert len(conversations) % run.config.eval.batch_size  # the last batch is padded
    assert [query["id"] for query in queries] == [c.id for c in conversations]
    assert [query["sticker"] for query in queries] == [c.sticker for c in conversations]
    assert [query["intention"] for query in queries] == [c.intention for c in conversations]


def test_the_figures_are_those_of_the_scores(report, evaluated, run):
    judged = judge(run, "test", "multi")
    best = np.argmax(evaluated.scores, axis=1)
    hits = judged.relevant[np.arange(len(best)), best]
    assert report["systems"]["int_ra"]["hit@1"]["value"] == pytest.approx(hits.mean())


def test_the_page_draws_twenty_conversations_with_their_best_stickers(evaluated):
    page = (evaluated.workdir / "eval" / "report.html").read_text(encoding="utf-8")
    shown = evaluated.data.examples
    assert len(shown) >= 20
    assert len({example.id for example in shown}) == len(shown)
    for example, scores in zip(shown, evaluated.scores, strict=True):
        assert example.id in page
        drawn = [ranked.score for ranked in example.ranked]
        np.testing.assert_allclose(drawn, np.sort(scores)[::-1][:5], atol=1e-6)
        assert sum(ranked.is_gold for ranked in example.ranked) == (example.gold_rank <= 5)
    assert "http://" not in page.replace("http://www.w3.org", "")


@given(st.integers(1, 300), st.integers(0, 40))
def test_drawn_conversations_are_distinct_and_spread_over_the_split(queries, count):
    rows = examples.choose(queries, count).tolist()
    assert len(rows) == min(queries, count)
    assert rows == sorted(set(rows))
    assert set(rows) <= set(range(queries))
    if len(rows) > 1:
        assert (rows[0], rows[-1]) == (0, queries - 1)


def test_other_batch_sizes_give_the_same_scores(run, evaluated):
    params, _ = run.restore_best()
    encoder = Encoder(run)
    changed = run.config.copy_and_resolve_references()
    changed.eval.batch_size, changed.eval.sticker_batch_size = 22, 5
    other = Encoder(open_run_with(run, changed))
    one, two = (e.contexts(params, "test") for e in (encoder, other))
    assert two.query.shape[0] == 22
    np.testing.assert_allclose(two.query, one.query, atol=1e-5)
    np.testing.assert_allclose(two.intention_logits, one.intention_logits, atol=1e-5)
    stickers = other.gallery(params).embedding
    np.testing.assert_allclose(stickers, encoder.gallery(params).embedding, atol=1e-5)
    np.testing.assert_allclose(two.query @ np.asarray(stickers).T, evaluated.scores, atol=1e-5)


def open_run_with(run, config):
    return type(run)(
        run.workdir, config, run.dataset, run.tokenizer, run.facts, run.graphdef,
        run.abstract_params,
    )  # fmt: skip


def test_some_stickers_equal_their_rows_of_the_gallery(run):
    params, _ = run.restore_best()
    encoder = Encoder(run)
    rows = np.array([7, 0, 11])
    whole = np.asarray(encoder.gallery(params).embedding)
    np.testing.assert_allclose(encoder.stickers(params, rows).embedding, whole[rows], atol=1e-6)


def test_the_time_to_rank_is_not_the_time_to_encode(run, monkeypatch):
    """Both are dispatched at once, and only the first is waited for before the clock starts."""
    params, _ = run.restore_best()
    encoder = Encoder(run)
    contexts, gallery = encoder.contexts(params, "test"), encoder.gallery(params)
    happened, wait, now = [], jax.block_until_ready, time.perf_counter

    def waited(arguments):
        happened.append(jax.tree.structure(arguments))
        return wait(arguments)

    monkeypatch.setattr(jax, "block_until_ready", waited)
    monkeypatch.setattr(time, "perf_counter", lambda: happened.append("clock") or now())
    scores, seconds = encoder.timed_scores(params, contexts, gallery)
    monkeypatch.undo()
    assert "clock" not in happened[:1] and happened.count("clock") >= 2
    assert happened[0].num_leaves >= len(jax.tree.leaves((params, gallery)))
    assert seconds > 0
    np.testing.assert_array_equal(scores, encoder.score_all(params, contexts, gallery))


def test_the_page_says_whose_annotations_count(report, run):
    explained = report["protocol"]["explanation"]
    assert "intention in train or valid, or if" in explained
    assert known_splits("valid") == known_splits("train") == ("train",)


def test_the_best_checkpoint_gives_the_numbers_that_validation_printed(run):
    params, step = run.restore_best()
    line = next(
        line
        for line in read_jsonl(run.workdir / "metrics.jsonl")
        if line["step"] == step and "valid/retrieval/mAP" in line
    )
    found = validate(Encoder(run), params, judge(run, "valid", "multi"), "valid", None)
    for name, value in found.items():
        assert line[f"valid/retrieval/{name}"] == pytest.approx(value, abs=1e-6)


def test_validation_is_not_judged_by_its_own_annotations_and_test_never_by_tests(run):
    source = run.dataset
    for split, known in (("valid", ("train",)), ("test", ("train", "valid"))):
        judged = judge(run, split, "multi")
        annotated = np.zeros((len(source.stickers), len(source.intentions)), bool)
        for name in known:
            annotated[source.targets(source.conversations(name))] = True
        expected = annotated[:, judged.intention].T
        expected[np.arange(len(judged.gold)), judged.gold] = True
        np.testing.assert_array_equal(judged.relevant, expected)
