"""POST /v1/similarity: how near texts are to each other."""

from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response

from berth.errors import InvalidInputError
from berth.similarity import Float64Array, best, max_sim, pairwise_scores, scores
from berth.text.prepared import Item
from berth.types import IntArray, Metric, Pooling, ResolvedFeature
from service.api.answers import SimilarityAnswer, responses_of
from service.api.fields import WindowCut
from service.api.replies import large_json_reply
from service.api.requests import EncoderRoute
from service.api.schemas import SimilarityRequest
from service.api.state import CurrentState, ServedModel

MAX_SCORES = 1 << 20
"""The most scores that one reply holds."""
PRODUCTS = 16
"""Products of two numbers that are computed while one number is written, of a reply."""

router = APIRouter(route_class=EncoderRoute, tags=["vectors"])


@router.post("/v1/similarity", summary="How near texts are to each other", responses=responses_of(SimilarityAnswer))
async def similarity(body: SimilarityRequest, request: Request, state: CurrentState) -> Response:
    """Compare sources with targets; larger is nearer, so distances are negated.

    `scores` is a number for two strings, a list for a string and a list, a matrix (a row a source) for two lists, and a
    list for two lists that are `pairwise`. With `top_k` the answer has `matches` instead: for each source its nearest
    targets as `{"index", "score"}`, nearest first. With `granularity` `token`, two strings are compared token by token:
    `scores` is their matrix, `source_tokens` and `target_tokens` say what its rows and columns are, and `max_sim` is
    the late-interaction score, the sum over the source's tokens of each one's best score (Khattab and Zaharia 2020).
    """
    model = state.model(body.model)
    _check(body)
    feature = _feature(body, model)
    embedded = await model.embed(
        request,
        [*body.source.texts, *body.target.texts],
        [feature],
        body.truncate,
        prompt_name=body.prompt_name,
        table=body.granularity == "token",
        limited="source",
    )
    metric = body.metric or model.manifest.similarity
    compare = _compare_tokens if body.granularity == "token" else _compare_texts

    def content() -> dict[str, Any]:
        compared = compare(body, metric, embedded.answered)
        return {"model": model.name, **compared, "usage": embedded.usage}

    return await large_json_reply(content, _products(body, embedded.answered) // PRODUCTS)


def _feature(body: SimilarityRequest, model: ServedModel) -> ResolvedFeature:
    if body.granularity == "token":
        if body.pooling not in (None, Pooling.NONE):
            raise InvalidInputError(
                "pooling", "does not go with granularity `token`, which compares tokens as they are"
            )
        body = body.model_copy(update={"pooling": Pooling.NONE})
    elif body.pooling in (Pooling.NONE, Pooling.WORDS):
        raise InvalidInputError("pooling", "must give one vector a text; granularity `token` compares tokens")
    elif body.is_left_out:
        return model.sentence_feature
    return body.resolve(model.manifest, normalize=model.manifest.normalize)


def _check(body: SimilarityRequest) -> None:
    sources, targets = len(body.source.texts), len(body.target.texts)
    if body.granularity == "token":
        if not (body.source.single and body.target.single):
            raise InvalidInputError("granularity", "`token` compares two strings, not lists")
        if body.pairwise or body.top_k is not None:
            raise InvalidInputError("granularity", "`token` goes with neither pairwise nor top_k")
        if isinstance(body.truncate, WindowCut):
            raise InvalidInputError("truncate", "windows do not go with granularity `token`")
    if body.pairwise and sources != targets:
        raise InvalidInputError("pairwise", f"needs as many targets as sources, not {targets} and {sources}")
    if body.pairwise and body.top_k is not None:
        raise InvalidInputError("top_k", "does not go with pairwise")
    given = 1 if body.pairwise else targets if body.top_k is None else min(body.top_k, targets)
    if sources * given > MAX_SCORES:
        raise InvalidInputError("target", f"{sources * given} scores, at most {MAX_SCORES}; use top_k")


def _products(body: SimilarityRequest, items: list[Item]) -> int:
    width = int(items[0].vectors[0].shape[-1])
    if body.granularity == "token":
        return len(items[0].vectors[0]) * len(items[1].vectors[0]) * width
    return len(body.source.texts) * (1 if body.pairwise else len(body.target.texts)) * width


def _compare_texts(body: SimilarityRequest, metric: Metric, items: list[Item]) -> dict[str, Any]:
    vectors = np.stack([item.vectors[0] for item in items])
    source, target = np.split(vectors, [len(body.source.texts)])
    if body.pairwise:
        paired = pairwise_scores(metric, source, target)
        return {"scores": paired[0].item() if body.source.single and body.target.single else paired}
    matrix = scores(metric, source, target)
    if body.top_k is not None:
        matches = [_matches(row, columns) for row, columns in zip(matrix, best(matrix, body.top_k), strict=True)]
        return {"matches": matches[0] if body.source.single else matches}
    return {"scores": _shaped(matrix, body)}


def _compare_tokens(body: SimilarityRequest, metric: Metric, items: list[Item]) -> dict[str, Any]:
    source, target = items
    tables = [[token for token in item.table or [] if not (body.exclude_special and token.special)] for item in items]
    matrix = scores(metric, source.vectors[0], target.vectors[0])
    return {
        "scores": matrix,
        "max_sim": max_sim(matrix),
        "source_tokens": tables[0],
        "target_tokens": tables[1],
    }


def _shaped(matrix: Float64Array, body: SimilarityRequest) -> object:
    """Leave out the axis of a side that was one string."""
    if body.source.single:
        return matrix.item() if body.target.single else matrix[0]
    return matrix[:, 0].copy() if body.target.single else matrix


def _matches(row: Float64Array, columns: IntArray) -> list[dict[str, object]]:
    return [{"index": int(column), "score": float(row[column])} for column in columns]
