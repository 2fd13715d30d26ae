"""Acquiring and releasing on one thread: what is created, what is reused, what is counted, what the hooks are told."""

import threading
from typing import Any, Callable, Optional

import pytest
from generic_connection_pool.exceptions import ConnectionPoolTimeoutError
from generic_connection_pool.threading import BaseConnectionManager
from support.threads import Call, HookedManager, Manager, is_free, start, start_waiting

MakePool = Callable[..., Any]


def test_a_connection_is_created_on_demand_and_reused(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager)
    conn = pool.acquire('a')
    assert manager.created == [conn]
    pool.release(conn, 'a')
    assert pool.acquire('a') is conn
    assert manager.created == [conn] and manager.disposed == []


def test_min_idle_is_lazy(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager, min_idle=3)
    with pool.connection('a'):
        assert pool.get_size() == 1
    assert pool.get_size() == 1 and len(manager.created) == 1


def test_connection_holds_a_connection_for_its_block(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager)
    with pool.connection('a') as conn:
        assert pool.get_endpoint_pool_size('a', acquired=True) == 1
        with pool.connection('a') as other:
            assert other is not conn
    assert pool.get_endpoint_pool_size('a', acquired=True) == 0
    assert pool.get_endpoint_pool_size('a', acquired=False) == 2


def test_connection_releases_when_the_block_raises(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager)
    with pytest.raises(ZeroDivisionError):
        with pool.connection('a') as conn:
            raise ZeroDivisionError
    assert pool.acquire('a') is conn


