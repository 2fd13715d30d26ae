"""Pools of both runtimes behind one interface, with books that are looked at after each step."""

import asyncio
import contextlib
from collections import Counter
from typing import Any, Callable, Iterator, List, Optional, Tuple

from generic_connection_pool import BaseError
from generic_connection_pool import asyncio as asyncio_pools
from generic_connection_pool import threading as threads_pools
from support.threads import wait_until

__all__ = ('RUNTIMES', 'AsyncManager', 'Books', 'Connection', 'Harness', 'ThreadsManager', 'step')

RUNTIMES = ('threads', 'asyncio')


class Connection:
    """One of the connections that a manager creates unless it is told otherwise."""


class Books:
    """What a manager was asked to do. What a hook does, ``doing`` says by its name."""

    def __init__(self, **doing: Callable[..., Any]):
        self.doing = doing
        self.created: List[Any] = []
        self.disposed: List[Any] = []

    def do(self, hook: str, *args: Any) -> Any:
        return self.doing[hook](*args) if hook in self.doing else None

    def new(self, endpoint: Any) -> Any:
        conn = self.do('create', endpoint) if 'create' in self.doing else Connection()
        self.created.append(conn)
        return conn

    def check(self) -> None:
        """Every connection that was created has been disposed of, once for each time that it was created."""
        assert Counter(map(id, self.created)) == Counter(map(id, self.disposed))


class ThreadsManager(threads_pools.BaseConnectionManager[Any, Any]):
    def __init__(self, books: Books):
        self.books = books
        for hook in books.doing:
            if hook not in ('create', 'dispose'):
                setattr(self, hook, lambda *args, _hook=hook: books.do(_hook, *args))

    def create(self, endpoint: Any, timeout: Optional[float] = None) -> Any:
        return self.books.new(endpoint)

    def dispose(self, endpoint: Any, conn: Any, timeout: Optional[float] = None) -> None:
        self.books.disposed.append(conn)
        self.books.do('dispose', endpoint, conn)


class AsyncManager(asyncio_pools.BaseConnectionManager[Any, Any]):
    def __init__(self, books: Books):
        self.books = books
        for hook in books.doing:
            if hook not in ('create', 'dispose'):
                setattr(self, hook, self._plain(hook) if hook == 'is_reusable' else self._coroutine(hook))

    def _plain(self, hook: str) -> Callable[..., Any]:
        return lambda *args: self.books.do(hook, *args)

    def _coroutine(self, hook: str) -> Callable[..., Any]:
        async def run(*args: Any) -> Any:
            return self.books.do(hook, *args)

        return run

    async def create(self, endpoint: Any) -> Any:
        return self.books.new(endpoint)

    async def dispose(self, endpoint: Any, conn: Any) -> None:
        self.books.disposed.append(conn)
        self.books.do('dispose', endpoint, conn)


def step(awaitable: Any) -> Any:
    """Run an awaitable where nothing can be awaited, as far as it gets without waiting; beyond that it is given up."""
    try:
        awaitable.send(None)
    except StopIteration as stop:
        return stop.value
    awaitable.close()
    raise TimeoutError('it had to wait')


class Harness:
    """A pool of one of the runtimes.

    :param runtime: ``'threads'`` or ``'asyncio'``
    :param books: of its manager
    """

    def __init__(self, runtime: str, books: Optional[Books] = None, **config: Any):
        self.books = books or Books()
        self.asynchronous = runtime == 'asyncio'
        self.loop = asyncio.new_event_loop() if self.asynchronous else None
        #: what has been acquired and not given back
        self.held: List[Tuple[Any, Any]] = []
        try:
            if self.asynchronous:
                self.pool: Any = asyncio_pools.ConnectionPool(AsyncManager(self.books), **config)
            else:
                self.pool = threads_pools.ConnectionPool(ThreadsManager(self.books), **config)
        except BaseException:
            self.end_loop()
            raise

    def run(self, answer: Any) -> Any:
        """The answer of a method of the pool, also of one that has to be awaited, also where nothing can be."""
        if not self.asynchronous:
            return answer
        assert self.loop is not None
        return step(answer) if self.is_nested else self.loop.run_until_complete(_await(answer))

    @contextlib.contextmanager
    def no_waiting(self) -> Iterator[None]:
        """A release that would wait for a disposal is over, as far as the pool is concerned."""
        try:
            yield
        except TimeoutError:
            if not self.is_nested:
                raise

    @property
    def is_nested(self) -> bool:
        """Whether something that the event loop runs has called, and cannot wait."""
        return self.loop is not None and self.loop.is_running()

    def acquire(self, endpoint: Any, timeout: Any = 0) -> Any:
        if self.is_nested and timeout == 0:
            timeout = None  # a step never waits, and a bounded create would be a task of its own
        conn = self.run(self.pool.acquire(endpoint, timeout))
        self.held.append((conn, endpoint))
        return conn

    def release(self, index: int = 0) -> None:
        if self.held:
            conn, endpoint = self.held.pop(index % len(self.held))
            self.give_back(conn, endpoint)

    def give_back(self, conn: Any, endpoint: Any) -> None:
        with self.no_waiting():
            self.run(self.pool.release(conn, endpoint))

    @contextlib.contextmanager
    def connection(self, endpoint: Any, timeout: Any = 0) -> Iterator[Any]:
        lease = self.pool.connection(endpoint, None if self.is_nested and timeout == 0 else timeout)
        if not self.asynchronous:
            with lease as conn:
                yield conn
            return
        conn = self.run(lease.__aenter__())
        try:
            yield conn
        except BaseException as exc:
            with self.no_waiting():
                self.run(lease.__aexit__(type(exc), exc, exc.__traceback__))
            raise
        with self.no_waiting():
            self.run(lease.__aexit__(None, None, None))

    def close(self, timeout: Any = 0) -> None:
        with self.no_waiting():
            self.run(self.pool.close(timeout))

    def size(self, endpoint: Any, acquired: Any = None) -> Any:
        return self.run(self.pool.get_endpoint_pool_size(endpoint, acquired))

    def check(self) -> None:
        """What must be true when all have done what they had begun."""
        while self.asynchronous and len(self.pool._background):
            self.run(asyncio.sleep(0))
        self.pool._core.check_invariants()
        if self.asynchronous:
            assert self.is_balanced()
        else:  # a thread of the pool may be about to tell that it has disposed of something
            wait_until(self.is_balanced)

    def is_balanced(self) -> bool:
        """Whether the pool has as many connections as were created and not disposed of."""
        return bool(self.pool.get_size() == len(self.books.created) - len(self.books.disposed))

    def end(self) -> None:
        """Everybody gives back what he has; nothing may be left."""
        while self.held:
            try:
                self.release()
            except (BaseError, ValueError, TypeError):
                pass
        self.close()
        self.end_loop()
        assert self.pool.get_size() == 0
        assert self.pool._core.endpoints() == []
        self.pool._core.check_invariants()
        self.books.check()

    def end_loop(self) -> None:
        if self.loop is not None:
            self.loop.close()


async def _await(awaitable: Any) -> Any:
    return await awaitable


@contextlib.contextmanager
def harness(runtime: str, books: Optional[Books] = None, **config: Any) -> Iterator[Harness]:
    """A pool that is closed and checked at the end."""
    made = Harness(runtime, books, **config)
    try:
        yield made
    except BaseException:
        made.close()
        made.end_loop()
        raise
    made.end()
