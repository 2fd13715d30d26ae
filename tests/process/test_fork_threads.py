"""A threads pool in a forked child: it starts empty and free, and leaves its parent's connections alone. HAZARD 38"""

import gc
import multiprocessing
import os
import signal
import socket
import threading
from typing import Any, Callable, List

import pytest
from generic_connection_pool import ConnectionNotAcquiredError, ConnectionPoolClosedError
from generic_connection_pool.threading import ConnectionPool
from support.forked_pools import Watched, used, works
from support.forking import fork, in_child
from support.threads import Gate, Manager, finish, result, start, start_waiting, wait_until

pytestmark = pytest.mark.skipif(not hasattr(os, 'fork'), reason='this platform does not fork')


def test_a_child_has_none_of_the_connections_and_the_parent_has_them_all() -> None:
    manager = Watched()
    pool: Any = used(ConnectionPool(manager, max_size=2), 'a', 'b')
    held = pool.acquire('a')

    def child() -> Any:
        assert works(pool)
        pool.close(timeout=5)
        return manager.left, [str(conn) for conn in manager.disposed if conn.number <= 2]

    left, disposed = in_child(child)
    assert sorted(left) == [('a', 'a1'), ('b', 'b2')] and not disposed
    assert not manager.left and pool.get_size() == 2
    pool.release(held, 'a')
    assert pool.acquire('a') is held
    pool.release(held, 'a')
    finish(pool)


def test_a_block_that_goes_on_in_the_child_ends_in_silence() -> None:
    manager = Watched()
    pool: Any = ConnectionPool(manager, max_size=1)

    def child() -> Any:
        lease.__exit__(None, None, None)
        assert pool.get_size() == 0
        return works(pool) and [call.hook for call in manager.calls if str(call.conn) == 'a1']

    with pool.connection('a'):
        pass
    lease = pool.connection('a')
    lease.__enter__()
    calls = in_child(child)
    assert calls == ['on_acquire', 'on_release', 'check_aliveness', 'on_acquire']  # all of them of the parent
    lease.__exit__(None, None, None)
    finish(pool)


def test_a_block_that_fails_in_the_child_raises_its_own_exception_and_asks_no_hook() -> None:
    manager = Watched()
    pool: Any = ConnectionPool(manager)

    def child() -> Any:
        del manager.calls[:]
        with pytest.raises(ZeroDivisionError):
            with block:
                raise ZeroDivisionError
        return len(manager.calls), works(pool)

    class Block:
        def __enter__(self) -> None:
            pass

        def __exit__(self, *args: Any) -> Any:
            return lease.__exit__(*args)

    block = Block()
    lease = pool.connection('a')
    lease.__enter__()
    assert in_child(child) == (0, True)
    lease.__exit__(None, None, None)
    finish(pool)


def test_a_release_in_the_child_of_what_the_parent_has_acquired_does_nothing() -> None:
    pool: Any = ConnectionPool(Watched())
    held = pool.acquire('a')

    def child() -> Any:
        pool.release(held, 'a')
        pool.release(held, 'a')
        assert pool.get_size() == 0
        with pytest.raises(ConnectionNotAcquiredError):  # it still knows what is nobody's
            pool.release(object(), 'a')
        return works(pool)

    assert in_child(child)
    pool.release(held, 'a')
    with pytest.raises(ConnectionNotAcquiredError):
        pool.release(held, 'a')
    finish(pool)


def test_a_closed_pool_is_closed_in_the_child() -> None:
    pool: Any = used(ConnectionPool(Watched()), 'a')
    held = pool.acquire('a')
    closing = start(pool.close)
    wait_until(lambda: pool.closed)

    def child() -> Any:
        pool.close()
        with pytest.raises(ConnectionPoolClosedError):
            pool.acquire('a')
        return pool.closed, pool.get_size()

    assert in_child(child) == (True, 0)
    pool.release(held, 'a')
    result(closing)


def test_those_who_wait_create_check_and_dispose_in_other_threads_are_not_in_the_child() -> None:
    manager = Watched()
    pool: Any = used(ConnectionPool(manager, max_size=1, total_max_size=4), 'a', 'b', 'c')
    creating, checking = Gate(), Gate()
    manager.doing['create'] = creating
    manager.doing['check_aliveness'] = lambda endpoint, conn: checking() if endpoint == 'b' else None
    held = pool.acquire('a')
    waiter = start_waiting(pool, 'a')
    creator = start(pool.acquire, 'd')
    checker = start(pool.acquire, 'b', 20)
    creating.reached.wait()
    checking.reached.wait()

    def child() -> Any:
        manager.doing.clear()
        manager.lock = threading.RLock()
        return works(pool), sorted(manager.left)

    assert in_child(child) == (True, [('a', 'a1'), ('b', 'b2'), ('c', 'c3')])
    assert pool.get_size() == 4
    creating.open.set()
    checking.open.set()
    pool.release(held, 'a')
    assert result(waiter) is held
    for conn, endpoint in ((held, 'a'), (result(creator), 'd'), (result(checker), 'b')):
        pool.release(conn, endpoint)
    finish(pool)


