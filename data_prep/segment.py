"""Step 4 of building a data set from chats: segments, and the context of each sticker.

python -m data_prep.segment FILTERED OUT
python -m data_prep.segment --gap_minutes=60 --reply_hours=12 --max_messages=30 FILTERED OUT
"""

from absl import app, flags

from data_prep.chats import command, segment

_GAP = flags.DEFINE_float("gap_minutes", 30, "Silence after which something new begins.")
_REPLY = flags.DEFINE_float("reply_hours", 24, "How long a reply joins what it answers.")
_LENGTH = flags.DEFINE_integer("max_messages", 40, "Longest segment.")


def main(argv: list[str]) -> None:
    """Cuts the step's directory named on the command line."""
    source, out = command.two_paths(argv)

    def work() -> None:
        gap, reply = round(60 * _GAP.value), round(3600 * _REPLY.value)
        segment.segment(source, out, segment.Limits(gap, reply, _LENGTH.value))

    command.run(work)


if __name__ == "__main__":
    app.run(main)
