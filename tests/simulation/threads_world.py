"""One run of the threads pool: a pool, its users, and a manager that does its worst, all drawn from a seed."""

import contextlib
import logging
import sys
import threading
import types
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from generic_connection_pool._core import core_implementation
from generic_connection_pool.exceptions import (
    ConnectionNotAcquiredError,
    ConnectionPoolClosedError,
    ConnectionPoolTimeoutError,
)
from generic_connection_pool.threading import ConnectionPool
from simulation.choices import Choices
from simulation.lines import LineTracer
from simulation.seam import Clock, replaced, silenced, simulated_parking, uncollected
from simulation.stage import Abort, Stage, Strand
from simulation.threads_ledger import Conn, Ledger, Request
from simulation.threads_manager import HookedManager, HookError, Manager, Script

__all__ = ('run',)

#: how long users are ready to wait
TIMEOUTS = (None, 1.0, 0.0, 0.3, 5.0)
#: the same for who holds a connection already: without a bound, users might wait for each other
BOUNDS = (0.5, 0.0, 2.0)
#: how long they hold connections
HOLDS = (0.2, 1.5, 4.0)

LOGGERS = [
    logging.getLogger(f'generic_connection_pool.threading.{module}') for module in ('pool', 'workers', 'collector')
]


def run(choices: Choices, tilt: Optional[Dict[str, Any]] = None) -> int:
    """Make a run.

    :param choices: what it is like
    :param tilt: properties of the world that are given: the names are those of :meth:`World.draw`
    :return: the steps made
    :raises AssertionError: the pool did what it must not
    """
    world = World(choices, tilt)
    with contextlib.ExitStack() as stack:
        stack.enter_context(uncollected())
        for logger in LOGGERS:
            stack.enter_context(silenced(logger))
        stack.enter_context(world.in_place())
        try:
            world.play()
        except Abort:
            pass
        except BaseException as exc:
            world.stage.failure = world.stage.failure or exc
        finally:
            world.stage.conclude()
    return world.stage.steps


class WatchedPool(ConnectionPool[int, Conn]):
    """The pool, which tells the ledger of each ticket."""

    ledger: Ledger

    def _acquire(self, ticket: Any, endpoint: int, timeout: Optional[float]) -> None:
        ledger = self.ledger
        me = ledger.stage.running
        me.tickets += 1
        request = Request(me, ticket, endpoint)
        ledger.requests.append(request)
        try:
            super()._acquire(ticket, endpoint, timeout)
        finally:
            ledger.requests.remove(request)

    def __del__(self) -> None:
        """A run that has failed leaves it open: no warning."""


