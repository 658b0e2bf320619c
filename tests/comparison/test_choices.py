"""A comparison over real choices: one right answer, posts that many answered, echoes, people."""

import csv
import json

import numpy as np
import pytest
from fixtures.compared import REFERENCES, write_evaluation

from int_ra_jax.comparison import layout, people, texts
from int_ra_jax.comparison import report as comparison_report
from int_ra_jax.comparison.compare import compare
from int_ra_jax.comparison.evaluated import read_run
from int_ra_jax.evaluation import significance

SEEDS = (0, 1)
POSTS = 6


@pytest.fixture(scope="module")
def groups(tmp_path_factory):
    """Two seeds of three systems and a reading under ``exact``, 30 queries of 6 posts."""
    directory = tmp_path_factory.mktemp("choices")
    skills = {"int_ra": 3.0, "best": 2.0, "clip": 0.5, "no_residual": 2.5}

    def run(name, seed, skill):
        workdir = directory / name / str(seed)
        return read_run(
            write_evaluation(workdir, name, seed, skill, protocol="exact", posts=POSTS), seed
        )

    return {name: [run(name, seed, skill) for seed in SEEDS] for name, skill in skills.items()}


@pytest.fixture(scope="module")
def compared(groups):
    """Int-RA and ``best`` against the others."""
    return compare(
        groups, main="int_ra", also_tested=("best",), readings=("no_residual",), seeds=SEEDS,
        resamples=200,
    )  # fmt: skip


def lines_of(run):
    text = (run.workdir / "eval" / "per_query.jsonl").read_text(encoding="utf-8")
    return sorted(map(json.loads, text.splitlines()), key=lambda line: line["id"])


def test_the_columns_and_references_are_those_of_the_protocol(compared):
    assert compared.columns == ["hit@1", "hit@5", "hit@10", "mrr", "gold_cross_entropy"]
    assert compared.primary == "mrr"
    names = [row.name for row in compared.rows]
    assert names == [*REFERENCES["exact"], "int_ra", "best", "clip", "no_residual"]
    others = {test.other for test in compared.tests if test.family == "systems"}
    assert others == {"best", "clip", "popular", "linear"}
    # int_ra against best, clip, popular and linear, best against the last three; among people the
    # references are four, and two people come on top
    assert compared.families == {"systems": 7 * 5, "readings": 5, "agreement": 11 * 2 + 2}
    assert layout.in_order({"linear", "own", "chance"}) == ("chance", "linear", "own")


def test_echoes_enter_no_mean_and_no_test_but_their_case(groups, compared):
    run = groups["clip"][0]
    lines = lines_of(run)
    headline = [line for line in lines if line["headline"]]
    assert len(run.ids) == len(headline) == 24 and len(lines) == 30
    mean = np.mean([line["systems"]["clip"]["gold_nll"] for line in headline])
    spread = compared.row("clip").metrics["gold_cross_entropy"]
    assert spread.seeds[0] == pytest.approx(mean)
    assert compared.cases == {"alone": 12, "direct": 24, "echo": 6, "own_words": 12}
    for name, source in (("clip", groups["clip"]), ("popular", groups["int_ra"][:1])):
        echoes = [
            line["systems"][name]["reciprocal_rank"]
            for run in source
            for line in lines_of(run)
            if "echo" in line["cases"]
        ]
        assert compared.row(name).by_case["echo"]["mrr"] == pytest.approx(np.mean(echoes))
    alone = [
        line["systems"]["clip"]["reciprocal_rank"]
        for run in groups["clip"]
        for line in lines_of(run)
        if "alone" in line["cases"] and line["headline"]
    ]
    assert compared.row("clip").by_case["alone"]["mrr"] == pytest.approx(np.mean(alone))


