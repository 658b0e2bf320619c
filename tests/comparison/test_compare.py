import dataclasses
import json
import re

import numpy as np
import pytest
from fixtures.compared import INTENTIONS, REFERENCES, STICKERS, write_evaluation
from hypothesis import given, settings
from hypothesis import strategies as st

from int_ra_jax.comparison.compare import compare
from int_ra_jax.comparison.evaluated import read_run
from int_ra_jax.comparison.layout import columns_of, columns_tested
from int_ra_jax.evaluation import significance

SEEDS = (0, 1, 2)
METRICS = [column.name for column in columns_of("multi")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three seeds of three systems and of one reading, read back from their files."""
    directory = tmp_path_factory.mktemp("runs")
    skills = {"int_ra": 2.0, "clip": 1.0, "srs": 0.0, "without_attribute": 1.8}
    return {
        name: [
            read_run(write_evaluation(directory / name / str(seed), name, seed, skill), seed)
            for seed in SEEDS
        ]
        for name, skill in skills.items()
    }


def compared(groups, **changes):
    options = {"main": "int_ra", "seeds": SEEDS, "readings": ("without_attribute",)}
    return compare(groups, **(options | {"resamples": 200} | changes))


def renamed(run, name):
    """The same run under another system's name."""
    values = {name if key == run.main else key: value for key, value in run.values.items()}
    return dataclasses.replace(run, values=values, report={**run.report, "main_system": name})


def test_a_system_against_its_own_copy_has_no_difference_and_p_1(runs):
    groups = {"int_ra": runs["int_ra"], "copy": [renamed(run, "copy") for run in runs["int_ra"]]}
    tests = [t for t in compared(groups, tested=METRICS).tests if t.other == "copy"]
    assert len(tests) == len(METRICS)
    for test in tests:
        assert (test.difference, test.t, test.p, test.p_holm, test.ratio) == (0, 0, 1, 1, 1)
        if test.metric.startswith("hit"):
            assert (test.wins, test.losses, test.p_sign) == (0, 0, 1)


def test_swapping_two_systems_flips_every_sign_and_keeps_every_p(runs):
    groups = {name: runs[name] for name in ("int_ra", "clip")}
    forth = [t for t in compared(groups).tests if t.other == "clip"]
    back = [t for t in compared(groups, main="clip").tests if t.other == "int_ra"]
    for a, b in zip(forth, back, strict=True):
        assert (a.difference, a.t) == pytest.approx((-b.difference, -b.t))
        assert (a.p, a.p_sign) == pytest.approx((b.p, b.p_sign))
        assert (a.wins, a.losses) == (b.losses, b.wins)
        assert (a.low, a.high) == pytest.approx((-b.high, -b.low))


@settings(max_examples=8, deadline=None)
@given(st.permutations(range(12)))
def test_the_order_in_which_queries_were_written_changes_nothing(tmp_path_factory, order):
    directory = tmp_path_factory.mktemp("permuted")

    def comparison(given_order):
        groups = {
            name: [read_run(write_evaluation(directory / name, name, 0, 1.0, 12, order=given_order),
                            0)]
            for name in ("int_ra", "clip")
        }  # fmt: skip
        return compared(groups, seeds=(0,), readings=())

    first, second = comparison(None), comparison(order)
    assert first.rows == second.rows and first.tests == second.tests


def test_means_and_deviations_are_over_seeds_and_tests_over_queries(runs):
    result = compared(runs)
    row, values = result.row("clip"), [run.values["clip"]["mAP"] for run in runs["clip"]]
    means = [value.mean() for value in values]
    spread = row.metrics["mAP"]
    assert spread.seeds == pytest.approx(means)
    assert (spread.mean, spread.sd) == pytest.approx((np.mean(means), np.std(means, ddof=1)))
    ours = np.mean([run.values["int_ra"]["mAP"] for run in runs["int_ra"]], axis=0)
    expected = significance.paired_t(ours, np.mean(values, axis=0))
    test = result.test("int_ra", "clip", "mAP")
    assert (test.t, test.p) == pytest.approx((expected["t"], expected["p"]))
    assert test.ratio == pytest.approx(ours.mean() / np.mean(means))


def test_references_come_first_and_without_a_deviation_over_seeds(runs):
    rows = compared(runs).rows
    assert [row.name for row in rows] == [*REFERENCES["multi"], *runs]
    assert [row.kind for row in rows][-2:] == ["system", "reading"]
    assert all(spread.sd is None for row in rows[:4] for spread in row.metrics.values())


def test_each_family_is_corrected_as_a_whole_and_on_its_own(runs):
    tests = compared(runs, tested=("hit@1", "mAP")).tests
    for family, others in (("systems", {"clip", "srs", "linear"}),
                           ("readings", {"without_attribute"})):  # fmt: skip
        members = [test for test in tests if test.family == family]
        assert {test.other for test in members} == others
        assert len(members) == 2 * len(others)
        corrected = significance.holm([test.p for test in members])
        assert [test.p_holm for test in members] == pytest.approx(list(corrected))
        signs = [test for test in members if test.p_sign is not None]
        assert {test.metric for test in signs} == {"hit@1"}
        corrected = significance.holm([test.p_sign for test in signs])
        assert [test.p_sign_holm for test in signs] == pytest.approx(list(corrected))


def test_every_tested_system_meets_every_other_once_and_all_are_one_family(runs):
    result = compared(runs, also_tested=("clip",), tested=("hit@1", "mAP"))
    members = [test for test in result.tests if test.family == "systems"]
    pairs = [(test.system, test.other) for test in members if test.metric == "mAP"]
    assert pairs == [
        ("int_ra", "clip"), ("int_ra", "srs"), ("int_ra", "linear"),
        ("clip", "srs"), ("clip", "linear"),
    ]  # fmt: skip
    assert len(members) == 2 * len(pairs)
    corrected = significance.holm([test.p for test in members])
    assert [test.p_holm for test in members] == pytest.approx(list(corrected))
    readings = [test for test in result.tests if test.family == "readings"]
    assert {(test.system, test.other) for test in readings} == {("int_ra", "without_attribute")}
    both = compared(runs, also_tested=("clip", "srs"), tested=("mAP",)).tests
    pairs = [(test.system, test.other) for test in both if test.family == "systems"]
    assert len(pairs) == 6 and pairs[-1] == ("srs", "linear")


def test_what_a_further_tested_system_differs_in_is_its_own_difference(runs):
    test = compared(runs, also_tested=("clip",)).test("clip", "srs", "mAP")
    alone = compared(runs, main="clip").test("clip", "srs", "mAP")
    assert (test.difference, test.t, test.p) == (alone.difference, alone.t, alone.p)


def test_a_pair_of_tested_systems_is_looked_up_from_either_side(runs):
    result = compared(runs, also_tested=("clip",), tested=METRICS)
    other_way = compared(runs, main="clip", tested=METRICS)
    for metric in METRICS:
        # the same pair, calculated from the other side
        expected, back = (r.test("clip", "int_ra", metric) for r in (other_way, result))
        assert (back.system, back.other) == ("clip", "int_ra")
        assert (back.difference, back.t, back.p, back.ratio) == pytest.approx(
            (expected.difference, expected.t, expected.p, expected.ratio)
        )
        assert (back.low, back.high) == pytest.approx((expected.low, expected.high))
        assert (back.ratio_low, back.ratio_high) == pytest.approx(
            (expected.ratio_low, expected.ratio_high)
        )
        assert (back.wins, back.losses, back.ties) == (
            expected.wins, expected.losses, expected.ties,
        )  # fmt: skip
    assert [test.other for test in result.tests_of("clip", "systems") if test.metric == "mAP"] == [
        "int_ra", "srs", "linear",
    ]  # fmt: skip
    assert result.test("srs", "linear", "mAP") is None
    assert result.test("int_ra", "int_ra", "mAP") is None


def test_a_better_system_is_found_better_and_the_random_one_like_chance(runs):
    result = compared(runs)
    assert result.test("int_ra", "srs", "mAP").p_holm < 0.01
    assert result.test("int_ra", "srs", "mAP").difference > 0
    test = result.test("int_ra", "srs", "mAP")
    assert 1 < test.ratio_low < test.ratio < test.ratio_high
    chance, random = (result.row(name).metrics["mAP"].mean for name in ("chance", "srs"))
    assert random == pytest.approx(chance, abs=0.06)


def test_gold_mrr_is_the_mean_of_one_over_the_gold_rank_and_exact_for_chance(runs):
    run = runs["clip"][0]
    lines = (run.workdir / "eval" / "per_query.jsonl").read_text().splitlines()
    ranks = [json.loads(line)["systems"]["clip"]["gold_rank"] for line in lines]
    mrr = np.mean(1 / np.array(ranks))
    expected = np.mean(1 / np.arange(1, STICKERS + 1))
    assert run.values["clip"]["gold MRR"].mean() == pytest.approx(mrr)
    assert run.values["chance"]["gold MRR"] == pytest.approx(expected)


def test_evaluations_from_before_gold_mrr_and_hit_10_were_recorded_are_read(tmp_path):
    """They hold the rank alone, all ties broken; of chance its expectation."""
    new = read_run(write_evaluation(tmp_path / "run"), 0)
    exact = write_evaluation(tmp_path / "exact", protocol="exact")
    for workdir in (new.workdir, exact):
        path = workdir / "eval" / "per_query.jsonl"
        path.write_text(
            re.sub(r'"(gold_reciprocal_rank|hit@10|gold_nll)"', '"x"', path.read_text())
        )
    old = read_run(new.workdir, 0)
    assert list(old.columns) == METRICS
    for row, columns in old.values.items():
        for column, values in columns.items():
            np.testing.assert_allclose(values, new.values[row][column], rtol=1e-12)
    run = read_run(exact, 0)
    assert run.columns == ("hit@1", "hit@5", "mrr")
    result = compared({"int_ra": [run]}, seeds=(0,), readings=())
    assert result.columns == ["hit@1", "hit@5", "mrr"]
    assert [note.split(":")[0] for note in result.notes] == ["hit@10", "gold_cross_entropy"]
    assert result.families["systems"] == 2 * len(columns_tested("exact")) and result.cases == {}


def test_intentions_share_out_the_queries_and_their_mean_is_the_row_s(runs):
    result = compared(runs)
    assert list(result.queries) == sorted(INTENTIONS) and sum(result.queries.values()) == 30
    for row in result.rows:
        for metric in METRICS:
            parts = [result.queries[name] * row.by_intention[name][metric] for name in INTENTIONS]
            assert sum(parts) / 30 == pytest.approx(row.metrics[metric].mean)


def test_curves_are_averaged_over_seeds_at_each_recall(runs):
    result = compared(runs)
    assert list(result.curves)[:3] == ["int_ra", "clip", "srs"]
    assert "without_attribute" not in result.curves and "linear" in result.curves
    expected = np.mean([run.curves["clip"].y for run in runs["clip"]], axis=0)
    np.testing.assert_allclose(result.curves["clip"].y, expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"queries": 29}, r"1 queries are in one alone, such as 'q029'"),
        ({"data_seed": 1}, "the same queries have other intentions or stickers"),
    ],
)
def test_runs_over_different_queries_are_refused_with_both_named(runs, changes, message, tmp_path):
    other = read_run(write_evaluation(tmp_path / "other", "clip", 0, **changes), 0)
    with pytest.raises(ValueError, match=message) as caught:
        compared({"int_ra": runs["int_ra"], "clip": [other]})
    assert str(runs["int_ra"][0].workdir) in str(caught.value)
    assert str(other.workdir) in str(caught.value)


