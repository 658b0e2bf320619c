"""The one entry: train, evaluate, search, compare systems, keep galleries, serve, export, annotate.

    python launch.py --mode=train|table --config=configs/int_ra.py:demo --workdir=runs/demo
    python launch.py --mode=search --workdir=runs/demo --conversation=chat.json --top_k=5
    python launch.py --mode=gallery --workdir=runs/demo --gallery=DIR add|list|remove PACK
    python launch.py --mode=serve|mcp|export --workdir=runs/demo --gallery=DIR --to=EXPORT
    python launch.py --mode=annotate|stats --workdir=annotations/demo --prepared_dir=DIR

Every config key can be set: --config.data.prepared_dir=DIR. Several processes: docs/training.md.
"""

import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

# Before jax and tensorflow are imported: tensorflow only feeds tf.data, and need not say so.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

from absl import app, flags, logging
from ml_collections import config_flags

from configs import base, rules
from data_prep import modes
from int_ra_jax.common import memory, process_flags
from int_ra_jax.serving import modes as serving

CONFIGURED = {"train": "int_ra", "table": "table"}  # mode -> the config file to name
READ_BY = {  # flag -> the modes that read it
    **{"config": (*CONFIGURED,), "protocol": ("eval",), "split": ("eval", "annotate")},
    **dict.fromkeys(("conversation", "top_k", "json"), ("search",)),
    **(modes.READ_BY | serving.READ_BY),
}
MODES = ("train", "eval", "search", "table", *serving.MODES, *modes.MODES)
_CONFIG = config_flags.DEFINE_config_file("config", None, "configs/FILE.py[:PRESET] to train.")
_MODE = flags.DEFINE_enum("mode", None, MODES, "What to do.", required=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "The run's working directory.", required=True)
_CONVERSATION = flags.DEFINE_string("conversation", None, "search: JSON file (README.md).")
_TOP_K = flags.DEFINE_integer("top_k", 5, "search: how many stickers.", lower_bound=1)
_PROTOCOL = flags.DEFINE_enum("protocol", None, base.PROTOCOLS, "eval: instead of eval.protocol.")
_SPLIT = flags.DEFINE_enum("split", None, base.SPLITS, "eval, annotate: this split.")
_TRACEBACK = flags.DEFINE_bool("traceback", False, "Show where an error comes from.")
_JSON = flags.DEFINE_bool("json", False, "search: print JSON instead of a table.")


def main(argv: Sequence[str]) -> None:
    """Checks what was asked for, and hands over."""
    mode = _MODE.value
    if len(argv) > 1 and mode not in modes.TAKE_WORDS:
        raise ValueError(f"unexpected arguments {argv[1:]}; flags begin with --.")
    process_flags.refuse_unread(mode, READ_BY)
    if mode in CONFIGURED and _CONFIG.value is None:
        raise ValueError(f"--mode={mode} needs --config=configs/{CONFIGURED[mode]}.py:PRESET.")
    process_flags.connect(alone=mode == "table")
    memory.keep_freed()
    ours = {"train": _train, "eval": _eval, "search": _search, "table": _table}
    ours |= serving.modes(modes.read_pack, modes.words_reader, modes.describer) | modes.MODES
    ours[mode](Path(_WORKDIR.value), *argv[1:])


def _train(workdir: Path) -> None:
    from int_ra_jax.models.registry import SYSTEMS

    rules.validate(_CONFIG.value, SYSTEMS)
    from int_ra_jax.training.loop import train

    for name, value in train(_CONFIG.value, workdir).items():
        logging.info("valid %s: %.4f", name, value)


def _eval(workdir: Path) -> None:
    from int_ra_jax.common import config, files, hosts
    from int_ra_jax.models.registry import SYSTEMS

    rules.validate(config.load(workdir), SYSTEMS)
    files.check_writable(workdir / "eval")
    from int_ra_jax.evaluation.evaluate import evaluate
    from int_ra_jax.evaluation.report import table, verdict
    from int_ra_jax.run.workdir import open_run
    from int_ra_jax.training import sharding

    run = open_run(workdir)
    with run.config.unlocked():
        run.config.eval.protocol = _PROTOCOL.value or run.config.eval.protocol
        run.config.eval.split = _SPLIT.value or run.config.eval.split
    target, placement = sharding.for_evaluation(run.abstract_params)
    data = evaluate(run, *run.restore_best(target), placement)
    if hosts.is_first():
        print(*table(data), *verdict(data), f"report: {workdir / 'eval' / 'report.html'}", sep="\n")


def _table(workdir: Path) -> None:
    from int_ra_jax.comparison import table

    print(*table.make(_CONFIG.value, workdir, Path(__file__).absolute()), sep="\n")


def _search(workdir: Path) -> None:
    if not _CONVERSATION.value:
        raise ValueError("--mode=search needs --conversation=FILE.json.")
    from int_ra_jax.retrieval.conversation_file import read_conversation
    from int_ra_jax.retrieval.retriever import Retriever

    conversation = read_conversation(Path(_CONVERSATION.value))
    retriever = Retriever.from_workdir(workdir, modes.GALLERY.value, create=False)
    ranked = retriever.reply(conversation, top_k=_TOP_K.value)
    if _JSON.value:
        print(json.dumps(ranked.to_json(), indent=2, ensure_ascii=False))
    else:
        print(*ranked.to_lines(), sep="\n")


def _parse(argv: Sequence[str]) -> list[str]:
    """Parses flags; a mistyped one is one line that names the nearest, not a traceback."""
    try:
        rest: list[str] = flags.FLAGS(argv)
        hasattr(_CONFIG.value, "seed")  # ml_collections keeps a missing file to itself so far
        return rest
    except (flags.Error, KeyError, AttributeError, ValueError, OSError) as error:
        from int_ra_jax.common.config import flag_problem

        _fail(flag_problem(error, Path(__file__).parent / "configs", argv, rules.known_keys))


def _fail(message: str) -> NoReturn:
    print(f"launch.py: {message}", file=sys.stderr)
    sys.exit(2)


def _guarded(argv: Sequence[str]) -> None:
    from int_ra_jax.common import hosts, log

    log.set_up_console()
    try:
        main(argv)
    except Exception as error:
        # What a user can act on is one message; --traceback shows where it came from.
        clear = isinstance(error, ValueError | OSError | FloatingPointError)
        hosts.leave(str(error) if clear and not _TRACEBACK.value else traceback.format_exc())
        if _TRACEBACK.value or not clear:
            raise
        _fail(str(error))


if __name__ == "__main__":
    app.run(_guarded, flags_parser=_parse)
