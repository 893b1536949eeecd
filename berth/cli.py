"""The `berth` command: where the export and the service meet."""

import signal
import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

from berth.errors import BerthError, ExportFailedError

USAGE = """\
usage: berth COMMAND [OPTIONS]

  berth serve    find the model, export it if it is not there yet, and serve it over HTTP
  berth export   export a checkpoint to a folder that can be served

`berth COMMAND --help` lists the options.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; gives the exit status."""
    # A container's first process is deaf to a signal that it has no handler for. The server has its own, once it runs.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        return run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] in {"berth", "service", "model_export"}:
            raise
        cure = "pip install 'berth-embeddings[cpu]' brings all that this needs, or '.[cpu]' in Berth's own folder"
        print(f"berth: {error.name} is not installed; {cure}", file=sys.stderr)
        return 1


def run(arguments: Sequence[str]) -> int:
    """Run the command that the arguments name."""
    command, *rest = arguments or ["--help"]
    match command:
        case "serve":
            return serve(rest)
        case "export":
            load_own("model_export")
            from model_export.__main__ import main as export  # noqa: PLC0415  # serving must not load what exporting needs

            return export(rest, program="berth export")
        case "-h" | "--help":
            print(USAGE, end="")
            return 0
    print(f"berth: there is no command {command!r}\n\n{USAGE}", end="", file=sys.stderr)
    return 2


def serve(arguments: Sequence[str]) -> int:
    """Serve the model that the settings name, exported first where it is not."""
    load_own("service")
    from berth import models, placement  # noqa: PLC0415  # late, so that --help is quick
    from service.__main__ import begin  # noqa: PLC0415
    from service.logs import log_fatal  # noqa: PLC0415

    settings = begin(arguments)
    try:
        folder = models.given_artifact(settings.model)
        if folder is None:
            target = placement.choose(settings.device, settings.precision, settings.int8_weights)
            folder = models.find_artifact(settings.model, target, settings.cache_dir)
    except BerthError as error:
        log_fatal(settings.log_format, str(error))
        return error.status if isinstance(error, ExportFailedError) else 1
    from service.server import serve as serve_artifact  # noqa: PLC0415

    return serve_artifact(settings.model_copy(update={"model": str(folder)}))


def load_own(name: str) -> None:
    """Load one of the packages that come with this one, and not a folder of that name where the user types."""
    spec = PathFinder.find_spec(name, [str(Path(__file__).parents[1])])
    if name in sys.modules or spec is None or spec.loader is None:
        return
    sys.modules[name] = package = module_from_spec(spec)
    spec.loader.exec_module(package)
