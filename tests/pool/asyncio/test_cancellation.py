"""A task can be cancelled, or its coroutine closed, at any point of what the pool does for it (hazards 1-6 and 11).

Each scenario is run again and again, and interrupted one step later each time, until it gets through without being
interrupted. Each time: the cancellation is delivered, no slot and no connection is lost, and others are served.
"""

import asyncio
from typing import Any, AsyncIterator, Awaitable, Callable, List

import pytest
from support.interrupting import INTERRUPTIONS, interrupt
from support.tasks import GENEROUS, Gate, Manager, Pool, finish, passes, queue_up, until

from generic_connection_pool.asyncio import ConnectionPool

#: more steps than any scenario has
ENDLESS = 300

each_interruption = pytest.mark.parametrize('how', INTERRUPTIONS)
each_timeout = pytest.mark.parametrize('timeout', [None, GENEROUS], ids=['without deadline', 'with deadline'])


def pausing(answer: Any = None) -> Callable[..., Awaitable[Any]]:
    """A hook's behaviour: suspend a few times."""

    async def behaviour(*args: Any) -> Any:
        await passes(2)
        return answer

    return behaviour


def pausing_manager(**others: Any) -> Manager:
    """A manager whose hooks all suspend."""
    hooks = {name: pausing() for name in ('create', 'on_acquire', 'on_release', 'on_connection_dead', 'dispose')}
    return Manager(**{**hooks, 'check_aliveness': pausing(True), **others})


async def acquire_idle(pool: Pool, manager: Manager, timeout: Any) -> AsyncIterator[Any]:
    """One is idle; the hooks suspend."""
    await pool.release(await pool.acquire('a'), 'a')
    yield pool.acquire('a', timeout)


async def acquire_new(pool: Pool, manager: Manager, timeout: Any) -> AsyncIterator[Any]:
    """One has to be created."""
    yield pool.acquire('a', timeout)


async def acquire_dead(pool: Pool, manager: Manager, timeout: Any) -> AsyncIterator[Any]:
    """The idle one is dead and has to be replaced."""
    await pool.release(await pool.acquire('a'), 'a')
    answers = [False]

    async def check(endpoint: Any, conn: Any) -> bool:
        await passes(2)
        return answers.pop() if answers else True

    manager.behaviours['check_aliveness'] = check
    yield pool.acquire('a', timeout)


async def wait_for_release(pool: Pool, manager: Manager, timeout: Any) -> AsyncIterator[Any]:
    """All are acquired; one is given back after a while."""
    held = [await pool.acquire('a') for _ in range(pool.max_size)]

    async def give_back() -> None:
        await passes(5)
        for conn in held:
            await pool.release(conn, 'a')

    giver = asyncio.ensure_future(give_back())
    yield pool.acquire('a', timeout)
    await giver


async def wait_for_slot(pool: Pool, manager: Manager, timeout: Any) -> AsyncIterator[Any]:
    """All are acquired; one is disposed of after a while, and its slot passed on."""
    held = [await pool.acquire('a') for _ in range(pool.max_size)]

    async def fail(*args: Any) -> None:
        await passes(2)
        raise TimeoutError

    manager.behaviours['on_release'] = fail

    async def give_back() -> None:
        await passes(3)
        for conn in held:
            with pytest.raises(TimeoutError):
                await pool.release(conn, 'a')
        manager.behaviours['on_release'] = pausing()

    giver = asyncio.ensure_future(give_back())
    yield pool.acquire('a', timeout)
    await giver


async def evict(pool: Pool, manager: Manager, timeout: Any) -> AsyncIterator[Any]:
    """The pool is full of another endpoint's idle connections."""
    for conn in [await pool.acquire('b') for _ in range(pool.max_size)]:
        await pool.release(conn, 'b')
    yield pool.acquire('a', timeout)


async def use_in_a_block(pool: Pool, manager: Manager, timeout: Any) -> AsyncIterator[Any]:
    """A whole ``async with`` block, from entering to having left."""

    async def use() -> None:
        async with pool.connection('a', timeout):
            await passes(3)

    yield use()


