"""A service under everything at once: errors, memory, and how soon a sticker is found.

    python -m benchmarks.load --workdir=runs/demo [--gallery=runs/gallery] [--minutes=10]
        [--readers=8] [--editors=1] [--out=FILE]

``launch.py --mode=serve`` runs as it is, limits included, on a copy of a gallery; each client has
an address of its own on the loopback, so that the limits of one address are not those of all, and
asks no more often than one address may. Readers do one thing after the other, drawn by ``READS``:
they ask for replies to the test split's conversations, type words, ask for similar stickers and for
packs. An editor, with a second's pause after each (``EDITS``), puts a drawn sticker, changes one of
its own, removes one; it keeps ``KEPT`` of its own at most, so that the gallery does not grow. After
each put it asks for a reply from its own pack until the new sticker is in it: "put until found" is
from the request's beginning, and "found after" from its answer.

An error is whatever is not answered with 2xx. Memory is the process's resident set, every five
seconds; its slope is that of a line through all but the first fifth.
"""

import argparse
import asyncio
import collections
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks import command
from benchmarks.gallery import pictures
from benchmarks.service_process import served

KEY = "the-key-of-a-benchmark"
KEPT = 20  # stickers of a client's own
READS = {"reply": 0.70, "search": 0.14, "similar": 0.10, "packs": 0.06}
EDITS = {"put": 0.60, "change": 0.25, "remove": 0.15}
_PAUSE = 1.0  # seconds after an edit
WORDS = ("crying cat", "猫 挥手", "thumbs up", "laugh", "开心", "good night", "heart", "生气")
EMOJI = ("😭", "👋", "🎉", "🤷", "😂", "🙏")
_SAMPLE_SECONDS = 5.0
_FOUND_SECONDS = 10.0  # after its put was answered; then a sticker counts as not found
_LEAST_SECONDS = 1 / 40  # between two requests of a client: an address may ask 50 times a second
_PICTURES = 400  # drawn ones, which are put again under other ids


