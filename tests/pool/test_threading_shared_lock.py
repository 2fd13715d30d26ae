import itertools
import linecache
import signal
import sys
import threading
from collections import OrderedDict
from concurrent.futures import Future
from types import FrameType
from typing import Any, Callable, Iterator, Optional

import pytest
from generic_connection_pool.threading import locks
from generic_connection_pool.threading.locks import SharedLock

PATIENCE = 30.0  # seconds until a test that hangs is given up


def start(function: Callable[..., Any], *args: Any, **kwargs: Any) -> 'Future[Any]':
    """Run a function in a thread of its own, a daemon, so that a test that fails does not hang."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(function(*args, **kwargs))
        except BaseException as exc:
            future.set_exception(exc)

    threading.Thread(target=run, daemon=True).start()
    return future


def wait_until(condition: Callable[[], bool]) -> None:
    ticks = threading.Event()
    for _ in range(int(PATIENCE / 0.001)):
        if condition():
            return
        ticks.wait(0.001)
    pytest.fail('the condition did not come true')


def start_waiting(lock: SharedLock, **kwargs: Any) -> 'Future[Any]':
    """Have another thread acquire the lock, and return when it stands in the queue."""
    before = len(lock._queue)
    future = start(lock.acquire, **kwargs)
    wait_until(lambda: len(lock._queue) == before + 1)
    return future


def result(future: 'Future[Any]') -> Any:
    return future.result(PATIENCE)


@pytest.fixture
def lock() -> SharedLock:
    return SharedLock()


def test_its_repr_tells_who_holds_it(lock: SharedLock) -> None:
    assert repr(lock) == 'SharedLock<status=unlocked, owner=None, shared_by=0>'
    lock.acquire()
    assert repr(lock) == f'SharedLock<status=locked exclusively, owner={threading.get_ident()}, shared_by=0>'
    lock.release()
    lock.acquire(exclusive=False)
    lock.acquire(exclusive=False)
    assert repr(lock) == 'SharedLock<status=locked for share, owner=None, shared_by=2>'
    start_waiting(lock)
    assert repr(lock) == 'SharedLock<status=locked for share, owner=None, shared_by=2>'


def test_the_owner_is_the_thread_that_waited_for_the_lock(lock: SharedLock) -> None:
    lock.acquire()
    waiter = start(lambda: (lock.acquire(), threading.get_ident()))
    wait_until(lambda: len(lock._queue) == 2)
    lock.release()
    _, ident = result(waiter)
    assert f'owner={ident}' in repr(lock)


def test_exclusive_use_shuts_out_everybody_else(lock: SharedLock) -> None:
    assert lock.acquire()
    assert not lock.acquire(blocking=False)
    assert not lock.acquire(exclusive=False, blocking=False)
    lock.release()
    assert lock.acquire(blocking=False)


def test_a_share_lets_in_others_who_share_and_nobody_else(lock: SharedLock) -> None:
    assert lock.acquire(exclusive=False)
    assert lock.acquire(exclusive=False, blocking=False)
    assert not lock.acquire(blocking=False)
    lock.release(exclusive=False)
    assert not lock.acquire(blocking=False)
    lock.release(exclusive=False)
    assert lock.acquire(blocking=False)


@pytest.mark.parametrize('exclusive', [True, False])
def test_releasing_an_unlocked_lock_is_an_error(lock: SharedLock, exclusive: bool) -> None:
    with pytest.raises(RuntimeError, match='not locked'):
        lock.release(exclusive)
    assert lock.acquire(blocking=False)


@pytest.mark.parametrize('exclusive', [True, False])
def test_releasing_it_in_the_other_way_is_an_error_and_changes_nothing(lock: SharedLock, exclusive: bool) -> None:
    lock.acquire(exclusive)
    before = repr(lock)
    with pytest.raises(RuntimeError, match='the other way'):
        lock.release(not exclusive)
    assert repr(lock) == before


def test_one_thread_may_release_what_another_acquired(lock: SharedLock) -> None:
    lock.acquire()
    result(start(lock.release))
    assert lock.acquire(blocking=False)


def test_an_attempt_that_does_not_wait_takes_no_timeout(lock: SharedLock) -> None:
    with pytest.raises(ValueError, match='timeout'):
        lock.acquire(blocking=False, timeout=1.0)
    assert lock.acquire(blocking=False, timeout=-1)


@pytest.mark.parametrize('timeout', [0, 0.001])
def test_acquiring_gives_up_after_the_timeout(lock: SharedLock, timeout: float) -> None:
    lock.acquire()
    assert lock.acquire(timeout=timeout) is False
    lock.release()
    assert 'unlocked' in repr(lock)


@pytest.mark.parametrize('timeout', [None, -1, -0.5, float('inf'), 10**6])
def test_acquiring_waits_as_long_as_it_may(lock: SharedLock, timeout: Optional[float]) -> None:
    lock.acquire()
    waiter = start_waiting(lock, timeout=timeout)
    assert not waiter.done()
    lock.release()
    assert result(waiter) is True


def test_a_with_statement_holds_the_lock_exclusively(lock: SharedLock) -> None:
    with pytest.raises(ZeroDivisionError):
        with lock:
            assert 'locked exclusively' in repr(lock)
            raise ZeroDivisionError
    assert 'unlocked' in repr(lock)


@pytest.mark.parametrize('exclusive, status', [(True, 'locked exclusively'), (False, 'locked for share')])
def test_acquired_holds_the_lock_for_a_block(lock: SharedLock, exclusive: bool, status: str) -> None:
    with pytest.raises(ZeroDivisionError):
        with lock.acquired(exclusive):
            assert status in repr(lock)
            raise ZeroDivisionError
    assert 'unlocked' in repr(lock)


@pytest.mark.parametrize('arguments', [{'timeout': 0.001}, {'timeout': 0}, {'blocking': False}])
def test_acquired_raises_a_timeout_error_and_does_not_enter_the_block(lock: SharedLock, arguments: Any) -> None:
    lock.acquire()
    before = repr(lock)
    with pytest.raises(TimeoutError, match='locked exclusively'):
        with lock.acquired(**arguments):
            pytest.fail('entered')
    assert repr(lock) == before


def test_waiters_are_served_in_the_order_of_arrival_and_neighbours_share(lock: SharedLock) -> None:
    lock.acquire()
    share_1 = start_waiting(lock, exclusive=False)
    share_2 = start_waiting(lock, exclusive=False)
    alone_1 = start_waiting(lock)
    share_3 = start_waiting(lock, exclusive=False)
    alone_2 = start_waiting(lock)
    assert 'locked exclusively' in repr(lock) and 'shared_by=0' in repr(lock)

    lock.release()
    assert result(share_1) and result(share_2)
    assert 'shared_by=2' in repr(lock)
    lock.release(exclusive=False)
    assert not alone_1.done()
    lock.release(exclusive=False)
    assert result(alone_1)
    assert 'locked exclusively' in repr(lock) and 'shared_by=0' in repr(lock)
    lock.release()
    assert result(share_3)
    assert 'shared_by=1' in repr(lock) and not alone_2.done()
    lock.release(exclusive=False)
    assert result(alone_2)


def test_nobody_overtakes_those_who_wait(lock: SharedLock) -> None:
    lock.acquire(exclusive=False)
    waiter = start_waiting(lock)
    assert not lock.acquire(exclusive=False, blocking=False)
    lock.release(exclusive=False)
    assert result(waiter)


class Admission:
    """A lock to park on, where the wait times out or is interrupted when the test says so."""

    def __init__(self, interrupt: bool) -> None:
        self.end_of_wait = threading.Event()
        self._interrupt = interrupt
        self._lock = threading.Lock()
        self._lock.acquire()
        self.locked = self._lock.locked
        self.release = self._lock.release

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if blocking:
            assert timeout == 5.0
            assert self.end_of_wait.wait(PATIENCE)
            if self._interrupt:
                raise KeyboardInterrupt
            return False
        return self._lock.acquire(blocking=False)


def start_waiting_in_vain(
    lock: SharedLock, monkeypatch: pytest.MonkeyPatch, exclusive: bool = True, interrupt: bool = False
) -> 'tuple[Future[Any], threading.Event]':
    """Like :func:`start_waiting`, but the wait ends without success when the event that is returned is set."""
    admission = Admission(interrupt)
    with monkeypatch.context() as patch:
        patch.setattr(locks._Place, '__init__', lambda place, exclusive: init(place, exclusive, admission))
        return start_waiting(lock, exclusive=exclusive, timeout=5.0), admission.end_of_wait


def init(place: Any, exclusive: bool, admission: Admission) -> None:
    place.exclusive, place.owner, place.holds, place.admission = exclusive, 'waiter', False, admission


@pytest.mark.parametrize('exclusive', [True, False])
@pytest.mark.parametrize('arguments', [{'timeout': 0}, {'blocking': False}])
def test_an_attempt_that_does_not_wait_never_stands_in_the_queue_and_in_the_way_of_others(
    lock: SharedLock, exclusive: bool, arguments: Any
) -> None:
    class Queue(OrderedDict[Any, None]):
        def __setitem__(self, key: Any, value: None) -> None:
            pytest.fail('queued')

    lock.acquire()
    (holder,) = lock._queue
    lock._queue = Queue()
    OrderedDict.__setitem__(lock._queue, holder, None)
    assert lock.acquire(exclusive, **arguments) is False


def test_a_waiter_that_gives_up_lets_in_those_whom_it_kept_out(
    lock: SharedLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock.acquire(exclusive=False)
    alone, timed_out = start_waiting_in_vain(lock, monkeypatch)
    share_1 = start_waiting(lock, exclusive=False)
    share_2 = start_waiting(lock, exclusive=False)
    timed_out.set()
    assert result(alone) is False
    assert result(share_1) and result(share_2)
    assert 'shared_by=3' in repr(lock)


def test_a_waiter_that_is_let_in_while_its_time_runs_out_has_the_lock(
    lock: SharedLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock.acquire()
    alone, timed_out = start_waiting_in_vain(lock, monkeypatch)
    lock.release()
    timed_out.set()
    assert result(alone) is True
    assert 'locked exclusively, owner=waiter' in repr(lock)


def test_an_interrupted_sharer_leaves_the_shares_of_others_alone(
    lock: SharedLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock.acquire()
    unlucky, interrupt = start_waiting_in_vain(lock, monkeypatch, exclusive=False, interrupt=True)
    other = start_waiting(lock, exclusive=False)
    lock.release()
    assert result(other) is True
    lock.release(exclusive=False)  # by the other, before the interrupted one has noticed
    interrupt.set()
    with pytest.raises(KeyboardInterrupt):
        result(unlucky)
    assert 'unlocked' in repr(lock)


@pytest.fixture
def interrupt_main() -> Iterator[Callable[[], None]]:
    """Does what Ctrl-C does."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    main = threading.main_thread().ident
    assert main is not None
    yield lambda: signal.pthread_kill(main, signal.SIGINT)
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(sys.platform == 'win32', reason='a wait for a lock cannot be interrupted on Windows')
def test_an_interrupted_waiter_leaves_the_queue_and_passes_its_turn_on(
    lock: SharedLock, interrupt_main: Callable[[], None]
) -> None:
    lock.acquire(exclusive=False)

    def interrupt_when_it_waits() -> 'Future[Any]':
        wait_until(lambda: len(lock._queue) == 2)
        behind = start_waiting(lock, exclusive=False)
        interrupt_main()
        return behind

    interrupter = start(interrupt_when_it_waits)
    with pytest.raises(KeyboardInterrupt):
        lock.acquire()
    assert result(result(interrupter)) is True
    assert 'shared_by=2' in repr(lock)


