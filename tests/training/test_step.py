"""One training step, on a toy system: what moves, what must not, and on how many devices."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures.toy_system import GALLERY, Toy, make_toy

from int_ra_jax.common.params import flatten, matching
from int_ra_jax.models.interface import Negatives
from int_ra_jax.training import optim, sharding
from int_ra_jax.training.step import (
    TrainState,
    compute_loss,
    create_state,
    make_train_step,
    sample_columns,
)

WIDTH = 32  # config.model.joint_width of the toy


class Stepper:
    """A toy with its compiled step; ``run`` never donates, so every state can be used again."""

    def __init__(self, toy: Toy, mesh: Any = None, ema_decay: float = 0.0) -> None:
        self.toy = toy
        config = toy.config.copy_and_resolve_references()
        config.optim.lr = 0.01
        # Larger than the rounding of a gradient that is zero but for it, such as a key's bias.
        config.optim.eps = 1e-3
        self.optimizer, self.info = optim.make_optimizer(
            config.optim, toy.params, toy.system.param_groups(),
            total_steps=10, frozen=toy.system.frozen_patterns(),
        )  # fmt: skip
        step = make_train_step(
            toy.graphdef, self.optimizer, self.info.trainable, ema_decay=ema_decay
        )
        averaged = self.info.trainable if ema_decay else frozenset()
        state = create_state(toy.params, self.optimizer, 0, (GALLERY, WIDTH), averaged)
        bank = jax.random.normal(jax.random.key(1), (GALLERY, WIDTH)) / WIDTH**0.5
        self.state = state.replace(bank_embedding=bank)
        if mesh is None:
            self._step = jax.jit(step)
            return
        shardings = sharding.state_shardings(self.state, mesh)
        everywhere = sharding.replicated(mesh)
        self._step = jax.jit(
            step,
            in_shardings=(shardings, sharding.batch_sharding(mesh), everywhere),
            out_shardings=(shardings, everywhere),
        )
        self.state = jax.device_put(self.state, shardings)
        toy.batch = jax.device_put(toy.batch, sharding.batch_sharding(mesh))
        toy.resident = jax.device_put(toy.resident, everywhere)

    def run(self, state: TrainState | None = None, steps: int = 1, **batch: Any):
        state = self.state if state is None else state
        for _ in range(steps):
            changed = self.toy.batch.replace(**batch)
            state, metrics = self._step(state, changed, self.toy.resident)
        return state, metrics


@pytest.fixture(scope="module")
def stepper():
    """The default readings: towers train, gallery columns are stale."""
    return Stepper(make_toy())


@pytest.fixture(scope="module")
def frozen():
    """Text frozen, four gallery columns a step, and a reading that leaves parameters unused."""
    return Stepper(
        make_toy(
            model__text__frozen_layers=-1,
            model__relation="region",
            loss__bank_size=4,
        )
    )


def assert_equal(one, other):
    one, other = flatten(one), flatten(other)
    assert one.keys() == other.keys()
    for path, value in one.items():
        np.testing.assert_array_equal(other[path], value, err_msg=path)


def test_a_step_names_its_metrics_and_counts_itself(stepper):
    state, metrics = stepper.run()
    assert set(metrics) == {
        "loss/total", "loss/retrieval", "loss/intention", "intention/accuracy",
        "gradient_norm", "leaf_gradient_norms",
    }  # fmt: skip
    assert set(metrics["leaf_gradient_norms"]) == set(flatten(stepper.toy.params))
    norms = np.array(list(metrics["leaf_gradient_norms"].values()))
    assert float(metrics["gradient_norm"]) == pytest.approx(np.sqrt((norms**2).sum()), rel=1e-5)
    assert (int(state.step), int(state.bad_step)) == (1, -1)
    np.testing.assert_array_equal(state.key, stepper.state.key)


def test_every_parameter_moves_under_the_default_readings(stepper):
    before, after = flatten(stepper.state.params), flatten(stepper.run()[0].params)
    still = [path for path in before if np.array_equal(before[path], after[path])]
    assert still == []


def test_the_loss_falls_on_a_batch_that_is_repeated(stepper):
    first = stepper.run()[1]["loss/total"]
    assert stepper.run(steps=8)[1]["loss/total"] < 0.8 * first


def test_a_step_is_a_function_of_its_arguments(stepper):
    assert_equal(stepper.run(steps=2)[0], stepper.run(steps=2)[0])


def test_the_order_of_a_batch_does_not_change_its_loss(stepper):
    order = np.random.default_rng(0).permutation(8)
    batch = stepper.toy.batch
    changed = {
        "context": jax.tree.map(lambda leaf: leaf[order], batch.context),
        "sticker": batch.sticker[order],
        "intention": batch.intention[order],
    }
    here, there = stepper.run()[1], stepper.run(**changed)[1]
    assert float(there["loss/total"]) == pytest.approx(float(here["loss/total"]), abs=1e-5)


def test_the_stickers_of_a_batch_are_never_negatives_of_themselves(stepper):
    # Every row is the same conversation with sticker 3, so that among the batch's columns no
    # negative is left, and one sign below puts the bank's sticker 3 far ahead of all others.
    context = jax.tree.map(lambda leaf: jnp.repeat(leaf[:1], 8, 0), stepper.toy.batch.context)
    batch = {"sticker": jnp.full(8, 3, jnp.int32), "intention": jnp.zeros(8, jnp.int32)}
    found = []
    for value in (100.0, -100.0):
        bank = stepper.state.bank_embedding.at[3].set(value)
        changed = stepper.state.replace(bank_embedding=bank)
        found.append(stepper.run(changed, context=context, **batch)[1]["loss/retrieval"])
    assert min(found) == 0  # a column of sticker 3 as its own negative would add the margin
    assert max(found) > 1


def test_stale_columns_move_the_loss_and_are_themselves_left_alone(stepper):
    other = stepper.state.replace(bank_embedding=-stepper.state.bank_embedding)
    here, there = stepper.run()[1], stepper.run(other)[1]
    assert abs(float(here["loss/retrieval"]) - float(there["loss/retrieval"])) > 1e-3
    state, _ = stepper.run(steps=2)
    np.testing.assert_array_equal(state.bank_embedding, stepper.state.bank_embedding)


def test_a_step_that_is_not_finite_changes_nothing_and_is_named_for_good(stepper):
    good, _ = stepper.run(steps=2)
    poisoned = good.replace(bank_embedding=good.bank_embedding.at[0, 0].set(jnp.nan))
    bad, metrics = stepper.run(poisoned)
    assert not np.isfinite(metrics["loss/total"])
    assert (int(bad.bad_step), int(bad.step)) == (2, 3)
    assert_equal(bad.params, good.params)
    assert_equal(bad.opt_state, good.opt_state)
    # The next steps are finite again, and still nothing moves until the host has noticed.
    later, metrics = stepper.run(bad.replace(bank_embedding=good.bank_embedding), steps=2)
    assert np.isfinite(metrics["loss/total"])
    assert (int(later.bad_step), int(later.step)) == (2, 5)
    assert_equal(later.params, good.params)
    assert_equal(later.opt_state, good.opt_state)


def test_frozen_parameters_stay_bit_for_bit_and_the_others_move(frozen):
    metrics, state = frozen.run()[1], frozen.run(steps=3)[0]
    before, after = flatten(frozen.state.params), flatten(state.params)
    assert frozen.info.trainable == {path for path in before if not path.startswith("text/")}
    assert set(metrics["leaf_gradient_norms"]) == frozen.info.trainable
    for path in before.keys() - frozen.info.trainable:
        np.testing.assert_array_equal(after[path], before[path], err_msg=path)
    moved = {path for path in before if not np.array_equal(before[path], after[path])}
    dead = {path for path, norm in metrics["leaf_gradient_norms"].items() if norm == 0}
    assert moved == frozen.info.trainable - dead


def test_the_parameters_that_a_reading_leaves_without_gradient_have_norm_zero(frozen):
    _, metrics = frozen.run()
    dead = {path for path, norm in metrics["leaf_gradient_norms"].items() if norm == 0}
    # Where the attention's weights alone count, what is attended to is never read.
    assert dead == matching(frozen.toy.params, [r"relation/attention/(value|out)/.*"])


def test_the_running_average_is_that_of_the_parameters_that_train():
    averaging = Stepper(make_toy(model__text__frozen_layers=-1), ema_decay=0.75)
    state, expected = averaging.state, flatten(averaging.state.params)
    for _ in range(3):
        state, _ = averaging.run(state)
        expected = {
            path: 0.75 * expected[path] + 0.25 * leaf
            for path, leaf in flatten(state.params).items()
        }
    assert set(state.ema) == averaging.info.trainable
    evaluated = flatten(state.evaluated_params)
    for path, leaf in flatten(state.params).items():
        here = expected[path] if path in averaging.info.trainable else leaf
        np.testing.assert_allclose(evaluated[path], here, rtol=1e-5, atol=1e-7, err_msg=path)
    # A step that is not finite leaves it alone.
    poison = state.bank_embedding.at[0, 0].set(jnp.nan)
    bad, _ = averaging.run(state.replace(bank_embedding=poison))
    assert_equal(bad.ema, state.ema)


def test_without_an_average_the_parameters_themselves_are_evaluated(stepper):
    assert stepper.state.ema is None
    assert_equal(stepper.state.evaluated_params, stepper.state.params)


def test_sampled_columns_are_distinct_and_depend_on_the_key():
    bank = make_toy().resident.bank
    negatives = Negatives(bank=True, size=5, live=False, refresh_steps=1)
    drawn = [np.asarray(sample_columns(bank, negatives, jax.random.key(i))) for i in range(20)]
    assert all(len(set(rows)) == 5 for rows in drawn)
    assert len({tuple(rows) for rows in drawn}) > 10
    assert set(np.concatenate(drawn)) == set(range(GALLERY))


@pytest.mark.parametrize("size", [0, GALLERY, GALLERY + 1])
def test_without_a_smaller_sample_the_whole_gallery_is_a_column_once(size):
    bank = make_toy().resident.bank
    negatives = Negatives(bank=True, size=size, live=False, refresh_steps=1)
    rows = sample_columns(bank, negatives, jax.random.key(0))
    np.testing.assert_array_equal(rows, np.arange(GALLERY))


FROZEN = {"model__text__frozen_layers": -1, "model__image__frozen_layers": -1}


@pytest.mark.parametrize("sample", [0, 5])
def test_a_live_gallery_s_stickers_are_encoded_once_and_stand_where_the_loss_expects(sample):
    toy = make_toy(loss__bank_size=sample, **FROZEN)
    system, key = toy.system, jax.random.key(0)
    assert system.negatives.live
    encode, loss, encoded, seen = system.encode_sticker, system.loss, [], []

    def counting(bank, key=None):
        encoded.append(bank.index.shape[0])
        return encode(bank, key=key)

    def spying(context, sticker, batch, candidates, key):
        seen.append((sticker, candidates))
        return loss(context, sticker, batch, candidates, key=key)

    object.__setattr__(system, "encode_sticker", counting)
    object.__setattr__(system, "loss", spying)

    @jax.jit
    def embeddings_and_columns():
        compute_loss(system, toy.batch, toy.resident, None, key)
        ((sticker, candidates),) = seen
        return sticker.embedding, candidates.index

    found, index = map(np.asarray, embeddings_and_columns())
    golds = np.asarray(toy.batch.sticker)
    assert encoded == [len(golds) + sample if sample else GALLERY]
    np.testing.assert_array_equal(index[: 2 * len(golds)], np.tile(golds, 2))
    assert len({*index[2 * len(golds) :].tolist()}) == (sample or GALLERY)
    # Without dropout a sticker's embedding is the same in each of its columns.
    expected = toy.call("encode_sticker", toy.resident.bank.rows(index)).embedding
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_stale_columns_without_embeddings_are_refused(stepper):
    toy = stepper.toy
    with pytest.raises(ValueError, match=r"stale columns need TrainState\.bank_embedding"):
        jax.eval_shape(
            lambda: compute_loss(toy.system, toy.batch, toy.resident, None, jax.random.key(0))
        )


def test_eight_devices_train_as_one_does(stepper):
    # Eight by data alone; tests of the loop split the parameters as well.
    spread = Stepper(make_toy(), sharding.make_mesh({"data": 8, "fsdp": 1, "tensor": 1}))
    here, metrics = stepper.run(steps=3)
    there, spread_metrics = spread.run(steps=3)
    for name in ("loss/total", "gradient_norm"):
        assert float(spread_metrics[name]) == pytest.approx(float(metrics[name]), abs=1e-5)
    after = flatten(there.params)
    for path, value in flatten(here.params).items():
        np.testing.assert_allclose(after[path], value, atol=1e-5, err_msg=path)
