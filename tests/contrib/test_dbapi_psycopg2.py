"""The manager of PEP 249 connections with psycopg2, against a real server."""

import time
from typing import Any, Iterator, Tuple

import pytest

psycopg2 = pytest.importorskip('psycopg2', exc_type=ImportError)

from psycopg2 import extensions, extras  # noqa: E402
from support.connecting import await_threads, brief_threads as brief_threads  # noqa: E402
from support.crowds import crowd_of_threads  # noqa: E402
from support.forking import in_child  # noqa: E402
from support.postgres import DATABASES, PASSWORD, USER_WITH_PASSWORD, PostgresServer  # noqa: E402
from support.servers import eventually, open_descriptors, refusing_port, silent_server  # noqa: E402

from generic_connection_pool.contrib.dbapi import DbConnectionManager  # noqa: E402
from generic_connection_pool.threading import ConnectionPool  # noqa: E402

Manager = DbConnectionManager[Any]
Pool = ConnectionPool[str, Any]
ALPHA = DATABASES[0]


@pytest.fixture
def manager(postgres: PostgresServer) -> Manager:
    return DbConnectionManager(psycopg2, {name: postgres.parameters(name) for name in DATABASES})


@pytest.fixture
def conn(manager: Manager) -> Iterator[Any]:
    conn = manager.create(ALPHA, timeout=5)
    yield conn
    manager.dispose(ALPHA, conn)


@pytest.fixture
def pool(manager: Manager) -> Iterator[Pool]:
    pool: Pool = ConnectionPool(manager, max_size=5)
    yield pool
    pool.close(timeout=5)


@pytest.fixture(autouse=True)
def empty_table(postgres: PostgresServer) -> None:
    postgres.query('DELETE FROM notes', database=ALPHA)


def fetch(conn: Any, sql: str, *args: Any) -> Any:
    """Run a query and return the first value of its answer."""
    with conn.cursor() as cursor:
        cursor.execute(sql, args)
        return cursor.fetchone()[0]


@pytest.mark.parametrize('timeout', [None, 5.0])
@pytest.mark.parametrize('dsn', [
    'postgresql://user:zy%%qx@localhost/db',
    'postgresql://user:zy/qx@localhost/db',
    'postgres//user:zy-qx@localhost/db',
    'host=localhost password=zy qx',
    'postgresql://localhost/db?password=zy%%qx',
])
def test_a_dsn_that_cannot_be_parsed_is_not_told(dsn: str, timeout: Any) -> None:
    with pytest.raises(psycopg2.Error, match="^endpoint 'main': .* it quotes a secret$") as caught:
        DbConnectionManager(psycopg2, {'main': {'dsn': dsn}}).create('main', timeout)
    assert not any(part in str(caught.value) for part in ('zy', 'qx'))
    assert caught.value.__context__ is None


def test_a_dsn_does_not_keep_an_error_from_being_told(postgres: PostgresServer) -> None:
    port = refusing_port()
    for dsn in (f'postgresql://x:my-secret@127.0.0.1:{port}/db', f"host=127.0.0.1 port={port} password='my-secret'"):
        with pytest.raises(psycopg2.OperationalError, match=f"^endpoint 'main': .*{port}.*refused"):
            DbConnectionManager(psycopg2, {'main': {'dsn': dsn}}).create('main')


def test_a_wrong_password_is_an_error_that_names_the_endpoint(postgres: PostgresServer) -> None:
    arguments = {'main': postgres.parameters(user=USER_WITH_PASSWORD, password=PASSWORD + 'x')}
    pool: Pool = ConnectionPool(DbConnectionManager(psycopg2, arguments))
    with pytest.raises(psycopg2.OperationalError, match="^endpoint 'main': .*authentication failed"):
        pool.acquire('main', timeout=5)
    assert pool.get_size() == 0
    pool.close()


def test_a_server_that_never_answers_is_given_up_in_time_and_its_connection_closed(brief_threads: None) -> None:
    with silent_server() as (host, port):
        before = open_descriptors()
        pool: Pool = ConnectionPool(DbConnectionManager(psycopg2, {'main': {'host': host, 'port': port, 'user': 'x'}}))
        started = time.monotonic()
        with pytest.raises(TimeoutError, match='main'):
            pool.acquire('main', timeout=0.1)
        assert 0.09 < time.monotonic() - started < 1
        assert pool.get_size() == 0
        await_threads()
        assert open_descriptors() == before
        pool.close()