def test_the_collector_of_the_child_starts_with_its_first_connection() -> None:
    pool: Any = used(ConnectionPool(Watched(), background_collector=True, min_idle=0, idle_timeout=0.001), 'a')

    def collectors() -> int:
        return sum(thread.name == 'gcp-collector' for thread in threading.enumerate())

    def child() -> Any:
        before = collectors()
        used(pool, 'b')
        wait_until(lambda: pool.get_size() == 0)
        return before, collectors()

    others = collectors() - 1
    assert others >= 0
    assert in_child(child) == (0, 1)
    wait_until(lambda: pool.get_size() == 0)
    finish(pool)


def test_disposals_that_the_parent_has_put_off_are_left_to_it() -> None:
    manager = Watched()
    pool: Any = used(ConnectionPool(manager, total_max_size=1), 'a')
    hanging = Gate()
    manager.doing['dispose'] = hanging
    with pytest.raises(TimeoutError):
        pool.acquire('b', timeout=0.01)
    hanging.reached.wait()

    def child() -> Any:
        manager.doing.clear()
        manager.disposed.clear()
        manager.lock = threading.RLock()
        used(pool, 'a')
        assert pool.acquire('b', timeout=20)  # has a worker of the child's own dispose of the other
        return [str(conn) for conn in manager.disposed]

    assert in_child(child) == ['a2']
    hanging.open.set()
    finish(pool)


def test_a_manager_that_knows_nothing_of_forks_has_its_descriptors_released_in_the_child() -> None:
    mine, theirs = socket.socketpair()

    class Duck:
        def create(self, endpoint: str, timeout: Any = None) -> socket.socket:
            return mine

        def dispose(self, endpoint: str, conn: socket.socket, timeout: Any = None) -> None:
            conn.close()

        def nothing(self, *args: Any) -> bool:
            return True

        check_aliveness = on_acquire = on_release = on_connection_dead = nothing

    pool: Any = used(ConnectionPool(Duck()), 'a')  # type: ignore[arg-type]
    assert in_child(mine.fileno) == -1
    mine.sendall(b'still here')
    assert theirs.recv(100) == b'still here'
    pool.close()
    theirs.close()


@pytest.mark.parametrize('collects', [True, False])
def test_a_child_collects_garbage_if_its_parent_does(collects: bool) -> None:
    pool: Any = used(ConnectionPool(Manager()), 'a')
    before = gc.isenabled()
    (gc.enable if collects else gc.disable)()
    try:
        assert in_child(gc.isenabled) is collects
    finally:
        (gc.enable if before else gc.disable)()
    finish(pool)


def test_the_child_does_not_wait_for_the_idle_threads_of_its_parent() -> None:
    manager = Watched()
    pool: Any = used(ConnectionPool(manager, total_max_size=1), 'a')
    pool.release(pool.acquire('b', timeout=20), 'b')
    wait_until(lambda: [str(conn) for conn in manager.disposed] == ['a1'] and pool._workers._beds)

    def child() -> Any:
        for endpoint in 'ab':
            pool.release(pool.acquire(endpoint, timeout=10), endpoint)
        return [str(conn) for conn in manager.disposed]

    assert in_child(child) == ['a1', 'a3']
    finish(pool)


def test_a_signal_handler_that_forks_while_its_thread_waits_ends_the_wait_in_the_child() -> None:
    pool: Any = ConnectionPool(Watched(), max_size=1)
    held = pool.acquire('a')
    reader, writer = os.pipe()
    children: List[int] = []

    def handler(*_: Any) -> None:
        children.append(fork())
        if children[0]:
            pool.release(held, 'a')

    before = signal.signal(signal.SIGUSR1, handler)
    main = threading.get_ident()

    def send() -> None:
        wait_until(lambda: pool._core.waiting('a') == 1)
        signal.pthread_kill(main, signal.SIGUSR1)

    sender = start(send)
    try:
        outcome = 'served'
        try:
            pool.acquire('a')
        except BaseException as exc:
            outcome = type(exc).__name__
        if children == [0]:
            try:
                signal.alarm(10)
                os.write(writer, f'{outcome} {works(pool)}'.encode())
            finally:
                os._exit(0)
    finally:
        signal.signal(signal.SIGUSR1, before)
    os.close(writer)
    result(sender)
    assert outcome == 'served'
    with os.fdopen(reader) as pipe:
        assert pipe.read() == 'RuntimeError True'
    os.waitpid(children[0], 0)
    pool.release(held, 'a')
    finish(pool)


