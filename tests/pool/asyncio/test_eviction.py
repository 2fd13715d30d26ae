"""What happens when the pool as a whole is full."""

import asyncio
import time

import pytest
from support.tasks import Gate, Manager, OpenPool, passes, queue_up, until

from generic_connection_pool import ConnectionPoolTimeoutError


async def test_an_acquire_for_another_endpoint_evicts_an_idle_connection(open_pool: OpenPool) -> None:
    manager = Manager()
    pool = open_pool(manager, total_max_size=2)
    one = await pool.acquire('a')
    await pool.release(one, 'a')
    two = await pool.acquire('b')
    three = await pool.acquire('c')
    assert manager.disposed == [one] and pool.get_size() == 2
    await pool.release(two, 'b')
    await pool.release(three, 'c')


async def test_the_one_nearest_its_deadline_is_evicted(open_pool: OpenPool) -> None:
    manager = Manager()
    pool = open_pool(manager, min_idle=1, total_max_size=4, idle_timeout=30.0)
    extras = [await pool.acquire('a'), await pool.acquire('a')]
    core = await pool.acquire('b')
    await pool.release(core, 'b')  # its deadline is an hour away
    await pool.release(extras[0], 'a')  # this one's half a minute
    held = [await pool.acquire('c')]
    assert manager.disposed == []
    held.append(await pool.acquire('c'))
    assert manager.disposed == [extras[0]]
    held.append(await pool.acquire('c'))
    assert manager.disposed == [extras[0], core]
    for conn in held:
        await pool.release(conn, 'c')
    await pool.release(extras[1], 'a')


async def test_even_a_core_connection_is_evicted(open_pool: OpenPool) -> None:
    manager = Manager()
    pool = open_pool(manager, min_idle=5, total_max_size=1)
    for endpoint in 'abc':
        async with pool.connection(endpoint):
            assert pool.get_size() == 1
    assert [conn.endpoint for conn in manager.disposed] == ['a', 'b']


async def test_an_endpoint_takes_its_own_idle_connection_rather_than_evicting(open_pool: OpenPool) -> None:
    manager = Manager()
    pool = open_pool(manager, total_max_size=2)
    for endpoint in 'ab':
        await pool.release(await pool.acquire(endpoint), endpoint)
    async with pool.connection('b') as conn:
        assert conn is manager.created[1] and manager.disposed == []


async def test_an_endpoint_at_its_own_limit_evicts_nobody(open_pool: OpenPool) -> None:
    manager = Manager()
    pool = open_pool(manager, max_size=1, total_max_size=2)
    await pool.release(await pool.acquire('a'), 'a')
    held = await pool.acquire('b')
    waiter = await queue_up(pool, 'b')
    await passes()
    assert manager.disposed == []
    await pool.release(held, 'b')
    await pool.release(await waiter, 'b')


async def test_an_evicted_connection_counts_until_its_disposal_has_finished(open_pool: OpenPool) -> None:
    """Hazard 29."""
    gate = Gate()
    manager = Manager(dispose=gate)
    pool = open_pool(manager, total_max_size=1)
    await pool.release(await pool.acquire('a'), 'a')
    task = asyncio.ensure_future(pool.acquire('b'))
    await gate.reached()
    await passes()
    assert len(manager.created) == 1 and pool.get_size() == 1 and not task.done()
    assert await pool.get_endpoint_pool_size('a') == 1
    gate.open()
    await pool.release(await task, 'b')


async def test_a_deadline_holds_though_the_evicted_connection_is_slow_to_dispose_of(open_pool: OpenPool) -> None:
    """Hazard 42: the disposal goes on, and the slot goes to whoever needs it then."""
    gate = Gate()
    manager = Manager(dispose=gate)
    pool = open_pool(manager, total_max_size=1)
    await pool.release(await pool.acquire('a'), 'a')
    started = time.monotonic()
    with pytest.raises(ConnectionPoolTimeoutError):
        await pool.acquire('b', timeout=0.02)
    assert 0.02 <= time.monotonic() - started < 10.0
    assert gate.entered == 1 and gate.cancelled == 0 and pool.get_size() == 1
    waiter = await queue_up(pool, 'c')
    gate.open()
    await pool.release(await waiter, 'c')


