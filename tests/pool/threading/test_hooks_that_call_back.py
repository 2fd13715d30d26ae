"""Hooks run outside every lock and may call back into the pool: look on, acquire, release, close."""

import threading
from typing import Any, Callable

import pytest
from generic_connection_pool import ConnectionPoolClosedError
from generic_connection_pool.threading import workers as workers_module
from support.threads import (
    PATIENCE, Gate, HookedManager, error, is_free, let_pass, raising, result, start, start_waiting, wait_for, wait_until,
)  # fmt: skip

MakePool = Callable[..., Any]

HOOKS = ('create', 'check_aliveness', 'on_acquire', 'on_release', 'on_connection_dead', 'dispose', 'is_reusable')
any_hook = pytest.mark.parametrize('hook', HOOKS)


def run_through(pool: Any, hooks: HookedManager, hook: str, action: Callable[[], Any]) -> Any:
    """Do what makes the pool call a hook, which runs the action once. Returns what the hook saw, or raises."""
    if hook == 'create':
        conn = None
    else:
        with pool.connection('a') as conn:
            pass
    seen = []

    def run(*_: Any) -> None:
        del hooks.doing[hook]
        seen.append(action())

    hooks.doing[hook] = run
    if hook == 'on_connection_dead':
        hooks.doing['check_aliveness'] = lambda endpoint, other: other is not conn
    if hook == 'dispose':
        hooks.doing['is_reusable'] = lambda *_: False
    try:
        with pool.connection('a'):
            if hook in ('dispose', 'is_reusable'):
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert len(seen) == 1, 'the hook has not run'
    return seen[0]


