"""A hook that raises loses no slot and no connection: with an ordinary exception, a timeout, or an interrupt."""

import logging
import time
from typing import Any, Callable

import pytest
from support.threads import Gate, HookedManager, error, is_free, raising, result, start, start_waiting, wait_for, wait_until

MakePool = Callable[..., Any]

ORDINARY = [ValueError('ordinary'), OSError('ordinary')]
#: after these the connection's state is unknown
UNKNOWN = [TimeoutError('late'), KeyboardInterrupt(), SystemExit(3), GeneratorExit()]
INTERRUPTS = UNKNOWN[1:]


def ids(exc: BaseException) -> str:
    return type(exc).__name__


any_error = pytest.mark.parametrize('exc', ORDINARY + UNKNOWN, ids=ids)
ordinary_error = pytest.mark.parametrize('exc', ORDINARY, ids=ids)
unknown_state = pytest.mark.parametrize('exc', UNKNOWN, ids=ids)
interrupt = pytest.mark.parametrize('exc', INTERRUPTS, ids=ids)


@pytest.fixture
def pool(make_pool: MakePool, hooks: HookedManager) -> Any:
    return make_pool(hooks, max_size=1)


def fail_once(hooks: HookedManager, hook: str, exc: BaseException) -> None:
    def action(*_: Any) -> None:
        del hooks.doing[hook]
        raise exc

    hooks.doing[hook] = action


def raises_it(exc: BaseException, function: Callable[..., Any], *args: Any) -> None:
    with pytest.raises(type(exc)) as caught:
        function(*args)
    assert caught.value is exc


def use(pool: Any, endpoint: str = 'a') -> Any:
    with pool.connection(endpoint, timeout=5) as conn:
        return conn


# -- create


@any_error
def test_an_error_of_create_propagates_and_frees_the_slot(pool: Any, hooks: HookedManager, exc: BaseException) -> None:
    """HAZARD 9, 16"""
    fail_once(hooks, 'create', exc)
    raises_it(exc, pool.acquire, 'a')
    assert len(hooks.called('create')) == 1  # it is not retried
    assert pool.get_size() == 0 and pool._core.endpoints() == []
    assert is_free(pool, 'a')


@any_error
def test_after_an_error_of_create_the_next_waiter_creates(pool: Any, hooks: HookedManager, exc: BaseException) -> None:
    """HAZARD 1, 15"""
    gate = Gate()

    def action(*_: Any) -> None:
        gate()
        del hooks.doing['create']
        raise exc

    hooks.doing['create'] = action
    failing = start(pool.acquire, 'a')
    wait_for(gate.reached)
    waiters = [start_waiting(pool, 'a') for _ in range(2)]
    gate.open.set()
    assert error(failing) is exc
    conn = result(waiters[0])
    assert hooks.created == [conn] and not waiters[1].done()
    pool.release(conn, 'a')
    assert result(waiters[1]) is conn


@any_error
def test_all_waiters_get_to_the_error_when_every_create_fails(
    pool: Any, hooks: HookedManager, exc: BaseException
) -> None:
    """HAZARD 15, 16"""
    gate = Gate()
    hooks.doing['create'] = lambda *_: (gate(), raising(exc)())
    callers = [start(pool.acquire, 'a')]
    wait_for(gate.reached)
    callers += [start_waiting(pool, 'a') for _ in range(4)]
    gate.open.set()
    assert [error(caller) for caller in callers] == [exc] * 5
    assert len(hooks.called('create')) == 5


# -- check_aliveness and on_acquire


@pytest.mark.parametrize('hook', ['check_aliveness', 'on_acquire'])
@ordinary_error
def test_after_an_ordinary_error_while_acquiring_the_connection_is_idle_again_without_on_release(
    pool: Any, hooks: HookedManager, hook: str, exc: BaseException
) -> None:
    conn = use(pool)
    hooks.calls.clear()
    fail_once(hooks, hook, exc)
    raises_it(exc, pool.acquire, 'a')
    assert pool.get_endpoint_pool_size('a', acquired=False) == 1
    assert hooks.called('on_release', 'dispose') == []
    assert pool.acquire('a', timeout=0) is conn


@pytest.mark.parametrize('hook', ['check_aliveness', 'on_acquire'])
@unknown_state
def test_after_a_timeout_or_an_interrupt_while_acquiring_the_connection_is_disposed_of(
    pool: Any, hooks: HookedManager, hook: str, exc: BaseException
) -> None:
    """HAZARD 2, 9"""
    conn = use(pool)
    hooks.calls.clear()
    fail_once(hooks, hook, exc)
    raises_it(exc, pool.acquire, 'a')
    assert hooks.disposed == [conn] and pool.get_size() == 0
    assert hooks.called('on_release', 'on_connection_dead') == []
    assert is_free(pool, 'a')


