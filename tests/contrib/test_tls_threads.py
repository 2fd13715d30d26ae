"""TLS sockets for threads, against a real server."""

import contextlib
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Iterator, List

import pytest
from support.certificates import Certificates
from support.servers import EchoServer, ask, eventually, full_listener, open_descriptors, receive, refusing_port
from support.servers import silent_server, tcp_echo_server
from support.servers_tls import TlsPeer

from generic_connection_pool.contrib._sockets import is_quiet
from generic_connection_pool.contrib.socket import SslEndpoint, SslSocketConnectionManager
from generic_connection_pool.threading import ConnectionPool

TlsPool = ConnectionPool[SslEndpoint, ssl.SSLSocket]
NOWHERE = ('nowhere', 0)


@pytest.fixture
def manager(certificates: Certificates) -> SslSocketConnectionManager:
    return SslSocketConnectionManager(certificates.client())


@pytest.fixture
def pool(manager: SslSocketConnectionManager) -> Iterator[TlsPool]:
    pool: TlsPool = ConnectionPool(manager)
    yield pool
    pool.close(timeout=5)


@pytest.fixture
def endpoint(tls_echo: EchoServer, host: str) -> SslEndpoint:
    return host, tls_echo.port


@pytest.fixture
def conn(manager: SslSocketConnectionManager, endpoint: SslEndpoint) -> Iterator[ssl.SSLSocket]:
    conn = manager.create(endpoint, timeout=5)
    yield conn
    manager.dispose(endpoint, conn)


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def peer(request: pytest.FixtureRequest, certificates: Certificates) -> Iterator[TlsPeer]:
    context = certificates.server()
    context.maximum_version = request.param
    peer = TlsPeer(context)
    yield peer
    peer.close()


@pytest.fixture
def tls(peer: TlsPeer, certificates: Certificates) -> Iterator[ssl.SSLSocket]:
    """A connection to the peer, of which only what belongs to the handshake has been sent."""
    with peer.handshake(lambda: certificates.client().wrap_socket(peer.near, server_hostname='localhost')) as tls:
        yield tls


# -- through a pool


def test_unread_bytes_never_reach_the_next_user(pool: TlsPool, endpoint: SslEndpoint, tls_echo: EchoServer) -> None:
    with pool.connection(endpoint) as sock:
        # both answers are in one record: the second one is waiting inside the TLS layer, not in the socket
        assert ask(sock, b'twice\n') == b'twice\n'
    with pool.connection(endpoint) as sock:
        assert ask(sock, b'mine\n') == b'mine\n'
    assert tls_echo.accepted == 2


def test_a_pool_closed_by_force_wakes_a_user_who_is_reading(pool: TlsPool, endpoint: SslEndpoint) -> None:
    ended = threading.Event()
    reading = threading.Event()

    def use() -> None:
        try:
            with pool.connection(endpoint) as sock:
                reading.set()
                assert sock.recv(1) == b''
        except OSError:
            pass
        ended.set()

    user = threading.Thread(target=use)
    user.start()
    assert reading.wait(5)
    pool.close(timeout=0.02)
    assert ended.wait(5)
    user.join()


# -- creating


def test_a_new_connection_blocks_and_has_no_timeout(conn: ssl.SSLSocket) -> None:
    assert conn.gettimeout() is None


def test_a_server_that_is_not_trusted_is_refused_and_the_socket_closed(
    certificates: Certificates, endpoint: SslEndpoint, tls_echo: EchoServer
) -> None:
    before = open_descriptors()
    with pytest.raises(ssl.SSLCertVerificationError):
        SslSocketConnectionManager(certificates.stranger()).create(endpoint, timeout=5)
    eventually(lambda: open_descriptors() == before)


def test_a_server_with_a_certificate_for_another_name_is_refused(
    manager: SslSocketConnectionManager, certificates: Certificates
) -> None:
    with tcp_echo_server(context=certificates.server('example.org')) as server:
        with pytest.raises(ssl.SSLCertVerificationError, match='127.0.0.1'):
            manager.create(('127.0.0.1', server.port), timeout=5)


