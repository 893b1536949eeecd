"""The artifact's tokenizer, from any of its files, and what is refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from berth.models import DEFAULT_MODEL
from berth.types import Frame
from model_export import token_comparison
from model_export.checkpoint import find_checkpoint
from model_export.errors import ExportError
from model_export.families.bert import BERT
from model_export.network import Network
from model_export.tokenizer import ReadTokenizer, read_tokenizer

RAW = {"tokenizer_class": "PreTrainedTokenizerFast"}
"""The class that takes tokenizer.json as it is; BERT's own keeps no more of it than the vocabulary."""


@pytest.fixture
def network() -> Network:
    return BERT.network(find_checkpoint(DEFAULT_MODEL).object("config.json"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with MiniLM's config, to be filled with the files of a tokenizer."""
    source = find_checkpoint(DEFAULT_MODEL).folder
    shutil.copy(source / "config.json", tmp_path)
    return tmp_path


def _copy(folder: Path, *names: str) -> None:
    for name in names:
        shutil.copy(find_checkpoint(DEFAULT_MODEL).folder / name, folder)


def _write(folder: Path, **files: Any) -> None:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def _read(folder: Path, network: Network, lower_case: bool = False, kind: str | None = None) -> ReadTokenizer:
    return read_tokenizer(find_checkpoint(str(folder)), network, lower_case, kind)


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=200))
def test_both_files_of_the_default_model_give_the_same(minilm: Path, from_vocabulary: Tokenizer, text: str) -> None:
    assert Tokenizer.from_file(str(minilm / "tokenizer.json")).encode(text).ids == from_vocabulary.encode(text).ids


@pytest.fixture(scope="module")
def from_vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("vocabulary")
    _copy(folder, "config.json", "vocab.txt", "tokenizer_config.json")
    return _read(folder, BERT.network(find_checkpoint(DEFAULT_MODEL).object("config.json"))).tokenizer


def test_truncation_and_padding_are_removed(minilm: Path) -> None:
    tokenizer = Tokenizer.from_file(str(minilm / "tokenizer.json"))
    assert (tokenizer.truncation, tokenizer.padding) == (None, None)
    assert len(tokenizer.encode("word " * 1000)) == 1002
    assert len(tokenizer.encode("word")) == 3


def test_facts_and_frame(folder: Path, network: Network) -> None:
    _copy(folder, "vocab.txt")
    _write(folder, tokenizer_config={"truncation_side": "left"})
    read = _read(folder, network)
    assert (read.facts.kind, read.facts.truncation_side) == ("BertTokenizer", "left")
    assert read.facts.transformers_version.startswith("5.")
    assert read.frame == Frame((101,), (102,), (102,), cls=0)


def test_the_side_may_be_told_by_tokenizer_json_alone(folder: Path, network: Network) -> None:
    _copy(folder, "tokenizer.json")
    content = json.loads((folder / "tokenizer.json").read_text())
    content["truncation"] = {"direction": "Left", "max_length": 16, "strategy": "LongestFirst", "stride": 0}
    _write(folder, tokenizer=content)
    read = _read(folder, network)
    assert (read.facts.truncation_side, read.tokenizer.truncation) == ("left", None)


def test_lower_case_asked_for_by_sentence_transformers(folder: Path, network: Network) -> None:
    _copy(folder, "vocab.txt")
    _write(folder, tokenizer_config={"do_lower_case": False})
    cased, lowered = (_read(folder, network, lower_case).tokenizer for lower_case in (False, True))
    assert cased.encode("HELLO").tokens == ["[CLS]", "[UNK]", "[SEP]"]
    assert lowered.encode("HELLO [SEP]").tokens == ["[CLS]", "hello", "[SEP]", "[SEP]"]


def _single_types(content: dict[str, Any]) -> None:
    content["post_processor"] = {"type": "BertProcessing", "sep": ["[SEP]", 102], "cls": ["[CLS]", 101]}


