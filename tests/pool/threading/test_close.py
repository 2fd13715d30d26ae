"""Closing: who waits is told, nothing is served any more, everything is disposed of once, within the bound."""

import threading
import time
from typing import Any, Callable

import pytest
from generic_connection_pool import ConnectionPoolClosedError
from support.threads import (
    Gate, HookedManager, Manager, error, result, start, start_waiting, wait_for, wait_until,
)  # fmt: skip

MakePool = Callable[..., Any]

any_timeout = pytest.mark.parametrize('timeout', [None, 20, 0])
#: seconds that a bounded close may take longer than its bound, on a busy machine
LEEWAY = 5.0


def idle(pool: Any, endpoint: str, count: int = 1) -> Any:
    held = [pool.acquire(endpoint) for _ in range(count)]
    for conn in held:
        pool.release(conn, endpoint)
    return held


def start_closing(pool: Any, *args: Any) -> Any:
    future = start(pool.close, *args)
    wait_until(lambda: pool.closed)
    return future


@any_timeout
def test_close_disposes_of_idle_connections_of_all_endpoints(
    make_pool: MakePool, manager: Manager, timeout: Any
) -> None:
    pool = make_pool(manager)
    conns = idle(pool, 'a', 3) + idle(pool, 'b', 2)
    assert pool.closed is False
    pool.close(timeout)
    assert pool.closed is True and pool.get_size() == 0
    assert sorted(map(id, manager.disposed)) == sorted(map(id, conns))


@any_timeout
def test_after_close_acquire_raises_the_closed_error(make_pool: MakePool, manager: Manager, timeout: Any) -> None:
    pool = make_pool(manager)
    idle(pool, 'a')
    pool.close()
    with pytest.raises(ConnectionPoolClosedError):
        pool.acquire('a', timeout)
    with pytest.raises(ConnectionPoolClosedError):
        with pool.connection('b', timeout):
            pytest.fail('entered')
    assert len(manager.created) == 1 and pool._core.endpoints() == []


@any_timeout
def test_closing_twice_is_fine(make_pool: MakePool, manager: Manager, timeout: Any) -> None:
    pool = make_pool(manager)
    idle(pool, 'a')
    pool.close(timeout)
    pool.close(timeout)
    assert len(manager.disposed) == 1


def test_a_pool_never_used_can_be_closed(make_pool: MakePool, manager: Manager) -> None:
    make_pool(manager).close()
    assert manager.calls == []


@pytest.mark.parametrize('timeout', ['1', float('nan')])
def test_a_bad_timeout_of_close_is_a_value_error_and_closes_nothing(
    make_pool: MakePool, manager: Manager, timeout: Any
) -> None:
    pool = make_pool(manager)
    with pytest.raises(ValueError, match='timeout'):
        pool.close(timeout)
    assert not pool.closed


# -- those who wait


@pytest.mark.parametrize('timeout', [None, 0.2, 20])
@pytest.mark.parametrize('config, endpoint', [({'max_size': 1}, 'a'), ({'total_max_size': 1}, 'b')])
def test_who_waits_gets_the_closed_error_as_soon_as_close_begins(
    make_pool: MakePool, manager: Manager, timeout: Any, config: Any, endpoint: str
) -> None:
    pool = make_pool(manager, **config)
    conn = pool.acquire('a')
    waiters = [start_waiting(pool, endpoint, t) for t in (None, 20, None)]
    closing = start_closing(pool, timeout)
    for waiter in waiters:
        assert isinstance(error(waiter), ConnectionPoolClosedError)
    if timeout != 0.2:
        assert not closing.done(), 'close waits for the connection acquired'
    pool.release(conn, 'a')
    result(closing)
    assert len(manager.created) == 1


def test_nobody_is_served_after_close_has_begun(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager)
    idle(pool, 'a')
    manager.doing['dispose'] = gate = Gate()
    closing = start_closing(pool)
    wait_for(gate.reached)
    for timeout in (None, 0, 20):
        for endpoint in 'ab':
            with pytest.raises(ConnectionPoolClosedError):
                pool.acquire(endpoint, timeout)
    gate.open.set()
    result(closing)


# -- those who hold connections


