# Who waits: tickets, their queue at each endpoint, and the rings of endpoints that the total limit blocks.

from cpython.ref cimport PyObject

from _cpool.atomics cimport store_int, store_pointer
from _cpool.lock cimport Parker, decref, incref
from _cpool.record cimport Record
from _cpool.structs cimport T_SLOT, T_WAITING, endpoint_t, queue_t, record_t, ring_t, ticket_t


cdef class Ticket:
    cdef ticket_t c
    cdef public bint dirty
    cdef readonly object notify
    cdef Parker parker

    cpdef bint wait(self, timeout=*) except -1
    cpdef wake(self)
    cpdef Record take_victim(self)


cdef inline bint is_free(ticket_t *ticket) noexcept nogil:
    # it may be used for another request
    return ticket.queue == NULL and ticket.state != T_SLOT and ticket.record == NULL

cdef inline void come_off_duty(queue_t *queue, ticket_t *ticket) noexcept nogil:
    # a ticket of this queue has disposed of its victim and may be given another
    store_int(&ticket.on_duty, False)
    if queue.off_duty == NULL or ticket.order < queue.off_duty.order:
        queue.off_duty = ticket

cdef inline void pass_duty(queue_t *queue, ticket_t *ticket) noexcept nogil:
    while ticket != NULL and ticket.on_duty:
        ticket = ticket.next
    queue.off_duty = ticket

cdef inline void queue_push(queue_t *queue, ticket_t *ticket) noexcept nogil:
    # by its order: behind all others, unless it had been served before (in vain)
    cdef ticket_t *before = queue.tail
    incref(ticket.owner)
    ticket.queue = queue
    if before != NULL and ticket.order < before.order:
        before = queue.head  # all that had been served before are at the front
        while before != NULL and before.order < ticket.order:
            before = before.next
        before = before.prev if before != NULL else queue.tail
    ticket.prev = before
    if before == NULL:
        ticket.next = queue.head
        queue.head = ticket
    else:
        ticket.next = before.next
        before.next = ticket
    if ticket.next == NULL:
        queue.tail = ticket
    else:
        ticket.next.prev = ticket
    queue.count += 1
    if not ticket.on_duty:
        come_off_duty(queue, ticket)

cdef inline void queue_remove(queue_t *queue, ticket_t *ticket) noexcept nogil:
    # the queue's reference passes to the caller
    if queue.off_duty == ticket:
        pass_duty(queue, ticket.next)
    if ticket.prev == NULL:
        queue.head = ticket.next
    else:
        ticket.prev.next = ticket.next
    if ticket.next == NULL:
        queue.tail = ticket.prev
    else:
        ticket.next.prev = ticket.prev
    ticket.prev = NULL
    ticket.next = NULL
    ticket.queue = NULL
    queue.count -= 1

cdef inline void go_on_duty(queue_t *queue, ticket_t *ticket, record_t *victim) noexcept nogil:
    # give a ticket of this queue a victim to dispose of
    store_int(&ticket.on_duty, True)
    incref(victim.owner)  # the ticket's
    store_pointer(&ticket.victim, victim)
    if queue.off_duty == ticket:
        pass_duty(queue, ticket.next)

cdef inline void ring_append(ring_t *ring, endpoint_t *endpoint) noexcept nogil:
    endpoint.ring = ring
    endpoint.bypassed = 0
    endpoint.ring_prev = ring.tail
    endpoint.ring_next = NULL
    if ring.tail == NULL:
        ring.head = endpoint
    else:
        ring.tail.ring_next = endpoint
    ring.tail = endpoint

cdef inline void leave_ring(endpoint_t *endpoint) noexcept nogil:
    cdef ring_t *ring = endpoint.ring
    if ring == NULL:
        return
    if endpoint.ring_prev == NULL:
        ring.head = endpoint.ring_next
    else:
        endpoint.ring_prev.ring_next = endpoint.ring_next
    if endpoint.ring_next == NULL:
        ring.tail = endpoint.ring_prev
    else:
        endpoint.ring_next.ring_prev = endpoint.ring_prev
    endpoint.ring = NULL
    endpoint.ring_prev = NULL
    endpoint.ring_next = NULL
