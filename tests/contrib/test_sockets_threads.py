"""TCP and UNIX sockets for threads, against a real server."""

import contextlib
import errno
import ipaddress
import pathlib
import socket
import struct
import threading
import time
from typing import Any, Iterator, List, Optional

import pytest
from support.servers import EchoServer, ask, eventually, full_listener, needs_ipv6, open_descriptors, receive
from support.servers import refusing_port, tcp_echo_server

from generic_connection_pool.contrib.socket import TcpSocketConnectionManager, socket_nonblocking, socket_timeout
from generic_connection_pool.contrib.unix import UnixSocketConnectionManager
from generic_connection_pool.threading import BaseConnectionManager, ConnectionPool

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
def pool(manager: Manager) -> Iterator[Pool]:
    pool: Pool = ConnectionPool(manager)
    yield pool
    pool.close(timeout=5)


@pytest.fixture
def conn(manager: Manager, endpoint: Any) -> Iterator[socket.socket]:
    conn = manager.create(endpoint, timeout=5)
    yield conn
    manager.dispose(endpoint, conn)


# -- through a pool


def test_unread_bytes_never_reach_the_next_user(pool: Pool, endpoint: Any, echo: EchoServer) -> None:
    with pool.connection(endpoint) as sock:
        assert ask(sock, b'twice\n') == b'twice\n'
        eventually(lambda: readable(sock))
    with pool.connection(endpoint) as sock:
        assert ask(sock, b'mine\n') == b'mine\n'
    assert echo.accepted == 2


def test_a_user_who_runs_into_a_timeout_leaves_no_answer_to_the_next(
    pool: Pool, endpoint: Any, echo: EchoServer
) -> None:
    with pytest.raises(TimeoutError), pool.connection(endpoint) as sock, socket_timeout(sock, 0.02):
        ask(sock, b'held\n')
    echo.answer.set()
    with pool.connection(endpoint) as sock:
        assert ask(sock, b'mine\n') == b'mine\n'


def test_a_connection_closed_by_its_user_is_replaced(pool: Pool, endpoint: Any, echo: EchoServer) -> None:
    with pool.connection(endpoint) as sock:
        sock.close()
    with pool.connection(endpoint) as sock:
        assert ask(sock, b'mine\n') == b'mine\n'
    assert pool.get_size() == 1


def test_a_pool_closed_by_force_wakes_a_user_who_is_reading(pool: Pool, endpoint: Any) -> None:
    answers: List[bytes] = []
    reading = threading.Event()

    def use() -> None:
        with pool.connection(endpoint) as sock:
            reading.set()
            answers.append(sock.recv(1))

    user = threading.Thread(target=use)
    user.start()
    assert reading.wait(5)
    pool.close(timeout=0.02)
    user.join(5)
    assert not user.is_alive()
    assert answers == [b'']


# -- creating


def test_a_new_connection_blocks_and_has_no_timeout(conn: socket.socket) -> None:
    assert conn.gettimeout() is None
    assert conn.getblocking()


def test_a_refused_tcp_connection_says_where(host: str) -> None:
    port = refusing_port(host)
    before = open_descriptors()
    with pytest.raises(ConnectionRefusedError, match=f'could not connect to .*{port}: .*refused') as caught:
        TcpSocketConnectionManager().create((ipaddress.ip_address(host), port), timeout=5)
    assert caught.value.errno == errno.ECONNREFUSED
    assert open_descriptors() == before


def test_a_tcp_connect_that_gets_no_answer_ends_with_its_timeout() -> None:
    with full_listener(bound()) as listener:
        port = listener.getsockname()[1]
        before = open_descriptors()
        started = time.monotonic()
        with pytest.raises(TimeoutError, match=f'127.0.0.1:{port}: timed out'):
            TcpSocketConnectionManager().create((ipaddress.ip_address('127.0.0.1'), port), timeout=0.1)
        assert 0.09 < time.monotonic() - started < 1
        assert open_descriptors() == before


def test_no_time_is_too_little_to_connect_over_tcp(host: str) -> None:
    with tcp_echo_server(host) as server, pytest.raises(TimeoutError):
        TcpSocketConnectionManager().create((ipaddress.ip_address(host), server.port), timeout=0)


