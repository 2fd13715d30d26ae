"""Every operation is cancelled at every instant, once and twice, alone and at the very moment of a hand-over.

The loop is driven callback by callback, and a cancellation comes between any two of them: wherever the operation has
suspended, both at once and when what it awaits has just happened. All of that is enumerated, nothing is left to chance.
Meanwhile somebody waits for the same endpoint, and somebody for another one, who is blocked by the total limit alone.

Each time (hazards 1, 2, 3, 5, 6, 11): the cancellation is delivered, every connection is disposed of exactly once,
every slot is counted exactly as long as there is a connection in it, and all the others are served.
"""

import asyncio
import types
from typing import Any, Callable, Coroutine, Dict, Generator, List, Optional, Set, Tuple

import pytest
from simulation.asyncio_loop import SteppedLoop
from simulation.seam import Clock
from support.tasks import Connection

from generic_connection_pool import ConnectionPoolClosedError
from generic_connection_pool.asyncio import BaseConnectionManager, ConnectionPool

#: a deadline that the clock, which stands still, never reaches
NEVER = 1000.0
#: until an idle connection is due: only for the operation that disposes of what is due, the clock goes on
SOON = 100.0

#: what happens between two callbacks, in this order
Actions = Tuple[str, ...]
#: and after how many callbacks since the operation began
Plan = Dict[int, Actions]

CANCEL: Actions = ('cancel',)
HAND_OVER: Actions = ('hand over',)
HAND_OVER_FIRST: Actions = ('hand over', 'cancel')
CANCEL_FIRST: Actions = ('cancel', 'hand over')


@types.coroutine
def _next_pass() -> Generator[None, None, None]:
    yield


class SlowManager(BaseConnectionManager[Any, Any]):
    """All hooks suspend twice: once for a pass of the loop, once for a future. It keeps books of the connections."""

    def __init__(self) -> None:
        self.in_a_hurry = True
        self.created: List[Connection] = []
        self.open: Set[Connection] = set()
        #: connections found dead
        self.dead: Set[Connection] = set()
        #: connections of which a hook was cut short, so that nobody knows what state they are in
        self.unfit: Set[Connection] = set()
        self.cut_short: List[Connection] = []
        self.reusable = True

    async def hook(self, conn: Connection) -> None:
        assert conn in self.open and conn not in self.unfit, f'{conn!r} is not fit for anybody'
        self.unfit.add(conn)
        await self.suspend()
        self.unfit.remove(conn)

    async def suspend(self) -> None:
        if not self.in_a_hurry:
            await _next_pass()
            loop = asyncio.get_running_loop()
            future = loop.create_future()
            loop.call_soon(lambda: future.done() or future.set_result(None))
            await future

    async def create(self, endpoint: Any) -> Connection:
        await self.suspend()
        conn = Connection(endpoint, len(self.created))
        self.created.append(conn)
        self.open.add(conn)
        return conn

    async def dispose(self, endpoint: Any, conn: Connection) -> None:
        assert conn in self.open, f'{conn!r} is disposed of twice'
        self.cut_short.append(conn)
        try:
            await self.suspend()
            self.cut_short.remove(conn)
        finally:
            self.open.remove(conn)

    async def check_aliveness(self, endpoint: Any, conn: Connection) -> bool:
        await self.hook(conn)
        return conn not in self.dead

    async def on_acquire(self, endpoint: Any, conn: Connection) -> None:
        await self.hook(conn)

    async def on_release(self, endpoint: Any, conn: Connection) -> None:
        await self.hook(conn)

    async def on_connection_dead(self, endpoint: Any, conn: Connection) -> None:
        await self.hook(conn)

    def is_reusable(self, endpoint: Any, conn: Connection, exc: BaseException) -> bool:
        return self.reusable


class PlainManager(SlowManager):
    """The same with no hook overridden but those that have to be, for the fast paths."""

    check_aliveness = BaseConnectionManager.check_aliveness
    on_acquire = BaseConnectionManager.on_acquire
    on_release = BaseConnectionManager.on_release
    on_connection_dead = BaseConnectionManager.on_connection_dead
    is_reusable = BaseConnectionManager.is_reusable


