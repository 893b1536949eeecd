"""The networks of every family that the tests know, as transformers' configs and as they are spelled in the wild."""

import re
from typing import Any

import numpy as np

from tests.model_export.families.checkpoints import Stored, Variant

ONE_TYPE = {"type_vocab_size": 1}
TWO_TYPES = {"type_vocab_size": 2}

NTK = 8.0
HEAD_SIZE = 12
LORA_RANK, LORA_ALPHA, ADAPTERS = 4, 3, ("retrieval.query", "separation")

GTE_AUTO_MAP = {
    "AutoConfig": "Alibaba-NLP/new-impl--configuration.NewConfig",
    "AutoModel": "Alibaba-NLP/new-impl--modeling.NewModel",
    "AutoModelForMaskedLM": "Alibaba-NLP/new-impl--modeling.NewForMaskedLM",
    "AutoModelForMultipleChoice": "Alibaba-NLP/new-impl--modeling.NewForMultipleChoice",
    "AutoModelForQuestionAnswering": "Alibaba-NLP/new-impl--modeling.NewForQuestionAnswering",
    "AutoModelForSequenceClassification": "Alibaba-NLP/new-impl--modeling.NewForSequenceClassification",
    "AutoModelForTokenClassification": "Alibaba-NLP/new-impl--modeling.NewForTokenClassification",
}
NOMIC_AUTO_MAP = {
    "AutoConfig": "nomic-ai/nomic-bert-2048--configuration_hf_nomic_bert.NomicBertConfig",
    "AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel",
    "AutoModelForMaskedLM": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertForPreTraining",
}


def _ntk(theta: float) -> dict[str, Any]:
    """Give the parameters by which transformers' GTE computes what the code's NTK scaling by `NTK` is."""
    return {"rope_type": "linear", "rope_theta": theta * NTK, "factor": NTK ** (2 / HEAD_SIZE)}


def _new(config: dict[str, Any], stored: Stored) -> tuple[dict[str, Any], Stored]:
    """Spell GTE as Alibaba-NLP/gte-base-en-v1.5 does."""
    rotary = config.pop("rope_parameters")
    scaled = rotary["rope_type"] == "linear"
    return {
        **config,
        "architectures": ["NewModel"],
        "auto_map": GTE_AUTO_MAP,
        "layer_norm_type": "layer_norm",
        "logn_attention_clip1": False,
        "logn_attention_scale": False,
        "model_type": "new",
        "pack_qkv": True,
        "position_embedding_type": "rope",
        "rope_scaling": {"factor": NTK, "type": "ntk"} if scaled else None,
        "rope_theta": rotary["rope_theta"] / (NTK if scaled else 1),
        "unpad_inputs": False,
        "use_memory_efficient_attention": False,
    }, stored


def _arctic(config: dict[str, Any], stored: Stored) -> tuple[dict[str, Any], Stored]:
    """Spell GTE as Snowflake/snowflake-arctic-embed-m-v2.0 does: the same code as another class."""
    config, stored = _new(config, stored)
    places = {"AutoConfig": "configuration_hf_alibaba_nlp_gte.GteConfig"}
    places |= {"AutoModel": "modeling_hf_alibaba_nlp_gte.GteModel"}
    return config | {"architectures": ["GteModel"], "auto_map": places, "model_type": "gte"}, stored


def _new_with_a_head(config: dict[str, Any], stored: Stored) -> tuple[dict[str, Any], Stored]:
    """Spell GTE as Alibaba-NLP/gte-multilingual-base does, a model for tokens."""
    config, stored = _new(config, stored)
    head = {"classifier.weight": np.ones((1, 60), np.float32), "classifier.bias": np.ones(1, np.float32)}
    return config | {"architectures": ["NewForTokenClassification"]}, _prefixed("new.", stored) | head


