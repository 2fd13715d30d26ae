"""Every parameter of the pools, fed whatever a user might pass: it is taken, or refused by an error that names it."""

import math
from typing import Any

import pytest
from fuzz.cases import JUNK, NOT_A_NUMBER, IndexLike, NoRepr, covers, is_count, is_seconds
from fuzz.harness import RUNTIMES, Books, Harness, harness
from generic_connection_pool import BaseConnectionPool
from generic_connection_pool._messages import show

COUNTS = {'min_idle': 0, 'max_size': 1, 'total_max_size': 1, 'dispose_batch_size': 0}
SECONDS = ('idle_timeout', 'max_lifetime')
TIMEOUTS = ('acquire_timeout', 'dispose_timeout')
POOL = {'threads': 'threading.ConnectionPool', 'asyncio': 'asyncio.ConnectionPool'}

#: 0.8.1 took False for 0, and so do many programs
NO_TIMEOUT = [value for value in NOT_A_NUMBER if not isinstance(value, bool)]

runtimes = pytest.mark.parametrize('runtime', RUNTIMES)


def each(name: str) -> Any:
    return [f'{pool}.{name}' if name else pool for pool in POOL.values()]


def assert_refused(caught: Any, name: str, value: Any) -> None:
    assert type(caught.value) is ValueError
    assert name in str(caught.value) and show(value) in str(caught.value) and len(str(caught.value)) < 400


@runtimes
@pytest.mark.parametrize('name', [*COUNTS, *SECONDS, *TIMEOUTS])
@covers(*each(''), 'common.BaseConnectionPool', *each('idle_timeout'), *each('max_lifetime'), *each('min_idle'),
        *each('max_size'), *each('total_max_size'))  # fmt: skip
def test_a_parameter_is_taken_as_it_is_or_refused_by_name(runtime: str, name: str) -> None:
    for value in JUNK:
        if name in COUNTS:
            valid = is_count(value, COUNTS[name])
        else:
            valid = is_seconds(value) or (value is None and name in TIMEOUTS)
        for make in (lambda: BaseConnectionPool(**{name: value}), lambda: Harness(runtime, **{name: value})):
            if not valid:
                with pytest.raises(ValueError) as caught:
                    make()
                assert_refused(caught, name, value)
        if valid:
            with harness(runtime, **{name: value}) as pool:
                taken = getattr(pool.pool, name if name not in (*TIMEOUTS, 'dispose_batch_size') else f'_{name}')
                number = value.value if hasattr(value, 'value') else value
                if name in TIMEOUTS and (number is None or number > 1e9):
                    assert taken is None
                elif name in SECONDS and number > 1e308:
                    assert taken == math.inf
                else:
                    assert taken == number and type(taken) is (int if name in COUNTS else float)
                with pool.connection('a', None):
                    assert pool.size('a') == 1
                pool.check()


@runtimes
@covers(*each('acquire'), *each('connection'))
@pytest.mark.parametrize('idle', [0, 1])
def test_a_timeout_of_an_acquire_that_is_no_number_is_refused_and_takes_nothing(runtime: str, idle: int) -> None:
    with harness(runtime, max_size=1) as pool:
        if idle:
            pool.acquire('a')
            pool.release()
        for value in NO_TIMEOUT:
            with pytest.raises(ValueError) as caught:
                pool.acquire('a', value)
            assert_refused(caught, 'timeout', value)
            with pytest.raises(ValueError) as caught, pool.connection('a', value):
                raise AssertionError('it was entered')
            assert_refused(caught, 'timeout', value)
            pool.check()
            assert (pool.size('a'), pool.size('a', True)) == (idle, 0)


@runtimes
@covers(*each('acquire'), *each('connection'))
def test_any_number_is_a_timeout_however_large_or_negative(runtime: str) -> None:
    with harness(runtime, max_size=1) as pool:
        numbers = [value for value in JUNK if value is None or is_seconds(value)]
        for value in [*numbers, -1, -0.5, -math.inf, IndexLike(-2), True, False]:
            pool.acquire('a', value)
            pool.check()
            pool.release()


