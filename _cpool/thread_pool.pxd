# The hot path of the threads pool: see thread_pool.pyx.

from libc.stdint cimport uint64_t

from _cpool.core cimport Core
from _cpool.record cimport Record
from _cpool.stripes cimport STRIPE_PADDING
from _cpool.waiters cimport Ticket


cdef class ThreadPool:
    # What follows is only read; the references to a pool are counted, where threads share it, all the time.
    cdef char distance[STRIPE_PADDING]
    cdef Core core
    cdef readonly object _manager
    cdef readonly bint _plain_acquire
    cdef readonly bint _plain_release
    cdef readonly bint _plain_failure
    cdef readonly bint _collects
    cdef readonly object _workers
    cdef object dispose_timeout
    # what each thread is about
    cdef object _in_flight

    cdef int adopt(self, Core core) except -1
    cdef Record lend_slowly(self, object endpoint, object timeout, unsigned long holder)
    cdef int refuse(self, object conn, object endpoint) except -1
    cdef int finish(self, Record record, uint64_t loan, object exc) except -1
    cdef int conclude(self, Record record, int answer) except -1
    cdef int begin(self, object matter) except -1
    cdef int end(self, object matter) except -1
    cpdef bint _dispose(self, Record record, object timeout, Ticket ticket) except -1


cdef class Lease:
    cdef ThreadPool pool
    cdef object endpoint
    cdef object timeout
    cdef int entered
    cdef Record record
    # tells this loan of the record from later ones
    cdef uint64_t loan
