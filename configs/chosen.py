"""What the searches on real choices chose for each system, without searching again.

    python launch.py --mode=table --config=configs/chosen.py:zh --workdir=tables/chosen \
        --config.prepared_dir=DIR --config.overrides.model.text.source=TEXT_DIR

docs/tables/choices.md has the trials, and the table is that of ``configs/table.py:choices``: for
more seeds, all of train, or data of one's own. Where a search on the Chinese data ended at its
highest rate, the next one was tried as well, and is taken where validation was better with it.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import table

_CHOSEN: dict[str, dict[str, dict[str, Any]]] = {
    "zh": {
        "int_ra": {"optim.lr": 0.008, "model.attributes": "off"},
        "best": {"optim.lr": 0.004, "model.attributes": "on", "model.intention_match": 1.0},
        "dual_encoder": {"optim.lr": 0.032, "model.dropout": 0.3, "model.text_pool": "mean"},
        "clip": {
            "optim.lr": 0.032, "model.dropout": 0.3, "model.attributes": "on",
            "loss.dup_policy": "mask_same_sticker",
        },
        "clip_match": {
            "optim.lr": 0.032, "model.dropout": 0.3, "model.attributes": "on",
            "loss.dup_policy": "mask_same_sticker", "model.intention_match": 3.0,
        },
        "irra": {"optim.lr": 0.004, "model.attributes": "on", "loss.match_label": "sticker"},
        "pcme": {"optim.lr": 0.004, "model.attributes": "on", "loss.match": "label"},
        "lgur": {
            "optim.lr": 0.016, "model.dropout": 0.3, "model.attributes": "off",
            "loss.match_label": "sticker",
        },
        "srs": {
            "optim.lr": 0.004, "loss.retrieval": "own", "model.newest_turn": False,
            "model.attributes": "on", "loss.negatives_from": "other_intent",
        },
        "mod": {"optim.lr": 0.008, "model.text_pool": "last"},
        "mod_match": {
            "optim.lr": 0.008, "loss.retrieval": "own", "model.newest_turn": False,
            "model.text_pool": "last", "model.intention_match": 3.0,
        },
    },
    "en": {
        "int_ra": {"optim.lr": 0.008, "model.attributes": "on"},
        "best": {
            "optim.lr": 0.004, "model.dropout": 0.3, "model.attributes": "off",
            "model.intention_match": 1.0,
        },
        "dual_encoder": {"optim.lr": 0.032, "model.dropout": 0.5, "model.text_pool": "mean"},
        "clip": {
            "optim.lr": 0.032, "model.dropout": 0.5, "model.attributes": "on",
            "loss.dup_policy": "none",
        },
        "clip_match": {
            "optim.lr": 0.016, "model.attributes": "on", "loss.dup_policy": "none",
            "model.intention_match": 3.0,
        },
        "irra": {"optim.lr": 0.004, "model.attributes": "on", "loss.match_label": "intent"},
        "pcme": {
            "optim.lr": 0.001, "model.dropout": 0.5, "model.attributes": "on",
            "loss.match": "label",
        },
        "lgur": {
            "optim.lr": 0.0005, "model.dropout": 0.5, "model.attributes": "on",
            "loss.match_label": "sticker",
        },
        "srs": {
            "optim.lr": 0.002, "loss.retrieval": "own", "model.newest_turn": False,
            "model.attributes": "on", "loss.negatives_from": "any_other_sticker",
        },
        "mod": {
            "optim.lr": 0.004, "model.dropout": 0.5, "model.newest_turn": False,
            "model.text_pool": "last",
        },
        "mod_match": {
            "optim.lr": 0.008, "model.dropout": 0.5, "loss.retrieval": "own",
            "model.text_pool": "mean", "model.intention_match": 3.0,
        },
    },
}  # fmt: skip
# What nearly all of them chose.
_COMMON = {"loss.retrieval": "gold_softmax", "model.newest_turn": True, "model.dropout": 0.1}


def get_config(arg: str = "zh") -> ConfigDict:
    """Returns the table of the settings that were chosen on some data.

    Args:
      arg: zh, the Chinese choices, or en, the English ones.

    Raises:
      ValueError: for another preset name.
    """
    chosen = table.presets.choose(arg or "zh", _CHOSEN, "configs/chosen.py")
    config = table.get_config("choices")
    with config.unlocked():
        for name in set(config.systems) - set(chosen):
            del config.systems[name]
        for name, settings in chosen.items():
            section = config.systems[name]
            section.overrides.update(table.nested({**_COMMON, **settings}))
            section.space = ConfigDict()
        config.also_tested = tuple(name for name in config.also_tested if name in chosen)
        config.readings = ConfigDict()
        config.search.update({"trials": 0, "overrides": ConfigDict()})
        # Nothing is searched unless trials are asked for: at these rates, or others.
        config.search.space = ConfigDict({"optim": {"lr": config.search.space.optim.lr}})
    return config.lock()
