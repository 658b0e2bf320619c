"""The optimiser, seen from its updates: who moves, how far, and who never does."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from int_ra_jax.common.params import flatten
from int_ra_jax.training.optim import describe, make_optimizer, make_schedule

ROLES = {"text": r"text/.*", "image": r"image/.*", "head": r".*"}


def make_config(**changes):
    config = ConfigDict(
        {
            "name": "adamw",
            "lr": 1e-2,
            "schedule": "constant",
            "warmup_steps": 0,
            "weight_decay": 0.1,
            "b1": 0.9,
            "b2": 0.999,
            "eps": 1e-8,
            "clip_norm": 0.0,
            "multipliers": {"text": 0.1, "image": 1.0, "head": 2.0},
            "frozen": (),
        }
    )
    config.update(changes)
    return config


def make_params(seed=0):
    """Paths as the towers have them, 'ln' inside a word included."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    layer = {"attention": {"self": {"query": {"kernel": draw(4, 4), "bias": draw(4)}}}}
    return {
        "text": {
            "embeddings": {
                "word_embeddings": {"embedding": draw(7, 4)},
                "LayerNorm": {"scale": draw(4), "bias": draw(4)},
            },
            "encoder": {"layer": {"0": layer}},
        },
        "image": {
            "embeddings": {"class_embedding": draw(4)},
            "walnut": {"kernel": draw(4, 3)},
            "pre_layrnorm": {"scale": draw(4), "bias": draw(4)},
        },
        "query_projection": {"kernel": draw(4, 4), "bias": draw(4)},
        "logit_scale": draw(),
    }


def step_once(config, params, gradients, **arguments):
    arguments = {"total_steps": 10, **arguments}
    optimizer, info = make_optimizer(config, params, ROLES, **arguments)
    state = jax.jit(optimizer.init)(params)
    updates, state = jax.jit(optimizer.update)(gradients, state, params)
    return flatten(optax.apply_updates(params, updates)), state, info


def test_frozen_parameters_keep_their_bits_and_the_others_move():
    params = make_params()
    frozen = (r"text/embeddings/.*", r"image/.*")
    after, _, info = step_once(
        make_config(frozen=frozen[:1]), params, jax.tree.map(jnp.ones_like, params), frozen=frozen
    )
    before = flatten(params)
    for path in before:
        is_frozen = path.startswith(("text/embeddings", "image"))
        assert (path not in info.trainable) == is_frozen
        assert (before[path].tobytes() == after[path].tobytes()) == is_frozen, path


def test_frozen_parameters_have_no_moments():
    params = make_params()
    _, state, _ = step_once(make_config(frozen=(r"text/.*",)), params, params)
    moments = [path for path in flatten(state) if "/mu/" in path or "/nu/" in path]
    trainable = {path for path in flatten(params) if not path.startswith("text/")}
    assert len(moments) == 2 * len(trainable)
    assert {path.split("/mu/")[-1].split("/nu/")[-1] for path in moments} == trainable


def test_only_kernels_decay():
    params = make_params()
    # With zero gradients Adam does nothing, so that what moves is the decay.
    after, _, _ = step_once(make_config(), params, jax.tree.map(jnp.zeros_like, params))
    multipliers = {"text": 0.1, "image": 1.0}
    for path, before in flatten(params).items():
        decay = 0.1 * 1e-2 * multipliers.get(path.split("/")[0], 2.0)
        expected = before * (1 - decay) if path.endswith("/kernel") else before
        np.testing.assert_allclose(after[path], expected, rtol=1e-6, err_msg=path)


def test_adam_equals_adamw_without_decay_and_has_none():
    params, gradients = make_params(), make_params(1)
    adam, _, _ = step_once(make_config(name="adam", weight_decay=0.1), params, gradients)
    adamw, _, _ = step_once(make_config(weight_decay=0.0), params, gradients)
    assert all(jnp.array_equal(adam[path], adamw[path]) for path in adam)


def test_the_steps_of_the_roles_have_the_ratio_of_their_multipliers():
    params = make_params()
    gradients = jax.tree.map(jnp.ones_like, params)
    after, _, _ = step_once(make_config(weight_decay=0.0), params, gradients)
    moved = {
        path: float(jnp.mean(before - after[path])) for path, before in flatten(params).items()
    }
    reference = moved["image/walnut/kernel"]
    assert reference == pytest.approx(1e-2, rel=1e-3)
    for path, distance in moved.items():
        ratio = {"text": 0.1, "image": 1.0}.get(path.split("/")[0], 2.0)
        assert distance / reference == pytest.approx(ratio, rel=1e-3), path


