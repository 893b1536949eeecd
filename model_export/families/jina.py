"""Jina's embeddings v3: XLM-R's network with rotary positions, and adapters of which an export merges one at most."""

import re
from typing import Any, Literal

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from berth.types import Float32Array
from model_export.errors import ExportError
from model_export.families import native
from model_export.families.config import Config, check_even_heads, read, rotary_of
from model_export.families.family import Family, Part, Spelling
from model_export.network import Network
from model_export.tensors import Tensors

THETA = 20_000.0
ADAPTED = re.compile(r"(.+)\.parametrizations\.weight\.(original|0\.lora_[AB])")
"""A weight that has adapters: itself, and theirs [adapters, rank, inputs] and [adapters, outputs, rank]."""

CODE: Spelling = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.type": "embeddings.token_type_embeddings",
    "embeddings.norm": "emb_ln",
    "layer.#.query": Part("encoder.layers.#.mixer.Wqkv", 0, 3),
    "layer.#.key": Part("encoder.layers.#.mixer.Wqkv", 1, 3),
    "layer.#.value": Part("encoder.layers.#.mixer.Wqkv", 2, 3),
    "layer.#.attention_output": "encoder.layers.#.mixer.out_proj",
    "layer.#.attention_norm": "encoder.layers.#.norm1",
    "layer.#.inner": "encoder.layers.#.mlp.fc1",
    "layer.#.outer": "encoder.layers.#.mlp.fc2",
    "layer.#.output_norm": "encoder.layers.#.norm2",
    "pooler": "pooler.dense",
}
NATIVE: Spelling = {
    **native.NATIVE,
    "layer.#.inner": "layers.#.mlp.fc1",
    "layer.#.outer": "layers.#.mlp.fc2",
}


class JinaConfig(Config):
    """Its fields in transformers' names and in the code's, and transformers' defaults."""

    type_vocab_size: PositiveInt = 1
    position_embedding_type: Literal["rotary", "absolute"] | None = None  # type: ignore[assignment]
    rope_parameters: dict[str, Any] | None = None
    rope_scaling: dict[str, Any] | None = Field(default=None, max_length=0)
    layer_norm_eps: PositiveFloat = 1e-5
    rotary_emb_base: float | None = None
    rope_theta: float | None = None
    lora_adaptations: list[str] | None = None
    lora_rank: PositiveInt = 4
    lora_alpha: NonNegativeInt = 1


def network(config: dict[str, Any]) -> Network:
    """Read the sizes from `config.json`."""
    fields = read(JinaConfig, config)
    if config.get("auto_map") is not None and fields.position_embedding_type != "rotary":
        raise ExportError(f"config.json: position_embedding_type {fields.position_embedding_type!r} is not rotary")
    parameters = fields.rope_parameters or {}
    given = [
        each for each in (fields.rope_theta, fields.rotary_emb_base, parameters.get("rope_theta")) if each is not None
    ]
    if given[1:] != given[:-1]:
        raise ExportError("config.json: rope_parameters, rope_theta and rotary_emb_base disagree")
    if config.get("auto_map") is not None and (fields.rotary_emb_base is None or fields.rope_parameters):
        raise ExportError("config.json: the code's rotary positions are rotary_emb_base, and it alone must be given")
    sizes = fields.sizes()
    check_even_heads(fields.hidden_size, fields.num_attention_heads)
    return Network(
        **sizes,
        type_vocab_size=fields.type_vocab_size,
        learned_positions=False,
        rotary=rotary_of(parameters, given[0] if given else THETA),
    )


