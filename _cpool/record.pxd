# One pooled connection: the Python object around a record_t.

from _cpool.lock cimport decref_alive
from _cpool.structs cimport record_t


cdef class Record:
    cdef record_t c
    cdef readonly object conn
    cdef readonly object key

    cpdef bint claim(self)


cdef inline Record own(record_t *record):
    # the caller's reference becomes the answer's
    cdef Record answer
    if record == NULL:
        return None
    answer = <Record>record.owner
    decref_alive(record.owner)
    return answer
