"""The manager of HTTP connections, alone and in a pool, against a real server."""

import http.client
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Iterator, List

import pytest
from support.certificates import Certificates
from support.crowds import crowd_of_threads
from support.forking import in_child
from support.servers import PATIENCE, eventually, needs_ipv6, open_descriptors, refusing_port, silent_server
from support.servers import tcp_echo_server
from support.servers_http import HttpServer, http_server

from generic_connection_pool.contrib.http import HttpConnection, HttpConnectionManager, HttpEndpoint, origin
from generic_connection_pool.threading import ConnectionPool

HttpPool = ConnectionPool[HttpEndpoint, HttpConnection]


@pytest.fixture(params=['http', 'https'])
def scheme(request: pytest.FixtureRequest) -> str:
    scheme: str = request.param
    return scheme


@pytest.fixture
def server(scheme: str, certificates: Certificates) -> Iterator[HttpServer]:
    with http_server(certificates.server() if scheme == 'https' else None) as server:
        yield server


@pytest.fixture
def manager(certificates: Certificates) -> HttpConnectionManager:
    return HttpConnectionManager(certificates.client())


@pytest.fixture
def pool(manager: HttpConnectionManager) -> Iterator[HttpPool]:
    pool: HttpPool = ConnectionPool(manager, max_size=5)
    yield pool
    pool.close(timeout=5)


def get(conn: http.client.HTTPConnection, path: str) -> bytes:
    conn.request('GET', path)
    return conn.getresponse().read()


# -- endpoints


@pytest.mark.parametrize('url, expected', [
    ('http://example.org', ('http', 'example.org', 80)),
    ('HTTPS://Example.ORG/a/b?c=d#e', ('https', 'example.org', 443)),
    ('https://example.org:8443/', ('https', 'example.org', 8443)),
    ('http://[::1]:8080/x', ('http', '::1', 8080)),
])
def test_the_origin_of_a_url_is_its_scheme_host_and_port(url: str, expected: Any) -> None:
    assert origin(url) == expected


@pytest.mark.parametrize('url', [
    'ftp://example.org', 'example.org', '/path', '', 'http://', 'http://example.org:port', 'http://example.org:99999',
    'http://[::1', 'http://example.org:0', 'http://exam ple.org', 'http://user:pass-word@example.org',
])
def test_what_has_no_origin_is_refused_and_no_secret_told(url: str) -> None:
    with pytest.raises(ValueError) as refused:
        origin(url)
    assert 'pass-word' not in str(refused.value)
    with pytest.raises(ValueError):
        HttpConnectionManager().create(url)


def test_a_url_that_is_no_string_is_refused() -> None:
    with pytest.raises(TypeError, match='must be a string, not a bytes'):
        origin(b'http://example.org')  # type: ignore[arg-type]


@pytest.mark.parametrize('endpoint, error, message', [
    ('http://example.org/path', ValueError, r"origin\(\): \('http', 'example.org', 80\)"),
    ('http://example.org?query', ValueError, 'without path or query'),
    (('ftp', 'example.org', 21), ValueError, "must be 'http' or 'https', not 'ftp'"),
    (('http', '', 80), ValueError, 'a name or an address'),
    (('http', 'user:pass-word@example.org', 80), ValueError, 'a name or an address'),
    (('http', b'example.org', 80), TypeError, 'a host must be a string, not a bytes'),
    (('http', 'example.org', '80'), TypeError, 'a port must be a whole number, not a str'),
    (('http', 'example.org', 0), ValueError, 'from 1 to 65535, not 0'),
    (('http', 'example.org'), TypeError, r'must be \(scheme, host, port\) or an origin, not a tuple'),
    (80, TypeError, r'must be \(scheme, host, port\) or an origin, not a int'),
])
def test_a_bad_endpoint_is_told_from_a_good_one(endpoint: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message) as refused:
        HttpConnectionManager().create(endpoint)
    assert 'pass-word' not in str(refused.value)


