"""Many tasks, few connections, and everything that can go wrong: in the end every connection was disposed of exactly
once, nobody is stuck and nothing is left. The seed that fails is in the test's name.
"""

import asyncio
import random
from collections import Counter
from typing import Any, List, Set

import pytest
from support.tasks import GENEROUS, Connection, Manager, Pool, finish, passes, until

from generic_connection_pool import ConnectionPoolTimeoutError
from generic_connection_pool.asyncio import ConnectionPool

ENDPOINTS = 'aaaabbbccd'
WORKERS = 30
ROUNDS = 2000

#: what hooks raise now and then, and blocks
ERRORS = (ValueError, OSError, TimeoutError, asyncio.CancelledError)


class UnreliableManager(Manager):
    """Hooks that take random time, fail, ignore their cancellation, and check that nobody breaks the rules.

    :param rng: source of randomness
    :param trouble: probability that something goes wrong in a hook
    """

    def __init__(self, rng: random.Random, trouble: float):
        self.rng = rng
        self.trouble = trouble
        #: connections that are open, the closing ones included
        self.open: 'Counter[Any]' = Counter()
        self.lent: Set[Any] = set()
        self.max_size = 0
        hooks = {name: self.hook for name in ('on_acquire', 'on_release', 'on_connection_dead')}
        super().__init__(
            create=self.begin, dispose=self.end, check_aliveness=self.check, is_reusable=self.ask, **hooks
        )

    async def hook(self, endpoint: Any, conn: Any = None) -> None:
        assert conn is None or conn not in self.disposed
        for _ in range(self.rng.choice((0, 0, 1, 3))):
            try:
                await passes(1)
            except asyncio.CancelledError:
                if self.rng.random() > self.trouble:  # otherwise, it is ignored
                    raise
        if self.rng.random() < self.trouble:
            raise self.rng.choice(ERRORS)()

    async def begin(self, endpoint: Any) -> Any:
        await self.hook(endpoint)
        self.open[endpoint] += 1
        assert self.open[endpoint] <= self.max_size, 'more connections are open than allowed'
        return Connection(endpoint, len(self.created))

    async def end(self, endpoint: Any, conn: Any) -> None:
        try:
            await self.hook(endpoint)
        finally:
            self.open[endpoint] -= 1

    async def check(self, endpoint: Any, conn: Any) -> bool:
        await self.hook(endpoint, conn)
        return self.rng.random() > self.trouble

    def ask(self, endpoint: Any, conn: Any, exc: BaseException) -> bool:
        return self.rng.random() < 0.5


class Stress:
    """One run.

    :param seed: decides everything but the clock
    """

    def __init__(self, seed: int):
        self.rng = random.Random(seed)
        self.manager = UnreliableManager(self.rng, trouble=self.rng.choice((0.0, 0.02, 0.1)))
        self.manager.max_size = self.rng.choice((1, 2, 4))
        self.pool: Pool = ConnectionPool(
            self.manager,
            max_size=self.manager.max_size,
            total_max_size=self.rng.choice((1, 3, 6, 20)),
            min_idle=self.rng.choice((0, 1, 3)),
            idle_timeout=self.rng.choice((0.0, 0.001, 60.0)),
            max_lifetime=self.rng.choice((0.002, 60.0)),
            dispose_timeout=self.rng.choice((None, 0.001)),
            background_collector=self.rng.random() < 0.5,
        )
        self.rounds = ROUNDS
        self.workers: List['asyncio.Task[Any]'] = []

    async def use(self, by_hand: bool) -> None:
        """Hold a connection for a moment.

        :param by_hand: acquire and release it, instead of using ``connection()``
        """
        endpoint = self.rng.choice(ENDPOINTS)
        timeout = self.rng.choice((None, None, 0, 0.0005, 0.005, GENEROUS))
        if not by_hand:
            async with self.pool.connection(endpoint, timeout) as conn:
                await self.hold(conn, endpoint)
        else:
            conn = await self.pool.acquire(endpoint, timeout)
            try:
                await self.hold(conn, endpoint)
            finally:
                await self.pool.release(conn, endpoint)

    async def hold(self, conn: Any, endpoint: Any) -> None:
        lent = self.manager.lent
        assert conn.endpoint == endpoint and conn not in lent and conn not in self.manager.disposed
        lent.add(conn)
        try:
            for _ in range(self.rng.choice((0, 1, 4))):
                await passes(1)
            if self.rng.random() < 0.1:
                raise self.rng.choice(ERRORS)
        finally:
            lent.remove(conn)

    async def work(self) -> None:
        """Use connections until the rounds are over, whatever happens."""
        while self.rounds > 0:
            self.rounds -= 1
            try:
                await self.use(self.rng.random() < 0.5)
            except (ConnectionPoolTimeoutError, *ERRORS):
                pass

    async def use_and_close(self) -> None:
        """Have the coroutine of a user closed where it happens to be."""
        coro = self.use(by_hand=False)  # nothing can be awaited while a coroutine is closed
        try:
            for _ in range(self.rng.randrange(1, 5)):
                awaited = coro.send(None)
                if awaited is not None:  # a future; who drives a coroutine by hand must not let it believe it is done
                    awaited._asyncio_future_blocking = False
                    break
        except (StopIteration, ConnectionPoolTimeoutError, *ERRORS):
            pass
        coro.close()

    async def interfere(self) -> None:
        """Cancel workers, close coroutines, and look for broken invariants, until the rounds are over."""
        while self.rounds > 0:
            await passes(self.rng.randrange(1, 4))
            self.rng.choice(self.workers).cancel()
            if self.manager.trouble:
                await self.use_and_close()
            self.pool._core.check_invariants()

    async def run(self) -> None:
        self.workers = [asyncio.ensure_future(self.work()) for _ in range(WORKERS)]
        interference = asyncio.ensure_future(self.interfere())
        await asyncio.wait([*self.workers, interference], timeout=GENEROUS)
        for task in (*self.workers, interference):
            assert task.done(), 'somebody is stuck'
            task.result()
        await self.see_that_nothing_is_lost()

    async def see_that_nothing_is_lost(self) -> None:
        self.manager.trouble = 0.0
        pool = self.pool
        await until(lambda: all(not pool._core.lent_size(endpoint) for endpoint in 'abcd'))
        pool._core.check_invariants()
        count = min(pool.max_size, pool.total_max_size)
        conns = [await pool.acquire('e', timeout=GENEROUS) for _ in range(count)]
        for conn in conns:
            await pool.release(conn, 'e')
        await finish(pool, self.manager)
        assert not +self.manager.open and len(self.manager.created) > 1


@pytest.mark.parametrize('seed', range(16))
def test_under_stress_nothing_is_lost(seed: int) -> None:
    asyncio.run(Stress(seed).run())
