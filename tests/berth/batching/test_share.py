"""What of the cores bulk is owed, and how long short requests wait for it: decided by times that the test makes up."""

import pytest

from berth.batching.share import LEAST_OWED, MOST_OWED, PATIENCE, BulkShare

A, B = 1, 2


class Cores:
    """A share's account, and the CPU time of its threads."""

    def __init__(self, share: float, cores: float = 2) -> None:
        self.now = 100.0
        self.cpu = {A: 7.0, B: 9.0}
        self.share = BulkShare(share, cores, lambda thread: self.cpu[thread])

    def begin(self, thread: int = A) -> None:
        """Begin a batch of bulk."""
        self.share.begin(thread, self.now)

    def end(self, thread: int = A) -> None:
        """End one."""
        self.share.end(thread, self.now)

    def pass_(self, seconds: float, **cpu: float) -> None:
        """Let time pass, some of which a thread has its core."""
        self.now += seconds
        for name, used in cpu.items():
            self.cpu[{"a": A, "b": B}[name]] += used

    def hold(self) -> float:
        """Say how long a short batch is to wait from now on."""
        return self.share.hold(self.now)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_where_no_bulk_runs_nothing_waits(share: float) -> None:
    cores = Cores(share)
    assert cores.hold() == 0
    cores.begin()
    cores.pass_(0.05)
    cores.end()
    assert cores.hold() == 0


def test_bulk_that_has_had_its_share_is_not_waited_for() -> None:
    cores = Cores(0.3)
    cores.begin()
    assert cores.hold() == 0
    cores.pass_(0.02, a=0.02)
    assert cores.hold() == 0
    cores.pass_(0.04, a=0.0)
    assert cores.hold() == 0, "0.02 of 0.06 s is a third"


def test_a_little_is_not_waited_for_until_it_is_more() -> None:
    """A batch that has just begun while the event loop was busy is owed a little, and catches up by itself."""
    cores = Cores(0.5)
    cores.begin()
    cores.pass_(1.8 * LEAST_OWED)
    assert cores.hold() == 0
    cores.pass_(0.4 * LEAST_OWED)
    assert cores.hold() == pytest.approx(2.2 * LEAST_OWED), "then all of it"


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9])
def test_a_short_batch_waits_until_bulk_has_caught_up(share: float) -> None:
    cores = Cores(share)
    cores.begin()
    cores.pass_(0.1)
    hold = cores.hold()
    assert hold == pytest.approx(share * 0.1 / (1 - share))
    cores.pass_(hold / 2, a=hold / 2)
    assert cores.hold() == pytest.approx(hold / 2)
    cores.pass_(hold / 2, a=hold / 2 + 1e-9)
    assert cores.hold() == 0


@pytest.mark.parametrize("taken", [0.0, 0.3], ids=["all of a hold", "what the event loop leaves"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.5])
@pytest.mark.parametrize(("short", "bulk"), [(0.006, 0.02), (0.02, 0.02), (0.05, 0.01)])
def test_short_requests_without_end_leave_bulk_its_share(share: float, short: float, bulk: float, taken: float) -> None:
    """A short batch has the core to itself; while short batches wait bulk has it, or most of it."""
    cores, had, left = Cores(share), 0.0, bulk
    begun = cores.now
    cores.begin()
    for _ in range(2000):
        cores.pass_(short)
        while (hold := cores.hold()) > 0:
            step = min(hold, left / (1 - taken))
            cores.pass_(step, a=step * (1 - taken))
            had, left = had + step * (1 - taken), left - step * (1 - taken)
            if left < 1e-12:
                cores.end()
                cores.begin()
                left = bulk
    assert had / (cores.now - begun) == pytest.approx(share, abs=0.01)


def test_batches_of_several_threads_are_one_account() -> None:
    cores = Cores(0.5)
    cores.begin(A)
    cores.begin(B)
    cores.pass_(0.02, b=0.02)
    assert cores.hold() == 0, "half of two cores' time was bulk's"
    cores.pass_(0.01)
    assert cores.hold() == pytest.approx((0.5 * 0.06 - 0.02) / 0.5 / 2), "both catch up at once"


