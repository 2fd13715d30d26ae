"""A hook that raises never costs a slot or a connection, whatever it raises, with a deadline and without."""

import asyncio
import gc
from typing import Any, Callable, List, Optional

import pytest
from support.tasks import Gate, Manager, OpenPool, Pool, always, failing, finish, outcome, queue_up, run_through, until

from generic_connection_pool.asyncio import ConnectionPool

ORDINARY = [ValueError, OSError]
#: after these, the state of a connection is unknown
SEVERE = [TimeoutError, asyncio.TimeoutError, asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit]

each_error = pytest.mark.parametrize('error', [*ORDINARY, *SEVERE], ids=lambda error: error.__name__)
each_timeout = pytest.mark.parametrize('timeout', [None, 30.0], ids=['without deadline', 'with deadline'])


class Trouble:
    """A hook's behaviour: once it is armed, wait at a gate and raise. Otherwise, answer."""

    def __init__(self, error: Callable[[], BaseException], answer: Any = True):
        self.error = error()
        self.answer = answer
        self.armed = False
        self.gate = Gate()

    async def __call__(self, *args: Any) -> Any:
        if self.armed:
            self.armed = False
            await self.gate()
            raise self.error
        return self.answer


class Case:
    """A pool with room for one connection, in one of whose hooks something goes wrong while somebody waits."""

    def __init__(self, hook: str, error: Callable[[], BaseException], **others: Callable[..., Any]):
        self.trouble = Trouble(error)
        self.manager = Manager(**{hook: self.trouble}, **others)
        self.pool: Pool = ConnectionPool(self.manager, max_size=1)

    async def prepare(self) -> Any:
        """Have one idle connection."""
        conn = await self.pool.acquire('a')
        await self.pool.release(conn, 'a')
        return conn

    async def fails(self, call: Any) -> Any:
        """Have the call of the pool fail while another acquire waits; return what that one gets."""
        self.trouble.armed = True
        task = asyncio.ensure_future(call)
        await self.trouble.gate.reached()
        waiter = await queue_up(self.pool, 'a')
        self.trouble.gate.open()
        raised = await outcome(task)
        assert raised is self.trouble.error or type(raised) is type(self.trouble.error) is asyncio.CancelledError
        conn = await waiter
        assert conn not in self.manager.disposed
        return conn

    async def end(self, conn: Any) -> None:
        await self.pool.release(conn, 'a')
        await finish(self.pool, self.manager)


def run(scenario: Any) -> None:
    run_through(scenario)
    gc.collect()  # the tasks that died of a KeyboardInterrupt complain before the next test


@each_error
@each_timeout
def test_a_create_that_raises_frees_the_slot_and_the_next_one_tries(error: Any, timeout: Optional[float]) -> None:
    """Hazards 9 and 15."""

    async def scenario() -> None:
        case = Case('create', error)
        case.trouble.answer = None
        conn = await case.fails(case.pool.acquire('a', timeout))
        assert case.manager.created == [conn]
        await case.end(conn)

    run(scenario())


@each_error
@each_timeout
def test_a_check_that_raises_leaves_the_connection_idle_or_else_unfit(error: Any, timeout: Optional[float]) -> None:
    """Hazards 2 and 9."""

    async def scenario() -> None:
        case = Case('check_aliveness', error)
        first = await case.prepare()
        conn = await case.fails(case.pool.acquire('a', timeout))
        assert (conn is first) == (error in ORDINARY)
        assert case.manager.disposed == ([] if error in ORDINARY else [first])
        await case.end(conn)

    run(scenario())


@each_error
@each_timeout
def test_an_on_acquire_that_raises_leaves_the_connection_idle_or_else_unfit(
    error: Any, timeout: Optional[float]
) -> None:
    """Hazards 2 and 9. No on_release: the connection was never handed out."""

    async def scenario() -> None:
        case = Case('on_acquire', error, on_release=always(None))
        first = await case.prepare()
        case.manager.calls.clear()
        conn = await case.fails(case.pool.acquire('a', timeout))
        assert (conn is first) == (error in ORDINARY)
        assert case.manager.disposed == ([] if error in ORDINARY else [first])
        assert 'on_release' not in case.manager.names()
        await case.end(conn)

    run(scenario())


@each_error
@each_timeout
def test_an_on_acquire_that_raises_for_a_new_connection_does_not_lose_it(error: Any, timeout: Optional[float]) -> None:
    async def scenario() -> None:
        case = Case('on_acquire', error)
        conn = await case.fails(case.pool.acquire('a', timeout))
        assert (conn is case.manager.created[0]) == (error in ORDINARY)
        await case.end(conn)

    run(scenario())


@each_error
def test_an_on_release_that_raises_leaves_the_connection_idle_or_else_unfit(error: Any) -> None:
    """Hazards 2, 9 and 33."""

    async def scenario() -> None:
        case = Case('on_release', error)
        first = await case.pool.acquire('a')
        conn = await case.fails(case.pool.release(first, 'a'))
        assert (conn is first) == (error in ORDINARY)
        assert case.manager.disposed == ([] if error in ORDINARY else [first])
        await case.end(conn)

    run(scenario())


@each_error
def test_an_on_release_that_raises_at_the_end_of_a_block_does_the_same(error: Any) -> None:
    async def scenario() -> None:
        case = Case('on_release', error)

        async def use() -> None:
            async with case.pool.connection('a'):
                case.trouble.armed = True

        conn = await case.fails(use())
        assert (conn is case.manager.created[0]) == (error in ORDINARY)
        await case.end(conn)

    run(scenario())