class World:
    """What takes part in a run.

    :param choices: what decides
    :param tilt: properties that are given, not drawn
    """

    def __init__(self, choices: Choices, tilt: Optional[Dict[str, Any]] = None):
        self.choices = choices
        self.tilt = tilt or {}
        draw = self.draw
        self.clock = Clock()
        self.stage = Stage(choices, self.clock, stay=draw('stay', 4, 1, 16), haste=draw('haste', 0, 1, 4))
        #: threads are stopped between any two lines
        self.by_line: bool = draw('by_line', *[False] * 15, True)
        self.endpoints = range(draw('endpoints', 1, 2, 3))
        self.limits = {
            'max_size': draw('max_size', 1, 2),
            'total_max_size': draw('total_max_size', 2, 1, 3),
            'min_idle': draw('min_idle', 1, 0, 2),
            'idle_timeout': draw('idle_timeout', 60.0, 0.0, 0.5, 5.0),
            'max_lifetime': draw('max_lifetime', 3600.0, 2.0, 0.0),
            'acquire_timeout': draw('acquire_timeout', None, 4.0),
            'background_collector': draw('background_collector', False, True),
            'dispose_batch_size': draw('dispose_batch_size', 0, 1),
            'dispose_timeout': draw('dispose_timeout', None, 0.5),
        }
        #: what each user does at the most
        self.most_acts: int = draw('most_acts', 4, 2, 10)
        #: users may be interrupted
        self.interrupts: bool = draw('interrupts', False, True)
        #: threads cannot always be started
        self.threads_fail: bool = draw('threads_fail', False, False, False, True)
        #: threads of the workers at the most
        self.crew: int = draw('crew', 64, 1, 2)
        self.ledger = Ledger(self.stage, self.limits, self.by_line)
        self.ledger.enough_workers = self.crew == 64
        self.script = Script(self.stage, draw('calm', None, 60, 25, 8), self.ledger, self.endpoints)
        manager_class = draw('manager', Manager, HookedManager)
        self.manager = manager_class(self.script, self.ledger, draw('deaths', 0, 4), self.limits['dispose_timeout'])
        self.pool: Any = None
        self.stage.inspect = self.ledger.inspect
        self.stage.inspect_asleep = self.ledger.inspect_asleep
        self.stage.last_resort = self.script.end_hangs
        self.stage.tell_more = self.ledger.tell
        if self.by_line:
            self.stage.tracer = LineTracer(self.stage)

    def draw(self, name: str, *options: Any) -> Any:
        """Decide on a property of the world, unless it is given."""
        drawn = self.choices.pick(options)
        return self.tilt.get(name, drawn)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Have the library run on this stage."""
        threads = types.SimpleNamespace(
            Thread=self.make_thread, enumerate=lambda: list(self.stage.strands), get_ident=threading.get_ident
        )
        with self.clock.in_place(), simulated_parking(self.stage), replaced(
            ('generic_connection_pool.threading.pool', 'threading', threads),
            ('generic_connection_pool.threading.workers', 'threading', threads),
            ('generic_connection_pool.threading.workers', 'LARGEST_CREW', self.crew),
            ('generic_connection_pool.threading.collector', 'threading', threads),
        ):
            yield

    def make_thread(self, target: Callable[..., Any], name: str, daemon: bool, args: Any = ()) -> Any:
        """Thread()."""
        assert daemon, f'{name} keeps the interpreter from ending'

        def start() -> None:
            if name == 'gcp-collector':
                self.ledger.collector = self.stage.start(name, lambda: target(*args))
                return
            if self.threads_fail and self.choices.chance(2):
                self.stage.note('cannot start a thread')
                raise RuntimeError("can't start new thread")
            self.stage.start(f'{name}-{len(self.stage.strands)}', lambda: target(*args))
            self.stage.step('has started a thread')

        return types.SimpleNamespace(start=start)

    def play(self) -> None:
        """The whole run, as the first strand sees it."""
        stage = self.stage
        self.describe()
        self.pool = self.ledger.pool = WatchedPool(self.manager, **self.limits)
        self.pool.ledger = self.ledger
        self.ledger.core = self.pool._core
        users = [stage.start(f'user{number}', self.use) for number in range(2 + self.choices.below(3))]
        for user in users:
            stage.join(user)
        stage.join(stage.start('closer', self.close_for_good))
        for strand in list(stage.strands):  # workers end when they have had nothing to do for a second
            stage.join(strand)
        stage.inspect()
        self.ledger.check_accounts()

    def describe(self) -> None:
        if self.choices.trace is not None:
            self.choices.trace.append(f'{core_implementation} core, {type(self.manager).__name__}, {self.limits}')

    def close_for_good(self) -> None:
        """Close the pool until no exception keeps that from being completed."""
        me = self.stage.running
        while True:
            me.injected.clear()
            try:
                return self.script.close_pool(None)
            except BaseException as exc:
                if not _is_among(exc, me.injected):
                    raise

    # -- users

    def use(self) -> None:
        """What a user does."""
        acts = (self.block, self.acquire, self.block, self.acquire, self.close, self.cheat)
        for _ in range(1 + self.choices.below(self.most_acts)):
            self.stage.step('thinks')
            self.attempt(self.choices.pick(acts))

    def attempt(self, act: Callable[[], None]) -> None:
        """Do something, and look at how it fails."""
        me = self.stage.running
        self.ledger.demand(sys.exc_info()[1] is None, 'left behind', sys.exc_info()[1])
        me.injected.clear()
        me.to_be_told.clear()
        if self.interrupts:
            me.fuse = self.choices.below(200 if self.by_line else 6)
        if self.by_line:
            self.stage.tracer.renew()
        error: Optional[BaseException] = None
        try:
            act()
        except Abort:
            raise
        except BaseException as exc:
            error = exc
            self.stage.note(f'gets {exc!r}')
        me.fuse = 0
        demand = self.ledger.demand
        demand(error is None or _is_among(error, me.injected), 'unexpected', error)
        told = list(_chain(error))
        swallowed = [exc for exc in me.to_be_told if not _is_among(exc, told)]
        demand(not swallowed, 'swallowed', swallowed, error)
        demand(not me.holds, 'books', me.holds)

    def block(self) -> None:
        """Have a connection for a block."""
        me, endpoint, timeout = self.begin()
        started, tickets = self.clock.now, me.tickets
        conn: Optional[Conn] = None
        failure: Optional[BaseException] = None
        mine = False
        me.timeout = timeout
        try:
            with self.pool.connection(endpoint, timeout) as conn:
                self.got(conn, endpoint, None if self.by_line or me.tickets > tickets else started)
                try:
                    self.hold(conn)
                finally:
                    mine = conn in me.holds
                    if mine:
                        self.give_up(conn)
        except (ConnectionPoolTimeoutError, ConnectionPoolClosedError) as exc:
            self.ledger.demand(conn is None, 'unexpected', exc)
            self.refused(exc, timeout, started)
        except ConnectionNotAcquiredError as exc:
            self.ledger.demand(conn is not None and not mine, 'unexpected', exc)
            failure = exc.__context__
        finally:
            me.timeout = None
        if failure is not None:  # what the body has raised: a refusal has taken its place
            raise failure

    def acquire(self) -> None:
        """Acquire a connection, and release it."""
        me, endpoint, timeout = self.begin()
        started, tickets = self.clock.now, me.tickets
        me.timeout = timeout
        try:
            conn = self.pool.acquire(endpoint, timeout)
        except (ConnectionPoolTimeoutError, ConnectionPoolClosedError) as exc:
            return self.refused(exc, timeout, started)
        finally:
            me.timeout = None
        self.got(conn, endpoint, None if self.by_line or me.tickets > tickets else started)
        try:
            self.hold(conn)
        finally:
            if conn in me.holds:
                self.give_up(conn)
                self.pool.release(conn, endpoint)

    def begin(self) -> Tuple[Strand, int, Optional[float]]:
        """Decide on what to acquire."""
        me = self.stage.running
        endpoint = self.choices.pick(self.endpoints)
        timeout = self.choices.pick(BOUNDS if me.holds else TIMEOUTS)
        self.stage.note(f'acquires {"abc"[endpoint]} within {timeout} s')
        return me, endpoint, timeout

    def got(self, conn: Conn, endpoint: int, since: Optional[float]) -> None:
        """Take down a loan."""
        me = self.stage.running
        me.timeout = None
        self.stage.note(f'has {conn}')
        self.choices.tally['loans'] += 1
        self.ledger.lent(conn, endpoint, since)
        me.holds.append(conn)

    def hold(self, conn: Conn) -> None:
        """What a user does with a connection."""
        act = self.choices.below(8)
        if act < 2:
            self.stage.step(f'uses {conn}')
        elif act == 3:
            self.script.sleep(self.choices.pick(HOLDS))
        elif act == 4:
            self.script.throw(HookError('the block fails'))
        elif act == 5 and len(self.stage.running.holds) < 2:
            self.choices.pick((self.block, self.acquire))()
        elif act == 6:
            self.cheat()
        elif act == 7 and self.choices.chance(4):
            self.script.close_pool(self.choices.pick(BOUNDS))

    def give_up(self, conn: Conn) -> None:
        """Take down the end of a loan, which is about to come."""
        self.stage.running.holds.remove(conn)
        self.stage.step(f'releases {conn}')
        self.ledger.given_back(conn)

    def close(self) -> None:
        """Close the pool, seldom."""
        if self.choices.chance(6):
            self.script.close_pool(self.choices.pick((None, *BOUNDS)))

    def cheat(self) -> None:
        """Release what was never acquired."""
        conn = Conn(self.choices.pick(self.endpoints), 0, 0.0)
        try:
            self.pool.release(conn, conn.endpoint)
        except ConnectionNotAcquiredError:
            return
        self.ledger.demand(self.ledger.is_forced, 'not refused', conn)

    def refused(self, exc: Exception, timeout: Optional[float], started: float) -> None:
        """Look at how the pool says no."""
        if isinstance(exc, ConnectionPoolClosedError):
            self.choices.tally['refused'] += 1
            self.ledger.demand(self.pool.closed, 'not closed', exc)
        else:
            self.choices.tally['timeouts'] += 1
            timeout = self.limits['acquire_timeout'] if timeout is None else timeout
            waited = self.clock.now - started
            self.ledger.demand(timeout is not None and waited >= timeout - 1e-9, 'timeout', timeout, waited)
        self.stage.note(f'is told {exc}')


def _is_among(error: BaseException, injected: List[BaseException]) -> bool:
    return any(error is exc for exc in injected)


def _chain(error: Optional[BaseException]) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__context__
