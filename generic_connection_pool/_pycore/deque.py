"""The lists of one endpoint's connections: doubly linked through the records, every operation O(1)."""

from typing import Iterator, Optional

from .record import IDLE_CORE, IDLE_EXTRA, Record

__all__ = ('IdleDeque', 'RecordList')


class RecordList:
    """A doubly linked list of records. A record is in at most one."""

    __slots__ = ('head', 'tail', 'count')

    def __init__(self) -> None:
        self.head: Optional[Record] = None
        self.tail: Optional[Record] = None
        self.count = 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Record]:
        record = self.head
        while record is not None:
            yield record
            record = record.next

    def append(self, record: Record) -> None:
        """Put a record that is in no list at the end."""
        tail = self.tail
        record.prev = tail
        record.next = None
        if tail is None:
            self.head = record
        else:
            tail.next = record
        self.tail = record
        self.count += 1

    def remove(self, record: Record) -> None:
        """Take out a record that is in this list."""
        before, after = record.prev, record.next
        if before is None:
            self.head = after
        else:
            before.next = after
        if after is None:
            self.tail = before
        else:
            after.prev = before
        record.prev = record.next = None
        self.count -= 1


class IdleDeque:
    """The idle connections of one endpoint.

    The core ones are taken first-in first-out (round robin keeps all of them warm); the extras last-in first-out, and
    only when no core one is idle (the rest of them grow old and are disposed of).
    """

    __slots__ = ('core', 'extra')

    def __init__(self) -> None:
        self.core = RecordList()
        self.extra = RecordList()

    def __len__(self) -> int:
        return self.core.count + self.extra.count

    def __iter__(self) -> Iterator[Record]:
        yield from self.core
        yield from self.extra

    def push(self, record: Record, extra: bool) -> None:
        """Add a record as a core one or as an extra, and set its state."""
        if extra:
            record.state = IDLE_EXTRA
            self.extra.append(record)
        else:
            record.state = IDLE_CORE
            self.core.append(record)

    def first(self, now: float) -> Optional[Record]:
        """The record to be taken next, passing over those whose deadline has come; ``None`` if there is none."""
        record = self.core.head
        while record is not None:
            if record.deadline > now:
                return record
            record = record.next
        record = self.extra.tail
        while record is not None:
            if record.deadline > now:
                return record
            record = record.prev
        return None

    def remove(self, record: Record) -> None:
        """Take out a record that is in this deque; its state is left to the caller."""
        if record.state == IDLE_EXTRA:
            self.extra.remove(record)
        else:
            self.core.remove(record)
