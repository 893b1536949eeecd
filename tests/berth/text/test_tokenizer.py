"""Texts in, framed encodings out."""

from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from berth.artifact import Artifact
from berth.errors import ArtifactError, InvalidInputError
from berth.model import open_tokenizer
from berth.text.tokenizer import Token, Tokenized, Tokenizer
from berth.text.truncation import Cut, Truncation
from berth.types import Frame, SplitText, Text, TextPair, TokenIds

CLS, SEP = 101, 102
FRAME = Frame((CLS,), (SEP,), (SEP,))
LONG = " ".join(str(number) for number in range(600))


Value = str | TextPair | SplitText | TokenIds


@pytest.fixture(scope="module")
def short(artifact: Artifact) -> Tokenizer:
    """Give the default model's tokenizer with room for ten tokens of a text, or nine of a pair."""
    return Tokenizer(artifact.tokenizer, max_tokens=12, vocab_size=30522, frame=FRAME)


def encode(tokenizer: Tokenizer, *values: Value, cut: Cut = Cut.END, **options: bool) -> list[Tokenized]:
    """Encode inputs of which none is bad."""
    texts = [Text(f"input[{index}]", value) for index, value in enumerate(values)]
    good = []
    for tokenized in tokenizer.encode(texts, Truncation(cut), **options):
        assert isinstance(tokenized, Tokenized), tokenized
        good.append(tokenized)
    return good


def ids_of(tokenizer: Tokenizer, value: str | TokenIds) -> list[int]:
    [tokenized] = encode(tokenizer, value)
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
    tokenized = encode(tokenizer, "hello", TokenIds([CLS, 5, SEP]), "world")
    assert [item.encoding.ids.tolist() for item in tokenized] == [[CLS, 7592, SEP], [CLS, 5, SEP], [CLS, 2088, SEP]]
    assert [item.encoding.type_ids.tolist() for item in tokenized] == [[0, 0, 0]] * 3
    assert not any(item.truncated for item in tokenized)


def test_neighbours_do_not_pad_each_other(tokenizer: Tokenizer) -> None:
    [short, long] = encode(tokenizer, "hello", "hello " * 50)
    assert (len(short.encoding), len(long.encoding)) == (3, 52)


@pytest.mark.parametrize(
    ("cut", "kept"),
    [
        (Cut.END, lambda whole: [*whole[:255], SEP]),
        (Cut.START, lambda whole: [CLS, *whole[-255:]]),
        (Cut.MIDDLE, lambda whole: [*whole[:65], *whole[-191:]]),  # a quarter of the room of 254, rounded up
    ],
    ids=str,
)
@pytest.mark.parametrize("as_ids", [False, True], ids=["text", "ids"])
def test_long_text_is_cut_within_its_frame(
    tokenizer: Tokenizer, cut: Cut, kept: Callable[[list[int]], list[int]], as_ids: bool
) -> None:
    whole = [token.id for token in tokenizer.tokens(Text("", LONG), add_special_tokens=True)]
    assert len(whole) > 256
    [tokenized] = encode(tokenizer, TokenIds(whole) if as_ids else LONG, cut=cut)
    assert tokenized.encoding.ids.tolist() == kept(whole)
    assert tokenized.truncated


def test_text_of_just_the_maximum_is_not_cut(tokenizer: Tokenizer) -> None:
    [fits] = encode(tokenizer, "hello " * 254, cut=Cut.ERROR)
    assert (len(fits.encoding), fits.truncated) == (256, False)


def test_long_text_can_be_refused(tokenizer: Tokenizer) -> None:
    texts = [Text("input[0]", "fits"), Text("input[1]", "hello " * 255)]
    [fits, error] = tokenizer.encode(texts, Truncation(Cut.ERROR))
    assert isinstance(fits, Tokenized)
    assert isinstance(error, InvalidInputError)
    assert (error.param, str(error)) == ("input[1]", "input[1]: 257 tokens, the model takes 256")


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
    [error] = tokenizer.encode([Text("input[0]", TokenIds(ids))], Truncation())
    assert isinstance(error, InvalidInputError)
    assert error.param == "input[0]"
    assert message in str(error)


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
        Tokenizer(path, max_tokens=10, vocab_size=10, frame=FRAME)


