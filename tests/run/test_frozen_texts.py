"""The frozen layers' output of many conversations: what each row gets, and what is computed."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from fixtures.toy_system import make_toy
from hypothesis import given
from hypothesis import strategies as st

from int_ra_jax.common.types import Tokens
from int_ra_jax.models import interface
from int_ra_jax.run.frozen_texts import by_width, distinct, frozen_texts
from int_ra_jax.training import sharding

WIDTH = 40


def texts(lengths, seed=0, repeated=()):
    """Conversations of some lengths, with noise where they have no token."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(5, 60, (len(lengths), WIDTH)).astype(np.int32)
    mask = np.arange(WIDTH) < np.array(lengths)[:, None]
    for row, source in repeated:
        ids[row, : lengths[source]] = ids[source, : lengths[source]]
        mask[row] = mask[source]
    types = np.where(mask, np.arange(WIDTH) >= 20, rng.integers(0, 2, mask.shape)).astype(np.int32)
    turn = np.where(mask, 1, 0).astype(np.int32)
    return Tokens(ids, mask, types, turn=turn, words=mask & (np.arange(WIDTH) > 0))


@pytest.fixture(scope="module", params=["int_ra", "srs"])
def frozen(request):
    return make_toy(system=request.param, model__text__frozen_layers=-1)


def computing(toy, placement=None):
    def hidden(params, tokens):
        return interface.merge(toy.graphdef, params).hidden_text(tokens)

    whole = None if placement is None else placement.whole
    compiled, shapes = jax.jit(hidden, out_shardings=whole), []

    def compute(params, tokens):
        shapes.append(tokens.ids.shape)
        return compiled(params, tokens)

    return compute, shapes


LENGTHS = [40, 3, 17, 16, 1, 33, 40, 3, 25]


@pytest.mark.parametrize("devices", [1, 8])
def test_each_row_has_the_output_that_it_has_alone(frozen, devices):
    mesh = sharding.make_mesh({"data": devices, "fsdp": 1, "tensor": 1})
    placement = sharding.placement(mesh)
    tokens = texts(LENGTHS, repeated=[(6, 0), (7, 1)])
    compute, _ = computing(frozen, placement)
    params = placement.everywhere(frozen.params)
    found = frozen_texts(
        frozen.system, compute, params, tokens, rows=4, placement=placement, what="x"
    )
    expected = np.asarray(frozen.call("hidden_text", jax.tree.map(jax.numpy.asarray, tokens)))
    assert found.shape == expected.shape
    real = np.asarray(frozen.system.text_rows(tokens).mask)
    np.testing.assert_allclose(found[real], expected[real], atol=2e-5)


def test_a_text_is_computed_once_and_without_most_of_its_padding(frozen):
    tokens = texts([40, 3, 16, 3, 40, 3], repeated=[(3, 1), (4, 0), (5, 1)])
    compute, shapes = computing(frozen)
    frozen_texts(frozen.system, compute, frozen.params, tokens, rows=2, placement=None, what="x")
    computed = sum(rows * width for rows, width in shapes)
    read = frozen.system.text_rows(tokens).ids
    assert {width for _, width in shapes} <= {16, 32, read.shape[-1]}
    assert computed < 0.6 * np.prod(read.shape)


def test_where_no_layer_is_frozen_there_is_nothing_to_keep():
    toy = make_toy()
    compute, shapes = computing(toy)
    found = frozen_texts(
        toy.system, compute, toy.params, texts([5, 9]), rows=2, placement=None, what="x"
    )
    assert found is None and len(shapes) == 1


@given(st.lists(st.integers(0, WIDTH), min_size=1, max_size=12))
def test_every_row_stands_in_the_narrowest_width_that_holds_it(lengths):
    mask = np.arange(WIDTH) < np.array(lengths)[:, None]
    found = by_width(mask)
    rows = np.concatenate(list(found.values()))
    np.testing.assert_array_equal(np.sort(rows), np.arange(len(lengths)))
    for width, members in found.items():
        assert all(width - 16 < max(lengths[row], 1) <= width for row in members)


def test_what_stands_behind_a_text_does_not_tell_it_from_another():
    tokens = texts([4, 4, 4], repeated=[(2, 0)])
    first, of_row = distinct(tokens)
    assert len(first) == 2 and of_row[0] == of_row[2] != of_row[1]
    other = SimpleNamespace(ids=tokens.ids, mask=tokens.mask, type_ids=1 - tokens.type_ids)
    both = Tokens(
        np.concatenate([tokens.ids, other.ids]),
        np.concatenate([tokens.mask, other.mask]),
        np.concatenate([tokens.type_ids, other.type_ids]),
    )
    assert len(distinct(both)[0]) == 4
