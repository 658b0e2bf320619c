"""MOD: regress the features of the sticker to send (docs/baselines/mod.md).

    python launch.py --mode=train --config=configs/mod.py:demo --workdir=runs/mod \
        --config.data.prepared_dir=DIR

Presets: ``original`` (the numbers of its code), ``common`` (the recipe that all systems are
compared under), ``demo`` (the embedded data set in minutes on two cores), ``smoke`` (random tiny
towers; seconds).
"""

from collections.abc import Iterator

from ml_collections import ConfigDict

from configs import base, presets
from configs.rules import FROM_0, OVER_GALLERY, Rule, each, match_is_trained, one_of


def get_config(arg: str = "common") -> ConfigDict:
    """Returns the config of a preset, one of PRESETS; another name is a ValueError."""
    preset = presets.choose(arg or "common", PRESETS, "configs/mod.py")
    config = base.get_config()
    # regress: the image features of the sticker, nearest first | id: one class for each sticker
    config.model.update({"name": "mod", "head": "regress"})
    config.text.knowledge = "off"  # a baseline reads the conversation alone
    config.loss.update(
        {
            # own (regression, or the id's cross-entropy) |
            # multi_positive | gold_softmax: over the gallery, as Int-RA's (docs/comparison.md)
            "retrieval": "own",
            # sum | mean over the channels of ||r - f||^2; read where head=regress. The mean, as in
            # the original, vanishes beside the cross-entropy.
            "mse": "sum",
            "lambda_ret": 1.0,
            "lambda_int": 1.0,
        }
    )
    preset(config)
    # [SEP] behind the replying user's letter, where the original has its [TAG].
    config.model.text_pool = "last"
    # The features to regress must stay where they are.
    config.model.image.frozen_layers = -1
    return config.lock()


RULES: dict[str, Rule] = {
    "loss.retrieval": one_of("own", *OVER_GALLERY),
    **each(FROM_0, "loss.lambda_ret", "loss.lambda_int"),
    "model.head": one_of("regress", "id"),
    "loss.mse": one_of("sum", "mean"),
}


def _id_reads_no_picture(config: ConfigDict) -> Iterator[str]:
    if config.model.head == "id" and config.model.attributes == "on":
        yield (
            "model.head=id has one class for each sticker and reads nothing of it; use "
            "--config.model.head=regress, or model.attributes=off"
        )


COMBINATIONS = (match_is_trained, _id_reads_no_picture)


def _original(config: ConfigDict) -> None:
    """The numbers of the reference code, which adapts a GPT-2."""
    presets.towers(config)
    # One conversation at a time, eight added up to an update. The code adds where it should
    # average, which Adam takes no notice of and the clipping does.
    config.optim.update({"name": "adamw", "lr": 6e-5, "clip_norm": 1.0})
    config.train.update({"batch_size": 8, "epochs": 8.0})
    config.text.context_tokens = 500
    config.model.dropout = 0.1
    config.loss.mse = "mean"


def _demo(config: ConfigDict) -> None:
    presets.demo(config)
    # No CLIP weights come with a package, and the features of a random tower are all alike
    # (docs/baselines/mod.md): regressing them ranks by chance.
    config.model.head = "id"


PRESETS: dict[str, presets.Preset] = {
    "original": _original,
    "common": presets.common,
    "demo": _demo,
    "smoke": presets.smoke,
}
