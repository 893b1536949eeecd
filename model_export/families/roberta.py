"""RoBERTa and those with its network: XLM-RoBERTa, CamemBERT. Positions are counted from the padding id on."""

from typing import Any

from pydantic import NonNegativeInt, PositiveInt

from model_export.families.bert import MODULES
from model_export.families.config import Config, read
from model_export.families.family import Family
from model_export.network import Network


class RobertaConfig(Config):
    """Its own fields, and transformers' defaults."""

    type_vocab_size: PositiveInt = 2
    pad_token_id: NonNegativeInt = 1


def network(config: dict[str, Any]) -> Network:
    """Read the sizes from `config.json`."""
    fields = read(RobertaConfig, config)
    first = fields.pad_token_id + 1
    return Network(
        **fields.sizes(),
        type_vocab_size=fields.type_vocab_size,
        first_position=first,
        padding_id=fields.pad_token_id,
    )


def _family(name: str, *checkpoints: str) -> Family:
    return Family(
        name=name,
        network=network,
        spellings=(MODULES,),
        prefixes=("roberta.",),
        heads=("lm_head.", "classifier.", "qa_outputs."),
        buffers=("embeddings.position_ids",),
        checkpoints=checkpoints,
        notes="The most tokens of a text are `max_position_embeddings` less the rows up to the padding's.",
    )


ROBERTA = _family("roberta", "sentence-transformers/all-distilroberta-v1", "FacebookAI/roberta-base")
XLM_ROBERTA = _family(
    "xlm-roberta",
    "BAAI/bge-m3",
    "intfloat/multilingual-e5-base, -large",
    "Snowflake/snowflake-arctic-embed-l-v2.0",
    "sentence-transformers/paraphrase-multilingual-mpnet-base-v2",
)
CAMEMBERT = _family("camembert", "almanach/camembert-base", "dangvantuan/sentence-camembert-base")
