"""Tokenizers of every kind and frame: what they put around texts, pairs, token ids and windows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models

from berth.errors import ArtifactError, InvalidInputError
from berth.text.prepared import EncodeOptions, prepare
from berth.text.tokenizer import Tokenized, Tokenizer
from berth.text.truncation import Cut, Truncation
from berth.text.windows import split, tokens_read
from berth.types import (
    Encoding,
    Frame,
    Pooling,
    ResolvedFeature,
    SplitText,
    Text,
    TextPair,
    TokenIds,
    TokenSequence,
)
from tests.berth.text.conftest import Kind, MakeTokenizer, kind_of

MAX = 16
PROMPT = "query: "
FEW = settings(max_examples=100, deadline=None)

Value = str | TextPair | SplitText | TokenIds


@pytest.fixture(scope="session")
def tokenizer(kind: Kind, make_tokenizer: MakeTokenizer) -> Tokenizer:
    """Give a tokenizer of each kind for a model that takes 16 tokens."""
    return make_tokenizer(kind, max_tokens=MAX)


@pytest.fixture(scope="session")
def uncut(kind: Kind, make_tokenizer: MakeTokenizer) -> Tokenizer:
    """Give the same for a model that takes more than any text here has."""
    return make_tokenizer(kind, max_tokens=10_000)


def encoded(tokenizer: Tokenizer, value: Value, truncation: Truncation | None = None, prompt: str = "") -> Tokenized:
    """Encode an input that is good, in detail."""
    [tokenized] = tokenizer.encode([Text("input", value, prompt)], truncation or Truncation(), detailed=True)
    assert isinstance(tokenized, Tokenized), tokenized
    return tokenized


def encoding_of(tokenizer: Tokenizer, value: Value, prompt: str = "") -> Encoding:
    return encoded(tokenizer, value, prompt=prompt).encoding


def error_of(tokenizer: Tokenizer, value: Value, truncation: Truncation | None = None, prompt: str = "") -> str:
    [error] = tokenizer.encode([Text("input", value, prompt)], truncation or Truncation())
    assert isinstance(error, InvalidInputError)
    return str(error)


def around(kind: Kind, ids: list[int]) -> list[int]:
    return [*kind.frame.before, *ids, *kind.frame.after]


def own(kind: Kind, encoding: Encoding) -> list[int]:
    """Give the ids of the text's own tokens and its prompt's; checks the frame around them."""
    ids: list[int] = encoding.ids.tolist()
    inside = ids[len(kind.frame.before) : len(ids) - len(kind.frame.after)]
    assert ids == around(kind, inside)
    return inside


def test_texts_and_pairs_are_framed(kind: Kind, tokenizer: Tokenizer) -> None:
    first, second = (own(kind, encoding_of(tokenizer, text)) for text in ("hello", "the world"))
    pair = encoding_of(tokenizer, TextPair("hello", "the world"))
    frame = kind.frame
    assert pair.ids.tolist() == [*frame.before, *first, *frame.between, *second, *frame.after]
    assert pair.special is not None
    assert pair.special.tolist() == [
        *([True] * len(frame.before) + [False] * len(first) + [True] * len(frame.between)),
        *([False] * len(second) + [True] * len(frame.after)),
    ]


@pytest.mark.parametrize("pair", [("hello world", "hello the"), ("", "hello"), ("hello", ""), ("", "")], ids=str)
def test_words_of_a_pair_count_on_by_the_text_they_are_of(tokenizer: Tokenizer, pair: tuple[str, str]) -> None:
    counts = []
    for text in pair:
        words = encoding_of(tokenizer, text).words
        assert words is not None
        counts.append(len(np.unique(words[words >= 0])))
    words = encoding_of(tokenizer, TextPair(*pair)).words
    assert words is not None
    assert np.unique(words[words >= 0]).tolist() == list(range(sum(counts)))
    assert np.all(np.diff(words[words >= 0]) >= 0)


def test_table_and_encoding_agree(kind: Kind, tokenizer: Tokenizer) -> None:
    for value in ("hello world", TextPair("hello the", "world"), SplitText(["hello", "world"])):
        [tokenized] = tokenizer.encode([Text("input", value)], Truncation(), table=True)
        assert isinstance(tokenized, Tokenized)
        assert tokenized.table is not None
        special, words = tokenized.encoding.special, tokenized.encoding.words
        assert special is not None
        assert words is not None
        assert [token.special for token in tokenized.table] == special.tolist()
        assert [-1 if token.word is None else token.word for token in tokenized.table] == words.tolist()
        assert int(special.sum()) == kind.frame.size(pair=isinstance(value, TextPair))


def test_ids_of_a_text_are_that_text(kind: Kind, tokenizer: Tokenizer) -> None:
    text = encoding_of(tokenizer, "hello world")
    ids = encoding_of(tokenizer, TokenIds(text.ids.tolist()))
    assert ids.special is not None
    assert text.special is not None
    for ours, theirs in ((ids.ids, text.ids), (ids.type_ids, text.type_ids), (ids.special, text.special)):
        np.testing.assert_array_equal(ours, theirs)
    assert own(kind, encoding_of(tokenizer, TokenIds(around(kind, [])))) == []


def test_ids_in_another_frame_are_refused(kind: Kind, tokenizer: Tokenizer) -> None:
    whole = around(kind, [7, 8])
    shown = " ".join(map(str, [*kind.frame.before, "…", *kind.frame.after]))
    wrong = [whole[:-1], whole[: kind.frame.size() - 1], [*whole, 7]]
    for ids in [*wrong, whole[1:]] if kind.frame.before else wrong:
        assert f"framed as /v1/tokenize gives them: {shown}. " in error_of(tokenizer, TokenIds(ids))


def test_pieces_are_framed_and_unknown_ones_are_the_unknown_token(kind: Kind, tokenizer: Tokenizer) -> None:
    ids = kind.library.get_vocab()
    known = next(token for token in ("hello", "▁hello") if token in ids)
    assert tokenizer.framed_ids("texts[3]", [known, known]) == around(kind, [ids[known]] * 2)
    unknown = ids["[UNK]" if "[UNK]" in ids else "<unk>"]
    if isinstance(kind.library.model, models.BPE):  # without an unknown token, as RoBERTa's
        with pytest.raises(InvalidInputError, match="'no such piece' is not in the vocabulary") as error:
            tokenizer.framed_ids("texts[3]", [known, "no such piece"])
        assert error.value.param == "texts[3][1]"
    else:
        assert tokenizer.framed_ids("texts[3]", ["no such piece", known]) == around(kind, [unknown, ids[known]])


def test_pair_is_refused_where_nothing_tells_its_texts_apart(make_tokenizer: MakeTokenizer) -> None:
    one, two = (make_tokenizer(kind_of(name), max_tokens=MAX) for name in ("nothing", "types"))
    assert error_of(one, TextPair("a", "b")) == "input: the model takes no pairs: nothing tells one text from the other"
    assert len(encoding_of(one, "a")) == len(encoding_of(one, SplitText(["a"])))
    assert len(encoding_of(two, TextPair("a", "b"))) > 2


@pytest.mark.parametrize(
    "wrong", [Frame((9,), (9,), (9,)), Frame((), (), ()), Frame((0,) * 9, (), ()), Frame((), (), (1,) * 9)], ids=str
)
def test_another_frame_than_the_manifests_is_refused(kind: Kind, make_tokenizer: MakeTokenizer, wrong: Frame) -> None:
    with pytest.raises(ArtifactError, match=r"tokenizer\.json does not frame a text by .*…"):
        make_tokenizer(kind, max_tokens=MAX, frame=wrong)


def test_pair_whose_frame_alone_is_too_long_is_refused(kind: Kind, make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer(kind, max_tokens=1)
    size = kind.frame.size(pair=True)
    message = f"input: a pair has {size} special tokens, the model takes 1"
    assert error_of(tokenizer, TextPair("hello", "world")) == message


texts = st.text("ab hello the world ship:é你\N{COMBINING ACUTE ACCENT}", max_size=60)
cuts = st.one_of(
    st.sampled_from([Truncation(Cut.END), Truncation(Cut.START), Truncation(Cut.MIDDLE)]),
    st.integers(0, MAX).map(lambda head: Truncation(Cut.MIDDLE, head=head)),
)


@FEW
@given(text=texts, truncation=cuts, as_ids=st.booleans())
def test_any_text_is_cut_inside_its_frame(
    kind: Kind, tokenizer: Tokenizer, uncut: Tokenizer, text: str, truncation: Truncation, as_ids: bool
) -> None:
    whole = encoding_of(uncut, text)
    inside, room = own(kind, whole), MAX - kind.frame.size()
    cut = encoded(tokenizer, TokenIds(whole.ids.tolist()) if as_ids else text, truncation)
    left = own(kind, cut.encoding)
    assert cut.truncated == (len(inside) > room)
    assert len(left) == min(len(inside), room)
    assert cut.encoding.special is not None
    assert int(cut.encoding.special.sum()) == kind.frame.size()
    head = len(left)
    if cut.truncated and truncation.cut is not Cut.END:
        middle = -(-room // 4) if truncation.head is None else min(truncation.head, room)
        head = 0 if truncation.cut is Cut.START else middle
    assert left == inside[:head] + inside[len(inside) - len(left) + head :]


# Prompts


def test_prompt_is_counted_with_what_is_before_it(kind: Kind, tokenizer: Tokenizer) -> None:
    """As sentence-transformers counts it: alone in its frame, without the last special token."""
    alone = len(kind.library.encode(PROMPT)) - 1
    assert encoding_of(tokenizer, "hello", PROMPT).prompt == alone
    assert encoding_of(tokenizer, "hello").prompt == 0
    assert encoding_of(tokenizer, "hello world " * 9, PROMPT).prompt == alone


LEADING = {
    ("bert", "query: "): ["[CLS]", "q", "##u", "##er", "##y", "[UNK]"],
    ("xlm-roberta", "query: "): ["<s>", "▁", "q", "u", "er", "y", ":"],
    ("roberta", "query: "): ["<s>", "q", "u", "e", "r", "y", ":"],
    ("t5", "query: "): ["▁", "q", "u", "er", "y", ":"],
    ("xlnet", "query: "): ["▁", "q", "u", "er", "y", ":"],
    ("bert", "q:\n"): ["[CLS]", "q", "[UNK]"],
    ("roberta", "q:\n"): ["<s>", "q", ":", "Ċ"],
    ("t5", "q:\n"): ["▁", "q", ":", "<unk>"],
    ("roberta", "he"): ["<s>", "hell"],  # the token straddles prompt and text
    ("roberta", "h"): ["<s>", "hell"],
}


@pytest.mark.parametrize(("name", "prompt"), LEADING, ids=str)
@pytest.mark.parametrize("cut", [Cut.START, Cut.MIDDLE, Cut.WINDOW], ids=str)
def test_prompt_stays_in_front_of_a_long_text(make_tokenizer: MakeTokenizer, name: str, prompt: str, cut: Cut) -> None:
    """A blank between prompt and text goes with the text's first token, where it has none of its own."""
    kind = kind_of(name)
    tokenizer = make_tokenizer(kind, max_tokens=MAX)
    value = ("ll" if prompt == "he" else "ell" if prompt == "h" else "") + " hello the 你 ship" * 6
    encoding = encoded(tokenizer, value.strip(), Truncation(cut), prompt).encoding
    front = LEADING[name, prompt]
    assert encoding.prompt == len(front)
    assert [kind.library.id_to_token(id_) for id_ in encoding.ids[: len(front)]] == front
    assert cut is Cut.WINDOW or len(encoding) == MAX


