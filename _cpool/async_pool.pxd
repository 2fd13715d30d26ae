# The hot path of the asyncio pool: see async_pool.pyx.

from libc.stdint cimport uint64_t

from _cpool.core cimport Core
from _cpool.record cimport Record

cdef enum:
    # what an awaitable is to do when it is first run
    A_NOTHING = 0
    A_ENTER = 1
    A_EXIT = 2
    A_ACQUIRE = 3
    A_RELEASE = 4


cdef class AsyncPool:
    cdef Core core
    cdef readonly bint _plain_acquire
    cdef readonly bint _plain_release
    cdef readonly bint _plain_failure
    cdef readonly bint _collects
    # the event loop that the pool's connections belong to
    cdef object loop
    # what asyncio notes in the thread's own dictionary while that loop runs there; None where it notes nothing
    cdef object marker

    cdef int adopt(self, Core core) except -1
    cdef bint in_loop(self) except -1
    cdef Record take(self, object endpoint)
    cdef int give_in(self, Record record, uint64_t loan, object exc) except -1
    cdef int refuse(self, object conn, object endpoint) except -1


cdef class Operation:
    cdef AsyncPool pool
    cdef object endpoint
    cdef object timeout
    # what is to be released, or why
    cdef object subject
    cdef Record record
    # tells this loan of the record from later ones
    cdef uint64_t loan
    # the coroutine that does what cannot be done at once
    cdef object rest
    cdef int todo
    cdef bint acquires
    # the coroutine runs
    cdef bint running

    cdef int enter_rest(self) except -1
    cdef object start(self, bint *finished)
    cdef object conclude(self, object value)


cdef class AsyncCall(Operation):
    pass


cdef class AsyncLease(Operation):
    pass
