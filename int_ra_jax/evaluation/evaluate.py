"""Evaluates a run: rankings, reference rows, intervals, and the files of WORKDIR/eval/."""

import platform
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from jaxtyping import Float
from sklearn.metrics import confusion_matrix

from int_ra_jax.common import config as configuration
from int_ra_jax.common import params as parameter_paths
from int_ra_jax.common import phases as phase
from int_ra_jax.common.hosts import Placement
from int_ra_jax.common.log import METRICS_FILE, Phases, read_metrics, versions
from int_ra_jax.common.types import Context
from int_ra_jax.data.schema import Conversation
from int_ra_jax.evaluation import examples, metrics, reference, relevance, report, significance
from int_ra_jax.evaluation.judge import Judged, judge, known_splits
from int_ra_jax.evaluation.plots import Curve
from int_ra_jax.evaluation.report_data import (
    Credit,
    DatasetCard,
    Difference,
    Intentions,
    Interval,
    Protocol,
    ReportData,
    RunFacts,
    System,
)
from int_ra_jax.models.interface import Params
from int_ra_jax.run.encode import Encoder
from int_ra_jax.run.workdir import Run

NOTES = {
    "chance": "a uniformly random ranking, in closed form",
    "majority_intention": "stickers of the commonest train intention first, whatever is said",
    "prior": "the best fixed answer: stickers by how many train conversations they suit",
    "linear": "TF-IDF and logistic regression on the context; stickers by the probability of "
    "their intentions",
}


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
    encoder = Encoder(run, placement=placement)
    with phases(phase.ENCODE):
        judged = judge(run, config.eval.split, config.eval.protocol)
        # Computed once, so that it is worth a pass of its own only where other runs need it, too.
        kept = config.train.cache_frozen and config.train.shared_cache
        hidden = encoder.hidden(params, config.eval.split) if kept else None
        contexts = encoder.contexts(params, config.eval.split, hidden)
        gallery = encoder.kept_gallery(params)
        scores, seconds = encoder.timed_scores(params, contexts, gallery)
    with phases(phase.REFERENCES):
        tables = {config.model.name: scores, **_reference_tables(run, judged)}
    with phases(phase.METRICS):
        rows = _per_query(tables, judged)
        systems, differences = _systems(run, rows), _differences(run, rows)
    with phases(phase.REPORT):
        shown = examples.choose(len(judged.gold), config.eval.conversations)
        curves = {
            name: metrics.macro_pr_curve(table, judged.relevant, on_empty="exclude")
            for name, table in tables.items()
        }
        data = ReportData(
            title=f"{config.model.name} on {run.dataset.name}, {config.eval.split} split",
            dataset=_card(run),
            protocol=_protocol(run, judged),
            systems=systems,
            main_system=config.model.name,
            headline_metric="hit@1",
            differences=differences,
            interval_note=f"95% percentile bootstrap over queries, {config.eval.resamples:,} "
            "resamples; differences are paired by query",
            pr_curves={name: Curve(row.recall, row.precision) for name, row in curves.items()},
            prevalence=curves[config.model.name].prevalence,
            intentions=_intentions(run, judged, contexts),
            training=_training_curves(run.workdir),
            examples=examples.draw(run, encoder, params, judged, contexts, shown, scores),
            config={
                key: value
                for key, value in configuration.flatten(config).items()
                if key.split(".")[0] in ("model", "loss", "text", "optim", "train", "seed")
            },
            run=_facts(run, step, phases, 1000 * seconds / len(scores)),
        )
        if jax.process_index() == 0:
            _write(run, judged, contexts, rows, data)
    logging.info("report: %s", run.workdir / "eval" / "report.html")
    return data


def text_of(conversation: Conversation) -> str:
    """Returns a conversation as the linear reference reads it: one turn a line."""
    return "\n".join(turn.text for turn in conversation.turns)


