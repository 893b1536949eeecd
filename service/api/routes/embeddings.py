"""POST /v1/embeddings: OpenAI's route."""

import numpy as np
from fastapi import APIRouter, Request, Response

from service.api.replies import base64_of, large_json_reply
from service.api.requests import EncoderRoute
from service.api.schemas import EmbeddingsRequest
from service.api.state import CurrentState, State
from service.errors import InvalidInputError
from service.inference.pooling import normalize
from service.inference.types import Float32Array

router = APIRouter(route_class=EncoderRoute, tags=["vectors"])


@router.post("/v1/embeddings", summary="One vector a text, as OpenAI's API gives it")
async def embeddings(body: EmbeddingsRequest, request: Request, state: CurrentState) -> Response:
    """Encode texts, or token ids as `/v1/tokenize` gives them, with the model's own pooling and normalisation."""
    state.check_model(body.model)
    _check_dimensions(state, body.dimensions)
    texts = state.prompted(body.input.texts, body.prompt_name)
    embedded = await state.embed(request, texts, [state.sentence_feature], body.truncate)
    vectors = np.stack([vector for [vector] in embedded.vectors])
    if body.dimensions is not None:
        vectors = normalize(vectors[:, : body.dimensions])
    return await large_json_reply(_content(state, vectors, embedded.tokens, body.encoding_format), vectors.size)


def _check_dimensions(state: State, dimensions: int | None) -> None:
    if dimensions is not None and dimensions > state.manifest.hidden_size:
        raise InvalidInputError("dimensions", f"must be at most the model's {state.manifest.hidden_size}")


def _content(state: State, vectors: Float32Array, tokens: int, encoding_format: str) -> object:
    spell = base64_of if encoding_format == "base64" else np.asarray
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": spell(vector)} for index, vector in enumerate(vectors)
        ],
        "model": state.model_name,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