@FEW
@given(text=texts, prompt=st.sampled_from([PROMPT, "a: ", "he", " "]), truncation=cuts)
def test_prompt_is_never_cut_off(
    kind: Kind, tokenizer: Tokenizer, uncut: Tokenizer, text: str, prompt: str, truncation: Truncation
) -> None:
    whole = own(kind, encoding_of(uncut, prompt + text))
    cut = encoded(tokenizer, text, truncation, prompt)
    left = own(kind, cut.encoding)
    if not cut.truncated:
        assert left == whole
        return
    assert len(cut.encoding) == MAX
    front = cut.encoding.prompt - len(kind.frame.before)
    assert left[:front] == whole[:front]
    if truncation.cut is Cut.START:
        assert left[front:] == whole[len(whole) - (len(left) - front) :]


@FEW
@given(
    text=texts,
    prompt=st.sampled_from(["", "", PROMPT, "a: ", "he", " "]),
    window=st.integers(4, MAX),
    stride=st.integers(0, MAX),
    as_ids=st.booleans(),
)
def test_windows_bear_frame_and_prompt_and_cover_the_text(
    kind: Kind, tokenizer: Tokenizer, text: str, prompt: str, window: int, stride: int, as_ids: bool
) -> None:
    truncation = Truncation(Cut.WINDOW, window=window, stride=min(stride, window - kind.frame.size()))
    [tokenized] = tokenizer.encode([Text("input", text, prompt)], truncation, detailed=True)
    if isinstance(tokenized, InvalidInputError):
        assert prompt, tokenized
        assert "truncate.stride must be at most" in str(tokenized) or "leave no room" in str(tokenized)
        return
    whole = tokenized.encoding
    if as_ids and not prompt:
        whole = encoded(tokenizer, TokenIds(whole.ids.tolist()), truncation).encoding
    cut = split(whole, truncation, MAX, kind.frame)
    assert tokens_read(whole, truncation, MAX, kind.frame) == sum(map(len, cut.encodings))
    count = len(whole) - cut.front - cut.back
    assert set().union(*(range(*span) for span in cut.spans)) == set(range(max(count, 0)))
    if len(cut.encodings) == 1:
        assert cut.encodings == [whole]
        return
    ids = whole.ids.tolist()
    assert cut.front == (whole.prompt or len(kind.frame.before))
    for (first, last), part in zip(cut.spans, cut.encodings, strict=True):
        assert len(part) <= window
        assert part.prompt == whole.prompt
        assert part.ids.tolist() == [
            *ids[: cut.front],
            *ids[cut.front + first : cut.front + last],
            *kind.frame.after,
        ]
    room = window - cut.front - cut.back
    starts = [first for first, _ in cut.spans]
    assert set(np.diff(starts).tolist()) == {truncation.stride or room}
    _check_rows(kind, tokenized.encoding if prompt or not as_ids else whole, truncation)


