"""Answers however they come: with a length, in chunks, or until the end."""

import asyncio

import pytest

from bench.connection import Answer, Connection, post, read_chunks, read_head

KEPT = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x\r\nlo\r\n0\r\n\r\n"
CLOSED = b"HTTP/1.0 429 No\r\n\r\nhello"


def test_head() -> None:
    head = read_head(b"HTTP/1.1 503 Busy\r\nCONNECTION: Close\r\ncontent-length: 12")
    assert (head.status, head.length, head.chunked, head.close) == (503, 12, False, True)


def test_chunks_that_are_not_whole() -> None:
    assert read_chunks(b"3\r\nhel\r\n2\r\nl") is None
    assert read_chunks(b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n") == b"hello"


async def exchange(said: bytes, pieces: int) -> tuple[list[Answer], bool]:
    """Ask a server twice that says the same each time, so many bytes at once."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            while (await reader.readline()) != b"\r\n":
                pass
            await reader.readexactly(2)
            for start in range(0, len(said), pieces):
                writer.write(said[start : start + pieces])
                await writer.drain()
                await asyncio.sleep(0)
            if said is CLOSED:
                break
        writer.close()
        gone.set()

    gone = asyncio.Event()
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        connection = await Connection.to(base)
        answers: list[Answer] = []
        while connection.open and len(answers) < 2:
            answers.append(await connection.ask(post(base, "/embed", b"[]")))
        still_open = connection.open
        connection.close()
        await gone.wait()
        return answers, still_open


@pytest.mark.parametrize("pieces", [1, 7, 1000])
@pytest.mark.parametrize("said", [KEPT, CHUNKED])
def test_answers_on_a_kept_connection(said: bytes, pieces: int) -> None:
    answers, still_open = asyncio.run(exchange(said, pieces))
    assert answers == [Answer(200, b"hello")] * 2
    assert still_open


def test_an_answer_that_ends_with_the_connection() -> None:
    answers, still_open = asyncio.run(exchange(CLOSED, 4))
    assert answers == [Answer(429, b"hello")]
    assert not still_open
