"""Interrupting a coroutine at each point where it suspends."""

import asyncio
import types
from typing import Any, Coroutine, Generator, Optional

__all__ = ('Stepper',)


class Stepper:
    """Runs a coroutine and counts its suspensions; cancels the task that runs it at one of them.

    :param coro: the coroutine
    :param cancel_at: at which suspension (1 is the first) to cancel the task
    :param late: cancel when what is awaited has just happened, and the task has not run yet; otherwise, at once
    """

    def __init__(self, coro: Coroutine[Any, Any, Any], cancel_at: Optional[int] = None, late: bool = False):
        self.coro = coro
        self.cancel_at = cancel_at
        self.late = late
        self.suspensions = 0
        self.task: 'Optional[asyncio.Task[Any]]' = None

    async def run(self) -> Any:
        """Run the coroutine in the current task."""
        self.task = asyncio.current_task()
        return await self._drive()

    @types.coroutine
    def _drive(self) -> Generator[Any, Any, Any]:
        advance, argument = self.coro.send, None
        while True:
            try:
                awaited = advance(argument)
            except StopIteration as stop:
                return stop.value
            self.suspensions += 1
            if self.suspensions == self.cancel_at:
                self._cancel(awaited)
            try:
                advance, argument = self.coro.send, (yield awaited)
            except BaseException as exc:
                advance, argument = self.coro.throw, exc

    def _cancel(self, awaited: 'Optional[asyncio.Future[Any]]') -> None:
        assert self.task is not None
        if self.late and awaited is not None:
            awaited.add_done_callback(lambda _: self.task.cancel())  # runs before the one that wakes the task
        else:
            asyncio.get_running_loop().call_soon(self.task.cancel)
