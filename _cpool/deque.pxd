# The lists of one endpoint's connections: doubly linked through the records, every operation O(1).
# Core connections are taken first-in first-out, extras last-in first-out and only when no core one is idle.

from _cpool.atomics cimport store_int
from _cpool.structs cimport S_IDLE_CORE, S_IDLE_EXTRA, endpoint_t, list_t, record_t

cdef inline void list_append(list_t *records, record_t *record) noexcept nogil:
    record.prev = records.tail
    record.next = NULL
    if records.tail == NULL:
        records.head = record
    else:
        records.tail.next = record
    records.tail = record
    records.count += 1

cdef inline void list_remove(list_t *records, record_t *record) noexcept nogil:
    if record.prev == NULL:
        records.head = record.next
    else:
        record.prev.next = record.next
    if record.next == NULL:
        records.tail = record.prev
    else:
        record.next.prev = record.prev
    record.prev = NULL
    record.next = NULL
    records.count -= 1

cdef inline void idle_push(endpoint_t *endpoint, record_t *record, bint extra) noexcept nogil:
    if extra:
        store_int(&record.state, S_IDLE_EXTRA)
        list_append(&endpoint.idle_extra, record)
    else:
        store_int(&record.state, S_IDLE_CORE)
        list_append(&endpoint.idle_core, record)

cdef inline void idle_remove(endpoint_t *endpoint, record_t *record) noexcept nogil:
    # its state is left to the caller
    if record.state == S_IDLE_EXTRA:
        list_remove(&endpoint.idle_extra, record)
    else:
        list_remove(&endpoint.idle_core, record)

cdef inline record_t *idle_next(endpoint_t *endpoint) noexcept nogil:
    # the one to be taken next, whatever its deadline
    if endpoint.idle_core.head != NULL:
        return endpoint.idle_core.head
    return endpoint.idle_extra.tail

cdef inline record_t *idle_first(endpoint_t *endpoint, double now) noexcept nogil:
    # the one to be taken next, passing over those whose deadline has come
    cdef record_t *record = endpoint.idle_core.head
    while record != NULL:
        if record.deadline > now:
            return record
        record = record.next
    record = endpoint.idle_extra.tail
    while record != NULL:
        if record.deadline > now:
            return record
        record = record.prev
    return NULL

cdef inline record_t *idle_oldest(endpoint_t *endpoint) noexcept nogil:
    # any of them, the oldest of its kind
    if endpoint.idle_core.head != NULL:
        return endpoint.idle_core.head
    return endpoint.idle_extra.head
