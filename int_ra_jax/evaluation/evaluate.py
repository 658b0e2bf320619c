"""Evaluates a run: rankings, reference rows, intervals, and the files of WORKDIR/eval/."""

import platform
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict
from sklearn.metrics import confusion_matrix

from int_ra_jax.common import config as configuration
from int_ra_jax.common import params as parameter_paths
from int_ra_jax.common import phases as phase
from int_ra_jax.common.hosts import Placement
from int_ra_jax.common.log import METRICS_FILE, Phases, read_metrics, versions
from int_ra_jax.common.types import Context
from int_ra_jax.evaluation import examples, figures, metrics, relevance, report, rows
from int_ra_jax.evaluation.judge import Judged, judge, known_splits
from int_ra_jax.evaluation.plots import Curve
from int_ra_jax.evaluation.report_data import (
    Credit,
    DatasetCard,
    Intentions,
    Protocol,
    ReportData,
    RunFacts,
)
from int_ra_jax.models.interface import Params
from int_ra_jax.run.encode import Encoder
from int_ra_jax.run.workdir import Run

_FITTED = "valid"  # the split on which temperatures are fitted


def evaluate(run: Run, params: Params, step: int, placement: Placement | None = None) -> ReportData:
    """Evaluates a run on ``config.eval.split`` and writes WORKDIR/eval/.

    Several processes encode their own rows each; all judge, and the first one writes.

    Args:
      run: the open workdir.
      params: parameters to evaluate.
      step: the checkpoint's step.
      placement: on which devices to encode; the first one by default.

    Returns:
      What the report shows; report.json, per_query.jsonl, pr_curve.csv and report.html are
      written from it.
    """
    phases = Phases(run.workdir)
    config = run.config
    main, split, protocol = config.model.name, config.eval.split, config.eval.protocol
    encoder = Encoder(run, placement=placement)
    with phases(phase.ENCODE):
        judged = {split: judge(run, split, protocol)}
        contexts = _contexts(run, encoder, params, split)
        gallery = encoder.kept_gallery(params)
        scores, seconds = encoder.timed_scores(params, contexts, gallery)
        tables = {split: {main: scores}}
        if protocol == "exact" and split != _FITTED:
            judged[_FITTED] = judge(run, _FITTED, protocol)
            fitted = encoder.score_all(params, _contexts(run, encoder, params, _FITTED), gallery)
            tables[_FITTED] = {main: np.asarray(fitted)}
    with phases(phase.REFERENCES):
        if protocol == "exact":
            beside = rows.by_sticker(run, encoder, params, judged)
        else:
            beside = rows.by_intention(run, judged[split], split)
        tables = {name: {**table, **beside.tables[name]} for name, table in tables.items()}
    with phases(phase.METRICS):
        asked, main_tables = judged[split], tables[split]
        scales = {}
        if protocol == "exact":
            scales = figures.fit_scales(tables[_FITTED], judged[_FITTED])
        found = figures.compute(run.config, main_tables, asked, scales, beside.notes)
    with phases(phase.REPORT):
        headline = np.flatnonzero(asked.headline)
        shown = headline[examples.choose(len(headline), config.eval.conversations)]
        curves = _curves(main_tables, asked)
        data = ReportData(
            title=f"{main} on {run.dataset.name}, {split} split",
            dataset=_card(run),
            protocol=_protocol(run, asked),
            systems=found.systems,
            main_system=main,
            headline_metric="hit@1",
            differences=found.differences,
            interval_note=_interval_note(config, asked, scales),
            pr_curves={name: Curve(row.recall, row.precision) for name, row in curves.items()},
            prevalence=curves[main].prevalence,
            intentions=_intentions(run, asked, contexts),
            training=_training_curves(run.workdir),
            examples=examples.draw(run, encoder, params, asked, contexts, shown, scores),
            config=_settings(config),
            run=_facts(run, step, phases, 1000 * seconds / len(scores)),
            scales=scales,
            cases=found.cases,
            agreement=found.agreement,
            cold_start=found.cold_start,
            remarks=beside.remarks,
        )
        if jax.process_index() == 0:
            lines = _lines(run, asked, contexts, found)
            report.write(run.workdir / "eval", data, lines, found.posts)
    logging.info("report: %s", run.workdir / "eval" / "report.html")
    return data


def _contexts(run: Run, encoder: Encoder, params: Params, split: str) -> Context:
    """Encodes a split."""
    # Computed once, so that it is worth a pass of its own only where other runs need it, too.
    kept = run.config.train.cache_frozen and run.config.train.shared_cache
    return encoder.contexts(params, split, encoder.hidden(params, split) if kept else None)


def _curves(tables: rows.Tables, judged: Judged) -> dict[str, metrics.PrecisionRecall]:
    """Returns the curve of each row over the headline's queries."""
    headline = judged.headline
    return {
        name: metrics.macro_pr_curve(table[headline], judged.relevant[headline], on_empty="exclude")
        for name, table in tables.items()
    }


