"""What breaks off in a pool of psycopg 3 connections for threads reaches nobody else."""

import contextlib
import os
import signal
import threading
from typing import Any, Dict

import pytest

psycopg = pytest.importorskip('psycopg', exc_type=ImportError)

from psycopg import errors  # noqa: E402
from support.forking import fork, sockets_of  # noqa: E402
from support.postgres import DATABASES, PostgresServer  # noqa: E402
from support.psycopg3 import ALPHA, LONG, fetch  # noqa: E402
from support.psycopg3_threads import Pool, manager as manager, pool as pool  # noqa: E402
from support.servers import eventually, open_descriptors  # noqa: E402

from generic_connection_pool.contrib.psycopg import DbConnection  # noqa: E402

@pytest.fixture(autouse=True)
def empty_table(postgres: PostgresServer) -> None:
    postgres.query('DELETE FROM notes', database=ALPHA)


@pytest.mark.parametrize('mode', ['fast', 'immediate'])
def test_after_a_restart_of_the_server_idle_connections_are_replaced(
    pool: Pool, postgres: PostgresServer, mode: str
) -> None:
    with contextlib.ExitStack() as stack:
        for name in DATABASES:
            stack.enter_context(pool.connection(name))
    before = open_descriptors()
    postgres.stop(mode)
    with pytest.raises(psycopg.OperationalError, match="'alpha'"), pool.connection(ALPHA):
        pass
    postgres.start()
    for name in DATABASES:
        with pool.connection(name) as conn:
            assert fetch(conn, 'SELECT current_database()') == name
    assert pool.get_size() == 3
    assert open_descriptors() == before


class Alarm(BaseException):
    """Something that psycopg does not expect, as opposed to Ctrl-C."""


@pytest.mark.skipif(not hasattr(signal, 'setitimer'), reason='there is no timer signal')
@pytest.mark.parametrize('kind', [Alarm, KeyboardInterrupt, TimeoutError])
def test_a_query_interrupted_half_way_is_never_continued_by_the_next_user(pool: Pool, kind: Any) -> None:
    def ring(*args: Any) -> None:
        raise kind

    before = signal.signal(signal.SIGALRM, ring)
    try:
        with pytest.raises(kind), pool.connection(ALPHA) as conn:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            fetch(conn, 'SELECT 1 FROM pg_sleep(0.5)')
    finally:
        signal.signal(signal.SIGALRM, before)
    assert conn.closed
    with pool.connection(ALPHA) as again:
        assert again is not conn
        assert fetch(again, 'SELECT 2') == 2


def test_a_query_that_its_user_cancels_is_an_error_like_any_other(pool: Pool, postgres: PostgresServer) -> None:
    def cancel(conn: DbConnection) -> None:
        eventually(lambda: postgres.is_running(LONG))
        conn.cancel_safe()

    with pytest.raises(errors.QueryCanceled), pool.connection(ALPHA) as conn:
        canceller = threading.Thread(target=cancel, args=(conn,))
        canceller.start()
        try:
            fetch(conn, LONG)
        finally:
            canceller.join()
    with pool.connection(ALPHA) as again:
        assert again is conn
        assert fetch(again, 'SELECT 2') == 2


def test_a_copy_that_breaks_off_leaves_nothing_to_the_next_user(pool: Pool, postgres: PostgresServer) -> None:
    copies = ('COPY (SELECT generate_series(1, 100000)) TO STDOUT', 'COPY notes FROM STDIN')
    for statement in copies:
        with pytest.raises(ValueError, match='disk full'), pool.connection(ALPHA) as conn:
            with conn.cursor() as cursor, cursor.copy(statement) as copy:
                if 'FROM' in statement:
                    copy.write_row(['lost'])
                raise ValueError('disk full')
        with pool.connection(ALPHA) as again:
            assert fetch(again, 'SELECT 2') == 2
    assert postgres.query('SELECT * FROM notes') == []


def begins_a_copy(conn: DbConnection, postgres: PostgresServer) -> object:
    copying = conn.cursor().copy('COPY (SELECT generate_series(1, 100000)) TO STDOUT')
    return copying, copying.__enter__().read()


def begins_a_stream(conn: DbConnection, postgres: PostgresServer) -> object:
    rows = conn.cursor().stream('SELECT generate_series(1, 100000)')
    return rows, next(rows)


def begins_to_wait_for_notifications(conn: DbConnection, postgres: PostgresServer) -> object:
    conn.execute('LISTEN news')
    conn.commit()
    postgres.query("SELECT pg_notify('news', 'hello')")
    notifications = conn.notifies()
    return notifications, next(notifications)


def begins_a_pipeline(conn: DbConnection, postgres: PostgresServer) -> object:
    pipeline = conn.pipeline()
    pipeline.__enter__()
    return pipeline, conn.execute('SELECT 1')


@pytest.mark.parametrize('begin, reason', [
    (begins_a_copy, 'query or COPY'), (begins_a_stream, 'query or COPY'), (begins_a_pipeline, 'pipeline mode'),
    (begins_to_wait_for_notifications, 'notifies()'),
])  # fmt: skip
def test_what_a_user_has_left_unfinished_does_not_reach_the_next(
    pool: Pool, postgres: PostgresServer, caplog: pytest.LogCaptureFixture, begin: Any, reason: str
) -> None:
    with pool.connection(ALPHA) as conn:
        unfinished = begin(conn, postgres)
    assert conn.closed
    assert reason in caplog.text
    with pool.connection(ALPHA) as again:
        assert again is not conn
        assert fetch(again, 'SELECT 2') == 2
    assert pool.get_size() == 1
    del unfinished


def test_a_named_cursor_left_open_does_not_keep_the_connection_from_being_reused(pool: Pool) -> None:
    # psycopg warns of one that is never closed
    with contextlib.ExitStack() as later:
        for _ in range(2):
            with pool.connection(ALPHA) as conn:
                cursor = later.enter_context(conn.cursor('mine'))
                cursor.execute('SELECT generate_series(1, 10)')
                assert cursor.fetchone() == (1,)
    assert pool.get_size() == 1
    assert not conn.closed


def test_a_connection_closed_by_its_user_is_replaced(pool: Pool) -> None:
    with pool.connection(ALPHA) as conn, conn:
        pass
    assert conn.closed
    with pool.connection(ALPHA) as again:
        assert fetch(again, 'SELECT 1') == 1


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='this platform does not fork')
def test_sessions_survive_a_child_that_closes_all_it_knows(pool: Pool, postgres: PostgresServer) -> None:
    with pool.connection(ALPHA) as held:
        with pool.connection(ALPHA) as idle:
            sessions = [idle.info.backend_pid, held.info.backend_pid]
        mine = {os.fstat(conn.fileno()).st_ino for conn in (held, idle)}
        seen: Dict[str, Any] = {}
        reader, writer = os.pipe()
        pid = fork()
        if not pid:
            try:
                seen['released'] = not mine & sockets_of(os.getpid())
                with pool.connection(ALPHA) as conn:
                    seen['fresh'] = fetch(conn, 'SELECT pg_backend_pid()') not in sessions
                for conn in (held, idle):
                    conn.close()  # says goodbye, to nobody
                pool.release(held, ALPHA)
                pool.close()
                if seen == {'released': True, 'fresh': True}:
                    os.write(writer, b'.')
            finally:
                os._exit(0)
        os.close(writer)
        os.waitpid(pid, 0)
        with os.fdopen(reader, 'rb') as pipe:
            assert pipe.read() == b'.'
        assert [fetch(conn, 'SELECT pg_backend_pid()') for conn in (idle, held)] == sessions
        idle.rollback()