class Client:
    """One of those who use a service at the same time.

    Args:
      number: of the client.
      http: with the key, and its base address.
      conversations: JSON bodies of replies.
      drawn: pictures.
    """

    def __init__(
        self, number: int, http: httpx.AsyncClient, conversations: Sequence[Any], drawn: Any
    ) -> None:
        self.http, self.pack = http, f"load {number}"
        self.conversations, self.drawn = conversations, drawn
        self.rng = np.random.default_rng(number)
        self.own: list[str] = []
        self.seen: list[str] = []
        self.made = 0
        self.last = 0.0  # when it asked last
        self.seconds: dict[str, list[float]] = collections.defaultdict(list)
        self.errors: collections.Counter[str] = collections.Counter()

    async def work(self, end: float, shares: Mapping[str, float], pause: float = 0.0) -> None:
        """Does one thing after the other.

        Args:
          end: time of ``time.monotonic``.
          shares: how often it does what.
          pause: seconds after each.
        """
        while time.monotonic() < end:
            await self.step(str(self.rng.choice([*shares], p=[*shares.values()])))
            await asyncio.sleep(pause)

    async def step(self, what: str) -> None:
        """Does one thing; where it has no sticker for it yet, it puts one."""
        if what in ("change", "remove") and not self.own:
            what = "put"
        if what == "similar" and not self.seen:
            what = "reply"
        await {
            "reply": self.reply, "search": self.search, "similar": self.similar,
            "packs": self.packs, "put": self.put, "change": self.change, "remove": self.remove,
        }[what]()  # fmt: skip

    async def ask(self, what: str, method: str, path: str, **sent: Any) -> Any:
        """Sends a request, times it, counts it as an error unless it is answered with 2xx."""
        await asyncio.sleep(max(0.0, self.last + _LEAST_SECONDS - time.perf_counter()))
        began = self.last = time.perf_counter()
        try:
            answer = await self.http.request(method, path, **sent)
        except httpx.HTTPError as error:
            self.errors[f"{what}: {type(error).__name__}"] += 1
            return None
        self.seconds[what].append(time.perf_counter() - began)
        if not answer.is_success:
            self.errors[f"{what}: {answer.status_code} {answer.text[:200]}"] += 1
            return None
        return answer.json() if answer.content else {}

    async def reply(self) -> None:
        """Asks for a reply to a conversation."""
        asked = self.conversations[self.rng.integers(len(self.conversations))]
        await self._questions("reply", "POST", "/v1/reply", json=asked)

    async def search(self) -> None:
        """Types words."""
        words = WORDS[self.rng.integers(len(WORDS))]
        await self._questions("search", "POST", "/v1/search", json={"words": words})

    async def similar(self) -> None:
        """Asks for what is like a sticker of the last answer."""
        await self._questions("similar", "GET", f"/v1/similar/{self.seen[0]}")

    async def _questions(self, what: str, method: str, path: str, **sent: Any) -> None:
        answer = await self.ask(what, method, path, **sent)
        # Another client may remove its stickers before this one asks what is like them.
        found = [one["sticker"] for one in (answer or {}).get("stickers", ())]
        seen = [one["id"] for one in found if not one["pack"].startswith("load ")]
        self.seen = seen or self.seen

    async def packs(self) -> None:
        """Looks at the list of packs."""
        await self.ask("packs", "GET", "/v1/packs")

    async def put(self) -> None:
        """Puts a sticker and looks for it; removes the oldest of its own when it has enough."""
        if len(self.own) >= KEPT:
            await self.remove()
        name = f"{self.pack} {self.made}".replace(" ", "_")
        picture = self.drawn[self.rng.integers(len(self.drawn))]
        self.made += 1
        emoji = self.rng.choice(EMOJI, self.rng.integers(1, 4), replace=False).tolist()
        called = " ".join(self.rng.choice(WORDS, self.rng.integers(0, 4)).tolist())
        said = json.dumps({"pack": self.pack, "emoji": emoji, "name": called, "tags": ["drawn"]})
        began = time.perf_counter()
        put = await self.ask(
            "put", "PUT", f"/v1/stickers/{name}",
            files={"picture": ("one.png", picture, "image/png")}, data={"sticker": said},
        )  # fmt: skip
        if put is None:
            return
        self.own.append(name)
        asked = {**self.conversations[0], "packs": [self.pack], "top_k": 2 * KEPT}
        answered = time.perf_counter()
        while time.perf_counter() - answered < _FOUND_SECONDS:
            answer = await self.ask("reply from a pack", "POST", "/v1/reply", json=asked)
            if any(one["sticker"]["id"] == name for one in (answer or {}).get("stickers", ())):
                self.seconds["put until found"].append(time.perf_counter() - began)
                self.seconds["found after"].append(time.perf_counter() - answered)
                return
        self.errors["a sticker that was put is not found"] += 1

    async def change(self) -> None:
        """Changes what one of its own is called and shows."""
        name = self.own[self.rng.integers(len(self.own))]
        said = {"tags": [f"tag {self.made}"], "attributes": {"facial": f"face {self.made}"}}
        await self.ask("change", "PATCH", f"/v1/stickers/{name}", json=said)

    async def remove(self) -> None:
        """Removes the oldest of its own."""
        await self.ask("remove", "DELETE", f"/v1/stickers/{self.own.pop(0)}")


