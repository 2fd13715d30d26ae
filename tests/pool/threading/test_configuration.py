"""Names, defaults, properties and the checks of the configuration."""

import inspect
import math
from typing import Any, Callable, Generic

import generic_connection_pool
import pytest
from generic_connection_pool import BaseConnectionPool, BaseError, common, exceptions
from generic_connection_pool import threading as pool_module
from generic_connection_pool.threading import BaseConnectionManager, ConnectionPool, ConnectionT, EndpointT
from support.threads import HookedManager, Manager

MakePool = Callable[..., Any]

DEFAULTS = {
    'acquire_timeout': None,
    'background_collector': False,
    'dispose_batch_size': 0,
    'dispose_timeout': None,
    'idle_timeout': 60.0,
    'max_lifetime': 3600.0,
    'min_idle': 1,
    'max_size': 10,
    'total_max_size': 100,
}
PROPERTIES = ('idle_timeout', 'max_lifetime', 'min_idle', 'max_size', 'total_max_size')


def test_the_package_exports_the_names_of_old() -> None:
    assert set(pool_module.__all__) == {'BaseConnectionManager', 'ConnectionPool', 'ConnectionT', 'EndpointT'}
    assert generic_connection_pool.ConnectionPoolClosedError is exceptions.ConnectionPoolClosedError
    assert generic_connection_pool.BaseConnectionPool is common.BaseConnectionPool
    assert ConnectionT.__name__ == 'ConnectionT' and EndpointT.__name__ == 'EndpointT'
    assert ConnectionT.__bound__ is EndpointT.__bound__ is not None
    assert issubclass(ConnectionPool, BaseConnectionPool)


def test_all_errors_derive_from_the_base_error() -> None:
    assert issubclass(BaseError, Exception)
    for name in exceptions.__all__:
        assert issubclass(getattr(exceptions, name), BaseError)
    assert issubclass(exceptions.ConnectionNotAcquiredError, RuntimeError)
    assert issubclass(exceptions.ConnectionPoolTimeoutError, TimeoutError)


def test_the_parameters_are_keyword_only_and_have_the_defaults_of_old() -> None:
    parameters = dict(inspect.signature(ConnectionPool).parameters)
    manager = parameters.pop('connection_manager')
    assert manager.default is inspect.Parameter.empty
    for name, default in DEFAULTS.items():
        assert parameters[name].default == default
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY


def test_the_properties_tell_the_defaults(make_pool: MakePool) -> None:
    pool = make_pool(Manager())
    assert [getattr(pool, name) for name in PROPERTIES] == [60.0, 3600.0, 1, 10, 100]


def test_the_properties_tell_what_was_configured(make_pool: MakePool) -> None:
    pool = make_pool(Manager(), idle_timeout=5, max_lifetime=7.5, min_idle=2, max_size=3, total_max_size=4)
    assert [getattr(pool, name) for name in PROPERTIES] == [5.0, 7.5, 2, 3, 4]


@pytest.mark.parametrize('name', [*PROPERTIES, 'is_full', 'closed'])
def test_the_properties_are_read_only(make_pool: MakePool, name: str) -> None:
    pool = make_pool(Manager())
    with pytest.raises(AttributeError):
        setattr(pool, name, 1)


def test_is_full_tells_whether_the_total_limit_is_reached(make_pool: MakePool) -> None:
    pool = make_pool(Manager(), total_max_size=2)
    first = pool.acquire('a')
    assert pool.is_full is False
    second = pool.acquire('b')
    assert pool.is_full is True
    pool.release(first, 'a')
    assert pool.is_full is True  # idle ones count
    pool.release(second, 'b')


@pytest.mark.parametrize('name, values', [
    ('min_idle', [-1, 1.0, '1', None, True, 2**31]),
    ('max_size', [0, -1, 1.5, '10', None, True, 2**31]),
    ('total_max_size', [0, -1, 1.5, '10', None, False, 2**31]),
    ('dispose_batch_size', [-1, 0.5, '1', None, True]),
    ('idle_timeout', [-1, -0.001, math.nan, '1', b'1', None, True, object()]),
    ('max_lifetime', [-1, -0.001, math.nan, '1', b'1', None, True, object()]),
    ('acquire_timeout', [-1, math.nan, '1', True, object()]),
    ('dispose_timeout', [-1, math.nan, '1', True, object()]),
])  # fmt: skip
def test_a_bad_configuration_is_a_value_error_that_names_the_parameter_and_its_value(name: str, values: Any) -> None:
    for value in values:
        with pytest.raises(ValueError) as caught:
            ConnectionPool(Manager(), **{name: value})
        assert name in str(caught.value) and repr(value) in str(caught.value)


def test_the_least_values_are_allowed(make_pool: MakePool) -> None:
    pool = make_pool(
        Manager(),
        acquire_timeout=0,
        dispose_batch_size=0,
        dispose_timeout=0,
        idle_timeout=0,
        max_lifetime=0,
        min_idle=0,
        max_size=1,
        total_max_size=1,
    )
    with pool.connection('a') as conn:
        assert conn.number == 1
    assert pool.get_size() == 0


