"""The total limit: who is evicted for whom, and that no endpoint starves on it."""

import threading
import time
from typing import Any, Callable, List

import pytest
from support.threads import (
    Gate, HookedManager, Manager, error, is_free, let_pass, result, start, start_waiting, wait_for, wait_until,
)  # fmt: skip

MakePool = Callable[..., Any]

any_timeout = pytest.mark.parametrize('timeout', [None, 20])


def use(pool: Any, endpoint: str) -> Any:
    with pool.connection(endpoint) as conn:
        return conn


@any_timeout
def test_an_acquire_for_another_endpoint_evicts_an_idle_connection(
    make_pool: MakePool, manager: Manager, timeout: Any
) -> None:
    pool = make_pool(manager, total_max_size=1)
    conn = use(pool, 'a')
    other = pool.acquire('b', timeout)
    assert other.endpoint == 'b' and manager.disposed == [conn]
    assert pool.get_size() == 1 and pool.get_endpoint_pool_size('a') == 0


@any_timeout
def test_the_idle_connection_nearest_its_deadline_is_evicted_even_a_core_one(
    make_pool: MakePool, manager: Manager, timeout: Any
) -> None:
    pool = make_pool(manager, total_max_size=4, min_idle=1)
    a1, b1, b2, c1 = pool.acquire('a'), pool.acquire('b'), pool.acquire('b'), pool.acquire('c')
    pool.release(c1, 'c')  # core, the youngest
    pool.release(b1, 'b')  # an extra: due the soonest
    pool.release(b2, 'b')  # core
    pool.release(a1, 'a')  # core, the oldest
    for place, victim in enumerate([b1, a1, b2, c1]):
        pool.acquire(f'new{place}', timeout)
        wait_until(lambda: len(manager.disposed) == place + 1)
        assert manager.disposed[-1] is victim


@any_timeout
def test_an_extra_used_again_is_not_evicted_in_place_of_one_that_rested(
    make_pool: MakePool, manager: Manager, timeout: Any
) -> None:
    pool = make_pool(manager, total_max_size=2, min_idle=0)
    first, second = use(pool, 'a'), use(pool, 'b')
    assert use(pool, 'a') is first  # its deadline has moved
    pool.acquire('c', timeout)
    assert manager.disposed == [second]


@any_timeout
def test_acquired_connections_are_not_evicted(make_pool: MakePool, manager: Manager, timeout: Any) -> None:
    pool = make_pool(manager, total_max_size=2)
    held = pool.acquire('a')
    use(pool, 'b')
    pool.acquire('c', timeout)
    with pytest.raises(TimeoutError):
        pool.acquire('d', timeout=0.01)
    assert held not in manager.disposed and len(manager.disposed) == 1


@any_timeout
def test_a_connection_of_the_same_endpoint_is_not_evicted_but_used(
    make_pool: MakePool, manager: Manager, timeout: Any
) -> None:
    pool = make_pool(manager, total_max_size=2)
    conn = use(pool, 'a')
    use(pool, 'b')
    assert pool.acquire('a', timeout) is conn and manager.disposed == []


@any_timeout
@pytest.mark.parametrize('min_idle', [0, 1, 5])
def test_a_connection_released_and_idle_serves_who_waits_for_the_total_limit_at_once(
    make_pool: MakePool, manager: Manager, timeout: Any, min_idle: int
) -> None:
    """HAZARD 20, 14"""
    pool = make_pool(manager, total_max_size=1, min_idle=min_idle)
    conn = pool.acquire('a')
    waiter = start_waiting(pool, 'b', timeout)
    pool.release(conn, 'a')
    assert result(waiter).endpoint == 'b'
    wait_until(lambda: manager.disposed == [conn])


