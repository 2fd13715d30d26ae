"""One core, the threads that use it, and an account of who has what that is kept without asking the core.

What the core promises is stated here once more, in the account's own terms, and looked at after each operation. It is
the same that :mod:`support.core_ledger` states, cut down to what a run of a few operations can meet: there are some
hundred thousand of them.
"""

from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from support.core_twins import Twin

__all__ = ('Account', 'Conn', 'Limits', 'Party')

WAITING, CONNECTION, SLOT, CLOSED = 1, 2, 3, 4  # the same in both twins, see tests/core/test_twins.py


class Limits(NamedTuple):
    """Those of a core. All idle connections are extras (``min_idle=0``) or none is (the default)."""

    max_size: int
    total_max_size: int = 100
    min_idle: int = 100
    idle_timeout: float = 10.0
    max_lifetime: float = 1000.0


class Conn:
    """A connection, and what the account says of it."""

    __slots__ = ('name', 'key', 'expires', 'deadline', 'place', 'holder', 'promised_to', 'record')

    def __init__(self, name: str, key: str, expires: float):
        self.name = name
        self.key = key
        self.expires = expires
        self.deadline = expires
        #: held, returned (where to, :meth:`Account.settle` finds out), idle, doomed (to be disposed of) or gone
        self.place = 'held'
        self.holder: Optional['Party'] = None
        #: the endpoint for whose waiters it is disposed of
        self.promised_to: Optional[str] = None
        self.record: Any = None

    def __repr__(self) -> str:
        return f'<{self.name} of {self.key}, {self.place}>'


class Party:
    """Who asks the core: one ticket at a time, and what became of it."""

    def __init__(self, account: 'Account', name: str):
        self.account = account
        self.name = name
        self.key = ''
        self.ticket: Any = None
        #: the connection in use, and which of its loans this is
        self.conn: Optional[Conn] = None
        self.loan = 0
        #: has been woken, and has not noticed yet
        self.woken = False
        #: place among all requests
        self.arrival = 0
        self.made = 0
        # what the account knew after the last operation
        self.state = 0
        self.victim: Any = None

    def __repr__(self) -> str:
        return f'<{self.name}: {self.key} {self.state}>'

    def new_ticket(self) -> None:
        self.ticket = self.account.new_ticket(self.wake)
        self.state, self.victim, self.woken = 0, None, False

    def wake(self) -> None:
        self.woken = True


