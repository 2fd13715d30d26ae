"""What the core locks with, waits with and tells the time by."""

import collections
import functools
import sys
import threading
import time
from typing import Any, Callable, Deque, Optional, TypeVar, cast

__all__ = ('Mutex', 'Parker', 'ReentryError', 'critical', 'monotonic')

monotonic = time.monotonic

#: The longest that one call of the platform's wait lasts, in seconds. A signal that arrives between the look for signals
#: and the wait does not interrupt the wait: it is served that much later at the most.
LONGEST_WAIT = 1.0

CallableT = TypeVar('CallableT', bound=Callable[..., Any])


class ReentryError(RuntimeError):
    """A finalizer or signal handler that interrupted the core in this very thread asked the same core for something.

    The state is half-way between two operations then, so the call can only be put off (see :meth:`Mutex.defer`).
    The compiled core cannot be interrupted and never raises this.
    """


class Mutex:
    """Makes the operations of one core atomic.

    The garbage collector and signal handlers may run between any two bytecodes, hence inside an operation, and what
    they run may call the pool again. The lock is re-entrant so that such a call does not block on its own thread,
    and ``busy`` tells it from a first entry: a call that finds it set gets a ReentryError.
    """

    __slots__ = ('busy', 'deferred', 'lock')

    def __init__(self) -> None:
        #: guards all state of the core that owns this mutex
        self.lock = threading.RLock()
        #: an operation is under way; guarded by lock
        self.busy = False
        #: calls put off until the operation under way has ended; the deque's own methods are atomic
        self.deferred: Deque[Callable[[], object]] = collections.deque()

    def defer(self, call: Callable[[], object]) -> None:
        """Run ``call`` when the operation that the caller has interrupted is over."""
        self.deferred.append(call)

    def run_deferred(self) -> None:
        """Run what was put off. No operation is under way."""
        while self.deferred:
            try:
                call = self.deferred.popleft()
            except IndexError:  # another thread was faster
                return
            try:
                call()
            except BaseException as exc:  # as any exception of a finalizer: there is nobody to raise it to
                sys.unraisablehook(cast(Any, _Unraisable(exc, call)))


class _Unraisable:
    """What sys.unraisablehook wants to be told."""

    err_msg = 'Exception ignored in a pool operation put off by a finalizer'

    def __init__(self, exc: BaseException, source: object):
        self.exc_type = type(exc)
        self.exc_value = exc
        self.exc_traceback = exc.__traceback__
        self.object = source


def critical(method: CallableT) -> CallableT:
    """Make a method of a core an operation: atomic under the core's mutex.

    The ``try`` comes before ``busy`` is set and the lock's own ``with`` is one C call, so that an exception raised by a
    signal handler at any bytecode leaves the mutex free.
    """

    @functools.wraps(method)
    def operation(self: Any, *args: Any) -> Any:
        mutex = self.mutex
        try:
            with mutex.lock:
                if mutex.busy:
                    raise ReentryError(
                        'the pool was called from a finalizer or signal handler that had interrupted it in the same '
                        'thread; with the pure-Python core, only releasing and closing are possible there'
                    )
                try:
                    mutex.busy = True
                    return method(self, *args)
                finally:
                    mutex.busy = False
        finally:
            if mutex.deferred and not mutex.busy:  # if another thread is busy, it does
                mutex.run_deferred()

    return cast(CallableT, operation)


class Parker:
    """A place for one thread to sleep until it is woken. A wake-up before the sleep is not lost."""

    __slots__ = ('_lock',)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def park(self, timeout: Optional[float] = None) -> bool:
        """Sleep until :meth:`unpark`; signals are served meanwhile.

        :param timeout: seconds to sleep at the most (negative counts as 0), ``None`` for no bound
        :return: whether it was woken
        """
        deadline = None if timeout is None else monotonic() + timeout
        left = LONGEST_WAIT if timeout is None else timeout
        while not self._lock.acquire(timeout=min(max(left, 0.0), LONGEST_WAIT)):
            if deadline is not None:
                left = deadline - monotonic()
                if left <= 0.0:
                    return False
        return True

    def unpark(self) -> None:
        """Wake the thread; several wake-ups before it sleeps are one."""
        try:
            self._lock.release()
        except RuntimeError:  # it has been woken already
            pass
