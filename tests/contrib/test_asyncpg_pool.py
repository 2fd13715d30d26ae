"""A pool of asyncpg connections, against a real server."""

import asyncio
import contextlib
import gc
import time
from typing import AsyncIterator

import pytest

asyncpg = pytest.importorskip('asyncpg', exc_type=ImportError)

from support.postgres import DATABASES, PostgresServer  # noqa: E402
from support.servers import eventually_async, open_descriptors  # noqa: E402

from generic_connection_pool.asyncio import ConnectionPool  # noqa: E402
from generic_connection_pool.contrib.asyncpg import DbConnection, DbConnectionManager  # noqa: E402

Pool = ConnectionPool[str, DbConnection]
ALPHA = DATABASES[0]
LONG = 'SELECT 1 FROM pg_sleep(30)'


@pytest.fixture
def manager(postgres: PostgresServer) -> DbConnectionManager:
    return DbConnectionManager({name: postgres.parameters(name) for name in DATABASES})


@pytest.fixture
async def pool(manager: DbConnectionManager) -> AsyncIterator[Pool]:
    pool: Pool = ConnectionPool(manager)
    yield pool
    await pool.close(timeout=5)


@pytest.fixture(autouse=True)
def empty_table(postgres: PostgresServer) -> None:
    postgres.query('DELETE FROM notes', database=ALPHA)


async def test_a_connection_is_reused(pool: Pool) -> None:
    pids = []
    for _ in range(3):
        async with pool.connection(ALPHA) as conn:
            pids.append(await conn.fetchval('SELECT pg_backend_pid()'))
    assert len(set(pids)) == 1


async def test_each_endpoint_is_a_database_of_its_own(pool: Pool) -> None:
    async with contextlib.AsyncExitStack() as stack:
        conns = {name: await stack.enter_async_context(pool.connection(name)) for name in DATABASES}
        assert {name: await conn.fetchval('SELECT current_database()') for name, conn in conns.items()} == {
            name: name for name in DATABASES
        }
    assert pool.get_size() == 3


async def test_what_is_committed_stays_and_a_transaction_left_open_is_rolled_back(
    pool: Pool, postgres: PostgresServer
) -> None:
    async with pool.connection(ALPHA) as conn:
        await conn.execute("INSERT INTO notes VALUES ('kept')")
        await conn.execute('BEGIN')
        await conn.execute("INSERT INTO notes VALUES ('lost')")
    assert postgres.open_transactions() == 0
    async with pool.connection(ALPHA) as again:
        assert again is conn
        assert not again.is_in_transaction()
    assert postgres.query('SELECT * FROM notes') == [('kept',)]


async def test_after_a_transaction_object_left_open_the_next_user_can_use_transactions(
    pool: Pool, postgres: PostgresServer
) -> None:
    async with pool.connection(ALPHA) as conn:
        await conn.transaction().start()
        await conn.execute("INSERT INTO notes VALUES ('lost')")
    async with pool.connection(ALPHA) as again:
        assert again is conn
        async with again.transaction():
            await again.execute("INSERT INTO notes VALUES ('kept')")
    assert postgres.query('SELECT * FROM notes') == [('kept',)]


async def test_a_failed_transaction_is_rolled_back_and_its_connection_reused(pool: Pool) -> None:
    with pytest.raises(asyncpg.UniqueViolationError):
        async with pool.connection(ALPHA) as conn:
            await conn.execute('BEGIN')
            await conn.execute("INSERT INTO notes VALUES ('twice'), ('twice')")
    async with pool.connection(ALPHA) as again:
        assert again is conn
        assert await again.fetchval('SELECT 1') == 1


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


async def test_a_connection_whose_session_was_ended_while_idle_is_replaced(
    pool: Pool, postgres: PostgresServer
) -> None:
    async with pool.connection(ALPHA) as conn:
        pid = await conn.fetchval('SELECT pg_backend_pid()')
    before = open_descriptors()
    # the event loop has no chance to notice before the next acquire
    postgres.kill(pid)
    async with pool.connection(ALPHA) as conn:
        assert await conn.fetchval('SELECT pg_backend_pid()') != pid
    await eventually_async(lambda: pool.get_size() == 1)
    await eventually_async(lambda: open_descriptors() == before)


async def test_the_end_of_a_session_in_use_is_an_error_and_the_next_user_gets_another_connection(
    pool: Pool, postgres: PostgresServer
) -> None:
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        async with pool.connection(ALPHA) as conn:
            postgres.kill(await conn.fetchval('SELECT pg_backend_pid()'))
            await conn.fetchval('SELECT 1')
    async with pool.connection(ALPHA) as again:
        assert again is not conn
        assert await again.fetchval('SELECT 1') == 1
    await eventually_async(lambda: pool.get_size() == 1)


