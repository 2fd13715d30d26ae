"""Closing the pool."""

import asyncio
import time
from typing import Any

import pytest
from support.interrupting import Stepper
from support.tasks import (
    GENEROUS,
    Gate,
    Manager,
    OpenPool,
    StubbornGate,
    always,
    outcome,
    passes,
    queue_up,
    time_passes,
    until,
)

from generic_connection_pool import ConnectionNotAcquiredError, ConnectionPoolClosedError, ConnectionPoolTimeoutError

SHORT = 0.02


async def test_close_disposes_of_idle_connections(open_pool: OpenPool) -> None:
    manager = Manager()
    pool = open_pool(manager)
    conns = [await pool.acquire(endpoint) for endpoint in 'aab']
    for conn in conns:
        await pool.release(conn, conn.endpoint)
    await pool.close()
    assert set(manager.disposed) == set(conns) and pool.get_size() == 0 and pool._core.endpoints() == []


async def test_close_waits_for_acquired_connections_to_be_released(open_pool: OpenPool) -> None:
    manager = Manager()
    pool = open_pool(manager)
    conns = [await pool.acquire('a'), await pool.acquire('b')]
    closing = asyncio.ensure_future(pool.close())
    for conn in conns:
        await passes()
        assert not closing.done() and manager.disposed == conns[: conns.index(conn)]
        await pool.release(conn, conn.endpoint)
    await closing
    assert manager.disposed == conns


async def test_close_waits_until_the_last_disposal_has_finished(open_pool: OpenPool) -> None:
    gate = Gate()
    pool = open_pool(Manager(dispose=gate))
    await pool.release(await pool.acquire('a'), 'a')
    closing = asyncio.ensure_future(pool.close())
    await gate.reached()
    await passes()
    assert not closing.done() and pool.get_size() == 1
    gate.open()
    await closing


async def test_close_is_asleep_while_it_waits(open_pool: OpenPool) -> None:
    """Hazard 25."""
    pool = open_pool()
    conn = await pool.acquire('a')
    closing = Stepper(pool.close(timeout=GENEROUS))
    task = asyncio.ensure_future(closing.run())
    await time_passes(0.02)
    assert closing.suspensions == 1
    await pool.release(conn, 'a')
    await task


async def test_close_tells_those_who_wait_at_once(open_pool: OpenPool) -> None:
    pool = open_pool(max_size=1, total_max_size=2)
    conn = await pool.acquire('a')
    other = await pool.acquire('b')
    waiters = [await queue_up(pool, endpoint, timeout) for endpoint in 'abc' for timeout in (None, GENEROUS)]
    closing = asyncio.ensure_future(pool.close())
    for waiter in waiters:
        assert isinstance(await outcome(waiter), ConnectionPoolClosedError)
    assert not closing.done()
    await pool.release(conn, 'a')
    await pool.release(other, 'b')
    await closing


async def test_after_close_acquire_raises(open_pool: OpenPool) -> None:
    pool = open_pool()
    await pool.release(await pool.acquire('a'), 'a')
    await pool.close()
    for timeout in (None, 0, 1.0):
        with pytest.raises(ConnectionPoolClosedError):
            await pool.acquire('a', timeout)
    assert pool.closed and pool.get_size() == 0


async def test_nobody_is_served_once_close_has_begun(open_pool: OpenPool) -> None:
    """Even though its release comes before the waiter gets to know that the pool is closed."""
    manager = Manager()
    pool = open_pool(manager, max_size=1)
    conn = await pool.acquire('a')
    waiter = await queue_up(pool, 'a')
    closing = asyncio.ensure_future(pool.close())
    await until(lambda: pool.closed)
    await pool.release(conn, 'a')
    assert isinstance(await outcome(waiter), ConnectionPoolClosedError)
    await closing
    assert manager.created == manager.disposed == [conn]


async def test_a_waiter_who_was_handed_a_connection_but_did_not_run_before_close_is_not_served(
    open_pool: OpenPool,
) -> None:
    manager = Manager()
    pool = open_pool(manager, max_size=1)
    conn = await pool.acquire('a')
    waiter = await queue_up(pool, 'a')
    await pool.release(conn, 'a')  # does not suspend
    await pool.close()
    assert isinstance(await outcome(waiter), ConnectionPoolClosedError)
    assert manager.disposed == [conn]


