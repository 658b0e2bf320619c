"""A person's recent stickers, mixed into a ranking: against the formula, written out naively."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from int_ra_jax.retrieval import habits
from int_ra_jax.retrieval.habits import UNKNOWN, Mixture, fit, popularity

STICKERS = 6
HISTORIES = st.lists(st.integers(UNKNOWN, STICKERS - 1), max_size=12)
MIXTURES = st.builds(
    Mixture,
    scale=st.floats(0.1, 5),
    weight=st.floats(0, 2),
    backing=st.floats(0.1, 50),
    half_life=st.floats(0.5, 100),
)


def naive(mixture, scores, recent, popular):
    """The two experts with popularity counted once, as the module's first formula has it."""
    counts = [0.0] * STICKERS
    for age, row in enumerate(recent):
        if row != UNKNOWN:
            counts[row] += 0.5 ** (age / mixture.half_life)
    total = sum(counts) + mixture.backing
    logs = []
    for s in range(STICKERS):
        habit = (counts[s] + mixture.backing * popular[s]) / total
        logs.append(
            mixture.scale * scores[s] + mixture.weight * (math.log(habit) - math.log(popular[s]))
        )
    whole = math.log(sum(math.exp(one) for one in logs))
    return [one - whole for one in logs]


@settings(max_examples=40)
@given(MIXTURES, HISTORIES, st.integers(0, 2**31))
def test_a_mixture_is_two_experts_with_popularity_counted_once(mixture, recent, seed):
    rng = np.random.default_rng(seed)
    scores, popular = rng.normal(size=STICKERS), popularity(rng.integers(0, 50, STICKERS))
    found = mixture.mix(scores, recent, popular)
    np.testing.assert_allclose(found, naive(mixture, scores, recent, popular), atol=1e-9)
    assert np.exp(found).sum() == pytest.approx(1)


@settings(max_examples=20)
@given(MIXTURES, HISTORIES, st.integers(0, 2**31))
def test_only_what_was_sent_rises_and_all_others_keep_their_order(mixture, recent, seed):
    rng = np.random.default_rng(seed)
    scores, popular = rng.normal(size=STICKERS), popularity(rng.integers(0, 50, STICKERS))
    lifts = mixture.lifts(recent, popular)
    assert set(lifts) == set(recent) - {UNKNOWN}
    assert all(lift >= 0 for lift in lifts.values())
    others = [row for row in range(STICKERS) if row not in lifts]
    found = mixture.mix(scores, recent, popular)
    assert (np.argsort(found[others]) == np.argsort(scores[others])).all()


def test_without_a_history_the_model_alone_ranks():
    scores, popular = np.array([0.3, -1.0, 2.0]), popularity([5, 0, 1])
    found = Mixture().mix(scores, [], popular)
    np.testing.assert_allclose(found, scores - np.log(np.exp(scores).sum()))


def test_what_may_not_be_sent_stays_out_though_it_was_sent_often():
    found = Mixture().mix([0.0, -np.inf, 1.0], [1, 1, 1], popularity([0, 0, 0]))
    assert found[1] == -np.inf
    assert np.exp(found).sum() == pytest.approx(1)


def test_a_newer_use_counts_more_and_stickers_that_are_gone_age_the_others():
    popular = popularity([0, 0])
    newer = Mixture(half_life=2.0).lifts([0, 1], popular)
    assert newer[0] > newer[1]
    gone = Mixture(half_life=2.0).lifts([UNKNOWN, 0], popular)
    assert gone == {0: newer[1]}


def test_popularity_is_smoothed_by_one_use_each():
    np.testing.assert_allclose(popularity([7, 0, 1]), [8 / 11, 1 / 11, 2 / 11])


def drawn(number, longest, stickers=8, seed=0):
    """Choices of a known mixture: scores, gold, histories, popularity, and the mixture."""
    rng = np.random.default_rng(seed)
    true = Mixture(scale=2.0, weight=1.0, backing=3.0, half_life=10.0)
    popular = popularity(rng.integers(0, 90, stickers))
    scores = rng.normal(size=(number, stickers))
    lengths = rng.integers(0, longest + 1, number)
    recents = [tuple(rng.integers(0, stickers, length).tolist()) for length in lengths]
    gold = [
        int(rng.choice(stickers, p=np.exp(true.mix(one, recent, popular))))
        for one, recent in zip(scores, recents, strict=True)
    ]
    return scores, gold, recents, popular, true


def loss(mixture, scores, gold, recents, popular):
    pairs = zip(scores, gold, recents, strict=True)
    return -np.mean([mixture.mix(one, recent, popular)[row] for one, row, recent in pairs])


def test_what_a_fit_makes_small_is_the_mean_over_cut_histories():
    scores, gold, recents, popular, true = drawn(40, 25)
    recents[0] = (UNKNOWN, 3, UNKNOWN, 3)
    uses = habits._Uses.of(scores, np.array(gold), recents, popular)
    cuts = [[recent[:cut] for recent in recents] for cut in habits._CUTS]
    naively = np.mean([loss(true, scores, gold, cut, popular) for cut in cuts])
    assert uses.loss(**vars(true)) == pytest.approx(naively)


def test_a_fit_finds_what_choices_were_drawn_from():
    """Of histories of one use, which all cuts leave whole; the likelihood has its maximum near."""
    *data, true = drawn(600, 1)
    found = fit(*data)
    assert found.scale == pytest.approx(true.scale, rel=0.2)
    assert loss(found, *data) <= loss(true, *data) + 1e-6


def test_habits_that_say_nothing_get_hardly_any_weight():
    rng = np.random.default_rng(1)
    scores = 3 * rng.normal(size=(400, 5))
    gold = [int(rng.choice(5, p=np.exp(s) / np.exp(s).sum())) for s in scores]
    recents = [tuple(rng.integers(0, 5, 20).tolist()) for _ in range(400)]
    popular = popularity(np.bincount(gold, minlength=5))
    found = fit(scores, gold, recents, popular)
    moved = [
        found.mix(s, r, popular).argmax() != s.argmax()
        for s, r in zip(scores, recents, strict=True)
    ]
    assert np.mean(moved) < 0.05


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: Mixture(scale=0.0, backing=-1.0), r"scale=0.0, backing=-1.0"),
        (lambda: Mixture(half_life=math.nan), r"half_life=nan"),
        (lambda: Mixture().lifts([0, 3, -2], popularity([1, 1, 1])), r"rows \[-2, 3\] .* of 3"),
        (lambda: Mixture().mix([0.0], [], popularity([1, 1])), r"\(1,\), popularity \(2,\)"),
        (lambda: Mixture().mix([0.0, math.nan], [], popularity([1, 1])), "finite"),
        (lambda: Mixture().mix([0.0, math.inf], [], popularity([1, 1])), "finite"),
        (lambda: Mixture().mix([-math.inf] * 2, [], popularity([1, 1])), "not all -inf"),
        (lambda: popularity([]), "uses"),
        (lambda: popularity([-1]), "uses"),
        (lambda: fit([[0.0, 1.0]], [0, 1], [()], popularity([1, 1])), "one row of scores"),
        (lambda: fit([[0.0, 1.0]], [2], [()], popularity([1, 1])), r"gold: rows \[2\]"),
        (lambda: fit([[0.0, 1.0]], [1], [(5,)], popularity([1, 1])), r"choice 0: rows \[5\]"),
        (lambda: fit([[0.0, math.inf]], [1], [()], popularity([1, 1])), "finite"),
    ],
)
def test_what_cannot_be_is_refused_in_clear_words(act, message):
    with pytest.raises(ValueError, match=message):
        act()
