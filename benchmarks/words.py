"""Which stickers typed words find: by full text, by embeddings, and by both fused.

    python -m benchmarks.words WORKDIR STICKERS [--language=en] [--names=en,zh] [--out=FILE]

STICKERS is ``stickers.jsonl`` of the embedded data set, whose ids are code points of emoji; their
names are what a gallery knows of them. WORKDIR is a run: its text tower, as it stands, gives the
means of words and of what a sticker is called ("text tower"). Where the run was trained on this
gallery, its query encoder ranks the words as if they were a conversation ("query encoder"). "fused"
is full text and text tower, or full text alone where the tower does not read the query's language.
Queries and right answers: benchmarks/word_queries.jsonl, marked before any search was run.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import command
from int_ra_jax.data.schema import Conversation, StickerEntry, Turn
from int_ra_jax.evaluation import significance, sticker_reference
from int_ra_jax.retrieval import words

if TYPE_CHECKING:
    from int_ra_jax.run.workdir import Run

QUERIES = Path(__file__).with_name("word_queries.jsonl")
_DEPTH = 100  # of each ranking that is fused


@dataclass(frozen=True)
class Query:
    """What was typed, its language, and the ids of the stickers that suit."""

    text: str
    language: str
    gold: frozenset[str]


def main() -> None:
    """Prints a table for each language."""
    parser = command.parser(__doc__)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("stickers", type=Path)
    parser.add_argument("--language", help="queries of this language alone")
    parser.add_argument("--names", default="en", help="languages in which towers read emoji")
    arguments = parser.parse_args()
    stickers = read_stickers(arguments.stickers)
    queries = [one for one in read_queries() if arguments.language in (None, one.language)]
    from int_ra_jax.run.workdir import open_run  # loads tensorflow-datasets

    run = open_run(arguments.workdir)
    full = by_full_text(stickers, queries)
    known = {"full text": full}
    known |= by_run(run, stickers, queries, arguments.names.split(","))
    known["fused"] = [
        [one for one, _ in words.fused([found, tower[:_DEPTH]])]
        if words.reads(run.tokenizer, query.text)
        else found
        for query, found, tower in zip(queries, full, known["text tower"], strict=True)
    ]
    rows = []
    for language in sorted({one.language for one in queries}):
        chosen = [place for place, one in enumerate(queries) if one.language == language]
        for name, rankings in known.items():
            row = judged([queries[p] for p in chosen], [rankings[p] for p in chosen])
            rows.append({"queries": language, "row": name} | row)
    command.publish(arguments, command.table(rows), rows=rows)


def read_queries() -> list[Query]:
    """Reads the queries and their right answers."""
    records = map(json.loads, QUERIES.read_text(encoding="utf-8").splitlines())
    return [Query(one["query"], one["language"], frozenset(one["gold"])) for one in records]


def read_stickers(path: Path) -> list[StickerEntry]:
    """Reads the gallery."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [StickerEntry.from_json(json.loads(line)) for line in lines]


def emoji_of(sticker: StickerEntry) -> str:
    """Returns the emoji that an id's code points spell."""
    return "".join(chr(int(point, 16)) for point in sticker.id.split("-") if point != "fe0f")


def by_full_text(stickers: Sequence[StickerEntry], queries: Sequence[Query]) -> list[list[str]]:
    """Returns the ids that have a word of each query, the best first."""
    texts = [
        words.terms_of(emoji=[emoji_of(one)], tags=one.tags, attributes=one.attributes)
        for one in stickers
    ]
    table = words.in_memory([one.id for one in stickers], texts)
    return [words.matches(table, one.text, _DEPTH) for one in queries]


def by_run(
    run: "Run", stickers: Sequence[StickerEntry], queries: Sequence[Query], names: Sequence[str]
) -> dict[str, list[list[str]]]:
    """Returns the rankings by a run's text tower, and by its query encoder where it has one."""
    from int_ra_jax.retrieval.retriever import Retriever
    from int_ra_jax.run.encode import Encoder

    params, _ = run.restore_best()
    called = [
        words.described(
            emoji=[emoji_of(one)], tags=one.tags, attributes=one.attributes, languages=names
        )
        for one in stickers
    ]
    means = Encoder(run).text_means(params, [*(one.text for one in queries), *called])
    asked, known = means[: len(queries)], means[len(queries) :]
    ids = [one.id for one in stickers]
    order = np.argsort(-sticker_reference.cosines(asked, known), axis=1, kind="stable")
    found = {"text tower": [[ids[place] for place in row] for row in order]}
    if [one.id for one in run.dataset.stickers] == ids:
        talks = [
            Conversation(one.text, "test", (Turn("A", one.text),), "B", "", "") for one in queries
        ]
        gallery = Encoder(run).kept_gallery(params)
        _, rows, _ = Retriever.from_workdir(run.workdir).rank(talks, gallery, len(ids))
        found["query encoder"] = [[ids[place] for place in row] for row in rows]
    return found


def judged(queries: Sequence[Query], rankings: Sequence[Sequence[str]]) -> Mapping[str, str]:
    """Returns hit@1, hit@5 and MRR in %, with 95% intervals over queries."""
    places = [
        next((rank for rank, one in enumerate(ranking, start=1) if one in query.gold), np.inf)
        for query, ranking in zip(queries, rankings, strict=True)
    ]
    rank = np.array(places)
    figures = {"hit@1": 100.0 * (rank <= 1), "hit@5": 100.0 * (rank <= 5), "MRR": 100 / rank}
    found = significance.bootstrap_intervals(figures)
    return {
        name: "{value:.1f} [{low:.1f}, {high:.1f}]".format(**one) for name, one in found.items()
    }


if __name__ == "__main__":
    main()
