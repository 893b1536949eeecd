"""ERNIE: BERT with a table of tasks, of which every token gets the first row."""

from typing import Any

from pydantic import PositiveInt

from model_export.families.bert import MODULES
from model_export.families.config import Config, read
from model_export.families.family import Family
from model_export.network import Network


class ErnieConfig(Config):
    """Its own fields, and transformers' defaults."""

    type_vocab_size: PositiveInt = 2
    task_type_vocab_size: PositiveInt = 3
    use_task_id: bool = False


def network(config: dict[str, Any]) -> Network:
    """Read the sizes from `config.json`."""
    fields = read(ErnieConfig, config)
    tasks = fields.task_type_vocab_size if fields.use_task_id else 0
    return Network(**fields.sizes(), type_vocab_size=fields.type_vocab_size, task_types=tasks)


ERNIE = Family(
    name="ernie",
    network=network,
    spellings=({**MODULES, "embeddings.task": "embeddings.task_type_embeddings"},),
    prefixes=("ernie.",),
    heads=("cls.", "classifier.", "qa_outputs."),
    buffers=("embeddings.position_ids",),
    checkpoints=("nghuyong/ernie-3.0-base-zh", "nghuyong/ernie-2.0-base-en"),
)
