# Who gets which connection, and when: see core.pyx.

from libc.stdint cimport uint64_t

from _cpool.closing cimport Closing
from _cpool.record cimport Record
from _cpool.waiters cimport Ticket

cdef enum:
    # what restore_now() answers, added up
    R_REFUSED = 1
    R_DISPOSE = 2
    R_DUE = 4


cdef class Core(Closing):
    cdef Record lend_idle(self, object key, unsigned long holder)
    cdef int restore_now(self, Record record, uint64_t loan) except -1
    cpdef request(self, Ticket ticket, object key, double now)
    cpdef bint fulfil(self, Ticket ticket, object conn, double now) except -1
    cpdef bint take_back(self, Record record, uint64_t loan) except -1
    cpdef bint give_back(self, Record record, double now) except -1
    cpdef bint discard(self, Record record) except -1
    cdef bint _refuse_unless_forced(self, Record record) except -1
    cpdef disposed(self, Record record, Ticket ticket=*)
    cpdef bint due(self, double now)
    cpdef Record next_due(self, double now)
