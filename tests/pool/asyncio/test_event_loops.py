"""One pool and several event loops: one after the other, at once, and closed at the wrong moment (hazard 40)."""

import asyncio
import gc
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Coroutine, Iterator, List

import pytest
from support.tasks import GENEROUS, Gate, Manager, Pool, StubbornGate, always, finish, passes, queue_up, until

from generic_connection_pool import ConnectionPoolTimeoutError
from generic_connection_pool.asyncio import ConnectionPool

NewLoop = Callable[[], asyncio.AbstractEventLoop]
each_timeout = pytest.mark.parametrize('timeout', [None, GENEROUS], ids=['without deadline', 'with deadline'])


@pytest.fixture
def new_loop(caplog: pytest.LogCaptureFixture) -> Iterator[NewLoop]:
    """Makes event loops. Tasks that were pending when their loop was closed complain only to the log."""
    caplog.set_level(logging.CRITICAL, logger='asyncio')
    loops: List[asyncio.AbstractEventLoop] = []

    def new_loop() -> asyncio.AbstractEventLoop:
        loops.append(asyncio.new_event_loop())
        return loops[-1]

    yield new_loop
    for loop in loops:
        loop.close()
    gc.collect()


async def use(pool: Pool, endpoint: Any = 'a') -> Any:
    async with pool.connection(endpoint, timeout=GENEROUS) as conn:
        return conn


def new_pool(manager: Manager, **options: Any) -> Pool:
    return ConnectionPool(manager, **options)


def abandon(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], reached: Callable[[], bool]) -> Any:
    """Run a task until it has got somewhere, and close its loop under it."""
    task = loop.create_task(coro)
    loop.run_until_complete(until(reached))
    assert not task.done()
    loop.close()
    return task


def test_a_pool_can_be_used_in_one_asyncio_run_after_the_other() -> None:
    manager = Manager()
    pool = new_pool(manager)
    conns = [asyncio.run(use(pool)) for _ in range(3)]
    assert len(set(conns)) == 3, 'a connection belongs to the loop in which it was created'
    asyncio.run(finish(pool, manager))


def test_what_was_idle_in_the_loop_that_has_ended_is_disposed_of_in_the_next() -> None:
    manager = Manager()
    pool = new_pool(manager, max_size=2, total_max_size=2)

    async def use_two() -> None:
        async with pool.connection('a', timeout=GENEROUS), pool.connection('b', timeout=GENEROUS):
            pass

    asyncio.run(use_two())
    asyncio.run(use_two())
    assert manager.disposed == manager.created[:2]
    asyncio.run(finish(pool, manager))


def test_closing_in_another_run_works() -> None:
    manager = Manager()
    pool = new_pool(manager)
    asyncio.run(use(pool))
    asyncio.run(finish(pool, manager))


def test_a_connection_lent_in_a_loop_that_has_ended_is_not_handed_out_in_the_next() -> None:
    manager = Manager()
    pool = new_pool(manager)
    old = asyncio.run(pool_acquire(pool))

    async def main() -> None:
        other = await pool.acquire('a')
        await pool.release(old, 'a')
        async with pool.connection('a') as conn:
            assert conn is not old and conn is not other
        await pool.release(other, 'a')

    asyncio.run(main())
    asyncio.run(finish(pool, manager))


async def pool_acquire(pool: Pool) -> Any:
    return await pool.acquire('a')


@pytest.mark.parametrize('hooks', [{}, {'on_acquire': always(None)}], ids=['plain', 'hooked'])
def test_a_second_loop_while_the_first_is_open_gets_a_clear_error(new_loop: NewLoop, hooks: Any) -> None:
    manager = Manager(**hooks)
    pool = new_pool(manager)
    first, second = new_loop(), new_loop()
    conn = first.run_until_complete(use(pool))
    for _ in range(20):
        with pytest.raises(RuntimeError, match='event loop'):
            second.run_until_complete(use(pool))
        assert first.run_until_complete(use(pool)) is conn  # and nothing has happened to the first
    assert pool.get_size() == 1
    first.close()
    assert second.run_until_complete(use(pool)) is not conn
    second.run_until_complete(finish(pool, manager))


def test_a_second_loop_in_another_thread_gets_a_clear_error_too() -> None:
    manager = Manager()
    pool = new_pool(manager)

    async def main() -> None:
        async with pool.connection('a') as conn:
            pass
        with ThreadPoolExecutor(1) as executor:
            error = executor.submit(lambda: asyncio.run(use(pool))).exception()
            assert isinstance(error, RuntimeError) and 'event loop' in str(error)
        assert await use(pool) is conn
        await finish(pool, manager)

    asyncio.run(main())


def test_without_a_running_loop_there_is_a_clear_error() -> None:
    manager = Manager()
    pool = new_pool(manager)
    asyncio.run(use(pool))
    for _ in range(2):
        with pytest.raises(RuntimeError, match='no running event loop'):
            pool.acquire('a').send(None)
    asyncio.run(finish(pool, manager))


