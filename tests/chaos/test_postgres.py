"""PostgreSQL in faults, restarts and crowds: a query may fail, but no answer is ever somebody else's."""

import asyncio
import contextlib
import os
import signal
from typing import Any, Iterator

import pytest
from chaos.network import PATIENCE
from chaos.phases import sentinel, take_all_connections, wait_for_end
from chaos.proxy import Fault, Weather
from chaos.world import ROLE, Servers
from support.servers import eventually, eventually_async
from support.threads import result, start

from generic_connection_pool import asyncio as asyncio_pools
from generic_connection_pool import threading as threading_pools

psycopg2 = pytest.importorskip('psycopg2', exc_type=ImportError)
asyncpg = pytest.importorskip('asyncpg', exc_type=ImportError)

#: what a lost session is called
LOST = (asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError, asyncpg.InterfaceError, OSError)
#: seconds that a query takes which is not meant to end
LONG = 30


@pytest.fixture
def pool(servers: Servers) -> Iterator[Any]:
    from generic_connection_pool.contrib.psycopg2 import DbConnectionManager

    manager = DbConnectionManager({'main': servers.postgres_parameters()})
    pool: Any = threading_pools.ConnectionPool(manager, max_size=2)
    yield pool
    pool.close(timeout=5)


@pytest.fixture
async def tasks_pool(servers: Servers) -> Any:
    from generic_connection_pool.contrib.asyncpg import DbConnectionManager

    manager = DbConnectionManager({'main': servers.postgres_parameters()})
    pool: Any = asyncio_pools.ConnectionPool(manager, max_size=2)
    yield pool
    await pool.close(timeout=5)


def ask(pool: Any, token: str, seconds: float = 0.0, timeout: float = PATIENCE) -> str:
    with pool.connection('main', timeout) as conn, conn.cursor() as cursor:
        cursor.execute('SELECT %s, pg_sleep(%s)', (token, seconds))
        answer: str = cursor.fetchone()[0]
        return answer


async def ask_async(pool: Any, token: str, seconds: float = 0.0, timeout: float = PATIENCE) -> str:
    async with pool.connection('main', timeout) as conn:
        answer: str = (await conn.fetchrow('SELECT $1::text, pg_sleep($2)', token, seconds))[0]
        return answer


