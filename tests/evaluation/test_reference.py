"""The majority and linear rows on conversations whose right answer is known."""

import warnings

import numpy as np
import pytest

from int_ra_jax.evaluation.metrics import evaluate_rankings
from int_ra_jax.evaluation.reference import linear_scores, majority_scores, prior_scores
from int_ra_jax.evaluation.relevance import relevance

# One cue word per intention, in two scripts; the fillers say nothing.
CUES = {0: ("wonderful", "太开心了"), 1: ("terrible", "难过死了"), 2: ("really", "怎么可能")}
FILLERS = ["well then", "ok so", "i went home", "今天回家", "吃饭了吗", "the weather"]
# Two stickers an intention, one of two intentions, one that train never shows.
ANNOTATIONS = np.array(
    [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1], [0, 0, 0]], bool
)


def conversations(seed, count, weights=(0.5, 0.3, 0.2)):
    rng = np.random.default_rng(seed)
    intentions = rng.choice(3, count, p=weights)
    texts = []
    for intention in intentions:
        words = [rng.choice(FILLERS), rng.choice(CUES[intention]), rng.choice(FILLERS)]
        texts.append("\n".join(words))
    return texts, intentions


def test_majority_ranks_the_stickers_of_the_commonest_intention_first_then_the_next():
    scores = majority_scores([2, 2, 2, 1, 1, 0], ANNOTATIONS, 4)
    assert scores.shape == (4, 7)
    assert scores[0].tolist() == [1, 1, 2, 2, 3, 3, 0]
    assert (scores == scores[0]).all()


def test_equally_common_intentions_are_kept_apart_in_the_order_of_their_ids():
    scores = majority_scores([1, 2, 0], ANNOTATIONS, 1)[0]
    assert scores.tolist() == [3, 3, 2, 2, 1, 2, 0]


def test_majority_hits_the_share_of_the_commonest_intention():
    _, train = conversations(0, 200)
    _, test = conversations(1, 100)
    right = relevance(
        "multi", query_intention=test, gold=np.array([0, 2, 4])[test], annotations=ANNOTATIONS
    )
    result = evaluate_rankings(majority_scores(train, ANNOTATIONS, 100), right)
    assert result["hit@1"] == np.mean(test == 0)


def test_no_fixed_answer_suits_more_train_conversations_than_the_prior():
    _, train = conversations(0, 200, weights=(0.44, 0.3, 0.26))
    right = ANNOTATIONS[:, train].T
    right = right[:, :6]
    prior = prior_scores(train, ANNOTATIONS, 200)[:, :6]
    shares = right.mean(axis=0)
    np.testing.assert_allclose(prior[0], shares)
    assert evaluate_rankings(prior, right)["hit@1"] == shares.max() == shares[5]
    majority = majority_scores(train, ANNOTATIONS, 200)[:, :6]
    assert evaluate_rankings(majority, right)["hit@1"] < shares.max()


def test_linear_falls_back_to_the_prior_where_the_text_says_nothing():
    _, train = conversations(0, 200)
    scores, _ = linear_scores(["ok so"] * 200, train, ["ok so"] * 2, ANNOTATIONS)
    np.testing.assert_allclose(scores, prior_scores(train, ANNOTATIONS, 2), atol=0.01)


def test_stickers_with_the_same_intentions_tie_exactly():
    # Large enough for a matrix product to round equal columns differently.
    rng = np.random.default_rng(0)
    kinds = rng.random((7, 22)) < 0.3
    annotations = kinds[rng.integers(0, 7, 489)]
    texts = [f"cue{number % 22} filler{number % 5}" for number in range(220)]
    scores, _ = linear_scores(texts, np.arange(220) % 22, texts, annotations)
    for kind in kinds:
        same = scores[:, (annotations == kind).all(axis=1)]
        assert (same == same[:, :1]).all()


def test_linear_beats_majority_where_the_text_says_which_intention_it_is():
    train_texts, train = conversations(0, 200)
    test_texts, test = conversations(1, 100)
    right = relevance(
        "multi", query_intention=test, gold=np.array([0, 2, 4])[test], annotations=ANNOTATIONS
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an unconverged fit warns
        scores, probabilities = linear_scores(train_texts, train, test_texts, ANNOTATIONS)
    linear = evaluate_rankings(scores, right)
    majority = evaluate_rankings(majority_scores(train, ANNOTATIONS, 100), right)
    assert linear["hit@1"] > 0.95 > majority["hit@1"]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    assert (probabilities.argmax(axis=1) == test).mean() > 0.95


def test_both_scripts_are_read():
    train_texts, train = conversations(0, 200)
    for script in (0, 1):
        queries = [CUES[intention][script] for intention in range(3)]
        _, probabilities = linear_scores(train_texts, train, queries, ANNOTATIONS)
        assert probabilities.argmax(axis=1).tolist() == [0, 1, 2]


def test_a_sticker_scores_the_probability_that_it_is_a_right_answer():
    train_texts, train = conversations(0, 60)
    scores, probabilities = linear_scores(train_texts, train, ["really"], ANNOTATIONS)
    np.testing.assert_allclose(scores[0, 5], probabilities[0, 1] + probabilities[0, 2])
    assert scores[0, 6] == 0
    assert scores[0, :6].min() > 0


def test_only_the_annotations_that_are_passed_move_a_sticker():
    train_texts, train = conversations(0, 60)
    fewer = ANNOTATIONS.copy()
    fewer[5] = False
    before, p_before = linear_scores(train_texts, train, ["really", "wonderful"], ANNOTATIONS)
    after, p_after = linear_scores(train_texts, train, ["really", "wonderful"], fewer)
    np.testing.assert_array_equal(p_before, p_after)
    np.testing.assert_array_equal(np.delete(before, 5, axis=1), np.delete(after, 5, axis=1))
    assert (after[:, 5] == 0).all()
    assert majority_scores(train, fewer, 1)[0, 5] == 0


def test_the_fit_is_deterministic_and_a_query_is_scored_alone_as_in_a_batch():
    train_texts, train = conversations(0, 60)
    queries, _ = conversations(2, 5)
    first, _ = linear_scores(train_texts, train, queries, ANNOTATIONS)
    again, _ = linear_scores(train_texts, train, queries, ANNOTATIONS)
    alone, _ = linear_scores(train_texts, train, queries[2:3], ANNOTATIONS)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first[2:3], alone, rtol=1e-12)


def test_intentions_that_train_never_shows_have_probability_zero():
    train_texts, train = conversations(0, 60, weights=(0.6, 0.0, 0.4))
    _, probabilities = linear_scores(train_texts, train, ["really"], ANNOTATIONS)
    assert probabilities[0, 1] == 0
    assert probabilities.sum() == pytest.approx(1.0)


def test_wrong_inputs_are_named():
    with pytest.raises(ValueError, match="2 train texts but 1"):
        linear_scores(["a", "b"], [0], ["c"], ANNOTATIONS)
    with pytest.raises(ValueError, match="at least two intentions"):
        linear_scores(["a", "b"], [0, 0], ["c"], ANNOTATIONS)
    with pytest.raises(ValueError, match=r"in \[0, 3\).*rows 1 hold \[3\]"):
        majority_scores([0, 3], ANNOTATIONS, 1)
    with pytest.raises(ValueError, match="no train conversations"):
        majority_scores([], ANNOTATIONS, 1)
