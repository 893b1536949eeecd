"""The artifact's tokenizer against transformers', of every kind and from any of its files."""

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tokenizers
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

from berth.models import DEFAULT_MODEL
from berth.types import Frame
from model_export.checkpoint import find_checkpoint
from model_export.families.bert import BERT
from model_export.network import Network
from model_export.tokenizer import ReadTokenizer, read_tokenizer
from tests.conftest import BERT_CONFIG, TINY, VOCABULARY

TEXTS = [
    "Hello, World! naïve Café Éé",
    "自然语言 処理 한국어 🙂👩\u200d👩\u200d👧",
    "tabs\tand\u2028lines\nand\x00controls\x07",
    "[SEP] [MASK] [CLS] <s> </s> <mask> <pad><unk>",
    "a [unused5] b[unused5]c [UNUSED5] [unused6]",
    "supercalifragilisticexpialidocious" * 5,
    "  two  spaces\u00a0and more ",
    "",
]
CONFIGS: list[dict[str, Any] | None] = [
    None,
    {},
    {"do_lower_case": True},
    {"do_lower_case": False},
    {"do_lower_case": False, "strip_accents": True},
    {"strip_accents": False},
    {"tokenize_chinese_chars": False},
    {"additional_special_tokens": ["[unused5]", "[unused6]"]},
    {"extra_special_tokens": ["[unused5]"]},
    {"extra_special_tokens": {"image_token": "[unused6]"}},
    {"additional_special_tokens": [{"content": "[unused5]", "lstrip": True, "rstrip": True, "__type": "AddedToken"}]},
    {"additional_special_tokens": ["[unused5]"], "extra_special_tokens": ["[unused6]"]},
    {"additional_special_tokens": ["[unused5]"], "extra_special_tokens": {"image_token": "[unused6]"}},
    {"added_tokens_decoder": {"6": {"content": "[unused5]", "special": True, "normalized": False}}},
    {"eos_token": "[unused5]"},
    {"tokenizer_class": None, "truncation_side": "right"},
    {"tokenizer_class": "MPNetTokenizer", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    | {"bos_token": "[CLS]", "eos_token": "[SEP]", "pad_token": "[PAD]", "mask_token": "[MASK]"},
    {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": True, "add_eos_token": True},
    {"cls_token": {"content": "[unused1]", "__type": "AddedToken"}, "sep_token": "[unused2]"},
]


@pytest.mark.parametrize("config", [config for config in CONFIGS if "PreTrained" not in str(config)], ids=str)
def test_from_a_vocabulary(tmp_path: Path, config: dict[str, Any] | None) -> None:
    _agrees_for_minilm(tmp_path, config, "vocab.txt")


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_from_tokenizer_json(tmp_path: Path, config: dict[str, Any] | None) -> None:
    _agrees_for_minilm(tmp_path, config, "tokenizer.json", "vocab.txt")


def _agrees_for_minilm(folder: Path, config: dict[str, Any] | None, *files: str) -> None:
    for name in ("config.json", *files):
        shutil.copy(find_checkpoint(DEFAULT_MODEL).folder / name, folder)
    if config is not None:
        config = {"tokenizer_class": "BertTokenizer"} | config
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    network = BERT.network(json.loads((folder / "config.json").read_text()))
    _agree(_read(folder, network), AutoTokenizer.from_pretrained(folder), network)


def _read(folder: Path, network: Network, lower_case: bool = False) -> ReadTokenizer:
    return read_tokenizer(find_checkpoint(str(folder)), network, lower_case)


def _agree(read: ReadTokenizer, theirs: Any, network: Network) -> None:
    """Compare ids and type ids of texts and pairs, as saved and loaded again, and ids with the frame."""
    ours = Tokenizer.from_str(read.tokenizer.to_str())
    typed = "token_type_ids" in theirs.model_input_names and network.type_vocab_size > 1
    frame = read.frame
    for first in TEXTS:
        found, expected = ours.encode(first), theirs(first)
        assert found.ids == expected["input_ids"], first
        inside = theirs(first, add_special_tokens=False)["input_ids"]
        assert found.ids == [*frame.before, *inside, *frame.after]
        for second in TEXTS:
            found, expected = ours.encode(first, second), theirs([first], [second])
            assert found.ids == expected["input_ids"][0], (first, second)
            types = expected["token_type_ids"][0] if typed else [0] * len(found.ids)
            assert found.type_ids == types, (first, second)
            rest = theirs(second, add_special_tokens=False)["input_ids"]
            assert found.ids == [*frame.before, *inside, *frame.between, *rest, *frame.after]


# Tokenizers of every kind, trained on these lines; their vocabularies have less than 400 tokens.

CORPUS = [
    "The quick brown fox jumps over the lazy dog, and 123 others do so, too.",
    "A berth is a place where a ship ties up: vectors of text, 384 numbers at a time!",
    "Déjà vu, naïve façades, crème brûlée für Mädchen",
    "自然语言处理 と 日本語 و اللغة и русский язык 🙂",
    "hello world, low lower lowest, new newer newest, wide wider widest",
] * 4
BERTS = {role: f"[{role[:-6].upper()}]" for role in ("cls_token", "sep_token", "pad_token", "unk_token", "mask_token")}


def unigram(folder: Path) -> None:
    """As intfloat/multilingual-e5-small: a BERT whose tokenizer is XLM-R's."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator(CORPUS, trainer)
    vocabulary = [tuple(piece) for piece in json.loads(tokenizer.to_str())["model"]["vocab"]]
    transformers.XLMRobertaTokenizerFast(vocab=[*vocabulary, ("<mask>", 0.0)]).save_pretrained(folder)


def byte_level(folder: Path, kind: Any = transformers.RobertaTokenizerFast, **options: Any) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=350, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(CORPUS, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    kind(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]], **options).save_pretrained(folder)


def byte_level_files(folder: Path) -> None:
    """As roberta-base has them: vocab.json and merges.txt alone."""
    byte_level(folder)
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, model["merges"])]))
    (folder / "tokenizer.json").unlink()


def modern(folder: Path) -> None:
    """As ModernBERT: byte-level BPE with BERT's frame, NFC, and tokens of blanks."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=350, special_tokens=[*BERTS.values()], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens([tokenizers.AddedToken(" " * count, normalized=False) for count in (2, 3)])
    special = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=special
    )
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    names = ["input_ids", "attention_mask"]
    saved = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=names, **BERTS)
    saved.save_pretrained(folder)


