"""Metrics against naive oracles, scikit-learn, closed forms and golden values."""

import itertools
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import average_precision_score

from int_ra_jax.evaluation import checks
from int_ra_jax.evaluation.metrics import (
    MEANS,
    chance_metrics,
    evaluate_rankings,
    macro_pr_curve,
)

GOLDEN_SCORES, GOLDEN_RELEVANT = [[0.9, 0.8, 0.7, 0.6, 0.5]], [[0, 1, 0, 1, 1]]


def random_case(seed, num_queries=6, num_stickers=17, levels=None):
    rng = np.random.default_rng(seed)
    scores = rng.permuted(np.arange(num_queries * num_stickers, dtype=float))
    scores = scores.reshape(num_queries, num_stickers) - 40.0
    if levels is not None:
        scores = rng.integers(0, levels, scores.shape).astype(float)
    relevant = rng.random(scores.shape) < 0.3
    relevant[np.arange(num_queries), rng.integers(0, num_stickers, num_queries)] = True
    return scores, relevant


def of_order(hits, gold_place):
    """The definitions read aloud, for one order of the gallery."""
    found = [rank for rank, hit in enumerate(hits, 1) if hit]
    value = {
        "ap": sum(sum(hits[:rank]) / rank for rank in found) / len(found),
        "reciprocal_rank": 1 / found[0],
        "gold_rank": gold_place + 1,
        "gold_reciprocal_rank": 1 / (gold_place + 1),
    }
    for n in (1, 3, 5, 10):
        top = hits[: min(n, len(hits))]
        value[f"hit@{n}"] = float(any(top))
        value[f"precision@{n}"] = sum(top) / len(top)
        value[f"recall@{n}"] = sum(top) / len(found)
        value[f"gold_hit@{n}"] = float(gold_place < n)
    return value


