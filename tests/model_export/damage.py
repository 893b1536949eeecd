"""Damage to the JSON files of a checkpoint, drawn by Hypothesis: wrong types, extreme numbers, nested junk, no JSON."""

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from safetensors.numpy import save_file

from model_export import export as export_module
from model_export.checkpoint import find_checkpoint
from model_export.errors import ExportError
from tests.model_export.families.plain import TOKENIZER_CONFIG, plain_config, write_plain
from tests.model_export.families.variants import FULL, SLIDING, VARIANTS

Document = Any
Edit = Callable[[Document], Document]

MOST_CHARACTERS = 1000
"""Of a line that says why a checkpoint is not exported."""

NETWORKS = [name for name in VARIANTS if name in ("albert", "distilbert", "mpnet", "roberta") or ", code" in name]
NETWORKS += ["bert", "ernie, tasks", "gte", "new", "modernbert", "modernbert, old", "nomic_bert"]
TOKENIZER = {
    **TOKENIZER_CONFIG,
    "added_tokens_decoder": {"4": {"content": "[MASK]", "lstrip": False, "special": True}},
    "additional_special_tokens": ["[SEP]"],
    "extra_special_tokens": {"image_token": "[MASK]"},
    "clean_up_tokenization_spaces": False,
    "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
    "split_special_tokens": False,
    "strip_accents": None,
    "tokenize_chinese_chars": True,
    "truncation_side": "right",
    "padding_side": "right",
}
KINDS = ("Transformer", "Pooling", "Dense", "Normalize")
MODULES: dict[str, Document] = {
    "modules.json": [
        {
            "idx": place,
            "name": str(place),
            "path": f"{place}_{kind}" if place else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for place, kind in enumerate(KINDS)
    ],
    "1_Pooling/config.json": {
        "word_embedding_dimension": 60,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": False,
        "include_prompt": True,
    },
    "2_Dense/config.json": {
        "in_features": 60,
        "out_features": 8,
        "bias": True,
        "activation_function": "torch.nn.modules.activation.Tanh",
    },
    "config_sentence_transformers.json": {
        "__version__": {"sentence_transformers": "6.2.0"},
        "prompts": {"query": "query: ", "document": ""},
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
        "truncate_dim": None,
    },
    "sentence_bert_config.json": {"max_seq_length": 64, "do_lower_case": False},
}
FIELDS = sorted(
    {field for name in NETWORKS for field in plain_config(name)}
    | TOKENIZER.keys()
    | {field for document in MODULES.values() for field in (document if isinstance(document, dict) else document[0])}
)

WORDS = st.sampled_from(
    [
        *("", " ", "gelu", "default", "linear", "absolute", "rope", "cls", "mean", "dot", "[CLS]", "bert", "new", "t5"),
        *("true", "1", "nan", "None", "../../etc/passwd", "/etc/passwd", "a\nb", "\x00", "\u2028", "ﬀ", "𠀀" * 9),
        *("BertTokenizer", "RobertaTokenizer", "T5Tokenizer", "PreTrainedTokenizerFast", "BertJapaneseTokenizer"),
        *("sentence_transformers.models.Pooling", "o/r--modeling.Model", FULL, SLIDING, "x" * 20_000),
    ]
)
NUMBERS = st.one_of(
    st.sampled_from([0, 1, -1, 2, 3, 5, 7, 60, 400, 10**9, 2**31, 2**63, 2**64, 10**40, -(2**63), 2**17, 1000]),
    st.sampled_from([0.0, -0.0, 0.5, 1e-12, 1e-320, 1e308, float("inf"), float("-inf"), float("nan"), 3.0, 1e9]),
    st.integers(-5, 500),
    st.floats(),
)
PLAIN = st.one_of(st.none(), st.booleans(), NUMBERS, WORDS, st.text(max_size=8))
JUNK = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)
NO_JSON = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"", b"nul", b"\xef\xbb\xbf{}", b"[" * 100_000, b'{"a":' * 100_000, "{}".encode("utf-16")]),
    st.sampled_from([b'"\\ud800"', b'{"\\ud800": "\\udfff"}', b'{"hidden_size": 1' + b"0" * 5000 + b"}"]),
    st.just(b'{"model_type": "bert", "model_type": "new"}'),
)