@runtimes
@covers(*each('close'))
def test_a_timeout_of_close_that_is_no_number_is_refused_and_the_pool_stays_open(runtime: str) -> None:
    with harness(runtime) as pool:
        for value in NO_TIMEOUT:
            with pytest.raises(ValueError) as caught:
                pool.close(value)
            assert_refused(caught, 'timeout', value)
            assert not pool.pool.closed
        for value in JUNK:
            if value is None or is_seconds(value):
                pool.close(value)


@runtimes
@covers(*each('get_endpoint_pool_size'), *each('get_size'), *each('is_full'), *each('closed'))
def test_looking_at_a_pool_takes_any_endpoint_that_can_be_hashed_and_any_truth_value(runtime: str) -> None:
    with harness(runtime) as pool:
        pool.acquire('a')
        for value in JUNK:
            try:
                hash(value)
            except TypeError:
                with pytest.raises(TypeError, match='hash'):
                    pool.size(value)
            else:
                assert pool.size(value) == 0
            assert pool.size('a', value) == (1 if value is None or value else 0)
        assert (pool.pool.get_size(), pool.pool.is_full, pool.pool.closed) == (1, False, False)


@runtimes
@covers(*each('acquire'), *each('connection'), *each('release'))
def test_whatever_can_be_hashed_is_an_endpoint_and_nothing_else(runtime: str) -> None:
    with harness(runtime, total_max_size=100) as pool:
        for endpoint in JUNK:
            try:
                hash(endpoint)
            except TypeError:
                with pytest.raises(TypeError, match='hash'):
                    pool.acquire(endpoint)
                with pytest.raises(TypeError, match='hash'):
                    pool.give_back(object(), endpoint)
            else:
                pool.acquire(endpoint)
            pool.check()


@runtimes
@covers(*each('release'))
def test_what_is_not_held_is_refused_by_an_error_of_bounded_length_whatever_it_is(runtime: str) -> None:
    with harness(runtime) as pool:
        pool.acquire('a')
        for value in [*JUNK, NoRepr()]:
            for endpoint in ('a', 'b', NoRepr(), 'x' * 100_000):
                with pytest.raises(RuntimeError, match='is not acquired from endpoint') as caught:
                    pool.give_back(value, endpoint)
                assert len(str(caught.value)) < 600 and object.__repr__(value) in str(caught.value)
                pool.check()
        assert pool.size('a', True) == 1


@runtimes
@covers(*each('acquire'))
def test_a_timeout_tells_of_an_endpoint_whose_repr_fails_or_is_endless(runtime: str) -> None:
    with harness(runtime, max_size=1) as pool:
        for endpoint in (NoRepr(), 'x' * 100_000, ('y' * 1000,) * 1000):
            pool.acquire(endpoint)
            with pytest.raises(TimeoutError, match='could be had within') as caught:
                pool.acquire(endpoint)
            assert len(str(caught.value)) < 6000 and show(endpoint) in str(caught.value)


@runtimes
@covers(*each(''))
def test_parameters_that_do_not_exist_and_positional_ones_are_refused(runtime: str) -> None:
    with pytest.raises(TypeError, match='max_sise'):
        Harness(runtime, max_sise=1)
    make: Any = BaseConnectionPool
    with pytest.raises(TypeError):
        make(1)


@covers('common.BaseConnectionPool')
def test_the_base_class_of_the_pools_is_only_a_configuration() -> None:
    truth: Any = NoRepr()
    pool: Any = BaseConnectionPool(background_collector=truth)
    assert pool.get_size() == 0 and not pool.is_full
    assert not hasattr(pool, 'acquire')


def test_the_books_notice_what_is_not_disposed_of() -> None:
    books = Books()
    books.new('a')
    with pytest.raises(AssertionError):
        books.check()
