"""The demo's jobs with asyncio: for each protocol a ready-made manager, and how to ask a question over a connection."""

import asyncio
import ssl
import time
from typing import Any, Awaitable, Callable, Dict, Hashable, Tuple

import asyncssh
from demo_ledger import BATCH, BATCHES, Ledger, Order

from generic_connection_pool.asyncio import BaseConnectionManager, ConnectionPool
from generic_connection_pool.contrib import asyncpg
from generic_connection_pool.contrib.asyncssh import SshConnectionManager
from generic_connection_pool.contrib.redis_async import RedisConnection, RedisConnectionManager, execute
from generic_connection_pool.contrib.socket_async import Stream, TcpStreamConnectionManager

#: what the answer has to be, what it is, and which connection the server says it came through, if it says so
Answer = Tuple[Hashable, Hashable, Hashable]


async def ask_https(stream: Stream, endpoint: Tuple[str, int], question: str) -> Answer:
    reader, writer = stream
    # ends with one empty line too many, which a server is to ignore
    writer.write(f'GET /{question} HTTP/1.1\r\nHost: {endpoint[0]}\r\n\r\n\r\n'.encode())
    await writer.drain()
    status_line, *lines = (await reader.readuntil(b'\r\n\r\n')).decode().splitlines()[:-1]
    headers = dict(line.lower().split(': ', 1) for line in lines)
    body = await reader.readexactly(int(headers['content-length']))
    return ('200', f'you asked for /{question}\n'), (status_line.split()[1], body.decode()), None


async def ask_postgres(conn: asyncpg.DbConnection, endpoint: str, question: str) -> Answer:
    (answer, answered_by, process, _), = await conn.fetch(
        'SELECT $1::text, current_database(), pg_backend_pid(), pg_sleep(0.001)', question
    )
    return (question, endpoint), (answer, answered_by), process


async def ask_redis(conn: RedisConnection, endpoint: str, question: str) -> Answer:
    await execute(conn, 'SET', question, question[::-1])
    return question[::-1].encode(), await execute(conn, 'GET', question), await execute(conn, 'CLIENT', 'ID')


async def ask_ssh(conn: asyncssh.SSHClientConnection, endpoint: str, question: str) -> Answer:
    completed = await conn.run(question)
    return f'{endpoint} has run {question!r}\n', str(completed.stdout), None


#: for each protocol what makes the manager, and what asks
Trade = Tuple[Callable[[Dict[str, Any]], BaseConnectionManager[Any, Any]], Callable[[Any, Any, str], Awaitable[Answer]]]

TRADES: Dict[str, Trade] = {
    'HTTPS': (
        lambda where: TcpStreamConnectionManager(ssl=ssl.create_default_context(cadata=where['authority'])), ask_https
    ),
    'PostgreSQL': (lambda where: asyncpg.DbConnectionManager(where['dsn_params']), ask_postgres),
    'Redis': (lambda where: RedisConnectionManager(where['servers']), ask_redis),
    'SSH': (lambda where: SshConnectionManager(where['users'], known_hosts=where['known_hosts']), ask_ssh),
}  # fmt: skip


def run(order: Order, ledger: Ledger) -> float:
    """Do a job. Returns the time (in µs) of an acquire and release of an idle connection."""
    return asyncio.run(_run(order, ledger))


async def _run(order: Order, ledger: Ledger) -> float:
    make_manager, ask = TRADES[order.protocol]
    manager = keep_ledger(make_manager(order.where), ledger)
    pool = ConnectionPool(manager, max_size=order.max_size, total_max_size=order.total_max_size)
    endpoints = order.where['endpoints']

    async def use(user: int) -> None:
        for number in range(order.questions):
            question = f'{order.core}-{order.runtime}-user-{user}-question-{number}'
            endpoint = endpoints[(user + number) % len(endpoints)]
            async with pool.connection(endpoint, timeout=10) as conn:
                expected, answer, peer = await ask(conn, endpoint, question)
            ledger.check(question, expected, answer, peer)

    try:
        await asyncio.gather(*(use(user) for user in range(order.users)))
        return await _time_acquire(pool, endpoints[0])
    finally:
        await pool.close(timeout=5)


def keep_ledger(manager: BaseConnectionManager[Any, Any], ledger: Ledger) -> BaseConnectionManager[Any, Any]:
    """Have a manager tell what it opens and closes."""
    create, dispose = manager.create, manager.dispose

    async def create_noted(endpoint: Any) -> Any:
        with ledger.opening():
            return await create(endpoint)

    async def dispose_noted(endpoint: Any, conn: Any) -> None:
        await dispose(endpoint, conn)
        ledger.closed()

    setattr(manager, 'create', create_noted)
    setattr(manager, 'dispose', dispose_noted)
    return manager


async def _time_acquire(pool: 'ConnectionPool[Any, Any]', endpoint: Any) -> float:
    times = []
    for _ in range(BATCHES):
        began = time.perf_counter()
        for _ in range(BATCH):
            async with pool.connection(endpoint):
                pass
        times.append((time.perf_counter() - began) / BATCH * 1e6)
    return min(times)
