"""The parts of the core's operations: who is granted what. Nothing here is visible from Python."""

from _cpool.atomics cimport load_int, store_int, store_ulong
from _cpool.deque cimport idle_first, idle_oldest, idle_push, idle_remove, list_append, list_remove
from _cpool.heap cimport heap_arm, heap_disarm, heap_nearest
from _cpool.lock cimport decref_alive, incref
from _cpool.stripes cimport next_sequence
from _cpool.structs cimport S_DISPOSING, S_LENT, T_CLOSED, T_CONNECTION, T_SLOT, T_WAITING, slots
from _cpool.table cimport endpoints_remove, lent_add, lent_remove
from _cpool.waiters cimport come_off_duty, go_on_duty, leave_ring, queue_push, queue_remove, ring_append

__all__ = ()


cdef void note_woken(aftermath_t *after, ticket_t *ticket) noexcept nogil:
    # the operation wakes this ticket, once, when the lock is released
    if load_int(&ticket.is_woken):
        return
    incref(ticket.owner)
    store_int(&ticket.is_woken, True)
    ticket.woken_next = NULL
    if after.woken_head == NULL:
        after.woken_head = ticket
    else:
        after.woken_tail.woken_next = ticket
    after.woken_tail = ticket


cdef void lend(state_t *state, record_t *record, unsigned long holder) noexcept nogil:
    store_int(&record.state, S_LENT)
    record.uses += 1
    store_ulong(&record.holder, holder)
    list_append(&record.endpoint.lent, record)
    lent_add(&state.stripes[record.stripe].lent, record)


cdef void grant_connection(state_t *state, ticket_t *ticket, record_t *record) noexcept nogil:
    lend(state, record, ticket.holder)
    incref(record.owner)
    ticket.record = record
    store_int(&ticket.state, T_CONNECTION)


cdef void grant_slot(state_t *state, ticket_t *ticket, endpoint_t *endpoint) noexcept nogil:
    endpoint.reserved += 1
    state.total += 1
    store_int(&ticket.state, T_SLOT)


cdef endpoint_t *end_loan(state_t *state, record_t *record) noexcept nogil:
    lent_remove(&state.stripes[record.stripe].lent, record)
    list_remove(&record.endpoint.lent, record)
    return record.endpoint


cdef void doom(state_t *state, record_t *record, endpoint_t *endpoint) noexcept nogil:
    # a record that has left its list is to be disposed of
    store_int(&record.state, S_DISPOSING)
    endpoint.reserved += 1
    heap_disarm(&state.heap, record)


cdef record_t *doom_nearest(state_t *state, double now) noexcept nogil:
    # the idle record whose deadline is the nearest, if it has come
    cdef record_t *record = heap_nearest(&state.heap)
    if record == NULL or record.deadline > now:
        return NULL
    idle_remove(record.endpoint, record)
    doom(state, record, record.endpoint)
    return record


cdef void promise(record_t *record, endpoint_t *beneficiary) noexcept nogil:
    # the slot of a doomed record will go to a waiter of the beneficiary, if there is one then
    record.beneficiary = beneficiary
    beneficiary.evicting += 1
    if beneficiary == record.endpoint:
        beneficiary.own_evicting += 1


cdef void evict(state_t *state, record_t *record, endpoint_t *beneficiary, aftermath_t *after) noexcept nogil:
    # have a waiter of the beneficiary dispose of a record that has left its list, for the sake of the slot
    cdef ticket_t *ticket = beneficiary.waiters.off_duty
    doom(state, record, record.endpoint)
    promise(record, beneficiary)
    go_on_duty(&beneficiary.waiters, ticket, record)
    note_woken(after, ticket)


cdef Py_ssize_t needs(state_t *state, endpoint_t *endpoint) noexcept nogil:
    # how many more slots of others the endpoint's waiters could use, were it not for the total limit
    cdef Py_ssize_t room
    if state.total < state.total_max_size:
        return 0
    room = state.max_size - slots(endpoint) + endpoint.own_evicting
    return min(endpoint.waiters.count, room) - endpoint.evicting


