"""One evaluation under ``exact`` of conversations that tell post, case and echo."""

import dataclasses
import json

import numpy as np
import pytest
from fixtures.trained import read_jsonl
from markupsafe import escape

from int_ra_jax.comparison.evaluated import read_run
from int_ra_jax.data.dataset import Dataset
from int_ra_jax.data.text import compose_context
from int_ra_jax.evaluation import agreement, calibration, rows
from int_ra_jax.evaluation import evaluate as evaluation
from int_ra_jax.evaluation.evaluate import evaluate
from int_ra_jax.evaluation.figures import MEANS
from int_ra_jax.evaluation.judge import judge
from int_ra_jax.evaluation.sticker_reference import sticker_text
from int_ra_jax.models import registry
from int_ra_jax.run.encode import Encoder
from int_ra_jax.run.workdir import open_run

UNSEEN, STAND_IN = "sticker_000", "sticker_004"
ROWS = {"int_ra", "linear", "popular", "zero_shot", "chance"}


def told(number, conversation):
    """Adds what an importer of real choices tells."""
    extra = {
        "thread": f"post{number % 3}",
        "case": ("alone", "own_words")[number % 2],
        "direct": number % 5 != 0,
        "echo": number % 7 == 0,
    }
    return dataclasses.replace(conversation, extra=extra)


def with_choices(source):
    """The same data set with posts, cases and a sticker that train never uses."""
    splits = {}
    for split in source.splits:
        conversations = [told(*pair) for pair in enumerate(source.conversations(split))]
        if split == "train":
            conversations = [
                dataclasses.replace(c, sticker=STAND_IN) if c.sticker == UNSEEN else c
                for c in conversations
            ]
        else:
            conversations[3] = dataclasses.replace(conversations[3], sticker=UNSEEN)
        splits[split] = [{"conversation": json.dumps(c.to_json())} for c in conversations]
    metadata = {
        "content_hash": source.content_hash, "intentions": source.intentions,
        "has_knowledge": source.has_knowledge, "info": source.info,
    }  # fmt: skip
    return Dataset(splits, source._gallery, metadata)


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory):
    """The tiny run, as if its text tower were pretrained and frozen."""
    workdir = trained.copy(tmp_path_factory.mktemp("exact") / "run")
    found = open_run(workdir)
    config = found.config.copy_and_resolve_references()
    config.eval.protocol = "exact"
    config.model.text.update({"source": "somewhere", "frozen_layers": -1})
    graphdef, _ = registry.abstract(config, found.facts)
    return dataclasses.replace(
        found, config=config, dataset=with_choices(found.dataset), graphdef=graphdef
    )


@pytest.fixture(scope="module")
def evaluated_exactly(run):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(agreement, "MINIMUM", 4)
        data = evaluate(run, *open_run(run.workdir).restore_best())
    return data


@pytest.fixture(scope="module")
def report(run, evaluated_exactly):
    return json.loads((run.workdir / "eval" / "report.json").read_text())


@pytest.fixture(scope="module")
def queries(run, evaluated_exactly):
    return read_jsonl(run.workdir / "eval" / "per_query.jsonl")


@pytest.fixture(scope="module")
def judged(run):
    return judge(run, "test", "exact")


def test_the_rows_rank_stickers_and_each_says_what_it_is(report):
    assert set(report["systems"]) == set(report["notes"]) == ROWS
    assert {row["baseline"] for row in report["differences"]} == ROWS - {"int_ra"}
    assert set(report["scales"]) == ROWS - {"chance"}
    assert "remarks" not in report


def test_every_mean_is_over_the_headline_and_echoes_are_in_none(report, queries):
    assert [query["headline"] for query in queries] == [n % 7 != 0 for n in range(len(queries))]
    for system, row in report["systems"].items():
        for metric in queries[0]["systems"][system]:
            values = [q["systems"][system][metric] for q in queries if q["headline"]]
            assert row[MEANS[metric]]["value"] == pytest.approx(np.mean(values), abs=1e-9)
    assert report["protocol"]["counts"]["queries"] == sum(query["headline"] for query in queries)
    assert report["protocol"]["counts"]["echoes, apart"] == sum(n % 7 == 0 for n in range(22))