def test_a_server_that_speaks_no_tls_is_refused_and_the_socket_closed(
    manager: SslSocketConnectionManager, echo: EchoServer, host: str
) -> None:
    echo_before = open_descriptors()
    with pytest.raises((OSError, TimeoutError)):
        manager.create((host, echo.port), timeout=0.2)
    eventually(lambda: open_descriptors() == echo_before)


def test_a_server_that_never_answers_is_given_up_in_time_and_the_socket_closed(
    manager: SslSocketConnectionManager
) -> None:
    with silent_server() as (address, port):
        before = open_descriptors()
        started = time.monotonic()
        with pytest.raises(TimeoutError, match=f'{address}:{port}'):
            manager.create((address, port), timeout=0.1)
        assert 0.09 < time.monotonic() - started < 1
        assert open_descriptors() == before


def test_an_acquire_gives_up_in_time_when_a_server_never_answers(pool: TlsPool) -> None:
    with silent_server() as endpoint:
        before = open_descriptors()
        with pytest.raises(TimeoutError):
            pool.acquire(endpoint, timeout=0.1)
        assert pool.get_size() == 0
        assert open_descriptors() == before


def test_an_interrupted_handshake_closes_the_socket(certificates: Certificates, endpoint: SslEndpoint) -> None:
    class Interrupted(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:
            raise KeyboardInterrupt

    context = certificates.client()
    context.sslsocket_class = Interrupted
    before = open_descriptors()
    with pytest.raises(KeyboardInterrupt):
        SslSocketConnectionManager(context).create(endpoint)
    eventually(lambda: open_descriptors() == before)


def test_a_refused_connection_says_where(manager: SslSocketConnectionManager, host: str) -> None:
    port = refusing_port(host)
    with pytest.raises(ConnectionRefusedError, match=f'could not connect to .*{port}: .*refused'):
        manager.create((host, port), timeout=5)


def test_an_unknown_host_is_named(manager: SslSocketConnectionManager, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, 'Name or service not known')

    monkeypatch.setattr(socket, 'getaddrinfo', unknown)
    with pytest.raises(socket.gaierror, match="could not resolve 'no.such.host'"):
        manager.create(('no.such.host', 443), timeout=5)


def test_every_address_of_a_host_is_tried_within_the_timeout(
    manager: SslSocketConnectionManager, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = socket.socket()
    blocked.bind(('127.0.0.1', 0))
    with full_listener(blocked), tcp_echo_server(context=certificates.server()) as server:
        refused = ('127.0.0.1', refusing_port())
        addresses = [
            (socket.AF_INET, socket.SOCK_STREAM, 0, '', address)
            for address in (refused, blocked.getsockname(), server.address)
        ]
        monkeypatch.setattr(socket, 'getaddrinfo', lambda *args, **kwargs: addresses)
        before = open_descriptors()
        conn = manager.create(('localhost', 443), timeout=0.5)
        assert ask(conn, b'one\n') == b'one\n'
        manager.dispose(('localhost', 443), conn)
        eventually(lambda: open_descriptors() == before)


def test_the_last_error_is_raised_if_no_address_answers_and_all_are_told(
    manager: SslSocketConnectionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = socket.socket()
    blocked.bind(('127.0.0.1', 0))
    with full_listener(blocked):
        refused = ('127.0.0.1', refusing_port())
        addresses = [
            (socket.AF_INET, socket.SOCK_STREAM, 0, '', address) for address in (blocked.getsockname(), refused)
        ]
        monkeypatch.setattr(socket, 'getaddrinfo', lambda *args, **kwargs: addresses)
        with pytest.raises(ConnectionRefusedError, match='localhost:443: timed out; .*refused'):
            manager.create(('localhost', 443), timeout=0.1)


# -- checking


def test_session_tickets_that_nobody_has_read_do_no_harm(
    manager: SslSocketConnectionManager, conn: ssl.SSLSocket, endpoint: SslEndpoint
) -> None:
    assert conn.version() == 'TLSv1.3'
    eventually(lambda: not is_quiet(conn.fileno()), 'the tickets')
    assert manager.check_aliveness(endpoint, conn, 0)
    assert is_quiet(conn.fileno())
    assert ask(conn, b'one\n') == b'one\n'
    assert manager.check_aliveness(endpoint, conn, 0)


@pytest.mark.parametrize('timeout', [None, 0.0, 30.0])
def test_checking_neither_waits_nor_changes_the_timeout(
    manager: SslSocketConnectionManager, conn: ssl.SSLSocket, endpoint: SslEndpoint, timeout: Any
) -> None:
    eventually(lambda: not is_quiet(conn.fileno()), 'the tickets')
    conn.settimeout(timeout)
    started = time.monotonic()
    for _ in range(2):
        assert manager.check_aliveness(endpoint, conn, 20)
        assert conn.gettimeout() == timeout
    assert time.monotonic() - started < 1


def test_half_a_record_makes_a_connection_unfit(
    manager: SslSocketConnectionManager, peer: TlsPeer, tls: ssl.SSLSocket
) -> None:
    peer.send(peer.unsent())
    assert manager.check_aliveness(NOWHERE, tls)
    peer.send(peer.encrypt(b'x' * 5000)[:100])
    assert not manager.check_aliveness(NOWHERE, tls)


def test_half_a_header_of_a_record_makes_a_connection_unfit(
    manager: SslSocketConnectionManager, peer: TlsPeer, tls: ssl.SSLSocket
) -> None:
    peer.send(peer.unsent())
    assert manager.check_aliveness(NOWHERE, tls)
    peer.send(peer.encrypt(b'x')[:3])
    assert not manager.check_aliveness(NOWHERE, tls)


@pytest.mark.parametrize('size', [1, 100_000])
def test_unread_data_make_a_connection_unfit(
    manager: SslSocketConnectionManager, peer: TlsPeer, tls: ssl.SSLSocket, size: int
) -> None:
    sender = threading.Thread(target=peer.send, args=(peer.encrypt(b'x' * size),))
    sender.start()
    eventually(lambda: not is_quiet(tls.fileno()))
    assert not manager.check_aliveness(NOWHERE, tls)
    tls.close()
    peer.near.close()
    peer.end()
    sender.join()


def test_decrypted_data_that_nobody_has_read_make_a_connection_unfit(
    manager: SslSocketConnectionManager, peer: TlsPeer, tls: ssl.SSLSocket
) -> None:
    peer.send(peer.encrypt(b'answer'))
    assert receive(tls, 3) == b'ans'
    assert is_quiet(tls.fileno())
    assert not manager.check_aliveness(NOWHERE, tls)


def test_an_end_with_or_without_a_goodbye_is_found(
    manager: SslSocketConnectionManager, peer: TlsPeer, tls: ssl.SSLSocket
) -> None:
    peer.end()
    assert not manager.check_aliveness(NOWHERE, tls)


def test_a_goodbye_is_found_though_the_connection_is_still_open(
    manager: SslSocketConnectionManager, peer: TlsPeer, tls: ssl.SSLSocket
) -> None:
    peer.send(peer.goodbye())
    assert not manager.check_aliveness(NOWHERE, tls)


def test_garbage_on_the_wire_makes_a_connection_unfit(
    manager: SslSocketConnectionManager, peer: TlsPeer, tls: ssl.SSLSocket
) -> None:
    peer.send(b'\x17\x03\x03\x00\x05hello')
    assert not manager.check_aliveness(NOWHERE, tls)


def test_a_connection_closed_by_its_user_is_found_dead(
    manager: SslSocketConnectionManager, conn: ssl.SSLSocket, endpoint: SslEndpoint
) -> None:
    conn.close()
    assert not manager.check_aliveness(endpoint, conn)


def test_a_connection_whose_encryption_its_user_has_ended_is_found_dead(
    manager: SslSocketConnectionManager, peer: TlsPeer, tls: ssl.SSLSocket
) -> None:
    peer.send(peer.goodbye())
    tls.unwrap()
    assert not manager.check_aliveness(NOWHERE, tls)


# -- disposing


def test_disposing_says_goodbye(manager: SslSocketConnectionManager, peer: TlsPeer, tls: ssl.SSLSocket) -> None:
    peer.send(peer.unsent())
    tls.sendall(b'last words')
    manager.dispose(NOWHERE, tls)
    assert tls.fileno() == -1
    assert peer.receive() == b'last words'
    assert peer.receive() == b''


def test_disposing_does_not_wait_for_a_peer_that_does_not_read(
    manager: SslSocketConnectionManager, peer: TlsPeer, tls: ssl.SSLSocket
) -> None:
    tls.settimeout(0)
    with pytest.raises(BlockingIOError):
        while True:
            # below TLS, which would otherwise be busy with half a record
            socket.socket.send(tls, b'x')
    tls.settimeout(None)
    started = time.monotonic()
    manager.dispose(NOWHERE, tls, timeout=20)
    assert time.monotonic() - started < 1
    assert tls.fileno() == -1


def test_disposing_does_not_mind_a_peer_that_is_gone_or_a_socket_that_is_closed(
    manager: SslSocketConnectionManager, conn: ssl.SSLSocket, endpoint: SslEndpoint, tls_echo: EchoServer
) -> None:
    ask(conn, b'one\n')
    tls_echo.close_connections()
    manager.dispose(endpoint, conn)
    manager.dispose(endpoint, conn)


def test_a_connection_that_may_be_in_use_is_closed_without_a_goodbye_which_might_crash_openssl(
    certificates: Certificates, endpoint: SslEndpoint
) -> None:
    goodbyes: List[ssl.SSLSocket] = []

    class Watched(ssl.SSLSocket):
        def unwrap(self) -> socket.socket:
            goodbyes.append(self)
            return super().unwrap()

    context = certificates.client()
    context.sslsocket_class = Watched
    pool: TlsPool = ConnectionPool(SslSocketConnectionManager(context), max_size=4)
    idle = pool.acquire(endpoint)
    with ThreadPoolExecutor(1) as elsewhere:
        used = elsewhere.submit(pool.acquire, endpoint).result()
        with pytest.raises(ValueError), pool.connection(endpoint) as broken:
            raise ValueError
        pool.release(idle, endpoint)
        pool.close(timeout=0.02)
    eventually(lambda: all(sock.fileno() == -1 for sock in (idle, used, broken)))
    assert goodbyes == [broken, idle]


def test_threads_that_use_connections_survive_their_being_closed(
    manager: SslSocketConnectionManager, endpoint: SslEndpoint
) -> None:
    def use(conn: ssl.SSLSocket) -> None:
        manager.on_acquire(endpoint, conn)
        using.set()
        with contextlib.suppress(OSError, ValueError):
            while ask(conn, b'x' * 3000 + b'\n'):
                pass

    for _ in range(50):
        conn = manager.create(endpoint, timeout=5)
        using = threading.Event()
        user = threading.Thread(target=use, args=(conn,))
        user.start()
        assert using.wait(5)
        manager.dispose(endpoint, conn)
        user.join(5)
        assert not user.is_alive()


def test_disposing_wakes_whoever_is_reading(
    manager: SslSocketConnectionManager, conn: ssl.SSLSocket, endpoint: SslEndpoint
) -> None:
    outcome: List[Any] = []
    reading = threading.Event()

    def read() -> None:
        manager.on_acquire(endpoint, conn)
        reading.set()
        try:
            outcome.append(conn.recv(1))
        except OSError as exc:
            outcome.append(exc)

    reader = threading.Thread(target=read)
    reader.start()
    assert reading.wait(5)
    eventually(lambda: is_quiet(conn.fileno()))
    manager.dispose(endpoint, conn)
    reader.join(5)
    assert not reader.is_alive()
    assert outcome[0] == b'' or isinstance(outcome[0], OSError)
