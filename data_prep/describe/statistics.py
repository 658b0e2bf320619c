"""What a prepared directory holds: the paper's Table 1 and Figure 2, and what leaks.

    python launch.py --mode=stats --prepared_dir=DIR --workdir=OUT

writes table1.csv, intentions.csv, findings.csv, figure2.png and statistics.html, which shows all of
it offline. docs/annotation.md says how each figure is counted.
"""

import base64
import csv
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from data_prep.describe import leakage
from data_prep.describe.intention_plot import draw_intentions
from data_prep.describe.leakage import KINDS, Finding
from data_prep.formats.staging import UNKNOWN
from int_ra_jax.common.files import replace_text
from int_ra_jax.data import schema
from int_ra_jax.data.schema import Conversation, PreparedDirectory
from int_ra_jax.data.validation import Inspection, PreparedDataError, inspect

ALL = "all"
_SHOWN = 20  # findings of a kind on the page; findings.csv has all
_SEATS = "speakers, summed over conversations"  # for a mean; no row of its own
_WORD = re.compile(r"\w+(?:['’]\w+)*")
TURN_NOTE = (
    "turns are those of the context, without the sticker reply; 'with the reply' adds one a "
    "conversation. The paper's Table 1 has the former in its columns (sum 11,066) and the latter "
    "in its total (12,644)."
)


@dataclass(frozen=True)
class Row:
    """One line of Table 1: a name and a value a column."""

    name: str
    values: dict[str, float]

    def shown(self, column: str) -> str:
        """Returns the value as a table shows it: counts whole, means with two places."""
        value = self.values[column]
        return f"{value:,}" if isinstance(value, int) else f"{value:.2f}"


@dataclass(frozen=True)
class Statistics:
    """Everything a report on a prepared directory shows.

    Attributes:
      name: of the data set.
      table: Table 1; its columns are the splits and ``ALL``.
      intentions: name -> split -> conversations, in class order (Figure 2).
      findings: leaks and duplicates.
      notes: how it was counted, and what was left out.
    """

    name: str
    table: list[Row]
    intentions: dict[str, dict[str, int]]
    findings: list[Finding]
    notes: list[str]


def write_statistics(prepared_dir: Path, out: Path) -> list[str]:
    """Describes a prepared directory in files and in lines for a terminal.

    Args:
      prepared_dir: what is described; bad records are left out and counted.
      out: where the files go; it is made, and older ones are replaced.

    Returns:
      Table 1, the intentions and the count of each kind of finding, line by line.

    Raises:
      PreparedDataError: if no conversation or no sticker can be read.
      FileNotFoundError: if there is no directory.
    """
    if not prepared_dir.is_dir():
        raise FileNotFoundError(f"no directory {prepared_dir}. Name a prepared directory.")
    found = inspect(prepared_dir)
    if not (any(found.prepared.conversations.values()) and found.prepared.stickers):
        raise PreparedDataError(prepared_dir, found.problems)
    statistics = describe(found)
    columns = [*schema.SPLITS, ALL]
    table = [[row.name, *(row.values[column] for column in columns)] for row in statistics.table]
    replace_text(out / "table1.csv", _csv(["", *columns], table))
    counts = [[name, *per.values()] for name, per in statistics.intentions.items()]
    replace_text(out / "intentions.csv", _csv(["intention", *columns], counts))
    listed = [[one.kind, one.first, one.second, one.value] for one in statistics.findings]
    replace_text(out / "findings.csv", _csv(["kind", "first", "second", "value"], listed))
    picture, missing = draw_intentions(statistics.intentions, schema.SPLITS)
    if missing:
        statistics.notes.append(
            f"no font of this machine draws {missing}; boxes stand for these characters in "
            "figure2.png. Install a font that has them, for Chinese Noto Sans CJK."
        )
    (out / "figure2.png").write_bytes(picture)
    replace_text(out / "statistics.html", _page(statistics, picture))
    return [*text_lines(statistics), f"files: {out}"]


def describe(found: Inspection) -> Statistics:
    """Counts everything about the good records of an inspection."""
    prepared = found.prepared
    spaced = not leakage.separates_no_words(prepared.conversations)
    told = tells_speakers(prepared)
    notes = [
        TURN_NOTE,
        "tokens are words and, in their own row, characters without spaces."
        if spaced
        else "tokens are characters without spaces: spaces do not separate this data's words.",
        "speakers are told apart by name within a split; where names are new in each "
        "conversation, nobody is counted as the same person twice."
        if told
        else "speakers are not counted: this data does not tell who said each turn.",
    ]
    if found.problems:
        notes.insert(
            0,
            f"{len(found.problems)} problems; {len(found.left_out)} records are left out here. "
            f"`python -m data_prep.describe validate {prepared.path}` names them.",
        )
    return Statistics(
        name=str(prepared.info.get("name", prepared.path.name)),
        table=table_rows(prepared, spaced, told),
        intentions=intention_counts(prepared),
        findings=leakage.find(prepared),
        notes=notes,
    )


