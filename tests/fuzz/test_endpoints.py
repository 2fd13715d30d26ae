"""Endpoints and connections that do what they should not whenever they are compared, hashed, or looked at."""

from typing import Any, Callable, List

import pytest
from fuzz.cases import covers
from fuzz.harness import RUNTIMES, Books, Harness, harness
from generic_connection_pool import BaseError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

POOL = {'threads': 'threading.ConnectionPool', 'asyncio': 'asyncio.ConnectionPool'}
METHODS = [f'{pool}.{name}' for pool in POOL.values() for name in ('acquire', 'release', 'connection', 'get_endpoint_pool_size')]
METHODS += [f'{pool}.close' for pool in POOL.values()]

runtimes = pytest.mark.parametrize('runtime', RUNTIMES)


class Mischief(Exception):
    """Raised by an endpoint or a connection."""


class Outrage(BaseException):
    """Raised by an endpoint or a connection, and not an Exception."""


EXPECTED = (Mischief, Outrage, BaseError, TimeoutError, RuntimeError)


class World:
    """A pool and what its endpoints do to it. The deeds are done in their order, one each time that one is looked at."""

    def __init__(self, pool: Harness, deeds: List[str]):
        self.pool = pool
        self.deeds = deeds
        self.depth = 0
        self.endpoints: List['Hostile'] = []

    def act(self, by: 'Hostile') -> str:
        if not self.deeds or self.depth >= 4:
            return 'honest'
        deed = self.deeds.pop()
        self.depth += 1
        try:
            self.perform(deed, by)
        finally:
            self.depth -= 1
        return deed

    def perform(self, deed: str, by: 'Hostile') -> None:
        if deed == 'raise':
            raise Mischief
        if deed == 'outrage':
            raise Outrage
        if deed == 'rehash':
            by.hash_value ^= 1
        elif deed in ('acquire', 'other', 'release', 'size', 'close', 'hold'):
            try:
                self.call_back(deed, by)
            except EXPECTED:
                pass

    def call_back(self, deed: str, by: 'Hostile') -> None:
        if deed == 'acquire':
            self.pool.acquire(by)
        elif deed == 'other':
            self.pool.acquire(Hostile(self, f'new {len(self.pool.books.created)}', by.hash_value))
        elif deed == 'release':
            self.pool.release(-1)
        elif deed == 'size':
            self.pool.size(by)
        elif deed == 'hold':
            with self.pool.connection(by):
                self.pool.size(by)
        elif deed == 'close':
            self.pool.close(0)


class Hostile:
    """An endpoint: equal to its namesakes, when it is honest."""

    def __init__(self, world: World, name: str, hash_value: int = 0):
        self.world = world
        self.name = name
        self.hash_value = hash_value

    def __hash__(self) -> int:
        self.world.act(self)
        return self.hash_value

    def __eq__(self, other: object) -> bool:
        deed = self.world.act(self)
        if deed == 'lie':
            return True
        if deed == 'deny':
            return False
        return isinstance(other, Hostile) and other.name == self.name


DEEDS = ['honest', 'honest', 'raise', 'outrage', 'rehash', 'acquire', 'other', 'release', 'size', 'hold', 'lie', 'deny', 'close']
deeds = st.lists(st.sampled_from(DEEDS), max_size=25)
operations = st.lists(
    st.tuples(st.sampled_from(['acquire', 'release', 'stale', 'hold', 'fail', 'size']), st.integers(0, 5), deeds),
    max_size=12,
)


