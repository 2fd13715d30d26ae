"""The limits, and what the core does when only the total one is in the way: evictions, and turns."""

from typing import Any, List

import pytest
from support.core_desk import Client, Desk


def hammer(desk: Desk, user: Client, waiting: Client, times: int, until: Any) -> 'tuple[int, Client, Client]':
    """The user's endpoint is used over and over with somebody waiting for it all the time; says for how many hand-offs."""
    for hand_offs in range(times):
        if until():
            return hand_offs, user, waiting
        successor = desk.request(user.key)
        assert user.release()
        desk.check()
        if waiting.state != 'connection':
            return hand_offs, user, waiting
        user, waiting = waiting.accept(), successor
    return times, user, waiting


def test_an_endpoint_gets_no_more_than_max_size(desk: Any) -> None:
    d = desk(max_size=2)
    assert [d.request('a').state for _ in range(3)] == ['slot', 'slot', 'waiting']
    assert d.request('b').state == 'slot'
    d.check()


def test_all_endpoints_together_get_no_more_than_total_max_size(desk: Any) -> None:
    d = desk(total_max_size=2)
    assert [d.request(key).state for key in 'abc'] == ['slot', 'slot', 'waiting']
    d.check()


def test_a_connection_counts_until_its_disposal_has_ended(desk: Any) -> None:
    d = desk(max_size=1)
    user = d.user('a')
    d.core.discard(user.record)
    waiting = d.request('a')
    assert waiting.waits
    assert d.core.size('a') == d.core.total == 1
    d.core.disposed(user.record)
    assert waiting.state == 'slot'
    assert waiting.wakes == 1
    d.check()


def test_with_the_total_reached_the_idle_connection_of_another_endpoint_is_evicted_at_once(desk: Any) -> None:
    d = desk(total_max_size=1)
    (record,) = d.idle('a')
    waiting = d.request('b')
    assert (waiting.state, waiting.victim) == ('waiting', record)
    assert waiting.dispose_of_victim() is record
    assert waiting.state == 'slot'
    assert d.core.endpoints() == ['b']
    d.check()


def test_a_connection_released_while_another_endpoint_waits_for_the_total_goes_to_it_at_once(desk: Any) -> None:
    d = desk(total_max_size=1)
    user = d.user('a')
    waiting = d.request('b')
    assert waiting.waits and waiting.victim is None
    assert user.release(), 'not its user but who waits has to dispose of it'
    assert waiting.victim is user.record
    assert waiting.wakes == 1
    waiting.dispose_of_victim()
    assert waiting.state == 'slot'
    d.check()


def test_the_idle_connection_nearest_its_deadline_is_evicted_even_a_core_one(desk: Any) -> None:
    d = desk(min_idle=1, total_max_size=3, idle_timeout=60.0, max_lifetime=100.0)
    (core,) = d.idle('a')
    d.now = 70.0
    first, second = d.user('b'), d.user('b')
    assert first.release() and second.release()  # an extra and a core one: due at 130 and 170
    assert d.request('c').victim is core


def test_an_extra_whose_deadline_is_nearer_is_evicted_before_a_core_one(desk: Any) -> None:
    d = desk(min_idle=1, total_max_size=3, idle_timeout=5.0)
    (core,) = d.idle('a')
    first, second = d.user('b'), d.user('b')
    assert first.release() and second.release()
    evicted = d.request('c').victim
    assert evicted is first.record, 'it was an extra, because the other one was still in use'
    assert d.request('d').victim is core, 'equal deadlines: the one released first'


def test_of_equal_deadlines_the_one_released_first_is_evicted(desk: Any) -> None:
    d = desk(total_max_size=3)
    users = [d.user(key) for key in 'abc']
    for index in (1, 2, 0):
        assert users[index].release()
    assert [d.request(f'other {n}').victim for n in range(3)] == [users[1].record, users[2].record, users[0].record]


def test_each_of_many_waiters_gets_a_victim_of_its_own(desk: Any) -> None:
    d = desk(total_max_size=3)
    records = [d.idle(key)[0] for key in 'abc']
    waiting = [d.request('d') for _ in range(4)]
    assert [client.victim for client in waiting] == [*records, None]
    for client in waiting[:3]:
        client.dispose_of_victim()
    assert [client.state for client in waiting] == ['slot', 'slot', 'slot', 'waiting']
    d.check()