def running(servers: Servers) -> int:
    """How many queries of the pools are under way."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND usename = %s"
    count: int = servers.postgres.query(query, ROLE)[0][0]
    return count


async def in_mid_query(servers: Servers, pool: Any, tasks_pool: Any) -> 'tuple[Any, Any]':
    """Each pool has an idle connection, and another in the middle of a query."""
    idle = await asyncio.gather(ask_async(tasks_pool, 'a', 0.2), ask_async(tasks_pool, 'b', 0.2))
    assert idle == ['a', 'b']
    assert [result(asked) for asked in [start(ask, pool, 'a', 0.2), start(ask, pool, 'b', 0.2)]] == ['a', 'b']
    thread = start(ask, pool, 'lost', LONG)
    task = asyncio.ensure_future(ask_async(tasks_pool, 'lost', LONG))
    await eventually_async(lambda: running(servers) == 2)
    return thread, task


async def check_loss_and_return(servers: Servers, pool: Any, tasks_pool: Any, thread: Any, task: Any) -> None:
    """Those in mid-query are told, and as soon as the server answers a client with no pool others are served."""
    with pytest.raises(psycopg2.OperationalError):
        result(thread)
    with pytest.raises(LOST):
        await task
    servers.await_postgres()
    assert ask(pool, 'back') == 'back'
    assert await ask_async(tasks_pool, 'back') == 'back'


@pytest.mark.parametrize('mode', ['fast', 'immediate'])
async def test_after_a_restart_service_is_back_at_once(
    servers: Servers, pool: Any, tasks_pool: Any, mode: str
) -> None:
    thread, task = await in_mid_query(servers, pool, tasks_pool)
    servers.postgres.stop(mode)
    with pytest.raises(psycopg2.OperationalError):
        ask(pool, 'refused')
    with pytest.raises(LOST):
        await ask_async(tasks_pool, 'refused')
    servers.postgres.start()
    await check_loss_and_return(servers, pool, tasks_pool, thread, task)


async def test_sessions_that_were_ended_are_replaced(servers: Servers, pool: Any, tasks_pool: Any) -> None:
    thread, task = await in_mid_query(servers, pool, tasks_pool)
    for pid in servers.sessions():
        servers.postgres.kill(pid)
    await check_loss_and_return(servers, pool, tasks_pool, thread, task)


async def test_after_a_backend_was_killed_service_is_back_at_once(
    servers: Servers, pool: Any, tasks_pool: Any
) -> None:
    thread, task = await in_mid_query(servers, pool, tasks_pool)
    with contextlib.closing(sentinel(servers.postgres)) as watch:
        os.kill(servers.sessions()[0], signal.SIGKILL)
        wait_for_end(watch)
    await check_loss_and_return(servers, pool, tasks_pool, thread, task)


async def test_a_server_with_too_many_connections_says_so_and_serves_when_it_has_room(
    servers: Servers, pool: Any, tasks_pool: Any
) -> None:
    with contextlib.ExitStack() as stack:
        hogs: 'list[Any]' = []
        take_all_connections(servers.postgres, hogs)
        for hog in hogs:
            stack.callback(hog.close)
        for _ in range(3):
            with pytest.raises(psycopg2.OperationalError, match='connection slots|too many clients'):
                ask(pool, 'refused')
            with pytest.raises(asyncpg.TooManyConnectionsError):
                await ask_async(tasks_pool, 'refused')
    servers.await_postgres()
    assert ask(pool, 'back') == 'back'
    assert await ask_async(tasks_pool, 'back') == 'back'


@pytest.mark.parametrize('fault', [Fault.CUT, Fault.RESET, Fault.DROP])
async def test_a_fault_in_mid_query_is_an_error_and_the_next_query_is_answered(
    servers: Servers, pool: Any, tasks_pool: Any, fault: Fault
) -> None:
    thread, task = await in_mid_query(servers, pool, tasks_pool)
    servers.to_postgres.strike(fault)
    if fault is Fault.DROP:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        servers.recover()
    with pytest.raises(psycopg2.OperationalError):
        result(thread)
    with contextlib.suppress(asyncio.CancelledError), pytest.raises(LOST):
        await task
    await eventually_async(lambda: servers.to_postgres.open == 0, 'the end of the idle connections, too')
    assert ask(pool, 'back') == 'back'
    assert await ask_async(tasks_pool, 'back') == 'back'


async def test_a_server_that_never_answers_costs_no_more_than_the_timeout(
    servers: Servers, pool: Any, tasks_pool: Any
) -> None:
    servers.to_postgres.weather = Weather((Fault.MUTE,), 1.0)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            ask(pool, 'mute', timeout=0.05)
        with pytest.raises(TimeoutError):
            await ask_async(tasks_pool, 'mute', timeout=0.05)
    servers.recover()
    assert ask(pool, 'back') == 'back'
    assert await ask_async(tasks_pool, 'back') == 'back'


@pytest.mark.parametrize('fault', [Fault.TRICKLE, Fault.DELAY])
async def test_answers_that_come_late_or_in_pieces_are_whole(
    servers: Servers, pool: Any, tasks_pool: Any, fault: Fault
) -> None:
    servers.to_postgres.weather = Weather((fault,), 1.0)
    long = 'x' * 1000
    assert ask(pool, long) == long
    assert await ask_async(tasks_pool, long) == long


@pytest.mark.parametrize('how', ['timed out', 'cancelled'])
async def test_after_a_task_is_stopped_in_mid_query_the_next_one_gets_its_own_answer(
    servers: Servers, tasks_pool: Any, how: str
) -> None:
    async def stop() -> None:
        async with tasks_pool.connection('main') as conn:
            query = "SELECT 'first', pg_sleep(0.2)"
            await conn.fetchrow(query, timeout=0.02 if how == 'timed out' else None)

    for number in range(3):
        first = asyncio.ensure_future(stop())
        await eventually_async(lambda: first.done() or running(servers))
        if how == 'cancelled':
            first.cancel()
        with pytest.raises((asyncio.CancelledError, asyncio.TimeoutError)):
            await first
        assert await ask_async(tasks_pool, str(number)) == str(number)


def test_after_a_query_is_cancelled_the_next_user_of_the_session_gets_its_own_answer(
    servers: Servers, pool: Any
) -> None:
    for number in range(3):
        first = start(ask, pool, 'first', LONG)
        eventually(lambda: running(servers) == 1)
        servers.cancel(servers.sessions()[0])
        with pytest.raises(psycopg2.errors.QueryCanceled):
            result(first)
        assert ask(pool, str(number)) == str(number)
    # the server has said that it is done with it: no reason to throw the session away
    assert len(servers.sessions()) == 1
