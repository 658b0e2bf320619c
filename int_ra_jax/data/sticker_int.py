"""The TFDS builder: a prepared directory becomes random-access records.

Conversations and the gallery are two configurations of one builder, in ArrayRecord files that are
addressed by row. The configuration's name carries the hash of the prepared directory: a directory
that changed is another configuration, so nothing stale is ever read.
"""

import contextlib
import dataclasses
import functools
import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from absl import logging

from int_ra_jax.common import process_memory
from int_ra_jax.data import schema
from int_ra_jax.data.chunks import Chunk, conversations, cut
from int_ra_jax.data.dataset import Dataset
from int_ra_jax.data.records import (
    BUILDER,
    BUILT_VERSION,
    CONVERSATIONS,
    GALLERY,
    config_name,
    found_builders,
    opened,
    seal,
)
from int_ra_jax.data.schema import StickerEntry
from int_ra_jax.data.tensorflow_runtime import tf, tfds
from int_ra_jax.data.validation import Inspection, read_outline

# Parquet loses rows, and tfrecord has no random access.
_FILE_FORMAT = "array_record"


@dataclasses.dataclass(eq=False, kw_only=True)
class StickerIntConfig(tfds.core.BuilderConfig):
    """Which half of which prepared directory to build."""

    kind: str
    # Kept out of the repr, which TFDS logs.
    outline: Inspection = dataclasses.field(repr=False)
    content_hash: str
    beam: bool = False  # whether Apache Beam makes the records


class StickerInt(tfds.core.GeneratorBasedBuilder):
    """Conversations answered with stickers, or the gallery they are answered from."""

    VERSION = tfds.core.Version(BUILT_VERSION)
    RELEASE_NOTES: ClassVar = {
        BUILT_VERSION: "One JSON object per record, as in the prepared directory."
    }
    name = BUILDER

    def _info(self) -> tfds.core.DatasetInfo:
        outline = self.builder_config.outline
        prepared = outline.prepared
        if self.builder_config.kind == CONVERSATIONS:
            features = {
                "id": tfds.features.Text(),
                "conversation": tfds.features.Text(doc="the JSON object, unknown keys included"),
                "sticker": tfds.features.Scalar(tf.int64, doc="row of the gallery"),
                "intention": tfds.features.ClassLabel(names=list(prepared.intentions)),
            }
        else:
            features = {
                "id": tfds.features.Text(),
                "sticker": tfds.features.Text(doc="the JSON object, unknown keys included"),
                "image": tfds.features.Scalar(tf.string, doc="the image file's own bytes"),
            }
        metadata = {
            "content_hash": self.builder_config.content_hash,
            "intentions": list(prepared.intentions),
            "has_knowledge": outline.has_knowledge,
            "info": dict(prepared.info),
        }
        metadata["seal"] = seal(metadata)
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{self.builder_config.kind} of {prepared.info['name']}",
            license=prepared.info["licence"],
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(metadata),
            disable_shuffling=True,  # row i of the records is row i of the file
        )

    def _split_generators(self, dl_manager: Any) -> Mapping[str, Any]:
        del dl_manager  # nothing is downloaded
        config = self.builder_config
        prepared = config.outline.prepared
        if config.kind == GALLERY:
            examples = functools.partial(_sticker_examples, prepared.path)
            return {GALLERY: self._generate_examples(enumerate(prepared.stickers), examples)}
        path = prepared.path / schema.CONVERSATIONS_FILE
        rows = {sticker.id: row for row, sticker in enumerate(prepared.stickers)}
        return {
            split: self._generate_examples(
                cut(path), functools.partial(_conversation_examples, split, rows)
            )
            for split in schema.SPLITS
        }

    def _generate_examples(self, pieces: Iterable[Any], examples: Callable[[Any], Any]) -> Any:
        """Yields keys and examples of each piece, or returns the Beam transform that does."""
        if not self.builder_config.beam:
            return itertools.chain.from_iterable(map(examples, pieces))
        import apache_beam as beam

        # Reshuffled, since a runner otherwise reads all pieces where it was given their list.
        return beam.Create(list(pieces)) | beam.Reshuffle() | beam.FlatMap(examples)


