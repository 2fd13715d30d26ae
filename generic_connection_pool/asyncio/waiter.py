"""How a task sleeps until the core has something to tell it."""

import asyncio
from asyncio import _get_running_loop
from typing import Any, Callable, Optional

__all__ = ('Waiter',)


class Waiter:
    """A place for one task to sleep until it is woken. A wake-up before the sleep is not lost.

    Nobody's timer or wake-up is delivered as an exception, so that a cancellation is the only one there is.

    :param loop: the task's event loop
    :param on_lost: called when a wake-up cannot be delivered because the loop is closed
    """

    __slots__ = ('_loop', '_on_lost', '_future', '_woken')

    def __init__(self, loop: asyncio.AbstractEventLoop, on_lost: Optional[Callable[[], Any]] = None):
        self._loop = loop
        self._on_lost = on_lost
        self._future: Optional['asyncio.Future[None]'] = None
        self._woken = False

    def notify(self) -> None:
        """Wake the task, from whatever thread or event loop."""
        if _get_running_loop() is self._loop:
            self._wake()
            return
        try:
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:  # the loop is closed: the task will never run again
            if self._on_lost is not None:
                self._on_lost()

    async def wait(self, timeout: Optional[float]) -> bool:
        """Sleep until woken.

        :param timeout: seconds to sleep at the most (0: not at all), ``None`` for no bound
        :return: whether it was woken
        """
        if timeout is None or timeout > 0.0:
            # before looking whether it was woken: the garbage collector may close a coroutine here that does so
            future = self._future = self._loop.create_future()
            timer = None if timeout is None else self._loop.call_later(timeout, self._end)
            try:
                if not self._woken:
                    await future
            finally:
                self._future = None
                if timer is not None:
                    timer.cancel()
        woken, self._woken = self._woken, False
        return woken

    def _wake(self) -> None:
        self._woken = True
        self._end()

    def _end(self) -> None:
        future = self._future
        if future is not None and not future.done():
            try:
                future.set_result(None)
            except asyncio.InvalidStateError:  # the garbage collector has just closed a coroutine that woke this one
                pass
