"""`python -m service --model ARTIFACT`: serve an artifact that exists."""

import logging
import os
import sys
from collections.abc import Sequence

from service.keys import labels
from service.logs import start_logging
from service.settings import Settings, read_settings, warnings_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal; gives the exit status."""
    return serve(begin(sys.argv[1:] if arguments is None else arguments))


def begin(arguments: Sequence[str]) -> Settings:
    """Read the settings, begin to log as they say, and say first what is odd about them."""
    settings = read_settings(arguments)
    start_logging(settings.log_format)
    logger = logging.getLogger("berth")
    for line in warnings_of(settings, os.environ):
        logger.warning("%s", line)
    if settings.api_keys:
        logger.info("API keys: %s", ", ".join(labels(settings.api_keys)))
    return settings


def serve(settings: Settings) -> int:
    """Serve the artifact that the settings name as the model, in this process or in several of its own."""
    if settings.workers > 1:
        from service.supervisor import supervise  # noqa: PLC0415  # one of the two, for the supervisor needs no encoder

        return supervise(settings)
    from service.server import serve as serve_here  # noqa: PLC0415

    return serve_here(settings)


if __name__ == "__main__":
    sys.exit(main())