def _check_rows(kind: Kind, whole: Encoding, truncation: Truncation) -> None:
    """Put rows that say their token's id together again: each token's once, the prompt's and the frame's too."""
    none = ResolvedFeature(Pooling.NONE, (6,))
    bare = ResolvedFeature(Pooling.NONE, (6,), exclude_special=True)
    options = EncodeOptions((none, bare), truncation)
    prepared = prepare("input", options, Tokenized(whole, truncated=False, table=None), MAX, kind.frame)
    rows = [sequence.encoding.ids[:, None].astype(np.float32) for sequence in prepared.sequences]
    answer = prepared.answer(iter([[each, each] for each in rows]))
    assert not isinstance(answer, Exception)
    assert answer.vectors[0][:, 0].tolist() == whole.ids.tolist()
    assert whole.special is not None
    assert answer.vectors[1][:, 0].tolist() == whole.ids[~whole.special].tolist()


def test_words_of_windows_are_each_there_once(kind: Kind, tokenizer: Tokenizer) -> None:
    truncation = Truncation(Cut.WINDOW, window=12, stride=2)
    whole = encoded(tokenizer, "hello the world " * 4, truncation, "a: ").encoding
    options = EncodeOptions((ResolvedFeature(Pooling.WORDS, (6,)),), truncation)
    prepared = prepare("input", options, Tokenized(whole, truncated=False, table=None), MAX, kind.frame)
    assert len(prepared.sequences) > 2
    answer = prepared.answer(iter([[part.encoding.ids[:, None].astype(np.float32)] for part in prepared.sequences]))
    assert not isinstance(answer, Exception)
    assert whole.words is not None
    expected = [whole.ids[whole.words == word].mean() for word in np.unique(whole.words[whole.words >= 0])]
    np.testing.assert_allclose(answer.vectors[0][:, 0], expected)


