"""Acquiring, releasing, and what the pool tells of itself meanwhile."""

import asyncio
from typing import Any, List, Tuple

import pytest
from support.tasks import Gate, Manager, OpenPool, Pool, always, failing, finish, passes, queue_up, run_step, until

import generic_connection_pool.asyncio
from generic_connection_pool import BaseConnectionPool, ConnectionPoolTimeoutError
from generic_connection_pool.asyncio import BaseConnectionManager, ConnectionPool, ConnectionT, EndpointT


async def test_the_package_exports_the_names_of_0_8_1() -> None:
    names = {'BaseConnectionManager', 'ConnectionPool', 'ConnectionT', 'EndpointT'}
    assert names <= set(generic_connection_pool.asyncio.__all__)
    assert issubclass(ConnectionPool, BaseConnectionPool)
    for variable in (ConnectionT, EndpointT):
        assert variable.__bound__ is not None


async def test_the_pool_class_can_be_subscripted_and_subclassed() -> None:
    class Mine(ConnectionPool[str, object]):
        def __init__(self, manager: Manager):
            super().__init__(manager, max_size=2)
            self.label = 'mine'

        async def acquire_twice(self, endpoint: str) -> Tuple[object, object]:
            return await self.acquire(endpoint), await self.acquire(endpoint)

    manager = Manager()
    pool = Mine(manager)
    first, second = await pool.acquire_twice('a')
    assert first is not second and pool.label == 'mine' and pool.max_size == 2
    await pool.release(first, 'a')
    await pool.release(second, 'a')
    await finish(pool, manager)


def test_a_pool_can_be_constructed_outside_a_running_loop() -> None:
    manager = Manager()
    pool: Pool = ConnectionPool(manager, background_collector=True)

    async def use() -> None:
        async with pool.connection('a') as conn:
            assert conn is manager.created[0]
        await finish(pool, manager)

    asyncio.run(use())


async def test_the_manager_is_abstract_in_create_and_dispose_only() -> None:
    assert BaseConnectionManager.__abstractmethods__ == {'create', 'dispose'}


async def test_the_hooks_get_endpoint_and_connection_and_no_timeout(open_pool: OpenPool) -> None:
    hooks = ('check_aliveness', 'on_acquire', 'on_release', 'on_connection_dead')
    calls: List[Tuple[Any, ...]] = []

    def watch(name: str) -> Any:
        async def hook(*args: Any, **keywords: Any) -> bool:
            calls.append((name, args, keywords))
            return False  # the connection is dead

        return hook

    manager = Manager(**{name: watch(name) for name in hooks})
    pool = open_pool(manager, acquire_timeout=10.0, dispose_timeout=10.0)
    for _ in range(2):
        await pool.release(await pool.acquire('a', timeout=5.0), 'a')
    assert {name for name, _, _ in calls} == set(hooks)
    for name, args, keywords in calls:
        assert args[0] == 'a' and args[1] in manager.created and len(args) == 2 and not keywords, name


async def test_acquire_creates_a_connection_and_release_keeps_it_for_the_next(open_pool: OpenPool) -> None:
    manager = Manager()
    pool = open_pool(manager)
    conn = await pool.acquire('a')
    assert manager.created == [conn]
    await pool.release(conn, 'a')
    assert await pool.acquire('a') is conn
    await pool.release(conn, 'a')
    assert manager.names() == ['create']


async def test_connection_holds_one_for_its_block(open_pool: OpenPool) -> None:
    manager = Manager()
    pool = open_pool(manager)
    async with pool.connection('a') as conn:
        assert await pool.get_endpoint_pool_size('a', acquired=True) == 1
    assert await pool.get_endpoint_pool_size('a', acquired=False) == 1
    async with pool.connection('a', timeout=1.0) as again:
        assert again is conn


async def test_connection_gives_back_when_its_block_raises(open_pool: OpenPool) -> None:
    pool = open_pool(Manager())
    with pytest.raises(LookupError):
        async with pool.connection('a'):
            raise LookupError
    assert await pool.get_endpoint_pool_size('a', acquired=False) == 1