def tells_speakers(prepared: PreparedDirectory) -> bool:
    """Tells whether each turn has a speaker; an importer names those it cannot know."""
    members = (one for split in prepared.conversations.values() for one in split)
    return not any(turn.speaker == UNKNOWN for one in members for turn in one.turns)


def table_rows(prepared: PreparedDirectory, spaced: bool, told: bool = True) -> list[Row]:
    """Returns Table 1; means are over all of a column, and never means of other means.

    Args:
      prepared: what is counted.
      spaced: whether words can be counted beside characters.
      told: whether speakers can be counted.
    """
    columns = {split: list(prepared.conversations[split]) for split in schema.SPLITS}
    columns[ALL] = [one for members in columns.values() for one in members]
    counts = {name: _counts(members, spaced) for name, members in columns.items()}
    for one in counts.values():
        one["stickers in the gallery"] = len(prepared.stickers)
    token = "words" if spaced else "characters"
    means = (
        ("turns per conversation", "turns", "conversations"),
        ("turns per conversation, with the reply", "turns, with the reply", "conversations"),
        ("speakers per conversation", _SEATS, "conversations"),
        (f"{token} per turn", token, "turns"),
    )
    hidden = {_SEATS} if told else {_SEATS, "speakers", "speakers per conversation"}
    rows = [Row(name, {column: counts[column][name] for column in columns}) for name in counts[ALL]]
    for name, above, below in means:
        values = {c: counts[c][above] / max(counts[c][below], 1) for c in columns}
        rows.append(Row(name, values))
    return [row for row in rows if row.name not in hidden]


def _counts(members: Sequence[Conversation], spaced: bool) -> dict[str, int]:
    turns = [turn for one in members for turn in one.turns]
    people = [{one.reply_speaker, *(turn.speaker for turn in one.turns)} for one in members]
    words = {"words": sum(len(_WORD.findall(turn.text)) for turn in turns)} if spaced else {}
    return {
        "conversations": len(members),
        "turns": len(turns),
        "turns, with the reply": len(turns) + len(members),
        **words,
        "characters": sum(len("".join(turn.text.split())) for turn in turns),
        "stickers in the gallery": 0,
        "gold stickers": len({one.sticker for one in members}),
        "stickers sent earlier": sum(turn.sticker is not None for turn in turns),
        "intentions": len({one.intention for one in members}),
        "speakers": len(set().union(*people)) if people else 0,
        _SEATS: sum(map(len, people)),
    }


def intention_counts(prepared: PreparedDirectory) -> dict[str, dict[str, int]]:
    """Returns how many conversations of each split have each intention, in class order."""
    per = {s: Counter(c.intention for c in prepared.conversations[s]) for s in schema.SPLITS}
    counts = {name: {split: per[split][name] for split in per} for name in prepared.intentions}
    return {name: one | {ALL: sum(one.values())} for name, one in counts.items()}


def text_lines(statistics: Statistics) -> list[str]:
    """Lays the statistics out for a terminal."""
    columns = [*schema.SPLITS, ALL]
    lines = [statistics.name, "", "Table 1", _line("", columns)]
    lines += [_line(row.name, map(row.shown, columns)) for row in statistics.table]
    lines += ["", "Figure 2: conversations by intention", _line("", columns)]
    ordered = sorted(statistics.intentions.items(), key=lambda item: -item[1][ALL])
    lines += [_line(name, (f"{per[column]:,}" for column in columns)) for name, per in ordered]
    lines += ["", "Leaks and duplicates"]
    counted = Counter(one.kind for one in statistics.findings)
    lines += [f"  {counted[kind]:7,}  {text}" for kind, text in KINDS.items()]
    return [*lines, "", *(f"note: {note}" for note in statistics.notes)]


def _line(name: str, values: Iterable[str]) -> str:
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in name)
    return f"  {name:{max(42 - wide, 1)}s}" + "".join(f"{value:>11s}" for value in values)


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return content.getvalue()


def _page(statistics: Statistics, picture: bytes) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    kinds = {kind: [one for one in statistics.findings if one.kind == kind] for kind in KINDS}
    return environment.get_template("statistics.html.jinja").render(
        statistics=statistics,
        columns=[*schema.SPLITS, ALL],
        kinds=kinds,
        texts=KINDS,
        limit=_SHOWN,
        picture=base64.b64encode(picture).decode(),
    )
