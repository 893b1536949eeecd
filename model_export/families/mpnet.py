"""MPNet: RoBERTa's positions, no types, and a bias by distance that all layers share."""

from typing import Any, Literal

from model_export.families.bert import EMBEDDINGS
from model_export.families.config import Config, read
from model_export.families.family import Family
from model_export.network import Buckets, Network

MODULES = {
    **{ours: theirs for ours, theirs in EMBEDDINGS.items() if ours != "embeddings.type"},
    "buckets": "encoder.relative_attention_bias",
    "layer.#.query": "encoder.layer.#.attention.attn.q",
    "layer.#.key": "encoder.layer.#.attention.attn.k",
    "layer.#.value": "encoder.layer.#.attention.attn.v",
    "layer.#.attention_output": "encoder.layer.#.attention.attn.o",
    "layer.#.attention_norm": "encoder.layer.#.attention.LayerNorm",
    "layer.#.inner": "encoder.layer.#.intermediate.dense",
    "layer.#.outer": "encoder.layer.#.output.dense",
    "layer.#.output_norm": "encoder.layer.#.output.LayerNorm",
    "pooler": "pooler.dense",
}

PADDING_ID = 1
"""Whatever config.json says: transformers' MPNetEmbeddings."""
MAX_DISTANCE = 128
"""Of MPNetEncoder.relative_position_bucket in transformers, which takes 32 buckets whatever config.json says."""


class MPNetConfig(Config):
    """Its own field."""

    relative_attention_num_buckets: Literal[32] = 32


def network(config: dict[str, Any]) -> Network:
    """Read the sizes from `config.json`."""
    fields = read(MPNetConfig, config)
    return Network(
        **fields.sizes(),
        type_vocab_size=0,
        first_position=PADDING_ID + 1,
        padding_id=PADDING_ID,
        buckets=Buckets(fields.relative_attention_num_buckets, MAX_DISTANCE),
    )


MPNET = Family(
    name="mpnet",
    network=network,
    spellings=(MODULES,),
    prefixes=("mpnet.",),
    heads=("lm_head.", "classifier.", "qa_outputs."),
    buffers=("embeddings.position_ids",),
    checkpoints=("sentence-transformers/all-mpnet-base-v2", "sentence-transformers/multi-qa-mpnet-base-dot-v1"),
)