@pytest.mark.parametrize('parameters, error, message', [
    ({'ssl_context': True}, TypeError, 'ssl_context must be an ssl.SSLContext or None, not True'),
    ({'io_timeout': '5'}, TypeError, "io_timeout must be a number of seconds or None, not '5'"),
    ({'io_timeout': True}, TypeError, 'not True'),
    ({'io_timeout': 0}, ValueError, 'more than 0 seconds'),
    ({'io_timeout': float('nan')}, ValueError, 'more than 0 seconds'),
    ({'io_timeout': float('inf')}, ValueError, 'more than 0 seconds'),
])
def test_a_bad_parameter_is_refused(parameters: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        HttpConnectionManager(**parameters)


def test_a_tuple_and_an_origin_lead_to_the_same_server(pool: HttpPool, server: HttpServer) -> None:
    for endpoint in (server.endpoint, f'{server.scheme}://127.0.0.1:{server.server_port}'):
        with pool.connection(endpoint) as conn:
            assert get(conn, '/echo/1') == b'/echo/1'


@needs_ipv6
def test_an_error_names_an_ipv6_address_in_brackets(manager: HttpConnectionManager) -> None:
    port = refusing_port('::1')
    with pytest.raises(ConnectionRefusedError, match=rf'\[::1\]:{port}: .*refused'):
        manager.create(('http', '::1', port), timeout=5)


# -- creating


def test_a_connection_is_one_of_http_client(manager: HttpConnectionManager, server: HttpServer) -> None:
    conn = manager.create(server.endpoint)
    kind = http.client.HTTPSConnection if server.scheme == 'https' else http.client.HTTPConnection
    assert isinstance(conn, kind)
    assert (conn.host, conn.port, conn.sock.gettimeout()) == ('127.0.0.1', server.server_port, None)
    manager.dispose(server.endpoint, conn)


def test_the_host_header_names_no_port_if_it_is_the_one_of_the_scheme(scheme: str) -> None:
    from generic_connection_pool.contrib._http import HttpsConnection

    conn = HttpConnection('example.org', 80)
    if scheme == 'https':
        conn = HttpsConnection('example.org', 443)
    conn.putrequest('GET', '/')
    assert b'Host: example.org' in conn._buffer  # type: ignore[attr-defined]


def test_sockets_send_small_requests_at_once(pool: HttpPool, server: HttpServer) -> None:
    with pool.connection(server.endpoint) as conn:
        assert conn.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_io_timeout_bounds_a_users_waiting(certificates: Certificates, server: HttpServer) -> None:
    pool: HttpPool = ConnectionPool(HttpConnectionManager(certificates.client(), io_timeout=0.05))
    with pytest.raises(TimeoutError), pool.connection(server.endpoint) as conn:
        get(conn, '/held')
    assert pool.get_size() == 0
    pool.close()


def test_servers_are_verified_by_default(certificates: Certificates) -> None:
    with http_server(certificates.server()) as server:
        before = open_descriptors()
        with pytest.raises(ssl.SSLCertVerificationError, match=f'127.0.0.1:{server.server_port}: .*verify failed'):
            HttpConnectionManager().create(server.endpoint, timeout=5)
        eventually(lambda: open_descriptors() <= before)


def test_a_server_with_a_certificate_for_another_name_is_refused(
    manager: HttpConnectionManager, certificates: Certificates
) -> None:
    with http_server(certificates.server('example.org')) as server:
        with pytest.raises(ssl.SSLCertVerificationError, match=f'127.0.0.1:{server.server_port}: .*mismatch'):
            manager.create(server.endpoint, timeout=5)


def test_a_server_that_speaks_no_tls_is_refused(manager: HttpConnectionManager) -> None:
    with http_server() as server:
        with pytest.raises(ssl.SSLError, match=f'no TLS handshake with 127.0.0.1:{server.server_port}'):
            manager.create(('https', '127.0.0.1', server.server_port), timeout=5)


def test_a_server_that_hangs_up_during_the_handshake_is_named(manager: HttpConnectionManager) -> None:
    with tcp_echo_server() as server:
        def hang_up() -> None:
            eventually(lambda: server.connected)
            server.close_connections()

        hanging_up = threading.Thread(target=hang_up)
        hanging_up.start()
        # what is sent back of the client's greeting is no TLS; or the end is faster
        with pytest.raises(OSError, match=f'no TLS handshake with 127.0.0.1:{server.port}'):
            manager.create(('https', '127.0.0.1', server.port), timeout=5)
        hanging_up.join()


def test_a_refused_connection_says_where_and_frees_the_slot(pool: HttpPool, scheme: str) -> None:
    port = refusing_port()
    with pytest.raises(ConnectionRefusedError, match=f'could not connect to 127.0.0.1:{port}: .*refused'):
        pool.acquire((scheme, '127.0.0.1', port), timeout=5)
    assert pool.get_size() == 0


def test_a_server_that_never_answers_is_given_up_in_time(pool: HttpPool) -> None:
    with silent_server() as (host, port):
        before = open_descriptors()
        started = time.monotonic()
        with pytest.raises(TimeoutError, match=f'{host}:{port}'):
            pool.acquire(('https', host, port), timeout=0.1)
        assert 0.09 < time.monotonic() - started < 2
        assert pool.get_size() == 0
        assert open_descriptors() == before


def test_an_interrupted_handshake_closes_the_socket(certificates: Certificates) -> None:
    class Interrupted(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:
            raise KeyboardInterrupt

    context = certificates.client()
    context.sslsocket_class = Interrupted
    with http_server(certificates.server()) as server:
        before = open_descriptors()
        with pytest.raises(KeyboardInterrupt):
            HttpConnectionManager(context).create(server.endpoint)
        eventually(lambda: open_descriptors() <= before)


# -- idle connections


def test_a_connection_that_the_server_has_closed_is_replaced_before_a_request_is_written(
    pool: HttpPool, server: HttpServer
) -> None:
    with pool.connection(server.endpoint) as conn:
        get(conn, '/echo/1')
    before = open_descriptors()
    server.close_connections()
    with pool.connection(server.endpoint) as conn:
        assert get(conn, '/echo/2') == b'/echo/2'
    assert (server.accepted, pool.get_size()) == (2, 1)
    assert open_descriptors() == before


def test_a_connection_on_which_the_server_says_something_unasked_is_replaced(
    pool: HttpPool, server: HttpServer, manager: HttpConnectionManager
) -> None:
    with pool.connection(server.endpoint) as conn:
        get(conn, '/time-out')
    assert manager.check_aliveness(server.endpoint, conn)
    server.answer.set()
    eventually(lambda: not manager.check_aliveness(server.endpoint, conn))
    with pool.connection(server.endpoint) as conn:
        assert get(conn, '/echo/2') == b'/echo/2'
    assert server.accepted == 2


def test_a_server_can_be_restarted(pool: HttpPool, scheme: str, certificates: Certificates) -> None:
    context = certificates.server() if scheme == 'https' else None
    with http_server(context) as server:
        endpoint = server.endpoint
        conns = [pool.acquire(endpoint) for _ in range(3)]
        socks = [conn.sock for conn in conns]
        for conn in conns:
            get(conn, '/echo/1')
            pool.release(conn, endpoint)
    with pytest.raises(ConnectionRefusedError):
        pool.acquire(endpoint)
    with http_server(context, endpoint[2]) as server:
        for _ in range(3):
            with pool.connection(endpoint) as conn:
                assert get(conn, '/echo/2') == b'/echo/2'
        assert server.accepted == 1
        eventually(lambda: all(sock.fileno() == -1 for sock in socks))


def test_checking_does_not_wait_and_leaves_the_timeout_alone(
    manager: HttpConnectionManager, server: HttpServer
) -> None:
    conn = manager.create(server.endpoint, timeout=5)
    conn.sock.settimeout(30)
    started = time.monotonic()
    assert all(manager.check_aliveness(server.endpoint, conn, timeout) for timeout in (0, 20, None))
    assert time.monotonic() - started < 2
    assert conn.sock.gettimeout() == 30
    manager.dispose(server.endpoint, conn)


def test_a_server_killed_while_a_connection_is_in_use_is_an_error_and_no_loss(
    pool: HttpPool, server: HttpServer
) -> None:
    before = open_descriptors()
    with pytest.raises((http.client.IncompleteRead, ConnectionError)), pool.connection(server.endpoint) as conn:
        conn.request('GET', '/held')
        response = conn.getresponse()
        server.cut_connections()
        response.read()
    assert pool.get_size() == 0
    server.answer.set()
    eventually(lambda: open_descriptors() <= before)
    with pool.connection(server.endpoint) as conn:
        assert get(conn, '/echo/1') == b'/echo/1'


# -- disposing


def test_disposing_frees_the_descriptor_though_a_response_is_unread(
    manager: HttpConnectionManager, server: HttpServer
) -> None:
    server.scripts['/close'] = b'HTTP/1.1 200 OK\r\n\r\n' + b'x' * 100, True
    for path in ('/echo/1', '/chunked', '/close'):
        before = open_descriptors()
        conn = manager.create(server.endpoint)
        conn.request('GET', path)
        response = conn.getresponse()
        manager.dispose(server.endpoint, conn)
        eventually(lambda: open_descriptors() <= before)
        with pytest.raises(http.client.NotConnected):
            response.read()


def test_disposing_does_not_mind_a_peer_that_is_gone_or_a_connection_that_is_closed(
    manager: HttpConnectionManager, server: HttpServer
) -> None:
    conn = manager.create(server.endpoint)
    get(conn, '/echo/1')
    server.close_connections()
    manager.dispose(server.endpoint, conn)
    manager.dispose(server.endpoint, conn)


def test_disposing_says_goodbye_over_tls_when_a_conversation_is_over_and_only_then(certificates: Certificates) -> None:
    goodbyes: List[ssl.SSLSocket] = []

    class Watched(ssl.SSLSocket):
        def unwrap(self) -> Any:
            goodbyes.append(self)
            return super().unwrap()

    context = certificates.client()
    context.sslsocket_class = Watched
    with http_server(certificates.server()) as server:
        pool: HttpPool = ConnectionPool(HttpConnectionManager(context), max_size=3)
        idle = pool.acquire(server.endpoint)
        sock = idle.sock
        with pytest.raises(ValueError), pool.connection(server.endpoint) as conn:
            conn.request('GET', '/echo/1')
            raise ValueError
        with ThreadPoolExecutor(1) as elsewhere:
            elsewhere.submit(pool.acquire, server.endpoint).result()
            pool.release(idle, server.endpoint)
            pool.close(timeout=0.02)
    assert goodbyes == [sock]


def test_a_connection_that_cannot_be_made_good_on_release_is_closed(
    manager: HttpConnectionManager, server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(conn: HttpConnection) -> None:
        raise KeyboardInterrupt

    pool: HttpPool = ConnectionPool(manager)
    conn = pool.acquire(server.endpoint)
    monkeypatch.setattr(HttpConnection, 'tidy', interrupted)
    with pytest.raises(KeyboardInterrupt):
        pool.release(conn, server.endpoint)
    assert conn.sock is None
    assert pool.get_size() == 0
    pool.close()


def test_the_exit_of_a_forked_child_is_not_heard_by_the_server(pool: HttpPool, server: HttpServer) -> None:
    endpoint = server.endpoint
    reading = pool.acquire(endpoint)
    reading.request('GET', '/held')
    response = reading.getresponse()
    with pool.connection(endpoint) as conn:
        assert get(conn, '/echo/1') == b'/echo/1'

    def child() -> Any:
        with pytest.raises(ConnectionAbortedError):
            response.read()
        for inherited in (reading, conn):
            with pytest.raises(http.client.HTTPException):
                inherited.request('GET', '/echo/child')
            inherited.close()
        with pool.connection(endpoint) as own:
            answer = get(own, '/echo/child')
        pool.close()
        return answer

    assert in_child(child) == b'/echo/child'
    server.answer.set()
    assert response.read() == b'one half'
    pool.release(reading, endpoint)
    with pool.connection(endpoint) as again:
        assert get(again, '/echo/2') == b'/echo/2'
    # the child has not closed any but its own
    assert server.accepted == 3
    assert pool.get_size() == 2


# -- many users


def test_each_of_fifty_threads_gets_the_answers_to_its_own_questions(pool: HttpPool, server: HttpServer) -> None:
    def ask(question: str) -> Any:
        path = f'/echo/{question}'
        with pool.connection(server.endpoint, timeout=PATIENCE) as conn:
            return path.encode(), get(conn, path)

    crowd_of_threads(ask, questions=6)
    assert server.accepted <= 5


def test_users_who_leave_in_the_middle_do_not_disturb_fifty_others(pool: HttpPool, server: HttpServer) -> None:
    def ask(question: str) -> Any:
        path = f'/echo/{question}'
        with pool.connection(server.endpoint, timeout=PATIENCE) as conn:
            if question.endswith('3'):
                conn.request('GET', path)
                with conn.getresponse() as response:
                    return path.encode()[:5], response.read(5)
            return path.encode(), get(conn, path)

    crowd_of_threads(ask, questions=6)
    assert server.accepted > 5
