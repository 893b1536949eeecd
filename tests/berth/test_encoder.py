"""`berth.Encoder`: a model in one's own process, with a backend that is none and with the default model."""

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import berth
import berth.encoder
from berth.artifact import Artifact, Manifest
from berth.backends.cpu.encoder import CpuEncoder
from berth.contract import FakeEncoder
from berth.encoder import WINDOW_TEXTS, Encoder, Input
from berth.errors import (
    ArtifactError,
    DeviceError,
    DeviceLostError,
    EncoderError,
    InvalidInputError,
    ModelNotFoundError,
    OutOfMemoryError,
)
from berth.features import Feature
from berth.model import Model
from berth.models import find_artifact
from berth.placement import ExportTarget
from berth.text.tokenizer import Tokenizer
from berth.types import Float32Array, Pooling, TokenSequence, Vectors

WIDTH = 384
SURROGATE = "\ud83d"
"""Half of an emoji: a string to Python, and no text to anything else."""
WORDS = ["harbour", "ship", "rope", "tide", "crane", "quay", "cargo", "pilot", "buoy", "anchor"]
PATIENCE = 20.0
"""Seconds after which a thread counts as forgotten."""


class Noting(FakeEncoder):
    """A backend without a model that notes its batches."""

    def __init__(self, **options: Any) -> None:
        super().__init__(width=WIDTH, **options)
        self.batches: list[list[TokenSequence]] = []

    def encode(self, sequences: Sequence[TokenSequence]) -> list[Vectors]:
        self.batches.append(list(sequences))
        return super().encode(sequences)

    @property
    def lengths(self) -> list[list[int]]:
        """The tokens of each sequence of each batch."""
        return [[len(sequence) for sequence in batch] for batch in self.batches]

    @property
    def texts(self) -> list[list[int]]:
        """The ids of all sequences, in the order in which they were encoded."""
        return [sequence.encoding.ids.tolist() for batch in self.batches for sequence in batch]


@pytest.fixture
def backend() -> Noting:
    return Noting()


MakeEncoder = Callable[..., Encoder]


@pytest.fixture
def make_encoder(artifact: Artifact, tokenizer: Tokenizer) -> Iterator[MakeEncoder]:
    """Give a function that makes an encoder of backends, with the default model's tokenizer; closed after the test."""
    made: list[Encoder] = []

    def make(*backends: FakeEncoder, manifest: dict[str, Any] | None = None, **options: Any) -> Encoder:
        changed = artifact.manifest.model_copy(update=manifest or {})
        made.append(Encoder.of(Model(changed, tokenizer, backends), **options))
        return made[-1]

    yield make
    for encoder in made:
        encoder.close()


@pytest.fixture
def fake(make_encoder: MakeEncoder, backend: Noting) -> Encoder:
    """Give an encoder with a backend that is no model."""
    return make_encoder(backend, threads=1)


@pytest.fixture(scope="module")
def real(artifact: Artifact, tokenizer: Tokenizer, encoder: CpuEncoder) -> Encoder:
    """Give an encoder of the default model."""
    return Encoder.of(Model(artifact.manifest, tokenizer, [encoder]), threads=2)


