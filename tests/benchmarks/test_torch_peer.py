"""The PyTorch peer computes what our step computes: a race between unequal models says nothing."""

import jax
import numpy as np
import pytest

from benchmarks import ours, synthetic
from int_ra_jax.common.params import flatten
from int_ra_jax.models.interface import merge
from int_ra_jax.training.step import compute_loss

torch_peer = pytest.importorskip("benchmarks.torch_peer", exc_type=ImportError)

# Far above the rounding of a gradient that is zero but for it, such as a key's bias, so that Adam
# does not blow that rounding up to a whole step.
OVERRIDES = {"optim.eps": 1e-2, "optim.lr": 1e-2}


def make(directory, **overrides):
    problem = synthetic.make("tiny", batch_size=5, stickers=8, overrides={**OVERRIDES, **overrides})
    ours.write_weights(problem, directory)
    return problem


def peer_of(problem, directory):
    return synthetic.Peer(synthetic.peer_shapes(problem), directory / ours.WEIGHTS)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


def test_losses_of_several_steps_agree_so_updates_are_the_same(directory):
    problem = make(directory)
    mine = ours.train(problem, directory)
    optim = problem.config.optim
    inputs = synthetic.peer_batch(problem)
    peer = torch_peer.train(peer_of(problem, directory), inputs, optim.lr, optim.eps)
    here = [float(mine.run()) for _ in range(4)]
    there = [float(peer.run()) for _ in range(4)]
    assert here[0] - here[-1] > 0.1  # else equal losses would say nothing of the updates
    np.testing.assert_allclose(there, here, rtol=1e-4)


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_each_parameter_of_the_peer_is_one_of_ours_and_has_its_gradient(directory, pool):
    """The update is one function of the gradients, and the same in both."""
    problem = make(directory, **{"model.text_pool": pool})
    graphdef, params = ours.read_weights(problem, directory)

    @jax.jit
    def gradients(params, batch, resident):
        def loss(params):
            return compute_loss(merge(graphdef, params), batch, resident, None, jax.random.key(0))[
                0
            ]

        return jax.grad(loss)(params)

    model = torch_peer.load(peer_of(problem, directory), "cpu")
    model(torch_peer.to_device(synthetic.peer_batch(problem), "cpu")).backward()
    there = {name: leaf.grad.numpy() for name, leaf in model.named_parameters()}
    here = {
        ours.torch_name(path): ours.torch_axes(path, np.asarray(leaf))
        for path, leaf in flatten(gradients(params, problem.batch, problem.resident)).items()
    }
    assert here.keys() == there.keys()
    for name, value in here.items():
        scale = max(np.abs(value).max(), 1e-3)  # a key's bias has none but rounding
        np.testing.assert_allclose(there[name] / scale, value / scale, atol=1e-4, err_msg=name)


def test_galleries_are_encoded_alike_in_batches_and_one_by_one(directory):
    # Nine stickers in batches of four leave one over; fewer texts than stickers' attributes repeat.
    problem = synthetic.make("tiny", stickers=9, distinct_attributes=20)
    ours.write_weights(problem, directory)
    inputs = synthetic.peer_stickers(problem.resident.bank)
    peer = peer_of(problem, directory)
    found = [ours.encode_gallery(problem, directory, size).run() for size in (4, 1)]
    found += [torch_peer.encode_gallery(peer, inputs, size).run() for size in (4, 1)]
    assert np.ptp(found[0], axis=0).max() > 0.01  # stickers differ
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=1e-4)
