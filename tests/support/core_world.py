"""One core under random operations: what is done to it, and a record of who has what, kept without asking the core."""

from typing import Any, Dict, List, Optional

from support.core_desk import Client, Conn, Desk
from support.core_twins import Twin

__all__ = ('EqualConn', 'Entry', 'Key', 'Limits', 'World')


class Key:
    """An endpoint's key: equal to others of its name but never the same object, and all of them collide."""

    def __init__(self, name: str):
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and other.name == self.name

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return self.name


class EqualConn(Conn):
    """A connection that equals all others of its kind and cannot be hashed."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EqualConn)


class Limits:
    """Those of a core."""

    def __init__(self, min_idle: int, max_size: int, total_max_size: int, idle_timeout: float, max_lifetime: float):
        self.min_idle = min_idle
        self.max_size = max_size
        self.total_max_size = total_max_size
        self.idle_timeout = idle_timeout
        self.max_lifetime = max_lifetime

    def __repr__(self) -> str:
        return f'Limits({", ".join(map(str, vars(self).values()))})'


class Entry:
    """What the world knows of a connection from what was done with it.

    :param serial: the how-manieth connection of the world it is
    :param record: its record
    :param key: the name of its endpoint
    :param expires: when its lifetime is over
    """

    def __init__(self, serial: int, record: Any, key: str, expires: float):
        self.serial = serial
        self.record = record
        self.key = key
        self.expires = expires
        #: held, returning, returned (where to, the ledger finds out), idle, doomed (to be disposed of) or gone
        self.place = 'held'
        #: the number of the client that has it
        self.holder: Optional[int] = None
        #: doomed although it was held
        self.forced = False
        self.extra = False
        self.deadline = expires
        #: counts releases
        self.released = 0
        #: whose victim it is: the name of the endpoint, and the owner of the ticket while he is the one to dispose of it
        self.sacrificed_for: Optional[str] = None
        self.disposer: Optional[Client] = None

    def __repr__(self) -> str:
        return f'#{self.serial} of {self.key} ({self.place}, deadline {self.deadline})'


class World:
    """A core, its clients and its connections; each method is one operation and returns what can be compared.

    :param twin: the implementation
    :param limits: the core's
    :param names: of the endpoints
    """

    def __init__(self, twin: Twin, limits: Limits, names: List[str]):
        self.limits = limits
        self.names = names
        self.desk = Desk(twin, **vars(limits))
        self.core = self.desk.core
        self.clients: Dict[int, Client] = {}
        self.entries: Dict[Any, Entry] = {}
        #: when each client came, and which of them wait for the pool to be empty, with what excuse
        self.arrivals: Dict[int, int] = {}
        self.joined: Dict[int, int] = {}
        #: who is to be woken before something is due, and by when he wakes up by himself
        self.alarm: Optional[Client] = None
        self.alarm_at: Optional[float] = None
        self.alarm_wakes = 0
        self.releases = 0

    @property
    def now(self) -> float:
        return self.desk.now

    def client(self, number: int) -> Client:
        """An existing or a new one."""
        if number not in self.clients:
            client = self.desk.client(number)
            client.ticket = self.desk.new_ticket(client._notified, number)
            self.clients[number] = client
        return self.clients[number]

    def key_of(self, client: Client) -> str:
        return str(client.key)

    def serial(self, record: Optional[Any]) -> Optional[int]:
        return None if record is None else self.entries[record].serial

    def entry(self, serial: int) -> Entry:
        return next(entry for entry in self.entries.values() if entry.serial == serial)

    def live(self, key: Optional[str] = None, place: Optional[str] = None) -> List[Entry]:
        """The connections that are not gone yet."""
        return [
            entry
            for entry in self.entries.values()
            if entry.place != 'gone' and key in (None, entry.key) and place in (None, entry.place)
        ]

    def in_state(self, state: str, key: Optional[str] = None) -> List[Client]:
        return [c for c in self.clients.values() if c.state == state and key in (None, str(c.key))]

    def slots(self, key: Optional[str] = None) -> int:
        """Slots in use."""
        return len(self.live(key)) + len(self.in_state('slot', key))

    def sacrifices(self, key: str) -> List[Entry]:
        """Connections that are being disposed of for the sake of an endpoint's waiters."""
        return [entry for entry in self.live(place='doomed') if entry.sacrificed_for == key]

    def idle_in_order(self, key: str) -> List[Entry]:
        """The idle connections of an endpoint in the order in which they are to be taken."""
        idle = sorted(self.live(key, 'idle'), key=lambda entry: entry.released)
        return [entry for entry in idle if not entry.extra] + [entry for entry in reversed(idle) if entry.extra]

    def held(self, number: int) -> Any:
        """The record that a client holds."""
        client = self.clients[number]
        return client.record if client.record is not None else client.ticket.record

    # -- acquiring

    def take(self, number: int, name: str) -> Optional[int]:
        client = self.client(number)
        client.take(Key(name))
        return self.serial(client.record)

    def request(self, number: int, name: str) -> None:
        self.arrivals[number] = len(self.arrivals)
        self.client(number).request(Key(name))

    def withdraw(self, number: int) -> bool:
        return self.clients[number].withdraw()

    def create(self, number: int, conn: Conn) -> bool:
        client = self.clients[number]
        answer = client.create(conn)
        record = client.ticket.record
        assert record not in self.entries
        entry = Entry(len(self.entries), record, str(client.key), self.now + self.limits.max_lifetime)
        self.entries[record] = entry
        if not answer:
            entry.place = 'doomed'
            del self.clients[number]
        return answer

    def fail(self, number: int) -> None:
        self.clients[number].fail()

    def transfer(self, number: int, heir: int) -> None:
        giver, taker = self.clients[number], self.client(heir)
        taker.key, taker.is_heir = giver.key, True
        self.arrivals[heir] = self.arrivals[number]
        self.core.transfer(giver.ticket, taker.ticket)

    def replace(self, number: int) -> None:
        self.clients[number].replace()

    # -- victims, and other connections to be disposed of

    def pick_up(self, number: int) -> Optional[int]:
        """The owner of a ticket takes over its victim."""
        client = self.clients[number]
        record = client.ticket.take_victim()
        if record is not None:
            self.entries[record].disposer = client
        return self.serial(record)

    def rest(self, number: int) -> None:
        """The owner of a ticket has had its victim taken over by somebody else."""
        client = self.clients[number]
        for entry in self.entries.values():
            if entry.disposer is client:
                entry.disposer = None
        self.core.rest(client.ticket)

    def dispose(self, serial: int) -> None:
        entry = self.entry(serial)
        disposer, entry.disposer = entry.disposer, None
        entry.place = 'gone'
        self.core.disposed(entry.record, None if disposer is None else disposer.ticket)

    def next_due(self) -> Optional[int]:
        nearest = min(self.live(place='idle'), key=lambda entry: (entry.deadline, entry.released), default=None)
        if nearest is not None and nearest.deadline > self.now:
            nearest = None
        assert nearest is None or self.core.due(self.now), f'{nearest} is due'
        record = self.core.next_due(self.now)
        assert (nearest and nearest.record) is record, f'{record} is due instead of {nearest}'
        return self._doomed(record)

    def next_idle(self) -> Optional[int]:
        record = self.core.next_idle()
        assert record is not None or not self.live(place='idle'), 'an idle connection is forgotten'
        return self._doomed(record)

    def all_lent(self) -> List[Optional[int]]:
        """All acquired connections of the closed pool, to be disposed of; in which order, the core does not promise."""
        serials = []
        record = self.core.next_lent()
        while record is not None:
            assert self.entries[record].place in ('held', 'returning'), f'{self.entries[record]} is not acquired'
            self.entries[record].forced = True
            serials.append(self._doomed(record))
            record = self.core.next_lent()
        assert not self.live(place='held') + self.live(place='returning'), 'an acquired connection is forgotten'
        return sorted(serials, key=str)

    def _doomed(self, record: Optional[Any]) -> Optional[int]:
        if record is not None:
            self.entries[record].place = 'doomed'
        return self.serial(record)

    # -- releasing

    def find(self, conn: Conn, name: str) -> Optional[int]:
        return self.serial(self.core.find(conn, Key(name)))

    def begin_release(self, number: int, loans_ago: int) -> bool:
        record = self.held(number)
        answer: bool = self.core.take_back(record, record.uses - loans_ago)
        if answer:
            self.entries[record].place = 'returning'
        return answer

    def end_release(self, number: int) -> bool:
        """The holder gives the connection back, after its release has begun or (an acquire that failed) before."""
        entry = self.entries[self.held(number)]
        self.releases += 1
        entry.released = self.releases
        del self.clients[number]
        entry.holder = None
        answer: bool = self.core.give_back(entry.record, self.now)
        if not entry.forced:
            entry.place = 'returned' if answer else 'doomed'
        return answer

    def discard(self, number: int) -> bool:
        entry = self.entries[self.held(number)]
        del self.clients[number]
        entry.holder = None
        answer: bool = self.core.discard(entry.record)
        if not entry.forced:
            entry.place = 'doomed'
        return answer

    def forget(self, number: int) -> None:
        """A client goes away that has nothing (any more)."""
        del self.clients[number]

    def outdate(self) -> None:
        """All connections that are acquired now are too old from now on."""
        self.core.outdate()
        for entry in self.live(place='held') + self.live(place='returning'):
            entry.expires = float('-inf')

    # -- closing and looking on

    def close_all(self) -> None:
        """Close the pool. Which endpoint's clients are told first, the core does not promise."""
        self.core.close()
        self.desk.woken.sort(key=lambda number: str(self.clients[number].key))

    def join(self, number: int, excused: int) -> bool:
        client = self.client(number)
        answer: bool = self.core.join(client.ticket, excused)
        if not answer:
            self.joined[number] = excused
            client.wakes = 0
        return answer

    def leave(self, number: int) -> None:
        self.core.leave(self.clients[number].ticket, self.joined.pop(number))

    def set_alarm(self, number: Optional[int]) -> Optional[float]:
        self.alarm = None if number is None else self.client(number)
        self.alarm_at = self.core.set_alarm(None if self.alarm is None else self.alarm.ticket)
        if self.alarm is not None:
            self.alarm.wakes = 0
        return self.alarm_at