def test_a_ping_leaves_no_transaction_open(manager: Manager, conn: Any, postgres: PostgresServer) -> None:
    for timeout in (0, 1.0, None):
        assert manager.check_aliveness(ALPHA, conn, timeout)
    assert postgres.open_transactions() == 0
    assert conn.status == extensions.STATUS_READY


def test_a_session_that_was_ended_is_found_dead(manager: Manager, conn: Any, postgres: PostgresServer) -> None:
    postgres.kill(fetch(conn, 'SELECT pg_backend_pid()'))
    assert not manager.check_aliveness(ALPHA, conn, 1.0)


def test_a_server_that_does_not_answer_a_ping_is_found_out_in_time_and_leaves_nothing_open(
    manager: Manager, postgres: PostgresServer
) -> None:
    before = open_descriptors()
    conn = manager.create(ALPHA)
    pid = conn.info.backend_pid
    with postgres.stopped(pid):
        started = time.monotonic()
        assert not manager.check_aliveness(ALPHA, conn, 0.1)
        manager.dispose(ALPHA, conn, 0.1)
        assert 0.09 < time.monotonic() - started < 1
        await_threads()
        assert open_descriptors() == before
    eventually(lambda: postgres.sessions() == 0)


def test_what_a_user_leaves_open_or_sets_is_undone(pool: Pool, postgres: PostgresServer) -> None:
    with pool.connection(ALPHA) as conn, conn.cursor() as cursor:
        cursor.execute("INSERT INTO notes VALUES ('kept')")
        conn.commit()
        conn.autocommit = True
        conn.readonly = conn.deferrable = False
        conn.isolation_level = extensions.ISOLATION_LEVEL_SERIALIZABLE
        conn.cursor_factory = extras.DictCursor
        cursor.execute('BEGIN')
        cursor.execute("INSERT INTO notes VALUES ('lost')")
    assert postgres.open_transactions() == 0
    with pool.connection(ALPHA) as again:
        assert again is conn
        assert (again.autocommit, again.readonly, again.deferrable) == (False, None, None)
        assert (again.isolation_level, again.cursor_factory) == (None, None)
    assert postgres.query('SELECT * FROM notes') == [('kept',)]


def test_what_sql_has_set_is_reset_by_a_function_and_stays_reset(postgres: PostgresServer) -> None:
    def reset(conn: Any) -> None:
        conn.cursor().execute('RESET ALL')

    pool: Pool = ConnectionPool(DbConnectionManager(psycopg2, {'main': postgres.parameters()}, reset=reset))
    with pool.connection('main') as conn:
        before = fetch(conn, 'SHOW search_path')
        fetch(conn, "SET search_path = 'nowhere'; SELECT 1")
        conn.commit()
    assert postgres.open_transactions() == 0
    with pool.connection('main') as again:
        assert again is conn
        assert fetch(again, 'SHOW search_path') == before
    pool.close()


def test_a_copy_that_breaks_off_leaves_nothing_to_the_next_user(pool: Pool) -> None:
    class Broken:
        def write(self, data: Any) -> None:
            raise ValueError('disk full')

    with pytest.raises(ValueError, match='disk full'), pool.connection(ALPHA) as conn, conn.cursor() as cursor:
        cursor.copy_expert('COPY (SELECT generate_series(1, 100000)) TO STDOUT', Broken())
    with pool.connection(ALPHA) as again:
        assert fetch(again, 'SELECT 2') == 2


def test_connections_that_were_idle_when_the_server_was_restarted_are_replaced(
    pool: Pool, postgres: PostgresServer
) -> None:
    with pool.connection(ALPHA) as conn:
        pass
    before = open_descriptors()
    postgres.stop()
    postgres.start()
    with pool.connection(ALPHA, timeout=5) as again:
        assert again is not conn
        assert fetch(again, 'SELECT 1') == 1
    assert pool.get_size() == 1
    assert open_descriptors() == before


def test_a_child_does_not_end_the_sessions_of_its_parent(pool: Pool) -> None:
    with pool.connection(ALPHA) as conn:
        pid = fetch(conn, 'SELECT pg_backend_pid()')
    assert in_child(pool.get_size) == 0
    with pool.connection(ALPHA) as again:
        assert fetch(again, 'SELECT pg_backend_pid()') == pid


def test_fifty_threads_share_five_connections(pool: Pool) -> None:
    def ask(question: str) -> Tuple[str, str]:
        with pool.connection(ALPHA, timeout=60) as conn:
            answer: str = fetch(conn, "SELECT %s || '!'", question)
        assert pool.get_size() <= 5
        return question + '!', answer

    crowd_of_threads(ask, threads=50, questions=5)
