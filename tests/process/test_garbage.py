"""Finalizers that acquire, at whatever allocation the garbage collector runs in the middle of the pool's operations."""

import asyncio
import collections
import contextlib
import functools
import gc
import sys
import sysconfig
import weakref
from typing import Any, Callable, Coroutine, Deque, Dict, Iterator, List, Optional, Set

import pytest
from generic_connection_pool import ConnectionPoolClosedError, ConnectionPoolTimeoutError
from generic_connection_pool import asyncio as aio
from generic_connection_pool._core import ReentryError, core_implementation
from generic_connection_pool.threading import ConnectionPool
from support import tasks, threads

pytestmark = pytest.mark.skipif(
    bool(sysconfig.get_config_var('Py_GIL_DISABLED')),
    reason='without a GIL, a thread makes hundreds of allocations before they count for the collector',
)

#: a collection at each second allocation
THRESHOLDS = (1, 1000, 1000)
#: times that each operation is done
ROUNDS = 12
#: far fewer finalizers than run in any of these tests
SOME = 40

in_both_ways = pytest.mark.parametrize('how', ['__del__', 'weakref'])


class Lost:
    """Garbage in a cycle, with a finalizer."""

    def __init__(self, finalize: Callable[[], None]):
        self.finalize = finalize
        self.cycle = self

    def __del__(self) -> None:
        self.finalize()


class Followed:
    """Garbage in a cycle, for weak references with callbacks."""

    def __init__(self) -> None:
        self.cycle = self


class Chain:
    """Garbage whose finalizer leaves the next piece of garbage behind, so that one runs at every collection.

    :param how: ``'__del__'`` or ``'weakref'``
    :param actions: what the finalizers do, in turn
    """

    def __init__(self, how: str, *actions: Callable[[], Any]):
        self.how = how
        self.actions = actions
        self.ran = 0
        #: actions that have got what they wanted; that the core has refused
        self.served = 0
        self.refused = 0
        self.active = False
        #: finalizers under way, perhaps in a thread of the pool's own
        self.inside = 0
        self.reference: Optional['weakref.ref[Followed]'] = None

    @contextlib.contextmanager
    def running(self, phase: int = 0) -> Iterator[None]:
        """Within the block the collector runs all the time.

        :param phase: at which allocation it runs first
        """
        before = gc.get_threshold()
        gc.disable()
        gc.collect()
        self.active = True
        self._extend()
        ballast: List[Any] = [[] for _ in range(phase % 4)]
        gc.set_threshold(*THRESHOLDS)
        gc.enable()
        try:
            yield
        finally:
            self.active = False
            gc.set_threshold(*before)
            ballast.clear()
        threads.wait_until(lambda: not self.inside)
        gc.collect()

    def _extend(self) -> None:
        if self.how == '__del__':
            Lost(self._finalize)
        else:
            self.reference = weakref.ref(Followed(), lambda _: self._finalize())

    def _finalize(self) -> None:
        self.inside += 1
        try:
            if self.active:
                self._act()
        finally:
            self.inside -= 1

    def _act(self) -> None:
        self.ran += 1
        try:
            self.actions[self.ran % len(self.actions)]()
            self.served += 1
        except ReentryError:
            self.refused += 1
        except (ConnectionPoolTimeoutError, ConnectionPoolClosedError):
            pass
        finally:
            self._extend()


