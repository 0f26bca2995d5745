"""The client that the processes of a cluster use, against servers that say anything."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest

from fastchat.serve.cluster.connections import Connections, UnreachableError

SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
UNSIZED = b"HTTP/1.1 200 OK\r\n\r\nhello"


@asynccontextmanager
async def served(*answers, ends=False):
    """A server that gives each of its answers in pieces.

    Yields what asks it, and one event for each connection so far, set when that has ended.
    """
    left, met = list(answers), []

    async def serve(reader, writer):
        met.append(asyncio.Event())
        ended = met[-1]
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"{}")
                for piece in left.pop(0):
                    writer.write(piece)
                    await writer.drain()
                if ends:
                    break
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        ended.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with Connections() as connections:

            async def ask(silence_s=20.0, **headers):
                url = f"http://127.0.0.1:{port}/path"
                asked = connections.post(url, b"{}", headers, connect_s=20, silence_s=silence_s)
                async with asked as response:
                    return response.status, await response.whole()

            yield ask, met
        for ended in met:
            await ended.wait()


@pytest.mark.parametrize("answer", [SIZED, CHUNKED])
@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_an_answer_is_the_same_in_pieces_of_any_size(answer, size):
    pieces = [answer[at : at + size] for at in range(0, len(answer), size)]
    async with served(pieces, pieces) as (ask, met):
        assert await ask() == await ask() == (200, b"hello")
        assert len(met) == 1  # the connection was used again


async def test_an_answer_without_a_size_ends_with_its_connection():
    async with served([UNSIZED], [UNSIZED], ends=True) as (ask, met):
        assert await ask() == await ask() == (200, b"hello")
        assert len(met) == 2


@pytest.mark.parametrize("broken", [b"", b"nonsense\r\n\r\n", SIZED[:-1], CHUNKED[:-8], SIZED[:9]])
async def test_what_breaks_off_is_an_error_and_no_connection_to_use_again(broken):
    async with served([broken], [SIZED], ends=True) as (ask, met):
        with pytest.raises(ConnectionError):
            await ask()
        assert await ask() == (200, b"hello")
        assert len(met) == 2


async def test_silence_ends_at_its_time_and_closes_the_connection():
    async with served([SIZED[:-1]]) as (ask, met):
        with pytest.raises(TimeoutError):
            await ask(silence_s=0.05)
        await asyncio.wait_for(met[0].wait(), 20)


async def test_a_large_answer_waits_for_its_reader_and_loses_nothing():
    size = 1 << 24
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode()
    async with served([head, bytes(size)]) as (ask, _):
        status, body = await ask()
        assert (status, len(body)) == (200, size)


async def test_what_cannot_be_asked_is_told():
    async with Connections() as connections:
        for url in ("ftp://a/", "nonsense", "http:///a", "http://a:b/"):
            with pytest.raises(ValueError, match="URL"):
                async with connections.post(url, b"", {}, connect_s=5, silence_s=5):
                    pass
        with pytest.raises(UnreachableError):
            async with connections.post("http://127.0.0.1:9/", b"", {}, connect_s=5, silence_s=5):
                pass


async def test_a_header_cannot_hold_another():
    async with served([SIZED]) as (ask, _):
        with pytest.raises(ValueError, match=r"injection|header"):
            await ask(name="value\r\nOther: one")
