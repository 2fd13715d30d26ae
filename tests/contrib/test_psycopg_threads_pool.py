"""A pool of psycopg 3 connections for threads, against a real server."""

import contextlib
from typing import Any, List, Tuple

import pytest

psycopg = pytest.importorskip('psycopg', exc_type=ImportError)

from support.crowds import crowd_of_threads  # noqa: E402
from support.postgres import PostgresServer  # noqa: E402
from support.psycopg3 import ALPHA, UpperCase, fetch, parameters  # noqa: E402
from support.psycopg3_threads import Pool, manager as manager, opened, pool as pool  # noqa: E402

from generic_connection_pool.contrib.psycopg import DbConnection, DbConnectionManager  # noqa: E402


@pytest.fixture(autouse=True)
def empty_table(postgres: PostgresServer) -> None:
    postgres.query('DELETE FROM notes', database=ALPHA)


def test_fifty_threads_over_five_connections_get_the_answers_to_their_questions(manager: DbConnectionManager) -> None:
    with opened(manager, max_size=5) as pool:

        def ask(question: str) -> Tuple[str, str]:
            with pool.connection(ALPHA, timeout=30) as conn:
                return f'answer to {question}', fetch(conn, "SELECT 'answer to ' || %s", question)

        crowd_of_threads(ask)
        assert pool.get_size() <= 5


# -- transactions


@pytest.mark.parametrize('ends', [False, True])
def test_a_transaction_block_that_is_never_left_does_not_keep_the_next_user_from_committing(
    pool: Pool, postgres: PostgresServer, ends: bool
) -> None:
    forgotten = contextlib.ExitStack()
    with pool.connection(ALPHA) as conn:
        forgotten.enter_context(conn.transaction())
        conn.execute("INSERT INTO notes VALUES ('lost')")
        if ends:
            # after which the server says that all is over, and psycopg does not
            conn.execute('ROLLBACK')
    with pool.connection(ALPHA) as again:
        again.execute("INSERT INTO notes VALUES ('kept')")
        again.commit()
    assert postgres.query('SELECT * FROM notes') == [('kept',)]
    assert conn.closed
    forgotten.close()


@pytest.mark.parametrize('ends', [False, True])
def test_a_two_phase_transaction_left_open_is_not_left_to_the_next_user(
    pool: Pool, postgres: PostgresServer, ends: bool
) -> None:
    with pool.connection(ALPHA) as conn:
        conn.tpc_begin(conn.xid(1, 'global', 'branch'))
        conn.execute("INSERT INTO notes VALUES ('lost')")
        if ends:
            conn.execute('ROLLBACK')
    with pool.connection(ALPHA) as again:
        again.execute("INSERT INTO notes VALUES ('kept')")
        again.commit()
    assert postgres.query('SELECT * FROM notes') == [('kept',)]


# -- settings


def test_what_a_user_has_set_on_the_connection_is_not_left_to_the_next(pool: Pool) -> None:
    with pool.connection(ALPHA) as conn:
        isolation = fetch(conn, 'SHOW transaction_isolation')
    with pool.connection(ALPHA) as conn:
        conn.autocommit = True
        conn.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        conn.read_only = conn.deferrable = True
        conn.row_factory = psycopg.rows.dict_row
        conn.cursor_factory = psycopg.ClientCursor
        conn.server_cursor_factory = type('Mine', (psycopg.ServerCursor,), {})
        conn.prepare_threshold = None
        conn.prepared_max = 7
        conn.adapters.register_loader('text', UpperCase)
        assert conn.execute("SELECT 'a'::text AS letter").fetchone() == {'letter': 'A'}
    with pool.connection(ALPHA) as again:
        assert again is conn
        assert (again.autocommit, again.read_only, again.deferrable) == (False, None, None)
        assert again.isolation_level is None
        assert type(again.cursor()) is psycopg.Cursor
        assert again.server_cursor_factory is psycopg.ServerCursor
        assert (again.prepare_threshold, again.prepared_max) == (5, 100)
        assert again.execute("SELECT 'a'::text AS letter").fetchone() == ('a',)
        assert fetch(again, 'SHOW transaction_isolation') == isolation
        assert fetch(again, 'SHOW transaction_read_only') == 'off'


