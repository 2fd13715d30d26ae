"""Core connections and extras: which is taken next, which is kept, and when and in what order the others go."""

import contextlib
import math
import time
from typing import Any, Callable, Iterator, List

import pytest
from support.threads import Manager, let_pass, result, start_waiting, wait_until

MakePool = Callable[..., Any]


def acquire_many(pool: Any, count: int, endpoint: str = 'a') -> List[Any]:
    return [pool.acquire(endpoint) for _ in range(count)]


def release_all(pool: Any, conns: List[Any], endpoint: str = 'a') -> None:
    for conn in conns:
        pool.release(conn, endpoint)


@contextlib.contextmanager
def quickly(seconds: float) -> Iterator[None]:
    """What happens in the block depends on its taking less time than a timeout of the pool."""
    began = time.monotonic()
    try:
        yield
    except AssertionError:
        if time.monotonic() - began < seconds:
            raise
    if time.monotonic() - began >= seconds:
        pytest.skip('the machine was too slow for this')


# -- which is taken next


def test_core_connections_are_taken_first_in_first_out(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager, min_idle=3)
    first, second, third = acquire_many(pool, 3)
    release_all(pool, [second, third, first])
    assert acquire_many(pool, 3) == [second, third, first]


def test_extras_are_taken_last_in_first_out(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager, min_idle=0)
    first, second, third = acquire_many(pool, 3)
    release_all(pool, [second, third, first])
    assert acquire_many(pool, 3) == [first, third, second]


def test_extras_are_taken_only_when_no_core_connection_is_idle(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager, min_idle=2)
    held = acquire_many(pool, 5)
    release_all(pool, held)  # the last two are the core
    assert acquire_many(pool, 5) == [held[3], held[4], held[2], held[1], held[0]]


# -- which is kept: with idle_timeout=0, extras go at release


@pytest.mark.parametrize('min_idle, acquired, kept', [
    (0, 1, 0), (0, 4, 0), (1, 1, 1), (1, 2, 1), (1, 4, 1), (2, 1, 1), (2, 2, 2), (2, 4, 2), (4, 4, 4), (10, 4, 4),
])  # fmt: skip
def test_a_connection_released_becomes_an_extra_when_those_still_acquired_could_fill_the_core(
    make_pool: MakePool, manager: Manager, min_idle: int, acquired: int, kept: int
) -> None:
    pool = make_pool(manager, min_idle=min_idle, idle_timeout=0)
    held = acquire_many(pool, acquired)
    for released, conn in enumerate(held, 1):
        pool.release(conn, 'a')
        still_acquired = acquired - released
        idle_core = max(0, kept - still_acquired)
        assert pool.get_endpoint_pool_size('a', acquired=False) == idle_core
    assert manager.disposed == held[: acquired - kept]


def test_idle_core_connections_count_when_another_is_released(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager, min_idle=2, idle_timeout=0)
    first, second, third = acquire_many(pool, 3)
    pool.release(first, 'a')  # 2 acquired + 0 idle >= 2: an extra
    assert manager.disposed == [first]
    pool.release(second, 'a')  # 1 + 0 < 2: core
    fourth = pool.acquire('a')
    assert fourth is second
    fifth = pool.acquire('a')  # three acquired again
    pool.release(third, 'a')  # 2 + 0 >= 2: an extra
    assert manager.disposed == [first, third]
    release_all(pool, [fourth, fifth])
    assert manager.disposed == [first, third] and pool.get_size() == 2


def test_an_extra_may_become_a_core_connection_later(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager, min_idle=1, idle_timeout=0.2)
    extra, core = acquire_many(pool, 2)
    with quickly(0.2):
        pool.release(extra, 'a')
        pool.release(core, 'a')
        assert acquire_many(pool, 2) == [core, extra]
    pool.release(core, 'a')
    pool.release(extra, 'a')  # the last of the endpoint: core now
    let_pass(0.2)
    with pool.connection('b'):
        pass
    assert manager.disposed == [core] and pool.acquire('a', timeout=0) is extra


def test_min_idle_and_idle_timeout_of_zero_dispose_at_release(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager, min_idle=0, idle_timeout=0)
    with pool.connection('a') as conn:
        pass
    assert manager.disposed == [conn] and pool.get_size() == 0
    with pool.connection('a') as other:
        assert other is not conn


