"""From a model's name to its artifact, which is exported where it is not there yet."""

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

from berth.artifact import MANIFEST, read_manifest
from berth.errors import ArtifactError, ExportFailedError, ModelNotFoundError
from berth.placement import ExportTarget

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
CACHE_DIR = Path("~/.cache/berth")
HUB_PREFIX = "models--"
"""How the folder of a model begins in the Hugging Face hub's cache; behind it is its id, `--` being a slash."""

ENCODER_FILES = (
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer.*.json",  # of some version of transformers, where tokenizer_config.json lists it
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "spm.model",
    "tokenizer.model",
)
CHECKPOINT_FILES = [
    "*config.json",  # config.json, tokenizer_config.json, sentence_bert_config.json, 1_Pooling/config.json
    "config_sentence_transformers.json",
    "modules.json",
    *ENCODER_FILES,
    *(f"0_*/{file}" for file in ENCODER_FILES),  # where sentence-transformers once put the encoder
    "*_Dense*/model.safetensors",
]
"""All that an export reads of a repository; the rest of it (pickles, other formats) is not downloaded."""

logger = logging.getLogger("berth")


def find_artifact(model: str, target: ExportTarget, cache_dir: Path = CACHE_DIR) -> Path:
    """Give the folder of a model's artifact: `model` itself where it is one, else its place in the cache.

    `model` is a Hugging Face id, a checkpoint's folder or an artifact's; what is not in the cache, or was written there
    in another format, is exported, in a process of its own. Raises `ModelNotFoundError` where `model` is spelled as a
    folder and there is none, and `ExportFailedError`.
    """
    if (given := given_artifact(model)) is not None:
        return given
    folder = artifact_folder(model, target, cache_dir)
    try:
        read_manifest(folder)
    except ArtifactError:  # there is none, or one that this version does not read
        export(model, folder, target)
    return folder


def given_artifact(model: str) -> Path | None:
    """Give the folder that is named as the model, where it is an artifact and not a checkpoint."""
    given = folder_of(model)
    return given if (given / MANIFEST).is_file() else None


def artifact_folder(model: str, target: ExportTarget, cache_dir: Path = CACHE_DIR) -> Path:
    """Say where a checkpoint's artifact is or should be; its place names model, target, precision and weights."""
    given, name = folder_of(model), model
    if name.startswith((".", "/", "~")) and not given.is_dir():
        raise ModelNotFoundError(f"{name}: there is no such folder")
    if given.is_dir():
        given, name = checkpoint_of(given)
        name = f"{name}-{_fingerprint(given)}"
    return cache_dir.expanduser() / name / str(target)


def export(model: str, folder: Path, target: ExportTarget) -> None:
    """Export in a process of its own, whose memory is gone when it ends; raises `ExportFailedError`."""
    root = str(Path(__file__).parents[1])
    options = ["--target", target.target, "--precision", target.precision, "--json"]
    if target.precision == "int8":
        options += ["--int8-weights", str(target.weight_bits)]
    with subprocess.Popen(  # noqa: S603  # this very Python
        # -P and the path: in the folder where a user types, or on the user's path, there may be a `model_export` too.
        [sys.executable, "-P", "-m", "model_export", model, str(folder), *options],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))},
        stdout=subprocess.PIPE,
        process_group=0,  # so that Ctrl-C comes to this process alone, as SIGTERM does
    ) as process:
        try:
            said, _ = process.communicate()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if process.returncode < 0:
        reason = ", as when memory runs out" if process.returncode == -signal.SIGKILL else ""
        message = f"the export of {model} was ended by signal {-process.returncode}{reason}"
        raise ExportFailedError(message, 128 - process.returncode)
    try:
        outcome = json.loads(said.splitlines()[-1])  # the last line, for a library may have printed too
    except (ValueError, IndexError):
        outcome = {}
    if process.returncode:
        raise ExportFailedError(outcome.get("error", f"the export of {model} failed"), process.returncode)
    logger.info("%s", outcome.get("summary", f"{model} is exported"))


def may_be_read(path: Path) -> bool:
    """Say by its place in a checkpoint whether an export may read a file; all shards count, as an index names them."""
    hidden = any(part.startswith(".") for part in path.parts)
    return not hidden and any(path.match(pattern) for pattern in (*CHECKPOINT_FILES, "*.safetensors"))


def folder_of(model: str) -> Path:
    """Give the folder that a name would be; raises `ModelNotFoundError` where it is in a home that nobody has."""
    try:
        return Path(model).expanduser()
    except RuntimeError:  # ~somebody who is not there
        raise ModelNotFoundError(f"{model}: there is no such folder") from None


def checkpoint_of(folder: Path) -> tuple[Path, str]:
    """Give the folder with a checkpoint's files and the checkpoint's name, which is the folder's.

    In the hub's cache, where `models--OWNER--NAME` or a snapshot in it is named, the name is OWNER/NAME. Raises
    `ModelNotFoundError` where there are several snapshots and `refs/main` names none of them.
    """
    folder = folder.resolve()
    cached = folder if folder.parent.name != "snapshots" else folder.parents[1]
    if not cached.name.startswith(HUB_PREFIX) or not (cached / "snapshots").is_dir():
        return folder, folder.name
    if folder == cached:
        folder = _main_snapshot(cached)
    return folder, cached.name.removeprefix(HUB_PREFIX).replace("--", "/")


def _main_snapshot(cached: Path) -> Path:
    """Give the snapshot that the cache's `refs/main` names, or the only one."""
    snapshots = sorted(path for path in (cached / "snapshots").iterdir() if path.is_dir())
    try:
        commit = (cached / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        commit = ""
    found = [path for path in snapshots if path.name == commit] or snapshots
    if len(found) != 1:
        raise ModelNotFoundError(f"{cached}: {len(snapshots)} snapshots, and refs/main names none of them; name one")
    return found[0]


def _fingerprint(folder: Path) -> str:
    """Tell one state of a checkpoint folder from another, by its place and sizes and times of the files that count."""
    digest = hashlib.sha256(str(folder.resolve()).encode())
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        # The cache may be inside the checkpoint, and an artifact's tokenizer is called as a checkpoint's is.
        if may_be_read(inside) and path.is_file() and not (path.parent / MANIFEST).exists():
            stat = path.stat()
            digest.update(f"{inside} {stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:12]
