"""The same model and the same step in PyTorch, as its users would write them.

Hugging Face's BertModel and CLIPVisionModel with SDPA attention, the paper's heads under the names
that our parameters have, and fused Adam, which updates all parameters in one pass. Inputs rest on
the device in the layout PyTorch likes. Texts without any padding are given without a mask, so that
attention takes its fastest path; bfloat16 is autocast over float32 parameters.
"""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from benchmarks.side_by_side import Prepared
from benchmarks.synthetic import Peer
from int_ra_jax.common import memory


class RelationAttention(nn.Module):
    """Attributes attend to image regions."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, attributes: torch.Tensor, regions: torch.Tensor) -> torch.Tensor:
        """Returns one vector per attribute [N, J, D]."""

        def by_head(x: torch.Tensor) -> torch.Tensor:
            return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

        mixed = functional.scaled_dot_product_attention(
            by_head(self.query(attributes)),
            by_head(self.key(regions)),
            by_head(self.value(regions)),
        )
        return self.out(mixed.transpose(1, 2).flatten(2))


class Relation(nn.Module):
    """A sticker's regions, weighed by what its attributes attend to."""

    def __init__(self, text_width: int, image_width: int, width: int, heads: int) -> None:
        super().__init__()
        self.f_vis = nn.Linear(image_width, width)
        self.f_des = nn.Linear(text_width, width)
        self.attention = RelationAttention(width, heads)

    def forward(self, regions: torch.Tensor, attributes: torch.Tensor) -> torch.Tensor:
        """Returns one vector per sticker [N, D]; every attribute is present."""
        regions = self.f_vis(regions)
        pooled = regions.float().mean(1)
        relations = self.attention(self.f_des(attributes), regions).float()
        return pooled + relations.amax(1) * pooled


class TorchIntRA(nn.Module):
    """Int-RA under the default readings, trained by the hinge loss on in-batch negatives.

    Args:
      shapes: ``text`` and ``image``, keyword arguments of the Hugging Face configs; ``image_mean``
        and ``image_std`` of the channels in [0, 1]; ``joint_width``, ``heads``, ``intentions``,
        ``margin``, ``text_pool`` and ``mask_same_intention``.
    """

    def __init__(self, shapes: Mapping[str, Any]) -> None:
        super().__init__()
        text = transformers.BertConfig(**shapes["text"], attn_implementation="sdpa")
        image = transformers.CLIPVisionConfig(**shapes["image"], attn_implementation="sdpa")
        width, joint = text.hidden_size, shapes["joint_width"]
        self.text = transformers.BertModel(text, add_pooling_layer=False)
        self.image = transformers.CLIPVisionModel(image)
        self.intention_classifier = nn.Linear(width, shapes["intentions"])
        self.intention_fuse = nn.Linear(2 * width, width)
        self.intention_norm = nn.LayerNorm(width, eps=1e-5)
        self.query_projection = nn.Linear(width, joint)
        self.relation = Relation(width, image.hidden_size, joint, shapes["heads"])
        self.margin, self.text_pool = shapes["margin"], shapes["text_pool"]
        self.mask_same_intention = shapes["mask_same_intention"]
        for name in ("image_mean", "image_std"):
            value = 255 * torch.tensor(shapes[name])[:, None, None]
            self.register_buffer(name, value, persistent=False)

    def read(self, tokens: Mapping[str, torch.Tensor | None]) -> torch.Tensor:
        """Returns one vector per text [N, Dt]."""
        mask = tokens["mask"]
        hidden = self.text(
            input_ids=tokens["ids"], attention_mask=mask, token_type_ids=tokens["type_ids"]
        ).last_hidden_state
        if self.text_pool == "cls":
            return hidden[:, 0]
        if mask is None:
            return hidden.mean(1)
        weight = mask[..., None].to(hidden.dtype)
        return (hidden * weight).sum(1) / weight.sum(1)

    def encode_sticker(
        self,
        pixels: torch.Tensor,
        attributes: Mapping[str, torch.Tensor | None],
        index: torch.Tensor,
    ) -> torch.Tensor:
        """Returns unit embeddings [N, D] of stickers.

        Args:
          pixels: u8[N, 3, S, S].
          attributes: the distinct attribute texts.
          index: i64[N, J] rows of them.
        """
        hidden = self.image((pixels - self.image_mean) / self.image_std).last_hidden_state
        regions = self.image.post_layernorm(hidden)[:, 1:]
        embedding = self.relation(regions, self.read(attributes)[index])
        return functional.normalize(embedding, dim=-1)

    def forward(self, given: Mapping[str, Any]) -> torch.Tensor:
        """Returns the loss of a batch."""
        h = self.read(given["context"])
        logits = self.intention_classifier(h).float()
        names = self.read(given["names"]).float()
        expected = (logits.softmax(1) @ names).to(h.dtype)
        fused = self.intention_fuse(torch.cat([h, expected], 1))
        query = functional.normalize(
            self.query_projection(self.intention_norm(fused)).float(), dim=-1
        )
        sticker = self.encode_sticker(given["pixels"], given["attributes"], given["index"])
        scores = query @ sticker.T
        gold, intention = given["sticker"], given["intention"]
        negative = gold[:, None] != gold[None, :]
        if self.mask_same_intention:
            negative = negative & ~given["annotated"][:, intention].T
        violations = functional.relu(self.margin - scores.diagonal()[:, None] + scores)
        retrieval = (violations * negative).sum() / negative.sum().clamp(min=1)
        return retrieval + functional.cross_entropy(logits, intention)