def test_tokenizer_that_frames_nothing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text('{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}')
    with pytest.raises(ArtifactError, match=r"tokenizer\.json"):
        Tokenizer(path, max_tokens=10, vocab_size=10, frame=FRAME)


def table_of(tokenizer: Tokenizer, value: Value, cut: Cut = Cut.END) -> list[Token]:
    [tokenized] = encode(tokenizer, value, cut=cut, table=True)
    assert tokenized.table is not None
    assert len(tokenized.table) == len(tokenized.encoding)
    return tokenized.table


def error_of(tokenizer: Tokenizer, value: Value, cut: Cut = Cut.END, *, detailed: bool = False) -> str:
    [error] = tokenizer.encode([Text("input[0]", value)], Truncation(cut), detailed=detailed)
    assert isinstance(error, InvalidInputError)
    return str(error)


def test_pair_has_two_segments(tokenizer: Tokenizer) -> None:
    [pair] = encode(tokenizer, TextPair("hello world", "hello"), detailed=True)
    assert pair.encoding.ids.tolist() == [CLS, 7592, 2088, SEP, 7592, SEP]
    assert pair.encoding.type_ids.tolist() == [0, 0, 0, 0, 1, 1]
    assert pair.encoding.special is not None
    assert pair.encoding.words is not None
    assert pair.encoding.special.tolist() == [True, False, False, True, False, True]
    assert pair.encoding.words.tolist() == [-1, 0, 1, -1, 2, -1]


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (TextPair("", "hello"), [-1, -1, 0, -1]),
        (TextPair("hello", ""), [-1, 0, -1, -1]),
        (TextPair("embeddings", "embeddings"), [-1, 0, 0, 0, 0, -1, 1, 1, 1, 1, -1]),
    ],
    ids=str,
)
def test_words_of_a_pair_are_counted_through(tokenizer: Tokenizer, pair: TextPair, words: list[int]) -> None:
    [tokenized] = encode(tokenizer, pair, detailed=True)
    assert tokenized.encoding.words is not None
    assert tokenized.encoding.words.tolist() == words


@pytest.mark.parametrize("cut", [Cut.MIDDLE, Cut.WINDOW])
def test_pair_is_cut_at_end_or_start_alone(short: Tokenizer, cut: Cut) -> None:
    fits, long = TextPair("a b c", "d e f g h i"), TextPair("a b c d", "e f g h i j")
    assert len(encode(short, fits, cut=cut)[0].encoding) == 12
    assert error_of(short, long, cut) == "input[0]: 13 tokens: a pair can be cut at `end` or `start` alone"


def test_long_pair_can_be_refused(short: Tokenizer) -> None:
    assert error_of(short, TextPair("a " * 9, "b"), Cut.ERROR) == "input[0]: 13 tokens, the model takes 12"


@pytest.mark.parametrize(
    ("words", "ids", "places"),
    [
        (["hello", "world"], [7592, 2088], [0, 1]),
        (["hello world", "hello"], [7592, 2088, 7592], [0, 0, 1]),
        (["embeddings", "!"], [7861, 8270, 4667, 2015, 999], [0, 0, 0, 0, 1]),
        (["don't"], [2123, 1005, 1056], [0, 0, 0]),
    ],
    ids=str,
)
def test_words_that_were_split_stay_words(
    tokenizer: Tokenizer, words: list[str], ids: list[int], places: list[int]
) -> None:
    [tokenized] = encode(tokenizer, SplitText(words), detailed=True)
    assert tokenized.encoding.words is not None
    assert tokenized.encoding.ids.tolist() == [CLS, *ids, SEP]
    assert tokenized.encoding.words.tolist() == [-1, *places, -1]


