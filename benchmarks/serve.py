"""What the service answers in how long, beside what a user would write instead.

    python -m benchmarks.serve --workdir=runs/demo [--sizes=489,100000,1000000] [--clients=1,8,64]
        [--seconds=10] [--rounds=3] [--out=FILE]

The peer is thirty lines (``peer``): FastAPI, all-MiniLM-L6-v2 on torch by sentence-transformers, a
flat FAISS index; a thread of its pool for each request, as FastAPI does by itself. Both read as
many tokens. Galleries are generated unit vectors of each system's width; of a sticker there is an
id, a name and an intention, in memory: reading the texts of stickers that were not asked for lately
comes on top of ours (``benchmarks.load`` has it) and of whatever the peer would keep them in.

Each service is a process of its own, and the clients are another: they keep their connections, ask
the test split's conversations in turn, and wait for each answer. They are forty lines of asyncio,
since oha and wrk come in no Python package, and what asks should do little else on cores that it
shares with the services. The turns of both services alternate. A request costs at least one pass of
the text tower over its tokens, and of the gallery's product or reading, whichever takes longer;
both rates are measured here.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import command
from benchmarks.search import MODEL, as_text, unit_vectors
from benchmarks.service_process import served

TOP = 5
SERVICES = ("ours", "peer")


def ours(workdir: Path, size: int) -> Any:
    """Returns our application over generated stickers."""
    import dataclasses
    import threading

    import jax

    from int_ra_jax.common.types import Sticker
    from int_ra_jax.data.copies import Fingerprint
    from int_ra_jax.retrieval.retriever import Retriever
    from int_ra_jax.retrieval.shelf import Shelf
    from int_ra_jax.retrieval.shelved import Shelved
    from int_ra_jax.retrieval.stickers import GallerySticker
    from int_ra_jax.serving.app import build
    from int_ra_jax.serving.service import Service
    from int_ra_jax.serving.settings import Limits, Settings

    nothing = Fingerprint(np.zeros(64, bool), np.zeros((16, 16, 3), np.int16), 1.0, blank=True)

    class Generated(Shelved):
        checksum = "generated"

        def __init__(self, shelf: Shelf) -> None:
            self.shelf, self.lock = shelf, threading.RLock()

        def read(self, ids: Sequence[str], *, pictures: bool = False) -> dict[str, Any]:
            shown = {"intentions": {meant: 0.5}, "name": "generated"}
            return {one: GallerySticker(one, **shown) for one in ids if one in self.shelf.rows}

        def matches(self, query: str, number: int) -> list[str]:
            return []

        def looks(self, ids: Sequence[str]) -> dict[str, Fingerprint]:
            return dict.fromkeys(ids, nothing)

    retriever = Retriever.from_workdir(workdir)
    meant = retriever.run.dataset.intentions[0]
    vectors = jax.device_put(unit_vectors(size, retriever.width))
    stickers = [GallerySticker(f"s{number}") for number in range(size)]
    retriever._gallery = Generated(Shelf.of(stickers, Sticker(vectors)))
    limits = dataclasses.replace(Limits(), per_second=1e9, burst=10**9)
    return build(Service(retriever, limits), Settings(limits=limits))


def peer(workdir: Path, size: int) -> Any:
    """Returns the peer's application over generated vectors."""
    import faiss
    from fastapi import FastAPI
    from pydantic import BaseModel
    from sentence_transformers import SentenceTransformer

    from int_ra_jax.common.config import load
    from int_ra_jax.common.model_directory import resolve_directory

    model = SentenceTransformer(str(resolve_directory(MODEL)), device="cpu", local_files_only=True)
    model.max_seq_length = load(workdir).text.context_tokens
    index = faiss.IndexFlatIP(model.get_embedding_dimension())
    index.add(unit_vectors(size, index.d))
    app = FastAPI()

    class Asked(BaseModel):
        text: str
        top_k: int = TOP

    @app.post("/v1/reply")
    def reply(asked: Asked) -> dict[str, Any]:
        vectors = model.encode([asked.text], normalize_embeddings=True, show_progress_bar=False)
        scores, rows = index.search(vectors, asked.top_k)
        found = zip(rows[0].tolist(), scores[0].tolist(), strict=True)
        return {"stickers": [{"id": f"s{row}", "score": score} for row, score in found]}

    @app.get("/readyz")
    def ready() -> dict[str, str]:
        model.encode(["warm"])
        return {"status": "ready"}

    return app


def bodies(name: str, conversations: Sequence[Any]) -> list[bytes]:
    """Returns each conversation as a service reads it."""
    found = []
    for one in conversations:
        turns = [{"speaker": turn.speaker, "text": turn.text} for turn in one.turns]
        ours = {"turns": turns, "reply_speaker": one.reply_speaker, "top_k": TOP}
        asked = ours if name == "ours" else {"text": as_text(one), "top_k": TOP}
        found.append(json.dumps(asked).encode())
    return found


