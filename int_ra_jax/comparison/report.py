"""Writes a comparison: CSV for machines, Markdown and LaTeX for papers, one page for people.

The page opens offline: its plots are inline SVG and CSS, and its policy forbids every request.
Fractions are written whole into the CSV files and in per cent everywhere else.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from int_ra_jax.common.files import replace_text
from int_ra_jax.comparison import people, texts
from int_ra_jax.comparison.compare import LEVEL
from int_ra_jax.comparison.layout import AGREEMENT, COLUMNS
from int_ra_jax.comparison.results import Comparison, Row
from int_ra_jax.evaluation import page, plots

# Of what a terminal has room for, what there is.
_TERMINAL = ("hit@1", "mAP", "mrr", "gold MRR", "gold_cross_entropy")
_TEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    **{character: "\\" + character for character in "&%$#_{}"},
    "±": r"$\pm$", "−": "$-$", "·": r"$\cdot$", "×": r"$\times$",
}  # fmt: skip


def write(directory: Path, compared: Comparison) -> Path:
    """Writes every file of a comparison; each is replaced as a whole.

    Args:
      directory: made if missing.
      compared: what to write.

    Returns:
      The path of the page.
    """
    files = {
        "table.csv": page.csv_text(_table_rows(compared.rows)),
        "significance.csv": page.csv_text(map(vars, compared.tests)),
        "per_intention.csv": page.csv_text(_intention_rows(compared)),
        "pr_curve.csv": page.csv_text(_curve_rows(compared)),
        "trials.csv": page.csv_text(_trial_rows(compared)),
        "runs.csv": page.csv_text(map(vars, compared.runs)),
        "table.md": _markdown(compared),
        "table.tex": _latex(compared),
        "table.html": _page(compared),
    }
    if compared.agreement:
        files["agreement.csv"] = page.csv_text(_table_rows(compared.agreement))
    if compared.cases:
        files["per_case.csv"] = page.csv_text(_case_rows(compared))
    if compared.curves:
        # A page by itself has a white ground and no ink of its own.
        svg = plots.pr_svg(compared.curves, compared.prevalence, "pr")
        files["pr_curve.svg"] = svg.replace(
            "<svg", '<svg style="background: white; color: #222"', 1
        )
    for name, text in files.items():
        replace_text(directory / name, text)
    return directory / "table.html"


def lines(compared: Comparison) -> list[str]:
    """Returns the table for a terminal, what it says, and what a reader must know."""
    shown = [column for column in _TERMINAL if column in compared.columns]
    table = []
    for row in compared.rows:
        cells = "  ".join(f"{c} {texts.cell(c, row.metrics[c]):>10s}" for c in shown)
        table.append(
            f"{texts.row_name(row.name, compared):22s} {cells}  {texts.seeds(row)}".rstrip()
        )
    return [*table, *texts.verdict(compared), *(f"note: {note}" for note in compared.notes)]


def _table_rows(rows: Sequence[Row]) -> Iterable[dict[str, Any]]:
    columns = dict.fromkeys(column for row in rows for column in row.metrics)
    told = [name for name in texts.FACTS if any(name in row.facts for row in rows)]
    for row in rows:
        cells = {
            f"{column} {part}": getattr(row.metrics.get(column), part, None)
            for column in columns
            for part in ("mean", "sd", "low", "high")
        }
        facts = {name: row.facts.get(name) for name in told}
        numbers = " ".join(map(str, row.seeds))
        yield {"row": row.name, "kind": row.kind, "seeds": numbers, **cells, **facts}


def _intention_rows(compared: Comparison) -> Iterable[dict[str, Any]]:
    for row in compared.rows:
        for intention, metrics in row.by_intention.items():
            queries = compared.queries[intention]
            yield {"row": row.name, "intention": intention, "queries": queries, **metrics}


def _case_rows(compared: Comparison) -> Iterable[dict[str, Any]]:
    for row in compared.rows:
        for case, metrics in row.by_case.items():
            queries = compared.cases[case]
            yield {"row": row.name, "case": case, "queries": queries, **metrics}


def _curve_rows(compared: Comparison) -> Iterable[dict[str, Any]]:
    for name, curve in compared.curves.items():
        for recall, precision in zip(curve.x, curve.y, strict=True):
            yield {"row": name, "recall": float(recall), "precision": float(precision)}


def _trial_rows(compared: Comparison) -> Iterable[dict[str, Any]]:
    keys = list(dict.fromkeys(key for trial in compared.trials for key in trial.values))
    for trial in compared.trials:
        values = {key: trial.values.get(key) for key in keys}
        yield {
            "system": trial.system, "trial": trial.number, **values,
            "validation mAP": trial.validation, "chosen": trial.chosen, "error": trial.error,
        }  # fmt: skip


def _markdown(compared: Comparison) -> str:
    def escape(text: str) -> str:
        return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", " ".join(text.split()))

    parts = [f"# {escape(compared.title)}", *map(escape, texts.verdict(compared))]
    for section in _sections(compared):
        header, body = _cells(compared, section)
        table = [header, ["---", *("---:" for _ in header[1:])]]
        table += [[_strong(cell, "**", escape) for cell in cells] for cells in body]
        parts += [f"## {section.heading}", "\n".join(f"| {' | '.join(x)} |" for x in table)]
        parts += [escape(section.caption)]
    parts += ["\n".join(f"- {escape(note)}" for note in compared.notes)]
    return "\n\n".join(parts) + "\n"


def _latex(compared: Comparison) -> str:
    def escape(text: str) -> str:
        return "".join(_TEX.get(character, character) for character in " ".join(text.split()))

    parts = ["% needs \\usepackage{booktabs}"]
    for section in _sections(compared):
        header, body = _cells(compared, section)
        cells = [" & ".join(map(escape, header)) + r" \\", r"\midrule"]
        cells += [
            " & ".join(
                rf"\textbf{{{escape(cell[2:-2])}}}" if cell.startswith("**") else escape(cell)
                for cell in line
            )
            + r" \\"
            for line in body
        ]
        parts += [
            r"\begin{table}", r"\centering\small", rf"\caption{{{escape(section.heading)}. "
            rf"{escape(section.caption)}}}", rf"\label{{tab:{section.label}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\toprule", *cells,
            r"\bottomrule", r"\end{tabular}", r"\end{table}", "",
        ]  # fmt: skip
    return "\n".join(parts)


def _page(compared: Comparison) -> str:
    sections = []
    for section in _sections(compared):
        header, body = _cells(compared, section)
        sections.append(
            {
                "label": section.label,
                "heading": section.heading,
                "header": header,
                "body": list(zip(section.rows, body, strict=True)),
                "caption": section.caption,
                "intervals": [
                    (texts.heading(column), _intervals(section.rows, column))
                    for column in section.drawn
                ],
                "sampled": section.sampled,
                "forests": _forests(compared, section.label),
                "family": compared.families[section.label],
            }
        )
    return page.render(
        Path(__file__).with_name("table.html.jinja"),
        {
            "difference": texts.difference, "ratio": texts.ratio, "p": texts.p_value,
            "outcome": texts.outcome, "heading": texts.heading, "row_name": texts.row_name,
        },
        compared=compared,
        verdict=texts.verdict(compared),
        sections=sections,
        maps=_maps(compared),
        pr_plot=Markup(plots.pr_svg(compared.curves, compared.prevalence, "pr"))
        if compared.curves
        else "",
    )  # fmt: skip


def _maps(compared: Comparison) -> list[dict[str, Any]]:
    """Returns the heat maps: the primary column of every row, by what the queries are parted by."""
    maps = []
    for label, counts, values in (
        ("intentions", compared.queries, [(row, row.by_intention) for row in compared.rows]),
        ("cases", compared.cases, [(row, row.by_case) for row in compared.rows]),
    ):
        if label == "cases" and not counts:
            continue
        means = [
            (row.name, {part: cells[compared.primary] for part, cells in parted.items()})
            for row, parted in values
        ]
        deepest = max((value for _, row in means for value in row.values()), default=0) or 1.0
        maps.append({"label": label, "counts": counts, "rows": means, "deepest": deepest})
    return maps


@dataclass(frozen=True)
class _Section:
    """One table of the page, and which of its columns are drawn."""

    label: str
    heading: str
    rows: Sequence[Row]
    columns: Sequence[str]
    drawn: Sequence[str]
    caption: str
    sampled: str


def _sections(compared: Comparison) -> list[_Section]:
    """Returns the tables, named by family; the main system heads the readings, too."""
    systems = [row for row in compared.rows if row.kind != "reading"]
    readings = [row for row in compared.rows if row.kind == "reading"]
    main = [row for row in systems if row.name == compared.main]
    drawn, what = (compared.primary, "hit@1"), texts.sampled(compared)
    caption = _caption(compared)
    sections = [
        _Section("systems", "Systems", systems, compared.columns, drawn, caption, what),
    ]
    if readings:
        heading = f"Readings and ablations of {compared.main}"
        rows = main + readings
        sections.append(_Section("readings", heading, rows, compared.columns, drawn, caption, what))
    if compared.agreement:
        columns = [column.name for column in AGREEMENT]
        sections.append(
            _Section(
                people.FAMILY, "Agreement with people", compared.agreement, columns,
                people.TESTED, _caption_of_people(compared), f"the {compared.posts:,} posts",
            )
        )  # fmt: skip
    return sections


def _cells(compared: Comparison, section: _Section) -> tuple[list[str], list[list[str]]]:
    """Returns a table as texts: the best value in ** **, a * where main differs.

    What people do is no row's competitor: none of it is marked as the best.
    """
    shown = [
        name for name in texts.FACTS if any(row.facts.get(name) is not None for row in section.rows)
    ]
    header = ["", *map(texts.heading, section.columns), *(texts.FACTS[name] for name in shown)]
    best = {}
    for column in section.columns:
        pick = min if COLUMNS[column].nats else max
        competing = [row.metrics[column].mean for row in section.rows if row.kind != "people"]
        best[column] = pick((texts.number(column, x) for x in competing), key=float, default="")
    body = []
    for row in section.rows:
        cells = []
        for column in section.columns:
            spread = row.metrics.get(column)
            if spread is None:
                cells.append("")
                continue
            test = compared.test(compared.main, row.name, column)
            star = "*" if test and test.p_holm is not None and test.p_holm < LEVEL else ""
            text = texts.cell(column, spread) + star
            leads = row.kind != "people" and texts.number(column, spread.mean) == best[column]
            cells.append(f"**{text}**" if leads else text)
        body.append(
            [texts.row_name(row.name, compared), *cells, *(texts.fact(x, row) for x in shown)]
        )
    return header, body


def _caption(compared: Comparison) -> str:
    also = " and ".join(compared.also_tested)
    sizes = [
        f"{size} tests of {family}"
        for family, size in compared.families.items()
        if size and family != people.FAMILY
    ]
    nats = any(COLUMNS[column].nats for column in compared.columns)
    if compared.clusters:
        test = f"cluster-robust t-test over queries in {compared.clusters:,} clusters, each query"
    else:
        test = "paired t-test over queries"
    return (
        f"In %{', cross-entropy in nats, where less is better' if nats else ''}; "
        "mean ± standard deviation over seeds. Bold: the best of a column. "
        f"*: {compared.main} differs significantly ({test} averaged over "
        f"seeds, Holm's correction over {' and over '.join(sizes)}, p < {LEVEL:g}). "
        + (f"The tests of {also} are in significance.csv. " if also else "")
        + "hit@n is what the paper calls P@n."
    )


def _caption_of_people(compared: Comparison) -> str:
    return (
        f"In %, mean over the {compared.posts:,} posts that many answered, ± standard deviation "
        "over seeds. First answer: how many of the people who answered sent it; first five: how "
        "many sent one of them; nDCG: the whole order against what people sent. Two people agree: "
        "the chance that one answers as another did. Best single answer, best five answers: known "
        f"afterwards, the most that any system can reach. *: {compared.main} differs significantly "
        f"(paired t-test over posts, Holm's correction over "
        f"{compared.families[people.FAMILY]} tests, p < {LEVEL:g}); readings are not tested here."
    )


def _intervals(rows: Sequence[Row], column: str) -> list[dict[str, Any]]:
    """Places means, intervals and seeds on one axis from 0; positions in per cent of it."""
    spreads = [(row, row.metrics[column]) for row in rows if column in row.metrics]
    top = max((max(spread.high, *spread.seeds, 0) for _, spread in spreads), default=1)
    top = top * 1.02 or 1.0

    def place(value: float) -> str:
        return f"{100 * value / top:.2f}"

    placed = []
    for row, spread in spreads:
        ends = {name: place(getattr(spread, name)) for name in ("low", "high", "mean")}
        placed.append({"row": row, "seeds": list(map(place, spread.seeds)), **ends,
                       "text": texts.cell(column, spread)})  # fmt: skip
    return placed


def _forests(compared: Comparison, family: str) -> list[tuple[str, list[dict[str, Any]]]]:
    """Returns each tested system with its tests placed; readings are tested by main alone.

    Nats and fractions have an axis each.
    """
    names = (compared.main,) if family == "readings" else compared.tested_systems
    placed = []
    for name in names:
        tests = compared.tests_of(name, family)
        axes = {nats: [t for t in tests if COLUMNS[t.metric].nats == nats] for nats in (0, 1)}
        placed.append(
            (name, [{"test": t, **page.places(t, axes[COLUMNS[t.metric].nats])} for t in tests])
        )
    return placed


def _strong(cell: str, mark: str, escape: Callable[[str], str]) -> str:
    if cell.startswith(mark) and cell.endswith(mark) and len(cell) > 2 * len(mark):
        return mark + escape(cell[len(mark) : -len(mark)]) + mark
    return escape(cell)