def _nomic(config: dict[str, Any], stored: Stored) -> tuple[dict[str, Any], Stored]:
    """Spell NomicBERT as nomic-ai/nomic-embed-text-v1.5 does: config.json in GPT-2's names."""
    return {
        "activation_function": "swiglu",
        "architectures": ["NomicBertModel"],
        "attn_pdrop": 0.0,
        "auto_map": NOMIC_AUTO_MAP,
        "bos_token_id": None,
        "causal": False,
        "dense_seq_output": True,
        "embd_pdrop": 0.0,
        "eos_token_id": None,
        "fused_bias_fc": True,
        "fused_dropout_add_ln": True,
        "initializer_range": 0.02,
        "layer_norm_epsilon": config["layer_norm_eps"],
        "max_trained_positions": 2048,
        "mlp_fc1_bias": False,
        "mlp_fc2_bias": False,
        "model_type": "nomic_bert",
        "n_embd": config["hidden_size"],
        "n_head": config["num_attention_heads"],
        "n_inner": config["intermediate_size"],
        "n_layer": config["num_hidden_layers"],
        "n_positions": config["max_position_embeddings"],
        "pad_vocab_size_multiple": 64,
        "parallel_block": False,
        "parallel_block_tied_norm": False,
        "prenorm": False,
        "qkv_proj_bias": False,
        "reorder_and_upcast_attn": False,
        "resid_pdrop": 0.0,
        "rotary_emb_base": config["rope_parameters"]["rope_theta"],
        "rotary_emb_fraction": 1.0,
        "rotary_emb_interleaved": False,
        "rotary_emb_scale_base": None,
        "rotary_scaling_factor": None,
        "scale_attn_by_inverse_layer_idx": False,
        "scale_attn_weights": True,
        "summary_activation": None,
        "summary_first_dropout": 0.0,
        "summary_proj_to_labels": True,
        "summary_type": "cls_index",
        "summary_use_proj": True,
        "torch_dtype": "float32",
        "type_vocab_size": config["type_vocab_size"],
        "use_cache": True,
        "use_flash_attn": True,
        "use_rms_norm": False,
        "use_xentropy": True,
        "vocab_size": config["vocab_size"],
    }, stored


def _nomic_mixed(config: dict[str, Any], stored: Stored) -> tuple[dict[str, Any], Stored]:
    """Spell NomicBERT in both ways at once, as its config.json of 2026 does; the code's names have more positions."""
    positions = config["max_position_embeddings"]
    by_code, stored = _nomic(config, stored)
    return by_code | config | {"max_position_embeddings": positions // 2, "n_positions": positions}, stored


def _old_modernbert(config: dict[str, Any], stored: Stored) -> tuple[dict[str, Any], Stored]:
    """Spell ModernBERT as transformers 4 did."""
    types, rotary = config.pop("layer_types"), config.pop("rope_parameters")
    globals_ = [layer for layer, kind in enumerate(types) if kind == "full_attention"]
    return config | {
        "global_attn_every_n_layers": globals_[1] if len(globals_) > 1 else len(types),
        "global_rope_theta": rotary["full_attention"]["rope_theta"],
        "local_rope_theta": rotary["sliding_attention"]["rope_theta"],
        "position_embedding_type": "absolute",
        "reference_compile": None,
    }, stored


def _masked_language_model(config: dict[str, Any], stored: Stored) -> tuple[dict[str, Any], Stored]:
    """Make of ModernBERT a model with a head, whose names have a prefix before them."""
    head = {
        "head.dense.weight": np.ones((60, 60), np.float32),
        "head.norm.weight": np.ones(60, np.float32),
        "decoder.bias": np.ones(400, np.float32),
    }
    return config | {"architectures": ["ModernBertForMaskedLM"]}, _prefixed("model.", stored) | head


def _adapted_jina(config: dict[str, Any], stored: Stored) -> tuple[dict[str, Any], Stored]:
    """Spell Jina v3 as jinaai/jina-embeddings-v3 does, the first of two adapters merged being what was given."""
    random = np.random.default_rng(3)
    scale, count = LORA_ALPHA / LORA_RANK, len(ADAPTERS)
    split: Stored = {}
    for name, tensor in stored.items():
        module = name.removesuffix(".weight")
        if tensor.ndim == 1:
            split[f"roberta.{name}"] = tensor
            continue
        rows, columns = tensor.shape
        table = "embeddings" in module
        shapes = ((rows, LORA_RANK), (LORA_RANK, columns)) if table else ((LORA_RANK, columns), (rows, LORA_RANK))
        a, b = (random.normal(0, 0.2, (count, *shape)).astype(np.float32) for shape in shapes)
        merged = a[0] @ b[0] if table else b[0] @ a[0]
        place = f"roberta.{module}.parametrizations.weight"
        split |= {f"{place}.original": tensor - scale * merged, f"{place}.0.lora_A": a, f"{place}.0.lora_B": b}
    return {
        **{name: value for name, value in config.items() if name != "rope_parameters"},
        "architectures": ["XLMRobertaModel"],
        "auto_map": {
            "AutoConfig": "jinaai/xlm-roberta-flash-implementation--configuration_xlm_roberta.XLMRobertaFlashConfig",
            "AutoModel": "jinaai/xlm-roberta-flash-implementation--modeling_lora.XLMRobertaLoRA",
        },
        "load_trained_adapters": True,
        "lora_adaptations": list(ADAPTERS),
        "lora_alpha": LORA_ALPHA,
        "lora_dropout_p": 0.0,
        "lora_main_params_trainable": False,
        "lora_rank": LORA_RANK,
        "model_type": "xlm-roberta",
        "position_embedding_type": "rotary",
        "rotary_emb_base": config["rope_parameters"]["rope_theta"],
        "use_flash_attn": True,
    }, split


def _prefixed(prefix: str, stored: Stored) -> Stored:
    return {f"{prefix}{name}": tensor for name, tensor in stored.items()}


def _with_old_endings(config: dict[str, Any], stored: Stored) -> tuple[dict[str, Any], Stored]:
    """Name the norms' tensors as converters from TensorFlow did, and the encoder as within a model with a head."""
    old = {r"LayerNorm\.weight$": "LayerNorm.gamma", r"LayerNorm\.bias$": "LayerNorm.beta"}
    for new, ending in old.items():
        stored = {re.sub(new, ending, name): tensor for name, tensor in stored.items()}
    return config, _prefixed(f"{config['model_type']}.", stored)


def _modernbert(**config: Any) -> dict[str, Any]:
    special = dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 2)
    return {"local_attention": 8, **special, **config}


