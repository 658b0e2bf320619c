"""Measures the search for personal data on labelled messages.

    python -m benchmarks.personal_data SAMPLE.jsonl [--half=reported] [--show_errors] [--out=FILE]

A line of the sample is ``{language, half, text}`` with ``[[kind|words]]`` around personal data.
Found means that every character was masked as its kind; a mask is right if it touches personal data
of its kind. Rules may be improved on the half "development" only.
"""

import json
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from benchmarks import command
from data_prep.chats import pii
from data_prep.chats.pii import Span

_LABEL = re.compile(r"\[\[(\w+)\|(.*?)\]\]")


@dataclass
class Quality:
    """Counts of one kind in one language."""

    labelled: int = 0
    found: int = 0
    masked: int = 0
    right: int = 0

    @property
    def recall(self) -> float:
        """Share of the labelled spans that were found."""
        return self.found / self.labelled if self.labelled else 1.0

    @property
    def precision(self) -> float:
        """Share of the masks that were right."""
        return self.right / self.masked if self.masked else 1.0


def main() -> None:
    """Prints precision and recall by language and kind."""
    parser = command.parser(__doc__)
    parser.add_argument("sample", type=Path, help="labelled messages")
    halves = ("reported", "development")
    parser.add_argument("--half", choices=halves, default=halves[0], help="of the sample")
    text = "print the mistakes; for development only"
    parser.add_argument("--show_errors", action="store_true", help=text)
    arguments = parser.parse_args()
    found = measure(arguments.sample, arguments.half, arguments.show_errors)
    rows = [
        {
            "language": language,
            "kind": kind,
            "labelled": one.labelled,
            "found": one.found,
            "recall": f"{one.recall:.2f}",
            "masks": one.masked,
            "right": one.right,
            "precision": f"{one.precision:.2f}",
        }
        for (language, kind), one in found.items()
    ]
    command.publish(arguments, command.table(rows), rows=rows)


def measure(sample: Path, half: str, show: bool = False) -> dict[tuple[str, str], Quality]:
    """Returns the counts by (language, kind), and by (language, "all")."""
    counts: dict[tuple[str, str], Quality] = defaultdict(Quality)
    for line in sample.read_text("utf-8").splitlines():
        record = json.loads(line)
        if record["half"] != half:
            continue
        text, labels = parse(record["text"])
        spans = pii.find(text)
        for kind in pii.KINDS:
            gold = [span for span in labels if span.kind == kind]
            masks = [span for span in spans if span.kind == kind]
            found = [one for one in gold if _covered(one, masks)]
            right = [one for one in masks if any(_touch(one, other) for other in gold)]
            for key in (kind, "all"):
                part = counts[record["language"], key]
                part.labelled, part.found = part.labelled + len(gold), part.found + len(found)
                part.masked, part.right = part.masked + len(masks), part.right + len(right)
            if show and (len(found) < len(gold) or len(right) < len(masks)):
                print(f"{kind}: {record['text']} -> {pii.mask(text, spans)}")
    return dict(sorted(counts.items()))


def parse(labelled: str) -> tuple[str, list[Span]]:
    """Returns a labelled message without its labels, and where they stood."""
    parts: list[str] = []
    spans, place, length = [], 0, 0
    for match in _LABEL.finditer(labelled):
        before = labelled[place : match.start()]
        parts += [before, match[2]]
        length += len(before)
        spans.append(Span(length, length + len(match[2]), match[1]))
        length += len(match[2])
        place = match.end()
    return "".join([*parts, labelled[place:]]), spans


def _covered(span: Span, masks: list[Span]) -> bool:
    return all(any(m.start <= i < m.end for m in masks) for i in range(span.start, span.end))


def _touch(one: Span, other: Span) -> bool:
    return one.start < other.end and other.start < one.end


if __name__ == "__main__":
    main()