def test_runs_judged_by_other_right_answers_are_refused(runs):
    run = runs["clip"][0]
    chance = {metric: value * 0.9 for metric, value in run.values["chance"].items()}
    other = dataclasses.replace(run, values={**run.values, "chance": chance})
    with pytest.raises(ValueError, match="other stickers count as right"):
        compared({"int_ra": runs["int_ra"], "clip": [other]})


def test_missing_seeds_systems_and_a_missing_main_system_are_said(runs):
    groups = {"int_ra": [], "clip": runs["clip"][:2], "srs": []}
    result = compared(groups, readings=())
    assert result.tests == [] and result.row("int_ra") is None
    assert result.notes == [
        "clip: seed 2 missing, so its row is the mean over 2 of 3 seeds",
        "without a complete run, and so without a row: int_ra, srs",
        "int_ra, the main system, has no complete run: nothing is tested",
    ]
    assert compared({"int_ra": []}).rows == []


def test_a_further_system_is_tested_without_the_main_one_too_and_needs_runs_of_its_own(runs):
    result = compared({"int_ra": [], "clip": runs["clip"], "srs": runs["srs"]},
                      also_tested=("clip",), readings=())  # fmt: skip
    assert {(t.system, t.other) for t in result.tests} == {("clip", "srs"), ("clip", "linear")}
    assert result.notes[-1] == (
        "int_ra, the main system, has no complete run: neither it nor a reading is tested"
    )
    result = compared({**runs, "clip": []}, also_tested=("clip",))
    assert {test.system for test in result.tests} == {"int_ra"}
    assert not any("clip" in (test.system, test.other) for test in result.tests)


