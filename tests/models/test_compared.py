"""What every compared system is offered: one loss, one term of the score, one way of reading."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures.toy_system import GALLERY, INTENTIONS, Toy, make_toy

from int_ra_jax.common.params import flatten, matching
from int_ra_jax.models import interface
from int_ra_jax.models.two_towers import one_comparison

NAMES = ("clip", "irra", "lgur", "mod", "pcme", "srs")
SCALE = 1 / 0.07
# Of the loss over the gallery alone: what it is computed of and nothing of the towers.
ALL = {"model__attributes": "on", "model__intention_match": 2.0, "loss__bank_size": 0}


@cache
def toy_of(name: str, **changes: object) -> Toy:
    return make_toy(system=name, loss__retrieval="gold_softmax", **(ALL | changes))


@cache
def encoded(name: str):
    """Conversations, and the columns of a step whose bank was encoded some steps ago."""
    toy = toy_of(name)
    golds = toy.batch.sticker
    rows = jnp.concatenate([golds, golds, jnp.arange(GALLERY)])
    context = toy.call("encode_context", toy.attached)
    sticker = toy.call("encode_sticker", toy.resident.bank.rows(rows))
    if sticker.embedding is not None:
        sticker = sticker.replace(embedding=sticker.embedding.at[len(golds) :].multiply(0.7))
    candidates = interface.Candidates(rows, toy.resident.bank.intentions[rows])
    return context, sticker, candidates


def naive(loss: str, scores, rows, toy: Toy, seen, pairs: bool = False) -> float:
    """The loss from its definition, in loops and float64.

    Where pairs run through a network, the other conversations' golds are not compared.
    """
    golds, intention = np.asarray(toy.batch.sticker), np.asarray(toy.batch.intention)
    known = np.asarray(toy.resident.bank.intentions)
    values = []
    for b, gold in enumerate(golds):
        columns = np.arange(len(rows))
        if pairs:
            columns = columns[(columns == b) | (columns >= len(golds))]
        s, shown = np.asarray(scores[b], np.float64)[columns] * SCALE, rows[columns]
        if loss == "gold_softmax":
            places = {x: s[shown == x] for x in {*shown.tolist()} if seen[x] or x == gold}
            total = np.log(sum(np.mean(np.exp(copies)) for copies in places.values()))
            values.append(total - np.mean(places[gold]))
        else:
            positive = known[shown, intention[b]] | (columns == b)
            counted = positive | ((shown != gold) & seen[shown])
            total = np.log(np.sum(np.exp(s[counted])))
            values.append(total - np.mean(s[positive]))
    return float(np.mean(values))


@pytest.mark.parametrize("pool", ["mean", "last"])
@pytest.mark.parametrize("name", ["clip", "irra", "lgur", "mod", "pcme"])
def test_the_newest_turn_alone_makes_the_query_where_it_is_asked_for(name, pool):
    changes = {"model__text_pool": pool} if name in ("clip", "irra", "mod") else {}
    toy = make_toy(system=name, model__newest_turn=True, **changes)
    features = toy.call("text_tokens", toy.batch.context, None)
    newest = np.asarray(toy.batch.context.turn == 1)[..., None]
    noise = jnp.where(newest, 0.0, np.random.default_rng(0).normal(size=features.shape))
    cached = dataclasses.replace(toy.attached, context_hidden=features + noise)

    def query(system, batch):
        # What lies beyond the tower: features of other turns change, the newest turn's do not.
        object.__setattr__(system, "text_tokens", lambda tokens, hidden, *_, **__: hidden)
        if name == "lgur":  # which reads words in their order before it pools
            object.__setattr__(
                system,
                "words",
                lambda tokens, mask: toy.system.words(jnp.where(newest, tokens, 0.0), mask),
            )
        return np.asarray(system.encode_context(batch).query)

    plain = dataclasses.replace(toy.attached, context_hidden=features)
    ours, theirs = (query(interface.merge(toy.graphdef, toy.params), b) for b in (plain, cached))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    everything = make_toy(system=name, **changes)
    assert flatten(everything.params).keys() == flatten(toy.params).keys()
    whole = interface.merge(everything.graphdef, toy.params)
    if pool == "mean":  # the newest turn's last token is often the row's
        assert not np.allclose(query(whole, plain), ours, atol=1e-4)


@pytest.mark.parametrize("unseen_negatives", [True, False])
@pytest.mark.parametrize("loss", ["gold_softmax", "multi_positive"])
@pytest.mark.parametrize("name", NAMES)
def test_the_loss_over_the_gallery_is_that_of_the_scores(name, loss, unseen_negatives):
    toy = toy_of(name)
    params = {**toy.params, "logit_scale": jnp.log(SCALE)}
    system = interface.merge(toy.graphdef, params)
    system.retrieval_loss, system.unseen_negatives = loss, unseen_negatives
    context, sticker = system.unmatched(*encoded(name)[:2])
    candidates = encoded(name)[2]
    key = jax.random.key(0)
    value = system.gallery_loss(context, sticker, toy.batch, candidates, key)
    columns = one_comparison(8, len(candidates.index))
    scores = np.asarray(system.trained_scores(context, sticker, columns, key))
    known = np.asarray(toy.resident.bank.intentions).any(axis=1)
    assert not known.all()  # some stickers were never used in train
    seen = known | unseen_negatives
    expected = naive(loss, scores, np.asarray(candidates.index)[columns], toy, seen, name == "srs")
    assert float(value) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_compared_is_what_ranks_without_the_intention(name):
    toy, (context, sticker, _) = toy_of(name), encoded(name)
    ranks = np.asarray(toy.call("score", context, sticker))
    plain = toy.system.unmatched(context, sticker)
    columns = np.arange(sticker.embedding.shape[0])
    alone = toy.system.trained_scores(*plain, columns, jax.random.key(0))
    probable = np.asarray(jax.nn.softmax(context.intention_logits))
    width = sticker.embedding.shape[1] - INTENTIONS
    known = np.asarray(sticker.embedding)[:, width:]
    np.testing.assert_allclose(ranks, alone + 2.0 * probable @ known.T, atol=2e-5)


@pytest.mark.parametrize(
    "name", [n if n in ("clip", "mod") else pytest.param(n, marks=pytest.mark.long) for n in NAMES]
)
def test_gradient_reaches_all_that_trains_and_live_stickers_alone(name):
    toy = toy_of(name)
    loss, gradients = toy.loss_and_gradients()
    assert np.isfinite(loss)
    frozen = matching(toy.params, toy.system.frozen_patterns())
    dead = {path for path, leaf in flatten(gradients).items() if not np.any(leaf)} - frozen
    # The bias of keys moves all logits alike; the others' are no different for a system than its
    # kernels.
    assert {path for path in dead if not path.endswith("/bias")} == set()
    assert toy.system.negatives.bank
    assert toy.system.negatives.live == (name in ("srs",))


@pytest.mark.parametrize("name", NAMES)
def test_attributes_are_read_where_a_sticker_has_them_and_nowhere_else(name):
    toy = toy_of(name)
    assert toy.system.reads == {"attributes"}
    bank = toy.resident.bank
    row, attribute = np.argwhere(np.asarray(bank.attribute_mask))[0]
    other = bank.attribute_index.at[row, attribute].add(1) % bank.attributes.ids.shape[0]
    before = np.asarray(toy.call("image_tokens", bank))
    after = np.asarray(toy.call("image_tokens", bank.replace(attribute_index=other)))
    np.testing.assert_array_equal(np.flatnonzero(np.any(before != after, axis=(1, 2))), [row])
    kernel = jnp.zeros_like(toy.params["attribute_projection"]["kernel"])
    without = {**toy.params, "attribute_projection": {"kernel": kernel}}
    plain = dataclasses.replace(toy, params=without).call("image_tokens", bank)
    assert not np.asarray(bank.attribute_mask)[0].any()  # sticker 0 has none
    np.testing.assert_allclose(before[0], plain[0], atol=1e-6)
    assert not np.allclose(before[row], plain[row], atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_off_has_no_parameters(name):
    off = make_toy(system=name)
    assert off.system.reads == frozenset()
    assert off.system.embedding_width + INTENTIONS == toy_of(name).system.embedding_width
    added = flatten(toy_of(name).params).keys() - flatten(off.params).keys()
    own = {"match_classifier/bias", "match_classifier/kernel"} & added
    predicts = name in ("irra", "lgur", "mod")
    assert bool(own) != predicts
    temperature = set() if name == "clip" else {"logit_scale"}
    assert added - own == {"attribute_projection/kernel"} | temperature


def test_whatever_else_a_system_learns_it_keeps():
    kept = {
        "clip": {"match_intention"},
        "irra": {"identity", "masked_words"},
        "lgur": {"intention", "intention_guided", "intention_dictionary"},
        "mod": {"intention"},
        "pcme": {"vib", "match_intention"},
        "srs": {"intention", "match_intention"},
    }
    for name, terms in kept.items():
        toy = toy_of(name)
        parts = jax.eval_shape(lambda params, toy=toy: parts_of(toy, params), toy.params)
        assert {key.removeprefix("loss/") for key in parts if key.startswith("loss/")} == {
            "total",
            "retrieval",
            *terms,
        }


def parts_of(toy: Toy, params):
    from int_ra_jax.training.step import compute_loss

    system = interface.merge(toy.graphdef, params)
    bank = jnp.zeros((GALLERY, system.embedding_width))
    return compute_loss(system, toy.batch, toy.resident, bank, jax.random.key(0))[1]


def test_a_score_by_pairs_of_samples_has_the_intention_beside_it():
    toy = make_toy(
        system="pcme", loss__retrieval="gold_softmax", model__score="match_prob",
        model__intention_match=2.0,
    )  # fmt: skip
    assert toy.system.negatives.live  # samples are not kept
    context = toy.call("encode_context", toy.attached)
    sticker = toy.call("encode_sticker", toy.resident.bank)
    alone = toy.system.trained_scores(context, sticker, np.arange(GALLERY), jax.random.key(0))
    assert np.all(alone >= 0) and np.all(alone <= 1)
    probable = np.asarray(jax.nn.softmax(context.intention_logits))
    known = np.asarray(toy.resident.bank.intentions, np.float32)
    np.testing.assert_allclose(
        toy.call("score", context, sticker), alone + 2.0 * probable @ known.T, atol=1e-5
    )


def test_a_regression_s_target_trains_only_where_there_are_negatives():
    own = make_toy(system="mod", model__attributes="on")
    drawn = {path for path in flatten(own.params) if path.startswith("attribute_projection/")}
    assert drawn <= matching(own.params, own.system.frozen_patterns())
    trained = toy_of("mod")
    assert not drawn & matching(trained.params, trained.system.frozen_patterns())


def test_a_bank_is_live_where_nothing_trains_below_its_stickers_heads():
    images = {"model__image__frozen_layers": -1}
    texts = {"model__text__frozen_layers": -1}

    def live(name, **changes):
        return make_toy(system=name, loss__retrieval="gold_softmax", **changes).system.negatives

    assert live("clip", **images).live and not live("clip", **texts).live
    assert not live("clip", model__attributes="on", **images).live
    assert live("clip", model__attributes="on", **images, **texts).live
    assert live("mod", model__head="id").live  # whose stickers are rows of a matrix
    assert live("clip", loss__bank_size=5, loss__bank_refresh_steps=7) == interface.Negatives(
        bank=True, size=5, live=False, refresh_steps=7
    )


def test_texts_without_turns_are_no_utterances():
    toy = make_toy(system="srs", model__attributes="on", model__text__frozen_layers=-1)
    # Conversations alone have turns; see ``common.types.Tokens``.
    texts = toy.resident.bank.attributes.replace(turn=None, words=None)
    hidden = toy.call("hidden_text", texts)
    assert hidden.shape[:2] == texts.ids.shape
    assert toy.call("hidden_text", toy.batch.context).ndim == 4
    cached = toy.resident.bank.replace(attribute_hidden=hidden)
    np.testing.assert_allclose(
        toy.call("image_tokens", cached),
        toy.call("image_tokens", toy.resident.bank),
        atol=1e-5,
    )


def test_irra_s_own_roles_cover_what_is_offered():
    toy = make_toy(
        system="irra", optim__multipliers={"bias": 2.0}, loss__retrieval="multi_positive",
        loss__match_label="sticker", loss__lambda_id=0.0, loss__lambda_mlm=0.0, **ALL,
    )  # fmt: skip
    roles = toy.system.param_groups()
    assert matching(toy.params, tuple(roles.values())) == frozenset(flatten(toy.params))
    assert matching(toy.params, (roles["head"],)) == {
        "attribute_projection/kernel",
        "match_classifier/bias",
        "match_classifier/kernel",
        "logit_scale",
    }
