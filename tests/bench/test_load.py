"""The open loop keeps to the clock, whatever becomes of its requests."""

import asyncio

from bench.dialects import DIALECTS
from bench.load import PacedLoop, Record, Target
from bench.server import free_port
from bench.workloads import SHAPES, Workload

WORKLOAD = Workload(SHAPES["w1"], ["a", "b"])
INTERVAL, WARMUP, SECONDS = 0.02, 0.04, 0.09  # the window ends between two requests, not at one
REQUESTS = 7
"""Two in the warm-up, five in the window."""


def loop(port: int) -> PacedLoop:
    target = Target("fake", f"http://127.0.0.1:{port}", DIALECTS["tei"])
    return PacedLoop(target, WORKLOAD, interval=INTERVAL, warmup=WARMUP, seconds=SECONDS)


async def paced(status: int) -> Record:
    """Load a server that answers no request before all of them have come."""
    came = 0
    all_came, gone = asyncio.Event(), asyncio.Semaphore(0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal came
        while head := await reader.readuntil(b"\r\n\r\n") if came < REQUESTS else b"":
            await reader.readexactly(int(head.partition(b"Content-Length: ")[2].split()[0]))
            came += 1
            if came == REQUESTS:
                all_came.set()
            await all_came.wait()
            writer.write(b"HTTP/1.1 %d Said\r\nContent-Length: 2\r\n\r\n[]" % status)
        await reader.read()  # until the client hangs up
        writer.close()
        gone.release()

    async with asyncio.timeout(60), await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        record = await loop(server.sockets[0].getsockname()[1]).run()
        for _ in range(REQUESTS):
            await gone.acquire()
        return record


def test_requests_are_sent_at_their_times_and_count_from_them() -> None:
    record = asyncio.run(paced(200))
    first = record.window.start - WARMUP
    assert [round((start - first) / INTERVAL, 6) for start in sorted(span.start for span in record.spans)] == [
        *range(REQUESTS)
    ]
    latest = max(span.start for span in record.spans)
    assert all(span.end > latest for span in record.spans), "none was held back by those before it"
    assert len(record.window.due(record.spans)) == 5
    assert not record.errors


def test_refusals_are_errors() -> None:
    record = asyncio.run(paced(429))
    assert not record.spans
    assert record.errors == {"HTTP 429: []": REQUESTS}


def test_a_server_that_is_not_there_is_an_error_a_request() -> None:
    record = asyncio.run(loop(free_port()).run())
    assert not record.spans
    assert record.errors.total() == REQUESTS