def request_of(body: bytes) -> bytes:
    """Returns a whole request, connection kept."""
    head = (
        "POST /v1/reply HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def ask(port: int, requests: Sequence[bytes], clients: int, seconds: float) -> list[float]:
    """Lets clients ask one request after the other; returns the seconds that each answer took.

    Raises:
      RuntimeError: if an answer is not 200.
    """
    took: list[float] = []
    end = time.perf_counter() + seconds

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            while time.perf_counter() < end:
                began = time.perf_counter()
                writer.write(requests[number % len(requests)])
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                content = await reader.readexactly(length)
                if b" 200 " not in head[:20]:
                    raise RuntimeError(f"{head[:20]!r}: {content[:300]!r}")
                took.append(time.perf_counter() - began)
                number += clients
        finally:
            writer.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return took


def row(
    name: str, size: int, clients: int, rounds: Sequence[Sequence[float]], seconds: float
) -> Any:
    """Returns a row of the table: medians over the rounds."""

    def middle(share: float) -> float:
        return 1e3 * statistics.median(float(np.quantile(took, share)) for took in rounds)

    return {
        "service": name,
        "stickers": f"{size:,}",
        "clients": clients,
        "p50 ms": f"{middle(0.5):.1f}",
        "p99 ms": f"{middle(0.99):.1f}",
        "requests/s": f"{statistics.median(len(took) for took in rounds) / seconds:.0f}",
    }


def measure(arguments: argparse.Namespace, conversations: Sequence[Any]) -> list[dict[str, Any]]:
    """Returns the table's rows."""
    requests = {name: [*map(request_of, bodies(name, conversations))] for name in SERVICES}
    rows = []
    for size in arguments.sizes:
        with contextlib.ExitStack() as stack:
            line = [sys.executable, "-m", "benchmarks.serve", f"--workdir={arguments.workdir}"]
            ports = {
                name: stack.enter_context(served([*line, f"--sizes={size}", f"--only={name}"])).port
                for name in SERVICES
            }
            for clients in arguments.clients:
                rounds: dict[str, list[list[float]]] = {name: [] for name in SERVICES}
                for _ in range(arguments.rounds):
                    for name, port in ports.items():
                        asked = ask(port, requests[name], clients, arguments.seconds)
                        rounds[name].append(asyncio.run(asked))
                rows += [
                    row(name, size, clients, rounds[name], arguments.seconds) for name in ports
                ]
                command.say(f"{size:,} stickers, {clients} clients: done")
    return rows


def least_seconds(run: Any, tokens: float, size: int, rates: Any) -> float:
    """Returns the least time of a request that is answered alone."""
    text = run.facts.text
    layer = text.hidden_size * (4 * text.hidden_size + 2 * text.intermediate_size)
    stored = 4 * run.system.embedding_width * size  # bytes; 4 of them are 2 FLOPs
    tower = rates.seconds(2 * text.num_hidden_layers * layer * tokens)
    return float(tower + max(rates.seconds(stored / 2), rates.seconds(0, stored)))


def main() -> None:
    """Serves one of the two, or asks both and prints what it took."""
    arguments = _parse()
    command.use_device("cpu")
    if arguments.only:
        import uvicorn

        app = {"ours": ours, "peer": peer}[arguments.only](arguments.workdir, arguments.sizes[0])
        uvicorn.run(app, port=arguments.port, log_level="warning", access_log=False)
        return
    from benchmarks import floor
    from int_ra_jax.data.text import compose_context
    from int_ra_jax.run.workdir import open_run

    run = open_run(arguments.workdir)
    conversations = run.dataset.conversations("test")
    text = run.config.text
    tokens, _ = compose_context(run.tokenizer, conversations, text, run.dataset.has_knowledge)
    mean = float(tokens.mask.sum() / len(conversations))
    rows = measure(arguments, conversations)
    rates = floor.measure("float32")
    floors = {size: least_seconds(run, mean, size, rates) for size in arguments.sizes}
    told = [f"{size:,} stickers: at least {1e3 * least:.2f} ms" for size, least in floors.items()]
    report = "\n".join([str(rates), f"{mean:.0f} tokens a request", *told, "", command.table(rows)])
    command.publish(arguments, report, rows=rows, floors=floors, rates=vars(rates))


def _parse() -> argparse.Namespace:
    def numbers(given: str) -> list[int]:
        return [int(one) for one in given.split(",")]

    parser = command.parser(__doc__)
    parser.add_argument("--workdir", type=Path, required=True, help="of a trained run")
    parser.add_argument("--sizes", type=numbers, default=[489, 100_000, 1_000_000])
    parser.add_argument("--clients", type=numbers, default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=10.0, help="that each turn lasts")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=SERVICES, help="serve this one alone, at --port")
    parser.add_argument("--port", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
