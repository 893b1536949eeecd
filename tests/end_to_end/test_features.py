"""POST /v1/features against transformers: poolings, layers, merges, pairs, words, offsets and cuts."""

import base64
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Twin

Floats = NDArray[np.float64]
Features = list[dict[str, Any]]

POOLINGS = ["cls", "mean", "max", "mean_max", "last", "weighted_mean", "mean_sqrt_len", "pooler", "none", "words"]
TEXTS = ["hello world", "The quick fox, unwell: 13!", "na\u00efve cafe\u0301 \U0001f600 \u4f60\u597d", "x", "[SEP] of"]
SPLIT = ["unwell", "worlds", "13,000", "\u4f60\u597d", "x"]
TWO_FEATURES: Features = [
    {"pooling": "none"},
    {"pooling": "mean", "layers": [1, -1], "merge": "sum", "exclude_special": True},
]


def decoded(value: Any) -> Floats:
    """Read base64 of a vector, or of each row."""
    rows = [value] if isinstance(value, str) else value
    numbers = [np.frombuffer(base64.b64decode(row), dtype="<f4").astype(np.float64) for row in rows]
    return numbers[0] if isinstance(value, str) else np.stack(numbers)


def merged(states: list[Floats], layers: list[int], merge: Any) -> Floats:
    chosen = [states[layer] for layer in layers]
    match merge:
        case "concat":
            return np.concatenate(chosen, axis=1)
        case "mean":
            return np.asarray(np.mean(chosen, axis=0))
        case "sum":
            return np.asarray(np.sum(chosen, axis=0))
        case _:
            return np.asarray(sum(weight * state for weight, state in zip(merge["weights"], chosen, strict=True)))


def pooled(pooling: str, rows: Floats) -> Floats:
    places = np.arange(1, len(rows) + 1)
    results: dict[str, Floats] = {
        "cls": rows[0],
        "mean": rows.mean(axis=0),
        "max": rows.max(axis=0),
        "mean_max": np.concatenate([rows.mean(axis=0), rows.max(axis=0)]),
        "last": rows[-1],
        "weighted_mean": places @ rows / places.sum(),
        "mean_sqrt_len": rows.sum(axis=0) / len(rows) ** 0.5,
        "none": rows,
    }
    return results[pooling]


def expected(twin: "Twin", encoding: Any, feature: dict[str, Any]) -> Floats:
    """Compute a feature from transformers' hidden states; `encoding` is its tokenizer's."""
    states, pooler = twin.torch.states(encoding["input_ids"], encoding["token_type_ids"])
    rows = merged(states, feature.get("layers", [-1]), feature.get("merge", "concat"))
    words = list(zip(encoding.sequence_ids(), encoding.word_ids(), strict=True))  # (None, None): a special token
    if feature["pooling"] == "pooler":
        vector = pooler
    elif feature["pooling"] == "words":
        places = {
            word: [at for at, other in enumerate(words) if other == word] for word in words if word[1] is not None
        }
        vector = np.stack([rows[at].mean(axis=0) for at in places.values()])
    else:
        kept = [at for at, (_, word) in enumerate(words) if word is not None or not feature.get("exclude_special")]
        vector = pooled(feature["pooling"], rows[kept])
    return vector / np.linalg.norm(vector, axis=-1, keepdims=True) if feature.get("normalize") else vector


def features_of(pooling: str) -> Features:
    """List every way to ask for a pooling: layers x merge x exclude_special x normalize."""
    if pooling == "pooler":
        return [{"pooling": pooling}, {"pooling": pooling, "normalize": True}]
    features = []
    for layers, merge, exclude, normalize in product(
        [[-1], [0], [-4, -3, -2, -1], [3, 1]], ["concat", "mean", "sum", "weights"], [False, True], [False, True]
    ):
        ways = {"weights": [0.5, -1.5, 2.0, 0.25][: len(layers)]} if merge == "weights" else merge
        feature = {"pooling": pooling, "layers": layers, "merge": ways, "normalize": normalize}
        features.append(feature | ({"exclude_special": True} if exclude and pooling != "cls" else {}))
    return features


@pytest.mark.parametrize("pooling", POOLINGS)
def test_features_are_torchs(twin: "Twin", pooling: str) -> None:
    features = features_of(pooling)
    data = twin.features(inputs=TEXTS, features=features, encoding_format="base64")
    for text, item in zip(TEXTS, data, strict=True):
        encoding = twin.torch.tokenizer(text)
        assert (item["token_count"], item["truncated"]) == (len(encoding["input_ids"]), False)
        for feature, vector in zip(features, item["features"], strict=True):
            np.testing.assert_allclose(
                decoded(vector), expected(twin, encoding, feature), rtol=0, atol=twin.tolerance, err_msg=str(feature)
            )


