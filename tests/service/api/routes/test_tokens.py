"""POST /v1/tokenize and /v1/detokenize."""

import unicodedata
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.service.api.conftest import Api

TEXTS = [
    "A ship in harbour.",
    "unbelievably intertwined embeddings",
    "船停靠在港口",
    "السفينة راسية",
    "caf\u00e9 cafe\u0301 na\u00efve",
    "\U0001f6a2\u2693\ufe0f and \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "a\0b \u202eright\u202c",
    "[CLS] literal [SEP]",
    " ",
]


def tables(api: "Api", **fields: object) -> Any:
    answer = api.post("/v1/tokenize", fields)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


@pytest.mark.parametrize("text", TEXTS)
def test_offsets_slice_the_text(api: "Api", text: str) -> None:
    [table] = tables(api, inputs=text)
    assert table["index"] == 0
    places = [(token["start"], token["end"]) for token in table["tokens"] if not token["special"]]
    assert all(0 <= start < end <= len(text) for start, end in places)
    assert all(before[1] <= after[0] for before, after in pairwise(places))
    for token in table["tokens"]:
        if not token["special"] and token["text"].isascii() and token["text"] != "[UNK]":
            piece = text[token["start"] : token["end"]].lower()
            assert plain(piece) == plain(token["text"].removeprefix("##"))


def plain(text: str) -> str:
    """Take accents and control characters away, as BERT's normalizer does."""
    return "".join(
        char
        for char in unicodedata.normalize("NFD", text.lower())
        if unicodedata.category(char) not in {"Mn", "Cc", "Cf"}
    )


def test_token_has_all_its_fields(api: "Api") -> None:
    [table] = tables(api, inputs="ships")
    assert table["tokens"] == [
        {"id": 101, "text": "[CLS]", "start": 0, "end": 0, "word": None, "special": True},
        {"id": 3719, "text": "ships", "start": 0, "end": 5, "word": 0, "special": False},
        {"id": 102, "text": "[SEP]", "start": 0, "end": 0, "word": None, "special": True},
    ]


def test_frame_can_be_left_out(api: "Api") -> None:
    [table] = tables(api, inputs="hello world", add_special_tokens=False)
    assert [token["id"] for token in table["tokens"]] == [7592, 2088]


def test_texts_are_not_cut(api: "Api") -> None:
    [first, second] = tables(api, inputs=["hello", "hello " * 1000])
    assert (first["index"], len(first["tokens"])) == (0, 3)
    assert (second["index"], len(second["tokens"])) == (1, 1002)


def test_ids_are_what_embeddings_take(api: "Api") -> None:
    ids = [[token["id"] for token in table["tokens"]] for table in tables(api, inputs=TEXTS)]
    assert api.post("/v1/embeddings", {"input": ids}).status_code == 200


@pytest.mark.parametrize(
    ("fields", "texts"),
    [
        ({"ids": [[101, 7592, 2088, 102]]}, ["hello world"]),
        ({"ids": [[101, 7592, 2088, 102]], "skip_special_tokens": False}, ["[CLS] hello world [SEP]"]),
        ({"ids": [[7592], [2088]]}, ["hello", "world"]),
        ({"ids": [[7861, 8270, 4667, 2015]]}, ["embeddings"]),
    ],
)
def test_ids_become_texts(api: "Api", fields: dict[str, object], texts: list[str]) -> None:
    assert api.post("/v1/detokenize", fields).json() == {"texts": texts}
