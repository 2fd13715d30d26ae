"""What the pure core does when something comes in between: a fork, a finalizer, a platform that sleeps in bits."""

from typing import Any, List

import pytest
from support.core_desk import Desk
from support.core_twins import PYTHON

LENT, INHERITED = PYTHON.get('record', 'LENT'), PYTHON.get('record', 'INHERITED')
SLOT, CLOSED = PYTHON.get('waiters', 'SLOT'), PYTHON.get('waiters', 'CLOSED')


def make_pool(core: Any) -> Any:
    pool = PYTHON.get('thread_pool', 'ThreadPool')()
    pool._setup(core, None, True, True, True, False, None, None)
    return pool


def test_a_core_that_is_disowned_within_an_operation_is_so_again_when_that_is_over() -> None:
    floor = Desk(PYTHON)
    record = floor.user('a').record
    assert record is not None
    floor.core.mutex.busy = True
    assert floor.core.disown() == [record] and record.state == INHERITED
    record.state = LENT  # what the operation was about to do, and does in the child
    floor.core.mutex.busy = False
    floor.core.mutex.run_deferred()
    assert record.state == INHERITED and floor.core.closed


def test_what_a_thread_is_about_within_an_operation_is_revoked_again_when_that_is_over() -> None:
    floor = Desk(PYTHON)
    ticket = floor.request('a').ticket
    pool = make_pool(floor.core)
    pool._begin(ticket)
    floor.core.mutex.busy = True
    pool._renew(Desk(PYTHON).core, None)
    assert ticket.state == CLOSED
    ticket.state = SLOT
    floor.core.mutex.busy = False
    floor.core.mutex.run_deferred()
    assert ticket.state == CLOSED and ticket.endpoint is None


def test_what_a_thread_is_about_may_end_in_another_order_than_it_began() -> None:
    floor = Desk(PYTHON)
    pool = make_pool(floor.core)
    tickets = [floor.request('a').ticket for _ in range(2)]
    for ticket in tickets:
        pool._begin(ticket)
    assert pool._slots_in_hand() == 2
    pool._end(tickets[0])
    assert pool._slots_in_hand() == 1
    pool._end(tickets[0])  # it has ended already
    assert pool._slots_in_hand() == 1
    pool._end(tickets[1])
    assert pool._slots_in_hand() == 0


@pytest.mark.parametrize('timeout', [None, 3600.0])
def test_a_long_sleep_consists_of_waits_that_are_not_too_long_for_the_platform(timeout: Any) -> None:
    waits: List[float] = []

    class Place:
        def acquire(self, timeout: float) -> bool:
            waits.append(timeout)
            return len(waits) == 3

    parker = PYTHON.get('lock', 'Parker')()
    parker._lock = Place()
    assert parker.park(timeout)
    assert waits == [PYTHON.module('lock').LONGEST_WAIT] * 3
