# The parts of the core's operations. The lock is held by whoever calls them (all stripes unless it says otherwise), and
# none of them calls Python.

from libc.stdint cimport uint64_t

from _cpool.heap cimport heap_t
from _cpool.stripes cimport STRIPES, stripe_t
from _cpool.structs cimport aftermath_t, endpoint_t, queue_t, record_t, ring_t, ticket_t
from _cpool.table cimport endpoint_table_t

cdef struct state_t:
    Py_ssize_t min_idle
    Py_ssize_t max_size
    Py_ssize_t total_max_size
    double idle_timeout
    double max_lifetime
    Py_ssize_t total       # slots in use, of all endpoints
    Py_ssize_t records     # connections that are not gone
    int closed
    bint forced            # connections were disposed of while acquired: their release is nobody's error
    endpoint_table_t endpoints
    heap_t heap
    ring_t needy           # endpoints whose waiters could use more slots than will come, were it not for the total limit
    ring_t covered         # whose waiters only the total limit blocks, but a slot is on its way to each of them
    uint64_t arrivals      # requests so far
    Py_ssize_t bypass_limit
    ticket_t *alarm        # woken when an entry is made that is due before alarm_at
    double alarm_at
    size_t sweep           # closing by force: no endpoint in a bucket before this one has lent anything,
    int sweep_bits         # while the table has so many
    queue_t closers        # who waits for the pool to be empty,
    Py_ssize_t excused     # and how many slots are in the hands of those
    stripe_t stripes[STRIPES]

cdef void note_woken(aftermath_t *after, ticket_t *ticket) noexcept nogil
cdef void lend(state_t *state, record_t *record, unsigned long holder) noexcept nogil
cdef endpoint_t *end_loan(state_t *state, record_t *record) noexcept nogil
cdef void doom(state_t *state, record_t *record, endpoint_t *endpoint) noexcept nogil
cdef record_t *doom_nearest(state_t *state, double now) noexcept nogil
cdef void promise(record_t *record, endpoint_t *beneficiary) noexcept nogil
cdef Py_ssize_t needs(state_t *state, endpoint_t *endpoint) noexcept nogil
cdef void settle(state_t *state, endpoint_t *endpoint, aftermath_t *after) noexcept nogil
cdef void seek(state_t *state, ticket_t *ticket, endpoint_t *endpoint, double now, aftermath_t *after) noexcept nogil
cdef bint is_calm(state_t *state, record_t *record, double now) noexcept nogil
cdef bint restore(state_t *state, record_t *record, double now, aftermath_t *after) noexcept nogil
cdef void end_duty(ticket_t *ticket) noexcept nogil
cdef void free_slot(state_t *state, endpoint_t *endpoint, endpoint_t *beneficiary, aftermath_t *after) noexcept nogil
cdef void drop_unused(state_t *state, endpoint_t *endpoint, aftermath_t *after) noexcept nogil
