"""The asyncio facade under a seed: users, trouble, virtual time, and a judge who looks on after every step.

``run(choices)`` plays one life of one pool. A step is one callback run by the event loop. After each, the invariants of
the core are checked; whenever nothing is left to run before time goes on, the pool's accounts are compared with those
of the manager; at the end everything must be back.
"""

import asyncio
import contextlib
import logging
from typing import Any, Callable, Coroutine, Dict, Iterator, List, Optional, Set

from simulation.asyncio_loop import SteppedLoop
from simulation.asyncio_manager import INJECTED, TROUBLES, WAITS_FOR_HOOKS, Connection, SimulatedManager
from simulation.asyncio_users import Users
from simulation.choices import Choices
from simulation.seam import Clock, replaced, silenced, uncollected

from generic_connection_pool import core_implementation
from generic_connection_pool._core import CONNECTION, SLOT, WAITING, Ticket
from generic_connection_pool._pycore.lock import Mutex
from generic_connection_pool.asyncio import ConnectionPool

__all__ = ('World', 'run')

#: more steps than any life takes: whatever goes on for longer goes round in circles
ENDLESS = 100_000
#: an endpoint that the users do not use
SPARE = 99
#: what a ticket that is served holds
GRANTED = (CONNECTION, SLOT)
#: troubles that do not hold up anybody in a hurry
PUNCTUAL = ('error', 'hang', 'timeout', 'cancel', 'interrupt', 'exit', 'sizes')
HOOKS = ('check_aliveness', 'on_acquire', 'on_release', 'on_connection_dead', 'is_reusable')

pool_logger = logging.getLogger('generic_connection_pool.asyncio.pool')
background_logger = logging.getLogger('generic_connection_pool.asyncio.background')


def run(choices: Choices) -> int:
    """Play one life.

    :param choices: decide everything
    :return: the number of steps
    :raises AssertionError: says what went wrong, and up to the first colon of what kind that is
    """
    world = World(choices)
    with world.clock.in_place(), world.in_place(), silenced(pool_logger), silenced(background_logger), uncollected():
        try:
            world.play()
        finally:
            world.abandon()
    return world.steps


class SimulatedPool(ConnectionPool[int, Connection]):
    """The pool itself. The world is told who asks, to see that they are served in turn."""

    world: 'World'

    async def _acquire(self, endpoint: int, timeout: Optional[float]) -> Any:
        asking: List[Any] = [endpoint, None]
        self.world.asking = asking
        try:
            return await super()._acquire(endpoint, timeout)
        finally:
            if asking[1] is not None:
                self.world.queues[endpoint].remove(asking[1])