@st.composite
def damaged(draw: st.DrawFn, document: Document) -> bytes:
    """Draw a file: a document with some places changed, taken away or added, or no document at all."""
    if draw(st.integers(0, 19)) == 0:
        return draw(NO_JSON)
    if draw(st.integers(0, 19)) == 0:
        return json.dumps(draw(JUNK)).encode()
    changed = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        places = [*_places(changed)]
        if not places:
            break
        place = draw(st.sampled_from(places))
        inside, key = place
        match draw(st.integers(0, 4)):
            case 0:
                del inside[key]
            case 1 if isinstance(inside, dict):
                inside[draw(st.sampled_from(FIELDS) | WORDS)] = draw(JUNK)
            case 1:
                inside.insert(key, draw(JUNK))
            case 2:
                inside[key] = [copy.deepcopy(inside[key])] * draw(st.integers(0, 3))
            case _:
                inside[key] = draw(JUNK)
    return json.dumps(changed).encode()


def _places(document: Document) -> Iterator[tuple[Any, Any]]:
    """List each value's place: what it is in, and its key there."""
    keys: list[Any] = list(document) if isinstance(document, dict) else []
    keys = list(range(len(document))) if isinstance(document, list) else keys
    for key in keys:
        yield document, key
        yield from _places(document[key])


@st.composite
def damaged_configs(draw: st.DrawFn) -> tuple[str, str, bytes]:
    """Draw a network's name, the file `config.json`, and what is in it."""
    name = draw(st.sampled_from(NETWORKS))
    return name, "config.json", draw(damaged(plain_config(name)))


@st.composite
def damaged_tokenizer_configs(draw: st.DrawFn) -> tuple[str, str, bytes]:
    """Draw the same of `tokenizer_config.json`."""
    return draw(st.sampled_from(NETWORKS)), "tokenizer_config.json", draw(damaged(TOKENIZER))


@st.composite
def damaged_modules(draw: st.DrawFn) -> tuple[str, str, bytes]:
    """Draw the same of `modules.json` and of the files of modules."""
    file = draw(st.sampled_from(["modules.json", *MODULES]))
    return "bert", file, draw(damaged(MODULES[file]))


DAMAGED = {"config": damaged_configs(), "tokenizer": damaged_tokenizer_configs(), "modules": damaged_modules()}


class Checkpoints:
    """A checkpoint of each network, whose files are changed one at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def with_file(self, name: str, file: str, content: bytes) -> Iterator[Path]:
        """Give a network's checkpoint in which a file is another one, for as long as the block runs."""
        folder = self._folder / name
        if not folder.exists():
            write_plain(folder, name)
            if name == "bert":
                _write_modules(folder)
        path = folder / file
        before = path.read_bytes()
        path.write_bytes(content)
        try:
            yield folder
        finally:
            path.write_bytes(before)


def _write_modules(folder: Path) -> None:
    for name, document in MODULES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(document))
    weights = {"linear.weight": np.ones((8, 60), np.float32), "linear.bias": np.ones(8, np.float32)}
    save_file(weights, folder / "2_Dense" / "model.safetensors")


def read(folder: Path) -> str | None:
    """Read a checkpoint as an export does before it builds a graph; gives the error's line, if it is refused.

    Any other error than an export's goes through.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gc.collect", lambda: 0)  # most of the time, and of no matter here
        try:
            export_module._read(find_checkpoint(str(folder)))
        except ExportError as error:
            return str(error)
        except OSError as error:  # which the export puts in one line
            return str(error)
    return None


def check_line(line: str) -> None:
    """Check that an error is one line that can be printed, and not a page."""
    assert line
    assert "\n" not in line
    assert line.isprintable(), line
    assert len(line) <= MOST_CHARACTERS, line
    line.encode()