@pytest.mark.parametrize('hook', ['check_aliveness', 'on_acquire', 'on_connection_dead'])
@pytest.mark.parametrize('timeout', [None, GENEROUS], ids=['without deadline', 'with deadline'])
async def test_an_acquire_whose_hook_is_under_way_when_close_begins_is_not_served(
    open_pool: OpenPool, hook: str, timeout: Any
) -> None:
    gate = Gate(True)
    manager = Manager(**{'check_aliveness': always(hook != 'on_connection_dead'), hook: always(True)})
    pool = open_pool(manager)
    conn = await pool.acquire('a')
    await pool.release(conn, 'a')
    manager.behaviours[hook] = gate
    task = asyncio.ensure_future(pool.acquire('a', timeout))
    await gate.reached()
    closing = asyncio.ensure_future(pool.close())
    await passes()
    assert not closing.done() and not task.done()
    gate.open()
    assert isinstance(await outcome(task), ConnectionPoolClosedError)
    await closing
    assert manager.created == manager.disposed == [conn]


@pytest.mark.parametrize('timeout', [None, GENEROUS], ids=['without deadline', 'with deadline'])
async def test_the_result_of_a_create_that_close_overtakes_is_disposed_of(open_pool: OpenPool, timeout: Any) -> None:
    """Hazard 23: its caller gets the closed error."""
    gate = Gate()
    manager = Manager(create=gate)
    pool = open_pool(manager)
    task = asyncio.ensure_future(pool.acquire('a', timeout))
    await gate.reached()
    closing = asyncio.ensure_future(pool.close())
    await passes()
    assert not closing.done()
    gate.open()
    assert isinstance(await outcome(task), ConnectionPoolClosedError)
    await closing
    assert len(manager.created) == 1 and manager.disposed == manager.created


async def test_the_disposal_of_a_create_that_close_overtook_does_not_delay_its_caller(open_pool: OpenPool) -> None:
    create, dispose = Gate(), Gate()
    pool = open_pool(Manager(create=create, dispose=dispose))
    task = asyncio.ensure_future(pool.acquire('a', timeout=GENEROUS))
    await create.reached()
    closing = asyncio.ensure_future(pool.close())
    await until(lambda: pool.closed)
    create.open()
    assert isinstance(await outcome(task), ConnectionPoolClosedError)
    assert not closing.done()
    dispose.open()
    await closing


async def test_closing_twice_and_at_once_is_fine(open_pool: OpenPool) -> None:
    pool = open_pool()
    conn = await pool.acquire('a')
    closings = [asyncio.ensure_future(pool.close(timeout)) for timeout in (None, GENEROUS, None)]
    await passes()
    assert not any(closing.done() for closing in closings)
    await pool.release(conn, 'a')
    for closing in closings:
        await closing
    await pool.close()
    await pool.close(0)


async def test_a_pool_that_was_never_used_can_be_closed(open_pool: OpenPool) -> None:
    pool = open_pool(background_collector=True)
    await pool.close()
    assert pool.closed


async def test_close_with_a_timeout_disposes_of_what_is_not_released(open_pool: OpenPool) -> None:
    manager = Manager()
    pool = open_pool(manager)
    conns = [await pool.acquire(endpoint) for endpoint in 'aab']
    started = time.monotonic()
    await pool.close(timeout=SHORT)
    assert SHORT <= time.monotonic() - started < GENEROUS / 2
    assert set(manager.disposed) == set(conns) and pool.get_size() == 0


async def test_close_with_a_timeout_of_0_waits_for_nobody(open_pool: OpenPool) -> None:
    manager = Manager()
    pool = open_pool(manager)
    conns = [await pool.acquire('a') for _ in range(3)]
    await pool.release(conns[0], 'a')
    await pool.close(0)
    assert set(manager.disposed) == set(conns) and pool.get_size() == 0


async def test_a_creation_that_outlasts_both_its_caller_and_the_pool_ends_in_a_disposal(open_pool: OpenPool) -> None:
    """Hazards 8 and 23."""
    gate = StubbornGate()
    manager = Manager(create=gate)
    pool = open_pool(manager)
    with pytest.raises(ConnectionPoolTimeoutError):
        await pool.acquire('a', timeout=SHORT)
    closing = asyncio.ensure_future(pool.close())
    await until(lambda: pool.closed)
    assert pool.get_size() == 1 and not closing.done()
    gate.open()
    await closing
    assert len(manager.created) == 1 and manager.disposed == manager.created


@pytest.mark.parametrize('hooks', [{}, {'on_release': always(None)}], ids=['plain', 'hooked'])
async def test_a_connection_closed_by_force_is_forgotten_when_it_is_released(open_pool: OpenPool, hooks: Any) -> None:
    manager = Manager(**hooks)
    pool = open_pool(manager)
    conn = await pool.acquire('a')
    async with pool.connection('a') as held:
        await pool.close(0)
        assert set(manager.disposed) == {conn, held}
    await pool.release(conn, 'a')
    assert 'on_release' not in manager.names()
    assert pool.get_size() == 0


