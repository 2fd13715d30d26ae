"""The table of endpoints: an entry exists exactly as long as anything of its endpoint does."""

import gc
import threading
import weakref
from typing import Any, Callable

import pytest
from generic_connection_pool.threading import pool as pool_module
from support.threads import Gate, HookedManager, Manager, error, result, start, start_waiting, wait_for, wait_until

MakePool = Callable[..., Any]


def test_an_endpoint_never_used_is_not_in_the_table(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 36"""
    pool = make_pool(manager)
    assert pool.get_endpoint_pool_size('a') == 0
    assert pool._core.endpoints() == []


def test_an_entry_goes_with_the_last_connection(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 36"""
    pool = make_pool(manager, min_idle=0, idle_timeout=0)
    first, second = pool.acquire('a'), pool.acquire('a')
    pool.release(first, 'a')
    assert pool._core.endpoints() == ['a']
    pool.release(second, 'a')
    assert pool._core.endpoints() == []


def test_an_entry_goes_when_the_last_connection_is_evicted(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 36"""
    pool = make_pool(manager, total_max_size=1)
    for endpoint in 'abcabc':
        with pool.connection(endpoint):
            assert pool._core.endpoints() == [endpoint]


@pytest.mark.parametrize('exc', [ValueError, TimeoutError, KeyboardInterrupt])
def test_an_entry_goes_when_create_has_only_ever_failed(make_pool: MakePool, manager: Manager, exc: Any) -> None:
    """HAZARD 36"""
    pool = make_pool(manager)

    def fail(*_: Any) -> None:
        assert pool._core.endpoints() != []
        raise exc

    manager.doing['create'] = fail
    for number in range(20):
        with pytest.raises(exc):
            pool.acquire(('host', number))
        assert pool._core.endpoints() == []


@pytest.mark.parametrize('config', [{'max_size': 1}, {'total_max_size': 1}])
def test_an_entry_goes_with_the_last_who_waited_in_vain(
    make_pool: MakePool, manager: Manager, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HAZARD 36"""
    time_is_over = threading.Event()

    def remaining(deadline: Any) -> float:
        wait_for(time_is_over)
        return 0.0

    pool = make_pool(manager, **config)
    conn = pool.acquire('a')
    monkeypatch.setattr(pool_module, 'remaining', remaining)
    endpoint = 'a' if 'max_size' in config else 'b'
    waiters = [start_waiting(pool, endpoint, 20) for _ in range(2)]
    assert endpoint in pool._core.endpoints()
    time_is_over.set()
    assert all(isinstance(error(waiter), TimeoutError) for waiter in waiters)
    assert pool._core.endpoints() == ['a']
    with pytest.raises(TimeoutError):
        pool.acquire(endpoint, timeout=0)
    assert pool._core.endpoints() == ['a']
    pool.release(conn, 'a')


def test_an_entry_stays_while_a_disposal_is_under_way(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 36, 29"""
    pool = make_pool(manager, min_idle=0, idle_timeout=0)
    manager.doing['dispose'] = gate = Gate()
    conn = pool.acquire('a')
    releasing = start(pool.release, conn, 'a')
    wait_for(gate.reached)
    assert pool._core.endpoints() == ['a']
    gate.open.set()
    result(releasing)
    assert pool._core.endpoints() == []


def test_closing_empties_the_table(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 36"""
    pool = make_pool(manager)
    for endpoint in 'abc':
        with pool.connection(endpoint):
            pass
    pool.close()
    assert pool._core.endpoints() == []


def test_the_pool_keeps_nothing_of_an_endpoint_that_is_gone(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 36"""

    class Key:
        pass

    class Resource:
        pass

    pool = make_pool(manager, min_idle=0, idle_timeout=0)
    manager.doing['create'] = lambda *_: Resource()
    keys = [Key() for _ in range(5)]
    references = [weakref.ref(key) for key in keys]
    for key in keys:
        with pool.connection(key) as conn:
            references.append(weakref.ref(conn))
    del key, keys, conn
    for record in (manager.calls, manager.created, manager.disposed):
        record.clear()
    gc.collect()
    assert [reference() for reference in references] == [None] * 10


def test_the_pool_keeps_nothing_of_an_acquire_that_failed(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 36"""

    class Key:
        pass

    def fail(*_: Any) -> None:
        raise ValueError

    pool = make_pool(manager)
    manager.doing['create'] = fail
    key = Key()
    reference = weakref.ref(key)
    with pytest.raises(ValueError):
        pool.acquire(key)
    manager.calls.clear()
    del key
    wait_until(lambda: gc.collect() is not None and reference() is None)


def test_an_entry_that_comes_and_goes_under_many_threads_is_never_lost_or_doubled(
    make_pool: MakePool, manager: Manager
) -> None:
    """HAZARD 36: entries are removed between another's look-up and use."""
    pool = make_pool(manager, min_idle=0, idle_timeout=0, max_size=1)
    inside = [0]
    lock = threading.Lock()

    def work() -> None:
        for _ in range(300):
            with pool.connection('a', timeout=20):
                with lock:
                    inside[0] += 1
                    assert inside[0] == 1, 'two hold connections of an endpoint that may have one'
                with lock:
                    inside[0] -= 1

    for worker in [start(work) for _ in range(4)]:
        result(worker)
    assert pool._core.endpoints() == []


def test_an_entry_that_goes_while_an_acquire_fails_serves_the_next(make_pool: MakePool, hooks: HookedManager) -> None:
    """HAZARD 36, 15"""
    pool = make_pool(hooks, max_size=1)

    def work(me: int) -> int:
        failures = 0
        for place in range(100):
            try:
                with pool.connection('a', timeout=20):
                    pass
            except ValueError:
                failures += 1
        return failures

    def create(*_: Any) -> None:
        if len(hooks.called('create')) % 2:
            raise ValueError

    hooks.doing['create'] = create
    hooks.doing['is_reusable'] = lambda *_: False
    for worker in [start(work, me) for me in range(3)]:
        result(worker)
    pool._core.check_invariants()
