"""Everything that is wrong with an input, collected, so that one run names it all."""

from absl import logging

from int_ra_jax.data.validation import Problem

SHOWN = 200  # more are counted and not kept, so that a file of rubbish needs no memory


class BadInputError(ValueError):
    """An input that was not taken, with what is wrong with it.

    Attributes:
      problems: the first ``SHOWN``, in the order in which they were met.
      total: how many there are.
    """

    def __init__(self, source: str, problems: list[Problem], total: int) -> None:
        self.problems, self.total = problems, total
        lines = "\n".join(f"  {problem}" for problem in problems)
        rest = f"\n  ... and {total - len(problems)} more" if total > len(problems) else ""
        super().__init__(f"{total} problems in {source}; nothing was written:\n{lines}{rest}")


class Problems:
    """Collects what is wrong while an input is read to its end; then one call stops the run.

    Attributes:
      total: how many problems there are.
      warnings: how many oddities there are; the first ``SHOWN`` are logged.
    """

    def __init__(self, source: object) -> None:
        """Starts without any.

        Args:
          source: what is read, for the message.
        """
        self._source = str(source)
        self._kept: list[Problem] = []
        self.total = 0
        self.warnings = 0

    def add(self, file: str, line: int, message: str) -> None:
        """Notes a problem.

        Args:
          file: name relative to the source.
          line: counted from 1; 0 where the whole file is meant.
          message: what is wrong, with the value cut to a readable length, and what to do.
        """
        self.total += 1
        if len(self._kept) < SHOWN:
            self._kept.append(Problem(file, line, message))

    def warn(self, file: str, line: int, message: str) -> None:
        """Logs something odd that stops nothing; after ``SHOWN`` of them they are only counted."""
        self.warnings += 1
        if self.warnings <= SHOWN:
            logging.warning("%s", Problem(file, line, message))
        if self.warnings == SHOWN:
            logging.warning("further warnings are counted and not shown")

    def stop_if_any(self) -> None:
        """Ends the run if anything is wrong.

        Raises:
          BadInputError: with every problem.
        """
        if self.total:
            raise BadInputError(self._source, self._kept, self.total)


def short(value: object, limit: int = 60) -> str:
    """Returns how a message shows a value: as Python writes it, cut to a readable length.

    ``ascii`` is used and not ``repr``, since a report must be printable whatever the input holds.
    """
    written = ascii(value[: limit + 1]) if isinstance(value, str) else ascii(value)
    return written if len(written) <= limit else f"{written[:limit]}..."
