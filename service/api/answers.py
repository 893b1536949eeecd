"""What the answers look like: models that document them on the OpenAPI page. `replies.py` makes them, faster."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from berth.text.tokenizer import Token
from service.api.errors import ErrorDetails

Numbers = list[float]
Rows = list[Numbers]


class Answer(BaseModel):
    """An answer that has these fields and no others."""

    model_config = ConfigDict(extra="forbid")


class Usage(Answer):
    """Tokens that were encoded, padding not counted."""

    prompt_tokens: int
    total_tokens: int


class Embedding(Answer):
    """A text's vector, as numbers or as base64 of its bytes; int8 has a scale beside it."""

    object: Literal["embedding"]
    index: int
    embedding: Numbers | str
    scale: float = 1.0


class EmbeddingsAnswer(Answer):
    """One vector a text."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class Item(Answer):
    """An input's features: of each a vector, or a vector a token or word; as numbers or as base64 of their bytes."""

    index: int
    features: list[Numbers | str | Rows | list[str]]
    token_count: int
    truncated: bool
    tokens: list[Token] = []


class ItemError(Answer):
    """An input that cannot be encoded."""

    index: int
    error: ErrorDetails


class FeaturesAnswer(Answer):
    """What was asked for of each input."""

    model: str
    data: list[Item | ItemError]
    usage: Usage


class Match(Answer):
    """A target and how near it is."""

    index: int
    score: float


class SimilarityAnswer(Answer):
    """`scores`, or `matches` with `top_k`; the rest with granularity `token`."""

    model: str
    scores: float | Numbers | Rows = 0.0
    matches: list[Match] | list[list[Match]] = []
    max_sim: float = 0.0
    source_tokens: list[Token] = []
    target_tokens: list[Token] = []
    usage: Usage


class TokenTable(Answer):
    """A text's tokens."""

    index: int
    tokens: list[Token]


class TokenizeAnswer(Answer):
    """Each text's tokens."""

    data: list[TokenTable]


class DetokenizeAnswer(Answer):
    """The texts."""

    texts: list[str]


class ModelAnswer(Answer):
    """The model, as OpenAI's API describes one."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelsAnswer(Answer):
    """The one model there is."""

    object: Literal["list"]
    data: list[ModelAnswer]


class StatusAnswer(Answer):
    """How the service is."""

    status: Literal["live", "ready"]


class InfoAnswer(BaseModel):
    """The model and the limits: text-embeddings-inference's fields and Berth's own."""

    model_id: str
    model_dtype: str
    max_input_length: int
    max_client_batch_size: int
    version: str
    hidden_size: int
    width: int
    truncation_side: Literal["right", "left"]
    further_poolings: list[str]
    include_prompt: bool
    projection: list[dict[str, Any]]
    truncate_dim: int | None
    layers: int
    precision: str
    weight_bits: int | None


class TeiToken(Answer):
    """A token as text-embeddings-inference spells it."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class EncodeAnswer(Answer):
    """bert-as-service's answer."""

    id: str | int | None
    result: Rows
    status: Literal[200]


class ServerStatus(BaseModel):
    """Those of bert-as-service's fields that mean something here."""

    status: Literal[200]
    server_version: str
    model_dir: str
    max_seq_len: int


def responses_of(model: Any, *media_types: str) -> dict[int | str, dict[str, Any]]:
    """Document a route's answer, and the other media types it can have."""
    bytes_of = {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in media_types}
    return {200: {"model": model, "description": "The answer", "content": bytes_of}}
