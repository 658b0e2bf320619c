"""What a table is made of, before anything is trained."""

import copy
import itertools
import json
import math
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs import ablations, chosen, int_ra
from configs import table as presets
from int_ra_jax.common import config as configuration
from int_ra_jax.comparison import table_config

ROOT = Path(__file__).resolve().parents[2]


def smoke(**changes):
    settings = presets.get_config("smoke")
    with settings.unlocked():
        settings.prepared_dir = "somewhere"
        for key, value in changes.items():
            settings[key] = value
    return settings


def sampled(sampler):
    search = presets.get_config("smoke").search.copy_and_resolve_references()
    search.update({"sampler": sampler})
    return search


def read(settings):
    return table_config.read(settings, ROOT)


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_every_preset_gives_every_system_the_same_budget_and_as_many_trials(preset):
    settings = presets.get_config(preset)
    with settings.unlocked():
        settings.prepared_dir = "somewhere"
    table = read(settings)
    wanted = [name for name, entry in presets.SYSTEMS.items() if preset in entry.rows]
    assert list(table.systems) == wanted
    assert {"without_attribute", "without_knowledge", "without_intention"} <= set(table.readings)
    assert settings.main in table.systems and tuple(settings.also_tested) == ("best",)
    assert table.unequal() == {}
    assert {e.budget for e in table.systems.values()} == {settings.search.trials}
    if preset != "choices":
        points = 2 * len(settings.search.space.optim.lr)
        assert {e.points for e in table.systems.values()} == {points}


def test_every_system_is_offered_the_same_losses_and_attributes_on_real_choices():
    settings = presets.get_config("choices")
    with settings.unlocked():
        settings.prepared_dir = "somewhere"
    systems = read(settings).systems
    assert {"dual_encoder", "clip_match", "mod_match"} <= systems.keys()
    for name, entry in systems.items():
        assert {"multi_positive", "gold_softmax"} <= {*entry.space["loss.retrieval"]}, name
        assert len(entry.space["optim.lr"]) == 7
        # MOD's id reads nothing of a sticker; the dual encoder is Int-RA without them.
        without = name in ("mod", "mod_match", "dual_encoder")
        assert ("model.attributes" in entry.space) != without
        assert entry.config.eval.protocol == "exact"
        assert ("model.newest_turn" in entry.space) == (name != "srs")  # which reads turn by turn
        assert entry.trial == {"train.rows": 20_000, "train.epochs": 2.0, "train.eval_steps": 0}
    dual = systems["dual_encoder"].config
    assert (dual.model.attributes, dual.model.intention_fusion, dual.text.knowledge) == ("off",) * 3
    assert (dual.loss.lambda_int, dual.loss.retrieval) == (0.0, "multi_positive")
    assert systems["clip_match"].config.model.intention_match == 3.0
    # A part of its method that a system goes without stands in its row.
    assert systems["irra"].config.loss.lambda_mlm == 0
    assert {name: one.lacks for name, one in systems.items() if one.lacks} == {
        "irra": "hidden words",
        "srs": "most of the gallery as negatives",
    }


def test_a_system_may_leave_out_what_it_lacks_and_nothing_else():
    settings = smoke()
    with settings.unlocked():
        del settings.systems.clip["lacks"]
    assert read(settings).systems["clip"].lacks == ""
    with settings.unlocked():
        del settings.systems.clip["space"]
    with pytest.raises(
        ValueError, match=r"systems\.clip has the keys .*: config, overrides, space"
    ):
        read(settings)


def test_an_ablation_takes_away_one_part_and_searches_nothing():
    settings = ablations.get_config()
    with settings.unlocked():
        settings.prepared_dir = "somewhere"
    entries = read(settings).entries
    assert {one.budget for one in entries.values()} == {0}
    flat = {name: configuration.flatten(one.config) for name, one in entries.items()}
    changed = {
        name: {key for key, value in keys.items() if value != flat["int_ra"][key]}
        for name, keys in flat.items()
    }
    assert changed == {
        "int_ra": set(),
        "without_attribute": {"model.attributes"},
        "without_knowledge": {"text.knowledge"},
        "without_intention": {"model.intention_fusion"},
        "without_intention_loss": {"model.intention_fusion", "loss.lambda_int"},
    }
    with pytest.raises(ValueError, match="smoke"):
        ablations.get_config("smoke")


