"""Deadlines: of the wait for a connection, and of the hooks that an acquire runs."""

import asyncio
import threading
import time
from typing import Any, List, Set

import pytest
from support.tasks import (
    GENEROUS,
    Gate,
    Manager,
    OpenPool,
    Pool,
    StubbornGate,
    always,
    outcome,
    passes,
    queue_up,
    run_step,
    time_passes,
    until,
)

from generic_connection_pool import BaseError, ConnectionPoolTimeoutError, core_implementation
from generic_connection_pool._core import holder_of

SHORT = 0.02


async def test_an_acquire_that_times_out_raises_the_errors_that_anyone_might_expect(open_pool: OpenPool) -> None:
    pool = open_pool(max_size=1)
    async with pool.connection('a'):
        for error in (ConnectionPoolTimeoutError, BaseError, TimeoutError, asyncio.TimeoutError):
            with pytest.raises(error):
                await pool.acquire('a', timeout=SHORT)
            with pytest.raises(error):
                async with pool.connection('a', timeout=0):
                    raise AssertionError('entered')


async def test_the_message_tells_the_endpoint_the_wait_and_the_state_of_the_pool(open_pool: OpenPool) -> None:
    """Hazard 18: so that who waits for himself finds out."""
    pool = open_pool(max_size=2, total_max_size=7)
    async with pool.connection('db-7'), pool.connection('db-7'), pool.connection('other'):
        waiter = await queue_up(pool, 'db-7')
        with pytest.raises(ConnectionPoolTimeoutError) as caught:
            await pool.acquire('db-7', timeout=SHORT)
        message = str(caught.value)
        for part in ("'db-7'", '0.0', '2 acquired', '0 idle', 'at most 2', '1 others waiting', '3 of at most 7'):
            assert part in message
        waiter.cancel()


async def test_the_message_names_the_tasks_that_hold_connections(open_pool: OpenPool) -> None:
    """Hazard 18. They came by them in all the ways there are: it was idle, or newly opened, or waited for."""
    pool = open_pool(max_size=3)
    leave = asyncio.Event()

    async def hold() -> None:
        async with pool.connection('db-7'):
            await leave.wait()

    async with pool.connection('db-7'), pool.connection('db-7'):
        pass
    async with pool.connection('db-7'):
        tasks = [asyncio.create_task(hold(), name=f'holder {number}') for number in range(3)]
        # whose contexts a task knows, too
        those_who_wait_for_them = asyncio.gather(*(asyncio.create_task(asyncio.wait([task])) for task in tasks))
        await until(lambda: pool._core.waiting('db-7') == 1)
    await until(lambda: pool._core.waiting('db-7') == 0)
    for _ in range(2):  # the second time, they are known
        with pytest.raises(ConnectionPoolTimeoutError) as caught:
            await pool.acquire('db-7', timeout=0)
        holders = str(caught.value).partition('; acquired by ')[2].split(', ')
        assert sorted(holders) == ['holder 0', 'holder 1', 'holder 2']
    leave.set()
    await those_who_wait_for_them


async def test_a_task_that_waits_for_itself_is_told_so(open_pool: OpenPool) -> None:
    """Hazard 18."""
    pool = open_pool(max_size=2)
    async with pool.connection('a'), pool.connection('a'):
        with pytest.raises(ConnectionPoolTimeoutError, match='2 by this very task'):
            await pool.acquire('a', timeout=SHORT)


async def test_a_holder_that_is_no_task_any_more_is_not_taken_for_another(open_pool: OpenPool) -> None:
    pool = open_pool(max_size=1)
    lender = asyncio.create_task(pool.acquire('a'))
    conn = await lender  # it keeps its context, so that nobody else is known by the same number
    for _ in range(2):
        with pytest.raises(ConnectionPoolTimeoutError) as caught:
            await pool.acquire('a', timeout=0)
        assert str(caught.value).endswith('; acquired by an unknown task')
    await pool.release(conn, 'a')


async def test_what_is_no_task_is_neither_named_nor_taken_for_the_caller(open_pool: OpenPool) -> None:
    pool = open_pool(max_size=1)
    async with pool.connection('a'):
        pass
    done: 'asyncio.Future[Any]' = asyncio.get_running_loop().create_future()

    def acquire_by_hand() -> None:
        try:
            pool.acquire('a', timeout=0).send(None)
        except StopIteration as stop:  # it was idle
            conn = stop.value
            asyncio.get_running_loop().call_soon(acquire_by_hand)
            held.append(conn)
        except ConnectionPoolTimeoutError as exc:
            done.set_result(str(exc))

    held: List[Any] = []
    asyncio.get_running_loop().call_soon(acquire_by_hand)
    text = await asyncio.wait_for(done, GENEROUS)
    assert text.endswith('; acquired by an unknown task')
    await pool.release(held[0], 'a')


