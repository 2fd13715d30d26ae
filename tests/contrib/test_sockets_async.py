"""TCP and UNIX sockets for asyncio, against a real server."""

import asyncio
import contextlib
import ipaddress
import os
import pathlib
import socket
import time
from typing import Any, AsyncIterator, Iterator, List

import pytest
from support.servers import EchoServer, ask_async, eventually_async, full_listener, needs_ipv6, open_descriptors
from support.servers import refusing_port, tcp_echo_server

from generic_connection_pool.asyncio import BaseConnectionManager, ConnectionPool
from generic_connection_pool.contrib.socket_async import TcpSocketConnectionManager
from generic_connection_pool.contrib.unix_async import UnixSocketConnectionManager

Manager = BaseConnectionManager[Any, socket.socket]
Pool = ConnectionPool[Any, socket.socket]


@pytest.fixture
def echo(plain_echo: EchoServer) -> EchoServer:
    return plain_echo


@pytest.fixture
def endpoint(echo: EchoServer) -> Any:
    return pathlib.Path(echo.address) if echo.is_unix else (ipaddress.ip_address(echo.address[0]), echo.port)


@pytest.fixture
def manager(echo: EchoServer) -> Manager:
    return UnixSocketConnectionManager() if echo.is_unix else TcpSocketConnectionManager()


@pytest.fixture
async def pool(manager: Manager) -> AsyncIterator[Pool]:
    pool: Pool = ConnectionPool(manager)
    yield pool
    await pool.close(timeout=5)


@pytest.fixture
async def conn(manager: Manager, endpoint: Any) -> AsyncIterator[socket.socket]:
    conn = await manager.create(endpoint)
    yield conn
    await manager.dispose(endpoint, conn)


@pytest.fixture
def blocked() -> Iterator[socket.socket]:
    """A TCP listener whose queue is full: a connect gets no answer."""
    listener = socket.socket()
    listener.bind(('127.0.0.1', 0))
    with full_listener(listener):
        yield listener


# -- through a pool


async def test_a_connection_closed_by_the_peer_while_idle_is_replaced(
    pool: Pool, endpoint: Any, echo: EchoServer
) -> None:
    async with pool.connection(endpoint) as sock:
        await ask_async(sock, b'one\n')
    before = open_descriptors()
    echo.close_connections()
    async with pool.connection(endpoint) as sock:
        assert await ask_async(sock, b'two\n') == b'two\n'
    assert echo.accepted == 2
    await eventually_async(lambda: pool.get_size() == 1)
    assert open_descriptors() == before


async def test_unread_bytes_never_reach_the_next_user(pool: Pool, endpoint: Any, echo: EchoServer) -> None:
    async with pool.connection(endpoint) as sock:
        assert await ask_async(sock, b'twice\n') == b'twice\n'
        await eventually_async(lambda: has_input(sock))
    async with pool.connection(endpoint) as sock:
        assert await ask_async(sock, b'mine\n') == b'mine\n'
    assert echo.accepted == 2


async def test_an_acquire_that_gets_no_connection_in_time_leaves_no_socket_behind(blocked: socket.socket) -> None:
    pool: Pool = ConnectionPool(TcpSocketConnectionManager())
    before = open_descriptors()
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        await pool.acquire((ipaddress.ip_address('127.0.0.1'), blocked.getsockname()[1]), timeout=0.1)
    assert 0.09 < time.monotonic() - started < 1
    await eventually_async(lambda: pool.get_size() == 0)
    assert open_descriptors() == before
    await pool.close()


# -- creating


async def test_a_new_connection_does_not_block(conn: socket.socket) -> None:
    assert conn.gettimeout() == 0


async def test_a_refused_tcp_connection_says_where(host: str) -> None:
    port = refusing_port(host)
    before = open_descriptors()
    with pytest.raises(ConnectionRefusedError, match=f'could not connect to .*{port}: .*refused'):
        await TcpSocketConnectionManager().create((ipaddress.ip_address(host), port))
    assert open_descriptors() == before


async def test_a_cancelled_connect_closes_its_socket(blocked: socket.socket) -> None:
    before = open_descriptors()
    creating = asyncio.ensure_future(
        TcpSocketConnectionManager().create((ipaddress.ip_address('127.0.0.1'), blocked.getsockname()[1]))
    )
    await eventually_async(lambda: open_descriptors() == before + 1)
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    assert open_descriptors() == before


@pytest.mark.parametrize('rounds', range(6))
async def test_a_connect_cancelled_at_any_step_leaves_no_socket_behind(
    manager: Manager, endpoint: Any, rounds: int
) -> None:
    before = open_descriptors()
    creating = asyncio.ensure_future(manager.create(endpoint))
    for _ in range(rounds):
        await asyncio.sleep(0)
    creating.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await manager.dispose(endpoint, await creating)
    await eventually_async(lambda: open_descriptors() == before)