def test_each_reading_on_real_choices_differs_from_int_ra_and_from_the_others():
    settings = ablations.get_config("readings")
    with settings.unlocked():
        settings.prepared_dir = "somewhere"
    entries = read(settings).entries
    assert {"int_ra", *ablations.get_config().readings, *presets.READINGS} == entries.keys()
    told = {json.dumps(configuration.flatten(one.config), default=str) for one in entries.values()}
    assert len(told) == len(entries)


def test_a_trial_stands_for_the_first_seed_where_it_is_trained_like_one():
    settings = presets.get_config("choices")
    with settings.unlocked():
        settings.prepared_dir = "somewhere"
    assert not any(entry.tried_as_trained for entry in read(settings).systems.values())
    settings.overrides.train.update({"rows": 20_000, "epochs": 2.0, "eval_steps": 0})
    assert all(entry.tried_as_trained for entry in read(settings).systems.values())
    settings = smoke()
    assert all(entry.tried_as_trained for entry in read(settings).systems.values())


def test_what_trials_alone_set_is_checked_like_everything_else():
    settings = smoke()
    with settings.unlocked():
        settings.search.overrides = presets.nested(
            {"train.rowz": 3, "optim.lr": 1.0, "train.batch_size": 7, "mesh.data": 2}
        )
    with pytest.raises(ValueError) as caught:
        read(settings)
    for part in (
        "search.overrides.train.rowz: no such key; did you mean 'train.rows'?",
        "search.overrides.optim.lr is searched over already; one of them must go",
    ):
        assert part in str(caught.value)
    with settings.unlocked():
        settings.search.overrides = presets.nested({"train.batch_size": 7, "mesh.data": 2})
    with pytest.raises(ValueError, match=r"clip with .*: train.batch_size=7 is not divisible"):
        read(settings)


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_best_is_int_ra_of_the_same_preset_with_what_ranked_best_set(preset):
    settings = presets.get_config(preset)
    with settings.unlocked():
        settings.prepared_dir = "somewhere"
    systems = read(settings).systems
    plain, best = (configuration.flatten(systems[name].config) for name in ("int_ra", "best"))
    # the values that the preset ``best`` of its own file has
    chosen = configuration.flatten(int_ra.get_config("best"))
    assert best == {**plain, **{key: chosen[key] for key in int_ra.BEST}}
    assert (chosen["model.newest_turn"], chosen["model.intention_match"]) == (True, 3.0)
    assert (chosen["model.dropout"], chosen["loss.retrieval"]) == (0.5, "multi_positive")
    assert "best" not in settings.readings


def test_what_a_system_reads_of_a_conversation_stays_its_own():
    systems = read(smoke()).systems
    assert systems["int_ra"].config.text.knowledge == "append"
    assert systems["clip"].config.text.knowledge == "off"


@given(
    st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(), min_size=1, unique=True)),
    st.integers(1, 40),
    st.integers(0, 5),
)
def test_a_draw_repeats_nothing_takes_small_spaces_whole_and_is_the_same_again(space, trials, seed):
    drawn = table_config.draw(space, trials, seed)
    points = math.prod(map(len, space.values()))
    assert len(drawn) == min(trials, points)
    assert len({tuple(values.items()) for values in drawn}) == len(drawn)
    assert all(list(values) == list(space) for values in drawn)
    assert all(value in space[key] for values in drawn for key, value in values.items())
    every = [dict(zip(space, point, strict=True)) for point in itertools.product(*space.values())]
    assert drawn == (every if points <= trials else random.Random(seed).sample(every, trials))


