"""A pool of psycopg 3 connections for asyncio, against a real server."""

import asyncio
import contextlib
from typing import Any, List, Tuple

import pytest

psycopg = pytest.importorskip('psycopg', exc_type=ImportError)

from psycopg import errors  # noqa: E402
from support.crowds import crowd_of_tasks  # noqa: E402
from support.postgres import DATABASES, PostgresServer  # noqa: E402
from support.psycopg3 import ALPHA, UpperCase, fetch_async, parameters  # noqa: E402
from support.psycopg3_asyncio import Pool, manager as manager, opened, pool as pool  # noqa: E402
from support.servers import eventually, open_descriptors  # noqa: E402

from generic_connection_pool.asyncio import ConnectionPool  # noqa: E402
from generic_connection_pool.contrib.psycopg_async import DbConnection, DbConnectionManager  # noqa: E402

IDLE = psycopg.pq.TransactionStatus.IDLE


@pytest.fixture(autouse=True)
def empty_table(postgres: PostgresServer) -> None:
    postgres.query('DELETE FROM notes', database=ALPHA)


async def test_a_connection_is_reused(pool: Pool) -> None:
    pids = []
    for _ in range(3):
        async with pool.connection(ALPHA) as conn:
            pids.append(await fetch_async(conn, 'SELECT pg_backend_pid()'))
    assert len(set(pids)) == 1


async def test_each_endpoint_is_a_database_of_its_own(pool: Pool) -> None:
    async with contextlib.AsyncExitStack() as stack:
        conns = {name: await stack.enter_async_context(pool.connection(name)) for name in DATABASES}
        assert {name: await fetch_async(conn, 'SELECT current_database()') for name, conn in conns.items()} == {
            name: name for name in DATABASES
        }
    assert pool.get_size() == 3


async def test_two_hundred_tasks_over_five_connections_get_the_answers_to_their_questions(
    manager: DbConnectionManager,
) -> None:
    async with opened(manager, max_size=5) as pool:

        async def ask(question: str) -> Tuple[str, str]:
            async with pool.connection(ALPHA, timeout=30) as conn:
                return f'answer to {question}', await fetch_async(conn, "SELECT 'answer to ' || %s", question)

        await crowd_of_tasks(ask)
        assert pool.get_size() <= 5


def test_a_pool_can_be_used_again_by_another_event_loop(manager: DbConnectionManager, postgres: PostgresServer) -> None:
    before = open_descriptors()
    pool: Pool = ConnectionPool(manager)

    async def use() -> None:
        async with pool.connection(ALPHA) as conn:
            assert await fetch_async(conn, 'SELECT 1') == 1

    async def use_and_close() -> None:
        await use()
        await pool.close()

    asyncio.run(use())
    asyncio.run(use_and_close())
    assert open_descriptors() == before
    eventually(lambda: postgres.sessions() == 0)


# -- transactions


async def test_what_is_committed_stays_and_a_transaction_left_open_is_rolled_back(
    pool: Pool, postgres: PostgresServer
) -> None:
    async with pool.connection(ALPHA) as conn:
        await conn.execute("INSERT INTO notes VALUES ('kept')")
        await conn.commit()
        await conn.execute("INSERT INTO notes VALUES ('lost')")
    assert postgres.open_transactions() == 0
    async with pool.connection(ALPHA) as again:
        assert again is conn
        assert again.info.transaction_status == IDLE
    assert postgres.query('SELECT * FROM notes') == [('kept',)]


async def test_a_transaction_begun_by_hand_in_autocommit_mode_is_rolled_back(
    pool: Pool, postgres: PostgresServer
) -> None:
    async with pool.connection(ALPHA) as conn:
        await conn.set_autocommit(True)
        await conn.execute('BEGIN')
        await conn.execute("INSERT INTO notes VALUES ('lost')")
    async with pool.connection(ALPHA) as again:
        assert again is conn
        assert again.info.transaction_status == IDLE
    assert postgres.query('SELECT * FROM notes') == []


