"""A lock for asyncio that is held either by one task exclusively or by any number of them together."""

import asyncio
import contextlib
import sys
from collections import OrderedDict
from types import TracebackType
from typing import AsyncIterator, Optional, Type

__all__ = ('SharedLock',)


class SharedLock:
    """A lock that is held either by one task exclusively or by any number of them together.

    First come, first served: whoever arrives while others wait queues behind them, and neighbours in the queue that
    ask for a share are let in together. So neither kind of user starves the other.

    Not re-entrant: a task that holds the lock and asks for it again waits for itself. That includes a share on top of
    a share when somebody else waits for exclusive use in between. As with :class:`asyncio.Lock`, a task may release
    what another one acquired. ``async with lock:`` holds it exclusively. The lock may be made outside an event loop;
    like all of asyncio it is not for several threads.
    """

    def __init__(self) -> None:
        self._queue: OrderedDict[_Place, None] = OrderedDict()  # those who hold the lock stand at its front

    async def acquire(self, exclusive: bool = True, timeout: Optional[float] = None) -> bool:
        """Acquire the lock. Does not suspend if nobody is in the way.

        :param exclusive: ``True`` (default) to hold it alone, ``False`` to share it
        :param timeout: how long to wait at most, in seconds; ``None`` (default) and negative numbers mean no bound
        :return: whether the lock was acquired
        """
        place = _Place(exclusive)
        last = next(reversed(self._queue), None)
        place.holds = last is None or (last.holds and not last.exclusive and not exclusive)
        if not place.holds and timeout == 0:
            return False
        if not place.holds:
            place.admission = asyncio.get_running_loop().create_future()
        self._queue[place] = None
        return place.admission is None or await self._wait(place, place.admission, timeout)

    async def release(self, exclusive: bool = True) -> None:
        """Release the lock. Never suspends.

        :param exclusive: the way in which it was acquired, exclusively (default) or not
        :raises RuntimeError: if the lock is not held in that way
        """
        first = next(iter(self._queue), None)
        if first is None:
            raise RuntimeError('the lock is not locked')
        if first.exclusive is not bool(exclusive):
            raise RuntimeError(f'the lock is {self._status()}, it cannot be released the other way')
        self._leave(first)

    @contextlib.asynccontextmanager
    async def acquired(self, exclusive: bool = True, timeout: Optional[float] = None) -> AsyncIterator[None]:
        """Hold the lock for a block: ``async with lock.acquired(exclusive=False):``. Parameters as for :meth:`acquire`.

        :raises TimeoutError: if the lock could not be acquired in time (on Python 3.10 an ``asyncio.TimeoutError`` too)
        """
        if not await self.acquire(exclusive, timeout):
            raise _Timeout(f'{self!r} could not be acquired in time')
        try:
            yield
        finally:
            await self.release(exclusive)

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(
        self, exc_type: Optional[Type[BaseException]], exc: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        await self.release()

    def __repr__(self) -> str:
        first = next(iter(self._queue), None)
        owner = first.owner if first is not None and first.exclusive else None
        shared_by = sum(place.holds and not place.exclusive for place in self._queue)
        return f'{type(self).__name__}<status={self._status()}, owner={owner}, shared_by={shared_by}>'

    def _status(self) -> str:
        first = next(iter(self._queue), None)
        if first is None:
            return 'unlocked'
        return 'locked exclusively' if first.exclusive else 'locked for share'

    async def _wait(self, place: '_Place', admission: 'asyncio.Future[bool]', timeout: Optional[float]) -> bool:
        timer = None
        try:
            if timeout is not None and timeout > 0:
                timer = admission.get_loop().call_later(timeout, self._give_up, place, admission)
            return await admission
        except BaseException:  # a cancellation, or the coroutine is closed: possibly after it was let in
            self._leave(place)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _give_up(self, place: '_Place', admission: 'asyncio.Future[bool]') -> None:
        if not admission.done():
            admission.set_result(False)
            self._leave(place)

    def _leave(self, place: '_Place') -> None:
        """Take a place out of the queue, whether it holds the lock or waits, and let in who may hold it now."""
        if place.holds and not place.exclusive and place not in self._queue:
            # Those who share are alike: another's release took this place out and left its own.
            first = next(iter(self._queue), None)
            if first is not None and not first.exclusive:
                place = first
        self._queue.pop(place, None)
        self._admit()

    def _admit(self) -> None:
        """Let in the front of the queue: one place that is exclusive, or all up to the first that is."""
        first = None
        abandoned = []
        for place in self._queue:
            if place.is_abandoned():
                abandoned.append(place)
                continue
            first = first or place
            if place is not first and (place.exclusive or first.exclusive):
                break
            place.admit()
        for place in abandoned:
            del self._queue[place]


class _Place:
    """One task's place in the queue."""

    __slots__ = ('exclusive', 'owner', 'holds', 'admission')

    def __init__(self, exclusive: bool) -> None:
        task = asyncio.current_task()
        self.exclusive = bool(exclusive)
        self.owner = None if task is None else task.get_name()
        self.holds = False
        self.admission: Optional[asyncio.Future[bool]] = None  # made only by those who have to wait

    def admit(self) -> None:
        self.holds = True
        if self.admission is not None and not self.admission.done():
            self.admission.set_result(True)

    def is_abandoned(self) -> bool:
        """Tell whether it waits in an event loop that is closed: nobody will come to take the lock or to leave."""
        return not self.holds and self.admission is not None and self.admission.get_loop().is_closed()


if sys.version_info >= (3, 11):
    _Timeout = TimeoutError
else:

    class _Timeout(TimeoutError, asyncio.TimeoutError):
        """Before Python 3.11 the two were unrelated; whichever the caller catches, this is it."""
