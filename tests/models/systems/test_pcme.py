"""PCME: golden values, the defects of the reference that are not reproduced, and its scores."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures.toy_system import GALLERY, Toy, make_toy
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import pcme as config_pcme
from int_ra_jax.models.interface import Candidates
from int_ra_jax.models.systems import pcme
from int_ra_jax.models.systems.pcme import SampledContext, SampledSticker

# Golden values: computed in float64 from the formulas of the reference.
X = jnp.array([[[0.0, 0.0]], [[1.0, 0.0]]])
Y = jnp.array([[[0.0, 1.0]], [[1.0, 0.0]]])
DIAGONAL = jnp.eye(2, dtype=bool)


def samples(seed: int, items: int, number: int = 3, width: int = 4) -> jax.Array:
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(items, number, width)) * 0.4, jnp.float32)


# ---- formulas -------------------------------------------------------------------------------


def test_match_probability_golden_values():
    expected = [[0.119203, 0.119203], [0.025164, 0.880376]]
    np.testing.assert_allclose(pcme.match_probability(X, Y, 2.0, 1.0), expected, atol=1e-5)
    several = jnp.array([[[0.0, 0.0], [0.0, 0.5]]]), jnp.array([[[0.0, 1.0], [0.5, 0.0]]])
    assert float(pcme.match_probability(*several, 2.0, 1.0)[0, 0]) == pytest.approx(
        0.355794, abs=1e-5
    )
    matched = pcme.match_nll(*several, jnp.array([[True]]), 2.0, 1.0)
    assert float(matched[0, 0]) == pytest.approx(1.033402, abs=1e-5)


def test_match_nll_golden_values():
    nll = pcme.match_nll(X, Y, DIAGONAL, 2.0, 1.0)
    expected = [[2.126930, 0.126928], [0.025486, 0.127406]]
    np.testing.assert_allclose(nll, expected, atol=1e-5)
    assert float(jnp.sum(nll)) == pytest.approx(2.4067492, abs=1e-5)


def test_vib_golden_values_of_the_code_and_of_the_divergence():
    mean, log_scale = jnp.array([[0.5, -0.5]]), jnp.array([[0.0, -1.0]])
    assert float(pcme.vib(mean, log_scale)) == pytest.approx(0.4339397, abs=1e-6)
    assert float(pcme.vib(mean, log_scale, "correct")) == pytest.approx(0.8176676, abs=1e-6)


def test_uniformity_golden_value():
    points = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert float(pcme.uniformity(points)) == pytest.approx(-2.3399886, abs=1e-5)


@pytest.mark.parametrize("kl", ["code", "correct"])
def test_vib_is_least_for_the_standard_normal(kl):
    zero = jnp.zeros((2, 3))
    assert float(pcme.vib(zero, zero, kl)) == 0.0
    for seed in range(5):
        mean, log_scale = samples(seed, 2, 2, 3)
        assert float(pcme.vib(mean, log_scale, kl)) > 0.0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_probabilities_are_symmetric_and_the_loss_is_their_logarithm(seed):
    x, y = samples(seed, 3), samples(seed + 1, 4)
    probability = pcme.match_probability(x, y, 1.0, 3.0)
    assert bool(jnp.all((probability > 0) & (probability < 1)))
    np.testing.assert_allclose(probability, pcme.match_probability(y, x, 1.0, 3.0).T, atol=1e-6)
    match = jnp.asarray(np.random.default_rng(seed).random((3, 4)) < 0.5)
    nll = pcme.match_nll(x, y, match, 1.0, 3.0)
    expected = -jnp.log(jnp.where(match, probability, 1.0 - probability))
    np.testing.assert_allclose(nll, expected, rtol=1e-4, atol=1e-6)
    # image to text and text to image are one loss
    np.testing.assert_allclose(nll, pcme.match_nll(y, x, match.T, 1.0, 3.0).T, atol=1e-6)


def test_without_spread_the_probability_falls_with_the_distance_from_its_greatest_value():
    y = jnp.linspace(0.0, 2.0, 9)[:, None, None] * jnp.array([1.0, 0.0, 0.0, 0.0])
    x = jnp.zeros((1, 1, 4))
    probability = np.asarray(pcme.match_probability(x, y, 1.0, 3.0))[0]
    assert np.all(np.diff(probability) < 0)
    # sqrt(0 + 1e-6) is the least distance there is
    assert probability[0] == pytest.approx(1 / (1 + np.exp(-2 * (3.0 - 1e-3))), abs=1e-6)


def test_distances_equal_those_of_the_differences():
    x, y = samples(0, 3, width=64), samples(1, 4, number=2, width=64)
    y = y.at[0, 0].set(x[0, 0])  # where the product form cancels
    squares = np.sum((np.asarray(x)[:, None, :, None] - np.asarray(y)[None, :, None]) ** 2, axis=-1)
    np.testing.assert_allclose(pcme.distances(x, y) ** 2, squares + 1e-6, atol=1e-5)


def test_equal_samples_have_a_finite_gradient():
    x = samples(0, 2)
    gradient = jax.grad(lambda x, y: jnp.sum(pcme.distances(x, y)))(x, x)
    assert bool(jnp.all(jnp.isfinite(gradient)))


def test_far_apart_samples_neither_overflow_nor_lose_their_gradient():
    # The reference computes exp(s), which is infinite for s above 88 and NaN in the quotient.
    near, far = jnp.zeros((1, 1, 4)), jnp.full((1, 1, 4), 50.0)
    for slope, shift in ((15.0, 15.0), (1.0, 200.0), (15.0, 200.0)):
        assert bool(jnp.isfinite(pcme.match_probability(near, near, slope, shift)).all())
        gradient = jax.grad(lambda a, b: pcme.match_nll(near, far, jnp.array([[True]]), a, b)[0, 0])
        assert np.isfinite(gradient(slope, shift))
    assert float(gradient(15.0, 15.0)) == pytest.approx(200.0, rel=1e-3)  # 2 d


def test_the_points_of_the_uniformity_loss_are_all_different():
    x, y = samples(0, 20, number=7), samples(1, 20, number=7)
    points = np.asarray(pcme._some_points(x, y, jax.random.key(0)))
    assert len(points) == len(np.unique(points, axis=0)) == pcme.UNIFORMITY_POINTS
    few = pcme._some_points(x[:2], y[:2], jax.random.key(0))
    assert len(np.unique(few, axis=0)) == 28  # all there are


def test_a_row_without_words_pools_to_zeros_and_padding_is_never_read():
    attention = pcme.LocalAttention(4, jnp.dtype("float32"), nnx.Rngs(0))
    tokens = samples(0, 2, number=5)
    mask = jnp.array([[True, True, False, False, False], [False] * 5])
    pooled = attention(tokens, mask)
    np.testing.assert_array_equal(pooled[1], np.zeros(4))
    moved = tokens.at[0, 2:].set(99.0)
    np.testing.assert_allclose(pooled, attention(moved, mask), atol=1e-6)
    assert not np.allclose(pooled, attention(tokens.at[0, 1].set(1.0), mask))


def test_evaluation_noise_belongs_to_an_item_and_to_its_side():
    index = jnp.array([4, 1, 7])
    noise = np.asarray(pcme.evaluation_noise(index, 7, 5, 0))
    again = np.asarray(pcme.evaluation_noise(index[::-1], 7, 5, 0))
    np.testing.assert_array_equal(noise, again[::-1])
    assert len(np.unique(noise)) == noise.size
    assert not np.intersect1d(noise, pcme.evaluation_noise(index, 7, 5, 1)).size


# ---- the loss -------------------------------------------------------------------------------


@cache
def toy_of(score: str, logsig_bias: float = -4.0) -> Toy:
    return make_toy(system="pcme", model__score=score, model__logsig_bias=logsig_bias)


def loss_of(same_gold: bool = False, copies: int = 1, **attributes: object) -> dict[str, float]:
    """Returns the parts of the loss of the golden samples.

    Args:
      same_gold: whether all conversations have one gold sticker.
      copies: how often the batch of two is repeated, with its intentions and other stickers.
      attributes: of the system, instead of its defaults.
    """
    toy = toy_of("mean")
    system, size = toy.system, 2 * copies
    system.slope[...], system.shift[...] = jnp.float32(2.0), jnp.float32(1.0)
    for name, value in attributes.items():
        assert hasattr(system, name)
        setattr(system, name, value)
    log_scale = jnp.tile(jnp.array([[0.0, -1.0]]), (size, 1))
    index = jnp.zeros(size, jnp.int32) if same_gold else jnp.arange(size)
    batch = toy.batch.replace(sticker=index, intention=jnp.arange(size) % 2)
    total, parts = system.loss(
        SampledContext(samples=jnp.tile(X, (copies, 1, 1)), log_scale=log_scale),
        SampledSticker(samples=jnp.tile(Y, (copies, 1, 1)), log_scale=log_scale - 1.0),
        batch,
        Candidates(index, jnp.eye(2, dtype=bool)[batch.intention]),
        key=jax.random.key(0),
    )
    assert total == parts["loss/total"]
    return {name: float(value) for name, value in parts.items()}


def test_the_loss_is_the_originals_sum_at_the_originals_batch_size():
    parts = loss_of(beta=1e-3)
    # golden pair total in both directions, of 2 x 2 pairs as of 128 x 128
    assert parts["loss/retrieval"] == pytest.approx(4.8134984 * 64**2, rel=1e-5)
    # -0.5 sum(1 + logsig - m^2 - exp(logsig)), for 2 conversations and 2 stickers as for 128
    logsig = np.array([[[0.0, -1.0]], [[-1.0, -2.0]]])
    mean = np.stack([np.asarray(X)[:, 0], np.asarray(Y)[:, 0]])
    bottleneck = -0.5 * np.sum(1 + logsig - mean**2 - np.exp(logsig))
    assert parts["loss/vib"] == pytest.approx(64 * bottleneck, rel=1e-5)
    expected = parts["loss/retrieval"] + 1e-3 * parts["loss/vib"]
    assert parts["loss/total"] == pytest.approx(expected, rel=1e-6)
    assert (parts["log_scale/context"], parts["log_scale/sticker"]) == (-0.5, -1.5)


def test_every_term_has_the_same_weight_at_any_batch_size():
    options = {"match": "label", "beta": 1e-3}
    once, twice = loss_of(**options), loss_of(copies=2, **options)
    assert once == pytest.approx(twice, rel=1e-5)


def test_only_the_gold_sticker_matches_by_default_and_every_one_of_the_intention_by_label():
    matches = lambda **options: loss_of(copies=2, beta=0.0, **options)["loss/retrieval"]  # noqa: E731
    x, y = jnp.tile(X, (2, 1, 1)), jnp.tile(Y, (2, 1, 1))

    def expected(match: jax.Array) -> float:
        return float(2 * 32**2 * jnp.sum(pcme.match_nll(x, y, match, 2.0, 1.0)))

    assert matches() == pytest.approx(expected(jnp.eye(4, dtype=bool)), rel=1e-5)
    assert matches(match="label") == pytest.approx(expected(jnp.tile(DIAGONAL, (2, 2))), rel=1e-5)


def test_a_gold_sticker_matches_in_every_column_that_it_stands_in():
    expected = 2 * 64**2 * jnp.sum(pcme.match_nll(X, Y, jnp.ones((2, 2), bool), 2.0, 1.0))
    assert loss_of(same_gold=True)["loss/retrieval"] == pytest.approx(float(expected), rel=1e-5)


def test_kl_and_uniformity_enter_as_the_config_says():
    code, correct = loss_of(kl="code")["loss/vib"], loss_of(kl="correct")["loss/vib"]
    assert correct != pytest.approx(code, rel=0.01)
    assert "loss/uniformity" not in loss_of()
    parts = loss_of(lambda_uniformity=10.0, beta=0.0)
    points = jnp.concatenate([X, Y])[:, 0]  # four, of which two are equal: another item's
    assert parts["loss/uniformity"] == pytest.approx(float(pcme.uniformity(points)), rel=1e-5)
    expected = parts["loss/retrieval"] + 10.0 * parts["loss/uniformity"]
    assert parts["loss/total"] == pytest.approx(expected, rel=1e-6)


def test_samples_have_the_mean_and_the_standard_deviation_of_their_gaussian():
    system = toy_of("mean").system
    system.samples = 4000
    mean, log_scale = jnp.array([[1.0, -2.0]]), jnp.array([[0.0, -2.0]])
    _, read = system._encoded(mean, log_scale, jax.random.key(0), jnp.arange(1), 0)
    drawn = read["samples"][0]
    np.testing.assert_allclose(jnp.mean(drawn, axis=0), mean[0], atol=0.06)
    np.testing.assert_allclose(jnp.std(drawn, axis=0), jnp.exp(log_scale[0]), rtol=0.05)


# ---- the scores -----------------------------------------------------------------------------


def test_a_mode_keeps_no_more_than_it_ranks_by():
    def held(mode: str) -> SampledContext:
        toy = toy_of(mode)
        return jax.eval_shape(toy.system.encode_context, toy.attached)

    def shapes(mode: str) -> list[tuple[int, ...] | None]:
        leaves = (held(mode).query, held(mode).samples, held(mode).log_scale)
        return [None if leaf is None else leaf.shape for leaf in leaves]

    assert shapes("mean") == shapes("matmul") == [(8, 32), None, None]
    assert shapes("match_prob") == [None, (8, 7, 32), None]


def test_scores_are_those_of_the_samples_that_an_item_always_has():
    toy = toy_of("match_prob")
    context = toy.call("encode_context", toy.attached)
    sticker = toy.call("encode_sticker", toy.resident.bank)
    scores = toy.call("score", context, sticker)
    expected = pcme.match_probability(context.samples, sticker.samples, 5.0, 5.0)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    # all pairs of samples, without the factorisation
    products = jnp.einsum("bjd,nkd->bn", context.samples, sticker.samples)
    np.testing.assert_allclose(toy_of("matmul").scores(), products, rtol=1e-4, atol=1e-4)
    # another order of conversations and of stickers: the noise moves with its item
    rows, columns = np.arange(8)[::-1], np.arange(GALLERY)[::-1]
    batch = jax.tree.map(lambda leaf: leaf[rows], toy.batch)
    other = toy.call(
        "score",
        toy.call("encode_context", toy.resident.attach(batch)),
        toy.call("encode_sticker", toy.resident.bank.rows(jnp.asarray(columns))),
    )
    np.testing.assert_allclose(other, np.asarray(scores)[rows][:, columns], atol=1e-5)


def test_without_spread_the_match_probability_ranks_as_the_means_do():
    means, scores = toy_of("mean").scores(), toy_of("match_prob", -30.0).scores()
    order = np.argsort(-np.asarray(means), axis=1)
    ranked = np.take_along_axis(np.asarray(scores), order, axis=1)
    assert np.all(np.diff(ranked, axis=1) <= 1e-5)
    assert np.all(ranked[:, 0] > ranked[:, -1])


# ---- the presets ----------------------------------------------------------------------------


def test_the_originals_second_stage_trains_the_towers_that_the_first_freezes_at_a_tenth():
    first, second = (config_pcme.get_config(name) for name in ("original_stage1", "original"))
    assert (first.optim.lr, second.optim.lr) == (2e-4, 2e-5)
    for config, frozen in ((first, -1), (second, 0)):
        assert {config.model.text.frozen_layers, config.model.image.frozen_layers} == {frozen}
        assert (config.train.batch_size, config.train.epochs) == (pcme.ORIGINAL_BATCH, 30)
        assert config.model.logsig_bias == 0.0 and config.loss.kl == "code"
    assert {config_pcme.get_config(name).text.knowledge for name in config_pcme.PRESETS} == {"off"}
