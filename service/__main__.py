"""`python -m service --model ARTIFACT`: serve an artifact that exists."""

import logging
import sys
from collections.abc import Sequence

from service.settings import Settings, read_settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal; gives the exit status."""
    start_logging()
    return serve(read_settings(sys.argv[1:] if arguments is None else arguments))


def start_logging() -> None:
    """Log to stderr, a line an event."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)


def serve(settings: Settings) -> int:
    """Serve the artifact that the settings name as the model, in this process or in several of its own."""
    if settings.workers > 1:
        from service.supervisor import supervise  # noqa: PLC0415  # one of the two, for the supervisor needs no encoder

        return supervise(settings)
    from service.server import serve as serve_here  # noqa: PLC0415

    return serve_here(settings)


if __name__ == "__main__":
    sys.exit(main())
