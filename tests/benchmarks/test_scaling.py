"""Costs read from compiled programs: equal to what a hand counts."""

import dataclasses
from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks import scaling, synthetic
from benchmarks.collectives import Collective, collectives
from int_ra_jax.common.params import flatten
from int_ra_jax.models import registry
from int_ra_jax.training.sharding import make_mesh

M, K, N = 32, 48, 64  # of a product [M, K] x [K, N]
FOUR = (0, 1, 2, 3)


def mesh(data=1, fsdp=1, tensor=1):
    return make_mesh({"data": data, "fsdp": fsdp, "tensor": tensor})


def program(function, places, out, *arguments):
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in arguments]
    return jax.jit(function, in_shardings=places, out_shardings=out).lower(*shapes).compile()


@pytest.mark.parametrize(
    ("left", "right", "out", "kind", "result", "devices"),
    [
        # Rows split: nothing is sent.
        (P("data"), P(), P("data"), None, 0, 4),
        # The summed axis split: partial sums are added up.
        (P(None, "data"), P("data"), P(), "all-reduce", M * N, 4),
        # The same, of which each device keeps its rows.
        (P(None, "data"), P("data"), P("data"), "reduce-scatter", M * N // 4, 4),
        # Rows split, and wanted whole.
        (P("data"), P(), P(), "all-gather", M * N, 4),
    ],
)
def test_a_split_product_costs_what_a_hand_counts(left, right, out, kind, result, devices):
    where = mesh(data=devices)
    compiled = program(
        jnp.matmul,
        (NamedSharding(where, left), NamedSharding(where, right)),
        NamedSharding(where, out),
        (M, K),
        (K, N),
    )
    cost = scaling.cost_of(compiled)
    assert cost.flops == pytest.approx(2 * M * K * N / devices, rel=0.05)
    found = collectives(compiled.as_text())
    if kind is None:
        assert found == []
        return
    (only,) = found
    assert (only.kind, only.bytes, only.group) == (kind, 4 * result, FOUR)
    assert cost.sent[kind] == only.sent == sum(cost.sent.values())


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        ("all-reduce", 2 * 3 / 4 * 100),
        ("all-gather", 3 / 4 * 100),
        ("reduce-scatter", 3 * 100),
        ("all-to-all", 3 / 4 * 100),
        ("collective-permute", 100),
    ],
)
def test_a_ring_sends_its_share(kind, sent):
    assert Collective(kind, 100.0, FOUR, "").sent == pytest.approx(sent)


def test_the_groups_of_every_axis_of_a_mesh_are_those_of_its_devices():
    where = mesh(data=2, fsdp=2, tensor=2)
    ids = np.vectorize(lambda device: device.id)(where.devices)
    for axis, expected in (("data", ids[:, 0, 0]), ("fsdp", ids[0, :, 0]), ("tensor", ids[0, 0])):
        compiled = program(
            jnp.matmul,
            (NamedSharding(where, P(None, axis)), NamedSharding(where, P(axis))),
            NamedSharding(where, P()),
            (M, K),
            (K, N),
        )
        (only,) = collectives(compiled.as_text())
        assert only.group == tuple(expected)
    both = program(
        jnp.matmul,
        (
            NamedSharding(where, P(None, ("data", "tensor"))),
            NamedSharding(where, P(("data", "tensor"))),
        ),
        NamedSharding(where, P()),
        (M, K),
        (K, N),
    )
    (only,) = collectives(both.as_text())
    assert only.group == tuple(np.sort(ids[:, 0].ravel()))


def test_a_bfloat16_sum_counts_two_bytes_though_the_cpu_sends_four():
    where = mesh(data=4)
    split = NamedSharding(where, P(None, "data")), NamedSharding(where, P("data"))
    shapes = [jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in ((M, K), (K, N))]
    whole = NamedSharding(where, P())
    compiled = jax.jit(jnp.matmul, in_shardings=split, out_shardings=whole).lower(*shapes).compile()
    (only,) = collectives(compiled.as_text())
    assert (only.kind, only.bytes) == ("all-reduce", 2 * M * N)


def test_a_float32_sum_counts_four_bytes_beside_a_bfloat16_one():
    # XLA on a CPU widens the narrow one and then sends both in one instruction.
    where = mesh(data=4)
    narrow, wide = (jax.ShapeDtypeStruct((8, 64), dtype) for dtype in (jnp.bfloat16, jnp.float32))

    @jax.jit
    @partial(jax.shard_map, mesh=where, in_specs=P("data"), out_specs=P())
    def both(narrow, wide):
        return jax.lax.psum(narrow, "data"), jax.lax.psum(wide, "data")

    found = collectives(both.lower(narrow, wide).compile().as_text())
    assert sorted(one.bytes for one in found) == [2 * 2 * 64, 4 * 2 * 64]  # two rows a device


def test_a_data_parallel_step_sums_every_gradient_once_and_nothing_else_of_that_size():
    # Texts of one kind only: each further pass through the text tower is summed on its own.
    texts = {"model.attributes": "off", "model.intention_fusion": "off"}
    tiny = synthetic.make("tiny", batch_size=1, stickers=1, overrides=texts)
    facts = dataclasses.replace(
        tiny.facts,
        text=dataclasses.replace(tiny.facts.text, num_hidden_layers=1),
        image=dataclasses.replace(tiny.facts.image, num_hidden_layers=1),
    )
    problem = dataclasses.replace(tiny, facts=facts)
    rows = 8
    compiled = scaling.lowered(problem, mesh(data=4), rows, stickers=64).compile()
    params = flatten(registry.abstract(problem.config, facts)[1])
    found = collectives(compiled.as_text())
    summed = Counter(item.bytes for item in found if item.kind == "all-reduce")
    gradients = Counter(4.0 * leaf.size for leaf in params.values())
    assert not gradients - summed
    assert set(summed - gradients) <= {4.0}  # scalars: the loss and the like
    others = [item for item in found if item.kind != "all-reduce"]
    assert max(item.bytes for item in others) == 4 * rows * problem.config.model.joint_width
    assert all(item.group == FOUR for item in found)


def test_costs_continue_linearly():
    small = scaling.Cost(10.0, 4.0, {"all-reduce": 1.0}, {"a": 2.0})
    large = scaling.Cost(30.0, 6.0, {"all-reduce": 1.5}, {"a": 2.0})
    assert scaling.line((1, 2), (small, large), 12) == scaling.Cost(
        230.0, 26.0, {"all-reduce": 6.5}, {"a": 2.0}
    )


def test_a_ring_between_nodes_is_as_fast_as_the_ports_that_it_leaves_them_by():
    chip = scaling.Chip("", 1.0, 1.0, link=450.0, node=8, network=50.0)
    assert chip.bandwidth(range(8)) == 450
    assert chip.bandwidth(range(16)) == 400
    assert chip.bandwidth((0, 8, 16)) == 50
    assert chip.bandwidth((0, 1, 8, 9)) == 100


def test_the_step_is_the_larger_of_arithmetic_and_memory_plus_what_is_sent():
    chip = scaling.Chip("chip", flops=10.0, memory=2.0, link=1.0, node=8, network=1.0)
    cost = scaling.Cost(20.0, 6.0, {}, {"chip": 5.0})
    assert scaling.times(cost, chip) == {
        "compute": 2.0, "memory": 3.0, "network": 5.0,
        "in turn": 8.0, "overlapped": 5.0, "no memory": 7.0,
    }  # fmt: skip
