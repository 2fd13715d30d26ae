"""What the pool's methods return can be used wherever a coroutine can."""

import asyncio
import collections.abc
import contextlib
import inspect
import sys
import warnings
from traceback import walk_tb
from typing import Any, List

import pytest
from support.tasks import GENEROUS, Gate, Manager, OpenPool, always, outcome, passes, queue_up, until

#: with hooks, acquiring and releasing suspend; without, they do not
each_manager = pytest.mark.parametrize('hooked', [False, True], ids=['plain', 'hooked'])


async def pause(*args: Any) -> bool:
    await passes(2)
    return True


def manager_for(hooked: bool) -> Manager:
    return Manager(check_aliveness=pause, on_acquire=pause, on_release=pause) if hooked else Manager()


@each_manager
async def test_they_are_coroutines_to_whoever_asks(open_pool: OpenPool, hooked: bool) -> None:
    pool = open_pool(manager_for(hooked))
    conn = await pool.acquire('a')
    lease = pool.connection('a')
    coros: List[Any] = [pool.acquire('a'), pool.release(conn, 'a'), lease.__aenter__(), pool.close()]
    for coro in coros:
        assert isinstance(coro, collections.abc.Coroutine)
        assert isinstance(coro, collections.abc.Awaitable) and inspect.isawaitable(coro)
        assert asyncio.iscoroutine(coro)
        coro.close()
    await pool.release(conn, 'a')


@each_manager
async def test_create_task(open_pool: OpenPool, hooked: bool) -> None:
    pool = open_pool(manager_for(hooked))
    conn = await asyncio.create_task(pool.acquire('a'))
    await asyncio.create_task(pool.release(conn, 'a'))
    again = await asyncio.create_task(pool.acquire('a'), name='taker')
    assert again is conn
    await asyncio.create_task(pool.release(conn, 'a'))


@each_manager
async def test_ensure_future_and_run_until_complete(open_pool: OpenPool, hooked: bool) -> None:
    pool = open_pool(manager_for(hooked))
    future = asyncio.ensure_future(pool.acquire('a'))
    conn = await future
    await asyncio.ensure_future(pool.release(conn, 'a'))


@each_manager
async def test_wait_for(open_pool: OpenPool, hooked: bool) -> None:
    pool = open_pool(manager_for(hooked), max_size=1)
    conn = await asyncio.wait_for(pool.acquire('a'), GENEROUS)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(pool.acquire('a'), 0.01)
    assert pool._core.waiting('a') == 0
    await asyncio.wait_for(pool.release(conn, 'a'), GENEROUS)
    assert await asyncio.wait_for(pool.acquire('a'), None) is conn
    await asyncio.wait_for(pool.release(conn, 'a'), None)


@each_manager
async def test_gather(open_pool: OpenPool, hooked: bool) -> None:
    pool = open_pool(manager_for(hooked))
    conns = await asyncio.gather(*(pool.acquire('a') for _ in range(5)))
    assert len(set(conns)) == 5
    assert await asyncio.gather(*(pool.release(conn, 'a') for conn in conns)) == [None] * 5


@each_manager
async def test_shield(open_pool: OpenPool, hooked: bool) -> None:
    pool = open_pool(manager_for(hooked), max_size=1)
    conn = await asyncio.shield(pool.acquire('a'))
    inner = await queue_up(pool, 'a')
    outer = asyncio.ensure_future(asyncio.shield(inner))
    await passes(2)
    outer.cancel()
    assert isinstance(await outcome(outer), asyncio.CancelledError)
    await asyncio.shield(pool.release(conn, 'a'))
    assert await inner is conn
    await pool.release(conn, 'a')


@each_manager
async def test_as_completed(open_pool: OpenPool, hooked: bool) -> None:
    pool = open_pool(manager_for(hooked))
    for future in asyncio.as_completed([pool.acquire('a'), pool.acquire('b')]):
        conn = await future
        await pool.release(conn, conn.endpoint)


@pytest.mark.skipif(sys.version_info < (3, 11), reason='asyncio.timeout and TaskGroup came with 3.11')
@each_manager
async def test_timeout_and_task_group(open_pool: OpenPool, hooked: bool) -> None:
    pool = open_pool(manager_for(hooked), max_size=2)
    async with asyncio.TaskGroup() as group:  # type: ignore[attr-defined, unused-ignore]
        tasks = [group.create_task(pool.acquire('a')) for _ in range(2)]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):  # type: ignore[attr-defined, unused-ignore]
            await pool.acquire('a')
    for task in tasks:
        await pool.release(task.result(), 'a')


