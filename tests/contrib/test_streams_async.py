"""Streams for asyncio over TCP, TLS and UNIX sockets, against a real server."""

import asyncio
import gc
import socket
import struct
import time
from typing import Any, AsyncIterator

import pytest
from support.certificates import Certificates
from support.servers import EchoServer, ask_stream, eventually, eventually_async, open_descriptors, silent_server
from support.servers import tcp_echo_server
from support.servers_tls import TlsPeer
from support.streams import Manager, echo as echo, endpoint as endpoint, manager as manager

from generic_connection_pool.asyncio import ConnectionPool
from generic_connection_pool.contrib import _streams
from generic_connection_pool.contrib._sockets import is_quiet
from generic_connection_pool.contrib.socket_async import Stream, TcpStreamConnectionManager

Pool = ConnectionPool[Any, Stream]


@pytest.fixture
async def pool(manager: Manager) -> AsyncIterator[Pool]:
    pool: Pool = ConnectionPool(manager)
    yield pool
    await pool.close(timeout=5)


@pytest.fixture
async def conn(manager: Manager, endpoint: Any) -> AsyncIterator[Stream]:
    conn = await manager.create(endpoint)
    yield conn
    await manager.dispose(endpoint, conn)


# -- through a pool


async def test_a_connection_closed_by_the_peer_while_idle_is_replaced(
    pool: Pool, endpoint: Any, echo: EchoServer
) -> None:
    async with pool.connection(endpoint) as stream:
        await ask_stream(stream, b'one\n')
    before = open_descriptors()
    echo.close_connections()
    async with pool.connection(endpoint) as stream:
        assert await ask_stream(stream, b'two\n') == b'two\n'
    assert echo.accepted == 2
    await eventually_async(lambda: pool.get_size() == 1)
    await eventually_async(lambda: open_descriptors() == before)


async def test_bytes_that_were_received_but_not_read_never_reach_the_next_user(
    pool: Pool, endpoint: Any, echo: EchoServer
) -> None:
    async with pool.connection(endpoint) as stream:
        assert await ask_stream(stream, b'twice\n') == b'twice\n'
    async with pool.connection(endpoint) as stream:
        assert await ask_stream(stream, b'mine\n') == b'mine\n'
    assert echo.accepted == 2


async def test_bytes_that_arrived_but_were_not_received_never_reach_the_next_user(
    pool: Pool, endpoint: Any, echo: EchoServer
) -> None:
    async with pool.connection(endpoint) as stream:
        await ask_stream(stream, b'one\n')
    send_unnoticed(stream, echo, b'leftover\n')
    async with pool.connection(endpoint) as stream:
        assert await ask_stream(stream, b'mine\n') == b'mine\n'
    assert echo.accepted == 2


async def test_an_acquire_that_gets_no_connection_in_time_leaves_no_socket_behind(certificates: Certificates) -> None:
    pool: Pool = ConnectionPool(TcpStreamConnectionManager(certificates.client()))
    with silent_server() as endpoint:
        before = open_descriptors()
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            await pool.acquire(endpoint, timeout=0.1)
        assert 0.09 < time.monotonic() - started < 1
        await eventually_async(lambda: pool.get_size() == 0)
        await eventually_async(lambda: open_descriptors() == before)
    await pool.close()


# -- checking


async def test_an_idle_stream_is_found_alive_time_and_again(manager: Manager, endpoint: Any, conn: Stream) -> None:
    for _ in range(3):
        assert await manager.check_aliveness(endpoint, conn)
        assert await ask_stream(conn, b'one\n') == b'one\n'


@pytest.fixture
async def peer(certificates: Certificates) -> AsyncIterator[TlsPeer]:
    peer = TlsPeer(certificates.server())
    yield peer
    peer.close()


@pytest.fixture
async def tls(peer: TlsPeer, certificates: Certificates) -> AsyncIterator[Stream]:
    """A connection to the peer, of which only what belongs to the handshake has been sent."""
    client = asyncio.open_connection(sock=peer.near, ssl=certificates.client(), server_hostname='localhost')
    conn, _ = await asyncio.gather(client, asyncio.get_running_loop().run_in_executor(None, peer.shake_hands))
    yield conn
    await TcpStreamConnectionManager().dispose(('nowhere', 0), conn)


