import asyncio
import gc
import random
from typing import Any, Coroutine, Optional

import pytest
from generic_connection_pool.asyncio.locks import SharedLock


async def settle() -> None:
    """Let every task run until it waits for something: nothing here needs more turns of the loop than this."""
    for _ in range(10):
        await asyncio.sleep(0)


async def start(coroutine: Coroutine[Any, Any, Any]) -> 'asyncio.Task[Any]':
    """Run a coroutine in a task, and return when it is done or waits."""
    task = asyncio.create_task(coroutine)
    await settle()
    return task


def step(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that must not suspend."""
    with pytest.raises(StopIteration) as stop:
        coroutine.send(None)
    return stop.value.value


@pytest.fixture
def lock() -> SharedLock:
    return SharedLock()  # outside an event loop


async def test_its_repr_tells_who_holds_it(lock: SharedLock) -> None:
    assert repr(lock) == 'SharedLock<status=unlocked, owner=None, shared_by=0>'
    task = asyncio.create_task(lock.acquire(), name='worker 7')
    await task
    assert repr(lock) == 'SharedLock<status=locked exclusively, owner=worker 7, shared_by=0>'
    await lock.release()
    await lock.acquire(exclusive=False)
    await lock.acquire(exclusive=False)
    assert repr(lock) == 'SharedLock<status=locked for share, owner=None, shared_by=2>'
    waiter = await start(lock.acquire())
    assert repr(lock) == 'SharedLock<status=locked for share, owner=None, shared_by=2>'
    waiter.cancel()


async def test_acquiring_a_free_lock_and_releasing_it_do_not_suspend(lock: SharedLock) -> None:
    for exclusive in (True, False):
        assert step(lock.acquire(exclusive)) is True
        assert step(lock.release(exclusive)) is None


async def test_who_is_cancelled_when_another_has_released_his_share_already_leaves_nothing(lock: SharedLock) -> None:
    await lock.acquire()
    waiter = await start(lock.acquire(exclusive=False))
    await lock.release()
    await lock.release(exclusive=False)  # that of the waiter, which is let in but has not run yet
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert 'unlocked' in repr(lock)


async def test_exclusive_use_shuts_out_everybody_else(lock: SharedLock) -> None:
    assert await lock.acquire()
    assert not await lock.acquire(timeout=0)
    assert not await lock.acquire(exclusive=False, timeout=0)
    await lock.release()
    assert await lock.acquire(timeout=0)


async def test_a_share_lets_in_others_who_share_and_nobody_else(lock: SharedLock) -> None:
    assert await lock.acquire(exclusive=False)
    assert await lock.acquire(exclusive=False, timeout=0)
    assert not await lock.acquire(timeout=0)
    await lock.release(exclusive=False)
    assert not await lock.acquire(timeout=0)
    await lock.release(exclusive=False)
    assert await lock.acquire(timeout=0)


@pytest.mark.parametrize('exclusive', [True, False])
async def test_releasing_an_unlocked_lock_is_an_error(lock: SharedLock, exclusive: bool) -> None:
    with pytest.raises(RuntimeError, match='not locked'):
        await lock.release(exclusive)
    assert await lock.acquire(timeout=0)


@pytest.mark.parametrize('exclusive', [True, False])
async def test_releasing_it_in_the_other_way_is_an_error_and_changes_nothing(lock: SharedLock, exclusive: bool) -> None:
    await lock.acquire(exclusive)
    before = repr(lock)
    with pytest.raises(RuntimeError, match='the other way'):
        await lock.release(not exclusive)
    assert repr(lock) == before


async def test_one_task_may_release_what_another_acquired(lock: SharedLock) -> None:
    await lock.acquire()
    await asyncio.create_task(lock.release())
    assert await lock.acquire(timeout=0)


async def test_acquiring_gives_up_after_the_timeout(lock: SharedLock) -> None:
    await lock.acquire()
    assert await lock.acquire(timeout=0.001) is False
    await lock.release()
    assert 'unlocked' in repr(lock)


@pytest.mark.parametrize('timeout', [None, -1, -0.5, float('inf'), 10**6])
async def test_acquiring_waits_as_long_as_it_may(lock: SharedLock, timeout: Optional[float]) -> None:
    await lock.acquire()
    waiter = await start(lock.acquire(timeout=timeout))
    assert not waiter.done()
    await lock.release()
    assert await waiter is True


async def test_a_with_statement_holds_the_lock_exclusively(lock: SharedLock) -> None:
    with pytest.raises(ZeroDivisionError):
        async with lock:
            assert 'locked exclusively' in repr(lock)
            raise ZeroDivisionError
    assert 'unlocked' in repr(lock)


@pytest.mark.parametrize('exclusive, status', [(True, 'locked exclusively'), (False, 'locked for share')])
async def test_acquired_holds_the_lock_for_a_block(lock: SharedLock, exclusive: bool, status: str) -> None:
    with pytest.raises(ZeroDivisionError):
        async with lock.acquired(exclusive):
            assert status in repr(lock)
            raise ZeroDivisionError
    assert 'unlocked' in repr(lock)


@pytest.mark.parametrize('timeout', [0, 0.001])
@pytest.mark.parametrize('error', [TimeoutError, asyncio.TimeoutError])
async def test_acquired_raises_a_timeout_error_and_does_not_enter_the_block(
    lock: SharedLock, timeout: float, error: type[Exception]
) -> None:
    await lock.acquire()
    before = repr(lock)
    with pytest.raises(error, match='locked exclusively'):
        async with lock.acquired(timeout=timeout):
            pytest.fail('entered')
    assert repr(lock) == before


async def test_waiters_are_served_in_the_order_of_arrival_and_neighbours_share(lock: SharedLock) -> None:
    await lock.acquire()
    share_1 = await start(lock.acquire(exclusive=False))
    share_2 = await start(lock.acquire(exclusive=False))
    alone_1 = await start(lock.acquire())
    share_3 = await start(lock.acquire(exclusive=False))
    alone_2 = await start(lock.acquire())

    await lock.release()
    assert await share_1 and await share_2
    assert 'shared_by=2' in repr(lock)
    await lock.release(exclusive=False)
    await settle()
    assert not alone_1.done()
    await lock.release(exclusive=False)
    assert await alone_1
    assert 'locked exclusively' in repr(lock) and 'shared_by=0' in repr(lock)
    await lock.release()
    assert await share_3
    assert 'shared_by=1' in repr(lock) and not alone_2.done()
    await lock.release(exclusive=False)
    assert await alone_2


async def test_nobody_overtakes_those_who_wait(lock: SharedLock) -> None:
    await lock.acquire(exclusive=False)
    waiter = await start(lock.acquire())
    assert not await lock.acquire(exclusive=False, timeout=0)
    await lock.release(exclusive=False)
    assert not await lock.acquire(exclusive=False, timeout=0)
    assert await waiter


async def test_a_waiter_that_times_out_lets_in_those_whom_it_kept_out(lock: SharedLock) -> None:
    await lock.acquire(exclusive=False)
    alone = asyncio.create_task(lock.acquire(timeout=0.001))
    shares = [asyncio.create_task(lock.acquire(exclusive=False)) for _ in range(2)]
    assert await alone is False
    assert await asyncio.gather(*shares) == [True, True]
    assert 'shared_by=3' in repr(lock)


async def test_a_waiter_that_is_cancelled_lets_in_those_whom_it_kept_out(lock: SharedLock) -> None:
    await lock.acquire(exclusive=False)
    alone = await start(lock.acquire())
    shares = [await start(lock.acquire(exclusive=False)) for _ in range(2)]
    alone.cancel()
    assert await asyncio.gather(*shares) == [True, True]
    with pytest.raises(asyncio.CancelledError):
        await alone
    assert 'shared_by=3' in repr(lock)


@pytest.mark.parametrize('exclusive', [True, False])
@pytest.mark.parametrize('cancelled_first', [True, False])
async def test_a_waiter_that_is_let_in_and_cancelled_at_once_passes_the_lock_on(
    lock: SharedLock, exclusive: bool, cancelled_first: bool
) -> None:
    await lock.acquire()
    unlucky = await start(lock.acquire(exclusive))
    behind = await start(lock.acquire())
    if cancelled_first:
        unlucky.cancel()
    await lock.release()
    unlucky.cancel()
    assert await behind is True
    with pytest.raises(asyncio.CancelledError):
        await unlucky


async def test_a_cancelled_sharer_leaves_the_shares_of_others_alone(lock: SharedLock) -> None:
    await lock.acquire()
    unlucky = await start(lock.acquire(exclusive=False))
    other = await start(lock.acquire(exclusive=False))
    await lock.release()
    unlucky.cancel()
    await lock.release(exclusive=False)  # by the other, before the cancelled one has noticed
    await settle()
    assert await other is True and unlucky.cancelled()
    assert 'unlocked' in repr(lock)


async def test_a_waiter_that_is_let_in_when_its_time_runs_out_keeps_the_lock(lock: SharedLock) -> None:
    await lock.acquire()
    loop = asyncio.get_running_loop()
    timers: list[Any] = []
    call_later = loop.call_later
    loop.call_later = lambda delay, *args: timers.append(args) or call_later(delay, *args)  # type: ignore
    waiter = await start(lock.acquire(timeout=1000.0))
    loop.call_later = call_later  # type: ignore[method-assign]
    await lock.release()
    [(callback, *arguments)] = timers
    callback(*arguments)
    assert await waiter is True
    assert 'locked exclusively' in repr(lock)


async def test_a_waiter_that_is_served_leaves_no_timer_behind(lock: SharedLock) -> None:
    await lock.acquire()
    loop = asyncio.get_running_loop()
    timers: list[asyncio.TimerHandle] = []
    call_later = loop.call_later
    loop.call_later = lambda *args: timers.append(call_later(*args)) or timers[-1]  # type: ignore
    waiter = await start(lock.acquire(timeout=1000.0))
    loop.call_later = call_later  # type: ignore[method-assign]
    await lock.release()
    assert await waiter is True
    assert [timer.cancelled() for timer in timers] == [True]


async def test_a_coroutine_that_is_closed_while_it_waits_leaves_the_queue(lock: SharedLock) -> None:
    await lock.acquire(exclusive=False)
    waiting = lock.acquire()
    waiting.send(None)
    behind = await start(lock.acquire(exclusive=False))
    assert not behind.done()
    waiting.close()
    assert await behind is True


def test_a_waiter_whose_event_loop_is_gone_is_passed_over(lock: SharedLock) -> None:
    async def wait_for_ever() -> None:
        await lock.acquire(exclusive=False)
        tasks.extend([await start(lock.acquire()), await start(lock.acquire(exclusive=False))])

    async def release_and_acquire() -> None:
        waiter = await start(lock.acquire(timeout=30.0))
        assert not waiter.done()
        await lock.release(exclusive=False)
        assert await waiter is True
        await lock.release()

    tasks: list[asyncio.Task[Any]] = []
    dead = asyncio.new_event_loop()
    dead.run_until_complete(wait_for_ever())
    dead.close()
    asyncio.run(release_and_acquire())
    assert 'unlocked' in repr(lock)
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    tasks.clear()
    gc.collect()
    assert 'unlocked' in repr(lock)


def test_one_lock_serves_one_event_loop_after_another(lock: SharedLock) -> None:
    async def contend() -> bool:
        await lock.acquire()
        waiter = await start(lock.acquire(exclusive=False))
        await lock.release()
        served = bool(await waiter)
        await lock.release(exclusive=False)
        return served

    assert asyncio.run(contend())
    assert asyncio.run(contend())


@pytest.mark.parametrize('seed', range(20))
async def test_many_tasks_never_break_the_rules_however_they_are_cancelled(lock: SharedLock, seed: int) -> None:
    chance = random.Random(seed)
    inside = {True: 0, False: 0}
    served = 0

    async def use(exclusive: bool, timeout: Optional[float]) -> None:
        nonlocal served
        async with lock.acquired(exclusive, timeout):
            inside[exclusive] += 1
            assert inside[True] == 0 or inside == {True: 1, False: 0}
            try:
                for _ in range(chance.randrange(3)):
                    await asyncio.sleep(0)
                served += 1
            finally:
                inside[exclusive] -= 1

    tasks = []
    for _ in range(200):
        tasks.append(asyncio.create_task(use(chance.random() < 0.5, chance.choice([None, None, 0, 0.0005]))))
        if chance.random() < 0.5:
            await asyncio.sleep(0)
        if chance.random() < 0.4:
            chance.choice(tasks).cancel()
    results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30.0)
    errors = {type(error) for error in results if error is not None}
    assert all(issubclass(error, (TimeoutError, asyncio.CancelledError)) for error in errors)
    assert served > 20
    assert 'unlocked' in repr(lock)
    assert await lock.acquire(timeout=0)