async def test_a_failed_transaction_is_rolled_back_and_its_connection_reused(pool: Pool) -> None:
    with pytest.raises(errors.UniqueViolation):
        async with pool.connection(ALPHA) as conn:
            await conn.execute("INSERT INTO notes VALUES ('twice'), ('twice')")
    async with pool.connection(ALPHA) as again:
        assert again is conn
        assert await fetch_async(again, 'SELECT 1') == 1


async def test_an_error_of_the_users_own_rolls_back_and_the_connection_is_reused(
    pool: Pool, postgres: PostgresServer
) -> None:
    with pytest.raises(ValueError):
        async with pool.connection(ALPHA) as conn, conn.transaction():
            await conn.execute("INSERT INTO notes VALUES ('lost')")
            raise ValueError
    async with pool.connection(ALPHA) as again:
        assert again is conn
    assert postgres.query('SELECT * FROM notes') == []


@pytest.mark.parametrize('ends', [False, True])
async def test_a_transaction_block_that_is_never_left_does_not_keep_the_next_user_from_committing(
    pool: Pool, postgres: PostgresServer, ends: bool
) -> None:
    forgotten = contextlib.AsyncExitStack()
    async with pool.connection(ALPHA) as conn:
        await forgotten.enter_async_context(conn.transaction())
        await conn.execute("INSERT INTO notes VALUES ('lost')")
        if ends:
            # after which the server says that all is over, and psycopg does not
            await conn.execute('ROLLBACK')
    async with pool.connection(ALPHA) as again:
        await again.execute("INSERT INTO notes VALUES ('kept')")
        await again.commit()
    assert postgres.query('SELECT * FROM notes') == [('kept',)]
    assert conn.closed
    await forgotten.aclose()


@pytest.mark.parametrize('ends', [False, True])
async def test_a_two_phase_transaction_left_open_is_not_left_to_the_next_user(
    pool: Pool, postgres: PostgresServer, ends: bool
) -> None:
    async with pool.connection(ALPHA) as conn:
        await conn.tpc_begin(conn.xid(1, 'global', 'branch'))
        await conn.execute("INSERT INTO notes VALUES ('lost')")
        if ends:
            await conn.execute('ROLLBACK')
    async with pool.connection(ALPHA) as again:
        await again.execute("INSERT INTO notes VALUES ('kept')")
        await again.commit()
    assert postgres.query('SELECT * FROM notes') == [('kept',)]


# -- settings


async def test_what_a_user_has_set_on_the_connection_is_not_left_to_the_next(pool: Pool) -> None:
    async with pool.connection(ALPHA) as conn:
        isolation = await fetch_async(conn, 'SHOW transaction_isolation')
    async with pool.connection(ALPHA) as conn:
        await conn.set_autocommit(True)
        await conn.set_isolation_level(psycopg.IsolationLevel.SERIALIZABLE)
        await conn.set_read_only(True)
        await conn.set_deferrable(True)
        conn.row_factory = psycopg.rows.dict_row
        conn.cursor_factory = psycopg.AsyncClientCursor
        conn.server_cursor_factory = type('Mine', (psycopg.AsyncServerCursor,), {})
        conn.prepare_threshold = None
        conn.prepared_max = 7
        conn.adapters.register_loader('text', UpperCase)
        assert await (await conn.execute("SELECT 'a'::text AS letter")).fetchone() == {'letter': 'A'}
    async with pool.connection(ALPHA) as again:
        assert again is conn
        assert (again.autocommit, again.read_only, again.deferrable) == (False, None, None)
        assert again.isolation_level is None
        assert type(again.cursor()) is psycopg.AsyncCursor
        assert again.server_cursor_factory is psycopg.AsyncServerCursor
        assert (again.prepare_threshold, again.prepared_max) == (5, 100)
        assert await (await again.execute("SELECT 'a'::text AS letter")).fetchone() == ('a',)
        assert await fetch_async(again, 'SHOW transaction_isolation') == isolation
        assert await fetch_async(again, 'SHOW transaction_read_only') == 'off'


