"""The rows that rank stickers, on conversations whose right answer is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from int_ra_jax.common.types import ATTRIBUTES
from int_ra_jax.data.ngrams import Texts
from int_ra_jax.data.schema import Conversation, StickerEntry, Turn
from int_ra_jax.evaluation.sticker_reference import (
    cosines,
    linear_scores,
    popular_scores,
    sticker_text,
)

CUES = ("wonderful 太开心了", "terrible 难过死了", "really 怎么可能")
FILLERS = ("well then", "今天回家", "吃饭了吗", "the weather")
STICKERS = 5  # two of them never sent


def said(seed, count):
    """The newest turn names the sticker; what was said before names another one."""
    rng = np.random.default_rng(seed)
    gold = rng.choice(3, count, p=(0.5, 0.3, 0.2))
    newest = [f"{rng.choice(FILLERS)} {rng.choice(CUES[g].split())}" for g in gold]
    before = [f"{rng.choice(FILLERS)} {rng.choice(CUES[rng.integers(3)].split())}" for _ in gold]
    whole = [f"{b}\n{n}" for b, n in zip(before, newest, strict=True)]
    return Texts(newest, whole), gold


@pytest.fixture(scope="module")
def fitted():
    train, gold = said(0, 300)
    valid, test = said(1, 40), said(2, 60)
    scores = linear_scores(train, gold, [valid[0], test[0]], STICKERS)
    return {"train": (train, gold), "valid": valid, "test": test, "scores": scores}


def test_the_most_used_sticker_leads_and_probabilities_are_smoothed_shares():
    scores = popular_scores([2, 2, 2, 0], 4, 3)
    assert scores.shape == (3, 4)
    # (uses + 1) / (4 + 4)
    np.testing.assert_allclose(np.exp(scores[1]), [2 / 8, 1 / 8, 4 / 8, 1 / 8])


@given(st.lists(st.integers(0, 6), min_size=1, max_size=30))
def test_what_is_popular_sums_to_one_and_ranks_by_use(gold):
    row = popular_scores(gold, 7, 1)[0]
    assert np.exp(row).sum() == pytest.approx(1.0)
    uses = np.bincount(gold, minlength=7)
    assert (np.argsort(-uses, kind="stable") == np.argsort(-row, kind="stable")).all()


def test_linear_reads_the_newest_turn_apart_from_the_rest(fitted):
    for scores, (_, gold) in zip(fitted["scores"], (fitted["valid"], fitted["test"]), strict=True):
        assert np.mean(scores.argmax(axis=1) == gold) > 0.95


def test_linear_gives_log_probabilities_and_ties_the_never_sent_below_all(fitted):
    for scores in fitted["scores"]:
        np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1.0, rtol=1e-6)
        np.testing.assert_allclose(scores[:, 3:], np.log(1 / (300 + STICKERS)))
        assert (scores[:, :3].min(axis=1) > scores[:, 3]).all()


def test_the_fit_is_deterministic_and_splits_do_not_touch_each_other(fitted):
    train, gold = fitted["train"]
    (again,) = linear_scores(train, gold, [fitted["test"][0]], STICKERS)
    np.testing.assert_array_equal(again, fitted["scores"][1])


def test_linear_becomes_popular_where_the_text_says_nothing():
    _, gold = said(0, 300)
    same = Texts(["ok so"] * 300, ["ok so"] * 300)
    (scores,) = linear_scores(same, gold, [Texts(["ok so"] * 2, ["ok so"] * 2)], STICKERS)
    popular = popular_scores(gold, STICKERS, 2)
    np.testing.assert_allclose(np.exp(scores), np.exp(popular), atol=0.02)


def test_a_script_that_does_not_part_its_words_is_read_by_characters_alone():
    cues = [cue.split()[1] for cue in CUES]
    train = Texts(cues * 30, cues * 30)
    (scores,) = linear_scores(train, [0, 1, 2] * 30, [Texts(cues, cues)], 3)
    assert scores.argmax(axis=1).tolist() == [0, 1, 2]


def test_texts_are_those_of_the_turns_alone():
    turns = (Turn("ann", "I passed"), Turn("bo", "I knew it"))
    told = {"xIntent": ("secret",)}
    conversation = Conversation("c", "test", turns, "bo", "s", "joy", told)
    found = Texts.of([conversation])
    assert found.newest == ["I knew it"]
    assert found.whole == ["I passed\nI knew it"]


def test_a_sticker_s_text_names_each_thing_once():
    attributes = dict.fromkeys(ATTRIBUTES, "") | {"gesture": "thumbs up ", "verbal": "ok"}
    entry = StickerEntry("s", "images/s.png", attributes, tags=("ok", "good"), intentions=("joy",))
    assert sticker_text(entry) == "ok, good, thumbs up"


def test_cosines_are_those_of_unit_vectors():
    found = cosines(np.array([[3.0, 4.0], [0.0, 0.0]]), np.array([[1.0, 0.0], [6.0, 8.0]]))
    np.testing.assert_allclose(found, [[0.6, 1.0], [0.0, 0.0]])


def test_wrong_inputs_are_named():
    one = Texts(["a"], ["a"])
    with pytest.raises(ValueError, match=r"train_gold must be int \[1\]"):
        linear_scores(one, [0, 1], [one], 2)
    with pytest.raises(ValueError, match="at least two stickers"):
        linear_scores(one, [0], [one], 2)
    with pytest.raises(ValueError, match=r"in \[0, 2\)"):
        popular_scores([2], 2, 1)
