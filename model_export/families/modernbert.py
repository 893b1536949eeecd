"""ModernBERT: norms before, rotary positions, near attention in most layers, a gated feed-forward."""

from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from model_export.errors import ExportError
from model_export.families.config import (
    SizedConfig,
    activation_of,
    check_even_heads,
    check_heads,
    read,
    rotary_of,
)
from model_export.families.family import Family, Part, Spelling
from model_export.network import Near, Network

Kind = Literal["full_attention", "sliding_attention"]
FULL: Kind = "full_attention"
SLIDING: Kind = "sliding_attention"
THETAS = {FULL: 160_000.0, SLIDING: 10_000.0}

MODULES: Spelling = {
    "embeddings.word": "embeddings.tok_embeddings",
    "embeddings.norm": "embeddings.norm",
    "layer.#.query": Part("layers.#.attn.Wqkv", 0, 3),
    "layer.#.key": Part("layers.#.attn.Wqkv", 1, 3),
    "layer.#.value": Part("layers.#.attn.Wqkv", 2, 3),
    "layer.#.attention_output": "layers.#.attn.Wo",
    "layer.#.attention_norm": "layers.#.attn_norm",
    "layer.#.gate": Part("layers.#.mlp.Wi", 0, 2),
    "layer.#.inner": Part("layers.#.mlp.Wi", 1, 2),
    "layer.#.outer": "layers.#.mlp.Wo",
    "layer.#.output_norm": "layers.#.mlp_norm",
    "final_norm": "final_norm",
}


class ModernBertConfig(SizedConfig):
    """Its fields and transformers' defaults, in the names of version 4 and of version 5."""

    hidden_activation: str = "gelu"
    norm_eps: PositiveFloat = 1e-5
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    local_attention: int = Field(default=128, ge=2, le=1 << 17)
    layer_types: list[Kind] | None = None
    global_attn_every_n_layers: PositiveInt = 3
    global_rope_theta: float = THETAS[FULL]
    local_rope_theta: float = THETAS[SLIDING]
    rope_parameters: dict[str, dict[str, Any] | None] | None = None
    sliding_window: PositiveInt | None = None
    rope_scaling: dict[str, Any] | None = Field(default=None, max_length=0)
    head_dim: None = None


def network(config: dict[str, Any]) -> Network:
    """Read the sizes from `config.json`."""
    fields = read(ModernBertConfig, config)
    check_heads(fields.hidden_size, fields.num_attention_heads)
    check_even_heads(fields.hidden_size, fields.num_attention_heads)
    layers = range(fields.num_hidden_layers)
    reach = fields.local_attention // 2
    if fields.sliding_window not in (None, reach):
        raise ExportError(f"config.json: sliding_window {fields.sliding_window} is not half of local_attention")
    types = fields.layer_types or [SLIDING if layer % fields.global_attn_every_n_layers else FULL for layer in layers]
    if len(types) != len(layers):
        raise ExportError(f"config.json: layer_types has {len(types)} entries for {len(layers)} layers")
    given = fields.rope_parameters or {}
    if unknown := given.keys() - THETAS.keys():
        raise ExportError(f"config.json: rope_parameters: {min(unknown)} is no layer type")
    full, sliding = (
        rotary_of(given.get(kind), theta, f"rope_parameters.{kind}")
        for kind, theta in ((FULL, fields.global_rope_theta), (SLIDING, fields.local_rope_theta))
    )
    near = frozenset(layer for layer in layers if types[layer] == SLIDING)
    return Network(
        hidden_size=fields.hidden_size,
        layers=len(layers),
        heads=fields.num_attention_heads,
        intermediate_size=fields.intermediate_size,
        vocab_size=fields.vocab_size,
        positions=fields.max_position_embeddings,
        type_vocab_size=0,
        epsilon=fields.norm_eps,
        activation=activation_of("hidden_activation", fields.hidden_activation),
        learned_positions=False,
        rotary=full,
        near=Near(reach, near, sliding) if near else None,
        gated=True,
        pre_norm=True,
        norm_bias=fields.norm_bias,
        qkv_bias=fields.attention_bias,
        attention_output_bias=fields.attention_bias,
        inner_bias=fields.mlp_bias,
        outer_bias=fields.mlp_bias,
    )


MODERNBERT = Family(
    name="modernbert",
    network=network,
    spellings=(MODULES,),
    prefixes=("model.",),
    heads=("head.", "decoder.", "classifier.", "qa_outputs."),
    checkpoints=(
        "Alibaba-NLP/gte-modernbert-base",
        "nomic-ai/modernbert-embed-base",
        "ibm-granite/granite-embedding-english-r2",
        "answerdotai/ModernBERT-base",
    ),
    notes="Layers of near attention compute chunks of 64 queries with the keys that they reach.",
)