def test_the_first_columns_are_those_that_fit_one_right_sticker(report):
    for row in report["systems"].values():
        assert list(row)[:5] == ["hit@1", "hit@5", "hit@10", "mrr", "gold_cross_entropy"]


def test_chance_is_as_surprised_as_the_gallery_is_large(report):
    assert report["systems"]["chance"]["gold_cross_entropy"]["value"] == pytest.approx(np.log(12))


def test_the_temperature_is_fitted_on_valid_and_not_on_what_is_judged(report, run, judged):
    valid = judge(run, "valid", "exact")
    gold = valid.gold[valid.headline]
    uses = judged.train_uses
    popular = np.log((uses + 1) / (uses.sum() + len(uses)))
    scale = calibration.fit_scale(np.tile(popular, (len(gold), 1)), gold)
    assert report["scales"]["popular"] == pytest.approx(scale, rel=1e-6)
    logits = scale * popular
    expected = np.log(np.exp(logits).sum()) - logits[judged.gold[judged.headline]]
    found = report["systems"]["popular"]["gold_cross_entropy"]["value"]
    assert found == pytest.approx(expected.mean(), rel=1e-6)


def test_each_case_has_its_own_queries_and_only_echoes_leave_the_headline(report, queries):
    cases = report["cases"]
    assert set(cases) == {"alone", "own_words", "direct", "chain", "echo", "seen", "unseen"}
    for name, case in cases.items():
        asked = [q for q in queries if name in q["cases"] and (name == "echo" or q["headline"])]
        assert case["queries"] == len(asked)
        assert case["posts"] == len({query["cluster"] for query in asked})
        assert case["headline"] == (name != "echo")
        for system in ROWS:
            hits = np.mean([query["systems"][system]["hit@5"] for query in asked])
            assert case["systems"][system]["hit@5"]["value"] == pytest.approx(hits)


def test_a_query_tells_its_post_and_its_cases(queries):
    assert [query["cluster"] for query in queries[:4]] == ["post0", "post1", "post2", "post0"]
    assert queries[0]["cases"] == ["alone", "chain", "echo", "seen"]
    assert queries[3]["cases"] == ["own_words", "direct", "unseen"]


def test_the_summary_of_agreement_is_the_mean_over_its_posts(report, run):
    lines = read_jsonl(run.workdir / "eval" / "per_post.jsonl")
    found = report["agreement"]
    assert found["posts"] == len(lines) > 1
    for line in lines:
        assert set(line) == {"post", "direct", "people", "systems"}
        assert set(line["systems"]) == ROWS
        assert line["systems"]["chance"]["first"] == pytest.approx(1 / 12)
    for name in agreement.PEOPLE:
        mean = np.mean([line["people"][name] for line in lines])
        assert found["people"][name]["value"] == pytest.approx(mean)
    for system in ROWS:
        for name in agreement.ANSWERS:
            mean = np.mean([line["systems"][system][name] for line in lines])
            assert found["systems"][system][name]["value"] == pytest.approx(mean)
    gain = found["systems"]["int_ra"]["first"]["value"] - found["people"]["two_agree"]["value"]
    assert found["over_people"]["difference"] == pytest.approx(gain)


def test_the_unseen_sticker_is_last_for_rows_that_count_and_first_where_it_is_alone(
    report, queries
):
    cold = report["cold_start"]
    asked = sum(query["headline"] and "unseen" in query["cases"] for query in queries)
    assert (cold["queries"], cold["unseen"], cold["sent"]) == (asked, 1, 1)
    assert cold["systems"]["popular"]["all"]["mrr"]["value"] == pytest.approx(1 / 12)
    assert cold["systems"]["linear"]["all"]["mrr"]["value"] == pytest.approx(1 / 12)
    assert set(cold["systems"]) == ROWS
    for row in cold["systems"].values():
        assert row["unseen"]["hit@1"]["value"] == 1.0
    told = [query["cold_start"] for query in queries if "cold_start" in query]
    assert len(told) == asked
    for name, row in cold["systems"].items():
        for among, means in row.items():
            ranks = [values[name][among]["reciprocal_rank"] for values in told]
            assert np.mean(ranks) == pytest.approx(means["mrr"]["value"])


