"""Driving asyncio pools in tests: a manager that keeps books, gates to stop at, and waiting for conditions."""

import asyncio
import functools
import time
from collections import Counter
from typing import Any, Awaitable, Callable, Coroutine, Dict, List, Optional, Tuple

from generic_connection_pool.asyncio import BaseConnectionManager, ConnectionPool

__all__ = (
    'GENEROUS', 'Connection', 'Gate', 'Manager', 'OpenPool', 'Pool', 'StubbornGate', 'always', 'failing', 'finish',
    'other_tasks', 'outcome', 'passes', 'queue_up', 'run_step', 'run_through', 'time_passes', 'until',
)  # fmt: skip

Pool = ConnectionPool[Any, Any]
#: the fixture that opens pools: ``open_pool(manager, **options)``
OpenPool = Callable[..., Pool]

#: far longer than anything here takes: reached only by a test that fails
GENEROUS = 20.0


class Connection:
    """What the manager creates unless it is told otherwise."""

    def __init__(self, endpoint: Any, number: int):
        self.endpoint = endpoint
        self.number = number

    def __repr__(self) -> str:
        return f'<Connection {self.number} to {self.endpoint}>'


class Manager(BaseConnectionManager[Any, Any]):
    """A connection manager that keeps books of all it is asked to do.

    :param behaviours: by the name of a hook, what it does: called with the hook's arguments, and awaited unless the
        hook is a plain method. Hooks that are not named are not overridden, as far as the pool can tell.
    """

    def __init__(self, **behaviours: Callable[..., Any]):
        self.behaviours: Dict[str, Callable[..., Any]] = behaviours
        #: the calls of all hooks: name, endpoint and (except for create) connection
        self.calls: List[Tuple[Any, ...]] = []
        #: connections in the order in which they were created, and in which their disposal began
        self.created: List[Any] = []
        self.disposed: List[Any] = []
        for name in behaviours:
            if name == 'is_reusable':
                setattr(self, name, self._is_reusable)
            elif name not in ('create', 'dispose'):
                setattr(self, name, functools.partial(self._run, name))

    async def create(self, endpoint: Any) -> Any:
        self.calls.append(('create', endpoint))
        behaviour = self.behaviours.get('create')
        conn = None if behaviour is None else await behaviour(endpoint)
        if conn is None:
            conn = Connection(endpoint, len(self.created))
        self.created.append(conn)
        return conn

    async def dispose(self, endpoint: Any, conn: Any) -> None:
        self.disposed.append(conn)
        self.calls.append(('dispose', endpoint, conn))
        behaviour = self.behaviours.get('dispose')
        if behaviour is not None:
            await behaviour(endpoint, conn)

    async def _run(self, name: str, endpoint: Any, conn: Any) -> Any:
        self.calls.append((name, endpoint, conn))
        return await self.behaviours[name](endpoint, conn)

    def _is_reusable(self, endpoint: Any, conn: Any, exc: BaseException) -> Any:
        self.calls.append(('is_reusable', endpoint, conn, exc))
        return self.behaviours['is_reusable'](endpoint, conn, exc)

    def names(self) -> List[str]:
        """The names of the hooks called so far."""
        return [call[0] for call in self.calls]

    def check_books(self) -> None:
        """Every connection that was created was disposed of exactly once, and nothing else was."""
        times = Counter(map(id, self.disposed))
        assert set(times) <= set(map(id, self.created)), 'something was disposed of that was never created'
        for conn in self.created:
            assert times[id(conn)] == 1, f'{conn!r} was disposed of {times[id(conn)]} times'


