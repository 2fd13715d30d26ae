"""Who gets which connection, and when: a state machine that does no I/O and knows no user code.

Every operation is atomic and tells at once what is to be done next. Time comes in as a number (seconds of one monotonic
clock). What an operation wakes, it wakes after the lock is released.
"""

from libc.math cimport INFINITY
from libc.stdint cimport uint64_t

from _cpool.atomics cimport load_int, store_int, store_pointer
from _cpool.deque cimport idle_first, idle_next, idle_remove
from _cpool.heap cimport heap_reserve
from _cpool.lock cimport clock_floor, clock_now, decref, decref_alive, incref, mutex_lock, mutex_unlock
from _cpool.policy cimport (
    doom, doom_nearest, drop_unused, end_duty, end_loan, free_slot, is_calm, lend, promise, restore, seek, settle,
)
from _cpool.record cimport own
from _cpool.stripes cimport STRIPES, give_up, hold_all, release, release_all, stripe_of, stripe_t
from _cpool.structs cimport (
    S_DISPOSING, S_GONE, S_INHERITED, S_LENT, S_RETURNING, T_CLOSED, T_CONNECTION, T_NOTHING, T_SLOT, T_WAITING,
    aftermath_t, endpoint_t, record_t,
)
from _cpool.table cimport lent_reserve
from _cpool.waiters cimport is_free, queue_remove

__all__ = ('Core',)

# The coarse clock is behind by a timer tick, 10 ms at the most. What is due in more than this is not due now.
cdef double COARSE_MARGIN = 1.0