async def test_each_endpoint_has_connections_of_its_own(open_pool: OpenPool) -> None:
    pool = open_pool(Manager())
    one = await pool.acquire('a')
    await pool.release(one, 'a')
    other = await pool.acquire('b')
    assert other is not one and other.endpoint == 'b'
    await pool.release(other, 'b')
    assert await pool.get_endpoint_pool_size('a') == await pool.get_endpoint_pool_size('b') == 1


async def test_endpoints_are_told_apart_by_equality(open_pool: OpenPool) -> None:
    pool = open_pool(Manager())
    conn = await pool.acquire(('host', 80))
    await pool.release(conn, tuple(['host', 80]))
    assert await pool.acquire(('host', 80)) is conn
    await pool.release(conn, ('host', 80))


async def test_an_endpoint_that_cannot_be_hashed_is_refused_and_nothing_is_left(open_pool: OpenPool) -> None:
    pool = open_pool(Manager())
    with pytest.raises(TypeError):
        await pool.acquire(['host'])
    assert pool.get_size() == 0


async def test_min_idle_is_lazy(open_pool: OpenPool) -> None:
    manager = Manager()
    pool = open_pool(manager, min_idle=3)
    async with pool.connection('a'):
        await passes()
        assert len(manager.created) == 1


async def test_no_more_than_max_size_are_open_and_others_wait(open_pool: OpenPool) -> None:
    manager = Manager()
    pool = open_pool(manager, max_size=2)
    one, two = await pool.acquire('a'), await pool.acquire('a')
    waiter = await queue_up(pool, 'a')
    await passes()
    assert len(manager.created) == 2
    await pool.release(one, 'a')
    assert await waiter is one
    await pool.release(one, 'a')
    await pool.release(two, 'a')


async def test_no_more_than_total_max_size_are_open_and_others_wait(open_pool: OpenPool) -> None:
    manager = Manager()
    pool = open_pool(manager, total_max_size=2)
    one, two = await pool.acquire('a'), await pool.acquire('b')
    waiter = await queue_up(pool, 'c')
    await passes()
    assert len(manager.created) == 2
    await pool.release(one, 'a')
    assert (await waiter).endpoint == 'c'
    await pool.release(waiter.result(), 'c')
    await pool.release(two, 'b')


async def test_sizes_count_what_is_created_acquired_idle_and_disposed_of(open_pool: OpenPool) -> None:
    create, dispose = Gate(), Gate()
    manager = Manager(create=create, dispose=dispose)
    pool = open_pool(manager, min_idle=0, idle_timeout=0.0)

    async def sizes() -> List[int]:
        counts = [await pool.get_endpoint_pool_size('a', acquired) for acquired in (True, False, None)]
        return [*counts, pool.get_size()]

    assert await sizes() == [0, 0, 0, 0]
    task = asyncio.ensure_future(pool.acquire('a'))
    await create.reached()
    assert await sizes() == [0, 0, 1, 1]
    create.open()
    conn = await task
    assert await sizes() == [1, 0, 1, 1]
    release = asyncio.ensure_future(pool.release(conn, 'a'))
    await dispose.reached()
    assert await sizes() == [0, 0, 1, 1]
    dispose.open()
    await release
    assert await sizes() == [0, 0, 0, 0]


async def test_idle_connections_are_counted_as_such(open_pool: OpenPool) -> None:
    pool = open_pool(Manager())
    conns = [await pool.acquire(endpoint) for endpoint in 'aab']
    await pool.release(conns[0], 'a')
    assert await pool.get_endpoint_pool_size('a', True) == 1
    assert await pool.get_endpoint_pool_size('a', acquired=False) == 1
    assert await pool.get_endpoint_pool_size('a') == 2
    assert pool.get_size() == 3
    await pool.release(conns[1], 'a')
    await pool.release(conns[2], 'b')


