"""What a model sees in the pictures of stickers: asked once for each, and never relied upon."""

from collections import Counter
from collections.abc import Callable, Mapping

from absl import logging

from int_ra_jax.common.types import ATTRIBUTES
from int_ra_jax.retrieval.completion import plain

Describe = Callable[[bytes], Mapping[str, str]]
"""An encoded picture -> what it shows of each attribute, "" or nothing where it shows none."""


class Descriptions:
    """The descriptions of one put or change, which may be tried again: kept, failures as well.

    Args:
      describe: describes a picture; None describes none.
    """

    def __init__(self, describe: Describe | None) -> None:
        self._describe = describe
        self._found: dict[bytes, dict[str, str] | None] = {}
        self._failures: list[str] = []

    def of(self, picture: bytes) -> dict[str, str] | None:
        """Returns the attributes that a picture shows, none of them empty.

        Args:
          picture: encoded.

        Returns:
          None where it is not described: nobody describes, or failed to, which ``report`` tells.
        """
        if self._describe is None or not isinstance(picture, bytes):
            return None
        if picture not in self._found:
            self._found[picture] = self._asked(self._describe, picture)
        return self._found[picture]

    def _asked(self, describe: Describe, picture: bytes) -> dict[str, str] | None:
        try:
            said = describe(picture)
            texts = {name: plain(said.get(name, "")) for name in ATTRIBUTES}
        except Exception as error:  # whatever it is made of: it must not stop a put
            self._failures.append(type(error).__name__)
            return None
        return {name: text for name, text in texts.items() if text}

    def report(self) -> None:
        """Logs how many could not be described, by type of error alone: no text of a sticker."""
        if self._failures:
            kinds = ", ".join(f"{kind}: {times}" for kind, times in Counter(self._failures).items())
            logging.warning("%d stickers are not described (%s)", len(self._failures), kinds)
            self._failures.clear()
