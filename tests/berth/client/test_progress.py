"""The bar of both clients."""

import sys

import numpy as np
import pytest
import tqdm.auto

from berth import ServiceError
from tests.berth.client.conftest import Ask, Fake, refusal


class Bar:
    """Stands in for tqdm."""

    made: list["Bar"]

    def __init__(self, unit: str) -> None:
        assert unit == "text"
        self.steps: list[int] = []
        self.closed = False
        type(self).made.append(self)

    def update(self, steps: int) -> None:
        self.steps.append(steps)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Bar]:
    Bar.made = []
    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    return Bar.made


def test_a_bar_on_request_counts_texts(ask: Ask, bars: list[Bar]) -> None:
    ask("embed", map(str, range(7)), progress=True, options={"batch_size": 3})
    assert [(bar.steps, bar.closed) for bar in bars] == [([3, 3, 1], True)]


def test_no_bar_unless_asked_for(ask: Ask, bars: list[Bar], capfd: pytest.CaptureFixture[str]) -> None:
    ask("embed", ["1", "2"])
    assert bars == []
    assert capfd.readouterr() == ("", "")


def test_a_bar_is_closed_after_an_error(fake: Fake, ask: Ask, bars: list[Bar]) -> None:
    fake.answer = lambda _: refusal(400)
    with pytest.raises(ServiceError):
        ask("embed", ["1"], progress=True)
    assert [(bar.steps, bar.closed) for bar in bars] == [([], True)]


def test_the_bar_is_tqdms(ask: Ask, capfd: pytest.CaptureFixture[str]) -> None:
    ask("embed", map(str, range(7)), progress=True)
    assert "7text" in capfd.readouterr().err


def test_a_bar_without_tqdm_says_what_to_install(fake: Fake, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    np.testing.assert_array_equal(ask("embed", "7"), [7, 7])
    with pytest.raises(ImportError, match="pip install tqdm"):
        ask("embed", "7", progress=True)
    assert len(fake.asked) == 1