def test_a_release_hands_over_past_waiters_whose_loop_is_closed(new_loop: NewLoop) -> None:
    """Hazards 11 and 40: it never raises, and whoever is alive is served."""
    manager = Manager()
    pool = new_pool(manager, max_size=1)
    loop = new_loop()
    conn = loop.run_until_complete(pool_acquire(pool))
    waiters = [loop.create_task(pool.acquire('a', timeout)) for timeout in (None, GENEROUS, None)]
    loop.run_until_complete(until(lambda: pool._core.waiting('a') == 3))
    loop.close()

    async def main() -> None:
        alive = await queue_up(pool, 'a')
        assert pool._core.waiting('a') == 4
        await pool.release(conn, 'a')
        await pool.release(await alive, 'a')
        assert pool._core.waiting('a') == 0

    asyncio.run(main())
    assert not any(waiter.done() for waiter in waiters)
    asyncio.run(finish(pool, manager))


def test_thousands_of_dead_waiters_are_passed_over_without_a_recursion_error(new_loop: NewLoop) -> None:
    manager = Manager()
    pool = new_pool(manager, max_size=1)
    loop = new_loop()
    conn = loop.run_until_complete(pool_acquire(pool))
    waiters = [loop.create_task(pool.acquire('a')) for _ in range(3000)]
    loop.run_until_complete(until(lambda: pool._core.waiting('a') == 3000))
    loop.close()

    async def main() -> None:
        await pool.release(conn, 'a')
        assert pool._core.waiting('a') == 0
        assert await pool.get_endpoint_pool_size('a', acquired=True) == 0

    asyncio.run(main())
    assert len(waiters) == 3000
    asyncio.run(finish(pool, manager))


def test_a_dead_waiter_that_is_granted_a_slot_passes_it_on(new_loop: NewLoop) -> None:
    """Its slot, and not only its connection."""
    manager = Manager()
    pool = new_pool(manager, max_size=1, max_lifetime=0.0)
    loop = new_loop()
    conn = loop.run_until_complete(pool_acquire(pool))
    dead = abandon(loop, pool.acquire('a'), lambda: pool._core.waiting('a') == 1)

    async def main() -> None:
        alive = await queue_up(pool, 'a')
        await pool.release(conn, 'a')  # its lifetime is over: the waiters get its slot
        await pool.release(await alive, 'a')

    asyncio.run(main())
    assert not dead.done()
    asyncio.run(finish(pool, manager))


def test_a_dead_waiter_that_is_told_to_evict_does_not_keep_the_victim(new_loop: NewLoop) -> None:
    manager = Manager()
    pool = new_pool(manager, total_max_size=1)
    loop = new_loop()
    conn = loop.run_until_complete(pool_acquire(pool))
    dead = abandon(loop, pool.acquire('b'), lambda: pool._core.waiting('b') == 1)

    async def main() -> None:
        await pool.release(conn, 'a')
        await until(lambda: pool.get_size() == 0)
        await use(pool, 'c')

    asyncio.run(main())
    assert not dead.done() and manager.disposed[0] is conn
    asyncio.run(finish(pool, manager))


def test_a_release_without_any_loop_passes_over_dead_waiters_too(new_loop: NewLoop) -> None:
    """The coroutine is closed where no loop runs."""
    manager = Manager()
    pool = new_pool(manager, max_size=1)
    loop = new_loop()

    async def hold() -> None:
        async with pool.connection('a'):
            await asyncio.Event().wait()

    holder = loop.create_task(hold())
    loop.run_until_complete(until(lambda: len(manager.created) == 1))
    dead = abandon(loop, pool.acquire('a'), lambda: pool._core.waiting('a') == 1)
    holder.get_coro().close()
    assert pool._core.waiting('a') == 0 and not dead.done()
    asyncio.run(use(pool))
    asyncio.run(finish(pool, manager))


def test_close_does_not_mind_dead_waiters(new_loop: NewLoop) -> None:
    manager = Manager()
    pool = new_pool(manager, max_size=1)
    loop = new_loop()
    conn = loop.run_until_complete(pool_acquire(pool))
    dead = abandon(loop, pool.acquire('a'), lambda: pool._core.waiting('a') == 1)

    async def main() -> None:
        await pool.close(timeout=0.01)
        assert manager.disposed == [conn]

    asyncio.run(main())
    assert not dead.done()
    asyncio.run(finish(pool, manager))


@each_timeout
@pytest.mark.parametrize('hook', ['create', 'check_aliveness', 'on_acquire', 'on_connection_dead'])
def test_a_task_whose_loop_is_closed_in_a_hook_of_acquire_gives_everything_back(
    new_loop: NewLoop, hook: str, timeout: Any
) -> None:
    """Hazard 11: as soon as it is garbage."""
    gate = Gate()
    manager = Manager(**{'check_aliveness': always(hook != 'on_connection_dead'), hook: always(None)})
    pool = new_pool(manager, max_size=1)
    loop = new_loop()
    if hook != 'create':
        loop.run_until_complete(use(pool))
    manager.behaviours[hook] = gate
    dead = abandon(loop, pool.acquire('a', timeout), lambda: gate.entered == 1)
    del dead
    gate.forget()
    gc.collect()
    pool._core.check_invariants()
    assert pool.get_size() == 0 and manager.disposed == manager.created
    manager.behaviours[hook] = always(None if hook == 'create' else True)
    asyncio.run(use(pool))
    asyncio.run(finish(pool, manager))