@pytest.fixture(params=["fake", "real"])
def either(request: pytest.FixtureRequest) -> Encoder:
    """Give each of the two."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Encoder)
    return found


def sentences(count: int, longest: int = 30) -> list[str]:
    random = np.random.default_rng(2)
    return [f"{number} " + " ".join(random.choice(WORDS, size=random.integers(1, longest))) for number in range(count)]


def alone(encoder: Encoder, texts: Sequence[str]) -> Float32Array:
    return np.stack([encoder.encode(text) for text in texts])


# encode


def test_a_string_gives_a_vector_and_a_list_a_row_a_text(either: Encoder) -> None:
    single, many, one, none = (either.encode(texts) for texts in ("a ship", ["a ship", "a boat"], ["a ship"], []))
    assert [each.shape for each in (single, many, one, none)] == [(WIDTH,), (2, WIDTH), (1, WIDTH), (0, WIDTH)]
    assert {each.dtype for each in (single, many, one, none)} == {np.dtype(np.float32)}
    np.testing.assert_allclose(single, many[0], atol=1e-5)
    np.testing.assert_array_equal(single, one[0])


@pytest.mark.parametrize(
    "texts",
    [["a ship", "a boat"], ("a ship", "a boat"), iter(["a ship", "a boat"]), np.array(["a ship", "a boat"])],
    ids=["list", "tuple", "iterator", "array"],
)
def test_whatever_yields_texts_is_taken(fake: Encoder, texts: Any) -> None:
    np.testing.assert_array_equal(fake.encode(texts), alone(fake, ["a ship", "a boat"]))


def test_the_models_vectors_are_those_it_was_trained_to_give(real: Encoder) -> None:
    ship, boat, bread = real.encode(["a ship in harbour", "a boat at its berth", "a slice of bread"])
    assert [float(np.linalg.norm(each)) for each in (ship, boat, bread)] == pytest.approx([1, 1, 1], abs=1e-5)
    assert ship @ boat > 0.4
    assert ship @ bread < 0.2


def test_vectors_come_in_the_order_of_the_texts_though_they_are_sorted_inside(fake: Encoder, backend: Noting) -> None:
    texts = sentences(200)
    together = fake.encode(texts)
    lengths = [max(batch) for batch in backend.lengths]
    assert lengths == sorted(lengths, reverse=True), "the longest first, so that no thread is left with one at the end"
    np.testing.assert_array_equal(together, alone(fake, texts))


def test_vectors_of_the_model_are_the_same_alone_and_in_any_company(real: Encoder) -> None:
    texts = sentences(60)
    np.testing.assert_allclose(real.encode(texts), alone(real, texts), atol=1e-5)


def test_more_texts_than_are_tokenized_at_once_keep_their_order(fake: Encoder, backend: Noting) -> None:
    texts = sentences(2 * WINDOW_TEXTS + 10, longest=4)
    vectors = fake.encode(iter(texts))
    assert sum(map(len, backend.batches)) == len(vectors) == len(texts)
    chosen = [0, 1, WINDOW_TEXTS - 1, WINDOW_TEXTS, WINDOW_TEXTS + 1, 2 * WINDOW_TEXTS, len(texts) - 1]
    np.testing.assert_array_equal(vectors[chosen], alone(fake, [texts[index] for index in chosen]))
    assert len(np.unique(vectors, axis=0)) == len(texts)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 9])
def test_the_last_window_may_be_of_any_size(fake: Encoder, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(berth.encoder, "WINDOW_TEXTS", 4)
    texts = sentences(count)
    np.testing.assert_array_equal(fake.encode(texts), alone(fake, texts))


def test_the_next_texts_are_tokenized_while_some_are_encoded(
    make_encoder: MakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenized = threading.Semaphore(0)
    encode = Tokenizer.encode

    def note(*arguments: Any, **options: Any) -> Any:
        tokenized.release()
        return encode(*arguments, **options)

    def wait(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        for _ in range(2 if not begun.is_set() else 0):
            assert tokenized.acquire(timeout=PATIENCE), "the second window is tokenized beside the first one's batch"
        begun.set()
        return [[np.zeros(WIDTH, dtype=np.float32)] for _ in sequences]

    begun = threading.Event()
    monkeypatch.setattr(Tokenizer, "encode", note)
    monkeypatch.setattr(berth.encoder, "WINDOW_TEXTS", 4)
    assert make_encoder(FakeEncoder(wait), threads=1).encode(sentences(8)).shape == (8, WIDTH)


def test_what_comes_twice_is_encoded_once(fake: Encoder, backend: Noting) -> None:
    vectors = fake.encode(["a ship", "a boat", "a ship", "a rope", "a boat", "a ship"])
    assert sum(map(len, backend.batches)) == 3
    np.testing.assert_array_equal(vectors[[0, 0, 1]], vectors[[2, 5, 4]])
    np.testing.assert_array_equal(vectors, alone(fake, ["a ship", "a boat", "a ship", "a rope", "a boat", "a ship"]))


def test_batches_are_bounded(make_encoder: MakeEncoder, backend: Noting) -> None:
    make_encoder(backend, threads=1, max_batch_tokens=50).encode(sentences(100))
    assert all(sum(batch) <= 50 or len(batch) == 1 for batch in backend.lengths)
    assert max(map(len, backend.lengths)) > 1


def test_the_backend_says_how_large_batches_are_where_nobody_else_does(make_encoder: MakeEncoder) -> None:
    backend = Noting(max_batch_tokens=70)
    make_encoder(backend, threads=1).encode(sentences(100))
    assert max(map(sum, backend.lengths)) in range(60, 71)


# What cannot be encoded is named.


BAD: list[tuple[Any, str]] = [
    ("", "must not be empty"),
    (None, "must be a string"),
    (float("nan"), "must be a string"),
    (5, "must be a string"),
    (b"a ship", "must be a string"),
    ([], "must be a string"),
    ({}, "must be a string"),
    (SURROGATE, "character 0 is a lone surrogate"),
    ("a ship " + SURROGATE, "character 7 is a lone surrogate"),
]


@pytest.mark.parametrize(("value", "message"), BAD, ids=repr)
def test_a_bad_text_is_named(fake: Encoder, backend: Noting, value: Any, message: str) -> None:
    texts = ["a ship", "a boat", value, "a rope"]
    for call in (fake.encode, fake.features, fake.tokens):
        with pytest.raises(InvalidInputError, match=message) as error:
            call(texts)
        assert error.value.param == "inputs[2]"
        assert str(error.value).startswith("inputs[2]: ")
    assert backend.batches == []


@pytest.mark.parametrize("text", ["", SURROGATE])
def test_a_bad_text_alone_is_the_first_input(fake: Encoder, text: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        fake.encode(text)
    assert error.value.param == "inputs[0]"


@pytest.mark.parametrize("value", [None, 5, 0.5, {"tokens": ["a", "ship"]}, Feature()], ids=repr)
def test_what_is_no_list_of_texts_is_named(fake: Encoder, value: Any) -> None:
    for call in (fake.encode, fake.features, fake.tokens):
        with pytest.raises(InvalidInputError, match="must be a list of inputs") as error:
            call(value)
        assert error.value.param == "inputs"


def test_a_string_in_place_of_a_list_is_no_list_of_letters(fake: Encoder) -> None:
    for call in (fake.features, fake.tokens):
        with pytest.raises(InvalidInputError, match="must be a list of inputs, not str"):
            call("a ship")


@pytest.mark.parametrize(
    ("value", "param"),
    [
        (("", ""), "inputs[1]"),
        (("a",), "inputs[1]"),
        (("a", "b", "c"), "inputs[1]"),
        (("a", None), "inputs[1]"),
        (("a", SURROGATE), "inputs[1]"),
        ((SURROGATE, "b"), "inputs[1]"),
        ({"tokens": []}, "inputs[1]"),
        ({"tokens": ["", ""]}, "inputs[1]"),
        ({"tokens": "a ship"}, "inputs[1]"),
        ({"tokens": ["a", 5]}, "inputs[1]"),
        ({"tokens": ["a", SURROGATE]}, "inputs[1].tokens[1]"),
        ({"tokens": ["a", " ", "ship"]}, "inputs[1].tokens[1]"),
        ({"tokens": ["a"], "text": "a"}, "inputs[1]"),
        ({"words": ["a"]}, "inputs[1]"),
    ],
    ids=repr,
)
def test_a_bad_pair_or_split_text_is_named(fake: Encoder, value: Any, param: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        fake.features(["a ship", value], [Feature("words")])
    assert error.value.param == param


def test_emoji_and_other_planes_are_texts(fake: Encoder) -> None:
    assert fake.encode(["\U0001f6a2", "船", "\x00 nul", "\u200b"]).shape == (4, WIDTH)


def test_a_text_that_leaves_no_token_but_the_special_ones_is_encoded(fake: Encoder) -> None:
    assert fake.encode(" ").shape == (WIDTH,)
    with pytest.raises(InvalidInputError, match="has special tokens only") as error:
        fake.features(["a ship", " "], [Feature(exclude_special=True)])
    assert error.value.param == "inputs[1]"


# Prompts, truncation and dimensions.


PROMPTS = {"prompts": {"query": "query: ", "none": ""}}


@pytest.mark.parametrize(
    ("default", "prompt_name", "text"),
    [
        (None, None, "a ship"),
        (None, "query", "query: a ship"),
        (None, "", "a ship"),
        (None, "none", "a ship"),
        ("query", None, "query: a ship"),
        ("query", "", "a ship"),
        ("query", "none", "a ship"),
    ],
)
def test_a_prompt_is_put_before_each_text(
    make_encoder: MakeEncoder, fake: Encoder, default: str | None, prompt_name: str | None, text: str
) -> None:
    encoder = make_encoder(Noting(), manifest={**PROMPTS, "default_prompt_name": default})
    np.testing.assert_array_equal(encoder.encode("a ship", prompt_name=prompt_name), fake.encode(text))
    [[vector]] = encoder.features(["a ship"], prompt_name=prompt_name)
    np.testing.assert_array_equal(vector, fake.features([text])[0][0])


def test_a_prompt_that_the_model_has_not_is_named(make_encoder: MakeEncoder, fake: Encoder) -> None:
    with pytest.raises(InvalidInputError, match="no such prompt; it has: none, query") as error:
        make_encoder(Noting(), manifest=PROMPTS).encode("a ship", prompt_name="passage")
    assert error.value.param == "prompt_name"
    with pytest.raises(InvalidInputError, match="no such prompt; it has: none"):
        fake.encode("a ship", prompt_name="query")


def test_a_prompt_goes_with_texts_alone(make_encoder: MakeEncoder, fake: Encoder) -> None:
    encoder = make_encoder(Noting(), manifest={**PROMPTS, "default_prompt_name": "query"})
    with pytest.raises(InvalidInputError) as error:
        encoder.features([("a", "b")], prompt_name="query")
    assert error.value.param == "prompt_name"
    np.testing.assert_array_equal(encoder.features([("a", "b")])[0][0], fake.features([("a", "b")])[0][0])


LONG = " ".join(str(number % 10) for number in range(300))
"""300 tokens, of which 254 fit: the model takes 256, [CLS] and [SEP] too."""


@pytest.mark.parametrize(
    ("truncate", "kept"),
    [
        ("end", [range(254)]),
        ("start", [range(46, 300)]),
        ("middle", [range(64), range(110, 300)]),
        ({"head": 0}, [range(46, 300)]),
        ({"head": 100}, [range(100), range(146, 300)]),
        ({"head": 254}, [range(254)]),
    ],
    ids=str,
)
def test_a_long_text_is_cut_where_its_caller_says(
    fake: Encoder, backend: Noting, tokenizer: Tokenizer, truncate: Any, kept: list[range]
) -> None:
    text = " ".join(str(number % 10) for part in kept for number in part)
    fake.encode(LONG, truncate=truncate)
    fake.encode(text)
    cut, whole = backend.texts
    assert len(cut) == 256
    assert cut == whole


@pytest.mark.parametrize(
    ("truncate", "lengths"),
    [
        ({}, [48, 256]),
        ({"window": 256}, [48, 256]),
        ({"window": 102}, [102, 102, 102]),
        ({"window": 102, "stride": 50}, [102, 102, 102, 102, 102]),
        ({"stride": 200}, [102, 256]),
        ({"window": 200, "combine": "max"}, [104, 200]),
    ],
    ids=str,
)
def test_a_long_text_may_be_read_in_windows(
    fake: Encoder, backend: Noting, truncate: dict[str, Any], lengths: list[int]
) -> None:
    # Other tokens in each window, so that none comes twice.
    text = " ".join(str(number) for number in range(300))
    assert fake.encode(text, truncate=truncate).shape == (WIDTH,)
    assert sorted(len(ids) for ids in backend.texts) == lengths


def test_windows_are_combined_as_the_caller_says(fake: Encoder) -> None:
    parts = [" ".join(str(number) for number in part) for part in (range(100), range(100, 200), range(200, 300))]
    vectors = {
        combine: fake.features([" ".join(parts)], truncate={"window": 102, "combine": combine})[0][0]
        for combine in ("mean", "max")
    }
    windows = np.stack([fake.features([part])[0][0] for part in parts])
    np.testing.assert_allclose(vectors["mean"], windows.mean(axis=0), atol=1e-6)
    np.testing.assert_array_equal(vectors["max"], windows.max(axis=0))


def test_a_long_text_may_be_an_error(fake: Encoder, backend: Noting) -> None:
    assert fake.encode(["a ship", LONG[:500]], truncate="error").shape == (2, WIDTH)
    backend.batches.clear()
    with pytest.raises(InvalidInputError, match="302 tokens, the model takes 256") as error:
        fake.encode(["a ship", LONG], truncate="error")
    assert error.value.param == "inputs[1]"
    assert backend.batches == []


@pytest.mark.parametrize(
    ("truncate", "param"),
    [
        ("window", "truncate"),
        ("everywhere", "truncate"),
        (None, "truncate"),
        (256, "truncate"),
        ({"head": 255}, "truncate.head"),
        ({"head": -1}, "truncate.head"),
        ({"head": 1.0}, "truncate.head"),
        ({"head": 1, "window": 10}, "truncate.window"),
        ({"window": 2}, "truncate.window"),
        ({"window": 257}, "truncate.window"),
        ({"window": 10, "stride": 9}, "truncate.stride"),
        ({"window": 10, "stride": 0}, "truncate.stride"),
        ({"window": 10, "combine": "sum"}, "truncate.combine"),
        ({"windows": 10}, "truncate.windows"),
    ],
    ids=str,
)
def test_a_truncation_that_makes_no_sense_is_named(fake: Encoder, truncate: Any, param: str) -> None:
    for call in (fake.encode, fake.features):
        with pytest.raises(InvalidInputError) as error:
            call(["a ship"], truncate=truncate)
        assert error.value.param == param


@pytest.mark.parametrize("dimensions", [1, 7, 383, 384])
def test_the_first_numbers_are_kept_and_normalised_again(either: Encoder, dimensions: int) -> None:
    texts = ["a ship", "a boat"]
    whole, short = either.encode(texts), either.encode(texts, dimensions=dimensions)
    assert short.shape == (2, dimensions)
    first = whole[:, :dimensions]
    np.testing.assert_allclose(short, first / np.linalg.norm(first, axis=1, keepdims=True), atol=1e-5)
    assert either.encode("a ship", dimensions=dimensions).shape == (dimensions,)
    assert either.encode([], dimensions=dimensions).shape == (0, dimensions)


@pytest.mark.parametrize("dimensions", [0, -1, 385, 1.5, "8"], ids=repr)
def test_dimensions_that_a_vector_has_not_are_named(fake: Encoder, dimensions: Any) -> None:
    with pytest.raises(InvalidInputError, match=f"must be an integer from 1 to 384, not {dimensions!r}") as error:
        fake.encode(["a ship"], dimensions=dimensions)
    assert error.value.param == "dimensions"


# features


def test_features_are_one_array_each_in_their_order(either: Encoder) -> None:
    features = [
        Feature(),
        Feature("none"),
        Feature("none", exclude_special=True),
        Feature("words"),
        Feature("mean_max"),
        Feature("cls", layers=[-1, -2]),
        Feature("max", layers=[0, 1, 2], merge="sum"),
        Feature("none", layers=[1, 2], merge=[0.5, 2]),
    ]
    inputs: list[Input] = ["a ship in harbour", ("a ship", "a boat at berth"), {"tokens": ["a", "ship", "unberthed"]}]
    vectors = either.features(inputs, features)
    texts = either.tokens(["a ship in harbour", "a ship a boat at berth", "a ship unberthed"])
    specials = [2, 3, 2]
    counts = [len(text) - 2 + special for text, special in zip(texts, specials, strict=True)]
    for array, count, special, words in zip(vectors, counts, specials, [4, 6, 3], strict=True):
        assert [each.shape for each in array] == [
            (WIDTH,),
            (count, WIDTH),
            (count - special, WIDTH),
            (words, WIDTH),
            (2 * WIDTH,),
            (2 * WIDTH,),
            (WIDTH,),
            (count, WIDTH),
        ]
        assert {each.dtype for each in array} == {np.dtype(np.float32)}


def test_layers_are_merged_as_the_caller_says(real: Encoder) -> None:
    def of(*features: Feature) -> list[Float32Array]:
        return real.features(["a ship in harbour"], features)[0]

    first, last = of(Feature(layers=[1]), Feature(layers=[6]))
    merged = of(
        Feature(layers=[1, -1]),
        Feature(layers=[1, -1], merge="mean"),
        Feature(layers=[1, -1], merge="sum"),
        Feature(layers=[1, -1], merge=[0.25, 2]),
        Feature(normalize=True),
    )
    expected = [np.concatenate([first, last]), (first + last) / 2, first + last, 0.25 * first + 2 * last]
    for vector, each in zip(merged, [*expected, last / np.linalg.norm(last)], strict=True):
        np.testing.assert_allclose(vector, each, atol=1e-5)
    np.testing.assert_allclose(merged[-1], real.encode("a ship in harbour"), atol=1e-6)


def test_poolings_are_of_the_token_vectors(real: Encoder) -> None:
    features = [Feature(pooling) for pooling in ("none", "mean", "max", "cls", "last", "words")]
    [[states, mean, highest, cls, last, words]] = real.features(["a ship unberthed"], features)
    np.testing.assert_allclose(mean, states.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(highest, states.max(axis=0), atol=1e-5)
    np.testing.assert_allclose(cls, states[0], atol=1e-5)
    np.testing.assert_allclose(last, states[-1], atol=1e-5)
    np.testing.assert_allclose(words[:2], states[1:3], atol=1e-5)
    np.testing.assert_allclose(words[2], states[3:-1].mean(axis=0), atol=1e-5)


def test_words_that_were_split_by_the_caller_are_words(real: Encoder) -> None:
    [[split], [whole]] = real.features([{"tokens": ["a", "ship"]}, "a ship"], [Feature("words")])
    np.testing.assert_allclose(split, whole, atol=1e-5)


def test_pairs_are_two_texts_in_one(real: Encoder, fake: Encoder, backend: Noting) -> None:
    [[pair], [other], [one]] = real.features([("a ship", "a boat"), ("a boat", "a ship"), "a ship a boat"])
    assert min(np.abs(pair - other).max(), np.abs(pair - one).max()) > 1e-3
    fake.features([("a ship", "a boat"), ("", "a boat")])
    types = sorted(sequence.encoding.type_ids.tolist() for batch in backend.batches for sequence in batch)
    assert types == [[0, 0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1]]


def test_vectors_of_a_feature_do_not_hold_their_batch(real: Encoder) -> None:
    vectors = real.features(sentences(5), [Feature(), Feature("none")])
    assert all(vector.base is None for arrays in vectors for vector in arrays)


def test_tokens_of_all_windows_have_their_vectors(fake: Encoder) -> None:
    [[states, words]] = fake.features(
        [LONG], [Feature("none"), Feature("words")], truncate={"window": 50, "stride": 20}
    )
    assert (states.shape, words.shape) == ((302, WIDTH), (300, WIDTH))


def test_no_inputs_have_no_features(either: Encoder) -> None:
    assert either.features([]) == []


def test_features_that_make_no_sense_are_named(make_encoder: MakeEncoder) -> None:
    encoder = make_encoder(Noting(), manifest={"has_pooler": False})
    for features, param in (
        ([], "features"),
        ([Feature(), Feature("median")], "features[1].pooling"),
        ([Feature(layers=[7])], "features[0].layers[0]"),
        ([Feature("pooler")], "features[0].pooling"),
    ):
        with pytest.raises(InvalidInputError) as error:
            encoder.features(["a ship"], features)
        assert error.value.param == param


# tokens


def test_tokens_tell_where_they_stand_in_their_text(fake: Encoder) -> None:
    [unberthed, ship] = fake.tokens(["A ship unberthed", "ship"])
    assert (unberthed[0].text, unberthed[0].special, unberthed[0].word) == ("[CLS]", True, None)
    pieces = [(token.text, "A ship unberthed"[token.start : token.end], token.word) for token in unberthed[1:3]]
    assert pieces == [("a", "A", 0), ("ship", "ship", 1)]
    assert {token.word for token in unberthed[3:-1]} == {2}
    assert [token.text for token in ship] == ["[CLS]", "ship", "[SEP]"]


def test_tokens_are_uncut_and_may_be_without_special_ones(fake: Encoder) -> None:
    [framed], [plain] = fake.tokens([LONG]), fake.tokens([LONG], add_special_tokens=False)
    assert (len(framed), len(plain)) == (302, 300)
    assert not any(token.special for token in plain)
    assert fake.tokens([]) == []


@pytest.mark.parametrize("value", [("a", "b"), {"tokens": ["a"]}], ids=str)
def test_tokens_are_those_of_texts_alone(fake: Encoder, value: Any) -> None:
    with pytest.raises(InvalidInputError, match="must be a string") as error:
        fake.tokens(["a", value])
    assert error.value.param == "inputs[1]"


# Threads, and the end.


def test_as_many_batches_run_at_once_as_there_are_threads(make_encoder: MakeEncoder) -> None:
    together = threading.Barrier(3, timeout=PATIENCE)

    def meet(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        together.wait()
        return [[np.zeros(WIDTH, dtype=np.float32)] for _ in sequences]

    encoder = make_encoder(FakeEncoder(meet), threads=3, max_batch_tokens=1)
    assert encoder.encode(sentences(3)).shape == (3, WIDTH)


def test_batches_go_to_all_devices(make_encoder: MakeEncoder) -> None:
    backends = [Noting(), Noting()]
    encoder = make_encoder(*backends, threads=2, max_batch_tokens=1)
    texts = sentences(10)
    vectors = encoder.encode(texts)
    assert [len(backend.batches) for backend in backends] == [5, 5]
    np.testing.assert_array_equal(vectors, alone(encoder, texts))


def test_several_threads_may_encode_at_once(either: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(berth.encoder, "WINDOW_TEXTS", 16)
    texts = sentences(40, longest=8)
    expected = either.encode(texts)
    together = threading.Barrier(6, timeout=PATIENCE)

    def encode(shift: int) -> Float32Array:
        together.wait()
        for _ in range(3):
            vectors = either.encode(texts[shift:] + texts[:shift])
            [first] = either.features(texts[shift : shift + 1], [Feature("none")])
            assert len(first[0]) == len(either.tokens([texts[shift]])[0])
        return np.roll(vectors, shift, axis=0)

    with ThreadPoolExecutor(6) as pool:
        for vectors in pool.map(encode, range(6)):
            np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_the_block_closes_the_model_and_a_second_time_is_none(
    artifact: Artifact, tokenizer: Tokenizer, encoder_threads: Callable[[], list[threading.Thread]]
) -> None:
    class Once(Noting):
        def close(self) -> None:
            assert not self.closed
            super().close()

    backends = [Once(), Once()]
    before = set(threading.enumerate())
    with Encoder.of(Model(artifact.manifest, tokenizer, backends), threads=2) as encoder:
        assert encoder.encode(sentences(5)).shape == (5, WIDTH)
        assert set(threading.enumerate()) > before
        assert [backend.closed for backend in backends] == [False, False]
    assert [backend.closed for backend in backends] == [True, True]
    assert set(threading.enumerate()) <= before
    encoder.close()
    with pytest.raises(EncoderError):
        encoder.encode("a ship")


def test_the_block_closes_the_model_where_it_fails(artifact: Artifact, tokenizer: Tokenizer, backend: Noting) -> None:
    with pytest.raises(InvalidInputError), Encoder.of(Model(artifact.manifest, tokenizer, [backend])) as encoder:
        encoder.encode("")
    assert backend.closed


def test_what_runs_is_finished_before_the_model_goes(artifact: Artifact, tokenizer: Tokenizer) -> None:
    entered, gate = threading.Event(), threading.Event()

    def wait(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        entered.set()
        assert gate.wait(PATIENCE), "the test opens the gate"
        assert not slow.closed
        return [[np.zeros(WIDTH, dtype=np.float32)] for _ in sequences]

    slow = FakeEncoder(wait)
    encoder = Encoder.of(Model(artifact.manifest, tokenizer, [slow]), threads=1)
    with ThreadPoolExecutor(2) as pool:
        vectors = pool.submit(encoder.encode, ["a ship", "a boat in the harbour of Piraeus"])
        assert entered.wait(PATIENCE)
        closed = pool.submit(encoder.close)
        gate.set()
        assert vectors.result(PATIENCE).shape == (2, WIDTH)
        closed.result(PATIENCE)
    assert slow.closed


def test_what_has_not_begun_when_it_closes_is_an_error_of_ours(
    artifact: Artifact, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second window of a long call, as the first is being encoded; and who comes while `close` still waits."""
    monkeypatch.setattr("berth.encoder.WINDOW_TEXTS", 1)
    entered, gate = threading.Event(), threading.Event()

    def wait(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        entered.set()
        assert gate.wait(PATIENCE), "the test opens the gate"
        return [[np.zeros(WIDTH, dtype=np.float32)] for _ in sequences]

    encoder = Encoder.of(Model(artifact.manifest, tokenizer, [FakeEncoder(wait)]), threads=1)
    with ThreadPoolExecutor(2) as pool:
        vectors = pool.submit(encoder.encode, ["a", "b", "c"])
        assert entered.wait(PATIENCE)
        closed = pool.submit(encoder.close)
        while not encoder._closed:
            time.sleep(0.001)
        with pytest.raises(EncoderError, match="the encoder is closed"):
            encoder.encode(["a"])
        gate.set()
        with pytest.raises(EncoderError, match="the encoder is closed"):
            vectors.result(PATIENCE)
        closed.result(PATIENCE)


# A backend that fails.


def failing_on(length: int, error: Exception) -> Callable[[Sequence[TokenSequence]], list[Vectors]]:
    def encode(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        if any(len(sequence) == length for sequence in sequences):
            raise error
        return FakeEncoder(width=WIDTH).encode(sequences)

    return encode


@pytest.mark.parametrize(
    "error",
    [RuntimeError("secret path"), EncoderError("secret path"), MemoryError(), DeviceLostError("gone")],
    ids=repr,
)
def test_an_input_that_fails_is_named(
    make_encoder: MakeEncoder, fake: Encoder, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    caplog.set_level(logging.CRITICAL + 1)
    encoder = make_encoder(FakeEncoder(failing_on(9, error)))
    texts = ["a ship", "hello " * 7, "a boat"]
    for call in (encoder.encode, encoder.features):
        with pytest.raises(EncoderError) as caught:
            call(texts)
        assert str(caught.value).startswith("inputs[1]: ")
        assert "secret" not in str(caught.value)
    np.testing.assert_array_equal(encoder.encode("a ship"), fake.encode("a ship"))


def test_lack_of_memory_halves_the_batches_and_loses_nothing(
    make_encoder: MakeEncoder, fake: Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL + 1)
    encoded: list[int] = []

    def small(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        tokens = sum(map(len, sequences))
        if tokens > 600:
            raise OutOfMemoryError("full")
        encoded.append(tokens)
        return FakeEncoder(width=WIDTH).encode(sequences)

    encoder = make_encoder(FakeEncoder(small), threads=1, max_batch_tokens=2000)
    texts = sentences(300)
    expected = fake.encode(texts)
    np.testing.assert_array_equal(encoder.encode(texts), expected)
    encoded.clear()
    np.testing.assert_array_equal(encoder.encode(texts), expected)
    assert max(encoded) <= 500, "the next ones are smaller from the start"
    assert max(encoded) >= 256, "and never smaller than one text may be"


def test_lack_of_memory_never_makes_batches_larger(
    make_encoder: MakeEncoder, backend: Noting, caplog: pytest.LogCaptureFixture
) -> None:
    """A text may have 256 tokens, but a bound that its user set below that stays."""
    caplog.set_level(logging.CRITICAL + 1)
    full = threading.Event()
    full.set()

    def small(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        if full.is_set() and len(sequences) > 1:
            raise OutOfMemoryError("full")
        return backend.encode(sequences)

    encoder = make_encoder(FakeEncoder(small), threads=1, max_batch_tokens=64)
    encoder.encode(sentences(30, longest=6))
    full.clear()
    backend.batches.clear()
    encoder.encode(sentences(100, longest=6))
    assert max(map(sum, backend.lengths)) in range(50, 65)


def test_where_there_is_no_memory_for_one_text_it_is_named(
    make_encoder: MakeEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL + 1)
    encoder = make_encoder(FakeEncoder(failing_on(9, OutOfMemoryError("full"))))
    with pytest.raises(EncoderError, match=r"^inputs\[2\]: "):
        encoder.encode(["a ship", "a boat", "hello " * 7])


def test_after_an_input_that_fails_the_rest_is_not_encoded(
    artifact: Artifact, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(berth.encoder, "WINDOW_TEXTS", 4)
    gate = threading.Event()
    batches: list[int] = []

    def wait(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        batches.append(len(sequences))
        assert gate.wait(PATIENCE), "the test opens the gate"
        return [[np.zeros(WIDTH, dtype=np.float32)] for _ in sequences]

    model = Model(artifact.manifest, tokenizer, [FakeEncoder(wait)])
    encoder = Encoder.of(model, threads=1, max_batch_tokens=1)
    with pytest.raises(InvalidInputError, match=r"^inputs\[5\]: "):
        encoder.encode([*sentences(5), LONG], truncate="error")
    gate.set()
    encoder.close()
    assert len(batches) <= 1, "the one that had begun, if any"


# From a name to an encoder.


@pytest.mark.parametrize("kind", [str, Path])
def test_an_artifact_is_loaded(tiny_artifact: Path, tmp_path: Path, kind: type[str] | type[Path]) -> None:
    with Encoder(kind(tiny_artifact), device="cpu", threads=1, cache_dir=tmp_path) as encoder:
        assert encoder.encode(["hello world"]).shape == (1, 60)
        assert encoder.manifest.layers == 3
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_is_exported_first_and_found_the_second_time(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_checkpoint.parent)
    with Encoder(Path(tiny_checkpoint.name), device="cpu", cache_dir=tmp_path) as first:
        expected = first.encode("hello world")
    monkeypatch.setattr(subprocess, "Popen", None)  # nothing is exported any more
    with Encoder(str(tiny_checkpoint), device="cpu", cache_dir=str(tmp_path)) as second:
        np.testing.assert_array_equal(second.encode("hello world"), expected)


def test_a_path_is_a_folder_and_no_model_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for model in (Path("no/such-folder"), "./no/such-folder"):
        with pytest.raises(ModelNotFoundError, match="there is no such folder"):
            Encoder(model, device="cpu", cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("device", ["gpu", "CPU", "", "cuda:", "cuda:one", "cuda:0,0", "cuda:-1", "mps"])
def test_a_device_that_there_is_not_is_named(
    tiny_artifact: Path, tiny_checkpoint: Path, tmp_path: Path, device: str
) -> None:
    for model in (tiny_artifact, tiny_checkpoint):
        with pytest.raises(DeviceError, match=f"--device {device}: must be auto, cpu, cuda"):
            Encoder(model, device=device, cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == [], "nothing is exported for it"


def test_a_precision_that_there_is_not_is_named(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="--precision float16: must be one of fp32, fp16, int8"):
        Encoder(tiny_checkpoint, device="cpu", precision="float16", cache_dir=tmp_path)  # type: ignore[arg-type]


def test_an_artifact_in_another_precision_is_refused(tiny_artifact: Path) -> None:
    with pytest.raises(DeviceError, match="--precision int8: the artifact is in fp32"):
        Encoder(tiny_artifact, device="cpu", precision="int8")


def test_a_damaged_artifact_is_refused(tiny_copy: Path) -> None:
    (tiny_copy / "weights.bin").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"weights\.bin is not the file that was exported"):
        Encoder(tiny_copy, device="cpu")


def test_an_encoder_loads_neither_http_nor_the_export(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """With the model in the cache, from its name to its vectors."""
    find_artifact(str(tiny_checkpoint), ExportTarget("cpu", "fp32"), tmp_path)
    code = (
        "import sys, berth\n"
        "with berth.Encoder(sys.argv[1], device='cpu', cache_dir=sys.argv[2]) as encoder:\n"
        "    assert encoder.encode('hello').shape == (60,)\n"
        "    assert encoder.features(['hello'], [berth.Feature('none')])[0][0].shape[1] == 60\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    command = [sys.executable, "-c", code, str(tiny_checkpoint), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    loaded = set(result.stdout.split())
    assert {"berth", "numpy", "onnxruntime", "tokenizers"} <= loaded
    assert not loaded & {"fastapi", "starlette", "uvicorn", "pydantic_settings", "prometheus_client"}
    assert not loaded & {"service", "model_export", "onnx", "safetensors", "huggingface_hub", "torch", "transformers"}


def test_the_manifest_says_what_the_model_is(fake: Encoder) -> None:
    manifest = fake.manifest
    assert isinstance(manifest, Manifest)
    assert (manifest.hidden_size, manifest.max_tokens, manifest.pooling) == (WIDTH, 256, Pooling.MEAN)


def test_devices_take_turns_over_calls(make_encoder: MakeEncoder) -> None:
    backends = [Noting(), Noting()]
    encoder = make_encoder(*backends, threads=1)
    for word in WORDS[:6]:
        encoder.encode(word)
    assert [len(backend.batches) for backend in backends] == [3, 3]


def test_lost_device_gets_no_more(make_encoder: MakeEncoder, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1)

    def fail(_: Sequence[TokenSequence]) -> list[Vectors]:
        raise DeviceLostError("gone")

    encoder = make_encoder(FakeEncoder(fail), other := Noting(), threads=1)
    with pytest.raises(EncoderError, match="device has failed"):
        encoder.encode(WORDS[0])
    for word in WORDS:
        encoder.encode(word)
    assert len(other.batches) == len(WORDS)


def test_closed_encoder_says_so(make_encoder: MakeEncoder) -> None:
    encoder = make_encoder(Noting())
    encoder.close()
    for texts in ("a", ["a"], []):
        with pytest.raises(EncoderError, match="the encoder is closed"):
            encoder.encode(texts)


@pytest.mark.parametrize("dimensions", [True, 0, 385, 1.5, "8"])
def test_dimensions_are_a_number_of_the_vector(fake: Encoder, dimensions: Any) -> None:
    with pytest.raises(InvalidInputError, match="dimensions: must be an integer from 1 to 384"):
        fake.encode("a", dimensions=dimensions)


def test_integers_of_numpys_are_integers(fake: Encoder) -> None:
    assert fake.encode("a", dimensions=np.int64(8)).shape == (8,)  # type: ignore[arg-type]  # an integer all the same
    assert fake.encode("a", truncate={"window": np.int64(16)}).shape == (384,)
