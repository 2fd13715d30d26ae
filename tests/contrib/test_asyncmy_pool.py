"""A pool of asyncmy connections, against a real MariaDB."""

import asyncio
import contextlib
import gc
import os
import time
from typing import Any, AsyncIterator, Dict, Tuple

import pytest

asyncmy = pytest.importorskip('asyncmy', exc_type=ImportError)

from asyncmy import errors  # noqa: E402
from asyncmy.cursors import SSCursor  # noqa: E402
from support.crowds import crowd_of_tasks  # noqa: E402
from support.forking import in_child, sockets_of  # noqa: E402
from support.mariadb import DATABASES, PASSWORD, MariadbServer  # noqa: E402
from support.servers import eventually, eventually_async, open_descriptors  # noqa: E402

from generic_connection_pool.asyncio import ConnectionPool  # noqa: E402
from generic_connection_pool.contrib.asyncmy import DbConnectionManager  # noqa: E402

Pool = ConnectionPool[str, Any]
ALPHA, BETA = DATABASES
LONG = 'SELECT SLEEP(30)'
#: more than sockets and their readers hold
LARGE = 'SELECT seq, REPEAT("x", 1000) FROM seq_1_to_20000'


@pytest.fixture
def manager(mariadb: MariadbServer) -> DbConnectionManager:
    return DbConnectionManager({name: mariadb.parameters(name) for name in DATABASES})


@pytest.fixture
async def pool(manager: DbConnectionManager) -> AsyncIterator[Pool]:
    pool: Pool = ConnectionPool(manager, max_size=5)
    yield pool
    await pool.close(timeout=5)
    assert not manager._sessions


@pytest.fixture(autouse=True)
def nothing_left_over(mariadb: MariadbServer) -> None:
    mariadb.clear()


async def fetch(conn: Any, sql: str, *args: Any) -> Any:
    """Run a query and return the first value of its answer, if any."""
    async with conn.cursor() as cursor:
        await cursor.execute(sql, args)
        row = await cursor.fetchone() if cursor.description else None
        return row and row[0]


async def test_a_connection_is_reused(pool: Pool) -> None:
    seen = set()
    for _ in range(3):
        async with pool.connection(ALPHA) as conn:
            seen.add(await fetch(conn, 'SELECT CONNECTION_ID()'))
    assert len(seen) == 1


async def test_each_endpoint_is_a_database_of_its_own(pool: Pool) -> None:
    for name in DATABASES:
        async with pool.connection(name) as conn:
            assert await fetch(conn, 'SELECT DATABASE()') == name
    assert pool.get_size() == 2


async def test_what_is_committed_stays_and_a_transaction_left_open_is_rolled_back(
    pool: Pool, mariadb: MariadbServer
) -> None:
    async with pool.connection(ALPHA) as conn:
        await fetch(conn, "INSERT INTO notes VALUES ('kept')")
        await conn.commit()
        await fetch(conn, "INSERT INTO notes VALUES ('lost')")
    assert mariadb.open_transactions() == 0
    async with pool.connection(ALPHA) as again:
        assert again is conn
        assert await fetch(again, 'SELECT @@in_transaction') == 0
    assert mariadb.query('SELECT * FROM notes') == [('kept',)]


async def test_after_a_violated_constraint_the_connection_is_reset_and_reused(
    pool: Pool, mariadb: MariadbServer
) -> None:
    with pytest.raises(errors.IntegrityError):
        async with pool.connection(ALPHA) as conn:
            await fetch(conn, "INSERT INTO notes VALUES ('twice')")
            await fetch(conn, "INSERT INTO notes VALUES ('twice')")
    async with pool.connection(ALPHA) as again:
        assert again is conn
    assert mariadb.query('SELECT * FROM notes') == []


async def test_a_database_that_one_user_selects_is_not_the_next_ones(pool: Pool) -> None:
    async with pool.connection(ALPHA) as conn:
        await fetch(conn, f'USE {BETA}')
    async with pool.connection(ALPHA) as again:
        assert again is conn
        assert await fetch(again, 'SELECT DATABASE()') == ALPHA


# -- interrupted exchanges


async def test_a_query_cancelled_half_way_is_never_continued_by_the_next_user(
    pool: Pool, mariadb: MariadbServer
) -> None:
    async def use() -> None:
        async with pool.connection(ALPHA) as conn:
            await fetch(conn, LONG)

    user = asyncio.ensure_future(use())
    await eventually_async(lambda: mariadb.is_running(LONG))
    user.cancel()
    started = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await user
    async with pool.connection(ALPHA) as conn:
        assert await fetch(conn, 'SELECT 2') == 2
    assert time.monotonic() - started < 5
    await eventually_async(lambda: pool.get_size() == 1)


