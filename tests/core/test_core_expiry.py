"""Expiry: nothing is handed out that is past its time, and it is disposed of in the order of the deadlines."""

from typing import Any

import pytest


@pytest.mark.parametrize('way', ['take', 'request'])
def test_an_idle_connection_is_handed_out_until_its_lifetime_is_over(desk: Any, way: str) -> None:
    d = desk(max_lifetime=10.0)
    (record,) = d.idle('a')
    d.now = 9.999
    client = d.client()
    if way == 'take':
        assert client.take('a')
    else:
        assert client.request('a').ticket.record is record


@pytest.mark.parametrize('way', ['take', 'request'])
def test_an_idle_connection_is_not_handed_out_when_its_lifetime_is_over(desk: Any, way: str) -> None:
    d = desk(max_lifetime=10.0)
    d.idle('a')
    d.now = 10.0
    client = d.client()
    if way == 'take':
        assert not client.take('a')
    else:
        assert client.request('a').state == 'slot'
    d.check()


def test_an_extra_is_not_handed_out_after_its_idle_timeout_but_a_core_connection_is(desk: Any) -> None:
    d = desk(min_idle=1, idle_timeout=5.0)
    users = [d.user('a'), d.user('a')]
    for user in users:
        user.release()
    d.now = 5.0
    assert d.user('a').record is users[1].record
    assert d.request('a').state == 'slot', 'the other one is an extra and due'


def test_use_renews_the_idle_timeout_but_not_the_lifetime(desk: Any) -> None:
    d = desk(min_idle=0, idle_timeout=5.0, max_lifetime=12.0)
    (record,) = d.idle('a')
    for now in (4.0, 8.0):
        d.now = now
        user = d.user('a')
        assert user.record is record
        assert user.release()
    assert record.deadline == 12.0, 'not 13'
    d.now = 11.999
    assert d.core.next_due(d.now) is None
    d.now = 12.0
    assert d.dispose_due() == [record]


def test_a_connection_whose_lifetime_is_over_is_disposed_of_when_it_is_released(desk: Any) -> None:
    d = desk(max_lifetime=10.0)
    user = d.user('a')
    d.now = 10.0
    assert not user.release()
    d.core.disposed(user.record)
    d.assert_empty()


def test_a_connection_whose_lifetime_is_over_is_not_handed_to_a_waiter(desk: Any) -> None:
    d = desk(max_size=1, max_lifetime=10.0)
    user, waiting = d.user('a'), d.request('a')
    d.now = 10.0
    assert not user.release()
    assert waiting.waits
    d.core.disposed(user.record)
    assert waiting.state == 'slot'


def test_an_extra_is_disposed_of_at_release_if_there_is_no_idle_timeout(desk: Any) -> None:
    d = desk(min_idle=1, idle_timeout=0.0)
    first, second = d.user('a'), d.user('a')
    assert not first.release()
    assert second.release(), 'a core connection'
    d.core.disposed(first.record)
    assert d.core.total == 1
    d.check()


def test_an_idle_timeout_may_be_a_fraction_of_a_second(desk: Any) -> None:
    d = desk(min_idle=0, idle_timeout=0.25)
    (record,) = d.idle('a')
    assert record.deadline == 0.25
    assert d.core.idle_size('a') == 1
    d.now = 0.25
    assert d.dispose_due() == [record]


def test_a_core_connection_counts_as_one_until_it_is_disposed_of_even_if_it_is_due(desk: Any) -> None:
    d = desk(min_idle=1, idle_timeout=3.0, max_lifetime=10.0)
    (expired,) = d.idle('a')
    d.now = 10.0
    user = d.user('a')
    assert user.record is not expired
    assert user.release()
    assert user.record.deadline == 13.0, 'an extra'
    d.check()


def test_an_extra_without_idle_timeout_is_handed_to_a_waiter_nevertheless(desk: Any) -> None:
    d = desk(min_idle=0, max_size=1, idle_timeout=0.0)
    user, waiting = d.user('a'), d.request('a')
    assert user.release()
    assert waiting.ticket.record is user.record


def test_without_a_lifetime_each_use_is_the_last(desk: Any) -> None:
    d = desk(max_lifetime=0.0)
    user = d.user('a')
    assert not user.release()


def test_everything_may_live_for_ever(desk: Any) -> None:
    d = desk(min_idle=0, idle_timeout=float('inf'), max_lifetime=float('inf'))
    (record,) = d.idle('a')
    d.now = 1e12
    assert d.dispose_due() == []
    assert d.user('a').record is record
    assert d.core.set_alarm(None) is None, 'nothing will ever be due'
    d.check()


