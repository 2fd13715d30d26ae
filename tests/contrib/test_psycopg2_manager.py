"""The manager of psycopg2 connections, against a real server."""

import contextlib
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, Iterator, List

import pytest

psycopg2 = pytest.importorskip('psycopg2', exc_type=ImportError)

from psycopg2 import extensions  # noqa: E402
from support.connecting import await_threads, brief_threads as brief_threads  # noqa: E402
from support.postgres import DATABASES, USER_WITH_PASSWORD, PostgresServer  # noqa: E402
from support.servers import eventually, open_descriptors, refusing_port, silent_server  # noqa: E402

from generic_connection_pool.contrib import psycopg2 as module  # noqa: E402
from generic_connection_pool.contrib._sockets import is_quiet  # noqa: E402
from generic_connection_pool.contrib.psycopg2 import DbConnectionManager  # noqa: E402

ALPHA = DATABASES[0]


@pytest.fixture
def manager(postgres: PostgresServer) -> DbConnectionManager:
    return DbConnectionManager({name: postgres.parameters(name) for name in DATABASES})


@pytest.fixture
def conn(manager: DbConnectionManager) -> Iterator[extensions.connection]:
    conn = manager.create(ALPHA)
    yield conn
    manager.dispose(ALPHA, conn)


def fetch(conn: extensions.connection, sql: str, *args: Any) -> Any:
    """Run a query and return the first value of its answer."""
    with conn.cursor() as cursor:
        cursor.execute(sql, args)
        return cursor.fetchone()[0]  # type: ignore[index]


# -- creating


@pytest.mark.parametrize('timeout', [None, 5.0])
def test_a_wrong_password_is_an_error_that_does_not_tell_it(postgres: PostgresServer, timeout: Any) -> None:
    wrong = 'wrong-secret'
    manager = DbConnectionManager({'main': postgres.parameters(user=USER_WITH_PASSWORD, password=wrong)})
    before = open_descriptors()
    with pytest.raises(psycopg2.OperationalError, match='password authentication failed') as caught:
        manager.create('main', timeout)
    assert wrong not in str(caught.value)
    eventually(lambda: open_descriptors() == before)


@pytest.mark.parametrize('dsn', [
    'postgresql://user:zy%%qx@localhost/db',
    'postgresql://user:zy/qx@localhost/db',
    'postgres//user:zy-qx@localhost/db',
    'host=localhost password=zy qx',
])
@pytest.mark.parametrize('timeout', [None, 5.0])
def test_a_dsn_that_cannot_be_parsed_is_not_told(dsn: str, timeout: Any) -> None:
    with pytest.raises(psycopg2.ProgrammingError, match="dsn of endpoint 'main' cannot be parsed") as caught:
        DbConnectionManager({'main': {'dsn': dsn}}).create('main', timeout)
    assert not any(part in str(caught.value) for part in ('zy', 'qx'))


def test_a_dsn_may_be_a_url(postgres: PostgresServer) -> None:
    where = postgres.parameters()
    dsn = f"postgresql://postgres@/{ALPHA}?host={where['host']}&port={where['port']}"
    manager = DbConnectionManager({'main': {'dsn': dsn}})
    for timeout in (None, 5.0):
        conn = manager.create('main', timeout)
        assert fetch(conn, 'SELECT current_database()') == ALPHA
        manager.dispose('main', conn)


@pytest.mark.parametrize('timeout', [None, 5.0])
def test_a_refused_connection_says_where(timeout: Any) -> None:
    port = refusing_port()
    manager = DbConnectionManager({'main': {'host': '127.0.0.1', 'port': port, 'user': 'x'}})
    with pytest.raises(psycopg2.OperationalError, match=str(port)):
        manager.create('main', timeout)


def test_a_server_that_never_answers_is_given_up_in_time(brief_threads: None) -> None:
    with silent_server() as (host, port):
        manager = DbConnectionManager({'main': {'host': host, 'port': port, 'user': 'x', 'connect_timeout': 2}})
        started = time.monotonic()
        with pytest.raises(TimeoutError, match="'main'"):
            manager.create('main', timeout=0.1)
        assert 0.09 < time.monotonic() - started < 1


def test_the_timeout_of_the_connect_keywords_holds_too() -> None:
    with silent_server() as (host, port):
        manager = DbConnectionManager({'main': {'dsn': f'host={host} port={port} user=x connect_timeout=2'}})
        with pytest.raises(psycopg2.OperationalError, match='timeout'):
            manager.create('main', timeout=30)


