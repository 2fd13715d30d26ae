"""When connections are due: a binary heap whose entries may be older than the truth.

An entry is (deadline, sequence, record), made once for a connection. The deadline of an idle connection moves with each
use, its entry does not: the entry is never *later* than the truth, which is all that finding the next due one needs.
When an entry comes to the top, :meth:`ExpiryHeap.nearest` looks at its record: in use → the entry is dropped (the next
release makes a new one); idle and due later → the entry is corrected and sinks.
"""

from typing import List, Optional, Tuple

from .record import IDLE_EXTRA, Record

__all__ = ('ExpiryHeap',)

Entry = Tuple[float, int, Record]


class ExpiryHeap:
    """The expiry entries of all connections of a pool; ties are broken by the order of release."""

    __slots__ = ('_entries',)

    def __init__(self) -> None:
        self._entries: List[Entry] = []

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def top(self) -> Optional[float]:
        """No idle connection is due before this time; ``None`` if there is no entry."""
        return self._entries[0][0] if self._entries else None

    def arm(self, record: Record) -> None:
        """See to it that the record has an entry that is not later than its deadline. O(1) if it has."""
        index = record.heap_index
        if index < 0:
            self._entries.append((record.deadline, record.sequence, record))
            self._rise(len(self._entries) - 1)
        elif record.deadline < self._entries[index][0]:
            self._entries[index] = (record.deadline, record.sequence, record)
            self._rise(index)

    def nearest(self) -> Optional[Record]:
        """The idle record whose deadline is the nearest; ``None`` if no record is idle."""
        entries = self._entries
        while entries:
            deadline, sequence, record = entries[0]
            if record.state > IDLE_EXTRA:
                self.disarm(record)
            elif deadline == record.deadline and sequence == record.sequence:
                return record
            else:
                entries[0] = (record.deadline, record.sequence, record)
                self._sink(0)
                if entries[0][2] is record:
                    return record
        return None

    def disarm(self, record: Record) -> None:
        """Drop the entry of a record, if it has one."""
        index = record.heap_index
        if index < 0:
            return
        record.heap_index = -1
        last = self._entries.pop()
        if last[2] is not record:
            self._entries[index] = last
            last[2].heap_index = index
            self._rise(index)
            self._sink(last[2].heap_index)

    def _rise(self, index: int) -> None:
        entries = self._entries
        entry = entries[index]
        while index > 0:
            parent = (index - 1) >> 1
            if not _precedes(entry, entries[parent]):
                break
            entries[index] = entries[parent]
            entries[index][2].heap_index = index
            index = parent
        entries[index] = entry
        entry[2].heap_index = index

    def _sink(self, index: int) -> None:
        entries = self._entries
        count = len(entries)
        entry = entries[index]
        while True:
            child = 2 * index + 1
            if child >= count:
                break
            if child + 1 < count and _precedes(entries[child + 1], entries[child]):
                child += 1
            if not _precedes(entries[child], entry):
                break
            entries[index] = entries[child]
            entries[index][2].heap_index = index
            index = child
        entries[index] = entry
        entry[2].heap_index = index


def _precedes(one: Entry, other: Entry) -> bool:
    if one[0] != other[0]:
        return one[0] < other[0]
    return one[1] < other[1]