def test_waiters_of_several_endpoints_are_all_served_by_one_slot(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 20"""
    pool = make_pool(manager, total_max_size=1)
    order: List[str] = []

    def work(endpoint: str) -> None:
        with pool.connection(endpoint, timeout=20):
            order.append(endpoint)

    workers = []
    with pool.connection('a'):
        for endpoint in 'bcbdc':
            before = sum(map(pool._core.waiting, 'bcd'))
            workers.append(start(work, endpoint))
            wait_until(lambda before=before: sum(map(pool._core.waiting, 'bcd')) > before)
    for worker in workers:
        result(worker)
    assert sorted(order) == ['b', 'b', 'c', 'c', 'd']


def test_an_endpoint_that_waits_for_the_total_limit_is_served_however_busy_another_is(
    make_pool: MakePool, manager: Manager
) -> None:
    """HAZARD 20: the bypass is bounded, in hand-offs."""
    pool = make_pool(manager, total_max_size=1)  # one slot, so that nothing is handed over while it is evicted
    served = threading.Event()
    turns: List[int] = []

    def hammer() -> None:
        while not served.is_set():
            with pool.connection('busy'):
                wait_until(lambda: pool._core.waiting('busy') >= 3 or served.is_set())
                if pool._core.waiting('quiet'):
                    turns.append(1)

    hammers = [start(hammer) for _ in range(6)]
    wait_until(lambda: pool._core.waiting('busy') >= 3)
    for _ in range(3):
        turns.clear()
        with pool.connection('quiet', timeout=20):
            assert len(turns) <= 20, 'too many were served before'
    served.set()
    for future in hammers:
        result(future)


def test_endpoints_take_turns_when_all_of_them_want_the_one_slot(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 20"""
    pool = make_pool(manager, total_max_size=1)
    endpoints = 'abcd'
    bypassed = dict.fromkeys(endpoints, 0)
    worst: List[int] = []
    finished = threading.Event()

    def work(endpoint: str) -> None:
        while not finished.is_set():
            with pool.connection(endpoint):
                wait_until(lambda: sum(map(pool._core.waiting, endpoints)) >= 5 or finished.is_set())
                for other in endpoints:  # hand-offs to others since it was served, as long as it waits
                    bypassed[other] = bypassed[other] + 1 if other != endpoint and pool._core.waiting(other) else 0
                worst.append(max(bypassed.values()))
                if len(worst) >= 300:
                    finished.set()

    workers = [start(work, endpoint) for endpoint in endpoints * 2]
    for worker in workers:
        result(worker)
    assert 0 < max(worst[:300]) <= 3 * 20, 'an endpoint was passed over for more than a turn of each other one'


@pytest.mark.parametrize('hang', ['evicted', 'dead', 'expired'])
def test_the_deadline_of_an_acquire_holds_although_the_disposal_of_what_is_in_its_way_hangs(
    make_pool: MakePool, hooks: HookedManager, hang: str
) -> None:
    """HAZARD 42"""
    pool = make_pool(hooks, max_size=1, total_max_size=1, max_lifetime=0.05 if hang == 'expired' else 3600)
    conn = use(pool, 'a')
    hooks.doing['dispose'] = gate = Gate()
    if hang == 'dead':
        hooks.doing['check_aliveness'] = lambda *_: False
    if hang == 'expired':
        let_pass(0.05)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        pool.acquire('b' if hang == 'evicted' else 'a', timeout=0.1)
    assert time.monotonic() - began < 5.0
    wait_for(gate.reached)
    assert hooks.disposed == [conn] and pool.get_size() == 1, 'it counts until it is gone'
    gate.open.set()
    wait_until(lambda: pool.get_size() == 0)
    assert is_free(pool, 'b')


def test_a_disposal_that_hangs_hinders_nobody_who_does_not_need_its_slot(
    make_pool: MakePool, manager: Manager
) -> None:
    """HAZARD 42"""
    pool = make_pool(manager, total_max_size=2)
    use(pool, 'a')
    conn = use(pool, 'b')
    manager.doing['dispose'] = gate = Gate()
    waiter = start(pool.acquire, 'c', 20)  # evicts a
    wait_for(gate.reached)
    assert pool.acquire('b', timeout=0) is conn
    pool.release(conn, 'b')
    assert not waiter.done()
    gate.open.set()
    assert result(waiter).endpoint == 'c'


def test_the_slot_of_a_slow_disposal_goes_to_whoever_waits_when_its_cause_has_given_up(
    make_pool: MakePool, manager: Manager
) -> None:
    """HAZARD 6, 14"""
    pool = make_pool(manager, total_max_size=1)
    use(pool, 'a')
    manager.doing['dispose'] = gate = Gate()
    impatient = start(pool.acquire, 'b', 0.05)
    wait_for(gate.reached)
    patient = start_waiting(pool, 'c')
    assert isinstance(error(impatient), TimeoutError)
    gate.open.set()
    assert result(patient).endpoint == 'c'


def test_many_that_give_up_at_once_leave_all_slots_usable(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 6"""
    pool = make_pool(manager, total_max_size=3, max_size=3)
    for _ in range(5):
        for endpoint in 'abc':
            use(pool, endpoint)
        gate = Gate()
        manager.doing['dispose'] = gate
        callers = [start(pool.acquire, 'de'[place % 2], 0.01 + 0.002 * place) for place in range(8)]
        failures = [error(caller) for caller in callers]
        assert all(isinstance(failure, TimeoutError) for failure in failures)
        gate.open.set()
        manager.doing.clear()
        wait_until(lambda: pool.get_size() < 3 or pool._core.endpoints() == [])
        wait_until(lambda: is_free(pool, 'a'))


@any_timeout
def test_two_dead_connections_are_both_replaced_and_both_disposed_of(
    make_pool: MakePool, hooks: HookedManager, timeout: Any
) -> None:
    """HAZARD 28"""
    pool = make_pool(hooks)
    held = [pool.acquire('a') for _ in range(4)]
    for conn in held:
        pool.release(conn, 'a')
    hooks.doing['check_aliveness'] = lambda endpoint, conn: conn not in held
    assert pool.acquire('a', timeout) not in held
    wait_until(lambda: len(hooks.disposed) == 4)
    assert pool.get_size() == 1
    dead = [call.conn for call in hooks.called('on_connection_dead')]
    assert sorted(map(id, dead)) == sorted(map(id, held))


@any_timeout
def test_a_dead_connection_is_reported_disposed_of_and_replaced_within_the_same_acquire(
    make_pool: MakePool, hooks: HookedManager, timeout: Any
) -> None:
    """HAZARD 28"""
    pool = make_pool(hooks, max_size=1, total_max_size=1)
    conn = use(pool, 'a')
    hooks.calls.clear()
    hooks.doing['check_aliveness'] = lambda endpoint, conn: False
    other = pool.acquire('a', timeout)
    assert other is not conn
    assert [call[:3] for call in hooks.calls] == [
        ('check_aliveness', 'a', conn),
        ('on_connection_dead', 'a', conn),
        ('dispose', 'a', conn),
        ('create', 'a', None),
        ('on_acquire', 'a', other),
    ]


def test_a_dead_connection_is_replaced_by_the_next_idle_one(make_pool: MakePool, hooks: HookedManager) -> None:
    pool = make_pool(hooks, min_idle=2)
    dead, alive = pool.acquire('a'), pool.acquire('a')
    pool.release(dead, 'a')
    pool.release(alive, 'a')
    hooks.doing['check_aliveness'] = lambda endpoint, conn: conn is alive
    assert pool.acquire('a') is alive
    assert hooks.disposed == [dead] and len(hooks.created) == 2


def test_who_replaces_a_dead_connection_stands_before_those_who_came_later(
    make_pool: MakePool, hooks: HookedManager
) -> None:
    """HAZARD 13"""
    pool = make_pool(hooks, max_size=1)
    conn = pool.acquire('a')
    first = start_waiting(pool, 'a')
    checking = Gate()
    hooks.doing['check_aliveness'] = lambda *_: (checking(), False)[1]
    pool.release(conn, 'a')
    wait_for(checking.reached)
    second = start_waiting(pool, 'a')
    hooks.doing.clear()
    checking.open.set()
    replacement = result(first)
    assert replacement is not conn and not second.done()
    pool.release(replacement, 'a')
    assert result(second) is replacement