async def test_an_unknown_endpoint_has_size_0_and_stays_unknown(open_pool: OpenPool) -> None:
    pool = open_pool(Manager())
    for acquired in (True, False, None):
        assert await pool.get_endpoint_pool_size('nowhere', acquired) == 0
    assert pool._core.endpoints() == []


async def test_is_full_tells_when_total_max_size_is_reached(open_pool: OpenPool) -> None:
    pool = open_pool(Manager(), total_max_size=2)
    one = await pool.acquire('a')
    full = [pool.is_full]
    two = await pool.acquire('b')
    full.append(pool.is_full)
    await pool.release(one, 'a')
    full.append(pool.is_full)  # idle ones count
    await pool.release(two, 'b')
    assert full == [False, True, True]


async def test_an_endpoint_without_connections_leaves_nothing_behind(open_pool: OpenPool) -> None:
    """Hazard 36: nor does one whose create only ever failed."""
    pool = open_pool(Manager(create=failing(OSError(), OSError())), min_idle=0, idle_timeout=0.0)
    for endpoint in ('failing', 'too'):
        with pytest.raises(OSError):
            await pool.acquire(endpoint)
    for number in range(100):
        async with pool.connection(number):
            assert pool._core.endpoints() == [number]
    assert pool._core.endpoints() == []


async def test_acquiring_and_releasing_do_not_suspend_when_one_is_idle(open_pool: OpenPool) -> None:
    pool = open_pool(Manager())
    conn = await pool.acquire('a')
    await pool.release(conn, 'a')

    async def use() -> Any:
        async with pool.connection('a') as held:
            return held

    assert run_step(pool.acquire('a')) is conn
    assert run_step(pool.release(conn, 'a')) is None
    assert run_step(use()) is conn


async def test_a_new_connection_is_announced_but_not_checked(open_pool: OpenPool) -> None:
    manager = Manager(check_aliveness=always(True), on_acquire=always(None), on_release=always(None))
    pool = open_pool(manager)
    async with pool.connection('a'):
        assert manager.names() == ['create', 'on_acquire']
    assert manager.names() == ['create', 'on_acquire', 'on_release']


async def test_an_idle_connection_is_checked_and_then_announced(open_pool: OpenPool) -> None:
    manager = Manager(check_aliveness=always(True), on_acquire=always(None), on_release=always(None))
    pool = open_pool(manager)
    await pool.release(await pool.acquire('a'), 'a')
    manager.calls.clear()
    await pool.release(await pool.acquire('a'), 'a')
    conn = manager.created[0]
    assert manager.calls == [(name, 'a', conn) for name in ('check_aliveness', 'on_acquire', 'on_release')]


async def test_a_connection_handed_over_is_released_checked_and_announced(open_pool: OpenPool) -> None:
    manager = Manager(check_aliveness=always(True), on_acquire=always(None), on_release=always(None))
    pool = open_pool(manager, max_size=1)
    conn = await pool.acquire('a')
    waiter = await queue_up(pool, 'a')
    manager.calls.clear()
    await pool.release(conn, 'a')
    assert await waiter is conn
    assert manager.names() == ['on_release', 'check_aliveness', 'on_acquire']
    await pool.release(conn, 'a')


async def test_a_block_that_raised_asks_whether_its_connection_is_reusable(open_pool: OpenPool) -> None:
    """Hazard 7: what was interrupted in mid-conversation is not handed to the next user."""
    manager = Manager(is_reusable=lambda endpoint, conn, exc: isinstance(exc, LookupError))
    pool = open_pool(manager)
    for error, kept in ((LookupError(), True), (OSError(), False), (asyncio.CancelledError(), False)):
        with pytest.raises(type(error)):
            async with pool.connection('a') as conn:
                raise error
        assert ('is_reusable', 'a', conn, error) == [call for call in manager.calls if call[0] == 'is_reusable'][-1]
        assert (await pool.get_endpoint_pool_size('a') == 1) == kept
        assert (conn in manager.disposed) != kept


