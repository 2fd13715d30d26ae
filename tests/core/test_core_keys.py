"""Endpoints are told apart by their keys, whose ``__hash__`` and ``__eq__`` are user code."""

import gc
import weakref
from typing import Any, Callable, List, Optional

import pytest


class Key:
    """A key whose hash and comparison the test decides on."""

    def __init__(self, name: str, hash_: int = 0, meet: Optional[Callable[[], object]] = None):
        self.name = name
        self.hash = hash_
        #: called in each comparison that this key is part of
        self.meet = meet

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        for key in (self, other):
            if isinstance(key, Key) and key.meet is not None:
                key.meet()
        return isinstance(other, Key) and other.name == self.name

    def __repr__(self) -> str:
        return self.name


class Angry(Key):
    """A key that cannot be hashed, or not be compared."""

    def __init__(self, on: str):
        super().__init__('angry')
        self.on = on

    def __hash__(self) -> int:
        if self.on == 'hash':
            raise ArithmeticError('never hash me')
        return 0

    def __eq__(self, other: object) -> bool:
        raise ArithmeticError('never compare me')


def state(d: Any) -> Any:
    core = d.core
    return core.total, sorted(map(repr, core.endpoints())), [core.size(key) for key in ('a', Key('a'), Key('b'))]


def test_keys_that_are_equal_but_not_identical_mean_the_same_endpoint(desk: Any) -> None:
    d = desk(max_size=1)
    d.idle(('localhost', 5432))
    again = d.client()
    assert again.take(('local' + 'host', 5432))
    assert d.request(('localhost', 5432.0)).waits
    assert len(d.core.endpoints()) == 1


def test_any_hashable_object_is_a_key(desk: Any) -> None:
    d = desk()
    keys = [None, '', 0, -1, -2, 'a', (), frozenset(), object(), int, 2**100, -(2**100), 0.5, b'a']
    users = {key: d.user(key) for key in keys}
    assert len(d.core.endpoints()) == len(keys)
    for key in keys:
        assert d.core.size(key) == 1
        assert d.core.find(users[key].record.conn, key) is users[key].record
        assert users[key].record.key is key
    d.check()


def test_numbers_that_are_equal_are_the_same_key(desk: Any) -> None:
    d = desk()
    for key in (1, 1.0, True):
        d.user(key)
    assert d.core.size(1) == 3
    assert d.core.endpoints() == [1]


def test_a_key_is_known_by_its_identity_even_if_it_equals_nothing(desk: Any) -> None:
    d = desk()
    nan = float('nan')
    d.idle(nan)
    assert d.client().take(nan)
    assert d.core.endpoints() == [nan]


@pytest.mark.parametrize('operation', ['request', 'take', 'size', 'idle_size', 'lent_size', 'waiting', 'holders', 'find'])
def test_an_unhashable_key_is_a_type_error_and_changes_nothing(desk: Any, operation: str) -> None:
    d = desk()
    d.idle('a')
    before = state(d)
    with pytest.raises(TypeError, match='unhashable'):
        ask(d, operation, ['not', 'hashable'])
    assert state(d) == before
    d.check()


def ask(d: Any, operation: str, key: Any) -> Any:
    if operation == 'request':
        return d.request(key)
    if operation == 'take':
        return d.client().take(key)
    if operation == 'find':
        return d.core.find(object(), key)
    return getattr(d.core, operation)(key)


@pytest.mark.parametrize('operation', ['request', 'take', 'size', 'idle_size', 'lent_size', 'waiting', 'holders', 'find'])
@pytest.mark.parametrize('on', ['hash', 'eq'])
def test_an_error_of_a_key_is_raised_to_who_used_it_and_changes_nothing(desk: Any, operation: str, on: str) -> None:
    d = desk()
    for key in (Key('a'), Key('b')):
        d.idle(key)
    before = state(d)
    with pytest.raises(ArithmeticError, match='never'):
        ask(d, operation, Angry(on))
    assert state(d) == before
    d.check()
    assert d.request(Key('a')).state == 'connection', 'and the core goes on working'


def test_a_key_in_the_table_that_raises_hurts_only_those_who_meet_it(desk: Any) -> None:
    d = desk()
    angry = Angry('eq')
    user = d.user(angry)
    with pytest.raises(ArithmeticError):
        d.request(Key('a'))
    assert d.request('elsewhere').state == 'slot'
    assert d.core.size(angry) == 1, 'it is itself'
    assert d.core.find(user.record.conn, angry) is user.record
    user.scrap()
    assert d.request(Key('a')).state == 'slot'
    d.check()


