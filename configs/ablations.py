"""The paper's ablations on real choices: Int-RA with one part taken away at a time.

    python launch.py --mode=table --config=configs/ablations.py --workdir=tables/ablations \
        --config.prepared_dir=DIR --config.overrides.model.text.source=TEXT_DIR

What is left is as the search of ``configs/table.py:choices`` ranked it best on validation among
the settings that read attributes (docs/tables/choices.md); nothing is searched again. The preset
``readings`` has beside them what the paper leaves open, one point at a time, as ``table.py`` has it
on the embedded data (docs/tables/readings.md).
"""

from typing import Any

from ml_collections import ConfigDict

from configs import table

_CHOSEN = {
    "loss.retrieval": "gold_softmax",
    "model.attributes": "on",
    "model.intention_fusion": "fused",
    "model.newest_turn": False,
    "model.dropout": 0.1,
    "optim.lr": 0.008,
}
_ABLATIONS: dict[str, dict[str, Any]] = {
    "without_attribute": {"model.attributes": "off"},
    "without_knowledge": {"text.knowledge": "off"},
    "without_intention": {"model.intention_fusion": "off"},
    # without predicting an intention at all, which shapes the query as well as being read
    "without_intention_loss": {"model.intention_fusion": "off", "loss.lambda_int": 0.0},
}


def get_config(arg: str = "ablations") -> ConfigDict:
    """Returns the table of the ablations.

    Args:
      arg: ablations, or readings for these and what the paper leaves open.

    Raises:
      ValueError: for another preset name.
    """
    presets = {"ablations": _ABLATIONS, "readings": {**_ABLATIONS, **table.READINGS}}
    changes = table.presets.choose(arg or "ablations", presets, "configs/ablations.py")
    config = table.get_config("choices")
    with config.unlocked():
        int_ra = config.systems.int_ra
        int_ra.update({"overrides": table.nested(_CHOSEN), "space": ConfigDict()})
        config.systems = ConfigDict({"int_ra": int_ra})
        config.also_tested = ()
        config.readings = ConfigDict(
            {name: table.nested(changed) for name, changed in changes.items()}, sort_keys=False
        )
        # As long as the trials of that search.
        config.overrides.train.update(config.search.overrides.train)
        config.search.update({"trials": 0, "space": ConfigDict(), "overrides": ConfigDict()})
    return config.lock()
