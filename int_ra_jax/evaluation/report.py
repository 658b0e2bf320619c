"""The report of one evaluation: a page for people, and the same numbers as JSON, JSONL and CSV.

Input is plain data, so this module knows no model and no data set. ``report.html`` is one file
that opens offline: pictures are data URIs, each embedded once however often it is shown, plots are
inline SVG, and a content security policy forbids every request. The same data gives the same
bytes. All texts pass through Jinja's autoescape.
"""

import base64
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from int_ra_jax.common.files import replace_text
from int_ra_jax.common.nearest import nearest
from int_ra_jax.common.types import ATTRIBUTES
from int_ra_jax.evaluation import calibration, page, plots
from int_ra_jax.evaluation.plots import Curve
from int_ra_jax.evaluation.report_data import (
    Difference,
    Example,
    Picture,
    ReportData,
    System,
)

# Of ReportData, what most data does not tell.
_OPTIONAL = ("scales", "cases", "agreement", "cold_start", "remarks")
_SAME_UNDER_EXACT = re.compile(r"precision@|recall@|mAP|gold_hit@|gold_mrr")


def table(data: ReportData) -> list[str]:
    """Returns one line a system: what the paper's Table 2 has, in %, or what the protocol asks."""
    shown: tuple[str, ...] = ("hit@1", "hit@3", "hit@5", "mAP")
    if data.protocol.name == "exact":
        shown = ("hit@1", "hit@5", "hit@10", "mrr", calibration.MEAN)
    return [
        f"{system:20s} "
        + "  ".join(f"{name} {_scaled(name, row.metrics[name].value):>5s}" for name in shown)
        for system, row in data.systems.items()
    ]


def verdict(data: ReportData) -> list[str]:
    """States the headline metric, then each comparison and whether its interval leaves zero out.

    Args:
      data: the report; only intervals are read, nothing is assumed about who wins.

    Returns:
      For example ``["hit@1 36.5% [33.9, 39.1]", "+6.1 points over linear [3.2, 9.0]: better"]``.
    """
    metric = data.headline_metric
    value = data.systems[data.main_system].metrics[metric]
    unit = _unit(metric)
    headline = f"{metric} {_scaled(metric, value.value)}{'%' if unit == 'points' else ''}"
    if value.low is not None and value.high is not None:
        headline += f" [{_scaled(metric, value.low)}, {_scaled(metric, value.high)}]"
    comparisons = [
        f"{_signed(metric, row.difference)} {unit} {'over' if row.difference > 0 else 'against'} "
        f"{row.baseline} [{_scaled(metric, row.low)}, {_scaled(metric, row.high)}]: {_outcome(row)}"
        for row in data.differences
        if row.metric == metric
    ]
    return [headline, *comparisons]


def write(
    directory: Path,
    data: ReportData,
    rows: Iterable[Mapping[str, Any]],
    posts: Iterable[Mapping[str, Any]] = (),
) -> None:
    """Writes every file of an evaluation, each as a whole, and none where one cannot be made.

    Args:
      directory: made if missing.
      data: what to show.
      rows: one a query, as ``per_query`` takes them.
      posts: one a graded post; without any, per_post.jsonl of an earlier evaluation is removed.

    Raises:
      ValueError: if parts of ``data`` contradict each other or a picture is unreadable, or if a
        number is NaN or infinite, which JSON cannot hold.
    """
    texts = {
        "report.html": html(data),  # the first, since it finds contradictions
        "report.json": numbers(data),
        "per_query.jsonl": per_query(rows),
        "pr_curve.csv": pr_curve(data.pr_curves),
    }
    graded = per_query(posts)
    for name, text in texts.items():
        replace_text(directory / name, text)
    if graded:
        replace_text(directory / "per_post.jsonl", graded)
    else:
        (directory / "per_post.jsonl").unlink(missing_ok=True)


def html(data: ReportData) -> str:
    """Returns the page; all contradictions between parts of the data are raised at once."""
    problems = list(_problems(data))
    if problems:
        raise ValueError("the report's data contradicts itself:\n- " + "\n- ".join(problems))
    sheet = _Sheet()
    examples = [_example_view(example, sheet) for example in data.examples]
    metrics = _columns(data)
    return page.render(
        Path(__file__).with_name("report.html.jinja"),
        _FILTERS,
        data=data,
        verdict=verdict(data),
        others=[name for name in data.systems if name != data.main_system],
        metrics=metrics,
        has_ranks=any(map(_is_rank, metrics)),
        has_nats=any(map(_is_nats, metrics)),
        best=_best(data.systems),
        forest=_forest(data.differences),
        pr_plot=Markup(plots.pr_svg(data.pr_curves, data.prevalence, "pr")),
        widest=_widest_share(data.intentions.counts),
        training_plots=_training_plots(data.training),
        examples=examples,
        has_maps=any(view["regions"] for view in examples),
        picture_rules=Markup("\n".join(sheet.rules)),
    )