def test_infinite_timeouts_are_allowed(make_pool: MakePool, manager: Manager) -> None:
    pool = make_pool(manager, **dict.fromkeys(
        ('acquire_timeout', 'dispose_timeout', 'idle_timeout', 'max_lifetime'), math.inf,
    ), min_idle=0)  # fmt: skip
    with pool.connection('a', timeout=math.inf) as conn:
        pass
    with pool.connection('a') as again:
        assert again is conn
    assert {call.timeout for call in manager.called('create', 'check_aliveness')} == {None}


def test_an_unknown_parameter_is_a_type_error() -> None:
    with pytest.raises(TypeError, match='max_sise'):
        ConnectionPool(Manager(), max_sise=1)  # type: ignore[call-arg]


@pytest.mark.parametrize('timeout', ['1', b'1', math.nan, object()])
def test_a_bad_timeout_of_an_acquire_is_a_value_error_and_takes_nothing(make_pool: MakePool, timeout: Any) -> None:
    pool = make_pool(HookedManager())
    with pytest.raises(ValueError, match='timeout'):
        pool.acquire('a', timeout=timeout)
    assert pool.get_size() == 0
    with pool.connection('a'):
        pass
    with pytest.raises(ValueError, match='timeout'):
        pool.acquire('a', timeout=timeout)
    assert pool.get_endpoint_pool_size('a', acquired=True) == 0


@pytest.mark.parametrize('timeout', ['1', b'1', math.nan, object()])
def test_so_is_it_though_nobody_would_have_to_wait(make_pool: MakePool, timeout: Any) -> None:
    """The connection is idle, and no hook wants to be asked."""
    pool = make_pool(Manager())
    with pool.connection('a'):
        pass
    for call in (lambda: pool.acquire('a', timeout=timeout), pool.connection('a', timeout).__enter__):
        with pytest.raises(ValueError, match='timeout'):
            call()
    assert pool.get_endpoint_pool_size('a', acquired=True) == 0


def test_the_class_can_be_subscripted() -> None:
    alias = ConnectionPool[str, Manager]
    assert alias.__origin__ is ConnectionPool  # type: ignore[attr-defined]
    pool = alias(Manager(), max_size=2)
    assert type(pool) is ConnectionPool and pool.max_size == 2
    pool.close()


def test_the_class_can_be_subclassed_with_types_methods_and_attributes_of_its_own(make_pool: MakePool) -> None:
    class TenantPool(ConnectionPool[str, Any]):
        def __init__(self, manager: Any, tenant: str, **config: Any):
            super().__init__(manager, **config)
            self.tenant = tenant

        def acquire(self, endpoint: str, timeout: Any = None) -> Any:
            return super().acquire(f'{self.tenant}/{endpoint}', timeout)

    pool = make_pool(Manager(), TenantPool, tenant='t', max_size=3)
    conn = pool.acquire('a')
    assert conn.endpoint == 't/a' and pool.max_size == 3
    pool.release(conn, 't/a')


def test_a_generic_subclass_stays_generic(make_pool: MakePool) -> None:
    class Pool(ConnectionPool[EndpointT, ConnectionT], Generic[EndpointT, ConnectionT]):
        pass

    pool = make_pool(Manager(), Pool[str, Any])
    with pool.connection('a') as conn:
        assert conn.number == 1


def test_the_manager_is_abstract_but_for_its_hooks() -> None:
    assert BaseConnectionManager.__abstractmethods__ == {'create', 'dispose'}

    class OnlyCreates(BaseConnectionManager[str, Any]):
        def create(self, endpoint: str, timeout: Any = None) -> Any: ...

    with pytest.raises(TypeError, match='dispose'):
        OnlyCreates()  # type: ignore[abstract]


def test_the_hooks_that_a_manager_does_not_override_do_nothing_and_approve(make_pool: MakePool) -> None:
    manager = Manager()
    assert manager.check_aliveness('a', 1) is True
    assert manager.is_reusable('a', 1, ValueError()) is True
    assert manager.on_acquire('a', 1) is manager.on_release('a', 1) is manager.on_connection_dead('a', 1) is None


def test_repr_names_the_class(make_pool: MakePool) -> None:
    class MyPool(ConnectionPool[str, Any]):
        pass

    assert 'ConnectionPool' in repr(make_pool(Manager()))
    assert 'MyPool' in repr(make_pool(Manager(), MyPool))


def test_a_constructor_that_fails_leaves_no_pool_that_complains_of_being_unclosed() -> None:
    # a ResourceWarning of the finalizer would fail this test (filterwarnings = error)
    with pytest.raises(ValueError):
        ConnectionPool(Manager(), dispose_timeout=-1)
    with pytest.raises(TypeError, match='connection_manager'):
        ConnectionPool(object())  # type: ignore[arg-type]