def _trimming(content: dict[str, Any]) -> None:
    trim = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    content["post_processor"] = {"type": "Sequence", "processors": [trim, content["post_processor"]]}


@pytest.mark.parametrize("change", [lambda _: None, _single_types, _trimming], ids=["template", "bert", "sequence"])
@pytest.mark.parametrize("why", ["the network", "the tokenizer"])
def test_where_the_model_is_given_no_types_all_are_0(
    folder: Path, network: Network, change: Callable[[dict[str, Any]], object], why: str
) -> None:
    _copy(folder, "tokenizer.json")
    content = json.loads((folder / "tokenizer.json").read_text())
    change(content)
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if why == "the network" else [])]
    _write(folder, tokenizer=content, tokenizer_config=RAW | {"model_input_names": names})
    read = _read(folder, replace(network, type_vocab_size=1) if why == "the network" else network)
    pair = read.tokenizer.encode("first", "second")
    assert set(pair.type_ids) == {0}
    assert pair.tokens == ["[CLS]", "first", "[SEP]", "second", "[SEP]"]
    assert pair.sequence_ids == [None, 0, None, 1, None]
    assert read.tokenizer.encode("").tokens == ["[CLS]", "[SEP]"]


def test_more_types_than_the_network_has_are_refused(folder: Path, network: Network) -> None:
    _copy(folder, "tokenizer.json")
    content = json.loads((folder / "tokenizer.json").read_text())
    content["post_processor"]["pair"][-1]["SpecialToken"]["type_id"] = 2
    _write(folder, tokenizer=content, tokenizer_config=RAW | {"model_input_names": ["input_ids", "token_type_ids"]})
    with pytest.raises(ExportError, match=r"type ids up to 2, but config\.json has type_vocab_size 2"):
        _read(folder, network)


def test_a_smaller_vocabulary_is_worth_a_warning(
    folder: Path, network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    _copy(folder, "vocab.txt")
    _read(folder, replace(network, vocab_size=30528))
    assert "vocab.txt has 30522 tokens, config.json vocab_size 30528" in caplog.text


def _without_frame(content: dict[str, Any]) -> None:
    content["post_processor"] = None


def _with_three_tokens_around(content: dict[str, Any]) -> None:
    content["post_processor"]["single"].insert(1, content["post_processor"]["single"][0])


def _without_second_frame(content: dict[str, Any]) -> None:
    content["post_processor"]["pair"] = content["post_processor"]["pair"][:4]
    content["post_processor"]["pair"].pop(2)


def _without_unknown(content: dict[str, Any]) -> None:
    content["model"]["unk_token"] = "[nothing]"
    content["model"]["vocab"].pop("a")


def _by_chance(content: dict[str, Any]) -> None:
    content["model"] = {"type": "BPE", "dropout": 0.1, "vocab": content["model"]["vocab"], "merges": []}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without_frame, "tokenizer.json: a text has no special tokens around it"),
        (_with_three_tokens_around, "tokenizer.json: a text's special tokens are not a pair's without those between"),
        (_without_second_frame, "tokenizer.json: a text's special tokens are not a pair's without those between"),
        (_without_unknown, "tokenizer.json: cannot tokenize: "),
        (_by_chance, "tokenizer.json: the model's dropout 0.1"),
        (lambda content: content.pop("model"), "reads no tokenizer from it: "),
        (
            lambda content: content["model"]["vocab"].update({"more": 97}),
            "tokenizer.json: ids up to 97, but config.json",
        ),
    ],
)
def test_a_tokenizer_that_does_not_fit_is_refused(
    tiny_copy: Path, tiny_artifact: Path, refused: Callable[..., None], change: Callable[[Any], object], message: str
) -> None:
    content = json.loads((tiny_artifact / "tokenizer.json").read_text())
    change(content)
    _write(tiny_copy, tokenizer=content, tokenizer_config=RAW)
    refused(tiny_copy, message)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (None, "there is neither tokenizer.json nor vocab.txt, which BertTokenizer reads"),
        ("RobertaTokenizer", "there is neither tokenizer.json nor vocab.json and merges.txt, which RobertaTokenizer"),
        ("XLMRobertaTokenizer", "there is neither tokenizer.json nor sentencepiece.bpe.model, which XLMRobertaTokeni"),
    ],
)
def test_a_vocabulary_that_is_not_there_is_refused(
    tiny_copy: Path, refused: Callable[..., None], kind: str | None, message: str
) -> None:
    """Of nothing transformers makes a tokenizer of five tokens."""
    (tiny_copy / "vocab.txt").unlink()
    _write(tiny_copy, tokenizer_config={"tokenizer_class": kind})
    refused(tiny_copy, message)