def test_overrides_reach_every_system_and_a_system_s_own_come_last():
    settings = smoke()
    with settings.unlocked():
        settings.overrides.train.epochs = 3.0
        settings.systems.clip.overrides = presets.nested({"loss.temperature": 0.05})
    table = read(settings)
    assert {entry.config.train.epochs for entry in table.systems.values()} == {3.0}
    assert table.systems["clip"].config.loss.temperature == 0.05
    assert table.readings["no_residual"].config.train.epochs == 3.0
    assert table.readings["no_residual"].config.model.residual is False


def test_a_budget_that_differs_between_systems_is_found():
    settings = smoke()
    with settings.unlocked():
        settings.systems.clip.overrides = presets.nested({"train.max_steps": 90})
    assert read(settings).unequal()["train.max_steps"]["clip"] == 90


def test_no_system_searches_its_own_budget():
    settings = smoke()
    with settings.unlocked():
        settings.systems.clip.space = presets.nested({"train.max_steps": (60, 600)})
    with pytest.raises(ValueError, match=r"systems.clip.space.train.max_steps: the budget is"):
        read(settings)


@pytest.mark.parametrize(("preset", "rate"), [("scratch", 3e-4), ("multilingual", 2e-3)])
def test_without_a_search_a_preset_s_own_rate_is_everybody_s(preset, rate):
    settings = presets.get_config(preset)
    with settings.unlocked():
        settings.prepared_dir, settings.search.trials = "somewhere", 0
    assert {entry.config.optim.lr for entry in read(settings).systems.values()} == {rate}


def test_what_a_system_sets_of_the_recipe_is_found():
    settings = presets.get_config("demo")
    with settings.unlocked():
        settings.prepared_dir = "somewhere"
    table = read(settings)
    assert table.unequal(table_config.RECIPE)["model.dropout"]["best"] == 0.5
    assert table.unequal() == {}


def test_what_is_tested_fits_the_protocol():
    exact = smoke(tested=("hit@10", "mAP"))
    with exact.unlocked():
        exact.overrides.eval.protocol = "exact"
    with pytest.raises(ValueError, match=r"tested='mAP' is no metric .* protocol exact; did you"):
        read(exact)
    with exact.unlocked():
        exact.tested = ("hit@10", "gold_cross_entropy")
    read(exact)
    with pytest.raises(ValueError, match=r"tested='hit@10' is no metric .* protocol multi"):
        read(smoke(tested=("hit@10",)))


@pytest.mark.parametrize("name", ["popular", "zero_shot", "two_agree", "chance"])
def test_a_row_that_is_no_system_s_keeps_its_name(name):
    settings = smoke()
    with settings.unlocked():
        settings.systems[name] = copy.deepcopy(settings.systems.mod)
    with pytest.raises(ValueError, match=f"'{name}' cannot name a system"):
        read(settings)


