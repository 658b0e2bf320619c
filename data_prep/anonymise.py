"""Step 2 of building a data set from chats: pseudonyms, and personal data masked.

    python -m data_prep.anonymise --salt=FILE COLLECTED OUT

FILE is made if it is not there. docs/construction.md tells what the search finds and what not.
"""

from pathlib import Path

from absl import app, flags

from data_prep.chats import anonymise, command, pii

_SALT = flags.DEFINE_string(
    "salt", None, "File with the key of the hashes, outside of OUT.", required=True
)
_REGIONS = flags.DEFINE_list(
    "regions", list(pii.REGIONS), "Countries whose telephone numbers have no country code."
)


def main(argv: list[str]) -> None:
    """Anonymises the step's directory named on the command line."""
    source, out = command.two_paths(argv)
    salt, regions = Path(_SALT.value), tuple(_REGIONS.value)
    command.run(lambda: anonymise.anonymise(source, out, salt, regions))


if __name__ == "__main__":
    app.run(main)