def word_piece(folder: Path) -> None:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.WordPieceTrainer(vocab_size=300, special_tokens=[*BERTS.values()], continuing_subword_prefix="##"),
    )
    words = sorted(tokenizer.get_vocab().items(), key=lambda word: word[1])
    (folder / "vocab.txt").write_text("\n".join(word for word, _ in words) + "\n")
    (folder / "added_tokens.json").write_text(json.dumps({"[NEW]": len(words)}))
    (folder / "special_tokens_map.json").write_text(json.dumps({"additional_special_tokens": ["[NEW]"]}))


def bare_vocabulary(folder: Path) -> None:
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n\n")


def from_sentencepiece(name: str, kind: str, **options: Any) -> Callable[[Path], None]:
    """Give a function that writes the file of a SentencePiece model, and the class that reads it."""

    def write(folder: Path) -> None:
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS),
            model_writer=model,
            vocab_size=200,
            hard_vocab_limit=False,
            minloglevel=3,
            **options,
        )
        (folder / name).write_bytes(model.getvalue())
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))

    return write


ALBERT = {"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1, "control_symbols": ["[CLS]", "[SEP]", "[MASK]"]}
KINDS: dict[str, tuple[Callable[[Path], None], dict[str, Any]]] = {
    "WordPiece, a token added": (word_piece, {"type_vocab_size": 2}),
    "WordPiece, a blank last line": (bare_vocabulary, {"type_vocab_size": 2}),
    "Unigram in a BERT": (unigram, {"type_vocab_size": 2}),
    "Unigram in an XLM-R": (unigram, {"type_vocab_size": 1, "model_type": "xlm-roberta"}),
    "byte-level BPE": (byte_level, {"type_vocab_size": 1, "model_type": "roberta"}),
    "byte-level BPE, a blank before": (
        lambda folder: byte_level(folder, add_prefix_space=True, trim_offsets=False),
        {"type_vocab_size": 1, "model_type": "roberta"},
    ),
    "byte-level BPE in two files": (byte_level_files, {"type_vocab_size": 1, "model_type": "roberta"}),
    "byte-level BPE, BERT's frame": (modern, {"type_vocab_size": 1, "model_type": "modernbert"}),
    "sentencepiece.bpe.model of XLM-R": (
        from_sentencepiece("sentencepiece.bpe.model", "XLMRobertaTokenizer"),
        {"type_vocab_size": 2},
    ),
    "sentencepiece.bpe.model of CamemBERT": (
        from_sentencepiece("sentencepiece.bpe.model", "CamembertTokenizer"),
        {"type_vocab_size": 1, "model_type": "camembert"},
    ),
    "spiece.model of ALBERT": (
        from_sentencepiece("spiece.model", "AlbertTokenizer", **ALBERT),
        {"type_vocab_size": 2, "model_type": "albert"},
    ),
    "spiece.model of XLNet": (from_sentencepiece("spiece.model", "XLNetTokenizer"), {"type_vocab_size": 3}),
    "spiece.model of T5": (
        from_sentencepiece("spiece.model", "T5Tokenizer", pad_id=0, eos_id=1, unk_id=2, bos_id=-1),
        {"type_vocab_size": 1, "model_type": "t5"},
    ),
    "spm.model of DeBERTa": (from_sentencepiece("spm.model", "DebertaV2Tokenizer"), {"type_vocab_size": 2}),
}


@pytest.fixture(scope="module", params=KINDS, ids=str)
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Network]:
    """Give a folder with a tokenizer, and the network that it feeds."""
    folder = tmp_path_factory.mktemp("kind")
    return folder, _write(folder, request.param)