@ordinary_error
def test_after_an_ordinary_error_of_on_acquire_a_new_connection_is_idle_too(
    pool: Any, hooks: HookedManager, exc: BaseException
) -> None:
    fail_once(hooks, 'on_acquire', exc)
    raises_it(exc, pool.acquire, 'a')
    assert pool.acquire('a', timeout=0) is hooks.created[0]


@unknown_state
def test_after_a_timeout_or_an_interrupt_in_on_acquire_a_new_connection_is_disposed_of(
    pool: Any, hooks: HookedManager, exc: BaseException
) -> None:
    """HAZARD 9"""
    fail_once(hooks, 'on_acquire', exc)
    raises_it(exc, pool.acquire, 'a')
    assert hooks.disposed == hooks.created and is_free(pool, 'a')


@pytest.mark.parametrize('hook', ['check_aliveness', 'on_acquire'])
@any_error
def test_an_error_while_acquiring_what_was_handed_over_passes_it_on_to_the_next_waiter(
    pool: Any, hooks: HookedManager, hook: str, exc: BaseException
) -> None:
    """HAZARD 2, 3, 6"""
    conn = pool.acquire('a')
    unlucky, lucky = start_waiting(pool, 'a'), start_waiting(pool, 'a')
    fail_once(hooks, hook, exc)
    pool.release(conn, 'a')
    assert error(unlucky) is exc
    if exc in ORDINARY:
        assert result(lucky) is conn
    else:
        assert result(lucky) is not conn and hooks.disposed == [conn]


# -- on_connection_dead


@any_error
def test_after_an_error_of_on_connection_dead_the_connection_is_gone(
    pool: Any, hooks: HookedManager, exc: BaseException
) -> None:
    """HAZARD 2, 9, 28"""
    conn = use(pool)
    hooks.doing['check_aliveness'] = lambda *_: False
    fail_once(hooks, 'on_connection_dead', exc)
    raises_it(exc, pool.acquire, 'a')
    assert hooks.disposed == [conn] and pool.get_size() == 0
    assert is_free(pool, 'a')


@any_error
def test_after_an_error_of_on_connection_dead_the_next_waiter_gets_the_slot(
    pool: Any, hooks: HookedManager, exc: BaseException
) -> None:
    """HAZARD 2, 6, 14"""
    conn = pool.acquire('a')
    unlucky, lucky = start_waiting(pool, 'a'), start_waiting(pool, 'a')
    hooks.doing['check_aliveness'] = lambda *_: False
    fail_once(hooks, 'on_connection_dead', exc)
    pool.release(conn, 'a')
    assert error(unlucky) is exc
    assert result(lucky) is not conn and hooks.disposed == [conn]


# -- on_release and is_reusable


@ordinary_error
def test_after_an_ordinary_error_of_on_release_the_connection_is_idle(
    pool: Any, hooks: HookedManager, exc: BaseException
) -> None:
    conn = pool.acquire('a')
    fail_once(hooks, 'on_release', exc)
    raises_it(exc, pool.release, conn, 'a')
    assert pool.acquire('a', timeout=0) is conn and hooks.disposed == []


@unknown_state
def test_after_a_timeout_or_an_interrupt_in_on_release_the_connection_is_disposed_of(
    pool: Any, hooks: HookedManager, exc: BaseException
) -> None:
    """HAZARD 9, 33"""
    conn = pool.acquire('a')
    fail_once(hooks, 'on_release', exc)
    raises_it(exc, pool.release, conn, 'a')
    assert hooks.disposed == [conn] and is_free(pool, 'a')


@any_error
def test_an_error_of_on_release_passes_the_connection_or_its_slot_to_the_next_waiter(
    pool: Any, hooks: HookedManager, exc: BaseException
) -> None:
    """HAZARD 6, 9, 14, 33"""
    conn = pool.acquire('a')
    waiter = start_waiting(pool, 'a')
    fail_once(hooks, 'on_release', exc)
    raises_it(exc, pool.release, conn, 'a')
    assert (result(waiter) is conn) is (exc in ORDINARY)


@any_error
def test_an_error_of_on_release_propagates_out_of_a_block(pool: Any, hooks: HookedManager, exc: BaseException) -> None:
    fail_once(hooks, 'on_release', exc)
    raises_it(exc, use, pool)
    assert is_free(pool, 'a')


@any_error
def test_after_an_error_of_is_reusable_the_connection_is_disposed_of(
    pool: Any, hooks: HookedManager, exc: BaseException
) -> None:
    """HAZARD 7, 9"""
    fail_once(hooks, 'is_reusable', exc)
    with pytest.raises(type(exc)) as caught:
        with pool.connection('a') as conn:
            raise ZeroDivisionError
    assert caught.value is exc and isinstance(exc.__context__, ZeroDivisionError)
    assert hooks.disposed == [conn] and hooks.called('on_release') == []
    assert is_free(pool, 'a')