cdef void settle(state_t *state, endpoint_t *endpoint, aftermath_t *after) noexcept nogil:
    # Evict what is idle for those who wait, and see to it that the rings are right.
    cdef record_t *record
    cdef ring_t *ring = NULL
    if endpoint.waiters.count and not state.closed:
        evict_expired(state, endpoint, after)
        while endpoint.waiters.off_duty != NULL and needs(state, endpoint) > 0:
            record = heap_nearest(&state.heap)
            if record == NULL:
                ring = &state.needy
                break
            idle_remove(record.endpoint, record)
            evict(state, record, endpoint, after)
        if ring == NULL and slots(endpoint) < state.max_size:
            ring = &state.covered
    if endpoint.ring != ring:
        leave_ring(endpoint)
        if ring != NULL:
            ring_append(ring, endpoint)


cdef void evict_expired(state_t *state, endpoint_t *endpoint, aftermath_t *after) noexcept nogil:
    # what is idle although somebody waits for it can only be past its deadline
    cdef record_t *record
    while endpoint.waiters.off_duty != NULL and endpoint.waiters.count > endpoint.evicting:
        record = idle_oldest(endpoint)
        if record == NULL:
            return
        idle_remove(endpoint, record)
        evict(state, record, endpoint, after)


cdef void seek(state_t *state, ticket_t *ticket, endpoint_t *endpoint, double now, aftermath_t *after) noexcept nogil:
    cdef record_t *record
    ticket.endpoint = endpoint
    if state.closed:
        ticket.state = T_CLOSED
        return
    record = idle_first(endpoint, now)
    if record != NULL:
        idle_remove(endpoint, record)
        grant_connection(state, ticket, record)
    elif slots(endpoint) < state.max_size and state.total < state.total_max_size:
        grant_slot(state, ticket, endpoint)
    else:
        ticket.state = T_WAITING
        queue_push(&endpoint.waiters, ticket)
        settle(state, endpoint, after)


cdef inline bint is_extra(state_t *state, endpoint_t *endpoint, Py_ssize_t lent) noexcept nogil:
    # whether one more idle connection would be beyond the first min_idle, while so many are lent
    return lent + endpoint.idle_core.count >= state.min_idle


cdef inline double deadline_of(state_t *state, record_t *record, bint extra, double now) noexcept nogil:
    # when a connection that becomes idle is to be disposed of
    if extra and now + state.idle_timeout < record.expires:
        return now + state.idle_timeout
    return record.expires


cdef bint is_calm(state_t *state, record_t *record, double now) noexcept nogil:
    # Whether restore() will merely put the record back among the idle ones and change nothing but its stripe, which is
    # held: nobody waits, here or for the total limit, and its entry in the heap can stay as it is.
    cdef endpoint_t *endpoint = record.endpoint
    cdef bint extra
    if state.closed or record.expires <= now or endpoint.waiters.head != NULL or state.needy.head != NULL:
        return False
    extra = is_extra(state, endpoint, endpoint.lent.count - 1)
    return (
        not (extra and state.idle_timeout <= 0.0)
        and record.heap_index >= 0
        and state.heap.entries[record.heap_index].deadline <= deadline_of(state, record, extra, now)
    )


cdef bint restore(state_t *state, record_t *record, double now, aftermath_t *after) noexcept nogil:
    # End a loan: the connection goes to the oldest waiter, or becomes idle. False: it is to be disposed of.
    # If is_calm(), its stripe is enough to be held.
    cdef endpoint_t *endpoint = end_loan(state, record)
    cdef endpoint_t *rival = state.needy.head
    cdef ticket_t *waiter = endpoint.waiters.head
    cdef stripe_t *stripe = &state.stripes[record.stripe]
    cdef bint extra
    stripe.sequence = next_sequence(stripe.sequence)
    if state.closed or record.expires <= now:
        doom(state, record, endpoint)
        return False
    if waiter != NULL:
        if rival == NULL or rival == endpoint or rival.bypassed < state.bypass_limit:
            if rival == endpoint:  # its turn is over
                leave_ring(endpoint)
            elif rival != NULL:
                rival.bypassed += 1
            pop_waiter(endpoint, waiter, after)
            grant_connection(state, waiter, record)
            settle(state, endpoint, after)
            return True
    else:
        extra = is_extra(state, endpoint, endpoint.lent.count)
        if extra and state.idle_timeout <= 0.0:
            doom(state, record, endpoint)
            return False
        if rival == NULL:
            record.deadline = deadline_of(state, record, extra, now)
            record.sequence = stripe.sequence
            idle_push(endpoint, record, extra)
            arm(state, record, after)
            return True
    evict(state, record, rival, after)
    leave_ring(rival)  # its turn is over
    settle(state, rival, after)
    return True


