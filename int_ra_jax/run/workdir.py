"""A workdir, opened: everything about a run but its parameters.

Training creates the workdir and then opens it here, exactly as evaluation and retrieval do later
on any machine. A workdir stands alone: it holds the resolved config, the data set's records, the
tokenizer and the shapes of both towers.

    WORKDIR/config.json   data.json   tfds/   towers/{text,image}/   checkpoints/   metrics.jsonl
"""

import dataclasses
import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from flax import nnx
from ml_collections import ConfigDict

from int_ra_jax.common import config as configuration
from int_ra_jax.common import hosts
from int_ra_jax.common.files import replace_text
from int_ra_jax.common.model_directory import resolve_directory
from int_ra_jax.common.params import flatten, matching
from int_ra_jax.common.types import Bank, Labels
from int_ra_jax.data import sticker_int, text
from int_ra_jax.data.dataset import Dataset
from int_ra_jax.data.gallery import gallery_bank, training_texts
from int_ra_jax.data.tokenizer import Tokenizer, load_tokenizer, train_wordpiece
from int_ra_jax.models import interface, registry
from int_ra_jax.models.towers.bert import BertConfig
from int_ra_jax.models.towers.clip_vision import ClipVisionConfig
from int_ra_jax.models.towers.pretrained import load_tower_config
from int_ra_jax.run.array_store import ArrayStore
from int_ra_jax.run.checkpoint import Checkpoints
from int_ra_jax.run.checkpoint_record import check_fingerprint

PRIMARY_METRIC = "mAP"  # model selection, on the validation split only


@dataclass(frozen=True)
class Run:
    """An open workdir.

    Attributes:
      workdir: the directory.
      config: the resolved configuration.
      dataset: the data set.
      tokenizer: of the text tower.
      facts: shapes of the towers and counts of the data set.
      graphdef: structure of the system; ``interface.merge`` joins it with parameters.
      abstract_params: shapes of the parameters.
    """

    workdir: Path
    config: ConfigDict
    dataset: Dataset
    tokenizer: Tokenizer
    facts: interface.Facts
    graphdef: nnx.GraphDef
    abstract_params: interface.Params

    @cached_property
    def bank(self) -> Bank:
        """The gallery on the host."""
        return gallery_bank(
            self.dataset,
            self.tokenizer,
            self.config.data.image_size,
            self.config.text.attribute_tokens,
            self.config.data.frame,
            self.config.data.resize,
        )

    @cached_property
    def labels(self) -> Labels:
        """The intention names on the host."""
        names = [name.replace("_", " ") for name in self.dataset.intentions]
        return Labels(text.encode_names(self.tokenizer, names, self.config.text.name_tokens))

    @cached_property
    def shared(self) -> ArrayStore:
        """What runs on the same data share."""
        return ArrayStore(self.config.train.shared_cache)

    @property
    def grid(self) -> int:
        """Patches along one side of a sticker."""
        return self.facts.image.grid

    def checkpoints(self) -> Checkpoints:
        """Opens the checkpoints of the run; close them, or use them as a context manager."""
        return Checkpoints(
            self.workdir / "checkpoints",
            primary_metric=PRIMARY_METRIC,
            greater_is_better=True,
            keep_newest=self.config.checkpoint.keep_newest,
        )

    def restore_best(self, target: interface.Params | None = None) -> tuple[interface.Params, int]:
        """Returns the parameters of the best checkpoint by validation mAP, and their step.

        Where the run keeps a running average, the averaged ones. Falls back to the newest
        checkpoint where none was validated yet, and past a damaged one to the next best.

        Args:
          target: abstract parameters to read into, with their shardings; by default this run's
            own, on one device.

        Raises:
          FileNotFoundError: if the workdir has no complete checkpoint.
          ValueError: if the checkpoint was made under another configuration, or does not fit
            ``target``.
        """
        target = self.abstract_params if target is None else target
        averaged = self.trainable if self.config.train.ema_decay else frozenset()
        wanted = {
            f"ema/{path}" if path in averaged else f"params/{path}": leaf
            for path, leaf in flatten(target).items()
        }
        with self.checkpoints() as checkpoints:
            restored, step = checkpoints.restore_intact(
                "best", wanted, partial=True, accept=self.check
            )
            which = "best" if step == checkpoints.best_step() else "newest"
        logging.info("restored the %s checkpoint, step %d", which, step)
        leaves = [restored[name] for name in wanted]
        return jax.tree.unflatten(jax.tree.structure(target), leaves), step

    @property
    def trainable(self) -> frozenset[str]:
        """Paths of the parameters that are not frozen."""
        system = interface.merge(self.graphdef, self.abstract_params)
        frozen = (*self.config.optim.frozen, *system.frozen_patterns())
        paths = flatten(self.abstract_params).keys()
        return frozenset(paths - matching(self.abstract_params, frozen))

    def check(self, metadata: Mapping[str, Any]) -> None:
        """Raises if a checkpoint was made under another configuration or on other data."""
        check_fingerprint(metadata["fingerprint"], self.fingerprint)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What a checkpoint of this run depends on: config and data."""
        return {
            **configuration.fingerprint(self.config),
            "data.content_hash": self.dataset.content_hash,
        }


def create(config: ConfigDict, workdir: Path) -> Run:
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


def open_run(workdir: Path, dataset: Dataset | None = None) -> Run:
    """Opens a workdir that a training run has created.

    Args:
      workdir: the directory.
      dataset: its data set where it is open already.

    Raises:
      FileNotFoundError: if the workdir, or what it should hold, does not exist.
    """
    config = configuration.load(workdir)
    if dataset is None:
        place = json.loads((workdir / "data.json").read_text())
        records = Path(place["tfds_dir"]) if place["tfds_dir"] else workdir / "tfds"
        dataset = sticker_int.open_records(records, place["content_hash"])
    towers = workdir / "towers"
    _, intentions = dataset.targets(dataset.conversations("train"))
    tokenizer = load_tokenizer(str(towers / "text"))
    mask = -1 if tokenizer.mask_id is None else tokenizer.mask_id
    facts = interface.Facts(
        text=load_tower_config(towers / "text", "text"),
        image=load_tower_config(towers / "image", "image"),
        num_intentions=len(dataset.intentions),
        num_stickers=len(dataset.stickers),
        intention_counts=tuple(np.bincount(intentions, minlength=len(dataset.intentions)).tolist()),
        special_ids=interface.SpecialIds(
            tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id, mask
        ),
    )
    graphdef, abstract = registry.abstract(config, facts)
    return Run(workdir, config, dataset, tokenizer, facts, graphdef, abstract)


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
    description = {"content_hash": dataset.content_hash, "tfds_dir": place}
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