def mean_over_orders(scores, relevant, gold):
    """Every order of the gallery that the scores allow, one after the other."""
    rows = []
    for row, sent in enumerate(gold):
        orders = [
            order
            for order in itertools.permutations(range(scores.shape[1]))
            if (np.diff(scores[row][list(order)]) <= 0).all()
        ]
        values = [of_order([bool(relevant[row, s]) for s in o], o.index(sent)) for o in orders]
        rows.append({name: np.mean([value[name] for value in values]) for name in values[0]})
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_stickers=st.integers(1, 6),
    levels=st.sampled_from([1, 2, 3, 4]),
)
def test_every_value_is_the_mean_over_all_orders_of_tied_stickers(seed, num_stickers, levels):
    scores, relevant = random_case(seed, 3, num_stickers, levels)
    gold = np.random.default_rng(seed).integers(0, num_stickers, 3)
    result = evaluate_rankings(scores, relevant, gold=gold, per_query=True)
    expected = mean_over_orders(scores, relevant, gold)
    assert set(result["per_query"]) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(result["per_query"][name], value, rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("levels", [2, 5, 12])
def test_ties_in_a_larger_gallery_agree_with_many_drawn_orders(levels):
    scores, relevant = random_case(levels, 4, 40, levels)
    gold = np.arange(4)
    exact = evaluate_rankings(scores, relevant, gold=gold, per_query=True)["per_query"]
    rng, draws = np.random.default_rng(0), 3000
    drawn = evaluate_rankings(
        np.repeat(scores, draws, axis=0) + 0.5 * rng.random((4 * draws, 40)),
        np.repeat(relevant, draws, axis=0),
        gold=np.repeat(gold, draws),
        per_query=True,
    )["per_query"]
    for name, value in exact.items():
        each = drawn[name].reshape(4, draws)
        error = np.maximum(each.std(axis=1) / np.sqrt(draws), 1e-9)
        assert (np.abs(each.mean(axis=1) - value) <= 4.5 * error).all(), name


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), num_stickers=st.integers(1, 14))
def test_without_ties_every_value_equals_the_naive_definition(seed, num_stickers):
    scores, relevant = random_case(seed, 5, num_stickers)
    gold = np.random.default_rng(seed).integers(0, num_stickers, 5)
    result = evaluate_rankings(scores, relevant, gold=gold, per_query=True)
    orders = np.argsort(-scores, axis=1).tolist()
    rows = [
        of_order([bool(relevant[row, s]) for s in order], order.index(gold[row]))
        for row, order in enumerate(orders)
    ]
    assert set(result["per_query"]) == set(rows[0])
    for name, value in result["per_query"].items():
        np.testing.assert_allclose(value, [row[name] for row in rows], rtol=1e-12, err_msg=name)
    for name, mean in MEANS.items():
        assert result[mean] == pytest.approx(np.mean([row[name] for row in rows]))
    assert result["gold_rank_median"] == pytest.approx(np.median([r["gold_rank"] for r in rows]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_without_ties_values_are_the_plain_definitions_to_the_bit(dtype):
    """Also beside rows with ties: what stands in a block with a row changes none of its bits."""
    scores, relevant = random_case(13, 50, 70)
    scores[:, :5] = np.where(np.arange(50)[:, None] % 2, scores[:, :5], 3.25)
    gold = np.full(50, 7)
    values = evaluate_rankings(scores.astype(dtype), relevant, gold=gold, per_query=True)[
        "per_query"
    ]
    untied = np.arange(50) % 2 == 1
    order = np.argsort(-scores, axis=1)
    hits = np.take_along_axis(relevant, order, axis=1)
    found = np.cumsum(hits, axis=1)
    count, rank = found[:, -1], (order == 7).argmax(axis=1) + 1
    expected = {
        "ap": (found / np.arange(1, 71) * hits).sum(axis=1) / count,
        "reciprocal_rank": 1.0 / (hits.argmax(axis=1) + 1),
        "gold_rank": rank,
        "gold_reciprocal_rank": 1.0 / rank,
    }
    for n in (1, 3, 5, 10):
        top = found[:, n - 1]
        expected |= {
            f"hit@{n}": top > 0, f"precision@{n}": top / n, f"recall@{n}": top / count,
            f"gold_hit@{n}": rank <= n,
        }  # fmt: skip
    assert set(values) == set(expected)
    for name, value in expected.items():
        assert (values[name][untied] == value[untied]).all(), name


def test_average_precision_equals_scikit_learn_without_ties():
    scores, relevant = random_case(3, 40, 60)
    ours = evaluate_rankings(scores, relevant, per_query=True)["per_query"]["ap"]
    theirs = [average_precision_score(r, s) for s, r in zip(scores, relevant, strict=True)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_golden_values():
    result = evaluate_rankings(GOLDEN_SCORES, GOLDEN_RELEVANT)
    assert result["mAP"] == pytest.approx(0.5333333, abs=1e-7)
    assert (result["hit@1"], result["hit@3"]) == (0.0, 1.0)
    assert result["precision@3"] == pytest.approx(1 / 3)
    assert result["recall@3"] == pytest.approx(1 / 3)


def test_average_precision_is_a_step_sum_and_not_a_trapezoid():
    assert evaluate_rankings([[3.0, 2.0, 1.0]], [[0, 1, 0]])["mAP"] == 0.5


def test_scores_equal_to_relevance_are_perfect_and_their_reverse_is_the_minimum():
    _, relevant = random_case(1, 8, 10)
    perfect = evaluate_rankings(relevant.astype(float), relevant, per_query=True)
    assert perfect["mAP"] == perfect["hit@1"] == perfect["mrr"] == 1.0
    worst = evaluate_rankings(-relevant.astype(float), relevant, per_query=True)["per_query"]["ap"]
    for row, count in enumerate(relevant.sum(axis=1)):
        smallest = np.mean([i / (10 - count + i) for i in range(1, count + 1)])
        assert worst[row] == pytest.approx(smallest)
    golden = evaluate_rankings(
        -(np.arange(10.0)[None] < 3.0).astype(float), np.arange(10)[None] < 3
    )["mAP"]
    assert golden == pytest.approx(0.2157407, abs=1e-7)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), levels=st.sampled_from([None, 3]))
def test_invariants_of_any_ranking(seed, levels):
    scores, relevant = random_case(seed, 6, 9, levels)
    result = evaluate_rankings(scores, relevant)
    assert result["hit@1"] <= result["hit@3"] <= result["hit@5"] <= result["hit@10"] <= 1 + 1e-12
    assert result["precision@1"] == pytest.approx(result["hit@1"])
    assert 0 < result["mAP"] <= 1
    assert evaluate_rankings(2 * scores + 7, relevant) == result
    assert evaluate_rankings(np.exp(scores / 50), relevant) == result
    twice = evaluate_rankings(np.tile(scores, (2, 1)), np.tile(relevant, (2, 1)))
    for name in result.keys() - {"queries"}:
        assert twice[name] == pytest.approx(result[name])


def test_recall_over_the_whole_gallery_is_one():
    scores, relevant = random_case(5, 7, 5)
    assert evaluate_rankings(scores, relevant)["recall@5"] == 1.0


def test_the_order_of_the_gallery_does_not_matter_without_ties():
    scores, relevant = random_case(7)
    order = np.random.default_rng(0).permutation(scores.shape[1])
    assert evaluate_rankings(scores[:, order], relevant[:, order]) == evaluate_rankings(
        scores, relevant
    )


def test_the_order_of_the_gallery_does_not_matter_with_ties_either():
    scores, relevant = random_case(8, levels=4)
    order = np.random.default_rng(0).permutation(scores.shape[1])
    moved = evaluate_rankings(scores[:, order], relevant[:, order])
    assert moved == evaluate_rankings(scores, relevant)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), num_stickers=st.integers(1, 30))