async def test_the_end_of_a_session_in_use_that_its_user_has_not_noticed_is_no_error(
    pool: Pool, postgres: PostgresServer
) -> None:
    async with pool.connection(ALPHA) as conn:
        await conn.execute('BEGIN')
        postgres.kill(await conn.fetchval('SELECT pg_backend_pid()'))
    async with pool.connection(ALPHA) as again:
        assert again is not conn
        assert await again.fetchval('SELECT 1') == 1


async def test_a_query_cancelled_half_way_is_never_continued_by_the_next_user(
    pool: Pool, postgres: PostgresServer
) -> None:
    async def use() -> None:
        async with pool.connection(ALPHA) as conn:
            await conn.fetchval(LONG)

    user = asyncio.ensure_future(use())
    await eventually_async(lambda: postgres.is_running(LONG))
    user.cancel()
    started = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await user
    async with pool.connection(ALPHA) as conn:
        assert await conn.fetchval('SELECT 2') == 2
    assert time.monotonic() - started < 5
    await eventually_async(lambda: pool.get_size() == 1)


@pytest.mark.parametrize('patience', [0.001, 0.01, 0.05])
async def test_a_query_that_runs_into_a_timeout_is_never_continued_by_the_next_user(
    pool: Pool, patience: float
) -> None:
    with pytest.raises(asyncio.TimeoutError):
        async with pool.connection(ALPHA) as conn:
            await conn.fetchval(LONG, timeout=patience)
    async with pool.connection(ALPHA) as again:
        assert again is not conn
        assert await again.fetchval('SELECT 2') == 2


async def test_a_timeout_that_the_user_has_dealt_with_does_no_harm_to_the_next(pool: Pool) -> None:
    async with pool.connection(ALPHA) as conn:
        with contextlib.suppress(asyncio.TimeoutError):
            await conn.fetchval(LONG, timeout=0.01)
    async with pool.connection(ALPHA) as again:
        assert await again.fetchval('SELECT 2') == 2


async def test_a_statement_timeout_is_an_error_like_any_other(pool: Pool) -> None:
    with pytest.raises(asyncpg.QueryCanceledError):
        async with pool.connection(ALPHA) as conn, conn.transaction():
            await conn.execute('SET LOCAL statement_timeout = 10')
            await conn.fetchval('SELECT 1 FROM pg_sleep(10)')
    async with pool.connection(ALPHA) as again:
        assert again is conn
        assert await again.fetchval('SELECT 2') == 2


async def test_a_connection_closed_by_its_user_is_replaced(pool: Pool) -> None:
    async with pool.connection(ALPHA) as conn:
        await conn.close()
    async with pool.connection(ALPHA) as again:
        assert await again.fetchval('SELECT 1') == 1


async def test_tasks_that_share_a_pool_do_not_share_connections(pool: Pool) -> None:
    async def use(number: int) -> None:
        for _ in range(20):
            async with pool.connection(DATABASES[number % 3], timeout=10) as conn:
                assert await conn.fetchval('SELECT $1::int', number) == number

    await asyncio.gather(*(use(number) for number in range(12)))


async def test_a_pool_closed_by_force_ends_a_running_query(pool: Pool, postgres: PostgresServer) -> None:
    async def use() -> None:
        async with pool.connection(ALPHA) as conn:
            await conn.fetchval(LONG)

    user = asyncio.ensure_future(use())
    await eventually_async(lambda: postgres.is_running(LONG))
    await pool.close(timeout=0.02)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await asyncio.wait_for(user, 5)
    await eventually_async(lambda: postgres.sessions() == 0)


@pytest.mark.filterwarnings('ignore:unclosed:ResourceWarning', 'ignore::pytest.PytestUnraisableExceptionWarning')
def test_a_pool_can_be_used_again_by_another_event_loop(
    manager: DbConnectionManager, postgres: PostgresServer
) -> None:
    before = open_descriptors()
    pool: Pool = ConnectionPool(manager)

    async def use() -> None:
        async with pool.connection(ALPHA) as conn:
            assert await conn.fetchval('SELECT 1') == 1

    async def use_and_close() -> None:
        await use()
        await pool.close()

    asyncio.run(use())
    asyncio.run(use_and_close())
    gc.collect()
    assert open_descriptors() == before
    assert postgres.sessions() == 0