class Gate:
    """A hook's behaviour: wait until the gate is opened.

    :param answer: what the hook returns then
    """

    def __init__(self, answer: Any = None):
        self.answer = answer
        self.entered = 0
        self.cancelled = 0
        self._opened: Optional['asyncio.Future[None]'] = None
        self._open = False

    async def __call__(self, *args: Any) -> Any:
        self.entered += 1
        try:
            while not self._open:
                await self._wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.answer

    async def _wait(self) -> None:
        if self._opened is None:
            self._opened = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._opened)

    def open(self) -> None:
        """Let everybody pass from now on."""
        self._open = True
        if self._opened is not None and not self._opened.done():
            self._opened.set_result(None)

    def forget(self) -> None:
        """Hold on no longer to those who wait, as a closed event loop does not."""
        self._opened = None

    async def reached(self, times: int = 1) -> None:
        """Wait until the hook has been called so many times."""
        await until(lambda: self.entered >= times)


class StubbornGate(Gate):
    """A gate that holds its callers although they are cancelled."""

    async def _wait(self) -> None:
        try:
            await super()._wait()
        except asyncio.CancelledError:
            self.cancelled += 1


def always(answer: Any) -> Callable[..., Awaitable[Any]]:
    """A hook's behaviour: answer at once."""

    async def behaviour(*args: Any) -> Any:
        return answer

    return behaviour


def failing(*errors: Optional[BaseException], then: Any = None) -> Callable[..., Awaitable[Any]]:
    """A hook's behaviour: raise these one after the other (``None``: nothing), then answer."""
    rest = list(errors)

    async def behaviour(*args: Any) -> Any:
        error = rest.pop(0) if rest else None
        if error is not None:
            raise error
        return then

    return behaviour


async def until(condition: Callable[[], Any], seconds: float = GENEROUS) -> None:
    """Let the event loop go on until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, 'what was waited for did not happen'
        await asyncio.sleep(0)


async def passes(count: int = 25) -> None:
    """Let the event loop go on for a while, to see that something does *not* happen."""
    left = iter(range(count))
    await until(lambda: next(left, None) is None)


async def time_passes(seconds: float) -> None:
    """Let the event loop go on until the clock has advanced."""
    end = time.monotonic() + seconds
    await until(lambda: time.monotonic() >= end)


async def queue_up(pool: Pool, endpoint: Any, timeout: Optional[float] = None) -> 'asyncio.Task[Any]':
    """Start a task that acquires, and return once it waits for its turn."""
    before = pool._core.waiting(endpoint)
    task = asyncio.ensure_future(pool.acquire(endpoint, timeout))
    await until(lambda: pool._core.waiting(endpoint) > before or task.done())
    assert not task.done(), 'the acquire was to wait, but did not'
    return task


async def outcome(task: 'asyncio.Task[Any]') -> Any:
    """Wait for a task, and return what it raised, or its result. (Awaiting a task that has raised GeneratorExit would
    close the coroutine that awaits.)
    """
    await asyncio.wait([task])
    try:
        return task.result()
    except BaseException as exc:
        return exc


def run_step(coro: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that must not suspend, and return its result."""
    try:
        coro.send(None)
    except StopIteration as stop:
        return stop.value
    coro.close()
    raise AssertionError('the coroutine has suspended')


def run_through(coro: Coroutine[Any, Any, Any]) -> List[BaseException]:
    """Run a coroutine in an event loop of its own to its end, although some exceptions of other tasks stop a loop.

    :return: the exceptions that have stopped it
    """
    interrupts: List[BaseException] = []
    loop = asyncio.new_event_loop()
    try:
        task = loop.create_task(coro)
        while True:
            try:
                loop.run_until_complete(task)
                return interrupts
            except (KeyboardInterrupt, SystemExit) as exc:
                if task.done():
                    raise
                interrupts.append(exc)
    finally:
        loop.close()


def other_tasks() -> List['asyncio.Task[Any]']:
    """The unfinished tasks of the running loop but for the current one."""
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def finish(pool: Pool, manager: Manager) -> None:
    """Close a pool whose connections are all given back: nothing may be left of it, and the books must be right."""
    pool._core.check_invariants()
    await asyncio.wait_for(pool.close(), GENEROUS)
    pool._core.check_invariants()
    assert pool.get_size() == 0
    assert pool._core.endpoints() == []
    manager.check_books()
    await until(lambda: not other_tasks())