class Account:
    """The core and the account.

    :param twin: the implementation
    :param limits: the core's
    """

    def __init__(self, twin: Twin, limits: Limits):
        self.limits = limits
        self.core = twin.get('core', 'Core')(
            limits.min_idle, limits.max_size, limits.total_max_size, limits.idle_timeout, limits.max_lifetime
        )
        self._ticket_class = twin.get('waiters', 'Ticket')
        self.now = 0.0
        self.parties: List[Party] = []
        #: connections that are not gone
        self.conns: List[Conn] = []
        self.disposals = 0
        self.creations = 0
        self.arrivals = 0
        self.closed = False
        self.forced = False
        #: hand-offs to other endpoints while an endpoint was blocked by the total limit alone, and the most there were
        self.bypassed: Dict[str, int] = {}
        self.most_bypassed = 0
        self.granted: List[Party] = []
        #: connections of which others than their users know, and by which loan they are used
        self.shared: List[Tuple[Conn, int]] = []
        #: the collector that sleeps, and by when it wakes up by itself
        self.alarm: Optional[Party] = None
        self.alarm_at = 0.0

    def new_ticket(self, notify: Any) -> Any:
        return self._ticket_class(0, notify)

    # -- what is written down

    def created(self, party: Party) -> Conn:
        party.made += 1
        self.creations += 1
        conn = Conn(f'{party.name}{party.made}', party.key, self.now + self.limits.max_lifetime)
        self.conns.append(conn)
        return conn

    def doomed(self, record: Any) -> Any:
        """Somebody was given a connection to dispose of."""
        conn: Conn = record.conn
        assert conn.place not in ('doomed', 'gone'), f'{conn} is to be disposed of a second time'
        conn.place, conn.holder = 'doomed', None
        return record

    def gone(self, record: Any) -> None:
        """Somebody is about to dispose of a connection."""
        conn: Conn = record.conn
        assert conn.place == 'doomed', f'{conn} is disposed of, but nobody was told to'
        conn.place = 'gone'
        self.conns.remove(conn)
        self.disposals += 1

    def lent(self, party: Party, record: Any) -> None:
        """A party was given a connection to use."""
        conn: Conn = record.conn
        assert conn.holder is None, f'{conn}, which {conn.holder} has, was given to {party}'
        assert conn.key == party.key, f'{conn} was given to {party}'
        assert conn.place in ('held', 'idle', 'returned'), f'{conn} was given to {party}'
        deadline = conn.deadline if conn.place == 'idle' else conn.expires
        assert conn.place == 'held' or deadline > self.now, f'{conn} was given to {party} though its time has come'
        conn.place, conn.holder = 'held', party
        party.conn, party.loan, conn.record = conn, record.uses, record

    def settle(self, actor: Optional[Party]) -> None:
        """Write down what the operation of ``actor`` has done to everybody."""
        granted = self.granted
        granted.clear()
        for party in self.parties:
            ticket = party.ticket
            if ticket is None:
                continue
            before, state = party.state, ticket.state
            news = before == WAITING and state != WAITING
            if state != before or state == CONNECTION:
                party.state = state
                if state == CONNECTION and party.conn is None and ticket.record is not None:
                    self.lent(party, ticket.record)
                    if before != SLOT:
                        granted.append(party)
                elif state == SLOT and before != SLOT:
                    granted.append(party)
            victim = ticket.victim
            if victim is not party.victim:
                if victim is not None:
                    news = True
                    assert victim.conn.place in ('idle', 'returned'), f'{victim.conn} cannot be a victim'
                    self.doomed(victim).conn.promised_to = party.key
                party.victim = victim
            assert not news or party is actor or party.woken, f'{party} was not woken'
        if granted:
            self._check_grants()
        if self.bypassed:
            waiting = {party.key for party in self.parties if party.state == WAITING}
            self.bypassed = {key: count for key, count in self.bypassed.items() if key in waiting}
        for conn in self.conns:
            if conn.place == 'returned':
                conn.place = 'idle'
                conn.deadline = conn.expires
                if not self.limits.min_idle:
                    conn.deadline = min(conn.expires, self.now + self.limits.idle_timeout)

    # -- the promises

    def _check_grants(self) -> None:
        """First come, first served within an endpoint; and how often others had to let somebody pass."""
        waiting = [party for party in self.parties if party.state == WAITING]
        for party in self.granted:
            assert not self.closed, f'{party} was served by a closed pool'
            for other in waiting:
                assert other.key != party.key or other.arrival > party.arrival, f'{party} was served before {other}'
            for key in {other.key for other in waiting if other.key != party.key}:
                self.bypassed[key] = self.bypassed.get(key, 0) + 1
                self.most_bypassed = max(self.most_bypassed, self.bypassed[key])
            self.bypassed.pop(party.key, None)

    def check(self) -> None:
        """All that the core promises after an operation."""
        self.core.check_invariants()
        limits = self.limits
        waiting: Dict[str, List[Party]] = {}
        size: Dict[str, int] = {}
        promised: Dict[str, int] = {}
        own: Dict[str, int] = {}
        idle = []
        total = 0
        for conn in self.conns:
            total += 1
            key = conn.key
            size[key] = size.get(key, 0) + 1
            if conn.place == 'idle':
                idle.append(conn)
            elif conn.place == 'doomed' and conn.promised_to is not None:
                promised[conn.promised_to] = promised.get(conn.promised_to, 0) + 1
                if conn.promised_to == key:
                    own[key] = own.get(key, 0) + 1
        for party in self.parties:
            if party.state == WAITING:
                waiting.setdefault(party.key, []).append(party)
            elif party.state == SLOT:
                total += 1
                size[party.key] = size.get(party.key, 0) + 1
        assert self.core.total == total <= limits.total_max_size, f'{self.core.total} slots are in use, not {total}'
        for key, count in size.items():
            assert self.core.size(key) == count <= limits.max_size, f'{key} has not {count} slots'
        assert not (self.closed and waiting), 'somebody waits for a closed pool'
        for key, parties in waiting.items():
            used, coming = size.get(key, 0), promised.get(key, 0)
            fit = [conn for conn in idle if conn.key == key and conn.deadline > self.now]
            assert not fit, f'{parties} wait for {key}, which has {fit} idle'
            assert used == limits.max_size or total == limits.total_max_size, f'{parties} wait, a slot is free'
            if len(parties) > coming:
                assert not [conn for conn in idle if conn.key == key], f'{parties} wait, what is idle could make room'
            if min(len(parties), limits.max_size - used + own.get(key, 0)) > coming:
                assert not idle, f'{parties} wait for {key}, {idle} could be evicted'
        if self.alarm is not None and not self.alarm.woken:
            late = [conn for conn in idle if conn.deadline < self.alarm_at]
            assert not late and not self.closed, f'{self.alarm} oversleeps {late}'

    def check_end(self) -> None:
        """Everybody has ended: whatever is idle is disposed of, and nothing may be left."""
        assert all(conn.place == 'idle' for conn in self.conns), f'{self.conns} were forgotten'
        record = self.core.next_idle()
        while record is not None:
            self.gone(self.doomed(record))
            self.core.disposed(record)
            record = self.core.next_idle()
        self.core.check_invariants()
        assert not self.conns, f'{self.conns} were not disposed of'
        assert self.disposals == self.creations
        assert self.core.total == 0
        assert list(self.core.endpoints()) == []
