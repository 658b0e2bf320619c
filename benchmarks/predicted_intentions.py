"""How often a new sticker's intentions are guessed right from its attributes.

    python -m benchmarks.predicted_intentions --workdir=RUN [--folds=5] [--repeats=20] [--out=FILE]

Of a run's own stickers each part in turn counts as new, the others say what is known
(``retrieval/intention_guess.py``); nothing is trained. Beside it a row that reads nothing, how
often each intention occurs among the others, and one of the intentions' names alone. ``first`` is
how often the likeliest intention is one of the sticker's, in percent, ``nats`` the cross-entropy
against its intentions alike. Which stickers stand together is drawn anew for each repeat; intervals
resample stickers.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from benchmarks import command

_DRAWS = 2000
_LEAST = 1e-12
_TEMPERATURES = (0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.5, 1.0)


def guesses(
    features: Float[np.ndarray, "M Dt"],
    annotated: Bool[np.ndarray, "M K"],
    names: Float[np.ndarray, "K Dt"],
    new: np.ndarray,
) -> dict[str, np.ndarray]:
    """Returns each row's probabilities [N, K] for new stickers, from what the others say.

    Args:
      features: of all stickers' attributes.
      annotated: which intentions each has, one at least.
      names: of the intentions' names.
      new: rows that count as new.
    """
    from int_ra_jax.retrieval.intention_guess import IntentionGuess

    others = np.setdiff1d(np.arange(len(features)), new)
    counts = annotated[others].sum(0) + 1.0  # smoothed, so that a rare one is not impossible
    guess = IntentionGuess(features[others], annotated[others], names)
    return {
        "nothing": np.broadcast_to(counts / counts.sum(), (len(new), len(counts))),
        "names alone": by_names(features, annotated, names, others)[new],
        "attributes": guess(features[new]),
    }


def by_names(
    features: np.ndarray, annotated: np.ndarray, names: np.ndarray, others: np.ndarray
) -> np.ndarray:
    """Returns probabilities [M, K] by the cosines with the names, less the others' mean cosine."""
    one, other = (f / np.linalg.norm(f, axis=1, keepdims=True) for f in (features, names))
    cosines = one @ other.T
    cosines -= cosines[others].mean(0)
    each = [softmax(cosines / temperature) for temperature in _TEMPERATURES]
    return min(each, key=lambda guess: judged(guess[others], annotated[others])["nats"].mean())


def softmax(logits: Float[np.ndarray, "N K"]) -> Float[np.ndarray, "N K"]:
    """Returns each row's probabilities."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return found


def judged(
    probabilities: Float[np.ndarray, "N K"], annotated: Bool[np.ndarray, "N K"]
) -> dict[str, Float[np.ndarray, "N"]]:
    """Returns whether each sticker's first guess is right, and its cross-entropy in nats."""
    first = np.take_along_axis(annotated, probabilities.argmax(1)[:, None], axis=1)[:, 0]
    target = annotated / annotated.sum(1, keepdims=True)
    nats = -(target * np.log(probabilities + _LEAST)).sum(1)
    return {"first": first.astype(float), "nats": nats}


def measure(
    features: np.ndarray, annotated: np.ndarray, names: np.ndarray, folds: int, repeats: int
) -> dict[str, dict[str, np.ndarray]]:
    """Returns row -> measure -> f[M], each sticker's mean over the repeats."""
    size = len(features)
    found: dict[str, dict[str, np.ndarray]] = {}
    for new in _parts(size, folds, repeats):
        for name, probabilities in guesses(features, annotated, names, new).items():
            for measure, values in judged(probabilities, annotated[new]).items():
                into = found.setdefault(name, {}).setdefault(measure, np.zeros(size))
                into[new] += values / repeats
    return found


def _parts(size: int, folds: int, repeats: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    for _ in range(repeats):
        yield from np.array_split(rng.permutation(size), folds)


def rows_of(found: dict[str, dict[str, np.ndarray]]) -> list[dict[str, str]]:
    """Returns the table, with 95% intervals over stickers."""
    rng, rows = np.random.default_rng(1), []
    for name, measures in found.items():
        row = {"": name}
        for measure, values in measures.items():
            drawn = values[rng.integers(len(values), size=(_DRAWS, len(values)))].mean(1)
            low, high = np.quantile(drawn, [0.025, 0.975])
            scale, form = (100, ".1f") if measure == "first" else (1, ".2f")
            mean, low, high = (format(scale * one, form) for one in (values.mean(), low, high))
            row[measure] = f"{mean} [{low}, {high}]"
        rows.append(row)
    return rows


def main() -> None:
    """Prints the table of a run's own stickers."""
    parser = command.parser(__doc__)
    parser.add_argument("--workdir", type=Path, required=True, help="of a trained run")
    parser.add_argument("--folds", type=int, default=5, help="of the stickers")
    parser.add_argument("--repeats", type=int, default=20, help="other folds each time")
    arguments: argparse.Namespace = parser.parse_args()
    command.use_device("cpu")
    from int_ra_jax.retrieval.sticker_encoder import StickerEncoder

    encoder = StickerEncoder.from_workdir(arguments.workdir)
    features, annotated = encoder.described()
    some = annotated.any(1)
    folds, repeats = arguments.folds, arguments.repeats
    found = measure(features[some], annotated[some], encoder.named(), folds, repeats)
    used = int(annotated[some].any(0).sum())
    told = f"{some.sum()} stickers, {used} intentions\n\n{command.table(rows_of(found))}"
    means = {name: {m: v.mean() for m, v in row.items()} for name, row in found.items()}
    command.publish(arguments, told, stickers=int(some.sum()), intentions=used, means=means)


if __name__ == "__main__":
    main()
