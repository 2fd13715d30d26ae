# Records picked under the lock, where nothing of Python's may be allocated, for a list made after it is released.

from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.ref cimport PyObject

from _cpool.lock cimport decref, incref
from _cpool.structs cimport list_t, record_t

cdef struct found_t:
    record_t **items       # each with a reference to its Record
    Py_ssize_t capacity
    Py_ssize_t count       # may exceed the capacity: then it is how many there were

cdef inline void found_add(found_t *found, record_t *record) noexcept nogil:
    if found.count < found.capacity:
        incref(record.owner)
        found.items[found.count] = record
    found.count += 1

cdef inline bint found_complete(found_t *found) except -1:
    # No lock is held. False: there is more room now, the search is to be made again.
    cdef Py_ssize_t count = found.count
    if count <= found.capacity:
        return True
    found_drop(found)
    found.items = <record_t **>PyMem_RawMalloc(count * sizeof(record_t *))
    if found.items == NULL:
        raise MemoryError('no memory to look a connection up')
    found.capacity = count
    return False

cdef inline void found_drop(found_t *found) noexcept:
    cdef Py_ssize_t i
    for i in range(min(found.count, found.capacity)):
        decref(found.items[i].owner)
    PyMem_RawFree(found.items)
    found.items = NULL
    found.capacity = 0
    found.count = 0

cdef inline list found_list(found_t *found):
    # no lock is held
    cdef list records
    try:
        records = [<object>found.items[i].owner for i in range(found.count)]
    finally:
        found_drop(found)
    return records

cdef inline bint holds(list_t *records, PyObject *conn) noexcept nogil:
    cdef record_t *record = records.head
    while record != NULL:
        if record.conn == conn:
            return True
        record = record.next
    return False