def test_a_constant_answer_gets_exactly_what_chance_gets(seed, num_stickers):
    _, relevant = random_case(seed, 5, num_stickers)
    constant = np.full(relevant.shape, -1.5)
    gold = np.random.default_rng(seed).integers(0, num_stickers, 5)
    result = evaluate_rankings(constant, relevant, gold=gold, per_query=True)
    chance = chance_metrics(relevant, with_gold=True, per_query=True)
    for name, values in chance.pop("per_query").items():
        assert (result["per_query"][name] == values).all(), name
    assert chance == {name: value for name, value in result.items() if name != "per_query"}


@pytest.mark.parametrize("elements", [1, 17, 40])
def test_cutting_the_queries_into_blocks_changes_nothing(monkeypatch, elements):
    scores, relevant = random_case(9, levels=4)
    gold = np.arange(6)
    whole = evaluate_rankings(scores, relevant, gold=gold)
    curve = macro_pr_curve(scores, relevant)
    monkeypatch.setattr(checks, "_BLOCK_ELEMENTS", elements)
    assert evaluate_rankings(scores, relevant, gold=gold) == whole
    assert macro_pr_curve(scores, relevant).auc == curve.auc


def test_queries_without_relevant_stickers_are_an_error_or_are_left_out_and_counted():
    scores, relevant = random_case(2)
    relevant[[1, 4]] = False
    for function in (lambda **k: evaluate_rankings(scores, relevant, **k),
                     lambda **k: chance_metrics(relevant, **k),
                     lambda **k: macro_pr_curve(scores, relevant, **k)):  # fmt: skip
        with pytest.raises(ValueError, match=r"2 of 6 queries have no relevant.*1, 4"):
            function()
        function(on_empty="exclude")
    result = evaluate_rankings(
        scores, relevant, gold=np.zeros(6, int), per_query=True, on_empty="exclude"
    )
    keep = [0, 2, 3, 5]
    rest = evaluate_rankings(scores[keep], relevant[keep], gold=np.zeros(4, int))
    assert (result["queries"], result["queries_without_relevant"]) == (4, 2)
    for name in rest.keys() - {"queries_without_relevant"}:
        assert result[name] == rest[name]
    for value in result["per_query"].values():
        assert np.isnan(value).tolist() == [False, True, False, False, True, False]
    with pytest.raises(ValueError, match="None of the 6"):
        evaluate_rankings(scores, np.zeros_like(relevant), on_empty="exclude")
    with pytest.raises(ValueError, match="on_empty"):
        checks.scorable_queries(relevant, "skip")