@each_error
@each_timeout
def test_an_on_connection_dead_that_raises_does_not_save_the_connection(error: Any, timeout: Optional[float]) -> None:
    """Hazards 9 and 28."""

    async def scenario() -> None:
        dead: List[Any] = []

        async def check(endpoint: Any, conn: Any) -> bool:
            return conn not in dead

        case = Case('on_connection_dead', error, check_aliveness=check)
        dead.append(await case.prepare())
        conn = await case.fails(case.pool.acquire('a', timeout))
        assert case.manager.disposed == dead and conn not in dead
        await case.end(conn)

    run(scenario())


@each_error
@each_timeout
def test_a_dispose_that_raises_frees_the_slot_and_is_logged_or_else_propagates(
    error: Any, timeout: Optional[float], caplog: pytest.LogCaptureFixture
) -> None:
    """Hazard 14."""
    logged = issubclass(error, Exception)

    async def scenario() -> None:
        manager = Manager(dispose=failing(error()))
        pool: Pool = ConnectionPool(manager, max_size=1, min_idle=0, idle_timeout=0.0, dispose_timeout=timeout)
        conn = await pool.acquire('a')
        if logged:
            await pool.release(conn, 'a')
        else:
            assert type(await outcome(asyncio.ensure_future(pool.release(conn, 'a')))) is error
        assert pool.get_size() == 0 and manager.disposed == [conn]
        await finish(pool, manager)

    run(scenario())
    records = [record for record in caplog.records if record.name.startswith('generic_connection_pool')]
    assert len(records) == (1 if logged else 0)
    if logged:
        assert "'a'" in records[0].getMessage() and records[0].exc_info


@each_error
def test_a_dispose_that_raises_does_not_keep_the_pool_from_closing(error: Any) -> None:
    """Hazard 25."""

    async def scenario() -> None:
        manager = Manager(dispose=failing(error(), error()))
        pool: Pool = ConnectionPool(manager)
        for conn in [await pool.acquire('a') for _ in range(3)]:
            await pool.release(conn, 'a')
        await finish(pool, manager)

    run(scenario())


@each_error
def test_a_dispose_that_raises_does_not_keep_an_eviction_from_its_beneficiary(error: Any) -> None:
    async def scenario() -> None:
        manager = Manager(dispose=failing(error()))
        pool: Pool = ConnectionPool(manager, total_max_size=1)
        await pool.release(await pool.acquire('a'), 'a')
        await pool.release(await pool.acquire('b', timeout=20.0), 'b')
        await finish(pool, manager)

    run(scenario())


async def test_the_error_of_a_create_surfaces_at_once_and_is_not_retried(open_pool: OpenPool) -> None:
    """Hazard 16."""
    manager = Manager(create=failing(OSError('refused'), OSError('never')))
    pool = open_pool(manager)
    with pytest.raises(OSError, match='refused'):
        await pool.acquire('a', timeout=10.0)
    assert manager.names() == ['create']


async def test_each_of_those_who_wait_tries_when_create_keeps_failing(open_pool: OpenPool) -> None:
    """Hazard 15: nobody sleeps for ever."""
    gate = Gate()

    async def create(endpoint: Any) -> None:
        await gate()
        raise OSError('refused')

    pool = open_pool(Manager(create=create), max_size=1)
    tasks = [asyncio.ensure_future(pool.acquire('a', timeout)) for timeout in (None, 30.0, None, 30.0)]
    await until(lambda: pool._core.waiting('a') == 3)
    gate.open()
    for task in tasks:
        with pytest.raises(OSError, match='refused'):
            await task


async def test_the_slot_of_a_failed_create_goes_to_another_endpoint_that_waits_for_the_total(
    open_pool: OpenPool,
) -> None:
    """Hazard 14."""
    gate = Gate()

    async def create(endpoint: Any) -> None:
        if endpoint == 'a':
            await gate()
            raise OSError('refused')

    pool = open_pool(Manager(create=create), total_max_size=1)
    task = asyncio.ensure_future(pool.acquire('a'))
    waiter = await queue_up(pool, 'b')
    gate.open()
    with pytest.raises(OSError):
        await task
    await pool.release(await waiter, 'b')


async def test_hooks_may_call_back_into_the_pool(open_pool: OpenPool) -> None:
    """They run outside every lock."""

    async def hook(endpoint: Any, conn: Any = None) -> Any:
        if endpoint != 'inner':
            async with pool.connection('inner'):
                assert pool.get_size() >= 1 + (conn is not None)
        return True

    async def create(endpoint: Any) -> None:
        await hook(endpoint)

    hooks = ('check_aliveness', 'on_acquire', 'on_release', 'dispose')
    manager = Manager(create=create, **{name: hook for name in hooks})
    pool = open_pool(manager, min_idle=1, idle_timeout=0.0, max_size=2)
    outer = [await pool.acquire('outer', timeout=20.0) for _ in range(2)]
    for conn in outer:
        await pool.release(conn, 'outer')
    async with pool.connection('outer', timeout=20.0) as conn:
        assert conn is outer[1]
    assert {name for name, endpoint, *_ in manager.calls if endpoint == 'outer'} == {'create', *hooks}