async def test_one_slow_disposal_does_not_hold_up_those_who_need_other_slots(open_pool: OpenPool) -> None:
    """Hazard 42."""
    gate = Gate()
    manager = Manager()
    pool = open_pool(manager, total_max_size=2)
    slow, quick = await pool.acquire('slow'), await pool.acquire('quick')

    async def dispose(endpoint: str, conn: object) -> None:
        if conn is slow:
            await gate()

    manager.behaviours['dispose'] = dispose
    await pool.release(slow, 'slow')
    first = asyncio.ensure_future(pool.acquire('c'))
    await gate.reached()
    await pool.release(quick, 'quick')
    second = asyncio.ensure_future(pool.acquire('c'))
    await until(lambda: first.done() or second.done())
    assert first.done(), 'the slot that became free first goes to whoever came first'
    gate.open()
    for task in (first, second):
        await pool.release(await task, 'c')


async def test_several_who_wait_have_several_evicted_at_once(open_pool: OpenPool) -> None:
    gate = Gate()
    manager = Manager(dispose=gate)
    pool = open_pool(manager, total_max_size=3)
    for conn in [await pool.acquire('a') for _ in range(3)]:
        await pool.release(conn, 'a')
    tasks = [asyncio.ensure_future(pool.acquire(endpoint)) for endpoint in 'bcb']
    await gate.reached(3)
    gate.open()
    for task in tasks:
        conn = await task
        await pool.release(conn, conn.endpoint)


async def test_no_more_are_evicted_than_are_needed(open_pool: OpenPool) -> None:
    gate = Gate()
    manager = Manager(dispose=gate)
    pool = open_pool(manager, max_size=3, total_max_size=3)
    for conn in [await pool.acquire('a') for _ in range(3)]:
        await pool.release(conn, 'a')
    task = asyncio.ensure_future(pool.acquire('b'))
    await gate.reached()
    await passes()
    assert gate.entered == 1
    gate.open()
    await pool.release(await task, 'b')


async def test_a_failing_disposal_of_an_evicted_connection_frees_its_slot(open_pool: OpenPool) -> None:
    """Hazard 14: whatever way a slot becomes free, it is offered."""

    async def dispose(endpoint: str, conn: object) -> None:
        raise OSError('no such file descriptor')

    pool = open_pool(Manager(dispose=dispose), total_max_size=1)
    await pool.release(await pool.acquire('a'), 'a')
    async with pool.connection('b', timeout=10.0):
        assert await pool.get_endpoint_pool_size('a') == 0


async def test_who_waits_for_the_total_is_served_at_once_by_a_release_elsewhere(open_pool: OpenPool) -> None:
    """Hazard 20: A's connection must not lie idle while B waits for the total limit."""
    manager = Manager()
    pool = open_pool(manager, min_idle=5, total_max_size=2)
    one, two = await pool.acquire('a'), await pool.acquire('a')
    waiter = await queue_up(pool, 'b')
    await pool.release(one, 'a')
    conn = await waiter
    assert conn.endpoint == 'b' and manager.disposed == [one]
    await pool.release(conn, 'b')
    await pool.release(two, 'a')


async def test_each_of_several_endpoints_that_wait_for_the_total_is_served(open_pool: OpenPool) -> None:
    """Hazard 20."""
    pool = open_pool(Manager(), total_max_size=1)
    held = await pool.acquire('a')
    waiters = [await queue_up(pool, endpoint) for endpoint in 'bcdb']
    served = []
    await pool.release(held, 'a')
    for _ in waiters:
        await until(lambda: any(task.done() and task not in served for task in waiters))
        (task,) = [task for task in waiters if task.done() and task not in served]
        served.append(task)
        await pool.release(task.result(), task.result().endpoint)
    assert {task.result().endpoint for task in served} == {'b', 'c', 'd'}


async def test_a_timeout_of_0_evicts_without_waiting_for_it(open_pool: OpenPool) -> None:
    manager = Manager()
    pool = open_pool(manager, total_max_size=1)
    await pool.release(await pool.acquire('a'), 'a')
    with pytest.raises(ConnectionPoolTimeoutError):
        await pool.acquire('b', timeout=0)
    await until(lambda: pool.get_size() == 0)
    async with pool.connection('b', timeout=0):
        assert manager.disposed == manager.created[:1]
