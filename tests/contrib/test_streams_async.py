"""Streams for asyncio over TCP, TLS and UNIX sockets, against a real server."""

import asyncio
import contextlib
import gc
import pathlib
import socket
import ssl
import struct
import time
from typing import Any, AsyncIterator

import pytest
from support.certificates import Certificates
from support.servers import EchoServer, ask_stream, eventually, eventually_async, full_listener, open_descriptors
from support.servers import refusing_port, silent_server, tcp_echo_server, unix_echo_server

from generic_connection_pool.asyncio import BaseConnectionManager, ConnectionPool
from generic_connection_pool.contrib import _streams
from generic_connection_pool.contrib._sockets import is_quiet
from generic_connection_pool.contrib.socket_async import Stream, TcpStreamConnectionManager
from generic_connection_pool.contrib.unix_async import UnixSocketStreamConnectionManager

Manager = BaseConnectionManager[Any, Stream]
Pool = ConnectionPool[Any, Stream]


@pytest.fixture
def echo(any_echo: EchoServer) -> EchoServer:
    return any_echo


@pytest.fixture
def endpoint(echo: EchoServer) -> Any:
    return pathlib.Path(echo.address) if echo.is_unix else (echo.address[0], echo.port)


@pytest.fixture
def manager(echo: EchoServer, request: pytest.FixtureRequest) -> Manager:
    if echo.is_unix:
        return UnixSocketStreamConnectionManager()
    return TcpStreamConnectionManager(request.getfixturevalue('certificates').client() if echo.is_tls else None)


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


async def test_a_connection_is_reused(pool: Pool, endpoint: Any, echo: EchoServer) -> None:
    for line in (b'one\n', b'two\n', b'three\n'):
        async with pool.connection(endpoint) as stream:
            assert await ask_stream(stream, line) == line
    assert echo.accepted == 1


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


async def test_a_conversation_cut_short_by_an_error_is_not_continued_by_the_next_user(
    pool: Pool, endpoint: Any, echo: EchoServer
) -> None:
    with pytest.raises(ValueError):
        async with pool.connection(endpoint) as (_, writer):
            writer.write(b'held\n')
            raise ValueError
    echo.answer.set()
    async with pool.connection(endpoint) as stream:
        assert await ask_stream(stream, b'mine\n') == b'mine\n'
    assert echo.accepted == 2
    await eventually_async(lambda: echo.connected == 1)


async def test_a_conversation_cut_short_by_a_cancellation_is_not_continued_by_the_next_user(
    pool: Pool, endpoint: Any, echo: EchoServer
) -> None:
    async def use() -> None:
        async with pool.connection(endpoint) as stream:
            await ask_stream(stream, b'held\n')

    user = asyncio.ensure_future(use())
    await eventually_async(lambda: echo.held == 1)
    user.cancel()
    with pytest.raises(asyncio.CancelledError):
        await user
    echo.answer.set()
    async with pool.connection(endpoint) as stream:
        assert await ask_stream(stream, b'mine\n') == b'mine\n'
    assert echo.accepted == 2
    await eventually_async(lambda: echo.connected == 1)


async def test_a_user_who_runs_into_a_timeout_leaves_no_answer_to_the_next(
    pool: Pool, endpoint: Any, echo: EchoServer
) -> None:
    with pytest.raises(asyncio.TimeoutError):
        async with pool.connection(endpoint) as stream:
            await asyncio.wait_for(ask_stream(stream, b'held\n'), 0.02)
    echo.answer.set()
    async with pool.connection(endpoint) as stream:
        assert await ask_stream(stream, b'mine\n') == b'mine\n'


async def test_a_pool_closed_by_force_wakes_a_user_who_is_reading(pool: Pool, endpoint: Any) -> None:
    reading = asyncio.Event()

    async def use() -> bytes:
        async with pool.connection(endpoint) as (reader, _):
            reading.set()
            return await reader.read(1)

    user = asyncio.ensure_future(use())
    await reading.wait()
    await pool.close(timeout=0.02)
    assert await asyncio.wait_for(user, 5) == b''


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


# -- creating


@pytest.mark.parametrize('plain', [None, False])
async def test_without_tls_a_stream_is_plain(plain: 'bool | None', host: str) -> None:
    with tcp_echo_server(host) as server:
        manager = TcpStreamConnectionManager(ssl=plain)
        stream = await manager.create((host, server.port))
        assert stream[1].get_extra_info('ssl_object') is None
        assert await ask_stream(stream, b'one\n') == b'one\n'
        await manager.dispose((host, server.port), stream)


