"""The connection manager of the asyncio simulation: everything goes wrong that can, and the books are kept."""

import asyncio
import sys
import types
from typing import TYPE_CHECKING, Any, Dict, Generator, List, Optional

from generic_connection_pool.asyncio import BaseConnectionManager

if TYPE_CHECKING:
    from simulation.asyncio_world import World

__all__ = ('Connection', 'INJECTED', 'SimulatedManager', 'next_pass')


class InjectedError(Exception):
    """An ordinary error of a hook or a block."""


class InjectedTimeout(TimeoutError):
    """After which the state of a connection is unknown."""


class InjectedCancel(asyncio.CancelledError):
    """A cancellation that nobody has asked for."""


class InjectedInterrupt(KeyboardInterrupt):
    """Stops the event loop, which is then run again."""


class InjectedExit(GeneratorExit):
    """As if something that the hook awaits had been closed."""


INJECTED = (InjectedError, InjectedTimeout, InjectedCancel, InjectedInterrupt, InjectedExit)
#: what a hook does, besides suspending: the most harmless first
TROUBLES = ('error', 'stubborn', 'hang', 'timeout', 'cancel', 'interrupt', 'exit', 'acquire', 'sizes', 'close')
ERRORS: Dict[str, Any] = {
    'error': InjectedError,
    'timeout': InjectedTimeout,
    'cancel': InjectedCancel,
    'interrupt': InjectedInterrupt,
    'exit': InjectedExit,
}
#: how often a hook suspends, and for how long (0: a pass of the loop)
SUSPENSIONS = (0, 1, 2, 0, 4)
DELAYS = (0.0, 0.0, 0.25, 0.5, 1.0)
#: from this version on the pool waits for a hook that was cancelled to end, whatever the hook makes of it
WAITS_FOR_HOOKS = sys.version_info >= (3, 11)


@types.coroutine
def next_pass() -> Generator[None, None, None]:
    """Let the others go on."""
    yield


class Connection:
    """What the manager creates."""

    __slots__ = ('endpoint', 'number', 'user', 'hooks', 'disposals', 'open')

    def __init__(self, endpoint: int, number: int):
        self.endpoint = endpoint
        self.number = number
        #: who has acquired it
        self.user: Optional[Any] = None
        #: hooks under way that leave it acquired
        self.hooks = 0
        self.disposals = 0
        self.open = True

    def __repr__(self) -> str:
        return f'<{self.number} to {self.endpoint}>'


