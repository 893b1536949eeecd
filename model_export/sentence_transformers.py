"""How a checkpoint's vectors are meant to be used, from the files that sentence-transformers keeps beside it."""

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from berth.types import Metric
from model_export.checkpoint import Checkpoint
from model_export.errors import ExportError
from model_export.modules import Modules, read_modules

METRICS = {
    "cosine": Metric.COSINE,
    "dot": Metric.DOT,
    "dot_product": Metric.DOT,
    "euclidean": Metric.EUCLIDEAN,
    "manhattan": Metric.MANHATTAN,
}
OF_THE_ENCODER = (
    "sentence_bert_config.json",
    *(
        f"sentence_{name}_config.json"
        for name in ("roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
    ),
)
"""The files that may say how the encoder is fed; the first that says something counts."""
HARMLESS = ("max_seq_length", "do_lower_case", "unpad_inputs")
"""Its fields that are read, or whose vectors are the same whatever they say."""
USUAL = {
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
}
"""Its fields of which one value is implemented; of all others it is nothing at all."""
ABOUT_LOADING = {"add_pooling_layer", "attn_implementation", "device_map", "dtype", "torch_dtype", "trust_remote_code"}
"""What arguments to the model, the tokenizer and the config may name: they decide how torch loads and computes."""


OF_THE_MODEL = "config_sentence_transformers.json"
NOT_OF_VECTORS = ("__version__", "requirements")
"""Its fields that say with what the checkpoint was made."""


@dataclass(frozen=True, slots=True)
class Usage(Modules):
    """What surrounds the encoder; the defaults are sentence-transformers' own for a checkpoint without its files."""

    max_tokens: int | None = None
    lower_case: bool = False
    """Whether texts are lower-cased before the tokenizer sees them."""
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity: Metric = Metric.COSINE
    truncate_dim: int | None = None
    """The numbers that are kept of a vector."""


def read_usage(checkpoint: Checkpoint) -> Usage:
    """Read the modules, how the encoder is fed, the prompts and the metric; what is not implemented is refused."""
    modules = read_modules(checkpoint)
    encoder = checkpoint.inside(modules.folder)
    name, config = _encoder_config(encoder)
    _check_encoder(encoder.folder / name, config)
    return Usage(
        **{each.name: getattr(modules, each.name) for each in fields(modules)},
        max_tokens=_max_tokens(encoder, name),
        lower_case=bool(config.get("do_lower_case")),
        **_prompts_and_similarity(checkpoint),
    )


def _encoder_config(encoder: Checkpoint) -> tuple[str, dict[str, Any]]:
    """Give the file that says how the encoder is fed, and what it says."""
    for name in OF_THE_ENCODER:
        if config := encoder.object(name):
            return name, config
    return OF_THE_ENCODER[0], {}


def _check_encoder(where: Path, config: dict[str, Any]) -> None:
    """Raise `ExportError` where the encoder is to be fed or read in a way that is not implemented."""
    for key, value in config.items():
        about_loading = key.endswith(("_args", "_kwargs")) and isinstance(value, dict) and value.keys() <= ABOUT_LOADING
        if value and key not in HARMLESS and value != USUAL.get(key) and not about_loading:
            raise ExportError(f"{where}: {key} {value!r} is not implemented")


def _max_tokens(encoder: Checkpoint, name: str) -> int | None:
    # The tokenizer's own figure counts only where sentence-transformers gives none. Since version 5 that is where it
    # keeps the limit; in older checkpoints the tokenizer's is the base model's, and too large.
    for key in ("max_seq_length", "model_max_length", "max_len"):
        file = name if key == "max_seq_length" else "tokenizer_config.json"
        limit = encoder.object(file).get(key)
        if limit is None or (isinstance(limit, float) and not math.isfinite(limit)):  # Infinity and NaN: none
            continue
        if isinstance(limit, bool) or not isinstance(limit, int | float) or limit < 3:
            raise ExportError(f"{encoder.folder / file}: {key} {limit!r} does not hold [CLS], a token and [SEP]")
        return int(limit)
    return None


def _prompts_and_similarity(checkpoint: Checkpoint) -> dict[str, Any]:
    config = checkpoint.object(OF_THE_MODEL)
    where = checkpoint.folder / OF_THE_MODEL
    prompts, default = config.get("prompts") or {}, config.get("default_prompt_name")
    if not isinstance(prompts, dict) or not all(isinstance(text, str | None) for text in prompts.values()):
        raise ExportError(f"{where}: prompts does not map names to texts")
    if default is not None and (not isinstance(default, str) or not default or default not in prompts):
        raise ExportError(f"{where}: default_prompt_name {default!r} is not among the prompts")
    dimensions = config.get("truncate_dim")
    if dimensions is not None and (not isinstance(dimensions, int) or isinstance(dimensions, bool) or dimensions < 1):
        raise ExportError(f"{where}: truncate_dim {dimensions!r} is not a number of dimensions")
    metric = config.get("similarity_fn_name") or "cosine"
    if not isinstance(metric, str) or metric not in METRICS:
        raise ExportError(f"{where}: similarity_fn_name {metric!r} is not one of {', '.join(METRICS)}")
    kind = config.get("model_type", "SentenceTransformer")
    if kind != "SentenceTransformer":
        raise ExportError(f"{where}: model_type {kind!r} is not implemented, SentenceTransformer alone is")
    read = {"prompts", "default_prompt_name", "truncate_dim", "similarity_fn_name", "model_type", *NOT_OF_VECTORS}
    for key, value in config.items():
        if key not in read and value is not None:
            raise ExportError(f"{where}: {key} {value!r} is not implemented")
    return {
        "prompts": {key: text or "" for key, text in prompts.items()},
        "default_prompt_name": default,
        "similarity": METRICS[metric],
        "truncate_dim": dimensions,
    }
