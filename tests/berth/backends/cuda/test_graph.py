"""The packed layout: ONNX Runtime's own example, and any lengths against a loop over texts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.backends.cuda.graph import INPUTS, layout


def test_the_example_of_onnx_runtime() -> None:
    """PackedMultiHeadAttention's in ContribOperators.md: texts of 1, 2 and 4 tokens."""
    feeds = layout((1, 2, 4))
    assert feeds["token_offset"].tolist() == [[0, 4, 5, 8], [9, 10, 11, 1], [2, 3, 6, 7]]
    assert feeds["cumulative_sequence_length"].tolist() == [0, 1, 3, 7]
    assert feeds["position_ids"].tolist() == [0, 0, 1, 0, 1, 2, 3]
    assert feeds["first_tokens"].tolist() == [0, 1, 3]


@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=10).map(tuple))
def test_any_lengths(lengths: tuple[int, ...]) -> None:
    feeds, longest = layout(lengths), max(lengths)
    tokens = [sequence * longest + place for sequence, length in enumerate(lengths) for place in range(length)]
    padding = [
        sequence * longest + place for sequence, length in enumerate(lengths) for place in range(length, longest)
    ]
    assert feeds["token_offset"].shape == (len(lengths), longest)
    assert feeds["token_offset"].ravel().tolist() == tokens + padding
    assert feeds["position_ids"].tolist() == [place for length in lengths for place in range(length)]
    assert np.diff(feeds["cumulative_sequence_length"]).tolist() == list(lengths)
    assert feeds["first_tokens"].tolist() == feeds["cumulative_sequence_length"][:-1].tolist()


@pytest.mark.parametrize("name", layout((3, 1)).keys())
def test_every_array_is_an_input_in_int32(name: str) -> None:
    array = layout((3, 1))[name]
    assert array.dtype == np.int32
    assert array.ndim == len(INPUTS[name])
