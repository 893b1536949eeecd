"""BERT: `BertModel`, alone or inside `BertForMaskedLM` and its like."""

from typing import Any

from pydantic import PositiveInt

from model_export.families.config import Config, read
from model_export.families.family import Family
from model_export.network import Network

LAYERS = {
    "layer.#.query": "encoder.layer.#.attention.self.query",
    "layer.#.key": "encoder.layer.#.attention.self.key",
    "layer.#.value": "encoder.layer.#.attention.self.value",
    "layer.#.attention_output": "encoder.layer.#.attention.output.dense",
    "layer.#.attention_norm": "encoder.layer.#.attention.output.LayerNorm",
    "layer.#.inner": "encoder.layer.#.intermediate.dense",
    "layer.#.outer": "encoder.layer.#.output.dense",
    "layer.#.output_norm": "encoder.layer.#.output.LayerNorm",
}
EMBEDDINGS = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.position": "embeddings.position_embeddings",
    "embeddings.type": "embeddings.token_type_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
}
MODULES = {**EMBEDDINGS, **LAYERS, "pooler": "pooler.dense"}


class BertConfig(Config):
    """BERT's own field."""

    type_vocab_size: PositiveInt


def network(config: dict[str, Any]) -> Network:
    """Read the sizes from `config.json`."""
    fields = read(BertConfig, config)
    return Network(**fields.sizes(), type_vocab_size=fields.type_vocab_size)


BERT = Family(
    name="bert",
    network=network,
    spellings=(MODULES,),
    prefixes=("bert.",),
    heads=("cls.", "classifier.", "qa_outputs."),
    buffers=("embeddings.position_ids",),
    checkpoints=(
        "sentence-transformers/all-MiniLM-L6-v2",
        "BAAI/bge-small-en-v1.5, -base-, -large-",
        "intfloat/e5-*-v2, multilingual-e5-small",
        "thenlper/gte-*",
        "mixedbread-ai/mxbai-embed-large-v1",
        "Snowflake/snowflake-arctic-embed-xs … -l",
        "sentence-transformers/LaBSE",
        "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
    ),
    notes="The tokenizer may be any, XLM-R's among them.",
)
