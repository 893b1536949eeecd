"""Frames of every kind, read off a tokenizer."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from berth.types import Frame
from model_export.errors import ExportError
from model_export.frame import read_frame

CLS, SEP = 1, 2


@pytest.fixture
def tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({"?": 0, "<cls>": CLS, "<sep>": SEP, "a": 3}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def frame_of(tokenizer: Tokenizer, single: str, pair: str, cls_id: int | None = CLS) -> Frame:
    special = [("<cls>", CLS), ("<sep>", SEP)]
    tokenizer.post_processor = TemplateProcessing(single=single, pair=pair, special_tokens=special)
    return read_frame(tokenizer, cls_id, "tokenizer.json")


@pytest.mark.parametrize(
    ("single", "pair", "frame"),
    [
        ("<cls> $A <sep>", "<cls> $A <sep> $B:1 <sep>:1", Frame((CLS,), (SEP,), (SEP,), 0)),
        ("<cls> $A <sep>", "<cls> $A <sep> <sep> $B <sep>", Frame((CLS,), (SEP, SEP), (SEP,), 0)),
        ("$A <sep>", "$A <sep> $B <sep>", Frame((), (SEP,), (SEP,), None)),
        ("$A:0 <sep>:0 <cls>:2", "$A:0 <sep>:0 $B:1 <sep>:1 <cls>:2", Frame((), (SEP,), (SEP, CLS), -1)),
        ("<cls> $A", "<cls> $A <cls> $B", Frame((CLS,), (CLS,), (), 0)),
        ("<cls> $A", "<cls> $A $B", Frame((CLS,), (), (), 0)),
        ("<sep> <cls> $A <sep>", "<sep> <cls> $A $B <sep>", Frame((SEP, CLS), (), (SEP,), None)),
    ],
    ids=["BERT", "XLM-R", "T5", "XLNet", "one before each", "nothing between", "[CLS] is neither first nor last"],
)
def test_frames(tokenizer: Tokenizer, single: str, pair: str, frame: Frame) -> None:
    assert frame_of(tokenizer, single, pair) == frame


@pytest.mark.parametrize(
    ("single", "pair", "place"),
    [("<cls> $A <sep>", "<cls> $A <sep> $B <sep>", 0), ("$A <sep>", "$A <sep> $B <sep>", None)],
)
def test_where_no_token_is_called_cls_the_first_is(
    tokenizer: Tokenizer, single: str, pair: str, place: int | None
) -> None:
    assert frame_of(tokenizer, single, pair, cls_id=None).cls == place


@pytest.mark.parametrize(
    ("single", "pair", "message"),
    [
        ("$A", "$A <sep> $B", "has no special tokens around it"),
        ("<cls> $A <sep>", "<cls> $A <sep> $B", "are not a pair's without those between"),
        ("<cls> $A <sep>", "<cls> $B <sep> $A <sep>", "are not a pair's without those between"),
    ],
)
def test_what_is_no_frame_is_refused(tokenizer: Tokenizer, single: str, pair: str, message: str) -> None:
    with pytest.raises(ExportError, match=rf"^tokenizer\.json: .*{message}"):
        frame_of(tokenizer, single, pair)


def test_a_tokenizer_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(ExportError, match=r"^tokenizer\.json: the tokenizer leaves nothing of a, 1"):
        read_frame(Tokenizer(models.BPE()), None, "tokenizer.json")
