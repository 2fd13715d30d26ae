"""Running a manager's coroutines: within a deadline, and known to be under way."""

import asyncio
import inspect
import sys
from contextvars import ContextVar
from typing import Any, Awaitable, Callable, Coroutine, Optional, Tuple, TypeVar

from .._messages import show_identity
from ..exceptions import ConnectionPoolTimeoutError
from .background import close_coroutine

__all__ = (
    'DeadlinePassed', 'PoolTimeoutError', 'TIMEOUTS', 'bounded', 'count_frames', 'forget_frames', 'in_child',
    'is_being_closed', 'let_finish', 'run_hook',
)  # fmt: skip

ResultT = TypeVar('ResultT')

#: passes of the event loop that a cancelled coroutine is given to end, before its caller goes on without it
PATIENCE = 8


class DeadlinePassed(Exception):
    """The deadline passed before the coroutine had ended."""


if sys.version_info < (3, 11):

    class PoolTimeoutError(ConnectionPoolTimeoutError, asyncio.TimeoutError):
        """For those who expect asyncio's own TimeoutError, which is the built-in one only since Python 3.11."""

else:
    PoolTimeoutError = ConnectionPoolTimeoutError

#: after these the state of a connection is unknown
TIMEOUTS = (DeadlinePassed, TimeoutError, asyncio.TimeoutError)


def is_being_closed(exc: Optional[BaseException]) -> bool:
    """Tell whether an exception may end a coroutine that is being closed, which may not await anything any more.

    A hook or a user can make something else of a GeneratorExit, which then is in the new exception's context. So it is,
    too, if somebody else's coroutine was closed just before: what is not awaited then goes on by itself all the same.

    :param exc: the exception, ``None`` if there is none
    """
    seen = set()  # somebody may have made a circle of the contexts
    while exc is not None and id(exc) not in seen:
        if isinstance(exc, GeneratorExit):
            return True
        seen.add(id(exc))
        exc = exc.__context__
    return False


class _Frame:
    """A hook that is under way in this context. A slot is in its hands."""

    __slots__ = ('pool',)

    def __init__(self, pool: object):
        #: whose hook it is; nobody's any more when it has ended, which tasks that it started and left do not notice
        self.pool: Optional[object] = pool


_frames: 'ContextVar[Tuple[_Frame, ...]]' = ContextVar('generic_connection_pool_hooks', default=())


async def run_hook(pool: object, hook: Callable[..., Awaitable[ResultT]], *args: Any) -> ResultT:
    """Await a hook of a pool's manager, so that :func:`count_frames` knows of it."""
    frame = _Frame(pool)
    outer = _frames.get()
    frames = (*outer, frame)
    _frames.set(frames)
    try:
        answer: Any = hook(*args)
        if not inspect.isawaitable(answer):
            name = getattr(hook, '__qualname__', None) or show_identity(hook)
            raise TypeError(f'{name} must be a coroutine function, but returned {show_identity(answer)}')
        result: ResultT = await answer
        return result
    finally:
        frame.pool = None
        if _frames.get() is frames:  # the garbage collector closes a coroutine in whatever context it runs
            _frames.set(outer)


def count_frames(pool: object) -> int:
    """How many hooks of a pool the caller is in."""
    return sum(frame.pool is pool for frame in _frames.get())


def forget_frames(pool: object) -> None:
    """For a forked child: the hooks of a pool that the caller is in have none of the child's slots in their hands."""
    for frame in _frames.get():
        if frame.pool is pool:
            frame.pool = None


async def let_finish(tasks: 'Tuple[asyncio.Task[Any], ...]') -> None:
    """Give tasks that are about to end the chance to do so before the caller goes on; they are not waited for."""
    for _ in range(PATIENCE):
        if all(task.done() for task in tasks):
            return
        await asyncio.sleep(0)


async def in_child(
    coro: Coroutine[Any, Any, ResultT],
    timeout: float,
    adopt: Callable[['asyncio.Task[ResultT]'], object],
) -> ResultT:
    """Run a coroutine as a task of its own; the caller goes on when the time is over or the caller is cancelled.

    :param coro: the coroutine
    :param timeout: seconds that it may take, 0 or more
    :param adopt: called with the cancelled task when the caller goes on without it
    :return: its result
    :raises DeadlinePassed: if the time was over first
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(coro)
    ended = loop.create_future()
    task.add_done_callback(lambda _: _end(ended))
    timer = loop.call_later(timeout, _end, ended)
    try:
        await ended
    except GeneratorExit:  # the caller is being closed and may await nothing; its loop may be closed, too
        if not loop.is_closed():
            task.cancel()
        adopt(task)
        raise
    except BaseException:
        task.cancel()
        adopt(task)
        await let_finish((task,))
        raise
    finally:
        timer.cancel()
    if task.done():
        return task.result()
    task.cancel()
    adopt(task)
    await let_finish((task,))
    raise DeadlinePassed


def _end(future: 'asyncio.Future[None]') -> None:
    if not future.done():
        future.set_result(None)


def _ignore(task: 'asyncio.Task[Any]') -> None:
    if task.get_loop().is_closed():
        close_coroutine(task)
    else:
        task.add_done_callback(lambda task: task.cancelled() or task.exception())


async def bounded(
    coro: Coroutine[Any, Any, ResultT],
    timeout: Optional[float],
    adopt: Callable[['asyncio.Task[ResultT]'], object] = _ignore,
) -> ResultT:
    """Await a coroutine for so long at the most.

    :param coro: the coroutine
    :param timeout: seconds, 0 or more, ``None`` for no bound
    :param adopt: Python 3.10, where the coroutine runs as a task of its own: called with that task, cancelled, when the
        caller goes on without it
    :return: its result
    :raises DeadlinePassed: if the time was over first; the coroutine has been cancelled
    """
    if timeout is None:
        return await coro
    if sys.version_info < (3, 11):
        return await in_child(coro, timeout, adopt)
    scope = asyncio.timeout(timeout)
    try:
        async with scope:
            return await coro
    except Exception as exc:
        if scope.expired():  # whatever the cancelled coroutine has made of it
            raise DeadlinePassed from exc
        raise