# -- the waiters of an endpoint with expired connections


def test_at_max_size_an_expired_connection_becomes_the_victim_of_who_asks(desk: Any) -> None:
    d = desk(max_size=1, max_lifetime=10.0)
    (record,) = d.idle('a')
    d.now = 10.0
    client = d.request('a')
    assert (client.state, client.victim) == ('waiting', record)
    client.dispose_of_victim()
    assert client.state == 'slot'
    d.check()


def test_at_max_size_an_expired_extra_becomes_the_victim_of_who_asks(desk: Any) -> None:
    d = desk(min_idle=0, max_size=2, idle_timeout=5.0)
    user = d.user('a')
    (record,) = d.idle('a')
    d.now = 5.0
    client = d.request('a')
    assert (client.state, client.victim) == ('waiting', record)
    user.release()
    assert client.state == 'connection', 'whichever comes first'
    client.dispose_of_victim()
    d.check()


def test_each_who_asks_gets_one_of_the_expired_connections_for_a_victim(desk: Any) -> None:
    d = desk(min_idle=3, max_size=3, max_lifetime=10.0)
    records = d.idle('a', 3)
    d.now = 10.0
    clients = [d.request('a') for _ in range(4)]
    assert {client.victim for client in clients[:3]} == set(records)
    assert clients[3].victim is None
    d.check()


@pytest.mark.parametrize('leaving', [1, 2])
def test_the_victims_of_those_who_have_left_are_enough_for_who_comes(desk: Any, leaving: int) -> None:
    d = desk(min_idle=3, max_size=leaving + 1, max_lifetime=10.0)
    d.idle('a', leaving + 1)
    d.now = 10.0
    leavers = [d.request('a') for _ in range(leaving)]
    assert all(leaver.victim is not None and leaver.withdraw() for leaver in leavers)
    client = d.request('a')
    assert (client.state, client.victim) == ('waiting', None), 'the room is on its way'
    assert d.core.idle_size('a') == 1
    d.check()
    leavers[0].dispose_of_victim()
    assert client.state == 'slot'
    d.check()


def test_an_expired_connection_makes_room_for_the_second_waiter_too(desk: Any) -> None:
    """The first one evicts a connection of another endpoint, which uses up the room that its own endpoint had."""
    d = desk(max_size=2, total_max_size=3, max_lifetime=10.0)
    (other,) = d.idle('c')
    d.now = 1.0
    (own,) = d.idle('a')
    d.now = 5.0
    d.user('x')
    d.now = 12.0
    first, second = d.request('a'), d.request('a')
    assert {first.victim, second.victim} == {own, other}
    first.dispose_of_victim()
    second.dispose_of_victim()
    assert [first.state, second.state] == ['slot', 'slot']
    d.check()


def test_below_max_size_an_expired_connection_keeps_nobody_waiting(desk: Any) -> None:
    d = desk(max_size=2, max_lifetime=10.0)
    d.idle('a')
    d.now = 10.0
    client = d.request('a')
    assert (client.state, client.victim) == ('slot', None)


# -- disposing of what is due


def test_what_is_due_is_disposed_of_in_the_order_of_deadlines_whichever_endpoint_it_is_of(desk: Any) -> None:
    d = desk(max_lifetime=10.0)
    records = []
    for now, key in ((0.0, 'a'), (1.0, 'b'), (2.0, 'c')):
        d.now = now
        records += d.idle(key)
    d.now = 11.0
    assert d.dispose_due() == records[:2]
    d.now = 12.0
    assert d.dispose_due() == records[2:]
    d.assert_empty()


def test_what_is_due_at_the_same_time_is_disposed_of_in_the_order_of_release(desk: Any) -> None:
    d = desk(max_lifetime=10.0)
    users = [d.user(key) for key in 'abcd']
    for index in (2, 0, 3, 1):
        users[index].release()
    d.now = 10.0
    assert d.dispose_due() == [users[index].record for index in (2, 0, 3, 1)]


def test_a_connection_is_due_at_its_deadline_and_not_before(desk: Any) -> None:
    d = desk(max_lifetime=10.0)
    (record,) = d.idle('a')
    assert not d.core.due(9.999)
    assert d.core.next_due(9.999) is None
    assert d.core.due(10.0)
    assert d.core.next_due(10.0) is record


def test_a_connection_in_use_is_not_due(desk: Any) -> None:
    d = desk(max_lifetime=10.0)
    d.idle('a')
    d.user('a')
    d.now = 10.0
    assert d.core.next_due(d.now) is None
    d.check()


