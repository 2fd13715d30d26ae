"""What type checkers are to make of the threads pool. Checked by mypy --strict and pyright; never run."""

import socket
import ssl
from pathlib import Path
from typing import Optional, Tuple

import psycopg2.extensions
from typing_extensions import assert_type

from generic_connection_pool import BaseConnectionPool, ConnectionNotAcquiredError, ConnectionPoolTimeoutError
from generic_connection_pool.contrib.psycopg2 import DbConnectionManager
from generic_connection_pool.contrib.socket import SslSocketConnectionManager, TcpEndpoint, TcpSocketConnectionManager
from generic_connection_pool.contrib.unix import UnixSocketConnectionManager
from generic_connection_pool.rankmap import RankMap
from generic_connection_pool.threading import BaseConnectionManager, ConnectionPool
from generic_connection_pool.threading.locks import SharedLock


class Client:
    """A connection of the user's own."""

    def ping(self, timeout: Optional[float]) -> bool:
        return True


class ClientManager(BaseConnectionManager[Tuple[str, int], Client]):
    def create(self, endpoint: Tuple[str, int], timeout: Optional[float] = None) -> Client:
        return Client()

    def dispose(self, endpoint: Tuple[str, int], conn: Client, timeout: Optional[float] = None) -> None:
        pass

    def check_aliveness(self, endpoint: Tuple[str, int], conn: Client, timeout: Optional[float] = None) -> bool:
        return conn.ping(timeout)

    def is_reusable(self, endpoint: Tuple[str, int], conn: Client, exc: BaseException) -> bool:
        return isinstance(exc, ValueError)


class ClientPool(ConnectionPool[Tuple[str, int], Client]):
    """A subclass with its types filled in."""


def use_own_manager() -> None:
    pool = ConnectionPool(ClientManager(), max_size=5, idle_timeout=30.0)
    assert_type(pool, ConnectionPool[Tuple[str, int], Client])
    with pool.connection(('localhost', 80), timeout=1.0) as client:
        assert_type(client, Client)
    client = pool.acquire(('localhost', 80))
    assert_type(client, Client)
    pool.release(client, ('localhost', 80))
    assert_type(pool.get_size(), int)
    assert_type(pool.get_endpoint_pool_size(('localhost', 80), acquired=True), int)
    assert_type(pool.is_full, bool)
    assert_type(pool.idle_timeout, float)
    pool.close(timeout=1.0)
    base: BaseConnectionPool[Tuple[str, int], Client] = pool
    assert_type(base.get_size(), int)


def misuse(pool: ClientPool) -> None:
    pool.acquire('localhost')  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pool.release('not a client', ('localhost', 80))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pool.connection(('localhost', 80)) as client:
        client.pong()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


def use_ready_made_managers(endpoint: TcpEndpoint) -> None:
    tcp = ConnectionPool(TcpSocketConnectionManager())
    with tcp.connection(endpoint) as sock:
        assert_type(sock, socket.socket)
    tls = ConnectionPool(SslSocketConnectionManager(ssl.create_default_context()))
    with tls.connection(('example.org', 443)) as tls_sock:
        assert_type(tls_sock, ssl.SSLSocket)
    unix = ConnectionPool(UnixSocketConnectionManager())
    with unix.connection(Path('/run/some.sock')) as unix_sock:
        assert_type(unix_sock, socket.socket)
    databases = ConnectionPool(DbConnectionManager({'main': {'dbname': 'main'}}))
    with databases.connection('main') as db:
        assert_type(db, psycopg2.extensions.connection)


def use_the_rest(error: ConnectionPoolTimeoutError, other: ConnectionNotAcquiredError) -> None:
    timeout: TimeoutError = error
    runtime: RuntimeError = other
    print(timeout, runtime)
    lock = SharedLock()
    with lock, lock.acquired(exclusive=False, timeout=1.0):
        assert_type(lock.acquire(exclusive=True, blocking=False), bool)
    ranks: RankMap[str, float] = RankMap()
    ranks.insert('a', 1.0)
    assert_type(ranks.top(), Optional[float])