def test_bad_tables_are_refused_with_the_rows_named():
    scores, relevant = random_case(2)
    broken = scores.copy()
    broken[[0, 3], 2] = np.nan
    with pytest.raises(ValueError, match=r"relevant has shape.*2 rows of scores hold NaN.*0, 3"):
        evaluate_rankings(broken, relevant[:, 1:])
    with pytest.raises(ValueError, match="non-empty"):
        evaluate_rankings(scores[0], relevant[0])
    with pytest.raises(ValueError, match="truth values"):
        evaluate_rankings(scores, relevant * 2)
    with pytest.raises(ValueError, match="real numbers"):
        evaluate_rankings(scores.astype(complex), relevant)
    with pytest.raises(ValueError, match=r"gold must be in \[0, 17\); rows 1 hold \[17\]"):
        evaluate_rankings(scores, relevant, gold=[0, 17, 0, 0, 0, 0])
    with pytest.raises(ValueError, match=r"gold must be int \[6\]"):
        evaluate_rankings(scores, relevant, gold=[0, 1])


def test_lists_and_jax_arrays_of_any_precision_are_accepted():
    scores = np.array([[1.0, 3.0, 2.0], [0.5, -1.0, 4.0]])
    relevant = np.array([[True, False, False], [False, True, True]])
    expected = evaluate_rankings(scores, relevant)
    assert evaluate_rankings(scores.tolist(), relevant.tolist()) == expected
    for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
        assert evaluate_rankings(jnp.asarray(scores, dtype), jnp.asarray(relevant)) == expected
    assert evaluate_rankings((2 * scores).astype(np.int64), relevant) == expected


def simulate(relevant, draws, seed=0):
    rng = np.random.default_rng(seed)
    scores = rng.random((draws, relevant.shape[0]))
    return evaluate_rankings(
        scores, np.tile(relevant, (draws, 1)), gold=np.zeros(draws, int), per_query=True
    )["per_query"]


@pytest.mark.parametrize(("size", "count"), [(7, 1), (12, 4), (6, 6), (40, 33), (3, 2), (1, 1)])
def test_chance_agrees_with_simulated_random_rankings(size, count):
    relevant = np.arange(size) < count
    exact = chance_metrics(relevant[None], with_gold=True, per_query=True)["per_query"]
    simulated = simulate(relevant, 4000)
    assert set(exact) == set(simulated)
    for name, values in simulated.items():
        error = max(values.std() / np.sqrt(len(values)), 1 / len(values))
        assert abs(values.mean() - exact[name][0]) <= 4 * error, name


@pytest.mark.parametrize(("size", "count"), [(1, 1), (9, 1), (9, 9), (40, 7), (300, 299)])
def test_chance_is_the_closed_form(size, count):
    chance = chance_metrics(np.arange(size)[None] < count, with_gold=True)
    h = np.concatenate([[0], np.cumsum(1 / np.arange(1, size + 1))])
    others = (count - 1) / max(size - 1, 1)
    first = count * (h[size] - h[count - 1]) / (size - count + 1)
    expected = {
        "mAP": (h[size] + (size - h[size]) * others) / size,
        "mrr": first,
        "gold_rank": (size + 1) / 2,
        "gold_mrr": h[size] / size,
    }
    for n in (1, 3, 5, 10):
        missed = stats.hypergeom(size, count, min(n, size)).pmf(0)
        expected |= {
            f"hit@{n}": 1 - missed, f"precision@{n}": count / size,
            f"recall@{n}": min(n, size) / size, f"gold_hit@{n}": min(n, size) / size,
        }  # fmt: skip
    for name, value in expected.items():
        assert chance[name] == pytest.approx(value, rel=1e-9), name