def test_keys_that_collide_are_told_apart(desk: Any) -> None:
    d = desk(max_size=1, total_max_size=1000)
    users = [d.user(Key(str(number))) for number in range(100)]
    assert len(d.core.endpoints()) == 100
    for number, user in enumerate(users):
        assert d.core.size(Key(str(number))) == 1
        assert d.core.find(user.record.conn, Key(str(number))) is user.record
    for number in (50, 0, 99, 98, 1):
        users[number].scrap()
        assert d.core.size(Key(str(number))) == 0
    assert len(d.core.endpoints()) == 95
    d.check()


def test_a_key_whose_hash_has_changed_hurts_nobody_else(desk: Any) -> None:
    d = desk()
    key = Key('changing', 1)
    user = d.user(key)
    key.hash = 2
    assert d.core.size(key) == 0, 'as in a dict, it is not found'
    assert user.release()
    record = d.core.next_idle()
    assert record is user.record
    d.core.disposed(record)
    d.assert_empty()


# -- keys that use the pool while they are compared


def test_a_key_may_ask_the_pool_while_it_is_compared(desk: Any) -> None:
    d = desk()
    d.user(Key('a'))
    met = []

    def look() -> None:
        met.append(d.core.total)
        d.check()

    assert d.request(Key('a', meet=look)).state == 'slot'
    assert met == [1]


def test_an_endpoint_that_appears_while_keys_are_compared_is_not_made_twice(desk: Any) -> None:
    d = desk(max_size=1)
    d.user(Key('a'))
    inner: List[Any] = []

    def meddle() -> None:
        key.meet = None
        inner.append(d.request(Key('new')))

    key = Key('new', meet=meddle)
    outer = d.request(key)
    assert inner[0].state == 'slot'
    assert outer.waits, 'it found the endpoint that has appeared'
    assert sorted(map(repr, d.core.endpoints())) == ['a', 'new']
    d.check()


def test_an_endpoint_that_disappears_while_keys_are_compared_is_made_anew(desk: Any) -> None:
    d = desk()
    user = d.user(Key('a'))

    def meddle() -> None:
        key.meet = None
        user.scrap()

    key = Key('a', meet=meddle)
    assert d.request(key).state == 'slot'
    assert d.core.size(Key('a')) == d.core.total == 1
    assert len(d.core.endpoints()) == 1
    d.check()


def test_a_table_that_changes_during_each_comparison_is_searched_to_an_end(desk: Any) -> None:
    d = desk(total_max_size=1000)
    d.user(Key('a'))
    left = list(range(30))

    def meddle() -> None:
        if left:
            number = left.pop()
            key.meet, former = None, key.meet
            user = d.user(Key(f'other {number}'))
            if number % 2:
                user.scrap()
            key.meet = former

    key = Key('b', meet=meddle)
    assert d.request(key).state == 'slot'
    assert d.core.size(Key('b')) == 1
    assert len(d.core.endpoints()) == 17
    d.check()


@pytest.mark.parametrize('operation', ['request', 'take', 'size', 'find'])
def test_a_pool_may_be_closed_while_keys_are_compared(desk: Any, operation: str) -> None:
    d = desk()
    d.idle(Key('a'))

    def meddle() -> None:
        key.meet = None
        d.core.close()
        record = d.core.next_idle()
        if record is not None:
            d.core.disposed(record)

    key = Key('a', meet=meddle)
    answer = ask(d, operation, key)
    if operation == 'request':
        assert answer.state == 'closed'
    else:
        assert not answer
    d.assert_empty()


# -- nothing is left behind


def test_ten_thousand_endpoints_that_have_come_and_gone_leave_nothing(desk: Any) -> None:
    d = desk(max_size=1, total_max_size=100)
    keys = []
    for number in range(10_000):
        key = Key(str(number), number)
        if number % 100 == 0:
            keys.append(weakref.ref(key))
        client = d.request(key)
        if client.victim is not None:
            client.dispose_of_victim()
        if number % 3 == 0:
            client.fail()
        else:
            client.create()
            assert client.accept().release()
        del client, key
    assert d.core.total <= 100
    d.check()
    record = d.core.next_idle()
    while record is not None:
        d.core.disposed(record)
        record = d.core.next_idle()
    d.assert_empty()
    del record
    gc.collect()
    assert [key() for key in keys] == [None] * len(keys)


def test_an_endpoint_goes_with_its_last_ticket(desk: Any) -> None:
    d = desk(total_max_size=1)
    d.user('a')
    waiting = d.request('b')
    assert sorted(d.core.endpoints()) == ['a', 'b']
    waiting.withdraw()
    assert d.core.endpoints() == ['a']


def test_an_endpoint_whose_creations_have_only_ever_failed_is_gone(desk: Any) -> None:
    d = desk()
    d.request('a').fail()
    d.assert_empty()


def test_an_endpoint_stays_while_a_connection_of_it_is_disposed_of(desk: Any) -> None:
    d = desk()
    user = d.user('a')
    d.core.discard(user.record)
    assert d.core.endpoints() == ['a']
    d.core.disposed(user.record)
    d.assert_empty()
