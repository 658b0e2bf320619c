"""SRS (Gao et al. 2020), on the towers that all systems share (docs/baselines/srs.md).

    python launch.py --mode=train --config=configs/srs.py:demo --workdir=runs/srs \
        --config.data.prepared_dir=DIR

Presets: ``original`` (the sizes and the schedule of the reference implementation), its first stage
``original_stage1``, ``common`` (the recipe that all systems are compared under), ``demo`` (the
embedded data set in minutes on two cores), ``smoke`` (random tiny towers; seconds).
"""

from ml_collections import ConfigDict

from configs import base, presets
from configs.rules import ABOVE_0, FROM_0, OVER_GALLERY, RATE, Rule, at_least, each, one_of


def get_config(arg: str = "common") -> ConfigDict:
    """Returns the config of a preset, one of PRESETS; another name is a ValueError."""
    preset = presets.choose(arg or "common", PRESETS, "configs/srs.py")
    config = base.get_config()
    # What comes in is the conversation alone, and nobody's name.
    config.text.update({"speakers": "off", "knowledge": "off"})
    config.model.update(
        {
            "name": "srs",
            "joint_width": 200,  # channels of words and regions; 2h of the paper
            "utterances": 15,  # newest turns that are read
            "utterance_tokens": 32,  # of each turn, [CLS] and [SEP] included; 30 words
            # patches averaged to one region, along each side; 1 = each patch is a region
            "region_window": 1,  # not in the original, whose grid is 6 x 6
            "fusion_width": 100,  # channels of both encoders of the match vectors
            "fusion_heads": 4,
            "fusion_inner": 2048,  # channels of the feed-forward layers
            "fusion_layers": 2,  # of the self-attention encoder
            # True: pads are read and counted as words, as in the authors' code
            "original_masking": False,
        }
    )
    config.loss.update(
        {
            # own (hinge against drawn negatives) |
            # multi_positive | gold_softmax: over the gallery, as Int-RA's (docs/comparison.md)
            "retrieval": "own",
            "margin": 1.0,  # of the unbounded score
            "candidates": 10,  # stickers scored per conversation: the gold one and negatives
            # any_other_sticker | other_intent: what a negative is
            "negatives_from": "any_other_sticker",
            # From which every conversation draws its negatives; a loss over the gallery compares
            # each with all of them, and every pair runs through the network.
            "bank_size": 128,
            "lambda_ret": 1.0,
            "lambda_int": 1.0,
            "label_smoothing": 0.1,
        }
    )
    preset(config)
    return config.lock()


RULES: dict[str, Rule] = {
    "loss.retrieval": one_of("own", *OVER_GALLERY),
    **each(ABOVE_0, "model.utterances", "model.region_window", "model.fusion_width"),
    **each(ABOVE_0, "model.fusion_heads", "model.fusion_inner", "model.fusion_layers"),
    **each(FROM_0, "loss.margin", "loss.lambda_ret", "loss.lambda_int"),
    "model.utterance_tokens": at_least(3),
    "loss.candidates": at_least(2),
    "loss.negatives_from": one_of("any_other_sticker", "other_intent"),
    "loss.label_smoothing": RATE,
}


def _original(config: ConfigDict) -> None:
    presets.towers(config)
    config.model.dropout = 0.1
    # As many negatives as 32 conversations of 9 draw there.
    config.loss.bank_size = 288
    config.text.context_tokens = 466  # 15 turns of 30 words, which are cut to that each
    config.optim.update({"lr": 1e-4, "schedule": "linear"})
    config.train.update({"batch_size": 32, "epochs": 5.0, "eval_steps": 40})


def _original_stage1(config: ConfigDict) -> None:
    """The sticker side alone learns the stickers' intentions; the second run resumes from it."""
    _original(config)
    config.loss.lambda_ret = 0.0
    config.optim.update({"schedule": "constant", "frozen": (r"(?!image/|sticker_intention/).*",)})
    # One validation at the end: mAP says nothing about a stage that trains no score.
    config.train.update({"epochs": 30.0, "max_steps": 1000, "eval_steps": 0})


def _demo(config: ConfigDict) -> None:
    presets.demo(config)
    # Every pair runs through the network, so its width is what validation costs
    # (docs/baselines/srs.md has the figures). The others' 32 tokens hold two turns on average.
    config.model.update(
        {"joint_width": 64, "utterances": 3, "utterance_tokens": 24, "fusion_width": 32,
         "fusion_inner": 64, "fusion_layers": 1}
    )  # fmt: skip
    config.loss.bank_size = 64


def _smoke(config: ConfigDict) -> None:
    presets.smoke(config)
    config.model.update(
        {"utterances": 4, "utterance_tokens": 12, "fusion_width": 16, "fusion_heads": 2,
         "fusion_inner": 32}
    )  # fmt: skip
    config.loss.bank_size = 16


PRESETS: dict[str, presets.Preset] = {
    "original": _original,
    "original_stage1": _original_stage1,
    "common": presets.common,
    "demo": _demo,
    "smoke": _smoke,
}
