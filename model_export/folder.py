"""A folder that appears whole or not at all."""

import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from berth.artifact import MANIFEST
from model_export.errors import ExportError

if sys.platform != "win32":
    import fcntl


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Give a folder to write in; it becomes `out` at the end, or vanishes with everything in it if that is not reached.

    An artifact already at `out` is replaced, anything else is refused. Of two exports to one place the later one stays.
    What an export to `out` left that was killed is removed first. Raises `ExportError` where there can be no folder.
    """
    try:
        out = out.expanduser().resolve()
    except RuntimeError as error:  # ~somebody who is not there
        raise ExportError(f"{out} cannot be made: {error}") from error
    # Not by mkdtemp, whose folders only their owner can read: the service may run as somebody else.
    draft = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
    with ExitStack() as life:
        life.callback(shutil.rmtree, draft, ignore_errors=True)
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            with _alone_in(out.parent):
                _remove_leftovers(out)
                _refuse_what_is_no_artifact(out)
                draft.mkdir()
                life.enter_context(_alone_in(draft))  # by which others see that this export lives
        except OSError as error:
            raise ExportError(f"{out} cannot be made: {error.strerror}") from error
        yield draft
        with _alone_in(out.parent):
            _refuse_what_is_no_artifact(out)
            _replace(out, draft)


def _remove_leftovers(out: Path) -> None:
    """Remove what killed exports to `out` have left; an artifact that one of them had just moved aside comes back."""
    leftover = re.compile(rf"\.{re.escape(out.name)}\.[0-9a-f]{{8}}(\.old)?")
    for path in out.parent.iterdir():
        if leftover.fullmatch(path.name) and _is_free(path):
            if path.suffix == ".old" and not out.exists():
                path.rename(out)
            else:
                shutil.rmtree(path, ignore_errors=True)


def _replace(out: Path, draft: Path) -> None:
    """Move what is at `out` aside and the draft to its place; if that fails, the old one comes back."""
    aside = draft.with_name(f"{draft.name}.old")
    try:
        with suppress(FileNotFoundError):
            out.rename(aside)
        draft.rename(out)
    finally:
        if not out.exists():
            with suppress(FileNotFoundError):
                aside.rename(out)
        shutil.rmtree(aside, ignore_errors=True)


def _refuse_what_is_no_artifact(out: Path) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    with suppress(OSError, ValueError):
        manifest = json.loads((out / MANIFEST).read_bytes())
        if isinstance(manifest, dict) and "format_version" in manifest:
            return
    raise ExportError(f"{out} exists and is not an artifact; it is left as it is")


def _is_free(folder: Path) -> bool:
    """Say whether no export holds the lock on a folder; where there are no locks, nobody can tell."""
    if sys.platform == "win32":
        return False
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Have others wait that want to be alone in a folder; the lock is on the folder, so that no file is left behind."""
    if sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # on a file system without locks, exports at the same moment are at their own risk
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