def test_zero_shot_is_the_cosine_of_means_of_the_frozen_tower(run, judged):
    params, _ = open_run(run.workdir).restore_best()
    encoder = Encoder(run)
    texts = [sticker_text(sticker) for sticker in run.dataset.stickers]
    assert texts[0].startswith("joy, ") and "a face full of joy" in texts[0]
    means = encoder.text_means(params, texts)
    assert means.shape == (12, 16)
    again = encoder.text_means(params, texts[10:])
    np.testing.assert_allclose(again, means[10:], atol=1e-5)
    asked = encoder.conversation_means(params, "test")
    hidden = np.asarray(encoder.hidden(params, "test"))
    tokens, _ = compose_context(
        run.tokenizer, judged.conversations, run.config.text, run.dataset.has_knowledge
    )
    naive = [row[mask].mean(axis=0) for row, mask in zip(hidden, tokens.mask, strict=True)]
    np.testing.assert_allclose(asked, naive, atol=1e-5)


def test_the_page_has_a_section_for_each(run, evaluated_exactly):
    page = (run.workdir / "eval" / "report.html").read_text(encoding="utf-8")
    for section in ("people", "cases", "unseen"):
        assert f'<section id="{section}">' in page
    assert escape(evaluated_exactly.agreement.answer) in page
    assert "precision@5" not in page
    assert "over posts" in evaluated_exactly.interval_note
    assert all(example.id in page for example in evaluated_exactly.examples)


def test_a_comparison_reads_all_of_it_back(run, report):
    found = read_run(run.workdir, run.config.seed)
    assert {found.main, *found.references} == ROWS
    assert set(found.clusters) == {"post0", "post1", "post2"}
    assert set(found.cases) == set(report["cases"])
    assert len(found.agreement.posts) == report["agreement"]["posts"]
    for name, row in found.values.items():
        for column, values in row.items():
            expected = report["systems"][name][column]["value"]
            assert np.mean(values) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    "key, value, reason",
    [
        ("model.text.source", "", "no pretrained weights"),
        ("model.text.frozen_layers", 0, "the text tower trains"),
        ("checkpoint.resume_from", "elsewhere", "from another run"),
    ],
)
def test_zero_shot_is_left_out_where_the_tower_is_not_as_it_was_pretrained(
    run, judged, key, value, reason
):
    config = run.config.copy_and_resolve_references()
    config.update_from_flattened_dict({key: value})
    changed = dataclasses.replace(run, config=config)
    beside = rows.by_sticker(changed, Encoder(run), {}, {"test": judged})
    assert set(beside.tables["test"]) == set(beside.notes) == {"linear", "popular"}
    (remark,) = beside.remarks
    assert reason in remark and "zero_shot" in remark


def test_zero_shot_is_left_out_where_a_conversation_is_encoded_in_pieces(run, judged, monkeypatch):
    monkeypatch.setattr(type(run.system), "frames", ("utterances",))
    beside = rows.by_sticker(run, Encoder(run), {}, {"test": judged})
    assert "in pieces" in beside.remarks[0] and "zero_shot" not in beside.notes


def test_the_linear_row_is_taken_from_where_another_run_left_it(run, judged, tmp_path, monkeypatch):
    config = run.config.copy_and_resolve_references()
    config.model.text.source = ""
    config.train.shared_cache = str(tmp_path)
    sharing = dataclasses.replace(run, config=config)
    first = rows.by_sticker(sharing, Encoder(run), {}, {"test": judged}).tables["test"]["linear"]
    monkeypatch.delattr(rows.sticker_reference, "linear_scores")
    again = rows.by_sticker(sharing, Encoder(run), {}, {"test": judged}).tables["test"]["linear"]
    np.testing.assert_array_equal(first, again)


def test_a_split_that_is_judged_and_fitted_on_says_so(run, judged):
    config = run.config.copy_and_resolve_references()
    assert "very queries" not in evaluation._interval_note(config, judged, {"linear": 1.0})
    config.eval.split = "valid"
    assert "very queries" in evaluation._interval_note(config, judged, {"linear": 1.0})
    assert "nats" not in evaluation._interval_note(config, judged, {})
