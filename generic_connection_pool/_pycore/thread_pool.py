"""The hot path of the threads pool: acquiring what is idle and releasing, with no hook overridden."""

import functools
import threading
from types import CoroutineType, TracebackType
from typing import Any, Callable, Generic, Hashable, Optional, Set, Type, TypeVar, Union

from .._messages import not_acquired
from .core import Core
from .lock import ReentryError, monotonic
from .record import DISPOSING, LENT, RETURNING, Record
from .waiters import CONNECTION, SLOT, Ticket

__all__ = ('Lease', 'ThreadPool')

EndpointT = TypeVar('EndpointT', bound=Hashable)
ConnectionT = TypeVar('ConnectionT', bound=Hashable)


class Lease(Generic[EndpointT, ConnectionT]):
    """The context manager that :meth:`ThreadPool.connection` returns: holds one connection for its block."""

    __slots__ = ('_pool', '_endpoint', '_timeout', '_entered', '_record', '_loan')

    def __init__(self, pool: 'ThreadPool[EndpointT, ConnectionT]', endpoint: EndpointT, timeout: Optional[float]):
        self._pool = pool
        self._endpoint = endpoint
        self._timeout = timeout
        self._entered = False
        self._record: Optional[Record] = None
        #: tells this loan of the record from later ones
        self._loan = 0

    def __enter__(self) -> ConnectionT:
        if self._entered:
            raise RuntimeError('this context manager is in use already: call connection() once for each block')
        self._entered = True
        try:
            record = self._pool._lend(self._endpoint, self._timeout)
        except BaseException:
            self._entered = False
            raise
        self._record = record
        self._loan = record.uses
        conn: ConnectionT = record.conn
        return conn

    def __exit__(
        self,
        exc_type: Optional[Type[BaseException]],
        exc: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        record, self._record = self._record, None
        if record is None:
            raise RuntimeError('this context manager has not been entered')
        self._entered = False
        self._pool._return(record, self._loan, exc)


class ThreadPool(Generic[EndpointT, ConnectionT]):
    """What a threads pool does while nothing has to be waited for, and the steps of the rest that must not be torn apart
    by a signal: from here on only the manager's own code can be interrupted (with the compiled core).

    The facade adds ``_acquire``, ``_finish``, ``_collect``, ``_log_failure``, ``_is_inherited`` and
    ``_leave_to_parent``.
    """

    def _setup(
        self,
        core: Core,
        manager: Any,
        plain_acquire: bool,
        plain_release: bool,
        plain_failure: bool,
        collects: bool,
        dispose_timeout: Optional[float],
        workers: Any,
    ) -> None:
        """Prepare the pool.

        :param core: its core
        :param manager: its connection manager
        :param plain_acquire: no hook of acquiring is overridden
        :param plain_release: no hook of releasing is overridden
        :param plain_failure: nor is the one asked when a block has failed
        :param collects: a release is to dispose of what is due
        :param dispose_timeout: seconds that the manager is given to dispose of a connection, ``None`` for no bound
        :param workers: threads that dispose of connections for callers with a deadline
        """
        self._core = core
        self._manager = manager
        self._plain_acquire = plain_acquire
        self._plain_release = plain_release
        self._plain_failure = plain_failure
        self._collects = collects
        self._dispose_timeout = dispose_timeout
        self._workers = workers
        #: what each thread is about
        self._in_flight = threading.local()

    def _renew(self, core: Core, workers: Any) -> None:
        """For a forked child: go on with another core. What the calling thread is about comes to nothing.

        :param core: an empty core
        :param workers: threads of the child
        """
        former, self._core = self._core, core
        self._workers = workers
        for matter in getattr(self._in_flight, 'matters', ()):
            if isinstance(matter, Ticket):
                matter.revoke()
                matter.wake()
                if former.mutex.busy:  # as in disown()
                    former.mutex.defer(matter.revoke)

    def connection(self, endpoint: EndpointT, timeout: Optional[float] = None) -> Lease[EndpointT, ConnectionT]:
        """Hold a connection for a ``with`` block.

        :param endpoint: the endpoint to be connected to
        :param timeout: seconds to wait at the most (0: not at all), ``None`` for the pool's ``acquire_timeout``
        :return: a context manager for one block; ``as`` gives the connection
        :raises ConnectionPoolTimeoutError: on entering, if no connection could be had in time
        :raises ConnectionPoolClosedError: on entering, if the pool is closed
        """
        return Lease(self, endpoint, timeout)

    def acquire(self, endpoint: EndpointT, timeout: Optional[float] = None) -> ConnectionT:
        """Acquire a connection; :meth:`release` gives it back.

        :param endpoint: the endpoint to be connected to
        :param timeout: seconds to wait at the most (0: not at all), ``None`` for the pool's ``acquire_timeout``
        :return: the connection
        :raises ConnectionPoolTimeoutError: if no connection could be had in time
        :raises ConnectionPoolClosedError: if the pool is closed
        """
        conn: ConnectionT = self._lend(endpoint, timeout).conn
        return conn

    def release(self, conn: ConnectionT, endpoint: EndpointT) -> None:
        """Give a connection back.

        :param conn: the connection (this very object or, if that is not acquired, an equal one)
        :param endpoint: its endpoint
        :raises ConnectionNotAcquiredError: if the endpoint has not lent it, or not any more
        """
        try:
            record = self._core.find(conn, endpoint)
        except ReentryError:
            self._core.mutex.defer(lambda: self.release(conn, endpoint))
        else:
            if record is None:
                self._refuse(conn, endpoint)
            else:
                self._return(record, record.uses, None)

    # -- of the facade

    def _acquire(self, ticket: Ticket, endpoint: EndpointT, timeout: Optional[float]) -> None:
        raise NotImplementedError

    def _check_timeout(self, timeout: Optional[float]) -> Optional[float]:
        raise NotImplementedError

    def _finish(self, record: Record, exc: Optional[BaseException]) -> None:
        raise NotImplementedError

    def _collect(self, now: float, already: int) -> None:
        raise NotImplementedError

    def _log_failure(self, record: Record, exc: Exception) -> None:
        raise NotImplementedError

    def _is_inherited(self, conn: Any) -> bool:
        raise NotImplementedError

    def _leave_to_parent(self, endpoint: EndpointT, conn: ConnectionT) -> None:
        raise NotImplementedError

    # -- acquiring and releasing

    def _lend(self, endpoint: EndpointT, timeout: Optional[float]) -> Record:
        holder = threading.get_ident()
        if timeout is not None:
            self._check_timeout(timeout)
        if self._plain_acquire:
            core = self._core
            record = core._lend_idle(endpoint, holder)
            if record is not None and core is self._core:
                return record
        ticket = Ticket(holder)
        self._begin(ticket)
        try:
            self._acquire(ticket, endpoint, timeout)
        except ReentryError:
            raise
        except BaseException:
            self._abandon(ticket)
            raise
        finally:
            self._end(ticket)
        if ticket.record is None:
            raise RuntimeError('no connection was granted')
        return ticket.record

    def _return(self, record: Record, loan: int, exc: Optional[BaseException]) -> None:
        try:
            held = self._core.take_back(record, loan)
        except ReentryError:
            return self._core.mutex.defer(lambda: self._return(record, loan, exc))
        if not held:
            self._refuse(record.conn, record.key)
        elif self._plain_release and (exc is None or self._plain_failure):
            self._give_back(record)
        else:
            self._begin(record)
            try:
                self._finish(record, exc)
            except BaseException:
                if record.state == RETURNING and record.uses == loan:  # its state is unknown
                    self._scrap(record, None)
                raise
            finally:
                self._end(record)

    def _refuse(self, conn: Any, endpoint: Any) -> None:
        if not self._core.forced and not self._is_inherited(conn):
            raise not_acquired(conn, endpoint)

    def _begin_close(self, again: Callable[[], object]) -> bool:
        """Begin to close.

        :param again: called later if it has to be put off because a finalizer closes the pool inside its own operation
        :return: whether it was not put off
        """
        try:
            self._core.close()
        except ReentryError:
            # a worker does it: this thread may have a slot in its hands, for which closing would wait
            self._core.mutex.defer(lambda: self._workers.submit(again))
            return False
        return True

    # -- steps that signals do not tear apart

    def _begin(self, matter: Union[Ticket, Record]) -> None:
        """From now on the calling thread may have a slot in its hands, for which nothing in that thread must wait."""
        try:
            matters = self._in_flight.matters
        except AttributeError:
            matters = self._in_flight.matters = []
        matters.append(matter)

    def _end(self, matter: Union[Ticket, Record]) -> None:
        """The matter is over. Finalizers may have begun and ended others in between."""
        matters = self._in_flight.matters
        for index in range(len(matters) - 1, -1, -1):
            if matters[index] is matter:
                del matters[index]
                return

    def _slots_in_hand(self) -> int:
        """How many slots the calling thread's unfinished operations hold."""
        slots = 0
        records: Set[Optional[Record]] = set()
        for matter in getattr(self._in_flight, 'matters', ()):
            if isinstance(matter, Record):
                records.add(matter)
            else:
                slots += matter.state == SLOT
                records.update((matter.victim, matter.record if matter.state == CONNECTION else None))
        return slots + sum(
            record is not None and record.state in (LENT, RETURNING, DISPOSING) for record in records
        )

    def _connect(self, ticket: Ticket, endpoint: EndpointT, timeout: Optional[float]) -> bool:
        """Create a connection in the slot that the ticket holds.

        :return: whether the ticket holds it; if not, the pool was closed and the connection is disposed of, or this
            is a child that was forked meanwhile
        """
        core = self._core
        conn = self._manager.create(endpoint, timeout=timeout)
        if type(conn) is CoroutineType and core is self._core:
            conn.close()
            raise TypeError('create() of a connection manager for threads returned a coroutine, which is no connection')
        kept = core is self._core and core.fulfil(ticket, conn, monotonic())
        if core is not self._core:  # this is a forked child
            self._leave_to_parent(endpoint, conn)
            return False
        if kept:
            return True
        record, ticket.record = ticket.record, None
        assert record is not None
        self._dispose(record, timeout, None)
        return False

    def _give_back(self, record: Record) -> None:
        """End the release of a connection that is fit for others, and dispose of what is due."""
        now = monotonic()
        kept = self._core.give_back(record, now)
        if not kept:
            self._dispose(record, None, None)
        if self._collects and self._core.due(now):
            self._collect(now, 0 if kept else 1)

    def _scrap(self, record: Record, timeout: Optional[float]) -> None:
        """Dispose of an acquired connection."""
        if self._core.discard(record):
            self._dispose(record, timeout, None)

    def _abandon(self, ticket: Ticket) -> None:
        """An acquire failed: give back whatever its ticket holds."""
        self._core.withdraw(ticket)
        try:
            if ticket.state == SLOT:
                self._core.fail(ticket)
            elif ticket.state == CONNECTION:
                record, ticket.record = ticket.record, None
                assert record is not None
                if ticket.dirty:
                    self._scrap(record, None)
                else:
                    self._give_back(record)
        finally:
            self._dispose_elsewhere(ticket, None)

    def _dispose_elsewhere(self, ticket: Ticket, timeout: Optional[float]) -> None:
        """Have a worker dispose of a ticket's victim, if it has one."""
        record = ticket.take_victim()
        if record is None:
            return
        self._begin(record)
        try:
            self._workers.submit(functools.partial(self._dispose, record, timeout, None))
        except BaseException:
            self._dispose(record, timeout, None)
            raise
        finally:
            self._end(record)
        self._core.rest(ticket)

    def _dispose_victim(self, ticket: Ticket, timeout: Optional[float]) -> bool:
        """Dispose of a ticket's victim, if nobody has taken it over yet."""
        record = ticket.victim
        if record is None:
            return False
        self._begin(record)  # before it is the ticket's no more: a finalizer that closes must not wait for it
        try:
            return ticket.take_victim() is not None and self._dispose(record, timeout, ticket)
        finally:
            self._end(record)

    def _dispose_due(self, now: float, timeout: Optional[float]) -> bool:
        """Dispose of one connection that is due, if there is one."""
        record = self._core.next_due(now)
        return record is not None and self._dispose(record, timeout, None)

    def _dispose_idle(self, timeout: Optional[float]) -> bool:
        """Dispose of one idle connection of a closed pool, if there is one."""
        record = self._core.next_idle()
        return record is not None and self._dispose(record, timeout, None)

    def _dispose_lent(self, timeout: Optional[float]) -> bool:
        """Dispose of one connection of a closed pool that is still acquired, if there is one."""
        record = self._core.next_lent()
        return record is not None and self._dispose(record, timeout, None)

    def _dispose(self, record: Record, timeout: Optional[float], ticket: Optional[Ticket]) -> bool:
        """Have the manager dispose of a doomed connection; whatever happens, its slot is free then. Returns True."""
        if not record.claim():
            return True
        if timeout is None or (self._dispose_timeout is not None and self._dispose_timeout < timeout):
            timeout = self._dispose_timeout
        self._begin(record)
        try:
            self._manager.dispose(record.key, record.conn, timeout=timeout)
        except Exception as exc:
            self._log_failure(record, exc)
        finally:
            self._core.disposed(record, ticket)
            self._end(record)
        return True
