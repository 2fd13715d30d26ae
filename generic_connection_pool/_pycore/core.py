"""Who gets which connection, and when: a state machine that does no I/O and knows no user code.

Every operation is atomic and tells at once what is to be done next. Time comes in as a number (seconds of one monotonic
clock). What an operation wakes, it wakes after the lock is released.
"""

from typing import Any, Hashable, List, Optional, Tuple

from .endpoint import Endpoint, EndpointTable
from .heap import ExpiryHeap
from .invariants import check_invariants
from .lock import Mutex, critical
from .record import DISPOSING, GONE, IDLE_EXTRA, LENT, RETURNING, Record
from .table import LentTable
from .waiters import CLOSED, CONNECTION, NOTHING, SLOT, WAITING, BlockedRing, Ticket, WaitQueue

__all__ = ('Core',)

#: Hand-offs among others that an endpoint waiting for the total limit lets pass at the least, whatever that limit: each
#: turn costs somebody a new connection, so that turns must not be too frequent.
LEAST_BYPASS = 16

Tickets = List[Ticket]


class Core:
    """The state of one pool.

    :param min_idle: connections of an endpoint that are kept until their lifetime is over, 0 or more
    :param max_size: connections of one endpoint at the most, 1 or more
    :param total_max_size: connections of all endpoints at the most, 1 or more
    :param idle_timeout: seconds until an idle connection beyond ``min_idle`` is due, 0 or more
    :param max_lifetime: seconds until any connection is due, 0 or more
    """

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
        #: guards everything here and in the endpoints, records and tickets of this core
        self.mutex = Mutex()
        self._endpoints = EndpointTable()
        self._lent = LentTable()
        self._heap = ExpiryHeap()
        self._ring = BlockedRing()
        #: releases so far
        self._sequence = 0
        self._bypass_limit = max(LEAST_BYPASS, total_max_size)
        #: woken when an entry is made that is due before ``_alarm_at``
        self._alarm: Optional[Ticket] = None
        self._alarm_at = float('inf')
        #: who waits for the pool to be empty, and how many slots are in the hands of those
        self._closers = WaitQueue()
        self._excused = 0

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

    @critical
    def _take(self, endpoint: Endpoint, now: float, holder: int) -> Optional[Record]:
        if self.closed or endpoint.removed:
            return None
        record = endpoint.idle.first(now)
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
        woken: Tickets = []
        while not self._request(ticket, self._find_or_make(key), now, woken):
            pass
        _wake(woken)

    @critical
    def _request(self, ticket: Ticket, endpoint: Endpoint, now: float, woken: Tickets) -> bool:
        if endpoint.removed:
            return False
        ticket.endpoint = endpoint
        self._seek(ticket, endpoint, now, False, woken)
        self._drop_unused(endpoint)
        return True

    def replace(self, ticket: Ticket, now: float) -> None:
        """Ask for another connection instead of the one granted, which becomes the ticket's victim.

        The ticket had its turn already, so that nobody of its endpoint is before it.

        :param ticket: a ticket that holds a connection
        :param now: the time
        """
        woken: Tickets = []
        self._replace(ticket, now, woken)
        _wake(woken)

    @critical
    def _replace(self, ticket: Ticket, now: float, woken: Tickets) -> None:
        record = ticket.record
        if ticket.state != CONNECTION or record is None:
            raise RuntimeError('the ticket holds no connection')
        endpoint = self._end_loan(record)
        self._doom(record, endpoint)
        self._promise(record, endpoint)
        ticket.record = None
        ticket.victim = record
        ticket.on_duty = True
        self._seek(ticket, endpoint, now, True, woken)

    def _seek(self, ticket: Ticket, endpoint: Endpoint, now: float, front: bool, woken: Tickets) -> None:
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
            endpoint.waiters.push(ticket, front)
            expired = endpoint.idle.core.head or endpoint.idle.extra.head
            if endpoint.count >= self.max_size and expired is not None and endpoint.waiters.off_duty is not None:
                endpoint.idle.remove(expired)
                self._evict(expired, endpoint, woken)
            self._settle(endpoint, woken)

    def withdraw(self, ticket: Ticket) -> bool:
        """Stop waiting.

        :return: whether the ticket still waited; if not, it holds what its state says. Either way it may have a victim.
        """
        woken: Tickets = []
        answer = self._withdraw(ticket, woken)
        _wake(woken)
        return answer

    @critical
    def _withdraw(self, ticket: Ticket, woken: Tickets) -> bool:
        if ticket.state != WAITING or ticket.endpoint is None:
            return False
        ticket.state = NOTHING
        endpoint = ticket.endpoint
        endpoint.waiters.remove(ticket)
        self._settle(endpoint, woken)
        self._drop_unused(endpoint)
        return True

    def rest(self, ticket: Ticket) -> None:
        """The ticket's owner has had its victim taken care of elsewhere, and may be given another."""
        woken: Tickets = []
        self._rest(ticket, woken)
        _wake(woken)

    @critical
    def _rest(self, ticket: Ticket, woken: Tickets) -> None:
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
        if ticket.state != SLOT or endpoint is None:
            raise RuntimeError('the ticket holds no slot')
        record = Record(conn, now, now + self.max_lifetime)
        record.endpoint = endpoint
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
        woken: Tickets = []
        self._fail(ticket, woken)
        _wake(woken)

    @critical
    def _fail(self, ticket: Ticket, woken: Tickets) -> None:
        endpoint = ticket.endpoint
        if ticket.state != SLOT or endpoint is None:
            raise RuntimeError('the ticket holds no slot')
        ticket.state = NOTHING
        self._free_slot(endpoint, None, woken)

    @critical
    def transfer(self, ticket: Ticket, heir: Ticket) -> None:
        """Pass the slot that a ticket holds to a ticket that holds nothing."""
        if ticket.state != SLOT:
            raise RuntimeError('the ticket holds no slot')
        heir.endpoint = ticket.endpoint
        heir.state = SLOT
        ticket.state = NOTHING

    # -- releasing

    def find(self, conn: Any, key: Hashable) -> Optional[Record]:
        """The record of an acquired connection: of this very object or, if that is none of the pool's, of an equal one.

        :param conn: the connection
        :param key: its endpoint
        :return: the record, or ``None`` if the endpoint has not lent such a connection
        """
        for record in self._lent_as(conn):
            if record.endpoint is not None and (record.endpoint.key is key or record.endpoint.key == key):
                return record
        endpoint = self._find(key)
        if endpoint is None:
            return None
        for record in self._lent_by(endpoint, conn):
            if _equal(record.conn, conn):
                return record
        return None

    @critical
    def _lent_as(self, conn: Any) -> List[Record]:
        return self._lent.find(conn)

    @critical
    def _lent_by(self, endpoint: Endpoint, conn: Any) -> List[Record]:
        if any(record.conn is conn for record in endpoint.idle) or any(r.conn is conn for r in endpoint.lent):
            return []
        return [record for record in endpoint.lent if record.state == LENT]

    @critical
    def take_back(self, record: Record, loan: int) -> bool:
        """Begin a release: from now on nobody else can release this connection.

        :param record: the record of the connection
        :param loan: ``record.uses`` when it was acquired
        :return: whether this loan was still on
        """
        if record.state != LENT or record.uses != loan:
            return False
        self._lent.remove(record)
        record.state = RETURNING
        return True

    def give_back(self, record: Record, now: float) -> bool:
        """End a release: the connection goes to the oldest waiter, or becomes idle.

        :param record: the record of an acquired connection
        :param now: the time
        :return: ``False`` if the caller is to dispose of it instead
        """
        woken: Tickets = []
        answer = self._give_back(record, now, woken)
        _wake(woken)
        return answer

    @critical
    def _give_back(self, record: Record, now: float, woken: Tickets) -> bool:
        endpoint = self._end_loan(record)
        self._sequence += 1
        if self.closed or record.expires <= now:
            return self._doom(record, endpoint)
        rival = self._ring.head
        waiter = endpoint.waiters.head
        if waiter is not None:
            if rival is None or rival is endpoint or rival.bypassed < self._bypass_limit:
                if rival is not None and rival is not endpoint:
                    rival.bypassed += 1
                endpoint.waiters.remove(waiter)
                self._grant_connection(waiter, record)
                woken.append(waiter)
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
        self._ring.remove(rival)  # its turn is over: behind the others, if it needs more
        self._settle(rival, woken)
        return True

    @critical
    def discard(self, record: Record) -> None:
        """Take an acquired connection out of use: the caller is to dispose of it."""
        self._doom(record, self._end_loan(record))

    # -- disposing

    def disposed(self, record: Record, ticket: Optional[Ticket] = None) -> None:
        """A connection has been disposed of: its slot is free.

        :param record: its record
        :param ticket: the ticket whose victim it was, if its owner was the one to dispose of it
        """
        woken: Tickets = []
        self._disposed(record, ticket, woken)
        _wake(woken)

    @critical
    def _disposed(self, record: Record, ticket: Optional[Ticket], woken: Tickets) -> None:
        endpoint = record.endpoint
        if record.state != DISPOSING or endpoint is None:
            raise RuntimeError('the connection was not to be disposed of')
        record.state = GONE
        if ticket is not None:
            self._end_duty(ticket)
        beneficiary, record.beneficiary = record.beneficiary, None
        if beneficiary is not None:
            beneficiary.evicting -= 1
            if beneficiary is endpoint:
                beneficiary.own_evicting -= 1
        self._free_slot(endpoint, beneficiary, woken)

    def due(self, now: float) -> bool:
        """Whether a connection may be due: :meth:`next_due` tells for sure."""
        top = self._heap.top
        return top is not None and top <= now

    @critical
    def next_due(self, now: float) -> Optional[Record]:
        """An idle connection whose deadline has come, for the caller to dispose of; ``None`` if there is none."""
        if not self.due(now):
            return None
        record = self._heap.nearest()
        if record is None or record.deadline > now:
            return None
        assert record.endpoint is not None
        record.endpoint.idle.remove(record)
        self._doom(record, record.endpoint)
        return record

    @critical
    def set_alarm(self, ticket: Optional[Ticket]) -> Optional[float]:
        """Have a ticket woken as soon as something is due earlier than what is known now.

        :param ticket: the collector's, ``None`` for no more alarms
        :return: when the next connection may be due, ``None`` if none is idle
        """
        self._alarm = ticket
        top = self._heap.top
        self._alarm_at = float('inf') if top is None else top
        return top

    # -- closing

    def close(self) -> None:
        """Begin to close: who waits is told, nobody is served any more. Again does nothing."""
        woken: Tickets = []
        self._close(woken)
        _wake(woken)

    @critical
    def _close(self, woken: Tickets) -> None:
        self.closed = True
        for endpoint in self._endpoints:
            if endpoint.blocked:
                self._ring.remove(endpoint)
            while endpoint.waiters.head is not None:
                ticket = endpoint.waiters.head
                endpoint.waiters.remove(ticket)
                ticket.state = CLOSED
                woken.append(ticket)
            self._drop_unused(endpoint)
        if self._alarm is not None:
            woken.append(self._alarm)

    @critical
    def next_idle(self) -> Optional[Record]:
        """An idle connection of a closed pool, for the caller to dispose of; ``None`` if there is none."""
        record = self._heap.nearest()
        if record is not None and record.endpoint is not None:
            record.endpoint.idle.remove(record)
            self._doom(record, record.endpoint)
        return record

    @critical
    def next_lent(self) -> Optional[Record]:
        """An acquired connection of a closed pool, for the caller to dispose of although it is still in use."""
        for endpoint in self._endpoints:
            for record in endpoint.lent:
                if record.state == LENT:
                    self.forced = True
                    self._doom(record, self._end_loan(record))
                    return record
        return None

    def join(self, ticket: Ticket, excused: int) -> bool:
        """Wait for the pool to be empty.

        :param ticket: woken when it is
        :param excused: slots that cannot become free before the caller goes on, because it is in a hook of theirs
        :return: whether it is empty already; if not, :meth:`leave` ends the waiting
        """
        woken: Tickets = []
        answer = self._join(ticket, excused, woken)
        _wake(woken)
        return answer

    @critical
    def _join(self, ticket: Ticket, excused: int, woken: Tickets) -> bool:
        if self.total <= self._excused + excused:
            return True
        self._excused += excused
        self._closers.push(ticket, False)
        return False

    @critical
    def leave(self, ticket: Ticket, excused: int) -> None:
        """Wait no longer for the pool to be empty."""
        self._excused -= excused
        self._closers.remove(ticket)

    @property
    def drained(self) -> bool:
        """All slots are free but those that wait for the pool to be empty themselves."""
        return self.total <= self._excused

    # -- looking on

    def size(self, key: Hashable) -> int:
        """All slots of an endpoint that are in use."""
        endpoint = self._find(key)
        return 0 if endpoint is None else endpoint.count

    def idle_size(self, key: Hashable) -> int:
        """The idle connections of an endpoint."""
        endpoint = self._find(key)
        return 0 if endpoint is None else len(endpoint.idle)

    def lent_size(self, key: Hashable) -> int:
        """The acquired connections of an endpoint."""
        endpoint = self._find(key)
        return 0 if endpoint is None else endpoint.lent.count

    def waiting(self, key: Hashable) -> int:
        """How many wait for a connection of an endpoint."""
        endpoint = self._find(key)
        return 0 if endpoint is None else endpoint.waiters.count

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

    @critical
    def check_invariants(self) -> None:
        """For tests: raise an AssertionError if what the core keeps true is not."""
        check_invariants(self)

    # -- finding endpoints; no lock is held while keys are compared

    def _find(self, key: Hashable) -> Optional[Endpoint]:
        for endpoint in self._endpoints.bucket(hash(key)):
            if endpoint.key is key or endpoint.key == key:
                return endpoint
        return None

    def _find_or_make(self, key: Hashable) -> Endpoint:
        key_hash = hash(key)
        while True:
            bucket = self._endpoints.bucket(key_hash)
            for endpoint in bucket:
                if endpoint.key is key or endpoint.key == key:
                    return endpoint
            endpoint = Endpoint(key, key_hash)
            if self._insert(endpoint, bucket):
                return endpoint

    @critical
    def _insert(self, endpoint: Endpoint, bucket: Tuple[Endpoint, ...]) -> bool:
        return self._endpoints.insert(endpoint, bucket)

    # -- parts of operations; the lock is held

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

    def _end_loan(self, record: Record) -> Endpoint:
        if record.endpoint is None or record.state not in (LENT, RETURNING):
            raise RuntimeError('the connection is not acquired')
        if record.state == LENT:
            self._lent.remove(record)
        record.endpoint.lent.remove(record)
        return record.endpoint

    def _doom(self, record: Record, endpoint: Endpoint) -> bool:
        """A record that has left its list is to be disposed of. Returns False, which says so."""
        record.state = DISPOSING
        endpoint.reserved += 1
        self._heap.disarm(record)
        return False

    def _evict(self, record: Record, beneficiary: Endpoint, woken: Tickets) -> None:
        """Have a waiter of ``beneficiary`` dispose of a record that has left its list, for the sake of the slot."""
        assert record.endpoint is not None and beneficiary.waiters.off_duty is not None
        self._doom(record, record.endpoint)
        self._promise(record, beneficiary)
        ticket = beneficiary.waiters.off_duty
        beneficiary.waiters.go_on_duty(ticket, record)
        woken.append(ticket)

    def _promise(self, record: Record, beneficiary: Endpoint) -> None:
        """The slot of a doomed record will go to a waiter of ``beneficiary``, if there is one then."""
        record.beneficiary = beneficiary
        beneficiary.evicting += 1
        if beneficiary is record.endpoint:
            beneficiary.own_evicting += 1

    def _needs(self, endpoint: Endpoint) -> int:
        """How many more slots of others the waiters of an endpoint could use, were it not for the total limit."""
        if self.total < self.total_max_size:
            return 0
        room = self.max_size - endpoint.count + endpoint.own_evicting
        return min(endpoint.waiters.count, room) - endpoint.evicting

    def _settle(self, endpoint: Endpoint, woken: Tickets) -> None:
        """Evict what is idle for those whom only the total limit blocks; for want of it, they are in the ring."""
        while not self.closed and endpoint.waiters.off_duty is not None and self._needs(endpoint) > 0:
            record = self._heap.nearest()
            if record is None or record.endpoint is None:
                if not endpoint.blocked:
                    self._ring.append(endpoint)
                return
            record.endpoint.idle.remove(record)
            self._evict(record, endpoint, woken)
        if endpoint.blocked:
            self._ring.remove(endpoint)

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
                taker.waiters.remove(ticket)
                self._grant_slot(ticket, taker)
                woken.append(ticket)
                if taker.blocked:  # its turn is over
                    self._ring.remove(taker)
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
        rival = self._ring.head
        if not endpoint.waiters.count or endpoint.count >= self.max_size:
            return rival
        if rival is not None and rival is not endpoint:
            if rival.bypassed >= self._bypass_limit:
                return rival
            rival.bypassed += 1
        return endpoint

    def _arm(self, record: Record, woken: Tickets) -> None:
        self._heap.arm(record)
        if record.deadline < self._alarm_at and self._alarm is not None:
            self._alarm_at = record.deadline
            woken.append(self._alarm)

    def _wake_closers(self, woken: Tickets) -> None:
        if self.total <= self._excused:
            ticket = self._closers.head
            while ticket is not None:
                woken.append(ticket)
                ticket = ticket.next

    def _drop_unused(self, endpoint: Endpoint) -> None:
        if not endpoint.removed and endpoint.unused:
            self._endpoints.remove(endpoint)


def _equal(one: object, other: object) -> bool:
    try:
        return bool(one == other)
    except Exception:  # connections are told apart by identity: one whose __eq__ fails is no other's equal
        return False


def _wake(woken: Tickets) -> None:
    for ticket in woken:
        ticket.wake()
