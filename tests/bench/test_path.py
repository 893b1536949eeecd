"""How moves between files are counted."""

import pytest

from bench.path import moves_of


@pytest.mark.parametrize(
    ("events", "moves"),
    [
        ([], 0),
        (["a.py"], 0),
        (["a.py", "a.py", "a.py"], 0),
        (["a.py", "b.py", "b.py", "a.py"], 2),
        (["a.py", "b.py", "a.py", "b.py", "c.py"], 4),
    ],
)
def test_a_move_is_a_change_of_file(events: list[str], moves: int) -> None:
    assert moves_of(events) == moves
