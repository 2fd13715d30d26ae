"""Tasks that go on whatever becomes of those who started them."""

import asyncio
import logging
from typing import Any, Callable, Coroutine, Dict

__all__ = ('Background', 'close_coroutine', 'run_to_suspension')

logger = logging.getLogger(__name__)


def _look_at(task: 'asyncio.Task[Any]') -> None:
    """So that asyncio does not report its exception."""
    if task.done() and not task.cancelled():
        task.exception()


class Background:
    """The tasks of one pool that nobody has to wait for. Each has a callback, which runs exactly once, when it has
    ended or (its event loop was closed first) will never end.
    """

    __slots__ = ('_ends',)

    def __init__(self) -> None:
        self._ends: Dict['asyncio.Task[Any]', Callable[['asyncio.Task[Any]'], object]] = {}

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, task: 'asyncio.Task[Any]', end: Callable[['asyncio.Task[Any]'], object] = _look_at) -> None:
        """Keep a task alive until it ends.

        :param task: the task
        :param end: called with the task, which is not done if its loop was closed first; default: does nothing
        """
        self._ends[task] = end
        if task.get_loop().is_closed():
            self._end(task)
        else:
            task.add_done_callback(self._end)

    def bury(self) -> None:
        """End those whose loop is closed."""
        for task in [task for task in self._ends if task.get_loop().is_closed()]:
            self._end(task)

    def _end(self, task: 'asyncio.Task[Any]') -> None:
        end = self._ends.pop(task, None)
        if end is None:
            return
        try:
            if not task.done():
                close_coroutine(task)
        finally:
            end(task)


def run_to_suspension(disposal: Coroutine[Any, Any, None]) -> None:
    """Dispose of a connection where no loop runs nor ever will: the manager's coroutine runs as far as it gets."""
    try:
        disposal.send(None)
        disposal.close()
    except (StopIteration, GeneratorExit, asyncio.CancelledError):  # it ends nobody else's coroutine, which runs it
        pass
    except RuntimeError as exc:  # it awaits something although it is being closed
        logger.error('disposing of a connection after the end of its event loop failed', exc_info=exc)


def close_coroutine(task: 'asyncio.Task[Any]') -> None:
    """Have a task's coroutine clean up now, and not whenever it is found to be garbage."""
    coro = task.get_coro()
    try:
        if coro is not None:
            coro.close()
    except (Exception, GeneratorExit, asyncio.CancelledError):  # of the user's code; perhaps it awaits something
        logger.exception('a coroutine failed to end after its event loop was closed')