def load(peer: Peer, device: str) -> TorchIntRA:
    """Returns the model with the weights of the peer's file, which holds these and no others."""
    model = TorchIntRA(peer.shapes)
    model.load_state_dict(load_file(peer.weights), strict=True)
    return model.to(device)


def train(peer: Peer, inputs: Mapping[str, Any], lr: float, eps: float) -> Prepared:
    """Prepares training steps on one repeated batch; a run returns the loss before its update.

    Args:
      peer: how the model is built and run.
      inputs: of its forward pass, in NumPy.
      lr: of Adam.
      eps: of Adam.
    """
    place = _prepare(peer)
    model = load(peer, place)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, eps=eps, fused=True)
    loss_of = model
    if peer.compiled:
        loss_of = torch.compile(model, mode=peer.compile_mode, dynamic=False)
    given = to_device(inputs, place)

    def run() -> np.ndarray:
        optimizer.zero_grad(set_to_none=True)
        with _autocast(peer, place):
            loss = loss_of(given)
        loss.backward()
        optimizer.step()
        if place == "cuda":
            torch.cuda.synchronize()
        return loss.detach().float().cpu().numpy()

    return Prepared(run, {"threads": torch.get_num_threads()}, _device_memory(place))


def encode_gallery(peer: Peer, inputs: Mapping[str, Any], batch_size: int) -> Prepared:
    """Prepares the encoding of a whole gallery; a run returns its embeddings [N, D].

    Each batch reads its distinct attribute texts once.

    Args:
      peer: how the model is built and run.
      inputs: ``pixels``, the distinct ``attributes`` and ``index``, in NumPy.
      batch_size: stickers encoded at once.
    """
    place = _prepare(peer)
    encode = load(peer, place).eval().encode_sticker
    if peer.compiled:
        # The number of distinct texts differs from batch to batch.
        encode = torch.compile(encode, mode=peer.compile_mode, dynamic=None)
    batches = []
    for start in range(0, len(inputs["index"]), batch_size):
        rows = slice(start, start + batch_size)
        texts, index = np.unique(inputs["index"][rows], return_inverse=True)
        attributes = {
            key: None if leaf is None else leaf[texts] for key, leaf in inputs["attributes"].items()
        }
        index = index.reshape(inputs["index"][rows].shape)
        part = {"pixels": inputs["pixels"][rows], "attributes": attributes, "index": index}
        batches.append(to_device(part, place))

    def run() -> np.ndarray:
        with torch.inference_mode(), _autocast(peer, place):
            parts = [encode(**batch) for batch in batches]
        return torch.cat(parts).float().cpu().numpy()

    return Prepared(run, {"threads": torch.get_num_threads()}, _device_memory(place))


def to_device(inputs: Mapping[str, Any], device: str) -> dict[str, Any]:
    """Returns nested arrays as tensors; ids and indices as int64, as PyTorch wants them."""

    def tensor(leaf: Any) -> Any:
        if leaf is None:
            return None
        if isinstance(leaf, Mapping):
            return to_device(leaf, device)
        found = torch.as_tensor(np.ascontiguousarray(leaf))
        return (found.long() if found.dtype == torch.int32 else found).to(device)

    return {key: tensor(leaf) for key, leaf in inputs.items()}


def _prepare(peer: Peer) -> str:
    """Sets PyTorch up as the peer wants it, and returns the name that it has for the device."""
    if peer.kept:
        memory.keep_freed()
    if peer.device == "cpu":
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        return "cpu"
    # JAX's default for float32 matmuls on a GPU as well.
    torch.set_float32_matmul_precision("high")
    return "cuda"


def _autocast(peer: Peer, place: str) -> torch.autocast:
    return torch.autocast(place, dtype=torch.bfloat16, enabled=peer.dtype == "bfloat16")


def _device_memory(place: str) -> Any:
    return torch.cuda.max_memory_allocated if place == "cuda" else None