@pytest.mark.parametrize('rounds', range(8))
async def test_an_answer_that_was_cancelled_at_any_moment_never_reaches_the_next_user(pool: Pool, rounds: int) -> None:
    async def use() -> None:
        async with pool.connection(ALPHA) as conn:
            for number in range(100):
                assert await fetch(conn, 'SELECT %s', -number) == -number

    user = asyncio.ensure_future(use())
    for _ in range(rounds * 5):
        await asyncio.sleep(0)
    await asyncio.sleep(rounds * 0.001)
    user.cancel()
    await asyncio.wait([user])
    assert user.cancelled() or user.exception() is None
    for number in range(1, 10):
        async with pool.connection(ALPHA) as conn:
            assert await fetch(conn, 'SELECT %s', number) == number


async def test_a_timeout_that_the_user_has_dealt_with_does_no_harm_to_the_next(pool: Pool) -> None:
    async with pool.connection(ALPHA) as conn:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(fetch(conn, 'SELECT SLEEP(0.2)'), 0.02)
    async with pool.connection(ALPHA) as again:
        assert again is not conn
        assert await fetch(again, 'SELECT 2') == 2


async def test_a_query_that_runs_into_the_drivers_timeout_is_never_continued_by_the_next_user(
    mariadb: MariadbServer
) -> None:
    pool: Pool = ConnectionPool(DbConnectionManager({'main': mariadb.parameters(read_timeout=0.1)}))
    with pytest.raises(errors.OperationalError, match='timeout'):
        async with pool.connection('main') as conn:
            await fetch(conn, 'SELECT SLEEP(0.3)')
    async with pool.connection('main') as again:
        assert again is not conn
        assert await fetch(again, 'SELECT 2') == 2
    await pool.close()


@pytest.mark.parametrize('sql', [LARGE, 'SELECT 1 UNION SELECT 2'])
@pytest.mark.parametrize('error', [None, ValueError])
async def test_a_result_that_is_not_read_to_its_end_is_never_read_by_the_next_user(
    pool: Pool, sql: str, error: Any
) -> None:
    raises: Any = pytest.raises(error) if error else contextlib.nullcontext()
    with raises:
        async with pool.connection(ALPHA) as conn:
            cursor = conn.cursor(SSCursor)
            await cursor.execute(sql)
            assert (await cursor.fetchone())[0] == 1
            if error:
                raise error
    async with pool.connection(ALPHA) as again:
        assert again is not conn
        assert await fetch(again, 'SELECT 7') == 7
    await eventually_async(lambda: pool.get_size() == 1)


async def test_a_second_result_that_is_not_read_is_never_read_by_the_next_user(pool: Pool) -> None:
    async with pool.connection(ALPHA) as conn:
        # the second one is yet to come
        await conn.query('SELECT 1; SELECT SLEEP(0.2)')
    async with pool.connection(ALPHA) as again:
        assert again is not conn
        assert await fetch(again, 'SELECT 7') == 7


# -- a server that goes away


async def test_connections_that_were_idle_when_the_server_was_restarted_are_replaced(
    pool: Pool, mariadb: MariadbServer
) -> None:
    async with pool.connection(ALPHA) as one, pool.connection(ALPHA) as two:
        assert await fetch(one, 'SELECT 1') == await fetch(two, 'SELECT 1')
    before = open_descriptors()
    # the event loop has no chance to notice before the next acquire
    mariadb.restart()
    async with pool.connection(ALPHA, timeout=5) as conn:
        assert conn not in (one, two)
        assert await fetch(conn, 'SELECT 1') == 1
        async with pool.connection(ALPHA) as other:
            assert await fetch(other, 'SELECT 1') == 1
    await eventually_async(lambda: pool.get_size() == 2)
    await eventually_async(lambda: open_descriptors() == before)


async def test_the_death_of_a_server_in_use_is_an_error_and_the_next_user_gets_another_connection(
    pool: Pool, mariadb: MariadbServer
) -> None:
    try:
        with pytest.raises(errors.OperationalError):
            async with pool.connection(ALPHA) as conn:
                mariadb.stop(crash=True)
                await fetch(conn, 'SELECT 1')
        await eventually_async(lambda: pool.get_size() == 0)
        with pytest.raises(errors.OperationalError, match="endpoint 'alpha'"):
            await pool.acquire(ALPHA, timeout=5)
    finally:
        mariadb.start()
    async with pool.connection(ALPHA, timeout=5) as again:
        assert await fetch(again, 'SELECT 1') == 1
    await eventually_async(lambda: pool.get_size() == 1)


