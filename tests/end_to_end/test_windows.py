"""Long texts read in windows, against windows cut by hand and encoded by transformers."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Twin

Floats = NDArray[np.float64]

LONG = "the quick fox jumps, hello world of vectors and texts in 13 ships! " * 6
WINDOWS = [(32, 20), (32, 30), (40, 1), (32, 7), (3, 1), (40, 38), (21, None), (None, None)]
FEATURES: list[dict[str, Any]] = [
    {"pooling": "mean"},
    {"pooling": "max", "layers": [1, -1], "exclude_special": True},
    {"pooling": "cls", "normalize": True},
    {"pooling": "none"},
    {"pooling": "none", "exclude_special": True, "normalize": True},
    {"pooling": "words"},
]


def cut(count: int, room: int, stride: int) -> list[range]:
    """Lay windows over `count` tokens, one stride apart, until one ends where the text does."""
    spans = [range(min(room, count))]
    while spans[-1].stop < count:
        start = spans[-1].start + stride
        spans.append(range(start, min(start + room, count)))
    return spans


class Reference:
    """A text's windows by torch."""

    def __init__(self, twin: "Twin", text: str, window: int | None, stride: int | None) -> None:
        tokenizer = twin.torch.tokenizer
        self.encoding = tokenizer(text)
        body = self.encoding["input_ids"][1:-1]
        room = (window or twin.max_tokens) - 2
        self.spans = cut(len(body), room, stride or room)
        framed = [[tokenizer.cls_token_id, *(body[at] for at in span), tokenizer.sep_token_id] for span in self.spans]
        self.states = [twin.torch.states(ids)[0] for ids in framed]

    @property
    def tokens(self) -> Floats:
        """Each token from the window in which its distance to the nearer edge is largest, the first of equals."""
        last = [states[-1] for states in self.states]
        rows = [last[0][0]]
        for token in range(self.spans[-1].stop):
            distance = [min(token - span.start, span.stop - 1 - token) if token in span else -1 for span in self.spans]
            best = distance.index(max(distance))
            rows.append(last[best][1 + token - self.spans[best].start])
        return np.stack([*rows, last[-1][-1]])

    @property
    def new(self) -> list[int]:
        """The tokens that each window is the first to read."""
        seen: set[int] = set()
        counts = []
        for span in self.spans:
            counts.append(len(set(span) - seen))
            seen |= set(span)
        return counts

    def combined(self, parts: list[Floats], how: str) -> Floats:
        if how == "max":
            return np.asarray(np.max(parts, axis=0))
        total = sum(count * part for count, part in zip(self.new, parts, strict=True))
        return np.asarray(total / sum(self.new))

    def features(self, how: str) -> list[Floats]:
        """Compute `FEATURES`."""
        cls = self.combined([states[-1][0] for states in self.states], how)
        tokens = self.tokens
        inside = tokens[1:-1]
        words = np.array([-1 if word is None else word for word in self.encoding.word_ids()])
        highest = [np.concatenate([states[1], states[-1]], axis=1)[1:-1].max(axis=0) for states in self.states]
        return [
            self.combined([states[-1].mean(axis=0) for states in self.states], how),
            self.combined(highest, how),
            cls / np.linalg.norm(cls),
            tokens,
            inside / np.linalg.norm(inside, axis=1, keepdims=True),
            np.stack([tokens[words == word].mean(axis=0) for word in range(words.max() + 1)]),
        ]


def option(window: int | None, stride: int | None, how: str = "mean") -> dict[str, Any]:
    fields = {"window": window, "stride": stride, "combine": how}
    return {name: value for name, value in fields.items() if value is not None}


