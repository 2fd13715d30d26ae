"""Conversations over pooled sockets for threads, with and without TLS: one cut short is continued by nobody else."""

import ipaddress
import pathlib
from typing import Any, Iterator

import pytest
from support.servers import EchoServer, ask, eventually, name_of_place, needs_ipv6, needs_unix, open_descriptors

from generic_connection_pool.contrib.socket import SslSocketConnectionManager, TcpSocketConnectionManager
from generic_connection_pool.contrib.unix import UnixSocketConnectionManager
from generic_connection_pool.threading import BaseConnectionManager, ConnectionPool

Manager = BaseConnectionManager[Any, Any]
Pool = ConnectionPool[Any, Any]

pytestmark = pytest.mark.parametrize('any_echo', [
    ('127.0.0.1', False),
    ('127.0.0.1', True),
    pytest.param(('::1', False), marks=needs_ipv6),
    pytest.param(('::1', True), marks=needs_ipv6),
    pytest.param(('unix', False), marks=needs_unix),
], indirect=True, ids=name_of_place)


@pytest.fixture
def echo(any_echo: EchoServer) -> EchoServer:
    return any_echo


@pytest.fixture
def endpoint(echo: EchoServer) -> Any:
    if echo.is_unix:
        return pathlib.Path(echo.address)
    host = echo.address[0]
    return host if echo.is_tls else ipaddress.ip_address(host), echo.port


@pytest.fixture
def manager(echo: EchoServer, request: pytest.FixtureRequest) -> Manager:
    if echo.is_tls:
        return SslSocketConnectionManager(request.getfixturevalue('certificates').client())
    return UnixSocketConnectionManager() if echo.is_unix else TcpSocketConnectionManager()


@pytest.fixture
def pool(manager: Manager) -> Iterator[Pool]:
    pool: Pool = ConnectionPool(manager)
    yield pool
    pool.close(timeout=5)


def test_a_connection_is_reused(pool: Pool, endpoint: Any, echo: EchoServer) -> None:
    for line in (b'one\n', b'two\n', b'three\n'):
        with pool.connection(endpoint) as sock:
            assert ask(sock, line) == line
    assert echo.accepted == 1


def test_a_connection_closed_by_the_peer_while_idle_is_replaced(
    pool: Pool, endpoint: Any, echo: EchoServer
) -> None:
    with pool.connection(endpoint) as sock:
        ask(sock, b'one\n')
    before = open_descriptors()
    echo.close_connections()
    with pool.connection(endpoint) as sock:
        assert ask(sock, b'two\n') == b'two\n'
    assert echo.accepted == 2
    assert pool.get_size() == 1
    assert open_descriptors() == before


@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt, TimeoutError])
def test_a_conversation_cut_short_by_an_error_is_not_continued_by_the_next_user(
    pool: Pool, endpoint: Any, echo: EchoServer, error: Any
) -> None:
    with pytest.raises(error), pool.connection(endpoint) as sock:
        sock.sendall(b'held\n')
        raise error
    echo.answer.set()
    with pool.connection(endpoint) as sock:
        assert ask(sock, b'mine\n') == b'mine\n'
    assert echo.accepted == 2
    eventually(lambda: echo.connected == 1)
