"""Releasing: whose connection it is, by identity; what becomes of it."""

import gc
import weakref
from typing import Any, List

import pytest
from support.core_desk import Conn
from support.core_world import EqualConn


class Hostile(Conn):
    """Its ``__eq__`` raises, and it cannot be hashed."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise ArithmeticError('never compare me')


class Vague(Conn):
    """Its ``__eq__`` answers with something that is neither true nor false."""

    __hash__ = Conn.__hash__

    def __eq__(self, other: object) -> Any:
        class Neither:
            def __bool__(self) -> bool:
                raise ArithmeticError('neither')

        return Neither()


# -- ending a loan


def test_a_released_connection_is_idle_and_can_be_taken_again(desk: Any) -> None:
    d = desk()
    user = d.user('a')
    assert user.release()
    assert (d.core.idle_size('a'), d.core.lent_size('a')) == (1, 0)
    again = d.client()
    assert again.take('a')
    assert again.record is user.record
    d.check()


def test_a_loan_ends_once(desk: Any) -> None:
    d = desk()
    user = d.user('a')
    assert user.begin_release()
    assert not user.begin_release()
    assert d.core.give_back(user.record, d.now)
    assert not user.begin_release()
    d.check()


def test_a_stale_loan_cannot_end_a_later_one_of_the_same_connection(desk: Any) -> None:
    d = desk()
    former = d.user('a')
    assert former.release()
    user = d.user('a')
    assert user.record is former.record
    assert not former.begin_release()
    assert user.begin_release()
    d.check()


def test_a_connection_whose_release_has_begun_still_counts_as_acquired(desk: Any) -> None:
    d = desk(max_size=1)
    user = d.user('a')
    user.begin_release()
    assert (d.core.size('a'), d.core.lent_size('a')) == (1, 1)
    assert d.request('a').waits
    d.check()


@pytest.mark.parametrize('begin', [True, False])
def test_an_acquired_connection_can_be_discarded_whether_its_release_has_begun_or_not(desk: Any, begin: bool) -> None:
    d = desk()
    user = d.user('a')
    if begin:
        user.begin_release()
    assert d.core.discard(user.record)
    assert d.core.find(user.record.conn, 'a') is None
    d.core.disposed(user.record)
    d.assert_empty()


def test_an_acquire_that_failed_can_give_back_without_beginning_a_release(desk: Any) -> None:
    d = desk()
    client = d.user('a')
    assert d.core.give_back(client.record, d.now)
    assert d.core.idle_size('a') == 1
    d.check()


@pytest.mark.parametrize('place', ['idle', 'disposing', 'gone'])
@pytest.mark.parametrize('operation', ['give_back', 'discard', 'take_back'])
def test_what_is_not_acquired_cannot_be_given_back(desk: Any, place: str, operation: str) -> None:
    d = desk()
    user = d.user('a')
    if place == 'idle':
        user.release()
    else:
        d.core.discard(user.record)
        if place == 'gone':
            d.core.disposed(user.record)
    total = d.core.total
    if operation == 'take_back':
        assert not d.core.take_back(user.record, user.loan)
    else:
        arguments = (user.record, d.now) if operation == 'give_back' else (user.record,)
        with pytest.raises(RuntimeError, match='not acquired'):
            getattr(d.core, operation)(*arguments)
    assert d.core.total == total
    d.check()


@pytest.mark.parametrize('place', ['lent', 'idle', 'gone'])
def test_only_what_was_to_be_disposed_of_can_have_been(desk: Any, place: str) -> None:
    d = desk()
    user = d.user('a')
    if place == 'idle':
        user.release()
    elif place == 'gone':
        user.scrap()
    total = d.core.total
    with pytest.raises(RuntimeError, match='not to be disposed of'):
        d.core.disposed(user.record)
    assert d.core.total == total
    d.check()


# -- core connections and extras


def test_core_connections_are_used_in_turn(desk: Any) -> None:
    d = desk(min_idle=3)
    records = d.idle('a', 3)
    taken = []
    for _ in range(6):
        user = d.user('a')
        taken.append(user.record)
        user.release()
    assert taken == records * 2


def test_of_extras_the_latest_is_used_and_only_when_no_core_connection_is_idle(desk: Any) -> None:
    d = desk(min_idle=1)
    users = [d.user('a') for _ in range(4)]
    for user in users:
        user.release()
    first, second, third, core = [user.record for user in users]
    assert [d.user('a').record for _ in range(4)] == [core, third, second, first]


@pytest.mark.parametrize('min_idle', [0, 1, 2, 3, 4])
def test_a_connection_becomes_an_extra_when_those_in_use_could_fill_the_core(desk: Any, min_idle: int) -> None:
    d = desk(min_idle=min_idle)
    users = [d.user('a') for _ in range(3)]
    extras: List[bool] = []
    for still_in_use, user in zip((2, 1, 0), users):
        idle_core = len(extras) - sum(extras)
        user.release()
        extras.append(still_in_use + idle_core >= min_idle)
        expected = d.twin.get('record', 'IDLE_EXTRA' if extras[-1] else 'IDLE_CORE')
        assert user.record.state == expected


# -- finding the record of a connection


def test_a_connection_is_found_by_identity(desk: Any) -> None:
    d = desk()
    users = [d.user('a', EqualConn(number)) for number in range(5)]
    for user in users:
        assert d.core.find(user.record.conn, 'a') is user.record


@pytest.mark.parametrize('conn_class', [Hostile, Vague, EqualConn, Conn])
def test_a_connection_is_found_whatever_it_does_when_compared(desk: Any, conn_class: Any) -> None:
    d = desk()
    users = [d.user('a', conn_class(number)) for number in range(3)]
    for user in users:
        assert d.core.find(user.record.conn, 'a') is user.record
        assert user.release()
    d.check()


@pytest.mark.parametrize('conn_class', [Hostile, Vague, Conn])
def test_a_foreign_connection_that_equals_none_is_not_found(desk: Any, conn_class: Any) -> None:
    d = desk()
    d.user('a', conn_class(1))
    assert d.core.find(conn_class(2), 'a') is None
    assert d.core.find(Conn(3), 'a') is None


def test_an_equal_object_is_found_if_none_is_identical(desk: Any) -> None:
    d = desk()
    user = d.user('a', ['reader', 'writer'])
    d.user('a', ['another reader', 'another writer'])
    assert d.core.find(['reader', 'writer'], 'a') is user.record
    assert d.core.find(['reader', 'nothing'], 'a') is None


@pytest.mark.parametrize('place', ['idle', 'returning'])
def test_an_object_of_the_endpoint_that_is_not_acquired_is_not_taken_for_an_equal_one(desk: Any, place: str) -> None:
    d = desk()
    first, second = EqualConn(1), EqualConn(2)
    former, user = d.user('a', first), d.user('a', second)
    former.begin_release()
    if place == 'idle':
        d.core.give_back(former.record, d.now)
    assert d.core.find(first, 'a') is None
    assert d.core.find(second, 'a') is user.record


def test_an_object_acquired_from_another_endpoint_is_not_taken_for_an_equal_one(desk: Any) -> None:
    d = desk()
    user, other = d.user('a', EqualConn(1)), d.user('b', EqualConn(2))
    assert d.core.find(other.record.conn, 'a') is None
    assert d.core.find(other.record.conn, 'b') is other.record
    assert d.core.find(user.record.conn, 'a') is user.record


def test_what_is_idle_or_belongs_to_an_unknown_endpoint_is_not_found(desk: Any) -> None:
    d = desk()
    user = d.user('a')
    assert d.core.find(user.record.conn, 'unknown') is None
    user.release()
    assert d.core.find(user.record.conn, 'a') is None


def test_one_object_lent_twice_by_an_endpoint_ends_both_loans_one_by_one(desk: Any) -> None:
    d = desk()
    conn = Conn('shared')
    users = [d.user('a', conn), d.user('a', conn)]
    found = []
    for _ in users:
        record = d.core.find(conn, 'a')
        assert d.core.take_back(record, record.uses)
        assert d.core.give_back(record, d.now)
        found.append(record)
    assert set(found) == {user.record for user in users}
    assert d.core.find(conn, 'a') is None
    assert d.core.idle_size('a') == 2
    d.check()


def test_one_object_lent_by_several_endpoints_is_found_under_each(desk: Any) -> None:
    d = desk()
    conn = Conn('shared')
    users = {key: d.user(key, conn) for key in 'abc'}
    for key in 'bca':
        assert d.core.find(conn, key) is users[key].record
        assert users[key].release()
        assert d.core.find(conn, key) is None
    d.check()


def test_a_connection_may_be_anything_even_nothing(desk: Any) -> None:
    d = desk()
    for conn in (None, (), 0, float('nan'), 'text'):
        user = d.client().request('a')
        d.core.fulfil(user.ticket, conn, d.now)
        user.accept()
        assert user.record.conn is conn
        assert d.core.find(conn, 'a') is user.record
    assert d.core.total == 5


def test_a_connection_may_be_given_back_while_it_is_compared(desk: Any) -> None:
    d = desk()

    class Restless(Conn):
        __hash__ = Conn.__hash__

        def __eq__(self, other: object) -> bool:
            assert user.release()
            return True

    user = d.user('a', Restless(1))
    found = d.core.find(Restless(2), 'a')
    assert found is user.record
    assert not d.core.take_back(found, user.loan), 'that loan has ended'
    assert d.core.idle_size('a') == 1
    d.check()


@pytest.mark.parametrize('was_idle', [False, True])
def test_when_a_connection_is_gone_the_pool_lets_go_of_it(desk: Any, was_idle: bool) -> None:
    d = desk(min_idle=2)
    d.idle('other')
    user = d.user('a', Conn('short-lived'))
    conn = weakref.ref(user.record.conn)
    if was_idle:
        user.release()
        user = d.user('a')
    user.begin_release()
    d.core.discard(user.record)
    d.core.disposed(user.record)
    del user
    gc.collect()
    assert conn() is None


def test_a_connection_whose_comparison_fails_is_no_others_equal(desk: Any) -> None:
    """Hazard 35."""

    class Incomparable:
        def __eq__(self, other: object) -> bool:
            raise LookupError('not to be compared')

    d = desk()
    user = d.user('a', Incomparable())
    assert d.core.find(Incomparable(), 'a') is None
    assert d.core.find(object(), 'a') is None
    assert d.core.find(user.ticket.record.conn, 'a') is user.record
    d.check()
