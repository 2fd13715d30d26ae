"""Making streams for asyncio over TCP, TLS and UNIX sockets, with real servers."""

import asyncio
import contextlib
import pathlib
import socket
import ssl
from typing import Any

import pytest
from support.certificates import Certificates
from support.servers import ask_stream, eventually_async, full_listener, needs_unix, open_descriptors
from support.servers import refusing_port, tcp_echo_server, unix_echo_server
from support.streams import Manager, echo as echo, endpoint as endpoint, manager as manager

from generic_connection_pool.contrib.socket_async import TcpStreamConnectionManager
from generic_connection_pool.contrib.unix_async import UnixSocketStreamConnectionManager

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


@needs_unix
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


@needs_unix
async def test_waiting_for_room_in_a_unix_listeners_queue_can_be_cancelled(short_directory: pathlib.Path) -> None:
    path = short_directory / 'full'
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    with full_listener(listener):
        before = open_descriptors()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(UnixSocketStreamConnectionManager().create(path), 0.05)
        assert open_descriptors() == before


@needs_unix
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