def test_no_more_is_evicted_than_is_needed(desk: Any) -> None:
    d = desk(max_size=1, total_max_size=3)
    for key in 'abc':
        d.idle(key)
    waiting = [d.request('d'), d.request('d')]
    assert waiting[0].victim is not None
    assert waiting[1].victim is None, 'its endpoint may have one connection only'
    assert d.core.idle_size('b') == d.core.idle_size('c') == 1


def test_one_who_waits_for_his_own_endpoint_makes_nobody_evict(desk: Any) -> None:
    d = desk(max_size=1, total_max_size=2)
    d.idle('b')
    d.user('a')
    assert d.request('a').victim is None
    assert d.core.idle_size('b') == 1


def test_whose_victim_it_is_need_not_be_who_gets_the_slot(desk: Any) -> None:
    """The slot goes to the oldest; whoever is free disposes."""
    d = desk(total_max_size=2)
    d.idle('a')
    user = d.user('c')
    first, second = d.request('b'), d.request('b')
    assert first.victim is not None
    assert user.release()
    assert second.victim is user.record
    second.dispose_of_victim()
    assert (first.state, second.state) == ('slot', 'waiting')
    first.dispose_of_victim()
    assert second.state == 'slot'
    d.check()


def test_one_who_rests_may_be_given_another_victim(desk: Any) -> None:
    d = desk(total_max_size=2)
    (record,) = d.idle('a')
    user = d.user('c')
    first, second = d.request('b'), d.request('b')
    assert first.ticket.take_victim() is record
    d.core.rest(first.ticket)
    assert user.release()
    assert (first.victim, second.victim) == (user.record, None)
    d.core.disposed(record)
    assert first.state == 'slot'
    assert first.victim is user.record, 'still his to dispose of'
    first.dispose_of_victim()
    assert second.state == 'slot'
    d.check()


def test_a_victim_of_somebody_who_stops_waiting_still_makes_room(desk: Any) -> None:
    d = desk(total_max_size=1)
    d.idle('a')
    leaver = d.request('b')
    other = d.request('c')
    assert leaver.withdraw()
    assert other.waits and other.victim is None, 'the room is on its way'
    leaver.dispose_of_victim()
    assert other.state == 'slot'
    assert d.core.endpoints() == ['c']
    d.check()


def test_who_comes_back_before_his_former_victim_is_gone_evicts_nobody_else(desk: Any) -> None:
    d = desk(total_max_size=2)
    d.idle('a')
    d.idle('c')
    leaver = d.request('b')
    assert leaver.withdraw()
    back = d.request('b')
    assert back.victim is None, 'the room is on its way'
    leaver.dispose_of_victim()
    assert back.state == 'slot'
    assert d.core.idle_size('c') == 1
    d.check()


def test_one_whose_victim_made_room_for_another_may_be_given_a_second_one(desk: Any) -> None:
    d = desk(total_max_size=3)
    d.idle('a')
    users = [d.user('c'), d.user('c')]
    first, second, third = d.request('b'), d.request('b'), d.request('b')
    assert users[0].release()
    assert second.victim is users[0].record
    second.dispose_of_victim()
    assert (first.state, second.state) == ('slot', 'waiting')
    d.check()
    assert users[1].release()
    assert (second.victim, third.victim) == (users[1].record, None)
    second.dispose_of_victim()
    assert (second.state, third.state) == ('slot', 'waiting')
    d.check()


def test_a_ticket_that_has_had_a_victim_may_be_given_another_one_for_its_next_request(desk: Any) -> None:
    d = desk(total_max_size=2)
    d.idle('a')
    user = d.user('c')
    client = d.request('b')
    assert client.victim is not None
    user.scrap()
    assert client.state == 'slot', 'before its victim is gone'
    client.dispose_of_victim()
    client.fail()
    d.idle('a')
    d.user('c')
    assert client.request('b').waits
    assert client.victim is not None
    client.dispose_of_victim()
    assert client.state == 'slot'
    d.check()


