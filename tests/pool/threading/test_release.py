"""What may be released: the very connection that is held, or one that equals it; nothing else, and only once."""

import threading
from typing import Any, Callable

import pytest
from generic_connection_pool import BaseError
from generic_connection_pool.exceptions import ConnectionNotAcquiredError
from support.threads import Gate, HookedManager, Manager, error, result, start, start_waiting, unchanged, wait_for

MakePool = Callable[..., Any]


class Equal:
    """Equals all of its kind."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Equal)

    def __hash__(self) -> int:
        return 7


class Unhashable(list):  # type: ignore[type-arg]
    pass


class Prickly:
    """Cannot be compared, nor hashed, nor asked for its truth."""

    def __eq__(self, other: object) -> bool:
        raise ArithmeticError('compared')

    def __hash__(self) -> int:
        raise ArithmeticError('hashed')

    def __bool__(self) -> bool:
        raise ArithmeticError('asked')


class Vague:
    """Compares to something that has no truth."""

    def __eq__(self, other: object) -> Any:
        return Prickly()

    __hash__ = None  # type: ignore[assignment]


def refused(pool: Any, hooks: Manager, conn: Any, endpoint: Any) -> None:
    calls = len(hooks.calls)
    with unchanged(pool, 'a', 'b', 'c'):
        with pytest.raises(ConnectionNotAcquiredError) as caught:
            pool.release(conn, endpoint)
    assert repr(endpoint) in str(caught.value)
    assert isinstance(caught.value, (BaseError, RuntimeError))
    assert len(hooks.calls) == calls, 'a hook has run'


def test_a_second_release_is_refused_before_any_hook_runs(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 34"""
    pool = make_pool(manager)
    conn = pool.acquire('a')
    pool.release(conn, 'a')
    refused(pool, manager, conn, 'a')
    assert pool.acquire('a') is conn
    pool.release(conn, 'a')
    refused(pool, manager, conn, 'a')


