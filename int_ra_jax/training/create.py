"""Creates the workdir of a run: all of it that does not change while training."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from int_ra_jax.common import config as configuration
from int_ra_jax.common import hosts
from int_ra_jax.common.files import replace_text
from int_ra_jax.common.model_directory import resolve_directory
from int_ra_jax.common.nearest import nearest
from int_ra_jax.data import emoji_names, sticker_int, text
from int_ra_jax.data.dataset import Dataset
from int_ra_jax.data.emoji_language import names_for
from int_ra_jax.data.emoji_names import EmojiNames
from int_ra_jax.data.gallery import training_texts
from int_ra_jax.data.tokenizer import Tokenizer, load_tokenizer, train_wordpiece
from int_ra_jax.models.towers.bert import BertConfig
from int_ra_jax.models.towers.clip_vision import ClipVisionConfig
from int_ra_jax.models.towers.shapes import load_tower_config
from int_ra_jax.run.array_store import ArrayStore
from int_ra_jax.run.checkpoint_record import check_fingerprint
from int_ra_jax.run.workdir import Run, open_run


def create_workdir(config: ConfigDict, workdir: Path) -> Run:
    """Creates a workdir, or checks that it belongs to this config, and opens it.

    With several processes the first one creates, on a filesystem that all of them see.

    Args:
      config: validated configuration; ``data.prepared_dir`` is read here and never again.
      workdir: created if missing.

    Raises:
      FileNotFoundError: if the prepared directory or a tower's directory does not exist.
      ValueError: if the workdir holds a run of another configuration.
    """
    dataset = hosts.first_alone(lambda: _write(config, workdir))
    return open_run(workdir, dataset)


def _write(config: ConfigDict, workdir: Path) -> Dataset:
    """Writes all of a workdir that does not change while training, and returns its data set."""
    path = workdir / "config.json"
    if path.is_file():
        stored = configuration.fingerprint(configuration.load(workdir))
        _check_same_run(stored, configuration.fingerprint(config), workdir)
    _check_prepared(config.data.prepared_dir)
    for tower in (config.model.text, config.model.image):
        if tower.source:  # a missing tower is an error before anything is built
            resolve_directory(tower.source)
    records = Path(config.data.tfds_dir) if config.data.tfds_dir else workdir / "tfds"
    dataset = sticker_int.prepare(config.data.prepared_dir, records)
    if path.is_file():
        _check_same_data(dataset, config.data.prepared_dir, workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    if config.train.shared_cache:
        Path(config.train.shared_cache).mkdir(parents=True, exist_ok=True)
    # Records inside the workdir are not named: it may move.
    place = str(records.absolute()) if config.data.tfds_dir else ""
    whole, dataset = dataset, dataset.limited(config.train.rows)
    _, intentions = dataset.targets_of("train")
    counts = np.bincount(intentions, minlength=len(dataset.intentions)).tolist()
    description = {
        "content_hash": whole.content_hash,
        "tfds_dir": place,
        "intention_counts": counts,
    }
    replace_text(workdir / "data.json", json.dumps(description, indent=2) + "\n")
    _write_towers(config, dataset, workdir / "towers")
    configuration.save(config, path)
    return dataset


def _write_towers(config: ConfigDict, dataset: Dataset, towers: Path) -> None:
    """Leaves tokenizer and shapes of both towers in the workdir, so that it stands alone."""
    (towers / "text").mkdir(parents=True, exist_ok=True)
    (towers / "image").mkdir(parents=True, exist_ok=True)
    model = config.model
    if model.text.source:
        tokenizer = load_tokenizer(model.text.source)
        names = _emoji(config, dataset, towers / "text", tokenizer)
        tokenizer.with_emoji(names).save(towers / "text")
        text_shape = load_tower_config(model.text.source, "text")
        _check_vocabulary(model.text.source, towers / "text", text_shape)
    else:
        if not (towers / "text" / "tokenizer.json").is_file():
            _learn_vocabulary(config, dataset, towers / "text")
        text_shape = BertConfig(
            vocab_size=load_tokenizer(str(towers / "text")).vocab_size,
            hidden_size=model.text.width,
            num_hidden_layers=model.text.layers,
            num_attention_heads=model.text.heads,
            intermediate_size=4 * model.text.width,
            max_position_embeddings=text.context_length(config.text, dataset.has_knowledge),
        )
    if model.image.source:
        stored = load_tower_config(model.image.source, "image")
        image_shape = dataclasses.replace(stored, image_size=config.data.image_size)
    else:
        image_shape = ClipVisionConfig(
            hidden_size=model.image.width,
            num_hidden_layers=model.image.layers,
            num_attention_heads=model.image.heads,
            intermediate_size=4 * model.image.width,
            image_size=config.data.image_size,
            patch_size=model.image.patch,
        )
    for kind, model_type, shape in (
        ("text", "bert", text_shape),
        ("image", "clip_vision_model", image_shape),
    ):
        described = {"model_type": model_type, **dataclasses.asdict(shape)}
        replace_text(towers / kind / "config.json", json.dumps(described, indent=2) + "\n")


def _learn_vocabulary(config: ConfigDict, dataset: Dataset, directory: Path) -> None:
    """Learns the tokenizer of a text tower that has none, once for all runs that share a cache."""
    size = config.model.text.vocabulary

    def learn() -> np.ndarray:
        names = _emoji(config, dataset, directory)
        texts = list(training_texts(dataset))
        if names is not None:
            texts = [names.to_words(text) for text in texts]
            names.save(directory)
        train_wordpiece(texts, directory, size)
        load_tokenizer(str(directory)).save(directory)
        files = {path.name: path.read_text(encoding="utf-8") for path in directory.iterdir()}
        return np.frombuffer(json.dumps(files).encode(), np.uint8)

    def sources() -> list[str]:
        return [dataset.content_hash, str(size), config.text.emoji]

    store = ArrayStore(config.train.shared_cache)
    learnt = store.get("vocabulary", sources, learn)
    for name, content in json.loads(np.asarray(learnt).tobytes()).items():
        replace_text(directory / name, content)


def _emoji(
    config: ConfigDict, dataset: Dataset, tower: Path, tokenizer: Tokenizer | None = None
) -> EmojiNames | None:
    """The names in place of emoji, which stay as they are once a run has begun with them."""
    if config.text.emoji == "keep":
        return None
    return emoji_names.load(tower) or names_for(dataset, tokenizer)


def _check_vocabulary(source: str, tower: Path, shape: BertConfig) -> None:
    entries = load_tokenizer(str(tower)).vocab_size
    if entries > shape.vocab_size:  # an id outside the table would give NaN
        raise ValueError(
            f"{source}: the tokenizer has {entries} entries and the tower {shape.vocab_size} rows; "
            "their files are of different models."
        )


def _check_prepared(directory: str) -> None:
    if not directory:
        raise ValueError(
            "config.data.prepared_dir is empty; name a prepared directory with "
            "--config.data.prepared_dir=DIR (python -m data_prep.embedded makes one)."
        )
    path = Path(directory)
    if not path.is_dir() and path.parent.is_dir():
        siblings = [entry.name for entry in path.parent.iterdir() if entry.is_dir()]
        if near := nearest(path.name, siblings, cutoff=0.6):
            raise FileNotFoundError(
                f"no prepared directory at {path} (config.data.prepared_dir). "
                f"Did you mean {path.parent / near}?"
            )


def _check_same_data(dataset: Dataset, prepared_dir: str, workdir: Path) -> None:
    stored = json.loads((workdir / "data.json").read_text())["content_hash"]
    if stored != dataset.content_hash:
        raise ValueError(
            f"--workdir={workdir} holds a run on other data (content {stored[:16]}) than "
            f"{prepared_dir} holds now ({dataset.content_hash[:16]}). Start in another workdir."
        )


def _check_same_run(stored: dict[str, Any], current: dict[str, Any], workdir: Path) -> None:
    try:
        check_fingerprint(stored, current)
    except ValueError as error:
        raise ValueError(f"--workdir={workdir} holds a run of another config. {error}") from error
