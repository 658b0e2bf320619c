import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from int_ra_jax.common.params import (
    count,
    flatten,
    label_by_pattern,
    matching,
    path_string,
    replace_leaves,
)

NAMES = ["head/bias", "head/kernel", "layer/0/kernel", "layer/1/kernel"]


class Model(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.layer = nnx.List([nnx.Linear(2, 2, use_bias=False, rngs=rngs) for _ in range(2)])
        self.head = nnx.Linear(2, 3, rngs=rngs)


def state_tree():
    return nnx.state(Model())


def plain_tree():
    return {
        "layer": [{"kernel": jnp.ones((2, 2))}, {"kernel": jnp.ones((2, 2))}],
        "head": {"bias": jnp.zeros(3), "kernel": jnp.ones((2, 3))},
    }


def abstract_tree():
    return nnx.state(nnx.eval_shape(Model))


trees = pytest.mark.parametrize("make", [state_tree, plain_tree, abstract_tree, Model])


@trees
def test_state_dictionary_module_and_abstract_tree_give_the_same_names(make):
    assert sorted(flatten(make())) == NAMES


@trees
def test_count_is_the_number_of_numbers(make):
    assert count(make()) == 4 + 4 + 6 + 3


def test_a_path_of_nnx_gives_the_name_that_the_tree_gives():
    paths = [path_string(path) for path, _ in nnx.to_flat_state(state_tree())]
    assert sorted(paths) == NAMES


def test_a_parameter_called_value_keeps_its_name():
    assert list(flatten({"attention": {"value": jnp.ones(1)}})) == ["attention/value"]


@pytest.mark.parametrize("make", [state_tree, plain_tree, abstract_tree])
def test_labels_have_the_structure_of_the_tree_and_the_first_match_wins(make):
    tree = make()
    labels = label_by_pattern(tree, [(r".*bias", "no_decay"), (r"head/.*", "head"), (".*", "rest")])
    assert jax.tree.structure(labels) == jax.tree.structure(tree)
    assert flatten(labels) == {
        "head/bias": "no_decay",
        "head/kernel": "head",
        "layer/0/kernel": "rest",
        "layer/1/kernel": "rest",
    }


def test_a_pattern_must_match_the_whole_name():
    with pytest.raises(ValueError, match="head/bias"):
        label_by_pattern({"head": {"bias": jnp.ones(1)}}, [("head", 1), ("bias", 2)])


def test_every_uncovered_leaf_unused_pattern_and_broken_pattern_is_in_one_error():
    rules = [(r"head/.*", 1), (r"haed/.*", 2), (r"(", 3)]
    with pytest.raises(ValueError) as caught:
        label_by_pattern(plain_tree(), rules)
    text = str(caught.value)
    assert "layer/0/kernel" in text and "layer/1/kernel" in text
    assert "'haed/.*' matches no parameter" in text
    assert "'(' is not a regular expression" in text
    assert "'head/.*' matches" not in text


def test_a_pattern_shadowed_by_an_earlier_one_is_not_unused():
    assert flatten(label_by_pattern({"a": jnp.ones(1)}, [("a", 1), (".*", 2)])) == {"a": 1}


def test_unused_patterns_are_accepted_on_request_only():
    rules = [("absent", 1), (".*", 2)]
    with pytest.raises(ValueError, match="absent"):
        label_by_pattern(plain_tree(), rules)
    assert set(flatten(label_by_pattern(plain_tree(), rules, allow_unused=True)).values()) == {2}


def test_two_leaves_of_one_name_are_refused():
    with pytest.raises(ValueError, match="a/b"):
        flatten({"a": {"b": jnp.ones(1)}, "a/b": jnp.ones(1)})


def test_leaves_are_replaced_by_name_and_an_unknown_name_is_refused():
    tree = {"a": {"0": 1, "1": 2}, "b": 3}
    assert replace_leaves(tree, {"a/1": 5}) == {"a": {"0": 1, "1": 5}, "b": 3}
    with pytest.raises(ValueError, match="the tree has no parameter a/2"):
        replace_leaves(tree, {"a/2": 5})


def test_any_of_the_patterns_counts_and_each_must_match_something():
    tree = {"a": {"0": 1, "1": 2}, "b": 3}
    assert matching(tree, ("a/0", ".*/0", "b")) == {"a/0", "b"}
    assert matching(tree, ()) == frozenset()
    with pytest.raises(ValueError, match="'c' matches no parameter"):
        matching(tree, ("a/.*", "c"))
