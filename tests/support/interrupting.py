"""Interrupting a coroutine at each point where it suspends, and at each pass of the event loop that it takes."""

import asyncio
import types
from typing import Any, Coroutine, Generator, Optional

from support.tasks import passes, until

__all__ = ('CLOSE', 'EARLY', 'INTERRUPTIONS', 'LATE', 'PASSES', 'REPEATED', 'Stepper', 'interrupt')

#: ways to interrupt: cancel the task as soon as it has suspended,
EARLY = 'cancelled at once'
#: cancel it when what it awaits has just happened, but it has not run yet,
LATE = 'cancelled at the last moment'
#: cancel it after so many passes of the event loop,
PASSES = 'cancelled after some passes'
#: the same, and again in each pass until it has ended
REPEATED = 'cancelled again and again'
#: close the coroutine
CLOSE = 'closed'

INTERRUPTIONS = (EARLY, LATE, PASSES, REPEATED, CLOSE)


class Stepper:
    """Runs a coroutine, counts its suspensions, and interrupts it at one of them.

    :param coro: the coroutine
    :param at: at which suspension (1 is the first)
    :param how: EARLY, LATE or CLOSE
    """

    def __init__(self, coro: Coroutine[Any, Any, Any], at: int = 0, how: str = EARLY):
        self.coro = coro
        self.at = at
        self.how = how
        self.suspensions = 0
        #: the coroutine was interrupted
        self.reached = False

    async def run(self) -> Any:
        """Run the coroutine in the current task."""
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
            if self.suspensions == self.at:
                self.reached = True
                if self.how == CLOSE:
                    self.coro.close()
                    return None
                self._cancel(awaited)
            try:
                advance, argument = self.coro.send, (yield awaited)
            except BaseException as exc:
                advance, argument = self.coro.throw, exc

    def _cancel(self, awaited: 'Optional[asyncio.Future[Any]]') -> None:
        task = asyncio.current_task()
        assert task is not None
        if self.how == LATE and awaited is not None:
            awaited.add_done_callback(lambda _: task.cancel())  # runs before the callback that wakes the task
        else:
            asyncio.get_running_loop().call_soon(task.cancel)


async def interrupt(coro: Coroutine[Any, Any, Any], how: str, at: int) -> bool:
    """Run a coroutine in a task, and interrupt it.

    :param coro: the coroutine; it raises nothing but its cancellation
    :param how: one of INTERRUPTIONS
    :param at: at which suspension, or after how many passes; 1 or more
    :return: whether it got that far
    """
    by_passes = how in (PASSES, REPEATED)
    stepper = Stepper(coro, 0 if by_passes else at, how)
    task = asyncio.ensure_future(stepper.run())
    if by_passes:
        await passes(at)
        stepper.reached = task.cancel()
        if how == REPEATED:
            await until(lambda: not task.cancel())
    await asyncio.wait([task])
    if stepper.reached and how != CLOSE:
        assert task.cancelled(), 'a cancellation was swallowed'
    else:
        task.result()
    return stepper.reached
