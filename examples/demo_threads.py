"""The demo's jobs with threads: for each protocol a ready-made manager, and how to ask a question over a connection."""

import concurrent.futures
import sqlite3
import ssl
import time
from typing import Any, Callable, Dict, Hashable, Optional, Tuple

import paramiko
import psycopg2.extensions
from demo_ledger import BATCH, BATCHES, Ledger, Order

from generic_connection_pool.contrib import dbapi, psycopg2 as psycopg2_contrib
from generic_connection_pool.contrib.http import HttpConnection, HttpConnectionManager
from generic_connection_pool.contrib.paramiko import SshConnectionManager
from generic_connection_pool.contrib.redis import RedisConnection, RedisConnectionManager, execute
from generic_connection_pool.threading import BaseConnectionManager, ConnectionPool

#: what the answer has to be, what it is, and which connection the server says it came through, if it says so
Answer = Tuple[Hashable, Hashable, Hashable]


def ask_sqlite(conn: sqlite3.Connection, endpoint: str, question: str) -> Answer:
    conn.execute('INSERT INTO questions VALUES (?)', (question,))
    (answer,), = conn.execute('SELECT question FROM questions WHERE question = ?', (question,))
    conn.commit()
    return question, answer, None


def ask_https(conn: HttpConnection, endpoint: str, question: str) -> Answer:
    conn.request('GET', f'/{question}')
    response = conn.getresponse()
    return (200, f'you asked for /{question}\n'), (response.status, response.read().decode()), None


def ask_postgres(conn: psycopg2.extensions.connection, endpoint: str, question: str) -> Answer:
    with conn.cursor() as cursor:
        cursor.execute('SELECT %s, current_database(), pg_backend_pid(), pg_sleep(0.001)', (question,))
        (answer, answered_by, process, _), = cursor.fetchall()
    return (question, endpoint), (answer, answered_by), process


def ask_redis(conn: RedisConnection, endpoint: str, question: str) -> Answer:
    execute(conn, 'SET', question, question[::-1])
    return question[::-1].encode(), execute(conn, 'GET', question), execute(conn, 'CLIENT', 'ID')


def ask_ssh(client: paramiko.SSHClient, endpoint: str, question: str) -> Answer:
    _, stdout, _ = client.exec_command(question)
    answer = stdout.read().decode()
    return f'{endpoint} has run {question!r}\n', answer, None


#: for each protocol what makes the manager, and what asks
Trade = Tuple[Callable[[Dict[str, Any]], BaseConnectionManager[Any, Any]], Callable[[Any, Any, str], Answer]]

TRADES: Dict[str, Trade] = {
    'SQLite': (lambda where: dbapi.DbConnectionManager(sqlite3, where['databases']), ask_sqlite),
    'HTTPS': (
        lambda where: HttpConnectionManager(ssl.create_default_context(cadata=where['authority']), io_timeout=10.0),
        ask_https,
    ),
    'PostgreSQL': (lambda where: psycopg2_contrib.DbConnectionManager(where['dsn_params']), ask_postgres),
    'Redis': (lambda where: RedisConnectionManager(where['servers']), ask_redis),
    'SSH': (lambda where: SshConnectionManager(where['users'], known_hosts=where['known_hosts']), ask_ssh),
}


def run(order: Order, ledger: Ledger) -> float:
    """Do a job. Returns the time (in µs) of an acquire and release of an idle connection."""
    make_manager, ask = TRADES[order.protocol]
    manager = keep_ledger(make_manager(order.where), ledger)
    pool = ConnectionPool(manager, max_size=order.max_size, total_max_size=order.total_max_size)
    endpoints = order.where['endpoints']

    def use(user: int) -> None:
        for number in range(order.questions):
            question = f'{order.core}-{order.runtime}-user-{user}-question-{number}'
            endpoint = endpoints[(user + number) % len(endpoints)]
            with pool.connection(endpoint, timeout=10) as conn:
                expected, answer, peer = ask(conn, endpoint, question)
            ledger.check(question, expected, answer, peer)

    try:
        with concurrent.futures.ThreadPoolExecutor(order.users) as users:
            for done in [users.submit(use, user) for user in range(order.users)]:
                done.result()
        return _time_acquire(pool, endpoints[0])
    finally:
        pool.close(timeout=5)


def keep_ledger(manager: BaseConnectionManager[Any, Any], ledger: Ledger) -> BaseConnectionManager[Any, Any]:
    """Have a manager tell what it opens and closes."""
    create, dispose = manager.create, manager.dispose

    def create_noted(endpoint: Any, timeout: Optional[float] = None) -> Any:
        with ledger.opening():
            return create(endpoint, timeout=timeout)

    def dispose_noted(endpoint: Any, conn: Any, timeout: Optional[float] = None) -> None:
        dispose(endpoint, conn, timeout=timeout)
        ledger.closed()

    setattr(manager, 'create', create_noted)
    setattr(manager, 'dispose', dispose_noted)
    return manager


def _time_acquire(pool: 'ConnectionPool[Any, Any]', endpoint: Any) -> float:
    times = []
    for _ in range(BATCHES):
        began = time.perf_counter()
        for _ in range(BATCH):
            with pool.connection(endpoint):
                pass
        times.append((time.perf_counter() - began) / BATCH * 1e6)
    return min(times)
