"""What breaks off in a pool of psycopg 3 connections for asyncio reaches nobody else."""

import asyncio
import contextlib
import os
import time
from typing import Any

import pytest

psycopg = pytest.importorskip('psycopg', exc_type=ImportError)

from psycopg import errors  # noqa: E402
from support.forking import in_child, sockets_of  # noqa: E402
from support.postgres import DATABASES, PostgresServer  # noqa: E402
from support.psycopg3 import ALPHA, LONG, fetch_async  # noqa: E402
from support.psycopg3_asyncio import Pool, manager as manager, pool as pool  # noqa: E402
from support.servers import eventually_async, open_descriptors  # noqa: E402

from generic_connection_pool.asyncio import ConnectionPool  # noqa: E402
from generic_connection_pool.contrib.psycopg_async import DbConnection, DbConnectionManager  # noqa: E402

@pytest.fixture(autouse=True)
def empty_table(postgres: PostgresServer) -> None:
    postgres.query('DELETE FROM notes', database=ALPHA)


async def test_a_connection_whose_session_was_ended_while_idle_is_replaced(
    pool: Pool, postgres: PostgresServer
) -> None:
    async with pool.connection(ALPHA) as conn:
        pid = await fetch_async(conn, 'SELECT pg_backend_pid()')
    before = open_descriptors()
    # the event loop has no chance to notice before the next acquire
    postgres.kill(pid)
    async with pool.connection(ALPHA) as conn:
        assert await fetch_async(conn, 'SELECT pg_backend_pid()') != pid
    await eventually_async(lambda: pool.get_size() == 1)
    assert open_descriptors() == before