cdef void pop_waiter(endpoint_t *endpoint, ticket_t *ticket, aftermath_t *after) noexcept nogil:
    queue_remove(&endpoint.waiters, ticket)
    note_woken(after, ticket)
    unref(ticket)


cdef inline void unref(ticket_t *ticket) noexcept nogil:
    # the queue's reference; never the last one, because the ticket is about to be woken or in its owner's hands
    decref_alive(ticket.owner)


cdef void arm(state_t *state, record_t *record, aftermath_t *after) noexcept nogil:
    heap_arm(&state.heap, record)
    if state.alarm != NULL and record.deadline < state.alarm_at:
        state.alarm_at = record.deadline
        note_woken(after, state.alarm)


cdef void end_duty(ticket_t *ticket) noexcept nogil:
    if ticket.state == T_WAITING and ticket.on_duty:
        come_off_duty(&ticket.endpoint.waiters, ticket)
    store_int(&ticket.on_duty, False)


cdef endpoint_t *choose_taker(state_t *state, endpoint_t *endpoint, endpoint_t *beneficiary) noexcept nogil:
    cdef endpoint_t *rival = state.needy.head
    if beneficiary != NULL and beneficiary.waiters.count and slots(beneficiary) < state.max_size:
        return beneficiary
    if not endpoint.waiters.count or slots(endpoint) >= state.max_size:
        return rival if rival != NULL else state.covered.head
    if rival != NULL and rival != endpoint:
        if rival.bypassed >= state.bypass_limit:
            return rival
        rival.bypassed += 1
    return endpoint


cdef void free_slot(state_t *state, endpoint_t *endpoint, endpoint_t *beneficiary, aftermath_t *after) noexcept nogil:
    # a reserved slot of an endpoint is free: it goes to whoever waits for it
    cdef endpoint_t *taker
    cdef ticket_t *ticket
    endpoint.reserved -= 1
    state.total -= 1
    if state.closed:
        wake_closers(state, after)
    else:
        taker = choose_taker(state, endpoint, beneficiary)
        if taker != NULL:
            ticket = taker.waiters.head
            pop_waiter(taker, ticket, after)
            grant_slot(state, ticket, taker)
            leave_ring(taker)  # its turn is over
            settle(state, taker, after)
        if endpoint != taker:
            settle(state, endpoint, after)
        if beneficiary != NULL and beneficiary != taker and beneficiary != endpoint:
            settle(state, beneficiary, after)
    drop_unused(state, endpoint, after)
    if beneficiary != NULL and beneficiary != endpoint:
        drop_unused(state, beneficiary, after)


cdef void wake_closers(state_t *state, aftermath_t *after) noexcept nogil:
    cdef ticket_t *ticket = state.closers.head
    if state.total <= state.excused:  # each looks whether that is enough for it
        while ticket != NULL:
            note_woken(after, ticket)
            ticket = ticket.next


cdef void drop_unused(state_t *state, endpoint_t *endpoint, aftermath_t *after) noexcept nogil:
    # an endpoint with no connections, reservations or tickets does not exist
    if slots(endpoint) or endpoint.waiters.count or endpoint.evicting:
        return
    endpoints_remove(&state.endpoints, endpoint)
    endpoint.bucket_next = after.removed
    after.removed = endpoint