async def test_session_tickets_that_the_loop_has_not_read_do_no_harm(peer: TlsPeer, tls: Stream) -> None:
    manager = TcpStreamConnectionManager()
    peer.send(peer.unsent())
    wait_unnoticed(tls)
    assert await manager.check_aliveness(('nowhere', 0), tls)
    assert is_quiet(tls[1].get_extra_info('socket').fileno())
    peer.send(peer.encrypt(b'hello\n'))
    assert await tls[0].readline() == b'hello\n'
    assert await manager.check_aliveness(('nowhere', 0), tls)


async def test_a_goodbye_that_the_loop_has_not_read_is_found(peer: TlsPeer, tls: Stream) -> None:
    manager = TcpStreamConnectionManager()
    peer.send(peer.unsent())
    assert await manager.check_aliveness(('nowhere', 0), tls)
    peer.send(peer.goodbye())
    wait_unnoticed(tls)
    assert not await manager.check_aliveness(('nowhere', 0), tls)


async def test_a_check_does_not_suspend_if_nothing_has_arrived(manager: Manager, endpoint: Any, conn: Stream) -> None:
    await ask_stream(conn, b'one\n')
    with pytest.raises(StopIteration) as caught:
        manager.check_aliveness(endpoint, conn).__await__().__next__()
    assert caught.value.value is True


async def test_an_end_is_found_that_the_loop_has_not_noticed(
    manager: Manager, endpoint: Any, conn: Stream, echo: EchoServer
) -> None:
    await ask_stream(conn, b'one\n')
    echo.close_connections()
    wait_unnoticed(conn)
    assert not conn[0].at_eof()
    assert not await manager.check_aliveness(endpoint, conn)


async def test_a_check_of_a_plain_stream_does_not_suspend_though_something_has_arrived(
    manager: Manager, endpoint: Any, conn: Stream, echo: EchoServer
) -> None:
    if echo.is_tls:
        # has to be decrypted
        return
    await ask_stream(conn, b'one\n')
    send_unnoticed(conn, echo, b'leftover\n')
    with pytest.raises(StopIteration) as caught:
        manager.check_aliveness(endpoint, conn).__await__().__next__()
    assert caught.value.value is False


async def test_an_end_is_found_that_the_loop_has_noticed(
    manager: Manager, endpoint: Any, conn: Stream, echo: EchoServer
) -> None:
    await ask_stream(conn, b'one\n')
    echo.close_connections()
    await eventually_async(conn[0].at_eof)
    assert not await manager.check_aliveness(endpoint, conn)


async def test_data_are_found_whether_or_not_the_loop_has_noticed(
    manager: Manager, endpoint: Any, conn: Stream, echo: EchoServer
) -> None:
    await ask_stream(conn, b'one\n')
    send_unnoticed(conn, echo, b'leftover\n')
    assert not await manager.check_aliveness(endpoint, conn)
    assert not await manager.check_aliveness(endpoint, conn)


async def test_a_stream_that_somebody_is_reading_from_is_not_fit_for_use(
    manager: Manager, endpoint: Any, conn: Stream
) -> None:
    reading = asyncio.ensure_future(conn[0].read(1))
    await asyncio.sleep(0)
    assert not await manager.check_aliveness(endpoint, conn)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert await manager.check_aliveness(endpoint, conn)


async def test_a_stream_whose_reader_has_failed_is_found_dead(manager: Manager, endpoint: Any, conn: Stream) -> None:
    conn[0].set_exception(ConnectionResetError())
    assert not await manager.check_aliveness(endpoint, conn)


async def test_a_stream_closed_by_its_user_is_found_dead(manager: Manager, endpoint: Any, conn: Stream) -> None:
    conn[1].close()
    assert not await manager.check_aliveness(endpoint, conn)
    await eventually_async(lambda: is_disconnected(conn))
    assert not await manager.check_aliveness(endpoint, conn)


# -- disposing


async def test_disposing_sends_what_is_still_to_be_sent(manager: Manager, endpoint: Any, echo: EchoServer) -> None:
    conn = await manager.create(endpoint)
    size = 4_000_000
    conn[1].write(b'x' * size + b'\nheld\n')
    echo.answer.set()
    # the server answers a line before it reads the next: somebody has to read
    conn[0]._limit = 2 * size  # type: ignore[attr-defined]
    assert len(await conn[0].readline()) == size + 1
    await manager.dispose(endpoint, conn)
    await eventually_async(lambda: echo.held == 1)


