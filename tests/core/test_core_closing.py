"""Closing: who waits is told, nobody is served any more, and everything is disposed of."""

import time
from typing import Any, List

import pytest


def test_whoever_waits_is_told_that_the_pool_is_closed(desk: Any) -> None:
    d = desk(max_size=1, total_max_size=2)
    d.user('a')
    d.user('b')
    waiting = [d.request(key) for key in 'aabcc']
    d.core.close()
    assert [(client.state, client.wakes) for client in waiting] == [('closed', 1)] * 5
    assert [d.core.waiting(key) for key in 'abc'] == [0, 0, 0]
    assert sorted(d.core.endpoints()) == ['a', 'b']
    d.check()


def test_waiters_of_an_endpoint_are_told_in_the_order_of_their_arrival(desk: Any) -> None:
    d = desk(max_size=1)
    d.user('a')
    for number in range(10):
        d.request('a', number)
    d.core.close()
    assert d.woken == list(range(10))


def test_closing_again_does_nothing(desk: Any) -> None:
    d = desk(max_size=1)
    d.user('a')
    waiting = d.request('a')
    d.core.close()
    d.core.close()
    assert waiting.wakes == 1
    assert d.core.closed
    d.check()


def test_nobody_is_served_by_a_closed_pool_though_a_connection_is_idle(desk: Any) -> None:
    d = desk()
    d.idle('a')
    d.core.close()
    assert not d.client().take('a')
    assert d.request('a').state == 'closed'
    assert d.request('unknown').state == 'closed'
    assert d.core.endpoints() == ['a'], 'asking a closed pool leaves nothing behind'
    d.check()


def test_who_has_been_told_may_ask_again(desk: Any) -> None:
    d = desk()
    d.core.close()
    client = d.request('a')
    assert client.request('b').state == 'closed'


def test_a_slot_that_becomes_free_in_a_closed_pool_serves_nobody(desk: Any) -> None:
    d = desk(max_size=1)
    user, waiting = d.user('a'), d.request('a')
    d.core.close()
    assert not user.release()
    d.core.disposed(user.record)
    assert (waiting.state, waiting.wakes) == ('closed', 1)
    d.assert_empty()


def test_who_has_got_a_slot_before_keeps_it_but_its_connection_is_to_be_disposed_of(desk: Any) -> None:
    d = desk()
    creator = d.request('a')
    d.core.close()
    assert creator.state == 'slot'
    assert not creator.create()
    assert creator.state == 'closed'
    assert d.core.total == 1
    d.core.disposed(creator.ticket.record)
    d.assert_empty()


def test_who_has_got_a_slot_before_can_give_it_up(desk: Any) -> None:
    d = desk()
    creator = d.request('a')
    d.core.close()
    creator.fail()
    d.assert_empty()


def test_a_connection_released_to_a_closed_pool_is_to_be_disposed_of(desk: Any) -> None:
    d = desk()
    users = [d.user('a'), d.user('a')]
    users[0].begin_release()
    d.core.close()
    assert not d.core.give_back(users[0].record, d.now)
    assert not users[1].release()
    for user in users:
        d.core.disposed(user.record)
    d.assert_empty()


def test_a_dead_connection_is_not_replaced_in_a_closed_pool(desk: Any) -> None:
    d = desk()
    client = d.user('a')
    d.core.close()
    client.replace()
    assert (client.state, client.victim) == ('closed', client.record)
    client.dispose_of_victim()
    d.assert_empty()


def test_a_victim_is_disposed_of_by_who_had_it_after_the_pool_was_closed(desk: Any) -> None:
    d = desk(total_max_size=1)
    d.idle('a')
    waiting = d.request('b')
    d.core.close()
    assert waiting.state == 'closed'
    waiting.dispose_of_victim()
    d.assert_empty()


def test_all_idle_connections_come_up_for_disposal_whatever_their_deadlines(desk: Any) -> None:
    d = desk(min_idle=1, max_lifetime=float('inf'))
    records = d.idle('a', 3) + d.idle('b', 2)
    d.core.close()
    found: List[Any] = []
    record = d.core.next_idle()
    while record is not None:
        found.append(record)
        record = d.core.next_idle()
    assert set(found) == set(records)
    assert len(found) == 5
    for record in found:
        d.core.disposed(record)
    d.assert_empty()