# -- when the others go


def test_an_extra_is_disposed_of_after_idle_timeout_by_a_later_release(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager, min_idle=0, idle_timeout=0.05)
    with pool.connection('a') as conn:
        pass
    let_pass(0.05)
    assert manager.disposed == []  # nobody is there to do it
    with pool.connection('b'):
        assert manager.disposed == []
    assert manager.disposed == [conn]


def test_an_extra_is_kept_until_its_idle_timeout(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager, min_idle=0, idle_timeout=60)
    with pool.connection('a') as conn:
        pass
    let_pass(0.02)
    with pool.connection('b'):
        pass
    assert manager.disposed == [] and pool.acquire('a') is conn


def test_core_connections_are_kept_beyond_idle_timeout(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager, min_idle=1, idle_timeout=0.02)
    with pool.connection('a') as conn:
        pass
    let_pass(0.03)
    with pool.connection('b'):
        pass
    assert manager.disposed == [] and pool.acquire('a') is conn


def test_the_idle_timeout_counts_from_the_last_release(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager, min_idle=0, idle_timeout=0.2)
    pool.acquire('b')
    conn = pool.acquire('a')
    for _ in range(2):
        let_pass(0.2)  # in use is not idle
        with quickly(0.2):
            pool.release(conn, 'a')
            assert pool.acquire('a') is conn
    with quickly(0.2):
        pool.release(conn, 'a')
        pool.release(manager.created[0], 'b')
        assert manager.disposed == []


