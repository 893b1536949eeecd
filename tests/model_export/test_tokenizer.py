"""The artifact's tokenizer, from either file, and what is refused."""

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
from model_export.checkpoint import find_checkpoint
from model_export.families.bert import BERT
from model_export.network import Network
from model_export.tokenizer import read_tokenizer


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


def _config(folder: Path, config: dict[str, Any] | None) -> None:
    if config is not None:
        config = {"tokenizer_class": "BertTokenizer"} | config
        (folder / "tokenizer_config.json").write_text(json.dumps(config))


def _read(folder: Path, network: Network, lower_case: bool = False) -> Tokenizer:
    return read_tokenizer(find_checkpoint(str(folder)), network, lower_case).tokenizer


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=200))
def test_both_files_of_the_default_model_give_the_same(minilm: Path, from_vocabulary: Tokenizer, text: str) -> None:
    assert Tokenizer.from_file(str(minilm / "tokenizer.json")).encode(text).ids == from_vocabulary.encode(text).ids


@pytest.fixture(scope="module")
def from_vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("vocabulary")
    _copy(folder, "vocab.txt", "tokenizer_config.json")
    return _read(folder, BERT.network(find_checkpoint(DEFAULT_MODEL).object("config.json")))


def test_truncation_and_padding_are_removed(minilm: Path) -> None:
    tokenizer = Tokenizer.from_file(str(minilm / "tokenizer.json"))
    assert (tokenizer.truncation, tokenizer.padding) == (None, None)
    assert len(tokenizer.encode("word " * 1000)) == 1002
    assert len(tokenizer.encode("word")) == 3


def test_lower_case_asked_for_by_sentence_transformers(folder: Path, network: Network) -> None:
    _copy(folder, "vocab.txt")
    _config(folder, {"do_lower_case": False})
    cased, lowered = _read(folder, network), _read(folder, network, lower_case=True)
    assert cased.encode("HELLO").tokens == ["[CLS]", "[UNK]", "[SEP]"]
    assert lowered.encode("HELLO [SEP]").tokens == ["[CLS]", "hello", "[SEP]", "[SEP]"]


def test_a_network_without_types_gets_none(folder: Path, network: Network) -> None:
    _copy(folder, "tokenizer.json")
    pair = _read(folder, replace(network, type_vocab_size=1)).encode("first", "second")
    assert set(pair.type_ids) == {0}
    assert pair.tokens == ["[CLS]", "first", "[SEP]", "second", "[SEP]"]


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without_frame, "tokenizer.json: a text is not framed by two special tokens"),
        (_with_three_tokens_around, "tokenizer.json: a text is not framed by two special tokens"),
        (_without_second_frame, "tokenizer.json: a pair is not framed by special tokens"),
        (_without_unknown, "tokenizer.json: cannot tokenize: "),
        (lambda content: content.pop("model"), "tokenizer.json: not a readable tokenizer: "),
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
    (tiny_copy / "tokenizer.json").write_text(json.dumps(content))
    refused(tiny_copy, message)


def test_no_tokenizer_at_all_is_refused(tiny_copy: Path, refused: Callable[..., None]) -> None:
    (tiny_copy / "vocab.txt").unlink()
    refused(tiny_copy, "there is neither tokenizer.json nor vocab.txt")


def test_added_tokens_without_tokenizer_json_are_refused(tiny_copy: Path, refused: Callable[..., None]) -> None:
    (tiny_copy / "added_tokens.json").write_text('{"[NEW]": 96}')
    refused(tiny_copy, "added_tokens.json is not read; load and save it with transformers")


def test_a_vocabulary_of_another_tokenizer_is_refused(tiny_copy: Path, refused: Callable[..., None]) -> None:
    (tiny_copy / "tokenizer_config.json").write_text('{"tokenizer_class": "BertJapaneseTokenizer"}')
    refused(tiny_copy, "vocab.txt: a BertJapaneseTokenizer cannot be built from it")


