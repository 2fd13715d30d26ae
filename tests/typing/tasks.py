"""What type checkers are to make of the asyncio pool. Checked by mypy --strict and pyright; never run."""

import asyncio
import socket
import ssl
from asyncio import StreamReader, StreamWriter
from pathlib import Path
from typing import Tuple

import asyncpg
from typing_extensions import assert_type

from generic_connection_pool.asyncio import BaseConnectionManager, ConnectionPool
from generic_connection_pool.asyncio.locks import SharedLock
from generic_connection_pool.contrib.asyncpg import DbConnectionManager
from generic_connection_pool.contrib.socket import TcpEndpoint
from generic_connection_pool.contrib.socket_async import TcpSocketConnectionManager, TcpStreamConnectionManager
from generic_connection_pool.contrib.unix_async import UnixSocketConnectionManager, UnixSocketStreamConnectionManager


class Client:
    """A connection of the user's own."""


class ClientManager(BaseConnectionManager[str, Client]):
    async def create(self, endpoint: str) -> Client:
        return Client()

    async def dispose(self, endpoint: str, conn: Client) -> None:
        pass


async def use_own_manager() -> None:
    pool = ConnectionPool(ClientManager(), max_size=5, background_collector=True)
    assert_type(pool, ConnectionPool[str, Client])
    async with pool.connection('a', timeout=1.0) as client:
        assert_type(client, Client)
    client = await pool.acquire('a')
    assert_type(client, Client)
    await pool.release(client, 'a')
    task = asyncio.create_task(pool.acquire('a'))
    assert_type(await task, Client)
    assert_type(await asyncio.wait_for(pool.acquire('a'), 1.0), Client)
    assert_type(pool.get_size(), int)
    assert_type(await pool.get_endpoint_pool_size('a', acquired=False), int)
    await pool.close(timeout=1.0)


async def misuse(pool: ConnectionPool[str, Client]) -> None:
    await pool.acquire(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async with pool.connection('a') as client:
        client.pong()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


async def use_ready_made_managers(endpoint: TcpEndpoint) -> None:
    tcp = ConnectionPool(TcpSocketConnectionManager())
    async with tcp.connection(endpoint) as sock:
        assert_type(sock, socket.socket)
    streams = ConnectionPool(TcpStreamConnectionManager(ssl=ssl.create_default_context()))
    async with streams.connection(('example.org', 443)) as stream:
        assert_type(stream, Tuple[StreamReader, StreamWriter])
    unix = ConnectionPool(UnixSocketConnectionManager())
    async with unix.connection(Path('/run/some.sock')) as unix_sock:
        assert_type(unix_sock, socket.socket)
    unix_streams = ConnectionPool(UnixSocketStreamConnectionManager())
    async with unix_streams.connection(Path('/run/some.sock')) as (reader, writer):
        assert_type(reader, StreamReader)
        assert_type(writer, StreamWriter)
    databases = ConnectionPool(DbConnectionManager({'main': {'database': 'main'}}))
    async with databases.connection('main') as db:
        assert_type(db, 'asyncpg.Connection[asyncpg.Record]')


async def use_the_rest() -> None:
    lock = SharedLock()
    async with lock:
        pass
    async with lock.acquired(exclusive=False, timeout=1.0):
        assert_type(await lock.acquire(exclusive=True), bool)