def _reference_tables(run: Run, judged: Judged) -> dict[str, Float[np.ndarray, "Q N"]]:
    train = run.dataset.conversations("train")
    _, intentions = run.dataset.targets(train)
    texts = [text_of(conversation) for conversation in train]
    queries = [text_of(conversation) for conversation in judged.conversations]
    linear = run.shared.get(
        "linear",
        lambda: [reference.SETTINGS, *texts, "queries", *queries, intentions, judged.annotations],
        lambda: reference.linear_scores(texts, intentions, queries, judged.annotations)[0],
    )
    assert isinstance(linear, np.ndarray)
    return {
        "linear": linear,
        "prior": reference.prior_scores(intentions, judged.annotations, len(judged.gold)),
        "majority_intention": reference.majority_scores(
            intentions, judged.annotations, len(judged.gold)
        ),
    }


def _per_query(
    tables: Mapping[str, Float[np.ndarray, "Q N"]], judged: Judged
) -> dict[str, dict[str, np.ndarray]]:
    rows = {
        name: metrics.evaluate_rankings(
            scores, judged.relevant, gold=judged.gold, per_query=True, on_empty="exclude"
        )["per_query"]
        for name, scores in tables.items()
    }
    rows["chance"] = metrics.chance_metrics(
        judged.relevant, with_gold=True, per_query=True, on_empty="exclude"
    )["per_query"]
    return rows


def _systems(run: Run, rows: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, System]:
    systems = {}
    for name, values in rows.items():
        intervals = significance.bootstrap_intervals(
            values, resamples=run.config.eval.resamples, seed=run.config.seed
        )
        named = {metrics.MEANS[metric]: Interval(**row) for metric, row in intervals.items()}
        order = ["hit@1", "hit@3", "hit@5", "mAP", "mrr"]
        order += [metric for metric in named if metric not in order]
        note = NOTES.get(name, "this run's system")
        systems[name] = System({metric: named[metric] for metric in order}, note)
    return systems


def _differences(run: Run, rows: Mapping[str, Mapping[str, np.ndarray]]) -> list[Difference]:
    main = rows[run.config.model.name]
    found = []
    for baseline in ("majority_intention", "prior", "chance", "linear"):
        for metric in ("hit@1", "ap"):
            paired = significance.paired_bootstrap(
                main[metric], rows[baseline][metric],
                resamples=run.config.eval.resamples, seed=run.config.seed,
            )  # fmt: skip
            p_value = paired.pop("p")
            found.append(Difference(metrics.MEANS[metric], baseline, **paired, p_value=p_value))
    return found


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
    return Protocol(
        name=name,
        explanation=relevance.PROTOCOLS[name].format(
            known=" or ".join(known_splits(run.config.eval.split))
        ),
        counts={
            "queries": len(judged.gold),
            "gallery": len(run.dataset.stickers),
            "queries without a relevant sticker": int((~judged.relevant.any(axis=1)).sum()),
            "stickers never annotated in train": len(
                relevance.unannotated_stickers(judged.annotations)
            ),
        },
    )


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


def _write(
    run: Run,
    judged: Judged,
    contexts: Context,
    rows: Mapping[str, Mapping[str, np.ndarray]],
    data: ReportData,
) -> None:
    names, predicted = run.dataset.intentions, None
    if contexts.intention_logits is not None:
        predicted = np.argmax(contexts.intention_logits, axis=1)

    def row(query: int) -> dict[str, Any]:
        return {
            "id": judged.conversations[query].id,
            "seed": run.config.seed,
            "intention": names[judged.intention[query]],
            "predicted_intention": None if predicted is None else names[predicted[query]],
            "sticker": run.dataset.stickers[judged.gold[query]].id,
            # A query without any relevant sticker is left out of every mean: null here.
            "systems": {
                system: {
                    metric: None if np.isnan(column[query]) else float(column[query])
                    for metric, column in values.items()
                }
                for system, values in rows.items()
            },
        }

    report.write(run.workdir / "eval", data, map(row, range(len(judged.gold))))