def test_half_of_a_byte_level_vocabulary_is_refused(tiny_copy: Path, refused: Callable[..., None]) -> None:
    _write(tiny_copy, tokenizer_config={"tokenizer_class": "RobertaTokenizer"}, vocab={"<s>": 0})
    refused(tiny_copy, "reads no tokenizer from it: ValueError: `vocab` and `merges` must be both")


@pytest.mark.parametrize("kind", ["BertJapaneseTokenizer", "ByT5Tokenizer"])
@pytest.mark.parametrize("files", [("config", None), ("config", {}), ("tokenizer_config", None)], ids=str)
def test_a_class_that_is_not_fast_is_refused(
    tiny_copy: Path, refused: Callable[..., None], kind: str, files: tuple[str, dict[str, Any] | None]
) -> None:
    """Many Japanese checkpoints have it in config.json, and their vocabularies look like any other."""
    name, beside = files
    content = json.loads((tiny_copy / "config.json").read_text()) if name == "config" else {}
    _write(tiny_copy, **{name: content | {"tokenizer_class": kind}})
    if beside is not None:
        _write(tiny_copy, tokenizer_config=beside)
    refused(tiny_copy, f"the tokenizer's class {kind} is not a fast one")


def test_tokenizer_config_json_overrules_the_class_of_config_json(tiny_copy: Path) -> None:
    config = json.loads((tiny_copy / "config.json").read_text())
    _write(tiny_copy, config=config | {"tokenizer_class": "BertJapaneseTokenizer"})
    _write(tiny_copy, tokenizer_config={"tokenizer_class": "BertTokenizer"})
    assert _read(tiny_copy, BERT.network(config)).facts.kind == "BertTokenizer"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"tokenizer_class": "OwnTokenizer"}, "knows no class OwnTokenizer, and reads no tokenizer from it"),
        ({"tokenizer_class": 5}, "reads no tokenizer from it"),
        ({"auto_map": {"AutoTokenizer": ["own.OwnTokenizer", None]}}, "tokenizer own.OwnTokenizer is code of the"),
        ({"auto_map": ["own.OwnTokenizer", "own.OwnTokenizerFast"]}, "own.OwnTokenizerFast is code of the"),
        ({"split_special_tokens": True}, "tokenizer_config.json: split_special_tokens True"),
        ({"truncation_side": "up"}, "Truncation side should be selected between 'right' and 'left'"),
        ({"additional_special_tokens": 5}, "extra_special_tokens must be a list"),
        ({"extra_special_tokens": ["[E1]", 5]}, "reads no tokenizer from it: TypeError"),
        ({"added_tokens_decoder": {"6": 5}}, "in the saved `added_tokens_decoder`"),
        ({"added_tokens_decoder": [6]}, "reads no tokenizer from it: AttributeError"),
        ({"unk_token": 7}, "Special token unk_token has to be"),
        ([], "tokenizer_config.json: a JSON object was expected"),
    ],
    ids=str,
)
def test_what_is_not_implemented_or_not_understood_is_refused(
    tiny_copy: Path, refused: Callable[..., None], capfd: pytest.CaptureFixture[str], config: Any, message: str
) -> None:
    _write(tiny_copy, tokenizer_config=config)
    refused(tiny_copy, message)
    assert capfd.readouterr() == ("", "")


