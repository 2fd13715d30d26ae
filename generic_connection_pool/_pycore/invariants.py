"""What a core keeps true between two operations. For tests; the lock is held."""

from typing import TYPE_CHECKING

from .._messages import show
from .record import IDLE_CORE, IDLE_EXTRA, LENT, RETURNING
from .waiters import WAITING

if TYPE_CHECKING:
    from .store import Store
    from .endpoint import Endpoint

__all__ = ('check_invariants',)


def check_invariants(core: 'Store') -> None:
    """Raise an AssertionError that names the invariant if one does not hold."""
    total = idle = lent = 0
    for endpoint in core._endpoints:
        _check_endpoint(core, endpoint)
        total += endpoint.count
        idle += len(endpoint.idle)
        lent += endpoint.lent.count
    assert total == core.total, f'total is {core.total}, the endpoints have {total}'
    assert core.total <= core.total_max_size, f'total {core.total} exceeds {core.total_max_size}'
    assert lent == len(core._lent), f'{len(core._lent)} records in the table of lent ones, {lent} are lent'
    records = len(core.records)
    assert idle + lent <= records <= total, f'{records} records, {idle} idle and {lent} lent of {total}'
    _check_heap(core, idle)
    _check_rings(core)


def _check_endpoint(core: 'Store', endpoint: 'Endpoint') -> None:
    name = f'endpoint {show(endpoint.key)}'
    assert not endpoint.removed, f'{name} is in the table though removed'
    assert not endpoint.unused, f'{name} exists though nothing is left of it'
    assert endpoint.count <= core.max_size, f'{name} has {endpoint.count} of {core.max_size}'
    assert min(endpoint.reserved, endpoint.evicting, endpoint.own_evicting) >= 0, f'{name}: negative count'
    for records, states in (
        (endpoint.idle.core, (IDLE_CORE,)),
        (endpoint.idle.extra, (IDLE_EXTRA,)),
        (endpoint.lent, (LENT, RETURNING)),
    ):
        listed = list(records)
        assert len(listed) == records.count, f'{name}: a list of {len(listed)} says it has {records.count}'
        for record in listed:
            assert record.state in states and record.endpoint is endpoint, f'{name}: {record!r} in a wrong list'
    tickets = 0
    ticket, off_duty = endpoint.waiters.head, None
    while ticket is not None:
        assert ticket.state == WAITING and ticket.endpoint is endpoint, f'{name}: a ticket in the queue does not wait'
        assert ticket.on_duty or ticket.victim is None, f'{name}: a ticket off duty has a victim'
        if not ticket.on_duty and off_duty is None:
            off_duty = ticket
        tickets += 1
        ticket = ticket.next
    assert tickets == endpoint.waiters.count, f'{name}: {tickets} tickets, count {endpoint.waiters.count}'
    assert endpoint.waiters.off_duty is off_duty, f'{name}: off_duty is not the first ticket off duty'
    if core.closed:
        assert not tickets, f'{name}: somebody waits though the pool is closed'
    ring = None
    if off_duty is not None and core._needs(endpoint) > 0:
        ring = core._needy
    elif tickets and endpoint.count < core.max_size:
        ring = core._covered
    if tickets and endpoint.count < core.max_size:
        assert core.total == core.total_max_size, f'{name}: somebody waits though a slot is free'
    assert endpoint.ring is ring, f'{name} is in the wrong ring'


def _check_heap(core: 'Store', idle: int) -> None:
    entries = core._heap._entries
    for index, (deadline, sequence, record) in enumerate(entries):
        assert record.heap_index == index, f'{record!r} thinks that its entry is elsewhere'
        if index:
            parent = entries[(index - 1) >> 1]
            assert (parent[0], parent[1]) <= (deadline, sequence), 'the heap is out of order'
        if record.state in (IDLE_CORE, IDLE_EXTRA):
            assert (deadline, sequence) <= (record.deadline, record.sequence), f'the entry of {record!r} is too late'
            idle -= 1
    assert idle == 0, f'{idle} idle connections have no entry in the heap'


def _check_rings(core: 'Store') -> None:
    for ring in (core._needy, core._covered):
        endpoint = ring.head
        members = 0
        while endpoint is not None:
            assert endpoint.ring is ring and not endpoint.removed, f'endpoint {endpoint.key!r} is in a ring by mistake'
            members += 1
            endpoint = endpoint.ring_next
        assert members == sum(other.ring is ring for other in core._endpoints), 'a member of a ring cannot be reached'
    if core._needy.head is not None:
        assert not any(len(other.idle) for other in core._endpoints), 'an endpoint is blocked though one is idle'
