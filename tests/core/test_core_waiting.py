"""Waiting: first come, first served; what is granted is granted; what goes wrong serves the next."""

import gc
import random
import weakref
from typing import Any, List

import pytest


def test_what_is_idle_is_taken_without_a_ticket(desk: Any) -> None:
    d = desk()
    (record,) = d.idle('a')
    user = d.client()
    assert user.take('a')
    assert user.record is record
    assert (d.core.idle_size('a'), d.core.lent_size('a')) == (0, 1)
    d.check()


def test_the_fast_path_creates_nothing_and_leaves_nothing(desk: Any) -> None:
    d = desk()
    assert not d.client().take('a')
    d.user('a')
    assert not d.client().take('a')
    assert d.core.endpoints() == ['a']
    assert d.core.total == 1


def test_a_request_is_served_at_once_with_what_is_idle(desk: Any) -> None:
    d = desk()
    (record,) = d.idle('a')
    client = d.request('a')
    assert (client.state, client.ticket.record, client.wakes) == ('connection', record, 0)


def test_a_record_tells_who_has_it_and_how_often_it_was_lent(desk: Any) -> None:
    d = desk()
    ticket = d.new_ticket(holder=7)
    d.core.request(ticket, 'a', 0.0)
    d.core.fulfil(ticket, 'the connection', 0.0)
    assert (ticket.record.conn, ticket.record.key, ticket.record.holder, ticket.record.uses) == (
        'the connection', 'a', 7, 1,
    )  # fmt: skip
    d.core.give_back(ticket.record, 0.0)
    assert d.core.take('a', 0.0, 8).holder == 8
    assert ticket.record.uses == 2
    assert d.core.holders('a') == [8]


def test_waiters_of_an_endpoint_are_served_in_the_order_of_their_arrival(desk: Any) -> None:
    d = desk(max_size=1)
    user = d.user('a')
    waiting = [d.request('a', number) for number in range(20)]
    for client in waiting:
        assert client.waits
        assert user.release()
        assert client.state == 'connection'
        user = client.accept()
    assert d.woken == list(range(20))


def test_waiters_get_slots_in_the_order_of_their_arrival_too(desk: Any) -> None:
    d = desk(max_size=1)
    creator = d.request('a')
    waiting = [d.request('a', number) for number in range(5)]
    for client in waiting:
        creator.fail()
        assert client.state == 'slot'
        creator = client
    assert d.woken == list(range(5))


def test_a_released_connection_is_handed_to_the_oldest_waiter_and_nobody_can_take_it_before(desk: Any) -> None:
    d = desk(max_size=1)
    user, waiting = d.user('a'), d.request('a')
    assert user.release()
    assert waiting.ticket.record is user.record
    assert not d.client().take('a')
    assert d.request('a').waits
    assert waiting.wakes == 1


def test_one_release_wakes_one(desk: Any) -> None:
    d = desk(max_size=2)
    users, waiting = [d.user('a'), d.user('a')], [d.request('a', number) for number in range(5)]
    for user in users:
        user.release()
    assert d.woken == [0, 1]
    assert [client.waits for client in waiting] == [False, False, True, True, True]


def test_who_stops_waiting_is_not_served(desk: Any) -> None:
    d = desk(max_size=1)
    user, first, second = d.user('a'), d.request('a'), d.request('a')
    assert first.withdraw()
    assert first.state == 'nothing'
    assert user.release()
    assert (first.wakes, second.state) == (0, 'connection')
    d.check()


@pytest.mark.parametrize('index', range(4))
def test_anybody_in_the_queue_can_stop_waiting(desk: Any, index: int) -> None:
    d = desk(max_size=1)
    user, waiting = d.user('a'), [d.request('a') for _ in range(4)]
    assert waiting.pop(index).withdraw()
    assert d.core.waiting('a') == 3
    for client in waiting:
        assert user.release()
        user = client.accept()
    d.check()


@pytest.mark.parametrize('granted', ['connection', 'slot'])
def test_stopping_to_wait_comes_too_late_after_something_was_granted(desk: Any, granted: str) -> None:
    d = desk(max_size=1)
    user, waiting = d.user('a'), d.request('a')
    if granted == 'connection':
        user.release()
    else:
        user.scrap()
    assert not waiting.withdraw()
    assert waiting.state == granted, 'it is his to give back'
    d.check()


def test_who_does_not_wait_cannot_stop_waiting(desk: Any) -> None:
    d = desk(max_size=1)
    assert not d.client().withdraw()
    assert not d.request('a').withdraw()
    waiting = d.request('a')
    assert waiting.withdraw()
    assert not waiting.withdraw()


