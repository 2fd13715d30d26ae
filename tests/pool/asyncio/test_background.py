"""What becomes of tasks and coroutines whose event loop ends before they do."""

import asyncio
import logging
from typing import Any, List

import pytest
from support.tasks import GENEROUS, Gate, Manager, StubbornGate, outcome, until

from generic_connection_pool import ConnectionPoolTimeoutError
from generic_connection_pool.asyncio import ConnectionPool
from generic_connection_pool.asyncio.background import Background, close_coroutine, run_to_suspension


def test_a_task_whose_loop_was_closed_is_ended_once() -> None:
    ended: List[Any] = []

    async def wait_for_ever() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append('coroutine')

    async def begin() -> 'asyncio.Task[None]':
        task = asyncio.ensure_future(wait_for_ever())
        background.add(task, ended.append)
        await asyncio.sleep(0)
        return task

    background = Background()
    loop = asyncio.new_event_loop()
    task = loop.run_until_complete(begin())
    assert len(background) == 1
    loop.close()
    background.bury()
    background._end(task)  # what its callback would do
    assert ended == ['coroutine', task] and len(background) == 0
    task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_a_task_without_a_coroutine_has_nothing_to_be_closed() -> None:
    """From Python 3.12 on: one that was eager, and has ended."""

    class Ended:
        def get_coro(self) -> None:
            return None

    close_coroutine(Ended())  # type: ignore[arg-type]


def test_where_no_loop_runs_a_disposal_runs_as_far_as_it_gets(caplog: pytest.LogCaptureFixture) -> None:
    got: List[str] = []

    async def waits() -> None:
        got.append('begun')
        try:
            await Gate()()
        finally:
            got.append('closed')

    async def waits_though_closed() -> None:
        try:
            await waits()
        finally:
            await waits()

    loop = asyncio.new_event_loop()

    async def drive(disposal: Any) -> None:
        run_to_suspension(disposal)

    try:
        with caplog.at_level(logging.ERROR):
            loop.run_until_complete(drive(waits()))
            assert got == ['begun', 'closed'] and not caplog.records
            loop.run_until_complete(drive(waits_though_closed()))
            assert len(caplog.records) == 1 and 'disposing of a connection' in caplog.text
    finally:
        loop.close()


async def test_what_a_forked_child_has_revoked_is_neither_adopted_nor_passed_on() -> None:
    """Hazard 38; what is done in the child, is done here."""
    gates = [StubbornGate(), StubbornGate()]
    manager = Manager()

    async def create(endpoint: str) -> None:
        await gates['ab'.index(endpoint)]()

    manager.behaviours['create'] = create
    pool: Any = ConnectionPool(manager)
    with pytest.raises(ConnectionPoolTimeoutError):
        await pool.acquire('a', timeout=0.01)
    acquiring = asyncio.ensure_future(pool.acquire('b', timeout=GENEROUS))
    await gates[1].reached()
    assert pool.get_size() == 2
    pool._start_over()
    assert pool.get_size() == 0
    acquiring.cancel()
    for gate in gates:
        gate.open()
    assert isinstance(await outcome(acquiring), asyncio.CancelledError)
    await until(lambda: len(manager.created) == 2 and not len(pool._background))
    assert manager.disposed == [] and pool.get_size() == 0
    await pool.close()


async def test_a_connection_that_a_forked_child_has_left_to_its_parent_is_not_disposed_of_by_the_child() -> None:
    """Hazard 38; what is done in the child, is done here."""
    gate = Gate(False)
    manager = Manager(is_reusable=lambda *args: gate())
    pool: Any = ConnectionPool(manager)

    async def fail() -> None:
        async with pool.connection('a'):
            raise LookupError

    failing = asyncio.ensure_future(fail())
    await gate.reached()
    assert pool._start_over() == [('a', manager.created[0])]
    gate.open()
    assert isinstance(await outcome(failing), LookupError)
    assert manager.disposed == [] and pool.get_size() == 0
    await pool.close()
