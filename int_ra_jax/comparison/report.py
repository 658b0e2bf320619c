"""Writes a comparison: CSV for machines, Markdown and LaTeX for papers, one page for people.

The page opens offline: its plots are inline SVG and CSS, and its policy forbids every request.
Fractions are written whole into the CSV files and in per cent everywhere else.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from markupsafe import Markup

from int_ra_jax.common.files import replace_text
from int_ra_jax.comparison.compare import LEVEL
from int_ra_jax.comparison.results import METRICS, Comparison, Row, Spread, Test
from int_ra_jax.evaluation import page, plots

_FACTS = {
    "parameters": "parameters",
    "trained": "of them trained",
    "training_seconds": "training",
    "ranking_ms": "ranking, ms/query",
}
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
    texts = {
        "table.csv": page.csv_text(_table_rows(compared)),
        "significance.csv": page.csv_text(map(vars, compared.tests)),
        "per_intention.csv": page.csv_text(_intention_rows(compared)),
        "pr_curve.csv": page.csv_text(_curve_rows(compared)),
        "trials.csv": page.csv_text(_trial_rows(compared)),
        "runs.csv": page.csv_text(map(vars, compared.runs)),
        "table.md": _markdown(compared),
        "table.tex": _latex(compared),
        "table.html": _page(compared),
    }
    if compared.curves:
        # A page by itself has a white ground and no ink of its own.
        svg = plots.pr_svg(compared.curves, compared.prevalence, "pr")
        texts["pr_curve.svg"] = svg.replace(
            "<svg", '<svg style="background: white; color: #222"', 1
        )
    for name, text in texts.items():
        replace_text(directory / name, text)
    return directory / "table.html"


def lines(compared: Comparison) -> list[str]:
    """Returns the table for a terminal, what it says, and what a reader must know."""
    table = []
    for row in compared.rows:
        cells = "  ".join(f"{m} {_cell(row.metrics[m]):>10s}" for m in ("hit@1", "mAP", "gold MRR"))
        table.append(f"{row.name:22s} {cells}  {_seeds(row)}".rstrip())
    return [*table, *verdict(compared), *(f"note: {note}" for note in compared.notes)]


def verdict(compared: Comparison) -> list[str]:
    """States each tested system's mAP, and how it stands to the best other system and to linear.

    Args:
      compared: the comparison; only corrected tests are read, nothing is assumed about who wins.

    Returns:
      One sentence each, the main system's first; one alone for a tested system without a complete
      run. No tested system counts as the best other one.
    """
    return [
        sentence
        for name in compared.tested_systems
        for sentence in _verdict_of(name, compared)
        if sentence
    ]


def _verdict_of(name: str, compared: Comparison) -> list[str]:
    system = compared.row(name)
    if system is None:
        return [f"{name} has no complete run, so it is not compared."]
    said = [f"{name} reaches {_cell(system.metrics['mAP'])} mAP ({_seeds(system)})."]
    others = [
        row for row in compared.rows
        if row.kind == "system" and row.name not in compared.tested_systems
    ]  # fmt: skip
    if others:
        best = max(others, key=lambda row: row.metrics["mAP"].mean)
        said.append(_stands(compared, name, best, "the best other system"))
    if linear := compared.row("linear"):
        said.append(_stands(compared, name, linear, "TF-IDF and logistic regression"))
    return said


def _stands(compared: Comparison, system: str, other: Row, what: str) -> str:
    test = compared.test(system, other.name, "mAP")
    if test is None:
        return ""
    ratio = "" if test.ratio is None else f"{test.ratio:.2f} times its mAP, "
    return (
        f"Against {other.name}, {what} ({_cell(other.metrics['mAP'])} mAP): {ratio}"
        f"{_signed(test.difference)} points [{_signed(test.low)}, {_signed(test.high)}], "
        f"Holm-corrected p {_p(test.p_holm)}: {outcome(test)}."
    )


def outcome(test: Test) -> str:
    """Says what a corrected test allows to say, and no more."""
    if test.p_holm is None:
        return "undefined"
    if test.p_holm >= LEVEL:
        return "no significant difference"
    return "significantly better" if test.difference > 0 else "significantly worse"


def _table_rows(compared: Comparison) -> Iterable[dict[str, Any]]:
    for row in compared.rows:
        cells = {
            f"{metric} {part}": getattr(spread, part)
            for metric, spread in row.metrics.items()
            for part in ("mean", "sd", "low", "high")
        }
        seeds = " ".join(map(str, row.seeds))
        facts = {name: row.facts.get(name) for name in _FACTS}
        yield {"row": row.name, "kind": row.kind, "seeds": seeds, **cells, **facts}


def _intention_rows(compared: Comparison) -> Iterable[dict[str, Any]]:
    for row in compared.rows:
        for intention, metrics in row.by_intention.items():
            queries = compared.queries[intention]
            yield {"row": row.name, "intention": intention, "queries": queries, **metrics}


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

    parts = [f"# {escape(compared.title)}", *map(escape, verdict(compared))]
    for _, heading, rows in _sections(compared):
        header, body = _columns(compared, rows)
        table = [header, ["---", *("---:" for _ in header[1:])]]
        table += [[_strong(cell, "**", escape) for cell in cells] for cells in body]
        parts += [f"## {heading}", "\n".join(f"| {' | '.join(cells)} |" for cells in table)]
    parts += [escape(_caption(compared)), *(f"- {escape(note)}" for note in compared.notes)]
    return "\n\n".join(parts) + "\n"


def _latex(compared: Comparison) -> str:
    def escape(text: str) -> str:
        return "".join(_TEX.get(character, character) for character in " ".join(text.split()))

    parts = ["% needs \\usepackage{booktabs}"]
    for label, heading, rows in _sections(compared):
        header, body = _columns(compared, rows)
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
            r"\begin{table}", r"\centering\small", rf"\caption{{{escape(heading)}. "
            rf"{escape(_caption(compared))}}}", rf"\label{{tab:{label}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\toprule", *cells,
            r"\bottomrule", r"\end{tabular}", r"\end{table}", "",
        ]  # fmt: skip
    return "\n".join(parts)


def _page(compared: Comparison) -> str:
    sections = []
    for label, heading, rows in _sections(compared):
        header, body = _columns(compared, rows)
        sections.append(
            {
                "label": label,
                "heading": heading,
                "header": header,
                "body": list(zip(rows, body, strict=True)),
                "intervals": [(m, _intervals(rows, m)) for m in ("mAP", "hit@1")],
                "forests": _forests(compared, label),
                "family": compared.families[label],
            }
        )
    deepest = max(
        (values["mAP"] for row in compared.rows for values in row.by_intention.values()),
        default=1.0,
    )
    return page.render(
        Path(__file__).with_name("table.html.jinja"),
        {"cell": _cell, "signed": _signed, "p": _p, "outcome": outcome},
        compared=compared,
        verdict=verdict(compared),
        caption=_caption(compared),
        sections=sections,
        deepest=deepest or 1.0,
        pr_plot=Markup(plots.pr_svg(compared.curves, compared.prevalence, "pr"))
        if compared.curves
        else "",
    )


def _sections(compared: Comparison) -> list[tuple[str, str, list[Row]]]:
    """Returns (family, heading, rows); the main system heads the readings, too."""
    systems = [row for row in compared.rows if row.kind != "reading"]
    readings = [row for row in compared.rows if row.kind == "reading"]
    main = [row for row in systems if row.name == compared.main]
    sections = [("systems", "Systems", systems)]
    if readings:
        sections.append(("readings", f"Readings and ablations of {compared.main}", main + readings))
    return sections


def _columns(compared: Comparison, rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Returns the table as texts: the best value in ** **, a * where main differs."""
    shown = [name for name in _FACTS if any(row.facts.get(name) is not None for row in rows)]
    header = ["", *METRICS, *(_FACTS[name] for name in shown)]
    best = {m: max((_percent(row.metrics[m].mean) for row in rows), key=float, default="")
            for m in METRICS}  # fmt: skip
    body = []
    for row in rows:
        cells = []
        for metric in METRICS:
            spread = row.metrics[metric]
            test = compared.test(compared.main, row.name, metric)
            star = "*" if test and test.p_holm is not None and test.p_holm < LEVEL else ""
            text = _cell(spread) + star
            cells.append(f"**{text}**" if _percent(spread.mean) == best[metric] else text)
        body.append([row.name, *cells, *(_fact(name, row) for name in shown)])
    return header, body