@pytest.fixture(autouse=True)
def unraisable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing but what a test makes is looked at by the collector, and no finalizer fails."""
    reports: List[str] = []
    monkeypatch.setattr(sys, 'unraisablehook', lambda report: reports.append(repr(report.exc_value)))
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    assert not reports


def has_been_busy(*chains: Chain) -> None:
    """The finalizers ran, some got connections; with the pure core they came in the middle of its operations."""
    assert sum(chain.ran for chain in chains) > SOME
    assert sum(chain.served for chain in chains) > 0
    refused = sum(chain.refused for chain in chains)
    assert refused == 0 if core_implementation == 'cython' else refused > 0


# -- threads


def in_a_block(pool: Any, endpoint: str, timeout: float = 0) -> Callable[[], None]:
    def action() -> None:
        with pool.connection(endpoint, timeout):
            pass

    return action


def in_a_block_that_fails(pool: Any, endpoint: str) -> Callable[[], None]:
    def action() -> None:
        with contextlib.suppress(ZeroDivisionError):
            with pool.connection(endpoint, 0):
                raise ZeroDivisionError

    return action


def by_hand(pool: Any, endpoint: str) -> Callable[[], None]:
    return lambda: pool.release(pool.acquire(endpoint, timeout=0), endpoint)


def keeping(pool: Any, endpoint: str, kept: Deque[Any]) -> Callable[[], None]:
    """A finalizer acquires, and a later one releases."""

    def action() -> None:
        try:
            conn = kept.popleft()
        except IndexError:
            kept.append(pool.acquire(endpoint, timeout=0))
        else:
            pool.release(conn, endpoint)

    return action


def finalizers(pool: Any, kept: Deque[Any]) -> List[Callable[[], None]]:
    return [
        in_a_block(pool, 'a'), keeping(pool, 'y', kept), by_hand(pool, 'new'), in_a_block_that_fails(pool, 'b'),
        in_a_block(pool, 'z', 0.0005), by_hand(pool, 'a'),
    ]  # fmt: skip


def reuse(pool: Any, manager: threads.Manager) -> None:
    with pool.connection('a'):
        pass


def acquire_and_release(pool: Any, manager: threads.Manager) -> None:
    pool.release(pool.acquire('a', timeout=20), 'a')


def create(pool: Any, manager: threads.Manager) -> None:
    for endpoint in ('c', 'd', 'e'):  # by eviction, at the latest in the next round
        with pool.connection(endpoint, timeout=20):
            pass
    with pool.connection('f'):
        pass


def wait_in_vain(pool: Any, manager: threads.Manager) -> None:
    with pool.connection('w', timeout=20):
        for timeout in (0, 0.001):
            with contextlib.suppress(TimeoutError):
                pool.acquire('w', timeout)


def fail_to_create(pool: Any, manager: threads.Manager) -> None:
    def fail(endpoint: str, _: Any) -> None:
        if endpoint == 'g':  # not for a finalizer
            raise ValueError

    manager.doing['create'] = fail
    with contextlib.suppress(ValueError):
        pool.acquire('g', timeout=20)
    manager.doing.clear()


def replace_dead(pool: Any, manager: threads.Manager) -> None:
    manager.doing['check_aliveness'] = lambda *_: False
    pool.release(pool.acquire('a', timeout=20), 'a')
    manager.doing.clear()


OPERATIONS = [reuse, acquire_and_release, create, wait_in_vain, fail_to_create, replace_dead]


@in_both_ways
@pytest.mark.parametrize('make_manager', [threads.Manager, threads.HookedManager])
def test_finalizers_acquire_within_every_operation_of_their_thread(make_manager: Any, how: str) -> None:
    """HAZARD 37"""
    chains: List[Chain] = []

    def work() -> None:
        for operation in OPERATIONS:
            manager = make_manager()
            pool: Any = ConnectionPool(manager, max_size=1, total_max_size=4, idle_timeout=0.002, min_idle=0)
            kept: Deque[Any] = collections.deque()
            chain = Chain(how, *finalizers(pool, kept))
            chains.append(chain)
            for phase in range(ROUNDS):
                with chain.running(phase):
                    operation(pool, manager)
                pool._core.check_invariants()
            manager.doing.clear()
            for conn in kept:
                pool.release(conn, 'y')
            settle(pool)

    threads.result(threads.start(work))
    has_been_busy(*chains)


def settle(pool: Any) -> None:
    """All slots and connections are there, and each was disposed of once when the pool is closed."""
    for endpoint in ('a', 'b', 'y', 'z', 'w', 'new'):  # one by one: there is not room for all
        threads.wait_until(functools.partial(threads.is_free, pool, endpoint))
    threads.finish(pool)


@in_both_ways
def test_finalizers_acquire_while_many_threads_wait_for_each_other(how: str) -> None:
    """HAZARD 37"""
    manager = threads.HookedManager()
    pool: Any = ConnectionPool(manager, max_size=1, total_max_size=3, idle_timeout=0.002, min_idle=0)
    chain = Chain(how, in_a_block(pool, 'a'), by_hand(pool, 'c'), in_a_block_that_fails(pool, 'b'), by_hand(pool, 'b'))

    def work(me: int) -> None:
        for place in range(ROUNDS * 3):
            endpoint = 'abc'[(place * me) % 3]
            if place % 2:
                with pool.connection(endpoint, 20 if place % 4 == 1 else None):
                    [[], []]
            else:
                pool.release(pool.acquire(endpoint, 20 if place % 4 else None), endpoint)

    with chain.running():
        for worker in [threads.start(work, me) for me in range(1, 4)]:
            threads.result(worker)
    settle(pool)
    has_been_busy(chain)


@in_both_ways
@pytest.mark.parametrize('timeout', [None, 0, 0.002])
def test_finalizers_acquire_while_their_thread_closes_the_pool(timeout: Any, how: str) -> None:
    """HAZARD 37"""
    chains: List[Chain] = []

    def work() -> None:
        for phase in range(ROUNDS):
            manager = (threads.Manager, threads.HookedManager)[phase % 2]()
            pool: Any = ConnectionPool(manager, max_size=2, total_max_size=4)
            for endpoint in 'ab':
                pool.release(pool.acquire(endpoint), endpoint)
            lost = pool.acquire('a') if timeout is not None else None
            chain = Chain(how, in_a_block(pool, 'a'), by_hand(pool, 'new'), in_a_block_that_fails(pool, 'b'))
            chains.append(chain)
            with chain.running(phase):
                pool.get_size()
                pool.close(timeout)
                pool.close(timeout)
            if lost is not None:
                pool.release(lost, 'a')
            threads.finish(pool)

    threads.result(threads.start(work))
    assert sum(chain.ran for chain in chains) > SOME


# -- asyncio, where a finalizer cannot await: it runs a coroutine as far as that gets, or leaves it to a task


async def hold(pool: Any, endpoint: str, timeout: Optional[float], fails: bool = False) -> None:
    with contextlib.suppress(ZeroDivisionError):
        async with pool.connection(endpoint, timeout):
            if fails:
                raise ZeroDivisionError


async def borrow(pool: Any, endpoint: str, timeout: Optional[float]) -> None:
    await pool.release(await pool.acquire(endpoint, timeout), endpoint)


def as_far_as_it_gets(coro: Coroutine[Any, Any, None]) -> None:
    try:
        coro.send(None)
    except StopIteration:
        return
    finally:
        coro.close()


def started_by_finalizers(pool: Any, started: Set['asyncio.Task[None]']) -> List[Callable[[], None]]:
    def in_a_task() -> None:
        if len(started) < 50:
            started.add(asyncio.get_running_loop().create_task(hold(pool, 'a', None)))

    if sys.version_info < (3, 12):  # to set a context variable within the setting of another one crashes Python there
        return [only_in_a_loop(in_a_task)]
    actions: List[Callable[[], None]] = [
        lambda: as_far_as_it_gets(hold(pool, 'a', None)),
        lambda: as_far_as_it_gets(borrow(pool, 'new', None)),
        in_a_task,
        lambda: as_far_as_it_gets(hold(pool, 'b', None, fails=True)),
        lambda: as_far_as_it_gets(borrow(pool, 'a', None)),
    ]
    return [only_in_a_loop(action) for action in actions]


def only_in_a_loop(action: Callable[[], None]) -> Callable[[], None]:
    """The collector may run in a thread that an earlier test has left behind."""
    return lambda: None if asyncio._get_running_loop() is None else action()


async def pause(*args: Any) -> None:
    await asyncio.sleep(0)


async def alive(*args: Any) -> bool:
    await asyncio.sleep(0)
    return True


HOOKS: Dict[str, Dict[str, Any]] = {
    'no hooks': {},
    'hooks that end at once': {
        name: tasks.always(True) for name in ('check_aliveness', 'on_acquire', 'on_release', 'dispose')
    },
    'hooks that suspend': {
        'create': pause, 'check_aliveness': alive, 'on_acquire': pause, 'on_release': pause, 'dispose': pause,
    },
}  # fmt: skip


async def operate(pool: Any) -> None:
    """Acquire and release in all ways: what is idle and what is new, after a wait, in vain; and be cancelled."""
    async with pool.connection('a'):
        waiters = [asyncio.ensure_future(borrow(pool, 'a', timeout)) for timeout in (None, tasks.GENEROUS, None)]
        await asyncio.sleep(0)
        with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
            await pool.acquire('a', timeout=0)
        waiters[2].cancel()
    await asyncio.gather(*waiters, return_exceptions=True)
    for endpoint in 'cde':
        await pool.release(await pool.acquire(endpoint, timeout=tasks.GENEROUS), endpoint)


@in_both_ways
@pytest.mark.parametrize('hooks', HOOKS)
def test_finalizers_acquire_within_every_operation_of_their_event_loop(hooks: str, how: str) -> None:
    """HAZARD 37"""
    chain = asyncio.run(acquire_in_finalizers(hooks, how))
    if sys.version_info < (3, 12):
        assert chain.ran > SOME
    else:
        has_been_busy(chain)


async def acquire_in_finalizers(hooks: str, how: str) -> Chain:
    manager = tasks.Manager(**HOOKS[hooks])
    pool: Any = aio.ConnectionPool(manager, max_size=1, total_max_size=4, idle_timeout=0.002, min_idle=0)
    started: Set['asyncio.Task[None]'] = set()
    chain = Chain(how, *started_by_finalizers(pool, started))
    for phase in range(ROUNDS):
        with chain.running(phase):
            await asyncio.wait_for(operate(pool), tasks.GENEROUS)
        pool._core.check_invariants()
        await all_end_well(started)
    await all_end_well(started)
    await tasks.finish(pool, manager)
    return chain


async def all_end_well(started: Set['asyncio.Task[None]']) -> None:
    for task in list(started):
        outcome = await asyncio.wait_for(tasks.outcome(task), tasks.GENEROUS)
        assert outcome is None or isinstance(outcome, (ConnectionPoolClosedError, ReentryError)), outcome
        started.discard(task)


@in_both_ways
@pytest.mark.parametrize('timeout', [None, 0, 0.002])
def test_finalizers_acquire_while_their_task_closes_the_pool(timeout: Any, how: str) -> None:
    """HAZARD 37"""

    async def work() -> int:
        ran = 0
        for phase in range(ROUNDS):
            manager = tasks.Manager(**list(HOOKS.values())[phase % 3])
            pool: Any = aio.ConnectionPool(manager, max_size=2, total_max_size=4)
            for endpoint in 'ab':
                await pool.release(await pool.acquire(endpoint), endpoint)
            lost = await pool.acquire('a') if timeout is not None else None
            started: Set['asyncio.Task[None]'] = set()
            chain = Chain(how, *started_by_finalizers(pool, started))
            with chain.running(phase):
                await pool.close(timeout)
                await pool.close(timeout)
            if lost is not None:
                await pool.release(lost, 'a')
            await all_end_well(started)
            await tasks.finish(pool, manager)
            ran += chain.ran
        return ran

    assert asyncio.run(work()) > SOME
