"""The task that disposes of what is due in the background."""

import asyncio
import gc
import weakref
from contextvars import ContextVar
from typing import Any, List

import pytest
from support.interrupting import Stepper
from support.tasks import Gate, Manager, OpenPool, Pool, failing, finish, other_tasks, passes, until

from generic_connection_pool.asyncio import ConnectionPool
from generic_connection_pool.asyncio import collector as collector_module

SHORT = 0.02


def collectors() -> List['asyncio.Task[Any]']:
    return [task for task in other_tasks() if task.get_name() == 'gcp-collector']


async def test_it_is_a_task_of_its_name_that_starts_at_the_first_use(open_pool: OpenPool) -> None:
    pool = open_pool(background_collector=True)
    await passes()
    assert collectors() == []
    async with pool.connection('a'), pool.connection('b'):
        assert len(collectors()) == 1


async def test_without_it_there_is_no_such_task(open_pool: OpenPool) -> None:
    pool = open_pool()
    async with pool.connection('a'):
        assert other_tasks() == []


async def test_it_disposes_of_what_is_due_without_any_release(open_pool: OpenPool) -> None:
    manager = Manager()
    pool = open_pool(manager, background_collector=True, min_idle=1, idle_timeout=SHORT)
    conns = [await pool.acquire('a') for _ in range(4)]
    for conn in conns:
        await pool.release(conn, 'a')
    await until(lambda: len(manager.disposed) == 3)
    assert manager.disposed == conns[:3] and pool.get_size() == 1


async def test_it_disposes_of_core_connections_whose_lifetime_is_over(open_pool: OpenPool) -> None:
    manager = Manager()
    pool = open_pool(manager, background_collector=True, min_idle=5, max_lifetime=SHORT)
    await pool.release(await pool.acquire('a'), 'a')
    await until(lambda: pool.get_size() == 0)
    assert manager.disposed == manager.created


async def test_with_it_a_release_disposes_of_nothing_that_is_due(open_pool: OpenPool) -> None:
    """The caller of release does not have to wait for it."""
    gate = Gate()
    manager = Manager(dispose=gate)
    pool = open_pool(manager, background_collector=True, min_idle=0, idle_timeout=SHORT)
    held = [await pool.acquire('a') for _ in range(2)]
    await pool.release(held[0], 'a')
    await gate.reached()
    await pool.release(held[1], 'a')
    await gate.reached(2)
    gate.open()


async def test_it_is_woken_when_something_becomes_due_earlier_than_it_seemed(open_pool: OpenPool) -> None:
    manager = Manager()
    pool = open_pool(manager, background_collector=True, min_idle=1, idle_timeout=SHORT)
    core = await pool.acquire('a')
    await pool.release(core, 'a')  # due in an hour
    await passes()
    conns = [await pool.acquire('a') for _ in range(2)]
    for conn in conns:
        await pool.release(conn, 'a')  # one of them in a moment
    await until(lambda: len(manager.disposed) == 1)


async def test_it_survives_a_dispose_that_fails(open_pool: OpenPool, caplog: pytest.LogCaptureFixture) -> None:
    """Hazard 27."""
    manager = Manager(dispose=failing(OSError('bad'), OSError('worse')))
    pool = open_pool(manager, background_collector=True, min_idle=0, idle_timeout=SHORT)
    for size in (1, 2, 3):
        async with pool.connection('a'):
            pass
        await until(lambda: len(manager.disposed) == size and pool.get_size() == 0)
    assert 'bad' in caplog.text and 'worse' in caplog.text
    assert len(collectors()) == 1


async def test_it_survives_a_dispose_that_is_cancelled(open_pool: OpenPool) -> None:
    """Hazard 27."""
    manager = Manager(dispose=failing(asyncio.CancelledError()))
    pool = open_pool(manager, background_collector=True, min_idle=0, idle_timeout=SHORT)
    for size in (1, 2):
        async with pool.connection('a'):
            pass
        await until(lambda: len(manager.disposed) == size and pool.get_size() == 0)
    assert len(collectors()) == 1


