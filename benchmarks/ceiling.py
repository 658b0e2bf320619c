"""What bounds a run: how well its intentions can be read, and its ranking if they were known.

    python -m benchmarks.ceiling WORKDIR [WORKDIR ...] [--out=FILE]

Ranks the test split by the intentions' probabilities alone, a sticker's score being the summed
probability of the intentions that train annotates it with, under five ways to get them:

  frequency   how often train has an intention: nothing of the conversation is read
  linear      the logistic regression of the row ``linear``
  predicted   the run's own intention head
  shrunk      the same at a temperature, mixed with the frequencies; both fitted on valid (Guo et
              al., 2017, with the frequencies as a second expert). The share left to the head says
              what the head knows beyond the frequencies
  known       the gold intention: what ranking could reach if reading were perfect

and prints the cross-entropy of each on valid and test. A head whose cross-entropy is that of the
frequencies has read nothing that helps, whatever its accuracy.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize
from scipy.special import expit, softmax

from benchmarks import command
from int_ra_jax.evaluation import metrics, reference

SPLITS = ("valid", "test")
SHOWN = ("hit@1", "hit@3", "hit@5", "mAP")
_FLOOR = 1e-4  # of a probability: an intention that train lacks is rare, not impossible


@dataclass(frozen=True)
class Source:
    """One way to get the probabilities, and where it leads.

    Attributes:
      name: see the module.
      cross_entropy: in nats, split -> mean over its conversations.
      metrics: of the test split ranked by them, in [0, 1].
    """

    name: str
    cross_entropy: dict[str, float]
    metrics: dict[str, float]


@dataclass(frozen=True)
class Ceiling:
    """All sources of one run, and the shrinking that valid asked for.

    Attributes:
      sources: in the order of the module's list.
      temperature: of the head's logits; above 1 where it is too sure.
      share: what is left to the head, in [0, 1].
    """

    sources: tuple[Source, ...]
    temperature: float
    share: float


def main() -> None:
    """Prints one table a run."""
    parser = command.parser(__doc__)
    parser.add_argument("workdirs", nargs="+", type=Path, metavar="WORKDIR")
    arguments = parser.parse_args()
    found = {str(workdir): measure(workdir) for workdir in arguments.workdirs}
    text = "\n\n".join(f"{workdir}\n\n{text_table(one)}" for workdir, one in found.items())
    runs = {workdir: asdict(one) for workdir, one in found.items()}
    command.publish(arguments, text, runs=runs)


def measure(workdir: Path) -> Ceiling:
    """Measures one run by its best checkpoint.

    Args:
      workdir: of a training.

    Raises:
      FileNotFoundError: if there is no run.
      ValueError: if its system predicts no intention.
    """
    from int_ra_jax.evaluation.judge import judge
    from int_ra_jax.evaluation.rows import text_of
    from int_ra_jax.run.encode import Encoder
    from int_ra_jax.run.workdir import open_run

    run = open_run(workdir)
    params, _ = run.restore_best()
    train = run.dataset.conversations("train")
    _, intentions = run.dataset.targets(train)
    judged = {split: judge(run, split, "multi") for split in SPLITS}
    gold = {split: judged[split].intention for split in SPLITS}
    classes = len(run.dataset.intentions)
    frequency = np.bincount(intentions, minlength=classes) / len(intentions)
    annotations = judged["test"].annotations

    encoder = Encoder(run)
    logits: dict[str, Float[np.ndarray, "Q K"]] = {}
    for split in SPLITS:
        found = encoder.contexts(params, split, None).intention_logits
        if found is None:
            raise ValueError(
                f"{workdir}: {run.config.model.name} predicts no intention, so there is nothing to "
                "shrink; name a run of int_ra, srs or mod."
            )
        logits[split] = np.asarray(found, np.float64)[: len(gold[split])]
    temperature, share = shrink(logits["valid"], gold["valid"], frequency)
    asked = [text_of(c) for split in SPLITS for c in judged[split].conversations]
    _, linear = reference.linear_scores(
        [text_of(conversation) for conversation in train], intentions, asked, annotations
    )
    by_name = {
        "frequency": {s: np.broadcast_to(frequency, logits[s].shape) for s in SPLITS},
        "linear": dict(zip(SPLITS, np.split(linear, [len(gold["valid"])]), strict=True)),
        "predicted": {s: softmax(logits[s], axis=1) for s in SPLITS},
        "shrunk": {s: mixed(logits[s], frequency, temperature, share) for s in SPLITS},
        "known": {s: np.eye(classes)[gold[s]] for s in SPLITS},
    }
    sources = []
    for name, probabilities in by_name.items():
        entropy = {split: _entropy(probabilities[split], gold[split]) for split in SPLITS}
        scores = probabilities["test"] @ annotations.T.astype(np.float64)
        found = metrics.evaluate_rankings(scores, judged["test"].relevant, on_empty="exclude")
        sources.append(Source(name, entropy, {metric: found[metric] for metric in SHOWN}))
    return Ceiling(tuple(sources), temperature, share)


def shrink(
    logits: Float[np.ndarray, "Q K"], gold: Int[np.ndarray, " Q"], frequency: Float[np.ndarray, "K"]
) -> tuple[float, float]:
    """Fits temperature and share of ``mixed`` to the lowest cross-entropy.

    Args:
      logits: of the intention head.
      gold: class ids.
      frequency: of the intentions in train, summing to 1.

    Returns:
      temperature above 0, and share in [0, 1].
    """

    def loss(point: np.ndarray) -> float:
        return _entropy(mixed(logits, frequency, np.exp(point[0]), expit(point[1])), gold)

    # From the head as it is, from an even mixture, and from next to nothing of it.
    starts = ((0.0, 4.0), (0.0, 0.0), (0.0, -4.0))
    fits = [minimize(loss, start, method="Nelder-Mead") for start in starts]
    best = min(fits, key=lambda fit: float(fit.fun))
    return float(np.exp(best.x[0])), float(expit(best.x[1]))


def mixed(
    logits: Float[np.ndarray, "Q K"],
    frequency: Float[np.ndarray, "K"],
    temperature: float,
    share: float,
) -> Float[np.ndarray, "Q K"]:
    """Returns share * softmax(logits / temperature) + (1 - share) * frequency."""
    predicted: Float[np.ndarray, "Q K"] = softmax(logits / temperature, axis=1)
    return share * predicted + (1 - share) * frequency


def text_table(ceiling: Ceiling) -> str:
    """Returns one run's figures as a table."""
    rows = [
        {"": source.name}
        | {metric: f"{100 * source.metrics[metric]:.1f}" for metric in SHOWN}
        | {f"cross-entropy {split}": f"{source.cross_entropy[split]:.3f}" for split in SPLITS}
        for source in ceiling.sources
    ]
    fitted = f"shrunk: temperature {ceiling.temperature:.2f}, share {ceiling.share:.2f}"
    return f"{command.table(rows)}\n\n{fitted}"


def _entropy(probabilities: Float[np.ndarray, "Q K"], gold: Int[np.ndarray, " Q"]) -> float:
    picked = probabilities[np.arange(len(gold)), gold]
    return float(np.mean(-np.log(np.maximum(picked, _FLOOR)))) + 0.0  # never -0.0


if __name__ == "__main__":
    main()
