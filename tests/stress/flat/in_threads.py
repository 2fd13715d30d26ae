"""What a threads pool does, over and over. Each stage is a generator: it does so many operations, then yields."""

import contextlib
import sys
import threading
from typing import Any, Callable, Dict, Iterator, Optional, Tuple

from connections import Connection, Trouble, Troubles
from generic_connection_pool import ConnectionNotAcquiredError, ConnectionPoolTimeoutError
from generic_connection_pool.threading import BaseConnectionManager, ConnectionPool
from measuring import ENDPOINTS

Stage = Callable[[int], Iterator[None]]


class Manager(BaseConnectionManager[Any, Connection]):
    def create(self, endpoint: Any, timeout: Optional[float] = None) -> Connection:
        return Connection()

    def dispose(self, endpoint: Any, conn: Connection, timeout: Optional[float] = None) -> None:
        conn.close()


class TroubledManager(Manager):
    """Every hook fails now and then."""

    def __init__(self) -> None:
        self.troubles = Troubles()

    def create(self, endpoint: Any, timeout: Optional[float] = None) -> Connection:
        self.troubles.meet('create')
        return Connection()

    def check_aliveness(self, endpoint: Any, conn: Connection, timeout: Optional[float] = None) -> bool:
        return not self.troubles.has('check_aliveness')

    def on_acquire(self, endpoint: Any, conn: Connection) -> None:
        self.troubles.meet('on_acquire')

    def on_release(self, endpoint: Any, conn: Connection) -> None:
        self.troubles.meet('on_release')

    def is_reusable(self, endpoint: Any, conn: Connection, exc: BaseException) -> bool:
        return not self.troubles.has('is_reusable')

    def dispose(self, endpoint: Any, conn: Connection, timeout: Optional[float] = None) -> None:
        conn.close()
        self.troubles.meet('dispose')


@contextlib.contextmanager
def open_pool(manager: Optional[Manager] = None, **options: Any) -> 'Iterator[ConnectionPool[Any, Connection]]':
    pool = ConnectionPool(manager or Manager(), **options)
    yield pool
    pool.close()


def acquires(count: int) -> Iterator[None]:
    """Idle connections are acquired and released, in a block and by hand."""
    with open_pool() as pool:
        while True:
            for i in range(count // 2):
                endpoint = ENDPOINTS[i % 3]
                with pool.connection(endpoint):
                    pass
                pool.release(pool.acquire(endpoint), endpoint)
            yield


def timeouts(count: int) -> Iterator[None]:
    """Nobody gets what is in use; one in twenty waits for it."""
    with open_pool(max_size=1) as pool, pool.connection('a'):
        while True:
            for i in range(count):
                try:
                    pool.acquire('a', timeout=1e-6 if i % 20 == 0 else 0)
                except ConnectionPoolTimeoutError:
                    pass
            yield


def creates(count: int) -> Iterator[None]:
    """Nothing stays idle, and every endpoint is a new one."""
    with open_pool(min_idle=0, idle_timeout=0) as pool:
        while True:
            for i in range(count):
                with pool.connection(('endpoint', i)):
                    pass
            yield


def evictions(count: int) -> Iterator[None]:
    """Every connection has to make room for the next."""
    with open_pool(total_max_size=2) as pool:
        while True:
            for i in range(count):
                with pool.connection(i % 5):
                    pass
            yield


def failures(count: int) -> Iterator[None]:
    """Hooks and blocks raise, and connections are given back that are not held."""
    with open_pool(TroubledManager(), total_max_size=2) as pool:
        stranger = object()
        while True:
            for i in range(count):
                try:
                    with pool.connection(i % 3):
                        if i % 4 == 0:
                            raise Trouble
                except Trouble:
                    pass
                try:
                    pool.release(stranger, i % 3)  # type: ignore[arg-type]
                except ConnectionNotAcquiredError:
                    pass
            yield


def hand_overs(count: int) -> Iterator[None]:
    """Two threads take turns with one connection: every release wakes the other."""
    interval = sys.getswitchinterval()

    def take_turns() -> None:
        for _ in range(count // 2):
            with pool.connection('a'):
                while not pool._core.waiting('a') and not finished.is_set():
                    pass
        finished.set()

    with open_pool(max_size=1) as pool:
        while True:
            sys.setswitchinterval(1e-6)
            finished = threading.Event()
            threads = [threading.Thread(target=take_turns) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            sys.setswitchinterval(interval)
            yield


def pools(count: int) -> Iterator[None]:
    """Pools come and go: closed, left open with nothing in them, and in a circle of references."""
    while True:
        for i in range(count):
            pool = ConnectionPool(Manager(), background_collector=i % 20 == 0)
            with pool.connection('a') as conn:
                pass
            if i % 2:
                conn.pool = pool  # type: ignore[attr-defined]
            pool.close()
            ConnectionPool(Manager())
        del pool, conn
        yield


#: the stages, and by how much fewer operations each gets
STAGES: Dict[str, Tuple[Stage, int]] = {
    'acquires': (acquires, 1),
    'timeouts': (timeouts, 1),
    'creates, disposals': (creates, 1),
    'evictions': (evictions, 1),
    'failures': (failures, 1),
    'hand-overs': (hand_overs, 5),
    'pools': (pools, 20),
}
