"""`python -m service --model ARTIFACT`: serve an artifact that exists."""

import logging
import os
import sys
from collections.abc import Sequence

from service.logs import start_logging
from service.settings import Settings, read_settings, warnings_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal; gives the exit status."""
    settings = begin(sys.argv[1:] if arguments is None else arguments)
    from service.server import serve  # noqa: PLC0415  # late, so that --help is quick

    return serve(settings)


def begin(arguments: Sequence[str]) -> Settings:
    """Read the settings, begin to log as they say, and say first what is odd about them."""
    settings = read_settings(arguments)
    start_logging(settings.log_format)
    logger = logging.getLogger("berth")
    for line in warnings_of(settings, os.environ):
        logger.warning("%s", line)
    if settings.api_keys:
        logger.info("API keys: %s", ", ".join(dict.fromkeys(key.label for key in settings.api_keys)))
    return settings


if __name__ == "__main__":
    sys.exit(main())
