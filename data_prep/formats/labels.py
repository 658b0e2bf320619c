"""Lists of intentions as the published formats write them: ``id TAB name TAB ...``."""

from collections.abc import Iterable

from data_prep.formats.reading import InputDirectory
from data_prep.problems import short
from int_ra_jax.common.nearest import did_you_mean


class Labels:
    """The intentions of an input: those of its label file or, without one, those that occur.

    Attributes:
      stated: whether a label file was read; only then is an unknown name a fault.
    """

    def __init__(self, names: Iterable[str] = (), stated: bool = False) -> None:
        """Starts with the names of a label file, in class order, or with none."""
        self._names = dict.fromkeys(names)
        self.stated = stated

    def message(self, name: object) -> str | None:
        """Returns what is wrong with a conversation's intention, or None; notes a new name."""
        if not isinstance(name, str) or not name.strip():
            return f"intention is {short(name)}, expected a name"
        known = tidy(name)
        if known in self._names:
            return None
        if not self.stated:
            if not known.isprintable():
                return f"intention {short(name)} holds control characters"
            self._names[known] = None
            return None
        return f"intention {short(name)} is not in the label file{did_you_mean(known, self._names)}"

    def in_order(self) -> list[str]:
        """Returns the names in class order: the label file's, or the alphabet's."""
        return list(self._names) if self.stated else sorted(self._names)


def tidy(name: str) -> str:
    """Returns an intention's name as it is compared and stored: lower case, no outer space."""
    return name.strip().lower()


def read_labels(source: InputDirectory, name: str) -> Labels:
    """Reads a label file whose lines are ``id TAB name`` and more columns that are passed over.

    The classes are put in the order of their ids. Where the file is missing the intentions are
    those that occur, with a warning: then data sets with other conversations number them otherwise.
    """
    if not source.has(name):
        source.problems.warn(name, 0, "no label file; the intentions are those that occur")
        return Labels()
    found: dict[int, tuple[str, int]] = {}
    lines: dict[str, int] = {}
    for line, text in source.lines(name):
        columns = text.split("\t")
        if len(columns) < 2 or not columns[0].strip().isdecimal() or len(columns[0]) > 9:
            source.problems.add(name, line, f"expected id TAB name, found {short(text)}")
            continue
        identity, label = int(columns[0]), tidy(columns[1])
        if not label or not label.isprintable():
            source.problems.add(name, line, f"name of the intention is {short(columns[1])}")
        elif identity in found:
            first = found[identity][1]
            source.problems.add(name, line, f"duplicate id {identity}, first on line {first}")
        elif label in lines:
            first = lines[label]
            source.problems.add(name, line, f"duplicate name {short(label)}, first on line {first}")
        else:
            found[identity], lines[label] = (label, line), line
    if sorted(found) != list(range(len(found))):
        source.problems.warn(name, 0, "ids are not 0, 1, 2, ...; the classes keep their order only")
    return Labels((found[identity][0] for identity in sorted(found)), stated=True)
