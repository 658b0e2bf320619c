"""PCME: Gaussian embeddings of conversations and stickers (docs/baselines/pcme.md).

    python launch.py --mode=train --config=configs/pcme.py:demo --workdir=runs/pcme \
        --config.data.prepared_dir=DIR

Presets: ``common`` (the recipe that all systems are compared under), ``original_stage1`` and
``original`` (the recipe of the reference implementation for COCO on the paper's towers, in two
runs: the second with --config.checkpoint.resume_from=WORKDIR_OF_THE_FIRST), ``demo`` (the embedded
data set in minutes on two cores), ``smoke`` (random tiny towers; seconds).
"""

from ml_collections import ConfigDict

from configs import base, presets
from configs.rules import ABOVE_0, FROM_0, OVER_GALLERY, Rule, one_of


def get_config(arg: str = "common") -> ConfigDict:
    """Returns the config of a preset, one of PRESETS; another name is a ValueError."""
    preset = presets.choose(arg or "common", PRESETS, "configs/pcme.py")
    config = base.get_config()
    config.text.knowledge = "off"  # the baselines read the conversation alone
    config.model.update(
        {
            "name": "pcme",
            # what ranks: mean (of the Gaussians) | matmul (all pairs of samples, as the original's
            # config) | match_prob (of pairs of samples; compares pair by pair)
            "score": "mean",
            "samples": 7,  # J, of each Gaussian, in training and in evaluation
            # log scale at the start; 0 is the original's, whose samples lie sqrt(2 D) apart
            "logsig_bias": -4.0,
        }
    )
    config.loss.update(
        {
            # own (match probabilities of the batch's pairs) |
            # multi_positive | gold_softmax: over the gallery, as Int-RA's (docs/comparison.md)
            "retrieval": "own",
            "slope": 15.0,  # initial a of p = sigmoid(2 (b - a d)); learnt
            "shift": 15.0,  # initial b; learnt
            "beta": 1e-5,  # weight of the information bottleneck at a batch of 128
            "lambda_uniformity": 0.0,  # weight of the uniformity loss; 10 for CUB
            # code: log scale read as log variance in the bottleneck, as the original | correct
            "kl": "code",
            # which pairs match: diag (a conversation and its gold sticker) | label (any sticker
            # annotated with the conversation's intention in train)
            "match": "diag",
        }
    )
    preset(config)
    return config.lock()


RULES: dict[str, Rule] = {
    "loss.retrieval": one_of("own", *OVER_GALLERY),
    "model.score": one_of("mean", "matmul", "match_prob"),
    "model.samples": ABOVE_0,
    "loss.beta": FROM_0,
    "loss.lambda_uniformity": FROM_0,
    "loss.kl": one_of("code", "correct"),
    "loss.match": one_of("diag", "label"),
}


def _original(config: ConfigDict) -> None:
    # The second stage: everything trains, at a tenth of the first one's rate.
    presets.towers(config)
    config.model.logsig_bias = 0.0
    config.optim.update({"lr": 2e-5, "schedule": "cosine", "clip_norm": 2.0})
    config.train.update({"batch_size": 128, "epochs": 30.0, "eval_steps": 60})


def _original_stage1(config: ConfigDict) -> None:
    _original(config)
    config.model.text.frozen_layers = -1
    config.model.image.frozen_layers = -1
    config.optim.lr = 2e-4


PRESETS: dict[str, presets.Preset] = {
    "common": presets.common,
    "original_stage1": _original_stage1,
    "original": _original,
    "demo": presets.demo,
    "smoke": presets.smoke,
}