def test_a_second_release_of_what_has_been_disposed_of_is_refused(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 34"""
    pool = make_pool(manager, min_idle=0, idle_timeout=0)
    conn = pool.acquire('a')
    pool.release(conn, 'a')
    refused(pool, manager, conn, 'a')


def test_a_second_release_while_another_connection_is_acquired_is_refused(
    make_pool: MakePool, manager: Manager
) -> None:  # fmt: skip
    """HAZARD 34"""
    pool = make_pool(manager)
    conn, other = pool.acquire('a'), pool.acquire('a')
    pool.release(conn, 'a')
    refused(pool, manager, conn, 'a')
    pool.release(other, 'a')


@pytest.mark.parametrize('endpoint', ['b', 'c'])
def test_a_release_to_another_endpoint_is_refused(make_pool: MakePool, manager: Manager, endpoint: str) -> None:
    """HAZARD 34"""
    pool = make_pool(manager)
    conn, _ = pool.acquire('a'), pool.acquire('b')
    refused(pool, manager, conn, endpoint)
    pool.release(conn, 'a')


@pytest.mark.parametrize('foreign', [None, 0, 'x', object(), [], Equal(), Prickly(), Vague()], ids=lambda x: type(x).__name__)
def test_a_release_of_what_is_not_of_the_pool_is_refused(make_pool: MakePool, manager: Manager, foreign: Any) -> None:
    """HAZARD 34"""
    pool = make_pool(manager)
    pool.acquire('a')
    refused(pool, manager, foreign, 'a')
    refused(pool, manager, foreign, 'c')


def test_a_release_to_another_pool_is_refused(make_pool: MakePool) -> None:
    """HAZARD 34"""
    one, other = HookedManager(), HookedManager()
    pool, other_pool = make_pool(one), make_pool(other)
    conn = pool.acquire('a')
    other_pool.acquire('a')
    refused(other_pool, other, conn, 'a')
    pool.release(conn, 'a')


def test_a_release_while_the_first_is_under_way_is_refused(make_pool: MakePool, hooks: HookedManager) -> None:
    """HAZARD 34"""
    pool = make_pool(hooks)
    conn = pool.acquire('a')
    hooks.doing['on_release'] = gate = Gate()
    first = start(pool.release, conn, 'a')
    wait_for(gate.reached)
    refused(pool, hooks, conn, 'a')
    gate.open.set()
    assert error(first) is None
    assert len(hooks.called('on_release')) == 1 and pool.get_size() == 1


def test_of_many_threads_that_release_one_connection_one_succeeds(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 34"""
    pool = make_pool(manager)
    for _ in range(20):
        conn = pool.acquire('a')
        barrier = threading.Barrier(4)

        def release(conn: Any = conn, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            pool.release(conn, 'a')

        errors = [error(future) for future in [start(release) for _ in range(4)]]
        assert sorted(type(exc).__name__ for exc in errors) == ['ConnectionNotAcquiredError'] * 3 + ['NoneType']
        assert pool.get_endpoint_pool_size('a', acquired=False) == pool.get_size() == 1


def test_a_block_can_tell_that_its_connection_was_released_and_lent_again(
    make_pool: MakePool, manager: Manager
) -> None:
    """HAZARD 34"""
    pool = make_pool(manager, max_size=1)
    with pytest.raises(ConnectionNotAcquiredError):
        with pool.connection('a') as conn:
            pool.release(conn, 'a')
            assert start(pool.acquire, 'a').result(10) is conn
    assert pool.get_endpoint_pool_size('a', acquired=True) == 1
    pool.release(conn, 'a')


# -- identity


def test_connections_that_are_equal_are_told_apart(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 35"""
    pool = make_pool(manager, min_idle=3)
    manager.doing['create'] = lambda *_: Equal()
    first, second, third = (pool.acquire('a') for _ in range(3))
    pool.release(second, 'a')
    assert pool.acquire('a') is second
    for conn in (third, first, second):
        pool.release(conn, 'a')
    assert [id(pool.acquire('a')) for _ in range(3)] == [id(third), id(first), id(second)]


def test_a_second_release_of_an_idle_connection_does_not_release_its_equal(
    make_pool: MakePool, manager: Manager
) -> None:
    """HAZARD 35"""
    pool = make_pool(manager)
    manager.doing['create'] = lambda *_: Equal()
    first, _ = pool.acquire('a'), pool.acquire('a')
    pool.release(first, 'a')
    refused(pool, manager, first, 'a')


def test_equal_connections_of_two_endpoints_are_not_confused(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 35"""
    pool = make_pool(manager)
    manager.doing['create'] = lambda *_: Equal()
    first, second = pool.acquire('a'), pool.acquire('b')
    refused(pool, manager, first, 'b')
    refused(pool, manager, second, 'a')
    pool.release(first, 'a')
    pool.release(second, 'b')


@pytest.mark.parametrize('kind', [Unhashable, Prickly, Vague, dict, bytearray])
def test_connections_that_cannot_be_hashed_or_compared_work(
    make_pool: MakePool, manager: Manager, kind: Any
) -> None:  # fmt: skip
    """HAZARD 35"""
    pool = make_pool(manager, min_idle=2)
    manager.doing['create'] = lambda *_: kind()
    first, second = pool.acquire('a'), pool.acquire('a')
    pool.release(second, 'a')
    pool.release(first, 'a')
    assert pool.acquire('a') is second
    refused(pool, manager, first, 'a')
    with pool.connection('a') as conn:
        assert conn is first


def test_connections_whose_hash_and_value_change_work(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 35"""

    class Changing:
        value = 0

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Changing) and other.value == self.value

        def __hash__(self) -> int:
            return self.value

    pool = make_pool(manager)
    manager.doing['create'] = lambda *_: Changing()
    conn = pool.acquire('a')
    conn.value = 1
    pool.release(conn, 'a')
    assert pool.acquire('a') is conn


@pytest.mark.parametrize('conn', ['x', None, 7, ()], ids=repr)
def test_one_object_may_be_several_connections(make_pool: MakePool, conn: Any) -> None:
    """HAZARD 35"""

    class Lazy(Manager):
        def create(self, endpoint: Any, timeout: Any = None) -> Any:
            self.created.append(conn)
            return conn

    manager = Lazy()
    pool = make_pool(manager)
    for endpoint in 'aab':
        pool.acquire(endpoint)
    pool.release(conn, 'a')
    assert pool.get_endpoint_pool_size('a', acquired=True) == pool.get_endpoint_pool_size('b', acquired=True) == 1
    pool.release(conn, 'b')
    pool.release(conn, 'a')
    refused(pool, manager, conn, 'a')
    assert pool.get_endpoint_pool_size('a', acquired=False) == 2


# -- equality, where there is no identity


def test_an_equal_object_releases_when_no_identical_one_is_held(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager, max_size=2)
    reader, writer = object(), object()
    manager.doing['create'] = lambda *_: (reader, writer)
    conn = pool.acquire('a')
    copy = (reader, writer) + ()
    copy = tuple(list(copy))
    assert copy is not conn
    pool.release(copy, 'a')
    assert pool.acquire('a') is conn
    assert hasattr(pool, 'release')
    refused(pool, manager, (reader, object()), 'a')


def test_an_equal_object_is_refused_when_it_has_been_released_already(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager)
    parts = [object(), object()]
    manager.doing['create'] = lambda *_: tuple(parts)
    pool.acquire('a')
    pool.release(tuple(parts), 'a')
    refused(pool, manager, tuple(parts), 'a')


def test_an_equal_object_hands_the_very_connection_to_the_next_waiter(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager, max_size=1)
    parts = [object(), object()]
    manager.doing['create'] = lambda *_: tuple(parts)
    conn = pool.acquire('a')
    waiter = start_waiting(pool, 'a')
    pool.release(tuple(parts), 'a')
    assert result(waiter) is conn


def test_an_eq_that_raises_in_one_connection_does_not_hide_an_equal_one(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 35"""
    pool = make_pool(manager)
    conns = [Prickly(), (1, 2)]
    manager.doing['create'] = lambda *_: conns[len(manager.created)]
    pool.acquire('a')
    assert pool.acquire('a') is conns[1]
    pool.release(tuple([1, 2]), 'a')
    assert pool.get_endpoint_pool_size('a', acquired=True) == 1


def test_an_eq_that_calls_the_pool_does_not_block(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 35, 37"""

    class Curious:
        def __eq__(self, other: object) -> bool:
            return bool(pool.get_size()) and pool.get_endpoint_pool_size('a') and self is other

        def __hash__(self) -> int:
            return pool.get_size()

    pool = make_pool(manager)
    manager.doing['create'] = lambda *_: Curious()
    conn = pool.acquire('a')
    pool.acquire('a')
    refused(pool, manager, Curious(), 'a')
    pool.release(conn, 'a')
