"""Finalizers that release, close or look on, run by the garbage collector in the middle of the pool's own operations."""

import contextlib
import gc
import threading
import weakref
from typing import Any, Callable, Iterator, List

import pytest
from generic_connection_pool import ConnectionPoolClosedError
from generic_connection_pool._core import core_implementation, monotonic
from generic_connection_pool.threading import ConnectionPool
from generic_connection_pool.threading import pool as pool_module
from support.injection import CORE, FACADE, FEW, everywhere
from support.threads import (
    HookedManager, Manager, finish, is_free, result, start, wait_until,
)  # fmt: skip

Operation = Callable[[Any, Manager], None]

#: bytecodes at which something happens, for each operation
PLACES = 60
#: allocations after which the garbage is collected, for each operation
ALLOCATIONS = range(1, 46)


@pytest.fixture(autouse=True)
def quick_collections(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing but the garbage of the test is looked at; and nobody waits long for what closing by force left behind."""
    monkeypatch.setattr(pool_module, 'LAST_GRACE', 0.001)
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def create(pool: Any, manager: Manager) -> None:
    with pool.connection('new'):
        pass


def reuse(pool: Any, manager: Manager) -> None:
    with pool.connection('a'):
        pass


def acquire_and_release(pool: Any, manager: Manager) -> None:
    pool.release(pool.acquire('a', timeout=20), 'a')


def evict(pool: Any, manager: Manager) -> None:
    for endpoint, timeout in (('c', None), ('d', 20), ('e', 20)):
        with pool.connection(endpoint, timeout):
            pass


def time_out(pool: Any, manager: Manager) -> None:
    with pool.connection('a'):
        with contextlib.suppress(TimeoutError):
            pool.acquire('a', timeout=0)


def fail_to_create(pool: Any, manager: Manager) -> None:
    def fail(*_: Any) -> None:
        manager.doing.clear()
        raise ValueError

    manager.doing['create'] = fail
    with contextlib.suppress(ValueError):
        pool.acquire('new')
    manager.doing.clear()


def replace_dead(pool: Any, manager: Manager) -> None:
    manager.doing['check_aliveness'] = lambda *_: False
    for timeout in (None, 20):
        pool.release(pool.acquire('a', timeout), 'a')
    manager.doing.clear()


def fail_on_release(pool: Any, manager: Manager) -> None:
    def fail(endpoint: str, _: Any) -> None:
        if endpoint == 'a':  # not in the finalizer's own release
            manager.doing.clear()
            raise ValueError

    manager.doing['on_release'] = fail
    with contextlib.suppress(ValueError):
        reuse(pool, manager)
    manager.doing.clear()


def time_is_over(pool: Any, manager: Manager) -> None:
    core = pool._core
    # on a machine that has stood still meanwhile, all may have been disposed of when they were released
    wait_until(lambda: core.closed or core.due(monotonic()) or not any(map(core.idle_size, 'abx')))
    create(pool, manager)


OPERATIONS = [
    create, reuse, acquire_and_release, evict, time_out, fail_to_create, replace_dead, fail_on_release, time_is_over,
]  # fmt: skip
some_operations = pytest.mark.parametrize('operation', [create, reuse, evict], ids=lambda operation: operation.__name__)
any_operation = pytest.mark.parametrize('operation', OPERATIONS, ids=lambda operation: operation.__name__)


def prepared(operation: Operation, manager: Manager) -> Any:
    """A pool with idle connections of ``'a'`` and ``'b'``, and one of ``'x'`` that somebody has lost."""
    lifetime = 0.003 if operation is time_is_over else 3600
    pool: Any = ConnectionPool(manager, max_size=1, total_max_size=3 if operation is evict else 6, max_lifetime=lifetime)
    for endpoint in 'abx':
        pool.release(pool.acquire(endpoint), endpoint)
    return pool


def explored(operation: Operation, make_action: Callable[[Any], Callable[[], Any]], check: Callable[[Any], None]) -> int:
    """Have an action happen at every bytecode of the facade and of the core, if that is Python."""

    def scenario(inject: Any) -> None:
        manager = HookedManager()
        pool = prepared(operation, manager)
        action = make_action(pool)

        def finalize() -> None:
            with contextlib.suppress(RuntimeError, ConnectionPoolClosedError):  # as in a finalizer
                action()

        with contextlib.suppress(ConnectionPoolClosedError), inject(finalize) as injection:
            operation(pool, manager)
        manager.doing.clear()
        if injection.happened:
            check(pool)
        else:
            action()
        finish(pool)

    places: int = result(start(everywhere, scenario, FACADE + CORE, PLACES))
    return places


@any_operation
def test_a_finalizer_may_release_at_any_bytecode(operation: Operation) -> None:
    """HAZARD 37"""

    def make_action(pool: Any) -> Callable[[], Any]:
        lost = pool.acquire('x')
        return lambda: pool.release(lost, 'x')

    def check(pool: Any) -> None:
        wait_until(lambda: not pool.get_endpoint_pool_size('x', acquired=True))
        wait_until(lambda: all(is_free(pool, endpoint) for endpoint in 'abx'))

    assert explored(operation, make_action, check) > FEW


@some_operations
def test_a_finalizer_may_leave_a_block_at_any_bytecode(operation: Operation) -> None:
    """HAZARD 37: a generator that is collected, suspended within ``with pool.connection(...)``."""

    def make_action(pool: Any) -> Callable[[], Any]:
        def block() -> Iterator[None]:
            with pool.connection('x'):
                yield

        generator = block()
        next(generator)
        return generator.close  # type: ignore[attr-defined, no-any-return]

    def check(pool: Any) -> None:
        wait_until(lambda: not pool.get_endpoint_pool_size('x', acquired=True))
        wait_until(lambda: all(is_free(pool, endpoint) for endpoint in 'abx'))

    assert explored(operation, make_action, check) > FEW


def can_be_closed_unbounded(operation: Operation) -> None:
    if operation is time_out:
        pytest.skip('a thread that waits in close() for what it holds itself waits for ever')
    if core_implementation == 'python':
        pytest.skip('a documented limit of the pure core: a finalizer may have to wait for its own thread')


@any_operation
def test_a_finalizer_may_close_without_a_bound_at_any_bytecode(operation: Operation) -> None:
    """HAZARD 37"""
    can_be_closed_unbounded(operation)
    close_everywhere(operation, None)


@some_operations
@pytest.mark.parametrize('timeout', [0, 0.002])
def test_a_finalizer_may_close_with_a_bound_at_any_bytecode(operation: Operation, timeout: Any) -> None:
    """HAZARD 37"""
    close_everywhere(operation, timeout)


def close_everywhere(operation: Operation, timeout: Any) -> None:

    def check(pool: Any) -> None:
        wait_until(lambda: pool.closed)
        wait_until(lambda: pool.get_size() == 0)

    assert explored(operation, lambda pool: lambda: pool.close(timeout), check) > FEW


@some_operations
def test_a_finalizer_may_look_on_or_try_to_acquire_at_any_bytecode(operation: Operation) -> None:
    """HAZARD 37: within the pure core it cannot acquire and is told so; it never blocks."""

    def make_action(pool: Any) -> Callable[[], Any]:
        def action() -> None:
            assert pool.get_size() >= 0 and pool.is_full in (True, False)
            with contextlib.suppress(TimeoutError):
                with pool.connection('y', timeout=0):
                    pass

        return action

    def check(pool: Any) -> None:
        for endpoint in 'abxy':  # one by one: there may not be room for all of them
            wait_until(lambda endpoint=endpoint: is_free(pool, endpoint))  # type: ignore[misc]

    assert explored(operation, make_action, check) > FEW


# -- the real garbage collector


class Lost:
    """Garbage in a cycle, whose finalizer does something."""

    def __init__(self, action: Callable[[], Any]):
        self.action = action
        self.cycle = self

    def __del__(self) -> None:
        self.action()


class Followed:
    """Garbage in a cycle, for weak references with callbacks."""

    def __init__(self) -> None:
        self.cycle = self


@contextlib.contextmanager
def collecting_after(allocations: int) -> Iterator[None]:
    """The garbage made so far is collected when so many containers have been made within the block."""
    gc.collect()
    before = gc.get_threshold()
    gc.disable()
    try:
        yield
    finally:
        gc.disable()
        gc.set_threshold(*before)
        gc.enable()


def until_collected(condition: Callable[[], Any]) -> None:
    """Wait for what a finalizer brings about. To collect does nothing while another thread does."""
    wait_until(lambda: gc.collect() is not None and condition())


def arm(allocations: int) -> None:
    gc.set_threshold(allocations, 1000, 1000)
    gc.enable()


@any_operation
@pytest.mark.parametrize('how', ['__del__', 'weakref'])
def test_the_garbage_collector_may_release_within_any_operation(operation: Operation, how: str) -> None:
    """HAZARD 37"""

    def work() -> None:
        for allocations in ALLOCATIONS:
            manager = HookedManager() if allocations % 2 else Manager()
            pool = prepared(operation, manager)
            lost = pool.acquire('x')
            if allocations == 1 and operation is time_is_over:
                pool.get_size()
            references: List[Any] = []
            with collecting_after(allocations):
                if how == '__del__':
                    Lost(lambda pool=pool, lost=lost: pool.release(lost, 'x'))  # type: ignore[misc]
                else:
                    release = lambda _, pool=pool, lost=lost: pool.release(lost, 'x')  # noqa: E731
                    references.append(weakref.ref(Followed(), release))
                arm(allocations)
                operation(pool, manager)
            manager.doing.clear()
            until_collected(lambda pool=pool: not pool.get_endpoint_pool_size('x', acquired=True))  # type: ignore[misc]
            wait_until(lambda pool=pool: all(is_free(pool, endpoint) for endpoint in 'abx'))  # type: ignore[misc]
            finish(pool)

    result(start(work))


@any_operation
def test_the_garbage_collector_may_close_within_any_operation(operation: Operation) -> None:
    """HAZARD 37"""

    if operation is time_out:
        pytest.skip('a thread that waits in close() for what it holds itself waits for ever')

    def work() -> None:
        for allocations in ALLOCATIONS:
            manager = HookedManager() if allocations % 2 else Manager()
            pool = prepared(operation, manager)
            with collecting_after(allocations):
                Lost(lambda pool=pool: pool.close(0))  # type: ignore[misc]
                arm(allocations)
                with contextlib.suppress(ConnectionPoolClosedError):
                    operation(pool, manager)
            manager.doing.clear()
            until_collected(lambda pool=pool: pool.closed and pool.get_size() == 0)  # type: ignore[misc]
            finish(pool)

    result(start(work))


def test_garbage_collected_all_the_time_under_many_threads_releases_everything() -> None:
    """HAZARD 37"""
    manager = HookedManager()
    pool: Any = ConnectionPool(manager, max_size=20, total_max_size=24, min_idle=0, idle_timeout=0.001)
    before = gc.get_threshold()
    gc.set_threshold(7, 5, 1000)
    finished = threading.Event()

    def work(me: int) -> None:
        for place in range(120):
            endpoint = 'abc'[(place + me) % 3]
            conn = pool.acquire(endpoint, timeout=20)
            if place % 3:
                pool.release(conn, endpoint)
            else:
                Lost(lambda conn=conn, endpoint=endpoint: pool.release(conn, endpoint))  # type: ignore[misc]

    def collect() -> None:
        while not finished.is_set():
            gc.collect()
            finished.wait(0.002)

    try:
        collector = start(collect)
        for worker in [start(work, me) for me in range(4)]:
            result(worker)
    finally:
        finished.set()
        gc.set_threshold(*before)
    result(collector)
    until_collected(lambda: not any(pool.get_endpoint_pool_size(endpoint, acquired=True) for endpoint in 'abc'))
    finish(pool)