def test_the_slot_of_a_victim_does_not_lift_the_limit_of_the_endpoint(desk: Any) -> None:
    d = desk(max_size=1, total_max_size=2)
    d.idle('a')
    creator = d.request('c')
    first, second = d.request('b'), d.request('b')
    creator.fail()
    assert first.state == 'slot'
    first.dispose_of_victim()
    assert second.waits
    assert d.core.size('b') == d.core.total == 1
    d.check()


def test_a_slot_that_becomes_free_serves_somebody_whose_victim_takes_long(desk: Any) -> None:
    d = desk(total_max_size=2)
    d.idle('a')
    user = d.user('c')
    waiting = d.request('b')
    assert waiting.victim is not None
    user.scrap()
    assert waiting.state == 'slot'
    waiting.dispose_of_victim()
    assert d.core.total == 1
    d.check()


def test_a_newcomer_does_not_overtake_somebody_whose_victim_takes_long(desk: Any) -> None:
    d = desk(total_max_size=2)
    d.idle('a')
    creator = d.request('c')
    waiting = d.request('b')
    creator.fail()
    assert waiting.state == 'slot'
    assert d.request('b').waits
    d.check()


def test_a_free_slot_goes_to_one_without_a_victim_before_one_with(desk: Any) -> None:
    d = desk(total_max_size=2)
    d.idle('a')
    creator = d.request('x')
    covered = d.request('b')
    blocked = d.request('c')
    assert covered.victim is not None and blocked.victim is None
    creator.fail()
    assert (covered.state, blocked.state) == ('waiting', 'slot')
    covered.dispose_of_victim()
    assert covered.state == 'slot'
    d.check()


@pytest.mark.parametrize('total_max_size', [1, 40])
def test_a_hammered_endpoint_lets_another_have_its_turn(desk: Any, total_max_size: int) -> None:
    d = desk(max_size=1, total_max_size=total_max_size)
    for number in range(total_max_size - 1):
        d.user(number)
    user, waiting = d.user('a'), d.request('a')
    other = d.request('b')
    limit = max(16, total_max_size)
    hand_offs, user, _ = hammer(d, user, waiting, 1000, lambda: other.victim)
    assert hand_offs == limit
    assert other.victim is user.record
    other.dispose_of_victim()
    assert other.state == 'slot'


@pytest.mark.parametrize('total_max_size', [1, 40])
def test_slots_that_become_free_in_a_hammered_endpoint_are_passed_on_within_it_as_often_as_connections(
    desk: Any, total_max_size: int
) -> None:
    d = desk(max_size=1, total_max_size=total_max_size)
    for number in range(total_max_size - 1):
        d.user(number)
    user, waiting = d.user('a'), d.request('a')
    other = d.request('b')
    for _ in range(max(16, total_max_size)):
        user.scrap()
        assert (waiting.state, other.state) == ('slot', 'waiting')
        assert waiting.create()
        user, waiting = waiting.accept(), d.request('a')
    user.scrap()
    assert (waiting.state, other.state) == ('waiting', 'slot')


@pytest.mark.parametrize('total_max_size', [1, 40])
def test_turns_do_not_come_too_often(desk: Any, total_max_size: int) -> None:
    """Each turn costs a connection: one that is handed on within its endpoint is worth more."""
    d = desk(max_size=1, total_max_size=total_max_size)
    for number in range(total_max_size - 1):
        d.user(number)
    user, waiting = d.user('a'), d.request('a')
    other = d.request('b')
    hand_offs, _, _ = hammer(d, user, waiting, 1000, lambda: other.victim)
    assert hand_offs >= max(16, total_max_size) - 2


def test_all_who_wait_for_the_total_get_their_turns_in_the_order_of_their_arrival(desk: Any) -> None:
    d = desk(max_size=1, total_max_size=1)
    user, waiting = d.user('a'), d.request('a')
    others = [d.request(key) for key in 'bcd']
    hand_offs, user, waiting = hammer(d, user, waiting, 1000, lambda: others[0].victim)
    assert hand_offs <= 17
    served: List[Any] = []
    client = others[0]
    while True:
        served.append(client.key)
        client.dispose_of_victim()
        client.create()
        d.check()
        if client is waiting:
            break
        assert client.accept().release(), 'it goes to the next in turn'
        client = next(other for other in [waiting, *others] if other.victim is client.record)
    assert served == ['b', 'c', 'd', 'a']