@each_manager
async def test_they_can_be_driven_by_hand(open_pool: OpenPool, hooked: bool) -> None:
    """``send``, ``throw`` and ``close`` do what those of a coroutine do."""
    gate = Gate(True)
    pool = open_pool(Manager(on_acquire=gate) if hooked else Manager(), max_size=1)
    if hooked:
        gate.open()
    conn = await pool.acquire('a')
    for error in (asyncio.CancelledError, ValueError, KeyboardInterrupt):
        coro = pool.acquire('a')
        future = coro.send(None)
        assert asyncio.isfuture(future) and pool._core.waiting('a') == 1
        with pytest.raises(error):
            coro.throw(error())
        assert pool._core.waiting('a') == 0
        with pytest.raises(RuntimeError, match='already awaited'):
            coro.send(None)
    coro = pool.acquire('a')
    coro.send(None)
    coro.close()
    coro.close()
    assert pool._core.waiting('a') == 0
    with pytest.raises(LookupError):
        pool.acquire('a').throw(LookupError())
    try:
        raise LookupError
    except LookupError as exc:
        traceback = exc.__traceback__
    with warnings.catch_warnings(), pytest.raises(LookupError) as thrown:
        warnings.simplefilter('ignore', DeprecationWarning)  # this way of calling it, from 3.12 on
        pool.acquire('a').throw(LookupError, LookupError(), traceback)
    frames = [frame for frame, _ in walk_tb(thrown.tb)]
    assert traceback is not None and frames[-1] is traceback.tb_frame
    await pool.release(conn, 'a')


@each_manager
async def test_awaiting_one_by_hand_is_iterating(open_pool: OpenPool, hooked: bool) -> None:
    pool = open_pool(manager_for(hooked), max_size=1)
    conn = await pool.acquire('a')
    waiting = pool.acquire('a').__await__()
    assert iter(waiting) is waiting
    assert asyncio.isfuture(next(waiting)) and pool._core.waiting('a') == 1
    waiting.close()
    assert pool._core.waiting('a') == 0
    await pool.release(conn, 'a')


async def test_what_a_hook_awaits_may_end_with_an_exception_that_the_hook_deals_with(open_pool: OpenPool) -> None:
    """Such an exception is thrown into the operation, which goes on in spite of that."""
    loop = asyncio.get_running_loop()
    dealt_with: List[str] = []

    async def survive(endpoint: str, conn: Any = None) -> bool:
        future: 'asyncio.Future[None]' = loop.create_future()
        loop.call_soon(future.set_exception, OSError('reset by peer'))
        try:
            await future
        except OSError:
            dealt_with.append(endpoint)
        return True

    pool = open_pool(Manager(check_aliveness=survive, on_release=survive))
    conn = await pool.acquire('a')
    await pool.release(conn, 'a')
    async with pool.connection('a') as again:
        assert again is conn
    assert await pool.acquire('a') is conn
    await pool.release(conn, 'a')
    assert dealt_with == ['a'] * 5


async def test_what_an_operation_runs_cannot_run_the_operation(open_pool: OpenPool) -> None:
    refused: List[str] = []

    async def create(endpoint: str) -> None:
        for use in (operation.send, operation.throw):
            with pytest.raises(ValueError, match='already executing'):
                use(None if use == operation.send else KeyError())
            refused.append(endpoint)

    pool = open_pool(Manager(create=create))
    operation: Any = pool.acquire('a')
    await pool.release(await operation, 'a')
    assert refused == ['a', 'a']


async def test_the_class_of_a_context_manager_can_be_subscripted_as_annotations_do(open_pool: OpenPool) -> None:
    lease: Any = type(open_pool().connection('a'))
    assert lease[str, int].__origin__ is lease


@each_manager
async def test_the_tasks_that_wait_can_be_looked_into(open_pool: OpenPool, hooked: bool) -> None:
    """Debuggers print the stack of a task."""
    pool = open_pool(manager_for(hooked), max_size=1)
    conn = await pool.acquire('a')
    waiter = await queue_up(pool, 'a')
    assert 'acquire' in repr(waiter)
    waiter.get_stack()
    await pool.release(conn, 'a')
    await pool.release(await waiter, 'a')


async def test_an_exit_stack_can_hold_connections(open_pool: OpenPool) -> None:
    pool = open_pool(Manager(on_release=always(None)))
    async with contextlib.AsyncExitStack() as stack:
        conns = [await stack.enter_async_context(pool.connection('a')) for _ in range(3)]
        assert len(set(conns)) == 3
        assert await pool.get_endpoint_pool_size('a', acquired=True) == 3
    assert await pool.get_endpoint_pool_size('a', acquired=True) == 0


@pytest.mark.skipif(sys.version_info < (3, 12), reason='eager tasks came with 3.12')
async def test_eager_tasks(open_pool: OpenPool) -> None:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined, unused-ignore]
    try:
        pool = open_pool(manager_for(True), max_size=1, min_idle=0, idle_timeout=0.0, dispose_timeout=GENEROUS)
        for timeout in (None, GENEROUS):
            conn = await asyncio.create_task(pool.acquire('a', timeout))
            waiter = asyncio.create_task(pool.acquire('a', timeout))
            await until(lambda: pool._core.waiting('a') == 1)
            await asyncio.create_task(pool.release(conn, 'a'))
            assert await waiter is conn
            await pool.release(conn, 'a')
    finally:
        loop.set_task_factory(None)