def test_an_error_of_on_release_does_not_touch_the_connection_in_the_hands_of_the_next_user(
    make_pool: MakePool, hooks: HookedManager
) -> None:
    pool = make_pool(hooks, max_size=1, max_lifetime=0.2)
    use(pool, 'b')  # will be due
    wait_until(lambda: pool._core.due(time.monotonic()))
    conn = pool.acquire('a')
    disposing, returning = Gate(), Gate()
    hooks.doing['dispose'] = disposing
    fail_once(hooks, 'on_release', ValueError())
    first = start(pool.release, conn, 'a')
    wait_for(disposing.reached)  # a is idle; its first user's thread is busy with b
    if pool.acquire('a', timeout=0) is not conn:
        pytest.skip('the machine was too slow for this')
    hooks.doing['on_release'] = returning
    second = start(pool.release, conn, 'a')
    wait_for(returning.reached)
    disposing.open.set()
    assert isinstance(error(first), ValueError)
    assert conn not in hooks.disposed
    returning.open.set()
    assert error(second) is None


# -- dispose


@pytest.mark.parametrize('exc', [*ORDINARY, TimeoutError('late')], ids=ids)
def test_an_error_of_dispose_is_logged_and_frees_the_slot(
    make_pool: MakePool, hooks: HookedManager, exc: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    pool = make_pool(hooks, max_size=1, min_idle=0, idle_timeout=0)
    fail_once(hooks, 'dispose', exc)
    use(pool)
    assert len(hooks.called('dispose')) == 1 and pool.get_size() == 0
    records = [record for record in caplog.records if record.name.startswith('generic_connection_pool')]
    assert [record.levelno for record in records] == [logging.ERROR]
    assert "'a'" in records[0].getMessage()
    assert records[0].exc_info is not None and records[0].exc_info[1] is exc


@interrupt
def test_an_interrupt_in_dispose_propagates_and_frees_the_slot(
    make_pool: MakePool, hooks: HookedManager, exc: BaseException
) -> None:
    """HAZARD 9"""
    pool = make_pool(hooks, max_size=1, min_idle=0, idle_timeout=0)
    conn = pool.acquire('a')
    fail_once(hooks, 'dispose', exc)
    raises_it(exc, pool.release, conn, 'a')
    assert len(hooks.called('dispose')) == 1 and pool.get_size() == 0
    assert is_free(pool, 'a')


@any_error
def test_after_an_error_of_dispose_the_next_waiter_gets_the_slot(
    make_pool: MakePool, hooks: HookedManager, exc: BaseException
) -> None:
    """HAZARD 9, 14"""
    pool = make_pool(hooks, max_size=1, max_lifetime=0)
    conn = pool.acquire('a')
    waiter = start_waiting(pool, 'a')
    fail_once(hooks, 'dispose', exc)
    if exc in INTERRUPTS:
        raises_it(exc, pool.release, conn, 'a')
    else:
        pool.release(conn, 'a')
    assert result(waiter) is not conn


@pytest.mark.parametrize('timeout', [None, 20])
@any_error
def test_an_error_of_dispose_while_evicting_still_serves_who_waits_for_the_slot(
    make_pool: MakePool, hooks: HookedManager, timeout: Any, exc: BaseException
) -> None:
    """HAZARD 9, 14"""
    pool = make_pool(hooks, total_max_size=1)
    conn = use(pool, 'a')
    fail_once(hooks, 'dispose', exc)
    if timeout is None and exc in INTERRUPTS:  # in the thread that acquires
        raises_it(exc, pool.acquire, 'b')
    other = pool.acquire('b', timeout)
    assert hooks.disposed == [conn] and other.endpoint == 'b'


@any_error
def test_an_error_of_dispose_of_a_dead_connection_leaves_its_slot_for_the_replacement(
    pool: Any, hooks: HookedManager, exc: BaseException
) -> None:
    """HAZARD 9, 28"""
    conn = use(pool)
    hooks.doing['check_aliveness'] = lambda *_: False
    fail_once(hooks, 'dispose', exc)
    if exc in INTERRUPTS:
        raises_it(exc, pool.acquire, 'a')
    assert pool.acquire('a') is not conn
    assert hooks.disposed == [conn]


@any_error
def test_an_error_of_dispose_does_not_keep_close_from_disposing_of_the_rest(
    make_pool: MakePool, hooks: HookedManager, exc: BaseException
) -> None:
    pool = make_pool(hooks)
    held = [pool.acquire('a') for _ in range(3)]
    for conn in held:
        pool.release(conn, 'a')
    fail_once(hooks, 'dispose', exc)
    if exc in INTERRUPTS:
        raises_it(exc, pool.close)
        assert pool.closed and pool.get_size() == 2
    pool.close()
    assert pool.get_size() == 0 and len(hooks.called('dispose')) == 3
