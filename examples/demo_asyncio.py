"""The demo's jobs with asyncio. Each returns the time (in µs) of an acquire and release of an idle connection."""

import asyncio
import ssl
import time
from typing import Awaitable, Callable, Tuple

from demo_ledger import BATCH, BATCHES, Ledger, Order
from servers import DATABASES

from generic_connection_pool.asyncio import BaseConnectionManager, ConnectionPool, ConnectionT, EndpointT
from generic_connection_pool.contrib.asyncpg import DbConnection, DbConnectionManager
from generic_connection_pool.contrib.socket_async import Stream, TcpStreamConnectionManager

HttpsEndpoint = Tuple[str, int]


class HttpsManager(TcpStreamConnectionManager):
    """The ready-made manager, keeping a ledger."""

    def __init__(self, order: Order, ledger: Ledger):
        super().__init__(ssl=ssl.create_default_context(cadata=order.authority))
        self._ledger = ledger

    async def create(self, endpoint: HttpsEndpoint) -> Stream:
        with self._ledger.opening():
            return await super().create(endpoint)

    async def dispose(self, endpoint: HttpsEndpoint, conn: Stream) -> None:
        await super().dispose(endpoint, conn)
        self._ledger.closed()


class PostgresManager(DbConnectionManager):
    """The ready-made manager, keeping a ledger."""

    def __init__(self, order: Order, ledger: Ledger):
        super().__init__(order.dsn_params)
        self._ledger = ledger

    async def create(self, endpoint: str) -> DbConnection:
        with self._ledger.opening():
            return await super().create(endpoint)

    async def dispose(self, endpoint: str, conn: DbConnection) -> None:
        await super().dispose(endpoint, conn)
        self._ledger.closed()


def ask_https(order: Order, ledger: Ledger) -> float:
    """Fetch pages through a pool of TLS connections."""
    return asyncio.run(_ask_https(order, ledger))


def ask_postgres(order: Order, ledger: Ledger) -> float:
    """Query three databases through one pool."""
    return asyncio.run(_ask_postgres(order, ledger))


async def _ask_https(order: Order, ledger: Ledger) -> float:
    endpoint = order.host, order.port
    pool = _pool(HttpsManager(order, ledger), order)

    async def ask(question: str, number: int) -> None:
        async with pool.connection(endpoint, timeout=10) as stream:
            status, body = await _fetch(stream, order.host, f'/{question}')
        ledger.check(question, ('200', f'you asked for /{question}\n'), (status, body))

    try:
        await _ask_all(order, ask)
        return await _time_acquire(pool, endpoint)
    finally:
        await pool.close(timeout=5)


async def _ask_postgres(order: Order, ledger: Ledger) -> float:
    pool = _pool(PostgresManager(order, ledger), order)

    async def ask(question: str, number: int) -> None:
        database = DATABASES[number % len(DATABASES)]
        async with pool.connection(database, timeout=10) as conn:
            (answer, answered_by, process, _), = await conn.fetch(
                'SELECT $1::text, current_database(), pg_backend_pid(), pg_sleep(0.001)', question
            )
        ledger.check(question, (question, database), (answer, answered_by), process)

    try:
        await _ask_all(order, ask)
        return await _time_acquire(pool, DATABASES[0])
    finally:
        await pool.close(timeout=5)


def _pool(
    manager: BaseConnectionManager[EndpointT, ConnectionT], order: Order
) -> 'ConnectionPool[EndpointT, ConnectionT]':
    return ConnectionPool(manager, max_size=order.max_size, total_max_size=order.total_max_size)


async def _fetch(stream: Stream, host: str, path: str) -> Tuple[str, str]:
    reader, writer = stream
    # ends with one empty line too many, which a server is to ignore
    writer.write(f'GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n\r\n'.encode())
    await writer.drain()
    status_line, *lines = (await reader.readuntil(b'\r\n\r\n')).decode().splitlines()[:-1]
    headers = dict(line.lower().split(': ', 1) for line in lines)
    body = await reader.readexactly(int(headers['content-length']))
    return status_line.split()[1], body.decode()


async def _ask_all(order: Order, ask: Callable[[str, int], Awaitable[None]]) -> None:
    """Have every user ask all his questions, all users at the same time."""

    async def use(user: int) -> None:
        for number in range(order.questions):
            await ask(f'user-{user}-question-{number}', user + number)

    await asyncio.gather(*(use(user) for user in range(order.users)))


async def _time_acquire(pool: 'ConnectionPool[EndpointT, ConnectionT]', endpoint: EndpointT) -> float:
    times = []
    for _ in range(BATCHES):
        began = time.perf_counter()
        for _ in range(BATCH):
            async with pool.connection(endpoint):
                pass
        times.append((time.perf_counter() - began) / BATCH * 1e6)
    return min(times)