@pytest.mark.parametrize('mode', ['fast', 'immediate'])
async def test_after_a_restart_of_the_server_idle_connections_are_replaced(
    pool: Pool, postgres: PostgresServer, mode: str
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for name in DATABASES:
            await stack.enter_async_context(pool.connection(name))
    before = open_descriptors()
    postgres.stop(mode)
    with pytest.raises(psycopg.OperationalError, match="'alpha'"):
        async with pool.connection(ALPHA):
            pass
    postgres.start()
    for name in DATABASES:
        async with pool.connection(name) as conn:
            assert await fetch_async(conn, 'SELECT current_database()') == name
    await eventually_async(lambda: pool.get_size() == 3)
    assert open_descriptors() == before


async def test_the_end_of_a_session_in_use_is_an_error_and_the_next_user_gets_another_connection(
    pool: Pool, postgres: PostgresServer
) -> None:
    with pytest.raises(psycopg.OperationalError):
        async with pool.connection(ALPHA) as conn:
            postgres.kill(await fetch_async(conn, 'SELECT pg_backend_pid()'))
            await conn.execute('SELECT 1')
    async with pool.connection(ALPHA) as again:
        assert again is not conn
        assert await fetch_async(again, 'SELECT 1') == 1
    await eventually_async(lambda: pool.get_size() == 1)


async def test_the_end_of_a_session_in_use_that_its_user_has_not_noticed_is_no_error(
    pool: Pool, postgres: PostgresServer
) -> None:
    async with pool.connection(ALPHA) as conn:
        postgres.kill(await fetch_async(conn, 'SELECT pg_backend_pid()'))
    async with pool.connection(ALPHA) as again:
        assert again is not conn
        assert await fetch_async(again, 'SELECT 1') == 1


async def test_a_query_cancelled_half_way_is_never_continued_by_the_next_user(
    pool: Pool, postgres: PostgresServer
) -> None:
    async def use() -> None:
        async with pool.connection(ALPHA) as conn:
            await conn.execute(LONG)

    user = asyncio.ensure_future(use())
    await eventually_async(lambda: postgres.is_running(LONG))
    user.cancel()
    started = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await user
    async with pool.connection(ALPHA) as conn:
        assert await fetch_async(conn, 'SELECT 2') == 2
    # psycopg has had the server cancel it
    assert time.monotonic() - started < 5
    await eventually_async(lambda: pool.get_size() == 1)


@pytest.mark.parametrize('rounds', range(12))
async def test_a_query_cancelled_at_any_step_is_never_answered_to_the_next_user(pool: Pool, rounds: int) -> None:
    async def use() -> None:
        async with pool.connection(ALPHA) as conn:
            for number in range(100, 110):
                await fetch_async(conn, 'SELECT %s::int', number)

    async with pool.connection(ALPHA):
        pass
    user = asyncio.ensure_future(use())
    for _ in range(rounds):
        await asyncio.sleep(0)
    user.cancel()
    with pytest.raises(asyncio.CancelledError):
        await user
    for number in range(5):
        async with pool.connection(ALPHA) as conn:
            assert await fetch_async(conn, 'SELECT %s::int', number) == number


@pytest.mark.parametrize('patience', [0.001, 0.01, 0.05])
async def test_a_timeout_that_the_user_has_dealt_with_does_no_harm_to_the_next(pool: Pool, patience: float) -> None:
    async with pool.connection(ALPHA) as conn:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(conn.execute(LONG), patience)
    async with pool.connection(ALPHA) as again:
        assert await fetch_async(again, 'SELECT 2') == 2


async def test_a_timeout_that_ends_a_block_discards_the_connection(pool: Pool) -> None:
    with pytest.raises(asyncio.TimeoutError):
        async with pool.connection(ALPHA) as conn:
            await asyncio.wait_for(conn.execute(LONG), 0.05)
    assert conn.closed


async def test_a_cancelled_query_of_a_server_that_does_not_answer_does_not_outlive_the_closing_of_the_pool(
    pool: Pool, postgres: PostgresServer
) -> None:
    conn = await pool.acquire(ALPHA)
    with postgres.stopped(conn.info.backend_pid):
        user = asyncio.ensure_future(conn.execute(LONG))
        await eventually_async(lambda: conn.info.transaction_status == psycopg.pq.TransactionStatus.ACTIVE)
        # psycopg will wait some seconds for an answer
        user.cancel()
        started = time.monotonic()
        await pool.close(timeout=0.02)
        with pytest.raises((asyncio.CancelledError, psycopg.OperationalError)):
            await asyncio.wait_for(user, 10)
        assert time.monotonic() - started < 4
    assert conn.closed


async def test_a_statement_timeout_is_an_error_like_any_other(pool: Pool) -> None:
    with pytest.raises(errors.QueryCanceled):
        async with pool.connection(ALPHA) as conn:
            await conn.execute('SET LOCAL statement_timeout = 10')
            await conn.execute(LONG)
    async with pool.connection(ALPHA) as again:
        assert again is conn
        assert await fetch_async(again, 'SELECT 2') == 2


async def test_a_query_that_its_user_cancels_is_an_error_like_any_other(pool: Pool, postgres: PostgresServer) -> None:
    async def cancel(conn: DbConnection) -> None:
        await eventually_async(lambda: postgres.is_running(LONG))
        await conn.cancel_safe()

    with pytest.raises(errors.QueryCanceled):
        async with pool.connection(ALPHA) as conn:
            canceller = asyncio.ensure_future(cancel(conn))
            try:
                await conn.execute(LONG)
            finally:
                # the query often ends first, and the request has a descriptor of its own
                await canceller
    async with pool.connection(ALPHA) as again:
        assert again is conn
        assert await fetch_async(again, 'SELECT 2') == 2


async def test_a_copy_that_breaks_off_leaves_nothing_to_the_next_user(pool: Pool, postgres: PostgresServer) -> None:
    copies = ('COPY (SELECT generate_series(1, 100000)) TO STDOUT', 'COPY notes FROM STDIN')
    for statement in copies:
        with pytest.raises(ValueError, match='disk full'):
            async with pool.connection(ALPHA) as conn, conn.cursor() as cursor, cursor.copy(statement) as copy:
                if 'FROM' in statement:
                    await copy.write_row(['lost'])
                raise ValueError('disk full')
        async with pool.connection(ALPHA) as again:
            assert await fetch_async(again, 'SELECT 2') == 2
    assert postgres.query('SELECT * FROM notes') == []


async def begins_a_copy(conn: DbConnection, postgres: PostgresServer) -> object:
    copying = conn.cursor().copy('COPY (SELECT generate_series(1, 100000)) TO STDOUT')
    copy = await copying.__aenter__()
    return copying, await copy.read()


async def begins_a_stream(conn: DbConnection, postgres: PostgresServer) -> object:
    rows = conn.cursor().stream('SELECT generate_series(1, 100000)')
    return rows, await rows.__anext__()


async def begins_to_wait_for_notifications(conn: DbConnection, postgres: PostgresServer) -> object:
    await conn.execute('LISTEN news')
    await conn.commit()
    postgres.query("SELECT pg_notify('news', 'hello')")
    notifications = conn.notifies()
    return notifications, await notifications.__anext__()


async def begins_a_pipeline(conn: DbConnection, postgres: PostgresServer) -> object:
    pipeline = conn.pipeline()
    await pipeline.__aenter__()
    return pipeline, await conn.execute('SELECT 1')


@pytest.mark.parametrize('begin, reason', [
    (begins_a_copy, 'query or COPY'), (begins_a_stream, 'query or COPY'), (begins_a_pipeline, 'pipeline mode'),
    (begins_to_wait_for_notifications, 'notifies()'),
])  # fmt: skip
async def test_what_a_user_has_left_unfinished_does_not_reach_the_next(
    pool: Pool, postgres: PostgresServer, caplog: pytest.LogCaptureFixture, begin: Any, reason: str
) -> None:
    async with pool.connection(ALPHA) as conn:
        unfinished = await begin(conn, postgres)
    assert conn.closed
    assert reason in caplog.text
    async with pool.connection(ALPHA) as again:
        assert again is not conn
        assert await fetch_async(again, 'SELECT 2') == 2
    await eventually_async(lambda: pool.get_size() == 1)
    del unfinished


async def test_a_query_that_another_task_still_waits_for_when_its_connection_comes_back_is_ended(
    pool: Pool, postgres: PostgresServer
) -> None:
    async with pool.connection(ALPHA) as conn:
        straggler = asyncio.ensure_future(conn.execute(LONG))
        await eventually_async(lambda: postgres.is_running(LONG))
    with pytest.raises(psycopg.OperationalError):
        await asyncio.wait_for(straggler, 10)
    async with pool.connection(ALPHA) as again:
        assert again is not conn
        assert await fetch_async(again, 'SELECT 2') == 2


async def test_a_connection_closed_by_its_user_is_replaced(pool: Pool) -> None:
    async with pool.connection(ALPHA) as conn:
        await conn.close()
    async with pool.connection(ALPHA) as again:
        assert await fetch_async(again, 'SELECT 1') == 1


async def test_a_pool_closed_by_force_ends_a_running_query(pool: Pool, postgres: PostgresServer) -> None:
    async def use() -> None:
        async with pool.connection(ALPHA) as conn:
            await conn.execute(LONG)

    user = asyncio.ensure_future(use())
    await eventually_async(lambda: postgres.is_running(LONG))
    await pool.close(timeout=0.02)
    with pytest.raises(psycopg.OperationalError):
        await asyncio.wait_for(user, 5)
    await eventually_async(lambda: postgres.sessions() == 0)


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='this platform does not fork')
def test_sessions_survive_a_child_that_closes_all_it_knows(
    manager: DbConnectionManager, postgres: PostgresServer
) -> None:
    async def parent() -> None:
        pool: Pool = ConnectionPool(manager)
        held = await pool.acquire(ALPHA)
        async with pool.connection(ALPHA) as idle:
            sessions = [idle.info.backend_pid, held.info.backend_pid]
        mine = {os.fstat(conn.fileno()).st_ino for conn in (held, idle)}

        async def use() -> bool:
            async with pool.connection(ALPHA) as conn:
                fresh = await fetch_async(conn, 'SELECT pg_backend_pid()') not in sessions
            for conn in (held, idle):
                await conn.close()  # says goodbye, to nobody
            await pool.release(held, ALPHA)
            await pool.close()
            return fresh

        def child() -> Any:
            assert not mine & sockets_of(os.getpid())
            return asyncio.run(use())

        assert in_child(child) is True
        for conn, session in zip((idle, held), sessions):
            assert await fetch_async(conn, 'SELECT pg_backend_pid()') == session
        await idle.rollback()
        await pool.release(held, ALPHA)
        await pool.close()

    asyncio.run(parent())
