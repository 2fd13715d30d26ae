"""A disposal that ends as if it had been cancelled or closed, where no event loop runs it: nobody else is cancelled."""

import asyncio
import gc
import logging
from typing import Any, List, Type

import pytest
from support.tasks import GENEROUS, Gate, Manager, Pool, failing, finish, other_tasks, outcome, passes, until

from generic_connection_pool.asyncio import ConnectionPool

each_end = pytest.mark.parametrize('error', [asyncio.CancelledError, GeneratorExit])


def leave_behind(*coros: Any) -> List[Any]:
    """Run some coroutines until they wait for something, and close their event loop under them."""
    loop = asyncio.new_event_loop()
    tasks = [loop.create_task(coro) for coro in coros]
    futures: List[Any] = []
    loop.run_until_complete(until(lambda: futures.append(1) or len(futures) > 10))
    assert not any(task.done() for task in tasks)
    loop.close()
    return tasks


@each_end
def test_a_coroutine_that_is_closed_is_told_nothing_else(
    error: Type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, logger='asyncio')
    manager = Manager(dispose=failing(error()))
    pool: Pool = ConnectionPool(manager, max_lifetime=0.0)
    got: List[BaseException] = []

    async def use() -> None:
        try:
            async with pool.connection('a'):
                await asyncio.get_running_loop().create_future()
        except BaseException as exc:
            got.append(exc)
            raise

    tasks = leave_behind(use())
    tasks[0].get_coro().close()
    assert [type(exc) for exc in got] == [GeneratorExit]
    assert manager.disposed == manager.created and pool.get_size() == 0
    del tasks
    gc.collect()
    asyncio.run(finish(pool, manager))


@each_end
def test_what_a_hook_makes_of_being_closed_neither_loses_its_slot_nor_ends_who_closes_it(
    error: Type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, logger='asyncio')
    gate = Gate()

    async def dispose(endpoint: Any, conn: Any) -> None:
        if len(manager.disposed) == 1:
            try:
                await gate()
            finally:
                raise error

    manager = Manager(dispose=dispose)
    pool: Pool = ConnectionPool(manager, max_size=1, max_lifetime=0.0)

    async def use() -> None:
        async with pool.connection('a'):
            pass

    tasks = leave_behind(use())
    gate.forget()
    asyncio.run(use())
    assert len(manager.created) == 2 and pool.get_size() == 0
    del tasks
    gc.collect()
    asyncio.run(finish(pool, manager))


@pytest.mark.parametrize('after', range(1, 8))
async def test_a_disposal_whose_task_is_cancelled_at_any_time_has_called_dispose_or_is_made_up_for(after: int) -> None:
    """As ``asyncio.run`` does at its end. On Python 3.10 there are two tasks, and the inner one may not have begun."""
    manager = Manager()
    pool: Pool = ConnectionPool(manager, max_lifetime=0.0, dispose_timeout=GENEROUS)
    release = asyncio.ensure_future(pool.release(await pool.acquire('a'), 'a'))
    await passes(after)
    for task in other_tasks():
        task.cancel()
    await outcome(release)
    await finish(pool, manager)
