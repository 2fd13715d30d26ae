"""First come, first served; nobody starves; nobody sleeps while there is something for him."""

import asyncio
import random
from collections import Counter
from typing import Any, Dict, List

import pytest
from support.interrupting import Stepper
from support.tasks import (
    GENEROUS,
    Gate,
    Manager,
    OpenPool,
    always,
    failing,
    passes,
    queue_up,
    run_step,
    time_passes,
    until,
)

#: hooks make a hand-over take several passes of the event loop, in which others could get ahead
each_manager = pytest.mark.parametrize('hooked', [False, True], ids=['plain', 'hooked'])


async def pause(*args: Any) -> bool:
    await passes(2)
    return True


def manager_for(hooked: bool) -> Manager:
    return Manager(check_aliveness=pause, on_acquire=pause, on_release=pause) if hooked else Manager()


@each_manager
async def test_who_waits_is_served_first_come_first_served(open_pool: OpenPool, hooked: bool) -> None:
    """Hazard 13."""
    pool = open_pool(manager_for(hooked), max_size=1)
    held = await pool.acquire('a')
    served: List[int] = []

    async def wait(number: int) -> None:
        async with pool.connection('a', timeout=None if number % 2 else GENEROUS):
            served.append(number)

    tasks = []
    for number in range(10):
        tasks.append(asyncio.ensure_future(wait(number)))
        await until(lambda: pool._core.waiting('a') == len(tasks))
    await pool.release(held, 'a')
    await asyncio.gather(*tasks)
    assert served == list(range(10))


@each_manager
async def test_a_newcomer_does_not_overtake_those_who_wait(open_pool: OpenPool, hooked: bool) -> None:
    """Hazard 13: not even the one who has just released."""
    pool = open_pool(manager_for(hooked), max_size=1)
    conn = await pool.acquire('a')
    waiter = await queue_up(pool, 'a')
    await pool.release(conn, 'a')
    newcomer = asyncio.ensure_future(pool.acquire('a'))
    await until(lambda: waiter.done() or newcomer.done())
    assert waiter.done() and not newcomer.done()
    await pool.release(conn, 'a')
    await pool.release(await newcomer, 'a')


async def test_a_timeout_of_0_does_not_overtake_anyone_either(open_pool: OpenPool) -> None:
    pool = open_pool(max_size=1)
    conn = await pool.acquire('a')
    waiter = await queue_up(pool, 'a')
    await pool.release(conn, 'a')
    with pytest.raises(TimeoutError):
        await pool.acquire('a', timeout=0)
    assert await waiter is conn
    await pool.release(conn, 'a')


@each_manager
async def test_tasks_that_hammer_a_pool_are_served_equally_often(open_pool: OpenPool, hooked: bool) -> None:
    """Hazard 13: 16 tasks on 4 connections."""
    pool = open_pool(manager_for(hooked), max_size=4)
    served: 'Counter[int]' = Counter()

    async def hammer(number: int) -> None:
        while sum(served.values()) < 16 * 20:
            async with pool.connection('a'):
                served[number] += 1
                await passes(1)

    await asyncio.gather(*(hammer(number) for number in range(16)))
    assert max(served.values()) - min(served[number] for number in range(16)) <= 2


async def test_a_release_is_handed_over_directly(open_pool: OpenPool) -> None:
    """It is never idle in between, where a third one could see it."""
    pool = open_pool(max_size=1)
    conn = await pool.acquire('a')
    waiter = await queue_up(pool, 'a')
    run_step(pool.release(conn, 'a'))
    assert await pool.get_endpoint_pool_size('a', acquired=True) == 1 and not waiter.done()
    assert await waiter is conn
    await pool.release(conn, 'a')


async def test_one_release_wakes_one_waiter(open_pool: OpenPool) -> None:
    """Hazard 19: no herd, no spinning; who waits, sleeps until he is served."""
    pool = open_pool(max_size=1)
    conn = await pool.acquire('a')
    steppers = [Stepper(pool.acquire('a', timeout)) for timeout in (None, GENEROUS, None, GENEROUS)]
    tasks = [asyncio.ensure_future(stepper.run()) for stepper in steppers]
    await until(lambda: pool._core.waiting('a') == 4)
    for task in tasks:
        await time_passes(0.01)
        await pool.release(conn, 'a')
        assert await task is conn
        assert [other.suspensions for other in steppers] == [1, 1, 1, 1]
    await pool.release(conn, 'a')


