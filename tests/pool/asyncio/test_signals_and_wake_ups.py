"""Ctrl-C, and wake-ups that come before anybody sleeps."""

import asyncio
import signal
import threading
from typing import Any, Callable, Coroutine

import pytest
from support.tasks import GENEROUS, Gate, Manager, Pool, always, finish, passes, queue_up, until

from generic_connection_pool.asyncio import ConnectionPool
from generic_connection_pool.asyncio.waiter import Waiter


async def in_a_block(pool: Pool, gate: Gate) -> None:
    async with pool.connection('a'):
        await gate()


async def in_the_queue(pool: Pool, gate: Gate) -> None:
    async with pool.connection('a'):
        waiter = await queue_up(pool, 'a')
        gate.entered += 1
        await waiter


async def in_a_hook(pool: Pool, gate: Gate) -> None:
    pool._connection_manager.behaviours['on_acquire'] = gate  # type: ignore[attr-defined]
    async with pool.connection('a', timeout=GENEROUS):
        raise AssertionError('entered')


async def in_close(pool: Pool, gate: Gate) -> None:
    async with pool.connection('a'):
        closing = asyncio.ensure_future(pool.close())
        await until(lambda: pool.closed)
        gate.entered += 1
        await closing


@pytest.mark.parametrize('place', [in_a_block, in_the_queue, in_a_hook, in_close])
def test_ctrl_c_loses_nothing(place: Callable[[Pool, Gate], Coroutine[Any, Any, None]]) -> None:
    """Hazard 10."""
    manager = Manager(on_acquire=always(None))
    pool: Pool = ConnectionPool(manager, max_size=1)

    async def main() -> None:
        gate = Gate()

        async def press() -> None:
            await gate.reached()
            signal.raise_signal(signal.SIGINT)

        presser = asyncio.ensure_future(press())
        try:
            await place(pool, gate)
        finally:
            presser.cancel()

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert pool._core.lent_size('a') == 0 == pool._core.waiting('a')
    manager.behaviours['on_acquire'] = always(None)

    async def use_again() -> None:
        if not pool.closed:
            async with pool.connection('a', timeout=GENEROUS):
                pass
        await finish(pool, manager)

    asyncio.run(use_again())


def fresh_waiter() -> Waiter:
    return Waiter(asyncio.get_running_loop())


@pytest.mark.parametrize('timeout', [None, 0.0, GENEROUS])
async def test_a_wake_up_before_the_sleep_is_not_lost(timeout: Any) -> None:
    """Hazard 12."""
    waiter = fresh_waiter()
    waiter.notify()
    assert await waiter.wait(timeout) is True
    assert await waiter.wait(0.0) is False


async def test_several_wake_ups_before_the_sleep_are_one() -> None:
    waiter = fresh_waiter()
    for _ in range(3):
        waiter.notify()
    assert await waiter.wait(None) is True
    assert await waiter.wait(0.001) is False


async def test_a_wake_up_from_another_thread_reaches_a_sleeping_loop() -> None:
    """Hazard 12: nothing else makes the loop turn."""
    waiter = fresh_waiter()
    asleep = threading.Event()

    def wake() -> None:
        asleep.wait(GENEROUS)
        waiter.notify()

    thread = threading.Thread(target=wake)
    thread.start()
    asyncio.get_running_loop().call_soon(asleep.set)
    assert await waiter.wait(GENEROUS) is True
    thread.join()


async def test_a_cancelled_sleep_keeps_the_wake_up_for_the_next() -> None:
    waiter = fresh_waiter()
    task = asyncio.ensure_future(waiter.wait(None))
    await passes(2)
    waiter.notify()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() and await waiter.wait(0.0) is True


async def test_a_timer_leaves_nothing_behind_in_the_loop() -> None:
    loop: Any = asyncio.get_running_loop()
    waiter = fresh_waiter()
    task = asyncio.ensure_future(waiter.wait(GENEROUS))
    await passes(2)
    waiter.notify()
    assert await task is True
    assert all(handle.cancelled() for handle in loop._scheduled)


def test_a_lost_wake_up_is_reported_when_the_loop_is_closed() -> None:
    loop = asyncio.new_event_loop()
    lost = []
    waiter = Waiter(loop, lambda: lost.append(True))
    silent = Waiter(loop)
    loop.close()
    waiter.notify()
    silent.notify()
    assert lost == [True]