async def fail_in_a_block(pool: Pool, manager: Manager, timeout: Any) -> AsyncIterator[Any]:
    """A block that raises; the cancellation comes before or after that."""

    async def use() -> None:
        try:
            async with pool.connection('a', timeout):
                await passes(3)
                raise LookupError
        except LookupError:
            pass

    yield use()


async def release(pool: Pool, manager: Manager, timeout: Any) -> AsyncIterator[Any]:
    """A release whose hook suspends."""
    yield pool.release(await pool.acquire('a'), 'a')


async def release_and_dispose(pool: Pool, manager: Manager, timeout: Any) -> AsyncIterator[Any]:
    """A release that disposes of the connection and of others that are due."""
    manager.behaviours['on_release'] = pausing()
    conns = [await pool.acquire('a') for _ in range(pool.max_size)]
    for conn in conns[1:]:
        await pool.release(conn, 'a')
    pool._core.outdate()
    yield pool.release(conns[0], 'a')


Scenario = Callable[[Pool, Manager, Any], AsyncIterator[Any]]
ACQUIRES: List[Scenario] = [acquire_idle, acquire_new, acquire_dead, wait_for_release, wait_for_slot, evict]
OTHERS: List[Scenario] = [use_in_a_block, fail_in_a_block, release, release_and_dispose]


async def see_that_nothing_is_lost(pool: Pool, manager: Manager) -> None:
    """All slots can be had, the books are right, nothing is left."""
    pool._core.check_invariants()
    await until(lambda: pool._core.lent_size('a') == pool._core.lent_size('b') == 0)
    conns = [await pool.acquire('c', timeout=GENEROUS) for _ in range(pool.max_size)]
    for conn in conns:
        assert conn not in manager.disposed
        await pool.release(conn, 'c')
    await finish(pool, manager)


async def run_once(scenario: Scenario, manager: Manager, timeout: Any, how: str, at: int, others: int) -> bool:
    """Interrupt a scenario once, while others wait for the same endpoint. Tell whether it was interrupted."""
    pool: Pool = ConnectionPool(manager, max_size=2, total_max_size=2, min_idle=1)
    steps = scenario(pool, manager, timeout)
    coro = await steps.__anext__()
    got: List[Any] = []

    async def keep() -> None:
        got.append(await coro)

    interruption = asyncio.ensure_future(interrupt(keep(), how, at))
    await passes(1)
    waiters = [asyncio.ensure_future(use(pool)) for _ in range(others)]
    interrupted = await interruption
    async for _ in steps:
        pass
    for conn in got:
        if conn is not None:
            assert not interrupted
            await pool.release(conn, 'a')
    await asyncio.wait_for(asyncio.gather(*waiters), GENEROUS)
    await see_that_nothing_is_lost(pool, manager)
    return interrupted


async def use(pool: Pool) -> None:
    async with pool.connection('a', timeout=GENEROUS):
        await passes(1)


async def sweep(scenario: Scenario, make_manager: Callable[[], Manager], timeout: Any, how: str, others: int) -> int:
    """Interrupt a scenario at each of its steps. Returns how many there are."""
    for at in range(1, ENDLESS):
        if not await run_once(scenario, make_manager(), timeout, how, at, others):
            return at - 1
    raise AssertionError('the scenario does not end')


@pytest.mark.parametrize('scenario', ACQUIRES, ids=lambda scenario: scenario.__name__)
@each_timeout
@each_interruption
async def test_an_acquire_can_be_interrupted_anywhere(scenario: Scenario, timeout: Any, how: str) -> None:
    assert await sweep(scenario, pausing_manager, timeout, how, others=3) >= 1


@pytest.mark.parametrize('scenario', OTHERS, ids=lambda scenario: scenario.__name__)
@each_interruption
async def test_a_release_and_a_block_can_be_interrupted_anywhere(scenario: Scenario, how: str) -> None:
    assert await sweep(scenario, pausing_manager, None, how, others=3) >= 1


