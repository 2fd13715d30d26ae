"""A pool of psycopg2 connections, against a real server."""

import signal
import threading
from typing import Any, Iterator, List

import pytest

psycopg2 = pytest.importorskip('psycopg2', exc_type=ImportError)

from psycopg2 import extensions, extras  # noqa: E402
from support.postgres import DATABASES, PostgresServer  # noqa: E402

from generic_connection_pool.contrib.psycopg2 import DbConnectionManager  # noqa: E402
from generic_connection_pool.threading import ConnectionPool  # noqa: E402

Pool = ConnectionPool[str, extensions.connection]
ALPHA = DATABASES[0]


@pytest.fixture
def manager(postgres: PostgresServer) -> DbConnectionManager:
    return DbConnectionManager({name: postgres.parameters(name) for name in DATABASES})


@pytest.fixture
def pool(manager: DbConnectionManager) -> Iterator[Pool]:
    pool: Pool = ConnectionPool(manager)
    yield pool
    pool.close(timeout=5)


@pytest.fixture(autouse=True)
def empty_table(postgres: PostgresServer) -> None:
    postgres.query('DELETE FROM notes', database=ALPHA)


def fetch(conn: extensions.connection, sql: str, *args: Any) -> Any:
    """Run a query and return the first value of its answer."""
    with conn.cursor() as cursor:
        cursor.execute(sql, args)
        return cursor.fetchone()[0]  # type: ignore[index]


def test_a_commit_that_was_executed_as_sql_does_not_cost_the_next_user_a_transaction(
    pool: Pool, postgres: PostgresServer
) -> None:
    with pool.connection(ALPHA) as conn, conn.cursor() as cursor:
        cursor.execute("INSERT INTO notes VALUES ('kept')")
        cursor.execute('COMMIT')
    with pool.connection(ALPHA) as again, again.cursor() as cursor:
        assert again is conn
        cursor.execute("INSERT INTO notes VALUES ('lost')")
        again.rollback()
    assert postgres.query('SELECT * FROM notes') == [('kept',)]


def test_what_a_user_has_set_on_the_connection_is_not_left_to_the_next(pool: Pool) -> None:
    with pool.connection(ALPHA) as conn:
        isolation = fetch(conn, 'SHOW transaction_isolation')
    with pool.connection(ALPHA) as conn:
        conn.autocommit = True
        conn.isolation_level = extensions.ISOLATION_LEVEL_SERIALIZABLE
        conn.readonly = conn.deferrable = True
        conn.cursor_factory = extras.DictCursor
        assert fetch(conn, 'SHOW transaction_isolation') == 'serializable'
    with pool.connection(ALPHA) as again:
        assert again is conn
        assert (again.autocommit, again.readonly, again.deferrable) == (False, None, None)
        assert again.isolation_level is None
        assert not isinstance(again.cursor(), extras.DictCursor)
        assert fetch(again, 'SHOW transaction_isolation') == isolation
        assert fetch(again, 'SHOW transaction_read_only') == 'off'


def test_what_a_manager_sets_on_a_new_connection_stays(postgres: PostgresServer) -> None:
    class Autocommitting(DbConnectionManager):
        def create(self, endpoint: str, timeout: 'float | None' = None) -> extensions.connection:
            conn = super().create(endpoint, timeout)
            conn.autocommit = True
            return conn

    pool: Pool = ConnectionPool(Autocommitting({ALPHA: postgres.parameters()}))
    for _ in range(2):
        with pool.connection(ALPHA) as conn:
            assert conn.autocommit
            conn.autocommit = False
    pool.close()


def test_a_user_does_not_see_the_notices_of_another(pool: Pool) -> None:
    with pool.connection(ALPHA) as conn, conn.cursor() as cursor:
        cursor.execute("DO $$ BEGIN RAISE NOTICE 'secret'; END $$")
        assert conn.notices
    with pool.connection(ALPHA) as again:
        assert again is conn
        assert not again.notices


def test_a_user_does_not_see_the_notifications_of_another(pool: Pool, postgres: PostgresServer) -> None:
    with pool.connection(ALPHA) as conn:
        fetch(conn, 'LISTEN news; SELECT 1')
        conn.commit()
        postgres.query("SELECT pg_notify('news', 'hello')")
        fetch(conn, 'SELECT 1')
        assert conn.notifies
    with pool.connection(ALPHA) as again:
        assert again is conn
        assert not again.notifies


@pytest.mark.skipif(not hasattr(signal, 'setitimer'), reason='there is no timer signal')
def test_a_query_interrupted_half_way_is_never_continued_by_the_next_user(pool: Pool) -> None:
    class Alarm(BaseException):
        pass

    def ring(*args: Any) -> None:
        raise Alarm

    before = signal.signal(signal.SIGALRM, ring)
    try:
        with pytest.raises(Alarm), pool.connection(ALPHA) as conn:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            fetch(conn, 'SELECT 1 FROM pg_sleep(0.2)')
    finally:
        signal.signal(signal.SIGALRM, before)
    with pool.connection(ALPHA) as again:
        assert again is not conn
        assert fetch(again, 'SELECT 2') == 2


def test_a_user_who_gives_up_on_a_running_query_leaves_nothing_of_it_to_the_next(pool: Pool) -> None:
    with pytest.raises(TimeoutError), pool.connection(ALPHA) as conn:
        raise TimeoutError
    with pool.connection(ALPHA) as again:
        assert again is not conn


def test_a_copy_that_breaks_off_leaves_nothing_to_the_next_user(pool: Pool) -> None:
    class Broken:
        def write(self, data: Any) -> None:
            raise ValueError('disk full')

    with pytest.raises(ValueError, match='disk full'), pool.connection(ALPHA) as conn, conn.cursor() as cursor:
        cursor.copy_expert('COPY (SELECT generate_series(1, 100000)) TO STDOUT', Broken())
    with pool.connection(ALPHA) as again:
        assert fetch(again, 'SELECT 2') == 2


def test_a_connection_closed_by_its_user_is_replaced(pool: Pool) -> None:
    with pool.connection(ALPHA) as conn:
        conn.close()
    with pool.connection(ALPHA) as again:
        assert fetch(again, 'SELECT 1') == 1


def test_a_two_phase_transaction_left_open_is_not_left_to_the_next_user(pool: Pool) -> None:
    with pool.connection(ALPHA) as conn:
        conn.tpc_begin(conn.xid(1, 'global', 'branch'))
    with pool.connection(ALPHA) as again:
        assert again.status == extensions.STATUS_READY
        assert fetch(again, 'SELECT 1') == 1


def test_threads_that_share_a_pool_do_not_share_connections(pool: Pool) -> None:
    failures: List[BaseException] = []

    def use(number: int) -> None:
        try:
            for _ in range(20):
                with pool.connection(DATABASES[number % 3], timeout=10) as conn:
                    assert fetch(conn, 'SELECT %s', number) == number
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
