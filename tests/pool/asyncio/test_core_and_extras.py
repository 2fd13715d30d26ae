"""Which connection is taken next, which are kept, and when the others are disposed of."""

import asyncio
import random
from typing import Any, List

import pytest
from support.tasks import Gate, Manager, OpenPool, Pool, queue_up, time_passes

#: seconds that the connections in these tests may be idle, or live
SHORT = 0.12


async def take(pool: Pool, count: int, endpoint: Any = 'a') -> List[Any]:
    return [await pool.acquire(endpoint) for _ in range(count)]


async def give(pool: Pool, *conns: Any, endpoint: Any = 'a') -> None:
    for conn in conns:
        await pool.release(conn, endpoint)


async def test_core_connections_are_taken_first_in_first_out(open_pool: OpenPool) -> None:
    pool = open_pool(Manager(), min_idle=3)
    one, two, three = await take(pool, 3)
    await give(pool, two, three, one)
    assert await take(pool, 3) == [two, three, one]
    await give(pool, one, two, three)


async def test_extras_are_taken_last_in_first_out(open_pool: OpenPool) -> None:
    pool = open_pool(Manager(), min_idle=0)
    one, two, three = await take(pool, 3)
    await give(pool, two, three, one)
    assert await take(pool, 3) == [one, three, two]
    await give(pool, one, two, three)


async def test_extras_are_taken_only_when_no_core_one_is_idle(open_pool: OpenPool) -> None:
    pool = open_pool(Manager(), min_idle=2)
    c = await take(pool, 5)
    await give(pool, *c)  # the last two find the core empty, the first three do not
    assert await take(pool, 5) == [c[3], c[4], c[2], c[1], c[0]]
    await give(pool, *c)


async def test_it_becomes_an_extra_when_the_acquired_ones_could_fill_the_core(open_pool: OpenPool) -> None:
    """Compared with the rule as it is written, over many random releases."""
    for seed in range(20):
        rng = random.Random(seed)
        min_idle = rng.randint(0, 4)
        pool = open_pool(Manager(), min_idle=min_idle, max_size=6)
        core: List[Any] = []
        extra: List[Any] = []
        lent: List[Any] = []
        for _ in range(60):
            if len(lent) < 6 and rng.random() < 0.5:
                conn = await pool.acquire('a')
                expected = core.pop(0) if core else extra.pop() if extra else conn
                assert conn is expected and conn not in lent
                lent.append(conn)
            elif lent:
                conn = lent.pop(rng.randrange(len(lent)))
                await pool.release(conn, 'a')
                (extra if len(lent) + len(core) >= min_idle else core).append(conn)
        await give(pool, *lent)


async def test_extras_are_disposed_of_after_idle_timeout_and_core_ones_are_kept(open_pool: OpenPool) -> None:
    manager = Manager()
    pool = open_pool(manager, min_idle=1, idle_timeout=SHORT, dispose_batch_size=10)
    c = await take(pool, 4)
    await give(pool, *c)
    await time_passes(SHORT)
    core = await pool.acquire('a')
    assert core is c[3] and manager.disposed == []
    await pool.release(core, 'a')
    assert manager.disposed == c[:3]
    await time_passes(SHORT)
    assert await pool.acquire('a') is core
    await pool.release(core, 'a')


async def test_inactivity_is_counted_from_the_last_release(open_pool: OpenPool) -> None:
    manager = Manager()
    pool = open_pool(manager, min_idle=0, idle_timeout=0.5)
    conn = await pool.acquire('a')
    for _ in range(4):
        await give(pool, conn)
        await time_passes(0.15)
        assert await pool.acquire('a') is conn
    assert manager.disposed == []
    await give(pool, conn)


async def test_core_ones_are_kept_until_max_lifetime(open_pool: OpenPool) -> None:
    manager = Manager()
    pool = open_pool(manager, min_idle=2, idle_timeout=SHORT / 5, max_lifetime=SHORT)
    conns = await take(pool, 2)
    await time_passes(SHORT / 4)
    await give(pool, *conns)
    await time_passes(SHORT)
    async with pool.connection('a') as fresh:
        assert fresh not in conns
    assert manager.disposed == conns


async def test_what_is_past_its_lifetime_is_not_handed_out_though_nobody_has_disposed_of_it(
    open_pool: OpenPool,
) -> None:
    """Hazard 30: at acquire, also if it occupies the only slot."""
    for max_size in (1, 5):
        manager = Manager()
        pool = open_pool(manager, max_size=max_size, max_lifetime=SHORT)
        old = await pool.acquire('a')
        await give(pool, old)
        await time_passes(SHORT)
        assert manager.disposed == []
        async with pool.connection('a', timeout=10.0) as fresh:
            assert fresh is not old
        assert manager.disposed[0] is old


async def test_an_extra_past_its_idle_timeout_is_not_handed_out_either(open_pool: OpenPool) -> None:
    for max_size in (1, 5):
        manager = Manager()
        pool = open_pool(manager, max_size=max_size, min_idle=0, idle_timeout=SHORT)
        old = await pool.acquire('a')
        await give(pool, old)
        await time_passes(SHORT)
        async with pool.connection('a', timeout=10.0) as fresh:
            assert fresh is not old


