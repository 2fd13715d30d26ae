# When connections are due: see the class in heap.pyx.

from libc.stdint cimport uint64_t

from _cpool.record cimport Record
from _cpool.structs cimport record_t

cdef struct entry_t:
    double deadline
    uint64_t sequence
    record_t *record

cdef struct heap_t:
    entry_t *entries
    Py_ssize_t size
    Py_ssize_t capacity

cdef int heap_reserve(heap_t *heap, Py_ssize_t count) noexcept nogil
cdef void heap_arm(heap_t *heap, record_t *record) noexcept nogil
cdef record_t *heap_nearest(heap_t *heap) noexcept nogil
cdef void heap_disarm(heap_t *heap, record_t *record) noexcept nogil


cdef class ExpiryHeap:
    cdef heap_t heap
    cdef dict _records

    cdef int _require(self, Record record) except -1