def interrupt_at_line(number: int) -> None:
    """Raise KeyboardInterrupt in this thread when it has run so many lines of the module under test.

    Two kinds of lines are left out, at which CPython (from 3.11 on) serves no signal although a tracer is called: the
    entry and the exit of a ``with`` statement, and a plain ``return`` after the call that decided on it.
    """
    countdown = itertools.count(number, -1)

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        if frame.f_code.co_filename != locks.__file__:
            return None
        line = linecache.getline(locks.__file__, frame.f_lineno).strip()
        if event == 'line' and not line.startswith(('with ', 'return True')) and next(countdown) == 0:
            raise KeyboardInterrupt
        return trace

    sys.settrace(trace)


def interrupted(number: int, function: Callable[[], Any]) -> bool:
    """Call a function, interrupting it at a line. Tell whether it came so far."""
    tracer = sys.gettrace()
    try:
        interrupt_at_line(number)
        function()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(tracer)
    return False


def release_when_somebody_waits(lock: SharedLock, or_else: threading.Event) -> None:
    wait_until(lambda: len(lock._queue) > 1 or or_else.is_set())
    lock.release()


@pytest.mark.parametrize('exclusive', [True, False])
@pytest.mark.parametrize('held', [True, False])
def test_an_interrupt_at_any_line_of_acquire_loses_nothing(exclusive: bool, held: bool) -> None:
    for number in itertools.count():
        lock = SharedLock()
        returned = threading.Event()
        releaser = None
        if held:
            lock.acquire()
            releaser = start(release_when_somebody_waits, lock, returned)
        was_interrupted = interrupted(number, lambda: lock.acquire(exclusive))
        returned.set()
        if releaser is not None:
            result(releaser)
        if not was_interrupted:
            break
        assert 'unlocked' in repr(lock), f'interrupted at line event {number}'
        assert lock.acquire(blocking=False)
    assert number > 5
    lock.release(exclusive)
    assert 'unlocked' in repr(lock)