def test_idle_connections_of_an_open_pool_can_be_disposed_of_too(desk: Any) -> None:
    d = desk()
    (record,) = d.idle('a')
    assert d.core.next_idle() is record
    d.core.disposed(record)
    d.assert_empty()
    assert d.request('a').state == 'slot'


# -- by force


def closed_by_force(d: Any) -> List[Any]:
    d.core.close()
    records = []
    record = d.core.next_lent()
    while record is not None:
        records.append(record)
        d.check()
        record = d.core.next_lent()
    return records


def test_all_acquired_connections_can_be_closed_by_force(desk: Any) -> None:
    d = desk()
    users = [d.user(key) for key in 'aabcc']
    users[1].begin_release()
    assert not d.core.forced
    records = closed_by_force(d)
    assert d.core.forced
    assert set(records) == {user.record for user in users}
    assert len(records) == 5
    assert d.core.total == 5, 'they count until they are disposed of'
    for record in records:
        d.core.disposed(record)
    d.assert_empty()


@pytest.mark.parametrize('begin', [True, False])
@pytest.mark.parametrize('gone', [True, False])
def test_releasing_a_connection_that_was_closed_by_force_is_nobodys_error(desk: Any, begin: bool, gone: bool) -> None:
    d = desk()
    first, second = d.user('a'), d.user('a')
    if begin:
        first.begin_release()
        second.begin_release()
    for record in closed_by_force(d):
        if gone:
            d.core.disposed(record)
    assert d.core.find(first.record.conn, 'a') is None
    assert not first.begin_release()
    assert d.core.give_back(first.record, d.now), 'nothing is left to be done'
    assert not d.core.discard(second.record), 'nothing is left to be done'
    d.check()


def test_replacing_a_connection_that_was_closed_by_force_says_that_the_pool_is_closed(desk: Any) -> None:
    d = desk()
    client = d.user('a')
    (record,) = closed_by_force(d)
    client.replace()
    assert (client.state, client.victim, client.ticket.record) == ('closed', None, None)
    d.core.disposed(record)
    d.assert_empty()


def test_only_after_a_forced_closing_a_wrong_release_is_excused(desk: Any) -> None:
    d = desk()
    user = d.user('a')
    user.release()
    d.core.close()
    assert d.core.next_lent() is None
    assert not d.core.forced
    with pytest.raises(RuntimeError, match='not acquired'):
        d.core.give_back(user.record, d.now)


def test_closing_thousands_of_endpoints_by_force_takes_no_time_that_grows_with_their_square(desk: Any) -> None:
    def seconds(count: int) -> float:
        d = desk(max_size=1, total_max_size=count)
        for key in range(count):
            d.user(key)
        d.core.close()
        started = time.perf_counter()
        while d.core.next_lent() is not None:
            pass
        return time.perf_counter() - started

    few, many = (min(seconds(count) for _ in range(2)) for count in (500, 4000))
    assert many < 8 * few * 4 + 0.05


# -- waiting for the pool to be empty


def test_an_empty_pool_need_not_be_waited_for(desk: Any) -> None:
    d = desk()
    d.core.close()
    assert d.core.join(d.client().ticket, 0)
    assert d.core.drained(0)


def test_who_waits_for_the_pool_to_be_empty_is_told_when_the_last_slot_is_free(desk: Any) -> None:
    d = desk()
    users = [d.user('a'), d.user('b')]
    d.core.close()
    closers = [d.client('first closer'), d.client('second closer')]
    for closer in closers:
        assert not d.core.join(closer.ticket, 0)
    for user in users:
        assert not d.core.drained(0)
        assert d.woken == []
        user.scrap()
    assert d.core.drained(0)
    assert d.woken == ['first closer', 'second closer']
    for closer in closers:
        d.core.leave(closer.ticket, 0)
    d.assert_empty()


