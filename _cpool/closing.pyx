"""How a pool ends: who waits is told, what is idle or comes back is disposed of, and who closes it waits for that."""

from libc.math cimport INFINITY

from _cpool.atomics cimport store_int
from _cpool.lock cimport decref_alive, incref, mutex_lock, mutex_unlock
from _cpool.policy cimport doom, doom_nearest, drop_unused, end_loan, note_woken
from _cpool.record cimport Record, own
from _cpool.stripes cimport STRIPES, give_up, hold_all, release_all
from _cpool.structs cimport T_CLOSED, aftermath_t, endpoint_t, record_t, ticket_t
from _cpool.table cimport outdate_lent
from _cpool.waiters cimport Ticket, is_free, leave_ring, queue_push, queue_remove

__all__ = ('Closing',)


cdef class Closing(Store):
    """The operations that end a pool."""

    def close(self):
        """Begin to close: who waits is told, nobody is served any more. Again does nothing."""
        cdef aftermath_t after = aftermath_t(NULL, NULL, NULL)
        cdef endpoint_t *endpoint
        cdef endpoint_t *next_endpoint
        cdef ticket_t *ticket
        cdef size_t i
        hold_all(self.s.stripes)
        store_int(&self.s.closed, True)
        for i in range(<size_t>1 << self.s.endpoints.bits if self.s.endpoints.buckets != NULL else 0):
            endpoint = self.s.endpoints.buckets[i]
            while endpoint != NULL:
                next_endpoint = endpoint.bucket_next
                leave_ring(endpoint)
                while endpoint.waiters.head != NULL:
                    ticket = endpoint.waiters.head
                    queue_remove(&endpoint.waiters, ticket)
                    store_int(&ticket.state, T_CLOSED)
                    ticket.endpoint = NULL
                    note_woken(&after, ticket)
                    decref_alive(ticket.owner)  # the queue's reference
                drop_unused(&self.s, endpoint, &after)
                endpoint = next_endpoint
        if self.s.alarm != NULL:
            note_woken(&after, self.s.alarm)
        release_all(self.s.stripes)
        self._conclude(&after)

    def outdate(self):
        """Have all acquired connections disposed of when they come back."""
        cdef size_t i
        hold_all(self.s.stripes)
        for i in range(STRIPES):
            outdate_lent(&self.s.stripes[i].lent)
        release_all(self.s.stripes)

    cpdef Record next_idle(self):
        """An idle connection, for the caller to dispose of; ``None`` if there is none."""
        cdef record_t *record
        hold_all(self.s.stripes)
        record = doom_nearest(&self.s, INFINITY)
        if record != NULL:
            incref(record.owner)
        release_all(self.s.stripes)
        return own(record)

    cpdef Record next_lent(self):
        """An acquired connection of a closed pool, for the caller to dispose of although it is still in use."""
        cdef record_t *record = NULL
        cdef endpoint_t *endpoint
        cdef int bits
        hold_all(self.s.stripes)
        bits = self.s.endpoints.bits
        if not self.s.closed or self.s.sweep_bits != bits:
            self.s.sweep = 0
            self.s.sweep_bits = bits
        # by endpoint, not in the table of lent ones: where that has a record depends on addresses, and an order that
        # differs from run to run is one that no failure can be replayed in
        while self.s.endpoints.buckets != NULL and self.s.sweep < <size_t>1 << bits:
            endpoint = self.s.endpoints.buckets[self.s.sweep]
            while endpoint != NULL and endpoint.lent.head == NULL:
                endpoint = endpoint.bucket_next
            if endpoint != NULL:
                record = endpoint.lent.head
                self.s.forced = True
                doom(&self.s, record, end_loan(&self.s, record))
                incref(record.owner)
                break
            self.s.sweep += 1
        release_all(self.s.stripes)
        return own(record)

    def join(self, Ticket ticket not None, Py_ssize_t excused):
        """Wait for the pool to be empty.

        :param ticket: woken when it is
        :param excused: slots that cannot become free before the caller goes on, because it is in a hook of theirs
        :return: whether it is empty already; if not, :meth:`leave` ends the waiting
        """
        cdef bint empty
        hold_all(self.s.stripes)
        if not is_free(&ticket.c):
            give_up(self.s.stripes, 'the ticket waits or holds something')
        empty = self.s.total <= (self.s.excused + excused if excused else 0)
        if not empty:
            self.s.excused += excused
            queue_push(&self.s.closers, &ticket.c)
        release_all(self.s.stripes)
        return empty

    def leave(self, Ticket ticket not None, Py_ssize_t excused):
        """Wait no longer for the pool to be empty."""
        hold_all(self.s.stripes)
        if ticket.c.queue != &self.s.closers:
            give_up(self.s.stripes, 'the ticket does not wait for the pool to be empty')
        self.s.excused -= excused
        queue_remove(&self.s.closers, &ticket.c)
        decref_alive(ticket.c.owner)  # the queue's reference; the caller has its own
        release_all(self.s.stripes)

    def drained(self, Py_ssize_t excused):
        """Whether all slots are free, so that the waiting for it is over.

        :param excused: slots in the hands of the caller; if there are any, those in the hands of others who wait for
            the pool to be empty do not count either, or they would wait for each other
        """
        cdef bint empty
        mutex_lock(&self.s.stripes[0].mutex)
        empty = self.s.total <= (self.s.excused if excused else 0)
        mutex_unlock(&self.s.stripes[0].mutex)
        return empty