class AdaptedTensors:
    """A checkpoint's tensors by plain names, one of its adapters merged into each that has adapters."""

    def __init__(self, tensors: Tensors, adapter: int | None, scale: float) -> None:
        self._tensors = tensors
        self._adapter = adapter
        self._scale = scale
        self._adapted = {f"{found[1]}.weight": found[1] for name in tensors.names() if (found := ADAPTED.match(name))}

    def names(self) -> list[str]:
        """List the tensors; those of adapters are no longer among them."""
        return [*self._adapted, *(name for name in self._tensors.names() if not ADAPTED.match(name))]

    def shape(self, name: str) -> tuple[int, ...]:
        """Give a tensor's shape without reading it."""
        return self._tensors.shape(self._original(name))

    def read(self, name: str) -> Float32Array:
        """Read a tensor as float32: W + B A alpha / rank, or A B where it is a table (Hu et al. 2021, LoRA)."""
        weight = self._tensors.read(self._original(name))
        if self._adapter is None or name not in self._adapted:
            return weight
        a, b = (self._tensors.read(part)[self._adapter] for part in self._parts(name))
        scale = np.float32(self._scale)
        change: Float32Array = (b * scale) @ a if self._is_linear(name) else (a * scale) @ b
        change += weight
        return change

    def check(self, adapters: int, rank: int) -> None:
        """Raise `ExportError` where a weight's adapters are not there or do not have the shapes that they must have."""
        known = set(self._tensors.names())
        for name, place in self._adapted.items():
            for each in (self._original(name), *self._parts(name)):
                if each not in known:
                    raise ExportError(f"tensor {each} is missing from the checkpoint")
            first, last = self.shape(name)
            linear = (adapters, rank, last), (adapters, first, rank)
            table = (adapters, first, rank), (adapters, rank, last)
            shapes = tuple(self._tensors.shape(part) for part in self._parts(name))
            if shapes not in (linear, table):
                found = " and ".join(str(list(shape)) for shape in shapes)
                raise ExportError(
                    f"tensors {place}.parametrizations.weight.0.lora_A and lora_B are {found}, "
                    f"but config.json asks for {adapters} adapters of rank {rank}"
                )

    def _is_linear(self, name: str) -> bool:
        return self._tensors.shape(self._parts(name)[1])[1] == self.shape(name)[0]

    def _parts(self, name: str) -> list[str]:
        return [f"{self._place(name)}.0.lora_{each}" for each in "AB"]

    def _original(self, name: str) -> str:
        return f"{self._place(name)}.original" if name in self._adapted else name

    def _place(self, name: str) -> str:
        return f"{self._adapted[name]}.parametrizations.weight"


def adapted(config: dict[str, Any], tensors: Tensors, adapter: str | None) -> AdaptedTensors:
    """Merge the adapter of a name, or none; raises `ExportError` where the checkpoint has no such."""
    fields = read(JinaConfig, config)
    names = fields.lora_adaptations or []
    if adapter is not None and adapter not in names:
        raise ExportError(f"the checkpoint has no adapter {adapter!r}; it has: {', '.join(names) or 'none'}")
    place = None if adapter is None else names.index(adapter)
    merged = AdaptedTensors(tensors, place, fields.lora_alpha / fields.lora_rank)
    if adapter is not None and len(merged.names()) == len(tensors.names()):
        raise ExportError(f"the checkpoint has no weights of the adapter {adapter!r}")
    merged.check(len(names), fields.lora_rank)
    return merged


def _family(name: str, code: tuple[str, ...], *checkpoints: str) -> Family:
    return Family(
        name=name,
        network=network,
        spellings=(NATIVE, CODE),
        prefixes=("roberta.", "jina_embeddings_v3.", "model."),
        heads=("lm_head.", "classifier.", "qa_outputs."),
        buffers=("embeddings.position_ids", "inv_freq"),
        code=code,
        module="custom_st.Transformer" if code else "Transformer",
        tokenizer="XLMRobertaTokenizer",
        adapted=adapted,
        checkpoints=checkpoints,
        notes="`--adapter NAME` merges one of `lora_adaptations`; without it the weights are the base's.",
    )


JINA = _family("jina_embeddings_v3", (), "jinaai/jina-embeddings-v3-hf")
JINA_CODE = _family("xlm-roberta", ("XLMRobertaLoRA",), "jinaai/jina-embeddings-v3")
