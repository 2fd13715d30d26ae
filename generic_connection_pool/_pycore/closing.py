"""How a pool ends: who waits is told, what is idle or comes back is disposed of, and who closes it waits for that."""

from typing import Optional

from .lock import critical
from .policy import Tickets
from .record import Record
from .store import Store
from .waiters import CLOSED, Ticket

__all__ = ('Closing',)


class Closing(Store):
    """The operations that end a pool."""

    def close(self) -> None:
        """Begin to close: who waits is told, nobody is served any more. Again does nothing."""
        woken: Tickets = {}
        self._close(woken)
        self._conclude(woken)

    @critical
    def _close(self, woken: Tickets) -> None:
        self.closed = True
        for endpoint in self._endpoints:
            self._leave_ring(endpoint)
            while endpoint.waiters.head is not None:
                ticket = endpoint.waiters.head
                self._pop_waiter(endpoint, ticket, woken)
                ticket.state = CLOSED
            self._drop_unused(endpoint)
        if self._alarm is not None:
            woken[self._alarm] = None

    @critical
    def outdate(self) -> None:
        """Have all acquired connections disposed of when they come back."""
        for endpoint in self._endpoints:
            for record in endpoint.lent:
                record.expires = float('-inf')

    @critical
    def next_idle(self) -> Optional[Record]:
        """An idle connection, for the caller to dispose of; ``None`` if there is none."""
        return self._doom_nearest(float('inf'))

    @critical
    def next_lent(self) -> Optional[Record]:
        """An acquired connection of a closed pool, for the caller to dispose of although it is still in use."""
        record = self._lent.any()
        if record is not None:
            self.forced = True
            self._doom(record, self._end_loan(record))
        return record

    def join(self, ticket: Ticket, excused: int) -> bool:
        """Wait for the pool to be empty.

        :param ticket: woken when it is
        :param excused: slots that cannot become free before the caller goes on, because it is in a hook of theirs
        :return: whether it is empty already; if not, :meth:`leave` ends the waiting
        """
        woken: Tickets = {}
        answer = self._join(ticket, excused, woken)
        self._conclude(woken)
        return answer

    @critical
    def _join(self, ticket: Ticket, excused: int, woken: Tickets) -> bool:
        if not ticket.free:
            raise RuntimeError('the ticket waits or holds something')
        if self.total <= (self._excused + excused if excused else 0):
            return True
        self._excused += excused
        self._closers.push(ticket)
        return False

    @critical
    def leave(self, ticket: Ticket, excused: int) -> None:
        """Wait no longer for the pool to be empty."""
        if ticket.queue is not self._closers:
            raise RuntimeError('the ticket does not wait for the pool to be empty')
        self._excused -= excused
        self._closers.remove(ticket)

    def drained(self, excused: int) -> bool:
        """Whether all slots are free, so that the waiting for it is over.

        :param excused: slots in the hands of the caller; if there are any, those in the hands of others who wait for
            the pool to be empty do not count either, or they would wait for each other
        """
        return self.total <= (self._excused if excused else 0)
