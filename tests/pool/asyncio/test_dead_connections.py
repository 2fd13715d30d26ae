"""A connection that check_aliveness finds dead is reported, disposed of and replaced within the same acquire."""

import asyncio
from typing import Any, List

import pytest
from support.tasks import Gate, Manager, OpenPool, always, failing, queue_up, until

each_timeout = pytest.mark.parametrize('timeout', [None, 30.0], ids=['without deadline', 'with deadline'])


class Mortal:
    """Behaviours of check_aliveness and on_connection_dead: whatever is in ``dead`` is dead."""

    def __init__(self) -> None:
        self.dead: List[Any] = []
        self.reported: List[Any] = []

    async def check(self, endpoint: Any, conn: Any) -> bool:
        return conn not in self.dead

    async def report(self, endpoint: Any, conn: Any) -> None:
        self.reported.append(conn)


def mortal_manager(**others: Any) -> 'tuple[Manager, Mortal]':
    mortal = Mortal()
    return Manager(check_aliveness=mortal.check, on_connection_dead=mortal.report, **others), mortal


@each_timeout
@pytest.mark.parametrize('max_size', [1, 5])
async def test_a_dead_connection_is_reported_and_replaced(open_pool: OpenPool, timeout: Any, max_size: int) -> None:
    manager, mortal = mortal_manager()
    pool = open_pool(manager, max_size=max_size)
    old = await pool.acquire('a')
    await pool.release(old, 'a')
    mortal.dead.append(old)
    new = await pool.acquire('a', timeout)
    assert new is not old and mortal.reported == [old]
    await pool.release(new, 'a')


async def test_a_dead_connection_is_disposed_of_after_it_was_reported(open_pool: OpenPool) -> None:
    """Hazard 28."""
    manager, mortal = mortal_manager()
    pool = open_pool(manager)
    old = await pool.acquire('a')
    await pool.release(old, 'a')
    mortal.dead.append(old)
    manager.calls.clear()
    await pool.release(await pool.acquire('a'), 'a')
    await until(lambda: manager.disposed == [old])
    names = [name for name in manager.names() if name != 'create']
    assert names == ['check_aliveness', 'on_connection_dead', 'dispose']


async def test_a_dead_connection_counts_until_its_disposal_has_finished(open_pool: OpenPool) -> None:
    """Hazard 29."""
    gate = Gate()
    manager, mortal = mortal_manager(dispose=gate)
    pool = open_pool(manager, max_size=1)
    old = await pool.acquire('a')
    await pool.release(old, 'a')
    mortal.dead.append(old)
    task = asyncio.ensure_future(pool.acquire('a'))
    await gate.reached()
    assert pool.get_size() == 1 and manager.created == [old] and not task.done()
    gate.open()
    await pool.release(await task, 'a')


@each_timeout
async def test_if_the_next_idle_connection_is_dead_as_well_the_search_goes_on(
    open_pool: OpenPool, timeout: Any
) -> None:
    manager, mortal = mortal_manager()
    pool = open_pool(manager, min_idle=5)
    conns = [await pool.acquire('a') for _ in range(5)]
    for conn in conns:
        await pool.release(conn, 'a')
    mortal.dead.extend(conns[:4])
    assert await pool.acquire('a', timeout) is conns[4]
    assert mortal.reported == conns[:4]
    await pool.release(conns[4], 'a')
    mortal.dead.append(conns[4])
    async with pool.connection('a', timeout) as fresh:
        assert fresh not in conns
    await until(lambda: len(manager.disposed) == 5)


@each_timeout
async def test_a_dead_connection_that_was_handed_over_is_replaced_too(open_pool: OpenPool, timeout: Any) -> None:
    manager, mortal = mortal_manager()
    pool = open_pool(manager, max_size=1)
    old = await pool.acquire('a')
    waiter = await queue_up(pool, 'a', timeout)
    mortal.dead.append(old)
    await pool.release(old, 'a')
    new = await waiter
    assert new is not old
    await pool.release(new, 'a')
    await until(lambda: manager.disposed == [old])


async def test_who_found_a_dead_connection_keeps_his_turn(open_pool: OpenPool) -> None:
    """Hazard 13: he had waited already, and is not sent to the end of the queue."""
    gate = Gate()
    manager, mortal = mortal_manager()
    pool = open_pool(manager, max_size=1)
    old = await pool.acquire('a')
    await pool.release(old, 'a')
    mortal.dead.append(old)

    async def report(endpoint: Any, conn: Any) -> None:
        await gate()

    manager.behaviours['on_connection_dead'] = report
    first = asyncio.ensure_future(pool.acquire('a'))
    await gate.reached()
    second = await queue_up(pool, 'a')
    gate.open()
    await until(lambda: first.done() or second.done())
    assert first.done() and not second.done()
    await pool.release(first.result(), 'a')
    await pool.release(await second, 'a')


async def test_if_the_replacement_cannot_be_created_the_error_surfaces_and_the_slot_is_free(
    open_pool: OpenPool,
) -> None:
    manager, mortal = mortal_manager(create=failing(None, OSError('refused')))
    pool = open_pool(manager, max_size=1)
    old = await pool.acquire('a')
    await pool.release(old, 'a')
    mortal.dead.append(old)
    with pytest.raises(OSError, match='refused'):
        await pool.acquire('a')
    await until(lambda: pool.get_size() == 0)
    await pool.release(await pool.acquire('a'), 'a')


async def test_a_new_connection_is_not_checked_so_that_a_check_that_always_fails_cannot_loop(
    open_pool: OpenPool,
) -> None:
    manager = Manager(check_aliveness=always(False))
    pool = open_pool(manager)
    for _ in range(3):
        await pool.release(await pool.acquire('a'), 'a')
    assert len(manager.created) == 3


async def test_a_dead_connection_of_a_pool_that_is_full_is_replaced_without_evicting_others(
    open_pool: OpenPool,
) -> None:
    manager, mortal = mortal_manager()
    pool = open_pool(manager, total_max_size=2)
    dead, other = await pool.acquire('a'), await pool.acquire('b')
    await pool.release(dead, 'a')
    await pool.release(other, 'b')
    mortal.dead.append(dead)
    async with pool.connection('a', timeout=20.0):
        assert manager.disposed == [dead]
