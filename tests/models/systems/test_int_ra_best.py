"""What the preset ``best`` adds to the paper's model: the newest turn, and known intentions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures.toy_system import make_toy
from hypothesis import given
from hypothesis import strategies as st

from int_ra_jax.common.params import flatten
from int_ra_jax.common.types import Tokens
from int_ra_jax.models import interface
from int_ra_jax.models.systems.int_ra import newest_turn

SEP = 2


@given(
    turns=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    named=st.booleans(),
    knowledge=st.integers(0, 3),
    pads=st.integers(0, 3),
)
def test_the_newest_turn_is_all_of_it_and_nothing_else(turns, named, knowledge, pads):
    ids, types, wanted = [1], [0], [False]
    for place, words in enumerate(turns):
        newest = place == len(turns) - 1
        ids += [9] * words + [SEP]
        types += [0] * (words + 1)
        wanted += [newest] * (words + 1)
    tail = [7, SEP] if named else []
    known = [8] * knowledge + [SEP] if knowledge else []
    ids += tail + known
    types += [0] * len(tail) + [1] * len(known)
    mask = [True] * len(ids) + [False] * pads
    ids, types = ids + [0] * pads, types + [0] * pads
    wanted += [False] * (len(ids) - len(wanted))
    row = Tokens(*(jnp.asarray([leaf]) for leaf in (ids, mask, types)))
    found = newest_turn(row.ids == SEP, row, behind=int(named))
    assert np.asarray(found)[0].tolist() == wanted


@pytest.fixture(scope="module")
def toy():
    return make_toy(model__intention_match=3.0, model__newest_turn=True)


def test_the_score_is_the_cosine_and_the_probability_that_an_annotated_intention_is_meant(toy):
    context = toy.call("encode_context", toy.attached)
    sticker = toy.call("encode_sticker", toy.resident.bank)
    width = toy.config.model.joint_width
    query, embedding = np.asarray(context.query), np.asarray(sticker.embedding)
    cosine = query[:, :width] @ embedding[:, :width].T
    np.testing.assert_allclose(np.linalg.norm(query[:, :width], axis=1), 1, atol=1e-5)
    probability = np.asarray(jax.nn.softmax(context.intention_logits))
    annotated = np.asarray(toy.resident.bank.intentions, np.float32)
    expected = cosine + 3.0 * probability @ annotated.T
    np.testing.assert_allclose(toy.call("score", context, sticker), expected, atol=1e-5)


def test_the_weight_changes_the_score_and_no_loss(toy):
    other = make_toy(model__intention_match=1.0, model__newest_turn=True)
    assert float(toy.loss(toy.params)) == pytest.approx(float(other.loss(toy.params)), abs=1e-6)
    assert not np.allclose(toy.scores(), other.scores(toy.params), atol=1e-3)


def test_only_the_newest_turn_and_what_it_was_read_with_make_the_query(toy):
    # With the newest turn alone pooled, the classifier sees other turns through attention only.
    plain = make_toy(model__intention_match=3.0)
    params = {k: v for k, v in toy.params.items() if k != "newest_norm"}
    ours = toy.call("encode_context", toy.attached).intention_logits
    theirs = interface.merge(plain.graphdef, params).encode_context(plain.attached).intention_logits
    assert not np.allclose(ours, theirs, atol=1e-3)


def test_the_norm_of_the_newest_turn_is_trained(toy):
    gradients = toy.gradients()
    assert {path for path in flatten(toy.params) if path.startswith("newest_norm/")} == {
        "newest_norm/bias",
        "newest_norm/scale",
    }
    assert np.any(gradients["newest_norm/scale"]) and np.any(gradients["newest_norm/bias"])
