"""What a core keeps true between two operations. For tests; the lock is held."""

from libc.stdint cimport uint64_t

from _cpool.atomics cimport load_pointer
from _cpool.policy cimport needs
from _cpool.stripes cimport STRIPES
from _cpool.structs cimport (
    S_IDLE_CORE, S_IDLE_EXTRA, S_LENT, S_RETURNING, T_WAITING, endpoint_t, list_t, record_t, ring_t, slots, ticket_t,
)

__all__ = ()


cdef const char *violation(state_t *state) noexcept nogil:
    # the first invariant that does not hold, NULL if all do
    cdef Py_ssize_t total = 0, idle = 0, lent = 0, needy = 0, covered = 0
    cdef endpoint_t *endpoint
    cdef const char *text
    cdef size_t i
    for i in range(<size_t>1 << state.endpoints.bits if state.endpoints.buckets != NULL else 0):
        endpoint = state.endpoints.buckets[i]
        while endpoint != NULL:
            text = endpoint_violation(state, endpoint)
            if text != NULL:
                return text
            total += slots(endpoint)
            idle += endpoint.idle_core.count + endpoint.idle_extra.count
            needy += endpoint.ring == &state.needy
            covered += endpoint.ring == &state.covered
            lent += endpoint.lent.count
            endpoint = endpoint.bucket_next
    if total != state.total:
        return b'total is not the sum of the endpoints'
    if state.total > state.total_max_size:
        return b'total exceeds total_max_size'
    for i in range(STRIPES):
        lent -= state.stripes[i].lent.count
    if lent:
        return b'the table of lent records is not complete'
    if members(&state.needy) != needy or members(&state.covered) != covered:
        return b'a member of a ring cannot be reached'
    if needy and idle:
        return b'an endpoint is blocked though one is idle'
    return heap_violation(state, idle)


cdef const char *endpoint_violation(state_t *state, endpoint_t *endpoint) noexcept nogil:
    cdef ticket_t *ticket = endpoint.waiters.head
    cdef ticket_t *off_duty = NULL
    cdef ring_t *ring = NULL
    cdef Py_ssize_t tickets = 0
    if not (slots(endpoint) or endpoint.waiters.count or endpoint.evicting):
        return b'an endpoint exists though nothing is left of it'
    if slots(endpoint) > state.max_size:
        return b'an endpoint exceeds max_size'
    if endpoint.reserved < 0 or endpoint.evicting < 0 or endpoint.own_evicting < 0:
        return b'negative count'
    if not (
        consistent(&endpoint.idle_core, endpoint, S_IDLE_CORE, S_IDLE_CORE)
        and consistent(&endpoint.idle_extra, endpoint, S_IDLE_EXTRA, S_IDLE_EXTRA)
        and consistent(&endpoint.lent, endpoint, S_LENT, S_RETURNING)
    ):
        return b'a record is in a wrong list, or a count of records is wrong'
    while ticket != NULL:
        if ticket.state != T_WAITING or ticket.endpoint != endpoint:
            return b'a ticket in the queue does not wait'
        if not ticket.on_duty and load_pointer(&ticket.victim) != NULL:
            return b'a ticket off duty has a victim'
        if not ticket.on_duty and off_duty == NULL:
            off_duty = ticket
        tickets += 1
        ticket = ticket.next
    if tickets != endpoint.waiters.count or endpoint.waiters.off_duty != off_duty:
        return b'a queue has a wrong count, or its off_duty is not the first ticket off duty'
    if state.closed and tickets:
        return b'somebody waits though the pool is closed'
    if off_duty != NULL and needs(state, endpoint) > 0:
        ring = &state.needy
    elif tickets and slots(endpoint) < state.max_size:
        ring = &state.covered
    if tickets and slots(endpoint) < state.max_size and state.total != state.total_max_size:
        return b'somebody waits though a slot is free'
    if endpoint.ring != ring:
        return b'an endpoint is in the wrong ring'
    return NULL


cdef bint consistent(list_t *records, endpoint_t *endpoint, int lowest, int highest) noexcept nogil:
    cdef Py_ssize_t count = 0
    cdef record_t *record = records.head
    while record != NULL:
        if record.endpoint != endpoint or record.state < lowest or record.state > highest:
            return False
        count += 1
        record = record.next
    return count == records.count


cdef const char *heap_violation(state_t *state, Py_ssize_t idle) noexcept nogil:
    cdef Py_ssize_t i, parent
    cdef record_t *record
    for i in range(state.heap.size):
        record = state.heap.entries[i].record
        parent = (i - 1) >> 1
        if record.heap_index != i:
            return b'a record thinks that its heap entry is elsewhere'
        if i and later(&state.heap.entries[parent].deadline, &state.heap.entries[parent].sequence,
                       &state.heap.entries[i].deadline, &state.heap.entries[i].sequence):
            return b'the heap is out of order'
        if record.state <= S_IDLE_EXTRA:
            idle -= 1
            if later(&state.heap.entries[i].deadline, &state.heap.entries[i].sequence,
                     &record.deadline, &record.sequence):
                return b'a heap entry is later than the truth'
    if idle != 0:
        return b'an idle connection has no heap entry'
    return NULL


cdef inline bint later(double *deadline, uint64_t *sequence, double *other, uint64_t *other_sequence) noexcept nogil:
    return deadline[0] > other[0] or (deadline[0] == other[0] and sequence[0] > other_sequence[0])


cdef Py_ssize_t members(ring_t *ring) noexcept nogil:
    cdef Py_ssize_t count = 0
    cdef endpoint_t *endpoint = ring.head
    while endpoint != NULL:
        count += endpoint.ring == ring
        endpoint = endpoint.ring_next
    return count