async def test_a_busy_connection_is_recycled_at_release_when_its_lifetime_is_over(open_pool: OpenPool) -> None:
    """Hazard 30: also if somebody waits for it."""
    manager = Manager()
    pool = open_pool(manager, max_size=1, max_lifetime=SHORT)
    old = await pool.acquire('a')
    await time_passes(SHORT)
    await give(pool, old)
    assert manager.disposed == [old]
    conn = await pool.acquire('a')
    await time_passes(SHORT)
    task = await queue_up(pool, 'a')
    await give(pool, conn)
    assert await task is not conn
    await give(pool, task.result())


async def test_disposal_follows_the_order_of_deadlines(open_pool: OpenPool) -> None:
    manager = Manager()
    pool = open_pool(manager, min_idle=0, idle_timeout=SHORT, dispose_batch_size=10)
    c = await take(pool, 5)
    order = [c[2], c[0], c[4], c[1]]
    for conn in order:
        await give(pool, conn)
        await time_passes(0.001)
    await time_passes(SHORT)
    await give(pool, c[3])
    assert manager.disposed == order


async def test_disposal_follows_deadlines_that_have_moved_since(open_pool: OpenPool) -> None:
    manager = Manager()
    pool = open_pool(manager, min_idle=0, idle_timeout=0.25, dispose_batch_size=10)
    c = await take(pool, 4)
    await give(pool, *c[:3])
    await time_passes(0.001)
    again = await take(pool, 3)  # last in, first out: the deadlines move to the contrary order
    for conn in again:
        await give(pool, conn)
        await time_passes(0.001)
    await time_passes(0.25)
    await give(pool, c[3])
    assert again == [c[2], c[1], c[0]] and manager.disposed == again


async def test_equal_deadlines_follow_the_order_of_release(open_pool: OpenPool) -> None:
    manager = Manager()
    endless = float('inf')
    pool = open_pool(manager, idle_timeout=endless, max_lifetime=endless, total_max_size=12)
    conns = {endpoint: await pool.acquire(endpoint) for endpoint in range(12)}
    order = random.Random(5).sample(range(12), 12)
    for endpoint in order:
        await pool.release(conns[endpoint], endpoint)
    newcomers = [await pool.acquire(f'newcomer {number}') for number in range(12)]  # each evicts one
    assert manager.disposed == [conns[endpoint] for endpoint in order]
    for conn in newcomers:
        await pool.release(conn, conn.endpoint)


@pytest.mark.parametrize('batch_size, batches', [(0, [4, 3]), (1, [1] * 7), (2, [2, 2, 2, 1]), (50, [7])])
async def test_each_release_disposes_of_a_batch_of_those_whose_time_has_come(
    open_pool: OpenPool, batch_size: int, batches: List[int]
) -> None:
    """By default ``int(log2(size + 1)) + 1``: with 8 connections 4, with 4 of them 3."""
    manager = Manager()
    pool = open_pool(manager, min_idle=0, idle_timeout=0.1, dispose_batch_size=batch_size)
    c = await take(pool, 8)
    await give(pool, *c[:7])
    await time_passes(0.1)
    assert manager.disposed == []
    seen = []
    for _ in batches:
        before = len(manager.disposed)
        await give(pool, c[7])
        seen.append(len(manager.disposed) - before)
        assert await pool.acquire('a') is c[7]
    await give(pool, c[7])
    assert seen == batches


async def test_a_release_returns_when_what_it_disposes_of_is_gone(open_pool: OpenPool) -> None:
    gate = Gate()
    pool = open_pool(Manager(dispose=gate), min_idle=0, idle_timeout=0.0)
    release = asyncio.ensure_future(pool.release(await pool.acquire('a'), 'a'))
    await gate.reached()
    assert not release.done() and pool.get_size() == 1
    gate.open()
    await release
    assert pool.get_size() == 0


async def test_without_min_idle_and_idle_timeout_it_is_disposed_of_at_release(open_pool: OpenPool) -> None:
    manager = Manager()
    pool = open_pool(manager, min_idle=0, idle_timeout=0.0)
    conn = await pool.acquire('a')
    await give(pool, conn)
    assert manager.disposed == [conn] and pool.get_size() == 0


async def test_without_idle_timeout_only_the_core_is_kept_at_release(open_pool: OpenPool) -> None:
    manager = Manager()
    pool = open_pool(manager, min_idle=2, idle_timeout=0.0)
    c = await take(pool, 5)
    await give(pool, *c)
    assert manager.disposed == c[:3] and await pool.get_endpoint_pool_size('a', acquired=False) == 2


async def test_without_a_lifetime_every_connection_is_used_once(open_pool: OpenPool) -> None:
    manager = Manager()
    pool = open_pool(manager, min_idle=5, max_lifetime=0.0)
    for _ in range(3):
        async with pool.connection('a'):
            pass
    assert len(manager.created) == len(manager.disposed) == 3


async def test_a_connection_that_somebody_waits_for_is_handed_over_and_not_disposed_of(open_pool: OpenPool) -> None:
    manager = Manager()
    pool = open_pool(manager, min_idle=0, idle_timeout=0.0, max_size=1)
    conn = await pool.acquire('a')
    task = await queue_up(pool, 'a')
    await give(pool, conn)
    assert await task is conn and manager.disposed == []
    await give(pool, conn)