def perform(pool: Harness, world: World, what: str, which: int) -> None:
    endpoint = Hostile(world, 'abc'[which % 3], which // 3)
    if what == 'acquire':
        pool.acquire(endpoint)
    elif what == 'release':
        pool.release(which)
    elif what == 'stale':
        conn = pool.books.created[which % len(pool.books.created)] if pool.books.created else None
        if all(conn is not other for other, _ in pool.held):
            pool.give_back(conn, endpoint)
    elif what == 'hold':
        with pool.connection(endpoint):
            pool.check()
    elif what == 'fail':
        with pool.connection(endpoint):
            raise Mischief
    elif what == 'size':
        assert pool.size(endpoint) <= 3


@runtimes
@given(operations=operations, config=st.sampled_from([{}, {'min_idle': 0, 'idle_timeout': 0}, {'max_size': 1}]))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@covers(*METHODS)
def test_whatever_endpoints_do_when_compared_no_count_is_wrong_and_no_connection_lost(
    runtime: str, operations: Any, config: Any
) -> None:
    with harness(runtime, **{'max_size': 3, 'total_max_size': 4, **config}) as pool:
        world = World(pool, [])
        for what, which, mischief in operations:
            world.deeds = list(mischief)
            try:
                perform(pool, world, what, which)
            except EXPECTED:
                pass
            world.deeds = []
            pool.check()


@runtimes
def test_an_endpoint_whose_hash_changes_keeps_its_slots_until_they_are_disposed_of(runtime: str) -> None:
    with harness(runtime, max_size=1) as pool:
        world = World(pool, [])
        endpoint = Hostile(world, 'a', 0)
        first = pool.acquire(endpoint)
        endpoint.hash_value = 1  # from now on it is another endpoint
        second = pool.acquire(endpoint)
        assert first is not second and (pool.size(endpoint), pool.pool.get_size()) == (1, 2)
        pool.release()
        pool.release()
        pool.check()


@runtimes
def test_an_endpoint_whose_eq_always_registers_another_does_not_keep_the_lookup_busy_for_ever(runtime: str) -> None:
    with harness(runtime, min_idle=0, idle_timeout=0) as pool:

        compared: List[object] = []

        class Busy:
            def __hash__(self) -> int:
                return 1

            def __eq__(self, other: object) -> bool:
                compared.append(other)
                if len(compared) < 1000:  # each changes the table of endpoints
                    try:
                        pool.acquire(('passing', len(compared)))
                    finally:
                        pool.release(-1)
                return False

        pool.acquire(Busy())
        pool.acquire(Busy())
        assert 0 < len(compared) < 1000
        pool.check()


def hostile_connection(name: str, deed: Callable[..., Any]) -> Any:
    return type('HostileConnection', (), {name: deed, **({'__hash__': None} if name == '__eq__' else {})})()


def refuse(*args: Any) -> Any:
    raise Mischief


@runtimes
@pytest.mark.parametrize('name', ['__eq__', '__hash__', '__bool__', '__repr__', '__len__', '__getattribute__', '__del__'])
@covers(*METHODS)
def test_nothing_is_asked_of_a_connection_but_by_its_manager(runtime: str, name: str) -> None:
    deed = refuse if name != '__del__' else lambda self: None
    with harness(runtime, Books(create=lambda endpoint: hostile_connection(name, deed)), max_size=2) as pool:
        for _ in range(3):
            first, second = pool.acquire('a'), pool.acquire('a')
            assert first is not second
            with pytest.raises(RuntimeError, match='HostileConnection'):
                pool.give_back(hostile_connection(name, deed), 'a')
            with pytest.raises(TimeoutError):
                pool.acquire('a')
            pool.release()
            with pytest.raises(RuntimeError, match='HostileConnection'):
                pool.give_back(first, 'a')
            pool.release()
            with pytest.raises(Outrage), pool.connection('a'):
                raise Outrage
            pool.check()


@runtimes
@pytest.mark.parametrize('answer', [True, 1, 'yes', False, 0, None, NotImplemented, ...])
def test_an_equal_connection_stands_for_the_one_that_is_held_whatever_eq_returns(runtime: str, answer: Any) -> None:
    class Equal:
        __hash__: Any = None

        def __eq__(self, other: object) -> Any:
            return answer

    with harness(runtime, Books(create=lambda endpoint: Equal())) as pool:
        pool.acquire('a')
        if answer is NotImplemented or not answer:
            with pytest.raises(RuntimeError, match='is not acquired'):
                pool.give_back(Equal(), 'a')
        else:
            pool.give_back(Equal(), 'a')
            pool.held.clear()
        pool.check()


@runtimes
def test_a_connection_whose_eq_calls_the_pool_may_do_so(runtime: str) -> None:
    class Meddler:
        __hash__: Any = None

        def __eq__(self, other: object) -> bool:
            pool.release(-1)
            pool.acquire('b')
            return True

    with harness(runtime, Books(create=lambda endpoint: Meddler())) as pool:
        pool.acquire('a')
        pool.acquire('a')
        try:
            pool.give_back(Meddler(), 'a')
        except BaseError:
            pass
        pool.check()