def test_all_problems_are_reported_at_once_with_the_nearest_choice():
    settings = smoke(
        seeds=(),
        main="int_rra",
        also_tested=("bset", "clip", "clip"),
        only=("clipp",),
        tested=("hit@2",),
        prepared_dir="",
    )
    with settings.unlocked():
        settings.systems.clip.config = "configs/clipp.py:smoke"
        settings.systems.irra.config = "configs/irra.py:smoky"
        settings.systems.pcme.overrides = presets.nested({"optim.lrr": 1.0})
        settings.systems.lgur.overrides = presets.nested({"optim.lr": "fast"})
        settings.systems.srs.space = presets.nested({"optim.lr": (1.0,), "optim.eps": ()})
        settings.systems["Chance!"] = copy.deepcopy(settings.systems.mod)
        settings.readings.mod = presets.nested({"model.regions": "cls"})
        settings.only = ()
    with pytest.raises(ValueError) as caught:
        read(settings)
    message = str(caught.value)
    for part in (
        "seeds is empty",
        "main='int_rra' is no system; did you mean 'int_ra'?",
        "also_tested='bset' is no system; did you mean 'best'?",
        "also_tested holds 'clip' twice",
        "tested='hit@2' is no metric of a table under protocol multi; did you mean 'hit@",
        "prepared_dir is empty",
        "configs/clipp.py:smoke: no such file; did you mean 'configs/clip.py'?",
        "Did you mean 'smoke'?",
        "pcme: systems.pcme.overrides.optim.lrr: no such key; did you mean 'optim.lr'?",
        "lgur: systems.lgur.overrides.optim.lr='fast'",
        "systems.srs.space.optim.lr is in search.space already",
        "systems.srs.space.optim.eps=[]: a space gives a tuple of choices",
        "'Chance!' cannot name a system",
        "'mod' is among systems and readings: one name is one row",
    ):
        assert part in message, part


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": (0, 0)}, "seeds holds 0 twice"),
        ({"seeds": (0, -1)}, "seeds holds -1; a seed is a whole number from 0"),
        ({"only": ("clpi",)}, "only='clpi' is no row of this table; did you mean 'clip'?"),
        ({"also_tested": ("int_ra",)}, "also_tested='int_ra' is main, which is tested anyway"),
        ({"also_tested": ("no_residual",)}, "also_tested='no_residual' is no system; did you mean"),
        ({"also_tested": ("chance",)}, "also_tested='chance' is no system; did you mean"),
        ({"resamples": 0}, "resamples=0 must be above 0"),
        ({"search": sampled("tpee")}, "search.sampler='tpee' is no sampler; did you mean 'tpe'?"),
    ],
)
def test_what_cannot_be_meant_is_said(changes, message):
    with pytest.raises(ValueError, match="the table's config:") as caught:
        read(smoke(**changes))
    assert message in str(caught.value)


def test_a_system_named_twice_and_a_reading_that_changes_nothing_are_refused():
    settings = smoke()
    with settings.unlocked():
        settings.systems.again = copy.deepcopy(settings.systems.clip)
        settings.readings.same = presets.nested({"model.residual": True})
    with pytest.raises(ValueError, match="clip and again are the same configuration"):
        read(settings)


def test_a_space_is_checked_choice_by_choice_and_trial_by_trial():
    settings = smoke()
    with settings.unlocked():
        settings.systems.clip.space = presets.nested({"loss.dup_policy": ("none", "nothing")})
        settings.search.trials = 8
    with pytest.raises(ValueError, match=r"clip with .*nothing.*did you mean"):
        read(settings)


def test_what_is_wrong_with_systems_that_are_not_asked_for_stops_nothing_and_is_kept():
    settings = smoke(only=("int_ra",))
    with settings.unlocked():
        settings.systems.clip.config = "configs/clipp.py:smoke"
    table = read(settings)
    assert "clip" not in table.systems and "clipp.py" in table.left_out[0]


def test_the_config_of_a_run_is_told_from_that_of_a_table():
    from configs import clip

    with pytest.raises(ValueError, match=r"lacks .*systems.*configs/table\.py:PRESET"):
        read(clip.get_config("smoke"))


def test_resolving_a_trial_leaves_the_entry_as_it_was():
    entry = read(smoke()).systems["clip"]
    before = configuration.flatten(entry.config)
    changed = entry.resolved(**{"optim.lr": 0.5}, seed=7)
    assert changed.seed == 7 and configuration.flatten(entry.config) == before


@pytest.mark.parametrize("data", ["zh", "en"])
def test_what_was_chosen_is_the_table_without_its_search(data):
    found, searched = chosen.get_config(data), presets.get_config("choices")
    for settings in (found, searched):
        with settings.unlocked():
            settings.prepared_dir = "somewhere"
    found, searched = read(found), read(searched)
    assert list(found.systems) == [name for name in searched.systems if name in found.systems]
    for name, entry in found.systems.items():
        offered = searched.systems[name].space
        assert not entry.budget and not entry.space
        flat = configuration.flatten(entry.config)
        assert all(flat[key] in choices for key, choices in offered.items())
        was = configuration.flatten(searched.systems[name].config)
        assert {key for key in flat if flat[key] != was[key]} <= offered.keys()
    with pytest.raises(ValueError, match="no preset 'zhh'"):
        chosen.get_config("zhh")
