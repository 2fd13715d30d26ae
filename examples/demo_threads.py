"""The demo's jobs with threads. Each returns the time (in µs) of an acquire and release of an idle connection."""

import concurrent.futures
import http.client
import ssl
import time
from typing import Callable, Optional, Tuple

import psycopg2.extensions
from demo_ledger import BATCH, BATCHES, Ledger, Order
from servers import DATABASES

from generic_connection_pool.contrib.psycopg2 import DbConnectionManager
from generic_connection_pool.contrib.socket import SslEndpoint, SslSocketConnectionManager
from generic_connection_pool.threading import BaseConnectionManager, ConnectionPool, ConnectionT, EndpointT


class HttpsManager(SslSocketConnectionManager):
    """The ready-made manager, keeping a ledger."""

    def __init__(self, order: Order, ledger: Ledger):
        super().__init__(ssl.create_default_context(cadata=order.authority))
        self._ledger = ledger

    def create(self, endpoint: SslEndpoint, timeout: Optional[float] = None) -> ssl.SSLSocket:
        with self._ledger.opening():
            return super().create(endpoint, timeout)

    def dispose(self, endpoint: SslEndpoint, conn: ssl.SSLSocket, timeout: Optional[float] = None) -> None:
        super().dispose(endpoint, conn, timeout)
        self._ledger.closed()


class PostgresManager(DbConnectionManager):
    """The ready-made manager, keeping a ledger."""

    def __init__(self, order: Order, ledger: Ledger):
        super().__init__(order.dsn_params)
        self._ledger = ledger

    def create(self, endpoint: str, timeout: Optional[float] = None) -> psycopg2.extensions.connection:
        with self._ledger.opening():
            return super().create(endpoint, timeout)

    def dispose(
        self, endpoint: str, conn: psycopg2.extensions.connection, timeout: Optional[float] = None
    ) -> None:
        super().dispose(endpoint, conn, timeout)
        self._ledger.closed()


def ask_https(order: Order, ledger: Ledger) -> float:
    """Fetch pages through a pool of TLS connections."""
    endpoint = order.host, order.port
    pool = _pool(HttpsManager(order, ledger), order)

    def ask(question: str, number: int) -> None:
        with pool.connection(endpoint, timeout=10) as sock:
            status, body = _fetch(sock, order.host, f'/{question}')
        ledger.check(question, (200, f'you asked for /{question}\n'), (status, body))

    try:
        _ask_all(order, ask)
        return _time_acquire(pool, endpoint)
    finally:
        pool.close(timeout=5)


def ask_postgres(order: Order, ledger: Ledger) -> float:
    """Query three databases through one pool."""
    pool = _pool(PostgresManager(order, ledger), order)

    def ask(question: str, number: int) -> None:
        database = DATABASES[number % len(DATABASES)]
        with pool.connection(database, timeout=10) as conn, conn.cursor() as cursor:
            cursor.execute('SELECT %s, current_database(), pg_backend_pid(), pg_sleep(0.001)', (question,))
            (answer, answered_by, process, _), = cursor.fetchall()
        ledger.check(question, (question, database), (answer, answered_by), process)

    try:
        _ask_all(order, ask)
        return _time_acquire(pool, DATABASES[0])
    finally:
        pool.close(timeout=5)


def _pool(
    manager: BaseConnectionManager[EndpointT, ConnectionT], order: Order
) -> 'ConnectionPool[EndpointT, ConnectionT]':
    return ConnectionPool(manager, max_size=order.max_size, total_max_size=order.total_max_size)


def _fetch(sock: ssl.SSLSocket, host: str, path: str) -> Tuple[int, str]:
    # ends with one empty line too many, which a server is to ignore
    sock.sendall(f'GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n\r\n'.encode())
    with http.client.HTTPResponse(sock, method='GET') as response:
        response.begin()
        return response.status, response.read().decode()


def _ask_all(order: Order, ask: Callable[[str, int], None]) -> None:
    """Have every user ask all his questions, all users at the same time."""

    def use(user: int) -> None:
        for number in range(order.questions):
            ask(f'user-{user}-question-{number}', user + number)

    with concurrent.futures.ThreadPoolExecutor(order.users) as users:
        for done in [users.submit(use, user) for user in range(order.users)]:
            done.result()


def _time_acquire(pool: 'ConnectionPool[EndpointT, ConnectionT]', endpoint: EndpointT) -> float:
    times = []
    for _ in range(BATCHES):
        began = time.perf_counter()
        for _ in range(BATCH):
            with pool.connection(endpoint):
                pass
        times.append((time.perf_counter() - began) / BATCH * 1e6)
    return min(times)
