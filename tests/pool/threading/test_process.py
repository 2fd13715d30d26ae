"""The pool and its process: garbage, the exit of the interpreter, and signals that arrive while a thread waits."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
import weakref
from typing import Any, Callable, List

import pytest
from generic_connection_pool._core import core_implementation
from generic_connection_pool.exceptions import ConnectionPoolTimeoutError
from generic_connection_pool.threading import ConnectionPool
from support.threads import Manager, is_free, result, start, wait_until

MakePool = Callable[..., Any]

PROLOGUE = """
import atexit, threading, time
from generic_connection_pool.threading import BaseConnectionManager, ConnectionPool
class Manager(BaseConnectionManager):
    hanging = threading.Event()
    def create(self, endpoint, timeout=None): return object()
    def dispose(self, endpoint, conn, timeout=None):
        if endpoint == 'hangs': self.hanging.set(); threading.Event().wait()
def waiting(pool, endpoint):
    threading.Thread(target=pool.acquire, args=(endpoint,), daemon=True).start()
    while not pool._core.waiting(endpoint): time.sleep(0.001)
"""
EXITS = {
    'collector and waiters': """
pool = ConnectionPool(Manager(), background_collector=True, max_size=1, min_idle=0, idle_timeout=0.001)
held = pool.acquire('a'); waiting(pool, 'a'); waiting(pool, 'a')
with pool.connection('b'): pass
""",
    'closed at exit': """
pool = ConnectionPool(Manager(), background_collector=True)
for endpoint in 'abc':
    with pool.connection(endpoint): pass
atexit.register(pool.close)
""",
    'closed at exit within a timeout': """
pool = ConnectionPool(Manager()); held = pool.acquire('d')
for endpoint in 'abc':
    with pool.connection(endpoint): pass
atexit.register(pool.close, 0.1)
""",
    'a disposal that hangs': """
pool = ConnectionPool(Manager(), total_max_size=1)
with pool.connection('hangs'): pass
try: pool.acquire('a', timeout=0.01)
except TimeoutError: pass
Manager.hanging.wait()
""",
}


@pytest.mark.parametrize('case', EXITS)
def test_the_interpreter_exits_promptly_and_silently(case: str, tmp_path: Any) -> None:
    """HAZARD 39"""
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, '-c', PROLOGUE + EXITS[case]],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')


@pytest.mark.parametrize('collector', [False, True])
def test_an_open_pool_that_is_garbage_warns(manager: Manager, collector: bool) -> None:
    """HAZARD 39"""
    pool = ConnectionPool(manager, background_collector=collector)
    with pool.connection('a'):
        pass
    gone = weakref.ref(pool)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        del pool
        wait_until(lambda: gc.collect() is not None and len(caught) == 1)
    assert caught[0].category is ResourceWarning and 'unclosed' in str(caught[0].message)
    caught.clear()  # the warning knows the pool
    # if the collector's thread has warned and sleeps, then without a GIL its warning is left to the garbage collector
    wait_until(lambda: gc.collect() is not None and gone() is None)


def test_a_closed_pool_that_is_garbage_does_not_warn(manager: Manager) -> None:
    pool = ConnectionPool(manager, background_collector=True)
    pool.close()
    gone = weakref.ref(pool)
    del pool
    wait_until(lambda: gc.collect() is not None and gone() is None)


# -- signals


@pytest.fixture
def on_signal() -> Any:
    """Sets the handler of a signal that this process then sends to its main thread."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, 'pthread_kill'):
        pytest.skip('signals go to the main thread of a POSIX system')
    before = signal.getsignal(signal.SIGUSR1)
    yield lambda handler: signal.signal(signal.SIGUSR1, lambda *_: handler())
    signal.signal(signal.SIGUSR1, before)


def interrupt_waiter(pool: Any, endpoint: str) -> Any:
    def send() -> None:
        wait_until(lambda: pool._core.waiting(endpoint) == 1)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    return start(send)