def _conversation_examples(
    split: str, sticker_rows: Mapping[str, int], chunk: Chunk
) -> Iterator[tuple[int, dict[str, Any]]]:
    for row, conversation in conversations(chunk, split):
        yield (
            row,
            {
                "id": conversation.id,
                "conversation": json.dumps(conversation.to_json(), ensure_ascii=False),
                "sticker": sticker_rows[conversation.sticker],
                "intention": conversation.intention,
            },
        )


def _sticker_examples(
    directory: Path, numbered: tuple[int, StickerEntry]
) -> Iterator[tuple[int, dict[str, Any]]]:
    row, sticker = numbered
    yield (
        row,
        {
            "id": sticker.id,
            "sticker": json.dumps(sticker.to_json(), ensure_ascii=False),
            "image": schema.confined(directory, sticker.image).read_bytes(),
        },
    )


def prepare(
    prepared_dir: str | Path, data_dir: str | Path, beam: Sequence[str] | None = None
) -> Dataset:
    """Builds the records of a prepared directory, unless they are there, and opens them.

    Args:
      prepared_dir: as described in ``data.schema``.
      data_dir: where TFDS keeps its records; shared by any number of data sets.
      beam: options of an Apache Beam pipeline that builds them, such as ``--runner=FlinkRunner``;
        its workers must reach both directories. None builds in this process.

    Returns:
      Random access to the conversations and the gallery.

    Raises:
      FileNotFoundError: if ``prepared_dir`` does not exist.
      PreparedDataError: once, with every problem of the directory.
      UnreadableRecordsError: if the records are there and damaged, with every file.
    """
    prepared_dir = Path(prepared_dir)
    if not prepared_dir.is_dir():
        raise FileNotFoundError(
            f"no prepared directory at {prepared_dir} (config.data.prepared_dir). "
            "Make one with `python -m data_prep.embedded` or an importer of data_prep."
        )
    data_dir = Path(data_dir)
    return process_memory.once(
        ("data set", prepared_dir, data_dir),
        lambda: opened(_built(prepared_dir, data_dir) or _build(prepared_dir, data_dir, beam)),
    )


def _built(prepared_dir: Path, data_dir: Path) -> dict[str, Any] | None:
    """Opens what was built from exactly this content, or returns None."""
    try:
        content_hash = schema.content_hash(prepared_dir)
    except FileNotFoundError:
        return None  # reading the directory says what is missing
    builders = found_builders(data_dir, content_hash)
    if builders is not None:
        logging.info("Data: records of %s found in %s", prepared_dir, data_dir)
    return builders


def _build(prepared_dir: Path, data_dir: Path, beam: Sequence[str] | None = None) -> dict[str, Any]:
    outline = read_outline(prepared_dir)
    content_hash = schema.content_hash(prepared_dir)
    logging.info("Data: building the records of %s in %s", prepared_dir, data_dir)
    builders = {}
    for kind in (CONVERSATIONS, GALLERY):
        config = StickerIntConfig(
            name=config_name(kind, content_hash),
            kind=kind,
            outline=outline,
            content_hash=content_hash,
            beam=beam is not None,
        )
        builder = StickerInt(config=config, data_dir=data_dir, file_format=_FILE_FORMAT)
        download = tfds.download.DownloadConfig(
            try_download_gcs=False, beam_options=None if beam is None else _pipeline_options(beam)
        )
        # TFDS announces a download on stdout, which nothing here does.
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(download_config=download)
        builders[kind] = builder
    return builders


def _pipeline_options(given: Sequence[str]) -> Any:
    try:
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise ValueError(
            "Apache Beam is not installed. It pins older packages than training needs, so give it "
            "an environment of its own: see docs/scaling.md."
        ) from error
    return PipelineOptions(list(given))
