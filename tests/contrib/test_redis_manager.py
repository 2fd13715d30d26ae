"""The manager of Redis connections for threads, hook by hook, against real servers."""

import contextlib
import logging
import pathlib
import select
import socket
import threading
import time
from typing import Any, Dict, Iterator

import pytest

redis = pytest.importorskip('redis', exc_type=ImportError)

from support.errors import all_that_is_told  # noqa: E402
from support.redis_server import (  # noqa: E402
    MUTE_USER,
    PASSWORD,
    USER,
    RedisServer,
    alarm,
    find_programs,
    redis_server,
    scripted_server,
    server as server,
)
from support.servers import eventually, full_listener, open_descriptors, refusing_port, silent_server  # noqa: E402

from generic_connection_pool.contrib import _redis  # noqa: E402
from generic_connection_pool.contrib.redis import (  # noqa: E402
    ConnectTimeoutError,
    RedisConnection,
    RedisConnectionManager,
    execute,
)

SECRET = 'tell-nobody-1848'


@pytest.fixture
def manager(server: RedisServer) -> RedisConnectionManager:
    return RedisConnectionManager({
        'main': server.parameters(), 'unix': {'unix_socket_path': server.path},
        'user': server.parameters(username=USER, password=PASSWORD, db=2, client_name='gerda'),
        'mute': server.parameters(username=MUTE_USER, password=PASSWORD),
    })  # fmt: skip


@pytest.fixture
def conn(manager: RedisConnectionManager) -> Iterator[RedisConnection]:
    conn = manager.create('main')
    yield conn
    manager.dispose('main', conn)


def created(parameters: Any, timeout: Any = None) -> RedisConnection:
    return RedisConnectionManager({'main': parameters}).create('main', timeout=timeout)


# parameters


def test_an_unknown_endpoint_is_named_and_so_are_the_known_but_no_password() -> None:
    manager = RedisConnectionManager({'a': f'redis://:{SECRET}@localhost', 'b': {'password': SECRET}})
    with pytest.raises(KeyError, match="unknown endpoint 'c'; known are: 'a', 'b'") as caught:
        manager.create('c')
    assert SECRET not in all_that_is_told(caught.value)


