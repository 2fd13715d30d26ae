"""Pools and coroutines that nobody uses any more, and the garbage collector that may come at any moment."""

import asyncio
import gc
import sys
import warnings
import weakref
from typing import Any, AsyncIterator, Coroutine, Dict, Iterator, List

import pytest
from support.tasks import GENEROUS, Gate, Manager, OpenPool, Pool, always, finish, passes, queue_up, until

import generic_connection_pool
from generic_connection_pool.asyncio import ConnectionPool


async def test_a_pool_that_is_garbage_collected_while_open_warns() -> None:
    pool: Pool = ConnectionPool(Manager())
    async with pool.connection('a', timeout=GENEROUS):
        pass
    reference = weakref.ref(pool)
    with pytest.warns(ResourceWarning, match='unclosed .*ConnectionPool'):
        del pool
        gc.collect()
    assert reference() is None, 'hazard 39: an unclosed pool is never freed'


async def test_a_pool_that_was_closed_does_not_warn(open_pool: OpenPool) -> None:
    pool: Pool = ConnectionPool(Manager())
    async with pool.connection('a', timeout=GENEROUS):
        pass
    await pool.close()
    reference = weakref.ref(pool)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        del pool
        await passes()
        gc.collect()
    assert reference() is None


def test_a_pool_whose_construction_failed_does_not_warn() -> None:
    with pytest.raises(ValueError):
        ConnectionPool(Manager(), max_size=0)
    with pytest.raises(TypeError):
        ConnectionPool(object())  # type: ignore[arg-type]
    gc.collect()


async def test_a_pool_frees_connections_and_endpoints_that_it_has_done_with(open_pool: OpenPool) -> None:
    class Endpoint:
        pass

    pool = open_pool(Manager(), min_idle=0, idle_timeout=0.0)
    manager: Any = pool._connection_manager
    endpoint: Any = Endpoint()
    conn = await pool.acquire(endpoint, timeout=GENEROUS)
    await pool.release(conn, endpoint)
    references = [weakref.ref(endpoint), weakref.ref(conn)]
    manager.check_books()
    for kept in (manager.calls, manager.created, manager.disposed):
        kept.clear()
    del conn, endpoint
    await passes()
    gc.collect()
    assert [reference() for reference in references] == [None, None]


async def test_an_async_generator_that_is_left_in_a_block_gives_its_connection_back(open_pool: OpenPool) -> None:
    pool = open_pool(Manager(on_release=always(None)))

    async def rows() -> AsyncIterator[int]:
        async with pool.connection('a'):
            for number in range(10):
                yield number

    async for number in rows():
        if number == 3:
            break
    gc.collect()
    await until(lambda: pool._core.lent_size('a') == 0)


# -- the collector comes in the middle of an operation (hazard 37)


class Garbage:
    """A coroutine that was left suspended, in a cycle with itself, so that only the garbage collector closes it."""

    def __init__(self, coro: Coroutine[Any, Any, Any]):
        self.me = self
        self.coro = coro
        coro.send(None)


async def hold(pool: Pool) -> None:
    async with pool.connection('a', timeout=GENEROUS):
        await asyncio.get_running_loop().create_future()


async def nothing(*args: Any) -> None:
    pass


async def stuck(*args: Any) -> None:
    await asyncio.get_running_loop().create_future()


async def leave_a_holder(pool: Pool, manager: Manager) -> List[Any]:
    await pool.release(await pool.acquire('a'), 'a')
    Garbage(hold(pool))
    return []


async def leave_a_waiter(pool: Pool, manager: Manager) -> List[Any]:
    held = [await pool.acquire('a') for _ in range(pool.max_size)]
    Garbage(pool.acquire('a'))
    return held


async def leave_a_waiter_with_a_deadline_behind_another(pool: Pool, manager: Manager) -> List[Any]:
    held = [await pool.acquire('a') for _ in range(pool.max_size)]
    Garbage(pool.acquire('a'))
    Garbage(pool.acquire('a'))
    return held


async def leave_a_creator(pool: Pool, manager: Manager) -> List[Any]:
    manager.behaviours['create'] = stuck
    Garbage(pool.acquire('a'))
    manager.behaviours['create'] = nothing
    return []


async def leave_a_checker(pool: Pool, manager: Manager) -> List[Any]:
    await pool.release(await pool.acquire('a'), 'a')
    manager.behaviours['check_aliveness'] = stuck
    Garbage(pool.acquire('a'))
    manager.behaviours['check_aliveness'] = always(True)
    return []


async def leave_a_releaser(pool: Pool, manager: Manager) -> List[Any]:
    conn = await pool.acquire('a')
    manager.behaviours['on_release'] = stuck
    Garbage(pool.release(conn, 'a'))
    manager.behaviours['on_release'] = nothing
    return []


LEFT: Dict[str, Any] = {
    'holder': (leave_a_holder, {}),
    'holder with hooks': (leave_a_holder, {'on_release': nothing}),
    'waiter': (leave_a_waiter, {}),
    'two waiters': (leave_a_waiter_with_a_deadline_behind_another, {}),
    'creator': (leave_a_creator, {'create': nothing}),
    'checker': (leave_a_checker, {'check_aliveness': always(True)}),
    'releaser': (leave_a_releaser, {'on_release': nothing}),
}


