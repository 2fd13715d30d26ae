"""What callers of the core rely on beside its operations, and what it refuses because it would do harm."""

import sys
from typing import Any, Callable, List

import pytest
from support.core_desk import Desk
from support.core_twins import CYTHON, Twin, compiled_core_is_missing

only_compiled = pytest.mark.skipif(
    compiled_core_is_missing(), reason='only the compiled core would touch memory that is none of its own'
)


def record_of(twin: Twin, *, expires: float = 1.0) -> Any:
    return twin.get('record', 'Record')(object(), 'a', 0.5, expires)


def test_a_record_tells_when_it_was_created_and_when_it_expires(desk: Callable[..., Desk]) -> None:
    floor = desk(max_lifetime=100.0)
    floor.now = 7.0
    record = floor.user('a').record
    assert record is not None and (record.created, record.expires) == (7.0, 107.0)


def test_a_ticket_keeps_the_record_that_it_is_given_until_it_is_given_another(twin: Twin) -> None:
    one, other = record_of(twin), record_of(twin)
    before = sys.getrefcount(one), sys.getrefcount(other)
    ticket = twin.get('waiters', 'Ticket')()
    for record in (one, one, other, None):
        ticket.record = record
        assert ticket.record is record
    assert (sys.getrefcount(one), sys.getrefcount(other)) == before


def test_a_ticket_tells_whether_its_owner_has_a_victim_to_see_to(desk: Callable[..., Desk]) -> None:
    floor = desk(total_max_size=1)
    floor.idle('a')
    waiting = floor.request('b')
    assert waiting.victim is not None and waiting.ticket.on_duty
    waiting.dispose_of_victim()
    assert waiting.state == 'slot' and not waiting.ticket.on_duty
    waiting.fail()


def test_whoever_is_woken_may_operate_the_core_before_the_others_are_and_nobody_is_forgotten(
    desk: Callable[..., Desk],
) -> None:
    floor = desk(max_size=3)
    doomed = [floor.user('a').record for _ in range(3)]
    woken: List[str] = []

    def first() -> None:
        woken.append('first')
        if len(woken) == 1:
            floor.core.disposed(doomed.pop())

    closers = [floor.new_ticket(first), floor.new_ticket(lambda: woken.append('second'))]
    floor.core.close()
    for record in doomed:
        floor.core.discard(record)
    assert not any(floor.core.join(closer, 1) for closer in closers)
    floor.core.disposed(doomed.pop())
    assert woken.count('first') == 2 and 'second' in woken[1:]
    floor.check()
    for closer in closers:
        floor.core.leave(closer, 1)


def test_a_facade_that_grants_nothing_is_told_so_by_an_error(twin: Twin) -> None:
    core = twin.get('core', 'Core')(1, 2, 2, 60.0, 3600.0)
    lazy = {'_acquire': lambda self, ticket, endpoint, timeout: None}
    pool = type('Pool', (twin.get('thread_pool', 'ThreadPool'),), lazy)()
    pool._setup(core, None, False, True, True, False, None, None)
    with pytest.raises(RuntimeError, match='no connection was granted'):
        pool.acquire('a')
    assert pool._dispose_victim(twin.get('waiters', 'Ticket')(), None) is False


@only_compiled
def test_nothing_in_place_of_a_ticket_or_a_record_is_refused() -> None:
    core = CYTHON.get('core', 'Core')(1, 2, 2, 60.0, 3600.0)
    pool = CYTHON.get('thread_pool', 'ThreadPool')()
    for operation in (
        lambda: core.request(None, 'a', 0.0), lambda: core.fulfil(None, object(), 0.0),
        lambda: core.take_back(None, 1), lambda: core.give_back(None, 0.0), lambda: core.discard(None),
        lambda: core.disposed(None), lambda: pool._dispose(None, None, None),
    ):  # fmt: skip
        with pytest.raises(TypeError, match='is required, not None'):
            operation()
    assert list(core.endpoints()) == [] and core.total == 0


@only_compiled
def test_a_heap_refuses_a_record_that_another_one_has() -> None:
    one, other = CYTHON.get('heap', 'ExpiryHeap')(), CYTHON.get('heap', 'ExpiryHeap')()
    record = record_of(CYTHON)
    record.state = CYTHON.get('record', 'IDLE_CORE')
    one.arm(record)
    for operation in (other.arm, other.disarm):
        with pytest.raises(RuntimeError, match='in another heap'):
            operation(record)
    assert one.nearest() is record and len(other) == 0


@only_compiled
def test_nobody_but_its_core_changes_the_state_of_a_record() -> None:
    floor = Desk(CYTHON)
    record = floor.user('a').record
    assert record is not None
    for value, where in ((CYTHON.get('record', 'GONE'), record), (99, record_of(CYTHON)), (-1, record_of(CYTHON))):
        with pytest.raises(RuntimeError, match='the affair of its core'):
            where.state = value
    floor.check()


@only_compiled
def test_on_a_stage_it_is_the_stage_that_is_asked_to_park_whoever_was_made_there() -> None:
    """The simulation depends on that."""
    lock = CYTHON.module('lock')
    seen: List[Any] = []

    class Stage:
        def park(self, parker: Any, timeout: Any) -> bool:
            seen.append(('park', parker, timeout))
            return True

        def unpark(self, parker: Any) -> None:
            seen.append(('unpark', parker))

    older = lock.Parker()
    lock._set_stage(Stage())
    try:
        parker = lock.Parker()
        assert parker.park(5.0)
        parker.unpark()
        older.unpark()
        assert older.park(0.0)
    finally:
        lock._set_stage(None)
    assert seen == [('park', parker, 5.0), ('unpark', parker)]