def test_what_tokenizer_json_says_of_a_token_stays(folder: Path, network: Network) -> None:
    _copy(folder, "tokenizer.json")
    content = json.loads((folder / "tokenizer.json").read_text())
    flags = {"single_word": True, "lstrip": False, "rstrip": False, "normalized": True, "special": True}
    content["added_tokens"].append({"id": 6, "content": "[unused5]", **flags})
    _write(folder, tokenizer=content, tokenizer_config=RAW)
    tokens = _read(folder, network).tokenizer.encode("a [UNUSED5] b[unused5]").tokens
    assert tokens[:4] == ["[CLS]", "a", "[unused5]", "b"]
    assert tokens.count("[unused5]") == 1, "it is a single word"


@pytest.mark.parametrize(
    "files",
    [
        {"added_tokens": {"[NEW]": 30522}},
        {"tokenizer_config": {"additional_special_tokens": ["[NEW]"]}},
        {"special_tokens_map": {"additional_special_tokens": ["[NEW]"]}},
        {"tokenizer_config": {"added_tokens_decoder": {"30522": {"content": "[NEW]", "special": False}}}},
    ],
    ids=str,
)
def test_a_token_that_was_added_without_a_row_for_it(
    folder: Path, network: Network, caplog: pytest.LogCaptureFixture, files: dict[str, Any]
) -> None:
    _copy(folder, "vocab.txt")
    _write(folder, **files)
    tokenizer = _read(folder, network).tokenizer
    assert "config.json's vocab_size 30522 leaves no row to [NEW]" in caplog.text
    assert tokenizer.encode("a word").tokens == ["[CLS]", "a", "word", "[SEP]"]
    assert 30522 in tokenizer.encode("a [NEW] word").ids


def test_a_frame_without_a_row_is_refused(folder: Path, network: Network) -> None:
    """To a vocabulary without [SEP] transformers adds it."""
    _copy(folder, "vocab.txt")
    vocabulary = (folder / "vocab.txt").read_text()
    (folder / "vocab.txt").write_text(vocabulary.replace("[SEP]", "[END]"))
    with pytest.raises(ExportError, match=r"vocab\.txt: ids up to 30522, but config\.json has vocab_size 30522"):
        _read(folder, network)


@pytest.mark.parametrize("end", ["\n", "\n\n\n", ""], ids=repr)
def test_blank_lines_at_a_vocabularys_end_are_no_words(folder: Path, network: Network, end: str) -> None:
    _copy(folder, "vocab.txt")
    vocabulary = (folder / "vocab.txt").read_text().rstrip("\n")
    (folder / "vocab.txt").write_text(f"{vocabulary}\n{end}")
    assert _read(folder, network).tokenizer.encode("a word").ids == [101, 1037, 2773, 102]


def test_a_vocabulary_without_an_unknown_token_is_refused(tiny_copy: Path, refused: Callable[..., None]) -> None:
    (tiny_copy / "vocab.txt").write_text("[PAD]\n[CLS]\n[SEP]\na\n")
    refused(tiny_copy, "vocab.txt: cannot tokenize: WordPiece error: Missing [UNK] token from the vocabulary")


def test_a_vocabulary_that_is_no_text_is_refused(tiny_copy: Path, refused: Callable[..., None]) -> None:
    (tiny_copy / "vocab.txt").write_bytes(b"[PAD]\n\xff\n")
    refused(tiny_copy, "reads no tokenizer from it: Exception: Error while initializing WordPiece: stream")


@pytest.mark.parametrize("name", ["tokenizer_config", "special_tokens_map", "added_tokens"])
def test_a_file_that_is_no_json_is_named(tiny_copy: Path, refused: Callable[..., None], name: str) -> None:
    (tiny_copy / f"{name}.json").write_text("{")
    refused(tiny_copy, f"{name}.json: not readable as JSON")


def test_a_file_that_no_download_brings_is_not_read(tiny_copy: Path, refused: Callable[..., None]) -> None:
    (tiny_copy / "vocab.txt").unlink()
    (tiny_copy / "tiktoken.model").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    refused(tiny_copy, "tiktoken.model")


