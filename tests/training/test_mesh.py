"""Every trainable preset computes on any mesh what it computes on one device, in shards."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures.toy_system import GALLERY, INTENTIONS, _draw, make_bank, make_tokens

from configs import int_ra
from int_ra_jax.common.params import flatten
from int_ra_jax.common.types import Batch, Labels, Resident
from int_ra_jax.models import interface, registry
from int_ra_jax.models.interface import merge
from int_ra_jax.models.towers.bert import BertConfig
from int_ra_jax.models.towers.clip_vision import ClipVisionConfig
from int_ra_jax.training import optim, sharding
from int_ra_jax.training.step import create_state, make_train_step

STEPS, BATCH, EXAMPLES, WIDTH, HEADS = 20, 8, 24, 32, 8
ALONE = (1, 1, 1)
MESHES = [(8, 1, 1), (2, 4, 1), (2, 2, 2), (1, 1, 8)]


class Preset:
    """A preset's readings, loss, optimiser and caches, over tiny random towers and data."""

    def __init__(self, name):
        config = int_ra.get_config(name).copy_and_resolve_references().unlock()
        config.model.update({"joint_width": WIDTH, "heads": HEADS})
        self.config = config
        text = BertConfig(128, WIDTH, 1, HEADS, 2 * WIDTH, max_position_embeddings=32)
        image = ClipVisionConfig(WIDTH, 2 * WIDTH, 1, HEADS, image_size=32, patch_size=16)
        facts = interface.Facts(
            text,
            image,
            INTENTIONS,
            GALLERY,
            tuple(range(1, INTENTIONS + 1)),
            interface.SpecialIds(0, 1, 2, 3),
        )
        self.graphdef, abstract = registry.abstract(config, facts)
        draw = np.random.default_rng(1)
        self.params = jax.tree_util.tree_map_with_path(lambda p, x: _draw(draw, p, x), abstract)
        system = merge(self.graphdef, abstract)
        self.embedding_width = system.embedding_width
        self.refresh_steps = system.negatives.refresh_steps
        self.optimizer, self.info = optim.make_optimizer(
            config.optim, abstract, system.param_groups(),
            total_steps=200, frozen=system.frozen_patterns(),
        )  # fmt: skip
        rng = np.random.default_rng(0)
        bank = make_bank(rng)
        bank = bank.replace(pixels=bank.pixels[:, :32, :32])
        self.contexts = make_tokens(rng, (EXAMPLES,), 16)
        self.targets = rng.integers(GALLERY, size=EXAMPLES), rng.integers(INTENTIONS, size=EXAMPLES)
        self.resident = self.cached(Resident(bank, Labels(make_tokens(rng, (INTENTIONS,), 4))))
        self.encode = jax.jit(
            lambda params, bank: merge(self.graphdef, params).encode_sticker(bank).embedding
        )

    def cached(self, resident):
        """Adds the frozen layers' output, as ``resident.build`` does."""
        hidden = jax.jit(lambda p, tokens: merge(self.graphdef, p).hidden_text(tokens))
        context = hidden(self.params, self.contexts)
        if context is None:
            return resident
        bank, labels = resident.bank, resident.labels
        return Resident(
            bank.replace(attribute_hidden=hidden(self.params, bank.attributes)),
            labels.replace(hidden=hidden(self.params, labels.tokens)),
            context,
        )

    def batch(self, step):
        rows = np.random.default_rng(step).permutation(EXAMPLES)[:BATCH]
        context = jax.tree.map(lambda leaf: np.asarray(leaf)[rows], self.contexts)
        sticker, intention = (column[rows].astype(np.int32) for column in self.targets)
        return Batch(context, sticker, intention, rows.astype(np.int32), np.ones(BATCH, bool))


