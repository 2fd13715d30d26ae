"""A signal handler raises KeyboardInterrupt at any bytecode of the facade: no slot and no connection is lost."""

import contextlib
import threading
from typing import Any, Callable, Iterator, List, Set

import pytest
from support.injection import FEW, Injection, everywhere
from support.threads import HookedManager, Manager, finish, is_free, start, wait_until

from generic_connection_pool.threading import ConnectionPool

Inject = Callable[[Callable[[], Any]], Injection]


def interrupt() -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def interrupted(inject: Inject) -> Iterator[Injection]:
    injection = inject(interrupt)
    with contextlib.suppress(KeyboardInterrupt), injection:
        yield injection


def check(pool: Any, *endpoints: str) -> None:
    """Nobody holds or waits for anything; everything can be had."""
    wait_until(lambda: not any(pool.get_endpoint_pool_size(endpoint, acquired=True) for endpoint in endpoints))
    for endpoint in endpoints:
        assert pool._core.waiting(endpoint) == 0
        wait_until(lambda endpoint=endpoint: is_free(pool, endpoint), f'{endpoint} is free')  # type: ignore[misc]
    finish(pool)


def idle(pool: Any, endpoint: str) -> Any:
    conn = pool.acquire(endpoint)
    pool.release(conn, endpoint)
    return conn


any_timeout = pytest.mark.parametrize('timeout', [None, 20.0])


@any_timeout
def test_while_a_connection_is_created_and_released(timeout: Any) -> None:
    def scenario(inject: Inject) -> None:
        pool: Any = ConnectionPool(HookedManager(), max_size=1)
        with interrupted(inject):
            with pool.connection('a', timeout):
                pass
        check(pool, 'a')

    assert everywhere(scenario) > FEW


@any_timeout
def test_while_an_idle_connection_is_acquired_and_released(timeout: Any) -> None:
    def scenario(inject: Inject) -> None:
        pool: Any = ConnectionPool(HookedManager(), max_size=1)
        idle(pool, 'a')
        with interrupted(inject):
            with pool.connection('a', timeout):
                pass
        check(pool, 'a')

    assert everywhere(scenario) > FEW


def test_while_a_block_that_raised_is_left() -> None:
    def scenario(inject: Inject) -> None:
        pool: Any = ConnectionPool(HookedManager(), max_size=1)
        with contextlib.suppress(ZeroDivisionError), interrupted(inject):
            with pool.connection('a'):
                raise ZeroDivisionError
        check(pool, 'a')

    assert everywhere(scenario) > FEW


@any_timeout
def test_while_an_acquire_waits_and_is_served(timeout: Any) -> None:
    """HAZARD 10"""

    def scenario(inject: Inject) -> None:
        pool: Any = ConnectionPool(HookedManager(), max_size=1)
        conn = pool.acquire('a')
        over = threading.Event()

        def release() -> None:
            wait_until(lambda: pool._core.waiting('a') == 1 or over.is_set())
            pool.release(conn, 'a')

        other = start(release)
        try:
            with interrupted(inject):
                with pool.connection('a', timeout):
                    pass
        finally:
            over.set()
            other.result(20)
        check(pool, 'a')

    assert everywhere(scenario) > FEW


def test_while_an_acquire_times_out() -> None:
    def scenario(inject: Inject) -> None:
        pool: Any = ConnectionPool(HookedManager(), max_size=1)
        conn = pool.acquire('a')
        with contextlib.suppress(TimeoutError), interrupted(inject):
            pool.acquire('a', timeout=0)
        pool.release(conn, 'a')
        check(pool, 'a')

    assert everywhere(scenario) > FEW


@any_timeout
def test_while_a_connection_is_evicted(timeout: Any) -> None:
    def scenario(inject: Inject) -> None:
        pool: Any = ConnectionPool(Manager(), total_max_size=1)
        idle(pool, 'a')
        with interrupted(inject):
            with pool.connection('b', timeout):
                pass
        check(pool, 'a', 'b')

    assert everywhere(scenario) > FEW


@any_timeout
def test_while_dead_connections_are_replaced(timeout: Any) -> None:
    def scenario(inject: Inject) -> None:
        manager = HookedManager()
        pool: Any = ConnectionPool(manager, max_size=2, min_idle=2)
        for conn in [pool.acquire('a') for _ in range(2)]:
            pool.release(conn, 'a')
        manager.doing['check_aliveness'] = lambda endpoint, conn: conn.number > 2
        with interrupted(inject):
            with pool.connection('a', timeout):
                pass
        check(pool, 'a')

    assert everywhere(scenario) > FEW


