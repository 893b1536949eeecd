"""The model families, by the `model_type` of their `config.json`."""

from model_export.families.bert import BERT
from model_export.families.family import Family

FAMILIES: dict[str, Family] = {family.name: family for family in (BERT,)}