@pytest.mark.parametrize('call', ['close', 'acquire'])
def test_a_disposal_may_wait_for_others_although_no_thread_is_left_for_them(
    make_pool: MakePool, hooks: HookedManager, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """The crew that disposes of connections for others is complete, and all of it waits in hooks."""
    monkeypatch.setattr(workers_module, 'LARGEST_CREW', 1)
    pool = make_pool(hooks, max_size=2, total_max_size=2)
    gate = Gate()
    ended = threading.Event()

    def wait_in_the_first(*_: Any) -> None:
        del hooks.doing['dispose']
        gate()
        if call == 'close':
            pool.close()
        else:
            pool.release(pool.acquire('b'), 'b')
        ended.set()

    for conn in [pool.acquire('a'), pool.acquire('a')]:
        pool.release(conn, 'a')
    hooks.doing['dispose'] = wait_in_the_first
    evicting = [start(pool.acquire, 'b', PATIENCE)]
    wait_for(gate.reached)
    evicting.append(start(pool.acquire, 'b', PATIENCE))
    wait_until(lambda: len(pool._workers._jobs) == 1)  # the second disposal, for which there is no thread
    gate.open.set()
    for future in evicting:
        if call == 'close':
            assert isinstance(error(future), ConnectionPoolClosedError)
        else:
            pool.release(result(future), 'b')
    wait_for(ended)


@any_hook
def test_a_hook_may_ask_for_the_sizes(make_pool: MakePool, hooks: HookedManager, hook: str) -> None:
    pool = make_pool(hooks, max_size=1, total_max_size=1)

    def look() -> Any:
        pool._core.check_invariants()
        return pool.get_size(), pool.get_endpoint_pool_size('a'), pool.is_full, pool.closed

    assert run_through(pool, hooks, hook, look) == (1, 1, True, False)


@any_hook
def test_a_hook_may_acquire_and_release_at_another_endpoint(
    make_pool: MakePool, hooks: HookedManager, hook: str
) -> None:
    pool = make_pool(hooks, max_size=1)

    def act() -> Any:
        with pool.connection('b', timeout=5) as conn:
            return conn.endpoint

    assert run_through(pool, hooks, hook, act) == 'b'
    assert is_free(pool, 'a') and is_free(pool, 'b')


@any_hook
def test_a_hook_may_acquire_and_release_at_its_own_endpoint(
    make_pool: MakePool, hooks: HookedManager, hook: str
) -> None:
    pool = make_pool(hooks, max_size=2)

    def act() -> Any:
        with pool.connection('a', timeout=5) as conn:
            return conn.endpoint

    assert run_through(pool, hooks, hook, act) == 'a'
    assert is_free(pool, 'a')


@any_hook
def test_a_hook_may_release_another_connection(make_pool: MakePool, hooks: HookedManager, hook: str) -> None:
    pool = make_pool(hooks, max_size=1)
    held = pool.acquire('b')
    run_through(pool, hooks, hook, lambda: pool.release(held, 'b'))
    assert is_free(pool, 'b') and is_free(pool, 'a')


@any_hook
def test_a_hook_may_wait_for_another_thread_that_uses_the_pool(
    make_pool: MakePool, hooks: HookedManager, hook: str
) -> None:
    """HAZARD 42"""
    pool = make_pool(hooks, max_size=2)

    def use(endpoint: str) -> Any:
        with pool.connection(endpoint, timeout=5):
            return pool.get_size()

    assert run_through(pool, hooks, hook, lambda: [result(start(use, endpoint)) for endpoint in 'ab']) >= [2, 2]


@any_hook
@pytest.mark.parametrize('timeout', [None, 20, 0])
def test_a_hook_may_close_the_pool(make_pool: MakePool, hooks: HookedManager, hook: str, timeout: Any) -> None:
    """HAZARD 26"""
    pool = make_pool(hooks, max_size=2)
    for endpoint in 'bc':
        with pool.connection(endpoint):
            pass

    def run() -> None:
        try:
            run_through(pool, hooks, hook, lambda: pool.close(timeout))
        except ConnectionPoolClosedError:
            assert hook in ('create', 'check_aliveness', 'on_acquire', 'on_connection_dead')
        else:
            assert hook in ('on_release', 'dispose', 'is_reusable')

    assert error(start(run)) is None
    assert pool.closed and pool.get_size() == 0
    hooks.check_accounts()


@any_hook
def test_a_close_inside_a_hook_waits_for_the_connections_of_others(
    make_pool: MakePool, hooks: HookedManager, hook: str
) -> None:
    """HAZARD 26"""
    pool = make_pool(hooks)
    held = pool.acquire('b')
    order = []

    def close() -> None:
        pool.close()
        order.append('closed')

    def run() -> None:
        try:
            run_through(pool, hooks, hook, close)
        except ConnectionPoolClosedError:
            pass

    closing = start(run)
    wait_until(lambda: pool.closed)
    assert not closing.done()
    order.append('released')
    pool.release(held, 'b')
    assert error(closing) is None and order == ['released', 'closed']


@pytest.mark.parametrize('cause', ['on_acquire', 'check_aliveness', 'on_release', 'due', 'due after a failure'])
def test_a_close_inside_a_disposal_waits_for_the_connections_of_others(
    make_pool: MakePool, hooks: HookedManager, cause: str
) -> None:
    """HAZARD 26: whatever the disposal is a part of."""
    pool = make_pool(hooks, max_lifetime=0.1 if 'due' in cause else 3600)
    order = []

    def dispose(*_: Any) -> None:
        hooks.doing.clear()
        pool.close()
        order.append('closed')

    with pool.connection('a'):
        pass
    if 'due' in cause:
        let_pass(0.1)
    held = pool.acquire('b')
    hooks.doing['dispose'] = dispose
    if cause in HOOKS:
        hooks.doing[cause] = raising(KeyboardInterrupt())
    elif cause == 'due after a failure':
        hooks.doing['on_acquire'] = raising(ValueError())

    def run() -> None:
        with pool.connection('a'):
            pass

    closing = start(run)
    wait_until(lambda: pool.closed or closing.done())
    assert pool.closed and not closing.done()
    order.append('released')
    pool.release(held, 'b')
    assert (error(closing) is None) is (cause == 'due') and order == ['released', 'closed']
    assert pool.get_size() == 0


@pytest.mark.parametrize('granted', ['connection', 'slot'])
def test_a_hook_may_close_the_pool_though_its_thread_has_been_granted_something_meanwhile(
    make_pool: MakePool, hooks: HookedManager, granted: str
) -> None:
    """HAZARD 26: who evicts for itself is granted another's connection while it disposes of the victim."""
    pool = make_pool(hooks, total_max_size=2, max_lifetime=3600 if granted == 'connection' else 0.2)
    a, b = pool.acquire('a'), pool.acquire('b')
    pool.release(a, 'a')
    gate = Gate()

    def dispose(endpoint: str, conn: Any) -> None:
        if conn is a:
            gate()
            pool.close()

    hooks.doing['dispose'] = dispose
    waiter = start(pool.acquire, 'b')
    wait_for(gate.reached)
    if granted == 'slot':
        let_pass(0.2)
    pool.release(b, 'b')
    gate.open.set()
    assert isinstance(error(waiter), ConnectionPoolClosedError)
    assert pool.get_size() == 0


@pytest.mark.parametrize('timeout', [None, 20])
def test_two_hooks_may_close_the_pool_at_once(make_pool: MakePool, hooks: HookedManager, timeout: Any) -> None:
    """HAZARD 26"""
    pool = make_pool(hooks)
    together = threading.Barrier(3)

    def create(*_: Any) -> None:
        together.wait(20)
        pool.close(timeout)

    hooks.doing['create'] = create
    callers = [start(pool.acquire, endpoint) for endpoint in 'aab']
    for caller in callers:
        assert isinstance(error(caller), ConnectionPoolClosedError)
    assert pool.get_size() == 0 and len(hooks.disposed) == 3


def test_nested_hooks_may_close_the_pool(make_pool: MakePool, hooks: HookedManager) -> None:
    """HAZARD 26"""
    pool = make_pool(hooks)

    def create(endpoint: str, _: Any) -> None:
        if endpoint == 'outer':
            with pytest.raises(ConnectionPoolClosedError):
                pool.acquire('inner')
        else:
            pool.close()

    hooks.doing['create'] = create
    assert isinstance(error(start(pool.acquire, 'outer')), ConnectionPoolClosedError)
    assert pool.get_size() == 0 and len(hooks.disposed) == 2


def test_the_dispose_hook_may_close_the_pool_when_the_collector_calls_it(
    make_pool: MakePool, hooks: HookedManager
) -> None:
    """HAZARD 26, 27"""
    pool = make_pool(hooks, background_collector=True, min_idle=0, idle_timeout=0.01)
    hooks.doing['dispose'] = lambda *_: pool.close()
    for endpoint in 'ab':
        with pool.connection(endpoint):
            pass
    wait_until(lambda: pool.closed and pool.get_size() == 0)


def test_an_endpoint_whose_eq_and_hash_call_the_pool_does_not_block(
    make_pool: MakePool, hooks: HookedManager
) -> None:
    """HAZARD 37"""

    class Key:
        def __init__(self, name: str):
            self.name = name

        def __eq__(self, other: object) -> bool:
            assert result(start(pool.get_endpoint_pool_size, 'x')) == 0
            with pool.connection('y', timeout=5):
                return isinstance(other, Key) and self.name == other.name

        def __hash__(self) -> int:
            pool.get_size()
            return 7

    pool = make_pool(hooks, max_size=1)
    with pool.connection('y'):
        pass
    conn = pool.acquire(Key('one'))
    other = pool.acquire(Key('other'))
    waiter = start_waiting(pool, Key('one'))
    pool.release(conn, Key('one'))
    assert result(waiter) is conn
    pool.release(conn, Key('one'))
    pool.release(other, Key('other'))


def test_an_endpoint_whose_eq_raises_takes_nothing(make_pool: MakePool, hooks: HookedManager) -> None:
    class Key:
        def __eq__(self, other: object) -> bool:
            if failing:
                raise ArithmeticError
            return self is other

        def __hash__(self) -> int:
            return 7

    failing = False
    pool = make_pool(hooks, max_size=1)
    key = Key()
    conn = pool.acquire(key)
    failing = True
    with pytest.raises(ArithmeticError):
        pool.acquire(Key())
    with pytest.raises(ArithmeticError):
        pool.release(conn, Key())
    assert pool.get_size() == 1
    pool.release(conn, key)
    assert is_free(pool, key)
    failing = False
