"""What transformers makes of a checkpoint's tokenizer: read offline, without torch, and silently."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from berth.models import may_be_read
from model_export.checkpoint import Checkpoint
from model_export.errors import ExportError

CONFIG = "tokenizer_config.json"
OF_OLDER_FOLDERS = ("special_tokens_map.json", "added_tokens.json")
"""Files that count where tokenizer_config.json does not list the added tokens itself."""
SAVE_IT = "only tokenizers of the tokenizers library (tokenizer.json) are served"
CURE = "pip install 'berth-embeddings[export]' brings all that an export needs"


def load_tokenizer(checkpoint: Checkpoint, tokenizer_class: str | None) -> tuple[Any, Path]:
    """Load transformers' fast tokenizer of a folder; gives it, and the file that its vocabulary is from.

    The class is `AutoTokenizer`'s choice, but `tokenizer_class` where none of the folder's files names one. Raises
    `ExportError` where the class has no fast tokenizer, is code of the checkpoint's own, or cannot read the folder.
    """
    config, model = checkpoint.object(CONFIG), checkpoint.object("config.json")
    _check_config(checkpoint, config)
    given = config.get("tokenizer_class") or model.get("tokenizer_class")
    named = given or tokenizer_class
    if not model and not named:
        raise ExportError(f"{checkpoint.folder}: without a config.json nothing names the class of the tokenizer")
    auto = _import_auto()
    found = _class_of_name(auto, named)
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        with silence():
            loader = found
            if model and (given or not tokenizer_class):
                loader, options["config"] = auto.AutoTokenizer, _config_of_model(auto, model)
            tokenizer = loader.from_pretrained(str(checkpoint.folder), **options)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the tokenizers library is no Exception
        _check_fast(checkpoint, found)
        unknown = f"knows no class {named}, and " if named and not found else ""
        message = f"transformers {version()} {unknown}reads no tokenizer from it: {_first_line(error)}"
        raise ExportError(f"{checkpoint.folder}: {message}") from error
    _check_fast(checkpoint, type(tokenizer))
    return tokenizer, _vocabulary(checkpoint, config, tokenizer)


def version() -> str:
    """Give the version of transformers."""
    return metadata.version("transformers")


@contextmanager
def silence() -> Iterator[None]:
    """Keep off the terminal what transformers has to say to those who call it."""
    theirs = logging.getLogger("transformers")
    level = theirs.level
    theirs.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        theirs.setLevel(level)


def _import_auto() -> Any:
    """Import transformers' tokenizers, as if torch was not installed where it is not loaded.

    Torch would take 190 MiB and two seconds, for nothing. What is imported so goes without it as long as the process
    lives.
    """
    theirs = logging.getLogger("transformers")
    hidden = "torch" not in sys.modules
    theirs.addFilter(_nothing)  # the level is set in the course of the import
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]  # importing it raises
    try:
        from transformers.models.auto import tokenization_auto  # noqa: PLC0415  # slow; serving does without
    except ImportError as error:
        raise ExportError(f"the tokenizer is read by transformers: {error}; {CURE}") from error
    finally:
        theirs.removeFilter(_nothing)
        if hidden:
            del sys.modules["torch"]
    return tokenization_auto


def _nothing(_: logging.LogRecord) -> bool:
    return False


def _check_config(checkpoint: Checkpoint, config: dict[str, Any]) -> None:
    """Raise `ExportError` for what would change the tokens and is not done; read the files that count beside."""
    where, code = checkpoint.folder / CONFIG, config.get("auto_map")
    remote = code.get("AutoTokenizer") if isinstance(code, dict) else code
    if remote:
        names = remote if isinstance(remote, list) else [remote]
        name = next((str(each) for each in reversed(names) if each), "")
        raise ExportError(
            f"{where}: auto_map: the tokenizer {name} is code of the checkpoint's own, which is never run"
        )
    if config.get("split_special_tokens"):
        given = config["split_special_tokens"]
        raise ExportError(
            f"{where}: split_special_tokens {given!r} (special tokens are read as text) is not implemented"
        )
    if "added_tokens_decoder" not in config:
        for name in OF_OLDER_FOLDERS:
            checkpoint.object(name)


def _config_of_model(auto: Any, model: dict[str, Any]) -> Any:
    """Make a config of the fields that `AutoTokenizer` looks at, so that no other one stops it."""
    fields = {name: model[name] for name in ("tokenizer_class", "model_name") if model.get(name)}
    try:
        return auto.AutoConfig.for_model(model.get("model_type"), **fields)
    except ValueError:  # a model that transformers does not know
        return auto.PreTrainedConfig.from_dict({"model_type": model.get("model_type", "")} | fields)


def _class_of_name(auto: Any, name: Any) -> Any:
    """Find a class of tokenizers in transformers; None where there is none that can be imported."""
    with silence():
        try:
            found = auto.tokenizer_class_from_name(name) if isinstance(name, str) else None
        except Exception:  # whatever its module cannot import
            return None
    return found if isinstance(found, type) else None


def _check_fast(checkpoint: Checkpoint, found: Any) -> None:
    fast = sys.modules["transformers"].PreTrainedTokenizerFast
    if found is not None and not issubclass(found, fast):
        raise ExportError(f"{checkpoint.folder}: the tokenizer's class {found.__name__} is not a fast one; {SAVE_IT}")


def _vocabulary(checkpoint: Checkpoint, config: dict[str, Any], tokenizer: Any) -> Path:
    """Find the file that the vocabulary was read from, for where there is none transformers makes do with five tokens.

    Raises `ExportError` where it is not there, or is one that no download of the model would have.
    """
    kind, names = type(tokenizer), dict(type(tokenizer).vocab_files_names)
    whole = names.pop("tokenizer_file", "tokenizer.json")
    if listed := config.get("fast_tokenizer_files"):
        from transformers.tokenization_utils_base import get_fast_tokenizer_file  # noqa: PLC0415  # as above

        whole = get_fast_tokenizer_file(listed)
    if given := getattr(tokenizer, "vocab_file", None):  # of another name, it may be
        names["vocab_file"] = Path(given).name
    if found := checkpoint.file(whole):
        paths = [found]
    else:
        paths = [path for name in names.values() if (path := checkpoint.file(name))]
        if len(paths) < max(1, len(names)):
            files = " and ".join(names.values())
            raise ExportError(f"{checkpoint.folder}: there is neither {whole} nor {files}, which {kind.__name__} reads")
    for path in paths:
        if not may_be_read(Path(path.name)):
            raise ExportError(f"{path}: a tokenizer is not read from such a file; load and save it with transformers")
    return paths[0]


def _first_line(error: BaseException) -> str:
    line = (str(error).splitlines() or [""])[0][:300]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
