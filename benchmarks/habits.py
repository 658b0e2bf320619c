"""What a person's own earlier stickers add to reading the conversation, by how many there are.

    python -m benchmarks.habits CHOICES [--resamples=2000] [--out=FILE]

CHOICES holds one message with an emoji a line, as JSON or gzip of it: ``user``, ``order`` (of a
user's messages in time), ``split``, ``turns`` [{text}], ``own_words`` and ``emoji``. The model is
the row ``linear`` of evaluations onto stickers. All of a writer's earlier messages are history,
never later ones. Three tables: test, later messages of known writers; all messages of a quarter of
the writers, whom neither the model nor the mixture has seen, from their first one on; and test with
histories that were cut.
"""

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from benchmarks import command
from int_ra_jax.data.ngrams import Texts
from int_ra_jax.evaluation import metrics, significance, sticker_reference
from int_ra_jax.retrieval import habits

ROWS = ("popularity", "text", "own earlier use", "mixture")
_FIGURES = {"hit@1": "R@1", "hit@5": "R@5", "reciprocal_rank": "MRR"}
_LENGTHS = {"all": (0, None), "0": (0, 0), "1-2": (1, 2), "3-9": (3, 9), "10+": (10, None)}
_SHOWN = (0, 1, 2, 3, 5, 10)  # newest earlier uses that are passed on, in the last table


@dataclass(frozen=True)
class Choice:
    """One message.

    Attributes:
      user: who wrote it.
      split: train, valid or test.
      turns: what was said before, and the message's own words where there are any.
      sticker: row of its emoji.
      recent: rows of the writer's earlier ones, the newest first.
    """

    user: str
    split: str
    turns: tuple[str, ...]
    sticker: int
    recent: tuple[int, ...]


def main() -> None:
    """Prints the tables."""
    parser = command.parser(__doc__)
    parser.add_argument("choices", type=Path, metavar="CHOICES")
    parser.add_argument("--resamples", type=int, default=2000)
    arguments = parser.parse_args()
    choices, stickers = read(arguments.choices)
    known = Compared.of(
        [one for one in choices if one.split == "train"],
        [one for one in choices if one.split == "valid"],
        [one for one in choices if one.split == "test"],
        stickers,
    )
    new = new_writers(choices)
    others = [one for one in choices if one.user not in new]
    fresh = Compared.of(
        [one for one in others if one.split == "train"],
        [one for one in others if one.split == "valid"],
        [one for one in choices if one.user in new],
        stickers,
    )
    tables = {
        "test, known writers": known.table(arguments.resamples),
        "writers that were never seen": fresh.table(arguments.resamples),
        "test, with the newest uses alone": known.cut(),
    }
    text = [f"## {title}\n\n{command.table(rows)}" for title, rows in tables.items()]
    fitted = {"known": known.mixture, "new": fresh.mixture}
    text += [f"{name}: {mixture}" for name, mixture in fitted.items()]
    command.publish(arguments, "\n\n".join(text), tables=tables, fitted=fitted)