async def test_true_means_tls_that_trusts_what_the_system_trusts(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    trusted = tmp_path / 'authorities.pem'
    trusted.write_bytes(certificates.authority_pem)
    monkeypatch.setenv('SSL_CERT_FILE', str(trusted))
    with tcp_echo_server(context=certificates.server()) as server:
        manager = TcpStreamConnectionManager(ssl=True)
        stream = await manager.create(('127.0.0.1', server.port))
        assert stream[1].get_extra_info('peercert')
        assert await ask_stream(stream, b'one\n') == b'one\n'
        await manager.dispose(('127.0.0.1', server.port), stream)


async def test_true_refuses_a_server_that_the_system_does_not_trust(certificates: Certificates) -> None:
    with tcp_echo_server(context=certificates.server()) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            await TcpStreamConnectionManager(ssl=True).create(('127.0.0.1', server.port))


async def test_a_server_that_is_not_trusted_is_refused_and_the_socket_closed(certificates: Certificates) -> None:
    with tcp_echo_server(context=certificates.server()) as server:
        before = open_descriptors()
        with pytest.raises(ssl.SSLCertVerificationError):
            await TcpStreamConnectionManager(certificates.stranger()).create(('127.0.0.1', server.port))
        await eventually_async(lambda: open_descriptors() == before)


async def test_a_server_with_a_certificate_for_another_name_is_refused(certificates: Certificates) -> None:
    with tcp_echo_server(context=certificates.server('example.org')) as server:
        with pytest.raises(ssl.SSLCertVerificationError, match='127.0.0.1'):
            await TcpStreamConnectionManager(certificates.client()).create(('127.0.0.1', server.port))


async def test_a_refused_connection_says_where(host: str) -> None:
    port = refusing_port(host)
    with pytest.raises(ConnectionRefusedError, match=str(port)):
        await TcpStreamConnectionManager().create((host, port))


@pytest.mark.parametrize('rounds', range(25))
async def test_a_connect_cancelled_at_any_step_leaves_no_socket_behind(
    manager: Manager, endpoint: Any, rounds: int
) -> None:
    before = open_descriptors()
    creating = asyncio.ensure_future(manager.create(endpoint))
    for _ in range(rounds):
        # the far end needs time for its part of a handshake
        await asyncio.sleep(0.0005 if rounds % 2 else 0)
    creating.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await manager.dispose(endpoint, await creating)
    await eventually_async(lambda: open_descriptors() == before)


@pytest.mark.skipif(not hasattr(socket, 'AF_UNIX'), reason='there are no UNIX sockets')
async def test_a_unix_connection_is_made_as_soon_as_the_queue_has_room(short_directory: pathlib.Path) -> None:
    path = short_directory / 'full'
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    manager = UnixSocketStreamConnectionManager()
    with full_listener(listener), contextlib.ExitStack() as stack:
        creating = asyncio.ensure_future(manager.create(path))
        done, _ = await asyncio.wait([creating], timeout=0.05)
        assert not done
        listener.setblocking(False)
        while not creating.done():
            with contextlib.suppress(BlockingIOError):
                stack.push(contextlib.closing(listener.accept()[0]))
            await asyncio.sleep(0.002)
        await manager.dispose(path, await creating)


@pytest.mark.skipif(not hasattr(socket, 'AF_UNIX'), reason='there are no UNIX sockets')
async def test_waiting_for_room_in_a_unix_listeners_queue_can_be_cancelled(short_directory: pathlib.Path) -> None:
    path = short_directory / 'full'
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    with full_listener(listener):
        before = open_descriptors()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(UnixSocketStreamConnectionManager().create(path), 0.05)
        assert open_descriptors() == before


@pytest.mark.skipif(not hasattr(socket, 'AF_UNIX'), reason='there are no UNIX sockets')
async def test_a_unix_socket_that_cannot_be_made_a_stream_is_closed(
    short_directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(**params: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(asyncio, 'open_connection', fail)
    with unix_echo_server(str(short_directory / 'echo')):
        before = open_descriptors()
        with pytest.raises(MemoryError) as caught:
            await UnixSocketStreamConnectionManager().create(short_directory / 'echo')
        # with what the traceback refers to still alive
        assert caught.tb
        await eventually_async(lambda: open_descriptors() == before)


# -- checking


async def test_an_idle_stream_is_found_alive_time_and_again(manager: Manager, endpoint: Any, conn: Stream) -> None:
    for _ in range(3):
        assert await manager.check_aliveness(endpoint, conn)
        assert await ask_stream(conn, b'one\n') == b'one\n'


async def test_session_tickets_that_the_loop_has_not_read_do_no_harm(certificates: Certificates) -> None:
    manager = TcpStreamConnectionManager(certificates.client())
    with tcp_echo_server(context=certificates.server()) as server:
        endpoint = ('127.0.0.1', server.port)
        conn = await manager.create(endpoint)
        assert conn[1].get_extra_info('ssl_object').version() == 'TLSv1.3'
        wait_unnoticed(conn)
        assert await manager.check_aliveness(endpoint, conn)
        assert is_quiet(conn[1].get_extra_info('socket').fileno())
        assert await ask_stream(conn, b'one\n') == b'one\n'
        await manager.dispose(endpoint, conn)


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
    assert echo.held == 1


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