@pytest.mark.parametrize('timeout', [None, 5])
def test_an_interrupted_connect_closes_its_socket(
    manager: Manager, endpoint: Any, timeout: Optional[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    created: List[socket.socket] = []

    class Interrupted(socket.socket):
        def connect(self, address: Any) -> None:
            created.append(self)
            raise KeyboardInterrupt

    monkeypatch.setattr(socket, 'socket', Interrupted)
    with pytest.raises(KeyboardInterrupt):
        manager.create(endpoint, timeout=timeout)
    monkeypatch.undo()
    assert [sock.fileno() for sock in created] == [-1]


@needs_ipv6
def test_an_ipv6_address_may_have_a_scope() -> None:
    with tcp_echo_server('::1') as server:
        endpoint = ipaddress.IPv6Address('::1%1'), server.port
        with contextlib.closing(TcpSocketConnectionManager().create(endpoint, timeout=5)) as sock:
            assert ask(sock, b'one\n') == b'one\n'


# -- checking


def test_an_idle_connection_is_found_alive_time_and_again(
    manager: Manager, endpoint: Any, conn: socket.socket
) -> None:
    assert manager.check_aliveness(endpoint, conn, 0)
    assert ask(conn, b'one\n') == b'one\n'
    assert manager.check_aliveness(endpoint, conn)


@pytest.mark.parametrize('timeout', [None, 0.0, 30.0])
def test_checking_neither_waits_nor_changes_the_timeout(
    manager: Manager, endpoint: Any, conn: socket.socket, timeout: Any
) -> None:
    conn.settimeout(timeout)
    started = time.monotonic()
    assert manager.check_aliveness(endpoint, conn, 20)
    assert time.monotonic() - started < 1
    assert conn.gettimeout() == timeout


def test_a_socket_closed_by_the_peer_is_found_dead(
    manager: Manager, endpoint: Any, conn: socket.socket, echo: EchoServer
) -> None:
    ask(conn, b'one\n')
    echo.close_connections()
    eventually(lambda: not manager.check_aliveness(endpoint, conn))


def test_a_tcp_socket_reset_by_the_peer_is_found_dead() -> None:
    with bound() as listener:
        listener.listen()
        manager = TcpSocketConnectionManager()
        endpoint = ipaddress.ip_address('127.0.0.1'), listener.getsockname()[1]
        conn = manager.create(endpoint, timeout=5)
        far, _ = listener.accept()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        far.close()
        eventually(lambda: not manager.check_aliveness(endpoint, conn))
        manager.dispose(endpoint, conn)


def test_a_socket_with_something_to_read_is_not_fit_for_use_and_nothing_is_read(
    manager: Manager, endpoint: Any, conn: socket.socket
) -> None:
    ask(conn, b'twice\n')
    eventually(lambda: not manager.check_aliveness(endpoint, conn))
    assert receive(conn, 6) == b'twice\n'


def test_a_socket_closed_by_its_user_is_found_dead(
    manager: Manager, endpoint: Any, conn: socket.socket
) -> None:
    conn.close()
    assert not manager.check_aliveness(endpoint, conn)


# -- disposing


def test_disposing_closes_and_tells_the_peer(
    manager: Manager, endpoint: Any, conn: socket.socket, echo: EchoServer
) -> None:
    ask(conn, b'one\n')
    assert echo.connected == 1
    manager.dispose(endpoint, conn, timeout=1)
    assert conn.fileno() == -1
    eventually(lambda: echo.connected == 0)


def test_disposing_does_not_mind_a_peer_that_is_gone_or_a_socket_that_is_closed(
    manager: Manager, endpoint: Any, conn: socket.socket, echo: EchoServer
) -> None:
    ask(conn, b'one\n')
    echo.close_connections()
    manager.dispose(endpoint, conn)
    manager.dispose(endpoint, conn)


# -- the context managers


def test_a_socket_gets_its_timeout_back_after_the_block_even_if_that_fails(conn: socket.socket) -> None:
    conn.settimeout(7)
    with pytest.raises(ValueError), socket_timeout(conn, 3):
        assert conn.gettimeout() == 3
        raise ValueError
    assert conn.gettimeout() == 7
    with socket_nonblocking(conn):
        assert not conn.getblocking()
    assert conn.gettimeout() == 7


def test_a_socket_may_be_closed_inside_the_block(conn: socket.socket) -> None:
    with socket_timeout(conn, 3):
        conn.close()


def readable(sock: socket.socket) -> bytes:
    with socket_nonblocking(sock), contextlib.suppress(BlockingIOError):
        return sock.recv(1, socket.MSG_PEEK)
    return b''


def bound() -> socket.socket:
    listener = socket.socket()
    listener.bind(('127.0.0.1', 0))
    return listener
