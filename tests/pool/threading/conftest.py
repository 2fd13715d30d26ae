"""Fixtures for the tests of the threads pool."""

import threading
from typing import Any, Callable, Iterator, List

import pytest
from generic_connection_pool.threading import ConnectionPool
from support.threads import HookedManager, Manager, finish, wait_until

#: threads that may outlive a pool for a moment
LINGERING = ('gcp-disposer',)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Fails any test that leaves a thread, its own or one of the library."""
    before = set(threading.enumerate())
    yield
    wait_until(
        lambda: all(t in before or t.name in LINGERING or not t.is_alive() for t in threading.enumerate()),
        'the end of all threads',
    )


@pytest.fixture(params=['plain', 'hooked'])
def manager(request: pytest.FixtureRequest) -> Manager:
    """A manager without hooks, which the pool serves on its fast path, and one with all of them."""
    return Manager() if request.param == 'plain' else HookedManager()


@pytest.fixture
def hooks() -> HookedManager:
    return HookedManager()


@pytest.fixture
def make_pool(no_thread_is_left: None) -> Iterator[Callable[..., Any]]:
    """Makes pools that are closed and checked at the end of the test."""
    pools: List[ConnectionPool[Any, Any]] = []

    def make(manager: Any, cls: Any = ConnectionPool, **config: Any) -> Any:
        pools.append(cls(manager, **config))
        return pools[-1]

    yield make
    for pool in pools:
        finish(pool)
