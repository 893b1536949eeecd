"""What stops an export."""

from berth.errors import BerthError

MOST_CHARACTERS = 1000
"""Of a line; what a file says may be longer."""


class ExportError(BerthError):
    """One line that says what is wrong and where, for the person who asked for the export."""

    def __init__(self, message: str = "") -> None:
        line = " ".join(message.splitlines())  # the name of a field may hold a line break, or what moves a cursor
        line = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in line)
        super().__init__(line if len(line) <= MOST_CHARACTERS else f"{line[: MOST_CHARACTERS - 1]}…")


class HalfError(ExportError):
    """Why float16 does not do for a model; the export goes on in float32."""
