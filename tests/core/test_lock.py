import contextlib
import gc
import signal
import sys
import threading
import time
from typing import Any, Deque, Iterator, List

import pytest
from support.core_desk import Desk
from support.core_twins import PYTHON, Twin, all_twins, twins_of

#: longer than anything here takes, unless it hangs
LONG = 20.0


def parker_of(twin: Twin) -> Any:
    return twin.get('lock', 'Parker')()


@contextlib.contextmanager
def alarm_soon(handler: Any) -> Iterator[None]:
    """Runs a signal handler in the main thread a moment later."""
    former = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, former)


needs_signals = pytest.mark.skipif(not hasattr(signal, 'setitimer'), reason='this platform has no interval timers')


@pytest.mark.parametrize('twin', all_twins())
class TestParker:
    def test_a_wake_up_before_the_sleep_is_not_lost(self, twin: Twin) -> None:
        parker = parker_of(twin)
        parker.unpark()
        assert parker.park(LONG)

    def test_wake_ups_before_the_sleep_count_as_one(self, twin: Twin) -> None:
        parker = parker_of(twin)
        for _ in range(3):
            parker.unpark()
        assert parker.park(0.0)
        assert not parker.park(0.0)

    def test_it_can_be_used_over_and_over(self, twin: Twin) -> None:
        parker = parker_of(twin)
        for _ in range(100):
            parker.unpark()
            assert parker.park()
            assert not parker.park(0.0)

    @pytest.mark.parametrize('timeout', [0, 0.0, -1.0, -1e300])
    def test_no_time_means_not_to_sleep(self, twin: Twin, timeout: float) -> None:
        assert not parker_of(twin).park(timeout)

    @pytest.mark.parametrize('timeout', [None, 1e9, float('inf')])
    def test_a_very_long_sleep_is_possible_and_can_be_ended(self, twin: Twin, timeout: Any) -> None:
        parker = parker_of(twin)
        answers: List[bool] = []
        thread = threading.Thread(target=lambda: answers.append(parker.park(timeout)), daemon=True)
        thread.start()
        parker.unpark()
        thread.join(LONG)
        assert answers == [True]

    def test_a_sleep_lasts_as_long_as_it_was_to_last(self, twin: Twin) -> None:
        started = time.monotonic()
        assert not parker_of(twin).park(0.05)
        assert 0.049 <= time.monotonic() - started < LONG

    def test_whoever_sleeps_lets_other_threads_run(self, twin: Twin) -> None:
        mine, other = parker_of(twin), parker_of(twin)

        def answer() -> None:
            other.park(LONG)
            mine.unpark()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        other.unpark()
        assert mine.park(LONG)
        thread.join(LONG)

    def test_one_wakes_one(self, twin: Twin) -> None:
        parkers = [parker_of(twin) for _ in range(3)]
        parkers[1].unpark()
        assert [parker.park(0.0) for parker in parkers] == [False, True, False]

    @pytest.mark.parametrize('timeout', [None, LONG])
    @needs_signals
    def test_a_signal_is_served_at_once_and_its_exception_ends_the_sleep(self, twin: Twin, timeout: Any) -> None:
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        started = time.monotonic()
        with alarm_soon(interrupt), pytest.raises(KeyboardInterrupt):
            parker_of(twin).park(timeout)
        assert time.monotonic() - started < LONG / 2

    @pytest.mark.parametrize('timeout', [None, LONG])
    @needs_signals
    def test_a_signal_handler_may_wake_the_thread_that_it_has_interrupted(self, twin: Twin, timeout: Any) -> None:
        parker = parker_of(twin)
        with alarm_soon(lambda *_: parker.unpark()):
            assert parker.park(timeout)

    @needs_signals
    def test_a_sleep_goes_on_after_a_signal_but_lasts_no_longer(self, twin: Twin) -> None:
        served = []
        started = time.monotonic()
        with alarm_soon(lambda *_: served.append(1)):
            assert not parker_of(twin).park(0.15)
        assert served
        assert 0.149 <= time.monotonic() - started < LONG

    @needs_signals
    def test_a_sleep_that_a_signal_has_ended_eats_no_later_wake_up(self, twin: Twin) -> None:
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        parker = parker_of(twin)
        with alarm_soon(interrupt), pytest.raises(KeyboardInterrupt):
            parker.park()
        parker.unpark()
        assert parker.park(0.0)

    def test_one_that_was_woken_or_not_can_be_thrown_away(self, twin: Twin) -> None:
        for woken in (False, True):
            parker = parker_of(twin)
            if woken:
                parker.unpark()
            del parker
            gc.collect()


def test_a_long_sleep_of_the_pure_core_is_a_few_that_signals_may_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    slept: List[float] = []

    class Lock:
        def acquire(self, timeout: float) -> bool:
            nonlocal now
            slept.append(timeout)
            now += timeout
            return False

    monkeypatch.setattr(PYTHON.module('lock'), 'monotonic', lambda: now)
    parker = parker_of(PYTHON)
    parker._lock = Lock()
    assert not parker.park(2.5)
    assert slept == [1.0, 1.0, 0.5]


def test_the_clock_is_the_monotonic_one() -> None:
    for twin in (parameter.values[0] for parameter in all_twins() if not parameter.marks):
        before = time.monotonic()
        now = twin.get('lock', 'monotonic')()
        assert before <= now <= time.monotonic()


# -- the mutex, which the compiled core has no need to show


class Operations:
    """Something with operations, as a core has."""

    def __init__(self, twin: Twin):
        self.mutex = twin.get('lock', 'Mutex')()
        critical = twin.get('lock', 'critical')
        self.do = critical(Operations.do).__get__(self)  # type: ignore[method-assign]

    def do(self, call: Any) -> Any:
        return call()


