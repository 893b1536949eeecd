"""Tokenizers of every kind and with every frame, small and made by hand."""

import string
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from berth.text.tokenizer import Tokenizer
from berth.types import Frame
from tests.conftest import VOCABULARY

KINDS = ("bert", "xlm-roberta", "roberta", "t5", "xlnet")

MakeTokenizer = Callable[..., Tokenizer]


@dataclass(frozen=True, slots=True)
class Kind:
    """A tokenizer of the library's, the frame it puts around a text and the special tokens that transformers names."""

    library: tokenizers.Tokenizer = field(repr=False)
    frame: Frame
    special: dict[str, str]


@pytest.fixture(scope="session", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Give a tokenizer of each kind."""
    return kind_of(request.param)


@pytest.fixture(scope="session")
def make_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> MakeTokenizer:
    """Give a function that makes Berth's tokenizer of a kind."""

    def make(kind: Kind, *, max_tokens: int, frame: Frame | None = None) -> Tokenizer:
        path = tmp_path_factory.mktemp("kind") / "tokenizer.json"
        kind.library.save(str(path))
        size = kind.library.get_vocab_size()
        return Tokenizer(path, max_tokens=max_tokens, vocab_size=size, frame=frame or kind.frame)

    return make


def kind_of(name: str) -> Kind:
    """Make a tokenizer of a kind."""
    match name:
        case "bert":
            return _bert()
        case "xlm-roberta":
            split = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
            library = _unigram(["<s>", "<pad>", "</s>", "<unk>"], split, unknown=3)
            return _framed(library, Frame((0,), (2, 2), (2,), 0), "<s> $A </s>", "<s> $A </s> </s> $B </s>")
        case "roberta":
            return _roberta()
        case "t5":
            library = _unigram(["<pad>", "</s>", "<unk>"], pre_tokenizers.Metaspace(), unknown=2)
            return _framed(library, Frame((), (1,), (1,), None), "$A </s>", "$A </s> $B </s>")
        case "types" | "nothing":  # T5's, with nothing between the texts of a pair, which types may tell apart
            library = _unigram(["<pad>", "</s>", "<unk>"], pre_tokenizers.Metaspace(), unknown=2)
            pair = "$A:0 $B:1 </s>:1" if name == "types" else "$A $B </s>"
            return _framed(library, Frame((), (), (1,), None), "$A </s>", pair)
        case "xlnet":
            library = _unigram(["<unk>", "<pad>", "<cls>", "<sep>"], pre_tokenizers.Metaspace(), unknown=0)
            pair = "$A:0 <sep>:0 $B:1 <sep>:1 <cls>:2"
            return _framed(library, Frame((), (3,), (3, 2), -1), "$A:0 <sep>:0 <cls>:2", pair)
    raise AssertionError(name)


def _bert() -> Kind:
    library = tokenizers.Tokenizer(
        models.WordPiece({token: id_ for id_, token in enumerate(VOCABULARY)}, unk_token="[UNK]")
    )
    library.normalizer = normalizers.BertNormalizer()
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.add_special_tokens(VOCABULARY[:5])
    pair = "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1"
    return _framed(library, Frame((2,), (3,), (3,), 0), "[CLS] $A [SEP]", pair)


def _roberta() -> Kind:
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokens = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet()), "he", "ll", "hell", "hello", "Ġs", "Ġsh"]
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "s"), ("Ġs", "h")]
    library = tokenizers.Tokenizer(models.BPE({token: id_ for id_, token in enumerate(tokens)}, merges))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    library.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    library.add_special_tokens(special)
    return Kind(library, Frame((0,), (2, 2), (2,), 0), {"pad_token": "<pad>", "sep_token": "</s>", "cls_token": "<s>"})


def _unigram(special: list[str], split: pre_tokenizers.PreTokenizer, *, unknown: int) -> tokenizers.Tokenizer:
    words = ["▁hello", "▁world", "▁ship", "▁sh", "ing", "er", "▁the"]
    scores = [(token, 0.0) for token in special] + [(word, -3.0) for word in words]
    scores += [(character, -9.0) for character in f"▁{string.ascii_lowercase}{string.digits}.,:!"]
    library = tokenizers.Tokenizer(models.Unigram(scores, unknown))
    library.normalizer = normalizers.NFKC()
    library.pre_tokenizer = split
    library.decoder = decoders.Metaspace()
    library.add_special_tokens(special)
    return library


def _framed(library: tokenizers.Tokenizer, frame: Frame, single: str, pair: str) -> Kind:
    names = {token: library.token_to_id(token) for token in pair.replace(":", " ").split() if token[0] in "<["}
    library.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=[*names.items()])
    roles = {"<pad>": "pad_token", "[PAD]": "pad_token", "<unk>": "unk_token", "[UNK]": "unk_token"}
    known = {role: token for token, role in roles.items() if library.token_to_id(token) is not None}
    return Kind(library, frame, known)