class Collect:
    """Runs the garbage collector once, at the n-th line that the library executes within the block.

    The compiled core has no lines; there, only the lines of the facade count.
    """

    def __init__(self, at: int):
        self.lines_left = at
        self.directory = generic_connection_pool.__path__[0]

    def __enter__(self) -> 'Collect':
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: Any) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: Any, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.startswith(self.directory):
            return None
        if event == 'line':
            self.lines_left -= 1
            if self.lines_left == 0:
                gc.collect()
        return self._trace


@pytest.fixture
def quick_collections() -> Iterator[None]:
    """Have the collector come only when it is called, and look at nothing but what a test has made."""
    gc.collect()
    gc.disable()
    gc.freeze()
    yield
    gc.unfreeze()
    gc.enable()


async def operate(pool: Pool, held: List[Any]) -> None:
    """Acquire and release in all ways."""
    async with pool.connection('b', timeout=GENEROUS):  # an idle one
        pass
    for conn in held:
        await pool.release(conn, 'a')  # to those who wait
    conns = [await pool.acquire('c', timeout=GENEROUS) for _ in range(2)]  # new ones; the second by eviction
    for conn in conns:
        await pool.release(conn, 'c')
    if not held:  # otherwise, what was left behind may have been given what was released
        await pool.release(await pool.acquire('a', timeout=GENEROUS), 'a')


async def collect_in_the_middle(kind: str, at: int) -> bool:
    """Run operations with something left behind that is collected at some line. Returns whether it got that far."""
    leave, hooks = LEFT[kind]
    manager = Manager(**hooks)
    pool: Pool = ConnectionPool(manager, max_size=2, total_max_size=4)
    await pool.release(await pool.acquire('b'), 'b')
    held = await leave(pool, manager)
    with Collect(at) as collection:
        await operate(pool, held)
    gc.collect()
    pool._core.check_invariants()
    await until(lambda: pool._core.lent_size('a') == 0 == pool._core.waiting('a'))
    await finish(pool, manager)
    return collection.lines_left <= 0


@pytest.mark.parametrize('kind', LEFT)
async def test_a_collection_in_the_middle_of_an_operation_neither_blocks_nor_loses_anything(
    quick_collections: None, kind: str
) -> None:
    """Hazards 11 and 37: what was left behind gives back what it has, as soon as the operation is over."""
    at, stride = 1 + list(LEFT).index(kind), 11
    while await collect_in_the_middle(kind, at):
        at += stride
    assert at > 30


async def test_a_collection_in_the_middle_of_an_operation_may_close_a_close(quick_collections: None) -> None:
    """Hazard 37."""
    at = 1
    reached = True
    while reached:
        manager = Manager()
        pool: Pool = ConnectionPool(manager)
        conns = [await pool.acquire('a') for _ in range(2)]
        Garbage(pool.close())
        with Collect(at) as collection:
            for conn in conns:
                await pool.release(conn, 'a')
        gc.collect()
        await finish(pool, manager)
        reached = collection.lines_left <= 0
        at += 1
    assert at > 5


async def test_endpoints_and_connections_may_run_the_collector_when_they_are_compared(
    quick_collections: None, open_pool: OpenPool
) -> None:
    """Hazards 35 and 37: no lock is held then."""

    class Key:
        def __init__(self, name: str):
            self.name = name

        def __hash__(self) -> int:
            gc.collect()
            return 7

        def __eq__(self, other: object) -> bool:
            gc.collect()
            return isinstance(other, Key) and self.name == other.name

    pool = open_pool(Manager(), max_size=2)
    for _ in range(3):
        Garbage(hold(pool))
        for name in 'xy':
            async with pool.connection(Key(name), timeout=GENEROUS):
                async with pool.connection(Key(name), timeout=GENEROUS):
                    pass
    gc.collect()
    assert await pool.get_endpoint_pool_size(Key('x'), acquired=False) == 2
    await until(lambda: pool._core.lent_size('a') == 0)


async def test_a_waiter_that_becomes_garbage_leaves_its_turn_to_the_next(open_pool: OpenPool) -> None:
    """Hazard 11."""
    pool = open_pool(max_size=1)
    conn = await pool.acquire('a')
    Garbage(pool.acquire('a'))
    waiter = await queue_up(pool, 'a')
    assert pool._core.waiting('a') == 2
    gc.collect()
    assert pool._core.waiting('a') == 1
    await pool.release(conn, 'a')
    assert await waiter is conn
    await pool.release(conn, 'a')


async def test_a_creation_with_a_deadline_whose_caller_became_garbage_is_cancelled_and_frees_its_slot(
    open_pool: OpenPool,
) -> None:
    """Hazards 1 and 11."""
    gate = Gate()
    pool = open_pool(Manager(create=gate), max_size=1)
    coro = pool.acquire('a', timeout=GENEROUS)
    coro.send(None)
    await gate.reached()
    coro.close()
    assert pool.get_size() == 1  # until it has ended
    await until(lambda: pool.get_size() == 0)
    assert gate.cancelled == 1
    gate.open()
