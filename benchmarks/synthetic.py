"""Random inputs of the paper's sizes, so that benchmarks need neither data nor checkpoints.

Weights are random too: what a step costs depends on shapes alone. Every text is of full length and
no two attribute texts are equal unless asked for, so no contestant gains from padding.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from configs import int_ra
from int_ra_jax.common.types import Bank, Batch, Labels, Resident, Tokens
from int_ra_jax.models.interface import Facts, SpecialIds
from int_ra_jax.models.towers.bert import BertConfig
from int_ra_jax.models.towers.clip_vision import ClipVisionConfig

INTENTIONS = 27  # of the paper's data set, with names of 3 to 6 tokens
NAME_TOKENS = 6
ATTRIBUTES = 4
# bert-base-multilingual-cased and the vision tower of openai/clip-vit-base-patch32.
_PAPER = (BertConfig(vocab_size=119547), ClipVisionConfig())
_SMALL = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64,
}  # fmt: skip
_TINY = (
    BertConfig(vocab_size=128, max_position_embeddings=64, **_SMALL),
    ClipVisionConfig(image_size=32, patch_size=8, **_SMALL),
)


@dataclass(frozen=True)
class Problem:
    """What every contestant is given.

    Attributes:
      config: the resolved configuration.
      facts: shapes of the towers.
      resident: gallery and intention names, on the host.
      batch: conversations, on the host.
    """

    config: ConfigDict
    facts: Facts
    resident: Resident
    batch: Batch

    @property
    def tokens(self) -> int:
        """Text tokens of one training step against the batch's own stickers."""
        rows, length = self.batch.context.ids.shape
        attributes = rows * ATTRIBUTES * self.resident.bank.attributes.ids.shape[1]
        return int(rows * length + attributes + self.resident.labels.tokens.ids.size)


@dataclass(frozen=True)
class Peer:
    """How another framework builds and runs the model.

    Attributes:
      shapes: of the model, as ``peer_shapes`` returns them.
      weights: file.
      dtype: of the computation; bfloat16 by autocast.
      device: cpu or gpu.
      compiled: whether its compiler is used.
      compile_mode: of the compiler.
      kept: whether the C library keeps freed memory, as it does for ours.
    """

    shapes: dict[str, Any]
    weights: Path
    dtype: str = "float32"
    device: str = "cpu"
    compiled: bool = False
    compile_mode: str = "default"
    kept: bool = False


def make(
    preset: str,
    *,
    batch_size: int = 4,
    stickers: int = 64,
    distinct_attributes: int = 0,
    dtype: str = "float32",
    overrides: dict[str, Any] | None = None,
) -> Problem:
    """Returns a problem of fixed seed.

    Args:
      preset: paper, or tiny for tests.
      batch_size: conversations, whose gold stickers are all different where there are enough.
      stickers: in the gallery.
      distinct_attributes: attribute texts in all; 0 = four of its own for each sticker.
      dtype: of the computation.
      overrides: dotted key of the configuration -> value.
    """
    rng = np.random.default_rng(0)
    text, image = {"paper": _PAPER, "tiny": _TINY}[preset]
    config = int_ra.get_config("paper" if preset == "paper" else "smoke")
    # In-batch negatives and no cache of columns: what a user of PyTorch writes for a contrastive
    # step, and the same arithmetic for every contestant.
    config.update_from_flattened_dict(
        {"model.dtype": dtype, "loss.negatives": "in_batch", **(overrides or {})}
    )
    facts = Facts(
        text, image, INTENTIONS, stickers, (1,) * INTENTIONS, SpecialIds(0, 101, 102, 103)
    )
    side, budgets = image.image_size, config.text
    texts = distinct_attributes or ATTRIBUTES * stickers
    index = rng.permutation(np.arange(ATTRIBUTES * stickers) % texts)
    bank = Bank(
        pixels=rng.integers(0, 256, (stickers, side, side, 3), dtype=np.uint8),
        attributes=_tokens(rng, texts, budgets.attribute_tokens, text.vocab_size),
        attribute_index=index.reshape(stickers, ATTRIBUTES).astype(np.int32),
        attribute_mask=np.ones((stickers, ATTRIBUTES), bool),
        intentions=rng.random((stickers, INTENTIONS)) < 0.1,
        index=np.arange(stickers, dtype=np.int32),
    )
    names = _tokens(rng, INTENTIONS, NAME_TOKENS, text.vocab_size)
    lengths = rng.integers(3, NAME_TOKENS + 1, INTENTIONS)
    names = replace(names, mask=np.arange(NAME_TOKENS) < lengths[:, None])
    length = budgets.context_tokens + budgets.knowledge_tokens
    batch = Batch(
        context=_tokens(rng, batch_size, length, text.vocab_size, budgets.context_tokens),
        sticker=(rng.permutation(stickers)[np.arange(batch_size) % stickers]).astype(np.int32),
        intention=rng.integers(0, INTENTIONS, batch_size).astype(np.int32),
        example=np.arange(batch_size, dtype=np.int32),
        valid=np.ones(batch_size, bool),
    )
    return Problem(config, facts, Resident(bank, Labels(names)), batch)


