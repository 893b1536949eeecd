"""The names that transformers 5 gives the tensors of encoders that it took from code on the hub."""

from model_export.families.family import Spelling

NATIVE: Spelling = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.type": "embeddings.token_type_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
    "layer.#.query": "layers.#.self_attn.q_proj",
    "layer.#.key": "layers.#.self_attn.k_proj",
    "layer.#.value": "layers.#.self_attn.v_proj",
    "layer.#.attention_output": "layers.#.self_attn.o_proj",
    "layer.#.attention_norm": "layers.#.post_attention_layernorm",
    "layer.#.inner": "layers.#.mlp.up_proj",
    "layer.#.gate": "layers.#.mlp.gate_proj",
    "layer.#.outer": "layers.#.mlp.down_proj",
    "layer.#.output_norm": "layers.#.post_mlp_layernorm",
    "pooler": "pooler.dense",
}
