"""When a batch counts as one that hangs, by a clock that the test turns; tests/faults lets real ones hang."""

import threading
from collections.abc import Callable, Iterable, Sequence

import pytest

from service.inference.types import Unit, Vectors
from service.inference.watch import HOPELESS, LEAST_SECONDS, SLACK, Watch

MakeUnits = Callable[[Iterable[int]], list[Unit]]


class Clock:
    """An encoder whose batches take as long as it is told, on a clock of its own."""

    def __init__(self, patience: float = 30.0) -> None:
        self.now = 100.0
        self.takes = 0.0
        self.watch = Watch(self._encode, patience=patience, clock=lambda: self.now)
        self.during: Callable[[], None] = lambda: None

    def _encode(self, units: Sequence[Unit]) -> list[Vectors]:
        self.now += self.takes
        self.during()
        return [[] for _ in units]


@pytest.fixture
def clock() -> Clock:
    """Give a clock at which nothing has run yet."""
    return Clock()


def seen(clock: Clock, units: Sequence[Unit], takes: float) -> tuple[bool, bool]:
    """Run a batch; gives whether it was stalled and hung at its end."""
    found: list[tuple[bool, bool]] = []
    clock.takes, clock.during = takes, lambda: found.append((clock.watch.stalled, clock.watch.hung))
    clock.watch(units)
    return found[0]


def test_nothing_runs_nothing_hangs(clock: Clock) -> None:
    assert (clock.watch.stalled, clock.watch.hung) == (False, False)


@pytest.mark.parametrize(
    ("takes", "expected"),
    [
        (LEAST_SECONDS, (False, False)),
        (LEAST_SECONDS + 0.01, (True, False)),
        (30.0, (True, False)),
        (30.01, (True, True)),
    ],
)
def test_batch_that_takes_long_stalls_and_then_hangs(
    clock: Clock, make_units: MakeUnits, takes: float, expected: tuple[bool, bool]
) -> None:
    seen(clock, make_units([100]), 0.001)
    assert seen(clock, make_units([100]), takes) == expected
    assert (clock.watch.stalled, clock.watch.hung) == (False, False), "it has ended"


@pytest.mark.parametrize(("times", "hung"), [(0.99, False), (1.01, True)])
def test_batch_is_given_up_after_times_what_stalls_it_however_little_patience_there_is(
    make_units: MakeUnits, times: float, hung: bool
) -> None:
    clock = Clock(patience=0.0)
    seen(clock, make_units([100]), 0.001)
    assert seen(clock, make_units([100]), times * HOPELESS * LEAST_SECONDS) == (True, hung)


def test_what_is_usual_comes_from_the_batches_before(clock: Clock, make_units: MakeUnits) -> None:
    """A large model takes seconds for each batch: one that takes sixty times as long is late, no sooner."""
    for _ in range(5):
        assert seen(clock, make_units([200]), 2.0)[1] is False
    assert seen(clock, make_units([200]), 2.0 * SLACK - 0.1) == (False, False)
    usual = Clock()
    for _ in range(50):
        seen(usual, make_units([200]), 2.0)
    assert seen(usual, make_units([1]), 2.0 * 64 / 200 * SLACK + 0.1)[0], "a short one is to take no longer than 64"
    assert seen(clock, make_units([400]), 2 * 2.0 * SLACK - 0.1) == (False, False), "twice the tokens, twice the time"


def test_one_hang_that_ended_does_not_excuse_the_next_for_long(clock: Clock, make_units: MakeUnits) -> None:
    seen(clock, make_units([100]), 0.01)
    assert seen(clock, make_units([100]), 600.0) == (True, True)
    for _ in range(100):
        seen(clock, make_units([100]), 0.01)
    assert seen(clock, make_units([100]), LEAST_SECONDS + 0.1)[0]


def test_batch_that_fails_runs_no_more(make_units: MakeUnits) -> None:
    def fail(_: Sequence[Unit]) -> list[Vectors]:
        raise ValueError("no")

    now = [0.0]
    watch = Watch(fail, patience=0.0, clock=lambda: now[0])
    with pytest.raises(ValueError, match="no"):
        watch(make_units([3]))
    now[0] = 1e6
    assert (watch.stalled, watch.hung) == (False, False)


def test_batches_of_several_threads_are_told_apart(make_units: MakeUnits) -> None:
    opened = [threading.Event(), threading.Event()]
    entered = threading.Semaphore(0)

    def wait(units: Sequence[Unit]) -> list[Vectors]:
        entered.release()
        assert opened[len(units) - 1].wait(20)
        return []

    now = [0.0]
    watch = Watch(wait, patience=0.0, clock=lambda: now[0])
    first = threading.Thread(target=watch, args=[make_units([5])])
    first.start()
    assert entered.acquire(timeout=20)
    now[0] = 5.0
    second = threading.Thread(target=watch, args=[make_units([5, 5])])
    second.start()
    assert entered.acquire(timeout=20)
    assert watch.stalled
    opened[0].set()
    first.join()
    assert not watch.stalled, "the second has only begun"
    opened[1].set()
    second.join()


def test_batch_that_stalls_does_so_until_it_ends_however_slow_others_become(make_units: MakeUnits) -> None:
    entered, opened = threading.Event(), threading.Event()

    def encode(units: Sequence[Unit]) -> list[Vectors]:
        if len(units) == 2:
            entered.set()
            assert opened.wait(20)
        else:
            now[0] += 5.0
        return []

    now = [0.0]
    watch = Watch(encode, patience=0.0, clock=lambda: now[0])
    hanging = threading.Thread(target=watch, args=[make_units([5, 5])])
    hanging.start()
    assert entered.wait(20)
    try:
        now[0] = LEAST_SECONDS + 0.1
        assert watch.stalled
        for _ in range(3):
            watch(make_units([5]))
            assert watch.stalled
    finally:
        opened.set()
        hanging.join()
    assert not watch.stalled


def test_hang_that_ended_excuses_none_that_is_begun_right_after_it(clock: Clock, make_units: MakeUnits) -> None:
    for _ in range(50):
        seen(clock, make_units([64]), 0.01)
    assert seen(clock, make_units([64]), 600.0) == (True, True)
    assert seen(clock, make_units([64]), 10.0) == (True, False)