def peer_shapes(problem: Problem) -> dict[str, Any]:
    """Returns what a model in another framework is built from, as plain data."""
    model, loss = problem.config.model, problem.config.loss
    text, image = asdict(problem.facts.text), asdict(problem.facts.image)
    text |= {"hidden_dropout_prob": model.dropout, "attention_probs_dropout_prob": model.dropout}
    return {
        "text": text,
        "image": image,
        "image_mean": image.pop("image_mean"),
        "image_std": image.pop("image_std"),
        "joint_width": model.joint_width,
        "heads": model.heads,
        "text_pool": model.text_pool,
        "intentions": problem.facts.num_intentions,
        "margin": loss.margin,
        "mask_same_intention": loss.mask_same_intention,
    }


def peer_batch(problem: Problem) -> dict[str, Any]:
    """Returns the inputs of one training step in plain NumPy, the batch's own stickers gathered."""
    batch, bank = problem.batch, problem.resident.bank
    return {
        "context": _peer_tokens(batch.context),
        "names": _peer_tokens(problem.resident.labels.tokens),
        "sticker": batch.sticker,
        "intention": batch.intention,
        "annotated": bank.intentions[batch.sticker],
        **peer_stickers(bank.rows(batch.sticker)),
    }


def peer_stickers(bank: Bank) -> dict[str, Any]:
    """Returns stickers in plain NumPy, channels first; texts that none of them has are left out."""
    texts, index = np.unique(bank.attribute_index, return_inverse=True)
    attributes = Tokens(*(leaf[texts] for leaf in vars(bank.attributes).values()))
    return {
        "pixels": np.ascontiguousarray(bank.pixels.transpose(0, 3, 1, 2)),
        "attributes": _peer_tokens(attributes),
        "index": index.reshape(bank.attribute_index.shape),
    }


def _peer_tokens(tokens: Tokens) -> dict[str, Any]:
    # Without padding no mask: attention then takes its fastest path.
    return {
        "ids": tokens.ids,
        "mask": None if tokens.mask.all() else tokens.mask,
        "type_ids": tokens.type_ids,
    }


def _tokens(
    rng: np.random.Generator, rows: int, length: int, vocabulary: int, first_type: int | None = None
) -> Tokens:
    """Returns random texts without padding (id 0): a turn, and knowledge from ``first_type`` on."""
    types = np.arange(length) >= (length if first_type is None else first_type)
    return Tokens(
        ids=rng.integers(1, vocabulary, (rows, length)).astype(np.int32),
        mask=np.ones((rows, length), bool),
        type_ids=np.broadcast_to(types, (rows, length)).astype(np.int32),
        turn=np.broadcast_to(~types, (rows, length)).astype(np.int32),
        words=np.ones((rows, length), bool),
    )
