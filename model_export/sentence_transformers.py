"""How a checkpoint's vectors are meant to be used, from the files that sentence-transformers keeps beside it."""

import math
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from berth.types import Metric, Pooling
from model_export.checkpoint import Checkpoint
from model_export.errors import ExportError

POOLINGS: dict[tuple[str, ...], Pooling] = {
    ("cls",): Pooling.CLS,
    ("mean",): Pooling.MEAN,
    ("max",): Pooling.MAX,
    ("mean", "max"): Pooling.MEAN_MAX,
    ("weightedmean",): Pooling.WEIGHTED_MEAN,
    ("lasttoken",): Pooling.LAST,
}
"""Their modes, in the order in which the vectors are joined, to ours."""

OLD_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Older files have one boolean a mode; several are joined in this order."""

METRICS = {
    "cosine": Metric.COSINE,
    "dot": Metric.DOT,
    "dot_product": Metric.DOT,
    "euclidean": Metric.EUCLIDEAN,
    "manhattan": Metric.MANHATTAN,
}


OF_THE_ENCODER = "sentence_bert_config.json"
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


@dataclass(frozen=True, slots=True)
class Usage:
    """What surrounds the encoder; the defaults are sentence-transformers' own for a checkpoint without its files."""

    folder: str = ""
    """Where in the checkpoint the encoder lies."""
    pooling: Pooling = Pooling.MEAN
    normalize: bool = False
    max_tokens: int | None = None
    lower_case: bool = False
    """Whether texts are lower-cased before the tokenizer sees them."""
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity: Metric = Metric.COSINE


class Module(BaseModel):
    """An entry of `modules.json`."""

    idx: int
    path: str
    type: str

    @property
    def kind(self) -> str:
        """Give the class's name; its place within sentence-transformers has changed over the versions."""
        package, _, path = self.type.partition(".")
        return path.rpartition(".")[2] if package == "sentence_transformers" else self.type


def read_usage(checkpoint: Checkpoint) -> Usage:
    """Read the modules in their order: an encoder, a pooling, perhaps a normalization. Anything else is refused."""
    folders = {module.kind: module.path for module in _modules(checkpoint)}
    folder = folders.get("Transformer", "")
    encoder = checkpoint.inside(folder)
    _check_encoder(encoder)
    if "Normalize" in folders:
        _check_normalize(checkpoint.inside(folders["Normalize"]))
    return Usage(
        folder=folder,
        pooling=_pooling(checkpoint.inside(folders["Pooling"])) if folders else Pooling.MEAN,
        normalize="Normalize" in folders,
        max_tokens=_max_tokens(encoder),
        lower_case=bool(encoder.object(OF_THE_ENCODER).get("do_lower_case")),
        **_prompts_and_similarity(checkpoint),
    )


def _modules(checkpoint: Checkpoint) -> list[Module]:
    content = checkpoint.json("modules.json")
    if content is None:
        return []
    where = checkpoint.folder / "modules.json"
    try:
        modules = sorted(TypeAdapter(list[Module]).validate_python(content), key=lambda module: module.idx)
    except ValidationError as error:
        raise ExportError(f"{where}: not a list of modules with idx, path and type") from error
    kinds = [module.kind for module in modules]
    for kind in kinds:
        if kind not in ("Transformer", "Pooling", "Normalize"):
            raise ExportError(f"{where}: the module {kind} is not implemented")
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise ExportError(f"{where}: {', '.join(kinds)}: expected Transformer, Pooling and perhaps Normalize")
    return modules


def _pooling(module: Checkpoint) -> Pooling:
    config = module.object("config.json")
    where = module.folder / "config.json"
    if not config:
        raise ExportError(f"{where}: no such file, but modules.json names it")
    if config.get("include_prompt") is False:
        raise ExportError(f"{where}: include_prompt false (the prompt is not pooled) is not implemented")
    old = [mode for key, mode in OLD_MODES.items() if config.get(key)]
    given = config.get("pooling_mode", old or "mean")
    modes = (given,) if isinstance(given, str) else tuple(given)
    if modes not in POOLINGS:
        raise ExportError(f"{where}: the pooling {' + '.join(map(str, modes))} is not implemented")
    return POOLINGS[modes]


def _check_encoder(encoder: Checkpoint) -> None:
    """Raise `ExportError` where the encoder is to be fed or read in a way that is not implemented."""
    for key, value in encoder.object(OF_THE_ENCODER).items():
        about_loading = key.endswith(("_args", "_kwargs")) and isinstance(value, dict) and value.keys() <= ABOUT_LOADING
        if value and key not in HARMLESS and value != USUAL.get(key) and not about_loading:
            raise ExportError(f"{encoder.folder / OF_THE_ENCODER}: {key} {value!r} is not implemented")


def _check_normalize(module: Checkpoint) -> None:
    name = module.object("config.json").get("module_input_name", "sentence_embedding")
    if name != "sentence_embedding":
        raise ExportError(f"{module.folder / 'config.json'}: normalizing {name} is not implemented")


def _max_tokens(encoder: Checkpoint) -> int | None:
    # The tokenizer's own figure counts only where sentence-transformers gives none. Since version 5 that is where it
    # keeps the limit; in older checkpoints the tokenizer's is the base model's, and too large.
    for key in ("max_seq_length", "model_max_length", "max_len"):
        file = OF_THE_ENCODER if key == "max_seq_length" else "tokenizer_config.json"
        limit = encoder.object(file).get(key)
        if limit is None or (isinstance(limit, float) and not math.isfinite(limit)):  # Infinity and NaN: none
            continue
        if isinstance(limit, bool) or not isinstance(limit, int | float) or limit < 3:
            raise ExportError(f"{encoder.folder / file}: {key} {limit!r} does not hold [CLS], a token and [SEP]")
        return int(limit)
    return None


def _prompts_and_similarity(checkpoint: Checkpoint) -> dict[str, Any]:
    name = "config_sentence_transformers.json"
    config = checkpoint.object(name)
    where = checkpoint.folder / name
    prompts, default = config.get("prompts") or {}, config.get("default_prompt_name")
    if not isinstance(prompts, dict) or not all(isinstance(text, str | None) for text in prompts.values()):
        raise ExportError(f"{where}: prompts does not map names to texts")
    if default is not None and default not in prompts:
        raise ExportError(f"{where}: default_prompt_name {default!r} is not among the prompts")
    if (dimensions := config.get("truncate_dim")) is not None:
        raise ExportError(f"{where}: truncate_dim {dimensions!r} is not implemented; requests have `dimensions`")
    metric = config.get("similarity_fn_name") or "cosine"
    if metric not in METRICS:
        raise ExportError(f"{where}: similarity_fn_name {metric!r} is not one of {', '.join(METRICS)}")
    texts = {key: text or "" for key, text in prompts.items()}
    return {"prompts": texts, "default_prompt_name": default, "similarity": METRICS[metric]}