cdef class Core(Closing):
    """The operations of one pool's state."""

    # -- acquiring

    def take(self, key, double now, unsigned long holder):
        """Lend an idle connection, if there is one: the fast path of :meth:`request`.

        :param key: the endpoint
        :param now: the time
        :param holder: identifier of the thread that asks
        :return: the record of the connection, or ``None``: ask with :meth:`request`
        """
        cdef endpoint_t *endpoint
        cdef record_t *record = NULL
        cdef stripe_t *stripe = self._locate_alone(key, &endpoint)
        if endpoint != NULL and not self.s.closed:
            record = idle_first(endpoint, now)
            if record != NULL:
                idle_remove(endpoint, record)
                lend(&self.s, record, holder)
                incref(record.owner)
        mutex_unlock(&stripe.mutex)
        return own(record)

    cdef Record lend_idle(self, object key, unsigned long holder):
        # take() by the clock, which is read only as exactly as the connection's deadline demands
        cdef endpoint_t *endpoint
        cdef record_t *record = NULL
        cdef Py_hash_t key_hash = hash(key)
        cdef stripe_t *stripe = &self.s.stripes[stripe_of(key_hash)]
        self._search(key, key_hash, stripe, False, &endpoint)
        if endpoint != NULL and not self.s.closed:
            record = idle_next(endpoint)
            if record != NULL and record.deadline - clock_floor() <= COARSE_MARGIN:
                record = idle_first(endpoint, clock_now())
            if record != NULL:
                idle_remove(endpoint, record)
                lend(&self.s, record, holder)
                incref(record.owner)
        mutex_unlock(&stripe.mutex)
        return own(record)

    cpdef request(self, Ticket ticket, object key, double now):
        """Ask for a connection. The ticket's state and victim say what came of it.

        :param ticket: a ticket that holds nothing
        :param key: the endpoint
        :param now: the time
        """
        cdef endpoint_t *endpoint
        cdef aftermath_t after = aftermath_t(NULL, NULL, NULL)
        if ticket is None:
            raise TypeError('a Ticket is required, not None')
        self._locate(key, True, &endpoint)
        if not is_free(&ticket.c):
            drop_unused(&self.s, endpoint, &after)
            release_all(self.s.stripes)
            self._conclude(&after)
            raise RuntimeError('the ticket waits or holds something')
        ticket.c.core = self.serial
        self.s.arrivals += 1
        ticket.c.order = self.s.arrivals
        seek(&self.s, &ticket.c, endpoint, now, &after)
        drop_unused(&self.s, endpoint, &after)
        release_all(self.s.stripes)
        self._conclude(&after)

    def replace(self, Ticket ticket not None, double now):
        """Ask for another connection instead of the one granted, which becomes the ticket's victim.

        The ticket keeps its place: nobody is before it who came later.

        :param ticket: a ticket that holds a connection, and no victim
        :param now: the time
        """
        cdef aftermath_t after = aftermath_t(NULL, NULL, NULL)
        cdef record_t *record
        cdef endpoint_t *endpoint
        hold_all(self.s.stripes)
        record = ticket.c.record
        if (
            ticket.c.state != T_CONNECTION or record == NULL or ticket.c.victim != NULL or ticket.c.queue != NULL
            or (record.state == S_LENT and record.core != self.serial)
        ):
            give_up(self.s.stripes, 'the ticket holds no connection, or has a victim already')
        ticket.c.record = NULL
        if record.state != S_LENT:  # closed by force meanwhile
            ticket.c.state = T_CLOSED
        else:
            endpoint = end_loan(&self.s, record)
            doom(&self.s, record, endpoint)
            promise(record, endpoint)
            ticket.c.core = self.serial
            incref(record.owner)  # the ticket's, of its victim
            store_pointer(&ticket.c.victim, record)
            ticket.c.on_duty = True
            seek(&self.s, &ticket.c, endpoint, now, &after)
        release_all(self.s.stripes)
        decref(record.owner)  # the ticket's reference
        self._conclude(&after)

    def withdraw(self, Ticket ticket not None):
        """Stop waiting.

        :return: whether the ticket still waited; if not, it holds what its state says. Either way it may have a victim.
        """
        cdef aftermath_t after = aftermath_t(NULL, NULL, NULL)
        cdef endpoint_t *endpoint
        hold_all(self.s.stripes)
        if ticket.c.state != T_WAITING or ticket.c.core != self.serial:
            release_all(self.s.stripes)
            return False
        endpoint = ticket.c.endpoint
        ticket.c.state = T_NOTHING
        ticket.c.endpoint = NULL
        queue_remove(&endpoint.waiters, &ticket.c)
        decref_alive(ticket.c.owner)  # the queue's reference; the caller has its own
        settle(&self.s, endpoint, &after)
        drop_unused(&self.s, endpoint, &after)
        release_all(self.s.stripes)
        self._conclude(&after)
        return True

    def rest(self, Ticket ticket not None):
        """The ticket's owner has had its victim taken care of elsewhere, and may be given another."""
        cdef aftermath_t after = aftermath_t(NULL, NULL, NULL)
        hold_all(self.s.stripes)
        if ticket.c.core == self.serial:
            end_duty(&ticket.c)
            if ticket.c.state == T_WAITING:
                settle(&self.s, ticket.c.endpoint, &after)
        release_all(self.s.stripes)
        self._conclude(&after)

    # -- creating

    cpdef bint fulfil(self, Ticket ticket, object conn, double now) except -1:
        """Put a new connection in the slot that a ticket holds.

        :return: whether the ticket holds it now; if not, the pool was closed meanwhile, and the caller is to dispose of
            the ticket's record
        """
        cdef endpoint_t *endpoint
        cdef stripe_t *stripe
        cdef Record record
        if ticket is None:
            raise TypeError('a Ticket is required, not None')
        if not holds_slot(ticket, self.serial):
            raise RuntimeError('the ticket holds no slot')
        endpoint = ticket.c.endpoint
        record = Record(conn, <object>endpoint.key, now, now + self.s.max_lifetime)
        self.records.add(record)
        hold_all(self.s.stripes)
        stripe = &self.s.stripes[stripe_of(endpoint.hash)]
        if (heap_reserve(&self.s.heap, self.s.records + 1) < 0
                or lent_reserve(&stripe.lent, stripe.records + 1) < 0):
            release_all(self.s.stripes)
            self.records.discard(record)
            raise MemoryError('no memory for another connection')
        self.s.records += 1
        stripe.records += 1
        record.c.stripe = stripe_of(endpoint.hash)
        record.c.endpoint = endpoint
        record.c.core = self.serial
        incref(record.c.owner)  # the core's reference
        incref(record.c.owner)  # the ticket's
        ticket.c.record = &record.c
        if self.s.closed:
            record.c.state = S_DISPOSING
            ticket.c.state = T_CLOSED
        else:
            endpoint.reserved -= 1
            lend(&self.s, &record.c, ticket.c.holder)
            ticket.c.state = T_CONNECTION
        release_all(self.s.stripes)
        return ticket.c.state == T_CONNECTION

    def fail(self, Ticket ticket not None):
        """Give up the slot that a ticket holds: no connection could be created."""
        cdef aftermath_t after = aftermath_t(NULL, NULL, NULL)
        hold_all(self.s.stripes)
        if not holds_slot(ticket, self.serial):
            give_up(self.s.stripes, 'the ticket holds no slot')
        ticket.c.state = T_NOTHING
        free_slot(&self.s, ticket.c.endpoint, NULL, &after)
        ticket.c.endpoint = NULL
        release_all(self.s.stripes)
        self._conclude(&after)

    def transfer(self, Ticket ticket not None, Ticket heir not None):
        """Pass the slot that a ticket holds to a ticket that holds nothing."""
        hold_all(self.s.stripes)
        if not holds_slot(ticket, self.serial):
            give_up(self.s.stripes, 'the ticket holds no slot')
        if not is_free(&heir.c):
            give_up(self.s.stripes, 'the heir waits or holds something')
        heir.c.core = self.serial
        heir.c.endpoint = ticket.c.endpoint
        heir.c.state = T_SLOT
        ticket.c.endpoint = NULL
        ticket.c.state = T_NOTHING
        release_all(self.s.stripes)

    # -- releasing

    cpdef bint take_back(self, Record record, uint64_t loan) except -1:
        """Begin a release: from now on nobody else can release this connection.

        :param record: the record of the connection
        :param loan: ``record.uses`` when it was acquired
        :return: whether this loan was still on
        """
        cdef bint held
        cdef stripe_t *stripe
        if record is None:
            raise TypeError('a Record is required, not None')
        stripe = &self.s.stripes[record.c.stripe]
        mutex_lock(&stripe.mutex)
        held = record.c.state == S_LENT and record.c.uses == loan and record.c.core == self.serial
        if held:
            store_int(&record.c.state, S_RETURNING)
        mutex_unlock(&stripe.mutex)
        return held

    cpdef bint give_back(self, Record record, double now) except -1:
        """End a release: the connection goes to the oldest waiter, or becomes idle.

        :param record: the record of an acquired connection
        :param now: the time
        :return: ``False`` if the caller is to dispose of it instead
        """
        cdef aftermath_t after = aftermath_t(NULL, NULL, NULL)
        cdef bint kept
        cdef stripe_t *stripe
        if record is None:
            raise TypeError('a Record is required, not None')
        stripe = &self.s.stripes[record.c.stripe]
        mutex_lock(&stripe.mutex)
        if STRIPES > 1 and is_lent(record, self.serial) and not is_calm(&self.s, &record.c, now):
            mutex_unlock(&stripe.mutex)
            stripe = NULL
            hold_all(self.s.stripes)
        if not is_lent(record, self.serial):
            release(self.s.stripes, stripe)
            return self._refuse_unless_forced(record)
        kept = restore(&self.s, &record.c, now, &after)
        release(self.s.stripes, stripe)
        self._conclude(&after)
        return kept

    cdef int restore_now(self, Record record, uint64_t loan) except -1:
        # take_back() and give_back() in one step, by the clock, which is read only as exactly as deadlines demand
        cdef aftermath_t after = aftermath_t(NULL, NULL, NULL)
        cdef double now = clock_floor()
        cdef int answer = 0
        cdef stripe_t *stripe = &self.s.stripes[record.c.stripe]
        mutex_lock(&stripe.mutex)
        if record.c.state != S_LENT or record.c.uses != loan:
            mutex_unlock(&stripe.mutex)
            return R_REFUSED
        if not (
            # a tick more or less does not matter to a long idle_timeout
            (self.s.idle_timeout <= 0.0 or self.s.idle_timeout >= 10.0 * COARSE_MARGIN)
            and record.c.expires - now > COARSE_MARGIN
            and (not self.s.heap.size or self.s.heap.entries[0].deadline - now > COARSE_MARGIN)
        ):
            now = clock_now()
        if STRIPES > 1 and not is_calm(&self.s, &record.c, now):
            mutex_unlock(&stripe.mutex)
            stripe = NULL
            hold_all(self.s.stripes)
            if record.c.state != S_LENT or record.c.uses != loan:
                release_all(self.s.stripes)
                return R_REFUSED
        if not restore(&self.s, &record.c, now, &after):
            answer = R_DISPOSE
        if self.s.heap.size and self.s.heap.entries[0].deadline <= now:
            answer |= R_DUE
        release(self.s.stripes, stripe)
        self._conclude(&after)
        return answer

    cpdef bint discard(self, Record record) except -1:
        """Take an acquired connection out of use.

        :return: whether the caller is to dispose of it; if not, it has been closed by force
        """
        if record is None:
            raise TypeError('a Record is required, not None')
        hold_all(self.s.stripes)
        if not is_lent(record, self.serial):
            release_all(self.s.stripes)
            return not self._refuse_unless_forced(record)
        doom(&self.s, &record.c, end_loan(&self.s, &record.c))
        release_all(self.s.stripes)
        return True

    cdef bint _refuse_unless_forced(self, Record record) except -1:
        if load_int(&record.c.state) != S_INHERITED and not self.forced:
            raise RuntimeError('the connection is not acquired')
        return True

    # -- disposing

    cpdef disposed(self, Record record, Ticket ticket=None):
        """A connection has been disposed of: its slot is free.

        :param record: its record
        :param ticket: the ticket whose victim it was, if its owner was the one to dispose of it
        """
        cdef aftermath_t after = aftermath_t(NULL, NULL, NULL)
        cdef endpoint_t *endpoint
        cdef endpoint_t *beneficiary
        if record is None:
            raise TypeError('a Record is required, not None')
        hold_all(self.s.stripes)
        if record.c.state != S_DISPOSING or record.c.core != self.serial:
            release_all(self.s.stripes)
            if load_int(&record.c.state) == S_INHERITED:
                return
            raise RuntimeError('the connection was not to be disposed of')
        endpoint = record.c.endpoint
        beneficiary = record.c.beneficiary
        store_int(&record.c.state, S_GONE)
        record.c.core = 0
        record.c.endpoint = NULL
        record.c.beneficiary = NULL
        self.s.records -= 1
        self.s.stripes[record.c.stripe].records -= 1
        if ticket is not None and ticket.c.core == self.serial:
            end_duty(&ticket.c)
        if beneficiary != NULL:
            beneficiary.evicting -= 1
            if beneficiary == endpoint:
                beneficiary.own_evicting -= 1
        free_slot(&self.s, endpoint, beneficiary, &after)
        release_all(self.s.stripes)
        self.records.discard(record)
        decref(record.c.owner)  # the core's reference
        self._conclude(&after)

    cpdef bint due(self, double now):
        """Whether a connection may be due: :meth:`next_due` tells for sure."""
        cdef bint due
        mutex_lock(&self.s.stripes[0].mutex)
        due = self.s.heap.size and self.s.heap.entries[0].deadline <= now
        mutex_unlock(&self.s.stripes[0].mutex)
        return due

    cpdef Record next_due(self, double now):
        """An idle connection whose deadline has come, for the caller to dispose of; ``None`` if there is none."""
        cdef record_t *record = NULL
        hold_all(self.s.stripes)
        if self.s.heap.size and self.s.heap.entries[0].deadline <= now:
            record = doom_nearest(&self.s, now)
        if record != NULL:
            incref(record.owner)
        release_all(self.s.stripes)
        return own(record)

    def set_alarm(self, Ticket ticket):
        """Have a ticket woken as soon as something is due earlier than what is known now.

        :param ticket: the collector's, ``None`` for no more alarms
        :return: when the next connection may be due, ``None`` if none is idle
        """
        cdef Ticket former = self.alarm
        cdef double top = INFINITY
        hold_all(self.s.stripes)
        self.s.alarm = NULL if ticket is None else &ticket.c
        if self.s.heap.size:
            top = self.s.heap.entries[0].deadline
        self.s.alarm_at = top
        release_all(self.s.stripes)
        self.alarm = ticket
        return None if top == INFINITY else top


cdef inline bint is_lent(Record record, uint64_t core) noexcept:
    # of this core, and held by a user, or on its way back
    return (record.c.state == S_LENT or record.c.state == S_RETURNING) and record.c.core == core


cdef inline bint holds_slot(Ticket ticket, uint64_t core) noexcept:
    # of this core; without an endpoint it was revoked while it waited
    return ticket.c.state == T_SLOT and ticket.c.core == core and ticket.c.endpoint != NULL