@pytest.mark.parametrize('endpoints, error, message', [
    (None, TypeError, 'not a NoneType'),
    (['redis://localhost'], TypeError, 'not a list'),
    ({'main': 6379}, TypeError, "endpoint 'main' must be connect keywords or a URL, not a int"),
    ({'main': {'retry_on_timeout': True}}, ValueError, "retry_on_timeout .* 'main'"),
    ({'main': 'redis://localhost?retry_on_timeout=yes'}, ValueError, 'retry_on_timeout'),
    ({'main': {'retry': SECRET}}, ValueError, 'does not retry'),
    ({'main': {'health_check_interval': 5}}, ValueError, 'the pool checks'),
    ({'main': {'max_connections': 5}}, ValueError, 'max_connections'),
    ({'main': {'connection_class': SECRET}}, ValueError, 'connection_class'),
    ({'main': {'ssl': SECRET}}, TypeError, 'must be a bool, not a str'),
    ({'main': {'ssl': None}}, TypeError, 'must be a bool, not a NoneType'),
    ({'main': {'ssl_ca_certs': SECRET}}, ValueError, 'ssl=True is missing'),
    ({'main': {'path': SECRET, 'host': SECRET}}, ValueError, 'UNIX socket'),
    ({'main': {'unix_socket_path': SECRET, 'ssl': True}}, ValueError, 'UNIX socket'),
])  # fmt: skip
def test_parameters_that_cannot_be_are_refused_at_once_and_not_told(endpoints: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        RedisConnectionManager(endpoints)
    assert SECRET not in all_that_is_told(caught.value)


@pytest.mark.parametrize('url', [
    f'redis://:{SECRET[:4]}/{SECRET[4:]}@localhost', f'redis://:12/{SECRET}@localhost', f'http://{SECRET}@localhost',
    f'redis://:{SECRET}@localhost:port', f'redis://:{SECRET}@[localhost', f'{SECRET}', f'redis://:{SECRET}@localhost/one',
    f'redis://:{SECRET}@localhost?db=one', '',
])  # fmt: skip
def test_a_url_that_cannot_be_parsed_is_not_told(url: str) -> None:
    with pytest.raises(ValueError, match="the URL of endpoint 'main' cannot be parsed") as caught:
        RedisConnectionManager({'main': url})
    told = all_that_is_told(caught.value)
    assert SECRET not in told and SECRET[4:] not in told and SECRET[:4] not in told
    with pytest.raises(ValueError, match='cannot be parsed'):
        RedisConnectionManager({'main': lambda: url}).create('main')


@pytest.mark.parametrize('keywords, error, message', [
    ({'pasword': SECRET}, TypeError, 'pasword'),
    ({'port': SECRET}, ValueError, "the parameters of endpoint 'main' are wrong"),
    ({'protocol': 4}, ValueError, 'protocol must be either 2 or 3'),
    ({'ssl': True, 'ssl_cert_reqs': SECRET}, ValueError, 'are wrong'),
])
def test_what_redis_py_does_not_like_among_the_keywords_is_named_but_not_its_value(
    keywords: Dict[str, Any], error: Any, message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        created(keywords)
    assert SECRET not in str(caught.value)


def test_parameters_of_a_callable_are_asked_for_again_for_each_connection(server: RedisServer) -> None:
    passwords = ['first', 'second']
    server.ask('ACL', 'SETUSER', 'rotating', 'on', '>first', '~*', '+@all')
    manager = RedisConnectionManager({'main': lambda: server.parameters(username='rotating', password=passwords[0])})
    first = manager.create('main')
    server.ask('ACL', 'SETUSER', 'rotating', '<first', '>second')
    with pytest.raises(redis.AuthenticationError):
        manager.create('main')
    del passwords[0]
    second = manager.create('main')
    for conn in (first, second):
        assert execute(conn, 'ACL WHOAMI') == b'rotating'
        manager.dispose('main', conn)


def test_what_a_callable_raises_reaches_the_caller() -> None:
    def unavailable() -> Any:
        raise ZeroDivisionError('no vault')

    with pytest.raises(ZeroDivisionError, match='no vault'):
        RedisConnectionManager({'main': unavailable}).create('main')


# connecting


@pytest.mark.parametrize('protocol', [2, 3])
@pytest.mark.parametrize('timeout', [None, 5])
def test_wrong_credentials_are_an_error_that_does_not_tell_them(
    server: RedisServer, timeout: Any, protocol: int
) -> None:
    before = open_descriptors()
    with pytest.raises(redis.AuthenticationError, match="'main' does not let us in: invalid username") as caught:
        created(server.parameters(username='nobody', password=SECRET, protocol=protocol), timeout)
    assert open_descriptors() == before
    told = all_that_is_told(caught.value)
    assert SECRET not in told and 'nobody' not in told


@pytest.mark.parametrize('reply', [
    b"-ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `default`, `%s`, \r\n" % SECRET.encode(),
    b"-ERR unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'default' '%s' \r\n" % SECRET.encode(),
    b'-ERR no %s here\r\n' % SECRET.encode(), b'-NOAUTH %s\r\n' % SECRET.encode(), b'?%s\r\n' % SECRET.encode(),
])  # fmt: skip
@pytest.mark.parametrize('protocol', [2, 3])
def test_what_a_server_quotes_of_the_credentials_is_not_told(reply: bytes, protocol: int) -> None:
    with scripted_server(lambda data: [reply]) as where:
        with pytest.raises(redis.RedisError, match="endpoint 'main'") as caught:
            created({**where, 'password': SECRET, 'protocol': protocol}, 5)
    assert SECRET not in all_that_is_told(caught.value)


def test_a_refused_connection_says_which_endpoint_and_why() -> None:
    with pytest.raises(redis.ConnectionError, match="could not connect to endpoint 'main': Connection refused"):
        created({'host': '127.0.0.1', 'port': refusing_port(), 'password': SECRET})
    with pytest.raises(redis.ConnectionError, match="could not connect to endpoint 'main': No such file"):
        created({'unix_socket_path': '/nowhere/redis.sock'})
    with pytest.raises(redis.ConnectionError, match="could not connect to endpoint 'main': .* not known"):
        created({'host': 'nowhere.invalid'})


def test_a_database_that_there_is_not_is_an_error(server: RedisServer) -> None:
    with pytest.raises(redis.ResponseError, match="endpoint 'main' does not let us in: .*DB index"):
        created(server.parameters(db=99))


@pytest.mark.parametrize('timeout', [0, 0.2])
@pytest.mark.parametrize('more', [{}, {'ssl': True}, {'protocol': 3, 'password': SECRET}])
def test_a_server_that_never_answers_is_given_up_in_time(timeout: float, more: Dict[str, Any]) -> None:
    with silent_server() as (host, port):
        before = open_descriptors()
        started = time.monotonic()
        with pytest.raises(ConnectTimeoutError, match="connecting to endpoint 'main' took longer than") as caught:
            created({'host': host, 'port': port, **more}, timeout)
        assert time.monotonic() - started < timeout + 2
        assert isinstance(caught.value, TimeoutError) and isinstance(caught.value, redis.TimeoutError)
        assert open_descriptors() == before


def test_a_server_that_answers_in_crumbs_is_given_up_in_time() -> None:
    go_on = threading.Event()

    def crumbs(data: bytes) -> Iterator[bytes]:
        while not go_on.wait(0.05):
            yield b'+'

    with scripted_server(crumbs) as where:
        started = time.monotonic()
        try:
            with pytest.raises(ConnectTimeoutError):
                created({**where, 'password': SECRET}, 0.3)
            assert time.monotonic() - started < 3
        finally:
            go_on.set()


def test_the_timeouts_of_the_parameters_hold_too() -> None:
    with silent_server() as (host, port):
        started = time.monotonic()
        with pytest.raises(ConnectTimeoutError, match='took too long'):
            created({'host': host, 'port': port, 'socket_timeout': 0.1, 'password': SECRET})
        with pytest.raises(ConnectTimeoutError):
            created({'host': host, 'port': port, 'socket_connect_timeout': 0.1, 'ssl': True}, timeout=30)
        assert time.monotonic() - started < 5


def test_a_unix_listener_without_room_is_given_up_in_time(short_directory: pathlib.Path) -> None:
    path = str(short_directory / 'full')
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    with full_listener(listener):
        before = open_descriptors()
        with pytest.raises(ConnectTimeoutError):
            created({'path': path}, 0.1)
        assert open_descriptors() == before


@pytest.mark.parametrize('more', [{}, {'ssl': True}])
def test_an_interrupted_connect_closes_what_it_has_connected(more: Dict[str, Any]) -> None:
    with silent_server() as (host, port):
        before = open_descriptors()
        with pytest.raises(KeyboardInterrupt) as caught, alarm(0.1):
            created({'host': host, 'port': port, 'password': SECRET, **more}, 20)
        # closed though the traceback still knows it
        assert open_descriptors() == before
        assert caught.value.__traceback__ is not None


def test_a_function_of_the_users_own_may_shake_hands(server: RedisServer, manager: RedisConnectionManager) -> None:
    def shake_hands(conn: Any) -> None:
        conn.on_connect()
        execute(conn, 'SELECT', 4)

    conn = created(server.parameters(redis_connect_func=shake_hands))
    manager.on_release('main', conn)
    assert b' db=4 ' in execute(conn, 'CLIENT INFO')
    # nobody but the user knows how to bring the session back
    execute(conn, 'SELECT', 5)
    manager.on_release('main', conn)
    assert conn.sock is None


# checking


@pytest.mark.parametrize('endpoint', ['main', 'unix', 'user'])
def test_an_idle_connection_is_found_alive_time_and_again(manager: RedisConnectionManager, endpoint: str) -> None:
    conn = manager.create(endpoint)
    for timeout in (None, 5, 5):
        assert manager.check_aliveness(endpoint, conn, timeout)
        assert execute(conn, 'ECHO', 'mine') == b'mine'
    manager.dispose(endpoint, conn)


def test_a_user_who_may_not_send_a_ping_has_connections_that_are_alive(manager: RedisConnectionManager) -> None:
    conn = manager.create('mute')
    with pytest.raises(redis.exceptions.NoPermissionError):
        execute(conn, 'PING')
    for _ in range(3):
        assert manager.check_aliveness('mute', conn, 5)
    manager.dispose('mute', conn)


def test_a_connection_that_the_server_has_closed_is_found_dead(
    manager: RedisConnectionManager, conn: RedisConnection, server: RedisServer
) -> None:
    server.ask('CLIENT KILL', 'ID', execute(conn, 'CLIENT ID'))
    assert not manager.check_aliveness('main', conn, 5)


@pytest.mark.parametrize('seen_before', [False, True])
def test_a_connection_with_something_unread_is_found_unfit(
    manager: RedisConnectionManager, conn: RedisConnection, seen_before: bool
) -> None:
    # what nobody has asked for: behind the back of those that count
    sock: Any = conn.sock
    sock.sendall(b'ECHO leftover\r\n')
    assert select.select([sock], [], [], 10)[0]
    if seen_before:
        # redis-py has taken it in
        assert conn.can_read(0)
    assert conn.session.is_at_rest
    assert not manager.check_aliveness('main', conn, 5)


def test_a_leftover_reply_that_comes_while_the_ping_is_answered_is_not_taken_for_its_answer(
    manager: RedisConnectionManager,
) -> None:
    # as often as it is asked in the handshake
    with scripted_server(lambda data: [b'+PONG\r\n'] * (data.count(b'SETINFO') or 1)) as where:
        conn = created({**where, 'protocol': 2})
        assert not manager.check_aliveness('main', conn, 5)
        manager.dispose('main', conn)


@pytest.mark.parametrize('timeout, socket_timeout', [(0, None), (0.1, None), (0.1, 30), (None, 0.1), (30, 0.1)])
def test_a_check_gives_up_in_time(server: RedisServer, timeout: Any, socket_timeout: Any) -> None:
    manager = RedisConnectionManager({'main': server.parameters(socket_timeout=socket_timeout)})
    conn = manager.create('main')
    with server.stopped():
        started = time.monotonic()
        assert not manager.check_aliveness('main', conn, timeout)
        assert time.monotonic() - started < 3
    manager.dispose('main', conn)


def test_a_check_without_any_bound_has_one_nevertheless(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_redis, 'PONG_GRACE', 0.1)
    manager = RedisConnectionManager({'main': server.parameters(socket_timeout=None)})
    conn = manager.create('main')
    with server.stopped():
        assert not manager.check_aliveness('main', conn)
    manager.dispose('main', conn)


def test_a_check_leaves_the_timeout_of_the_connection_as_it_is(server: RedisServer) -> None:
    manager = RedisConnectionManager({'main': server.parameters(socket_timeout=17)})
    conn = manager.create('main', timeout=5)
    sock: Any = conn.sock
    assert sock.gettimeout() == 17
    assert manager.check_aliveness('main', conn, 5)
    assert sock.gettimeout() == 17
    manager.dispose('main', conn)


def test_a_connection_closed_by_its_user_is_found_dead(manager: RedisConnectionManager, conn: RedisConnection) -> None:
    conn.disconnect()
    assert not manager.check_aliveness('main', conn, 5)


def test_a_connection_that_was_not_released_is_found_unfit(
    manager: RedisConnectionManager, conn: RedisConnection
) -> None:
    execute(conn, 'SELECT', 3)
    assert not manager.check_aliveness('main', conn, 5)


# releasing


@pytest.fixture(params=sorted(find_programs()) or ['none'])
def server_without_reset(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    if request.param == 'none':
        pytest.skip('no such server to be had')
    with redis_server(find_programs()[request.param], more='rename-command RESET ""\n') as running:
        yield running


def test_a_session_that_cannot_be_reset_is_closed_and_no_credentials_are_told(
    server_without_reset: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    parameters = server_without_reset.parameters(username=USER, password=PASSWORD)
    manager = RedisConnectionManager({'main': parameters})
    conn = manager.create('main')
    execute(conn, 'SELECT', 3)
    with caplog.at_level(logging.DEBUG):
        manager.on_release('main', conn)
    assert conn.sock is None
    assert not manager.check_aliveness('main', conn, 5)
    assert "a connection to 'main' was closed: its session could not be reset: ResponseError" in caplog.text
    assert PASSWORD not in caplog.text


def test_a_reset_that_is_not_answered_closes_the_connection_in_time(
    manager: RedisConnectionManager, conn: RedisConnection, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_redis, 'RESET_GRACE', 0.1)
    execute(conn, 'SELECT', 3)
    with server.stopped():
        started = time.monotonic()
        manager.on_release('main', conn)
        assert time.monotonic() - started < 3
    assert conn.sock is None


def test_a_reset_that_is_interrupted_closes_the_connection(
    manager: RedisConnectionManager, conn: RedisConnection, server: RedisServer
) -> None:
    execute(conn, 'SELECT', 3)
    with server.stopped(), alarm(0.1), pytest.raises(KeyboardInterrupt):
        manager.on_release('main', conn)
    assert conn.sock is None


def test_a_reset_logs_in_with_the_credentials_of_a_provider(server: RedisServer) -> None:
    provider = redis.UsernamePasswordCredentialProvider(USER, PASSWORD)
    manager = RedisConnectionManager({'main': server.parameters(credential_provider=provider)})
    conn = manager.create('main')
    execute(conn, 'SELECT', 3)
    manager.on_release('main', conn)
    assert execute(conn, 'ACL WHOAMI') == USER.encode()
    manager.dispose('main', conn)


# failures


@pytest.mark.parametrize('failure, reusable', [
    (ValueError(), True), (TimeoutError(), True), (redis.ResponseError(), True), (redis.WatchError(), True),
    (redis.ConnectionError(), False), (redis.TimeoutError(), False), (KeyboardInterrupt(), False),
    (SystemExit(), False),
])  # fmt: skip
def test_a_failure_tells_whether_a_session_can_go_on(
    manager: RedisConnectionManager, conn: RedisConnection, failure: BaseException, reusable: bool
) -> None:
    assert manager.is_reusable('main', conn, failure) is reusable
    conn.send_command('PING')
    assert not manager.is_reusable('main', conn, failure)
    conn.read_response()
    conn.disconnect()
    assert not manager.is_reusable('main', conn, failure)


@pytest.mark.parametrize('stopped', [False, True])
def test_disposing_does_not_mind_a_server_that_is_stuck_or_gone_or_a_connection_that_is_closed(
    manager: RedisConnectionManager, server: RedisServer, stopped: bool
) -> None:
    conns = [manager.create('main') for _ in range(3)]
    conns[0].send_command('BLPOP', 'queue', 30)
    conns[1].disconnect()
    if stopped:
        with server.stopped():
            started = time.monotonic()
            for conn in conns:
                manager.dispose('main', conn)
            assert time.monotonic() - started < 1
    else:
        server.restart()
        for conn in conns * 2:
            manager.dispose('main', conn, timeout=1)
    eventually(lambda: not server.sessions())


def test_a_connection_that_another_thread_has_acquired_is_cut_but_its_parser_is_left_alone(
    manager: RedisConnectionManager, conn: RedisConnection
) -> None:
    manager.on_acquire('main', conn)
    conn.send_command('BLPOP', 'queue', 30)
    thread = threading.Thread(target=manager.dispose, args=('main', conn))
    thread.start()
    thread.join()
    # what this thread might be in the middle of ends as if the server had hung up
    assert conn.sock is not None and conn.sock.fileno() < 0
    with pytest.raises(redis.ConnectionError):
        conn.read_response()
    assert conn.sock is None


def test_a_lost_connection_is_not_connected_again_unseen(conn: RedisConnection, server: RedisServer) -> None:
    execute(conn, 'SELECT', 3)
    server.ask('CLIENT KILL', 'ID', execute(conn, 'CLIENT ID'))
    with pytest.raises(redis.ConnectionError):
        execute(conn, 'GET', 'a')
    for again in (lambda: execute(conn, 'GET', 'a'), conn.connect, lambda: conn.can_read(0)):
        with pytest.raises(redis.ConnectionError, match='does not connect again'):
            again()
    assert not server.sessions()


def test_a_repr_tells_no_password(manager: RedisConnectionManager) -> None:
    conn = manager.create('user')
    with contextlib.closing(conn.sock) if conn.sock else contextlib.nullcontext():
        assert PASSWORD not in repr(conn) + repr(manager)
        manager.dispose('user', conn)
