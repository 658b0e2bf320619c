"""IRRA: two towers trained by what matches, and by words guessed from the sticker.

    python launch.py --mode=train --config=configs/irra.py:demo --workdir=runs/irra \
        --config.data.prepared_dir=DIR

Presets: ``original`` (the reference implementation's numbers on the paper's towers), ``common``
(the recipe that all systems are compared under), ``demo`` (the embedded data set on two cores),
``smoke`` (random tiny towers; seconds). docs/baselines/irra.md explains them.
"""

from ml_collections import ConfigDict

from configs import base, presets
from configs.rules import (
    ABOVE_0,
    FROM_0,
    OVER_GALLERY,
    TEMPERATURE,
    Rule,
    each,
    heads_divide_width,
    one_of,
)


def get_config(arg: str = "common") -> ConfigDict:
    """Returns the config of a preset, one of PRESETS; another name is a ValueError."""
    preset = presets.choose(arg or "common", PRESETS, "configs/irra.py")
    config = base.get_config()
    config.text.knowledge = "off"  # the baselines read the conversation alone
    config.model.update(
        {
            "name": "irra",
            "heads": 8,  # of the interaction encoder; 64 channels each
            "interaction_layers": 4,  # blocks behind its cross-attention
            # hidden words are compared with the text tower's own table; False: a matrix of their
            # own, as in the reference implementation, 61 million parameters for M-BERT
            "tie_mlm": True,
        }
    )
    config.loss.update(
        {
            # own (similarity distribution matching) |
            # multi_positive | gold_softmax: over the gallery, as Int-RA's (docs/comparison.md)
            "retrieval": "own",
            # which other pairs of a batch match, and the classes of the classifier:
            # intent: those of the same intention, which the evaluation counts as right | sticker
            "match_label": "intent",
            "temperature": 0.02,  # a constant here: cosines are multiplied by 50
            "lambda_ret": 1.0,  # similarity distribution matching
            "lambda_id": 1.0,  # classifier of the label, from either side; 0 leaves it out
            "lambda_mlm": 1.0,  # hidden words; 0 leaves out their encoder and the masked pass
        }
    )
    preset(config)
    return config.lock()


RULES: dict[str, Rule] = {
    "loss.retrieval": one_of("own", *OVER_GALLERY),
    **each(ABOVE_0, "model.heads", "model.interaction_layers"),
    **each(FROM_0, "loss.lambda_ret", "loss.lambda_id", "loss.lambda_mlm"),
    "loss.match_label": one_of("intent", "sticker"),
    "loss.temperature": TEMPERATURE,
}
COMBINATIONS = (heads_divide_width,)


def _original(config: ConfigDict) -> None:
    """The numbers of the reference implementation's training script and solver."""
    presets.towers(config)
    config.optim.update(
        {
            "name": "adamw",
            "lr": 1e-5,
            "eps": 1e-3,  # there because its weights are float16
            "weight_decay": 4e-5,  # there coupled; here adamw's, on kernels only
            "schedule": "cosine",
            "warmup_steps": 99,  # 5 epochs of StickerInt's 1,269 conversations
        }
    )
    # There by substrings of the names: the last that applies of "cross" 5, "bias" 2, and
    # "classifier" and "mlm_head" 5. joint: what is left outside the towers.
    config.optim.multipliers.update({"bias": 2.0, "cross": 5.0, "joint": 1.0, "head": 5.0})
    config.train.update({"batch_size": 64, "epochs": 60.0, "eval_steps": 60})


def _demo(config: ConfigDict) -> None:
    presets.demo(config)
    config.model.heads = 4


def _smoke(config: ConfigDict) -> None:
    presets.smoke(config)
    config.model.update({"heads": 2, "interaction_layers": 2, "tie_mlm": False})


PRESETS: dict[str, presets.Preset] = {
    "original": _original,
    "common": presets.common,
    "demo": _demo,
    "smoke": _smoke,
}