def test_a_signal_handler_that_forks_while_its_thread_closes_ends_the_close_in_the_child() -> None:
    pool: Any = ConnectionPool(Watched())
    held = pool.acquire('a')
    reader, writer = os.pipe()
    children: List[int] = []

    def handler(*_: Any) -> None:
        children.append(fork())
        if children[0]:
            pool.release(held, 'a')

    before = signal.signal(signal.SIGUSR1, handler)
    main = threading.get_ident()

    def send() -> None:
        wait_until(lambda: pool._closers)
        signal.pthread_kill(main, signal.SIGUSR1)

    sender = start(send)
    try:
        pool.close()
        if children == [0]:
            try:
                os.write(writer, f'{pool.closed} {pool.get_size()} {pool._closers}'.encode())
            finally:
                os._exit(0)
    finally:
        signal.signal(signal.SIGUSR1, before)
    os.close(writer)
    result(sender)
    assert pool.closed and pool.get_size() == 0
    with os.fdopen(reader) as pipe:
        assert pipe.read() == 'True 0 []'
    os.waitpid(children[0], 0)


def test_a_grandchild_starts_empty_too() -> None:
    manager = Watched()
    pool: Any = used(ConnectionPool(manager), 'a')

    def grandchild() -> Any:
        return works(pool), sorted(manager.left)

    def child() -> Any:
        used(pool, 'b')
        return in_child(grandchild), sorted(manager.left), pool.get_size()

    assert in_child(child) == ((True, [('a', 'a1'), ('b', 'b2')]), [('a', 'a1')], 1)
    finish(pool)


def _work(pool: Any, answers: Any) -> None:
    answers.put(works(pool))


@pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')
def test_multiprocessing_by_fork_works() -> None:
    context = multiprocessing.get_context('fork')
    pool: Any = used(ConnectionPool(Watched(), background_collector=True), 'a', 'b')
    answers = context.SimpleQueue()
    processes = [context.Process(target=_work, args=(pool, answers)) for _ in range(3)]
    for process in processes:
        process.start()
    assert [answers.get() for _ in processes] == [True] * 3
    for process in processes:
        process.join()
        assert process.exitcode == 0
    answers.close()
    finish(pool)


def test_a_manager_without_the_hook_and_a_hook_that_raises_harm_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(Watched):
        def on_fork(self, endpoint: Any, conn: Any) -> None:
            super().on_fork(endpoint, conn)
            raise ValueError('on_fork')

    reports: List[Any] = []
    pools: List[Any] = [used(ConnectionPool(manager), 'a', 'b') for manager in (Failing(), Manager())]
    monkeypatch.setattr('sys.unraisablehook', lambda report: reports.append(str(report.exc_value)))

    def child() -> Any:
        return [works(pool) for pool in pools], reports, len(pools[0]._connection_manager.left)

    assert in_child(child) == ([True, True], ['on_fork'], 2)
    for pool in pools:
        finish(pool)


def hammer(pool: Any, stop: threading.Event, me: int) -> None:
    place = me
    while not stop.is_set():
        place += 1
        endpoint = 'abc'[place % 3]
        try:
            with pool.connection(endpoint, None if place % 2 else 20):
                pass
        except ZeroDivisionError:
            pass


@pytest.mark.parametrize('make_manager', [Manager, Watched])
def test_forks_at_random_instants_of_busy_threads(make_manager: Callable[[], Any]) -> None:
    """Whatever the other threads are in the middle of."""
    pool: Any = ConnectionPool(make_manager(), max_size=2, total_max_size=4, min_idle=0, idle_timeout=0.0005)
    stop = threading.Event()
    threads = [start(hammer, pool, stop, me) for me in range(4)]

    def child() -> bool:
        manager = pool._connection_manager
        manager.lock = threading.RLock()
        # without a GIL each has a lock of its own, which another thread may have held
        manager.calls, manager.created, manager.disposed, manager.doing = [], [], [], {}
        return works(pool)

    try:
        for _ in range(15):
            assert in_child(child)
    finally:
        stop.set()
    for thread in threads:
        result(thread)
    finish(pool)


def test_a_child_waits_for_no_lock_that_a_thread_of_its_parent_holds() -> None:
    """HAZARD 38. Without a GIL the core's lock has pieces: while it waits for the next one, a thread holds the others."""
    pool: Any = used(ConnectionPool(Manager()), 'a', 'b')
    core = pool._core
    stop = threading.Event()

    def take_all_pieces() -> None:
        while not stop.is_set():
            core.check_invariants()

    threads = [start(take_all_pieces) for _ in range(8)]
    try:
        for _ in range(20):
            assert in_child(lambda: works(pool))
    finally:
        stop.set()
    for thread in threads:
        result(thread)
    finish(pool)
