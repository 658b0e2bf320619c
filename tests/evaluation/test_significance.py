"""Intervals and tests against SciPy, hand-computed values and their symmetries."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from int_ra_jax.evaluation import significance
from int_ra_jax.evaluation.significance import (
    bootstrap_intervals,
    exact_sign_test,
    holm,
    paired_bootstrap,
    paired_t,
    ratio_bootstrap,
)

A, B = [0.5, 0.2, 0.9, 0.4], [0.4, 0.2, 0.6, 0.5]


def hits(wins, losses, n=154):
    a, b = np.zeros(n), np.zeros(n)
    a[:wins], b[wins : wins + losses] = 1, 1
    return a, b


def test_golden_paired_t():
    result = paired_t(A, B)
    assert result["t"] == pytest.approx(0.8783101, abs=1e-7)
    assert result["p"] == pytest.approx(0.4444381, abs=1e-7)
    assert result["df"] == 3
    assert paired_t(*hits(3, 0))["p"] == pytest.approx(0.0833, abs=5e-5)
    assert paired_t(*hits(4, 0))["p"] == pytest.approx(0.0451, abs=5e-5)


def test_paired_t_agrees_with_scipy():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.random(31), rng.random(31)
        ours, theirs = paired_t(a, b), stats.ttest_rel(a, b)
        assert ours["t"] == pytest.approx(theirs.statistic, abs=1e-10)
        assert ours["p"] == pytest.approx(theirs.pvalue, abs=1e-10)


def test_identical_systems_are_never_different():
    assert paired_t(A, A)["t"] == 0
    for result in (paired_t(A, A), paired_bootstrap(A, A), exact_sign_test(A, A)):
        assert result["p"] == 1.0


def test_a_constant_difference_has_no_t():
    shifted = np.array(A) + 0.1
    with pytest.raises(ValueError, match="spread is 0"):
        paired_t(shifted, A)
    with pytest.raises(ValueError, match="at least two"):
        paired_t([1.0], [0.0])


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=20).filter(
        lambda pairs: len({x - y for x, y in pairs}) > 1
    )
)
def test_swapping_the_systems_flips_the_sign_and_keeps_p(pairs):
    a, b = np.array(pairs, float).T
    there, back = paired_t(a, b), paired_t(b, a)
    assert (there["t"], there["p"]) == (-back["t"], back["p"])
    there, back = (paired_bootstrap(x, y, resamples=200) for x, y in ((a, b), (b, a)))
    assert there["p"] == back["p"]
    assert there["low"] == pytest.approx(-back["high"], abs=1e-12)
    there, back = exact_sign_test(a, b), exact_sign_test(b, a)
    assert (there["wins"], there["p"]) == (back["losses"], back["p"])


def test_the_exact_sign_test_is_the_binomial_tail():
    assert exact_sign_test(*hits(3, 0))["p"] == pytest.approx(0.25)
    result = exact_sign_test(*hits(7, 2))
    tail = sum(stats.binom.pmf(k, 9, 0.5) for k in range(3))
    assert result["p"] == pytest.approx(2 * tail)
    assert (result["wins"], result["losses"], result["ties"]) == (7, 2, 145)


def test_golden_holm():
    np.testing.assert_allclose(holm([0.01, 0.03, 0.04]), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.04, 0.01, 0.03]), [0.06, 0.03, 0.06])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_keeps_the_order_and_never_lowers_a_p_value(raw):
    adjusted = holm(raw)
    order = np.argsort(raw, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()
    assert (adjusted >= np.array(raw)).all()
    assert (adjusted <= 1).all()


def test_holm_refuses_what_is_not_a_probability():
    for wrong in ([0.1, np.nan], [1.2], [[0.1]]):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            holm(wrong)


def test_intervals_equal_a_plain_loop_over_resampled_queries():
    rng = np.random.default_rng(4)
    columns = {"ap": rng.random(23), "hit@1": rng.integers(0, 2, 23)}
    result = bootstrap_intervals(columns, resamples=300, seed=9, level=0.9)
    drawn = np.random.default_rng(9).integers(0, 23, size=(300, 23))
    for name, column in columns.items():
        means = [column[rows].mean() for rows in drawn]
        low, high = np.percentile(means, [5, 95])
        assert result[name]["value"] == pytest.approx(column.mean())
        assert result[name]["low"] == pytest.approx(low)
        assert result[name]["high"] == pytest.approx(high)


def test_drawing_in_parts_gives_the_same_interval(monkeypatch):
    columns = {"ap": np.random.default_rng(1).random(30)}
    whole = bootstrap_intervals(columns, resamples=100)
    monkeypatch.setattr(significance, "_CHUNK_ELEMENTS", 70)
    parts = bootstrap_intervals(columns, resamples=100)
    assert parts["ap"] == pytest.approx(whole["ap"], rel=1e-12)


def test_the_interval_agrees_with_scipy_and_with_the_normal_approximation():
    values = np.random.default_rng(2).normal(size=400)
    ours = bootstrap_intervals({"ap": values})["ap"]
    theirs = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=4000, rng=0
    ).confidence_interval
    error = values.std() / 20
    assert abs(ours["low"] - theirs.low) < 0.15 * error
    assert abs(ours["high"] - theirs.high) < 0.15 * error
    assert ours["high"] - ours["low"] == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_a_paired_interval_is_narrower_than_the_spread_of_either_system():
    rng = np.random.default_rng(3)
    base = rng.normal(size=300)
    better = base + 0.1 + 0.05 * rng.normal(size=300)
    result = paired_bootstrap(better, base, resamples=2000)
    assert result["low"] > 0.08
    assert result["p"] == pytest.approx(2 / 2001)
    assert paired_bootstrap(rng.normal(size=300), base, resamples=2000)["p"] > 0.01


def test_the_p_value_of_the_paired_bootstrap_is_about_uniform_when_nothing_differs():
    rng = np.random.default_rng(5)
    p = [
        paired_bootstrap(rng.normal(size=60), rng.normal(size=60), resamples=400)["p"]
        for _ in range(200)
    ]
    assert np.mean(np.array(p) < 0.1) < 0.2
    assert 0.4 < np.mean(p) < 0.6


def test_queries_that_were_left_out_everywhere_are_dropped_and_others_must_agree():
    a, b = np.array([*A, np.nan]), np.array([*B, np.nan])
    assert paired_t(a, b) == paired_t(A, B)
    assert bootstrap_intervals({"a": a, "b": b}) == bootstrap_intervals({"a": A, "b": B})
    with pytest.raises(ValueError, match=r"1 queries.*\[4\]"):
        paired_t(a, [*B, 0.5])
    with pytest.raises(ValueError, match="same queries"):
        paired_t(A, B[:3])
    with pytest.raises(ValueError, match="no queries"):
        bootstrap_intervals({"a": [np.nan]})
    with pytest.raises(ValueError, match="level"):
        bootstrap_intervals({"a": A}, level=1.5)
    with pytest.raises(ValueError, match="resamples"):
        paired_bootstrap(A, B, resamples=0)


def tables(draw_seed, queries=40, groups=8):
    rng = np.random.default_rng(draw_seed)
    clusters = rng.integers(0, groups, queries)
    shared = rng.normal(size=groups)[clusters]
    return 3 + shared + rng.random(queries), 3 + rng.random(queries), [f"p{c}" for c in clusters]


def test_one_query_a_cluster_is_no_cluster_at_all_to_the_bit():
    a, b, _ = tables(0)
    own = [f"post {row}" for row in range(40)]
    options = {"resamples": 200, "seed": 3}
    for function in (paired_bootstrap, ratio_bootstrap):
        assert function(a, b, clusters=own, **options) == function(a, b, **options)
    columns = {"ap": a, "hit@1": b}
    assert bootstrap_intervals(columns, clusters=own, **options) == bootstrap_intervals(
        columns, **options
    )
    assert exact_sign_test(a, b, clusters=own) == exact_sign_test(a, b)
    assert paired_t(a, b, clusters=own) == pytest.approx(paired_t(a, b), rel=1e-9)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 5))
def test_a_query_repeated_within_its_cluster_tells_nothing_new(seed, times):
    """Copies shrink the interval where queries are drawn, not where clusters are."""
    a, b, _ = tables(seed, 20)
    own = list(range(20))
    many = [np.repeat(column, times) for column in (a, b)]
    clusters = np.repeat(own, times)
    for function in (paired_bootstrap, ratio_bootstrap):
        once = function(a, b, clusters=own, resamples=300)
        assert function(*many, clusters=clusters, resamples=300) == pytest.approx(once)
        apart = function(*many, resamples=300)
        assert apart["high"] - apart["low"] < 0.95 * (once["high"] - once["low"])
    once, again = paired_t(a, b), paired_t(*many, clusters=clusters)
    assert again["t"] == pytest.approx(once["t"])
    assert again["df"] == once["df"] == 19
    sign = exact_sign_test(*many, clusters=clusters)
    assert sign == exact_sign_test(a, b)


def test_intervals_over_clusters_equal_a_plain_loop_over_drawn_clusters():
    a, b, clusters = tables(5)
    names = list(dict.fromkeys(clusters))
    members = [np.flatnonzero([name == c for c in clusters]) for name in names]
    drawn = np.random.default_rng(9).integers(0, len(names), size=(150, len(names)))
    rows = [np.concatenate([members[one] for one in draw]) for draw in drawn]
    options = {"clusters": clusters, "resamples": 150, "seed": 9, "level": 0.9}
    interval = bootstrap_intervals({"ap": a, "hit@1": b}, **options)
    for name, column in (("ap", a), ("hit@1", b)):
        low, high = np.percentile([column[chosen].mean() for chosen in rows], [5, 95])
        assert interval[name] == pytest.approx({"value": column.mean(), "low": low, "high": high})
    ratio = ratio_bootstrap(a, b, **options)
    ratios = np.sort([a[chosen].mean() / b[chosen].mean() for chosen in rows])
    assert ratio["ratio"] == pytest.approx(a.mean() / b.mean())
    # the 5th and 95th of a hundredth each of 149 steps: 7.45 down, 141.55 up
    assert (ratio["low"], ratio["high"]) == pytest.approx((ratios[7], ratios[142]))


def test_replies_to_one_post_that_are_alike_widen_the_interval():
    a, b, clusters = tables(2, 400, 10)
    alone = paired_bootstrap(a, b, resamples=500)
    together = paired_bootstrap(a, b, clusters=clusters, resamples=500)
    assert together["high"] - together["low"] > 2 * (alone["high"] - alone["low"])
    assert together["difference"] == alone["difference"]
    assert abs(paired_t(a, b, clusters=clusters)["t"]) < abs(paired_t(a, b)["t"]) / 2


def test_the_clustered_t_is_the_sandwich_by_hand():
    a, b, clusters = tables(3)
    d = a - b
    residual = [sum((d - d.mean())[[c == name for c in clusters]]) for name in set(clusters)]
    number = len(residual)
    error = np.sqrt(number / (number - 1) * np.sum(np.square(residual))) / len(d)
    result = paired_t(a, b, clusters=clusters)
    assert result["t"] == pytest.approx(d.mean() / error)
    assert result["df"] == number - 1
    assert result["p"] == pytest.approx(2 * stats.t.sf(abs(result["t"]), number - 1))


def test_a_cluster_wins_or_loses_once():
    # by hand: post x wins by one query, y ties (thirds that add up to nothing), z loses
    a = np.array([1, 1, 0, 1 / 3, 2 / 3, 0, 0])
    b = np.array([0, 0, 1, 2 / 3, 1 / 3, 1, 1])
    result = exact_sign_test(a, b, clusters=["x", "x", "x", "y", "y", "z", "z"])
    assert (result["wins"], result["losses"], result["ties"], result["p"]) == (1, 1, 1, 1.0)


def test_the_ratio_holds_both_sides_and_turns_over_with_them():
    a, b, clusters = tables(6)
    forth = ratio_bootstrap(a, b, clusters=clusters, resamples=300)
    back = ratio_bootstrap(b, a, clusters=clusters, resamples=300)
    turned = {"ratio": 1 / back["ratio"], "low": 1 / back["high"], "high": 1 / back["low"]}
    assert forth == pytest.approx(turned)
    assert ratio_bootstrap(2 * b, b, resamples=50) == {"ratio": 2, "low": 2, "high": 2}
    # b is right once in three queries, so that many draws never are
    seldom = ratio_bootstrap([1.0, 1.0, 0.0], [0.0, 1.0, 0.0], resamples=100)
    assert (seldom["ratio"], seldom["high"]) == (2.0, np.inf)
    with pytest.raises(ValueError, match="All values of b are 0"):
        ratio_bootstrap(A, np.zeros(4))
    with pytest.raises(ValueError, match="not negative"):
        ratio_bootstrap(A, [-1, 1, 1, 1])


def test_clusters_follow_the_queries_that_are_left_and_are_one_for_each():
    a, b, clusters = tables(7)
    with_gap = [np.concatenate([[np.nan], column]) for column in (a, b)]
    options = {"resamples": 100}
    assert paired_bootstrap(
        *with_gap, clusters=["elsewhere", *clusters], **options
    ) == paired_bootstrap(a, b, clusters=clusters, **options)
    for function in (paired_bootstrap, ratio_bootstrap, paired_t, exact_sign_test):
        with pytest.raises(ValueError, match="40 queries but 39 clusters"):
            function(a, b, clusters=clusters[1:])


def test_a_clustered_t_needs_two_clusters_that_differ():
    a, b, _ = tables(8)
    with pytest.raises(ValueError, match="at least two clusters, got 1"):
        paired_t(a, b, clusters=["x"] * 40)
    with pytest.raises(ValueError, match="All 2 clusters differ by the same"):
        paired_t([2.0, 0.0, 2.0, 0.0], np.zeros(4), clusters=["x", "x", "y", "y"])
    assert paired_t(a, a, clusters=["x", "y"] * 20)["p"] == 1