def test_a_connection_that_comes_too_late_is_closed(
    postgres: PostgresServer, manager: DbConnectionManager, brief_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = delay_connect(monkeypatch)
    with pytest.raises(TimeoutError):
        manager.create(ALPHA, timeout=0.02)
    late.set()
    await_threads()
    monkeypatch.undo()
    eventually(lambda: postgres.sessions() == 0)


@pytest.mark.skipif(not hasattr(signal, 'setitimer'), reason='there is no timer signal')
def test_an_interrupted_connect_closes_what_it_has_connected(
    postgres: PostgresServer, manager: DbConnectionManager, brief_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = delay_connect(monkeypatch)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            manager.create(ALPHA, timeout=10)
        assert time.monotonic() - started < 5
    finally:
        signal.signal(signal.SIGALRM, before)
    late.set()
    await_threads()
    monkeypatch.undo()
    eventually(lambda: postgres.sessions() == 0)


@pytest.mark.parametrize('timeout, seconds', [(0.1, 2), (1.5, 3), (30, 31)])
def test_a_connect_that_is_left_alone_ends_soon(
    monkeypatch: pytest.MonkeyPatch, timeout: float, seconds: int
) -> None:
    wanted: List[Dict[str, Any]] = []

    def connect(**params: Any) -> None:
        wanted.append(params)
        raise psycopg2.OperationalError

    monkeypatch.setattr(psycopg2, 'connect', connect)
    with pytest.raises(psycopg2.OperationalError):
        DbConnectionManager({'main': {'user': 'x'}}).create('main', timeout)
    assert wanted == [{'user': 'x', 'connect_timeout': seconds}]


def delay_connect(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Have psycopg2 connect no sooner than the event that is returned is set."""
    connect: Callable[..., Any] = psycopg2.connect
    late = threading.Event()

    def delayed(**params: Any) -> Any:
        assert late.wait(10)
        return connect(**params)

    monkeypatch.setattr(psycopg2, 'connect', delayed)
    return late


# -- checking


def test_an_idle_connection_is_found_alive_time_and_again(
    manager: DbConnectionManager, conn: extensions.connection
) -> None:
    assert manager.check_aliveness(ALPHA, conn, 0)
    assert fetch(conn, 'SELECT 1') == 1
    assert manager.check_aliveness(ALPHA, conn)


def test_a_session_that_was_ended_is_found_dead(
    manager: DbConnectionManager, conn: extensions.connection, postgres: PostgresServer
) -> None:
    postgres.kill(fetch(conn, 'SELECT pg_backend_pid()'))
    eventually(lambda: not is_quiet(conn.fileno()))
    assert not manager.check_aliveness(ALPHA, conn)


def test_a_server_process_that_crashed_is_found_dead(
    manager: DbConnectionManager, conn: extensions.connection
) -> None:
    # no farewell, just the end of the stream
    with socket.fromfd(conn.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.shutdown(socket.SHUT_RDWR)
    assert not manager.check_aliveness(ALPHA, conn)


def test_a_message_that_nobody_asked_for_does_no_harm(
    manager: DbConnectionManager, conn: extensions.connection, postgres: PostgresServer
) -> None:
    fetch(conn, 'LISTEN news; SELECT 1')
    conn.commit()
    postgres.query("SELECT pg_notify('news', 'hello')")
    eventually(lambda: not is_quiet(conn.fileno()))
    assert manager.check_aliveness(ALPHA, conn)
    assert is_quiet(conn.fileno())
    assert fetch(conn, 'SELECT 1') == 1


def test_a_server_that_goes_on_talking_is_not_listened_to_for_ever(
    manager: DbConnectionManager,
    conn: extensions.connection,
    postgres: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, '_ROUNDS', 1)
    fetch(conn, 'LISTEN news; SELECT 1')
    conn.commit()
    postgres.query("SELECT pg_notify('news', 'hello')")
    eventually(lambda: not is_quiet(conn.fileno()))
    assert not manager.check_aliveness(ALPHA, conn)
    assert manager.check_aliveness(ALPHA, conn)


def test_a_connection_closed_by_its_user_is_found_dead(
    manager: DbConnectionManager, conn: extensions.connection
) -> None:
    conn.close()
    assert not manager.check_aliveness(ALPHA, conn)


# -- the other hooks


def test_a_transaction_that_is_open_when_a_connection_is_acquired_is_rolled_back(
    manager: DbConnectionManager, conn: extensions.connection
) -> None:
    fetch(conn, 'SELECT 1')
    manager.on_acquire(ALPHA, conn)
    assert conn.get_transaction_status() == extensions.TRANSACTION_STATUS_IDLE


def test_a_rollback_that_fails_on_acquiring_is_an_error_and_closes_the_connection(
    manager: DbConnectionManager, conn: extensions.connection, postgres: PostgresServer
) -> None:
    postgres.kill(fetch(conn, 'SELECT pg_backend_pid()'))
    with pytest.raises(psycopg2.Error):
        manager.on_acquire(ALPHA, conn)
    assert conn.closed


def test_a_rollback_that_fails_on_releasing_closes_the_connection(
    manager: DbConnectionManager, conn: extensions.connection, postgres: PostgresServer,
    caplog: pytest.LogCaptureFixture
) -> None:
    manager.on_acquire(ALPHA, conn)
    postgres.kill(fetch(conn, 'SELECT pg_backend_pid()'))
    manager.on_release(ALPHA, conn)
    assert conn.closed
    assert not manager.check_aliveness(ALPHA, conn)
    assert 'could not be cleaned up' in caplog.text


def test_nothing_is_asked_of_the_server_if_no_transaction_is_open(
    manager: DbConnectionManager, conn: extensions.connection, postgres: PostgresServer
) -> None:
    postgres.kill(conn.info.backend_pid)
    # a round trip would fail
    manager.on_acquire(ALPHA, conn)
    manager.on_release(ALPHA, conn)
    assert not conn.closed


FAILURES: Dict[Any, bool] = {
    ValueError(): True,
    psycopg2.ProgrammingError(): True,
    psycopg2.OperationalError(): False,
    psycopg2.InterfaceError(): False,
    TimeoutError(): False,
    ConnectionResetError(): False,
    KeyboardInterrupt(): False,
    GeneratorExit(): False,
}


@pytest.mark.parametrize('failure', FAILURES, ids=lambda failure: type(failure).__name__)
def test_a_failure_tells_whether_a_session_can_go_on(
    manager: DbConnectionManager, conn: extensions.connection, failure: BaseException
) -> None:
    assert manager.is_reusable(ALPHA, conn, failure) is FAILURES[failure]


def test_a_session_cannot_go_on_in_the_middle_of_a_query_or_when_it_is_closed(
    manager: DbConnectionManager, conn: extensions.connection
) -> None:
    with busy(conn):
        assert not manager.is_reusable(ALPHA, conn, ValueError())
        assert not manager.check_aliveness(ALPHA, conn)
        conn.cancel()
    conn.close()
    assert not manager.is_reusable(ALPHA, conn, ValueError())


@pytest.mark.parametrize('known', [True, False])
def test_disposing_ends_a_running_query_at_once(
    manager: DbConnectionManager, conn: extensions.connection, known: bool
) -> None:
    started = time.monotonic()
    with busy(conn, manager.on_acquire if known else lambda *_: None):
        manager.dispose(ALPHA, conn, timeout=1)
    assert time.monotonic() - started < 5
    assert conn.closed


def test_a_connection_that_another_thread_may_be_using_is_cut_but_not_closed_which_might_crash_psycopg2(
    manager: DbConnectionManager, postgres: PostgresServer
) -> None:
    before = open_descriptors()
    conn = manager.create(ALPHA)
    with ThreadPoolExecutor(1) as elsewhere:
        elsewhere.submit(manager.on_acquire, ALPHA, conn).result()
        manager.dispose(ALPHA, conn)
    assert not conn.closed
    eventually(lambda: postgres.sessions() == 0)
    with pytest.raises(psycopg2.Error):
        fetch(conn, 'SELECT 1')
    del conn
    eventually(lambda: open_descriptors() == before)


def test_a_connection_that_this_thread_has_acquired_is_closed(
    manager: DbConnectionManager, conn: extensions.connection
) -> None:
    manager.on_acquire(ALPHA, conn)
    manager.dispose(ALPHA, conn)
    assert conn.closed


def test_disposing_does_not_mind_a_server_that_is_gone_or_a_connection_that_is_closed(
    manager: DbConnectionManager, conn: extensions.connection, postgres: PostgresServer
) -> None:
    postgres.kill(conn.info.backend_pid)
    manager.dispose(ALPHA, conn)
    manager.dispose(ALPHA, conn)
    assert conn.closed


@contextlib.contextmanager
def busy(conn: extensions.connection, begin: Callable[..., None] = lambda *_: None) -> Iterator[None]:
    """Run a query in another thread, which has to be ended from within the block."""
    # a BEGIN before the query would make the connection busy twice
    conn.autocommit = True

    def sleep() -> None:
        begin(ALPHA, conn)
        with contextlib.suppress(psycopg2.Error):
            fetch(conn, 'SELECT 1 FROM pg_sleep(30)')

    thread = threading.Thread(target=sleep)
    thread.start()
    eventually(lambda: conn.get_transaction_status() == extensions.TRANSACTION_STATUS_ACTIVE)
    yield
    thread.join(10)
    assert not thread.is_alive()