async def test_what_was_set_when_the_connection_was_opened_stays(postgres: PostgresServer) -> None:
    async def configure(conn: DbConnection) -> None:
        await conn.set_autocommit(True)
        conn.adapters.register_loader('text', UpperCase)

    manager = DbConnectionManager({ALPHA: parameters(postgres, prepare_threshold=3)}, configure=configure)
    async with opened(manager) as pool:
        for _ in range(3):
            async with pool.connection(ALPHA) as conn:
                assert conn.autocommit and conn.prepare_threshold == 3
                assert await fetch_async(conn, "SELECT 'a'::text") == 'A'
                await conn.set_autocommit(False)
                conn.prepare_threshold = 4
                conn.adapters.register_loader('text', psycopg.types.string.TextLoader)
                assert await fetch_async(conn, "SELECT 'a'::text") == 'a'


async def test_a_user_hears_nothing_of_what_the_next_one_does(pool: Pool) -> None:
    heard: List[object] = []
    async with pool.connection(ALPHA) as conn:
        await conn.execute('LISTEN news')
        await conn.commit()
        conn.add_notice_handler(heard.append)
        conn.add_notify_handler(heard.append)
        await conn.execute("DO $$ BEGIN RAISE NOTICE 'mine'; END $$")
        assert len(heard) == 1
    async with pool.connection(ALPHA) as again:
        assert again is conn
        await again.execute("DO $$ BEGIN RAISE NOTICE 'of others'; END $$")
        await again.execute('NOTIFY news')
        await again.commit()
    assert len(heard) == 1


async def test_a_user_does_not_see_the_notifications_of_another(pool: Pool, postgres: PostgresServer) -> None:
    async with pool.connection(ALPHA) as conn:
        await conn.execute('LISTEN news')
        await conn.commit()
        postgres.query("SELECT pg_notify('news', 'hello')")
        await conn.execute('SELECT 1')
    async with pool.connection(ALPHA) as again:
        assert again is conn
        assert [notify async for notify in again.notifies(timeout=0)] == []


# -- resetting


async def test_a_reset_cleans_up_what_sql_has_changed(postgres: PostgresServer) -> None:
    async def reset(conn: DbConnection) -> None:
        await conn.set_autocommit(True)
        await conn.execute('DISCARD ALL')

    async with opened(DbConnectionManager({ALPHA: parameters(postgres)}, reset=reset)) as pool:
        async with pool.connection(ALPHA) as conn:
            await conn.set_read_only(True)
            await conn.execute("SET application_name = 'mine'")
            await conn.execute('SELECT %s::int', [1], prepare=True)
            await conn.commit()
        async with pool.connection(ALPHA) as again:
            assert again is conn
            assert not again.autocommit
            assert await fetch_async(again, 'SHOW application_name') == ''
            # psycopg knows that what it had prepared is gone
            cursor = await again.execute('SELECT %s::int', [2], prepare=True)
            assert await cursor.fetchone() == (2,)


async def forgets_to_commit(conn: DbConnection) -> None:
    await conn.execute('RESET ALL')


async def fails(conn: DbConnection) -> None:
    raise ValueError('mine')


@pytest.mark.parametrize('reset, reason', [
    (forgets_to_commit, 'the reset callback left a connection unfit for use: a transaction is open (INTRANS)'),
    (fails, 'could not be cleaned up: mine'),
])  # fmt: skip
async def test_a_connection_whose_reset_does_not_succeed_is_discarded_and_the_log_says_why(
    postgres: PostgresServer, caplog: pytest.LogCaptureFixture, reset: Any, reason: str
) -> None:
    async with opened(DbConnectionManager({ALPHA: parameters(postgres)}, reset=reset)) as pool:
        async with pool.connection(ALPHA) as conn:
            assert await fetch_async(conn, 'SELECT 1') == 1
        assert conn.closed
        assert reason in caplog.text
        async with pool.connection(ALPHA) as again:
            assert again is not conn
            assert await fetch_async(again, 'SELECT 1') == 1


async def test_a_cancelled_reset_closes_the_connection(postgres: PostgresServer) -> None:
    async def reset(conn: DbConnection) -> None:
        raise asyncio.CancelledError

    async with opened(DbConnectionManager({ALPHA: parameters(postgres)}, reset=reset)) as pool:
        with pytest.raises(asyncio.CancelledError):
            async with pool.connection(ALPHA) as conn:
                await conn.execute('SELECT 1')
        assert conn.closed
