"""Clients of one core and a fake clock, so that a test reads as a story. No manager, no thread: the core alone."""

from typing import Any, Dict, Hashable, List, Optional

from support.core_twins import Twin

__all__ = ('Client', 'Conn', 'Desk')


class Conn:
    """A connection with a name."""

    def __init__(self, name: object):
        self.name = name

    def __repr__(self) -> str:
        return f'<Conn {self.name}>'


class Client:
    """Somebody who wants a connection: the owner of one ticket.

    :param desk: where it asks
    :param name: what tells it from others
    """

    def __init__(self, desk: 'Desk', name: Any):
        self.desk = desk
        self.name = name
        self.ticket = desk.new_ticket(self._notified)
        self.key: Hashable = None
        #: the connection that it holds as a user
        self.record: Optional[Any] = None
        self.loan = 0
        #: somebody else's slot was passed on to it
        self.is_heir = False
        #: how often it was notified
        self.wakes = 0

    def __repr__(self) -> str:
        return f'<Client {self.name} of {self.key!r}: {self.state}>'

    def _notified(self) -> None:
        self.wakes += 1
        self.desk.woken.append(self.name)

    @property
    def state(self) -> str:
        return self.desk.state_names[self.ticket.state]

    @property
    def victim(self) -> Optional[Any]:
        return self.ticket.victim

    @property
    def waits(self) -> bool:
        return self.state == 'waiting'

    # -- acquiring

    def take(self, key: Hashable) -> bool:
        """The fast path: an idle connection or none."""
        self.key = key
        self.record = self.desk.core.take(key, self.desk.now, 0)
        if self.record is None:
            return False
        self.loan = self.record.uses
        return True

    def request(self, key: Hashable) -> 'Client':
        self.key = key
        self.desk.core.request(self.ticket, key, self.desk.now)
        return self

    def withdraw(self) -> bool:
        answer: bool = self.desk.core.withdraw(self.ticket)
        return answer

    def create(self, conn: Optional[Any] = None) -> bool:
        """Put a connection in the slot granted."""
        conn = Conn(self.name) if conn is None else conn
        answer: bool = self.desk.core.fulfil(self.ticket, conn, self.desk.now)
        return answer

    def fail(self) -> None:
        self.desk.core.fail(self.ticket)

    def replace(self) -> None:
        self.desk.core.replace(self.ticket, self.desk.now)

    def accept(self) -> 'Client':
        """Become the user of the connection granted."""
        assert self.state == 'connection', self
        self.record = self.ticket.record
        assert self.record is not None
        self.loan = self.record.uses
        return self

    def dispose_of_victim(self) -> Any:
        """Close the victim, as its owner does, then and there."""
        record = self.ticket.take_victim()
        assert record is not None, f'{self} has no victim'
        self.desk.core.disposed(record, self.ticket)
        return record

    # -- releasing

    def begin_release(self) -> bool:
        assert self.record is not None
        answer: bool = self.desk.core.take_back(self.record, self.loan)
        return answer

    def release(self) -> bool:
        """Give the connection back. Returns what the core says: ``False``, it is to be disposed of."""
        assert self.begin_release(), f'{self} did not hold its connection'
        answer: bool = self.desk.core.give_back(self.record, self.desk.now)
        return answer

    def scrap(self) -> None:
        """Have the connection disposed of instead of given back."""
        self.desk.core.discard(self.record)
        self.desk.core.disposed(self.record)


class Desk:
    """One core, its clients, and the time.

    :param twin: the implementation
    :param limits: those of the core that matter to the test
    """

    def __init__(
        self,
        twin: Twin,
        *,
        min_idle: int = 1,
        max_size: int = 10,
        total_max_size: int = 100,
        idle_timeout: float = 60.0,
        max_lifetime: float = 3600.0,
    ):
        self.twin = twin
        self.core = twin.get('core', 'Core')(min_idle, max_size, total_max_size, idle_timeout, max_lifetime)
        names = ('NOTHING', 'WAITING', 'CONNECTION', 'SLOT', 'CLOSED')
        self.state_names: Dict[int, str] = {twin.get('waiters', name): name.lower() for name in names}
        self.now = 0.0
        #: names of those that were notified, in this order
        self.woken: List[Any] = []
        self._ticket_class = twin.get('waiters', 'Ticket')

    def new_ticket(self, notify: Any = None, holder: int = 0) -> Any:
        return self._ticket_class(holder, notify or (lambda: None))

    def client(self, name: object = 'somebody') -> Client:
        return Client(self, name)

    def request(self, key: Hashable, name: object = 'somebody') -> Client:
        return self.client(name).request(key)

    def user(self, key: Hashable, conn: Optional[Any] = None, name: object = 'somebody') -> Client:
        """A client that has got a connection at once: an idle one or, if there is none, a new one."""
        client = self.request(key, name)
        if client.state == 'slot':
            client.create(conn)
        return client.accept()

    def idle(self, key: Hashable, count: int = 1) -> List[Any]:
        """So many new connections, idle. Returns their records."""
        users = []
        for _ in range(count):
            user = self.request(key)
            assert user.state == 'slot', user
            user.create()
            users.append(user.accept())
        for user in users:
            assert user.release(), f'{user}: not idle'
        return [user.record for user in users]

    def dispose_due(self) -> List[Any]:
        """What the collector does: dispose of all that is due. Returns the records in this order."""
        records = []
        record = self.core.next_due(self.now)
        while record is not None:
            self.core.disposed(record)
            records.append(record)
            record = self.core.next_due(self.now)
        return records

    def check(self) -> None:
        self.core.check_invariants()

    def assert_empty(self) -> None:
        """Nothing is left behind."""
        self.check()
        assert self.core.total == 0
        assert list(self.core.endpoints()) == []
