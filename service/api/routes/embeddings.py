"""POST /v1/embeddings: OpenAI's route."""

import numpy as np
from fastapi import APIRouter, Request, Response

from service.api.answers import EmbeddingsAnswer, documented
from service.api.replies import ARROW, RAW, Array, accepted, binary_reply, large_json_reply, spelled
from service.api.requests import EncoderRoute
from service.api.schemas import EmbeddingsRequest, EmbeddingType
from service.api.state import CurrentState
from service.api.wishes import check_dimensions, sentence_feature, truncation_of
from service.inference.pooling import shortened
from service.inference.quantization import to_binary, to_int8
from service.inference.reading import Wish
from service.inference.types import Float32Array

router = APIRouter(route_class=EncoderRoute, tags=["vectors"])


@router.post(
    "/v1/embeddings",
    summary="One vector a text, as OpenAI's API gives it",
    responses=documented(EmbeddingsAnswer, RAW, ARROW),
)
async def embeddings(body: EmbeddingsRequest, request: Request, state: CurrentState) -> Response:
    """Encode texts, or token ids as `/v1/tokenize` gives them, with the model's own pooling and normalisation.

    `embedding_type` `int8` gives numbers from -127 to 127 and each vector's `scale`; `binary` gives the signs, eight
    to a byte, the first the highest bit, less 128. With `Accept: application/octet-stream` the vectors come as raw
    bytes.
    """
    state.check_model(body.model)
    check_dimensions(body.dimensions, state.manifest)
    media = accepted(request)
    texts = state.prompted(body.input.texts, body.prompt_name)
    feature = sentence_feature(state.manifest)
    wish = Wish((feature,), truncation_of(body.truncate, state.manifest), limited="input")
    embedded = await state.embed(request, texts, wish)
    vectors = np.stack([item.vectors[0] for item in embedded.answered])
    if body.dimensions is not None:
        vectors = shortened(vectors, body.dimensions)
    numbers, scales = _quantized(vectors, body.embedding_type)
    if media != "json":
        return await binary_reply(numbers, media, scales)

    def content() -> dict[str, object]:
        data: list[dict[str, object]] = [
            {"object": "embedding", "index": index, "embedding": spelled(vector, body.encoding_format)}
            for index, vector in enumerate(numbers)
        ]
        for item, scale in zip(data, scales, strict=False):
            item["scale"] = scale
        return {"object": "list", "data": data, "model": state.model_name, "usage": embedded.usage}

    return await large_json_reply(content, vectors.size)


def _quantized(vectors: Float32Array, embedding_type: EmbeddingType) -> tuple[Array, list[float]]:
    """Give the numbers to send and, for int8, each vector's scale."""
    match embedding_type:
        case "float32":
            return vectors, []
        case "float16":
            return vectors.astype(np.float16), []
        case "int8":
            numbers, scales = to_int8(vectors)
            return numbers, scales.tolist()
        case "binary":
            return to_binary(vectors), []
