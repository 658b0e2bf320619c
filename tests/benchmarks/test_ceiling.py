"""What bounds a run: the sources are ordered as they must be, and shrinking is fitted."""

import numpy as np
import pytest
from scipy.special import softmax

from benchmarks import ceiling
from int_ra_jax.evaluation import metrics, reference
from int_ra_jax.evaluation.judge import judge
from int_ra_jax.run.encode import Encoder
from int_ra_jax.run.workdir import open_run


def drawn(queries, classes, seed, strength):
    """Logits, and classes drawn from their softmax with ``strength`` times the logits."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(queries, classes))
    chances = softmax(strength * logits, axis=1)
    return logits, np.array([rng.choice(classes, p=row) for row in chances])


def test_a_head_that_is_too_sure_gets_its_temperature_back():
    logits, gold = drawn(20_000, 5, 0, strength=2.0)
    temperature, share = ceiling.shrink(logits * 6, gold, np.full(5, 0.2))
    assert temperature == pytest.approx(3.0, rel=0.1)
    assert share > 0.95


def test_a_head_that_knows_nothing_is_left_next_to_no_share():
    logits, gold = drawn(20_000, 5, 1, strength=0.0)
    temperature, share = ceiling.shrink(logits * 3, gold, np.full(5, 0.2))
    even = ceiling.mixed(logits * 3, np.full(5, 0.2), temperature, share)
    assert np.abs(even - 0.2).max() < 0.05


def test_a_mixture_is_a_distribution_between_its_two_parts():
    logits, _ = drawn(30, 4, 2, strength=1.0)
    frequency = np.array([0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(ceiling.mixed(logits, frequency, 2.0, 0.3).sum(axis=1), 1)
    np.testing.assert_allclose(
        ceiling.mixed(logits, frequency, 1.0, 0.0), np.tile(frequency, (30, 1))
    )
    np.testing.assert_allclose(ceiling.mixed(logits, frequency, 1.0, 1.0), softmax(logits, axis=1))


def test_the_sources_of_a_run(trained):
    found = ceiling.measure(trained.workdir)
    by_name = {source.name: source for source in found.sources}
    assert list(by_name) == ["frequency", "linear", "predicted", "shrunk", "known"]
    for source in found.sources:
        assert source.metrics["mAP"] <= by_name["known"].metrics["mAP"]
    shrunk = by_name["shrunk"].cross_entropy["valid"]
    assert shrunk <= by_name["predicted"].cross_entropy["valid"] + 1e-3
    assert shrunk <= by_name["frequency"].cross_entropy["valid"] + 1e-3
    table = ceiling.text_table(found)
    assert all(name in table for name in by_name)
    assert f"{100 * by_name['known'].metrics['mAP']:.1f}" in table


def test_the_frequencies_rank_as_the_reference_row_prior_does(trained):
    found = ceiling.measure(trained.workdir).sources[0]
    run = open_run(trained.workdir)
    judged = judge(run, "test", "multi")
    _, intentions = run.dataset.targets(run.dataset.conversations("train"))
    scores = reference.prior_scores(intentions, judged.annotations, len(judged.gold))
    expected = metrics.evaluate_rankings(scores, judged.relevant, on_empty="exclude")
    assert found.name == "frequency"
    assert found.metrics == {name: pytest.approx(expected[name]) for name in ceiling.SHOWN}


def test_a_system_that_predicts_no_intention_is_refused(trained, monkeypatch):
    contexts = Encoder.contexts

    def without(self, *arguments):
        return contexts(self, *arguments).replace(intention_logits=None)

    monkeypatch.setattr(Encoder, "contexts", without)
    with pytest.raises(ValueError, match="predicts no intention"):
        ceiling.measure(trained.workdir)