def resident_mib(process: int) -> float:
    """Returns a process's resident memory in MiB."""
    status = Path(f"/proc/{process}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def slope(samples: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """Returns MiB a minute, its standard error, and the MiB at the end of the line.

    Args:
      samples: (seconds, MiB) in order; the first fifth of the time is not looked at.
    """
    at, mib = np.array(samples).T
    late = at >= at[0] + (at[-1] - at[0]) / 5
    at, mib = at[late] / 60, mib[late]
    if len(at) < 3:
        raise ValueError(f"{len(at)} samples are too few for a line; ask for more minutes")
    (rise, start), cov = np.polyfit(at, mib, 1, cov=True)
    return float(rise), float(cov[0, 0] ** 0.5), float(start + rise * at[-1])


async def load(
    port: int, process: int, asked: Sequence[Any], readers: int, editors: int, seconds: float
) -> tuple[list[Client], list[tuple[float, float]]]:
    """Lets clients work on a service; returns them and the samples of its memory.

    Args:
      port: where it listens.
      process: whose memory is looked at.
      asked: bodies of replies.
      readers: how many ask at once.
      editors: how many change the gallery at once.
      seconds: how long.
    """
    drawn, samples = pictures(_PICTURES), []
    end = time.monotonic() + seconds

    async def watch() -> None:
        while time.monotonic() < end:
            samples.append((time.monotonic(), resident_mib(process)))
            await asyncio.sleep(_SAMPLE_SECONDS)

    async def client(number: int) -> Client:
        transport = httpx.AsyncHTTPTransport(local_address=f"127.0.0.{2 + number}")
        async with httpx.AsyncClient(
            transport=transport,
            base_url=f"http://127.0.0.1:{port}",
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=30.0,
        ) as http:
            one = Client(number, http, asked, drawn)
            await (one.work(end, READS) if number < readers else one.work(end, EDITS, _PAUSE))
            return one

    found = await asyncio.gather(*map(client, range(readers + editors)), watch())
    return [one for one in found if one is not None], samples


def rows_of(clients: Sequence[Client], seconds: float) -> list[dict[str, str]]:
    """Returns the table: how often each thing was done, and how long it took."""
    joined: dict[str, list[float]] = collections.defaultdict(list)
    for one in clients:
        for what, took in one.seconds.items():
            joined[what] += took
    rows = []
    for what, took in sorted(joined.items()):
        p50, p99, worst = 1e3 * np.quantile(took, [0.5, 0.99, 1.0])
        rows.append(
            {
                "": what,
                "done": f"{len(took):,}",
                "a second": f"{len(took) / seconds:.1f}",
                "p50 ms": f"{p50:.0f}",
                "p99 ms": f"{p99:.0f}",
                "longest ms": f"{worst:.0f}",
            }
        )
    return rows


def main() -> None:
    """Serves a copy of the gallery, lets clients work on it, and prints what came of it."""
    arguments = _parse()
    command.use_device("cpu")
    from int_ra_jax.run.workdir import open_run

    asked = [
        {
            "turns": [{"speaker": turn.speaker, "text": turn.text} for turn in one.turns],
            "reply_speaker": one.reply_speaker,
        }
        for one in open_run(arguments.workdir).dataset.conversations("test")[:1000]
    ]
    seconds = 60 * arguments.minutes
    with tempfile.TemporaryDirectory() as scratch:
        gallery, key = Path(scratch, "gallery"), Path(scratch, "key")
        shutil.copytree(arguments.gallery, gallery)
        key.touch(0o600)
        key.write_text(KEY)
        line = [sys.executable, "launch.py", "--mode=serve", f"--workdir={arguments.workdir}"]
        with served([*line, f"--gallery={gallery}", f"--key_file={key}"]) as service:
            numbers = arguments.readers, arguments.editors
            working = load(service.port, service.process, asked, *numbers, seconds)
            clients, samples = asyncio.run(working)
    errors = sum((one.errors for one in clients), collections.Counter())
    rise, error, last = slope(samples)
    told = [
        command.table(rows_of(clients, seconds)),
        "",
        f"{sum(errors.values())} errors {dict(errors.most_common(10)) or ''}",
        f"memory: {last:.0f} MiB at the end, {rise:+.2f} ± {error:.2f} MiB a minute",
    ]
    figures = [{"seconds": one.seconds, "errors": one.errors} for one in clients]
    command.publish(arguments, "\n".join(told), clients=figures, memory=samples)


def _parse() -> argparse.Namespace:
    parser = command.parser(__doc__)
    parser.add_argument("--workdir", type=Path, required=True, help="of a trained run")
    parser.add_argument("--gallery", type=Path, default=Path("runs/gallery"), help="is copied")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--readers", type=int, default=8)
    parser.add_argument("--editors", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