def test_what_a_batch_had_too_little_the_next_one_is_owed() -> None:
    cores = Cores(0.5)
    cores.begin()
    cores.pass_(0.02, a=0.002)
    cores.end()
    cores.begin()
    assert cores.hold() == pytest.approx(0.008 / 0.5)


def test_what_a_batch_had_too_much_is_not_held_against_the_next() -> None:
    cores = Cores(0.5)
    cores.begin()
    cores.pass_(1.0, a=1.0)
    cores.end()
    cores.begin()
    cores.pass_(0.01)
    assert cores.hold() == pytest.approx(0.01)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_where_other_programs_have_the_cores_a_short_batch_waits_so_long_and_no_longer(share: float) -> None:
    """Bulk that has no CPU time at all never catches up: short requests keep their part of the time even so."""
    cores, waited, short = Cores(share), 0.0, 0.0
    cores.begin()
    cores.pass_(60.0)
    for _ in range(500):
        start = cores.now
        while (hold := cores.hold()) > 0:
            cores.pass_(hold)
        assert cores.now - start <= PATIENCE * MOST_OWED / (1 - share) + 1e-9
        waited += cores.now - start
        cores.pass_(0.005)
        short += 0.005
    assert short / (short + waited) == pytest.approx((1 - share) / (1 - share + PATIENCE * share), abs=0.05)


def test_it_waits_no_longer_for_being_asked_more_often() -> None:
    """Each request that comes while a short batch is held wakes its thread."""
    cores = Cores(0.3)
    cores.begin()
    cores.pass_(60.0)
    start = cores.now
    for _ in range(1000):
        if not cores.hold():
            break
        cores.pass_(0.001)
    assert cores.now - start == pytest.approx(PATIENCE * MOST_OWED / 0.7, abs=0.002)


def test_a_short_batch_that_left_leaves_nothing_for_the_next() -> None:
    """Its caller hung up; the next one has not waited yet, and bulk is owed as much as before."""
    cores = Cores(0.5)
    cores.begin()
    cores.pass_(0.02)
    hold = cores.hold()
    assert hold > 0
    assert cores.share.hold(cores.now, waiting=False) == 0
    cores.pass_(PATIENCE * hold + 0.01)
    assert cores.hold() > hold


def test_what_was_owed_goes_with_bulk() -> None:
    cores = Cores(0.5)
    cores.begin()
    cores.pass_(0.05)
    cores.end()
    assert cores.hold() == 0, "none runs"
    cores.begin()
    assert cores.hold() == 0


def test_a_hold_that_ended_with_its_bulk_leaves_nothing_for_the_next() -> None:
    """Else the next one would count as having waited long enough already."""
    cores = Cores(0.5)
    cores.begin()
    cores.pass_(0.02)
    assert cores.hold() > 0
    cores.pass_(0.001, a=0.02)
    cores.end()
    assert cores.hold() == 0
    cores.pass_(10.0)
    cores.begin()
    cores.pass_(0.02)
    assert cores.hold() == pytest.approx(0.02)


@pytest.mark.parametrize(("limit", "threads"), [(1, [A, B]), (0.5, [A]), (0.25, [A, B])])
def test_more_threads_than_cores_are_owed_a_share_of_the_cores(limit: float, threads: list[int]) -> None:
    """Bulk alone has all of them, and yet each thread less than a core."""
    cores = Cores(0.5, limit)
    for thread in threads:
        cores.begin(thread)
    each = limit / len(threads)
    for thread in threads:
        cores.cpu[thread] += 0.4 * each
    cores.pass_(0.4)
    assert cores.hold() == 0
    cores.pass_(0.6)
    assert cores.hold() == pytest.approx((0.5 * limit - 0.4 * limit) / 0.5 / limit), "it has had 0.4 of a second's time"


def test_without_a_share_no_clock_is_asked() -> None:
    """Where there is none, bulk's threads would end with an error."""

    def fail(thread: int) -> float:
        raise AssertionError(thread)

    share = BulkShare(0.0, 1, fail)
    share.begin(A, 0.0)
    assert share.hold(1.0) == 0
    share.end(A, 1.0)