def _caption(compared: Comparison) -> str:
    also = " and ".join(compared.also_tested)
    sizes = [f"{size} tests of {family}" for family, size in compared.families.items() if size]
    return (
        "In %; mean ± standard deviation over seeds. Bold: the best of a column. "
        f"*: {compared.main} differs significantly (paired t-test over queries averaged over "
        f"seeds, Holm's correction over {' and over '.join(sizes)}, p < {LEVEL:g}). "
        + (f"The tests of {also} are in significance.csv. " if also else "")
        + "hit@n is what the paper calls P@n."
    )


def _intervals(rows: Sequence[Row], metric: str) -> list[dict[str, Any]]:
    """Places means, intervals and seeds on one axis from 0; positions in per cent of it."""
    top = max((max(r.metrics[metric].high, *r.metrics[metric].seeds, 0) for r in rows), default=1)
    top = top * 1.02 or 1.0

    def place(value: float) -> str:
        return f"{100 * value / top:.2f}"

    placed = []
    for row in rows:
        spread = row.metrics[metric]
        ends = {name: place(getattr(spread, name)) for name in ("low", "high", "mean")}
        placed.append({"row": row, "seeds": list(map(place, spread.seeds)), **ends,
                       "text": _cell(spread)})  # fmt: skip
    return placed


def _forests(compared: Comparison, family: str) -> list[tuple[str, list[dict[str, Any]]]]:
    """Returns each tested system with its tests placed; readings are tested by main alone."""
    names = compared.tested_systems if family == "systems" else (compared.main,)
    every = [(name, compared.tests_of(name, family)) for name in names]
    return [
        (name, [{"test": test, **page.places(test, tests)} for test in tests])
        for name, tests in every
    ]


def _strong(cell: str, mark: str, escape: Callable[[str], str]) -> str:
    if cell.startswith(mark) and cell.endswith(mark) and len(cell) > 2 * len(mark):
        return mark + escape(cell[len(mark) : -len(mark)]) + mark
    return escape(cell)


def _cell(spread: Spread) -> str:
    sd = "" if spread.sd is None else f" ± {_percent(spread.sd)}"
    return _percent(spread.mean) + sd


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _signed(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", page.MINUS)


def _p(value: float | None) -> str:
    if value is None:
        return "undefined"
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def _fact(name: str, row: Row) -> str:
    value = row.facts.get(name)
    if value is None:
        return "" if row.kind == "reference" else "not recorded"
    if name == "training_seconds":
        return str(timedelta(seconds=round(value)))
    return f"{value:.3f}" if name == "ranking_ms" else f"{value:,.0f}"


def _seeds(row: Row) -> str:
    if not row.seeds:
        return ""
    word = "seed" if len(row.seeds) == 1 else "seeds"
    return f"{word} {', '.join(map(str, row.seeds))}"
