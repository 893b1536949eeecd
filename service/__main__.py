"""`python -m service --model ARTIFACT`: serve an artifact that exists."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from service.api.app import create_app
from service.errors import ArtifactError, InvalidInputError
from service.inference.artifact import read_artifact
from service.server import Server
from service.settings import Settings, read_settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal; gives the exit status."""
    start_logging()
    return serve(read_settings(sys.argv[1:] if arguments is None else arguments))


def start_logging() -> None:
    """Log to stderr, a line an event."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)


def serve(settings: Settings) -> int:
    """Serve the artifact that the settings name as the model."""
    try:
        artifact = read_artifact(Path(settings.model).expanduser())
        app = create_app(settings, artifact, on_failure=lambda: server.fail())  # noqa: PLW0108  # the server is made next
    except (ArtifactError, InvalidInputError) as error:
        print(f"berth: {error}", file=sys.stderr)
        return 1
    server = Server(app, settings)
    server.run()
    return 1 if server.failed else 0


if __name__ == "__main__":
    sys.exit(main())