def test_what_was_found_dead_is_not_found_alive_by_the_next_one() -> None:
    """HAZARD 2"""

    def scenario(inject: Inject) -> None:
        manager = HookedManager()
        pool: Any = ConnectionPool(manager, max_size=1)
        idle(pool, 'a')
        found_dead: List[Any] = []

        def find_dead_once(endpoint: str, conn: Any) -> bool:
            if found_dead:
                return True
            found_dead.append(conn)
            return False

        manager.doing['check_aliveness'] = find_dead_once
        with interrupted(inject):
            with pool.connection('a'):
                pass
        with pool.connection('a') as conn:
            assert conn not in found_dead
        check(pool, 'a')

    assert everywhere(scenario) > FEW


@pytest.mark.parametrize('is_new', [False, True])
def test_what_was_prepared_for_a_user_is_cleaned_up_before_the_next_one(is_new: bool) -> None:
    """HAZARD 2"""

    def scenario(inject: Inject) -> None:
        manager = HookedManager()
        pool: Any = ConnectionPool(manager, max_size=1)
        if not is_new:
            idle(pool, 'a')
        prepared: Set[Any] = set()

        def prepare(endpoint: str, conn: Any) -> None:
            assert conn not in prepared
            prepared.add(conn)

        manager.doing['on_acquire'] = prepare
        manager.doing['on_release'] = lambda endpoint, conn: prepared.remove(conn)
        with interrupted(inject):
            with pool.connection('a'):
                pass
        with pool.connection('a'):
            pass
        check(pool, 'a')

    assert everywhere(scenario) > FEW


@pytest.mark.parametrize('hook', ['create', 'check_aliveness', 'on_acquire', 'on_connection_dead', 'on_release'])
@pytest.mark.parametrize('exc', [ValueError, TimeoutError])
def test_while_the_failure_of_a_hook_is_cleaned_up(hook: str, exc: Any) -> None:
    def scenario(inject: Inject) -> None:
        manager = HookedManager()
        pool: Any = ConnectionPool(manager, max_size=1)
        if hook != 'create':
            idle(pool, 'a')
        if hook == 'on_connection_dead':
            manager.doing['check_aliveness'] = lambda *_: False

        def fail(*_: Any) -> None:
            manager.doing.clear()
            raise exc

        manager.doing[hook] = fail
        with contextlib.suppress(exc), interrupted(inject):
            with pool.connection('a'):
                pass
        manager.doing.clear()
        check(pool, 'a')

    assert everywhere(scenario) > FEW


def test_while_a_release_disposes_of_what_is_due() -> None:
    def scenario(inject: Inject) -> None:
        pool: Any = ConnectionPool(Manager(), max_size=3, min_idle=0, max_lifetime=0.002)
        conns = [pool.acquire('a') for _ in range(3)]
        for conn in conns[:2]:
            pool.release(conn, 'a')
        wait_until(lambda: pool._core.due(monotonic()) or pool.get_size() == 1)
        with interrupted(inject):
            pool.release(conns[2], 'a')
        check(pool, 'a')

    from generic_connection_pool._core import monotonic

    assert everywhere(scenario) > FEW


@pytest.mark.parametrize('timeout', [None, 0, 20.0])
def test_while_the_pool_is_closed_which_can_be_done_again(timeout: Any) -> None:
    """HAZARD 26"""

    def scenario(inject: Inject) -> None:
        manager = Manager()
        pool: Any = ConnectionPool(manager)
        idle(pool, 'a')
        idle(pool, 'b')
        with interrupted(inject):
            pool.close(timeout)
        pool.close()
        assert pool.get_size() == 0 and len(manager.disposed) == 2
        finish(pool)

    assert everywhere(scenario) > FEW


def test_while_acquired_connections_are_closed_by_force() -> None:
    def scenario(inject: Inject) -> None:
        manager = Manager()
        pool: Any = ConnectionPool(manager)
        held = pool.acquire('a')
        with interrupted(inject):
            pool.close(timeout=0)
        pool.close(timeout=0)
        wait_until(lambda: pool.get_size() == 0)
        pool.release(held, 'a')
        finish(pool)

    assert everywhere(scenario) > FEW


def test_while_a_connection_is_created_for_a_pool_that_is_closed_meanwhile() -> None:
    """HAZARD 23"""

    def scenario(inject: Inject) -> None:
        manager = Manager()
        pool: Any = ConnectionPool(manager)
        manager.doing['create'] = lambda *_: pool._core.close()
        with contextlib.suppress(ConnectionPoolClosedError), interrupted(inject):
            pool.acquire('a')
        if not pool.closed:
            pool.close()
        assert pool.get_size() == 0
        finish(pool)

    from generic_connection_pool import ConnectionPoolClosedError

    assert everywhere(scenario) > FEW
