"""What seldom happens to psycopg 3 connections, of either manager, against a real server."""

import concurrent.futures
import threading
from typing import Any, Callable, Iterator, List

import pytest

psycopg = pytest.importorskip('psycopg', exc_type=ImportError)

from support.postgres import PostgresServer  # noqa: E402
from support.psycopg3 import ALPHA, fetch, fetch_async, parameters  # noqa: E402
from support.servers import eventually  # noqa: E402

from generic_connection_pool.contrib import _psycopg, psycopg as threads, psycopg_async  # noqa: E402
from generic_connection_pool.contrib._psycopg_connect import Attempt  # noqa: E402
from generic_connection_pool.contrib._sockets import is_quiet  # noqa: E402

IDLE = psycopg.pq.TransactionStatus.IDLE


@pytest.fixture
def manager(postgres: PostgresServer) -> threads.DbConnectionManager:
    return threads.DbConnectionManager({ALPHA: parameters(postgres)})


@pytest.fixture
def conn(manager: threads.DbConnectionManager) -> Iterator[threads.DbConnection]:
    conn = manager.create(ALPHA)
    yield conn
    manager.dispose(ALPHA, conn)


# -- checking


def listen(conn: threads.DbConnection) -> None:
    conn.execute('LISTEN news')
    conn.commit()


def test_a_server_that_goes_on_talking_is_not_listened_to_for_ever(
    manager: threads.DbConnectionManager,
    conn: threads.DbConnection,
    postgres: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    take_in: Callable[[Any], None] = _psycopg._take_in
    taken: List[Any] = []

    def say_something() -> None:
        postgres.query("SELECT pg_notify('news', 'more')")
        eventually(lambda: not is_quiet(conn.fileno()))

    def take_in_and_hear_more(pgconn: Any) -> None:
        take_in(pgconn)
        taken.append(pgconn)
        assert len(taken) < 100
        say_something()

    listen(conn)
    say_something()
    with monkeypatch.context() as patch:
        patch.setattr(_psycopg, '_take_in', take_in_and_hear_more)
        assert not manager.check_aliveness(ALPHA, conn)
    assert len(taken) > 1
    # one that has come to an end is
    assert manager.check_aliveness(ALPHA, conn)


def test_a_notification_that_is_for_nobody_does_no_harm(
    manager: threads.DbConnectionManager, conn: threads.DbConnection, postgres: PostgresServer
) -> None:
    listen(conn)
    conn.pgconn.notify_handler = None
    postgres.query("SELECT pg_notify('news', 'hello')")
    eventually(lambda: not is_quiet(conn.fileno()))
    assert manager.check_aliveness(ALPHA, conn)
    assert is_quiet(conn.fileno())
    assert fetch(conn, 'SELECT 1') == 1


# -- connections that come back without having been acquired


@pytest.mark.parametrize('resets', [False, True])
def test_a_connection_that_nobody_has_acquired_is_cleaned_up_as_far_as_that_can_be(
    postgres: PostgresServer, resets: bool
) -> None:
    was_reset: List[Any] = []
    manager = threads.DbConnectionManager({ALPHA: parameters(postgres)}, reset=was_reset.append if resets else None)
    conn = manager.create(ALPHA)
    fetch(conn, 'SELECT 1')
    manager.on_release(ALPHA, conn)
    assert not conn.closed
    assert conn.info.transaction_status == IDLE
    assert was_reset == [conn] * resets
    manager.dispose(ALPHA, conn)


@pytest.mark.parametrize('resets', [False, True])
async def test_a_connection_that_no_task_has_acquired_is_cleaned_up_as_far_as_that_can_be(
    postgres: PostgresServer, resets: bool
) -> None:
    was_reset: List[Any] = []

    async def reset(conn: psycopg_async.DbConnection) -> None:
        was_reset.append(conn)

    manager = psycopg_async.DbConnectionManager({ALPHA: parameters(postgres)}, reset=reset if resets else None)
    conn = await manager.create(ALPHA)
    await fetch_async(conn, 'SELECT 1')
    await manager.on_release(ALPHA, conn)
    assert not conn.closed
    assert conn.info.transaction_status == IDLE
    assert was_reset == [conn] * resets
    await manager.dispose(ALPHA, conn)


# -- connecting in another thread


def connecting() -> bool:
    return any(thread.name == 'gcp-connect' for thread in threading.enumerate())


def test_without_any_time_nothing_is_begun() -> None:
    begun: List[str] = []

    def connect() -> threads.DbConnection:
        begun.append('connect')
        raise AssertionError

    with pytest.raises(TimeoutError, match="'main'"):
        Attempt(connect, lambda conn: None).outcome(0, 'main')
    assert not connecting()
    assert begun == []


def test_a_connection_that_comes_when_nobody_waits_for_it_is_closed_without_having_been_configured(
    manager: threads.DbConnectionManager, postgres: PostgresServer
) -> None:
    is_given_up = threading.Event()
    made: 'concurrent.futures.Future[threads.DbConnection]' = concurrent.futures.Future()
    configured: List[Any] = []

    def connect() -> threads.DbConnection:
        assert is_given_up.wait(10)
        conn = manager.create(ALPHA)
        made.set_result(conn)
        return conn

    with pytest.raises(TimeoutError, match="'alpha'"):
        Attempt(connect, configured.append).outcome(0.01, ALPHA)
    is_given_up.set()
    conn = made.result(10)
    eventually(lambda: not connecting())
    assert conn.closed
    assert configured == []
    eventually(lambda: postgres.sessions() == 0)