@pytest.mark.parametrize('reusable', [True, False])
async def test_the_answer_of_an_is_reusable_that_is_a_coroutine_function_is_awaited(
    open_pool: OpenPool, reusable: bool
) -> None:
    manager = Manager(is_reusable=always(reusable))
    pool = open_pool(manager)
    with pytest.raises(LookupError):
        async with pool.connection('a'):
            raise LookupError
    assert manager.names() == ['create', 'is_reusable', *([] if reusable else ['dispose'])]
    assert pool.get_size() == int(reusable)


async def test_a_block_that_ended_well_asks_nobody_whether_its_connection_is_reusable(open_pool: OpenPool) -> None:
    manager = Manager(is_reusable=lambda *args: False)
    pool = open_pool(manager)
    async with pool.connection('a'):
        pass
    await pool.release(await pool.acquire('a'), 'a')
    assert manager.names() == ['create']


async def test_a_connection_that_is_not_reusable_is_not_announced_as_released(open_pool: OpenPool) -> None:
    manager = Manager(is_reusable=lambda *args: False, on_release=always(None))
    pool = open_pool(manager)
    with pytest.raises(LookupError):
        async with pool.connection('a'):
            raise LookupError
    assert manager.names() == ['create', 'is_reusable', 'dispose']


async def test_a_connection_whose_is_reusable_raises_is_disposed_of(open_pool: OpenPool) -> None:
    def confused(*args: Any) -> bool:
        raise ValueError('confused')

    pool = open_pool(Manager(is_reusable=confused))
    with pytest.raises(ValueError, match='confused'):
        async with pool.connection('a'):
            raise LookupError
    await until(lambda: pool.get_size() == 0)


async def test_a_context_manager_serves_one_block_at_a_time(open_pool: OpenPool) -> None:
    pool = open_pool(Manager())
    lease = pool.connection('a')
    with pytest.raises(RuntimeError, match='not been entered'):
        await lease.__aexit__(None, None, None)
    async with lease as first:
        with pytest.raises(RuntimeError, match='in use already'):
            await lease.__aenter__()
    async with lease as second:
        assert second is first
    with pytest.raises(RuntimeError, match='not been entered'):
        await lease.__aexit__(None, None, None)
    assert await pool.get_endpoint_pool_size('a', True) == 0


async def test_a_context_manager_that_could_not_be_entered_can_be_entered_later(open_pool: OpenPool) -> None:
    pool = open_pool(Manager(), max_size=1)
    lease = pool.connection('a', timeout=0)
    async with pool.connection('a') as first:
        with pytest.raises(ConnectionPoolTimeoutError):
            await lease.__aenter__()
    async with lease as second:
        assert second is first


async def test_no_coroutine_is_needed_for_what_is_idle() -> None:
    """Neither to acquire it nor to release it, if the manager has no hooks for that."""
    calls: List[str] = []

    class Watched(ConnectionPool[Any, Any]):
        async def _acquire(self, endpoint: Any, timeout: Any) -> Any:
            calls.append('acquire')
            return await super()._acquire(endpoint, timeout)

        async def _finish(self, record: Any, exc: Any, todo: int) -> None:
            calls.append('finish')
            await super()._finish(record, exc, todo)

    pool = Watched(Manager())
    async with pool.connection('a'):
        pass
    assert calls == ['acquire'], 'it was to be created'
    async with pool.connection('a'):
        pass
    await pool.release(await pool.acquire('a'), 'a')
    with pytest.raises(LookupError):
        async with pool.connection('a'):
            raise LookupError
    assert calls == ['acquire']
    await pool.close()


async def test_calling_connection_takes_nothing_until_it_is_entered(open_pool: OpenPool) -> None:
    manager = Manager()
    pool = open_pool(manager)
    pool.connection('a')
    await passes()
    assert manager.calls == [] and pool.get_size() == 0