def _settings(config: ConfigDict) -> dict[str, Any]:
    """Returns the settings that are worth reading, as flat keys."""
    sections = ("model", "loss", "text", "optim", "train", "seed")
    flat = configuration.flatten(config).items()
    return {key: value for key, value in flat if key.split(".")[0] in sections}


def _interval_note(config: ConfigDict, judged: Judged, scales: Mapping[str, float]) -> str:
    drawn = "over queries"
    if judged.clusters is not None:
        drawn = "over posts (the replies under a post are drawn together)"
    note = (
        f"95% percentile bootstrap {drawn}, {config.eval.resamples:,} "
        "resamples; differences are paired by query"
    )
    if not scales:
        return note
    note += ". Cross-entropy is in nats, after one temperature a row that is fitted on valid"
    if config.eval.split == _FITTED:
        note += ": on these very queries, so that it is somewhat too low"
    return note


def _card(run: Run) -> DatasetCard:
    info = run.dataset.info
    counts = {f"{split} conversations": run.dataset.size(split) for split in run.dataset.splits}
    counts |= {"stickers": len(run.dataset.stickers), "intentions": len(run.dataset.intentions)}
    texts = [str(info[key]) for key in ("attribution", "licence") if info.get(key)]
    return DatasetCard(
        name=f"{run.dataset.name} {info.get('version', '')}".strip(),
        description=str(info.get("derived", info.get("description", ""))),
        counts=counts,
        credits=[Credit(text) for text in texts],
        has_knowledge=run.dataset.has_knowledge,
        language=str(info.get("language", "en")),
    )


def _protocol(run: Run, judged: Judged) -> Protocol:
    name = run.config.eval.protocol
    headline = judged.headline
    counts = {"queries": int(headline.sum())}
    if judged.clusters is not None:
        counts["posts"] = len(np.unique(judged.clusters[headline]))
        counts["echoes, apart"] = int((~headline).sum())
    counts |= {
        "gallery": len(run.dataset.stickers),
        "queries without a relevant sticker": int((~judged.relevant[headline].any(axis=1)).sum()),
        "stickers never annotated in train": len(
            relevance.unannotated_stickers(judged.annotations)
        ),
    }
    known = " or ".join(known_splits(run.config.eval.split))
    return Protocol(name, relevance.PROTOCOLS[name].format(known=known), counts)


def _intentions(run: Run, judged: Judged, contexts: Context) -> Intentions:
    names = run.dataset.intentions
    counts = {}
    for split in run.dataset.splits:
        _, intention = run.dataset.targets(run.dataset.conversations(split))
        counts[split] = np.bincount(intention, minlength=len(names)).tolist()
    confusion = None
    if contexts.intention_logits is not None:
        predicted = np.argmax(contexts.intention_logits, axis=1)
        confusion = confusion_matrix(judged.intention, predicted, labels=range(len(names)))
    return Intentions(names=names, counts=counts, confusion=confusion)


def _training_curves(workdir: Path) -> dict[str, Curve]:
    path = workdir / METRICS_FILE
    if not path.is_file():
        return {}
    return {
        name: Curve(np.asarray(steps), np.asarray(values))
        for name, (steps, values) in read_metrics(path).items()
        if not name.startswith("perf/")
    }


def _facts(run: Run, step: int, phases: Phases, ranking_ms: float) -> RunFacts:
    roles = [(pattern, role) for role, pattern in run.system.param_groups().items()]
    labels = parameter_paths.flatten(parameter_paths.label_by_pattern(run.abstract_params, roles))
    sizes = {
        path: int(np.prod(leaf.shape))
        for path, leaf in parameter_paths.flatten(run.abstract_params).items()
    }
    counts = Counter[str]()
    for path, role in labels.items():
        counts[role] += sizes[path]
    return RunFacts(
        step=step,
        parameters=counts,
        wall_time_s=phases.seconds,
        versions=versions(),
        devices=[f"{d.device_kind} ({platform.machine()})" for d in jax.local_devices()],
        trained=sum(sizes[path] for path in run.trainable),
        ranking_ms=ranking_ms,
    )


def _lines(
    run: Run, judged: Judged, contexts: Context, found: figures.Figures
) -> Iterator[dict[str, Any]]:
    """Yields the lines of per_query.jsonl."""
    names, predicted = run.dataset.intentions, None
    if contexts.intention_logits is not None:
        predicted = np.argmax(contexts.intention_logits, axis=1)
    unseen = found.unseen
    told = {} if unseen is None else {q: unseen.of(n) for n, q in enumerate(unseen.queries)}
    for query, conversation in enumerate(judged.conversations):
        line: dict[str, Any] = {"id": conversation.id, "seed": run.config.seed}
        if judged.cases.threads:
            line |= judged.cases.of(query)
        if query in told:
            line["cold_start"] = told[query]
        yield line | {
            "intention": names[judged.intention[query]],
            "predicted_intention": None if predicted is None else names[predicted[query]],
            "sticker": run.dataset.stickers[judged.gold[query]].id,
            # A query without any relevant sticker is left out of every mean: null here.
            "systems": {
                system: {
                    metric: None if np.isnan(column[query]) else float(column[query])
                    for metric, column in row.items()
                }
                for system, row in found.per_query.items()
            },
        }