def test_intervals_and_tests_are_over_posts(groups, compared):
    assert compared.clusters == POSTS
    a, b = (
        np.mean([run.values[name]["mrr"] for run in groups[name]], axis=0)
        for name in ("int_ra", "clip")
    )
    clusters = [line["cluster"] for line in lines_of(groups["clip"][0]) if line["headline"]]
    test = compared.test("int_ra", "clip", "mrr")
    options = {"clusters": clusters, "resamples": 200}
    boot = significance.paired_bootstrap(a, b, **options)
    assert (test.low, test.high) == (boot["low"], boot["high"])
    ratio = significance.ratio_bootstrap(a, b, **options)
    assert (test.ratio, test.ratio_low, test.ratio_high) == tuple(ratio.values())
    assert test.p == significance.paired_t(a, b, clusters=clusters)["p"]
    interval = significance.bootstrap_intervals({"mrr": b}, **options)["mrr"]
    spread = compared.row("clip").metrics["mrr"]
    assert (spread.low, spread.high) == (interval["low"], interval["high"])
    hits = compared.test("int_ra", "clip", "hit@5")
    assert hits.wins + hits.losses + hits.ties == POSTS
    assert texts.sampled(compared) == "the 6 clusters of queries that belong together"


def test_a_lower_cross_entropy_is_the_better_one(compared):
    test = compared.test("int_ra", "clip", "gold_cross_entropy")
    better = compared.row("int_ra").metrics["gold_cross_entropy"].mean
    assert better < compared.row("clip").metrics["gold_cross_entropy"].mean
    assert test.difference < 0 and texts.outcome(test).endswith(("better", "difference"))
    assert texts.difference(test).endswith("] nats") and "nats" not in texts.difference(
        compared.test("int_ra", "clip", "mrr")
    )
    section = comparison_report._sections(compared)[0]
    header, body = comparison_report._cells(compared, section)
    column = header.index("cross-entropy, nats")
    bold = [line[0] for line in body if line[column].startswith("**")]
    lowest = min(section.rows, key=lambda row: row.metrics["gold_cross_entropy"].mean)
    assert lowest.name in bold
    assert "where less is better" in section.caption and "6 clusters" in section.caption


def test_agreement_is_over_posts_and_people_head_it(groups, compared):
    rows = {row.name: row for row in compared.agreement}
    assert list(rows)[:3] == list(layout.PEOPLE) and compared.posts == POSTS
    assert {row.kind for row in list(rows.values())[:3]} == {"people"}
    run = groups["best"][0]
    text = (run.workdir / "eval" / "per_post.jsonl").read_text(encoding="utf-8")
    posts = [json.loads(line) for line in text.splitlines()]
    first = rows["best"].metrics["first"]
    assert first.seeds[0] == pytest.approx(np.mean([p["systems"]["best"]["first"] for p in posts]))
    assert len(first.seeds) == 2 and first.sd is not None
    two = rows["two_agree"].metrics
    assert set(two) == {"first"}
    assert two["first"].mean == pytest.approx(np.mean([p["people"]["two_agree"] for p in posts]))
    five = rows["best_five"].metrics["five"]
    assert five.mean == pytest.approx(np.mean([p["people"]["best_five"] for p in posts]))
    a = np.mean([run.agreement.values["best"]["first"] for run in groups["best"]], axis=0)
    expected = significance.paired_t(a, run.agreement.people["two_agree"])
    test = compared.test("best", "two_agree", "first")
    assert (test.t, test.p) == (expected["t"], expected["p"])
    tests = [test for test in compared.tests if test.family == "agreement"]
    assert {test.metric for test in tests} == {"first", "five"}
    assert not any("no_residual" in (test.system, test.other) for test in tests)
    assert len(tests) == compared.families["agreement"]
    corrected = significance.holm([test.p for test in tests])
    assert [test.p_holm for test in tests] == pytest.approx(list(corrected))


