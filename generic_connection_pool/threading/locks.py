"""A lock for threads that is held either by one thread exclusively or by any number of them together."""

import threading
from collections import OrderedDict
from types import TracebackType
from typing import Optional, Type

__all__ = ('SharedLock',)


class SharedLock:
    """A lock that is held either by one thread exclusively or by any number of them together.

    First come, first served: whoever arrives while others wait queues behind them, and neighbours in the queue that
    ask for a share are let in together. So neither kind of user starves the other.

    Not re-entrant: a thread that holds the lock and asks for it again waits for itself. That includes a share on top
    of a share when somebody else waits for exclusive use in between. As with :class:`threading.Lock`, a thread may
    release what another one acquired. ``with lock:`` holds it exclusively.
    """

    # The queue is the whole state: those who hold the lock stand at its front. One insertion or one deletion changes
    # it and everything else follows from it, so an interrupt between any two steps leaves something to repair it from.

    def __init__(self) -> None:
        self._mutex = threading.Lock()  # guards the queue and the places in it
        self._queue: OrderedDict[_Place, None] = OrderedDict()

    def acquire(self, exclusive: bool = True, blocking: bool = True, timeout: Optional[float] = None) -> bool:
        """Acquire the lock.

        :param exclusive: ``True`` (default) to hold it alone, ``False`` to share it
        :param blocking: ``False`` not to wait at all; the default is to wait
        :param timeout: how long to wait at most, in seconds; ``None`` (default) and negative numbers mean no bound
        :return: whether the lock was acquired
        :raises ValueError: if a timeout is given for a call that does not wait
        """
        if timeout is None or timeout < 0:
            patience = -1.0 if blocking else 0.0
        elif blocking:
            patience = min(timeout, threading.TIMEOUT_MAX)
        else:
            raise ValueError('a call that does not wait (blocking=False) takes no timeout')

        place = _Place(exclusive)
        try:
            with self._mutex:
                last = next(reversed(self._queue), None)
                place.holds = last is None or (last.holds and not last.exclusive and not exclusive)
                if not place.holds and patience == 0:
                    return False
                self._queue[place] = None
            if place.holds or place.admission.acquire(timeout=patience):
                return True
            with self._mutex:
                if place.admission.acquire(blocking=False):  # let in at the last moment
                    return True
                self._leave(place)
            return False
        except BaseException:  # an interrupt: whoever calls will not know that the lock is theirs
            with self._mutex:
                self._leave(place)
            raise

    def release(self, exclusive: bool = True) -> None:
        """Release the lock.

        :param exclusive: the way in which it was acquired, exclusively (default) or not
        :raises RuntimeError: if the lock is not held in that way
        """
        with self._mutex:
            first = next(iter(self._queue), None)
            if first is None:
                raise RuntimeError('the lock is not locked')
            if first.exclusive is not bool(exclusive):
                raise RuntimeError(f'the lock is {self._status()}, it cannot be released the other way')
            self._leave(first)

    def acquired(self, exclusive: bool = True, blocking: bool = True, timeout: Optional[float] = None) -> '_Acquired':
        """Hold the lock for a block: ``with lock.acquired(exclusive=False):``. Parameters as for :meth:`acquire`.

        :raises TimeoutError: by the ``with`` statement, if the lock could not be acquired in time
        """
        return _Acquired(self, exclusive, blocking, timeout)

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(
        self, exc_type: Optional[Type[BaseException]], exc: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        with self._mutex:
            first = next(iter(self._queue), None)
            owner = first.owner if first is not None and first.exclusive else None
            shared_by = sum(place.holds and not place.exclusive for place in self._queue)
            return f'{type(self).__name__}<status={self._status()}, owner={owner}, shared_by={shared_by}>'

    def _status(self) -> str:
        first = next(iter(self._queue), None)
        if first is None:
            return 'unlocked'
        return 'locked exclusively' if first.exclusive else 'locked for share'

    def _leave(self, place: '_Place') -> None:
        """Take a place out of the queue, whether it holds the lock or waits, and let in who may hold it now."""
        if place.holds and not place.exclusive and place not in self._queue:
            # Those who share are alike: another's release took this place out and left its own.
            first = next(iter(self._queue), None)
            if first is not None and not first.exclusive:
                place = first
        try:
            self._queue.pop(place, None)
            self._admit()
        except BaseException:  # an interrupt; admitting again does no harm, not admitting leaves a waiter for ever
            self._admit()
            raise

    def _admit(self) -> None:
        """Let in the front of the queue: one place that is exclusive, or all up to the first that is."""
        first = None
        for place in self._queue:
            first = first or place
            if place is not first and (place.exclusive or first.exclusive):
                break
            if not place.holds:
                if place.admission.locked():
                    place.admission.release()
                place.holds = True


class _Place:
    """One thread's place in the queue."""

    __slots__ = ('exclusive', 'owner', 'holds', 'admission')

    def __init__(self, exclusive: bool) -> None:
        self.exclusive = bool(exclusive)
        self.owner = threading.get_ident()
        self.holds = False
        self.admission = threading.Lock()  # the thread parks on it until somebody else releases it
        self.admission.acquire()


class _Acquired:
    """What :meth:`SharedLock.acquired` returns. Not a generator: one more frame is one more place to be interrupted."""

    __slots__ = ('_lock', '_exclusive', '_blocking', '_timeout')

    def __init__(self, lock: SharedLock, exclusive: bool, blocking: bool, timeout: Optional[float]) -> None:
        self._lock = lock
        self._exclusive = exclusive
        self._blocking = blocking
        self._timeout = timeout

    def __enter__(self) -> None:
        if not self._lock.acquire(self._exclusive, self._blocking, self._timeout):
            raise TimeoutError(f'{self._lock!r} could not be acquired in time')

    def __exit__(
        self, exc_type: Optional[Type[BaseException]], exc: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        self._lock.release(self._exclusive)
