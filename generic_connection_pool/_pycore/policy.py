"""The parts of the core's operations: who is granted what. The lock is held by whoever calls them."""

import itertools
from typing import Dict, Optional, Set

from .endpoint import Endpoint, EndpointTable
from .heap import ExpiryHeap
from .lock import Mutex
from .record import DISPOSING, LENT, Record
from .table import LentTable
from .waiters import CLOSED, CONNECTION, SLOT, WAITING, Ring, Ticket, WaitQueue

__all__ = ('Policy', 'Tickets')

#: Hand-offs among others that an endpoint waiting for the total limit lets pass at the least, whatever that limit: each
#: turn costs somebody a new connection, so that turns must not be too frequent.
LEAST_BYPASS = 16

#: what an operation wakes once the lock is released, in this order
Tickets = Dict[Ticket, None]

_serials = itertools.count(1)


class Policy:
    """The rules that grant a pool's connections and slots."""

    def __init__(self, min_idle: int, max_size: int, total_max_size: int, idle_timeout: float, max_lifetime: float):
        self.min_idle = min_idle
        self.max_size = max_size
        self.total_max_size = total_max_size
        self.idle_timeout = idle_timeout
        self.max_lifetime = max_lifetime
        #: slots in use, of all endpoints
        self.total = 0
        self.closed = False
        #: connections were disposed of while they were acquired: their release is nobody's error
        self.forced = False
        #: tells this core from all others
        self.serial = next(_serials)
        #: guards everything here and in the endpoints, records and tickets of this core
        self.mutex = Mutex()
        #: all connections, until they have been disposed of. Each change is one call of a method in C: whenever another
        #: thread forks, the child finds it whole.
        self.records: Set[Record] = set()
        self._endpoints = EndpointTable()
        self._lent = LentTable()
        self._heap = ExpiryHeap()
        #: endpoints whose waiters could use more slots than will come, were it not for the total limit
        self._needy = Ring()
        #: endpoints whose waiters only the total limit blocks, but a slot is on its way to each of them
        self._covered = Ring()
        #: requests and releases so far
        self._arrivals = 0
        self._sequence = 0
        self._bypass_limit = max(LEAST_BYPASS, total_max_size)
        #: woken when an entry is made that is due before ``_alarm_at``
        self._alarm: Optional[Ticket] = None
        self._alarm_at = float('inf')
        #: who waits for the pool to be empty, and how many slots are in the hands of those
        self._closers = WaitQueue()
        self._excused = 0

    # -- granting

    def _lend(self, record: Record, holder: int) -> None:
        endpoint = record.endpoint
        assert endpoint is not None
        record.state = LENT
        record.uses += 1
        record.holder = holder
        endpoint.lent.append(record)
        self._lent.add(record)

    def _grant_connection(self, ticket: Ticket, record: Record) -> None:
        self._lend(record, ticket.holder)
        ticket.record = record
        ticket.state = CONNECTION

    def _grant_slot(self, ticket: Ticket, endpoint: Endpoint) -> None:
        endpoint.reserved += 1
        self.total += 1
        ticket.state = SLOT

    def _seek(self, ticket: Ticket, endpoint: Endpoint, now: float, woken: Tickets) -> None:
        """Serve a ticket, or let it wait."""
        ticket.endpoint = endpoint
        if self.closed:
            ticket.state = CLOSED
            return
        record = endpoint.idle.first(now)
        if record is not None:
            endpoint.idle.remove(record)
            self._grant_connection(ticket, record)
        elif endpoint.count < self.max_size and self.total < self.total_max_size:
            self._grant_slot(ticket, endpoint)
        else:
            ticket.state = WAITING
            endpoint.waiters.push(ticket)
            self._settle(endpoint, woken)

    def _end_loan(self, record: Record) -> Endpoint:
        assert record.endpoint is not None
        self._lent.remove(record)
        record.endpoint.lent.remove(record)
        return record.endpoint

    def _restore(self, record: Record, now: float, woken: Tickets) -> bool:
        """End a loan: the connection goes to the oldest waiter, or becomes idle. ``False``: it is to be disposed of."""
        endpoint = self._end_loan(record)
        self._sequence += 1
        if self.closed or record.expires <= now:
            return self._doom(record, endpoint)
        rival = self._needy.head
        waiter = endpoint.waiters.head
        if waiter is not None:
            if rival is None or rival is endpoint or rival.bypassed < self._bypass_limit:
                if rival is endpoint:  # its turn is over
                    self._leave_ring(endpoint)
                elif rival is not None:
                    rival.bypassed += 1
                self._pop_waiter(endpoint, waiter, woken)
                self._grant_connection(waiter, record)
                self._settle(endpoint, woken)
                return True
        else:
            extra = endpoint.lent.count + endpoint.idle.core.count >= self.min_idle
            if extra and self.idle_timeout <= 0.0:
                return self._doom(record, endpoint)
            if rival is None:
                record.deadline = min(now + self.idle_timeout, record.expires) if extra else record.expires
                record.sequence = self._sequence
                endpoint.idle.push(record, extra)
                self._arm(record, woken)
                return True
        assert rival is not None
        self._evict(record, rival, woken)
        self._leave_ring(rival)  # its turn is over
        self._settle(rival, woken)
        return True

    def _pop_waiter(self, endpoint: Endpoint, ticket: Ticket, woken: Tickets) -> None:
        endpoint.waiters.remove(ticket)
        woken[ticket] = None

    # -- disposing and evicting

    def _doom(self, record: Record, endpoint: Endpoint) -> bool:
        """A record that has left its list is to be disposed of. Returns False, which says so."""
        record.state = DISPOSING
        endpoint.reserved += 1
        self._heap.disarm(record)
        return False

    def _doom_nearest(self, now: float) -> Optional[Record]:
        """The idle record whose deadline is the nearest, if it has come."""
        record = self._heap.nearest()
        if record is None or record.endpoint is None or record.deadline > now:
            return None
        record.endpoint.idle.remove(record)
        self._doom(record, record.endpoint)
        return record

    def _promise(self, record: Record, beneficiary: Endpoint) -> None:
        """The slot of a doomed record will go to a waiter of ``beneficiary``, if there is one then."""
        record.beneficiary = beneficiary
        beneficiary.evicting += 1
        if beneficiary is record.endpoint:
            beneficiary.own_evicting += 1

    def _evict(self, record: Record, beneficiary: Endpoint, woken: Tickets) -> None:
        """Have a waiter of ``beneficiary`` dispose of a record that has left its list, for the sake of the slot."""
        ticket = beneficiary.waiters.off_duty
        assert record.endpoint is not None and ticket is not None
        self._doom(record, record.endpoint)
        self._promise(record, beneficiary)
        beneficiary.waiters.go_on_duty(ticket, record)
        woken[ticket] = None

    def _needs(self, endpoint: Endpoint) -> int:
        """How many more slots than will come an endpoint's waiters could use, were it not for the total limit."""
        if self.total < self.total_max_size:
            return 0
        room = self.max_size - endpoint.count + endpoint.own_evicting
        return min(endpoint.waiters.count, room) - endpoint.evicting

    def _settle(self, endpoint: Endpoint, woken: Tickets) -> None:
        """Evict what is idle for those who wait, and see to it that the rings are right."""
        ring: Optional[Ring] = None
        if endpoint.waiters.count and not self.closed:
            self._evict_expired(endpoint, woken)
            while endpoint.waiters.off_duty is not None and self._needs(endpoint) > 0:
                record = self._heap.nearest()
                if record is None or record.endpoint is None:
                    ring = self._needy
                    break
                record.endpoint.idle.remove(record)
                self._evict(record, endpoint, woken)
            if ring is None and endpoint.count < self.max_size:
                ring = self._covered
        if endpoint.ring is not ring:
            self._leave_ring(endpoint)
            if ring is not None:
                ring.append(endpoint)

    def _evict_expired(self, endpoint: Endpoint, woken: Tickets) -> None:
        """What is idle although somebody waits for it can only be past its deadline."""
        while endpoint.waiters.off_duty is not None and endpoint.waiters.count > endpoint.evicting:
            record = endpoint.idle.core.head or endpoint.idle.extra.head
            if record is None:
                return
            endpoint.idle.remove(record)
            self._evict(record, endpoint, woken)

    def _leave_ring(self, endpoint: Endpoint) -> None:
        if endpoint.ring is not None:
            endpoint.ring.remove(endpoint)

    def _end_duty(self, ticket: Ticket) -> None:
        if ticket.state == WAITING and ticket.endpoint is not None and ticket.on_duty:
            ticket.endpoint.waiters.come_off_duty(ticket)
        ticket.on_duty = False

    def _free_slot(self, endpoint: Endpoint, beneficiary: Optional[Endpoint], woken: Tickets) -> None:
        """A reserved slot of an endpoint is free: it goes to whoever waits for it."""
        endpoint.reserved -= 1
        self.total -= 1
        if self.closed:
            self._wake_closers(woken)
        else:
            taker = self._choose_taker(endpoint, beneficiary)
            if taker is not None and taker.waiters.head is not None:
                ticket = taker.waiters.head
                self._pop_waiter(taker, ticket, woken)
                self._grant_slot(ticket, taker)
                self._leave_ring(taker)  # its turn is over
                self._settle(taker, woken)
            for other in (endpoint, beneficiary):
                if other is not None and other is not taker:
                    self._settle(other, woken)
        for other in (endpoint, beneficiary):
            if other is not None:
                self._drop_unused(other)

    def _choose_taker(self, endpoint: Endpoint, beneficiary: Optional[Endpoint]) -> Optional[Endpoint]:
        if beneficiary is not None and beneficiary.waiters.count and beneficiary.count < self.max_size:
            return beneficiary
        rival = self._needy.head
        if not endpoint.waiters.count or endpoint.count >= self.max_size:
            return rival or self._covered.head
        if rival is not None and rival is not endpoint:
            if rival.bypassed >= self._bypass_limit:
                return rival
            rival.bypassed += 1
        return endpoint

    # -- the rest

    def _arm(self, record: Record, woken: Tickets) -> None:
        self._heap.arm(record)
        if record.deadline < self._alarm_at and self._alarm is not None:
            self._alarm_at = record.deadline
            woken[self._alarm] = None

    def _wake_closers(self, woken: Tickets) -> None:
        if self.total <= self._excused:  # each looks whether that is enough for it
            ticket = self._closers.head
            while ticket is not None:
                woken[ticket] = None
                ticket = ticket.next

    def _drop_unused(self, endpoint: Endpoint) -> None:
        """An endpoint with no connections, reservations or tickets does not exist."""
        if not endpoint.removed and endpoint.unused:
            self._endpoints.remove(endpoint)