@pytest.mark.parametrize(("window", "stride"), WINDOWS)
@pytest.mark.parametrize("how", ["mean", "max"])
def test_windows_are_put_together_as_said(twin: "Twin", window: int | None, stride: int | None, how: str) -> None:
    if window == 3:
        text = "hello world of text and vector"
    elif twin.max_tokens > 40 and window is None:
        text = LONG * 4
    else:
        text = LONG
    reference = Reference(twin, text, window, stride)
    assert len(reference.spans) > 1
    [item] = twin.features(inputs=[text], features=FEATURES, truncate=option(window, stride, how), include_tokens=True)
    assert [token["id"] for token in item["tokens"]] == reference.encoding["input_ids"]
    assert (item["token_count"], item["truncated"]) == (len(reference.encoding["input_ids"]), False)
    for feature, vector, expected in zip(FEATURES, item["features"], reference.features(how), strict=True):
        np.testing.assert_allclose(vector, expected, rtol=0, atol=twin.tolerance, err_msg=str(feature))


@pytest.mark.parametrize("text", ["hello", "hello world " * 15, " "])
@pytest.mark.parametrize("how", ["mean", "max"])
def test_text_that_fits_into_one_window_is_as_without(tiny: "Twin", text: str, how: str) -> None:
    features = [{"pooling": "mean"}, {"pooling": "none"}, {"pooling": "words", "normalize": True}]
    [windowed] = tiny.features(inputs=[text], features=features, truncate=option(32, 5, how))
    [plain] = tiny.features(inputs=[text], features=features)
    assert windowed == plain


def test_short_and_long_texts_go_together(twin: "Twin") -> None:
    texts = ["hello", LONG, "the text", LONG + " hello"]
    together = twin.features(inputs=texts, truncate=option(32, 20))
    for text, item in zip(texts, together, strict=True):
        [alone] = twin.features(inputs=[text], truncate=option(32, 20))
        np.testing.assert_allclose(item["features"], alone["features"], atol=twin.tolerance)
        assert item["token_count"] == alone["token_count"]


def test_words_already_split_are_windowed_too(tiny: "Twin") -> None:
    words = LONG.split()[:30]
    reference = Reference(tiny, " ".join(words), 32, 20)
    [item] = tiny.features(
        inputs=[{"tokens": words}], features=[{"pooling": "none"}, {"pooling": "words"}], truncate=option(32, 20)
    )
    np.testing.assert_allclose(item["features"][0], reference.tokens, rtol=0, atol=tiny.tolerance)
    assert len(item["features"][1]) == len(words)


def test_each_window_is_counted_as_a_unit_with_its_tokens(twin: "Twin") -> None:
    reference = Reference(twin, LONG, 32, 20)
    reply = twin.post("/v1/features", inputs=[LONG], truncate=option(32, 20))
    assert reply["usage"]["total_tokens"] == sum(len(span) + 2 for span in reference.spans)


@pytest.mark.parametrize("how", ["mean", "max"])
def test_embeddings_take_windows(minilm_twice: "Twin", how: str) -> None:
    reference = Reference(minilm_twice, LONG, 32, 20)
    mean = reference.combined([states[-1].mean(axis=0) for states in reference.states], how)
    [item] = minilm_twice.post("/v1/embeddings", input=[LONG], truncate=option(32, 20, how))["data"]
    np.testing.assert_allclose(item["embedding"], mean / np.linalg.norm(mean), rtol=0, atol=1e-5)


@pytest.mark.parametrize("truncate", [{"window": 32, "stride": 20}, {}], ids=["beyond the window", "beyond the model"])
def test_long_pair_is_not_read_in_windows(tiny: "Twin", truncate: dict[str, int]) -> None:
    pair = ["hello " * 40, "world " * 40]
    answer = tiny.http.post("/v1/features", json={"inputs": [pair], "truncate": truncate})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "inputs[0]: 83 tokens: a pair can be cut at `end` or `start` alone"


def test_pair_beyond_the_window_alone_is_refused(tiny: "Twin") -> None:
    """The model would read it whole."""
    pair = {"inputs": [["hello " * 18, "world " * 18]]}
    assert tiny.http.post("/v1/features", json=pair).status_code == 200
    answer = tiny.http.post("/v1/features", json=pair | {"truncate": {"window": 20}})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "inputs[0]: 39 tokens: a pair can be cut at `end` or `start` alone"