def test_a_failed_creation_serves_the_next_waiter(desk: Any) -> None:
    d = desk(max_size=1)
    creator, waiting, last = d.request('a'), d.request('a'), d.request('a')
    creator.fail()
    assert creator.state == 'nothing'
    assert (waiting.state, last.state, waiting.wakes, last.wakes) == ('slot', 'waiting', 1, 0)
    d.check()


def test_a_failed_creation_of_one_endpoint_serves_a_waiter_of_another(desk: Any) -> None:
    d = desk(total_max_size=1)
    creator, waiting = d.request('a'), d.request('b')
    creator.fail()
    assert waiting.state == 'slot'
    assert d.core.endpoints() == ['b']
    d.check()


def test_only_who_holds_a_slot_can_use_it(desk: Any) -> None:
    d = desk(max_size=1)
    user, waiting, idle = d.user('a'), d.request('a'), d.client()
    for client in (user, waiting, idle):
        with pytest.raises(RuntimeError, match='holds no slot'):
            client.fail()
        with pytest.raises(RuntimeError, match='holds no slot'):
            client.create()
        with pytest.raises(RuntimeError, match='holds no slot'):
            d.core.transfer(client.ticket, d.client().ticket)
    assert d.core.total == 1
    d.check()


def test_a_slot_can_be_passed_on_whose_new_owner_uses_it(desk: Any) -> None:
    d = desk(max_size=1)
    creator, heir = d.request('a'), d.client()
    d.core.transfer(creator.ticket, heir.ticket)
    assert (creator.state, heir.state) == ('nothing', 'slot')
    assert heir.create()
    assert heir.accept().release()
    assert d.core.idle_size('a') == 1
    d.check()


def test_a_slot_can_be_passed_on_whose_new_owner_gives_it_up(desk: Any) -> None:
    d = desk(max_size=1)
    creator, waiting, heir = d.request('a'), d.request('a'), d.client()
    d.core.transfer(creator.ticket, heir.ticket)
    heir.fail()
    assert waiting.state == 'slot'
    d.check()


def test_a_discarded_connection_serves_a_waiter_once_it_is_disposed_of(desk: Any) -> None:
    d = desk(max_size=1)
    user, waiting = d.user('a'), d.request('a')
    assert d.core.discard(user.record)
    assert waiting.waits
    d.core.disposed(user.record)
    assert (waiting.state, waiting.wakes) == ('slot', 1)
    d.check()


# -- replacing a connection that has turned out to be dead


def test_a_dead_connection_is_replaced_by_an_idle_one(desk: Any) -> None:
    d = desk()
    first, second = d.idle('a', 2)
    client = d.request('a')
    dead = client.ticket.record
    client.replace()
    assert (client.state, client.victim) == ('connection', dead)
    assert client.ticket.record is not dead
    client.dispose_of_victim()
    assert d.core.total == 1
    d.check()


def test_a_dead_connection_is_replaced_by_a_slot_if_there_is_one(desk: Any) -> None:
    d = desk()
    client = d.user('a')
    client.replace()
    assert (client.state, client.victim) == ('slot', client.record)
    assert d.core.total == 2, 'the dead one counts until it is disposed of'
    client.dispose_of_victim()
    assert d.core.total == 1
    d.check()


def test_at_the_limit_the_slot_of_a_dead_connection_comes_back_to_who_had_it(desk: Any) -> None:
    d = desk(max_size=1)
    client, waiting = d.user('a'), d.request('a')
    client.replace()
    assert (client.state, client.victim, client.ticket.record) == ('waiting', client.record, None)
    d.check()
    client.dispose_of_victim()
    assert (client.state, waiting.state) == ('slot', 'waiting')
    d.check()


def test_whose_connections_were_dead_keep_their_order(desk: Any) -> None:
    d = desk(max_size=2)
    first, second = d.user('a'), d.user('a')
    third = d.request('a')
    first.replace()
    second.replace()
    second.dispose_of_victim()
    assert [client.state for client in (first, second, third)] == ['slot', 'waiting', 'waiting']
    first.dispose_of_victim()
    assert [client.state for client in (first, second, third)] == ['slot', 'slot', 'waiting']
    d.check()


def test_who_holds_no_connection_cannot_replace_it(desk: Any) -> None:
    d = desk(max_size=1)
    creator, waiting, idle = d.request('a'), d.request('a'), d.client()
    for client in (creator, waiting, idle):
        with pytest.raises(RuntimeError, match='holds no connection'):
            client.replace()
    d.check()