class Case:
    """One run of one operation under a plan. A connection is kept all the while, until it is handed over.

    :param operation: prepares and makes the coroutine to be cancelled
    :param kept: what hands over: ``connection`` (one of the same endpoint), ``slot`` (one of the same endpoint that is
        past its time, so that its slot is handed over once it is disposed of) or ``elsewhere`` (of another endpoint)
    :param bounded: with a deadline, for which the pool goes other ways
    """

    def __init__(self, operation: 'Operation', manager: SlowManager, kept: str, bounded: bool):
        self.manager = manager
        self.clock = Clock()
        self.loop = SteppedLoop(now=self.clock.now)
        self.timeout = NEVER if bounded else None
        self.pool: Any = ConnectionPool(
            manager,
            max_size=max(2, operation.total),
            total_max_size=operation.total,
            dispose_timeout=self.timeout,
            min_idle=0,
            idle_timeout=SOON,
        )
        self.kept = kept
        self.kept_endpoint = 'b' if kept == 'elsewhere' else 'a'
        self.operation = operation
        self.subject: 'Optional[asyncio.Task[Any]]' = None
        self.cancelled = False
        self.keeper: Any = None
        #: who waits meanwhile
        self.others: 'List[asyncio.Task[None]]' = []
        #: what the operation is to release
        self.mine: List[Connection] = []

    def run(self, plan: Plan) -> Tuple[bool, int]:
        """Go through with a plan.

        :return: whether all of it came to pass before the operation had ended, and after how many callbacks it had
        """
        with self.clock.in_place():
            return self._run(plan)

    def _run(self, plan: Plan) -> Tuple[bool, int]:
        self.loop.enter()
        try:
            self.keeper = self.finish(self.pool.acquire(self.kept_endpoint))
            coro = self.operation.prepare(self)
            if self.kept == 'slot':
                self.pool._core.outdate()
            self.manager.in_a_hurry = False
            reached, ended = self.interrupt(coro, plan)
            self.manager.in_a_hurry = True
            self.settle()
            return reached, ended
        finally:
            self.loop.leave()
            self.loop.forget()
            self.pool._core.close()  # in case that it has failed; everything in it is garbage

    def finish(self, coro: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine to its end."""
        task = self.loop.create_task(coro)
        while not task.done():
            assert self.loop.step(), f'{coro!r} is stuck'
        return task.result()

    def interrupt(self, coro: Coroutine[Any, Any, Any], plan: Plan) -> Tuple[bool, int]:
        task = self.subject = self.loop.create_task(coro)
        reached = 0
        position = 0
        while True:
            if not task.done() and position in plan:
                reached += 1
                for action in plan[position]:
                    self.cancel() if action == 'cancel' else self.hand_over()
            if position == 0:  # behind the subject, which comes first in the first pass
                self.others = [self.loop.create_task(self.use(endpoint)) for endpoint in 'ac']
            if task.done() or not self.loop.step():
                return reached == len(plan), position
            position += 1

    async def use(self, endpoint: Any) -> None:
        """What the others do."""
        try:
            async with self.pool.connection(endpoint) as conn:
                assert conn in self.manager.open and conn.endpoint == endpoint
                await _next_pass()
        except ConnectionPoolClosedError:
            assert self.pool.closed

    def cancel(self) -> None:
        assert self.subject is not None
        self.cancelled |= self.subject.cancel()

    def hand_over(self) -> None:
        """Release what is kept: now, without the loop going on for anybody else."""
        if self.keeper is None:
            return
        conn, self.keeper = self.keeper, None
        before = self.manager.in_a_hurry
        self.manager.in_a_hurry = True
        outdated = self.kept == 'slot' or self.pool.closed
        with self.loop.ahead_of_others():
            release = self.loop.create_task(self.pool.release(conn, self.kept_endpoint))
            size = self.pool.get_size()
            while not (release.done() or outdated and self.pool.get_size() < size):
                assert self.loop.step(), 'a release is stuck'
                if outdated and conn not in self.manager.open:
                    break  # its slot is free from the same callback on
        self.manager.in_a_hurry = before

    def settle(self) -> None:
        """The operation has ended, or waits for ever: see what became of everything."""
        task = self.subject
        assert task is not None
        self.quiesce()
        if self.cancelled:
            assert task.cancelled(), f'the cancellation was swallowed by {task!r}'
        self.check_accounts()
        self.hand_over()
        self.quiesce()
        assert task.done(), 'what was handed over has not arrived'
        if not task.cancelled() and task.result() is not None:
            self.mine.append(task.result())
        for conn in self.held():
            self.finish(self.pool.release(conn, 'a'))
        self.quiesce()
        self.check_accounts()
        for other in self.others:
            assert other.done(), 'somebody was left asleep'
            other.result()
        self.finish(self.pool.close())
        self.quiesce()
        assert not self.manager.open, f'{self.manager.open} have not been disposed of'
        assert self.pool.get_size() == 0 and self.pool._core.endpoints() == []
        assert not self.loop.reports, self.loop.reports

    def quiesce(self) -> None:
        while self.loop.step():
            pass
        self.pool._core.check_invariants()

    def check_accounts(self) -> None:
        """Nothing is under way: a slot is in use iff there is a connection in it, and that is lent iff it is held."""
        task = self.subject
        assert task is not None
        held = len(self.held()) + (self.keeper is not None)
        if task.done() and not task.cancelled() and isinstance(task.result(), Connection):
            held += task.result() not in self.mine
        assert not self.manager.unfit & self.manager.open, 'a connection is kept though one of its hooks was cut short'
        assert not self.manager.cut_short, 'a disposal was cut short'
        lent = sum(map(self.pool._core.lent_size, 'abcd'))
        assert self.pool.get_size() == len(self.manager.open), 'a slot was lost, or is counted too early as free'
        assert lent == held, 'a connection is lent to nobody'

    def held(self) -> List[Connection]:
        """What the operation has acquired or, because it was cancelled before it began, not released."""
        return [conn for conn in self.mine if self.pool._core.find(conn, 'a') is not None]


class Operation:
    """What is to be cancelled.

    :param prepare: called with the case; the coroutine that it returns is to be cancelled
    :param total: the limit of all endpoints, what is kept included
    """

    def __init__(self, prepare: Callable[[Case], Coroutine[Any, Any, Any]], total: int = 2):
        self.prepare = prepare
        self.total = total
        self.waits = total == 1

    def __repr__(self) -> str:
        return self.prepare.__name__


def idle(case: Case, endpoint: str = 'a', count: int = 1) -> List[Connection]:
    """Have some connections idle."""
    conns = [case.finish(case.pool.acquire(endpoint)) for _ in range(count)]
    for conn in conns:
        case.finish(case.pool.release(conn, endpoint))
    return conns


def acquire_idle(case: Case) -> Coroutine[Any, Any, Any]:
    idle(case)
    return case.pool.acquire('a', case.timeout)


def acquire_new(case: Case) -> Coroutine[Any, Any, Any]:
    return case.pool.acquire('a', case.timeout)


def acquire_after_a_wait(case: Case) -> Coroutine[Any, Any, Any]:
    return case.pool.acquire('a', case.timeout)


def acquire_for_a_dead_one(case: Case) -> Coroutine[Any, Any, Any]:
    case.manager.dead.update(idle(case))
    return case.pool.acquire('a', case.timeout)


def acquire_the_second_as_the_first_is_dead(case: Case) -> Coroutine[Any, Any, Any]:
    case.manager.dead.add(idle(case, count=2)[0])
    return case.pool.acquire('a', case.timeout)


def acquire_by_eviction(case: Case) -> Coroutine[Any, Any, Any]:
    idle(case, 'd')
    return case.pool.acquire('a', case.timeout)


def release(case: Case) -> Coroutine[Any, Any, Any]:
    case.mine.append(case.finish(case.pool.acquire('a')))
    return case.pool.release(case.mine[0], 'a')


def release_and_dispose(case: Case) -> Coroutine[Any, Any, Any]:
    """Of the connection itself, and of another that is due."""
    idle(case, 'd')
    coro = release(case)
    case.pool._core.outdate()
    case.clock.set(case.clock.now + SOON)
    case.loop.advance(case.clock.now)
    return coro


def use_in_a_block(case: Case) -> Coroutine[Any, Any, Any]:
    async def use() -> None:
        async with case.pool.connection('a', case.timeout):
            await case.manager.suspend()

    return use()


def fail_in_a_block(case: Case) -> Coroutine[Any, Any, Any]:
    async def use() -> None:
        try:
            async with case.pool.connection('a', case.timeout):
                await case.manager.suspend()
                raise LookupError
        except LookupError:
            pass

    return use()


def fail_in_a_block_beyond_repair(case: Case) -> Coroutine[Any, Any, Any]:
    case.manager.reusable = False
    return fail_in_a_block(case)


def close(case: Case) -> Coroutine[Any, Any, Any]:
    idle(case, 'd')
    return case.pool.close(case.timeout)


OPERATIONS = (
    Operation(acquire_idle),
    Operation(acquire_new),
    Operation(acquire_after_a_wait, total=1),
    Operation(acquire_for_a_dead_one),
    Operation(acquire_by_eviction),
    Operation(release),
    Operation(release_and_dispose, total=3),
    Operation(use_in_a_block),
    Operation(fail_in_a_block),
    Operation(fail_in_a_block_beyond_repair),
    Operation(close),
)


def sweep(operation: Operation, make_manager: Callable[[], SlowManager], kept: str, bounded: bool) -> int:
    """Go through all plans of up to two cancellations. Returns how many there are."""

    def run(plan: Plan) -> Tuple[bool, int]:
        try:
            return Case(operation, make_manager(), kept, bounded).run(plan)
        except BaseException as exc:
            raise AssertionError(f'{operation}, kept: {kept}, bounded: {bounded}, plan: {plan}: {exc!r}') from exc

    plans = 0
    _, ended = run({})
    for base in ({}, {ended: HAND_OVER}) if operation.waits else ({},):
        start = max(base, default=-1) + 1  # what waits goes on only after it has been served
        _, ended = run(base)
        for first in range(start, ended + 1):
            for actions in (CANCEL,) if base else (CANCEL, HAND_OVER_FIRST, CANCEL_FIRST):
                reached, end = run({**base, first: actions})
                plans += 1
                for second in range(first + 1, end) if reached else ():
                    for more in second_actions(actions, kept) if not base else (CANCEL,):
                        run({**base, first: actions, second: more})
                        plans += 1
    return plans


def second_actions(first: Actions, kept: str) -> Tuple[Actions, ...]:
    """What is to happen at the second instant. Some would be the same as with another kind of hand-over."""
    if first != CANCEL:
        return () if kept == 'elsewhere' else (CANCEL,)
    alone = (CANCEL,) if kept == 'connection' else ()
    return (*alone, HAND_OVER_FIRST, CANCEL_FIRST)


@pytest.mark.parametrize('kept', ['connection', 'slot', 'elsewhere'])
@pytest.mark.parametrize('operation', OPERATIONS, ids=repr)
def test_an_operation_can_be_cancelled_at_any_instant_once_and_twice(operation: Operation, kept: str) -> None:
    assert sweep(operation, SlowManager, kept, bounded=False) > 10


@pytest.mark.parametrize('bounded', [False, True], ids=['without deadline', 'with deadline'])
def test_so_can_an_acquire_that_gets_another_idle_one_for_a_dead_one(bounded: bool) -> None:
    operation = Operation(acquire_the_second_as_the_first_is_dead, total=3)
    assert sweep(operation, SlowManager, 'connection', bounded) > 10


@pytest.mark.parametrize('kept', ['connection', 'slot'])
@pytest.mark.parametrize('operation', OPERATIONS, ids=repr)
def test_so_can_it_with_a_deadline(operation: Operation, kept: str) -> None:
    assert sweep(operation, SlowManager, kept, bounded=True) > 10


@pytest.mark.parametrize('kept', ['connection', 'slot', 'elsewhere'])
@pytest.mark.parametrize('operation', OPERATIONS, ids=repr)
def test_so_can_it_if_no_hook_is_overridden(operation: Operation, kept: str) -> None:
    """The fast paths."""
    assert sweep(operation, PlainManager, kept, bounded=False) >= 1
