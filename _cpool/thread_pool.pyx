# cython: nonecheck=True
"""The hot path of the threads pool: acquiring what is idle and releasing, with no hook overridden."""

import functools
import threading
from types import CoroutineType, GenericAlias

cimport cython

from _cpool.atomics cimport exchange_int, load_int, store_int
from _cpool.core cimport R_DISPOSE, R_DUE, R_REFUSED
from _cpool.lock cimport PyThread_get_thread_ident, clock_now, is_plain_timeout
from _cpool.structs cimport S_DISPOSING, S_LENT, S_RETURNING, T_CONNECTION, T_SLOT

__all__ = ('Lease', 'ThreadPool')


@cython.final
@cython.freelist(32)
cdef class Lease:
    """The context manager that :meth:`ThreadPool.connection` returns: holds one connection for its block."""

    @classmethod
    def __class_getitem__(cls, item):
        return GenericAlias(cls, item)

    def __init__(self, ThreadPool pool not None, endpoint, timeout):
        if self.pool is not None:
            raise RuntimeError('this context manager is in use already: call connection() once for each block')
        self.pool = pool
        self.endpoint = endpoint
        self.timeout = timeout

    def __enter__(self):
        cdef Record record
        if exchange_int(&self.entered, True):
            raise RuntimeError('this context manager is in use already: call connection() once for each block')
        try:
            record = lend(self.pool, self.endpoint, self.timeout)
        except BaseException:
            store_int(&self.entered, False)
            raise
        with cython.critical_section(self):
            self.loan = record.c.uses
            self.record = record
        return record.conn

    def __exit__(self, exc_type, exc, traceback):
        cdef Record record
        cdef uint64_t loan
        with cython.critical_section(self):  # threads may share it, though they should not: one of them leaves it
            record = self.record
            self.record = None
            loan = self.loan
        if record is None:
            raise RuntimeError('this context manager has not been entered')
        store_int(&self.entered, False)
        give_in(self.pool, record, loan, exc)


