"""A workdir, opened: everything about a run but its parameters.

Training creates the workdir and then opens it here, exactly as evaluation and retrieval do later
on any machine. A workdir stands alone: it holds the resolved config, the data set's records, the
tokenizer and the shapes of both towers.

    WORKDIR/config.json   data.json   tfds/   towers/{text,image}/   checkpoints/   metrics.jsonl
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from absl import logging
from flax import nnx
from ml_collections import ConfigDict

from int_ra_jax.common import config as configuration
from int_ra_jax.common.params import flatten, matching
from int_ra_jax.common.types import Bank, Labels, Tokens
from int_ra_jax.data import text
from int_ra_jax.data.dataset import Dataset
from int_ra_jax.data.records import open_records
from int_ra_jax.data.tokenizer import Tokenizer, load_tokenizer
from int_ra_jax.models import interface, registry
from int_ra_jax.models.towers.shapes import load_tower_config
from int_ra_jax.run.array_store import ArrayStore
from int_ra_jax.run.checkpoint import Checkpoints
from int_ra_jax.run.checkpoint_record import check_fingerprint

if TYPE_CHECKING:  # a search reads no split
    from int_ra_jax.data.batches import Composed

SEARCH = "search"  # folder of a workdir: what a search would otherwise compute at every start
_PACKAGE = Path(__file__).parents[1]
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
        # Here, because a search in a gallery that is kept encoded reads no picture.
        from int_ra_jax.data.gallery import gallery_bank

        return gallery_bank(
            self.dataset,
            self.tokenizer,
            self.config.data.image_size,
            self.config.text.attribute_tokens,
            self.config.data.frame,
            self.config.data.resize,
            self.annotations,
        )

    @cached_property
    def annotations(self) -> np.ndarray:
        """With which intentions train annotates each sticker, bool[N, K]."""
        from int_ra_jax.data.gallery import relevance_annotations

        # Training leaves them, so that the first search need not read all of train.
        found = self.kept.get(
            "annotations",
            lambda: [self.dataset.content_hash, *self.code(("data/gallery.py",))],
            lambda: relevance_annotations(self.dataset, ("train",)),
        )
        return np.asarray(found)

    @cached_property
    def labels(self) -> Labels:
        """The intention names on the host."""
        names = [name.replace("_", " ") for name in self.dataset.intentions]
        return Labels(text.encode_names(self.tokenizer, names, self.config.text.name_tokens))

    @cached_property
    def system(self) -> interface.System:
        """The system with the shapes of its parameters: for what it says of itself."""
        system: interface.System = interface.merge(self.graphdef, self.abstract_params)
        return system

    @cached_property
    def shared(self) -> ArrayStore:
        """What runs on the same data share."""
        return ArrayStore(self.config.train.shared_cache)

    @cached_property
    def kept(self) -> ArrayStore:
        """What a search would otherwise compute at every start."""
        folder = self.workdir / SEARCH
        with contextlib.suppress(OSError):
            folder.mkdir(exist_ok=True)
        return ArrayStore(str(folder))

    @property
    def keeps_frozen(self) -> bool:
        """Whether the frozen text layers' output of whole splits is kept."""
        return self.config.train.cache_frozen and self.system.text_frozen > 0

    def composed(self, split: str) -> "Composed | None":
        """Returns a split as the text tower reads it, where that is kept.

        That is where the frozen layers' output is kept, beside which tokens are nothing; None
        elsewhere. It is taken from ``train.shared_cache`` where another run has left it there.
        """
        if not self.keeps_frozen:
            return None
        if split not in self._composed:
            # Here, because a search reads no split.
            from int_ra_jax.data import batches

            def compute() -> dict[str, np.ndarray]:
                of_split = self.dataset, self.tokenizer, self.config.text, split
                composed = batches.compose_split(*of_split)
                targets = {"sticker": composed.sticker, "intention": composed.intention}
                unread = composed.unread.to_array()
                return {**vars(composed.tokens), **targets, "unread": unread}

            def sources() -> Iterator[str | bytes]:
                yield from self.texts(split)
                yield from self.code(("data/batches.py",))

            kept = {
                name: np.asarray(leaf)
                for name, leaf in self.shared.get_all(f"tokens-{split}", sources, compute).items()
            }
            unread = text.Unread.from_array(kept.pop("unread"))
            targets = kept.pop("sticker"), kept.pop("intention")
            self._composed[split] = batches.Composed(Tokens(**kept), *targets, unread)
        return self._composed[split]

    @cached_property
    def _composed(self) -> "dict[str, Composed]":
        return {}

    def sources(self, rooms: tuple[str, ...]) -> Iterator[str | bytes]:
        """Yields what a result depends on besides arrays: the run, versions, the code of rooms."""
        yield json.dumps(self.fingerprint, sort_keys=True, default=list)
        yield from self.code(rooms)

    def texts(self, split: str) -> Iterator[str | bytes]:
        """Yields what the tokens of a split's conversations depend on."""
        read = {key: self.config.text[key] for key in ("context_tokens", "speakers")}
        if self.dataset.has_knowledge:
            read |= {key: self.config.text[key] for key in ("knowledge", "knowledge_tokens")}
        yield f"{self.dataset.content_hash} {split} {json.dumps(read, sort_keys=True)}"
        for file in sorted((self.workdir / "towers" / "text").iterdir()):
            yield file.name
            yield file.read_bytes()
        yield from self.code(("data/text.py", "data/tokenizer.py", "data/emoji_names.py"))

    def code(self, places: tuple[str, ...]) -> Iterator[str | bytes]:
        """Yields the versions of what computes, and the code of rooms and files of the package."""
        named = " ".join(f"{name} {version(name)}" for name in ("jax", "jaxlib", "flax", "pillow"))
        yield f"{named} {jax.default_backend()}"
        found = (_PACKAGE / place for place in places)
        files = (
            file for path in found for file in (path.rglob("*.py") if path.is_dir() else [path])
        )
        for file in sorted(files):
            yield file.read_bytes()

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
        frozen = (*self.config.optim.frozen, *self.system.frozen_patterns())
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


def open_run(workdir: Path, dataset: Dataset | None = None) -> Run:
    """Opens a workdir that a training run has created.

    Args:
      workdir: the directory.
      dataset: its data set where it is open already.

    Raises:
      FileNotFoundError: if the workdir, or what it should hold, does not exist.
    """
    config = configuration.load(workdir)
    place = json.loads((workdir / "data.json").read_text())
    if dataset is None:
        directory = Path(place["tfds_dir"]) if place["tfds_dir"] else workdir / "tfds"
        dataset = open_records(directory, place["content_hash"]).limited(config.train.rows)
    towers = workdir / "towers"
    counts = place.get("intention_counts")
    if counts is None:  # a workdir from before they were noted
        _, intentions = dataset.targets(dataset.conversations("train"))
        counts = np.bincount(intentions, minlength=len(dataset.intentions)).tolist()
    tokenizer = load_tokenizer(str(towers / "text"))
    mask = -1 if tokenizer.mask_id is None else tokenizer.mask_id
    facts = interface.Facts(
        text=load_tower_config(towers / "text", "text"),
        image=load_tower_config(towers / "image", "image"),
        num_intentions=len(dataset.intentions),
        num_stickers=len(dataset.stickers),
        intention_counts=tuple(counts),
        special_ids=interface.SpecialIds(
            tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id, mask
        ),
    )
    graphdef, abstract = registry.abstract(config, facts)
    return Run(workdir, config, dataset, tokenizer, facts, graphdef, abstract)