def test_what_has_been_given_back_already_is_not_replaced(desk: Any) -> None:
    d = desk(max_size=1)
    user = d.user('a')
    assert user.release()
    user.replace()
    assert (user.state, user.victim) == ('closed', None)
    assert d.core.idle_size('a') == 1
    d.check()


def test_what_has_been_closed_by_force_is_not_replaced(desk: Any) -> None:
    d = desk()
    user = d.user('a')
    d.core.close()
    record = d.core.next_lent()
    d.core.disposed(record)
    user.replace()
    assert (user.state, user.victim) == ('closed', None)
    d.assert_empty()


def test_a_connection_that_was_replaced_lifts_no_limit_once_it_is_disposed_of(desk: Any) -> None:
    d = desk(max_size=1, total_max_size=2)
    d.idle('b')
    user = d.user('a')
    user.replace()
    user.dispose_of_victim()
    assert user.create()
    waiting = d.request('a')
    assert waiting.waits and waiting.victim is None, 'it can only wait for its own endpoint'
    assert d.core.idle_size('b') == 1
    d.check()


def test_a_victim_is_never_replaced_by_another(desk: Any) -> None:
    d = desk(max_size=3)
    d.idle('a', 2)
    client = d.request('a')
    client.replace()
    victim = client.victim
    assert client.state == 'connection'
    with pytest.raises(RuntimeError, match='has a victim'):
        client.replace()
    assert client.victim is victim
    d.check()


# -- telling


def test_whoever_is_told_can_ask_the_core_at_once(desk: Any) -> None:
    """Nobody is told under a lock."""
    d = desk(max_size=1)
    user = d.user('a')
    seen: List[Any] = []

    def told() -> None:
        d.check()
        seen.append((ticket.state, d.core.size('a')))

    ticket: Any = d.new_ticket(told)
    d.core.request(ticket, 'a', 0.0)
    user.release()
    assert seen == [(d.twin.get('waiters', 'CONNECTION'), 1)]


def test_whoever_is_told_can_give_the_connection_on(desk: Any) -> None:
    d = desk(max_size=1)
    user = d.user('a')
    order: List[int] = []

    def waiter(number: int) -> None:
        def told() -> None:
            order.append(number)
            d.core.give_back(ticket.record, 0.0)

        ticket = d.new_ticket(told)
        d.core.request(ticket, 'a', 0.0)

    for number in range(50):
        waiter(number)
    user.release()
    assert order == list(range(50))
    assert d.core.idle_size('a') == 1
    d.check()


def test_one_who_fails_when_told_keeps_nobody_else_from_being_told(desk: Any) -> None:
    d = desk(max_size=1)
    d.user('a')

    def fail() -> None:
        raise ArithmeticError

    tickets = [d.new_ticket(fail)]
    d.core.request(tickets[0], 'a', 0.0)
    others = [d.request('a', number) for number in range(3)]
    with pytest.raises(ArithmeticError):
        d.core.close()
    assert d.woken == [0, 1, 2]
    assert [client.state for client in others] == ['closed'] * 3
    d.check()


@pytest.mark.parametrize('fate', ['withdrawn', 'served', 'replaced', 'failed', 'heir', 'closed'])
def test_the_core_lets_go_of_who_does_not_wait_any_more(desk: Any, fate: str) -> None:
    d = desk(max_size=1)
    user, waiting = d.user('a'), d.request('a')
    if fate == 'withdrawn':
        assert waiting.withdraw()
    elif fate == 'closed':
        d.core.close()
    elif fate in ('failed', 'heir'):
        user.scrap()
        if fate == 'heir':
            heir = d.client()
            d.core.transfer(waiting.ticket, heir.ticket)
            heir.fail()
        else:
            waiting.fail()
    else:
        user.release()
        if fate == 'replaced':
            waiting.replace()
            waiting.dispose_of_victim()
            waiting.create()
        assert waiting.accept().release()
    gone = weakref.ref(waiting)
    heir = waiting = None
    gc.collect()
    assert gone() is None
    d.check()


def test_among_thousands_of_waiters_those_who_stay_are_served_in_order(desk: Any) -> None:
    d = desk(max_size=1)
    user, waiting = d.user('a'), [d.request('a', number) for number in range(3000)]
    for client in random.Random(5).sample(waiting, 2500):
        assert client.withdraw()
        waiting.remove(client)
    for _ in waiting:
        user.release()
        user = next(client for client in waiting if client.name == d.woken[-1]).accept()
    assert d.woken == [client.name for client in waiting]
    assert d.core.waiting('a') == 0
    d.check()