cdef class ThreadPool:
    """What a threads pool does while nothing has to be waited for, and the steps of the rest that must not be torn apart
    by a signal: from here on only the manager's own code can be interrupted.

    The facade adds ``_acquire``, ``_finish``, ``_collect``, ``_log_failure``, ``_is_inherited`` and
    ``_leave_to_parent``.
    """

    @classmethod
    def __class_getitem__(cls, item):
        return GenericAlias(cls, item)

    def _setup(
        self, Core core not None, manager, bint plain_acquire, bint plain_release, bint plain_failure, bint collects,
        dispose_timeout, workers
    ):
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
        self.adopt(core)
        self._manager = manager
        self._plain_acquire = plain_acquire
        self._plain_release = plain_release
        self._plain_failure = plain_failure
        self._collects = collects
        self.dispose_timeout = dispose_timeout
        self._workers = workers
        self._in_flight = threading.local()

    def _renew(self, Core core not None, workers):
        """For a forked child: go on with another core. What the calling thread is about comes to nothing.

        :param core: an empty core
        :param workers: threads of the child
        """
        self.adopt(core)
        self._workers = workers
        for matter in getattr(self._in_flight, 'matters', ()):
            if isinstance(matter, Ticket):
                (<Ticket>matter).revoke()
                (<Ticket>matter).wake()

    cdef int adopt(self, Core core) except -1:
        # what the former core has lent must never come back to another one
        if self.core is not None and self.core is not core:
            self.core.disown()
        self.core = core
        return 0

    def connection(self, endpoint, timeout=None):
        """Hold a connection for a ``with`` block.

        :param endpoint: the endpoint to be connected to
        :param timeout: seconds to wait at the most (0: not at all), ``None`` for the pool's ``acquire_timeout``
        :return: a context manager for one block; ``as`` gives the connection
        :raises ConnectionPoolTimeoutError: on entering, if no connection could be had in time
        :raises ConnectionPoolClosedError: on entering, if the pool is closed
        """
        cdef Lease lease = Lease.__new__(Lease)
        lease.pool = self
        lease.endpoint = endpoint
        lease.timeout = timeout
        return lease

    def acquire(self, endpoint, timeout=None):
        """Acquire a connection; :meth:`release` gives it back.

        :param endpoint: the endpoint to be connected to
        :param timeout: seconds to wait at the most (0: not at all), ``None`` for the pool's ``acquire_timeout``
        :return: the connection
        :raises ConnectionPoolTimeoutError: if no connection could be had in time
        :raises ConnectionPoolClosedError: if the pool is closed
        """
        return lend(self, endpoint, timeout).conn

    def release(self, conn, endpoint):
        """Give a connection back.

        :param conn: the connection (this very object or, if that is not acquired, an equal one)
        :param endpoint: its endpoint
        :raises ConnectionNotAcquiredError: if the endpoint has not lent it, or not any more
        """
        cdef Record record = self.core.find(conn, endpoint)
        if record is None:
            self.refuse(conn, endpoint)
        else:
            give_in(self, record, record.c.uses, None)

    # -- acquiring and releasing

    cdef Record lend_slowly(self, object endpoint, object timeout, unsigned long holder):
        cdef Ticket ticket = Ticket(holder)
        self.begin(ticket)
        try:
            self._acquire(ticket, endpoint, timeout)
        except BaseException:
            self._abandon(ticket)
            raise
        finally:
            self.end(ticket)
        if ticket.c.record == NULL:
            raise RuntimeError('no connection was granted')
        return <Record>ticket.c.record.owner

    cdef int conclude(self, Record record, int answer) except -1:
        # what a release has left to be done
        if answer & R_REFUSED:
            return self.refuse(record.conn, record.key)
        if answer & R_DISPOSE:
            self._dispose(record, None, None)
        if answer & R_DUE and self._collects:
            self._collect(clock_now(), 1 if answer & R_DISPOSE else 0)
        return 0

    cdef int finish(self, Record record, uint64_t loan, object exc) except -1:
        self.begin(record)
        try:
            self._finish(record, exc)
        except BaseException:
            if load_int(&record.c.state) == S_RETURNING and record.c.uses == loan:  # its state is unknown
                self._scrap(record, None)
            raise
        finally:
            self.end(record)
        return 0

    cdef int refuse(self, object conn, object endpoint) except -1:
        if not self.core.forced and not self._is_inherited(conn):
            # the package imports this module
            from generic_connection_pool._messages import not_acquired

            raise not_acquired(conn, endpoint)
        return 0

    def _begin_close(self, again):
        """Begin to close.

        :param again: called later if it has to be put off, which only the pure-Python core does
        :return: whether it was not put off
        """
        self.core.close()
        return True

    # -- steps that signals do not tear apart

    cdef int begin(self, object matter) except -1:
        # from now on the thread may have a slot in its hands, for which nothing in that thread must wait
        cdef list matters = getattr(self._in_flight, 'matters', None)
        if matters is None:
            matters = []
            self._in_flight.matters = matters
        matters.append(matter)
        return 0

    cdef int end(self, object matter) except -1:
        # the matter is over; finalizers may have begun and ended others in between
        cdef list matters = self._in_flight.matters
        cdef Py_ssize_t index
        for index in range(len(matters) - 1, -1, -1):
            if matters[index] is matter:
                del matters[index]
                break
        return 0

    def _slots_in_hand(self):
        """How many slots the calling thread's unfinished operations hold."""
        cdef Py_ssize_t slots = 0
        cdef set records = set()
        for matter in getattr(self._in_flight, 'matters', ()):
            if isinstance(matter, Record):
                records.add(matter)
            else:
                slots += load_int(&(<Ticket>matter).c.state) == T_SLOT
                records.add((<Ticket>matter).victim)
                if load_int(&(<Ticket>matter).c.state) == T_CONNECTION:
                    records.add((<Ticket>matter).record)
        records.discard(None)
        for record in records:
            slots += load_int(&(<Record>record).c.state) in (S_LENT, S_RETURNING, S_DISPOSING)
        return slots

    def _connect(self, Ticket ticket not None, endpoint, timeout):
        """Create a connection in the slot that the ticket holds.

        :return: whether the ticket holds it; if not, the pool was closed and the connection is disposed of, or this
            is a child that was forked meanwhile
        """
        cdef Record record
        cdef Core core = self.core
        conn = self._manager.create(endpoint, timeout=timeout)
        if core is not self.core:  # this is a forked child
            self._leave_to_parent(endpoint, conn)
            return False
        if type(conn) is CoroutineType:
            conn.close()
            raise TypeError('create() of a connection manager for threads returned a coroutine, which is no connection')
        if core.fulfil(ticket, conn, clock_now()):
            return True
        record = ticket.record
        ticket.record = None
        self._dispose(record, timeout, None)
        return False

    def _give_back(self, Record record not None):
        """End the release of a connection that is fit for others, and dispose of what is due."""
        cdef double now = clock_now()
        cdef int answer = 0 if self.core.give_back(record, now) else R_DISPOSE
        if self.core.due(now):
            answer |= R_DUE
        self.conclude(record, answer)

    def _scrap(self, Record record not None, timeout):
        """Dispose of an acquired connection."""
        if self.core.discard(record):
            self._dispose(record, timeout, None)

    def _abandon(self, Ticket ticket not None):
        """An acquire failed: give back whatever its ticket holds."""
        cdef Record record
        self.core.withdraw(ticket)
        try:
            if ticket.c.state == T_SLOT:
                self.core.fail(ticket)
            elif ticket.c.state == T_CONNECTION:
                record = ticket.record
                ticket.record = None
                if ticket.dirty:
                    self._scrap(record, None)
                else:
                    self._give_back(record)
        finally:
            self._dispose_elsewhere(ticket, None)

    def _dispose_elsewhere(self, Ticket ticket not None, timeout):
        """Have a worker dispose of a ticket's victim, if it has one."""
        cdef Record record = ticket.take_victim()
        if record is None:
            return
        self.begin(record)
        try:
            self._workers.submit(functools.partial(self._dispose, record, timeout, None))
        except BaseException:
            self._dispose(record, timeout, None)
            raise
        finally:
            self.end(record)
        self.core.rest(ticket)

    def _dispose_victim(self, Ticket ticket not None, timeout):
        """Dispose of a ticket's victim, if nobody has taken it over yet."""
        cdef Record record = ticket.victim
        if record is None:
            return False
        self.begin(record)  # before it is the ticket's no more: a finalizer that closes must not wait for it
        try:
            return ticket.take_victim() is not None and self._dispose(record, timeout, ticket)
        finally:
            self.end(record)

    def _dispose_due(self, double now, timeout):
        """Dispose of one connection that is due, if there is one."""
        cdef Record record = self.core.next_due(now)
        return record is not None and self._dispose(record, timeout, None)

    def _dispose_idle(self, timeout):
        """Dispose of one idle connection of a closed pool, if there is one."""
        cdef Record record = self.core.next_idle()
        return record is not None and self._dispose(record, timeout, None)

    def _dispose_lent(self, timeout):
        """Dispose of one connection of a closed pool that is still acquired, if there is one."""
        cdef Record record = self.core.next_lent()
        return record is not None and self._dispose(record, timeout, None)

    cpdef bint _dispose(self, Record record, timeout, Ticket ticket) except -1:
        """Have the manager dispose of a doomed connection; whatever happens, its slot is free then. Returns True."""
        if record is None:
            raise TypeError('a Record is required, not None')
        if not record.claim():
            return True
        if timeout is None or (self.dispose_timeout is not None and self.dispose_timeout < timeout):
            timeout = self.dispose_timeout
        self.begin(record)
        try:
            self._manager.dispose(record.key, record.conn, timeout=timeout)
        except Exception as exc:
            self._log_failure(record, exc)
        finally:
            self.core.disposed(record, ticket)
            self.end(record)
        return True


# Functions, because a call of a method would look into the pool for where it is: see ThreadPool.distance.

cdef Record lend(ThreadPool pool, object endpoint, object timeout):
    cdef Record record
    cdef unsigned long holder = PyThread_get_thread_ident()
    if timeout is not None and not is_plain_timeout(timeout):
        pool._check_timeout(timeout)
    if pool._plain_acquire:
        record = pool.core.lend_idle(endpoint, holder)
        if record is not None:
            return record
    return pool.lend_slowly(endpoint, timeout, holder)


cdef int give_in(ThreadPool pool, Record record, uint64_t loan, object exc) except -1:
    cdef int answer
    if pool._plain_release and (exc is None or pool._plain_failure):
        answer = pool.core.restore_now(record, loan)
        if answer:
            pool.conclude(record, answer)
    elif pool.core.take_back(record, loan):
        pool.finish(record, loan, exc)
    else:
        pool.refuse(record.conn, record.key)
    return 0
