"""Where an acquired connection's record is found by the connection object itself: by identity, whatever it defines."""

from typing import Any, Dict, List, Optional

from .record import Record

__all__ = ('LentTable',)


class LentTable:
    """The acquired connections of a pool. Records of one and the same object (a manager may return it twice) are chained.

    The lock is held by whoever calls a method.
    """

    __slots__ = ('_buckets', 'count')

    def __init__(self) -> None:
        self._buckets: Dict[int, Record] = {}
        self.count = 0

    def __len__(self) -> int:
        return self.count

    def add(self, record: Record) -> None:
        """Add a record that is not in the table."""
        record.chain = self._buckets.get(id(record.conn))
        self._buckets[id(record.conn)] = record
        self.count += 1

    def remove(self, record: Record) -> None:
        """Remove a record that is in the table."""
        key = id(record.conn)
        other = self._buckets[key]
        if other is record:
            if record.chain is None:
                del self._buckets[key]
            else:
                self._buckets[key] = record.chain
        else:
            while other.chain is not None and other.chain is not record:
                other = other.chain
            other.chain = record.chain
        record.chain = None
        self.count -= 1

    def find(self, conn: Any) -> List[Record]:
        """The records of this very object."""
        found = []
        record = self._buckets.get(id(conn))
        while record is not None:
            found.append(record)
            record = record.chain
        return found

    def any(self) -> Optional[Record]:
        """Some record, ``None`` if the table is empty."""
        return next(reversed(self._buckets.values()), None)