@pytest.mark.parametrize("model", [None, {"model_type": "bert", "vocab_size": 30522}], ids=["no config.json", "bert"])
def test_a_family_may_name_the_class(folder: Path, network: Network, model: dict[str, Any] | None) -> None:
    _copy(folder, "vocab.txt")
    (folder / "config.json").unlink()
    if model:
        _write(folder, config=model)
    assert _read(folder, network, kind="DistilBertTokenizer").facts.kind == "DistilBertTokenizer"
    _write(folder, tokenizer_config={"tokenizer_class": "BertTokenizerFast"})
    assert _read(folder, network, kind="DistilBertTokenizer").facts.kind == "BertTokenizer"


@pytest.mark.parametrize("kind", ["NoTokenizer", None])
def test_a_class_that_nobody_knows_is_refused(folder: Path, network: Network, kind: str | None) -> None:
    _copy(folder, "vocab.txt")
    (folder / "config.json").unlink()
    with pytest.raises(ExportError, match="knows no class NoTokenizer" if kind else "nothing names the class"):
        _read(folder, network, kind=kind)


@pytest.mark.parametrize("model_type", ["new", "nezha"])
def test_a_model_that_transformers_does_not_know(folder: Path, network: Network, model_type: str) -> None:
    _copy(folder, "vocab.txt")
    own = {"AutoConfig": "own.Config", "AutoModel": "own.Model"}
    _write(folder, config={"model_type": model_type, "auto_map": own})
    assert _read(folder, network, kind="BertTokenizer").facts.kind == "BertTokenizer"


def test_the_files_that_were_read_are_remembered(folder: Path, network: Network) -> None:
    _copy(folder, "vocab.txt", "tokenizer.json", "special_tokens_map.json", "tokenizer_config.json")
    checkpoint = find_checkpoint(str(folder))
    read_tokenizer(checkpoint, network, False)
    assert checkpoint.read == {"config.json", "tokenizer.json", "special_tokens_map.json", "tokenizer_config.json"}
    (folder / "tokenizer.json").unlink()
    checkpoint = find_checkpoint(str(folder))
    read_tokenizer(checkpoint, network, False)
    assert "vocab.txt" in checkpoint.read


def test_a_tokenizer_for_some_versions_of_transformers(folder: Path, network: Network) -> None:
    _copy(folder, "tokenizer.json")
    content = json.loads((folder / "tokenizer.json").read_text())
    content["normalizer"]["lowercase"] = False
    _write(folder, **{"tokenizer.5.0.0": content})
    listed = {"fast_tokenizer_files": ["tokenizer.json", "tokenizer.5.0.0.json", "tokenizer.99.0.0.json"]}
    _write(folder, tokenizer_config=RAW | listed)
    checkpoint = find_checkpoint(str(folder))
    read = read_tokenizer(checkpoint, network, False)
    assert read.tokenizer.encode("HELLO").tokens == ["[CLS]", "[UNK]", "[SEP]"]
    assert "tokenizer.5.0.0.json" in checkpoint.read
    assert "tokenizer.json" not in checkpoint.read


@pytest.mark.parametrize("what", [0, 1], ids=["ids", "type ids"])
def test_tokens_that_transformers_gives_otherwise_are_refused(
    folder: Path, network: Network, monkeypatch: pytest.MonkeyPatch, what: int
) -> None:
    """As by a class that changes texts or tokens outside of its fast tokenizer."""
    _copy(folder, "vocab.txt")

    def other(inputs: Any, *arguments: Any) -> Any:
        tokens = real(inputs, *arguments)
        for texts, found in zip(arguments[0], tokens, strict=True):
            if "two  spaces" in texts[0]:
                found[what][1] += 1
        return tokens

    real = token_comparison.tokens_of
    monkeypatch.setattr("model_export.tokenizer.tokens_of", other)
    with pytest.raises(ExportError, match=f"other {'type ids' if what else 'tokens'} .*: '  two  spaces before"):
        _read(folder, network)
