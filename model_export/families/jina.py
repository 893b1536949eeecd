"""Jina's embeddings v3: XLM-R's network with rotary positions, and adapters of which an export merges one at most."""

import re
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from berth.types import Float32Array
from model_export.errors import ExportError
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
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.type": "embeddings.token_type_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
    "layer.#.query": "layers.#.self_attn.q_proj",
    "layer.#.key": "layers.#.self_attn.k_proj",
    "layer.#.value": "layers.#.self_attn.v_proj",
    "layer.#.attention_output": "layers.#.self_attn.o_proj",
    "layer.#.attention_norm": "layers.#.post_attention_layernorm",
    "layer.#.inner": "layers.#.mlp.fc1",
    "layer.#.outer": "layers.#.mlp.fc2",
    "layer.#.output_norm": "layers.#.post_mlp_layernorm",
    "pooler": "pooler.dense",
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
        a, b = (self._tensors.read(f"{self._place(name)}.0.lora_{each}") for each in "AB")
        down, up = a[self._adapter], b[self._adapter]
        change = up @ down if (len(up), down.shape[-1]) == weight.shape else down @ up
        if change.shape != weight.shape:
            raise ExportError(f"tensor {self._place(name)}.0.lora_A {list(a.shape)} does not fit {list(weight.shape)}")
        merged: Float32Array = weight + change * weight.dtype.type(self._scale)
        return merged

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
    return AdaptedTensors(tensors, place, fields.lora_alpha / fields.lora_rank)


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
