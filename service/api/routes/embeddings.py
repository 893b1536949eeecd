"""POST /v1/embeddings: OpenAI's route."""

import numpy as np
from fastapi import APIRouter, Request, Response

from berth.backends.pooling import shortened
from berth.features import check_dimensions
from berth.quantization import to_binary, to_int8
from berth.types import Float32Array
from service.api.answers import EmbeddingsAnswer, responses_of
from service.api.replies import ARROW, RAW, Array, binary_reply, encode_vector, large_json_reply, negotiate
from service.api.requests import EncoderRoute
from service.api.schemas import EmbeddingsRequest, EmbeddingType
from service.api.state import CurrentState

router = APIRouter(route_class=EncoderRoute, tags=["vectors"])


@router.post(
    "/v1/embeddings",
    summary="One vector a text, as OpenAI's API gives it",
    responses=responses_of(EmbeddingsAnswer, RAW, ARROW),
)
async def embeddings(body: EmbeddingsRequest, request: Request, state: CurrentState) -> Response:
    """Encode texts, or token ids as `/v1/tokenize` gives them, with the model's own pooling and normalisation.

    `embedding_type` `int8` gives numbers from -127 to 127 and each vector's `scale`; `binary` gives the signs, eight
    to a byte, the first the highest bit, less 128. With `Accept: application/octet-stream` the vectors come as raw
    bytes.
    """
    model = state.model(body.model)
    if body.dimensions is not None:
        check_dimensions(body.dimensions, model.manifest)
    media = negotiate(request)
    embedded = await model.embed(
        request,
        body.input.texts,
        [model.sentence_feature],
        body.truncate,
        prompt_name=body.prompt_name,
        limited="input",
    )
    vectors = np.stack([item.vectors[0] for item in embedded.answered])
    if body.dimensions is not None:
        vectors = shortened(vectors, body.dimensions)
    numbers, scales = _quantized(vectors, body.embedding_type)
    if media != "json":
        return await binary_reply(numbers, media, scales)

    def content() -> dict[str, object]:
        data: list[dict[str, object]] = [
            {"object": "embedding", "index": index, "embedding": vector}
            for index, vector in enumerate(encode_vector(numbers, body.encoding_format))
        ]
        for item, scale in zip(data, scales, strict=False):
            item["scale"] = scale
        return {"object": "list", "data": data, "model": model.name, "usage": embedded.usage}

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
