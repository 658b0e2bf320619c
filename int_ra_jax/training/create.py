"""Creates the workdir of a run: all of it that does not change while training."""

import dataclasses
import difflib
import json
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from int_ra_jax.common import config as configuration
from int_ra_jax.common import hosts
from int_ra_jax.common.files import replace_text
from int_ra_jax.common.model_directory import resolve_directory
from int_ra_jax.data import sticker_int, text
from int_ra_jax.data.dataset import Dataset
from int_ra_jax.data.gallery import training_texts
from int_ra_jax.data.tokenizer import load_tokenizer, train_wordpiece
from int_ra_jax.models.towers.bert import BertConfig
from int_ra_jax.models.towers.clip_vision import ClipVisionConfig
from int_ra_jax.models.towers.shapes import load_tower_config
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
    _, intentions = dataset.targets(dataset.conversations("train"))
    counts = np.bincount(intentions, minlength=len(dataset.intentions)).tolist()
    description = {
        "content_hash": dataset.content_hash,
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
    names, image_names = config.model.text, config.model.image
    if names.source:
        load_tokenizer(names.source).save(towers / "text")
        text_shape = load_tower_config(names.source, "text")
        _check_vocabulary(names.source, towers / "text", text_shape)
    else:
        if not (towers / "text" / "tokenizer.json").is_file():
            texts = list(training_texts(dataset))
            train_wordpiece(texts, towers / "text", names.vocabulary)
            load_tokenizer(str(towers / "text")).save(towers / "text")
        text_shape = BertConfig(
            vocab_size=load_tokenizer(str(towers / "text")).vocab_size,
            hidden_size=names.width,
            num_hidden_layers=names.layers,
            num_attention_heads=names.heads,
            intermediate_size=4 * names.width,
            max_position_embeddings=text.context_length(config.text, dataset.has_knowledge),
        )
    if image_names.source:
        stored = load_tower_config(image_names.source, "image")
        image_shape = dataclasses.replace(stored, image_size=config.data.image_size)
    else:
        image_shape = ClipVisionConfig(
            hidden_size=image_names.width,
            num_hidden_layers=image_names.layers,
            num_attention_heads=image_names.heads,
            intermediate_size=4 * image_names.width,
            image_size=config.data.image_size,
            patch_size=image_names.patch,
        )
    for kind, model_type, shape in (
        ("text", "bert", text_shape),
        ("image", "clip_vision_model", image_shape),
    ):
        described = {"model_type": model_type, **dataclasses.asdict(shape)}
        replace_text(towers / kind / "config.json", json.dumps(described, indent=2) + "\n")


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
        near = difflib.get_close_matches(path.name, siblings, 1)
        if near:
            raise FileNotFoundError(
                f"no prepared directory at {path} (config.data.prepared_dir). "
                f"Did you mean {path.parent / near[0]}?"
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
