"""A fork in the middle of an operation of a threads pool, which comes to nothing in the child. HAZARD 38"""

import os
import signal
from typing import Any, List

import pytest
from generic_connection_pool._core import core_implementation
from generic_connection_pool.threading import ConnectionPool
from support.forked_pools import Watched, used, works
from support.forking import fork
from support.threads import finish

pytestmark = pytest.mark.skipif(not hasattr(os, 'fork'), reason='this platform does not fork')

HOOKS = ['create', 'check_aliveness', 'on_connection_dead', 'on_acquire', 'on_release', 'is_reusable', 'dispose']


@pytest.mark.parametrize('timeout', [None, 20])
@pytest.mark.parametrize('hook', HOOKS)
def test_an_operation_whose_hook_forks_comes_to_nothing_in_the_child(hook: str, timeout: Any) -> None:
    manager = Watched()
    keeps = hook in ('check_aliveness', 'on_connection_dead')
    pool: Any = ConnectionPool(manager, max_size=1, total_max_size=2, min_idle=0, idle_timeout=60 if keeps else 0)
    if keeps:
        used(pool, 'a')
    if hook == 'on_connection_dead':
        manager.doing['check_aliveness'] = lambda *_: bool(manager.doing.pop('check_aliveness')) and False
    children: List[Any] = []

    def forks(*_: Any) -> Any:
        manager.doing.pop(hook)
        children.append(fork())

    manager.doing[hook] = forks
    reader, writer = os.pipe()
    outcome = ''
    try:
        with pool.connection('a', timeout):
            if hook == 'is_reusable':
                raise ZeroDivisionError
        outcome = 'fine'
    except BaseException as exc:
        outcome = type(exc).__name__
    if children == [0]:
        try:
            signal.alarm(10)
            manager.doing.clear()
            works(pool)
            pool.close(timeout=5)
            old = [str(conn) for conn in manager.disposed if conn.number == 1]
            os.write(writer, f'{outcome} {old if hook != "dispose" else []}'.encode())
        except BaseException as exc:
            os.write(writer, repr(exc).encode())
        finally:
            os._exit(0)
    os.close(writer)
    expected = 'ZeroDivisionError' if hook == 'is_reusable' else 'fine'
    assert outcome == expected
    in_the_child = 'RuntimeError' if hook in ('create', 'check_aliveness', 'on_acquire', 'on_connection_dead') else expected
    with os.fdopen(reader) as pipe:
        assert pipe.read() == f'{in_the_child} []'
    os.waitpid(children[0], 0)
    finish(pool)


@pytest.mark.skipif(core_implementation != 'python', reason='nothing interrupts an operation of the compiled core')
def test_a_fork_in_the_middle_of_a_grant_gives_the_child_no_connection_of_its_parent() -> None:
    """A finalizer or signal handler forks within the pure core. What that goes on to grant in the child is taken back."""
    manager = Watched()
    pool: Any = used(ConnectionPool(manager, max_size=1), 'a')
    core = pool._core
    children: List[Any] = []

    def lend(record: Any, holder: int) -> None:
        type(core)._lend(core, record, holder)
        del core._lend
        children.append(fork())

    core._lend = lend
    reader, writer = os.pipe()
    outcome = ''
    try:
        outcome = str(pool.acquire('a'))
    except BaseException as exc:
        outcome = type(exc).__name__
    if children == [0]:
        try:
            signal.alarm(10)
            works(pool)
        except BaseException as exc:
            outcome += repr(exc)
        finally:
            os.write(writer, outcome.encode())
            os._exit(0)
    os.close(writer)
    assert outcome == 'a1'
    with os.fdopen(reader) as pipe:
        assert pipe.read() == 'RuntimeError'
    os.waitpid(children[0], 0)
    pool.release(manager.created[0], 'a')
    finish(pool)
