# Where endpoints are found by the hash of their keys, and acquired connections by the connection object itself.
# Both are chained hash tables of a power of two of buckets; no key is ever compared here.

from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from cpython.ref cimport PyObject
from libc.math cimport INFINITY
from libc.stdint cimport uint64_t

from _cpool.structs cimport endpoint_t, record_t

cdef struct endpoint_table_t:
    endpoint_t **buckets
    int bits
    Py_ssize_t count
    uint64_t version       # changes when it grows
    uint64_t versions[64]  # change with each insertion and removal: by the last six bits of the hash

cdef struct lent_table_t:
    record_t **buckets
    int bits
    Py_ssize_t count

cdef enum:
    FIRST_BITS = 3

cdef inline size_t slot_of(uint64_t value, int bits) noexcept nogil:
    # multiplicative hashing by the golden ratio: Knuth, The Art of Computer Programming, volume 3, section 6.4
    return <size_t>((value * <uint64_t>0x9E3779B97F4A7C15) >> (64 - bits))

cdef inline endpoint_t *endpoints_bucket(endpoint_table_t *table, Py_hash_t hash) noexcept nogil:
    if table.buckets == NULL:
        return NULL
    return table.buckets[slot_of(<uint64_t>hash, table.bits)]

cdef inline int endpoints_grow(endpoint_table_t *table) noexcept nogil:
    # Room for one more. Returns -1 if there is no memory.
    cdef int bits
    cdef endpoint_t **buckets
    cdef endpoint_t *endpoint
    cdef endpoint_t *after
    cdef size_t i, j
    if table.buckets != NULL and table.count < <Py_ssize_t>(<size_t>1 << table.bits):
        return 0
    bits = FIRST_BITS if table.buckets == NULL else table.bits + 1
    buckets = <endpoint_t **>PyMem_RawCalloc(<size_t>1 << bits, sizeof(endpoint_t *))
    if buckets == NULL:
        return -1
    if table.buckets != NULL:
        for i in range(<size_t>1 << table.bits):
            endpoint = table.buckets[i]
            while endpoint != NULL:
                after = endpoint.bucket_next
                j = slot_of(<uint64_t>endpoint.hash, bits)
                endpoint.bucket_next = buckets[j]
                buckets[j] = endpoint
                endpoint = after
        PyMem_RawFree(table.buckets)
    table.buckets = buckets
    table.bits = bits
    table.version += 1
    return 0

cdef inline void endpoints_insert(endpoint_table_t *table, endpoint_t *endpoint) noexcept nogil:
    # room has been made
    cdef size_t i = slot_of(<uint64_t>endpoint.hash, table.bits)
    endpoint.bucket_next = table.buckets[i]
    table.buckets[i] = endpoint
    table.count += 1
    table.versions[endpoint.hash & 63] += 1

cdef inline void endpoints_remove(endpoint_table_t *table, endpoint_t *endpoint) noexcept nogil:
    cdef endpoint_t **place = &table.buckets[slot_of(<uint64_t>endpoint.hash, table.bits)]
    while place[0] != endpoint:
        place = &place[0].bucket_next
    place[0] = endpoint.bucket_next
    endpoint.bucket_next = NULL
    table.count -= 1
    table.versions[endpoint.hash & 63] += 1

cdef inline int lent_reserve(lent_table_t *table, Py_ssize_t count) noexcept nogil:
    # Buckets for so many records, so that adding never allocates. Returns -1 if there is no memory.
    cdef int bits = FIRST_BITS if table.buckets == NULL else table.bits
    cdef record_t **buckets
    cdef record_t *record
    cdef record_t *after
    cdef size_t i, j
    while <Py_ssize_t>(<size_t>1 << bits) < count:
        bits += 1
    if table.buckets != NULL and bits == table.bits:
        return 0
    buckets = <record_t **>PyMem_RawCalloc(<size_t>1 << bits, sizeof(record_t *))
    if buckets == NULL:
        return -1
    if table.buckets != NULL:
        for i in range(<size_t>1 << table.bits):
            record = table.buckets[i]
            while record != NULL:
                after = record.chain
                j = slot_of(<uint64_t><size_t>record.conn, bits)
                record.chain = buckets[j]
                buckets[j] = record
                record = after
        PyMem_RawFree(table.buckets)
    table.buckets = buckets
    table.bits = bits
    return 0

cdef inline record_t *lent_bucket(lent_table_t *table, PyObject *conn) noexcept nogil:
    if table.buckets == NULL:
        return NULL
    return table.buckets[slot_of(<uint64_t><size_t>conn, table.bits)]

cdef inline void lent_add(lent_table_t *table, record_t *record) noexcept nogil:
    cdef size_t i = slot_of(<uint64_t><size_t>record.conn, table.bits)
    record.chain = table.buckets[i]
    table.buckets[i] = record
    table.count += 1

cdef inline void lent_remove(lent_table_t *table, record_t *record) noexcept nogil:
    cdef record_t **place = &table.buckets[slot_of(<uint64_t><size_t>record.conn, table.bits)]
    while place[0] != record:
        place = &place[0].chain
    place[0] = record.chain
    record.chain = NULL
    table.count -= 1

cdef inline void outdate_lent(lent_table_t *table) noexcept nogil:
    cdef record_t *record
    cdef size_t i
    for i in range(<size_t>1 << table.bits if table.count else 0):
        record = table.buckets[i]
        while record != NULL:
            record.expires = -INFINITY
            record = record.chain
