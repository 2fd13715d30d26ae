"""What each thread has in its hands: slots for which a ``close`` inside its own unfinished operation must not wait."""

import contextlib
import gc
import sys
import weakref
from types import FrameType
from typing import Any, Callable, List, Optional

import pytest
from generic_connection_pool import ConnectionPoolClosedError
from generic_connection_pool._core import core_implementation
from generic_connection_pool.threading import BaseConnectionManager, ConnectionPool
from generic_connection_pool.threading.workers import Workers
from support.injection import CORE, FACADE, FEW, STEP, Injection
from support.threads import Connection, HookedManager, Manager, finish, raising, result, start, wait_until


class Throughout(Injection):
    """Runs an action before each bytecode, not just one of them."""

    def _trace_step(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == STEP:
            self.seen += 1
            self.action()
        return self._trace_step


def under_way(pool: Any) -> int:
    """Slots in which a connection is being created or disposed of."""
    core = pool._core
    return sum(core.size(key) - core.idle_size(key) - core.lent_size(key) for key in core.endpoints())


def create(pool: Any, manager: Manager) -> None:
    pool.release(pool.acquire('new'), 'new')


def reuse(pool: Any, manager: Manager) -> None:
    pool.release(pool.acquire('a'), 'a')


def evict(pool: Any, manager: Manager) -> None:
    for endpoint in 'cd':
        pool.release(pool.acquire(endpoint), endpoint)


def fail_to_create(pool: Any, manager: Manager) -> None:
    manager.doing['create'] = raising(ValueError())
    with pytest.raises(ValueError):
        pool.acquire('new')


def replace_dead(pool: Any, manager: Manager) -> None:
    manager.doing['check_aliveness'] = lambda *_: False
    pool.release(pool.acquire('a'), 'a')


def fail_on_release(pool: Any, manager: Manager) -> None:
    manager.doing['on_release'] = raising(ValueError())
    with pytest.raises(ValueError):
        reuse(pool, manager)


def break_it(pool: Any, manager: Manager) -> None:
    manager.doing['is_reusable'] = lambda *_: False
    with contextlib.suppress(ArithmeticError), pool.connection('a'):
        raise ArithmeticError


OPERATIONS = [create, reuse, evict, fail_to_create, replace_dead, fail_on_release, break_it]


@pytest.mark.parametrize('operation', OPERATIONS, ids=lambda operation: operation.__name__)
def test_what_is_under_way_is_in_the_hands_of_its_thread_at_any_bytecode(operation: Callable[..., None]) -> None:
    """HAZARD 37"""
    manager = HookedManager()
    pool: Any = ConnectionPool(manager, max_size=1, total_max_size=2 if operation is evict else 6)
    for endpoint in 'ab':
        pool.release(pool.acquire(endpoint), endpoint)
    wrong: List[Any] = []

    def look() -> None:
        if not (core_implementation == 'python' and pool._core.mutex.busy):
            least, found = under_way(pool), pool._slots_in_hand()
            most = pool._core.total - sum(map(pool._core.idle_size, pool._core.endpoints()))
            if not least <= found <= most:
                wrong.append((least, found, most, sys._getframe(2).f_code.co_name, sys._getframe(2).f_lineno))

    def work() -> int:
        with Throughout(sys.maxsize, look, FACADE + CORE) as looking:
            operation(pool, manager)
        assert pool._slots_in_hand() == 0, 'nothing is left over'
        return looking.seen

    assert result(start(work)) > FEW
    assert not wrong
    manager.doing.clear()
    finish(pool)


def test_a_ticket_that_was_told_of_the_closing_holds_no_slot() -> None:
    manager = Manager()
    pool: Any = ConnectionPool(manager, total_max_size=1)
    pool.release(pool.acquire('a'), 'a')
    found: List[int] = []

    def dispose(*_: Any) -> None:
        pool.close()
        found.append(pool._slots_in_hand())

    manager.doing['dispose'] = dispose
    with pytest.raises(ConnectionPoolClosedError):
        pool.acquire('b')
    assert found == [1], 'that of the connection that is being disposed of'
    finish(pool)


class Forgetful(BaseConnectionManager[str, Connection]):
    """Keeps no connection."""

    def __init__(self) -> None:
        self.created: 'List[weakref.ref[Connection]]' = []

    def create(self, endpoint: str, timeout: Optional[float] = None) -> Connection:
        conn = Connection(endpoint, len(self.created) + 1)
        self.created.append(weakref.ref(conn))
        return conn

    def dispose(self, endpoint: str, conn: Connection, timeout: Optional[float] = None) -> None:
        pass


@pytest.mark.parametrize('timeout', [None, 20])
def test_a_thread_keeps_nothing_that_has_been_disposed_of(timeout: Optional[float]) -> None:
    manager = Forgetful()
    pool: Any = ConnectionPool(manager, total_max_size=1)
    for endpoint in 'abc':
        with pool.connection(endpoint, timeout):
            with contextlib.suppress(TimeoutError):
                pool.acquire(endpoint, timeout=0)
    pool.close()
    wait_until(lambda: gc.collect() >= 0 and [reference() for reference in manager.created] == [None] * 3)


@pytest.mark.parametrize('fails', [False, True])
def test_a_victim_is_in_the_hands_of_its_thread_until_a_worker_has_it(
    fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = Manager()
    pool: Any = ConnectionPool(manager, total_max_size=1)
    pool.release(pool.acquire('a'), 'a')
    found: List[int] = []

    def submit(workers: Any, job: Callable[[], object]) -> None:
        found.append(pool._slots_in_hand())
        pool.close()  # as a finalizer might: it does not wait for its own thread
        if fails:
            raise KeyboardInterrupt
        job()

    monkeypatch.setattr(Workers, 'submit', submit)
    acquiring = start(pool.acquire, 'b', 20)
    exc = acquiring.exception(20)
    assert found == [1]
    assert type(exc).__name__ == ('KeyboardInterrupt' if fails else 'ConnectionPoolClosedError')
    assert pool.get_size() == 0
    manager.check_accounts()