@pytest.mark.parametrize("cut", [Cut.END, Cut.START, Cut.MIDDLE, Cut.WINDOW], ids=str)
def test_prompt_that_leaves_no_room_is_refused_with_the_limit(kind: Kind, tokenizer: Tokenizer, cut: Cut) -> None:
    prompt, truncation = "the ship: " * 6, Truncation(cut, window=9 if cut is Cut.WINDOW else 0)
    message = error_of(tokenizer, "hello", truncation, prompt)
    whose = "a window takes 9" if cut is Cut.WINDOW else f"the model takes {MAX}"
    assert message.startswith("input: its prompt and frame are ")
    assert message.endswith(f" tokens and leave no room: {whose}")


def test_stride_that_would_leap_over_tokens_is_refused(make_tokenizer: MakeTokenizer) -> None:
    """The prompt's tokens take of a window's room: bert's 16 tokens hold 5 of the prompt, 2 of the frame and 9."""
    tokenizer = make_tokenizer(kind_of("bert"), max_tokens=MAX)
    long = "hello " * 30
    reason = "truncate.stride must be at most 9, what a window of 16 has beside prompt and frame"
    assert error_of(tokenizer, long, Truncation(Cut.WINDOW, window=16, stride=10), PROMPT) == f"input: {reason}"
    encoded(tokenizer, long, Truncation(Cut.WINDOW, window=16, stride=9), PROMPT)
    encoded(tokenizer, long, Truncation(Cut.WINDOW, window=16, stride=10))
    encoded(tokenizer, "hello", Truncation(Cut.WINDOW, window=16, stride=10), PROMPT)


def test_same_tokens_with_and_without_a_prompt_are_two_sequences(tokenizer: Tokenizer) -> None:
    feature = (ResolvedFeature(Pooling.MEAN, (6,)),)
    bare, prompted = encoding_of(tokenizer, PROMPT + "hello"), encoding_of(tokenizer, "hello", PROMPT)
    np.testing.assert_array_equal(bare.ids, prompted.ids)
    assert TokenSequence(bare, feature).key != TokenSequence(prompted, feature).key
