"""POST /v1/similarity: how near texts are to each other."""

import asyncio

import numpy as np
from fastapi import APIRouter, Request, Response

from service.api.replies import json_reply
from service.api.requests import EncoderRoute
from service.api.schemas import SimilarityRequest
from service.api.state import CurrentState
from service.errors import InvalidInputError
from service.inference.similarity import Float64Array, best, pairwise_scores, scores
from service.inference.types import Float32Array, Metric

MAX_SCORES = 1 << 20
"""The most scores that one reply holds."""
INLINE_PRODUCTS = 1 << 20
"""Products of two numbers up to which scores are computed on the event loop, in about a millisecond."""

router = APIRouter(route_class=EncoderRoute, tags=["vectors"])


@router.post("/v1/similarity", summary="How near texts are to each other")
async def similarity(body: SimilarityRequest, request: Request, state: CurrentState) -> Response:
    """Compare sources with targets; larger is nearer, so distances are negated.

    `scores` is a number for two strings, a list for a string and a list, a matrix (a row a source) for two lists, and a
    list for two lists that are `pairwise`. With `top_k` the answer has `matches` instead: for each source its nearest
    targets as `{"index", "score"}`, nearest first.
    """
    state.check_model(body.model)
    _check(body)
    count = len(body.source.texts)
    embedded = await state.embed(
        request, [*body.source.texts, *body.target.texts], [state.sentence_feature], body.truncate
    )
    vectors = np.stack([vector for [vector] in embedded.vectors])
    metric = body.metric or state.manifest.similarity
    arguments = (body, metric, vectors[:count], vectors[count:])
    large = count * (len(vectors) - count) * vectors.shape[1] > INLINE_PRODUCTS
    compared = await asyncio.to_thread(_compare, *arguments) if large else _compare(*arguments)
    content = {"model": state.model_name, **compared}
    content["usage"] = {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens}
    return await asyncio.to_thread(json_reply, content) if large else json_reply(content)


def _check(body: SimilarityRequest) -> None:
    sources, targets = len(body.source.texts), len(body.target.texts)
    if body.pairwise and sources != targets:
        raise InvalidInputError("pairwise", f"needs as many targets as sources, not {targets} and {sources}")
    if body.pairwise and body.top_k is not None:
        raise InvalidInputError("top_k", "does not go with pairwise")
    given = 1 if body.pairwise else targets if body.top_k is None else min(body.top_k, targets)
    if sources * given > MAX_SCORES:
        raise InvalidInputError("target", f"{sources * given} scores, at most {MAX_SCORES}; use top_k")


def _compare(body: SimilarityRequest, metric: Metric, source: Float32Array, target: Float32Array) -> dict[str, object]:
    if body.pairwise:
        paired = pairwise_scores(metric, source, target)
        return {"scores": paired[0].item() if body.source.single and body.target.single else paired}
    matrix = scores(metric, source, target)
    if body.top_k is not None:
        matches = [_matches(row, columns) for row, columns in zip(matrix, best(matrix, body.top_k), strict=True)]
        return {"matches": matches[0] if body.source.single else matches}
    if body.source.single and body.target.single:
        return {"scores": matrix.item()}
    return {"scores": matrix[0] if body.source.single else matrix[:, 0].copy() if body.target.single else matrix}


def _matches(row: Float64Array, columns: np.typing.NDArray[np.intp]) -> list[dict[str, object]]:
    return [{"index": int(column), "score": float(row[column])} for column in columns]
