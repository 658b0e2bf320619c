"""CLIP as a dual encoder trained on the batch's own pairs (docs/baselines/clip.md).

    python launch.py --mode=train --config=configs/clip.py:demo --workdir=runs/clip \
        --config.data.prepared_dir=DIR

Presets: ``original`` (CLIP's own recipe, as far as it can be had on so few pairs), ``common`` (the
recipe that all systems are compared under), ``demo`` (the embedded data set in minutes on two
cores), ``smoke`` (random tiny towers; seconds).
"""

from ml_collections import ConfigDict

from configs import base, presets
from configs.rules import OVER_GALLERY, TEMPERATURE, Rule, one_of


def get_config(arg: str = "common") -> ConfigDict:
    """Returns the config of a preset, one of PRESETS; another name is a ValueError."""
    preset = presets.choose(arg or "common", PRESETS, "configs/clip.py")
    config = base.get_config()
    config.model.name = "clip"
    config.text.knowledge = "off"  # a baseline reads the conversation alone
    config.loss.update(
        {
            # own (the symmetric contrastive loss of the batch) |
            # multi_positive | gold_softmax: over the gallery, as Int-RA's (docs/comparison.md)
            "retrieval": "own",
            "temperature": 0.07,  # initial; learnt, and kept within [0.01, 1]
            # none: every other pair of the batch is a negative, as in the original |
            # mask_same_sticker: not where two conversations have one gold sticker
            "dup_policy": "none",
        }
    )
    preset(config)
    return config.lock()


RULES: dict[str, Rule] = {
    "loss.retrieval": one_of("own", *OVER_GALLERY),
    "loss.temperature": TEMPERATURE,
    "loss.dup_policy": one_of("none", "mask_same_sticker"),
}


def _original(config: ConfigDict) -> None:
    """What the paper (Radford et al. 2021) reports of its ViT-B; no training code is released."""
    presets.towers(config)
    config.text.speakers = "off"
    config.optim.update(
        {"name": "adamw", "lr": 5e-4, "weight_decay": 0.2, "b2": 0.98, "eps": 1e-6,
         "schedule": "cosine"}
    )  # fmt: skip
    # 2,000 warm-up steps of its 390,625 are 0.5%; of the 40 steps here that is none.
    config.optim.warmup_steps = 0
    # Of 32,768 in the original: the largest power of two that StickerInt's 1,269 conversations
    # fill, encoded in parts to fit one device.
    config.train.update({"batch_size": 1024, "micro_batches": 16, "epochs": 32.0, "eval_steps": 10})


PRESETS: dict[str, presets.Preset] = {
    "original": _original,
    "common": presets.common,
    "demo": presets.demo,
    "smoke": presets.smoke,
}