@pytest.mark.parametrize(("size", "count"), [(5, 2), (6, 3), (6, 1), (4, 4)])
def test_chance_equals_the_mean_over_all_rankings(size, count):
    rows = [set(c) for c in itertools.combinations(range(size), count)]
    relevant = np.array([[column in row for column in range(size)] for row in rows])
    scores = np.broadcast_to(-np.arange(float(size)), relevant.shape)
    everything, closed = evaluate_rankings(scores, relevant), chance_metrics(relevant)
    for name in everything:
        assert closed[name] == pytest.approx(everything[name], rel=1e-12), name


def test_golden_chance_of_a_hit():
    # by hand: one of the ten draws of three among five misses both right stickers
    assert chance_metrics([[1, 1, 0, 0, 0]])["hit@3"] == pytest.approx(0.9)
    assert chance_metrics(np.arange(1025)[None] < 37)["mAP"] == pytest.approx(0.042, abs=5e-4)


def test_chance_of_every_protocol_row_sums_query_and_gallery_frequencies():
    rng = np.random.default_rng(0)
    query, sticker = rng.integers(0, 4, 50), rng.integers(0, 4, 80)
    by_class = sum((query == c).mean() * (sticker == c).mean() for c in range(4))
    assert chance_metrics(query[:, None] == sticker)["hit@1"] == pytest.approx(by_class)


def test_the_macro_curve_is_the_naive_interpolation():
    scores, relevant = random_case(11, 5, 13)
    curve = macro_pr_curve(scores, relevant)
    expected = np.zeros((5, 101))
    for row in range(5):
        hits = relevant[row][np.argsort(-scores[row])]
        recall = np.cumsum(hits) / hits.sum()
        precision = np.cumsum(hits) / np.arange(1, 14)
        for level in range(101):
            expected[row, level] = precision[recall >= level / 100 - 1e-9].max()
    np.testing.assert_allclose(curve.precision, expected.mean(axis=0), rtol=1e-12)
    assert curve.auc == pytest.approx(np.trapezoid(expected.mean(axis=0), curve.recall))
    assert curve.prevalence == relevant.mean()
    assert (np.diff(curve.precision) <= 1e-12).all()
    perfect = macro_pr_curve(relevant.astype(float), relevant)
    assert perfect.auc == pytest.approx(1.0)


def test_the_macro_curve_places_tied_right_ones_where_they_stand_on_average():
    # by hand: 1 group of 1 (right), 1 of 4 with 1 right: expected place 5/2, so rank 3.5
    curve = macro_pr_curve([[3.0, 2.0, 2.0, 2.0, 2.0]], [[1, 0, 0, 1, 0]])
    assert curve.precision[:51] == pytest.approx(np.ones(51))
    assert curve.precision[51:] == pytest.approx(np.full(50, 2 / 3.5))
    flat = macro_pr_curve(np.zeros((2, 19)), np.arange(19) < np.array([[4], [9]]))
    assert flat.precision == pytest.approx(np.full(101, (5 + 10) / 2 / 20))
    scores, relevant = random_case(23, levels=4)
    order = np.random.default_rng(1).permutation(scores.shape[1])
    moved = macro_pr_curve(scores[:, order], relevant[:, order])
    assert (moved.precision == macro_pr_curve(scores, relevant).precision).all()


def test_the_macro_curve_does_not_depend_on_the_scale_of_a_query_s_scores():
    scores, relevant = random_case(17)
    stretched = scores * np.array([1, 10, 100, 1, 5, 2])[:, None] + np.arange(6)[:, None] * 1000
    assert macro_pr_curve(scores, relevant).auc == macro_pr_curve(stretched, relevant).auc


def test_metrics_import_without_tensorflow_scikit_learn_or_jax_transforms():
    code = (
        "import sys; import int_ra_jax.evaluation.metrics; "
        "bad = {'tensorflow', 'torch', 'sklearn', 'transformers'} & set(sys.modules); "
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
