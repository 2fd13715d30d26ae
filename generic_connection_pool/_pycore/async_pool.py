"""The hot path of the asyncio pool: acquiring what is idle and releasing, with no hook overridden."""

from asyncio import _get_running_loop
from types import TracebackType
from typing import Any, Generic, Hashable, Iterable, Optional, Type, TypeVar

from .._messages import not_acquired
from .core import Core
from .holders import current_holder
from .lock import ReentryError, monotonic
from .record import Record
from .waiters import Ticket

__all__ = ('COLLECT', 'DISPOSE', 'DONE', 'HOOKS', 'AsyncLease', 'AsyncPool')

#: what a release has left to be done: nothing,
DONE = 0
#: to ask the hooks, and to end the release,
HOOKS = 1
#: to dispose of the connection (and of others that are due),
DISPOSE = 2
#: to dispose of what is due
COLLECT = 3

EndpointT = TypeVar('EndpointT', bound=Hashable)
ConnectionT = TypeVar('ConnectionT', bound=Hashable)


class AsyncLease(Generic[EndpointT, ConnectionT]):
    """The context manager that :meth:`AsyncPool.connection` returns: holds one connection for its block."""

    __slots__ = ('_pool', '_endpoint', '_timeout', '_entered', '_record', '_loan')

    def __init__(self, pool: 'AsyncPool[EndpointT, ConnectionT]', endpoint: EndpointT, timeout: Optional[float]):
        self._pool = pool
        self._endpoint = endpoint
        self._timeout = timeout
        self._entered = False
        self._record: Optional[Record] = None
        #: tells this loan of the record from later ones
        self._loan = 0

    async def __aenter__(self) -> ConnectionT:
        if self._entered:
            raise RuntimeError('this context manager is in use already: call connection() once for each block')
        self._entered = True
        try:
            if self._timeout is not None:
                self._pool._check_timeout(self._timeout)
            record = self._pool._take(self._endpoint)
            if record is None:
                record = await self._pool._acquire(self._endpoint, self._timeout)
        except BaseException:
            self._entered = False
            raise
        self._record = record
        self._loan = record.uses
        conn: ConnectionT = record.conn
        return conn

    async def __aexit__(
        self,
        exc_type: Optional[Type[BaseException]],
        exc: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        record, self._record = self._record, None
        if record is None:
            raise RuntimeError('this context manager has not been entered')
        self._entered = False
        todo = self._pool._return(record, self._loan, exc)
        if todo:
            await self._pool._finish(record, exc, todo)


class AsyncPool(Generic[EndpointT, ConnectionT]):
    """What an asyncio pool does while nothing has to be awaited. The facade adds ``_acquire``,
    ``_finish`` and ``_is_inherited``."""

    def _setup(self, core: Core, plain_acquire: bool, plain_release: bool, plain_failure: bool, collects: bool) -> None:
        """Prepare the pool.

        :param core: its core
        :param plain_acquire: no hook of acquiring is overridden
        :param plain_release: no hook of releasing is overridden
        :param plain_failure: nor is the one asked when a block has failed
        :param collects: a release is to dispose of what is due
        """
        self._core = core
        self._plain_acquire = plain_acquire
        self._plain_release = plain_release
        self._plain_failure = plain_failure
        self._collects = collects
        #: the event loop that the pool's connections belong to
        self._loop: Optional[Any] = None

    def _renew(self, core: Core, tickets: Iterable[Ticket]) -> None:
        """For a forked child: go on with another core, and with whatever event loop uses the pool next. What is being
        acquired comes to nothing.

        :param core: an empty core
        :param tickets: those of the acquires that are under way
        """
        former, self._core = self._core, core
        self._loop = None
        for ticket in tickets:
            ticket.revoke()
            if former.mutex.busy:  # as in disown()
                former.mutex.defer(ticket.revoke)

    def connection(self, endpoint: EndpointT, timeout: Optional[float] = None) -> AsyncLease[EndpointT, ConnectionT]:
        """Hold a connection for an ``async with`` block.

        :param endpoint: the endpoint to be connected to
        :param timeout: seconds to wait at the most (0: not at all), ``None`` for the pool's ``acquire_timeout``
        :return: an asynchronous context manager for one block; ``as`` gives the connection
        :raises ConnectionPoolTimeoutError: on entering, if no connection could be had in time
        :raises ConnectionPoolClosedError: on entering, if the pool is closed
        """
        return AsyncLease(self, endpoint, timeout)

    async def acquire(self, endpoint: EndpointT, timeout: Optional[float] = None) -> ConnectionT:
        """Acquire a connection; :meth:`release` gives it back.

        :param endpoint: the endpoint to be connected to
        :param timeout: seconds to wait at the most (0: not at all), ``None`` for the pool's ``acquire_timeout``
        :return: the connection
        :raises ConnectionPoolTimeoutError: if no connection could be had in time
        :raises ConnectionPoolClosedError: if the pool is closed
        """
        if timeout is not None:
            self._check_timeout(timeout)
        record = self._take(endpoint)
        if record is None:
            record = await self._acquire(endpoint, timeout)
        conn: ConnectionT = record.conn
        return conn

    async def release(self, conn: ConnectionT, endpoint: EndpointT) -> None:
        """Give a connection back.

        :param conn: the connection (this very object or, if that is not acquired, an equal one)
        :param endpoint: its endpoint
        :raises ConnectionNotAcquiredError: if the endpoint has not lent it, or not any more
        """
        record = self._core.find(conn, endpoint)
        if record is None:
            self._refuse(conn, endpoint)
        else:
            todo = self._return(record, record.uses, None)
            if todo:
                await self._finish(record, None, todo)

    # -- of the facade

    async def _acquire(self, endpoint: EndpointT, timeout: Optional[float]) -> Record:
        raise NotImplementedError

    def _check_timeout(self, timeout: Optional[float]) -> Optional[float]:
        raise NotImplementedError

    async def _finish(self, record: Record, exc: Optional[BaseException], todo: int) -> None:
        raise NotImplementedError

    def _is_inherited(self, conn: Any) -> bool:
        raise NotImplementedError

    # -- parts

    def _take(self, endpoint: EndpointT) -> Optional[Record]:
        """Lend an idle connection, if there is one and no hook wants to be asked."""
        if self._plain_acquire and self._loop is not None and _get_running_loop() is self._loop:
            core = self._core
            record = core._lend_idle(endpoint, current_holder())
            return record if core is self._core else None
        return None

    def _return(self, record: Record, loan: int, exc: Optional[BaseException]) -> int:
        """Release a connection as far as nothing has to be awaited.

        :return: what is left to be done: DONE, HOOKS, DISPOSE or COLLECT
        """
        core = self._core
        try:
            held = core.take_back(record, loan)
        except ReentryError:  # a coroutine that the garbage collector closes; the rest of it cannot be awaited
            core.mutex.defer(lambda: self._return_later(record, loan, exc))
            return DONE
        if not held:
            self._refuse(record.conn, record.key)
            return DONE
        if not self._plain_release or (exc is not None and not self._plain_failure):
            return HOOKS
        return self._give_back(record)

    def _give_back(self, record: Record) -> int:
        """End the release of a connection that is fit for others."""
        now = monotonic()
        if not self._core.give_back(record, now):
            return DISPOSE
        return COLLECT if self._collects and self._core.due(now) else DONE

    def _return_later(self, record: Record, loan: int, exc: Optional[BaseException]) -> None:
        raise NotImplementedError

    def _refuse(self, conn: Any, endpoint: Any) -> None:
        if not self._core.forced and not self._is_inherited(conn):
            raise not_acquired(conn, endpoint)