@needs_ipv6
async def test_an_ipv6_address_may_have_a_scope() -> None:
    manager = TcpSocketConnectionManager()
    with tcp_echo_server('::1') as server:
        with contextlib.closing(await manager.create((ipaddress.IPv6Address('::1%1'), server.port))) as sock:
            assert await ask_async(sock, b'one\n') == b'one\n'


# -- checking


async def test_an_idle_connection_is_found_alive_time_and_again(
    manager: Manager, endpoint: Any, conn: socket.socket
) -> None:
    assert await manager.check_aliveness(endpoint, conn)
    assert await ask_async(conn, b'one\n') == b'one\n'
    assert await manager.check_aliveness(endpoint, conn)


async def test_a_check_does_not_suspend(manager: Manager, endpoint: Any, conn: socket.socket) -> None:
    with pytest.raises(StopIteration) as caught:
        manager.check_aliveness(endpoint, conn).__await__().__next__()
    assert caught.value.value is True


async def test_a_socket_closed_by_the_peer_is_found_dead(
    manager: Manager, endpoint: Any, conn: socket.socket, echo: EchoServer
) -> None:
    await ask_async(conn, b'one\n')
    echo.close_connections()
    assert not await manager.check_aliveness(endpoint, conn)


async def test_a_socket_with_something_to_read_is_not_fit_for_use(
    manager: Manager, endpoint: Any, conn: socket.socket
) -> None:
    await ask_async(conn, b'twice\n')
    await eventually_async(lambda: has_input(conn))
    assert not await manager.check_aliveness(endpoint, conn)


async def test_a_socket_closed_by_its_user_is_found_dead(manager: Manager, endpoint: Any, conn: socket.socket) -> None:
    conn.close()
    assert not await manager.check_aliveness(endpoint, conn)


# -- disposing


async def test_disposing_does_not_mind_a_peer_that_is_gone_or_a_socket_that_is_closed(
    manager: Manager, endpoint: Any, conn: socket.socket, echo: EchoServer
) -> None:
    await ask_async(conn, b'one\n')
    echo.close_connections()
    await manager.dispose(endpoint, conn)
    await manager.dispose(endpoint, conn)
    assert conn.fileno() == -1


async def test_disposing_wakes_a_reader_and_a_descriptor_can_be_used_again_at_once(
    manager: Manager, endpoint: Any
) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(3):
        conn = await manager.create(endpoint)
        reading = asyncio.ensure_future(loop.sock_recv(conn, 1))
        await asyncio.sleep(0)
        await manager.dispose(endpoint, conn)
        assert await asyncio.wait_for(reading, 5) == b''


async def test_a_callback_left_behind_is_not_taken_for_that_of_the_next_socket(
    manager: Manager, endpoint: Any, echo: EchoServer
) -> None:
    loop = asyncio.get_running_loop()
    conn = await manager.create(endpoint)
    assert await ask_async(conn, b'one\n') == b'one\n'
    number = conn.fileno()
    loop.add_reader(conn, int)
    loop.add_writer(conn, int)
    await manager.dispose(endpoint, conn)
    await eventually_async(lambda: not echo.connected)

    # have the number taken, so that the pair does not get it; a server that waits for a client would have it, too
    echo.stop()
    anything = os.open(os.devnull, os.O_RDONLY)
    if anything != number:
        os.dup2(anything, number)
        os.close(anything)
    left, right = socket.socketpair()
    with left, right, socket.socket(fileno=os.dup2(left.fileno(), number)) as successor:
        called = asyncio.Event()
        loop.add_reader(successor, called.set)
        right.send(b'x')
        await asyncio.wait_for(called.wait(), 5)
        loop.remove_reader(successor)


async def test_a_cancelled_disposal_closes_the_socket(manager: Manager, endpoint: Any) -> None:
    conn = await manager.create(endpoint)
    disposing = asyncio.ensure_future(manager.dispose(endpoint, conn))
    await asyncio.sleep(0)
    disposing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await disposing
    assert conn.fileno() == -1


def test_a_socket_is_closed_without_an_event_loop(manager: Manager, endpoint: Any) -> None:
    conns: List[socket.socket] = [asyncio.run(manager.create(endpoint))]
    disposing = manager.dispose(endpoint, conns[0])
    disposing.send(None)
    disposing.close()
    assert conns[0].fileno() == -1


def test_a_pool_can_be_used_again_by_another_event_loop(manager: Manager, endpoint: Any, echo: EchoServer) -> None:
    pool: Pool = ConnectionPool(manager)

    async def use() -> None:
        async with pool.connection(endpoint) as sock:
            assert await ask_async(sock, b'one\n') == b'one\n'

    async def use_and_close() -> None:
        await use()
        await pool.close()

    asyncio.run(use())
    asyncio.run(use_and_close())
    assert echo.accepted == 2


def has_input(sock: socket.socket) -> bytes:
    with contextlib.suppress(BlockingIOError):
        return sock.recv(1, socket.MSG_PEEK)
    return b''
