"""The `berth` command: where the export and the service meet."""

import hashlib
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from service.errors import ArtifactError, DeviceError
from service.inference.artifact import MANIFEST, read_manifest
from service.logs import complain
from service.placement import Goal, choose
from service.settings import Settings

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


def run(arguments: Sequence[str]) -> int:
    """Run the command that the arguments name."""
    command, *rest = arguments or ["--help"]
    match command:
        case "serve":
            return serve(rest)
        case "export":
            from model_export.__main__ import main as export  # noqa: PLC0415  # serving must not load what exporting needs

            return export(rest, program="berth export")
        case "-h" | "--help":
            print(USAGE, end="")
            return 0
    print(f"berth: there is no command {command!r}\n\n{USAGE}", end="", file=sys.stderr)
    return 2


def serve(arguments: Sequence[str]) -> int:
    """Serve the model that the settings name, exported first where it is not."""
    from service.__main__ import begin  # noqa: PLC0415  # late, so that --help is quick
    from service.__main__ import serve as serve_artifact  # noqa: PLC0415

    settings = begin(arguments)
    folder = given_artifact(settings)
    if folder is None:
        try:
            goal = choose(settings.device, settings.precision)
        except DeviceError as error:
            complain(settings.log_format, str(error))
            return 1
        folder = artifact_folder(settings, goal)
        if must_export(folder) and (status := export_to(folder, settings.model, goal)):
            return status if status > 0 else killed(settings, -status)
    return serve_artifact(settings.model_copy(update={"model": str(folder)}))


def export_to(folder: Path, model: str, goal: Goal) -> int:
    """Export in a process of its own, whose memory is gone when serving starts; gives what `wait` does.

    That is the exit status, or less than 0 where a signal has ended it.
    """
    options = ["--target", goal.target, "--precision", goal.precision]
    export = subprocess.Popen(  # noqa: S603  # this very Python
        # -P, for in the folder where a user types there may be a `service` too.
        [sys.executable, "-P", "-m", "model_export", model, str(folder), *options],
        process_group=0,  # so that Ctrl-C comes to this process alone, as SIGTERM does
    )
    try:
        return export.wait()
    except BaseException:
        export.terminate()
        export.wait()
        raise


def killed(settings: Settings, number: int) -> int:
    """Say that a signal has ended the export, which it could not do itself; gives the status that a shell would."""
    reason = ", as when memory runs out" if number == signal.SIGKILL else ""
    complain(settings.log_format, f"the export of {settings.model} was ended by signal {number}{reason}")
    return 128 + number


def given_artifact(settings: Settings) -> Path | None:
    """Give the folder that the settings name as the model, where it is an artifact and not a checkpoint.

    Raises `SystemExit` where the name begins with a home that nobody has.
    """
    given = _path(settings.model)
    return given if (given / MANIFEST).is_file() else None


def artifact_folder(settings: Settings, goal: Goal) -> Path:
    """Say where a checkpoint's artifact is or should be; its place names model, target and precision.

    Raises `SystemExit` where the model is spelled as a folder and is none.
    """
    given = _path(settings.model)
    name = settings.model
    if name.startswith((".", "/", "~")) and not given.is_dir():
        raise _no_folder(name)
    if given.is_dir():
        name = f"{given.resolve().name}-{_fingerprint(given)}"
    return settings.cache_dir / name / str(goal)


def must_export(folder: Path) -> bool:
    """Say whether there is nothing at the model's place in the cache, or nothing whose manifest this version reads."""
    try:
        read_manifest(folder)
    except ArtifactError:
        return True
    return False


def _path(model: str) -> Path:
    try:
        return Path(model).expanduser()
    except RuntimeError:  # ~somebody who is not there
        raise _no_folder(model) from None


def _no_folder(name: str) -> SystemExit:
    return SystemExit(f"berth: {name}: there is no such folder")


def _fingerprint(folder: Path) -> str:
    """Tell one state of a checkpoint folder from another, by its place and sizes and times of the files that count."""
    from model_export.checkpoint import may_be_read  # noqa: PLC0415  # only where there is a checkpoint

    digest = hashlib.sha256(str(folder.resolve()).encode())
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        # The cache may be inside the checkpoint, and an artifact's tokenizer is called as a checkpoint's is.
        if may_be_read(inside) and path.is_file() and not (path.parent / MANIFEST).exists():
            stat = path.stat()
            digest.update(f"{inside} {stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:12]
