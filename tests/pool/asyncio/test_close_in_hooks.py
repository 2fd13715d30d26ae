"""Closing from inside a hook does not wait for the slot that the hook itself is about (hazard 26)."""

import asyncio
from typing import Any, Dict, List, Optional

import pytest
from support.tasks import GENEROUS, Gate, Manager, OpenPool, Pool, always, outcome, passes, until

from generic_connection_pool import ConnectionPoolClosedError

each_timeout = pytest.mark.parametrize('timeout', [None, GENEROUS], ids=['without deadline', 'with deadline'])


class Closer:
    """A hook's behaviour: close the pool, once."""

    def __init__(self) -> None:
        self.pool: Optional[Pool] = None
        self.ended = False

    async def __call__(self, *args: Any) -> bool:
        if self.pool is not None:
            pool, self.pool = self.pool, None
            await pool.close()
            self.ended = True
        return True


@each_timeout
async def test_close_from_create(open_pool: OpenPool, timeout: Any) -> None:
    closer = Closer()

    async def create(endpoint: Any) -> None:
        await closer()

    manager = Manager(create=create)
    closer.pool = pool = open_pool(manager)
    with pytest.raises(ConnectionPoolClosedError):
        await pool.acquire('a', timeout)
    assert closer.ended and len(manager.created) == 1
    await until(lambda: pool.get_size() == 0)


@pytest.mark.parametrize('hook', ['check_aliveness', 'on_acquire', 'on_connection_dead'])
@each_timeout
async def test_close_from_a_hook_of_acquire(open_pool: OpenPool, hook: str, timeout: Any) -> None:
    closer = Closer()
    hooks: Dict[str, Any] = {'check_aliveness': always(hook != 'on_connection_dead'), hook: closer}
    manager = Manager(**hooks)
    pool = open_pool(manager)
    conns = [await pool.acquire('a'), await pool.acquire('a')]
    for conn in conns:
        await pool.release(conn, 'a')
    closer.pool = pool
    with pytest.raises(ConnectionPoolClosedError):
        await pool.acquire('a', timeout)
    assert closer.ended
    await until(lambda: pool.get_size() == 0)
    assert set(manager.disposed) == set(conns)


async def test_close_from_on_release(open_pool: OpenPool) -> None:
    closer = Closer()
    manager = Manager(on_release=closer)
    pool = open_pool(manager)
    async with pool.connection('a') as conn:
        closer.pool = pool
    assert closer.ended and manager.disposed == [conn] and pool.get_size() == 0


@each_timeout
async def test_close_from_dispose(open_pool: OpenPool, timeout: Any) -> None:
    closer = Closer()
    manager = Manager(dispose=closer)
    pool = open_pool(manager, min_idle=0, idle_timeout=0.0, dispose_timeout=timeout)
    closer.pool = pool
    await pool.release(await pool.acquire('a'), 'a')
    assert closer.ended and pool.get_size() == 0


async def test_close_from_the_disposal_that_close_began(open_pool: OpenPool) -> None:
    closer = Closer()
    manager = Manager(dispose=closer)
    pool = open_pool(manager)
    for conn in [await pool.acquire('a') for _ in range(3)]:
        await pool.release(conn, 'a')
    closer.pool = pool
    await pool.close()
    assert closer.ended and len(manager.disposed) == 3


async def test_close_from_the_disposal_of_a_victim_while_its_beneficiary_waits(open_pool: OpenPool) -> None:
    closer = Closer()
    pool = open_pool(Manager(dispose=closer), total_max_size=1)
    await pool.release(await pool.acquire('a'), 'a')
    closer.pool = pool
    with pytest.raises(ConnectionPoolClosedError):
        await pool.acquire('b')
    await until(lambda: closer.ended)


async def test_close_from_two_hooks_at_once(open_pool: OpenPool) -> None:
    """Neither waits for the other's slot."""
    closings = Gate()

    async def create(endpoint: Any) -> None:
        await closings()
        await pool.close()

    pool = open_pool(Manager(create=create))
    tasks = [asyncio.ensure_future(pool.acquire(endpoint)) for endpoint in 'ab']
    await closings.reached(2)
    closings.open()
    for task in tasks:
        assert isinstance(await outcome(task), ConnectionPoolClosedError)


async def test_close_from_a_hook_that_another_hook_has_caused(open_pool: OpenPool) -> None:
    """Both slots are in the hands of the one who closes."""

    async def create(endpoint: Any) -> None:
        if endpoint == 'outer':
            with pytest.raises(ConnectionPoolClosedError):
                await pool.acquire('inner', timeout=GENEROUS)
        else:
            await pool.close()

    pool = open_pool(Manager(create=create))
    with pytest.raises(ConnectionPoolClosedError):
        await pool.acquire('outer', timeout=GENEROUS)


async def test_close_from_a_task_that_a_hook_has_started_and_awaits(open_pool: OpenPool) -> None:
    async def create(endpoint: Any) -> None:
        await asyncio.ensure_future(pool.close())

    pool = open_pool(Manager(create=create))
    with pytest.raises(ConnectionPoolClosedError):
        await pool.acquire('a')


async def test_a_close_from_inside_a_hook_still_waits_for_the_slots_of_others(open_pool: OpenPool) -> None:
    closer = Closer()
    manager = Manager(on_release=closer)
    pool = open_pool(manager)
    mine, others = await pool.acquire('a'), await pool.acquire('a')
    closer.pool = pool
    release = asyncio.ensure_future(pool.release(mine, 'a'))
    await until(lambda: pool.closed)
    await passes()
    assert not release.done() and not closer.ended
    await pool.release(others, 'a')
    await release
    assert closer.ended


async def test_a_task_that_a_hook_has_left_behind_waits_for_that_hooks_connection(open_pool: OpenPool) -> None:
    """The hook has ended, so its connection is not in its hands any more."""
    go = asyncio.Event()
    closings = []

    async def close_later() -> None:
        await go.wait()
        await pool.close()

    async def on_acquire(endpoint: Any, conn: Any) -> None:
        closings.append(asyncio.ensure_future(close_later()))

    pool = open_pool(Manager(on_acquire=on_acquire))
    conn = await pool.acquire('a')
    go.set()
    await until(lambda: pool.closed)
    await passes()
    assert not closings[0].done()
    await pool.release(conn, 'a')
    await closings[0]


async def test_the_hooks_of_another_pool_do_not_count(open_pool: OpenPool) -> None:
    async def create(endpoint: Any) -> None:
        await other.close()

    pool, other = open_pool(Manager(create=create)), open_pool()
    held = await other.acquire('a')
    task = asyncio.ensure_future(pool.acquire('a'))
    await until(lambda: other.closed)
    await passes()
    assert not task.done()
    await other.release(held, 'a')
    await pool.release(await task, 'a')


async def test_a_hook_that_the_garbage_collector_closes_inside_another_hook_does_not_confuse_them(
    open_pool: OpenPool,
) -> None:
    """Hazard 37: it ends in the context of whoever runs just then."""
    left: List[Any] = []

    async def create(endpoint: Any) -> None:
        if endpoint == 'left':
            await asyncio.get_running_loop().create_future()
        left.pop().close()
        await pool.close()

    pool = open_pool(Manager(create=create))
    left.append(pool.acquire('left'))
    left[0].send(None)
    with pytest.raises(ConnectionPoolClosedError):
        await pool.acquire('a')