class Trained:
    """A preset, trained for STEPS on one mesh."""

    def __init__(self, preset, shape):
        mesh = self.mesh = sharding.make_mesh(dict(zip(sharding.AXES, shape, strict=True)))
        where = sharding.placement(mesh)
        state = create_state(preset.params, preset.optimizer, 0, (GALLERY, preset.embedding_width))
        self.shardings = sharding.state_shardings(state, mesh)
        state = jax.device_put(jax.tree.map(jnp.copy, state), self.shardings)
        resident = where.everywhere(preset.resident)
        step = make_train_step(
            preset.graphdef, preset.optimizer, preset.info.trainable,
            gather=sharding.gather_for_use(self.shardings.params, mesh),
        )  # fmt: skip
        self.compiled = (
            jax.jit(
                step,
                in_shardings=(self.shardings, where.rows, where.whole),
                out_shardings=(self.shardings, where.whole),
                donate_argnums=0,
            )
            .lower(state, where.place(preset.batch(0)), resident)
            .compile()
        )
        self.losses = []
        for number in range(STEPS):
            if number % preset.refresh_steps == 0:
                # On one device, whatever the mesh: one program less to compile.
                bank = preset.encode(jax.device_get(state.params), preset.resident.bank)
                target = self.shardings.bank_embedding
                state = state.replace(bank_embedding=jax.device_put(np.asarray(bank), target))
            state, metrics = self.compiled(state, where.place(preset.batch(number)), resident)
            self.losses.append([float(metrics[k]) for k in ("loss/total", "gradient_norm")])
        self.state = flatten(state)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[] if name == "smoke" else pytest.mark.long)
        for name in int_ra.PRESETS
    ],
)
def preset(request):
    return Preset(request.param)


@pytest.fixture(scope="module")
def alone(preset):
    return Trained(preset, ALONE)


@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_twenty_steps_on_a_mesh_equal_one_device_with_everything_large_in_shards(
    preset, alone, shape
):
    spread = Trained(preset, shape)
    np.testing.assert_allclose(spread.losses, alone.losses, rtol=1e-5)
    assert len({tuple(pair) for pair in alone.losses}) == STEPS
    compared = 0
    for path, value in alone.state.items():
        # The gradient of a key's bias is zero but for rounding, which Adam blows up to whole steps.
        if not re.search(r"(attention/self/key|k_proj)/bias", path):
            error = np.abs(np.asarray(spread.state[path], np.float64) - value).max()
            assert error <= 1e-5 * max(1.0, np.abs(value).max()), path
            compared += 1
    assert compared > 100
    assert_shards(spread, preset, *shape[1:])
    # What is gathered in one step, of everything: parameters, moments, activations.
    gathered, (once, largest) = gathers(spread.compiled), gathered_once(preset.params, spread)
    assert max(gathered, default=0) <= largest
    assert sum(gathered) <= 1.5 * once, (sum(gathered), once)