def test_what_was_set_when_the_connection_was_opened_stays(postgres: PostgresServer) -> None:
    heard: List[str] = []

    def configure(conn: DbConnection) -> None:
        conn.autocommit = True
        conn.row_factory = psycopg.rows.dict_row
        conn.adapters.register_loader('text', UpperCase)
        conn.add_notice_handler(lambda notice: heard.append(str(notice.message_primary)))

    manager = DbConnectionManager({ALPHA: parameters(postgres, prepare_threshold=3)}, configure=configure)
    with opened(manager) as pool:
        for number in range(3):
            with pool.connection(ALPHA) as conn:
                assert conn.autocommit and conn.prepare_threshold == 3
                assert conn.execute("SELECT 'a'::text AS letter").fetchone() == {'letter': 'A'}
                conn.execute(f"DO $$ BEGIN RAISE NOTICE 'notice {number}'; END $$")
                conn.autocommit = False
                conn.prepare_threshold = 4
                conn.row_factory = psycopg.rows.tuple_row
                conn.adapters.register_loader('text', psycopg.types.string.TextLoader)
                assert conn.execute("SELECT 'a'::text AS letter").fetchone() == ('a',)
    assert heard == ['notice 0', 'notice 1', 'notice 2']


def test_a_user_hears_nothing_of_what_the_next_one_does(pool: Pool) -> None:
    heard: List[object] = []
    with pool.connection(ALPHA) as conn:
        conn.execute('LISTEN news')
        conn.commit()
        conn.add_notice_handler(heard.append)
        conn.add_notify_handler(heard.append)
        conn.execute("DO $$ BEGIN RAISE NOTICE 'mine'; END $$")
        assert len(heard) == 1
    with pool.connection(ALPHA) as again:
        assert again is conn
        again.execute("DO $$ BEGIN RAISE NOTICE 'of others'; END $$")
        again.execute('NOTIFY news')
        again.commit()
    assert len(heard) == 1


def test_a_user_does_not_see_the_notifications_of_another(pool: Pool, postgres: PostgresServer) -> None:
    with pool.connection(ALPHA) as conn:
        conn.execute('LISTEN news')
        conn.commit()
        postgres.query("SELECT pg_notify('news', 'hello')")
        fetch(conn, 'SELECT 1')
    with pool.connection(ALPHA) as again:
        assert again is conn
        assert list(again.notifies(timeout=0)) == []


def test_statements_that_were_prepared_serve_the_next_user(pool: Pool) -> None:
    for number in range(3):
        with pool.connection(ALPHA) as conn:
            conn.execute('SELECT %s::int', [number], prepare=True)
            names = conn.execute('SELECT name FROM pg_prepared_statements').fetchall()
            assert len(names) == 1


# -- resetting


def test_a_reset_cleans_up_what_sql_has_changed(postgres: PostgresServer) -> None:
    def reset(conn: DbConnection) -> None:
        conn.autocommit = True
        conn.execute('DISCARD ALL')

    with opened(DbConnectionManager({ALPHA: parameters(postgres)}, reset=reset)) as pool:
        with pool.connection(ALPHA) as conn:
            conn.read_only = True
            conn.execute("SET application_name = 'mine'")
            conn.execute('SELECT %s::int', [1], prepare=True)
            conn.commit()
        with pool.connection(ALPHA) as again:
            assert again is conn
            assert not again.autocommit
            assert fetch(again, 'SHOW application_name') == ''
            # psycopg knows that what it had prepared is gone
            assert again.execute('SELECT %s::int', [2], prepare=True).fetchone() == (2,)


def forgets_to_commit(conn: DbConnection) -> None:
    conn.execute('RESET ALL')


def fails(conn: DbConnection) -> None:
    raise ValueError('mine')


def leaves_a_copy(conn: DbConnection) -> None:
    with contextlib.suppress(psycopg.ProgrammingError):
        conn.execute('COPY notes TO STDOUT')


@pytest.mark.parametrize('reset, reason', [
    (forgets_to_commit, 'the reset callback left a connection unfit for use: a transaction is open (INTRANS)'),
    (leaves_a_copy, 'the reset callback left a connection unfit for use: a query or COPY is still under way'),
    (fails, 'could not be cleaned up: mine'),
])  # fmt: skip
def test_a_connection_whose_reset_does_not_succeed_is_discarded_and_the_log_says_why(
    postgres: PostgresServer, caplog: pytest.LogCaptureFixture, reset: Any, reason: str
) -> None:
    with opened(DbConnectionManager({ALPHA: parameters(postgres)}, reset=reset)) as pool:
        with pool.connection(ALPHA) as conn:
            assert fetch(conn, 'SELECT 1') == 1
        assert conn.closed
        assert reason in caplog.text
        with pool.connection(ALPHA) as again:
            assert again is not conn
            assert fetch(again, 'SELECT 1') == 1


def test_an_interrupted_reset_closes_the_connection(postgres: PostgresServer) -> None:
    def reset(conn: DbConnection) -> None:
        raise KeyboardInterrupt

    with opened(DbConnectionManager({ALPHA: parameters(postgres)}, reset=reset)) as pool:
        with pytest.raises(KeyboardInterrupt), pool.connection(ALPHA) as conn:
            fetch(conn, 'SELECT 1')
        assert conn.closed
        assert pool.get_size() == 0
