"""Binary vectors are those of sentence-transformers."""

from typing import Any

import numpy as np
from sentence_transformers.util.quantization import quantize_embeddings

from berth.quantization import to_binary


def test_binary_is_that_of_sentence_transformers() -> None:
    vectors = np.random.default_rng(5).normal(size=(50, 384)).astype(np.float32)
    expected: Any = quantize_embeddings(vectors, precision="binary")
    ours = to_binary(vectors)
    np.testing.assert_array_equal(ours, expected)
    assert ours.dtype == expected.dtype