def read(path: Path) -> tuple[list[Choice], int]:
    """Reads the choices, each with its writer's history; returns them and the number of stickers.

    Raises:
      FileNotFoundError: if there is no such file.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    records.sort(key=lambda one: (one["user"], one["order"]))
    rows = {name: row for row, name in enumerate(sorted({one["emoji"] for one in records}))}
    earlier: dict[str, list[int]] = {}
    choices = []
    for one in records:
        before = earlier.setdefault(one["user"], [])
        said = [turn["text"] for turn in one["turns"]] + [one["own_words"]] * bool(one["own_words"])
        sticker = rows[one["emoji"]]
        choices.append(
            Choice(one["user"], one["split"], tuple(said or [""]), sticker, tuple(before[::-1]))
        )
        before.append(sticker)
    return choices, len(rows)


def new_writers(choices: Sequence[Choice]) -> frozenset[str]:
    """Returns every fourth writer, in order of their names."""
    return frozenset(sorted({one.user for one in choices})[::4])


@dataclass(frozen=True)
class Compared:
    """Choices, ranked by all rows.

    Attributes:
      judged: Q choices.
      text: [Q, N] the model's scores.
      popular: [N] popularity in train.
      mixture: fitted on validation.
    """

    judged: Sequence[Choice]
    text: Float[np.ndarray, "Q N"]
    popular: Float[np.ndarray, " N"]
    mixture: habits.Mixture

    @classmethod
    def of(
        cls,
        train: Sequence[Choice],
        valid: Sequence[Choice],
        judged: Sequence[Choice],
        stickers: int,
    ) -> "Compared":
        """Trains the model and fits the mixture."""
        gold = _gold(train)
        asked = [_texts(valid), _texts(judged)]
        command.say(f"linear, on {len(train):,} messages ...")
        seen, text = sticker_reference.linear_scores(_texts(train), gold, asked, stickers)
        popular = habits.popularity(np.bincount(gold, minlength=stickers))
        recents = [one.recent for one in valid]
        mixture = habits.fit(seen, _gold(valid).tolist(), recents, popular)
        return cls(judged, text, popular, mixture)

    def scores(self, longest: int | None = None) -> Mapping[str, Float[np.ndarray, "Q N"]]:
        """Returns row -> scores, with histories of at most so many newest uses."""
        recents = [one.recent[:longest] for one in self.judged]
        # The habit alone is the mixture of a model that knows what is popular and nothing else.
        alone = habits.Mixture(1.0, 1.0, self.mixture.backing, self.mixture.half_life)
        popular = np.log(self.popular)
        return {
            "popularity": np.broadcast_to(popular, self.text.shape),
            "text": self.text,
            "own earlier use": np.stack([alone.mix(popular, r, self.popular) for r in recents]),
            "mixture": np.stack(
                [
                    self.mixture.mix(scores, recent, self.popular)
                    for scores, recent in zip(self.text, recents, strict=True)
                ]
            ),
        }

    def values(self, longest: int | None = None) -> Mapping[str, Mapping[str, np.ndarray]]:
        """Returns row -> figure -> [Q] values in %."""
        relevant = np.eye(len(self.popular), dtype=bool)[_gold(self.judged)]
        found = {}
        for row, scores in self.scores(longest).items():
            ranked = metrics.evaluate_rankings(scores, relevant, per_query=True)
            found[row] = {figure: 100 * ranked["per_query"][figure] for figure in _FIGURES}
        return found

    def table(self, resamples: int) -> list[dict[str, str]]:
        """Returns figures by length of history, with intervals over writers."""
        values, lengths = self.values(), np.array([len(one.recent) for one in self.judged])
        rows = []
        for name, (least, most) in _LENGTHS.items():
            chosen = (lengths >= least) & (lengths <= (most if most is not None else np.inf))
            if not chosen.any():
                continue
            users = [one.user for one, taken in zip(self.judged, chosen, strict=True) if taken]
            for row in ROWS:
                figures = {figure: values[row][figure][chosen] for figure in _FIGURES}
                means = significance.bootstrap_intervals(
                    figures, clusters=users, resamples=resamples
                )
                cells = {
                    shown: "{value:.1f} [{low:.1f}, {high:.1f}]".format(**means[figure])
                    for figure, shown in _FIGURES.items()
                }
                gain = "" if row == "mixture" else self._gain(values, row, chosen, users, resamples)
                rows.append(
                    {
                        "earlier uses": f"{name} ({chosen.sum():,} of {len(set(users)):,})",
                        "row": row,
                        **cells,
                        "mixture - row, MRR": gain,
                    }
                )
        return rows

    def cut(self) -> list[dict[str, str]]:
        """Returns the MRR of test where the caller passes on few of the uses there are."""
        found = {str(longest): self.values(longest) for longest in _SHOWN} | {"all": self.values()}
        return [
            {
                "newest uses": longest,
                **{row: f"{values[row]['reciprocal_rank'].mean():.1f}" for row in ROWS},
            }
            for longest, values in found.items()
        ]

    def _gain(
        self,
        values: Mapping[str, Mapping[str, np.ndarray]],
        row: str,
        chosen: np.ndarray,
        users: Sequence[str],
        resamples: int,
    ) -> str:
        a, b = values["mixture"]["reciprocal_rank"][chosen], values[row]["reciprocal_rank"][chosen]
        found = significance.paired_bootstrap(a, b, clusters=users, resamples=resamples)
        return "{difference:+.1f} [{low:+.1f}, {high:+.1f}]".format(**found)


def _gold(choices: Sequence[Choice]) -> Int[np.ndarray, " Q"]:
    return np.array([one.sticker for one in choices])


def _texts(choices: Sequence[Choice]) -> Texts:
    whole = ["\n".join(one.turns) for one in choices]
    return Texts([one.turns[-1] for one in choices], whole)


if __name__ == "__main__":
    main()