def numbers(data: ReportData) -> str:
    """Returns the page's numbers as JSON, without pictures, curves and conversations."""
    left_out = {"pr_curves", "training", "examples"}
    # What most data does not tell is not there, rather than empty.
    left_out |= {name for name in _OPTIONAL if not getattr(data, name)}
    content = {key: value for key, value in vars(data).items() if key not in left_out}
    # Rows without their notes: systems.NAME.METRIC is {value, low, high}.
    content["systems"] = {name: row.metrics for name, row in data.systems.items()}
    content["notes"] = {name: row.note for name, row in data.systems.items()}
    content["verdict"] = verdict(data)
    return _json(content, indent=2) + "\n"


def per_query(rows: Iterable[Mapping[str, Any]]) -> str:
    """Returns one JSON object a query, so that any test can be run again.

    Args:
      rows: plain values (also NumPy's) by name, for example query id, seed, AP, hits, gold rank.
    """
    return "".join(_json(row) + "\n" for row in rows)


def pr_curve(curves: Mapping[str, Curve]) -> str:
    """Returns recall (x) and precision (y) of every system as CSV."""
    return page.csv_text(
        {"system": name, "recall": f"{recall:.6g}", "precision": f"{precision:.6g}"}
        for name, curve in curves.items()
        for recall, precision in zip(curve.x, curve.y, strict=True)
    )


@dataclass(frozen=True)
class _Region:
    """One attribute of a sticker: its text, the overlay's style class, and the attention's peak."""

    attribute: str
    text: str
    heat: str
    peak: float


class _Sheet:
    """Collects the style rules that carry the pictures; a picture used twice is embedded once."""

    def __init__(self) -> None:
        self.rules: list[str] = []
        self._names: dict[bytes | Path, str] = {}

    def sticker(self, picture: Picture) -> str:
        """Returns the style class that shows the sticker."""
        if picture.image not in self._names:
            self._add(picture.image, "image/webp", plots.thumbnail(picture.image))
        return self._names[picture.image]

    def regions(self, picture: Picture) -> list[_Region]:
        """Returns where each attribute that the sticker has attended to."""
        if picture.attention is None:
            return []
        found = []
        for name, attention in zip(ATTRIBUTES, picture.attention, strict=True):
            if text := picture.attributes.get(name, ""):
                heat = plots.heat_png(attention)
                if heat not in self._names:
                    self._add(heat, "image/png", heat)
                peak = plots.attention_peak(attention)
                found.append(_Region(name, text, self._names[heat], peak))
        return found

    def _add(self, source: bytes | Path, media_type: str, content: bytes) -> None:
        name = self._names[source] = f"p{len(self.rules)}"
        uri = f"data:{media_type};base64,{base64.b64encode(content).decode()}"
        self.rules.append(f".{name}{{background-image:url({uri})}}")


def _example_view(example: Example, sheet: _Sheet) -> dict[str, Any]:
    """Returns what the template needs beside the example itself."""
    best = example.ranked[0]
    shown: list[tuple[str, Picture]] = [("Rank 1", best.picture)]
    if best.is_gold:
        shown = [("Rank 1, also the gold sticker", best.picture)]
    else:
        shown.append(("Gold sticker", example.gold))
    return {
        "example": example,
        "hit": best.relevant,
        "first_relevant": next((i for i, r in enumerate(example.ranked, 1) if r.relevant), None),
        "gold_class": sheet.sticker(example.gold),
        "ranked": [(ranked, sheet.sticker(ranked.picture)) for ranked in example.ranked],
        "regions": [
            (label, picture, sheet.sticker(picture), regions)
            for label, picture in shown
            if (regions := sheet.regions(picture))
        ],
    }


_FILTERS: dict[str, Callable[..., str]] = {
    "scaled": lambda value, metric: _scaled(metric, value),
    "signed": lambda value, metric: _signed(metric, value),
    "duration": lambda seconds: _duration(seconds),
    "sha256": lambda text: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode(),
}


def _is_rank(metric: str) -> bool:
    """Tells ranks, where low is good and the unit is 1, from fractions, shown in per cent."""
    return metric.startswith("gold_rank")


def _is_nats(metric: str) -> bool:
    """Tells cross-entropy, where low is good and the unit is a nat."""
    return metric == calibration.MEAN


def _low_is_good(metric: str) -> bool:
    return _is_rank(metric) or _is_nats(metric)


def _unit(metric: str) -> str:
    return "ranks" if _is_rank(metric) else "nats" if _is_nats(metric) else "points"


def _scaled(metric: str, value: float) -> str:
    text = f"{value:.3f}" if _is_nats(metric) else None
    text = text or f"{value if _is_rank(metric) else 100 * value:.1f}"
    return text.replace("-", page.MINUS)