@pytest.mark.parametrize('timeout', [None, 20])
def test_a_signal_that_raises_while_waiting_leaves_no_ticket(
    make_pool: MakePool, manager: Manager, on_signal: Any, timeout: Any
) -> None:
    """HAZARD 10, 6"""

    def handler() -> None:
        raise KeyboardInterrupt

    pool = make_pool(manager, max_size=1)
    conn = pool.acquire('a')
    on_signal(handler)
    sender = interrupt_waiter(pool, 'a')
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        pool.acquire('a', timeout)
    assert time.monotonic() - began < 10 and pool._core.waiting('a') == 0
    result(sender)
    pool.release(conn, 'a')
    assert is_free(pool, 'a')


def test_a_signal_handler_runs_at_once_and_may_release_what_is_waited_for(
    make_pool: MakePool, manager: Manager, on_signal: Any
) -> None:
    """HAZARD 10"""
    pool = make_pool(manager, max_size=1)
    conn = pool.acquire('a')
    on_signal(lambda: pool.release(conn, 'a'))
    sender = interrupt_waiter(pool, 'a')
    assert pool.acquire('a') is conn
    result(sender)


def test_a_signal_whose_handler_returns_is_served_during_the_waiting_which_goes_on(
    make_pool: MakePool, manager: Manager, on_signal: Any
) -> None:
    """HAZARD 10"""
    handled = threading.Event()
    pool = make_pool(manager, max_size=1)
    conn = pool.acquire('a')
    on_signal(handled.set)
    sender = interrupt_waiter(pool, 'a')

    def release() -> bool:
        wait_until(handled.is_set)
        still_waits: bool = pool._core.waiting('a') == 1
        pool.release(conn, 'a')
        return still_waits

    releaser = start(release)
    assert pool.acquire('a') is conn
    result(sender)
    assert result(releaser)


def test_a_signal_whose_handler_returns_shortens_no_timeout(
    make_pool: MakePool, manager: Manager, on_signal: Any
) -> None:
    """HAZARD 10"""
    handled: List[int] = []
    pool = make_pool(manager, max_size=1)
    pool.acquire('a')
    on_signal(lambda: handled.append(1))
    sender = interrupt_waiter(pool, 'a')
    began = time.monotonic()
    with pytest.raises(ConnectionPoolTimeoutError):
        pool.acquire('a', timeout=0.3)
    assert time.monotonic() - began >= 0.3
    result(sender)
    assert handled == [1]


@pytest.mark.skipif(core_implementation == 'python', reason='interrupts inside the pure core are not handled')
def test_blocks_interrupted_at_random_lose_nothing(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    """HAZARD 9, 10"""
    # An interrupt may hit a weakref callback (threading has some), where Python can only report it. The hook is not
    # Python code, so that it cannot be interrupted itself.
    reports: List[Any] = []
    monkeypatch.setattr(sys, 'unraisablehook', reports.append)
    pool: Any = ConnectionPool(manager, max_size=1, total_max_size=2)

    def target() -> None:
        for endpoint in 'abc' * 50:
            with pool.connection(endpoint, timeout=20):
                pass

    def handler(_: int, frame: Any) -> None:
        while frame is not None:
            if frame.f_code is target.__code__:
                raise KeyboardInterrupt
            frame = frame.f_back

    before = signal.signal(signal.SIGALRM, handler)
    interrupted = 0
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0013)
        deadline = time.monotonic() + 0.7
        while time.monotonic() < deadline:
            try:
                target()
            except KeyboardInterrupt:
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted > 20
    assert {report.exc_type for report in reports} <= {KeyboardInterrupt}
    reports.clear()
    wait_until(lambda: all(is_free(pool, endpoint) for endpoint in 'abc'))
    pool.close()  # the manager's own records were interrupted as well
    assert pool.get_size() == 0
