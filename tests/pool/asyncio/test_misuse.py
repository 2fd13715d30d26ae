"""Giving back what is not held, connections that equality cannot tell apart, and coroutines that nobody awaits."""

import asyncio
import gc
from typing import Any, Callable, Dict, List, Tuple

import pytest
from support.tasks import Connection, Gate, Manager, OpenPool, Pool, always, passes

from generic_connection_pool import BaseError, ConnectionNotAcquiredError


class Equal:
    """All of these are equal, and have the same hash."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Equal)

    def __hash__(self) -> int:
        return 1


class Unhashable:
    """Equal by content, like a list."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unhashable)


class Hostile:
    """Whoever compares or hashes it is told off."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError('do not compare')

    def __hash__(self) -> int:
        raise RuntimeError('do not hash')


class Fickle:
    """Its hash changes all the time."""

    calls = 0

    def __hash__(self) -> int:
        Fickle.calls += 1
        return Fickle.calls


async def state(pool: Pool) -> Dict[str, Any]:
    return {
        'total': pool.get_size(),
        'full': pool.is_full,
        'idle': [await pool.get_endpoint_pool_size(endpoint, False) for endpoint in 'ab'],
        'acquired': [await pool.get_endpoint_pool_size(endpoint, True) for endpoint in 'ab'],
        'endpoints': sorted(pool._core.endpoints()),
    }


async def given_back(pool: Pool, conn: Any) -> Tuple[Any, str]:
    await pool.release(conn, 'a')
    return conn, 'a'


async def of_another_endpoint(pool: Pool, conn: Any) -> Tuple[Any, str]:
    return conn, 'b'


async def of_an_unknown_endpoint(pool: Pool, conn: Any) -> Tuple[Any, str]:
    return conn, 'nowhere'


async def of_nobody(pool: Pool, conn: Any) -> Tuple[Any, str]:
    return Connection('a', 0), 'a'


async def nothing(pool: Pool, conn: Any) -> Tuple[Any, str]:
    return None, 'a'


@pytest.mark.parametrize('wrong', [given_back, of_another_endpoint, of_an_unknown_endpoint, of_nobody, nothing])
async def test_giving_back_what_is_not_held_is_refused_before_any_hook_and_changes_nothing(
    open_pool: OpenPool, wrong: Callable[..., Any]
) -> None:
    """Hazard 34."""
    manager = Manager(on_release=always(None))
    pool = open_pool(manager)
    conn, other = await pool.acquire('a'), await pool.acquire('b')
    given = await wrong(pool, conn)
    before, calls = await state(pool), list(manager.calls)
    for _ in range(2):
        with pytest.raises(ConnectionNotAcquiredError) as caught:
            await pool.release(*given)
        assert repr(given[1]) in str(caught.value)
        assert isinstance(caught.value, BaseError) and isinstance(caught.value, RuntimeError)
    assert await state(pool) == before and manager.calls == calls
    pool._core.check_invariants()
    if wrong is not given_back:
        await pool.release(conn, 'a')
    await pool.release(other, 'b')


async def test_a_connection_of_another_pool_is_refused_by_both(open_pool: OpenPool) -> None:
    """Hazard 34."""
    one, two = open_pool(), open_pool()
    of_one, of_two = await one.acquire('a'), await two.acquire('a')
    for pool, foreign in ((one, of_two), (two, of_one)):
        with pytest.raises(ConnectionNotAcquiredError):
            await pool.release(foreign, 'a')
    await one.release(of_one, 'a')
    await two.release(of_two, 'a')


async def test_a_second_release_while_the_first_is_under_way_is_refused(open_pool: OpenPool) -> None:
    gate = Gate()
    pool = open_pool(Manager(on_release=gate))
    conn = await pool.acquire('a')
    release = asyncio.ensure_future(pool.release(conn, 'a'))
    await gate.reached()
    with pytest.raises(ConnectionNotAcquiredError):
        await pool.release(conn, 'a')
    gate.open()
    await release
    assert gate.entered == 1


async def test_the_block_of_connection_may_not_give_back_by_itself(open_pool: OpenPool) -> None:
    pool = open_pool()
    with pytest.raises(ConnectionNotAcquiredError):
        async with pool.connection('a') as conn:
            await pool.release(conn, 'a')
    assert await pool.get_endpoint_pool_size('a', acquired=False) == 1


async def test_the_end_of_a_block_does_not_take_the_connection_from_its_next_user(open_pool: OpenPool) -> None:
    """``connection()`` can tell a stale second release, even when the connection has been lent again."""
    pool = open_pool(max_size=1)
    with pytest.raises(ConnectionNotAcquiredError):
        async with pool.connection('a') as conn:
            await pool.release(conn, 'a')
            assert await pool.acquire('a') is conn
    assert await pool.get_endpoint_pool_size('a', acquired=True) == 1
    await pool.release(conn, 'a')


@pytest.mark.parametrize('make', [Equal, Unhashable, Hostile, Fickle, list, dict])
async def test_connections_are_told_apart_by_identity(open_pool: OpenPool, make: Callable[[], Any]) -> None:
    """Hazard 35."""

    async def create(endpoint: Any) -> Any:
        return make()

    manager = Manager(create=create, check_aliveness=always(True), on_release=always(None))
    pool = open_pool(manager, min_idle=2)
    conns = [await pool.acquire('a') for _ in range(3)]
    assert len({id(conn) for conn in conns}) == 3
    await pool.release(conns[1], 'a')
    with pytest.raises(ConnectionNotAcquiredError):
        await pool.release(conns[1], 'a')  # not taken for one of its equals, which are still held
    assert await pool.get_endpoint_pool_size('a', acquired=True) == 2
    again = await pool.acquire('a')
    assert again is conns[1]
    for conn in conns:
        await pool.release(conn, 'a')
    assert [id(call[2]) for call in manager.calls if call[0] == 'on_release'][1:] == [id(conn) for conn in conns]


async def test_an_equal_object_is_accepted_when_no_identical_one_is_held(open_pool: OpenPool) -> None:
    """A ``(reader, writer)`` built anew."""

    async def create(endpoint: Any) -> Any:
        return object(), object()

    manager = Manager(create=create)
    pool = open_pool(manager)
    pairs = [await pool.acquire('a'), await pool.acquire('a')]
    for reader, writer in reversed(pairs):
        await pool.release((reader, writer), 'a')
        with pytest.raises(ConnectionNotAcquiredError):
            await pool.release((reader, writer), 'a')
    assert await pool.get_endpoint_pool_size('a', acquired=False) == 2
    taken = await pool.acquire('a')
    assert any(taken is pair for pair in pairs)  # the pool has kept its own object
    await pool.release(tuple(taken), 'a')


async def test_an_equal_object_of_another_endpoint_is_not_accepted(open_pool: OpenPool) -> None:
    async def create(endpoint: Any) -> Any:
        return Equal()

    pool = open_pool(Manager(create=create))
    one, other = await pool.acquire('a'), await pool.acquire('b')
    with pytest.raises(ConnectionNotAcquiredError):
        await pool.release(one, 'b')
    assert await pool.get_endpoint_pool_size('b', acquired=True) == 1
    await pool.release(one, 'a')
    await pool.release(other, 'b')


async def test_one_object_that_the_manager_returns_twice_is_two_connections(open_pool: OpenPool) -> None:
    shared = object()
    disposed: List[Any] = []

    class Manager2(Manager):
        async def create(self, endpoint: Any) -> Any:
            return shared

        async def dispose(self, endpoint: Any, conn: Any) -> None:
            disposed.append(conn)

    pool = open_pool(Manager2())
    assert await pool.acquire('a') is await pool.acquire('a') is shared
    await pool.release(shared, 'a')
    await pool.release(shared, 'a')
    with pytest.raises(ConnectionNotAcquiredError):
        await pool.release(shared, 'a')
    await pool.close()
    assert disposed == [shared, shared]


@pytest.mark.parametrize('method', ['acquire', 'release'])
async def test_a_coroutine_that_is_never_awaited_warns_and_does_nothing(open_pool: OpenPool, method: str) -> None:
    manager = Manager()
    pool = open_pool(manager, max_size=1)
    conn = await pool.acquire('a')
    if method == 'acquire':
        await pool.release(conn, 'a')
    before = await state(pool)
    with pytest.warns(RuntimeWarning, match=f'{method}.* was never awaited'):
        (pool.acquire('a') if method == 'acquire' else pool.release(conn, 'a'))  # noqa: B018
        gc.collect()
    await passes()
    assert await state(pool) == before
    if method == 'release':
        await pool.release(conn, 'a')


async def test_a_coroutine_that_is_closed_before_it_began_does_nothing_and_does_not_warn(open_pool: OpenPool) -> None:
    pool = open_pool()
    pool.acquire('a').close()
    conn = await pool.acquire('a')
    pool.release(conn, 'a').close()
    assert await pool.get_endpoint_pool_size('a', acquired=True) == 1
    await pool.release(conn, 'a')


async def test_a_coroutine_cannot_be_awaited_twice(open_pool: OpenPool) -> None:
    pool = open_pool()
    coro = pool.acquire('a')
    conn = await coro
    with pytest.raises(RuntimeError, match='already awaited'):
        await coro
    coro = pool.release(conn, 'a')
    await coro
    with pytest.raises(RuntimeError, match='already awaited'):
        await coro
    assert pool.get_size() == 1


