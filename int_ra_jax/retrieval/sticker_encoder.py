"""New stickers through a run's own encoder: a picture and attributes in, numbers out.

A system's encoded sticker may have several parts (SRS compares regions). They lie behind each other
in one row of numbers, which is what a gallery stores; ``Layout`` takes it apart again.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Float32

from int_ra_jax.common.params import flatten
from int_ra_jax.common.types import ATTRIBUTES, Bank, Sticker
from int_ra_jax.data import images
from int_ra_jax.data.gallery import FRAMES
from int_ra_jax.data.schema import StickerEntry
from int_ra_jax.data.text import encode_attributes
from int_ra_jax.models.interface import Params
from int_ra_jax.retrieval import words
from int_ra_jax.retrieval.gallery_rows import called
from int_ra_jax.retrieval.intention_guess import GUESS_VERSION, IntentionGuess
from int_ra_jax.retrieval.stickers import GallerySticker
from int_ra_jax.run.array_store import digest
from int_ra_jax.run.encode import Encoder
from int_ra_jax.run.row_chunks import chunk_rows
from int_ra_jax.run.workdir import Run, open_run

_FEW = (1, 8)  # stickers that are encoded by programs of their own


@dataclass(frozen=True)
class Layout:
    """How the parts of an encoded sticker lie in one row of numbers.

    Attributes:
      kind: what the system's encoder returns.
      shapes: part -> its shape for one sticker, in order.
    """

    kind: type[Sticker]
    shapes: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, encoded: Sticker) -> "Layout":
        """Returns the layout of encoded stickers, every part [N, ...]."""
        parts = {name: leaf for name, leaf in vars(encoded).items() if leaf is not None}
        return cls(type(encoded), {name: tuple(leaf.shape[1:]) for name, leaf in parts.items()})

    @property
    def width(self) -> int:
        """W, numbers of a row."""
        return sum(int(np.prod(shape)) for shape in self.shapes.values())

    @property
    def is_vector(self) -> bool:
        """Whether the row is the embedding and nothing else."""
        return tuple(self.shapes) == ("embedding",)

    def rows(self, encoded: Sticker) -> Float32[np.ndarray, "N W"]:
        """Returns encoded stickers as rows."""
        parts = [np.asarray(getattr(encoded, name), np.float32) for name in self.shapes]
        return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)

    def encoded(self, rows: Any) -> Sticker:
        """Returns rows [N, W] as encoded stickers; inverse of ``rows``."""
        parts, start = {}, 0
        for name, shape in self.shapes.items():
            end = start + int(np.prod(shape))
            parts[name] = rows[:, start:end].reshape(-1, *shape)
            start = end
        return self.kind(**parts)


class Encoded(NamedTuple):
    """Stickers as numbers.

    Attributes:
      rows: f32[N, W], what a conversation is compared with; see ``Layout``.
      intentions: f32[N, K], the probabilities that stand in them.
      said: f32[N, Dt], unit vectors of what they are called, with which typed words are compared.
    """

    rows: np.ndarray
    intentions: np.ndarray
    said: np.ndarray


class StickerEncoder:
    """Encodes stickers that a run has never seen, as it encodes those of its own gallery.

    Args:
      run: the open run.
      params: of its system.

    Raises:
      ValueError: if the system knows the stickers of its training alone.
    """

    def __init__(self, run: Run, params: Params) -> None:
        if not run.system.encodes_unseen:
            raise ValueError(
                f"{run.workdir}: this system ({run.config.model.name}) tells stickers by a "
                "classifier over those of its training, and cannot embed others. Use its own "
                "gallery, or a run of another system."
            )
        self.run = run
        self.params = jax.device_put(params)
        self._encoder = Encoder(run)

    @classmethod
    def from_workdir(cls, workdir: str | Path) -> "StickerEncoder":
        """Loads the best checkpoint of a run.

        Raises:
          FileNotFoundError: if the workdir or its checkpoint does not exist.
          ValueError: if its system knows the stickers of its training alone.
        """
        run = open_run(Path(workdir))
        return cls(run, run.restore_best()[0])

    @cached_property
    def checksum(self) -> str:
        """Of what decides an embedding: config, data and parameters; in hexadecimal."""
        return checksum(self.run, self.params)

    @cached_property
    def layout(self) -> Layout:
        """How the parts of an encoded sticker lie in a row."""
        bank = self._bank([GallerySticker("")], np.zeros((1, *self._pixels), np.uint8), 1)
        return Layout.of(jax.eval_shape(self._encoder.newcomers, self.params, bank))

    def encode(self, stickers: Sequence[GallerySticker]) -> Encoded:
        """Returns stickers as numbers.

        Intentions that a person gave are taken as they are; the others are predicted.

        Args:
          stickers: N of them, with pictures that ``completion`` has accepted.

        Raises:
          ValueError: if an embedding is not finite, with the sticker's id.
        """
        count = len(stickers)
        if not count:
            width = self.run.facts.text.hidden_size
            none = np.zeros((0, max(self.layout.width, width)), np.float32)
            return Encoded(none[:, : self.layout.width], self.intentions([]), none[:, :width])
        known = self.intentions(stickers)
        pixels = np.stack([self._load(one.picture) for one in stickers])
        sizes = (*_FEW, self.run.config.eval.sticker_batch_size)
        size = next((size for size in sizes if count <= size), sizes[-1])
        parts = []
        for chunk in chunk_rows(count, size):
            bank = self._bank([stickers[row] for row in chunk], pixels[chunk], size)
            bank = dataclasses.replace(bank, intentions=known[chunk])
            encoded = self._encoder.newcomers(self.params, jax.device_put(bank))
            parts.append(self.layout.rows(jax.device_get(encoded)))
        rows = np.concatenate(parts)[:count]
        broken = [
            one.id for one, row in zip(stickers, rows, strict=True) if not np.isfinite(row).all()
        ]
        if broken:
            raise ValueError(f"no finite embedding of {', '.join(broken)}")
        return Encoded(rows, known, self.said(stickers))

    def attention(self, sticker: GallerySticker) -> dict[str, Float[np.ndarray, "g g"]]:
        """Returns where in its picture each attribute of a sticker looks.

        Args:
          sticker: with a picture that ``completion`` has accepted.

        Returns:
          Attribute that the sticker has -> its attention to each patch of the square picture, row
          by row from the top left; none where the system's attributes do not attend to regions.
        """
        bank = self._bank([sticker], self._load(sticker.picture)[None], 1)
        maps = self._encoder.newcomers_maps(self.params, jax.device_put(bank))
        if maps is None:
            return {}
        grid = self.run.grid
        found = np.asarray(maps[0], np.float32).reshape(len(ATTRIBUTES), grid, grid)
        has = np.asarray(bank.attribute_mask)[0]
        return {name: found[row] for row, name in enumerate(ATTRIBUTES) if has[row]}

    def warm_attention(self) -> None:
        """Compiles what ``attention`` needs."""
        bank = self._bank([GallerySticker("")], np.zeros((1, *self._pixels), np.uint8), 1)
        self._encoder.newcomers_maps(self.params, jax.device_put(bank))

    def warm(self) -> None:
        """Compiles and loads what ``encode`` needs for one sticker, whatever is said of it."""
        self._encoder.warm_text_means(self.params)
        self._guess([""])
        bank = self._bank([GallerySticker("")], np.zeros((1, *self._pixels), np.uint8), 1)
        self._encoder.newcomers(self.params, jax.device_put(bank))

    def said(self, stickers: Sequence[GallerySticker]) -> Float32[np.ndarray, "N Dt"]:
        """Returns what stickers are called, as the text tower reads it; see ``Encoded``."""
        texts = [words.described(**called(one), languages=self._languages) for one in stickers]
        return _unit(self._encoder.text_means(self.params, texts))

    @cached_property
    def _languages(self) -> tuple[str, ...]:
        return words.languages_of(self.run.tokenizer)

    def intentions(self, stickers: Sequence[GallerySticker]) -> Float32[np.ndarray, "N K"]:
        """Returns the probability of each intention: as given, else guessed.

        A sticker without attributes has none; see ``IntentionGuess`` for that of others.
        """
        names = self.run.dataset.intentions
        found = np.zeros((len(stickers), len(names)), np.float32)
        told = [
            n for n, one in enumerate(stickers) if one.intentions is None and _said(one.attributes)
        ]
        for row, one in enumerate(stickers):
            for name, probability in (one.intentions or {}).items():
                if name in self.run.dataset.intention_ids:
                    found[row, self.run.dataset.intention_ids[name]] = probability
        if told:
            found[told] = self._guess([_said(stickers[row].attributes) for row in told])
        return found

    def _guess(self, texts: Sequence[str]) -> Float[np.ndarray, "N K"]:
        return self._known(self._encoder.text_means(self.params, texts))

    @cached_property
    def _known(self) -> IntentionGuess:
        return IntentionGuess(*self.described(), self.named())

    def described(self) -> tuple[Float32[np.ndarray, "M Dt"], Bool[np.ndarray, "M K"]]:
        """Returns the features of the run's own stickers' attributes, and train's annotations.

        Stickers without attributes are left out; of the others some may have no annotation.
        """
        dataset = self.run.dataset
        rows = [n for n, one in enumerate(dataset.stickers) if _said(one.attributes)]
        if not rows:
            none = np.zeros((0, len(dataset.intentions)), bool)
            return np.zeros((0, self.run.facts.text.hidden_size), np.float32), none
        texts = [_said(dataset.stickers[row].attributes) for row in rows]
        return self._encoder.text_means(self.params, texts), np.asarray(self.run.annotations)[rows]

    def named(self) -> Float32[np.ndarray, "K Dt"]:
        """Returns the features of the intentions' names."""
        names = [name.replace("_", " ") for name in self.run.dataset.intentions]
        return self._encoder.text_means(self.params, names)

    @property
    def _pixels(self) -> tuple[int, ...]:
        data = self.run.config.data
        several = (FRAMES,) if data.frame == "mean" else ()
        return (*several, data.image_size, data.image_size, 3)

    def _load(self, picture: bytes) -> np.ndarray:
        data = self.run.config.data
        if data.frame == "mean":
            return images.load_frames(picture, data.image_size, FRAMES, data.resize)
        return images.load_pixels(picture, data.image_size, data.frame, data.resize)

    def _bank(self, stickers: Sequence[GallerySticker], pixels: np.ndarray, size: int) -> Bank:
        """Returns a bank whose shapes depend on the number of stickers alone."""
        run = self.run
        entries = [StickerEntry(one.id, "", one.attributes) for one in stickers]
        texts, index, mask = encode_attributes(
            run.tokenizer, entries, run.config.text.attribute_tokens
        )
        missing = len(ATTRIBUTES) * size - len(texts.ids)
        texts = jax.tree.map(lambda leaf: np.pad(leaf, ((0, missing), (0, 0)), "edge"), texts)
        return Bank(
            pixels=pixels,
            attributes=texts,
            attribute_index=index,
            attribute_mask=mask,
            intentions=np.zeros((len(stickers), run.facts.num_intentions), np.float32),
            # A system that draws, draws alike for one sticker wherever it stands.
            index=np.array([_number(one.id) for one in stickers], np.int32),
        )


def checksum(run: Run, params: Params) -> str:
    """Returns the hash of what decides an embedding: config, data, parameters, how it guesses."""

    def sources() -> Iterator[str | np.ndarray]:
        yield json.dumps(run.fingerprint, sort_keys=True, default=list)
        yield f"intentions guessed in way {GUESS_VERSION}"
        for path, leaf in sorted(flatten(params).items()):
            yield path
            yield np.asarray(leaf)

    return digest(sources())


def _said(attributes: Mapping[str, str]) -> str:
    return ", ".join(filter(None, (attributes.get(name, "").strip() for name in ATTRIBUTES)))


def _number(identity: str) -> int:
    return int(digest([identity])[:7], 16)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
