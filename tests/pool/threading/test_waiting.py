"""Waiting for a connection of one endpoint: in order of arrival, parked, and without losing what was granted."""

import threading
import time
from typing import Any, Callable, List

import pytest
from generic_connection_pool.exceptions import ConnectionPoolTimeoutError
from support.injection import FEW, everywhere
from support.threads import (
    Gate, HookedManager, Manager, error, is_free, let_pass, result, start, start_waiting, wait_for, wait_until,
)  # fmt: skip

MakePool = Callable[..., Any]


def test_a_connection_released_goes_to_who_waits(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager, max_size=1)
    conn = pool.acquire('a')
    waiter = start_waiting(pool, 'a')
    pool.release(conn, 'a')
    assert result(waiter) is conn and len(manager.created) == 1


def test_waiters_are_served_in_the_order_of_arrival(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 13"""
    pool = make_pool(manager, max_size=1)
    conn = pool.acquire('a')
    waiters = [start_waiting(pool, 'a') for _ in range(5)]
    for place, waiter in enumerate(waiters):
        pool.release(conn, 'a')
        assert result(waiter) is conn
        assert not any(later.done() for later in waiters[place + 1 :])


def test_nobody_overtakes_those_who_wait(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 13"""
    pool = make_pool(manager, max_size=1)
    conn = pool.acquire('a')
    waiter = start_waiting(pool, 'a')
    pool.release(conn, 'a')
    with pytest.raises(TimeoutError):  # whether the waiter has run yet or not
        pool.acquire('a', timeout=0)
    assert result(waiter) is conn


def test_who_has_just_released_stands_behind_those_who_wait(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 13"""
    pool = make_pool(manager, max_size=1)
    order: List[Any] = []

    def use(me: Any) -> None:
        with pool.connection('a'):
            order.append(me)

    waiters = []
    with pool.connection('a'):
        for place in range(5):
            waiters.append(start(use, place))
            wait_until(lambda: pool._core.waiting('a') == len(waiters))
    use('me')
    assert order == [0, 1, 2, 3, 4, 'me']
    for waiter in waiters:
        result(waiter)


@pytest.mark.parametrize('threads, size', [(16, 4), (5, 1)])
def test_turns_are_shared_evenly_under_contention(
    make_pool: MakePool, manager: Manager, threads: int, size: int
) -> None:  # fmt: skip
    """HAZARD 13: published pools serve one thread once and another thousands of times."""
    pool = make_pool(manager, max_size=size)
    turns = [0] * threads
    finished = threading.Event()
    begin = threading.Barrier(threads)

    def work(me: int) -> None:
        begin.wait()
        while not finished.is_set():
            with pool.connection('a'):
                time.sleep(0.0005)  # what it is held for
                turns[me] += 1
                if sum(turns) >= 40 * threads:
                    finished.set()

    for worker in [start(work, me) for me in range(threads)]:
        result(worker)
    assert sum(turns) >= 40 * threads and min(turns) >= 30, turns
    assert len(manager.created) == size


def test_the_timeout_of_one_waiter_does_not_touch_the_others(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 6"""
    pool = make_pool(manager, max_size=1)
    conn = pool.acquire('a')
    patient = start_waiting(pool, 'a')
    impatient = start_waiting(pool, 'a', timeout=0.02)
    also_patient = start_waiting(pool, 'a')
    assert isinstance(error(impatient), ConnectionPoolTimeoutError)
    assert pool._core.waiting('a') == 2
    for waiter in (patient, also_patient):
        pool.release(conn, 'a')
        assert result(waiter) is conn


@pytest.mark.parametrize('timeout', [0, 0.003])
@pytest.mark.parametrize('max_lifetime', [3600, 0])
def test_what_is_granted_at_any_moment_of_a_timeout_is_delivered_or_left(
    make_pool: MakePool, timeout: float, max_lifetime: float
) -> None:
    """HAZARD 4, 6, 12: the release comes between any two bytecodes of the acquire; without a lifetime, it grants a slot."""
    outcomes = set()

    def scenario(inject: Any) -> None:
        manager = HookedManager()
        pool = make_pool(manager, max_size=1, max_lifetime=max_lifetime)
        conn = pool.acquire('a')
        try:
            with inject(lambda: pool.release(conn, 'a')) as injection:
                granted = pool.acquire('a', timeout=timeout)
        except ConnectionPoolTimeoutError:
            outcomes.add('timeout')
            assert pool.get_endpoint_pool_size('a', acquired=True) == (not injection.happened)
        else:
            outcomes.add('granted')
            assert (granted is conn) is bool(max_lifetime)
            assert pool.get_endpoint_pool_size('a', acquired=True) == 1
            pool.release(granted, 'a')
        assert pool._core.waiting('a') == 0
        if injection.happened:
            assert is_free(pool, 'a')

    assert everywhere(scenario, at_most=120) > FEW
    assert outcomes == {'timeout', 'granted'}


def test_a_hand_off_that_races_a_timeout_loses_nothing(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 4, 6: as the previous two, on the real thing: the release comes about when the timeout does."""
    pool = make_pool(manager, max_size=1)
    outcomes = set()
    for step in range(150):
        conn = pool.acquire('a', timeout=5)
        waiter = start(pool.acquire, 'a', 0.002)
        wait_until(lambda: pool._core.waiting('a') == 1 or waiter.done())
        if step % 3:
            let_pass(0.0015 + 0.00005 * (step % 20))
        pool.release(conn, 'a')
        if error(waiter) is None:
            pool.release(waiter.result(), 'a')
        else:
            assert isinstance(error(waiter), ConnectionPoolTimeoutError)
        outcomes.add(error(waiter) is None)
        assert pool.get_size() == pool.get_endpoint_pool_size('a', acquired=False) == 1
        assert pool._core.waiting('a') == 0
    assert True in outcomes


def test_who_waits_is_woken_however_late_it_falls_asleep(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 12"""
    from generic_connection_pool._core import Ticket

    ticket = Ticket(0)
    ticket.wake()
    ticket.wake()
    assert ticket.wait() is True
    assert ticket.wait(0) is False  # several wake-ups before a sleep are one


def test_leaving_the_queue_costs_the_same_however_long_it_is() -> None:
    """HAZARD 17"""
    from generic_connection_pool._core import Core, Ticket

    def cost(waiters: int) -> float:
        core = Core(1, 1, 1, 60.0, 3600.0)
        holder = Ticket(0)
        core.request(holder, 'a', 0.0)
        tickets = [Ticket(0) for _ in range(waiters)]
        for ticket in tickets:
            core.request(ticket, 'a', 0.0)
        middle_first = sorted(range(waiters), key=lambda place: abs(place - waiters // 2))[:200]
        began = time.perf_counter()
        for place in middle_first:
            assert core.withdraw(tickets[place])
        return time.perf_counter() - began

    short = min(cost(400) for _ in range(5))
    long = min(cost(20_000) for _ in range(5))
    assert long < 12 * short, f'{long:.6f} s in a queue fifty times as long, {short:.6f} s before'


def test_who_waits_uses_no_processor(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 19"""
    pool = make_pool(manager, max_size=1)
    pool.acquire('a')

    def wait() -> float:
        before = time.thread_time()
        with pytest.raises(TimeoutError):
            pool.acquire('a', timeout=0.4)
        return time.thread_time() - before

    assert min(result(start(wait)) for _ in range(2)) < 0.04


def test_a_release_wakes_one_waiter(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 19, 22"""
    pool = make_pool(manager, max_size=1)
    conn = pool.acquire('a')
    waiters = [start_waiting(pool, 'a') for _ in range(5)]
    pool.release(conn, 'a')
    assert result(waiters[0]) is conn
    assert pool._core.waiting('a') == 4 and not any(waiter.done() for waiter in waiters[1:])


# -- the message of a timeout


def test_the_timeout_error_tells_endpoint_wait_sizes_and_who_holds(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 18"""
    pool = make_pool(manager, max_size=3, total_max_size=7)
    start(pool.acquire, ('host', 5432), name='borrower').result(10)
    gate = Gate()

    def hold() -> None:
        pool.acquire(('host', 5432))
        gate()

    holder = start(hold, name='the holder')
    wait_for(gate.reached)
    pool.acquire(('host', 5432))
    pool.acquire('other')
    other = start_waiting(pool, ('host', 5432))
    with pytest.raises(ConnectionPoolTimeoutError) as caught:
        pool.acquire(('host', 5432), timeout=0.05)
    text = str(caught.value)
    assert "('host', 5432)" in text
    assert 'within 0.05' in text or 'within 0.06' in text or 'within 0.0' in text or 'within 0.1' in text
    assert '3 acquired, 0 idle, 3 of at most 3 in all, 1 others waiting' in text
    assert 'all endpoints: 4 of at most 7' in text
    assert 'the holder' in text and threading.current_thread().name in text
    gate.open.set()
    result(holder)
    pool.close(0)
    error(other)


def test_a_thread_that_waits_for_itself_is_told_so(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 18"""
    pool = make_pool(manager, max_size=2)
    with pool.connection('a'), pool.connection('a'):
        with pytest.raises(ConnectionPoolTimeoutError, match='2 by this very thread'):
            pool.acquire('a', timeout=0.01)


def test_a_thread_of_the_same_name_is_not_taken_for_this_one(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 18"""
    pool = make_pool(manager, max_size=1)
    gate = Gate()

    def hold() -> None:
        with pool.connection('a'):
            gate()

    holder = start(hold, name=threading.current_thread().name)
    wait_for(gate.reached)
    with pytest.raises(ConnectionPoolTimeoutError) as caught:
        pool.acquire('a', timeout=0)
    assert 'this very thread' not in str(caught.value)
    gate.open.set()
    result(holder)


def test_a_timeout_of_the_manager_is_not_dressed_up_as_one_of_the_pool(
    make_pool: MakePool, manager: Manager
) -> None:
    pool = make_pool(manager)
    failure = TimeoutError('connect')

    def fail(*_: Any) -> None:
        raise failure

    manager.doing['create'] = fail
    with pytest.raises(TimeoutError) as caught:
        pool.acquire('a', timeout=5)
    assert caught.value is failure