async def test_a_dispose_that_hangs_does_not_hold_up_the_others(open_pool: OpenPool) -> None:
    """Hazard 42."""
    gate = Gate()
    manager = Manager()

    async def dispose(endpoint: Any, conn: Any) -> None:
        if conn is manager.created[0]:
            await gate()

    manager.behaviours['dispose'] = dispose
    pool = open_pool(manager, background_collector=True, min_idle=0, idle_timeout=SHORT)
    for conn in [await pool.acquire('a') for _ in range(4)]:
        await pool.release(conn, 'a')
    await until(lambda: pool.get_size() == 1)
    gate.open()


async def test_it_sleeps_while_nothing_is_due(open_pool: OpenPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hazard 27: it does not spin on entries that are out of date, because the connection is in use or was used."""
    steppers: List[Stepper] = []
    collect = collector_module._collect

    def counted(*args: Any) -> Any:
        steppers.append(Stepper(collect(*args)))
        return steppers[0].run()

    monkeypatch.setattr(collector_module, '_collect', counted)
    manager = Manager()
    pool = open_pool(manager, background_collector=True, min_idle=0, idle_timeout=SHORT)
    held = await pool.acquire('b')
    conn = await pool.acquire('a')
    for _ in range(20):
        await pool.release(conn, 'a')
        assert await pool.acquire('a') is conn  # there is an entry, but nothing is idle
    await pool.release(held, 'b')
    await until(lambda: len(manager.disposed) == 1)
    woken = steppers[0].suspensions
    await passes(500)
    assert woken < 8 and steppers[0].suspensions <= woken + 1
    await pool.release(conn, 'a')


async def test_it_ends_with_close(open_pool: OpenPool) -> None:
    pool = open_pool(background_collector=True)
    async with pool.connection('a'):
        pass
    await pool.close()
    await until(lambda: collectors() == [])


async def test_it_ends_as_soon_as_close_begins(open_pool: OpenPool) -> None:
    pool = open_pool(background_collector=True)
    conn = await pool.acquire('a')
    closing = asyncio.ensure_future(pool.close())
    await until(lambda: collectors() == [])
    assert not closing.done()
    await pool.release(conn, 'a')
    await closing


async def test_it_is_started_again_if_somebody_has_cancelled_it(open_pool: OpenPool) -> None:
    manager = Manager()
    pool = open_pool(manager, background_collector=True, min_idle=0, idle_timeout=SHORT)
    async with pool.connection('a'):
        (task,) = collectors()
        task.cancel()
        await until(task.done)
    async with pool.connection('b'):
        pass
    await until(lambda: pool.get_size() == 0)


async def test_it_does_not_keep_a_pool_alive_that_nobody_uses_any_more() -> None:
    """Hazard 39."""
    manager = Manager()
    pool: Pool = ConnectionPool(manager, background_collector=True)
    async with pool.connection('a'):
        pass
    await passes()
    reference = weakref.ref(pool)
    with pytest.warns(ResourceWarning, match='unclosed'):
        del pool
        gc.collect()
    assert reference() is None
    await until(lambda: collectors() == [])


async def test_it_does_not_keep_the_context_of_its_starter(open_pool: OpenPool) -> None:
    """A request's objects must not live as long as the pool."""

    class Request:
        pass

    variable: 'ContextVar[Any]' = ContextVar('variable')
    pool = open_pool(background_collector=True)

    async def serve() -> 'weakref.ref[Request]':
        request = Request()
        variable.set(request)
        async with pool.connection('a'):
            return weakref.ref(request)

    reference = await asyncio.ensure_future(serve())
    await passes()  # for the loop to forget of that task
    gc.collect()
    assert len(collectors()) == 1 and reference() is None


def test_it_does_not_keep_asyncio_run_from_ending() -> None:
    """Hazard 39."""
    manager = Manager()
    pool: Pool = ConnectionPool(manager, background_collector=True)

    async def use() -> None:
        await pool.release(await pool.acquire('a'), 'a')
        assert len(collectors()) == 1

    asyncio.run(use())
    asyncio.run(finish(pool, manager))


def test_it_works_in_each_loop_in_which_the_pool_is_used() -> None:
    """Hazard 40."""
    manager = Manager()
    pool: Pool = ConnectionPool(manager, background_collector=True, min_idle=0, idle_timeout=SHORT)

    async def use() -> None:
        for endpoint in 'ab':
            async with pool.connection(endpoint):
                assert len(collectors()) == 1
        await until(lambda: pool.get_size() == 0)

    for _ in range(3):
        asyncio.run(use())
    asyncio.run(finish(pool, manager))
