"""A cancellation or a timeout that meets the very moment at which the task gets what it waits for."""

import asyncio
import sys
import time
from typing import Any, List

import pytest
from support.interrupting import LATE, Stepper
from support.tasks import GENEROUS, Gate, Manager, OpenPool, always, outcome, passes, queue_up, run_step, until

from generic_connection_pool import ConnectionPoolTimeoutError

each_timeout = pytest.mark.parametrize('timeout', [None, GENEROUS], ids=['without deadline', 'with deadline'])


@each_timeout
async def test_a_cancel_after_the_hand_over_passes_the_connection_on(open_pool: OpenPool, timeout: Any) -> None:
    """Hazard 3."""
    manager = Manager()
    pool = open_pool(manager, max_size=1)
    conn = await pool.acquire('a')
    waiters = [await queue_up(pool, 'a', timeout) for _ in range(3)]
    run_step(pool.release(conn, 'a'))
    waiters[0].cancel()
    assert isinstance(await outcome(waiters[0]), asyncio.CancelledError)
    assert await waiters[1] is conn and not waiters[2].done()
    await pool.release(conn, 'a')
    await pool.release(await waiters[2], 'a')
    assert manager.created == [conn] and manager.disposed == []


@each_timeout
async def test_a_cancel_after_the_hand_over_leaves_the_connection_idle_if_nobody_waits(
    open_pool: OpenPool, timeout: Any
) -> None:
    """Hazard 3."""
    manager = Manager(on_release=always(None), check_aliveness=always(True))
    pool = open_pool(manager, max_size=1)
    conn = await pool.acquire('a')
    waiter = await queue_up(pool, 'a', timeout)
    run_step(pool.release(conn, 'a'))
    waiter.cancel()
    assert isinstance(await outcome(waiter), asyncio.CancelledError)
    assert await pool.get_endpoint_pool_size('a', acquired=False) == 1
    assert manager.names() == ['create', 'on_release']  # nothing was begun with it, so nothing has to be undone


@each_timeout
async def test_a_cancel_after_a_slot_was_handed_over_passes_the_slot_on(open_pool: OpenPool, timeout: Any) -> None:
    """Hazards 1 and 3."""
    manager = Manager()
    pool = open_pool(manager, max_size=1, min_idle=0, max_lifetime=0.0)
    conn = await pool.acquire('a')
    waiters = [await queue_up(pool, 'a', timeout) for _ in range(2)]
    release = asyncio.ensure_future(pool.release(conn, 'a'))
    await until(lambda: pool._core.waiting('a') == 1)  # the first one has the slot, but has not run yet
    assert manager.created == [conn]
    waiters[0].cancel()
    assert isinstance(await outcome(waiters[0]), asyncio.CancelledError)
    await release
    await pool.release(await waiters[1], 'a')


@each_timeout
async def test_a_cancel_before_a_victim_was_seen_to_loses_no_connection(open_pool: OpenPool, timeout: Any) -> None:
    manager = Manager()
    pool = open_pool(manager, total_max_size=1)
    conn = await pool.acquire('a')
    waiters = [await queue_up(pool, endpoint, timeout) for endpoint in 'bc']
    run_step(pool.release(conn, 'a'))  # the first waiter is told to dispose of it
    waiters[0].cancel()
    assert isinstance(await outcome(waiters[0]), asyncio.CancelledError)
    await pool.release(await waiters[1], 'c')
    assert manager.disposed == [conn]


@each_timeout
async def test_all_those_who_wait_may_be_cancelled_at_once(open_pool: OpenPool, timeout: Any) -> None:
    """Hazard 6."""
    pool = open_pool(max_size=2)
    conns = [await pool.acquire('a') for _ in range(2)]
    waiters = [await queue_up(pool, 'a', timeout) for _ in range(10)]
    for conn in conns:
        run_step(pool.release(conn, 'a'))
    for waiter in waiters:
        waiter.cancel()
    for waiter in waiters:
        assert isinstance(await outcome(waiter), asyncio.CancelledError)
    assert await pool.get_endpoint_pool_size('a', acquired=False) == 2 and pool._core.waiting('a') == 0


@each_timeout
async def test_a_cancel_during_create_frees_the_slot_for_the_next(open_pool: OpenPool, timeout: Any) -> None:
    """Hazard 1."""
    gate = Gate()
    manager = Manager(create=gate)
    pool = open_pool(manager, max_size=1)
    task = asyncio.ensure_future(pool.acquire('a', timeout))
    await gate.reached()
    waiter = await queue_up(pool, 'a', timeout)
    task.cancel()
    assert isinstance(await outcome(task), asyncio.CancelledError)
    assert gate.cancelled == 1 and pool.get_size() == 1
    gate.open()
    assert manager.created == []
    await pool.release(await waiter, 'a')


async def test_a_cancel_that_meets_the_end_of_create_is_delivered_and_its_connection_is_not_lost(
    open_pool: OpenPool,
) -> None:
    """Hazard 5: ``asyncio.wait_for`` of 3.10 and 3.11 would swallow it, or drop the connection."""
    manager = Manager(create=always(None))
    pool = open_pool(manager, max_size=1)
    stepper = Stepper(pool.acquire('a', timeout=GENEROUS), at=1, how=LATE)
    task = asyncio.ensure_future(stepper.run())
    assert isinstance(await outcome(task), asyncio.CancelledError)
    assert stepper.reached and len(manager.created) == 1
    conn = await pool.acquire('a', timeout=GENEROUS)
    assert conn is manager.created[0] or manager.disposed == manager.created[:1]
    await pool.release(conn, 'a')


