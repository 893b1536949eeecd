"""NomicBERT: BERT with rotary positions and a gated feed-forward, by its code's names or by transformers'."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, PositiveFloat, PositiveInt

from model_export.errors import ExportError
from model_export.families.config import (
    AnyConfig,
    Config,
    Layers,
    Positions,
    check_even_heads,
    check_heads,
    read,
    rotary_of,
)
from model_export.families.family import Family, Part, Spelling
from model_export.families.native import NATIVE
from model_export.network import Activation, Network, Rotary

THETA = 1000.0
TWICE = {
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_layer": "num_hidden_layers",
    "n_inner": "intermediate_size",
    "layer_norm_epsilon": "layer_norm_eps",
}
"""The code's names and transformers', of which a config.json may have both. Positions may differ: those are limits."""

CODE: Spelling = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.type": "embeddings.token_type_embeddings",
    "embeddings.norm": "emb_ln",
    "layer.#.query": Part("encoder.layers.#.attn.Wqkv", 0, 3),
    "layer.#.key": Part("encoder.layers.#.attn.Wqkv", 1, 3),
    "layer.#.value": Part("encoder.layers.#.attn.Wqkv", 2, 3),
    "layer.#.attention_output": "encoder.layers.#.attn.out_proj",
    "layer.#.attention_norm": "encoder.layers.#.norm1",
    "layer.#.inner": "encoder.layers.#.mlp.fc11",
    "layer.#.gate": "encoder.layers.#.mlp.fc12",
    "layer.#.outer": "encoder.layers.#.mlp.fc2",
    "layer.#.output_norm": "encoder.layers.#.norm2",
    "pooler": "pooler.dense",
}


class CodeConfig(AnyConfig):
    """The code's fields, in GPT-2's names. Of those with one value here any other is refused."""

    n_embd: PositiveInt
    n_head: PositiveInt
    n_layer: Layers
    n_inner: PositiveInt | None = None
    vocab_size: PositiveInt
    type_vocab_size: PositiveInt = 2
    n_positions: Positions
    layer_norm_epsilon: PositiveFloat = 1e-12
    activation_function: Literal["swiglu", "geglu"]
    rotary_emb_base: PositiveFloat = THETA
    rotary_emb_fraction: Annotated[float, Field(ge=1, le=1)]
    rotary_emb_interleaved: Literal[False] = False
    rotary_emb_scale_base: None = None
    rotary_scaling_factor: None = None
    max_trained_positions: int | None = None
    qkv_proj_bias: bool = True
    mlp_fc1_bias: bool = True
    mlp_fc2_bias: bool = True
    causal: Literal[False] = False
    prenorm: Literal[False] = False
    parallel_block: Literal[False] = False
    use_rms_norm: Literal[False] | None = None
    scale_attn_weights: Literal[True] = True
    scale_attn_by_inverse_layer_idx: Literal[False] = False
    num_heads_kv: None = None
    pad_vocab_size_multiple: int | None = None


class NativeRotary(BaseModel):
    """transformers' field of rotary positions."""

    rope_parameters: dict[str, Any] | None = None


class NativeConfig(NativeRotary, Config):
    """transformers' fields and defaults."""

    type_vocab_size: PositiveInt = 2
    hidden_act: str = "silu"
    head_dim: int | None = None
    rope_scaling: dict[str, Any] | None = Field(default=None, max_length=0)
    rope_theta: float = THETA


def network(config: dict[str, Any]) -> Network:
    """Read the sizes from `config.json`, whichever names it has."""
    return _by_code(config) if "n_embd" in config else _native(config)


def _by_code(config: dict[str, Any]) -> Network:
    fields = read(CodeConfig, config)
    _check_agreement(config, fields)
    check_heads(fields.n_embd, fields.n_head, "n_head")
    check_even_heads(fields.n_embd, fields.n_head)
    multiple = fields.pad_vocab_size_multiple or 1
    return Network(
        hidden_size=fields.n_embd,
        layers=fields.n_layer,
        heads=fields.n_head,
        intermediate_size=fields.n_inner or 4 * fields.n_embd,
        vocab_size=-(-fields.vocab_size // multiple) * multiple,
        positions=fields.n_positions,
        type_vocab_size=fields.type_vocab_size,
        epsilon=fields.layer_norm_epsilon,
        activation=Activation.SILU if fields.activation_function == "swiglu" else Activation.GELU,
        learned_positions=False,
        rotary=Rotary(fields.rotary_emb_base),
        gated=True,
        qkv_bias=fields.qkv_proj_bias,
        attention_output_bias=fields.qkv_proj_bias,
        inner_bias=fields.mlp_fc1_bias,
        outer_bias=fields.mlp_fc2_bias,
    )


def _check_agreement(config: dict[str, Any], fields: CodeConfig) -> None:
    """Raise `ExportError` where transformers' names, which it reads without the code, say something else."""
    for ours, theirs in TWICE.items():
        if config.get(ours) is not None and config.get(theirs, config[ours]) != config[ours]:
            raise ExportError(f"config.json: {ours} {config[ours]!r:.80} and {theirs} {config[theirs]!r:.80} disagree")
    parameters = read(NativeRotary, config).rope_parameters
    if parameters is not None and rotary_of(parameters, fields.rotary_emb_base) != Rotary(fields.rotary_emb_base):
        raise ExportError(f"config.json: rotary_emb_base {fields.rotary_emb_base} and rope_parameters disagree")


def _native(config: dict[str, Any]) -> Network:
    fields = read(NativeConfig, config)
    sizes = fields.sizes()
    check_even_heads(fields.hidden_size, fields.num_attention_heads)
    size = fields.hidden_size // fields.num_attention_heads
    if fields.head_dim not in (None, size):
        raise ExportError(f"config.json: head_dim {fields.head_dim} is not hidden_size / num_attention_heads, {size}")
    return Network(
        **sizes,
        type_vocab_size=fields.type_vocab_size,
        learned_positions=False,
        rotary=rotary_of(fields.rope_parameters, fields.rope_theta),
        gated=True,
        qkv_bias=False,
        attention_output_bias=False,
        inner_bias=False,
        outer_bias=False,
    )


NOMIC_BERT = Family(
    name="nomic_bert",
    network=network,
    spellings=(CODE, NATIVE),
    prefixes=("nomic_bert.", "bert."),
    heads=("cls.", "classifier.", "lm_head."),
    buffers=("embeddings.position_ids", "inv_freq"),
    code=("NomicBertModel", "NomicBertForPreTraining"),
    tokenizer="BertTokenizer",
    checkpoints=("nomic-ai/nomic-embed-text-v1, -v1.5", "Snowflake/snowflake-arctic-embed-m-long"),
    notes="By its code's names and by transformers'.",
)