def test_a_core_connection_is_disposed_of_after_max_lifetime(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 30"""
    pool = make_pool(manager, max_lifetime=0.05)
    with pool.connection('a') as conn:
        pass
    let_pass(0.05)
    with pool.connection('b'):
        pass
    assert conn in manager.disposed


@pytest.mark.parametrize('config', [{'max_lifetime': 0.05}, {'idle_timeout': 0.05, 'min_idle': 0}])
@pytest.mark.parametrize('limits', [{}, {'max_size': 1}, {'total_max_size': 1}])
@pytest.mark.parametrize('timeout', [None, 20])
def test_a_connection_past_its_time_is_never_handed_out(
    make_pool: MakePool, manager: Manager, config: Any, limits: Any, timeout: Any
) -> None:
    """HAZARD 30"""
    pool = make_pool(manager, **config, **limits)
    with pool.connection('a') as conn:
        pass
    let_pass(0.05)
    other = pool.acquire('a', timeout)
    assert other is not conn
    if limits:  # it had to make room
        wait_until(lambda: manager.disposed == [conn])


def test_a_busy_connection_past_its_lifetime_is_disposed_of_at_release(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 30"""
    pool = make_pool(manager, max_lifetime=0.02)
    with pool.connection('a') as conn:
        let_pass(0.02)
        assert manager.disposed == []
    assert manager.disposed == [conn] and pool.get_size() == 0


def test_a_busy_connection_past_its_lifetime_is_not_handed_to_who_waits_but_its_slot_is(
    make_pool: MakePool, manager: Manager
) -> None:
    """HAZARD 30"""
    pool = make_pool(manager, max_lifetime=0.05, max_size=1)
    conn = pool.acquire('a')
    waiter = start_waiting(pool, 'a')
    let_pass(0.05)
    pool.release(conn, 'a')
    assert result(waiter) is not conn and manager.disposed == [conn]


# -- how many and in what order


def overdue(make_pool: MakePool, manager: Manager, count: int, **config: Any) -> Any:
    """A pool of so many extras whose time has come, and one more connection of endpoint ``'b'`` in use."""
    for patience in (0.1, 0.4, 1.6, 6.4):
        pool = make_pool(manager, min_idle=0, idle_timeout=patience, max_size=count, **config)
        pool.acquire('b')
        release_all(pool, acquire_many(pool, count))
        if not manager.disposed:
            let_pass(patience)
            return pool
        manager.disposed.clear()
        manager.created.clear()
        pool.close(0)
    raise AssertionError('the machine is too slow for this')


def release_b_again(pool: Any, manager: Manager) -> int:
    """How many connections one more release disposes of."""
    conn = pool.acquire('b') if not pool.get_endpoint_pool_size('b', acquired=True) else manager.created[0]
    before = len(manager.disposed)
    pool.release(conn, 'b')
    return len(manager.disposed) - before


def test_a_release_disposes_of_log2_of_the_size_of_what_is_due(make_pool: MakePool, manager: Manager) -> None:
    pool = overdue(make_pool, manager, 14)
    batches = [release_b_again(pool, manager) for _ in range(5)]
    assert batches == [5, 4, 3, 2, 0]  # of 15, 10, 6, 3, 1


@pytest.mark.parametrize('size, batches', [(1, [1, 1, 1, 1, 0]), (3, [3, 1, 0, 0, 0]), (9, [4, 0, 0, 0, 0])])
def test_a_release_disposes_of_dispose_batch_size_of_what_is_due(
    make_pool: MakePool, manager: Manager, size: int, batches: List[int]
) -> None:
    pool = overdue(make_pool, manager, 4, dispose_batch_size=size)
    assert [release_b_again(pool, manager) for _ in range(5)] == batches


def test_the_connection_released_counts_if_it_is_disposed_of_itself(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager, max_lifetime=0.2, dispose_batch_size=1)
    with quickly(0.2):
        conn = pool.acquire('a')
        with pool.connection('b') as other:
            pass
        assert manager.disposed == []
    let_pass(0.2)
    pool.release(conn, 'a')
    assert manager.disposed == [conn]
    assert pool.get_endpoint_pool_size('b', acquired=False) == 1 and other not in manager.disposed


def test_the_rest_of_its_batch_is_disposed_of_with_it(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager, max_lifetime=0.2, dispose_batch_size=2)
    with quickly(0.2):
        conn = pool.acquire('a')
        with pool.connection('b') as second:
            pass
        with pool.connection('c'):
            pass
        assert manager.disposed == []
    let_pass(0.2)
    pool.release(conn, 'a')
    assert manager.disposed == [conn, second]
    assert pool.get_size() == 1


def test_disposal_follows_the_order_of_deadlines(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager, min_idle=1, dispose_batch_size=1)
    a1, a2, a3 = acquire_many(pool, 3)
    b1 = pool.acquire('b')
    pool.release(b1, 'b')  # core: due by its lifetime, the youngest
    release_all(pool, [a2, a3, a1])  # two extras, due soon, and a core one
    pool.close()
    assert manager.disposed == [a2, a3, a1, b1]


def test_equal_deadlines_follow_the_order_of_release(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager, min_idle=4, max_lifetime=math.inf)
    first, second, third, fourth = acquire_many(pool, 4)
    release_all(pool, [third, first, fourth, second])
    assert acquire_many(pool, 2) == [third, first]
    release_all(pool, [first, third])  # the last releases count
    pool.close()
    assert manager.disposed == [fourth, second, first, third]


def test_equal_deadlines_of_several_endpoints_follow_the_order_of_release(
    make_pool: MakePool, manager: Manager
) -> None:
    pool = make_pool(manager, min_idle=0, max_lifetime=math.inf, idle_timeout=math.inf)
    conns = {endpoint: pool.acquire(endpoint) for endpoint in 'abcdefg'}
    for endpoint in 'fbgaced':
        pool.release(conns[endpoint], endpoint)
    pool.close()
    assert manager.disposed == [conns[endpoint] for endpoint in 'fbgaced']


def test_the_time_of_day_does_not_matter(
    make_pool: MakePool, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """HAZARD 41"""
    pool = make_pool(manager, min_idle=0, idle_timeout=60, max_lifetime=60)
    with pool.connection('a') as conn:
        pass
    for jump in (1e9, -1e9):
        monkeypatch.setattr('time.time', lambda jump=jump: jump)
        with pool.connection('b'):
            pass
        assert pool.acquire('a', timeout=5) is conn
        pool.release(conn, 'a')
    assert manager.disposed == []


def test_the_pool_reads_a_monotonic_clock() -> None:
    """HAZARD 41"""
    from generic_connection_pool._core import monotonic

    assert abs(monotonic() - time.monotonic()) < 5.0
    readings = [monotonic() for _ in range(1000)]
    assert readings == sorted(readings)
