"""Tiny random checkpoints of every family, written by transformers; none of it is imported before it is needed."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

SIZES = {
    "vocab_size": 400,
    "hidden_size": 60,
    "num_hidden_layers": 3,
    "num_attention_heads": 5,
    "intermediate_size": 100,
    "max_position_embeddings": 90,
}
SENTENCES = (
    "The quick brown fox jumps over the lazy dog, and the dog does not mind at all.",
    "A ship ties up at the berth in the harbour; a boat waits outside until the tide turns.",
    "The vector of a text is a list of numbers: 384 of them, or 768, one for each dimension.",
    "Where can I moor my boat? Ask the harbour master, who knows every berth and its depth.",
    "Déjà vu, naïve façades, über-cool, crème brûlée for 3.50!",
    "Обработка естественного языка, корабль стоит в порту.",
    "自然语言处理是人工智能的一个重要方向。 船停靠在港口的泊位上。",
    "She reads sentences, words, letters and numbers; he counts tokens, layers, heads and texts.",
)
KINDS = ("wordpiece", "unigram", "byte-level")
"""The kinds of tokenizers, which every family may have."""

Stored = dict[str, NDArray[Any]]
Respell = Callable[[dict[str, Any], Stored], tuple[dict[str, Any], Stored]]
"""Turns config.json and the tensors that transformers wrote into another spelling of the same network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A network of a family, as transformers' config has it."""

    model_type: str
    config: Mapping[str, Any] = field(default_factory=dict)
    """What differs from `SIZES`; None takes a field away."""
    tokenizer: str = "wordpiece"
    respell: Respell | None = None
    """Makes of it what Berth reads; transformers reads the folder as it wrote it."""
    converted: bool = True
    """Whether transformers writes the tensors by the names of the code that it took the network from."""
    has_pooler: bool = False
    adapter: str | None = None
    """The adapter that Berth is asked to merge."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A variant's folders: the one that Berth reads, and the one that transformers reads."""

    variant: Variant
    folder: Path
    native: Path


def write_checkpoint(folder: Path, variant: Variant, tokenizer: str | None = None) -> Checkpoint:
    """Have transformers write a variant's config, random tensors and a tokenizer of a kind that is trained here."""
    native = folder / "native"
    trained = write_tokenizer(native, tokenizer or variant.tokenizer)
    write_model(native, variant, trained.pad_token_id)
    if variant.respell is None:
        return Checkpoint(variant, native, native)
    respelled = Path(shutil.copytree(native, folder / "respelled"))
    config = json.loads((native / "config.json").read_text())
    config, stored = variant.respell(config, load_file(native / "model.safetensors"))
    (respelled / "config.json").write_text(json.dumps(config))
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in stored.items()}, respelled / "model.safetensors")
    return Checkpoint(variant, respelled, native)


def write_model(folder: Path, variant: Variant, pad_token_id: int) -> None:
    """Write config.json and model.safetensors; all is random, the norms too, so that a swapped tensor shows."""
    import torch  # noqa: PLC0415  # slow: only tests that compare with it pay for it
    from transformers import AutoConfig, AutoModel  # noqa: PLC0415  # as above

    fields = {**SIZES, "pad_token_id": pad_token_id, **variant.config}
    given = {name: value for name, value in fields.items() if value is not None}
    model = AutoModel.from_config(AutoConfig.for_model(variant.model_type, **given))
    torch.manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, 0.2)
            if parameter.dim() == 1 and name.endswith("weight"):  # a norm's
                parameter.add_(1)
    model.save_pretrained(folder, save_original_format=variant.converted)


def write_tokenizer(folder: Path, kind: str) -> Any:
    """Train a tokenizer of a kind on some sentences and write it; gives it as transformers has it."""
    import transformers  # noqa: PLC0415  # as above

    special = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4}
    match kind:
        case "wordpiece":
            untrained = transformers.BertTokenizerFast()
        case "unigram":  # as the hub's are: all ids of XLM-R are one above sentencepiece's
            untrained = transformers.XLMRobertaTokenizerFast(vocab=[(token, 0.0) for token in special])
        case "byte-level":
            untrained = transformers.RobertaTokenizerFast(vocab=special, merges=[])
        case "MPNetTokenizer":
            untrained = transformers.MPNetTokenizer(vocab=special | {"[UNK]": 5})
        case _:  # a class of transformers'
            untrained = getattr(transformers, kind)()
    tokenizer = untrained.train_new_from_iterator(SENTENCES, SIZES["vocab_size"], show_progress=False)
    tokenizer.save_pretrained(folder)
    return tokenizer