def test_whoever_has_got_a_connection_that_would_have_become_idle_goes_behind_the_others(desk: Any) -> None:
    d = desk(total_max_size=2)
    users = [d.user('a'), d.user('a')]
    first, second, other = d.request('b'), d.request('b'), d.request('c')
    for user in users:
        assert user.release()
        d.check()
    assert (first.victim, other.victim) == (users[0].record, users[1].record)
    assert second.victim is None, 'its endpoint has had its turn'


def test_whoever_has_got_a_slot_that_became_free_goes_behind_the_others(desk: Any) -> None:
    d = desk(total_max_size=2)
    creators = [d.request('x'), d.request('y')]
    first, second, other = d.request('b'), d.request('b'), d.request('c')
    for creator in creators:
        creator.fail()
        d.check()
    assert [client.state for client in (first, second, other)] == ['slot', 'waiting', 'slot']


def test_an_endpoint_that_has_a_connection_does_not_keep_its_turn_for_ever(desk: Any) -> None:
    """It could use a second connection and is the first in turn, but is served by its own first one all the time."""
    d = desk(max_size=2, total_max_size=2)
    user = d.user('h')
    d.user('x')
    waiting = d.request('h')
    other = d.request('b')
    hand_offs, user, _ = hammer(d, user, waiting, 1000, lambda: other.victim)
    assert hand_offs <= 17
    assert other.victim is user.record
    other.dispose_of_victim()
    assert other.state == 'slot'
    d.check()


def test_an_endpoint_whose_creations_fail_lets_another_have_its_turn(desk: Any) -> None:
    d = desk(max_size=1, total_max_size=1)
    trying = d.request('dead')
    queue = [d.request('dead')]
    other = d.request('b')
    for attempts in range(1000):
        queue.append(d.request('dead'))
        trying.fail()
        d.check()
        if other.state == 'slot':
            break
        trying = queue.pop(0)
        assert trying.state == 'slot'
    assert 1 <= attempts <= 16


def test_the_slot_of_a_disposed_connection_goes_to_its_endpoint_until_another_has_its_turn(desk: Any) -> None:
    d = desk(max_size=1, total_max_size=1)
    user, other = d.user('a'), d.client().request('b')
    for served in range(1000):
        waiting = d.request('a')
        user.scrap()
        if other.state == 'slot':
            break
        assert waiting.state == 'slot'
        waiting.create()
        user = waiting.accept()
    assert 1 <= served <= 16
    assert waiting.waits
    d.check()


def test_a_dead_connection_is_replaced_in_its_own_slot_whoever_waits_for_the_total(desk: Any) -> None:
    d = desk(max_size=1, total_max_size=1)
    user, others = d.user('a'), [d.request('b'), d.request('c')]
    for _ in range(40):
        user.replace()
        assert (user.state, user.victim is not None) == ('waiting', True)
        user.dispose_of_victim()
        assert user.state == 'slot'
        user.create()
    assert [other.state for other in others] == ['waiting', 'waiting']
    d.check()


def test_replacing_evicts_nobody_for_the_slot_is_on_its_way(desk: Any) -> None:
    d = desk(total_max_size=2)
    user = d.user('a')
    d.idle('b')
    user.replace()
    assert user.victim.key == 'a'
    d.core.rest(user.ticket)
    assert d.core.idle_size('b') == 1
    user.dispose_of_victim()
    assert user.state == 'slot'
    d.check()


def test_endpoints_whose_users_give_back_in_turn_do_not_evict_each_other_for_nothing(desk: Any) -> None:
    """Nobody waits: connections stay."""
    d = desk(total_max_size=2)
    records: List[Any] = [d.idle('a')[0], d.idle('b')[0]]
    for _ in range(20):
        for key, record in zip('ab', records):
            user = d.user(key)
            assert user.record is record
            assert user.release()
    assert d.core.total == 2