@pytest.mark.parametrize('scenario', [wait_for_release, evict, use_in_a_block], ids=lambda scenario: scenario.__name__)
@each_interruption
async def test_so_can_they_without_any_hooks(scenario: Scenario, how: str) -> None:
    """The fast paths."""
    assert await sweep(scenario, Manager, None, how, others=3) >= 1


@each_interruption
async def test_close_can_be_interrupted_anywhere_and_called_again(how: str) -> None:
    """Hazard 26."""
    for at in range(1, ENDLESS):
        manager = pausing_manager()
        pool: Pool = ConnectionPool(manager, max_size=2)
        held = [await pool.acquire('a'), await pool.acquire('b')]
        await pool.release(held[0], 'a')

        async def give_back(conn: Any) -> None:
            await passes(6)
            await pool.release(conn, 'b')

        giver = asyncio.ensure_future(give_back(held[1]))
        interrupted = await interrupt(pool.close(), how, at)
        pool._core.check_invariants()
        assert pool.closed
        await pool.close()
        await giver
        await finish(pool, manager)
        if not interrupted:
            assert at > 1
            return
    raise AssertionError('close does not end')


@pytest.mark.parametrize('hook', ['check_aliveness', 'on_acquire', 'on_release'])
@each_timeout
async def test_a_connection_whose_hook_was_cancelled_is_not_given_to_anyone_else(hook: str, timeout: Any) -> None:
    """Hazards 2 and 7: its state is unknown."""
    gate = Gate()
    manager = pausing_manager()
    pool: Pool = ConnectionPool(manager, max_size=1)
    first = await pool.acquire('a')
    if hook == 'on_release':
        manager.behaviours[hook] = gate
        task = asyncio.ensure_future(pool.release(first, 'a'))
    else:
        await pool.release(first, 'a')
        manager.behaviours[hook] = gate
        task = asyncio.ensure_future(pool.acquire('a', timeout))
    await gate.reached()
    waiter = await queue_up(pool, 'a')
    manager.behaviours[hook] = pausing(True)
    task.cancel()
    second = await waiter
    assert task.cancelled() and gate.cancelled == 1
    assert manager.created == [first, second] and manager.disposed == [first]
    await pool.release(second, 'a')
    await finish(pool, manager)


async def test_a_disposal_goes_on_though_the_release_that_waits_for_it_is_cancelled() -> None:
    gate = Gate()
    manager = Manager(dispose=gate)
    pool: Pool = ConnectionPool(manager, min_idle=0, idle_timeout=0.0)
    task = asyncio.ensure_future(pool.release(await pool.acquire('a'), 'a'))
    await gate.reached()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() and gate.cancelled == 0 and pool.get_size() == 1
    gate.open()
    await finish(pool, manager)


async def test_a_block_whose_coroutine_is_closed_leaves_its_disposal_to_a_task_of_its_own() -> None:
    """Hazard 11: a coroutine that is being closed may await nothing."""
    gate = Gate()
    manager = Manager(dispose=gate)
    pool: Pool = ConnectionPool(manager, min_idle=0, idle_timeout=0.0)

    async def use() -> None:
        async with pool.connection('a'):
            await asyncio.get_running_loop().create_future()

    coro = use()
    coro.send(None)
    coro.close()
    await gate.reached()
    assert pool.get_size() == 1
    gate.open()
    await finish(pool, manager)


async def test_a_closed_block_does_not_run_on_release_which_it_could_not_await() -> None:
    """Hazards 9 and 11: whether the connection is fit for others is unknown, so it is disposed of."""
    manager = Manager(on_release=pausing(), is_reusable=lambda *args: True)
    pool: Pool = ConnectionPool(manager)

    async def use() -> None:
        async with pool.connection('a'):
            await asyncio.get_running_loop().create_future()

    coro = use()
    coro.send(None)
    coro.close()
    await until(lambda: pool.get_size() == 0)
    assert manager.names()[:2] == ['create', 'is_reusable'] and 'on_release' not in manager.names()
    await finish(pool, manager)
