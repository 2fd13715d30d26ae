"""Managers of connections that are nothing but objects: what is left to be measured is the pool."""

from typing import Any, Optional

import generic_connection_pool.asyncio
import generic_connection_pool.threading


class Connection:
    """An object, as a user's connection is one."""

    __slots__ = ()


class ThreadsManager(generic_connection_pool.threading.BaseConnectionManager[Any, Any]):
    def create(self, endpoint: Any, timeout: Optional[float] = None) -> Connection:
        return Connection()

    def dispose(self, endpoint: Any, conn: Any, timeout: Optional[float] = None) -> None:
        pass


class AsyncioManager(generic_connection_pool.asyncio.BaseConnectionManager[Any, Any]):
    async def create(self, endpoint: Any) -> Connection:
        return Connection()

    async def dispose(self, endpoint: Any, conn: Any) -> None:
        pass


def threads_pool(**settings: Any) -> 'generic_connection_pool.threading.ConnectionPool[Any, Any]':
    return generic_connection_pool.threading.ConnectionPool(ThreadsManager(), **settings)


def asyncio_pool(**settings: Any) -> 'generic_connection_pool.asyncio.ConnectionPool[Any, Any]':
    return generic_connection_pool.asyncio.ConnectionPool(AsyncioManager(), **settings)