def test_several_steps_equal_the_plain_optax_optimiser():
    config = make_config(
        schedule="cosine", warmup_steps=2, multipliers={"text": 1.0, "image": 1.0, "head": 1.0}
    )
    config.clip_norm = 0.5
    mine, info = make_optimizer(config, make_params(), ROLES, total_steps=8)
    mask = jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", make_params())
    plain = optax.chain(
        optax.clip_by_global_norm(0.5),
        optax.adamw(info.schedule, weight_decay=config.weight_decay, mask=mask),
    )
    results = []
    for optimizer in (mine, plain):
        params = make_params()
        state = optimizer.init(params)
        update = jax.jit(optimizer.update)
        for step in range(5):
            updates, state = update(make_params(step + 1), state, params)
            params = optax.apply_updates(params, updates)
        results.append(flatten(params))
    for path, value in results[0].items():
        np.testing.assert_allclose(value, results[1][path], rtol=1e-6, atol=1e-7, err_msg=path)


def test_clipping_does_not_see_the_gradients_of_frozen_parameters():
    params = make_params()
    # After one step the first moment is (1 - b1) times the clipped gradient.
    gradients = jax.tree.map(jnp.ones_like, params)
    gradients["text"] = jax.tree.map(lambda x: 1e6 * jnp.ones_like(x), params["text"])
    config = make_config(frozen=(r"text/.*",), clip_norm=0.1)
    _, state, info = step_once(config, params, gradients)
    mu = {path: leaf for path, leaf in flatten(state).items() if "/mu/" in path}
    norm = float(optax.tree.norm(list(mu.values()))) / (1 - config.b1)
    assert norm == pytest.approx(0.1, rel=1e-4)
    assert len(mu) == len(info.trainable)


def test_a_parameter_without_a_role_and_a_pattern_without_a_parameter_are_errors():
    config = make_config()
    with pytest.raises(ValueError, match="query_projection/kernel"):
        make_optimizer(
            config, make_params(), {"text": "text/.*", "image": "image/.*"}, total_steps=9
        )
    config.frozen = (r"txt/.*",)
    with pytest.raises(ValueError, match=r"'txt/\.\*' matches no parameter"):
        make_optimizer(config, make_params(), ROLES, total_steps=9)
    config.frozen = (r".*",)
    with pytest.raises(ValueError, match="nothing is left to train"):
        make_optimizer(config, make_params(), ROLES, total_steps=9)


def test_what_does_not_fit_the_run_is_reported_at_once():
    config = make_config(warmup_steps=9)
    del config.multipliers.image
    with pytest.raises(ValueError) as caught:
        make_optimizer(config, make_params(), ROLES, total_steps=9)
    for part in (
        "warmup_steps is 9; use 0 or more, and less than the 9 steps",
        "multipliers has no factor for image",
    ):
        assert part in str(caught.value)


@settings(max_examples=40, deadline=None)
@given(
    warmup=st.integers(0, 30),
    rest=st.integers(1, 30),
    kind=st.sampled_from(["constant", "cosine", "linear"]),
)
def test_a_schedule_rises_in_equal_parts_and_ends_where_it_should(warmup, rest, kind):
    schedule = make_schedule(make_config(schedule=kind, warmup_steps=warmup, lr=1.0), warmup + rest)
    for step in range(warmup):
        assert float(schedule(step)) == pytest.approx((step + 1) / warmup, rel=1e-5)
    assert float(schedule(warmup)) == pytest.approx(1.0)
    done = np.linspace(0, 1, rest + 1)
    expected = {
        "constant": np.ones_like(done),
        "linear": 1 - done,
        "cosine": (1 + np.cos(np.pi * done)) / 2,
    }[kind]
    values = [float(schedule(warmup + step)) for step in range(rest + 1)]
    np.testing.assert_allclose(values, expected, atol=1e-6)


def test_the_table_lists_every_parameter_once():
    params = make_params()
    _, _, info = step_once(make_config(frozen=(r"text/embeddings/.*",)), params, params)
    assert sum(group.parameters for group in info.groups) == sum(
        leaf.size for leaf in jax.tree.leaves(params)
    )
    rows = {line[:16].strip(): line[16:].split() for line in describe(info).splitlines()[1:]}
    assert rows["text decayed"] == ["1", "16", "0.001", "0.1"]
    assert rows["text frozen"] == ["3", "36", "frozen", "-"]
    assert rows["head plain"] == ["2", "5", "0.02", "-"]
    assert len({len(line) for line in describe(info).splitlines()}) == 1