async def test_a_release_during_and_after_close_disposes_silently(open_pool: OpenPool) -> None:
    """Hazard 24."""
    manager = Manager()
    pool = open_pool(manager)
    conn = await pool.acquire('a')
    with pytest.raises(asyncio.TimeoutError):
        async with pool.connection('a') as held:
            await asyncio.wait_for(pool.close(), SHORT)
    assert manager.disposed == [held]
    await pool.release(conn, 'a')
    assert manager.disposed == [held, conn]
    with pytest.raises(ConnectionNotAcquiredError):
        await pool.release(conn, 'a')


async def test_close_with_a_timeout_holds_it_though_a_disposal_hangs(open_pool: OpenPool) -> None:
    """Hazards 25 and 42."""
    gate = StubbornGate()
    manager = Manager(dispose=gate)
    pool = open_pool(manager)
    held = await pool.acquire('a')
    await pool.release(await pool.acquire('a'), 'a')
    started = time.monotonic()
    await pool.close(timeout=SHORT)
    assert time.monotonic() - started < GENEROUS / 2
    assert gate.entered == 2 and held in manager.disposed and pool.get_size() == 2
    gate.open()
    await pool.close()
    assert pool.get_size() == 0


async def test_close_with_a_timeout_holds_it_though_a_create_hangs(open_pool: OpenPool) -> None:
    gate = Gate()
    manager = Manager(create=gate)
    pool = open_pool(manager)
    task = asyncio.ensure_future(pool.acquire('a'))
    await gate.reached()
    await pool.close(timeout=SHORT)
    assert not task.done()
    gate.open()
    assert isinstance(await outcome(task), ConnectionPoolClosedError)
    await until(lambda: pool.get_size() == 0)


@pytest.mark.parametrize('hook', ['check_aliveness', 'on_acquire', 'on_connection_dead', 'on_release'])
@pytest.mark.parametrize('how', ['returns', 'raises', 'is cancelled'])
async def test_a_connection_closed_by_force_while_a_hook_has_it_is_disposed_of_once(
    open_pool: OpenPool, hook: str, how: str
) -> None:
    """Hazard 25: and the hook's caller gets the closed error, or what the hook raised."""
    gate = Gate(True)

    async def behaviour(endpoint: Any, conn: Any) -> bool:
        await gate()
        if how == 'raises':
            raise LookupError
        return True

    manager = Manager(**{'check_aliveness': always(hook != 'on_connection_dead'), hook: always(True)})
    pool = open_pool(manager)
    conn = await pool.acquire('a')
    if hook == 'on_release':
        manager.behaviours[hook] = behaviour
        task = asyncio.ensure_future(pool.release(conn, 'a'))
    else:
        await pool.release(conn, 'a')
        manager.behaviours[hook] = behaviour
        task = asyncio.ensure_future(pool.acquire('a'))
    await gate.reached()
    await pool.close(0)
    pool._core.check_invariants()
    if how == 'is cancelled':
        task.cancel()
    else:
        gate.open()
    answer = await outcome(task)
    if how == 'returns':
        assert answer is None if hook == 'on_release' else isinstance(answer, ConnectionPoolClosedError)
    else:
        assert isinstance(answer, LookupError if how == 'raises' else asyncio.CancelledError)
    await until(lambda: pool.get_size() == 0)
    assert manager.disposed == [conn]


async def test_a_cancelled_close_can_be_called_again(open_pool: OpenPool) -> None:
    """Hazard 26."""
    manager = Manager()
    pool = open_pool(manager)
    conn = await pool.acquire('a')
    closing = asyncio.ensure_future(pool.close())
    await passes()
    closing.cancel()
    assert isinstance(await outcome(closing), asyncio.CancelledError)
    pool._core.check_invariants()
    assert pool.closed and manager.disposed == []
    again = asyncio.ensure_future(pool.close())
    await passes()
    assert not again.done()
    await pool.release(conn, 'a')
    await again


async def test_disposals_go_on_though_the_close_that_began_them_is_cancelled(open_pool: OpenPool) -> None:
    gate = Gate()
    manager = Manager(dispose=gate)
    pool = open_pool(manager)
    await pool.release(await pool.acquire('a'), 'a')
    closing = asyncio.ensure_future(pool.close())
    await gate.reached()
    closing.cancel()
    assert isinstance(await outcome(closing), asyncio.CancelledError)
    assert gate.cancelled == 0
    gate.open()
    await pool.close()
    assert len(manager.disposed) == 1
