"""Sockets and streams in faults: a question may fail, but no answer is ever somebody else's."""

import asyncio
import threading
from typing import Any, Tuple

import pytest
from chaos import turns
from chaos.ledger import Ledger
from chaos.network import PATIENCE
from chaos.proxy import SILENT, Fault, Proxy
from chaos.questions import QuestionServer
from chaos.tasks import SocketTasks, StreamTasks
from chaos.tasks import run_user as run_task
from chaos.threads import SocketThreads, TlsThreads
from chaos.threads import run_user as run_thread
from support.certificates import Certificates
from support.servers import eventually, eventually_async

from generic_connection_pool import asyncio as asyncio_pools
from generic_connection_pool import threading as threading_pools

FAULTS = [Fault.CUT, Fault.RESET, Fault.DROP]

#: server, the proxy before it, and what asks through the proxy
Setting = Tuple[QuestionServer, Proxy, Any]


@pytest.fixture(params=['tcp', 'tls'])
def threads(request: pytest.FixtureRequest, open_server: Any, certificates: Certificates) -> Setting:
    if request.param == 'tcp':
        server, proxy = open_server()
        return server, proxy, SocketThreads(proxy.port)
    server, proxy = open_server(certificates.server())
    return server, proxy, TlsThreads(proxy.port, certificates.client())


@pytest.fixture(params=['tcp', 'stream', 'tls stream'])
def tasks(request: pytest.FixtureRequest, open_server: Any, certificates: Certificates) -> Setting:
    if request.param == 'tls stream':
        server, proxy = open_server(certificates.server())
        return server, proxy, StreamTasks(proxy.port, certificates.client())
    server, proxy = open_server()
    return server, proxy, (SocketTasks if request.param == 'tcp' else StreamTasks)(proxy.port)


def reuse_always(kind: Any) -> None:
    """Plant a defect: a manager that takes every conversation for finished."""
    kind.manager.is_reusable = lambda endpoint, conn, exc: True


def next_answer(pool: Any, kind: Any, server: QuestionServer) -> bytes:
    """What the second user is answered when the first one has given up in the middle of a question."""
    with pytest.raises(TimeoutError), pool.connection(kind.endpoint) as sock:
        sock.settimeout(0.02)
        sock.sendall(b'first hold\n')
        eventually(lambda: server.held == 1)
        kind.receive_line(sock)
    with pool.connection(kind.endpoint) as sock:
        sock.settimeout(PATIENCE)
        sock.sendall(b'second 0\n')
        server.let_go()
        answer: bytes = kind.receive_line(sock)
        return answer


async def next_answer_async(pool: Any, kind: Any, server: QuestionServer, how: str) -> bytes:
    """The same, where the first user runs into a timeout or is cancelled."""

    async def ask() -> None:
        async with pool.connection(kind.endpoint) as conn:
            await kind.send(conn, b'first hold\n')
            await asyncio.wait_for(kind.receive_line(conn), None if how == 'cancelled' else 0.02)

    first = asyncio.ensure_future(ask())
    await eventually_async(lambda: server.held == 1)
    if how == 'cancelled':
        first.cancel()
    with pytest.raises((asyncio.CancelledError, asyncio.TimeoutError)):
        await first
    async with pool.connection(kind.endpoint) as conn:
        await kind.send(conn, b'second 0\n')
        server.let_go()
        answer: bytes = await kind.receive_line(conn)
        return answer


@pytest.mark.parametrize('fault', FAULTS)
def test_a_fault_in_the_middle_of_a_question_is_an_error_and_the_next_one_is_answered(
    threads: Setting, fault: Fault
) -> None:
    server, proxy, kind = threads
    pool: Any = threading_pools.ConnectionPool(kind.manager, max_size=1)
    with pytest.raises(OSError), pool.connection(kind.endpoint) as sock:
        sock.settimeout(0.05 if fault in SILENT else PATIENCE)
        sock.sendall(b'first hold\n')
        eventually(lambda: server.held == 1)
        proxy.strike(fault)
        kind.receive_line(sock)
    with pool.connection(kind.endpoint, timeout=PATIENCE) as sock:
        sock.settimeout(PATIENCE)
        sock.sendall(b'second 0\n')
        assert kind.receive_line(sock) == b'second\n'
    pool.close(timeout=5)


@pytest.mark.parametrize('fault', FAULTS)
async def test_a_fault_in_the_middle_of_a_tasks_question_is_an_error_and_the_next_one_is_answered(
    tasks: Setting, fault: Fault
) -> None:
    server, proxy, kind = tasks
    pool: Any = asyncio_pools.ConnectionPool(kind.manager, max_size=1)
    with pytest.raises((OSError, asyncio.TimeoutError)):
        async with pool.connection(kind.endpoint) as conn:
            await kind.send(conn, b'first hold\n')
            await eventually_async(lambda: server.held == 1)
            proxy.strike(fault)
            await asyncio.wait_for(kind.receive_line(conn), 0.05 if fault in SILENT else PATIENCE)
    async with pool.connection(kind.endpoint, timeout=PATIENCE) as conn:
        await kind.send(conn, b'second 0\n')
        assert await asyncio.wait_for(kind.receive_line(conn), PATIENCE) == b'second\n'
    await pool.close(timeout=5)