def _columns(data: ReportData) -> list[str]:
    """Returns the metrics that the page's table shows; report.json has all of them."""
    metrics = dict.fromkeys(name for row in data.systems.values() for name in row.metrics)
    if data.protocol.name == "exact":  # with one right sticker most say the same
        return [name for name in metrics if not _SAME_UNDER_EXACT.match(name)]
    return list(metrics)


def _signed(metric: str, value: float) -> str:
    return ("+" if value > 0 else "") + _scaled(metric, value)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def _outcome(row: Difference) -> str:
    """Says what the interval allows to say, and no more."""
    if row.low <= 0 <= row.high:
        return "no clear difference"
    return "better" if (row.low > 0) != _low_is_good(row.metric) else "worse"


def _best(systems: Mapping[str, System]) -> dict[str, str]:
    """Returns metric -> the best value as printed, so that values that look equal are all bold."""
    best: dict[str, float] = {}
    for system in systems.values():
        for metric, interval in system.metrics.items():
            choose = min if _low_is_good(metric) else max
            best[metric] = choose(best.get(metric, interval.value), interval.value)
    return {metric: _scaled(metric, value) for metric, value in best.items()}


def _forest(differences: Sequence[Difference]) -> list[dict[str, Any]]:
    """Places every interval on the axis of its unit; positions in per cent of the axis."""
    rows = []
    for row in differences:
        peers = [peer for peer in differences if _unit(peer.metric) == _unit(row.metric)]
        rows.append({"row": row, "outcome": _outcome(row), **page.places(row, peers)})
    return rows


def _widest_share(counts: Mapping[str, Sequence[int]]) -> float:
    """Returns the largest share, in per cent, of one intention in one split: a full bar."""
    return max((100 * max(row) / max(sum(row), 1) for row in counts.values()), default=0) or 1.0


def _training_plots(training: Mapping[str, Curve]) -> list[tuple[str, Markup]]:
    """Draws one plot a metric; names that differ only in their split share it."""
    grouped: dict[str, dict[str, Curve]] = {}
    for name, curve in training.items():
        split, _, metric = name.partition("/")
        grouped.setdefault(metric or split, {})[split] = curve
    return [
        (metric, Markup(plots.training_svg(metric, curves, f"training-{i}")))
        for i, (metric, curves) in enumerate(grouped.items())
    ]


def _problems(data: ReportData) -> Iterator[str]:
    """Yields every contradiction between the parts of the report's data."""
    metrics = {name for system in data.systems.values() for name in system.metrics}
    for what, name, known in [
        ("main_system", data.main_system, data.systems),
        ("headline_metric", data.headline_metric, metrics),
        *(("differences: baseline", row.baseline, data.systems) for row in data.differences),
        *(("differences: metric", row.metric, metrics) for row in data.differences),
        *(("pr_curves: system", name, data.systems) for name in data.pr_curves),
    ]:
        if name not in known:
            near = nearest(name, known) or "nothing"
            yield f"{what} {name!r} is not in the table; nearest is {near!r}"
    main = data.systems.get(data.main_system)
    if main and data.headline_metric not in main.metrics:
        yield f"main_system {data.main_system!r} has no value for {data.headline_metric!r}"
    k = len(data.intentions.names)
    confusion = data.intentions.confusion
    if confusion is not None and confusion.shape != (k, k):
        yield f"confusion has shape {confusion.shape}, but there are {k} intentions"
    for split, counts in data.intentions.counts.items():
        if len(counts) != k:
            yield f"counts of split {split!r} has {len(counts)} entries for {k} intentions"
    for example in data.examples:
        if not example.ranked:
            yield f"conversation {example.id!r} has no ranked sticker; give its best five"
        for picture in [example.gold, *(ranked.picture for ranked in example.ranked)]:
            if picture.attention is not None and len(picture.attention) != len(ATTRIBUTES):
                yield (
                    f"sticker {picture.sticker!r} in {example.id!r} has attention for "
                    f"{len(picture.attention)} attributes; give one map for each of {ATTRIBUTES}"
                )


def _plain(value: Any) -> Any:
    """Turns what JSON does not know into what it does."""
    if is_dataclass(value):
        return vars(value)
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{value!r} cannot be written as JSON; give numbers, texts, lists or dicts")


def _json(content: Any, indent: int | None = None) -> str:
    try:
        return json.dumps(
            content, default=_plain, ensure_ascii=False, allow_nan=False, indent=indent
        )
    except ValueError as error:
        loaded = json.loads(json.dumps(content, default=_plain))
        keys = ", ".join(_not_finite(loaded, ""))
        raise ValueError(
            f"JSON holds no NaN or infinity, but these are: {keys}. Leave the keys out."
        ) from error


def _not_finite(content: Any, key: str) -> Iterator[str]:
    if isinstance(content, float) and not math.isfinite(content):
        yield key
    elif isinstance(content, dict | list):
        for name, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from _not_finite(value, f"{key}.{name}" if key else str(name))