@pytest.mark.parametrize('twin', twins_of('lock', 'Mutex'))
class TestMutex:
    def test_an_operation_answers_and_leaves_the_mutex_free(self, twin: Twin) -> None:
        operations = Operations(twin)
        assert operations.do(lambda: operations.mutex.busy) is True
        assert operations.mutex.busy is False
        assert self.is_free(operations.mutex)

    def is_free(self, mutex: Any) -> bool:
        answers: List[bool] = []
        thread = threading.Thread(target=lambda: answers.append(mutex.lock.acquire(blocking=False)))
        thread.start()
        thread.join(LONG)
        return answers[0]

    def test_an_operation_that_fails_leaves_the_mutex_free(self, twin: Twin) -> None:
        operations = Operations(twin)
        with pytest.raises(ZeroDivisionError):
            operations.do(lambda: 1 / 0)
        assert operations.mutex.busy is False
        assert self.is_free(operations.mutex)

    def test_a_call_from_inside_an_operation_is_refused_not_deadlocked(self, twin: Twin) -> None:
        operations = Operations(twin)
        with pytest.raises(twin.get('lock', 'ReentryError'), match='interrupted'):
            operations.do(lambda: operations.do(lambda: None))
        assert operations.do(lambda: 'works') == 'works'

    def test_what_a_finalizer_puts_off_runs_when_the_operation_has_ended(self, twin: Twin) -> None:
        operations = Operations(twin)
        events: List[Any] = []

        def interrupted() -> None:
            operations.mutex.defer(lambda: events.append(('put off', operations.mutex.busy)))
            events.append('operation')

        operations.do(interrupted)
        assert events == ['operation', ('put off', False)]

    def test_what_is_put_off_runs_outside_the_lock(self, twin: Twin) -> None:
        operations = Operations(twin)
        free: List[bool] = []
        operations.do(lambda: operations.mutex.defer(lambda: free.append(self.is_free(operations.mutex))))
        assert free == [True]

    def test_what_is_put_off_runs_even_if_the_operation_fails(self, twin: Twin) -> None:
        operations = Operations(twin)
        events: List[str] = []

        def interrupted() -> None:
            operations.mutex.defer(lambda: events.append('put off'))
            raise ArithmeticError

        with pytest.raises(ArithmeticError):
            operations.do(interrupted)
        assert events == ['put off']

    def test_what_is_put_off_may_use_the_pool_and_put_off_more(self, twin: Twin) -> None:
        operations = Operations(twin)
        events: List[str] = []

        def second() -> None:
            operations.mutex.defer(lambda: events.append('second'))

        def first() -> None:
            operations.do(second)
            events.append('first')

        operations.do(lambda: operations.mutex.defer(first))
        assert events == ['second', 'first']

    def test_an_error_in_what_was_put_off_is_told_but_hits_nobody(
        self, twin: Twin, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        operations = Operations(twin)
        told: List[Any] = []
        monkeypatch.setattr(sys, 'unraisablehook', told.append)
        events: List[str] = []

        def interrupted() -> str:
            operations.mutex.defer(lambda: 1 / 0)
            operations.mutex.defer(lambda: events.append('next'))
            return 'answer'

        assert operations.do(interrupted) == 'answer'
        assert [report.exc_type for report in told] == [ZeroDivisionError]
        assert isinstance(told[0].exc_value, ZeroDivisionError) and told[0].exc_traceback is not None
        assert callable(told[0].object), 'what was put off'
        assert events == ['next']

    def test_it_does_not_matter_that_another_thread_was_faster(self, twin: Twin) -> None:
        class Raced(Deque[Any]):
            def popleft(self) -> Any:
                self.clear()
                raise IndexError

        operations = Operations(twin)
        operations.mutex.deferred = Raced([lambda: None])
        assert operations.do(lambda: 'answer') == 'answer'

    def test_a_refused_call_does_not_run_what_its_own_operation_has_put_off(self, twin: Twin) -> None:
        operations = Operations(twin)
        events: List[str] = []

        def interrupted() -> None:
            operations.mutex.defer(lambda: events.append('put off'))
            with pytest.raises(twin.get('lock', 'ReentryError')):
                operations.do(lambda: None)
            events.append('operation goes on')

        operations.do(interrupted)
        assert events == ['operation goes on', 'put off']

    def test_operations_of_other_threads_wait(self, twin: Twin) -> None:
        operations = Operations(twin)
        inside, may_end, events = threading.Event(), threading.Event(), []

        def long_one() -> None:
            inside.set()
            assert may_end.wait(LONG)
            events.append('long one')

        first = threading.Thread(target=lambda: operations.do(long_one))
        second = threading.Thread(target=lambda: operations.do(lambda: events.append('other')))
        first.start()
        assert inside.wait(LONG)
        second.start()
        may_end.set()
        first.join(LONG)
        second.join(LONG)
        assert events == ['long one', 'other']


def test_a_finalizer_inside_an_operation_of_the_pure_core_is_refused_with_the_state_unharmed() -> None:
    desk = Desk(PYTHON)
    user = desk.user('a')
    record = user.ticket.record
    refused: List[BaseException] = []

    class Finalizer:
        def __del__(self) -> None:
            try:
                desk.core.take_back(record, user.loan)
            except RuntimeError as exc:
                refused.append(exc)

    lent = desk.core._lent
    former = lent.find

    class Interrupted:
        def find(self, conn: object) -> Any:
            Finalizer()
            return former(conn)

    desk.core._lent = Interrupted()
    assert desk.core.find(record.conn, 'a') is record
    desk.core._lent = lent
    assert [type(exc).__name__ for exc in refused] == ['ReentryError']
    desk.check()
    assert user.release()