FULL, SLIDING = "full_attention", "sliding_attention"
DISTILBERT = {
    "dim": 60,
    "n_layers": 3,
    "n_heads": 5,
    "hidden_dim": 100,
    **dict.fromkeys(("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")),
}

VARIANTS = {
    "bert": Variant(model_type="bert", config=TWO_TYPES, has_pooler=True),
    "bert, old endings": Variant(model_type="bert", config=TWO_TYPES, has_pooler=True, respell=_with_old_endings),
    "roberta": Variant(model_type="roberta", config=ONE_TYPE, tokenizer="byte-level", has_pooler=True),
    "roberta, two types": Variant(model_type="roberta", config=TWO_TYPES, tokenizer="byte-level", has_pooler=True),
    "xlm-roberta": Variant(
        model_type="xlm-roberta", config={**ONE_TYPE, "layer_norm_eps": 1e-5}, tokenizer="unigram", has_pooler=True
    ),
    "camembert": Variant(model_type="camembert", config=ONE_TYPE, tokenizer="CamembertTokenizer", has_pooler=True),
    "mpnet": Variant(model_type="mpnet", config={"layer_norm_eps": 1e-5}, tokenizer="MPNetTokenizer", has_pooler=True),
    "distilbert": Variant(model_type="distilbert", config=DISTILBERT),
    "distilbert, relu": Variant(model_type="distilbert", config={**DISTILBERT, "activation": "relu"}),
    "distilbert, sinusoids": Variant(model_type="distilbert", config={**DISTILBERT, "sinusoidal_pos_embds": True}),
    "electra": Variant(model_type="electra", config={**TWO_TYPES, "embedding_size": 28}),
    "electra, of one width": Variant(model_type="electra", config={**TWO_TYPES, "embedding_size": 60}),
    "ernie": Variant(model_type="ernie", config={"type_vocab_size": 4}, has_pooler=True),
    "ernie, tasks": Variant(
        model_type="ernie", config={**TWO_TYPES, "use_task_id": True, "task_type_vocab_size": 3}, has_pooler=True
    ),
    "albert": Variant(
        model_type="albert", config={**TWO_TYPES, "embedding_size": 28}, tokenizer="AlbertTokenizer", has_pooler=True
    ),
    "albert, two groups": Variant(
        model_type="albert", config={**TWO_TYPES, "embedding_size": 28, "num_hidden_groups": 2}, has_pooler=True
    ),
    "albert, of one width": Variant(
        model_type="albert", config={**TWO_TYPES, "embedding_size": 60, "hidden_act": "gelu"}, has_pooler=True
    ),
    "nomic_bert": Variant(model_type="nomic_bert", config=TWO_TYPES, converted=False),
    "nomic_bert, code": Variant(model_type="nomic_bert", config={**TWO_TYPES, "vocab_size": 384}, respell=_nomic),
    "nomic_bert, both": Variant(model_type="nomic_bert", config={**TWO_TYPES, "vocab_size": 384}, respell=_nomic_mixed),
    "gte": Variant(model_type="gte", config=ONE_TYPE, tokenizer="unigram", converted=False),
    "gte, no types": Variant(model_type="gte", config={"type_vocab_size": 0}),
    "gte, two types": Variant(model_type="gte", config=TWO_TYPES),
    "gte, linear": Variant(model_type="gte", config={**ONE_TYPE, "rope_parameters": _ntk(20_000.0)}),
    "new": Variant(model_type="gte", config={"type_vocab_size": 0, "rope_parameters": _ntk(500_000.0)}, respell=_new),
    "new, no scaling": Variant(
        model_type="gte",
        config={**TWO_TYPES, "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}},
        respell=_new,
    ),
    "new, a head": Variant(
        model_type="gte",
        config={**ONE_TYPE, "rope_parameters": _ntk(20_000.0)},
        tokenizer="unigram",
        respell=_new_with_a_head,
    ),
    "gte, code": Variant(
        model_type="gte",
        config={**ONE_TYPE, "rope_parameters": {"rope_type": "default", "rope_theta": 160_000.0}},
        tokenizer="unigram",
        respell=_arctic,
    ),
    "jina_embeddings_v3": Variant(
        model_type="jina_embeddings_v3", config=ONE_TYPE, tokenizer="unigram", converted=False, has_pooler=True
    ),
    "jina_embeddings_v3, code": Variant(
        model_type="jina_embeddings_v3",
        config=ONE_TYPE,
        tokenizer="unigram",
        has_pooler=True,
        respell=_adapted_jina,
        adapter=ADAPTERS[0],
    ),
    "modernbert": Variant(model_type="modernbert", config=_modernbert(), tokenizer="byte-level"),
    "modernbert, biases": Variant(
        model_type="modernbert",
        config=_modernbert(local_attention=16, norm_bias=True, attention_bias=True, mlp_bias=True, norm_eps=1e-3),
    ),
    "modernbert, every second": Variant(
        model_type="modernbert",
        config=_modernbert(local_attention=6, global_attn_every_n_layers=2, hidden_activation="gelu_new"),
    ),
    "modernbert, old": Variant(
        model_type="modernbert",
        config=_modernbert(
            global_attn_every_n_layers=2,
            rope_parameters={
                kind: {"rope_type": "default", "rope_theta": theta} for kind, theta in ((FULL, 9e4), (SLIDING, 3e3))
            },
        ),
        tokenizer="byte-level",
        respell=_old_modernbert,
    ),
    "modernbert, listed": Variant(
        model_type="modernbert",
        config=_modernbert(local_attention=12, layer_types=[SLIDING, FULL, SLIDING]),
        respell=_masked_language_model,
    ),
    "modernbert, all global": Variant(model_type="modernbert", config=_modernbert(layer_types=[FULL] * 3)),
    "modernbert, all near": Variant(model_type="modernbert", config=_modernbert(layer_types=[SLIDING] * 3)),
    "modernbert, chunks": Variant(  # more tokens than the queries and keys of one chunk
        model_type="modernbert", config=_modernbert(max_position_embeddings=300)
    ),
}
"""By a name that begins with the family's."""
FAMILIES = [name for name in VARIANTS if "," not in name]
"""A variant of each."""
