"""LGUR (Shao et al. 2022) on the shared towers (docs/baselines/lgur.md explains each key).

    python launch.py --mode=train --config=configs/lgur.py:demo --workdir=runs/lgur \
        --config.data.prepared_dir=DIR

Presets: ``original`` (the numbers of the reference implementation), ``common`` (the recipe that all
systems are compared under), ``demo`` (the embedded data set in minutes on two cores), ``smoke``
(random tiny towers; seconds).
"""

from ml_collections import ConfigDict

from configs import base, presets
from configs.rules import (
    ABOVE_0,
    FROM_0,
    OVER_GALLERY,
    Rule,
    each,
    heads_divide_width,
    match_is_trained,
    one_of,
)


def get_config(arg: str = "common") -> ConfigDict:
    """Returns the config of a preset, one of PRESETS; another name is a ValueError."""
    preset = presets.choose(arg or "common", PRESETS, "configs/lgur.py")
    config = base.get_config()
    config.model.update(
        {
            "name": "lgur",
            "joint_width": 3072,  # all parts together: 6 of 512
            "parts": 6,  # queries of the decoder, and vectors a text or a sticker ends up as
            "token_width": 384,  # channels of words, patches, dictionary and queries
            "dictionary_size": 400,
            "heads": 6,  # of every attention
            "rebuild_head": 64,  # channels a head, rebuilding from the dictionary or a text
            "rebuild_ffn": 768,
            "decoder_head": 512,  # channels a head, in the two blocks that the queries read by
            "decoder_ffn": 512,
        }
    )
    config.text.knowledge = "off"  # the original reads the text alone
    config.optim.multipliers.fast = 1.0  # BiLSTM, part projections and classifiers
    config.loss.update(
        {
            # own (four ranking losses of the batch) |
            # multi_positive | gold_softmax: over the gallery, as Int-RA's (docs/comparison.md)
            "retrieval": "own",
            "margin": 0.3,  # cosine; also the width of the window that negatives are drawn from
            # which pairs are no negatives: intent (of the same intention) | sticker (the same one)
            "match_label": "intent",
            "include_hard": False,  # draw negatives that beat the positive too
            "lambda_ret": 1.0,  # of the four ranking losses, each a sum over the batch
            "lambda_int": 1.0,  # of the two intention losses, each a mean over the batch
        }
    )
    preset(config)
    return config.lock()


RULES: dict[str, Rule] = {
    "loss.retrieval": one_of("own", *OVER_GALLERY),
    **each(ABOVE_0, "model.parts", "model.token_width", "model.dictionary_size", "model.heads"),
    **each(ABOVE_0, "model.rebuild_head", "model.rebuild_ffn"),
    **each(ABOVE_0, "model.decoder_head", "model.decoder_ffn"),
    **each(FROM_0, "loss.margin", "loss.lambda_ret", "loss.lambda_int"),
    "loss.match_label": one_of("intent", "sticker"),
}
COMBINATIONS = (heads_divide_width, match_is_trained)


def _original(config: ConfigDict) -> None:
    presets.towers(config)
    config.model.text.frozen_layers = -1  # BERT is frozen in the reference
    config.text.context_tokens = 100
    # Adam with 1e-4, the role ``fast`` with 1e-3. The reference divides by 10 at epochs 20, 40 and
    # 50; the cosine stands in for these steps.
    config.optim.update({"name": "adam", "lr": 1e-4, "schedule": "cosine"})
    config.optim.multipliers.fast = 10.0
    config.train.update({"batch_size": 64, "epochs": 60.0, "eval_steps": 60})


def _demo(config: ConfigDict) -> None:
    presets.demo(config)
    config.model.update(
        {"parts": 4, "token_width": 64, "dictionary_size": 100, "heads": 4, "rebuild_head": 16,
         "rebuild_ffn": 128, "decoder_head": 16, "decoder_ffn": 128}
    )  # fmt: skip


def _smoke(config: ConfigDict) -> None:
    presets.smoke(config)
    config.model.update(
        {"parts": 2, "token_width": 16, "dictionary_size": 12, "heads": 2, "rebuild_head": 8,
         "rebuild_ffn": 32, "decoder_head": 8, "decoder_ffn": 32}
    )  # fmt: skip


PRESETS: dict[str, presets.Preset] = {
    "original": _original,
    "common": presets.common,
    "demo": _demo,
    "smoke": _smoke,
}
