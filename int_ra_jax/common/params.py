"""Names for the leaves of a parameter tree, and the one matcher of names against patterns.

Freezing, weight decay, learning-rate groups, sharding and weight loading all address parameters
by the same name, ``text/encoder/layer/0/attention/self/query/kernel``, and by the same rule: a
regular expression must match the whole name, and the first rule that matches wins.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax

SHOWN = 10  # names listed in an error before the rest is only counted


def path_string(path: Sequence[Any]) -> str:
    """Returns the name of a leaf: its keys joined by '/', layer indices in decimal.

    An nnx variable is a tree node of its own whose array sits under the attribute ``value``; that
    last key is dropped, so a state, a module and a plain dictionary of arrays give equal names.

    Args:
      path: a key path of ``jax.tree_util`` or of ``nnx`` (a tuple of keys, strings or integers).

    Returns:
      For example ``encoder/layer/0/output/LayerNorm/scale``.
    """
    if path and path[-1] == jax.tree_util.GetAttrKey("value"):
        path = path[:-1]
    return "/".join(_key_string(key) for key in path)


def flatten(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a tree by name, in the tree's own order.

    Args:
      tree: an ``nnx.State``, an ``nnx.Module`` or any pytree; leaves may be abstract.

    Returns:
      Name -> leaf.

    Raises:
      ValueError: if two leaves have the same name (an integer key beside the same string key).
    """
    pairs = [(path_string(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
    leaves = dict(pairs)
    if len(leaves) != len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"two leaves of the tree share a name: {shown(twice)}")
    return leaves


def label_by_pattern(
    tree: Any, rules: Sequence[tuple[str, Any]], *, allow_unused: bool = False
) -> Any:
    """Returns a tree of labels: for each leaf, the label of the first pattern that matches it.

    Every leaf must be covered and every pattern must match something, because a pattern with a
    typing error would otherwise train what was meant to be frozen and nobody would see it.

    Args:
      tree: the tree of parameters (or of their abstract shapes).
      rules: (pattern, label) pairs, most specific first; a pattern is a regular expression for
        the whole name; a label is any object.
      allow_unused: True where one table of rules serves several models.

    Returns:
      A tree of the same structure with labels as leaves.

    Raises:
      ValueError: names every leaf that no pattern matches, every pattern that matches no leaf and
        every pattern that is not a regular expression, in one message.
    """
    names = list(flatten(tree))
    problems: list[str] = []
    compiled: list[tuple[re.Pattern[str], Any]] = []
    for pattern, label in rules:
        try:
            compiled.append((re.compile(pattern), label))
        except re.error as error:
            problems.append(f"pattern {pattern!r} is not a regular expression: {error}")
    uncovered = [name for name in names if not any(rule.fullmatch(name) for rule, _ in compiled)]
    if uncovered:
        problems.append(f"no pattern matches {len(uncovered)} parameters: {shown(uncovered)}")
    for rule, _ in compiled:
        if not allow_unused and not any(rule.fullmatch(name) for name in names):
            problems.append(f"pattern {rule.pattern!r} matches no parameter")
    if problems:
        raise ValueError(
            "patterns and parameters do not fit together (a pattern must match a whole name):\n  "
            + "\n  ".join(problems)
        )

    def label_of(path: Sequence[Any], _: Any) -> Any:
        name = path_string(path)
        return next(label for rule, label in compiled if rule.fullmatch(name))

    return jax.tree_util.tree_map_with_path(label_of, tree)


def replace_leaves(tree: Any, leaves: Mapping[str, Any]) -> Any:
    """Returns a tree with some of its leaves replaced, by name.

    Args:
      tree: the tree of parameters.
      leaves: name -> new leaf.

    Raises:
      ValueError: if a name is not in the tree.
    """
    unknown = sorted(leaves.keys() - flatten(tree).keys())
    if unknown:
        raise ValueError(f"the tree has no parameter {shown(unknown)}")
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaves.get(path_string(path), leaf), tree
    )


def matching(tree: Any, patterns: Sequence[str]) -> frozenset[str]:
    """Returns the names of the leaves that any of the patterns matches.

    Raises:
      ValueError: if a pattern matches nothing, which a typing error would.
    """
    rules = [*((pattern, True) for pattern in dict.fromkeys(patterns)), (r".*", False)]
    labels = flatten(label_by_pattern(tree, rules))
    return frozenset(name for name, matched in labels.items() if matched)


def count(tree: Any) -> int:
    """Returns the number of numbers in a tree of arrays, abstract or not."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def shown(names: Sequence[str]) -> str:
    """Returns names joined for an error message; beyond ten the rest is only counted."""
    rest = f", ... and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + rest


def _key_string(key: Any) -> str:
    match key:
        case jax.tree_util.DictKey() | jax.tree_util.FlattenedIndexKey():
            return str(key.key)
        case jax.tree_util.SequenceKey():
            return str(key.idx)
        case jax.tree_util.GetAttrKey():
            return key.name
        case _:
            return str(key)