def test_what_is_being_disposed_of_is_not_due_again(desk: Any) -> None:
    d = desk(max_lifetime=10.0)
    (record,) = d.idle('a')
    assert d.core.next_due(10.0) is record
    assert d.core.next_due(10.0) is None
    assert d.core.size('a') == 1, 'it counts until that is done'
    d.check()


def test_disposing_of_what_is_due_serves_a_waiter_of_another_endpoint(desk: Any) -> None:
    d = desk(max_size=1, total_max_size=2, max_lifetime=10.0)
    d.idle('a')
    d.user('b')
    record = d.core.next_due(10.0)
    waiting = d.request('c')
    assert waiting.waits
    d.core.disposed(record)
    assert waiting.state == 'slot'
    d.check()


@pytest.mark.parametrize('begin', [True, False])
def test_outdated_connections_are_disposed_of_when_they_come_back(desk: Any, begin: bool) -> None:
    d = desk()
    (idle,) = d.idle('b')
    user = d.user('a')
    if begin:
        user.begin_release()
    d.core.outdate()
    assert not d.core.give_back(user.record, d.now)
    d.core.disposed(user.record)
    assert d.user('b').record is idle, 'only those in use at that time'
    assert d.user('a').release(), 'nor those created later'
    d.check()


# -- the collector's alarm


def test_a_collector_is_told_when_the_next_connection_is_due(desk: Any) -> None:
    d = desk(max_lifetime=10.0)
    collector = d.client('collector')
    assert d.core.set_alarm(collector.ticket) is None
    d.idle('a')
    assert collector.wakes == 1
    assert d.core.set_alarm(collector.ticket) == 10.0


def test_a_collector_is_woken_for_what_is_due_earlier_than_it_thinks(desk: Any) -> None:
    d = desk(min_idle=1, idle_timeout=5.0, max_lifetime=100.0)
    collector = d.client('collector')
    d.idle('a')
    assert d.core.set_alarm(collector.ticket) == 100.0
    users = [d.user('b'), d.user('b')]
    users[0].release()
    assert collector.wakes == 1, 'an extra: due in 5 seconds'
    users[1].release()
    assert collector.wakes == 1, 'a core connection: due later'
    assert d.core.set_alarm(collector.ticket) == 5.0


def test_a_collector_is_woken_once_for_all_that_is_due_earlier_until_it_has_looked(desk: Any) -> None:
    d = desk(min_idle=0, idle_timeout=5.0, max_lifetime=6.0)
    collector = d.client('collector')
    users = [d.user('a'), d.user('a'), d.user('a')]
    d.now = 3.0
    users[0].release()
    assert d.core.set_alarm(collector.ticket) == 6.0, 'of its lifetime'
    d.now = 0.5
    users[1].release()
    assert collector.wakes == 1, 'due half a second earlier'
    d.now = 0.75
    users[2].release()
    assert collector.wakes == 1, 'it will look for itself'
    assert d.core.set_alarm(collector.ticket) == 5.5


def test_a_collector_is_not_woken_for_what_is_due_later(desk: Any) -> None:
    d = desk(max_lifetime=10.0)
    collector = d.client('collector')
    d.idle('a')
    assert d.core.set_alarm(collector.ticket) == 10.0
    d.now = 1.0
    d.idle('b')
    assert collector.wakes == 0


def test_a_collector_is_not_woken_by_ordinary_use(desk: Any) -> None:
    d = desk(min_idle=0, idle_timeout=5.0)
    collector = d.client('collector')
    d.idle('a')
    assert d.core.set_alarm(collector.ticket) == 5.0
    for now in (1.0, 2.0, 3.0):
        d.now = now
        d.user('a').release()
    d.now = 0.0
    d.user('b').release()
    assert collector.wakes == 0, 'it wakes then anyway'
    d.now = 5.0
    assert d.core.next_due(d.now).key == 'b' and d.core.next_due(d.now) is None
    assert d.core.set_alarm(collector.ticket) == 8.0


def test_nobody_is_woken_once_the_alarm_is_off(desk: Any) -> None:
    d = desk()
    collector = d.client('collector')
    d.core.set_alarm(collector.ticket)
    d.core.set_alarm(None)
    d.idle('a')
    d.core.close()
    assert collector.wakes == 0


def test_a_collector_is_woken_when_the_pool_is_closed(desk: Any) -> None:
    d = desk()
    collector = d.client('collector')
    d.core.set_alarm(collector.ticket)
    d.core.close()
    assert collector.wakes == 1