def test_a_task_whose_loop_is_closed_in_on_release_gives_everything_back(new_loop: NewLoop) -> None:
    """Hazard 11."""
    gate = Gate()
    manager = Manager(on_release=gate)
    pool = new_pool(manager, max_size=1)
    loop = new_loop()
    conn = loop.run_until_complete(pool_acquire(pool))
    dead = abandon(loop, pool.release(conn, 'a'), lambda: gate.entered == 1)
    del dead
    gate.forget()
    gc.collect()
    assert pool.get_size() == 0 and manager.disposed == [conn]
    gate.open()
    asyncio.run(use(pool))
    asyncio.run(finish(pool, manager))


@pytest.mark.parametrize('make_gate', [Gate, StubbornGate])
def test_a_disposal_whose_loop_is_closed_frees_its_slot_in_the_next(new_loop: NewLoop, make_gate: Any) -> None:
    """Hazards 11 and 29: it was begun once, and is not begun again."""
    gate = make_gate()
    manager = Manager(dispose=gate)
    pool = new_pool(manager, max_size=1, min_idle=0, idle_timeout=0.0)
    loop = new_loop()
    abandon(loop, use(pool), lambda: gate.entered == 1)
    manager.behaviours['dispose'] = always(None)
    asyncio.run(use(pool))
    assert manager.disposed == manager.created and gate.entered == 1
    asyncio.run(finish(pool, manager))


def test_a_disposal_that_had_not_begun_when_its_loop_was_closed_is_begun_in_the_next(new_loop: NewLoop) -> None:
    """Every connection is disposed of exactly once."""
    manager = Manager()
    pool = new_pool(manager, max_size=1, total_max_size=1)
    loop = new_loop()
    loop.run_until_complete(use(pool))

    def evict() -> None:
        coro = pool.acquire('b')
        coro.send(None)  # the task of the disposal is there, and the loop does not turn any more
        coro.close()
        loop.stop()

    loop.call_soon(evict)
    loop.run_forever()
    assert manager.disposed == []
    loop.close()
    asyncio.run(use(pool))
    assert manager.disposed[0] is manager.created[0]
    asyncio.run(finish(pool, manager))


def test_tasks_cancelled_before_they_began_do_not_lose_a_disposal() -> None:
    """As asyncio.run does at its end with whatever is left."""
    manager = Manager()
    pool = new_pool(manager, max_size=1)

    async def cancel_everything() -> None:
        await use(pool)
        pool._dispose_all_idle()
        for task in asyncio.all_tasks():
            if task is not asyncio.current_task():
                task.cancel()
        assert manager.disposed == []
        await until(lambda: manager.disposed == manager.created)

    asyncio.run(cancel_everything())
    asyncio.run(finish(pool, manager))


def test_a_release_in_another_thread_wakes_the_waiter_in_its_loop() -> None:
    """Hazard 12: from whatever thread a wake-up comes."""
    manager = Manager()
    pool = new_pool(manager, max_size=1)

    async def main() -> None:
        conn = await pool.acquire('a')
        waiter = await queue_up(pool, 'a')
        release = pool.release(conn, 'a')
        thread = threading.Thread(target=lambda: pytest.raises(StopIteration, release.send, None))
        thread.start()
        assert await waiter is conn
        thread.join()
        await pool.release(conn, 'a')
        await finish(pool, manager)

    asyncio.run(main())


@pytest.mark.parametrize('with_loop', [False, True], ids=['without a loop', 'with a loop of its own'])
def test_a_block_that_ends_in_another_thread_has_its_connection_disposed_of_in_the_loop_it_belongs_to(
    with_loop: bool,
) -> None:
    """A coroutine is closed by whatever thread collects garbage."""
    threads: List[int] = []

    async def dispose(endpoint: Any, conn: Any) -> None:
        await passes(2)
        threads.append(threading.get_ident())

    manager = Manager(dispose=dispose)
    pool = new_pool(manager, min_idle=0, idle_timeout=0.0)

    async def hold() -> None:
        async with pool.connection('a'):
            await asyncio.get_running_loop().create_future()

    async def main() -> None:
        coro = hold()
        coro.send(None)

        async def close() -> None:
            coro.close()

        thread = threading.Thread(target=lambda: asyncio.run(close()) if with_loop else coro.close())
        thread.start()
        await until(lambda: pool.get_size() == 0)
        thread.join()
        assert threads == [threading.get_ident()]
        await finish(pool, manager)

    asyncio.run(main())


def test_a_timeout_in_the_second_run_is_an_ordinary_one() -> None:
    manager = Manager()
    pool = new_pool(manager, max_size=1)

    async def main() -> None:
        async with pool.connection('a'):
            with pytest.raises(ConnectionPoolTimeoutError):
                await pool.acquire('a', timeout=0.01)

    asyncio.run(main())
    asyncio.run(main())
    asyncio.run(finish(pool, manager))
