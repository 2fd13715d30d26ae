# One pooled connection: the Python object around a record_t.

from _cpool.structs cimport record_t


cdef class Record:
    cdef record_t c
    cdef readonly object conn
    cdef readonly object key

    cpdef bint claim(self)