class CountingLock:
    """For the pure core: tells whether an operation has been made. There is one thread only."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> None:
        self.count += 1

    def __exit__(self, *_: Any) -> None:
        pass


class World:
    """One life of one pool.

    :param choices: decide everything
    """

    def __init__(self, choices: Choices):
        self.choices = choices
        self.clock = Clock()
        self.steps = 0
        self.failure: Optional[AssertionError] = None
        #: tasks that were cancelled, and those that need not end so because the hooks made something else of it
        self.cancelled: Set[Any] = set()
        self.excused: Set[Any] = set()
        #: tasks whose coroutine was closed
        self.closed: Set[Any] = set()
        #: the tickets of those who have asked, by endpoint, in the order in which they did
        self.queues: Dict[int, List[Any]] = {}
        #: endpoint of the acquire that is about to make its ticket, and place for that
        self.asking: Optional[List[Any]] = None
        #: those among them that wait for nothing any more, because their event loop has ended
        self.dead_tickets: Set[Any] = set()
        #: the unfinished tasks of users
        self.users: List['asyncio.Task[Any]'] = []
        #: those of tasks that release connections of others, and the connections that they have not begun to release
        self.helpers: List['asyncio.Task[Any]'] = []
        self.releasing: List[Connection] = []
        #: coroutines of a dead event loop that are yet to be closed
        self.ghosts: List[Coroutine[Any, Any, Any]] = []
        #: connections whose release was lost with its event loop
        self.unreleased: List[Connection] = []
        self.lock = CountingLock()
        self._draw()

    def _draw(self) -> None:
        """Decide what kind of life it is to be."""
        choices = self.choices
        pick, chance = choices.pick, choices.chance
        self.reorders = chance(4)
        self.jumps = chance(4)
        self.nesting = chance(3)
        self.meddling = pick((0, 60, 25, 10))
        self.may_close = chance(3)
        self.lives = 2 if chance(8) else 1
        self.manager = SimulatedManager(self, [name for name in HOOKS if chance(2)])
        trouble = pick((0, 20, 8, 4))
        #: of the hooks, once they are in trouble
        self.troubles = TROUBLES[: pick((1, len(TROUBLES), 2, len(TROUBLES)))] if not chance(4) else PUNCTUAL
        self.manager.troubles = self.troubles
        self.manager.trouble = trouble or 1000
        #: time goes on only when nothing is left to be done
        self.punctual_loop = not self.jumps
        #: and nothing holds up who is in a hurry
        self.punctual = self.punctual_loop and not set(self.troubles) - set(PUNCTUAL)
        self.user_count = 2 + choices.below(7)
        self.rounds = 2 + choices.below(12)
        self.people = Users(self, 1 + choices.below(3), self.nesting, pick((0, 10, 4)))
        self.options = {
            'max_size': 1 + choices.below(3),
            'total_max_size': 1 + choices.below(5),
            'min_idle': choices.below(3),
            'idle_timeout': pick((60.0, 0.5, 0.0)),
            'max_lifetime': pick((3600.0, 2.0, 0.5)),
            'acquire_timeout': pick((None, 1.0)),
            'dispose_timeout': pick((None, 0.5)),
            'background_collector': chance(2),
            'dispose_batch_size': pick((0, 1)),
        }

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Have the facade make its tickets here, and the pure core its lock."""
        places: List[Any] = [('generic_connection_pool.asyncio.pool', 'Ticket', self.make_ticket)]
        if core_implementation == 'python':
            places.append(('generic_connection_pool._pycore.policy', 'Mutex', self.make_mutex))
        with replaced(*places):
            yield

    def make_ticket(self, holder: int, notify: Callable[[], Any]) -> Any:
        asking, self.asking = self.asking, None
        if asking is None:
            return Ticket(holder, notify)
        queue = self.queues.setdefault(asking[0], [])

        def woken() -> None:
            if ticket.state in GRANTED:
                for other in queue:
                    if other is ticket:
                        break
                    if other.state == WAITING:
                        self.fail(f'overtaken: somebody who has asked for {asking[0]} before')
            notify()

        ticket = asking[1] = Ticket(holder, woken)
        queue.append(ticket)
        return ticket

    def make_mutex(self) -> Any:
        mutex = Mutex()
        mutex.lock = self.lock
        return mutex

    # -- what users and hooks ask for

    def fail(self, why: str) -> None:
        """A promise was broken. (What is raised here the pool may log.)"""
        if self.failure is None:
            self.failure = AssertionError(why)
        raise self.failure

    def note(self, what: str, *args: Any) -> None:
        """Say what happens, if somebody wants to know."""
        if self.choices.trace is not None:
            self.choices.trace.append(f'{self.steps:5} {self.clock.now:8.2f}  ' + what.format(*args))

    def sleep(self, delay: float) -> 'asyncio.Future[None]':
        """A future that is done after so much time."""
        future = self.loop.create_future()
        self.loop.call_later(delay, set_result, future)
        return future

    async def use_once(self, endpoint: Optional[int], timeout: Optional[float]) -> None:
        """Use the pool within one of its hooks."""
        await self.people.use(None, endpoint, timeout)

    def watch_acquire(self, endpoint: int, timeout: Optional[float]) -> Callable[[], None]:
        """An acquire begins. Returns what is to be called when it has succeeded."""
        started, steps = self.loop.now, self.loop.steps
        queue = self.queues.get(endpoint, ())
        others = sum(ticket.state == WAITING and ticket not in self.dead_tickets for ticket in queue)
        limit = self.pool._acquire_timeout if timeout is None else timeout

        def judge() -> None:
            if others and self.loop.steps == steps:
                self.fail(f'overtaken: {others} who wait for {endpoint}, by somebody who never waited')
            if self.punctual and limit is not None and self.loop.now > started + limit:
                self.fail(f'late: an acquire with a timeout of {limit} took {self.loop.now - started}')

        return judge

    def release_elsewhere(self, conn: Connection) -> None:
        """Have a connection released by a task of its own, as from another thread."""
        if self.loop.is_closed():
            self.unreleased.append(conn)
            return
        self.releasing.append(conn)
        self.loop.call_soon_threadsafe(self._release, conn)

    def _release(self, conn: Connection) -> None:
        waiting = [conn]
        task = self.loop.create_task(self._begin_to_release(waiting))
        self.helpers.append(task)
        task.add_done_callback(lambda task: self._helper_ended(task, waiting))

    async def _begin_to_release(self, waiting: List[Connection]) -> None:
        conn = waiting.pop()
        self.releasing.remove(conn)
        await self.pool.release(conn, conn.endpoint)

    def _helper_ended(self, task: 'asyncio.Task[Any]', waiting: List[Connection]) -> None:
        self.helpers.remove(task)
        for conn in waiting:  # it was cancelled before it had begun, and somebody may wait for the connection
            self.releasing.remove(conn)
            self.release_elsewhere(conn)
        self._judge_end(task)

    def release_in_thread(self, conn: Connection) -> None:
        """Release a connection where no event loop runs."""
        self.loop.leave()
        try:
            coro = self.pool.release(conn, conn.endpoint)
            try:
                coro.send(None)
            except StopIteration:
                pass
            else:
                self.fail('a release in another thread has suspended: without any hook')
        finally:
            self.loop.enter()

    # -- playing

    def play(self) -> None:
        """Play it to its end."""
        self.pool = SimulatedPool(self.manager, **self.options)
        self.pool.world = self
        self.note('{}', self.options)
        for life in range(self.lives):
            last = life == self.lives - 1
            self.loop = SteppedLoop(self._choose if self.reorders else None, self.clock.now)
            self.loop.enter()
            self._release_the_lost()
            for _ in range(self.user_count):
                self._add_user(self.people.live(self.rounds))
            left = 0 if last else 20 + self.choices.below(200)  # steps until the loop ends
            while self.users or self.helpers or self.releasing:
                if self.meddling and self.choices.chance(self.meddling):
                    self._meddle()
                self._go_on()
                left -= 1
                if not left:
                    break
            if not last:
                self._end_loop()
        self._end()

    def _choose(self, count: int) -> int:
        return self.choices.below(count)

    def _add_user(self, coro: Coroutine[Any, Any, Any]) -> None:
        task = self.loop.create_task(coro)
        self.users.append(task)
        task.add_done_callback(self._user_ended)

    def _user_ended(self, task: 'asyncio.Task[Any]') -> None:
        self.users.remove(task)
        self._judge_end(task)

    def _judge_end(self, task: 'asyncio.Task[Any]') -> None:
        """Nothing but what was injected may come of a task, and a cancellation must."""
        error = None if task.cancelled() else task.exception()
        if task in self.closed:
            return
        if error is not None and not isinstance(error, INJECTED):
            self.failure = self.failure or AssertionError(f'{type(error).__name__}: {error}')
            self.failure.__cause__ = error
        elif task in self.cancelled and not task.cancelled() and task not in self.excused:
            self.failure = self.failure or AssertionError('a cancellation was swallowed')

    def _go_on(self) -> None:
        """Run one callback or, if there is none, let time go on to the next timer. Then look at everything."""
        loop = self.loop
        if loop.idle:
            self.judge_accounts()
            due = loop.next_timer
            if due is not None:
                self._advance(due)
            elif not self._relieve():
                self.fail(f'deadlock: {len(self.users)} users and {len(self.helpers)} others wait for ever')
            return
        count = self.lock.count
        try:
            loop.step()
        except (KeyboardInterrupt, SystemExit) as exc:  # the loop is run again
            if not isinstance(exc, INJECTED):
                raise
        self.steps += 1
        if core_implementation == 'cython' or self.lock.count != count:
            self.pool._core.check_invariants()
        if self.failure is not None:
            raise self.failure
        if self.steps > ENDLESS:
            self.fail('endless: it goes round in circles')

    def _advance(self, now: float) -> None:
        self.clock.set(now)
        self.loop.advance(now)

    def _relieve(self) -> bool:
        """Let one hook that hangs go on, or one ghost go."""
        hanging = [future for future in self.manager.hanging if not future.done()]
        if hanging:
            set_result(self.choices.pick(hanging))
            return True
        return self._lay_ghost()

    def _meddle(self) -> None:
        """Something happens that neither the pool nor its users expect."""
        choices = self.choices
        self.loop.new_cause()
        what = choices.pick(('cancel', 'relieve', 'close a coroutine', 'cancel', 'jump', 'close', 'ghost'))
        self.note('meddling: {}', what)
        if what == 'cancel' and self.users:
            self._cancel(choices.pick(self.users))
        elif what == 'close a coroutine' and self.users:
            self._close_coroutine(choices.pick(self.users))
        elif what == 'jump' and self.jumps:
            self._advance(self.clock.now + choices.pick((0.25, 1.0, 0.5)))
        elif what == 'close' and self.may_close:
            self._add_user(self.people.close(choices.pick((None, 0.0, 0.5))))
        elif what == 'relieve' and self.manager.hanging:
            self._relieve()
        elif what == 'ghost':
            self._lay_ghost()
        self.pool._core.check_invariants()

    def _cancel(self, task: 'asyncio.Task[Any]') -> None:
        self.choices.tally['cancelled'] += 1
        if task.cancel():
            self.cancelled.add(task)

    def _close_coroutine(self, task: 'asyncio.Task[Any]') -> None:
        """As the garbage collector does. The task itself ends with an error of its own."""
        self.choices.tally['closed'] += 1
        self.closed.add(task)
        task.get_coro().close()
        task.cancel()

    def _lay_ghost(self) -> bool:
        if not self.ghosts:
            return False
        self.note('a ghost goes')
        ghost = self.ghosts.pop(self.choices.below(len(self.ghosts)))
        try:
            ghost.close()
        except INJECTED:  # a hook has made that of it
            pass
        return True

    # -- the end of a loop, and of everything

    def _end_loop(self) -> None:
        """The event loop ends while the pool is in use: by the rules, or not."""
        self.note('the loop ends')
        self.choices.tally['loops ended'] += 1
        if self.choices.chance(2):
            for task in [*self.users, *(task for task in self.loop.tasks if not task.done())]:
                self._cancel(task)
            while self.users or self.helpers:
                self._go_on()
        self.loop.leave()
        self.loop.close()
        self.manager.hanging = []
        self.dead_tickets.update(ticket for queue in self.queues.values() for ticket in queue)
        dead = self.users + self.helpers
        if not WAITS_FOR_HOOKS:  # hooks that the pool has given up
            kept = (*dead, *self.pool._background._ends)
            dead += [task for task in self.loop.tasks if not task.done() and task not in kept]
        self.closed.update(dead)
        self.ghosts = [task.get_coro() for task in dead]
        self.users, self.helpers = [], []
        self.unreleased.extend(self.releasing)
        self.releasing = []
        for _ in range(self.choices.below(len(self.ghosts) + 1)):
            self._lay_ghost()

    def _end(self) -> None:
        """Nobody makes trouble any more: everything comes back."""
        self.manager.trouble = 0
        while self._lay_ghost():
            pass
        # maybe nobody has come so far as to use the pool in this loop: what the last one has left undone waits for that
        self.pool._settle_in(self.loop)
        for future in self.manager.hanging:
            set_result(future)
        self._release_the_lost()
        while self.helpers or self.releasing or self.manager.active or not self.loop.idle:
            self._go_on()
        self.judge_accounts(final=True)
        if not self.pool.closed:
            count = min(self.pool.max_size, self.pool.total_max_size)
            conns = [self._finish(self.pool.acquire(SPARE, 1000.0)) for _ in range(count)]
            for conn in conns:
                self._finish(self.pool.release(conn, SPARE))
        self._finish(self.pool.close())
        while not self.loop.idle:
            self._go_on()
        self._judge_remains()

    def _release_the_lost(self) -> None:
        lost, self.unreleased = self.unreleased, []
        for conn in lost:
            self.release_elsewhere(conn)

    def _finish(self, coro: Coroutine[Any, Any, Any]) -> Any:
        task = self.loop.create_task(coro)
        while not task.done():
            self._go_on()
        return task.result()

    def judge_accounts(self, final: bool = False) -> None:
        """Nothing is left to be run before time goes on: each slot in use is one of the manager's connections."""
        if self.ghosts:
            return
        pool, manager = self.pool, self.manager
        if pool.get_size() != manager.total:
            self.fail(f'accounts: the pool has {pool.get_size()} connections, the manager {manager.total}')
        # a task that was to release a connection may have been cancelled before it had begun
        if pool._core.forced or not (WAITS_FOR_HOOKS or final) or self.unreleased or self.releasing:
            return
        lent = sum(map(pool._core.lent_size, pool._core.endpoints()))
        in_use = sum(conn.open and not conn.disposals and (conn.user is not None or conn.hooks > 0)
                     for conn in manager.created)  # fmt: skip
        if lent != in_use:
            self.fail(f'accounts: the pool has lent {lent} connections, {in_use} are in use')

    def _judge_remains(self) -> None:
        core = self.pool._core
        core.check_invariants()
        for conn in self.manager.created:
            if conn.disposals != 1 or conn.open:
                self.fail(f'books: {conn!r} was disposed of {conn.disposals} times')
        left = [task for task in self.loop.tasks if not task.done()]
        if core.total or core.endpoints() or left or self.manager.total:
            self.fail(f'remains: {core.total} slots, endpoints {core.endpoints()}, tasks {left}')
        if any(self.queues.values()) or len(self.pool._background) or self.pool._doomed:
            self.fail('remains: something that the pool keeps for ever')

    def abandon(self) -> None:
        """Leave nothing behind that would do anything any more."""
        self.loop.leave()
        self.loop.forget()
        self.pool._core.close()


def set_result(future: 'asyncio.Future[None]') -> None:
    """Let who waits for it go on, unless he was cancelled."""
    if not future.done():
        future.set_result(None)
