# How a pool ends: see closing.pyx.

from _cpool.record cimport Record
from _cpool.store cimport Store


cdef class Closing(Store):
    cpdef Record next_idle(self)
    cpdef Record next_lent(self)
