"""The parameters of the pool: their defaults, their properties and what is refused."""

import inspect
import math
from typing import Any

import pytest
from support.tasks import Manager, OpenPool, Pool, always

from generic_connection_pool import BaseError, ConnectionPoolClosedError, exceptions
from generic_connection_pool.asyncio import ConnectionPool

PROPERTIES = {'idle_timeout': 60.0, 'max_lifetime': 3600.0, 'min_idle': 1, 'max_size': 10, 'total_max_size': 100}


def test_the_parameters_and_their_defaults_are_those_of_0_8_1() -> None:
    parameters = dict(inspect.signature(ConnectionPool).parameters)
    assert parameters.pop('connection_manager').kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    expected = {
        'acquire_timeout': None,
        'background_collector': False,
        'dispose_batch_size': 0,
        'dispose_timeout': None,
        **PROPERTIES,
    }
    assert {name: parameters[name].default for name in expected} == expected
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in parameters.values())


async def test_a_manager_may_be_any_object_whose_methods_return_what_can_be_awaited() -> None:
    inner = Manager()

    class Duck:
        def create(self, endpoint: str) -> Any:
            return inner.create(endpoint)

        def dispose(self, endpoint: str, conn: Any) -> Any:
            return inner.dispose(endpoint, conn)

        def nothing(self, endpoint: str, conn: Any) -> Any:
            return always(True)()

        check_aliveness = on_acquire = on_release = on_connection_dead = nothing

    pool: Pool = ConnectionPool(Duck())  # type: ignore[arg-type]
    async with pool.connection('a') as conn:
        assert inner.created == [conn]
    await pool.close()
    inner.check_books()


async def test_the_properties_tell_the_defaults(open_pool: OpenPool) -> None:
    pool = open_pool()
    assert {name: getattr(pool, name) for name in PROPERTIES} == PROPERTIES
    assert pool.is_full is False


async def test_the_properties_tell_what_was_configured(open_pool: OpenPool) -> None:
    configured = {'idle_timeout': 1.5, 'max_lifetime': 7.0, 'min_idle': 2, 'max_size': 3, 'total_max_size': 4}
    pool = open_pool(Manager(), **configured)
    assert {name: getattr(pool, name) for name in configured} == configured


@pytest.mark.parametrize('name', [*PROPERTIES, 'is_full'])
async def test_the_properties_are_read_only(open_pool: OpenPool, name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(open_pool(), name, 5)


@pytest.mark.parametrize(
    'name, values',
    [
        ('min_idle', [-1, 1.5, '1', None, True, 2**40]),
        ('max_size', [0, -1, 1.0, '1', None, False]),
        ('total_max_size', [0, -1, 2.5, '1', None]),
        ('dispose_batch_size', [-1, 0.5, None]),
        ('idle_timeout', [-1, math.nan, '1', None, -math.inf]),
        ('max_lifetime', [-0.001, math.nan, None]),
        ('acquire_timeout', [-1, math.nan, 'soon']),
        ('dispose_timeout', [-1, math.nan, 'soon']),
    ],
)
def test_bad_configuration_is_a_value_error_that_names_the_parameter_and_the_value(name: str, values: Any) -> None:
    for value in values:
        with pytest.raises(ValueError) as caught:
            ConnectionPool(Manager(), **{name: value})
        assert name in str(caught.value) and repr(value) in str(caught.value)


@pytest.mark.parametrize('name', ['acquire_timeout', 'dispose_timeout', 'idle_timeout', 'max_lifetime'])
async def test_infinity_is_a_number_of_seconds(open_pool: OpenPool, name: str) -> None:
    pool = open_pool(Manager(), **{name: math.inf})
    async with pool.connection('a'):
        pass


@pytest.mark.parametrize('timeout', ['1', math.nan, [], b'1'])
async def test_a_bad_timeout_of_a_call_is_a_value_error_that_takes_nothing(open_pool: OpenPool, timeout: Any) -> None:
    pool = open_pool()
    with pytest.raises(ValueError, match='timeout'):
        await pool.acquire('a', timeout)
    with pytest.raises(ValueError, match='timeout'):
        async with pool.connection('a', timeout=timeout):
            raise AssertionError('entered')
    with pytest.raises(ValueError, match='timeout'):
        await pool.close(timeout)
    assert pool.get_size() == 0 and not pool.closed


def test_all_exceptions_are_base_errors() -> None:
    for name in exceptions.__all__:
        assert issubclass(getattr(exceptions, name), BaseError)
    assert issubclass(exceptions.ConnectionNotAcquiredError, RuntimeError)
    assert issubclass(exceptions.ConnectionPoolTimeoutError, TimeoutError)


async def test_a_closed_pool_refuses_to_lend(open_pool: OpenPool) -> None:
    pool: Pool = open_pool()
    await pool.close()
    assert pool.closed
    with pytest.raises(ConnectionPoolClosedError):
        await pool.acquire('a')
    with pytest.raises(ConnectionPoolClosedError):
        async with pool.connection('a'):
            raise AssertionError('entered')
