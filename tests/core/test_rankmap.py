import random
from typing import Any

import pytest
from generic_connection_pool.rankmap import RankMap
from hypothesis import given
from hypothesis import strategies as st


def drain(ranks: 'RankMap[Any, Any]') -> list[Any]:
    return [ranks.next() for _ in range(len(ranks))]


def keys_by_rank(ranks: 'RankMap[Any, Any]') -> list[Any]:
    """Pop everything; tell the keys in the order in which they went."""
    keys = []
    while ranks:
        keys.append(next(iter(ranks)))
        ranks.next()
    return keys


class Incomparable:
    def __lt__(self, other: object) -> bool:
        raise ArithmeticError('no order')

    __gt__ = __lt__


def test_an_empty_map_has_no_smallest_value() -> None:
    ranks: RankMap[str, int] = RankMap()
    assert ranks.top() is None
    assert ranks.next() is None
    assert len(ranks) == 0
    assert not ranks


def test_values_are_popped_in_ascending_order() -> None:
    ranks: RankMap[int, int] = RankMap()
    values = random.Random(1).sample(range(1000), 500)
    for value in values:
        ranks.insert(value, value)
    assert ranks.top() == min(values)
    assert drain(ranks) == sorted(values)
    assert not ranks


def test_equal_values_are_popped_in_the_order_of_insertion() -> None:
    ranks: RankMap[str, int] = RankMap()
    for key in 'abcdefghij':
        ranks.insert(key, 7)
    assert keys_by_rank(ranks) == list('abcdefghij')


def test_a_replaced_value_counts_as_inserted_anew() -> None:
    ranks: RankMap[str, int] = RankMap()
    for key in 'abc':
        ranks.insert(key, 7)
    ranks.insert_or_replace('a', 7)
    assert keys_by_rank(ranks) == ['b', 'c', 'a']


def test_inserting_a_key_twice_is_an_error_and_changes_nothing() -> None:
    ranks: RankMap[str, int] = RankMap()
    ranks.insert('a', 1)
    with pytest.raises(KeyError, match='a'):
        ranks.insert('a', 0)
    assert dict(ranks) == {'a': 1}


@pytest.mark.parametrize('value', [0, 5, 9])
def test_replacing_returns_the_previous_value_and_moves_the_key(value: int) -> None:
    ranks: RankMap[str, int] = RankMap()
    assert ranks.insert_or_replace('a', 4) is None
    for key, other in (('b', 2), ('c', 6), ('d', 8)):
        ranks.insert(key, other)
    assert ranks.insert_or_replace('a', value) == 4
    assert ranks['a'] == value
    assert drain(ranks) == sorted([value, 2, 6, 8])


def test_removing_returns_the_value_or_none_for_an_absent_key() -> None:
    ranks: RankMap[str, int] = RankMap()
    ranks.insert('a', 1)
    assert ranks.remove('b') is None
    assert ranks.remove('a') == 1
    assert ranks.remove('a') is None
    assert not ranks


def test_clearing_removes_everything() -> None:
    ranks: RankMap[str, int] = RankMap()
    ranks.insert('a', 1)
    ranks.clear()
    assert not ranks
    assert ranks.top() is None
    assert 'a' not in ranks
    ranks.insert('a', 2)
    assert ranks.top() == 2


def test_it_is_a_mutable_mapping() -> None:
    ranks: RankMap[str, int] = RankMap()
    ranks['a'] = 3
    ranks.update(b=1, c=2)
    assert dict(ranks) == {'a': 3, 'b': 1, 'c': 2}
    assert ranks.setdefault('b', 5) == 1
    assert ranks.pop('a') == 3
    assert ranks.pop('a', None) is None
    del ranks['c']
    assert ranks == {'b': 1}
    assert repr(ranks) == "RankMap({'b': 1})"
    with pytest.raises(KeyError, match='c'):
        del ranks['c']
    with pytest.raises(KeyError, match='c'):
        ranks['c']


def test_the_key_of_the_smallest_value_is_the_first_of_the_iteration() -> None:
    ranks: RankMap[str, int] = RankMap()
    ranks.update(a=3, b=1, c=2)
    assert next(iter(ranks)) == 'b'
    assert sorted(ranks) == ['a', 'b', 'c']


def test_removing_while_iterating_is_allowed() -> None:
    ranks: RankMap[int, int] = RankMap()
    ranks.update({key: key for key in range(10)})
    for key in ranks:
        del ranks[key]
    assert not ranks


def test_a_comparison_that_raises_leaves_the_map_as_it_was() -> None:
    ranks: RankMap[int, Any] = RankMap()
    for key in range(10):
        ranks.insert(key, key)
    with pytest.raises(ArithmeticError):
        ranks.insert(99, Incomparable())
    with pytest.raises(ArithmeticError):
        ranks.insert_or_replace(5, Incomparable())
    assert sorted(ranks) == list(range(10))
    assert drain(ranks) == list(range(10))


def test_a_comparison_that_raises_during_a_removal_leaves_the_map_as_it_was() -> None:
    refusing = False

    class Moody(int):
        def __lt__(self, other: int) -> bool:
            if refusing:
                raise ArithmeticError('no order')
            return int(self) < int(other)

    ranks: RankMap[int, Moody] = RankMap()
    for key in range(10):
        ranks.insert(key, Moody(key))
    refusing = True
    for removal in (ranks.next, lambda: ranks.remove(3)):
        with pytest.raises(ArithmeticError):
            removal()
    refusing = False
    assert drain(ranks) == list(range(10))


keys = st.integers(0, 9)
values = st.integers(0, 4)  # few, so that there are ties
commands = st.one_of(
    st.tuples(st.sampled_from(['insert', 'insert_or_replace']), keys, values),
    st.tuples(st.just('remove'), keys),
    st.tuples(st.sampled_from(['next', 'top', 'clear'])),
)


@given(st.lists(commands, max_size=80))
def test_it_behaves_like_a_dict_that_is_sorted_on_demand(program: list[tuple[Any, ...]]) -> None:
    ranks: RankMap[int, int] = RankMap()
    model: dict[int, tuple[int, int]] = {}  # key -> (value, number of its insertion)
    for number, (verb, *arguments) in enumerate(program):
        smallest = min(model, key=lambda key: model[key], default=None)
        expected: Any = None
        if verb == 'insert' and arguments[0] in model:
            with pytest.raises(KeyError):
                ranks.insert(*arguments)
        else:
            answer = getattr(ranks, verb)(*arguments)
            if verb in ('insert', 'insert_or_replace'):
                expected = model.get(arguments[0], (None,))[0]
                model[arguments[0]] = (arguments[1], number)
            elif verb == 'remove':
                expected = model.pop(arguments[0], (None,))[0]
            elif verb == 'clear':
                model.clear()
            elif smallest is not None:
                expected = model[smallest][0]
                if verb == 'next':
                    del model[smallest]
            assert answer == expected
        assert dict(ranks) == {key: value for key, (value, _) in model.items()}
        assert len(ranks) == len(model)
        assert ranks.top() == min((value for value, _ in model.values()), default=None)
    assert keys_by_rank(ranks) == sorted(model, key=lambda key: model[key])
