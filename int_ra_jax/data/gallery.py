"""What a model may read of the gallery, as numpy arrays: pixels, attributes, annotations."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from absl import logging
from jaxtyping import Bool

from int_ra_jax.common.types import ATTRIBUTES, Bank
from int_ra_jax.data import images
from int_ra_jax.data.dataset import Dataset
from int_ra_jax.data.text import encode_attributes, join_knowledge
from int_ra_jax.data.tokenizer import Tokenizer

FRAMES = 4  # of each sticker, where an animation is the mean of its frames
_LOG_EVERY = 500


def gallery_bank(
    dataset: Dataset,
    tokenizer: Tokenizer,
    image_size: int,
    attribute_tokens: int,
    frame: str = "first",
    resize: str = "squeeze",
    annotations: Bool[np.ndarray, "N K"] | None = None,
) -> Bank:
    """Decodes and tokenises the gallery, once for a whole run.

    Args:
      dataset: the built data set.
      tokenizer: of the text tower.
      image_size: S, pixels.
      attribute_tokens: A.
      frame: of animated stickers; see ``images.load_pixels``. "mean" reads ``FRAMES`` of each.
      resize: how a sticker becomes a square; likewise.
      annotations: ``relevance_annotations`` of train where they are known: all of train is read
        for them otherwise.

    Returns:
      A Bank of the N stickers, numpy leaves. Its intentions are those of the training
      conversations alone.
    """
    count = len(dataset.stickers)
    several = (FRAMES,) if frame == "mean" else ()
    pixels = np.empty((count, *several, image_size, image_size, 3), np.uint8)

    def load(row: int) -> None:
        image = dataset.image(row)
        if several:
            pixels[row] = images.load_frames(image, image_size, FRAMES, resize)
        else:
            pixels[row] = images.load_pixels(image, image_size, frame, resize)

    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter lock
        for done, _ in enumerate(pool.map(load, range(count)), start=1):
            if done % _LOG_EVERY == 0:
                logging.info("Data: %d of %d stickers decoded", done, count)
    if annotations is None:
        annotations = relevance_annotations(dataset, ("train",))
    attributes, index, mask = encode_attributes(tokenizer, dataset.stickers, attribute_tokens)
    return Bank(
        pixels=pixels,
        attributes=attributes,
        attribute_index=index,
        attribute_mask=mask,
        intentions=annotations,
        index=np.arange(count, dtype=np.int32),
    )


def relevance_annotations(
    dataset: Dataset, splits: Sequence[str], gallery: bool = False
) -> Bool[np.ndarray, "N K"]:
    """Collects with which intentions each sticker is annotated.

    Args:
      dataset: the built data set.
      splits: whose conversations to count; never one whose figures a model is to be judged by.
      gallery: also count the intentions that stickers.jsonl itself states. Only for data sets
        whose card says that they do not come from valid or test conversations.

    Returns:
      [N, K], True where a conversation of these splits has that sticker under that intention, or
      the gallery states it.
    """
    annotated = np.zeros((len(dataset.stickers), len(dataset.intentions)), np.bool_)
    for split in splits:
        annotated[dataset.targets_of(split)] = True
    if gallery:
        for row, sticker in enumerate(dataset.stickers):
            annotated[row, [dataset.intention_ids[name] for name in sticker.intentions]] = True
    return annotated


def training_texts(dataset: Dataset) -> Iterator[str]:
    """Yields every text a model may read in training, for learning a vocabulary from.

    Turns and knowledge of the training split, the gallery's attributes, and the intention names;
    valid and test conversations stay unseen.
    """
    for conversation in dataset.conversations("train"):
        yield from (turn.text for turn in conversation.turns)
        yield join_knowledge(conversation)
    for sticker in dataset.stickers:
        yield from (sticker.attributes[name] for name in ATTRIBUTES)
    yield from dataset.intentions
