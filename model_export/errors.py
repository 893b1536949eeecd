"""What stops an export."""

from service.errors import BerthError


class ExportError(BerthError):
    """One line that says what is wrong and where, for the person who asked for the export."""