@pytest.mark.parametrize('fault', [Fault.CUT, Fault.RESET])
def test_an_idle_connection_that_a_fault_has_ended_is_replaced(threads: Setting, fault: Fault) -> None:
    server, proxy, kind = threads
    pool: Any = threading_pools.ConnectionPool(kind.manager, max_size=1)
    for question in (b'first', b'second'):
        with pool.connection(kind.endpoint, timeout=PATIENCE) as sock:
            sock.settimeout(PATIENCE)
            sock.sendall(question + b' 0\n')
            assert kind.receive_line(sock) == question + b'\n'
        proxy.strike(fault)
        eventually(lambda: proxy.open == 0)
    assert proxy.accepted == 2
    pool.close(timeout=5)


def test_who_cannot_connect_in_time_is_told_and_served_when_the_server_is_back(threads: Setting) -> None:
    server, proxy, kind = threads
    pool: Any = threading_pools.ConnectionPool(kind.manager, max_size=1)
    proxy.go_down()
    with pytest.raises(ConnectionRefusedError), pool.connection(kind.endpoint, timeout=PATIENCE):
        pass
    proxy.come_up()
    with pool.connection(kind.endpoint, timeout=PATIENCE) as sock:
        sock.settimeout(PATIENCE)
        sock.sendall(b'question 0\n')
        assert kind.receive_line(sock) == b'question\n'
    pool.close(timeout=5)


def test_after_a_timeout_in_mid_question_the_next_user_gets_its_own_answer(threads: Setting) -> None:
    server, _, kind = threads
    pool: Any = threading_pools.ConnectionPool(kind.manager, max_size=1)
    assert next_answer(pool, kind, server) == b'second\n'
    pool.close(timeout=5)


@pytest.mark.parametrize('how', ['timed out', 'cancelled'])
async def test_after_a_task_is_stopped_in_mid_question_the_next_one_gets_its_own_answer(
    tasks: Setting, how: str
) -> None:
    server, _, kind = tasks
    pool: Any = asyncio_pools.ConnectionPool(kind.manager, max_size=1)
    assert await next_answer_async(pool, kind, server, how) == b'second\n'
    await pool.close(timeout=5)


# a planted defect: is_reusable always says yes


def test_with_a_manager_that_always_reuses_the_next_user_gets_the_answer_of_the_last(threads: Setting) -> None:
    server, _, kind = threads
    reuse_always(kind)
    pool: Any = threading_pools.ConnectionPool(kind.manager, max_size=1)
    assert next_answer(pool, kind, server).startswith(b'first\n')
    pool.close(timeout=5)


@pytest.mark.parametrize('how', ['timed out', 'cancelled'])
async def test_with_a_manager_that_always_reuses_the_next_task_gets_the_answer_of_the_last(
    tasks: Setting, how: str
) -> None:
    server, _, kind = tasks
    reuse_always(kind)
    pool: Any = asyncio_pools.ConnectionPool(kind.manager, max_size=1)
    assert (await next_answer_async(pool, kind, server, how)).startswith(b'first\n')
    await pool.close(timeout=5)


@pytest.fixture
def restless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Users that hardly rest between their turns."""
    monkeypatch.setattr(turns, 'LONGEST_REST', 0.01)


def test_the_load_finds_a_manager_that_always_reuses(threads: Setting, restless: None) -> None:
    ledger, over = Ledger(), threading.Event()
    kind = threads[2]
    reuse_always(kind)
    pool: Any = threading_pools.ConnectionPool(kind.manager, max_size=1)
    users = [threading.Thread(target=run_thread, args=(pool, kind, ledger, str(n), over)) for n in range(4)]
    for user in users:
        user.start()
    eventually(lambda: any('cross-talk' in text for text in ledger.violations), 'a violation')
    over.set()
    for user in users:
        user.join(PATIENCE)
    pool.close(timeout=5)


async def test_the_load_of_tasks_finds_a_manager_that_always_reuses(tasks: Setting, restless: None) -> None:
    ledger, over = Ledger(), threading.Event()
    kind = tasks[2]
    reuse_always(kind)
    pool: Any = asyncio_pools.ConnectionPool(kind.manager, max_size=1)
    users = [asyncio.ensure_future(run_task(pool, kind, ledger, str(n), over)) for n in range(4)]
    await eventually_async(lambda: any('cross-talk' in text for text in ledger.violations), 'a violation')
    over.set()
    await asyncio.gather(*users)
    await pool.close(timeout=5)
