"""When connections are due: a binary heap whose entries may be older than the truth.

An entry is (deadline, sequence, record), made once for a connection. The deadline of an idle connection moves with each
use, its entry does not: the entry is never *later* than the truth, which is all that finding the next due one needs.
When an entry comes to the top, ``nearest`` looks at its record: in use → the entry is dropped (the next release makes a
new one); idle and due later → the entry is corrected and sinks.
"""

from cpython.mem cimport PyMem_RawFree, PyMem_RawRealloc

from _cpool.record cimport Record
from _cpool.structs cimport S_IDLE_EXTRA

__all__ = ('ExpiryHeap',)


cdef class ExpiryHeap:
    """The expiry entries of all connections of a pool; ties are broken by the order of release."""

    def __cinit__(self):
        # the core owns its records; here, nobody else does
        self._records = {}

    def __dealloc__(self):
        PyMem_RawFree(self.heap.entries)

    def __len__(self):
        return self.heap.size

    @property
    def top(self):
        """No idle connection is due before this time; ``None`` if there is no entry."""
        return self.heap.entries[0].deadline if self.heap.size else None

    def arm(self, Record record not None):
        """See to it that the record has an entry that is not later than its deadline. O(1) if it has."""
        self._require(record)
        if heap_reserve(&self.heap, self.heap.size + 1) < 0:
            raise MemoryError('no memory for another connection')
        self._records[id(record)] = record
        heap_arm(&self.heap, &record.c)

    def nearest(self):
        """The idle record whose deadline is the nearest; ``None`` if no record is idle."""
        cdef record_t *record = heap_nearest(&self.heap)
        return None if record == NULL else <object>record.owner

    def disarm(self, Record record not None):
        """Drop the entry of a record, if it has one."""
        self._require(record)
        heap_disarm(&self.heap, &record.c)
        self._records.pop(id(record), None)

    cdef int _require(self, Record record) except -1:
        cdef Py_ssize_t index = record.c.heap_index
        if index >= 0 and (index >= self.heap.size or self.heap.entries[index].record != &record.c):
            raise RuntimeError('the record has an entry in another heap')
        return 0


cdef int heap_reserve(heap_t *heap, Py_ssize_t count) noexcept nogil:
    # Room for so many entries, so that arming never allocates. Returns -1 if there is no memory.
    cdef Py_ssize_t capacity = heap.capacity
    cdef entry_t *entries
    if count <= capacity:
        return 0
    capacity = count + (count >> 2) + 8
    entries = <entry_t *>PyMem_RawRealloc(heap.entries, capacity * sizeof(entry_t))
    if entries == NULL:
        return -1
    heap.entries = entries
    heap.capacity = capacity
    return 0


cdef void heap_arm(heap_t *heap, record_t *record) noexcept nogil:
    cdef Py_ssize_t index = record.heap_index
    if index < 0:
        index = heap.size
        heap.size += 1
    elif record.deadline >= heap.entries[index].deadline:
        return
    heap.entries[index].deadline = record.deadline
    heap.entries[index].sequence = record.sequence
    heap.entries[index].record = record
    rise(heap, index)


cdef record_t *heap_nearest(heap_t *heap) noexcept nogil:
    cdef record_t *record
    while heap.size:
        record = heap.entries[0].record
        if record.state > S_IDLE_EXTRA:
            heap_disarm(heap, record)
        elif heap.entries[0].deadline == record.deadline and heap.entries[0].sequence == record.sequence:
            return record
        else:
            heap.entries[0].deadline = record.deadline
            heap.entries[0].sequence = record.sequence
            sink(heap, 0)
            if heap.entries[0].record == record:
                return record
    return NULL


cdef void heap_disarm(heap_t *heap, record_t *record) noexcept nogil:
    cdef Py_ssize_t index = record.heap_index
    if index < 0:
        return
    record.heap_index = -1
    heap.size -= 1
    if index != heap.size:
        heap.entries[index] = heap.entries[heap.size]
        record = heap.entries[index].record
        record.heap_index = index
        rise(heap, index)
        sink(heap, record.heap_index)


cdef inline bint precedes(entry_t *one, entry_t *other) noexcept nogil:
    if one.deadline != other.deadline:
        return one.deadline < other.deadline
    return one.sequence < other.sequence


cdef void rise(heap_t *heap, Py_ssize_t index) noexcept nogil:
    cdef entry_t entry = heap.entries[index]
    cdef Py_ssize_t parent
    while index > 0:
        parent = (index - 1) >> 1
        if not precedes(&entry, &heap.entries[parent]):
            break
        heap.entries[index] = heap.entries[parent]
        heap.entries[index].record.heap_index = index
        index = parent
    heap.entries[index] = entry
    entry.record.heap_index = index


cdef void sink(heap_t *heap, Py_ssize_t index) noexcept nogil:
    cdef entry_t entry = heap.entries[index]
    cdef Py_ssize_t child
    while True:
        child = 2 * index + 1
        if child >= heap.size:
            break
        if child + 1 < heap.size and precedes(&heap.entries[child + 1], &heap.entries[child]):
            child += 1
        if not precedes(&heap.entries[child], &entry):
            break
        heap.entries[index] = heap.entries[child]
        heap.entries[index].record.heap_index = index
        index = child
    heap.entries[index] = entry
    entry.record.heap_index = index