@pytest.mark.parametrize(("words", "place"), [(["a", ""], 1), ([" ", "a"], 0), (["a", "b", "\u200b"], 2)], ids=str)
def test_word_of_which_nothing_is_left_is_named(tokenizer: Tokenizer, words: list[str], place: int) -> None:
    message = error_of(tokenizer, SplitText(words), detailed=True)
    assert message == f"input[0].tokens[{place}]: the tokenizer leaves nothing of this word"
    assert encode(tokenizer, SplitText(words))  # where nobody asks for words, none is missing


def test_word_beyond_the_maximum_is_cut_off_and_not_missing(short: Tokenizer) -> None:
    [tokenized] = encode(short, SplitText(["hello"] * 20), detailed=True)
    assert tokenized.encoding.words is not None
    assert tokenized.encoding.words.tolist() == [-1, *range(10), -1]


def test_kinds_of_input_can_be_mixed(tokenizer: Tokenizer) -> None:
    values: list[Value] = [SplitText(["hello"]), "world", TokenIds([CLS, 5, SEP]), TextPair("hello", "world")]
    assert [tokenized.encoding.ids.tolist() for tokenized in encode(tokenizer, *values)] == [
        [CLS, 7592, SEP],
        [CLS, 2088, SEP],
        [CLS, 5, SEP],
        [CLS, 7592, SEP, 2088, SEP],
    ]


@pytest.mark.parametrize(
    ("cut", "texts"),
    [
        (Cut.END, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]),
        (Cut.START, ["10", "11", "12", "13", "14", "15", "16", "17", "18", "19"]),
        (Cut.MIDDLE, ["0", "1", "2", "13", "14", "15", "16", "17", "18", "19"]),
    ],
    ids=str,
)
def test_table_of_a_cut_text_is_of_what_is_left(short: Tokenizer, cut: Cut, texts: list[str]) -> None:
    text = " ".join(map(str, range(20)))
    first, *table, last = table_of(short, text, cut)
    assert (first.text, last.text) == ("[CLS]", "[SEP]")
    assert [token.text for token in table] == texts
    assert [text[token.start : token.end] for token in table] == texts
    assert [token.word for token in table] == [int(word) for word in texts]


def test_windowed_text_stays_whole(short: Tokenizer) -> None:
    [tokenized] = encode(short, "a " * 50, cut=Cut.WINDOW, table=True)
    assert (len(tokenized.encoding), tokenized.truncated) == (52, False)


def test_table_of_split_words_counts_in_each_word(tokenizer: Tokenizer) -> None:
    table = table_of(tokenizer, SplitText(["\U0001f600", "embedding"]))[1:-1]
    assert [(token.text, token.start, token.end, token.word) for token in table] == [
        ("[UNK]", 0, 1, 0),
        ("em", 0, 2, 1),
        ("##bed", 2, 5, 1),
        ("##ding", 5, 9, 1),
    ]


def test_table_of_a_pair_counts_in_each_text(tokenizer: Tokenizer) -> None:
    table = table_of(tokenizer, TextPair("hello world", "a world"))
    assert [(token.text, token.start, token.end) for token in table if not token.special] == [
        ("hello", 0, 5),
        ("world", 6, 11),
        ("a", 0, 1),
        ("world", 2, 7),
    ]


