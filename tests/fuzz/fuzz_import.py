"""Coverage-guided fuzzing of the importers with atheris; no part of the test suite.

    pip install atheris==3.0.0
    PYTHONPATH=.:tests python tests/fuzz/fuzz_import.py TARGET -max_total_time=300 CORPUS_DIR

TARGET is record, document, pickle, picture, release or chat; what follows goes to libFuzzer, with
-help=1 among it. An input that breaks anything is written as ``crash-...``: repair the fault, and
keep the input in tests/data_prep/formats/test_hostile_input.py.
"""

import contextlib
import os
import sys
import tempfile
from pathlib import Path

import atheris

os.environ["TQDM_DISABLE"] = "1"  # thousands of progress bars

with atheris.instrument_imports(
    include=["data_prep.formats", "data_prep.problems", "data_prep.chats"]
):
    from data_prep.chats import neutral, telegram, whatsapp
    from data_prep.formats.pictures import Pictures
    from data_prep.formats.reading import InputDirectory, decode_base64, parse_record
    from data_prep.formats.stickerint_lmdb import load_plain_pickle
    from data_prep.problems import BadInputError, Problems

from absl import logging
from fuzz.spoil import FORMATS, import_or_report, originals

WORK = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))


def one_record(content: bytes) -> None:
    """A line is an object or a ValueError whose message can be printed."""
    text = content.decode("utf-8", "surrogateescape")
    try:
        record = parse_record(text)
    except ValueError as error:
        str(error)
    else:
        assert isinstance(record, dict)


def one_document(content: bytes) -> None:
    """A file's members, or exactly one way of saying what is wrong."""
    (WORK / "f").write_bytes(content)
    problems = Problems(WORK)
    for _ in InputDirectory(WORK, problems).members("f"):
        pass
    try:
        problems.stop_if_any()
    except BadInputError as error:
        str(error).encode()


def one_pickle(content: bytes) -> None:
    """A pickle is plain values or a ValueError; it never runs anything."""
    try:
        load_plain_pickle(content)
    except ValueError as error:
        str(error)


def one_picture(content: bytes) -> None:
    """A picture is taken whole or is a problem."""
    problems = Problems(WORK)
    pictures = Pictures(WORK, problems)
    pictures.add("p", content, "f", 1)
    assert bool(pictures.taken) != bool(problems.total)
    with contextlib.suppress(ValueError):
        decode_base64(content.decode("latin-1"))


def one_release(content: bytes) -> None:
    """A release with one spoilt stretch is imported whole or reported."""
    data = atheris.FuzzedDataProvider(content)
    form = FORMATS[data.ConsumeIntInRange(0, len(FORMATS) - 1)]
    files = originals(form)
    name = sorted(files)[data.ConsumeIntInRange(0, len(files) - 1)]
    start = data.ConsumeIntInRange(0, len(files[name]))
    length = data.ConsumeIntInRange(0, 40)
    inserted = data.ConsumeBytes(data.remaining_bytes())
    spoilt = files[name][:start] + inserted + files[name][start + length :]
    import_or_report(form, files | {name: spoilt}, WORK / "release")


def one_chat(content: bytes) -> None:
    """An export is messages and problems; its reader raises nothing else."""
    data = atheris.FuzzedDataProvider(content)
    reader, name = CHATS[data.ConsumeIntInRange(0, len(CHATS) - 1)]
    source = WORK / "chat"
    source.mkdir(exist_ok=True)
    (source / name).write_bytes(data.ConsumeBytes(data.remaining_bytes()))
    problems = Problems(source)
    try:
        for _ in reader.read(source, problems):
            pass
        problems.stop_if_any()
    except ValueError as error:  # BadInputError is one
        str(error).encode()
    (source / name).unlink()


CHATS = (
    (neutral, "chat.jsonl"),
    (telegram, "result.json"),
    (whatsapp, "WhatsApp Chat with Ann.txt"),
)
TARGETS = {
    "chat": one_chat,
    "record": one_record,
    "document": one_document,
    "pickle": one_pickle,
    "picture": one_picture,
    "release": one_release,
}


def main() -> None:
    """Runs the target that the command line names."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"Name a target: {', '.join(TARGETS)}")
    logging.set_verbosity(logging.FATAL)
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
