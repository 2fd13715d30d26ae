"""Conversations over pooled sockets and streams for asyncio: whatever cuts one short, nobody else continues it."""

import asyncio
import ipaddress
import pathlib
import socket
from typing import Any, AsyncIterator, Awaitable, Callable, NamedTuple

import pytest
from support.servers import EchoServer, ask_async, ask_stream, eventually_async, name_of_place
from support.servers import needs_ipv6, needs_unix

from generic_connection_pool.asyncio import BaseConnectionManager, ConnectionPool
from generic_connection_pool.contrib.socket_async import Stream, TcpSocketConnectionManager, TcpStreamConnectionManager
from generic_connection_pool.contrib.unix_async import UnixSocketConnectionManager, UnixSocketStreamConnectionManager

Manager = BaseConnectionManager[Any, Any]
Pool = ConnectionPool[Any, Any]

pytestmark = pytest.mark.parametrize('kind, any_echo', [
    ('socket', ('127.0.0.1', False)),
    pytest.param('socket', ('::1', False), marks=needs_ipv6),
    pytest.param('socket', ('unix', False), marks=needs_unix),
    ('stream', ('127.0.0.1', False)),
    ('stream', ('127.0.0.1', True)),
    pytest.param('stream', ('::1', True), marks=needs_ipv6),
    pytest.param('stream', ('unix', False), marks=needs_unix),
], indirect=True, ids=lambda part: part if isinstance(part, str) else name_of_place(part))


class Kind(NamedTuple):
    """How the users of one kind of connection talk to an echo server."""

    #: says a line and returns the answer
    ask: Callable[[Any, bytes], Awaitable[bytes]]
    #: says a line
    say: Callable[[Any, bytes], Awaitable[None]]
    #: waits for a byte
    listen: Callable[[Any], Awaitable[bytes]]


async def say_over_socket(sock: socket.socket, line: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, line)


async def listen_to_socket(sock: socket.socket) -> bytes:
    return await asyncio.get_running_loop().sock_recv(sock, 1)


async def say_over_stream(stream: Stream, line: bytes) -> None:
    stream[1].write(line)


async def listen_to_stream(stream: Stream) -> bytes:
    return await stream[0].read(1)


KINDS = {
    'socket': Kind(ask_async, say_over_socket, listen_to_socket),
    'stream': Kind(ask_stream, say_over_stream, listen_to_stream),
}


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def echo(any_echo: EchoServer) -> EchoServer:
    return any_echo


@pytest.fixture
def endpoint(kind: Kind, echo: EchoServer) -> Any:
    if echo.is_unix:
        return pathlib.Path(echo.address)
    host = echo.address[0]
    return host if kind is KINDS['stream'] else ipaddress.ip_address(host), echo.port


@pytest.fixture
def manager(kind: Kind, echo: EchoServer, request: pytest.FixtureRequest) -> Manager:
    if kind is KINDS['socket']:
        return UnixSocketConnectionManager() if echo.is_unix else TcpSocketConnectionManager()
    if echo.is_unix:
        return UnixSocketStreamConnectionManager()
    return TcpStreamConnectionManager(request.getfixturevalue('certificates').client() if echo.is_tls else None)


@pytest.fixture
async def pool(manager: Manager) -> AsyncIterator[Pool]:
    pool: Pool = ConnectionPool(manager)
    yield pool
    await pool.close(timeout=5)


async def test_a_connection_is_reused(kind: Kind, pool: Pool, endpoint: Any, echo: EchoServer) -> None:
    for line in (b'one\n', b'two\n', b'three\n'):
        async with pool.connection(endpoint) as conn:
            assert await kind.ask(conn, line) == line
    assert echo.accepted == 1


async def test_a_conversation_cut_short_by_an_error_is_not_continued_by_the_next_user(
    kind: Kind, pool: Pool, endpoint: Any, echo: EchoServer
) -> None:
    with pytest.raises(ValueError):
        async with pool.connection(endpoint) as conn:
            await kind.say(conn, b'held\n')
            raise ValueError
    echo.answer.set()
    async with pool.connection(endpoint) as conn:
        assert await kind.ask(conn, b'mine\n') == b'mine\n'
    assert echo.accepted == 2
    await eventually_async(lambda: echo.connected == 1)


async def test_a_conversation_cut_short_by_a_cancellation_is_not_continued_by_the_next_user(
    kind: Kind, pool: Pool, endpoint: Any, echo: EchoServer
) -> None:
    async def use() -> None:
        async with pool.connection(endpoint) as conn:
            await kind.ask(conn, b'held\n')

    user = asyncio.ensure_future(use())
    await eventually_async(lambda: echo.held == 1)
    user.cancel()
    with pytest.raises(asyncio.CancelledError):
        await user
    echo.answer.set()
    async with pool.connection(endpoint) as conn:
        assert await kind.ask(conn, b'mine\n') == b'mine\n'
    assert echo.accepted == 2
    await eventually_async(lambda: echo.connected == 1)


async def test_a_user_who_runs_into_a_timeout_leaves_no_answer_to_the_next(
    kind: Kind, pool: Pool, endpoint: Any, echo: EchoServer
) -> None:
    with pytest.raises(asyncio.TimeoutError):
        async with pool.connection(endpoint) as conn:
            await asyncio.wait_for(kind.ask(conn, b'held\n'), 0.02)
    echo.answer.set()
    async with pool.connection(endpoint) as conn:
        assert await kind.ask(conn, b'mine\n') == b'mine\n'


async def test_a_pool_closed_by_force_wakes_a_user_who_is_reading(kind: Kind, pool: Pool, endpoint: Any) -> None:
    reading = asyncio.Event()

    async def use() -> bytes:
        async with pool.connection(endpoint) as conn:
            reading.set()
            return await kind.listen(conn)

    user = asyncio.ensure_future(use())
    await reading.wait()
    await pool.close(timeout=0.02)
    assert await asyncio.wait_for(user, 5) == b''
