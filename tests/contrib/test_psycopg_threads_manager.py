"""The manager of psycopg 3 connections for threads, against a real server."""

import contextlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, Iterator, List

import pytest

psycopg = pytest.importorskip('psycopg', exc_type=ImportError)

from support.postgres import PostgresServer  # noqa: E402
from support.psycopg3 import ALPHA, ERRORS, LONG, fetch  # noqa: E402
from support.psycopg3_threads import conn as conn, manager as manager  # noqa: E402
from support.servers import eventually, open_descriptors  # noqa: E402

from generic_connection_pool.contrib._sockets import is_quiet  # noqa: E402
from generic_connection_pool.contrib.psycopg import DbConnection, DbConnectionManager  # noqa: E402

IDLE = psycopg.pq.TransactionStatus.IDLE


# -- checking


def test_an_idle_connection_is_found_alive_time_and_again(manager: DbConnectionManager, conn: DbConnection) -> None:
    assert manager.check_aliveness(ALPHA, conn, 0)
    assert fetch(conn, 'SELECT 1') == 1
    assert manager.check_aliveness(ALPHA, conn)


def test_a_check_asks_nothing_of_the_server(
    manager: DbConnectionManager, conn: DbConnection, postgres: PostgresServer
) -> None:
    with postgres.stopped(conn.info.backend_pid):
        assert manager.check_aliveness(ALPHA, conn, 0)


def test_a_session_that_was_ended_is_found_dead(
    manager: DbConnectionManager, conn: DbConnection, postgres: PostgresServer
) -> None:
    postgres.kill(conn.info.backend_pid)
    eventually(lambda: not is_quiet(conn.fileno()))
    assert not manager.check_aliveness(ALPHA, conn)