@pytest.mark.parametrize('exc', [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_connection_releases_when_the_block_is_interrupted(
    make_pool: MakePool, manager: Manager, exc: Any
) -> None:  # fmt: skip
    """HAZARD 9"""
    pool = make_pool(manager)
    with pytest.raises(exc):
        with pool.connection('a') as conn:
            raise exc
    assert pool.acquire('a') is conn


def test_connection_acquires_on_entering_and_not_before(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager)
    context = pool.connection('a')
    assert pool.get_size() == 0
    with context:
        assert pool.get_size() == 1


def test_a_context_manager_serves_one_block_at_a_time(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager)
    context = pool.connection('a')
    with pytest.raises(RuntimeError, match='not been entered'):
        context.__exit__(None, None, None)
    with context as conn:
        with pytest.raises(RuntimeError, match='in use'):
            context.__enter__()
        assert pool.get_size() == 1
    with pytest.raises(RuntimeError, match='not been entered'):
        context.__exit__(None, None, None)
    with context as again:
        assert again is conn


def test_a_context_manager_that_could_not_be_entered_can_be_entered_later(
    make_pool: MakePool, manager: Manager
) -> None:  # fmt: skip
    pool = make_pool(manager, max_size=1)
    context = pool.connection('a', timeout=0)
    with pool.connection('a') as conn:
        with pytest.raises(ConnectionPoolTimeoutError):
            context.__enter__()
    with context as again:
        assert again is conn


def test_endpoints_have_connections_of_their_own(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager)
    for endpoint in ('a', ('host', 5432), 7, None, frozenset({1})):
        with pool.connection(endpoint) as conn:
            assert conn.endpoint == endpoint
    assert pool.get_size() == 5 and len(manager.created) == 5


def test_endpoints_that_are_equal_are_one(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager)
    conn = pool.acquire(('host', 1))
    pool.release(conn, ('host', int('1')))
    assert pool.acquire(('host', 1.0)) is conn


def test_endpoints_of_one_hash_are_kept_apart(make_pool: MakePool, manager: Manager) -> None:
    class Key(str):
        def __hash__(self) -> int:
            return 7

    pool = make_pool(manager)
    one, other = Key('one'), Key('other')
    conn = pool.acquire(one)
    assert pool.acquire(other) is not conn
    pool.release(conn, Key('one'))
    assert pool.get_endpoint_pool_size(one, acquired=False) == 1
    assert pool.get_endpoint_pool_size(other, acquired=True) == 1


def test_an_endpoint_that_cannot_be_hashed_is_a_type_error(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager)
    with pytest.raises(TypeError):
        pool.acquire([])
    assert pool.get_size() == 0


def test_sizes_count_idle_acquired_and_all(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager)
    assert [pool.get_endpoint_pool_size('a', kind) for kind in (True, False, None)] == [0, 0, 0]
    held = [pool.acquire('a') for _ in range(3)]
    pool.release(held.pop(), 'a')
    pool.acquire('b')
    assert pool.get_endpoint_pool_size('a', acquired=True) == 2
    assert pool.get_endpoint_pool_size('a', acquired=False) == 1
    assert pool.get_endpoint_pool_size('a') == pool.get_endpoint_pool_size('a', None) == 3
    assert pool.get_size() == 4


def test_a_connection_being_created_counts(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager)
    sizes = []
    manager.doing['create'] = lambda *_: sizes.append(
        [pool.get_size()] + [pool.get_endpoint_pool_size('a', kind) for kind in (None, True, False)]
    )
    with pool.connection('a'):
        assert sizes == [[1, 1, 0, 0]]


def test_a_connection_counts_until_its_disposal_has_finished(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 29"""
    pool = make_pool(manager, min_idle=0, idle_timeout=0, max_size=1, total_max_size=1)
    seen = []

    def dispose(*_: Any) -> None:
        seen.append((pool.get_size(), pool.get_endpoint_pool_size('a'), pool.is_full))
        with pytest.raises(TimeoutError):
            pool.acquire('a', timeout=0)
        with pytest.raises(TimeoutError):
            pool.acquire('b', timeout=0)

    manager.doing['dispose'] = dispose
    with pool.connection('a'):
        pass
    assert seen == [(1, 1, True)] and pool.get_size() == 0
    assert is_free(pool, 'a')


@pytest.mark.parametrize('config, endpoint', [({'max_size': 2}, 'a'), ({'total_max_size': 2}, 'b')])
def test_no_more_connections_are_open_than_allowed(
    make_pool: MakePool, manager: Manager, config: Any, endpoint: str
) -> None:  # fmt: skip
    """HAZARD 29"""
    pool = make_pool(manager, **config)
    pool.acquire('a')
    pool.acquire('a')
    with pytest.raises(TimeoutError):
        pool.acquire(endpoint, timeout=0)
    assert len(manager.created) == 2


def test_the_limit_of_one_endpoint_does_not_concern_another(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager, max_size=1)
    assert pool.acquire('a', timeout=0) is not pool.acquire('b', timeout=0)


def test_an_acquire_times_out_with_the_timeout_of_the_call(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager, max_size=1)
    pool.acquire('a')
    with pytest.raises(ConnectionPoolTimeoutError):
        pool.acquire('a', timeout=0.01)
    with pytest.raises(ConnectionPoolTimeoutError):
        pool.acquire('a', 0.01)
    with pytest.raises(ConnectionPoolTimeoutError):
        with pool.connection('a', timeout=0.01):
            pytest.fail('entered')
    with pytest.raises(ConnectionPoolTimeoutError):
        with pool.connection('a', 0.01):
            pytest.fail('entered')
    assert pool._core.waiting('a') == 0


def test_an_acquire_times_out_with_the_timeout_of_the_pool(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager, max_size=1, acquire_timeout=0.01)
    conn = pool.acquire('a')
    with pytest.raises(ConnectionPoolTimeoutError):
        pool.acquire('a')
    waiter = start_waiting(pool, 'a', 60)  # the call's own goes before
    pool.release(conn, 'a')
    assert waiter.result(10) is conn


def test_without_any_timeout_an_acquire_waits(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager, max_size=1)
    conn = pool.acquire('a')
    waiter = start_waiting(pool, 'a')
    pool.release(conn, 'a')
    assert waiter.result(10) is conn


@pytest.mark.parametrize('timeout', [0, 0.0, -1, -0.5, False])
def test_a_timeout_of_zero_takes_an_idle_connection(make_pool: MakePool, manager: Manager, timeout: Any) -> None:
    """HAZARD 21"""
    pool = make_pool(manager, max_size=1)
    with pool.connection('a') as conn:
        pass
    assert pool.acquire('a', timeout=timeout) is conn


def test_a_timeout_of_zero_never_waits(
    make_pool: MakePool, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """HAZARD 21"""
    pool = make_pool(manager, max_size=1)
    pool.acquire('a')
    before = threading.active_count()
    with pytest.raises(ConnectionPoolTimeoutError) as caught:
        pool.acquire('a', timeout=0)
    assert 'within 0.00' in str(caught.value)
    assert pool._core.waiting('a') == 0
    assert threading.active_count() <= before  # one that an earlier test has left may have ended


def test_a_timeout_of_zero_creates_a_connection_where_there_is_room(make_pool: MakePool, manager: Manager) -> None:
    """HAZARD 21"""
    pool = make_pool(manager)
    assert pool.acquire('a', timeout=0) is manager.created[0]
    assert manager.called('create')[0].timeout == 0.0


def test_the_hooks_are_called_in_order_with_endpoint_and_connection(make_pool: MakePool, hooks: HookedManager) -> None:
    pool = make_pool(hooks)
    with pool.connection('a', timeout=60) as conn:
        pass
    assert [call[:3] for call in hooks.calls] == [
        ('create', 'a', None), ('on_acquire', 'a', conn), ('on_release', 'a', conn),
    ]  # fmt: skip
    hooks.calls.clear()
    with pool.connection('a', timeout=60):
        pass
    assert [call[:3] for call in hooks.calls] == [
        ('check_aliveness', 'a', conn), ('on_acquire', 'a', conn), ('on_release', 'a', conn),
    ]  # fmt: skip


def test_a_connection_handed_over_is_checked_and_announced_like_an_idle_one(
    make_pool: MakePool, hooks: HookedManager
) -> None:
    pool = make_pool(hooks, max_size=1)
    conn = pool.acquire('a')
    waiter = start_waiting(pool, 'a')
    hooks.calls.clear()
    pool.release(conn, 'a')
    assert waiter.result(10) is conn
    assert [call.hook for call in hooks.calls] == ['on_release', 'check_aliveness', 'on_acquire']


@pytest.mark.parametrize('timeout', [None, 60.0])
def test_create_and_check_are_told_the_time_that_is_left(
    make_pool: MakePool, hooks: HookedManager, timeout: Optional[float]
) -> None:  # fmt: skip
    pool = make_pool(hooks, acquire_timeout=timeout)
    for _ in range(2):
        with pool.connection('a'):
            pass
    create, check = hooks.called('create', 'check_aliveness')
    if timeout is None:
        assert create.timeout is check.timeout is None
    else:
        assert create.timeout is not None and 50.0 < create.timeout <= 60.0
        assert check.timeout is not None and 50.0 < check.timeout <= 60.0


def test_the_timeout_goes_to_create_and_dispose_by_keyword_and_to_check_aliveness_by_position(
    make_pool: MakePool,
) -> None:
    class Strict(BaseConnectionManager[str, Any]):
        def create(self, endpoint: str, *, timeout: Any = 'missing') -> Any:  # type: ignore[override]
            assert timeout != 'missing'
            return object()

        def dispose(self, endpoint: str, conn: Any, *, timeout: Any = 'missing') -> None:  # type: ignore[override]
            told.append(timeout)

        def check_aliveness(self, endpoint: str, conn: Any, remaining: Any = 'missing', /) -> bool:  # type: ignore[override]
            told.append(remaining)
            return True

    told: Any = []
    pool = make_pool(Strict())
    for _ in range(2):
        with pool.connection('a'):
            pass
    pool.close()
    assert told == [None, None]


@pytest.mark.parametrize('dispose_timeout, told', [(None, None), (3, 3.0), (0, 0.0)])
def test_dispose_is_told_the_dispose_timeout(
    make_pool: MakePool, manager: Manager, dispose_timeout: Any, told: Any
) -> None:  # fmt: skip
    pool = make_pool(manager, dispose_timeout=dispose_timeout, min_idle=0, idle_timeout=0)
    with pool.connection('a'):
        pass
    assert [call.timeout for call in manager.called('dispose')] == [told]


def test_a_connection_acquired_by_one_thread_may_be_released_by_another(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager, max_size=1)
    conn = start(pool.acquire, 'a').result(10)
    pool.release(conn, 'a')
    assert pool.acquire('a', timeout=0) is conn


def test_the_hook_is_reusable_is_asked_when_the_block_has_raised_and_only_then(
    make_pool: MakePool, hooks: HookedManager
) -> None:
    pool = make_pool(hooks)
    with pool.connection('a') as conn:
        pass
    pool.release(pool.acquire('a'), 'a')
    assert hooks.called('is_reusable') == []
    with pytest.raises(ZeroDivisionError):
        with pool.connection('a'):
            raise ZeroDivisionError
    assert hooks.called('is_reusable') == [Call('is_reusable', 'a', conn)]
    assert pool.acquire('a') is conn


@pytest.mark.parametrize('exc', [ZeroDivisionError(), TimeoutError(), KeyboardInterrupt(), GeneratorExit()])
def test_a_connection_that_is_not_reusable_is_disposed_of_without_on_release(
    make_pool: MakePool, hooks: HookedManager, exc: BaseException
) -> None:
    """HAZARD 7"""
    hooks.doing['is_reusable'] = lambda *_: False
    pool = make_pool(hooks, max_size=1)
    with pytest.raises(type(exc)):
        with pool.connection('a') as conn:
            raise exc
    assert hooks.disposed == [conn] and hooks.called('on_release') == []
    assert pool.acquire('a', timeout=0) is not conn


def test_is_reusable_is_told_what_the_block_raised(make_pool: MakePool) -> None:
    class Curious(Manager):
        def is_reusable(self, endpoint: Any, conn: Any, exc: BaseException) -> bool:
            told.append((endpoint, conn, exc))
            return True

    told: Any = []
    failure = ZeroDivisionError()
    pool = make_pool(Curious())
    with pytest.raises(ZeroDivisionError):
        with pool.connection('a') as conn:
            raise failure
    assert told == [('a', conn, failure)]


def test_the_class_of_a_context_manager_can_be_subscripted_as_annotations_do(make_pool: MakePool) -> None:
    lease: Any = type(make_pool(Manager()).connection('a'))
    assert lease[str, int].__origin__ is lease
