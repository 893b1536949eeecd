"""What is read of the files that sentence-transformers writes."""

from pathlib import Path

from sentence_transformers import SentenceTransformer

from berth.models import DEFAULT_MODEL
from berth.types import Metric, Pooling
from model_export.checkpoint import find_checkpoint
from model_export.sentence_transformers import read_usage


def test_a_model_saved_by_the_sentence_transformers_of_today(tmp_path: Path) -> None:
    model = SentenceTransformer(str(find_checkpoint(DEFAULT_MODEL).folder), device="cpu")
    model.prompts, model.default_prompt_name, model.similarity_fn_name = {"query": "find: "}, "query", "dot"
    model.save(str(tmp_path))
    usage = read_usage(find_checkpoint(str(tmp_path)))
    assert (usage.pooling, usage.normalize, usage.max_tokens) == (Pooling.MEAN, True, model.max_seq_length)
    assert (usage.prompts, usage.default_prompt_name) == ({"query": "find: "}, "query")
    assert usage.similarity is Metric.DOT
