"""What a connection does with its reading; tests/end_to_end/test_connections.py asks real ones."""

from collections import deque

from service.connection import Flow


class Transport:
    """Notes whether it is read."""

    def __init__(self) -> None:
        self.reading = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


def test_nothing_more_is_read_while_requests_wait_behind_the_one_that_is_answered() -> None:
    transport, pipeline = Transport(), deque(["second", "third"])
    flow = Flow(transport, pipeline)
    flow.pause_reading()
    while pipeline:
        flow.resume_reading()
        assert not transport.reading
        pipeline.pop()
    flow.resume_reading()
    assert transport.reading
