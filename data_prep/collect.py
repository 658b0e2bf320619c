"""Step 1 of building a data set from chats: reads an export.

    python -m data_prep.collect --format=telegram EXPORT OUT
    python -m data_prep.collect --format=whatsapp --date_order=dmy EXPORT OUT

docs/construction.md tells all steps. Keep OUT as private as the export.
"""

from absl import app, flags

from data_prep.chats import collect, command, whatsapp_dates

_FORMAT = flags.DEFINE_enum(
    "format", None, collect.FORMATS, "Program that wrote the export.", required=True
)
_ORDER = flags.DEFINE_enum(
    "date_order",
    "auto",
    ("auto", *whatsapp_dates.ORDERS),
    "Day, month and year in WhatsApp's dates.",
)


def main(argv: list[str]) -> None:
    """Reads the export named on the command line."""
    source, out = command.two_paths(argv)
    command.run(lambda: collect.collect(_FORMAT.value, source, out, _ORDER.value))


if __name__ == "__main__":
    app.run(main)
