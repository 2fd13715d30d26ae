"""One endpoint of a pool: its connections by state, its waiters, and the table in which endpoints are found."""

from typing import Dict, Hashable, Iterator, Optional, Tuple

from .deque import IdleDeque, RecordList
from .waiters import Ring, WaitQueue

__all__ = ('Endpoint', 'EndpointTable')


class Endpoint:
    """The state of one endpoint. It exists only while it has connections, reservations or tickets."""

    __slots__ = (
        'key', 'hash', 'idle', 'lent', 'reserved', 'evicting', 'own_evicting', 'waiters', 'removed',
        'ring', 'bypassed', 'ring_prev', 'ring_next',
    )  # fmt: skip

    def __init__(self, key: Hashable, key_hash: int):
        self.key = key
        self.hash = key_hash
        self.idle = IdleDeque()
        #: acquired connections, those whose release has begun included
        self.lent = RecordList()
        #: slots in which a connection is being created or disposed of
        self.reserved = 0
        #: disposals under way whose slot will go to this endpoint's waiters
        self.evicting = 0
        #: those among them that are of this endpoint's own connections
        self.own_evicting = 0
        self.waiters = WaitQueue()
        #: no longer in the table
        self.removed = False
        #: the ring that it is in because the total limit blocks its waiters
        self.ring: Optional[Ring] = None
        #: hand-offs to others while it was the head of its ring
        self.bypassed = 0
        self.ring_prev: Optional[Endpoint] = None
        self.ring_next: Optional[Endpoint] = None

    @property
    def count(self) -> int:
        """All slots of the endpoint that are in use."""
        return len(self.idle) + self.lent.count + self.reserved

    @property
    def unused(self) -> bool:
        """Nothing is left of the endpoint, so that it may be removed."""
        return not self.count and not self.waiters.count and not self.evicting


class EndpointTable:
    """Finds endpoints by key, as a dict would, but runs the keys' own ``__hash__`` and ``__eq__`` outside the lock.

    The buckets are immutable tuples, replaced as a whole, so that looking up needs no lock; what was found may have been
    removed since, which :attr:`Endpoint.removed` says. Changing the table needs the core's lock, and no key is compared.
    """

    __slots__ = ('_buckets', 'count')

    def __init__(self) -> None:
        self._buckets: Dict[int, Tuple[Endpoint, ...]] = {}
        self.count = 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Endpoint]:
        for bucket in list(self._buckets.values()):
            yield from bucket

    def bucket(self, key_hash: int) -> Tuple[Endpoint, ...]:
        """The endpoints whose keys have this hash."""
        return self._buckets.get(key_hash, ())

    def insert(self, endpoint: Endpoint, bucket: Tuple[Endpoint, ...]) -> bool:
        """Add an endpoint whose key is not in ``bucket``, unless that bucket has changed meanwhile. Lock held."""
        if self._buckets.get(endpoint.hash, ()) is not bucket:
            return False
        self._buckets[endpoint.hash] = (*bucket, endpoint)
        self.count += 1
        return True

    def remove(self, endpoint: Endpoint) -> None:
        """Remove an endpoint. Lock held."""
        bucket = tuple(other for other in self._buckets[endpoint.hash] if other is not endpoint)
        if bucket:
            self._buckets[endpoint.hash] = bucket
        else:
            del self._buckets[endpoint.hash]
        endpoint.removed = True
        self.count -= 1
