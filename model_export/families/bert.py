"""BERT: `BertModel`, alone or inside `BertForMaskedLM` and its like."""

from typing import Any, Literal

from pydantic import BaseModel, PositiveFloat, PositiveInt, ValidationError

from model_export.errors import ExportError
from model_export.families.family import Family
from model_export.network import Activation, Network

ACTIVATIONS = {
    "gelu": Activation.GELU,
    "gelu_python": Activation.GELU,
    "gelu_new": Activation.GELU_TANH,
    "gelu_pytorch_tanh": Activation.GELU_TANH,
    "relu": Activation.RELU,
}
"""By transformers' names, of which several are of one function."""

MODULES = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.position": "embeddings.position_embeddings",
    "embeddings.type": "embeddings.token_type_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
    "layer.#.query": "encoder.layer.#.attention.self.query",
    "layer.#.key": "encoder.layer.#.attention.self.key",
    "layer.#.value": "encoder.layer.#.attention.self.value",
    "layer.#.attention_output": "encoder.layer.#.attention.output.dense",
    "layer.#.attention_norm": "encoder.layer.#.attention.output.LayerNorm",
    "layer.#.inner": "encoder.layer.#.intermediate.dense",
    "layer.#.outer": "encoder.layer.#.output.dense",
    "layer.#.output_norm": "encoder.layer.#.output.LayerNorm",
    "pooler": "pooler.dense",
}


class Config(BaseModel):
    """The part of `config.json` that decides how the encoder computes; defaults are for files older than the field."""

    hidden_size: PositiveInt
    num_hidden_layers: PositiveInt
    num_attention_heads: PositiveInt
    intermediate_size: PositiveInt
    vocab_size: PositiveInt
    max_position_embeddings: PositiveInt
    type_vocab_size: PositiveInt
    hidden_act: str
    layer_norm_eps: PositiveFloat = 1e-12
    position_embedding_type: Literal["absolute"] | None = None
    is_decoder: Literal[False] | None = None
    add_cross_attention: Literal[False] | None = None


def network(config: dict[str, Any]) -> Network:
    """Read the sizes from `config.json`."""
    try:
        read = Config.model_validate(config)
    except ValidationError as error:
        first = error.errors()[0]
        field = first["loc"][0]
        found = f", not {config[field]!r}" if field in config else ""
        raise ExportError(f"config.json: {field}: {first['msg']}{found}") from error
    activation = ACTIVATIONS.get(read.hidden_act)
    if activation is None:
        raise ExportError(f"config.json: hidden_act {read.hidden_act!r} is not one of {', '.join(ACTIVATIONS)}")
    if read.hidden_size % read.num_attention_heads:
        raise ExportError(
            f"config.json: hidden_size {read.hidden_size} is not a multiple of "
            f"num_attention_heads {read.num_attention_heads}"
        )
    return Network(
        hidden_size=read.hidden_size,
        layers=read.num_hidden_layers,
        heads=read.num_attention_heads,
        intermediate_size=read.intermediate_size,
        vocab_size=read.vocab_size,
        positions=read.max_position_embeddings,
        type_vocab_size=read.type_vocab_size,
        epsilon=read.layer_norm_eps,
        activation=activation,
    )


BERT = Family(
    name="bert",
    network=network,
    modules=MODULES,
    prefix="bert.",
    heads=("cls.", "classifier.", "qa_outputs."),
    buffers=("embeddings.position_ids",),
)