@pytest.mark.skipif(core_implementation == 'python', reason='any object will do')
async def test_what_runs_in_no_context_holds_nothing() -> None:
    assert holder_of(asyncio.get_running_loop().create_future()) == 0  # type: ignore[arg-type]


async def test_thousands_of_timeouts_do_not_each_look_through_all_tasks(
    open_pool: OpenPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hazard 17. Whether a holder is a task or was one."""
    looked = 0
    find_tasks = asyncio.all_tasks

    def all_tasks() -> Set['asyncio.Task[Any]']:
        nonlocal looked
        looked += 1
        return find_tasks()

    pool = open_pool(max_size=12)
    lender = asyncio.create_task(pool.acquire('a'))
    conns = [await lender, *[await pool.acquire('a') for _ in range(11)]]
    monkeypatch.setattr('asyncio.all_tasks', all_tasks)
    with pytest.raises(ConnectionPoolTimeoutError, match=r' and 2 more \(11 by this very task'):
        await pool.acquire('a', timeout=0)
    assert looked == 1
    answers = await asyncio.gather(*(pool.acquire('a', timeout=0) for _ in range(1000)), return_exceptions=True)
    assert all(isinstance(answer, ConnectionPoolTimeoutError) for answer in answers)
    assert looked == 1
    for conn in conns:
        await pool.release(conn, 'a')


async def test_it_waits_as_long_as_it_was_told_to_and_hardly_longer(open_pool: OpenPool) -> None:
    pool = open_pool(max_size=1)
    async with pool.connection('a'):
        started = time.monotonic()
        with pytest.raises(ConnectionPoolTimeoutError):
            await pool.acquire('a', timeout=0.1)
        assert 0.1 <= time.monotonic() - started < GENEROUS / 2


async def test_acquire_timeout_is_the_default_and_a_timeout_of_the_call_goes_before_it(open_pool: OpenPool) -> None:
    pool = open_pool(max_size=1, acquire_timeout=SHORT)
    async with pool.connection('a') as conn:
        with pytest.raises(ConnectionPoolTimeoutError):
            await pool.acquire('a')
        waiter = await queue_up(pool, 'a', timeout=GENEROUS)
        await time_passes(2 * SHORT)
        assert not waiter.done()
    assert await waiter is conn
    await pool.release(conn, 'a')


async def test_by_default_there_is_no_timeout(open_pool: OpenPool) -> None:
    pool = open_pool(max_size=1)
    async with pool.connection('a') as conn:
        waiter = await queue_up(pool, 'a')
        await time_passes(SHORT)
    assert await waiter is conn
    await pool.release(conn, 'a')


@pytest.mark.parametrize('hooks', [{}, {'check_aliveness': always(True), 'on_acquire': always(None)}], ids=len)
@pytest.mark.parametrize('timeout', [0, 0.0, -1])
async def test_a_timeout_of_0_takes_an_idle_connection(open_pool: OpenPool, hooks: Any, timeout: float) -> None:
    """Hazard 21."""
    pool = open_pool(Manager(**hooks))
    conn = await pool.acquire('a')
    await pool.release(conn, 'a')
    assert await pool.acquire('a', timeout) is conn
    await pool.release(conn, 'a')
    async with pool.connection('a', timeout) as again:
        assert again is conn


async def test_a_timeout_of_0_does_not_wait_when_there_is_none(open_pool: OpenPool) -> None:
    """It does not even suspend."""
    pool = open_pool(max_size=1)

    async def attempt() -> BaseException:
        with pytest.raises(ConnectionPoolTimeoutError) as caught:
            await pool.acquire('a', timeout=0)
        return caught.value

    async with pool.connection('a'):
        assert 'acquired' in str(run_step(attempt()))
    assert pool._core.waiting('a') == 0


async def test_a_timeout_of_0_creates_a_connection_if_that_takes_no_time(open_pool: OpenPool) -> None:
    pool = open_pool(Manager())
    await pool.release(await pool.acquire('a', timeout=0), 'a')


async def test_a_timeout_of_0_does_not_wait_for_a_create_that_takes_time(open_pool: OpenPool) -> None:
    gate = Gate()
    pool = open_pool(Manager(create=gate))
    with pytest.raises(ConnectionPoolTimeoutError):
        await pool.acquire('a', timeout=0)
    assert gate.entered == gate.cancelled == 1
    await until(lambda: pool.get_size() == 0)


@pytest.mark.parametrize('hook', ['create', 'check_aliveness', 'on_acquire', 'on_connection_dead'])
async def test_the_pool_bounds_the_hooks_of_an_acquire_itself(open_pool: OpenPool, hook: str) -> None:
    """Hazard 2: after that, the connection's state is unknown, so it is disposed of."""
    gate = Gate()
    behaviours = {'check_aliveness': always(hook != 'on_connection_dead')}
    manager = Manager(**{**behaviours, hook: always(None)})
    pool = open_pool(manager, max_size=1)
    if hook != 'create':
        await pool.release(await pool.acquire('a'), 'a')
    manager.behaviours[hook] = gate
    task = asyncio.ensure_future(pool.acquire('a', timeout=SHORT))
    await gate.reached()
    waiter = await queue_up(pool, 'a')
    assert isinstance(await outcome(task), ConnectionPoolTimeoutError)
    assert gate.cancelled == 1
    gate.open()
    manager.behaviours[hook] = always(None if hook == 'create' else True)
    conn = await waiter
    assert manager.disposed == [other for other in manager.created if other is not conn]
    await pool.release(conn, 'a')


async def test_a_hook_that_makes_an_error_of_its_cancellation_has_timed_out_all_the_same(open_pool: OpenPool) -> None:
    gate = Gate()

    async def check(endpoint: Any, conn: Any) -> bool:
        try:
            await gate()
        except asyncio.CancelledError:
            raise ValueError('interrupted') from None
        return True

    manager = Manager(check_aliveness=check)
    pool = open_pool(manager)
    conn = await pool.acquire('a')
    await pool.release(conn, 'a')
    with pytest.raises(ConnectionPoolTimeoutError):
        await pool.acquire('a', timeout=SHORT)
    await until(lambda: manager.disposed == [conn])


async def test_the_pool_bounds_dispose_by_dispose_timeout(
    open_pool: OpenPool, caplog: pytest.LogCaptureFixture
) -> None:
    """Hazard 42."""
    gate = Gate()
    manager = Manager(dispose=gate)
    pool = open_pool(manager, min_idle=0, idle_timeout=0.0, dispose_timeout=SHORT)
    await pool.release(await pool.acquire('a'), 'a')
    assert gate.cancelled == 1 and pool.get_size() == 0
    assert "disposing of a connection to 'a' failed" in caplog.text


async def test_a_dispose_within_its_time_is_left_alone(open_pool: OpenPool, caplog: pytest.LogCaptureFixture) -> None:
    async def dispose(endpoint: Any, conn: Any) -> None:
        await passes(3)

    pool = open_pool(Manager(dispose=dispose), min_idle=0, idle_timeout=0.0, dispose_timeout=GENEROUS)
    async with pool.connection('a'):
        pass
    assert pool.get_size() == 0 and caplog.text == ''


async def attempt_with_stubborn_create(pool: Pool, gate: StubbornGate) -> 'asyncio.Task[Any]':
    """Time out in a create that ignores that, and have somebody wait for its slot."""
    started = time.monotonic()
    with pytest.raises(ConnectionPoolTimeoutError):
        await pool.acquire('a', timeout=SHORT)
    assert time.monotonic() - started < GENEROUS / 2
    assert gate.cancelled == 1 and pool.get_size() == 1
    return await queue_up(pool, 'a')


async def test_a_create_that_ignores_its_cancellation_does_not_delay_the_caller(open_pool: OpenPool) -> None:
    """Hazard 42. Its slot is taken until it ends, and its late connection is disposed of."""
    gate = StubbornGate()
    manager = Manager(create=gate)
    pool = open_pool(manager, max_size=1)
    waiter = await attempt_with_stubborn_create(pool, gate)
    gate.open()
    conn = await waiter
    assert manager.disposed == manager.created[:1] and conn is manager.created[1]
    await pool.release(conn, 'a')


async def test_a_create_that_ignores_its_cancellation_and_fails_later_frees_its_slot(open_pool: OpenPool) -> None:
    gate = StubbornGate()

    async def create(endpoint: Any) -> None:
        if manager.names().count('create') == 1:
            await gate()
            raise OSError('refused after all')

    manager = Manager(create=create)
    pool = open_pool(manager, max_size=1)
    waiter = await attempt_with_stubborn_create(pool, gate)
    gate.open()
    await pool.release(await waiter, 'a')
    assert len(manager.created) == 1


async def test_a_check_that_ignores_its_cancellation_loses_nothing(open_pool: OpenPool) -> None:
    gate = StubbornGate(True)
    manager = Manager(check_aliveness=gate)
    pool = open_pool(manager, max_size=1)
    await pool.release(await pool.acquire('a'), 'a')
    task = asyncio.ensure_future(pool.acquire('a', timeout=SHORT))
    await until(lambda: gate.cancelled == 1)
    gate.open()
    answer = await outcome(task)
    if not isinstance(answer, ConnectionPoolTimeoutError):  # it was in time for a check that takes no time
        await pool.release(answer, 'a')
    await pool.release(await pool.acquire('a', timeout=GENEROUS), 'a')


async def race(pool: Pool, conn: Any, release_first: bool) -> 'asyncio.Task[Any]':
    """Have a waiter's timer and the release that serves it happen in the same pass of the event loop."""
    loop = asyncio.get_running_loop()
    waiter = await queue_up(pool, 'a', timeout=SHORT)

    def release() -> None:
        assert not waiter.done() and pool._core.waiting('a') == 1
        run_step(pool.release(conn, 'a'))

    loop.call_later(SHORT * (0.5 if release_first else 1.5), release)
    due = time.monotonic() + 2 * SHORT
    while time.monotonic() < due:  # the loop is held up, so that it finds both timers due at once
        pass
    return waiter


@pytest.mark.parametrize('release_first', [True, False], ids=['release first', 'timer first'])
async def test_a_timeout_that_fires_when_the_connection_is_there_already_is_no_timeout(
    open_pool: OpenPool, release_first: bool
) -> None:
    """Hazard 4."""
    pool = open_pool(max_size=1)
    conn = await pool.acquire('a')
    assert await (await race(pool, conn, release_first)) is conn
    await pool.release(conn, 'a')


async def test_a_connection_that_another_thread_hands_over_after_the_timer_has_fired_is_delivered(
    open_pool: OpenPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hazard 4. The task has been told that its time is over; that it was served comes to its loop too late."""
    loop = asyncio.get_running_loop()
    pool = open_pool(max_size=1)
    conn = await pool.acquire('a')
    waiter = await queue_up(pool, 'a', GENEROUS)
    done: List[bool] = []

    def give_back_elsewhere() -> None:
        thread = threading.Thread(target=lambda: run_step(pool.release(conn, 'a')))
        thread.start()
        thread.join()
        done.append(waiter.done())

    # both timers are due in one pass of the loop, that of the waiter first; its task runs after both of them
    loop.call_later(2 * GENEROUS, give_back_elsewhere)
    now = loop.time()
    with monkeypatch.context() as clock:
        clock.setattr(loop, 'time', lambda: now + 3 * GENEROUS)
        assert await waiter is conn
    assert done == [False]
    await pool.release(conn, 'a')


async def test_the_deadline_is_one_for_the_whole_acquire(open_pool: OpenPool) -> None:
    """What was spent waiting is not there for the hooks: here, nothing is left."""
    gate = Gate()
    manager = Manager(on_acquire=always(None))
    pool = open_pool(manager, max_size=1)
    conn = await pool.acquire('a')
    manager.behaviours['on_acquire'] = gate
    waiter = await race(pool, conn, release_first=True)
    await passes()
    assert gate.cancelled == 1 and waiter.done()
    assert isinstance(await outcome(waiter), ConnectionPoolTimeoutError)
    manager.behaviours['on_acquire'] = always(None)


async def test_a_waiter_that_times_out_leaves_the_next_release_to_the_others(open_pool: OpenPool) -> None:
    """Hazard 6."""
    pool = open_pool(max_size=1)
    conn = await pool.acquire('a')
    hasty = await queue_up(pool, 'a', timeout=SHORT)
    patient = await queue_up(pool, 'a')
    assert isinstance(await outcome(hasty), ConnectionPoolTimeoutError)
    assert pool._core.waiting('a') == 1
    await pool.release(conn, 'a')
    assert await patient is conn
    await pool.release(conn, 'a')


async def test_thousands_of_waiters_that_time_out_do_not_stall_the_pool(open_pool: OpenPool) -> None:
    """Hazard 17."""
    pool = open_pool(max_size=1)
    conn = await pool.acquire('a')
    tasks: List['asyncio.Task[Any]'] = [asyncio.ensure_future(pool.acquire('a', SHORT)) for _ in range(2000)]
    await until(lambda: pool._core.waiting('a') > 1)
    started = time.process_time()
    for task in tasks:
        assert isinstance(await outcome(task), ConnectionPoolTimeoutError)
    assert time.process_time() - started < GENEROUS / 4
    assert pool._core.waiting('a') == 0
    await pool.release(conn, 'a')


async def test_what_is_no_timeout_is_refused_even_if_nobody_has_to_wait(open_pool: OpenPool) -> None:
    pool = open_pool(Manager())
    for timeout in (None, 5):
        async with pool.connection('a', timeout) as conn:
            pass
        assert await pool.acquire('a', timeout) is conn
        await pool.release(conn, 'a')
    with pytest.raises(ValueError, match='timeout'):
        await pool.acquire('a', float('nan'))
    with pytest.raises(ValueError, match='timeout'):
        async with pool.connection('a', float('nan')):
            pass
    assert await pool.get_endpoint_pool_size('a', acquired=False) == 1
