"""What one pool has, and how it is found."""

from typing import Any, Hashable, List, Optional, Tuple

from .endpoint import Endpoint
from .invariants import check_invariants
from .lock import critical
from .policy import Policy, Tickets
from .record import INHERITED, LENT, Record

__all__ = ('Store',)


class Store(Policy):
    """The state of one pool, to be looked at.

    :param min_idle: connections of an endpoint that are kept until their lifetime is over, 0 or more
    :param max_size: connections of one endpoint at the most, 1 or more
    :param total_max_size: connections of all endpoints at the most, 1 or more
    :param idle_timeout: seconds until an idle connection beyond ``min_idle`` is due, 0 or more
    :param max_lifetime: seconds until any connection is due, 0 or more
    """

    # -- looking on

    def find(self, conn: Any, key: Hashable) -> Optional[Record]:
        """The record of an acquired connection: of this very object or, if that is none of the pool's, of an equal one.

        :param conn: the connection
        :param key: its endpoint
        :return: the record, or ``None`` if the endpoint has not lent such a connection
        """
        same = self._lent_as(conn)
        for record in same:
            if record.key is key or record.key == key:
                return record
        endpoint = None if same else self._find(key)
        if endpoint is None:
            return None
        for record in self._lent_by(endpoint, conn):
            if _equal(record.conn, conn):
                return record
        return None

    @critical
    def _lent_as(self, conn: Any) -> List[Record]:
        return [record for record in self._lent.find(conn) if record.state == LENT]

    @critical
    def _lent_by(self, endpoint: Endpoint, conn: Any) -> List[Record]:
        if any(record.conn is conn for record in endpoint.idle) or any(r.conn is conn for r in endpoint.lent):
            return []
        return [record for record in endpoint.lent if record.state == LENT]

    def size(self, key: Hashable) -> int:
        """All slots of an endpoint that are in use."""
        return self._counts(key)[0]

    def idle_size(self, key: Hashable) -> int:
        """The idle connections of an endpoint."""
        return self._counts(key)[1]

    def lent_size(self, key: Hashable) -> int:
        """The acquired connections of an endpoint."""
        return self._counts(key)[2]

    def waiting(self, key: Hashable) -> int:
        """How many wait for a connection of an endpoint."""
        return self._counts(key)[3]

    def _counts(self, key: Hashable) -> Tuple[int, int, int, int]:
        endpoint = self._find(key)
        return (0, 0, 0, 0) if endpoint is None else self._counts_of(endpoint)

    @critical
    def _counts_of(self, endpoint: Endpoint) -> Tuple[int, int, int, int]:
        return endpoint.count, len(endpoint.idle), endpoint.lent.count, endpoint.waiters.count

    def holders(self, key: Hashable) -> List[int]:
        """Identifiers of the threads that hold an endpoint's connections, one for each."""
        endpoint = self._find(key)
        return [] if endpoint is None else self._holders(endpoint)

    @critical
    def _holders(self, endpoint: Endpoint) -> List[int]:
        return [record.holder for record in endpoint.lent]

    def endpoints(self) -> List[Hashable]:
        """The keys of all endpoints that exist."""
        return [endpoint.key for endpoint in self._endpoints]

    def disown(self) -> List[Record]:
        """For a forked child, which goes on with another core: nobody is served by this one any more, nor told. No lock
        is asked for, since a thread may hold it that the child does not have.

        :return: the connections, which are the parent's from now on
        """
        self.closed = True
        records = list(self.records)
        for record in records:
            record.state = INHERITED
            record.claimed = True
        if self.mutex.busy:  # maybe by the very thread that goes on in the child: what it does then is undone
            self.mutex.defer(self.disown)
        return records

    @critical
    def check_invariants(self) -> None:
        """For tests: raise an AssertionError if what the core keeps true is not."""
        check_invariants(self)

    # -- finding endpoints; no lock is held while keys are compared

    def _find(self, key: Hashable) -> Optional[Endpoint]:
        return self._pick(self._endpoints.bucket(hash(key)), key)

    def _pick(self, bucket: Tuple[Endpoint, ...], key: Hashable) -> Optional[Endpoint]:
        for endpoint in bucket:
            if endpoint.key is key or endpoint.key == key:
                return endpoint
        return None

    # -- after an operation

    def _conclude(self, woken: Tickets) -> None:
        """Wake those whom an operation has told something. No lock is held."""
        error: Optional[BaseException] = None
        for ticket in woken:
            try:
                ticket.wake()
            except BaseException as exc:  # the others are woken nevertheless
                error = exc
        if error is not None:
            raise error


def _equal(one: object, other: object) -> bool:
    try:
        return bool(one == other)
    except Exception:  # connections are told apart by identity: one whose __eq__ fails is no other's equal
        return False