@pytest.mark.parametrize('total', [1, 2, 20])
async def test_an_endpoint_that_waits_for_the_total_limit_is_bypassed_a_bounded_number_of_times(
    open_pool: OpenPool, total: int
) -> None:
    """Hazard 20: however busy another endpoint is."""
    pool = open_pool(Manager(), max_size=total, total_max_size=total)
    held = [await pool.acquire('a') for _ in range(total)]
    served: List[str] = []

    async def hammer() -> None:
        while 'b' not in served:
            assert len(served) < 5000, 'the other endpoint starves'
            async with pool.connection('a'):
                served.append('a')
                await passes(1)

    async def wait() -> None:
        async with pool.connection('b'):
            served.append('b')

    waiter = asyncio.ensure_future(wait())
    await until(lambda: pool._core.waiting('b') == 1)
    tasks = [asyncio.ensure_future(hammer()) for _ in range(3 * total)]
    await until(lambda: pool._core.waiting('a') == 3 * total)
    for conn in held:
        await pool.release(conn, 'a')
    await asyncio.gather(waiter, *tasks)
    assert served.index('b') <= max(16, total) + 2 * total


async def test_many_endpoints_that_share_a_small_total_are_all_served(open_pool: OpenPool) -> None:
    """Hazards 13 and 20."""
    rng = random.Random(7)
    pool = open_pool(Manager(), max_size=2, total_max_size=3)
    served: 'Counter[str]' = Counter()

    async def hammer(endpoint: str) -> None:
        while len(served) < 8 or min(served.values()) < 10:
            assert sum(served.values()) < 20_000, f'somebody starves: {served}'
            async with pool.connection(endpoint):
                served[endpoint] += 1
                await passes(rng.randrange(3))

    await asyncio.gather(*(hammer(endpoint) for endpoint in 'abcdefgh' for _ in range(2 if endpoint > 'b' else 6)))
    assert set(served) == set('abcdefgh')


async def test_every_way_in_which_a_slot_becomes_free_serves_who_waits(open_pool: OpenPool) -> None:
    """Hazard 14."""
    ways: Dict[str, Dict[str, Any]] = {
        'disposed of at release': {'options': {'max_lifetime': 0.0}},
        'not reusable': {'hooks': {'is_reusable': lambda *args: False}},
        'release hook times out': {'hooks': {'on_release': failing(TimeoutError())}},
        'release hook fails': {'hooks': {'on_release': failing(ValueError())}},
        'its disposal fails': {'options': {'max_lifetime': 0.0}, 'hooks': {'dispose': failing(OSError())}},
    }
    for way, given in ways.items():
        for endpoint in 'ab':  # the same endpoint, and one that waits for the total
            manager, options = Manager(**given.get('hooks', {})), given.get('options', {})
            pool = open_pool(manager, max_size=1, total_max_size=1, **options)
            waiters: List[Any] = []
            try:
                async with pool.connection('a'):
                    waiters = [await queue_up(pool, endpoint) for _ in range(2)]
                    raise LookupError
            except (LookupError, TimeoutError, ValueError):
                pass
            for waiter in waiters:
                await until(waiter.done)
                assert waiter.exception() is None, way
                await pool.release(waiter.result(), endpoint)


async def test_a_cancelled_waiter_leaves_its_turn_to_the_next(open_pool: OpenPool) -> None:
    """Hazard 6."""
    pool = open_pool(max_size=1)
    conn = await pool.acquire('a')
    waiters = [await queue_up(pool, 'a') for _ in range(3)]
    waiters[0].cancel()
    await until(waiters[0].done)
    await pool.release(conn, 'a')
    assert await waiters[1] is conn and not waiters[2].done()
    waiters[2].cancel()
    await until(waiters[2].done)
    await pool.release(conn, 'a')
    assert await pool.get_endpoint_pool_size('a', acquired=False) == 1


async def test_a_waiter_that_only_the_total_limit_blocks_is_served_when_another_ones_wait_is_over(
    open_pool: OpenPool,
) -> None:
    """Hazards 6 and 14: the slot that an eviction makes free, and whose beneficiary gives up, goes on."""
    gate = Gate()
    pool = open_pool(Manager(dispose=gate), total_max_size=1)
    await pool.release(await pool.acquire('a'), 'a')
    first = asyncio.ensure_future(pool.acquire('b'))
    await gate.reached()
    second = await queue_up(pool, 'c')
    first.cancel()
    await until(first.done)
    gate.open()
    await pool.release(await second, 'c')


async def test_one_endpoint_that_cannot_be_reached_does_not_hold_up_another(open_pool: OpenPool) -> None:
    """Hazard 42."""
    gate = Gate()

    async def create(endpoint: Any) -> None:
        if endpoint == 'dead':
            await gate()

    pool = open_pool(Manager(create=create, check_aliveness=always(True)))
    stuck = [asyncio.ensure_future(pool.acquire('dead')) for _ in range(5)]
    await gate.reached(5)
    for _ in range(5):
        async with pool.connection('alive', timeout=GENEROUS):
            pass
    gate.open()
    for task in stuck:
        await pool.release(await task, 'dead')