async def test_disposing_does_not_mind_a_peer_that_is_gone_or_a_stream_that_is_closed(
    manager: Manager, endpoint: Any, conn: Stream, echo: EchoServer
) -> None:
    await ask_stream(conn, b'one\n')
    echo.close_connections()
    await manager.dispose(endpoint, conn)
    await manager.dispose(endpoint, conn)
    assert is_disconnected(conn)


async def test_disposing_does_not_mind_a_connection_that_was_reset() -> None:
    manager = TcpStreamConnectionManager()
    with socket.create_server(('127.0.0.1', 0)) as listener:
        conn = await manager.create(listener.getsockname())
        far, _ = listener.accept()
        # enough to make the end an error
        conn[1].write(b'x' * 20_000_000)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        far.close()
        await manager.dispose(listener.getsockname(), conn)
        assert is_disconnected(conn)
        with pytest.raises(ConnectionError):
            await conn[1].wait_closed()


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_streams, 'CLOSING_GRACE', 0.05)


@pytest.fixture
async def stuck(manager: Manager, endpoint: Any, echo: EchoServer) -> Stream:
    """A stream whose peer has ceased to read, with much to be sent."""
    conn = await manager.create(endpoint)
    conn[1].write(b'held\n')
    conn[1].write(b'x' * 20_000_000)
    await eventually_async(lambda: echo.held == 1)
    return conn


async def test_disposing_gives_up_on_a_peer_that_does_not_read(
    manager: Manager, endpoint: Any, stuck: Stream, hurry: None
) -> None:
    started = time.monotonic()
    await manager.dispose(endpoint, stuck)
    assert time.monotonic() - started < 1
    assert is_disconnected(stuck)


async def test_a_cancelled_disposal_closes_the_socket(manager: Manager, endpoint: Any, stuck: Stream) -> None:
    disposing = asyncio.ensure_future(manager.dispose(endpoint, stuck))
    await asyncio.sleep(0.01)
    assert not disposing.done()
    disposing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await disposing
    await eventually_async(lambda: is_disconnected(stuck))


async def test_disposing_does_not_wait_for_a_tls_peer_to_say_goodbye(certificates: Certificates) -> None:
    manager = TcpStreamConnectionManager(certificates.client())
    with tcp_echo_server(context=certificates.server()) as server:
        endpoint = ('127.0.0.1', server.port)
        conn = await manager.create(endpoint)
        conn[1].write(b'held\n')
        await eventually_async(lambda: server.held == 1)
        started = time.monotonic()
        await manager.dispose(endpoint, conn)
        assert time.monotonic() - started < 0.5
        assert is_disconnected(conn)


@pytest.mark.filterwarnings('ignore:unclosed:ResourceWarning', 'ignore::pytest.PytestUnraisableExceptionWarning')
def test_a_pool_can_be_used_again_by_another_event_loop(manager: Manager, endpoint: Any, echo: EchoServer) -> None:
    before = open_descriptors()
    pool: Pool = ConnectionPool(manager)

    async def use() -> None:
        async with pool.connection(endpoint) as stream:
            assert await ask_stream(stream, b'one\n') == b'one\n'

    async def use_and_close() -> None:
        await use()
        await pool.close()

    asyncio.run(use())
    asyncio.run(use_and_close())
    assert echo.accepted == 2
    gc.collect()
    eventually(lambda: open_descriptors() == before)


def is_disconnected(stream: Stream) -> bool:
    sock = stream[1].get_extra_info('socket')
    # a TLS transport forgets its socket
    return sock is None or sock.fileno() == -1


def wait_unnoticed(stream: Stream) -> None:
    """Wait for input without letting the event loop see it."""
    fd = stream[1].get_extra_info('socket').fileno()
    deadline = time.monotonic() + 5
    while is_quiet(fd):
        assert time.monotonic() < deadline, 'nothing has arrived'


def send_unnoticed(stream: Stream, echo: EchoServer, data: bytes) -> None:
    """Have the server send data, and wait for them without letting the event loop see them."""
    echo.send(data)
    wait_unnoticed(stream)