def assert_shards(spread, preset, fsdp, tensor):
    """Compares what lies on a device with the sizes written out here."""
    text, image = "text/encoder/layer/0", "image/encoder/layers/0"
    expected = {
        "text/embeddings/word_embeddings/embedding": (128 // tensor, WIDTH // fsdp),
        f"{text}/attention/self/query/kernel": (WIDTH // fsdp, WIDTH // tensor),
        f"{text}/output/dense/kernel": (2 * WIDTH // tensor, WIDTH // fsdp),
        "image/embeddings/patch_embedding/kernel": (16, 16, 3, WIDTH // fsdp),
        f"{image}/self_attn/out_proj/kernel": (WIDTH // tensor, WIDTH // fsdp),
        f"{image}/mlp/fc1/kernel": (WIDTH // fsdp, 2 * WIDTH // tensor),
        "relation/attention/value/kernel": (WIDTH // fsdp, WIDTH),
        "query_projection/kernel": (WIDTH // fsdp, WIDTH),
        f"{image}/mlp/fc1/bias": (2 * WIDTH,),
    }
    for path, shape in expected.items():
        leaves = [leaf for name, leaf in spread.state.items() if name.endswith(f"/{path}")]
        assert len(leaves) == (3 if path in preset.info.trainable else 1), path
        for leaf in leaves:
            assert {shard.data.shape for shard in leaf.addressable_shards} == {shape}, path


def gathers(compiled):
    """Returns the bytes of each float result of an all-gather in a compiled program."""
    results = re.findall(r"= (\(?f32\[.*?) all-gather(?:-start)?\(", compiled.as_text())
    return [
        sum(4 * math.prod(map(int, dims.split(","))) for dims in re.findall(r"f32\[([\d,]+)\]", r))
        for r in results
    ]


def gathered_once(params, spread):
    """Returns the bytes of gathering each parameter once from its fsdp shards, and of the largest.

    That is what a step has to do: a weight is gathered for the layer that uses it and kept for the
    backward pass; gradients, moments and updates stay in shards. What is whole on every device
    counts too, since the compiler divides its update between the devices and gathers the result.
    A program that gathers moments or gradients as well, or the parameters twice, moves at least
    twice as much; one that joins the gathers of a tree has a result larger than any parameter.
    """
    tensor = spread.mesh.shape["tensor"]
    shardings = flatten(spread.shardings.params)
    sizes = [
        4 * leaf.size // (tensor if "tensor" in shardings[path].spec else 1)
        for path, leaf in flatten(params).items()
    ]
    return sum(sizes), max(sizes)


def test_a_wrong_placement_is_seen_in_the_compiled_step():
    mesh = sharding.make_mesh({"data": 2, "fsdp": 4, "tensor": 1})
    params = {f"layers/{i}/mlp/fc1/kernel": jnp.zeros((WIDTH, WIDTH)) for i in range(4)}
    state = {"params": params, "mu": params}
    right = sharding.state_shardings(state, mesh)
    once, largest = 4 * 4 * WIDTH * WIDTH, 4 * WIDTH * WIDTH

    def step(state, x):
        def loss(params):
            y = x
            for kernel in params.values():
                y = jnp.tanh(y @ kernel)
            return jnp.mean(y**2)

        gradients = jax.grad(loss)(state["params"])
        mu = jax.tree.map(lambda m, g: 0.9 * m + g, state["mu"], gradients)
        return {"params": jax.tree.map(lambda p, m: p - m, state["params"], mu), "mu": mu}

    def gathered(result):
        rows = jax.ShapeDtypeStruct((BATCH, WIDTH), jnp.float32)
        where = (right, sharding.batch_sharding(mesh))
        compiled = jax.jit(step, in_shardings=where, out_shardings=result).lower(state, rows)
        return gathers(compiled.compile())

    assert max(gathered(right)) <= largest
    assert sum(gathered(right)) <= 1.5 * once
    whole = jax.tree.map(lambda _: sharding.replicated(mesh), right)
    assert sum(gathered({**right, "mu": whole["mu"]})) > 1.5 * once


def test_at_full_size_next_to_nothing_is_whole_on_every_device():
    config = int_ra.get_config("paper")
    facts = interface.Facts(
        BertConfig(119_547, 768, 12, 12, 3072),
        ClipVisionConfig(768, 3072, 12, 12),
        12,
        1025,
        (1,) * 12,
        interface.SpecialIds(0, 101, 102, 103),
    )
    params = flatten(registry.abstract(config, facts)[1])
    mesh = sharding.make_mesh({"data": 1, "fsdp": 4, "tensor": 2})
    shardings = sharding.state_shardings(params, mesh)
    held = sum(math.prod(shardings[p].shard_shape(leaf.shape)) for p, leaf in params.items())
    total = sum(math.prod(leaf.shape) for leaf in params.values())
    assert total > 260e6
    # 119,547 word pieces are odd, so tensor does not split them, and fsdp alone does.
    table = 119_547 * 768
    assert held < 1.05 * ((total - table) / 8 + table / 4)
    whole = {path for path, where in shardings.items() if where.is_fully_replicated}
    assert max(math.prod(params[path].shape) for path in whole) == 512 * 768  # positions


def test_a_parameter_that_no_rule_names_is_an_error_and_not_replicated():
    mesh = sharding.make_mesh({"data": 1, "fsdp": 2, "tensor": 1})
    leaf = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    with pytest.raises(ValueError, match=r"2 parameters: memory, text/new/kernel"):
        sharding.state_shardings({"text/new/kernel": leaf, "memory": leaf}, mesh)
