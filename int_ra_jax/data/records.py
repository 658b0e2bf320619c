"""The built records, opened for random access: without tensorflow, whose import costs seconds.

TFDS reads ArrayRecord files by itself. Conversations and the gallery lie in folders of their own,
whose names carry the hash of the prepared directory that they were built from.
"""

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from array_record.python.array_record_module import ArrayRecordReader

from int_ra_jax.common import process_memory
from int_ra_jax.data import schema
from int_ra_jax.data.dataset import Dataset, UnreadableRecordsError

with warnings.catch_warnings():
    # Deprecations inside TFDS's own imports are nothing a user of this library can mend.
    warnings.simplefilter("ignore")
    import tensorflow_datasets as tfds

BUILDER = "sticker_int"
BUILT_VERSION = "1.0.0"
CONVERSATIONS = "conversations"
GALLERY = "gallery"
_HASH_DIGITS = 16


def open_records(data_dir: str | Path, content_hash: str) -> Dataset:
    """Opens records that ``prepare`` has built, without their prepared directory.

    Args:
      data_dir: where TFDS keeps its records.
      content_hash: ``Dataset.content_hash`` of the data set.

    Raises:
      FileNotFoundError: if these records are not there.
      UnreadableRecordsError: if they are damaged, with every file.
    """

    def found() -> Dataset:
        builders = found_builders(Path(data_dir), content_hash)
        if builders is None:
            raise FileNotFoundError(
                f"no records of the data set {content_hash[:_HASH_DIGITS]} in {data_dir}. "
                "Copy the working directory whole, or build them again with --mode=train."
            )
        return opened(builders)

    return process_memory.once(("records", Path(data_dir), content_hash), found)


class _Shards:
    """The records of one split, where whatever is wrong with a file is said of that file.

    ArrayRecord hashes every chunk, so that flipped bytes are found when they are read; but a file
    that was cut short reads as one of fewer records, and what is missing as empty ones.
    """

    def __init__(self, builder: Any, split: str) -> None:
        self._files = builder.info.splits[split].file_instructions
        self._split = split
        self._records = builder.as_data_source(split=split)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, record_key: int) -> Mapping[str, Any]:
        try:
            record: Mapping[str, Any] = self._records[record_key]
        except RuntimeError as error:
            raise self._unreadable(record_key, _first_line(error)) from error
        if any(value is None for value in record.values()):
            raise self._unreadable(record_key, "it is empty")
        return record

    def problems(self) -> list[str]:
        """Opens every file, and describes those that do not hold the records they should."""
        found = []
        for file in self._files:
            try:
                reader = ArrayRecordReader(str(file.filename))
                count = reader.num_records()
                reader.close()
            except RuntimeError as error:
                found.append(f"{file.filename}: {_first_line(error)}")
                continue
            if count != file.examples_in_shard:
                found.append(f"{file.filename}: {count} records, not {file.examples_in_shard}")
        return found

    def _unreadable(self, row: int, reason: str) -> UnreadableRecordsError:
        rest = row
        for file in self._files:
            if rest < file.take:
                break
            rest -= file.take
        return _unreadable([f"{file.filename}: record {row} of {self._split}: {reason}"])


def opened(builders: Mapping[str, Any]) -> Dataset:
    """Opens both halves of a data set, checking every file.

    Args:
      builders: as ``found_builders`` returns them.

    Raises:
      UnreadableRecordsError: names every file that cannot be read.
    """
    problems: list[str] = []
    shards: dict[str, _Shards] = {}
    for kind, splits in ((CONVERSATIONS, schema.SPLITS), (GALLERY, (GALLERY,))):
        builder = builders[kind]
        try:
            shards |= {split: _Shards(builder, split) for split in splits}
            metadata = dict(builder.info.metadata or {})
            if metadata.pop("seal", None) != seal(metadata):
                raise ValueError("the content of metadata.json does not fit its hash")
        except Exception as error:  # tfds has no error of its own for damaged files
            problems.append(_about_description(Path(builder.data_dir), error))
    problems += [line for one in shards.values() for line in one.problems()]
    if problems:
        raise _unreadable(problems)
    gallery = shards.pop(GALLERY)
    return Dataset(splits=shards, gallery=gallery, metadata=builders[CONVERSATIONS].info.metadata)


def _about_description(folder: Path, error: Exception) -> str:
    return f"{folder / '*.json'}: {_first_line(error)}"


def seal(metadata: Mapping[str, Any]) -> str:
    """Returns the hash by which damaged metadata are noticed."""
    return hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest()


def _unreadable(problems: Sequence[str]) -> UnreadableRecordsError:
    folders = sorted({str(Path(line.split(": ")[0]).parent) for line in problems})
    return UnreadableRecordsError(
        "records of the data set cannot be read:\n"
        + "\n".join(f"  {line}" for line in problems)
        + f"\nDelete {' and '.join(folders)} and start the training command again: it builds them "
        "anew from config.data.prepared_dir, and goes on from the newest checkpoint."
    )


def _first_line(error: Exception) -> str:
    # ArrayRecord names the file again, or says nothing at all.
    return str(error).split("; opening ")[0].partition("\n")[0] or "it is cut short or damaged"


def found_builders(data_dir: Path, content_hash: str) -> dict[str, Any] | None:
    """Returns the builders of what was built from this content by kind, or None if it was not.

    Raises:
      UnreadableRecordsError: if the description of the records is damaged.
    """
    builders = {}
    for kind in (CONVERSATIONS, GALLERY):
        configured = data_dir / BUILDER / config_name(kind, content_hash)
        folder = configured / BUILT_VERSION
        if not (folder / "dataset_info.json").is_file():
            return None
        try:
            builders[kind] = tfds.builder_from_directory(folder)
        except Exception as error:
            raise _unreadable([_about_description(folder, error)]) from error
    return builders


def config_name(kind: str, content_hash: str) -> str:
    """Returns the folder of one half of a data set: its kind and the beginning of its hash."""
    return f"{kind}-{content_hash[:_HASH_DIGITS]}"