@pytest.mark.parametrize(
    ("text", "slices"),
    [
        ("e\u0301t\u00e9 x", ["e\u0301t\u00e9", "x"]),
        ("\U0001f600 x", ["\U0001f600", "x"]),
        ("x\U0001f468\u200d\U0001f469\u200d\U0001f467y", ["x\U0001f468\u200d\U0001f469\u200d\U0001f467y"]),
        ("o\u0323\u0302x \u00f4\u0323x", ["o\u0323\u0302x", "\u00f4\u0323x"]),
        ("cafe\u0301 o\u0323\u0302!", ["cafe", "o", "!"]),
        ("\u4f60\u597dx", ["\u4f60", "\u597d", "x"]),
        ("\U00020000\U00020001", ["\U00020000", "\U00020001"]),
        ("a\0b c", ["a\0b", "c"]),
        ("\u0130stanbul", ["\u0130stanbul"]),
    ],
    ids=ascii,
)
def test_offsets_count_code_points(tokenizer: Tokenizer, text: str, slices: list[str]) -> None:
    """What the tokenizer drops belongs to what stands around it; as in transformers, not where a word ends with it."""
    table = table_of(tokenizer, text)[1:-1]
    words: dict[int | None, list[str]] = {}
    for token in table:
        words.setdefault(token.word, []).append(text[token.start : token.end])
    assert ["".join(pieces) for pieces in words.values()] == slices


@pytest.mark.parametrize("pieces", [["hello", "##s"], ["no such piece", "[MASK]"], []], ids=str)
def test_pieces_are_framed(tokenizer: Tokenizer, pieces: list[str]) -> None:
    known = {"hello": 7592, "##s": 2015, "[MASK]": 103}
    assert tokenizer.framed_ids("texts[0]", pieces) == [CLS, *(known.get(piece, 100) for piece in pieces), SEP]


texts = st.text(min_size=1, max_size=120)
values = st.one_of(
    texts,
    st.builds(TextPair, texts, texts),
    st.lists(texts, min_size=1, max_size=12).map(SplitText),
    st.lists(st.integers(-1, 30600), max_size=20).map(lambda ids: TokenIds([CLS, *ids, SEP])),
)


@settings(max_examples=300, deadline=None)
@given(inputs=st.lists(values, min_size=1, max_size=6), cut=st.sampled_from([Cut.END, Cut.START, Cut.MIDDLE]))
def test_any_input_is_framed_within_the_maximum_or_refused_by_name(
    short: Tokenizer, inputs: list[Value], cut: Cut
) -> None:
    named = [Text(f"input[{index}]", value) for index, value in enumerate(inputs)]
    results = short.encode(named, Truncation(cut), detailed=True, table=True)
    for text, result in zip(named, results, strict=True):
        if isinstance(result, InvalidInputError):
            assert result.param.startswith(text.name)
            continue
        ids, table = result.encoding.ids.tolist(), result.table
        assert (ids[0], ids[-1]) == (CLS, SEP)
        assert 2 <= len(ids) <= 12
        assert result.encoding.special is not None
        if isinstance(text.value, TokenIds):
            assert table is None, "nothing asks for one of token ids"
            continue
        assert table is not None
        assert [token.id for token in table] == ids
        assert [token.special for token in table] == result.encoding.special.tolist()


@settings(max_examples=300, deadline=None)
@given(text=texts)
def test_places_of_any_text_lie_in_it_in_order(tokenizer: Tokenizer, text: str) -> None:
    table = tokenizer.tokens(Text("input", text), add_special_tokens=False)
    places = [(token.start, token.end) for token in table]
    assert all(0 <= start <= end <= len(text) for start, end in places)
    assert places == sorted(places)


def test_a_token_that_was_added_without_a_row_is_refused_by_name(artifact: Artifact, tmp_path: Path) -> None:
    library = tokenizers.Tokenizer.from_file(str(artifact.tokenizer))
    library.add_special_tokens(["[NEW]"])
    library.save(str(tmp_path / "tokenizer.json"))
    tokenizer = open_tokenizer(Artifact(tmp_path, artifact.manifest))
    texts = [Text("input[0]", "a word"), Text("input[1]", "a [NEW] word"), Text("input[2]", TextPair("a", "[NEW]"))]
    good, *bad = tokenizer.encode(texts, Truncation())
    assert isinstance(good, Tokenized)
    message = "has the token '[NEW]', for which the model has no embedding"
    assert [str(error) for error in bad] == [f"input[{place}]: {message}" for place in (1, 2)]