@pytest.mark.parametrize('exclusive', [True, False])
def test_an_interrupt_at_any_line_of_release_leaves_no_waiter_asleep(exclusive: bool) -> None:
    for number in itertools.count():
        lock = SharedLock()
        lock.acquire()
        waiters = [start_waiting(lock, exclusive=exclusive) for _ in range(2)]
        was_interrupted = interrupted(number, lock.release)
        if f'owner={threading.get_ident()},' in repr(lock):
            assert was_interrupted, 'release did nothing'
            lock.release()
        assert result(waiters[0])
        lock.release(exclusive)
        assert result(waiters[1])
        lock.release(exclusive)
        assert 'unlocked' in repr(lock)
        if not was_interrupted:
            break
    assert number > 5


def test_many_threads_never_break_the_rules() -> None:
    lock = SharedLock()
    inside = {'exclusive': 0, 'shared': 0}
    counting = threading.Lock()
    gate = threading.Barrier(8)

    def use(kind: str, timeout: Optional[float]) -> int:
        gate.wait(PATIENCE)
        served = 0
        for _ in range(200):
            try:
                with lock.acquired(exclusive=kind == 'exclusive', timeout=timeout):
                    with counting:
                        inside[kind] += 1
                        assert inside['exclusive'] == 0 or inside == {'exclusive': 1, 'shared': 0}
                    served += 1
                    with counting:
                        inside[kind] -= 1
            except TimeoutError:
                assert timeout is not None
        return served

    patient = [start(use, kind, None) for kind in ('exclusive', 'shared') for _ in range(2)]
    hasty = [start(use, kind, 0.0001) for kind in ('exclusive', 'shared') for _ in range(2)]
    assert [result(thread) for thread in patient] == [200] * 4
    for thread in hasty:
        result(thread)
    assert 'unlocked' in repr(lock)
    assert lock.acquire(blocking=False)