@pytest.mark.parametrize('hook', ['check_aliveness', 'on_acquire', 'on_connection_dead'])
async def test_a_cancel_that_meets_the_end_of_a_hook_is_delivered(open_pool: OpenPool, hook: str) -> None:
    """Hazard 5."""
    gate = Gate(True)
    manager = Manager(**{'check_aliveness': always(hook != 'on_connection_dead'), hook: always(True)})
    pool = open_pool(manager, max_size=1)
    await pool.release(await pool.acquire('a'), 'a')
    manager.behaviours[hook] = gate
    task = asyncio.ensure_future(pool.acquire('a', timeout=GENEROUS))
    await gate.reached()
    gate.open()
    task.cancel()
    assert isinstance(await outcome(task), asyncio.CancelledError)
    await pool.release(await pool.acquire('a', timeout=GENEROUS), 'a')


async def test_a_cancel_that_meets_the_timeout_is_delivered(open_pool: OpenPool) -> None:
    """Hazard 5: and not replaced by the timeout."""
    pool = open_pool(max_size=1)
    async with pool.connection('a'):
        loop = asyncio.get_running_loop()
        task = await queue_up(pool, 'a', timeout=0.02)
        loop.call_later(0.01, task.cancel)
        due = time.monotonic() + 0.03
        while time.monotonic() < due:  # so that the loop finds both due at once
            pass
        assert isinstance(await outcome(task), asyncio.CancelledError)


async def test_a_cancel_that_meets_the_timeout_of_a_hook_is_delivered(open_pool: OpenPool) -> None:
    """Hazard 5."""
    gate = Gate()
    manager = Manager(create=gate, on_acquire=always(None))
    for hook in ('create', 'on_acquire'):
        manager.behaviours['create'] = gate if hook == 'create' else always(None)
        manager.behaviours['on_acquire'] = gate
        pool = open_pool(manager)
        loop = asyncio.get_running_loop()
        entered = gate.entered
        task = asyncio.ensure_future(pool.acquire('a', timeout=0.02))
        await gate.reached(entered + 1)
        loop.call_later(0.01, task.cancel)
        due = time.monotonic() + 0.03
        while time.monotonic() < due:
            pass
        assert isinstance(await outcome(task), asyncio.CancelledError)
        await until(lambda: pool.get_size() == 0)


async def test_a_cancel_while_a_failed_acquire_cleans_up_is_delivered(open_pool: OpenPool) -> None:
    """Hazard 5: the acquire has timed out already, and lets the disposal of the connection begin."""
    gate = Gate()
    dispose = Gate()
    manager = Manager(on_acquire=gate, dispose=dispose)
    pool = open_pool(manager)
    task = asyncio.ensure_future(pool.acquire('a', timeout=0.01))
    await dispose.reached()
    assert not task.done()
    task.cancel()
    assert isinstance(await outcome(task), asyncio.CancelledError)
    dispose.open()


async def test_wait_for_whose_time_is_over_when_the_connection_is_there_loses_nothing(open_pool: OpenPool) -> None:
    """Hazard 4."""
    pool = open_pool(max_size=1)
    conn = await pool.acquire('a')
    task = asyncio.ensure_future(asyncio.wait_for(pool.acquire('a'), 0.02))
    await until(lambda: pool._core.waiting('a') == 1)
    asyncio.get_running_loop().call_later(0.01, lambda: run_step(pool.release(conn, 'a')))
    due = time.monotonic() + 0.03
    while time.monotonic() < due:
        pass
    answer = await outcome(task)
    assert answer is conn or isinstance(answer, asyncio.TimeoutError)
    if answer is conn:
        await pool.release(conn, 'a')
    assert await pool.acquire('a', timeout=0) is conn
    await pool.release(conn, 'a')


async def test_a_hand_over_to_a_waiter_whose_timer_has_fired_is_not_lost_on_the_next_one(open_pool: OpenPool) -> None:
    """Hazards 4 and 6, many times over: each connection given back reaches exactly one of those who wait."""
    pool = open_pool(max_size=1)
    conn = await pool.acquire('a')
    served: List[Any] = []
    timed_out: List[Any] = []

    async def wait(timeout: float) -> None:
        try:
            async with pool.connection('a', timeout):
                served.append(timeout)
                await passes(1)
        except ConnectionPoolTimeoutError:
            timed_out.append(timeout)

    tasks = [asyncio.ensure_future(wait(number / 20_000)) for number in range(400)]
    await passes(2)
    await pool.release(conn, 'a')
    await asyncio.wait_for(asyncio.gather(*tasks), GENEROUS)
    assert len(served) + len(timed_out) == 400
    assert await pool.acquire('a', timeout=0) is conn
    await pool.release(conn, 'a')


@pytest.mark.skipif(sys.version_info < (3, 11), reason='asyncio.timeout came with 3.11')
async def test_asyncio_timeout_around_an_acquire_with_a_timeout_of_its_own(open_pool: OpenPool) -> None:
    """Neither takes the other's cancellation for its own."""
    gate = Gate()
    pool = open_pool(Manager(on_acquire=gate))
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.01):  # type: ignore[attr-defined, unused-ignore]
            await pool.acquire('a', timeout=GENEROUS)
    assert not isinstance(caught.value, ConnectionPoolTimeoutError)
    async with asyncio.timeout(GENEROUS):  # type: ignore[attr-defined, unused-ignore]
        with pytest.raises(ConnectionPoolTimeoutError):
            await pool.acquire('a', timeout=0.01)
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0  # type: ignore[attr-defined, unused-ignore]