def test_without_posts_there_is_no_second_table_and_with_some_of_it_a_note(groups, tmp_path):
    none = [read_run(write_evaluation(tmp_path / "a", "int_ra", protocol="exact"), 0)]
    result = compare({"int_ra": none}, main="int_ra", seeds=(0,), resamples=50)
    assert result.agreement == () and result.posts == 0 and "agreement" not in result.families
    assert result.clusters == 0 and result.cases == {}
    workdir = write_evaluation(tmp_path / "b", "srs", 0, protocol="exact", posts=POSTS)
    (workdir / "eval" / "per_post.jsonl").unlink()
    mixed = {"int_ra": groups["int_ra"][:1], "srs": [read_run(workdir, 0)]}
    result = compare(mixed, main="int_ra", seeds=(0,), resamples=50)
    assert result.agreement == ()
    assert (
        f"agreement with people: {workdir} has not recorded it; evaluate it again" in result.notes
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"posts": 5}, "the same queries belong to other posts or cases"),
        ({"posts": 0, "queries": 24}, "queries are in one alone"),
        ({"protocol": "multi"}, r"other stickers count as right \(protocols exact and multi\)"),
    ],
)
def test_other_posts_or_another_protocol_are_refused(groups, tmp_path, changes, message):
    options = {"protocol": "exact", "posts": POSTS} | changes
    other = read_run(write_evaluation(tmp_path / "other", "srs", 0, **options), 0)
    with pytest.raises(ValueError, match=message):
        compare({"int_ra": groups["int_ra"], "srs": [other]}, main="int_ra", seeds=(0,))


def test_people_s_answers_must_be_the_same(groups, tmp_path):
    workdir = write_evaluation(tmp_path / "other", "srs", 0, protocol="exact", posts=POSTS)
    path = workdir / "eval" / "per_post.jsonl"
    path.write_text(path.read_text().replace('"two_agree": 0.', '"two_agree": 0.9', 1))
    with pytest.raises(ValueError, match="people's answers to the posts differ"):
        compare({"int_ra": groups["int_ra"], "srs": [read_run(workdir, 0)]}, main="int_ra",
                seeds=(0,))  # fmt: skip


def test_the_verdict_answers_whether_a_system_is_better_than_another_person(compared):
    said = texts.verdict(compared)
    assert len(said) == 2 * 5
    for name, sentences in (("int_ra", said[:5]), ("best", said[5:])):
        assert sentences[0].startswith(f"{name} reaches ") and " mrr (seeds 0, 1)." in sentences[0]
        assert "Against popular, the most used stickers of train" in sentences[2]
        test = compared.test(name, "two_agree", "first")
        assert f"{100 * test.difference:+.1f} points".replace("-", "−") in sentences[4]
        assert sentences[4].startswith("Under 6 posts that many answered, its first answer is")
        assert texts.outcome(test) in sentences[4]


def test_every_file_has_the_agreement_and_the_cases(compared, tmp_path):
    page = comparison_report.write(tmp_path, compared)
    with (tmp_path / "agreement.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["row"] for row in rows] == [row.name for row in compared.agreement]
    assert rows[0]["five mean"] == "" and float(rows[0]["first mean"]) > 0
    with (tmp_path / "per_case.csv").open(encoding="utf-8", newline="") as file:
        cases = list(csv.DictReader(file))
    assert len(cases) == len(compared.rows) * len(compared.cases)
    with (tmp_path / "significance.csv").open(encoding="utf-8", newline="") as file:
        tests = list(csv.DictReader(file))
    assert len(tests) == len(compared.tests) and {"ratio_low", "ratio_high"} <= set(tests[0])
    html = page.read_text(encoding="utf-8")
    for part in ('id="agreement"', 'id="cases"', "two people agree", "best five answers",
                 "95% bootstrap interval over the 6 posts", "agreement.csv"):  # fmt: skip
        assert part in html, part
    markdown = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "## Agreement with people" in markdown and "cross-entropy, nats" in markdown
    assert len(comparison_report.lines(compared)) > len(compared.rows)
    assert "gold_cross_entropy" in comparison_report.lines(compared)[0]


def test_names_of_people_and_references_are_taken():
    assert {"popular", "zero_shot", "two_agree", "chance", "prior"} <= set(layout.RESERVED)
    assert set(people.TESTED) <= set(layout.COLUMNS)
