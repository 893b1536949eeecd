"""Near attention: texts cut into chunks of queries, each with the keys that any of them reaches."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from berth.types import Int32Array

CHUNK = 64
"""Queries of a chunk. With the reach of ModernBERT, 64 to each side, a chunk has 192 keys."""


@dataclass(frozen=True, slots=True, eq=False)
class Chunks:
    """Which packed rows the queries and the keys of each chunk are, and where each token's query is."""

    queries: Int32Array
    """[chunks, queries]; past a text's end its first token's row."""
    keys: Int32Array
    """[chunks, keys]; likewise."""
    inside: NDArray[np.bool_]
    """[chunks, queries, keys]: whether the key is there and within the query's reach."""
    chunk_of: Int32Array
    """[tokens]: the chunk that has the token's query,"""
    place_of: Int32Array
    """[tokens]: and its place there."""


def chunks_of(lengths: Int32Array, first_tokens: Int32Array, reach: int) -> Chunks:
    """Cut texts of some lengths, which begin at some packed rows; a token reaches `reach` places to each side."""
    longest = int(lengths.max())
    queries, keys = CHUNK, CHUNK + 2 * reach
    if longest <= keys:  # hardly a key less would be read
        queries = keys = longest
    counts = -(-lengths // np.int32(queries))
    texts = np.repeat(np.arange(len(lengths), dtype=np.int32), counts)
    starts = (np.arange(len(texts), dtype=np.int32) - np.repeat(np.cumsum(counts) - counts, counts)) * queries
    ends, firsts = lengths[texts][:, None], first_tokens[texts][:, None]
    key_starts = np.clip(starts - reach, 0, np.maximum(lengths[texts] - keys, 0))
    query_places = starts[:, None].astype(np.int32) + np.arange(queries, dtype=np.int32)
    key_places = key_starts[:, None].astype(np.int32) + np.arange(keys, dtype=np.int32)
    reached = np.abs(query_places[:, :, None] - key_places[:, None, :]) <= reach
    query_rows, key_rows = (np.where(each < ends, each, 0) + firsts for each in (query_places, key_places))
    chunk_of, place_of = (index.astype(np.int32) for index in np.nonzero(query_places < ends))
    return Chunks(query_rows, key_rows, reached & (key_places < ends)[:, None, :], chunk_of, place_of)
