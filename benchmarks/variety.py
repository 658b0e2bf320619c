"""What variety costs and what it changes, in the first five of each answer.

    python -m benchmarks.variety WORKDIR [--conversations=300] [--out=FILE]

Ranks the first conversations of test and lets ``varied`` choose from the best of each. The protocol
``multi`` says what is right. ``alike`` is the mean cosine of an answer's stickers to each other,
``intentions`` how many intentions they express together, as train annotates them.
"""

import dataclasses
from itertools import combinations
from pathlib import Path

import numpy as np

from benchmarks import command
from int_ra_jax.retrieval.variety import candidates, varied

LEVELS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
SHOWN = 5


def main() -> None:
    """Prints one table."""
    # Here, because what opens a run loads tensorflow-datasets.
    from int_ra_jax.evaluation.judge import judge
    from int_ra_jax.retrieval.retriever import Retriever
    from int_ra_jax.run.encode import Encoder
    from int_ra_jax.run.workdir import open_run

    parser = command.parser(__doc__)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--conversations", type=int, default=300)
    arguments = parser.parse_args()
    run = open_run(arguments.workdir)
    params, _ = run.restore_best()
    gallery = Encoder(run).kept_gallery(params)
    judged = judge(run, "test", "multi")
    asked = judged.conversations[: arguments.conversations]
    number = min(candidates(SHOWN), len(run.dataset.stickers))
    retriever = Retriever.from_workdir(arguments.workdir)
    scores, places, _ = retriever.rank(asked, gallery, number)
    vectors = np.asarray(gallery.embedding)
    if run.config.model.intention_match:  # annotations stand behind the embedding
        vectors = vectors[:, : -len(run.dataset.intentions)]
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    intentions = np.asarray(judged.annotations)
    rows = []
    for level in LEVELS:
        found = []
        for query, (score, rows_of) in enumerate(zip(scores, places, strict=True)):
            chosen = rows_of[varied(score, vectors[rows_of], SHOWN, variety=level)]
            found.append(_figures(chosen, judged.relevant[query], vectors, intentions))
        means = np.mean([dataclasses.astuple(one) for one in found], axis=0)
        rows.append(_row(level, Answer(*means.tolist())))
    command.publish(arguments, f"{len(asked)} conversations\n\n{command.table(rows)}", rows=rows)


@dataclasses.dataclass(frozen=True)
class Answer:
    """Figures of one answer, or their means.

    Attributes:
      first: whether the first sticker is right.
      any: whether any is.
      right: share that is right.
      alike: mean cosine of the pairs.
      intentions: that are expressed.
    """

    first: float
    any: float
    right: float
    alike: float
    intentions: float


def _figures(
    chosen: np.ndarray, relevant: np.ndarray, vectors: np.ndarray, intentions: np.ndarray
) -> Answer:
    right = relevant[chosen]
    pairs = [float(vectors[one] @ vectors[other]) for one, other in combinations(chosen, 2)]
    expressed = int(intentions[chosen].any(axis=0).sum())
    return Answer(
        float(right[0]), float(right.any()), float(right.mean()), float(np.mean(pairs)), expressed
    )


def _row(level: float, answer: Answer) -> dict[str, str]:
    shares = {"hit@1": answer.first, "hit@5": answer.any, "precision@5": answer.right}
    return {
        "variety": f"{level:.1f}",
        **{name: f"{100 * share:.1f}" for name, share in shares.items()},
        "alike": f"{answer.alike:.2f}",
        "intentions": f"{answer.intentions:.1f}",
    }


if __name__ == "__main__":
    main()
