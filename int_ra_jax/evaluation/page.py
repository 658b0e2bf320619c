"""What the page of an evaluation and that of a comparison share."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

MINUS = "\N{MINUS SIGN}"  # as wide as a plus


def render(template: Path, filters: Mapping[str, Callable[..., str]], **values: Any) -> str:
    """Returns a page; its template may include report.css, and every text is escaped."""
    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(filters)
    return environment.get_template(template.name).render(values)


def csv_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """Returns a table under the first row's keys: numbers in full, nothing for what is None."""
    content, text = list(rows), io.StringIO()
    if content:
        writer = csv.DictWriter(text, list(content[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(content)
    return text.getvalue()


def places(row: Any, peers: Iterable[Any]) -> dict[str, str]:
    """Places zero, an interval and its middle on the axis of all peers, in per cent of it.

    Args:
      row: a difference with ``difference``, ``low`` and ``high``.
      peers: what shares its axis, the row itself among them.
    """
    ends = [end for peer in peers for end in (peer.low, peer.high)]
    low, high = min(0.0, *ends), max(0.0, *ends)
    span = (high - low) * 1.08 or 1.0
    start = (low + high - span) / 2
    values = {"zero": 0.0, "low": row.low, "high": row.high, "mid": row.difference}
    return {name: f"{100 * (value - start) / span:.2f}" for name, value in values.items()}
