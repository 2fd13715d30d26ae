"""What one connection is to the core, apart from who gets it."""

import importlib.util
from typing import Any

import pytest
from support.core_desk import Desk
from support.core_twins import PYTHON, Twin


def test_a_record_tells_when_its_connection_was_created(desk: Any) -> None:
    d = desk(max_lifetime=10.0)
    d.now = 5.0
    record = d.user('a').record
    assert (record.created, record.expires) == (5.0, 15.0)


def test_a_new_record_is_nobodys(twin: Twin) -> None:
    record = twin.get('record', 'Record')(object(), 'a', 0.0, 7.0)
    assert record.state == twin.get('record', 'GONE')
    assert (record.deadline, record.sequence, record.heap_index, record.uses, record.holder) == (7.0, 0, -1, 0, 0)
    assert repr(record) == '<Record gone uses=0>'
    if twin is PYTHON:
        assert record.endpoint is record.beneficiary is record.prev is record.next is record.chain is None
        assert record.core == 0 and record.claimed is False


def test_a_new_ticket_is_of_no_holder(twin: Twin) -> None:
    assert twin.get('waiters', 'Ticket')().holder == 0


def test_a_connection_that_came_back_keeps_no_other_loan_of_the_same_object_alive() -> None:
    d = Desk(PYTHON)
    conn = object()
    users = [d.user(key, conn) for key in 'ab']
    assert [user.record.chain for user in users] == [None, users[0].record]
    assert users[1].release()
    assert users[1].record.chain is None


def test_a_record_is_not_made_anew_while_the_heap_has_it(twin: Twin) -> None:
    heap = twin.get('heap', 'ExpiryHeap')()
    first, second = records = [twin.get('record', 'Record')(object(), 'a', 0.0, expires) for expires in (1.0, 2.0)]
    for record in records:
        record.state = twin.get('record', 'IDLE_CORE')
        heap.arm(record)
    assert [first.heap_index, second.heap_index] == [0, 1]
    for record in records:
        with pytest.raises(RuntimeError, match='in use'):
            record.__init__(object(), 'b', 0.0, 1.0)


def test_a_record_is_not_made_anew_while_it_is_in_use(desk: Any) -> None:
    d = desk(max_size=1)
    user = d.user('a')
    record, conn = user.record, user.record.conn
    with pytest.raises(RuntimeError, match='in use'):
        record.__init__(object(), 'b', 0.0, 1.0)
    assert (record.conn, record.key) == (conn, 'a')
    user.scrap()
    record.__init__(conn, 'b', 0.0, 1.0)
    assert record.key == 'b', 'nobody but this test has it any more'
    d.assert_empty()


def test_one_alone_takes_it_upon_himself_to_dispose_of_a_connection(twin: Twin) -> None:
    record = twin.get('record', 'Record')(object(), 'a', 0.0, 1.0)
    assert [record.claim() for _ in range(3)] == [True, False, False]


def test_nobody_disposes_of_what_a_fork_has_left_to_the_parent(desk: Any) -> None:
    d = desk()
    records = [d.user('a').record, d.user('b').record]
    d.idle('c')
    inherited = d.core.disown()
    assert d.core.closed
    assert len(inherited) == 3 and set(records) < set(inherited)
    assert {record.state for record in inherited} == {d.twin.get('record', 'INHERITED')}
    assert {repr(record) for record in inherited} == {'<Record inherited uses=1>'}
    assert not any(record.claim() for record in inherited)
    for record in inherited:
        d.core.disposed(record)  # somebody was about to
        assert not d.core.discard(record) and d.core.give_back(record, 0.0)


def test_what_an_operation_does_that_a_fork_has_interrupted_is_undone_in_the_child() -> None:
    desk = Desk(PYTHON)
    record: Any = desk.user('a').record
    desk.core.disown()
    assert not desk.core.mutex.deferred, 'nothing was interrupted'
    desk.core.mutex.busy = True
    desk.core.disown()
    record.state = PYTHON.get('record', 'LENT')
    desk.core.mutex.busy = False
    assert not desk.core.due(0.0), 'any operation'
    assert record.state == PYTHON.get('record', 'INHERITED')


def test_only_the_loan_that_is_on_can_be_ended(desk: Any) -> None:
    user = desk().user('a')
    for loan in (user.loan - 1, user.loan + 1):
        assert not user.desk.core.take_back(user.record, loan)
    assert user.begin_release()


def test_an_equal_connection_that_is_being_released_is_not_found(desk: Any) -> None:
    d = desk()
    user = d.user('a', 1.0)
    assert d.core.find(1, 'a') is user.record
    assert user.begin_release()
    assert d.core.find(1, 'a') is None


@pytest.mark.parametrize('older', [True, False])
def test_a_core_refuses_the_connections_of_another_one(desk: Any, older: bool) -> None:
    first, second = desk(), desk()
    own, other = (first, second) if older else (second, first)
    user, doomed = own.user('a'), own.user('b')
    own.core.discard(doomed.record)
    assert not other.core.take_back(user.record, user.loan)
    with pytest.raises(RuntimeError, match='is not acquired'):
        other.core.give_back(user.record, 0.0)
    with pytest.raises(RuntimeError, match='is not acquired'):
        other.core.discard(user.record)
    with pytest.raises(RuntimeError, match='was not to be disposed of'):
        other.core.disposed(doomed.record)
    other.assert_empty()
    own.core.disposed(doomed.record)
    assert user.release()
    own.check()


@pytest.mark.parametrize('older', [True, False])
def test_a_core_refuses_the_tickets_of_another_one(desk: Any, older: bool) -> None:
    first, second = desk(total_max_size=3), desk(total_max_size=3)
    own, other = (first, second) if older else (second, first)
    user, creator = own.user('a'), own.request('b')
    own.idle('c')
    waiting = own.request('d')
    assert waiting.victim is not None
    with pytest.raises(RuntimeError, match='holds no slot'):
        other.core.fulfil(creator.ticket, object(), 0.0)
    with pytest.raises(RuntimeError, match='holds no slot'):
        other.core.fail(creator.ticket)
    with pytest.raises(RuntimeError, match='holds no slot'):
        other.core.transfer(creator.ticket, other.client().ticket)
    with pytest.raises(RuntimeError, match='holds no connection'):
        other.core.replace(user.ticket, 0.0)
    assert not other.core.withdraw(waiting.ticket)
    other.core.rest(waiting.ticket)
    stranger = other.user('a')
    other.core.discard(stranger.record)
    other.core.disposed(stranger.record, waiting.ticket)
    other.assert_empty()
    own.check()
    assert waiting.waits, 'and it is still on duty, which the check would tell'
    creator.fail()
    assert waiting.state == 'slot'


def test_the_first_core_of_a_process_is_told_from_none() -> None:
    """Tickets and records that belong to no core have the serial number 0."""
    spec = importlib.util.find_spec(f'{PYTHON.package}.policy')
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    first, second = (module.Policy(1, 1, 1, 60.0, 3600.0) for _ in range(2))
    assert 0 < first.serial < second.serial
