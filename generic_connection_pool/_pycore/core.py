"""Who gets which connection, and when: a state machine that does no I/O and knows no user code.

Every operation is atomic and tells at once what is to be done next. Time comes in as a number (seconds of one monotonic
clock). What an operation wakes, it wakes after the lock is released.
"""

from typing import Any, Hashable, Optional, Tuple

from .closing import Closing
from .endpoint import Endpoint
from .lock import critical, monotonic
from .policy import Tickets
from .record import DISPOSING, GONE, INHERITED, LENT, RETURNING, Record
from .waiters import CLOSED, CONNECTION, NOTHING, SLOT, WAITING, Ticket

__all__ = ('Core',)


class Core(Closing):
    """The operations of one pool's state."""

    # -- acquiring

    def take(self, key: Hashable, now: float, holder: int) -> Optional[Record]:
        """Lend an idle connection, if there is one: the fast path of :meth:`request`.

        :param key: the endpoint
        :param now: the time
        :param holder: identifier of the thread that asks
        :return: the record of the connection, or ``None``: ask with :meth:`request`
        """
        endpoint = self._find(key)
        if endpoint is None:
            return None
        return self._take(endpoint, now, holder)

    def _lend_idle(self, key: Hashable, holder: int) -> Optional[Record]:
        """:meth:`take` by the clock. It is read under the lock: a thread that had read it before, and then had to wait,
        would take what is due since then, ahead of those who wait.
        """
        endpoint = self._find(key)
        if endpoint is None:
            return None
        return self._take(endpoint, None, holder)

    @critical
    def _take(self, endpoint: Endpoint, now: Optional[float], holder: int) -> Optional[Record]:
        if self.closed or endpoint.removed:
            return None
        record = endpoint.idle.first(monotonic() if now is None else now)
        if record is not None:
            endpoint.idle.remove(record)
            self._lend(record, holder)
        return record

    def request(self, ticket: Ticket, key: Hashable, now: float) -> None:
        """Ask for a connection. The ticket's state and victim say what came of it.

        :param ticket: a ticket that holds nothing
        :param key: the endpoint
        :param now: the time
        """
        woken: Tickets = {}
        key_hash = hash(key)
        while True:
            bucket = self._endpoints.bucket(key_hash)
            endpoint = self._pick(bucket, key)
            if self._request(ticket, endpoint or Endpoint(key, key_hash), bucket, now, woken):
                break
        self._conclude(woken)

    @critical
    def _request(
        self, ticket: Ticket, endpoint: Endpoint, bucket: Tuple[Endpoint, ...], now: float, woken: Tickets
    ) -> bool:
        if endpoint.removed or (endpoint not in bucket and not self._endpoints.insert(endpoint, bucket)):
            return False
        if not ticket.free:
            self._drop_unused(endpoint)
            raise RuntimeError('the ticket waits or holds something')
        ticket.core = self.serial
        self._arrivals += 1
        ticket.order = self._arrivals
        self._seek(ticket, endpoint, now, woken)
        self._drop_unused(endpoint)
        return True

    def replace(self, ticket: Ticket, now: float) -> None:
        """Ask for another connection instead of the one granted, which becomes the ticket's victim.

        The ticket keeps its place: nobody is before it who came later.

        :param ticket: a ticket that holds a connection, and no victim
        :param now: the time
        """
        woken: Tickets = {}
        self._replace(ticket, now, woken)
        self._conclude(woken)

    @critical
    def _replace(self, ticket: Ticket, now: float, woken: Tickets) -> None:
        record = ticket.record
        if (
            ticket.state != CONNECTION
            or record is None
            or ticket.victim is not None
            or ticket.queue is not None
            or (record.state == LENT and record.core != self.serial)
        ):
            raise RuntimeError('the ticket holds no connection, or has a victim already')
        ticket.record = None
        if record.state != LENT:  # closed by force meanwhile
            ticket.state = CLOSED
            return
        endpoint = self._end_loan(record)
        self._doom(record, endpoint)
        self._promise(record, endpoint)
        ticket.core = self.serial
        ticket.victim = record
        ticket.on_duty = True
        self._seek(ticket, endpoint, now, woken)

    def withdraw(self, ticket: Ticket) -> bool:
        """Stop waiting.

        :return: whether the ticket still waited; if not, it holds what its state says. Either way it may have a victim.
        """
        woken: Tickets = {}
        answer = self._withdraw(ticket, woken)
        self._conclude(woken)
        return answer

    @critical
    def _withdraw(self, ticket: Ticket, woken: Tickets) -> bool:
        if ticket.state != WAITING or ticket.endpoint is None or ticket.core != self.serial:
            return False
        ticket.state = NOTHING
        endpoint = ticket.endpoint
        endpoint.waiters.remove(ticket)
        self._settle(endpoint, woken)
        self._drop_unused(endpoint)
        return True

    def rest(self, ticket: Ticket) -> None:
        """The ticket's owner has had its victim taken care of elsewhere, and may be given another."""
        woken: Tickets = {}
        self._rest(ticket, woken)
        self._conclude(woken)

    @critical
    def _rest(self, ticket: Ticket, woken: Tickets) -> None:
        if ticket.core == self.serial:
            self._end_duty(ticket)
            if ticket.state == WAITING and ticket.endpoint is not None:
                self._settle(ticket.endpoint, woken)

    # -- creating

    @critical
    def fulfil(self, ticket: Ticket, conn: Any, now: float) -> bool:
        """Put a new connection in the slot that a ticket holds.

        :return: whether the ticket holds it now; if not, the pool was closed meanwhile, and the caller is to dispose of
            the ticket's record
        """
        endpoint = ticket.endpoint
        if ticket.state != SLOT or endpoint is None or ticket.core != self.serial:
            raise RuntimeError('the ticket holds no slot')
        record = Record(conn, endpoint.key, now, now + self.max_lifetime)
        record.endpoint = endpoint
        record.core = self.serial
        self.records.add(record)
        ticket.record = record
        if self.closed:
            record.state = DISPOSING
            ticket.state = CLOSED
            return False
        endpoint.reserved -= 1
        self._lend(record, ticket.holder)
        ticket.state = CONNECTION
        return True

    def fail(self, ticket: Ticket) -> None:
        """Give up the slot that a ticket holds: no connection could be created."""
        woken: Tickets = {}
        self._fail(ticket, woken)
        self._conclude(woken)

    @critical
    def _fail(self, ticket: Ticket, woken: Tickets) -> None:
        endpoint = ticket.endpoint
        if ticket.state != SLOT or endpoint is None or ticket.core != self.serial:
            raise RuntimeError('the ticket holds no slot')
        ticket.state = NOTHING
        self._free_slot(endpoint, None, woken)

    @critical
    def transfer(self, ticket: Ticket, heir: Ticket) -> None:
        """Pass the slot that a ticket holds to a ticket that holds nothing."""
        if ticket.state != SLOT or ticket.endpoint is None or ticket.core != self.serial:
            raise RuntimeError('the ticket holds no slot')
        if not heir.free:
            raise RuntimeError('the heir waits or holds something')
        heir.core = self.serial
        heir.endpoint = ticket.endpoint
        heir.state = SLOT
        ticket.state = NOTHING

    # -- releasing

    @critical
    def take_back(self, record: Record, loan: int) -> bool:
        """Begin a release: from now on nobody else can release this connection.

        :param record: the record of the connection
        :param loan: ``record.uses`` when it was acquired
        :return: whether this loan was still on
        """
        if record.state != LENT or record.uses != loan or record.core != self.serial:
            return False
        record.state = RETURNING
        return True

    def give_back(self, record: Record, now: float) -> bool:
        """End a release: the connection goes to the oldest waiter, or becomes idle.

        :param record: the record of an acquired connection
        :param now: the time
        :return: ``False`` if the caller is to dispose of it instead
        """
        woken: Tickets = {}
        answer = self._give_back(record, now, woken)
        self._conclude(woken)
        return answer

    @critical
    def _give_back(self, record: Record, now: float, woken: Tickets) -> bool:
        if (record.state != LENT and record.state != RETURNING) or record.core != self.serial:
            return self._refuse_unless_forced(record)
        return self._restore(record, now, woken)

    @critical
    def discard(self, record: Record) -> bool:
        """Take an acquired connection out of use.

        :return: whether the caller is to dispose of it; if not, it has been closed by force
        """
        if (record.state != LENT and record.state != RETURNING) or record.core != self.serial:
            return not self._refuse_unless_forced(record)
        self._doom(record, self._end_loan(record))
        return True

    def _refuse_unless_forced(self, record: Record) -> bool:
        if not self.forced and record.state != INHERITED:
            raise RuntimeError('the connection is not acquired')
        return True

    # -- disposing

    def disposed(self, record: Record, ticket: Optional[Ticket] = None) -> None:
        """A connection has been disposed of: its slot is free.

        :param record: its record
        :param ticket: the ticket whose victim it was, if its owner was the one to dispose of it
        """
        woken: Tickets = {}
        self._disposed(record, ticket, woken)
        self._conclude(woken)

    @critical
    def _disposed(self, record: Record, ticket: Optional[Ticket], woken: Tickets) -> None:
        endpoint = record.endpoint
        if record.state == INHERITED:
            return
        if record.state != DISPOSING or endpoint is None or record.core != self.serial:
            raise RuntimeError('the connection was not to be disposed of')
        record.state = GONE
        record.core = 0
        self.records.discard(record)
        if ticket is not None and ticket.core == self.serial:
            self._end_duty(ticket)
        beneficiary, record.beneficiary = record.beneficiary, None
        if beneficiary is not None:
            beneficiary.evicting -= 1
            if beneficiary is endpoint:
                beneficiary.own_evicting -= 1
        self._free_slot(endpoint, beneficiary, woken)

    @critical
    def due(self, now: float) -> bool:
        """Whether a connection may be due: :meth:`next_due` tells for sure."""
        top = self._heap.top
        return top is not None and top <= now

    @critical
    def next_due(self, now: float) -> Optional[Record]:
        """An idle connection whose deadline has come, for the caller to dispose of; ``None`` if there is none."""
        top = self._heap.top
        return None if top is None or top > now else self._doom_nearest(now)

    @critical
    def set_alarm(self, ticket: Optional[Ticket]) -> Optional[float]:
        """Have a ticket woken as soon as something is due earlier than what is known now.

        :param ticket: the collector's, ``None`` for no more alarms
        :return: when the next connection may be due, ``None`` if none is idle
        """
        self._alarm = ticket
        top = self._heap.top
        self._alarm_at = float('inf') if top is None else top
        return None if self._alarm_at == float('inf') else self._alarm_at