def _write(folder: Path, name: str) -> Network:
    write, config = KINDS[name]
    write(folder)
    whole = BERT_CONFIG | TINY | {"vocab_size": 400, "classifier_dropout": 0.1} | config
    (folder / "config.json").write_text(json.dumps(whole))
    return BERT.network(whole)


def test_of_every_kind(kind: tuple[Path, Network]) -> None:
    folder, network = kind
    _agree(_read(folder, network), AutoTokenizer.from_pretrained(folder), network)


def test_any_text(kind: tuple[Path, Network]) -> None:
    folder, network = kind
    ours, theirs = _read(folder, network).tokenizer, AutoTokenizer.from_pretrained(folder)

    @settings(max_examples=60, deadline=None, database=None)
    @given(first=st.text(max_size=80), second=st.text(max_size=40))
    def agree(first: str, second: str) -> None:
        assert ours.encode(first).ids == theirs(first)["input_ids"]
        assert ours.encode(first, second).ids == theirs([first], [second])["input_ids"][0]

    agree()


def test_without_types_pairs_have_the_same_ids(kind: tuple[Path, Network]) -> None:
    folder, network = kind
    network = replace(network, type_vocab_size=1)
    _agree(_read(folder, network), AutoTokenizer.from_pretrained(folder), network)


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("WordPiece, a blank last line", Frame((2,), (3,), (3,), 0)),
        ("Unigram in a BERT", Frame((0,), (2, 2), (2,), 0)),
        ("byte-level BPE", Frame((0,), (2, 2), (2,), 0)),
        ("byte-level BPE, BERT's frame", Frame((0,), (1,), (1,), 0)),
        ("spiece.model of T5", Frame((), (1,), (1,), None)),
    ],
)
def test_frames(tmp_path: Path, name: str, frame: Frame) -> None:
    assert _read(tmp_path, _write(tmp_path, name)).frame == frame


def test_cls_is_last_in_xlnet(tmp_path: Path) -> None:
    frame = _read(tmp_path, _write(tmp_path, "spiece.model of XLNet")).frame
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert (frame.before, frame.after, frame.cls) == ((), (theirs.sep_token_id, theirs.cls_token_id), -1)
