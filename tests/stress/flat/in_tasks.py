"""What an asyncio pool does, over and over. Each stage is a generator: it does so many operations, then yields."""

import asyncio
import contextlib
from typing import Any, AsyncIterator, Callable, Dict, Optional, Tuple

from connections import Connection, Trouble, Troubles
from generic_connection_pool import ConnectionNotAcquiredError, ConnectionPoolTimeoutError
from generic_connection_pool.asyncio import BaseConnectionManager, ConnectionPool
from measuring import ENDPOINTS

Stage = Callable[[int], AsyncIterator[None]]


class Manager(BaseConnectionManager[Any, Connection]):
    async def create(self, endpoint: Any) -> Connection:
        return Connection()

    async def dispose(self, endpoint: Any, conn: Connection) -> None:
        conn.close()


class SlowManager(Manager):
    """Everything takes a turn of the event loop."""

    async def create(self, endpoint: Any) -> Connection:
        await asyncio.sleep(0)
        return Connection()

    async def dispose(self, endpoint: Any, conn: Connection) -> None:
        conn.close()
        await asyncio.sleep(0)


class TroubledManager(Manager):
    """Every hook fails now and then."""

    def __init__(self) -> None:
        self.troubles = Troubles()

    async def create(self, endpoint: Any) -> Connection:
        self.troubles.meet('create')
        return Connection()

    async def check_aliveness(self, endpoint: Any, conn: Connection) -> bool:
        return not self.troubles.has('check_aliveness')

    async def on_acquire(self, endpoint: Any, conn: Connection) -> None:
        self.troubles.meet('on_acquire')

    async def on_release(self, endpoint: Any, conn: Connection) -> None:
        self.troubles.meet('on_release')

    def is_reusable(self, endpoint: Any, conn: Connection, exc: BaseException) -> bool:
        return not self.troubles.has('is_reusable')

    async def dispose(self, endpoint: Any, conn: Connection) -> None:
        conn.close()
        self.troubles.meet('dispose')


@contextlib.asynccontextmanager
async def open_pool(
    manager: Optional[Manager] = None, **options: Any
) -> 'AsyncIterator[ConnectionPool[Any, Connection]]':
    pool = ConnectionPool(manager or Manager(), **options)
    yield pool
    await pool.close()


async def acquires(count: int) -> AsyncIterator[None]:
    """Idle connections are acquired and released, in a block and by hand."""
    async with open_pool() as pool:
        while True:
            for i in range(count // 2):
                endpoint = ENDPOINTS[i % 3]
                async with pool.connection(endpoint):
                    pass
                await pool.release(await pool.acquire(endpoint), endpoint)
            yield


async def timeouts(count: int) -> AsyncIterator[None]:
    """Nobody gets what is in use; one in ten waits for it."""
    async with open_pool(max_size=1) as pool, pool.connection('a'):
        while True:
            for i in range(count):
                try:
                    await pool.acquire('a', timeout=1e-6 if i % 10 == 0 else 0)
                except ConnectionPoolTimeoutError:
                    pass
            yield


async def cancellations(count: int) -> AsyncIterator[None]:
    """Tasks are cancelled while they wait, create, are handed a connection, or hold one."""
    async with open_pool(SlowManager(), max_size=1, min_idle=0, idle_timeout=0) as pool:

        async def use(endpoint: str) -> None:
            async with pool.connection(endpoint):
                await asyncio.sleep(0)

        async def cancel(*tasks: 'asyncio.Task[None]') -> None:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

        while True:
            for i in range(count // 2):
                # what the second and the third meet depends on how far the first has come
                tasks = [asyncio.ensure_future(use('a')) for _ in range(3)]
                for _ in range(i % 9):
                    await asyncio.sleep(0)
                await cancel(*tasks[1:])
                await tasks[0]
            yield


async def creates(count: int) -> AsyncIterator[None]:
    """Nothing stays idle, and every endpoint is a new one."""
    async with open_pool(min_idle=0, idle_timeout=0) as pool:
        while True:
            for i in range(count):
                async with pool.connection(('endpoint', i)):
                    pass
            yield


async def evictions(count: int) -> AsyncIterator[None]:
    """Every connection has to make room for the next."""
    async with open_pool(total_max_size=2) as pool:
        while True:
            for i in range(count):
                async with pool.connection(i % 5):
                    pass
            yield


async def failures(count: int) -> AsyncIterator[None]:
    """Hooks and blocks raise, and connections are given back that are not held."""
    async with open_pool(TroubledManager(), total_max_size=2) as pool:
        stranger = Connection()
        while True:
            for i in range(count):
                try:
                    async with pool.connection(i % 3):
                        if i % 4 == 0:
                            raise Trouble
                except Trouble:
                    pass
                try:
                    await pool.release(stranger, i % 3)
                except ConnectionNotAcquiredError:
                    pass
            yield


async def hand_overs(count: int) -> AsyncIterator[None]:
    """Three tasks take turns with one connection: every release wakes the next."""
    async with open_pool(max_size=1) as pool:

        async def take_turns() -> None:
            for _ in range(count // 3):
                async with pool.connection('a'):
                    await asyncio.sleep(0)

        while True:
            await asyncio.gather(*[take_turns() for _ in range(3)])
            yield


async def pools(count: int) -> AsyncIterator[None]:
    """Pools come and go: closed, left open with nothing in them, and in a circle of references."""
    while True:
        for i in range(count):
            pool = ConnectionPool(Manager(), background_collector=i % 20 == 0)
            async with pool.connection('a') as conn:
                pass
            if i % 2:
                conn.pool = pool  # type: ignore[attr-defined]
            await pool.close()
            ConnectionPool(Manager())
        del pool, conn
        yield


#: the stages, and by how much fewer operations each gets
STAGES: Dict[str, Tuple[Stage, int]] = {
    'acquires': (acquires, 1),
    'timeouts': (timeouts, 1),
    'cancellations': (cancellations, 1),
    'creates, disposals': (creates, 1),
    'evictions': (evictions, 1),
    'failures': (failures, 1),
    'hand-overs': (hand_overs, 1),
    'pools': (pools, 20),
}
