"""The background collector: a daemon thread that disposes of what is due, sleeps meanwhile, and survives what goes wrong."""

import gc
import logging
import threading
import time
import weakref
from typing import Any, Callable, List

import pytest
from generic_connection_pool._core import Ticket
from generic_connection_pool.threading import ConnectionPool
from support.threads import Gate, HookedManager, Manager, let_pass, start, wait_for, wait_until

MakePool = Callable[..., Any]


def collectors() -> List[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == 'gcp-collector']


def use(pool: Any, *endpoints: str) -> List[Any]:
    held = [pool.acquire(endpoint) for endpoint in endpoints]
    for conn, endpoint in zip(held, endpoints):
        pool.release(conn, endpoint)
    return held


def test_it_is_a_daemon_thread_named_gcp_collector(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 39"""
    pool = make_pool(manager, background_collector=True)
    assert [thread.daemon for thread in collectors()] == [True]
    pool.close()
    wait_until(lambda: not collectors())


def test_without_it_there_is_no_thread(make_pool: MakePool, manager: Manager) -> None:
    before = threading.enumerate()
    use(make_pool(manager), 'a')
    assert threading.enumerate() == before


def test_it_disposes_of_extras_after_idle_timeout(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager, background_collector=True, min_idle=1, idle_timeout=0.03)
    held = use(pool, 'a', 'a', 'a')
    wait_until(lambda: pool.get_size() == 1)
    assert manager.disposed == held[:2] and pool.get_endpoint_pool_size('a', acquired=False) == 1


def test_it_disposes_of_core_connections_after_max_lifetime(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 30"""
    pool = make_pool(manager, background_collector=True, max_lifetime=0.03)
    held = use(pool, 'a')
    wait_until(lambda: pool._core.endpoints() == [])
    assert manager.disposed == held


def test_it_disposes_in_its_own_thread_and_releases_dispose_of_nothing_due(
    make_pool: MakePool, manager: Manager
) -> None:
    pool = make_pool(manager, background_collector=True, min_idle=0, idle_timeout=0.03, max_size=5)
    names = []
    gate = Gate()

    def dispose(*_: Any) -> None:
        names.append(threading.current_thread().name)
        gate()

    manager.doing['dispose'] = dispose
    use(pool, 'a', 'a', 'a')
    wait_for(gate.reached)  # it hangs; the others are overdue soon
    let_pass(0.05)
    use(pool, 'b')
    assert len(manager.disposed) == 1
    gate.open.set()
    wait_until(lambda: len(manager.disposed) == 4)
    assert set(names) == {'gcp-collector'}


def test_it_wakes_up_for_what_is_due_sooner_than_all_before(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager, background_collector=True, min_idle=1, idle_timeout=0.03, max_lifetime=1000)
    use(pool, 'a')  # a core one, due in 1000 s
    held = use(pool, 'b', 'b')
    wait_until(lambda: manager.disposed == held[:1])


def test_it_disposes_in_the_order_of_deadlines(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager, background_collector=True, min_idle=0, idle_timeout=0.05)
    held = use(pool, *'abcd')
    wait_until(lambda: len(manager.disposed) == 4)
    assert manager.disposed == held


def test_it_ends_when_the_pool_is_closed_however_early(make_pool: MakePool, manager: Manager) -> None:
    class ClosedEarly(ConnectionPool[Any, Any]):
        def _dispose_all_due(self, ticket: Any) -> Any:
            self.close()  # after it has looked whether the pool is closed, before the first alarm is set
            return super()._dispose_all_due(ticket)

    for cls in (ConnectionPool, ClosedEarly):
        make_pool(manager, cls, background_collector=True).close()
        wait_until(lambda: not collectors(), 'the end of the collector')


@pytest.mark.parametrize('exc', [ValueError('broken'), TimeoutError(), SystemExit(), KeyboardInterrupt()], ids=repr)
def test_it_survives_a_dispose_that_fails(
    make_pool: MakePool, manager: Manager, exc: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """HAZARD 27"""

    def dispose(*_: Any) -> None:
        if len(manager.called('dispose')) <= 2:
            raise exc

    pool = make_pool(manager, background_collector=True, min_idle=0, idle_timeout=0.01)
    manager.doing['dispose'] = dispose
    use(pool, *'abc')
    wait_until(lambda: pool.get_size() == 0)
    assert len(manager.called('dispose')) == 3
    use(pool, 'd')
    wait_until(lambda: pool.get_size() == 0)
    wait_until(lambda: len([record for record in caplog.records if record.levelno == logging.ERROR]) == 2)


def test_it_sleeps_while_nothing_is_due(make_pool: MakePool) -> None:
    """HAZARD 27"""
    rounds = []

    class Counting(ConnectionPool[Any, Any]):
        def _dispose_all_due(self, ticket: Any) -> Any:
            rounds.append(time.monotonic())
            return super()._dispose_all_due(ticket)

    pool = make_pool(Manager(), Counting, background_collector=True, idle_timeout=0.05, min_idle=0)
    for _ in range(20):
        use(pool, 'a', 'b')
    held = [pool.acquire('a'), pool.acquire('b')]  # their entries in the heap are stale now
    let_pass(0.3)
    assert len(rounds) <= 12, 'it spins'
    for conn in held:
        pool.release(conn, conn.endpoint)


def test_a_stale_entry_does_not_keep_it_awake(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 27"""
    pool = make_pool(manager, idle_timeout=0.05, min_idle=0)
    conn = use(pool, 'a')[0]
    if pool.acquire('a') is not conn:
        pytest.skip('the machine was too slow for this')
    let_pass(0.05)
    assert pool._dispose_all_due(Ticket(0)) is None
    pool.release(conn, 'a')
    delay = pool._dispose_all_due(Ticket(0))
    assert delay is not None and 0.0 < delay <= 0.05


@pytest.mark.parametrize('config', [{'idle_timeout': float('inf'), 'min_idle': 0}, {'max_lifetime': float('inf')}])
def test_it_sleeps_for_ever_when_nothing_will_ever_be_due(
    make_pool: MakePool, manager: Manager, config: Any, caplog: pytest.LogCaptureFixture
) -> None:
    pool = make_pool(manager, background_collector=True, **config)
    use(pool, 'a', 'b')
    pool.close()
    wait_until(lambda: not collectors())
    assert caplog.records == []


@pytest.mark.filterwarnings('ignore:unclosed:ResourceWarning')
def test_it_does_not_keep_its_pool_alive_and_ends_with_it(manager: Manager) -> None:
    """HAZARD 39"""
    pool = ConnectionPool(manager, background_collector=True)
    use(pool, 'a')
    wait_until(lambda: pool._core._alarm is not None if hasattr(pool._core, '_alarm') else True)
    gone = weakref.ref(pool)
    del pool
    wait_until(lambda: gc.collect() is not None and gone() is None, 'the end of the pool')
    wait_until(lambda: not collectors(), 'the end of the collector')


def test_it_and_the_releases_of_many_threads_get_along(make_pool: MakePool, hooks: HookedManager) -> None:
    pool = make_pool(hooks, background_collector=True, min_idle=0, idle_timeout=0.001, max_size=3)

    def work() -> None:
        for place in range(150):
            with pool.connection('abc'[place % 3], timeout=20):
                pass

    for worker in [start(work) for _ in range(4)]:
        worker.result(20)
    wait_until(lambda: pool.get_size() == 0)
    hooks.check_accounts()
