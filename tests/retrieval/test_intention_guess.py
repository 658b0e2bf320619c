"""What a new sticker means is guessed from the own ones that are alike, and from the names."""

import numpy as np
import pytest

from int_ra_jax.retrieval.intention_guess import IntentionGuess

K, WIDTH = 3, 16


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def own(rng, size=90):
    """Returns features around one centre an intention, far from where the names are; intentions."""
    centres = rng.standard_normal((K, WIDTH))
    meant = np.arange(size) % K
    features = 5.0 + centres[meant] + 0.3 * rng.standard_normal((size, WIDTH))
    return features, np.eye(K, dtype=bool)[meant], 5.0 + centres


def test_stickers_that_are_described_alike_mean_alike(rng):
    features, annotated, centres = own(rng)
    guess = IntentionGuess(features, annotated, rng.standard_normal((K, WIDTH)))(centres)
    assert guess.shape == (K, K) and guess.sum(1) == pytest.approx(1.0)
    assert np.diag(guess).min() > 0.9


def test_without_own_stickers_the_names_decide(rng):
    names = rng.standard_normal((K, WIDTH))
    none = np.zeros((0, WIDTH)), np.zeros((0, K), bool)
    guess = IntentionGuess(*none, names)(names)
    assert guess.argmax(1).tolist() == [0, 1, 2] and guess.sum(1) == pytest.approx(1.0)


def test_stickers_without_intentions_say_nothing(rng):
    features, annotated, names = own(rng)
    more = np.concatenate([features, rng.standard_normal((20, WIDTH))])
    unlabelled = np.concatenate([annotated, np.zeros((20, K), bool)])
    asked = rng.standard_normal((5, WIDTH))
    np.testing.assert_array_equal(
        IntentionGuess(features, annotated, names)(asked),
        IntentionGuess(more, unlabelled, names)(asked),
    )


def test_where_texts_tell_nothing_the_frequencies_are_the_guess(rng):
    annotated = np.eye(K, dtype=bool)[rng.choice(K, 200, p=[0.7, 0.2, 0.1])]
    features = 5.0 + rng.standard_normal((200, WIDTH))
    names = rng.standard_normal((K, WIDTH))
    guess = IntentionGuess(features, annotated, names)(5.0 + rng.standard_normal((50, WIDTH)))
    assert guess.mean(0) == pytest.approx(annotated.mean(0), abs=0.08)


def test_one_sticker_alone_is_enough(rng):
    features, annotated, names = own(rng, size=1)
    assert np.isfinite(IntentionGuess(features, annotated, names)(names)).all()