def test_a_closer_does_not_wait_for_its_own_slots(desk: Any) -> None:
    d = desk()
    own, other = d.user('a'), d.user('a')
    d.core.close()
    closer = d.client('closer')
    assert not d.core.join(closer.ticket, 1)
    other.scrap()
    assert closer.wakes == 1
    assert d.core.drained(1)
    d.core.leave(closer.ticket, 1)
    own.scrap()
    d.assert_empty()


def test_closers_do_not_wait_for_each_others_slots(desk: Any) -> None:
    d = desk()
    users = [d.user('a') for _ in range(3)]
    d.core.close()
    first, second = d.client('first'), d.client('second')
    assert not d.core.join(first.ticket, 1)
    assert not d.core.join(second.ticket, 1)
    assert d.woken == []
    users[0].scrap()
    assert d.woken == ['first', 'second']
    assert d.core.drained(1)


def test_the_last_closer_of_several_that_hold_slots_does_not_wait_at_all(desk: Any) -> None:
    d = desk()
    d.user('a')
    d.user('a')
    d.core.close()
    assert not d.core.join(d.client().ticket, 1)
    assert d.core.join(d.client().ticket, 1)


def test_a_closer_without_slots_waits_for_those_of_the_others(desk: Any) -> None:
    d = desk()
    user = d.user('a')
    d.core.close()
    outer, inner = d.client('outer'), d.client('inner')
    assert not d.core.join(outer.ticket, 0)
    assert d.core.join(inner.ticket, 1)
    assert not d.core.drained(0)
    user.scrap()
    assert d.woken == ['outer']
    assert d.core.drained(0)


def test_a_closer_without_slots_is_not_excused_by_one_that_waits_itself(desk: Any) -> None:
    d = desk()
    users = [d.user('a') for _ in range(3)]
    d.core.close()
    outer, inner = d.client('outer'), d.client('inner')
    assert not d.core.join(outer.ticket, 0)
    assert not d.core.join(inner.ticket, 1)
    users[0].scrap()
    users[1].scrap()
    assert d.core.drained(1)
    assert not d.core.drained(0)
    assert not d.core.join(d.client().ticket, 0)
    d.core.leave(inner.ticket, 1)
    outer.wakes = 0
    users[2].scrap()
    assert outer.wakes == 1
    assert d.core.drained(0)


def test_a_closer_that_has_left_is_not_told_and_excuses_nothing(desk: Any) -> None:
    d = desk()
    users = [d.user('a'), d.user('a')]
    d.core.close()
    leaver, closer = d.client('leaver'), d.client('closer')
    assert not d.core.join(closer.ticket, 0)
    assert not d.core.join(leaver.ticket, 1)
    d.core.leave(leaver.ticket, 1)
    users[0].scrap()
    assert not d.core.drained(1)
    assert d.woken == []
    users[1].scrap()
    assert d.woken == ['closer']


def test_who_has_created_a_connection_for_a_closed_pool_holds_nothing_else(desk: Any) -> None:
    d = desk()
    creator, heir = d.request('a'), d.client()
    d.core.close()
    assert not creator.create()
    for refused in (creator.create, creator.fail, lambda: d.core.transfer(creator.ticket, heir.ticket)):
        with pytest.raises(RuntimeError, match='holds no slot'):
            refused()
    with pytest.raises(RuntimeError, match='holds no connection'):
        creator.replace()
    assert (creator.state, heir.state) == ('closed', 'nothing')
    d.core.disposed(creator.ticket.record)
    d.assert_empty()


def test_those_who_wait_for_the_end_with_slots_in_their_hands_need_not_wait_for_these(desk: Any) -> None:
    """They may be closed by force meanwhile: there are fewer slots than are excused."""
    d = desk()
    for _ in range(3):
        d.user('a')
    first, second = d.client(), d.client()
    d.core.close()
    assert not d.core.join(first.ticket, 1)
    assert not d.core.join(second.ticket, 1)
    for left in (2, 1, 0):
        d.core.disposed(d.core.next_lent())
        assert d.core.drained(1) is True, f'{left} are left'
    assert d.core.drained(0)
    for closer in (first, second):
        d.core.leave(closer.ticket, 1)
    d.assert_empty()