def test_a_server_process_that_crashed_is_found_dead(manager: DbConnectionManager, conn: DbConnection) -> None:
    # no farewell, just the end of the stream
    with socket.fromfd(conn.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.shutdown(socket.SHUT_RDWR)
    assert not manager.check_aliveness(ALPHA, conn)


def test_a_message_that_nobody_asked_for_does_no_harm_and_reaches_its_handler(
    manager: DbConnectionManager, conn: DbConnection, postgres: PostgresServer
) -> None:
    heard: List[str] = []
    conn.add_notify_handler(lambda notify: heard.append(notify.payload))
    conn.execute('LISTEN news')
    conn.commit()
    postgres.query("SELECT pg_notify('news', 'hello')")
    eventually(lambda: not is_quiet(conn.fileno()))
    assert manager.check_aliveness(ALPHA, conn)
    assert heard == ['hello']
    assert is_quiet(conn.fileno())
    assert fetch(conn, 'SELECT 1') == 1


def test_a_connection_closed_by_its_user_is_found_dead(manager: DbConnectionManager, conn: DbConnection) -> None:
    conn.close()
    assert not manager.check_aliveness(ALPHA, conn)


# -- the other hooks


def test_a_transaction_that_is_open_when_a_connection_is_acquired_is_rolled_back(
    manager: DbConnectionManager, conn: DbConnection
) -> None:
    fetch(conn, 'SELECT 1')
    manager.on_acquire(ALPHA, conn)
    assert conn.info.transaction_status == IDLE


def test_a_rollback_that_fails_on_acquiring_is_an_error_and_closes_the_connection(
    manager: DbConnectionManager, conn: DbConnection, postgres: PostgresServer
) -> None:
    fetch(conn, 'SELECT 1')
    postgres.kill(conn.info.backend_pid)
    with pytest.raises(psycopg.Error):
        manager.on_acquire(ALPHA, conn)
    assert conn.closed


def test_a_rollback_that_fails_on_releasing_closes_the_connection(
    manager: DbConnectionManager, conn: DbConnection, postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    manager.on_acquire(ALPHA, conn)
    fetch(conn, 'SELECT 1')
    postgres.kill(conn.info.backend_pid)
    manager.on_release(ALPHA, conn)
    assert conn.closed
    assert not manager.check_aliveness(ALPHA, conn)
    assert 'could not be cleaned up' in caplog.text


def test_nothing_is_asked_of_the_server_if_no_transaction_is_open(
    manager: DbConnectionManager, conn: DbConnection, postgres: PostgresServer
) -> None:
    postgres.kill(conn.info.backend_pid)
    # a round trip would fail
    manager.on_acquire(ALPHA, conn)
    conn.row_factory = psycopg.rows.dict_row
    conn.autocommit = True
    manager.on_release(ALPHA, conn)
    assert not conn.closed


@pytest.mark.parametrize('failure, expected', ERRORS, ids=lambda value: type(value).__name__)
def test_a_failure_tells_whether_a_session_can_go_on(
    manager: DbConnectionManager, conn: DbConnection, failure: BaseException, expected: bool
) -> None:
    assert manager.is_reusable(ALPHA, conn, failure) is expected


def test_a_session_that_the_server_ends_with_its_error_cannot_go_on(
    manager: DbConnectionManager, conn: DbConnection, postgres: PostgresServer
) -> None:
    with pytest.raises(psycopg.OperationalError) as caught:
        postgres.kill(conn.info.backend_pid)
        fetch(conn, 'SELECT 1')
    assert caught.value.sqlstate == '57P01'
    assert not manager.is_reusable(ALPHA, conn, caught.value)


def test_a_session_cannot_go_on_in_the_middle_of_a_query_or_when_it_is_closed(
    manager: DbConnectionManager, conn: DbConnection, postgres: PostgresServer
) -> None:
    with busy(conn, postgres):
        assert not manager.is_reusable(ALPHA, conn, ValueError())
        assert not manager.check_aliveness(ALPHA, conn)
        conn.cancel_safe()
    conn.close()
    assert not manager.is_reusable(ALPHA, conn, ValueError())


@pytest.mark.parametrize('known', [True, False])
def test_disposing_ends_a_query_that_runs_in_another_thread_at_once(
    manager: DbConnectionManager, conn: DbConnection, postgres: PostgresServer, known: bool
) -> None:
    with busy(conn, postgres, manager.on_acquire if known else lambda *_: None):
        started = time.monotonic()
        manager.dispose(ALPHA, conn, timeout=1)
    assert time.monotonic() - started < 5
    assert conn.closed


def test_a_copy_in_another_thread_is_ended_by_disposing_but_not_freed_under_it(
    manager: DbConnectionManager, postgres: PostgresServer
) -> None:
    before = open_descriptors()
    conn = manager.create(ALPHA)
    with ThreadPoolExecutor(1) as elsewhere:
        elsewhere.submit(manager.on_acquire, ALPHA, conn).result()
        copying = conn.cursor().copy('COPY notes FROM STDIN')
        copy = elsewhere.submit(copying.__enter__).result()
        manager.dispose(ALPHA, conn)
        eventually(lambda: postgres.sessions() == 0)
        with pytest.raises(psycopg.OperationalError):
            elsewhere.submit(copying.__exit__, None, None, None).result()
    assert conn.closed
    del copying, copy, conn
    eventually(lambda: open_descriptors() == before)


def test_disposing_of_what_this_thread_is_in_the_middle_of_closes_it(
    manager: DbConnectionManager, conn: DbConnection
) -> None:
    manager.on_acquire(ALPHA, conn)
    with pytest.raises(psycopg.ProgrammingError):
        conn.execute('COPY notes FROM STDIN')
    assert conn.info.transaction_status == psycopg.pq.TransactionStatus.ACTIVE
    manager.dispose(ALPHA, conn)
    assert conn.closed


def test_disposing_does_not_mind_a_server_that_is_gone_or_does_not_answer_or_a_connection_that_is_closed(
    manager: DbConnectionManager, conn: DbConnection, postgres: PostgresServer
) -> None:
    other = manager.create(ALPHA)
    postgres.kill(conn.info.backend_pid)
    manager.dispose(ALPHA, conn)
    manager.dispose(ALPHA, conn)
    assert conn.closed
    with postgres.stopped(other.info.backend_pid):
        started = time.monotonic()
        manager.dispose(ALPHA, other)
        assert time.monotonic() - started < 1
    assert other.closed


@contextlib.contextmanager
def busy(
    conn: DbConnection, postgres: PostgresServer, begin: Callable[..., None] = lambda *_: None
) -> Iterator[None]:
    """Run a query in another thread, which has to be ended from within the block."""
    # a BEGIN before the query would make the connection busy twice
    conn.autocommit = True

    def sleep() -> None:
        begin(ALPHA, conn)
        with contextlib.suppress(psycopg.Error):
            fetch(conn, LONG)

    thread = threading.Thread(target=sleep)
    thread.start()
    # in the eyes of the server, which ignores what would cancel a query that it has not begun
    eventually(lambda: postgres.is_running(LONG))
    yield
    thread.join(10)
    assert not thread.is_alive()
