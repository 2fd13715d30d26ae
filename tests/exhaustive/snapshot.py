"""What a state of a run is: what everybody can see of it, and everything there is to it."""

from typing import TYPE_CHECKING, Any, Dict, Hashable, Iterator, List

from exhaustive.account import Conn

if TYPE_CHECKING:
    from exhaustive.explore import Run

__all__ = ('inside', 'outside')

PLAIN = (int, float, str, type(None))


def outside(run: 'Run') -> Hashable:
    """The programs, the tickets and the connections. The same for both implementations."""
    account = run.account
    return (
        account.now,
        account.closed,
        tuple([outside_of(thread) for thread in run.threads]),
        tuple(sorted([(conn.name, conn.place, conn.deadline, conn.expires) for conn in account.conns])),
    )


def outside_of(thread: Any) -> Hashable:
    ticket = thread.ticket
    return (
        position(thread.steps),
        thread.woken,
        thread.state,
        None if thread.conn is None else thread.conn.name,
        None if ticket is None or ticket.victim is None else ticket.victim.conn.name,
        ticket is not None and ticket.on_duty,
        tuple([record.conn.name for record in thread.bin]),
    )


def position(steps: Any) -> Hashable:
    """Where a program is: the lines at which it and the steps that it is made of have stopped."""
    found = []
    while steps is not None and steps.gi_frame is not None:
        found.append(steps.gi_frame.f_lineno)
        steps = steps.gi_yieldfrom
    return tuple(found)


def inside(run: 'Run') -> Hashable:
    """Everything that decides what may follow, with the internals of the pure core. Of numbers that only ever tell what
    comes first, their order is enough.
    """
    account, core = run.account, run.account.core
    endpoints = sorted(core._endpoints, key=lambda endpoint: str(endpoint.key))
    entries = core._heap._entries
    records = [conn.record or run_ticket(run, conn).record for conn in account.conns]
    waiting = {id(thread.ticket): thread.name for thread in run.threads if thread.ticket is not None}
    orders = sorted({ticket.order for endpoint in endpoints for ticket in chain(endpoint.waiters.head)})
    sequences = sorted({record.sequence for record in records} | {entry[1] for entry in entries})
    return (
        outside(run),
        (core.total, core.closed, core.forced, core._excused, core._alarm is None, core._alarm_at),
        tuple([(t.seen, t.loan, t.made, memory(t.steps), place(t.ticket, orders)) for t in run.threads]),
        tuple(sorted([
            (r.conn.name, r.state, r.uses, r.expires, r.deadline, sequences.index(r.sequence)) for r in records
        ])),
        tuple([(entry[0], sequences.index(entry[1]), entry[2].conn.name) for entry in entries]),
        tuple([inside_of(endpoint, waiting) for endpoint in endpoints]),
        tuple([tuple([e.key for e in chain(ring.head, 'ring_next')]) for ring in (core._needy, core._covered)]),
        tuple([waiting[id(ticket)] for ticket in chain(core._closers.head)]),
        tuple(sorted(account.bypassed.items())),
    )  # fmt: skip


def run_ticket(run: 'Run', conn: Conn) -> Any:
    """The ticket of whoever has just created a connection for a closed pool."""
    tickets = [thread.ticket for thread in run.threads if thread.ticket is not None]
    return next(ticket for ticket in tickets if ticket.record is not None and ticket.record.conn is conn)


def inside_of(endpoint: Any, waiting: Dict[int, str]) -> Hashable:
    off_duty = endpoint.waiters.off_duty
    return (
        endpoint.key,
        tuple([record.conn.name for record in chain(endpoint.idle.core.head)]),
        tuple([record.conn.name for record in chain(endpoint.idle.extra.head)]),
        tuple([record.conn.name for record in chain(endpoint.lent.head)]),
        tuple([waiting[id(ticket)] for ticket in chain(endpoint.waiters.head)]),
        None if off_duty is None else waiting[id(off_duty)],
        (endpoint.reserved, endpoint.evicting, endpoint.own_evicting, endpoint.bypassed),
    )


def chain(item: Any, following: str = 'next') -> Iterator[Any]:
    while item is not None:
        yield item
        item = getattr(item, following)


def place(ticket: Any, orders: List[int]) -> int:
    return orders.index(ticket.order) if ticket is not None and ticket.order in orders else -1


def memory(steps: Any) -> Hashable:
    """The local variables of a program and of the steps that it is made of."""
    found = []
    while steps is not None and steps.gi_frame is not None:
        found.append((steps.gi_frame.f_lasti, *sorted(map(recalled, steps.gi_frame.f_locals.items()))))
        steps = steps.gi_yieldfrom
    return tuple(found)


def recalled(item: Any) -> Any:
    name, value = item
    return name, str(told(value))


def told(value: Any) -> Any:
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, Conn):
        return value.name
    if isinstance(value, (list, tuple)):
        return [told(one) for one in value]
    conn = getattr(value, 'conn', None)  # of a record
    return conn.name if isinstance(conn, Conn) and hasattr(value, 'heap_index') else ''
