"""DistilBERT: BERT without types and without a pooler."""

from typing import Any

from pydantic import PositiveInt

from model_export.errors import ExportError
from model_export.families.bert import EMBEDDINGS
from model_export.families.config import AnyConfig, Layers, Positions, activation_of, check_heads, read
from model_export.families.family import Family
from model_export.network import Network

MODULES = {
    **{ours: theirs for ours, theirs in EMBEDDINGS.items() if ours != "embeddings.type"},
    "layer.#.query": "transformer.layer.#.attention.q_lin",
    "layer.#.key": "transformer.layer.#.attention.k_lin",
    "layer.#.value": "transformer.layer.#.attention.v_lin",
    "layer.#.attention_output": "transformer.layer.#.attention.out_lin",
    "layer.#.attention_norm": "transformer.layer.#.sa_layer_norm",
    "layer.#.inner": "transformer.layer.#.ffn.lin1",
    "layer.#.outer": "transformer.layer.#.ffn.lin2",
    "layer.#.output_norm": "transformer.layer.#.output_layer_norm",
}


ALIASES = {"hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"}
"""Names by which transformers takes the same fields too."""


class DistilBertConfig(AnyConfig):
    """Its fields, by its own names."""

    dim: PositiveInt
    n_layers: Layers
    n_heads: PositiveInt
    hidden_dim: PositiveInt
    vocab_size: PositiveInt
    max_position_embeddings: Positions = 512
    activation: str = "gelu"


def network(config: dict[str, Any]) -> Network:
    """Read the sizes from `config.json`; a table of sinusoids is one of the checkpoint's tensors all the same."""
    fields = read(DistilBertConfig, config)
    for alias, name in ALIASES.items():
        if alias in config and config[alias] != config.get(name):
            raise ExportError(
                f"config.json: {alias} {config[alias]!r:.80} and {name} {config.get(name)!r:.80} disagree"
            )
    check_heads(fields.dim, fields.n_heads, "n_heads")
    return Network(
        hidden_size=fields.dim,
        layers=fields.n_layers,
        heads=fields.n_heads,
        intermediate_size=fields.hidden_dim,
        vocab_size=fields.vocab_size,
        positions=fields.max_position_embeddings,
        type_vocab_size=0,
        epsilon=1e-12,
        activation=activation_of("activation", fields.activation),
    )


DISTILBERT = Family(
    name="distilbert",
    network=network,
    spellings=(MODULES,),
    prefixes=("distilbert.",),
    heads=("vocab_", "pre_classifier.", "classifier.", "qa_outputs."),
    buffers=("embeddings.position_ids",),
    checkpoints=("sentence-transformers/distiluse-base-multilingual-cased-v2", "distilbert/distilbert-base-uncased"),
)
