"""The table of all systems: which ones, on what budget, searched where (docs/comparison.md).

    python launch.py --mode=table --config=configs/table.py:demo --workdir=tables/demo \
        --config.prepared_dir=DIR

Presets: ``paper`` (the paper's towers, the common recipe), ``demo`` (the embedded data set, MiniLM
frozen), ``multilingual`` (E5-small frozen, for small data in other languages), ``choices`` (the
same for stickers that people really sent; every system is offered the same losses), ``scratch`` (no
pretrained text tower at all), ``smoke`` (random tiny towers; seconds a run).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ml_collections import ConfigDict

from configs import base, int_ra, presets
from configs.rules import OVER_GALLERY

# the table's preset -> what it sets in every system
PRESETS: dict[str, presets.Preset] = {
    "paper": presets.common,
    "demo": presets.demo,
    "multilingual": presets.multilingual,
    "choices": presets.choices,
    "scratch": presets.scratch,
    "smoke": presets.smoke,
}
# of every system's own file, where it has another name
_OWN_PRESETS = {"paper": "common", "multilingual": "demo", "choices": "demo", "scratch": "demo"}


# The features of an image tower that nobody trained are all alike, so that regressing them ranks by
# chance (docs/baselines/mod.md): the id head alone, and the choice is what it reads.
_ID_HEAD = {"model.text_pool": ("last", "mean")}
# Hidden words go through the whole text tower, frozen or not, in every step: some 15 minutes a run
# where every other system takes two to four (docs/comparison.md).
_NO_HIDDEN_WORDS = {"loss.lambda_mlm": 0.0}
_FEW_CORES = ("demo", "multilingual", "choices")
# Rows that say how much of a lead is the loss or the annotations, and how much the method.
_CONTROLS = ("choices",)
# The others' 48 tokens hold 3.6 turns on average and seldom more than five.
_FIVE_TURNS = {"model.utterances": 5}
# The others read 64 tokens, seldom filled by the newest turn and what it answers, and compare with
# the whole gallery, which would take many minutes a trial here: every pair has its network.
_TWO_LONG_TURNS = {"model.utterances": 2, "model.utterance_tokens": 64, "loss.bank_size": 16}
_FEW_NEGATIVES = dict.fromkeys(_CONTROLS, "most of the gallery as negatives")


@dataclass(frozen=True)
class Entry:
    """One system of the table.

    Attributes:
      file: its config file.
      space: what the method leaves open, two choices, so that all spaces are of one size. In
        ``choices`` what every system is offered comes before it, where it applies.
      spaces: the table's preset -> another space.
      presets: the table's preset -> the file's, where it is not the one of the others.
      overrides: the table's preset -> what is set for this system alone.
      tested: whether it is tested against all others, as the main system is.
      own_loss: its own value of ``loss.retrieval``; "" where a loss over the gallery is its method.
      attributes: whether it can read the stickers' attributes or not.
      newest_turn: whether it can read the newest turn alone; SRS compares turn by turn.
      lacks: the table's preset -> the part of its method that it goes without; its row says so.
      rows: the tables that have it.
    """

    file: str
    space: Mapping[str, Any]
    spaces: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    presets: Mapping[str, str] = field(default_factory=dict)
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tested: bool = False
    own_loss: str = "own"
    attributes: bool = True
    newest_turn: bool = True
    lacks: Mapping[str, str] = field(default_factory=dict)
    rows: tuple[str, ...] = tuple(PRESETS)


# Int-RA without what is the paper's: what a plain dual encoder does under the same loss.
_DUAL_ENCODER = {
    "model.attributes": "off",
    "model.intention_fusion": "off",
    "text.knowledge": "off",
    "loss.lambda_int": 0.0,
    "loss.retrieval": "multi_positive",
}
_MATCH = {"model.intention_match": 3.0}

SYSTEMS = {
    "int_ra": Entry(
        "int_ra",
        {"loss.retrieval": ("hinge", "multi_positive")},
        spaces={"choices": {"model.intention_fusion": ("fused", "soft_label")}},
        own_loss="hinge",
    ),
    # Int-RA with what ranked best on validation. Its file's preset stands on the demo's towers;
    # elsewhere it is the preset of the others with the same keys set.
    "best": Entry(
        "int_ra",
        {"model.intention_match": (1.0, 3.0)},
        presets={"demo": "best"},
        overrides={name: int_ra.BEST for name in PRESETS if name != "demo"},
        tested=True,
        own_loss="",
    ),
    "dual_encoder": Entry(
        "int_ra",
        {"model.text_pool": ("mean", "last")},
        overrides=dict.fromkeys(_CONTROLS, _DUAL_ENCODER),
        own_loss="",
        attributes=False,
        rows=_CONTROLS,
    ),
    "clip": Entry("clip", {"loss.dup_policy": ("none", "mask_same_sticker")}),
    "clip_match": Entry(
        "clip",
        {
            "loss.dup_policy": ("none", "mask_same_sticker"),
            "model.intention_match": (1.0, 3.0),
        },
        overrides=dict.fromkeys(_CONTROLS, _MATCH),
        rows=_CONTROLS,
    ),
    "irra": Entry(
        "irra",
        {"loss.match_label": ("intent", "sticker")},
        overrides=dict.fromkeys(_FEW_CORES, _NO_HIDDEN_WORDS),
        lacks=dict.fromkeys(_FEW_CORES, "hidden words"),
    ),
    "pcme": Entry("pcme", {"loss.match": ("diag", "label")}),
    "lgur": Entry("lgur", {"loss.match_label": ("intent", "sticker")}),
    "srs": Entry(
        "srs",
        {"loss.negatives_from": ("any_other_sticker", "other_intent")},
        newest_turn=False,
        overrides={"multilingual": _FIVE_TURNS, "scratch": _FIVE_TURNS, "choices": _TWO_LONG_TURNS},
        lacks=_FEW_NEGATIVES,
    ),
    "mod": Entry(
        "mod",
        {"model.head": ("id", "regress")},
        spaces=dict.fromkeys(("demo", "multilingual", "choices", "scratch"), _ID_HEAD),
        attributes=False,  # one class for each sticker, of which nothing is read
    ),
    "mod_match": Entry(
        "mod",
        {**_ID_HEAD, "model.intention_match": (1.0, 3.0)},
        overrides=dict.fromkeys(_CONTROLS, _MATCH),
        attributes=False,
        rows=_CONTROLS,
    ),
}


def nested(flat: Mapping[str, Any]) -> ConfigDict:
    """Returns sections within sections for dotted keys, which a ConfigDict cannot hold.

    Args:
      flat: for example ``{"optim.lr": 1e-4}``.
    """
    config = ConfigDict()
    for key, value in flat.items():
        *sections, name = key.split(".")
        inner = config
        for section in sections:
            inner[section] = inner.get(section, ConfigDict())
            inner = inner[section]
        inner[name] = value
    return config


def get_config(arg: str = "demo") -> ConfigDict:
    """Returns the table of a preset.

    Args:
      arg: one of PRESETS.

    Raises:
      ValueError: for another preset name.
    """
    arg = arg or "demo"
    recipe = presets.choose(arg, PRESETS, "configs/table.py")
    config = ConfigDict()
    config.prepared_dir = ""  # the prepared directory (docs/data.md); required
    config.seeds = (0, 1, 2)  # every system is trained once with each
    config.main = "int_ra"  # tested against every other system; what the readings change
    # further systems that are tested in the same way
    config.also_tested = tuple(name for name, entry in SYSTEMS.items() if entry.tested)
    # Every key of a system's own config can be set for all systems (overrides) or for one
    # (systems.NAME.overrides), and searched over, by all (search.space) or by one (NAME.space).
    config.systems = ConfigDict(
        {name: _system(entry, arg) for name, entry in SYSTEMS.items() if arg in entry.rows},
        sort_keys=False,
    )
    # main with one thing changed each: name -> what is changed; no search of their own
    config.readings = ConfigDict(
        {name: nested(changed) for name, changed in READINGS.items()}, sort_keys=False
    )
    config.overrides = _budget(recipe, _ALSO_SHARED.get(arg, ()))
    config.search = ConfigDict(
        {
            "trials": 4,  # per system, trained with seed 0, judged by validation mAP; 0 = no search
            "seed": 0,  # of the draw from the space; a space no larger than trials is taken whole
            "sampler": "random",  # random: a seeded draw; tpe: Optuna's, which learns as it goes
            "space": nested({"optim.lr": _LEARNING_RATES[arg]}),
            # what trials alone set, alike for all, such as fewer rows; the runs of the table do not
            "overrides": ConfigDict(),
        }
    )
    # What is tested for significance; all pairs of system and metric are one family. () = what fits
    # eval.protocol: hit@1, hit@3, hit@5 and mAP, or under exact all columns of its table.
    config.tested = ()
    config.resamples = 10_000  # bootstrap, over queries or clusters of them
    config.only = ()  # systems and readings to train now; () = all
    config.write_only = False  # True: the table of what there is; nothing is trained
    if arg == "choices":
        config.search.update({"trials": 12, "sampler": "tpe"})
        config.search.space.model = ConfigDict({"dropout": (0.1, 0.3, 0.5)})
        config.search.overrides = nested(
            {"train.rows": 20_000, "train.epochs": 2.0, "train.eval_steps": 0}
        )
    if arg == "smoke":
        config.update({"seeds": (0, 1), "resamples": 500})
        config.search.trials = 2
    return config.lock()


def _system(entry: Entry, arg: str) -> dict[str, Any]:
    """Returns the section of one system in a preset."""
    own = entry.presets.get(arg, _OWN_PRESETS.get(arg, arg))
    offered: dict[str, Any] = {}
    if arg == "choices":
        losses = (entry.own_loss, *OVER_GALLERY) if entry.own_loss else OVER_GALLERY
        offered = {"loss.retrieval": losses}
        if entry.attributes:
            offered["model.attributes"] = ("off", "on")
        if entry.newest_turn:
            offered["model.newest_turn"] = (False, True)
    return {
        "config": f"configs/{entry.file}.py:{own}",
        "overrides": nested(entry.overrides.get(arg, {})),
        "space": nested({**offered, **entry.spaces.get(arg, entry.space)}),
        "lacks": entry.lacks.get(arg, ""),
    }


def _budget(recipe: presets.Preset, also: tuple[str, ...]) -> ConfigDict:
    """Returns what all systems share: towers, tokens, pictures, batches, passes, evaluation.

    What a system reads of a conversation, and how it is optimised, is its own.
    """
    config = base.get_config()
    recipe(config)
    shared = ConfigDict({"eval": config.eval, "data": {"image_size": config.data.image_size}})
    shared.model = ConfigDict({"text": config.model.text, "image": config.model.image})
    shared.text = ConfigDict({k: v for k, v in config.text.items() if k.endswith("_tokens")})
    shared.train = ConfigDict({key: config.train[key] for key in _SHARED_OF_TRAIN})
    for key in also:
        section, name = key.split(".")
        shared[section] = shared.get(section, ConfigDict())
        shared[section][name] = config[section][name]
    return shared


_SHARED_OF_TRAIN = ("rows", "batch_size", "epochs", "max_steps", "eval_steps", "ema_decay")
# A thousand conversations teach nothing unless it is regularised, so that the recipe sets it.
_REGULARISED = ("model.dropout", "optim.lr", "optim.weight_decay")
_ALSO_SHARED = {
    "multilingual": _REGULARISED,
    "choices": (
        *_REGULARISED, "train.cache_dtype", "train.cache_limit_gib", "loss.unseen_negatives"
    ),
    "scratch": _REGULARISED,
}  # fmt: skip
_LEARNING_RATES = {
    "paper": (3e-5, 1e-4, 3e-4, 1e-3),
    "demo": (5e-4, 1e-3, 2e-3, 4e-3),
    "multilingual": (5e-4, 1e-3, 2e-3, 4e-3),
    "choices": (5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2),
    "scratch": (1.5e-4, 3e-4, 6e-4, 1.2e-3),
    "smoke": (1e-3, 3e-3),
}
READINGS: dict[str, dict[str, Any]] = {
    # the ablations of the paper
    "without_attribute": {"model.attributes": "off"},
    "without_knowledge": {"text.knowledge": "off"},
    "without_intention": {"model.intention_fusion": "off"},
    # what the paper leaves open, one point at a time (docs/fidelity.md)
    "hard_label": {"model.intention_fusion": "hard_label"},
    "soft_label": {"model.intention_fusion": "soft_label"},
    "relation_region": {"model.relation": "region"},
    "relation_scalar": {"model.relation": "scalar"},
    "no_residual": {"model.residual": False},
    "regions_cls": {"model.regions": "cls"},
    "attribute_tokens_all": {"model.attribute_tokens": "all"},
    "infonce": {"loss.retrieval": "infonce"},
    "literal_eq14": {"loss.retrieval": "literal_eq14"},
    "negatives_in_batch": {"loss.negatives": "in_batch"},
    # what is added to the paper's model; the second reads the gallery's train annotations
    "newest_turn": {key: int_ra.BEST[key] for key in ("model.newest_turn", "model.dropout")},
    "intention_match": {"model.intention_match": int_ra.BEST["model.intention_match"]},
}
