"""Prompts, truncation and dimensions."""

from typing import Any

import numpy as np
import pytest

from berth.artifact import Artifact
from berth.encoder import Encoder
from berth.errors import InvalidInputError
from berth.features import Feature
from berth.text.tokenizer import Tokenizer
from berth.types import Text
from tests.berth.encoder.noting import LONG, WIDTH, MakeEncoder, Noting

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


def test_a_long_text_is_cut_where_the_models_tokenizer_does_it(
    make_encoder: MakeEncoder, artifact: Artifact, fake: Encoder
) -> None:
    facts = artifact.manifest.tokenizer.model_copy(update={"truncation_side": "left"})
    left = make_encoder(Noting(), manifest={"tokenizer": facts})
    text = " ".join(map(str, range(300)))
    for truncate, same in ((None, "start"), ("end", "end"), ("start", "start")):
        np.testing.assert_array_equal(left.encode(text, truncate=truncate), fake.encode(text, truncate=same))
    np.testing.assert_array_equal(fake.encode(text), fake.encode(text, truncate="end"))
    [[pair]] = left.features([("a ship", text)])
    np.testing.assert_array_equal(pair, fake.features([("a ship", text)], truncate="start")[0][0])


@pytest.mark.parametrize("truncate", ["start", "middle", {"head": 3}, {"window": 40, "stride": 20}], ids=str)
def test_a_prompt_is_before_what_is_read_of_a_long_text(
    make_encoder: MakeEncoder, tokenizer: Tokenizer, truncate: Any
) -> None:
    encoder = make_encoder(backend := Noting(), manifest=PROMPTS)
    text = " ".join(map(str, range(300)))  # other tokens in each window, so that none comes twice
    [[rows]] = encoder.features([text], [Feature("none")], prompt_name="query", truncate=truncate)
    query = [token.id for token in tokenizer.tokens(Text("", "query:"), add_special_tokens=True)[:-1]]
    windows = backend.texts
    assert len(windows) == (15 if isinstance(truncate, dict) and "window" in truncate else 1)
    assert all(window[: len(query)] == query for window in windows)
    assert len(rows) == (len(query) + 301 if len(windows) > 1 else 256)


@pytest.mark.parametrize(
    ("truncate", "reason"),
    [
        ({"window": 5}, "its prompt and frame are 6 tokens and leave no room: a window takes 5"),
        (
            {"window": 8, "stride": 3},
            "truncate.stride must be at most 2, what a window of 8 has beside prompt and frame",
        ),
    ],
    ids=str,
)
def test_a_prompt_too_long_for_a_window_is_refused(make_encoder: MakeEncoder, truncate: Any, reason: str) -> None:
    encoder = make_encoder(Noting(), manifest={"prompts": {"query": "a query of: "}})
    with pytest.raises(InvalidInputError) as error:
        encoder.encode(LONG, prompt_name="query", truncate=truncate)
    assert str(error.value) == f"inputs[0]: {reason}"


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


@pytest.mark.parametrize("dimensions", [0, -1, 385, 1.5, "8", True], ids=repr)
def test_dimensions_that_a_vector_has_not_are_named(fake: Encoder, dimensions: Any) -> None:
    with pytest.raises(InvalidInputError, match=f"must be an integer from 1 to 384, not {dimensions!r}") as error:
        fake.encode(["a ship"], dimensions=dimensions)
    assert error.value.param == "dimensions"


def test_integers_of_numpys_are_integers(fake: Encoder) -> None:
    assert fake.encode("a", dimensions=np.int64(8)).shape == (8,)  # type: ignore[arg-type]  # an integer all the same
    assert fake.encode("a", truncate={"window": np.int64(16)}).shape == (384,)