async def test_the_end_of_a_session_in_use_that_its_user_has_not_noticed_is_no_error(
    pool: Pool, mariadb: MariadbServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with pool.connection(ALPHA) as conn:
        mariadb.kill(conn.thread_id())
    async with pool.connection(ALPHA) as again:
        assert again is not conn
        assert await fetch(again, 'SELECT 1') == 1
    assert PASSWORD not in caplog.text


async def test_a_server_that_is_stuck_does_not_hold_up_an_acquire(pool: Pool, mariadb: MariadbServer) -> None:
    async with pool.connection(ALPHA) as conn:
        assert await fetch(conn, 'SELECT 1') == 1
    with mariadb.stuck():
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            await pool.acquire(ALPHA, timeout=0.1)
        assert 0.09 < time.monotonic() - started < 1
    async with pool.connection(ALPHA) as again:
        assert again is not conn
        assert await fetch(again, 'SELECT 2') == 2


# -- closing


async def test_a_pool_closed_by_force_ends_a_running_query(pool: Pool, mariadb: MariadbServer) -> None:
    before = open_descriptors()

    async def use() -> None:
        async with pool.connection(ALPHA) as conn:
            await fetch(conn, LONG)

    user = asyncio.ensure_future(use())
    await eventually_async(lambda: mariadb.is_running(LONG))
    await pool.close(timeout=0.02)
    with pytest.raises(errors.OperationalError):
        await asyncio.wait_for(user, 5)
    await eventually_async(lambda: open_descriptors() == before)


async def test_a_child_does_not_end_the_sessions_of_its_parent(pool: Pool) -> None:
    async with pool.connection(ALPHA) as conn:
        number = os.fstat(conn._transport.get_extra_info('socket').fileno()).st_ino

    def look() -> Tuple[bool, int]:
        return number in sockets_of(os.getpid()), pool.get_size()

    assert in_child(look) == (False, 0)
    async with pool.connection(ALPHA) as again:
        assert again is conn
        assert await fetch(again, 'SELECT 1') == 1


@pytest.mark.filterwarnings('ignore:unclosed:ResourceWarning', 'ignore::pytest.PytestUnraisableExceptionWarning')
def test_a_pool_can_be_used_again_by_another_event_loop(
    manager: DbConnectionManager, mariadb: MariadbServer
) -> None:
    before = open_descriptors()
    pool: Pool = ConnectionPool(manager)

    async def use() -> None:
        async with pool.connection(ALPHA) as conn:
            assert await fetch(conn, 'SELECT 1') == 1

    async def use_and_close() -> None:
        await use()
        await pool.close()

    asyncio.run(use())
    asyncio.run(use_and_close())
    gc.collect()
    assert open_descriptors() == before
    eventually(lambda: mariadb.sessions() == 0)
    assert not manager._sessions


@pytest.mark.filterwarnings('ignore:unclosed:ResourceWarning', 'ignore::pytest.PytestUnraisableExceptionWarning')
def test_what_is_left_of_an_event_loop_that_has_ended_is_closed_by_a_manager_that_does_not_know_it(
    manager: DbConnectionManager, mariadb: MariadbServer
) -> None:
    before = open_descriptors()
    stranger = DbConnectionManager({ALPHA: mariadb.parameters(ALPHA)})
    conn = asyncio.run(manager.create(ALPHA))
    asyncio.run(stranger.dispose(ALPHA, conn))
    eventually(lambda: mariadb.sessions() == 0)
    asyncio.run(manager.dispose(ALPHA, conn))
    del conn
    gc.collect()
    assert open_descriptors() == before


# -- many tasks


async def test_two_hundred_tasks_share_five_connections(pool: Pool) -> None:
    async def ask(question: str) -> Tuple[str, str]:
        async with pool.connection(ALPHA, timeout=60) as conn:
            answer: str = await fetch(conn, "SELECT CONCAT(%s, '!')", question)
        assert pool.get_size() <= 5
        return question + '!', answer

    await crowd_of_tasks(ask, tasks=200, questions=2)


async def test_tasks_that_are_cancelled_at_random_never_read_the_answers_of_others(pool: Pool) -> None:
    seen: Dict[str, int] = {'answered': 0, 'cancelled': 0}

    async def ask(number: int) -> None:
        async with pool.connection(ALPHA) as conn:
            for part in range(5):
                assert await fetch(conn, 'SELECT %s', f'{number}-{part}') == f'{number}-{part}'

    async def ask_or_give_up(number: int) -> None:
        asking = asyncio.ensure_future(ask(number))
        await asyncio.wait([asking], timeout=None if number % 3 else 0.0005 * (number % 50))
        asking.cancel()
        await asyncio.wait([asking])
        seen['cancelled' if asking.cancelled() else 'answered'] += 1
        if not asking.cancelled():
            asking.result()

    await asyncio.gather(*map(ask_or_give_up, range(150)))
    assert seen['answered'] >= 100 and seen['cancelled'] > 0