@pytest.mark.parametrize(
    ("difference", "ratio", "seen_from_the_other"),
    [(0.2, 2.0, 0.5), (-0.2, 0.0, None), (0.2, None, 0.0), (0.0, None, None)],
)
def test_a_ratio_is_undefined_where_it_would_be_one_over_zero(
    runs, difference, ratio, seen_from_the_other
):
    test = dataclasses.replace(
        compared(runs).tests[0], difference=difference, ratio=ratio, t=None, ratio_low=0.0,
        ratio_high=4.0,
    )  # fmt: skip
    assert (test.mirrored().ratio_low, test.mirrored().ratio_high) == (0.25, np.inf)
    assert test.mirrored().ratio == seen_from_the_other
    assert test.mirrored().mirrored() == test


def test_a_difference_without_spread_is_undefined_and_still_counts_in_its_family(runs):
    run = runs["int_ra"][0]
    worse = {metric: values - 0.25 for metric, values in run.values["int_ra"].items()}
    other = renamed(dataclasses.replace(run, values={**run.values, "int_ra": worse}), "clip")
    result = compared({"int_ra": [run], "clip": [other]}, seeds=(0,), tested=("mAP",), readings=())
    test, linear = result.tests
    assert (test.p, test.p_holm, test.t) == (None, None, None) and "spread is 0" in test.note
    assert linear.p_holm == pytest.approx(min(1, 2 * linear.p))