def test_close_waits_for_acquired_connections_to_be_released(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager)
    first, second = pool.acquire('a'), pool.acquire('b')
    closing = start_closing(pool)
    pool.release(first, 'a')
    assert manager.disposed == [first] and not closing.done()
    pool.release(second, 'b')
    result(closing)
    assert manager.disposed == [first, second]


def test_close_is_asleep_while_it_waits(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 25"""
    pool = make_pool(manager)
    held = pool.acquire('a')

    def close() -> float:
        before = time.thread_time()
        pool.close(timeout=0.4)
        return time.thread_time() - before

    assert result(start(close)) < 0.1
    pool.release(held, 'a')


def test_a_release_during_close_disposes_of_the_connection(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 24"""
    pool = make_pool(manager, min_idle=5)
    with pool.connection('a') as conn:
        closing = start_closing(pool)
        assert manager.disposed == []
    assert manager.disposed == [conn]
    result(closing)


def test_the_timeout_bounds_the_wait_and_then_every_connection_is_closed(
    make_pool: MakePool, manager: Manager
) -> None:
    """HAZARD 25"""
    pool = make_pool(manager)
    held = [pool.acquire('a'), pool.acquire('a'), pool.acquire('b')]
    began = time.monotonic()
    pool.close(timeout=0.1)
    assert 0.1 <= time.monotonic() - began < LEEWAY
    assert sorted(map(id, manager.disposed)) == sorted(map(id, held))
    assert pool.get_size() == 0


def test_a_connection_closed_by_force_is_forgotten_when_it_is_released(make_pool: MakePool, hooks: HookedManager) -> None:
    """HAZARD 24"""
    pool = make_pool(hooks)
    with pool.connection('a') as conn:
        other = pool.acquire('b')
        pool.close(timeout=0)
        assert len(hooks.disposed) == 2
        hooks.calls.clear()
        pool.release(other, 'b')
    assert hooks.calls == [] and len(hooks.disposed) == 2 and conn in hooks.disposed
    pool.close()


def test_an_interrupted_block_is_left_with_its_own_error_after_a_close_by_force(
    make_pool: MakePool, hooks: HookedManager
) -> None:
    """HAZARD 24"""
    pool = make_pool(hooks)
    with pytest.raises(ZeroDivisionError):
        with pool.connection('a'):
            pool.close(timeout=0)
            raise ZeroDivisionError


def test_a_second_close_may_be_stricter_than_the_first(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager)
    held = pool.acquire('a')
    closing = start_closing(pool)
    pool.close(timeout=0)
    result(closing)
    assert manager.disposed == [held]


def test_several_threads_may_close_at_once(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager)
    idle(pool, 'a', 3)
    held = pool.acquire('b')
    closing = [start(pool.close, timeout) for timeout in (None, 20, None, 20)]
    wait_until(lambda: len(manager.disposed) == 3)
    assert not any(future.done() for future in closing)
    pool.release(held, 'b')
    for future in closing:
        result(future)


# -- disposals that hang or are slow


@pytest.mark.parametrize('timeout', [0, 0.1])
@pytest.mark.parametrize('held', [False, True])
def test_close_keeps_its_bound_with_a_disposal_that_hangs_and_disposes_of_the_others(
    make_pool: MakePool, manager: Manager, timeout: float, held: bool
) -> None:
    """HAZARD 25, 42"""
    pool = make_pool(manager)
    conns = [pool.acquire('a') for _ in range(5)]
    gate = Gate()
    manager.doing['dispose'] = lambda endpoint, conn: gate() if conn is conns[1] else None
    if not held:
        for conn in conns:
            pool.release(conn, 'a')
    began = time.monotonic()
    pool.close(timeout)
    assert time.monotonic() - began < timeout + LEEWAY
    wait_until(lambda: len(manager.disposed) == 5)
    wait_until(lambda: pool.get_size() == 1)
    gate.open.set()
    pool.close()
    assert pool.get_size() == 0


def test_close_keeps_its_bound_with_a_create_that_hangs(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 25, 23"""
    pool = make_pool(manager)
    manager.doing['create'] = gate = Gate()
    caller = start(pool.acquire, 'a')
    wait_for(gate.reached)
    began = time.monotonic()
    pool.close(timeout=0.1)
    assert time.monotonic() - began < LEEWAY
    gate.open.set()
    assert isinstance(error(caller), ConnectionPoolClosedError)
    assert len(manager.created) == len(manager.disposed) == 1


def test_close_disposes_side_by_side_when_it_has_a_bound(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager)
    idle(pool, 'a', 8)
    together = threading.Barrier(8)
    manager.doing['dispose'] = lambda *_: together.wait(20)
    pool.close(timeout=20)
    assert pool.get_size() == 0


def test_dispose_is_told_what_is_left_of_the_timeout_of_close(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager, dispose_timeout=15)
    idle(pool, 'a', 2)
    pool.close(timeout=10)
    for call in manager.called('dispose'):
        assert call.timeout is not None and 5 < call.timeout <= 10


def test_dispose_is_told_the_dispose_timeout_if_that_is_shorter(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager, dispose_timeout=2)
    idle(pool, 'a')
    pool.close(timeout=10)
    assert [call.timeout for call in manager.called('dispose')] == [2.0]


# -- races


def test_what_is_created_while_close_begins_is_disposed_of_and_its_caller_told(
    make_pool: MakePool, manager: Manager
) -> None:
    """HAZARD 23"""
    pool = make_pool(manager)
    manager.doing['create'] = gate = Gate()
    caller = start(pool.acquire, 'a')
    wait_for(gate.reached)
    closing = start_closing(pool)
    assert not closing.done()
    gate.open.set()
    assert isinstance(error(caller), ConnectionPoolClosedError)
    result(closing)
    assert manager.disposed == manager.created and len(manager.created) == 1


@pytest.mark.parametrize('answer', [True, False, ValueError('broken'), KeyboardInterrupt()])
@pytest.mark.parametrize('timeout', [None, 0])
@pytest.mark.parametrize('hook', ['check_aliveness', 'on_acquire'])
def test_a_connection_being_checked_while_close_begins_is_not_handed_out(
    make_pool: MakePool, hooks: HookedManager, timeout: Any, answer: Any, hook: str
) -> None:
    """HAZARD 23"""
    pool = make_pool(hooks)
    idle(pool, 'a')
    gate = Gate()

    def action(*_: Any) -> Any:
        gate()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    hooks.doing[hook] = action
    caller = start(pool.acquire, 'a')
    wait_for(gate.reached)
    closing = start_closing(pool, timeout)
    if timeout == 0:
        result(closing)
    gate.open.set()
    if isinstance(answer, BaseException):
        assert error(caller) is answer
    else:
        assert isinstance(error(caller), ConnectionPoolClosedError)
    result(closing)
    assert pool.get_size() == 0 and len(hooks.called('dispose')) == 1


@pytest.mark.parametrize('timeout', [None, 0])
def test_a_release_whose_hook_is_running_while_close_begins_ends_well(
    make_pool: MakePool, hooks: HookedManager, timeout: Any
) -> None:
    """HAZARD 24"""
    pool = make_pool(hooks)
    conn = pool.acquire('a')
    hooks.doing['on_release'] = gate = Gate()
    releasing = start(pool.release, conn, 'a')
    wait_for(gate.reached)
    closing = start_closing(pool, timeout)
    if timeout == 0:
        result(closing)
    gate.open.set()
    assert error(releasing) is None and error(closing) is None
    assert pool.get_size() == 0 and hooks.disposed == [conn]


def test_close_racing_acquires_and_releases_leaves_nothing_behind(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 23, 24"""
    for _ in range(15):
        pool = make_pool(manager, max_size=3, total_max_size=4)
        begin = threading.Barrier(7)

        def work(pool: Any = pool, begin: threading.Barrier = begin) -> int:
            begin.wait()
            turns = 0
            try:
                while True:
                    with pool.connection('ab'[turns % 2], timeout=20):
                        turns += 1
            except ConnectionPoolClosedError:
                return turns

        workers = [start(work) for _ in range(6)]
        begin.wait()
        wait_until(lambda pool=pool: pool.get_size() > 0)  # type: ignore[misc]
        pool.close()
        assert pool.get_size() == 0
        for worker in workers:
            result(worker)
        manager.check_accounts()
