"""Who uses the pool in the asyncio simulation, and sees to it that nobody else uses what he has acquired."""

import asyncio
from typing import TYPE_CHECKING, Any, Optional

from simulation.asyncio_manager import (
    INJECTED,
    Connection,
    InjectedCancel,
    InjectedError,
    InjectedExit,
    InjectedTimeout,
    next_pass,
)

from generic_connection_pool import ConnectionPoolClosedError, ConnectionPoolTimeoutError

if TYPE_CHECKING:
    from simulation.asyncio_world import World

__all__ = ('Users',)

TIMEOUTS = (None, 1.0, 0.25, 0.0, None)
#: how long a connection is held: for passes of the loop, or a time
HOLDS = (0, 1, 3, 0.25, 1.0)
#: what a block raises
BODY_ERRORS = (InjectedError, InjectedTimeout, InjectedCancel)
#: ways to give back what was acquired by hand
WAYS_BACK = ('await', 'another task', 'another thread')


class Users:
    """What the users of a world do.

    :param world: the world
    :param endpoints: how many endpoints there are
    :param nesting: whether who holds a connection may ask for another one
    :param trouble: a block fails once in so many times, 0 for never
    """

    def __init__(self, world: 'World', endpoints: int, nesting: bool, trouble: int):
        self.world = world
        self.endpoints = endpoints
        self.nesting = nesting
        self.trouble = trouble

    async def live(self, rounds: int) -> None:
        """Use the pool some times, whatever comes of it."""
        world = self.world
        task = asyncio.current_task()
        for _ in range(rounds):
            try:
                await self.use(None, None, world.choices.pick(TIMEOUTS))
            except asyncio.CancelledError:
                if task in world.cancelled:
                    raise
            except INJECTED:
                if task in world.closed:  # a hook has made something else of that
                    return

    async def use(self, holder: Optional[Any], endpoint: Optional[int], timeout: Optional[float]) -> None:
        """Use one connection. That there is none in time, or no longer any at all, is no error."""
        choices, pool = self.world.choices, self.world.pool
        if endpoint is None:
            endpoint = choices.below(self.endpoints)
        by_hand = choices.chance(3)
        try:
            if by_hand:
                await self._use_by_hand(endpoint, timeout)
            else:
                judge = self.world.watch_acquire(endpoint, timeout)
                async with pool.connection(endpoint, timeout) as conn:
                    judge()
                    await self._hold(conn, endpoint, False)
        except ConnectionPoolTimeoutError:
            self.world.choices.tally['timed out'] += 1
        except ConnectionPoolClosedError:
            if not pool.closed:
                self.world.fail('said to be closed: it is not')

    async def _use_by_hand(self, endpoint: int, timeout: Optional[float]) -> None:
        world, task = self.world, asyncio.current_task()
        judge = world.watch_acquire(endpoint, timeout)
        conn = await world.pool.acquire(endpoint, timeout)
        judge()
        try:
            await self._hold(conn, endpoint, True)
        except InjectedExit:
            await world.pool.release(conn, endpoint)
            raise
        except GeneratorExit:  # nothing can be awaited any more
            world.release_elsewhere(conn)
            raise
        except BaseException:
            if task in world.closed:  # a hook has made something else of that
                world.release_elsewhere(conn)
            else:
                await world.pool.release(conn, endpoint)
            raise
        way = world.choices.pick(WAYS_BACK)
        world.note('{} goes back: {}', conn, way)
        if way == 'await':
            await world.pool.release(conn, endpoint)
        elif way == 'another thread' and world.pool._plain_release:
            world.release_in_thread(conn)
        else:
            world.release_elsewhere(conn)

    async def _hold(self, conn: Connection, endpoint: int, by_hand: bool) -> None:
        world = self.world
        choices = world.choices
        if conn.user is not None or conn.endpoint != endpoint or conn.disposals and not world.pool._core.forced:
            world.fail(f'not fit for use: {conn!r} to {endpoint}, disposed of {conn.disposals} times, {conn.user!r}')
        world.note('{} is held, {}', conn, 'by hand' if by_hand else 'in a block')
        conn.user = self
        try:
            duration = choices.pick(HOLDS)
            if isinstance(duration, float):
                await world.sleep(duration)
            else:
                for _ in range(duration):
                    await next_pass()
            if self.nesting and choices.chance(4):
                await self.use(conn, None, choices.pick((0.0, 0.5)))
            if self.trouble and choices.chance(self.trouble):
                raise choices.pick(BODY_ERRORS)
        finally:
            world.note('{} is no longer held', conn)
            conn.user = None

    async def close(self, timeout: Optional[float]) -> None:
        """Close the pool."""
        world = self.world
        started = world.loop.now
        world.note('close({})', timeout)
        world.choices.tally['pool closed'] += 1
        await world.pool.close(timeout)
        if timeout is None and world.pool.get_size():
            world.fail('closed: but something is left')
        if timeout is not None and world.punctual_loop and world.loop.now > started + timeout + 0.25:
            world.fail(f'late: close({timeout}) took {world.loop.now - started}')
