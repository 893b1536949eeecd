"""GTE: BERT with rotary positions and a gated feed-forward, as transformers' `gte` and as the code's `new`."""

from typing import Any, Literal

from pydantic import Field, NonNegativeInt

from model_export.errors import ExportError
from model_export.families.config import Config, check_even_heads, check_heads, read, rotary_of
from model_export.families.family import Family, Part, Spelling
from model_export.families.native import NATIVE
from model_export.network import Network, Rotary

CODE: Spelling = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.type": "embeddings.token_type_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
    "layer.#.query": Part("encoder.layer.#.attention.qkv_proj", 0, 3),
    "layer.#.key": Part("encoder.layer.#.attention.qkv_proj", 1, 3),
    "layer.#.value": Part("encoder.layer.#.attention.qkv_proj", 2, 3),
    "layer.#.attention_output": "encoder.layer.#.attention.o_proj",
    "layer.#.attention_norm": "encoder.layer.#.attn_ln",
    "layer.#.inner": Part("encoder.layer.#.mlp.up_gate_proj", 0, 2),
    "layer.#.gate": Part("encoder.layer.#.mlp.up_gate_proj", 1, 2),
    "layer.#.outer": "encoder.layer.#.mlp.down_proj",
    "layer.#.output_norm": "encoder.layer.#.mlp_ln",
    "pooler": "pooler.dense",
}


class NativeConfig(Config):
    """transformers' fields and defaults."""

    type_vocab_size: NonNegativeInt = 1
    hidden_act: str = "gelu"
    position_embedding_type: Literal["rope", "absolute"] | None = None  # type: ignore[assignment]
    rope_parameters: dict[str, Any] | None = None
    rope_scaling: dict[str, Any] | None = Field(default=None, max_length=0)
    rope_theta: float = 160_000.0


class CodeConfig(Config):
    """The code's fields. Of those with one value here any other is refused."""

    type_vocab_size: NonNegativeInt = 0
    hidden_act: str = "gelu"
    position_embedding_type: Literal["rope"] = "rope"  # type: ignore[assignment]
    rope_theta: float = Field(default=10_000.0, gt=0, lt=1e12)
    rope_scaling: dict[str, Any] | None = None
    layer_norm_type: Literal["layer_norm"] = "layer_norm"
    pack_qkv: Literal[True] = True
    logn_attention_scale: Literal[False] = False
    logn_attention_clip1: bool = False


def network(config: dict[str, Any]) -> Network:
    """Read transformers' `config.json`."""
    fields = read(NativeConfig, config)
    return _network(fields, fields.type_vocab_size, rotary_of(fields.rope_parameters, fields.rope_theta))


def network_of_code(config: dict[str, Any]) -> Network:
    """Read the code's `config.json`."""
    fields = read(CodeConfig, config)
    check_heads(fields.hidden_size, fields.num_attention_heads)
    return _network(fields, fields.type_vocab_size, _scaled(fields))


def _network(fields: Config, types: int, rotary: Rotary) -> Network:
    sizes = fields.sizes()
    check_even_heads(fields.hidden_size, fields.num_attention_heads)
    return Network(
        **sizes,
        type_vocab_size=types,
        learned_positions=False,
        rotary=rotary,
        gated=True,
        inner_bias=False,
    )


def _scaled(fields: CodeConfig) -> Rotary:
    """Turn the code's NTK scaling, whose frequencies are (theta f)^(-2m/d) / f^(2/d), into a base and a factor."""
    scaling = dict(fields.rope_scaling or {})
    if not scaling:
        return Rotary(fields.rope_theta)
    factor = scaling.pop("factor", None)
    if scaling.pop("mixed_b", None) is not None:
        raise ExportError("config.json: rope_scaling: mixed_b is not implemented")
    if (
        scaling != {"type": "ntk"}
        or isinstance(factor, bool)
        or not isinstance(factor, int | float)
        or not 1 < factor < 1e12
    ):
        raise ExportError(
            f"config.json: rope_scaling {fields.rope_scaling!r:.100} is not of type ntk with a factor above 1"
        )
    head_size = fields.hidden_size // fields.num_attention_heads
    return Rotary(fields.rope_theta * factor, factor ** (2 / head_size))


HEADS = ("lm_head.", "classifier.")
BUFFERS = ("embeddings.position_ids", "inv_freq")

GTE = Family(
    name="gte",
    network=network,
    spellings=(NATIVE, CODE),
    prefixes=("model.", "gte.", "new."),
    heads=HEADS,
    buffers=BUFFERS,
    checkpoints=("alibaba-nlp-community/gte-multilingual-base",),
    notes="NTK scaling is that of `rope_type` linear with a larger base.",
)


def _code_family(name: str, *checkpoints: str) -> Family:
    heads = ("ForMaskedLM", "ForSequenceClassification", "ForTokenClassification")
    return Family(
        name=name,
        network=network_of_code,
        spellings=(CODE,),
        prefixes=(f"{name}.",),
        heads=HEADS,
        buffers=BUFFERS,
        code=tuple(f"{name.capitalize()}{kind}" for kind in ("Model", *heads)),
        tokenizer="XLMRobertaTokenizer",
        checkpoints=checkpoints,
        notes="The code is not run. `logn_attention_scale` and `mixed_b` are refused.",
    )


NEW = _code_family("new", "Alibaba-NLP/gte-base-en-v1.5, -large-", "Alibaba-NLP/gte-multilingual-base")
GTE_CODE = _code_family("gte", "Snowflake/snowflake-arctic-embed-m-v2.0")
