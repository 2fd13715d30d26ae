"""The connection pool for threads."""

import logging
import threading
import warnings
from typing import Any, List, Optional

from .. import _fork
from .._core import CLOSED, CONNECTION, SLOT, WAITING, Core, Record, ThreadPool, Ticket, monotonic
from .._deadlines import deadline_after, remaining
from .._messages import acquired_by, show
from ..common import BaseConnectionPool, ConnectionT, EndpointT, check_manager, check_timeout, is_overridden
from ..exceptions import ConnectionPoolTimeoutError
from .collector import start_collector
from .manager import BaseConnectionManager
from .workers import Workers

__all__ = ('ConnectionPool',)

logger = logging.getLogger(__name__)

WORKERS_NAME = 'gcp-disposer'
#: seconds that ``close`` gives the connections which it disposes of when its timeout is over
LAST_GRACE = 0.25
#: threads that dispose of connections side by side when a pool is closed within a timeout
CLOSING_WORKERS = 32


class ConnectionPool(BaseConnectionPool[EndpointT, ConnectionT], ThreadPool[EndpointT, ConnectionT]):
    """A pool of connections to any number of endpoints, shared by threads.

    :param connection_manager: opens, checks and closes connections
    :param acquire_timeout: seconds that an acquire waits at the most unless it says otherwise, 0 or more; ``None`` (the
        default) for no bound
    :param background_collector: have a daemon thread (``gcp-collector``) dispose of what is due; without it (the
        default), each release does
    :param dispose_batch_size: connections that one release disposes of at the most; 0 (the default) for
        ``int(log2(connections + 1)) + 1``
    :param dispose_timeout: seconds that the manager is given to dispose of a connection, 0 or more; ``None`` (the
        default) for no bound
    :param idle_timeout: seconds after which an idle connection beyond ``min_idle`` is disposed of, 0 or more; default 60
    :param max_lifetime: seconds after which any connection is disposed of, 0 or more; default 3600
    :param min_idle: connections of an endpoint that ``idle_timeout`` does not concern, 0 or more; default 1
    :param max_size: connections of one endpoint at the most, 1 or more; default 10
    :param total_max_size: connections of all endpoints at the most, 1 or more; default 100
    :raises ValueError: names the parameter, its value and what is allowed
    :raises TypeError: the manager lacks a method, is a class, or is one for the other runtime
    """

    def __init__(
        self,
        connection_manager: BaseConnectionManager[EndpointT, ConnectionT],
        *,
        acquire_timeout: Optional[float] = None,
        background_collector: bool = False,
        dispose_batch_size: int = 0,
        dispose_timeout: Optional[float] = None,
        idle_timeout: float = 60.0,
        max_lifetime: float = 3600.0,
        min_idle: int = 1,
        max_size: int = 10,
        total_max_size: int = 100,
    ):
        check_manager(connection_manager, asynchronous=False)
        own = {name: is_overridden(connection_manager, BaseConnectionManager, name) for name in HOOKS}
        super().__init__(
            acquire_timeout=acquire_timeout,
            background_collector=background_collector,
            dispose_batch_size=dispose_batch_size,
            dispose_timeout=dispose_timeout,
            idle_timeout=idle_timeout,
            max_lifetime=max_lifetime,
            min_idle=min_idle,
            max_size=max_size,
            total_max_size=total_max_size,
        )
        self._connection_manager = connection_manager
        self._checks_aliveness = own['check_aliveness']
        self._checks_reuse = own['is_reusable']
        self._setup(
            self._core,
            connection_manager,
            not (own['check_aliveness'] or own['on_acquire']),
            not own['on_release'],
            not own['is_reusable'],
            not self._background_collector,
            self._dispose_timeout,
            Workers(WORKERS_NAME),
        )
        #: who waits for the pool to be empty
        self._closers: List[Ticket] = []
        #: after a fork; it is started when there is something to be collected
        self._lacks_collector = False
        _fork.follow(self)
        if self._background_collector:
            start_collector(self)

    def __del__(self, _warn: Any = warnings.warn) -> None:  # at exit, the module may have been emptied already
        core = getattr(self, '_core', None)  # the constructor may have failed
        if core is not None and not core.closed:
            _warn(f'unclosed {self!r}', ResourceWarning, source=self, stacklevel=2)

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` has begun."""
        return self._core.closed

    def get_endpoint_pool_size(self, endpoint: EndpointT, acquired: Optional[bool] = None) -> int:
        """Count the connections of one endpoint.

        :param endpoint: the endpoint; of an unknown one there are 0
        :param acquired: ``True`` counts the acquired ones, ``False`` the idle ones, ``None`` (the default) all, those
            being created or disposed of included
        :return: the number of connections
        """
        return self._endpoint_size(endpoint, acquired)

    def close(self, timeout: Optional[float] = None) -> None:
        """Close the pool: whoever waits for a connection is told, idle connections are disposed of, acquired ones when
        they are released. Returns when all are. Closing again, also after an interrupted ``close``, is fine.

        :param timeout: seconds to wait at the most, after which acquired connections are disposed of nevertheless;
            ``None`` (the default) to wait as long as it takes
        """
        deadline = deadline_after(check_timeout(timeout))
        if not self._begin_close(lambda: self.close(timeout)):
            return
        self._dispose_many(self._dispose_idle, self._core.total, deadline)
        if not self._drain(deadline):
            self._dispose_many(self._dispose_lent, self._core.total, deadline)
            self._drain(monotonic() + LAST_GRACE)

    # -- acquiring

    def _acquire(self, ticket: Ticket, endpoint: EndpointT, timeout: Optional[float]) -> None:
        """Do what the core says until the ticket holds a connection that is ready for use."""
        started = monotonic()
        timeout = self._acquire_timeout if timeout is None else check_timeout(timeout)
        deadline = None if timeout is None else started + timeout
        if self._lacks_collector:
            self._lacks_collector = False
            start_collector(self)
        self._core.request(ticket, endpoint, started)
        while True:
            state = ticket.state  # read first: a ticket that no longer waits gets no more victims
            if ticket.victim is not None:
                self._see_to_victim(ticket, deadline)
            if state == WAITING:
                if self._workers.crew:
                    self._workers.step_aside()
                if not ticket.wait(remaining(deadline)) and self._core.withdraw(ticket):
                    raise ConnectionPoolTimeoutError(self._tell_timeout(endpoint, monotonic() - started))
            elif state == SLOT:
                if not self._connect(ticket, endpoint, remaining(deadline)):
                    self._refuse_closed()
                return self._announce(ticket, endpoint)
            elif state == CLOSED:
                self._refuse_closed()
            elif state == CONNECTION and self._check(ticket, endpoint, deadline):
                return self._announce(ticket, endpoint)

    def _see_to_victim(self, ticket: Ticket, deadline: Optional[float]) -> None:
        """Have the ticket's victim disposed of: here, unless that might take longer than the caller can wait."""
        if deadline is None:
            self._dispose_victim(ticket, None)
        else:
            self._dispose_elsewhere(ticket, remaining(deadline))

    def _check(self, ticket: Ticket, endpoint: EndpointT, deadline: Optional[float]) -> bool:
        """Check the connection granted; if it is dead, ask for another one."""
        record = ticket.record
        assert record is not None
        if not self._checks_aliveness:
            return True
        manager = self._connection_manager
        if self._guarded(ticket, self._is_alive, endpoint, record.conn, remaining(deadline)):
            ticket.dirty = False
            return True
        manager.on_connection_dead(endpoint, record.conn)
        if ticket.state != CONNECTION:  # revoked
            self._refuse_closed()
        self._core.replace(ticket, monotonic())
        ticket.dirty = False
        return False

    def _is_alive(self, endpoint: EndpointT, conn: ConnectionT, timeout: Optional[float]) -> bool:
        answer = self._connection_manager.check_aliveness(endpoint, conn, timeout)
        return bool(answer)  # which may fail, as the check itself

    def _announce(self, ticket: Ticket, endpoint: EndpointT) -> None:
        """Tell the manager that a connection is about to be handed out."""
        if not self._plain_acquire:
            assert ticket.record is not None
            # it stays unfit: from now on, going back idle would take an on_release
            self._guarded(ticket, self._connection_manager.on_acquire, endpoint, ticket.record.conn)
        if self._core.closed:  # nobody is served after that
            self._refuse_closed()

    def _guarded(self, ticket: Ticket, hook: Any, *args: Any) -> Any:
        """Call a hook with the connection granted. From then on it is unfit for others, unless an ordinary exception ends
        the hook; if the hook ends well, the caller knows what that means.
        """
        ticket.dirty = True
        try:
            answer = hook(*args)
        except TimeoutError:
            raise
        except Exception:
            ticket.dirty = False
            raise
        if ticket.state != CONNECTION:  # revoked
            self._refuse_closed()
        return answer

    def _tell_timeout(self, endpoint: EndpointT, waited: float) -> str:
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        holders = self._core.holders(endpoint)
        named = [names.get(ident, f'thread {ident}') for ident in holders]
        own = holders.count(threading.get_ident())
        return self._describe(endpoint, waited) + acquired_by(named, own, 'thread')

    # -- releasing and disposing

    def _finish(self, record: Record, exc: Optional[BaseException]) -> None:
        """Ask the hooks about a connection whose release has begun, and end it."""
        manager = self._connection_manager
        endpoint = record.key
        if exc is not None and self._checks_reuse:
            if not manager.is_reusable(endpoint, record.conn, exc):
                return self._scrap(record, None)
        if not self._plain_release:
            try:
                manager.on_release(endpoint, record.conn)
            except TimeoutError:
                raise
            except Exception:
                self._give_back(record)
                raise
        self._give_back(record)

    def _collect(self, now: float, already: int) -> None:
        """Dispose of some of what is due; the release has disposed of ``already`` connections."""
        for _ in range(self._due_batch() - already):
            if not self._dispose_due(now, None):
                return

    def _dispose_all_due(self, ticket: Ticket) -> Optional[float]:
        """For the collector: dispose of all that is due.

        :param ticket: woken as soon as something is due earlier than it seems now
        :return: seconds until the next connection may be due, ``None`` if none is idle
        """
        while self._dispose_due(monotonic(), None):
            pass
        due = self._core.set_alarm(ticket)
        if self._core.closed:  # maybe before the alarm was set
            return 0.0
        return None if due is None else max(due - monotonic(), 0.0)

    def _dispose_many(self, dispose_one: Any, count: int, deadline: Optional[float]) -> None:
        """Dispose of connections until none is left: here, unless that might take longer than the caller can wait."""
        if deadline is None:
            while dispose_one(None):
                pass
            return

        def work() -> None:
            while dispose_one(max(deadline - monotonic(), 0.0)):
                pass

        for _ in range(min(count, CLOSING_WORKERS)):
            self._workers.submit(work)

    def _drain(self, deadline: Optional[float]) -> bool:
        """Wait until all slots are free, but for those in the hands of this thread itself."""
        ticket = Ticket(0)
        core = self._core
        excused = self._slots_in_hand()
        if core.join(ticket, excused):
            return True
        try:
            self._closers.append(ticket)
            self._workers.step_aside()
            while not self._core.drained(excused):
                if not ticket.wait(remaining(deadline)):
                    return self._core.drained(excused)
            return True
        finally:
            if core is self._core:  # this is not a child that was forked meanwhile
                core.leave(ticket, excused)
            if ticket in self._closers:
                self._closers.remove(ticket)

    def _renew_facade(self, core: Core) -> None:
        self._workers.forget()
        _fork.keep(self._workers)
        self._renew(core, Workers(WORKERS_NAME))
        self._core = core
        for ticket in self._closers:
            ticket.wake()
        self._lacks_collector = self._background_collector and not core.closed

    def _log_failure(self, record: Record, exc: Exception) -> None:
        logger.error('disposing of a connection to %s failed', show(record.key), exc_info=exc)


#: the hooks of a manager that cost nothing unless they are overridden
HOOKS = ('check_aliveness', 'on_acquire', 'on_release', 'is_reusable')