def test_floats_and_base64_are_one(tiny: "Twin") -> None:
    features = [{"pooling": pooling} for pooling in POOLINGS]
    [floats] = tiny.features(inputs=["hello world"], features=features)
    [exact] = tiny.features(inputs=["hello world"], features=features, encoding_format="base64")
    for numbers, vector in zip(floats["features"], exact["features"], strict=True):
        np.testing.assert_array_equal(np.array(numbers, dtype="<f4"), decoded(vector))


def test_default_is_the_models_own_pooling_of_the_last_layer(minilm_twice: "Twin") -> None:
    [item] = minilm_twice.features(inputs="a ship")
    [reply] = minilm_twice.post("/v1/embeddings", input="a ship")["data"]
    [mean] = item["features"]
    np.testing.assert_allclose(mean / np.linalg.norm(mean), reply["embedding"], atol=1e-6)


@pytest.mark.parametrize(
    ("first", "second"), [(1, 1), (2, 500), (500, 2), (500, 500), (0.5, 0.7), (0.7, 0.5), (0.49, 0.49), (0, 500)]
)
@pytest.mark.parametrize(("truncate", "side"), [("end", "right"), ("start", "left")])
def test_pairs_are_those_of_transformers(
    twin: "Twin", first: float, second: float, truncate: str, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two texts of some words, or of some share of the model's maximum."""
    counts = [int(count if count in (0, 1, 2, 500) else count * twin.max_tokens) for count in (first, second)]
    pair = ["hello world the of " * (counts[0] // 4) + "hello " * (counts[0] % 4), "text and vector in " * counts[1]]
    pair[1] = " ".join(pair[1].split()[: counts[1]])
    monkeypatch.setattr(twin.torch.tokenizer, "truncation_side", side)
    encoding = twin.torch.tokenizer(*pair, truncation=True, max_length=twin.max_tokens)
    features: Features = [*TWO_FEATURES, {"pooling": "words"}, {"pooling": "cls"}]
    [item] = twin.features(
        inputs=[pair], features=features, truncate=truncate, include_tokens=True, encoding_format="base64"
    )
    assert [token["id"] for token in item["tokens"]] == encoding["input_ids"]
    assert item["token_count"] == len(encoding["input_ids"]) <= twin.max_tokens
    assert item["truncated"] == (sum(counts) + 3 > twin.max_tokens)
    for feature, vector in zip(features, item["features"], strict=True):
        np.testing.assert_allclose(decoded(vector), expected(twin, encoding, feature), rtol=0, atol=twin.tolerance)


def test_words_already_split_are_those_of_transformers(twin: "Twin") -> None:
    features: Features = [*TWO_FEATURES, {"pooling": "words"}, {"pooling": "words", "normalize": True}]
    [item] = twin.features(inputs=[{"tokens": SPLIT}], features=features, include_tokens=True, encoding_format="base64")
    encoding = twin.torch.tokenizer(SPLIT, is_split_into_words=True)
    assert [token["id"] for token in item["tokens"]] == encoding["input_ids"]
    assert [token["word"] for token in item["tokens"]] == encoding.word_ids()
    assert len(item["features"][2]) == len(SPLIT)
    for feature, vector in zip(features, item["features"], strict=True):
        np.testing.assert_allclose(decoded(vector), expected(twin, encoding, feature), rtol=0, atol=twin.tolerance)


@pytest.mark.parametrize(
    "text",
    [
        *TEXTS,
        "\U0001f468\u200d\U0001f469\u200d\U0001f467\ufe0f up!\U0001f3f4\U000e0067\U000e0062 text",
        "e\u0301e\u0300\u0323 o\u0302\u0323x \u0915\u094d\u0937 \u1112\u1161\u11ab",
        "\u0301 a\0b \u200fof\u202e \u00ad",
        "  The\tthe \n ",
    ],
)
def test_offsets_slice_the_text_as_those_of_transformers(twin: "Twin", text: str) -> None:
    [item] = twin.features(inputs=[text], include_tokens=True)
    encoding = twin.torch.tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
    tokens = item["tokens"]
    assert [(token["start"], token["end"]) for token in tokens] == encoding["offset_mapping"]
    assert [token["id"] for token in tokens] == encoding["input_ids"]
    assert [token["word"] for token in tokens] == encoding.word_ids()
    assert [token["text"] for token in tokens] == encoding.tokens()
    assert [token["special"] for token in tokens] == [bool(mark) for mark in encoding["special_tokens_mask"]]


def test_offsets_of_a_pair_are_each_texts_own(twin: "Twin") -> None:
    pair = ("x cafe\u0301", "\U0001f600 of text")
    [item] = twin.features(inputs=[list(pair)], include_tokens=True)
    encoding = twin.torch.tokenizer(*pair, return_offsets_mapping=True)
    assert [(token["start"], token["end"]) for token in item["tokens"]] == encoding["offset_mapping"]


def test_words_of_a_pair_count_on_in_the_table(tiny: "Twin") -> None:
    [item] = tiny.features(inputs=[["hello world", "the text"]], features=[{"pooling": "words"}], include_tokens=True)
    assert len(item["features"][0]) == 4
    assert [token["word"] for token in item["tokens"]] == [None, 0, 1, None, 2, 3, None]


def ids_of(twin: "Twin", text: str) -> list[int]:
    ids: list[int] = twin.torch.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


LONG = "the quick fox jumps, hello world of vectors and texts in 13 ships! " * 40


@pytest.mark.parametrize(
    ("truncate", "head"),
    [("end", 1.0), ("start", 0.0), ("middle", 0.25), ({"head": 5}, 5), ({"head": 0}, 0), ({"head": 38}, 38)],
    ids=str,
)
def test_cut_keeps_head_and_tail(twin: "Twin", truncate: Any, head: float) -> None:
    """Rounded up, a quarter of the room is 10 of 38 and 64 of 254."""
    room = twin.max_tokens - 2
    first = int(head) if isinstance(truncate, dict) else int(np.ceil(head * room))
    body = ids_of(twin, LONG)
    kept = [*body[:first], *body[len(body) - (room - first) :]]
    [item] = twin.features(inputs=[LONG], features=TWO_FEATURES, truncate=truncate, include_tokens=True)
    assert [token["id"] for token in item["tokens"][1:-1]] == kept
    assert (item["token_count"], item["truncated"]) == (twin.max_tokens, True)
    frame = twin.torch.tokenizer.cls_token_id, twin.torch.tokenizer.sep_token_id
    states, _ = twin.torch.states([frame[0], *kept, frame[1]])
    none, mean = item["features"]
    np.testing.assert_allclose(none, states[-1], rtol=0, atol=twin.tolerance)
    np.testing.assert_allclose(mean, (states[1] + states[-1])[1:-1].mean(axis=0), rtol=0, atol=twin.tolerance)


def test_cut_token_table_still_slices_the_text(twin: "Twin") -> None:
    [item] = twin.features(inputs=[LONG], truncate="middle", include_tokens=True)
    for token in item["tokens"][1:-1]:
        assert LONG[token["start"] : token["end"]] == token["text"].removeprefix("##")


def test_bad_inputs_are_reported_and_the_others_answered(tiny: "Twin") -> None:
    inputs = ["hello", "", ["the", "text"], {"tokens": ["of", "\u200b"]}, " ", "hello " * 60, "world"]
    features = [{"pooling": "words"}, {"pooling": "mean", "exclude_special": True}]
    data = tiny.features(inputs=inputs, features=features, truncate="error", on_error="report")
    assert [item["index"] for item in data] == list(range(7))
    errors = {item["index"]: (item["error"]["param"], item["error"]["message"]) for item in data if "error" in item}
    assert errors == {
        1: ("inputs[1]", "inputs[1]: must not be empty"),
        3: ("inputs[3].tokens[1]", "inputs[3].tokens[1]: the tokenizer leaves nothing of this word"),
        4: ("inputs[4]", "inputs[4]: has special tokens only, and `exclude_special` leaves nothing of them"),
        5: ("inputs[5]", "inputs[5]: 62 tokens, the model takes 40"),
    }
    assert {item["error"]["code"] for item in data if "error" in item} == {"invalid_value"}
    alone = tiny.features(inputs=[inputs[index] for index in (0, 2, 6)], features=features)
    for item, lonely in zip([data[index] for index in (0, 2, 6)], alone, strict=True):
        for vector, same in zip(item["features"], lonely["features"], strict=True):
            np.testing.assert_allclose(vector, same, atol=1e-5)


def test_report_where_every_input_is_bad(tiny: "Twin") -> None:
    reply = tiny.post("/v1/features", inputs=["", ""], on_error="report")
    assert ["error" in item for item in reply["data"]] == [True, True]
    assert reply["usage"] == {"prompt_tokens": 0, "total_tokens": 0}


def test_without_report_the_first_bad_input_fails_the_request(tiny: "Twin") -> None:
    answer = tiny.http.post("/v1/features", json={"inputs": ["hello", "", ""]})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "inputs[1]")
