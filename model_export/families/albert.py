"""ALBERT: narrow tables, and layers that share their weights."""

from typing import Any

from pydantic import Field, PositiveInt

from model_export.errors import ExportError
from model_export.families.bert import EMBEDDINGS
from model_export.families.config import Config, Layers, read
from model_export.families.family import Family
from model_export.network import Network

GROUP = "encoder.albert_layer_groups.#.albert_layers.0"
MODULES = {
    **EMBEDDINGS,
    "embeddings.projection": "encoder.embedding_hidden_mapping_in",
    "layer.#.query": f"{GROUP}.attention.query",
    "layer.#.key": f"{GROUP}.attention.key",
    "layer.#.value": f"{GROUP}.attention.value",
    "layer.#.attention_output": f"{GROUP}.attention.dense",
    "layer.#.attention_norm": f"{GROUP}.attention.LayerNorm",
    "layer.#.inner": f"{GROUP}.ffn",
    "layer.#.outer": f"{GROUP}.ffn_output",
    "layer.#.output_norm": f"{GROUP}.full_layer_layer_norm",
    "pooler": "pooler",
}


class AlbertConfig(Config):
    """Its own fields, and transformers' defaults."""

    type_vocab_size: PositiveInt = 2
    embedding_size: PositiveInt = 128
    num_hidden_groups: Layers = 1
    inner_group_num: int = Field(default=1, ge=1, le=1)
    hidden_act: str = "gelu_new"


def network(config: dict[str, Any]) -> Network:
    """Read the sizes from `config.json`."""
    fields = read(AlbertConfig, config)
    layers, groups = fields.num_hidden_layers, fields.num_hidden_groups
    if groups > layers:
        raise ExportError(f"config.json: num_hidden_groups {groups} is above num_hidden_layers {layers}")
    return Network(
        **fields.sizes(),
        type_vocab_size=fields.type_vocab_size,
        embedding_size=fields.embedding_size,
        shared=tuple(int(layer / (layers / groups)) for layer in range(layers)),  # as transformers rounds
    )


ALBERT = Family(
    name="albert",
    network=network,
    spellings=(MODULES,),
    prefixes=("albert.",),
    heads=("predictions.", "sop_classifier.", "classifier.", "qa_outputs."),
    buffers=("embeddings.position_ids",),
    checkpoints=("sentence-transformers/paraphrase-albert-small-v2", "albert/albert-base-v2"),
    notes="The weights that layers share are written once.",
)
