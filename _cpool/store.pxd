# What one pool has: see store.pyx.

from libc.stdint cimport uint64_t

from _cpool.policy cimport state_t
from _cpool.record cimport Record
from _cpool.stripes cimport stripe_t
from _cpool.structs cimport aftermath_t, endpoint_t
from _cpool.waiters cimport Ticket


cdef class Store:
    # the state, and the lock that guards it and the endpoints, records and tickets of this core: see stripes.pxd
    cdef state_t s
    # tells this core from all others, also from one that was at its address before
    cdef uint64_t serial
    # keeps what s.alarm points to
    cdef Ticket alarm
    # all connections, until they have been disposed of; each change is one call of a method in C
    cdef readonly set records

    cpdef Record find(self, object conn, object key)
    cdef list _lent_as(self, object conn)
    cdef list _lent_by(self, object key, object conn)
    cdef Py_ssize_t _count(self, object key, int what) except -1
    cdef int _locate(self, object key, bint make, endpoint_t **found) except -1
    cdef stripe_t *_locate_alone(self, object key, endpoint_t **found) except NULL
    cdef int _search(self, object key, Py_hash_t key_hash, stripe_t *stripe, bint make, endpoint_t **found) except -1
    cdef endpoint_t *_make(self, object key, Py_hash_t key_hash) noexcept
    cdef int _conclude(self, aftermath_t *after) except -1
