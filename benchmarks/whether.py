"""How well it can be told whether a reply would carry a sticker, and how calibrated that is.

    python -m benchmarks.whether REPLIES... --base_rate=0.286 [--own_words_rate=0.229]
        [--resamples=1000] [--out=FILE]

REPLIES as for ``int_ra_jax.retrieval.fit_whether``. Both kinds of models are trained: before
anything is typed, and about a typed message. Test is weighted as train is, so that stickers have
the base rate in every thread; intervals are over threads. ``pooled`` weights the two kinds of
replies as a whole instead: where a thread's share depends on how it was sampled, that flatters a
model which knows the thread.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from benchmarks import command
from int_ra_jax.retrieval import fit_whether
from int_ra_jax.retrieval.fit_whether import Reply

_BINS = 10


def main() -> None:
    """Prints the tables."""
    parser = command.parser(__doc__)
    parser.add_argument("replies", nargs="+", type=Path, metavar="REPLIES")
    parser.add_argument("--base_rate", type=float, required=True)
    parser.add_argument("--own_words_rate", type=float, help="among replies with words")
    parser.add_argument("--resamples", type=int, default=1000)
    arguments = parser.parse_args()
    replies = fit_whether.read_all(arguments.replies)
    rates = {False: arguments.base_rate, True: arguments.own_words_rate or arguments.base_rate}
    rows, bins = [], {}
    for own_words, rate in rates.items():
        name = "typed message" if own_words else "before typing"
        for pooled in (False, True):
            chosen = [_pooled(one) for one in replies] if pooled else replies
            command.say(f"{name}{', pooled' * pooled}: training ...")
            model = fit_whether.fit(chosen, own_words=own_words, base_rate=rate)
            test = fit_whether.judged(chosen, "test", own_words)
            found = Judged(
                model.probabilities([one.moment for one in test]),
                np.array([one.sent for one in test]),
                fit_whether.weights(test, rate),
                _numbered([one.thread for one in fit_whether.judged(replies, "test", own_words)]),
            )
            bins[name + ", pooled" * pooled] = found.bins()
            sends = found.share_above(model.threshold)
            rows.append({"": name + ", pooled" * pooled} | found.row(arguments.resamples, rate))
            rows[-1] |= {"threshold": f"{model.threshold:.3f}", "sends": f"{100 * sends:.1f}%"}
    tables = [command.table(rows)]
    tables += [f"{name}\n\n{command.table(found)}" for name, found in bins.items()]
    command.publish(arguments, "\n\n".join(tables), rows=rows, bins=bins)


@dataclass(frozen=True)
class Judged:
    """Probabilities beside what was sent.

    Attributes:
      probability: [Q] of a sticker.
      sent: whether there was one.
      weight: how much each counts.
      thread: number of the thread of each.
    """

    probability: Float[np.ndarray, " Q"]
    sent: Bool[np.ndarray, " Q"]
    weight: Float[np.ndarray, " Q"]
    thread: Int[np.ndarray, " Q"]

    def row(self, resamples: int, rate: float) -> dict[str, str]:
        """Returns all figures with 95% intervals over threads."""
        rng, threads = np.random.default_rng(0), int(self.thread.max()) + 1
        values = [self.figures(self.weight)]
        for _ in range(resamples):
            times = np.bincount(rng.integers(0, threads, threads), minlength=threads)
            values.append(self.figures(self.weight * times[self.thread]))
        found = {"replies": f"{int((self.weight > 0).sum()):,}"}
        for name in values[0]:
            low, high = np.percentile([one[name] for one in values[1:]], [2.5, 97.5])
            found[name] = f"{values[0][name]:.3f} [{low:.3f}, {high:.3f}]"
        return found | {"Brier of the base rate": f"{rate * (1 - rate):.3f}"}

    def figures(self, weight: Float[np.ndarray, " Q"]) -> Mapping[str, float]:
        """Returns AUC, Brier score and expected calibration error."""
        rest = float(np.average((self.probability - self.sent) ** 2, weights=weight))
        error = sum(share * abs(mean - seen) for share, mean, seen in self._bins(weight))
        return {"AUC": self._auc(weight), "Brier": rest, "ECE": float(error)}

    def bins(self) -> list[dict[str, str]]:
        """Returns how often stickers were sent at ten levels of probability."""
        return [
            {"share": f"{share:.2f}", "said": f"{mean:.3f}", "sent": f"{seen:.3f}"}
            for share, mean, seen in self._bins(self.weight)
        ]

    def share_above(self, threshold: float) -> float:
        """Returns the share of replies that reach a threshold."""
        return float(np.average(self.probability >= threshold, weights=self.weight))

    def _bins(self, weight: Float[np.ndarray, " Q"]) -> list[tuple[float, float, float]]:
        """Returns share, mean probability and rate of ten bins of like size."""
        order = np.argsort(self.probability, kind="stable")
        place = np.cumsum(weight[order]) / weight.sum()
        bins = np.minimum((place * _BINS).astype(int), _BINS - 1)
        total = np.bincount(bins, weight[order], _BINS)
        said = np.bincount(bins, (weight * self.probability)[order], _BINS)
        sent = np.bincount(bins, (weight * self.sent)[order], _BINS)
        return [
            (float(t / total.sum()), float(p / t), float(s / t))
            for t, p, s in zip(total, said, sent, strict=True)
            if t
        ]

    def _auc(self, weight: Float[np.ndarray, " Q"]) -> float:
        """Returns the share of pairs in which the reply with the sticker is the more probable."""
        _, level = np.unique(self.probability, return_inverse=True)
        with_ = np.bincount(level, weight * self.sent)
        without = np.bincount(level, weight * ~self.sent)
        below = np.cumsum(without) - without / 2
        return float((with_ * below).sum() / (with_.sum() * without.sum()))


def _pooled(reply: Reply) -> Reply:
    return Reply(reply.moment, reply.sent, "all", reply.split)


def _numbered(names: Sequence[str]) -> Int[np.ndarray, " Q"]:
    number: dict[str, int] = {}
    return np.array([number.setdefault(name, len(number)) for name in names])


if __name__ == "__main__":
    main()
