"""What a connection does with its reading; tests/end_to_end/test_connections.py asks real ones."""

import asyncio
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from service.connection import Connection
from service.settings import Settings

GET = b"GET / HTTP/1.1\r\nHost: berth\r\n\r\n"


class Transport(asyncio.Transport):
    """Notes whether it is read, and what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = True
        self.written = b""

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def write(self, data: Any) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        raise AssertionError("nothing is wrong with the requests")


@pytest.mark.parametrize("count", [1, 3])
def test_nothing_more_is_read_while_requests_wait_behind_the_one_that_is_answered(count: int) -> None:
    """Its end, or its asking for a body, would each let in another ten thousand."""

    async def main() -> None:
        turns = [asyncio.Event() for _ in range(count)]
        waiting = iter(turns)
        asked = 0

        async def app(_scope: Any, receive: Any, send: Any) -> None:
            nonlocal asked
            await receive()
            asked += 1
            await next(waiting).wait()
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})

        config = uvicorn.Config(app, log_config=None)
        config.load()
        transport = Transport()
        loop = asyncio.get_running_loop()
        connection = Connection(
            settings=Settings(), config=config, server_state=ServerState(), app_state={}, _loop=loop
        )
        connection.connection_made(transport)
        connection.data_received(GET * count)
        for number, turn in enumerate(turns, start=1):
            while asked < number:
                await asyncio.sleep(0)
            assert transport.reading is (number == count)
            turn.set()
        while transport.written.count(b"HTTP/1.1 204") < count:
            await asyncio.sleep(0)
        assert transport.reading

    asyncio.run(asyncio.wait_for(main(), 20))
