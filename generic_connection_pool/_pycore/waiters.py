"""Who waits: tickets, their queue at each endpoint, and the rings of endpoints that the total limit blocks."""

from typing import TYPE_CHECKING, Any, Callable, Optional

from .lock import Parker
from .record import Record

if TYPE_CHECKING:
    from .endpoint import Endpoint

__all__ = ('CLOSED', 'CONNECTION', 'NOTHING', 'SLOT', 'WAITING', 'Ring', 'Ticket', 'WaitQueue')

#: the ticket holds nothing and waits for nothing
NOTHING = 0
#: the ticket is in the queue of its endpoint
WAITING = 1
#: the ticket holds a connection: :attr:`Ticket.record`
CONNECTION = 2
#: the ticket holds a slot, in which its owner is to create a connection
SLOT = 3
#: the pool was closed
CLOSED = 4


class Ticket:
    """One caller's request, and what it was granted. The core changes it, in one step with its own state.

    Whatever goes wrong in the caller, the ticket tells what has to be given back.

    :param holder: identifier of the thread that asks
    :param notify: called without any lock when the ticket's state changed or it got a victim; without it, the owner
        sleeps in :meth:`wait`
    """

    __slots__ = (
        'holder', 'endpoint', 'state', 'record', 'dirty', 'victim', 'on_duty', 'order', 'prev', 'next', 'notify',
        'core', 'queue', '_parker',
    )  # fmt: skip

    def __init__(self, holder: int = 0, notify: Optional[Callable[[], Any]] = None):
        if hasattr(self, 'queue'):
            raise RuntimeError('the ticket is in use')
        self.holder = holder
        self.endpoint: Optional['Endpoint'] = None
        self.state = NOTHING
        #: the connection granted
        self.record: Optional[Record] = None
        #: the owner has begun something with the connection that leaves it unfit for others unless it ends well
        self.dirty = False
        #: a connection that the owner is to dispose of, so that a slot becomes free
        self.victim: Optional[Record] = None
        #: its owner disposes of a victim, or was told to
        self.on_duty = False
        #: when it arrived, counted in requests to the pool: its place in the queue
        self.order = 0
        #: serial number of the core that it asked, 0 for none
        self.core = 0
        #: the queue that it is in
        self.queue: Optional[WaitQueue] = None
        self.prev: Optional[Ticket] = None
        self.next: Optional[Ticket] = None
        self.notify = notify
        self._parker = Parker() if notify is None else None

    @property
    def free(self) -> bool:
        """Whether it may be used for another request."""
        return self.queue is None and self.state != SLOT and self.record is None

    def wait(self, timeout: Optional[float] = None) -> bool:
        """Sleep until the core has something to tell; what it is, ``state`` and ``victim`` say.

        :param timeout: seconds to sleep at the most, ``None`` for no bound
        :return: whether it was woken
        """
        if self._parker is None:
            raise RuntimeError('this ticket has a notify callback and cannot be waited for')
        return self._parker.park(timeout)

    def wake(self) -> None:
        """Tell the owner. Called without any lock."""
        if self._parker is not None:
            self._parker.unpark()
        elif self.notify is not None:
            self.notify()

    def take_victim(self) -> Optional[Record]:
        """Take over the duty to dispose of the victim; ``None`` if there is none (any more)."""
        victim, self.victim = self.victim, None
        return victim

    def revoke(self) -> None:
        """Take away whatever the ticket waits for or holds: that is of the process that this one was forked from."""
        self.state = CLOSED
        self.endpoint = self.record = self.victim = None


class WaitQueue:
    """The tickets that wait at one endpoint, first come, first served. Unlinking is O(1)."""

    __slots__ = ('head', 'tail', 'count', 'off_duty')

    def __init__(self) -> None:
        self.head: Optional[Ticket] = None
        self.tail: Optional[Ticket] = None
        self.count = 0
        #: the first ticket that is not on duty: the next to be told to dispose of a victim
        self.off_duty: Optional[Ticket] = None

    def __len__(self) -> int:
        return self.count

    def push(self, ticket: Ticket) -> None:
        """Enqueue a ticket by its order: behind all others, unless it had been served before (in vain)."""
        before = self.tail
        if before is not None and ticket.order < before.order:
            before = self.head  # all that had been served before are at the front
            while before is not None and before.order < ticket.order:
                before = before.next
            before = before.prev if before is not None else self.tail
        ticket.queue = self
        ticket.prev = before
        ticket.next = self.head if before is None else before.next
        if before is None:
            self.head = ticket
        else:
            before.next = ticket
        if ticket.next is None:
            self.tail = ticket
        else:
            ticket.next.prev = ticket
        self.count += 1
        if not ticket.on_duty:
            self.come_off_duty(ticket)

    def remove(self, ticket: Ticket) -> None:
        """Unlink a ticket that is in this queue."""
        before, after = ticket.prev, ticket.next
        if self.off_duty is ticket:
            self._pass_duty(after)
        if before is None:
            self.head = after
        else:
            before.next = after
        if after is None:
            self.tail = before
        else:
            after.prev = before
        ticket.prev = ticket.next = ticket.queue = None
        self.count -= 1

    def go_on_duty(self, ticket: Ticket, victim: Record) -> None:
        """Give a ticket of this queue a victim to dispose of."""
        ticket.on_duty = True
        ticket.victim = victim
        if self.off_duty is ticket:
            self._pass_duty(ticket.next)

    def come_off_duty(self, ticket: Ticket) -> None:
        """A ticket of this queue has disposed of its victim and may be given another."""
        ticket.on_duty = False
        if self.off_duty is None or ticket.order < self.off_duty.order:
            self.off_duty = ticket

    def _pass_duty(self, ticket: Optional[Ticket]) -> None:
        while ticket is not None and ticket.on_duty:
            ticket = ticket.next
        self.off_duty = ticket


class Ring:
    """Endpoints that are served in turn."""

    __slots__ = ('head', 'tail')

    def __init__(self) -> None:
        self.head: Optional['Endpoint'] = None
        self.tail: Optional['Endpoint'] = None

    def append(self, endpoint: 'Endpoint') -> None:
        """Put an endpoint that is in no ring behind all others."""
        endpoint.ring = self
        endpoint.bypassed = 0
        endpoint.ring_prev = self.tail
        endpoint.ring_next = None
        if self.tail is None:
            self.head = endpoint
        else:
            self.tail.ring_next = endpoint
        self.tail = endpoint

    def remove(self, endpoint: 'Endpoint') -> None:
        """Take out an endpoint that is in this ring."""
        before, after = endpoint.ring_prev, endpoint.ring_next
        if before is None:
            self.head = after
        else:
            before.ring_next = after
        if after is None:
            self.tail = before
        else:
            after.ring_prev = before
        endpoint.ring = endpoint.ring_prev = endpoint.ring_next = None