def test_the_tokenizer_class_may_be_in_config_json(tiny_copy: Path, refused: Callable[..., None]) -> None:
    """There many Japanese checkpoints have it, whose vocabularies look like any other."""
    config = json.loads((tiny_copy / "config.json").read_text())
    (tiny_copy / "config.json").write_text(json.dumps(config | {"tokenizer_class": "BertJapaneseTokenizer"}))
    refused(tiny_copy, "vocab.txt: a BertJapaneseTokenizer cannot be built from it")
    (tiny_copy / "tokenizer_config.json").write_text('{"tokenizer_class": null}')
    refused(tiny_copy, "vocab.txt: a BertJapaneseTokenizer cannot be built from it")
    (tiny_copy / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    _read(tiny_copy, BERT.network(find_checkpoint(str(tiny_copy)).object("config.json")))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"truncation_side": "left"}, "the tokenizer's truncation_side 'left' is not implemented"),
        ({"additional_special_tokens": 5}, "the special tokens are not a list of tokens"),
        ({"extra_special_tokens": ["[E1]", 5]}, "the special tokens are not a list of tokens"),
        ({"added_tokens_decoder": {"6": 5}}, "the special tokens are not a list of tokens"),
        ({"added_tokens_decoder": [6]}, "the special tokens are not a list of tokens"),
    ],
    ids=str,
)
def test_what_would_change_the_tokens_and_is_not_implemented_is_refused(
    tiny_copy: Path, refused: Callable[..., None], config: dict[str, Any], message: str
) -> None:
    _config(tiny_copy, config)
    refused(tiny_copy, message)


def test_what_tokenizer_json_says_of_a_token_stays(folder: Path, network: Network) -> None:
    _copy(folder, "tokenizer.json")
    content = json.loads((folder / "tokenizer.json").read_text())
    flags = {"single_word": True, "lstrip": False, "rstrip": False, "normalized": True, "special": True}
    content["added_tokens"].append({"id": 6, "content": "[unused5]", **flags})
    (folder / "tokenizer.json").write_text(json.dumps(content))
    _config(folder, {"additional_special_tokens": ["[unused5]"]})
    tokens = _read(folder, network).encode("a [UNUSED5] b[unused5]").tokens
    assert tokens[:4] == ["[CLS]", "a", "[unused5]", "b"]
    assert tokens.count("[unused5]") == 1, "it is a single word"


def test_a_left_side_that_tokenizer_json_alone_tells_is_refused(
    tiny_copy: Path, tiny_artifact: Path, refused: Callable[..., None]
) -> None:
    content = json.loads((tiny_artifact / "tokenizer.json").read_text())
    content["truncation"] = {"direction": "Left", "max_length": 16, "strategy": "LongestFirst", "stride": 0}
    (tiny_copy / "tokenizer.json").write_text(json.dumps(content))
    refused(tiny_copy, "truncation_side 'left' is not implemented")


def test_a_special_token_beyond_the_network_is_refused(tiny_copy: Path, refused: Callable[..., None]) -> None:
    _config(tiny_copy, {"additional_special_tokens": [f"[E{number}]" for number in range(97)]})
    refused(tiny_copy, "but config.json has vocab_size 97")


def test_blank_lines_at_a_vocabularys_end_are_no_tokens(folder: Path, network: Network) -> None:
    _copy(folder, "vocab.txt")
    with (folder / "vocab.txt").open("a") as file:
        file.write("\n\n")
    assert _read(folder, network).get_vocab_size() == network.vocab_size


def test_a_vocabulary_without_special_tokens_is_refused(tiny_copy: Path, refused: Callable[..., None]) -> None:
    (tiny_copy / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\na\n")
    refused(tiny_copy, "vocab.txt: the sep_token [SEP] is not in it")


def test_a_vocabulary_that_is_no_text_is_refused(tiny_copy: Path, refused: Callable[..., None]) -> None:
    (tiny_copy / "vocab.txt").write_bytes(b"[PAD]\n\xff\n")
    refused(tiny_copy, "vocab.txt: 'utf-8' codec can't decode byte 0xff")
