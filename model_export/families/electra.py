"""ELECTRA's discriminator: BERT whose tables may be narrower than its layers, without a pooler."""

from typing import Any

from pydantic import PositiveInt

from model_export.families.bert import EMBEDDINGS, LAYERS
from model_export.families.config import Config, read
from model_export.families.family import Family
from model_export.network import Network


class ElectraConfig(Config):
    """Its own fields, and transformers' defaults."""

    type_vocab_size: PositiveInt = 2
    embedding_size: PositiveInt = 128


def network(config: dict[str, Any]) -> Network:
    """Read the sizes from `config.json`."""
    fields = read(ElectraConfig, config)
    width = None if fields.embedding_size == fields.hidden_size else fields.embedding_size
    return Network(**fields.sizes(), type_vocab_size=fields.type_vocab_size, embedding_size=width)


ELECTRA = Family(
    name="electra",
    network=network,
    spellings=({**EMBEDDINGS, "embeddings.projection": "embeddings_project", **LAYERS},),
    prefixes=("electra.",),
    heads=("discriminator_predictions.", "generator_", "classifier.", "qa_outputs.", "sequence_summary."),
    buffers=("embeddings.position_ids",),
    checkpoints=("google/electra-base-discriminator", "hfl/chinese-electra-180g-base-discriminator"),
)