class SimulatedManager(BaseConnectionManager[int, Connection]):
    """Asks the choices of a world what each hook is to do.

    :param world: the world
    :param hooks: which hooks are overridden, as far as the pool can tell
    """

    def __init__(self, world: 'World', hooks: List[str]):
        self.world = world
        #: trouble in one of so many hooks, 0 for none at all
        self.trouble = 0
        self.troubles = TROUBLES
        self.created: List[Connection] = []
        #: connections that are open and those being created, which both count towards the limits
        self.busy: Dict[int, int] = {}
        self.total = 0
        #: what hooks that hang wait for
        self.hanging: List['asyncio.Future[None]'] = []
        #: hooks under way
        self.active = 0
        for name in hooks:
            setattr(self, name, getattr(self, f'_{name}'))

    # -- the hooks

    async def create(self, endpoint: int) -> Connection:
        world = self.world
        busy = self.busy.get(endpoint, 0) + 1
        self.busy[endpoint] = busy
        self.total += 1
        created = False
        try:
            if busy > world.pool.max_size or self.total > world.pool.total_max_size:
                world.fail(f'too many connections: {busy} to {endpoint}, {self.total} in all')
            await self._run('create', endpoint, None)
            conn = Connection(endpoint, len(self.created))
            self.created.append(conn)
            created = True
            world.note('{} was created', conn)
            return conn
        finally:
            if not created:
                self._forget(endpoint)

    async def dispose(self, endpoint: int, conn: Connection) -> None:
        conn.disposals += 1
        if conn.disposals > 1 or conn.endpoint != endpoint:
            self.world.fail(f'disposed of twice, or as one of another endpoint: {conn!r}')
        if conn.user is not None and not self.world.pool._core.forced:
            self.world.fail(f'disposed of while it was in use: {conn!r}')
        try:
            await self._run('dispose', endpoint, conn)
        finally:
            self._shut(conn)

    async def _check_aliveness(self, endpoint: int, conn: Connection) -> bool:
        await self._use('check_aliveness', endpoint, conn)
        return not (self.trouble and self.world.choices.chance(4))

    async def _on_acquire(self, endpoint: int, conn: Connection) -> None:
        await self._use('on_acquire', endpoint, conn)

    async def _on_release(self, endpoint: int, conn: Connection) -> None:
        await self._use('on_release', endpoint, conn)

    async def _on_connection_dead(self, endpoint: int, conn: Connection) -> None:
        await self._use('on_connection_dead', endpoint, conn)

    def _is_reusable(self, endpoint: int, conn: Connection, exc: BaseException) -> Any:
        self._see_that_it_is_fit('is_reusable', conn)
        world = self.world
        if self.trouble and world.choices.chance(self.trouble):
            world.note('is_reusable of {}: error', conn)
            self._take_the_place_of_a_cancellation()
            raise world.choices.pick((InjectedError, InjectedTimeout, InjectedInterrupt))()
        return not (self.trouble and world.choices.chance(3))

    # -- what they do

    async def _use(self, name: str, endpoint: int, conn: Connection) -> None:
        self._see_that_it_is_fit(name, conn)
        conn.hooks += 1
        try:
            await self._run(name, endpoint, conn)
        finally:
            conn.hooks -= 1

    def _see_that_it_is_fit(self, name: str, conn: Connection) -> None:
        if self.world.pool._core.forced:
            return
        if conn.disposals or conn.user is not None:
            self.world.fail(f'{name} of a connection that is in use or disposed of: {conn!r}')
        if conn.hooks and WAITS_FOR_HOOKS:
            self.world.fail(f'{name} while another hook is under way: {conn!r}')

    async def _run(self, name: str, endpoint: int, conn: Optional[Connection]) -> None:
        """Take some time, and get into trouble."""
        choices = self.world.choices
        self.active += 1
        try:
            if not self.trouble:
                return
            trouble = ''
            if choices.chance(self.trouble):
                trouble = choices.pick(self.troubles)
                self.world.note('{} of {} to {}: {}', name, conn, endpoint, trouble)
                choices.tally[trouble] += 1
            for _ in range(choices.pick(SUSPENSIONS)):
                await self._pause(3 if trouble == 'stubborn' else 0)
            if trouble == 'hang':
                await self._hang()
            elif trouble in ERRORS:
                raise ERRORS[trouble]
            elif trouble and trouble != 'stubborn':
                await self._reenter(trouble, endpoint)
        except asyncio.CancelledError:
            raise
        except BaseException:
            if name == 'dispose':  # the task is not that of who waits for it
                self.world.excused.update(self.world.cancelled)
            self._take_the_place_of_a_cancellation()
            raise
        finally:
            self.active -= 1

    async def _pause(self, stubborn: int) -> None:
        delay = self.world.choices.pick(DELAYS)
        while True:
            try:
                await (self.world.sleep(delay) if delay else next_pass())
                return
            except asyncio.CancelledError:
                if not stubborn:
                    raise
                stubborn -= 1
                self.world.excused.add(asyncio.current_task())

    async def _hang(self) -> None:
        future = self.world.loop.create_future()
        self.hanging.append(future)
        try:
            await future
        finally:
            if future in self.hanging:  # not, if its loop has ended
                self.hanging.remove(future)

    async def _reenter(self, how: str, endpoint: int) -> None:
        """Call the pool from within its hook."""
        world = self.world
        pool = world.pool
        if how == 'acquire':
            await world.use_once(endpoint=None, timeout=world.choices.pick((0.0, 0.5)))
        elif how == 'close':
            await pool.close(world.choices.pick((0.0, 0.5) if world.nesting else (0.0, 0.5, None)))
        elif await pool.get_endpoint_pool_size(endpoint) > pool.get_size():
            world.fail('an endpoint has more connections than all have')

    def _take_the_place_of_a_cancellation(self) -> None:
        task = self.world.loop.is_running() and asyncio.current_task()
        if task in self.world.cancelled:
            self.world.excused.add(task)

    # -- the books

    def _shut(self, conn: Connection) -> None:
        if conn.open:
            conn.open = False
            self.world.note('{} was disposed of', conn)
            self._forget(conn.endpoint)

    def _forget(self, endpoint: int) -> None:
        self.busy[endpoint] -= 1
        self.total -= 1
