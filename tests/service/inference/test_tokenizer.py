"""Texts in, framed encodings out."""

from pathlib import Path

import pytest

from service.errors import ArtifactError, InvalidInputError
from service.inference.tokenizer import Tokenizer, Truncate
from service.inference.types import Text, TokenIds

CLS, SEP = 101, 102
LONG = " ".join(str(number) for number in range(600))


def ids_of(tokenizer: Tokenizer, value: str | TokenIds, truncate: Truncate = "end") -> list[int]:
    [tokenized] = tokenizer.encode([Text("input[0]", value)], truncate)
    return [int(id_) for id_ in tokenized.encoding.ids]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("hello world", [7592, 2088]),
        ("Hello, World!", [7592, 1010, 2088, 999]),
        ("embeddings", [7861, 8270, 4667, 2015]),
        ("日本", [1864, 1876]),
        (" ", []),
        ("\0\x07", []),
        ("\u200f\u202e", []),
        ("[SEP] [MASK]", [102, 103]),
        ("\U0001f600", [100]),
        ("caf\u00e9", [7668]),
        ("cafe\u0301", [7668]),
    ],
)
def test_ids_are_berts(tokenizer: Tokenizer, text: str, ids: list[int]) -> None:
    assert ids_of(tokenizer, text) == [CLS, *ids, SEP]


def test_order_is_kept_when_texts_and_ids_are_mixed(tokenizer: Tokenizer) -> None:
    texts = [Text("input[0]", "hello"), Text("input[1]", TokenIds([CLS, 5, SEP])), Text("input[2]", "world")]
    tokenized = tokenizer.encode(texts, "end")
    assert [item.encoding.ids.tolist() for item in tokenized] == [[CLS, 7592, SEP], [CLS, 5, SEP], [CLS, 2088, SEP]]
    assert [item.encoding.type_ids.tolist() for item in tokenized] == [[0, 0, 0]] * 3
    assert not any(item.truncated for item in tokenized)


def test_neighbours_do_not_pad_each_other(tokenizer: Tokenizer) -> None:
    [short, long] = tokenizer.encode([Text("a", "hello"), Text("b", "hello " * 50)], "end")
    assert (len(short.encoding), len(long.encoding)) == (3, 52)


@pytest.mark.parametrize(
    ("truncate", "place"), [("end", slice(None, 255)), ("start", slice(-255, None))], ids=["end", "start"]
)
@pytest.mark.parametrize("as_ids", [False, True], ids=["text", "ids"])
def test_long_text_is_cut_within_its_frame(
    tokenizer: Tokenizer, truncate: Truncate, place: slice, as_ids: bool
) -> None:
    whole = [token.id for token in tokenizer.tokens(Text("", LONG), add_special_tokens=True)]
    assert len(whole) > 256
    [cut] = tokenizer.encode([Text("input", TokenIds(whole) if as_ids else LONG)], truncate)
    expected = [*whole[:255], SEP] if truncate == "end" else [CLS, *whole[-255:]]
    assert cut.encoding.ids.tolist() == expected
    assert cut.truncated


def test_text_of_just_the_maximum_is_not_cut(tokenizer: Tokenizer) -> None:
    [fits] = tokenizer.encode([Text("input", "hello " * 254)], "error")
    assert (len(fits.encoding), fits.truncated) == (256, False)


def test_long_text_can_be_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidInputError, match="257 tokens, the model takes 256") as error:
        tokenizer.encode([Text("input[0]", "fits"), Text("input[1]", "hello " * 255)], "error")
    assert error.value.param == "input[1]"


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([CLS, -1, SEP], "from 0 to 30521"),
        ([CLS, 30522, SEP], "from 0 to 30521"),
        ([7592, 2088], "framed"),
        ([CLS, 7592], "framed"),
        ([7592, SEP], "framed"),
        ([CLS], "framed"),
        ([SEP, CLS], "framed"),
    ],
    ids=str,
)
def test_foreign_ids_are_refused_by_name(tokenizer: Tokenizer, ids: list[int], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as error:
        ids_of(tokenizer, TokenIds(ids))
    assert error.value.param == "input[0]"


def test_the_least_frame_is_enough(tokenizer: Tokenizer) -> None:
    assert ids_of(tokenizer, TokenIds([CLS, SEP])) == [CLS, SEP]


def test_table_tells_each_tokens_place_in_code_points(tokenizer: Tokenizer) -> None:
    text = "\U0001f44d\U0001f3fd caf\u00e9 日本 embedding"
    table = tokenizer.tokens(Text("inputs", text), add_special_tokens=True)
    assert [(token.text, text[token.start : token.end], token.word, token.special) for token in table] == [
        ("[CLS]", "", None, True),
        ("[UNK]", "\U0001f44d\U0001f3fd", 0, False),
        ("cafe", "caf\u00e9", 1, False),
        ("日", "日", 2, False),
        ("本", "本", 3, False),
        ("em", "em", 4, False),
        ("##bed", "bed", 4, False),
        ("##ding", "ding", 4, False),
        ("[SEP]", "", None, True),
    ]


def test_table_without_special_tokens_has_none(tokenizer: Tokenizer) -> None:
    table = tokenizer.tokens(Text("inputs", "hello world"), add_special_tokens=False)
    assert [(token.id, token.special) for token in table] == [(7592, False), (2088, False)]


@pytest.mark.parametrize(("skip", "text"), [(True, "hello world"), (False, "[CLS] hello world [SEP]")])
def test_ids_become_text_again(tokenizer: Tokenizer, skip: bool, text: str) -> None:
    assert tokenizer.decode("ids[0]", [CLS, 7592, 2088, SEP], skip_special_tokens=skip) == text


@pytest.mark.parametrize("ids", [[-1], [30522], [1 << 40]], ids=str)
def test_unknown_ids_become_no_text(tokenizer: Tokenizer, ids: list[int]) -> None:
    with pytest.raises(InvalidInputError, match="from 0 to 30521") as error:
        tokenizer.decode("ids[2]", ids, skip_special_tokens=True)
    assert error.value.param == "ids[2]"


@pytest.mark.parametrize(
    "content", ["", "{}", "not json", '{"version": "1.0", "model": {"type": "Unknown"}}', None], ids=str
)
def test_file_that_is_no_tokenizer_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ArtifactError, match=r"tokenizer\.json"):
        Tokenizer(path, max_tokens=10, vocab_size=10)


def test_tokenizer_that_frames_nothing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text('{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}')
    with pytest.raises(ArtifactError, match=r"tokenizer\.json"):
        Tokenizer(path, max_tokens=10, vocab_size=10)
