"""What stops an export."""

from berth.errors import BerthError


class ExportError(BerthError):
    """One line that says what is wrong and where, for the person who asked for the export."""

    def __init__(self, message: str = "") -> None:
        super().__init__(" ".join(message.splitlines()))  # the name of a field may hold a line break


class HalfError(ExportError):
    """Why float16 does not do for a model; the export goes on in float32."""