def test_what_is_significant_does_not_depend_on_what_has_been_trained_so_far(runs):
    """A pair whose runs are not there yet counts in its family as if nothing were to be found."""
    full = compared(runs, tested=("hit@1", "mAP"))
    part = compared({**runs, "srs": []}, tested=("hit@1", "mAP"))
    assert part.families == full.families == {"systems": 6, "readings": 2}
    for metric in ("hit@1", "mAP"):
        assert part.test("int_ra", "srs", metric) is None
    members = [test for test in part.tests if test.family == "systems"]
    corrected = significance.holm([*(test.p for test in members), 1.0, 1.0])[:4]
    assert [test.p_holm for test in members] == pytest.approx(list(corrected))
    signs = [test.p_sign for test in members if test.metric == "hit@1"]
    corrected = significance.holm([*signs, 1.0])[:2]
    assert [t.p_sign_holm for t in members if t.metric == "hit@1"] == pytest.approx(corrected)


def test_queries_that_the_evaluation_left_out_enter_no_mean(runs):
    def without(run):
        values = {
            row: {m: np.where(np.arange(30) < 3, np.nan, v) for m, v in columns.items()}
            for row, columns in run.values.items()
        }
        return dataclasses.replace(run, values=values)

    groups = {name: [without(run) for run in runs[name]] for name in ("int_ra", "clip")}
    row = compared(groups, readings=()).row("clip")
    each = [run.values["clip"]["mAP"][3:].mean() for run in runs["clip"]]
    assert row.metrics["mAP"].mean == pytest.approx(np.mean(each))


@pytest.mark.parametrize(
    ("file", "spoil", "message"),
    [
        ("per_query.jsonl", lambda t: t.replace('"q001"', '"q000"'), "a query is there twice"),
        ("per_query.jsonl", lambda t: "", "no query"),
        ("per_query.jsonl", lambda t: t + "{", r"per_query\.jsonl:31: JSONDecodeError"),
        ("per_query.jsonl", lambda t: t.replace('"ap"', '"ax"', 1), r"jsonl:1: KeyError: 'ap'"),
        ("per_query.jsonl", lambda t: t.replace('"seed": 0', '"seed": 1', 1), "where seed 0"),
        ("per_query.jsonl", lambda t: t.replace('"hit@1": ', '"hit@1": 7', 1), "outside"),
        ("report.json", lambda t: t.replace("main_system", "main"), "KeyError: 'main_system'"),
        ("report.json", lambda t: t.replace('"chance"', '"luck"'), "systems lacks chance"),
        ("per_query.jsonl", lambda t: t.replace('"id"', '"headline": 1, "id"', 1), "true or false"),
        ("per_query.jsonl", lambda t: t.replace('"id"', '"cluster": 1, "id"', 1), "are texts"),
        ("per_query.jsonl", lambda t: t.replace('"id"', '"headline": false, "id"'), "no query"),
        ("per_post.jsonl", lambda t: t.replace('"post 1"', '"post 0"'), "a post is there twice"),
        ("per_post.jsonl", lambda t: t.replace('"five"', '"six"', 1), r"post\.jsonl:1: KeyError"),
        ("per_post.jsonl", lambda t: t.replace('"two_agree": ', '"two_agree": 7'), "outside"),
        ("report.json", lambda t: "[]", r"report\.json: TypeError"),
        ("pr_curve.csv", lambda t: t.replace("0.5,", "half,"), r"pr_curve\.csv: ValueError"),
    ],
)  # fmt: skip
def test_damaged_files_are_named_with_their_line(tmp_path, file, spoil, message):
    workdir = write_evaluation(tmp_path / "run", posts=3 if file == "per_post.jsonl" else 0)
    path = workdir / "eval" / file
    path.write_text(spoil(path.read_text()))
    with pytest.raises(ValueError, match=message):
        read_run(workdir, 0)


def test_what_an_evaluation_did_not_record_is_not_made_up(tmp_path):
    facts = read_run(write_evaluation(tmp_path / "a", trained=7), 0).facts
    assert facts == {
        "parameters": 1500, "trained": 7, "training_seconds": 90, "ranking_ms": None,
    }  # fmt: skip


def test_a_run_that_was_not_evaluated_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"report\.json: No such file"):
        read_run(tmp_path / "run", 0)
