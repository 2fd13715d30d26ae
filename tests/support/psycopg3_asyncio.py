"""A pool of psycopg 3 connections for asyncio, as its tests share it. Imported only where psycopg is installed."""

import contextlib
from typing import AsyncIterator

import pytest
from support.postgres import DATABASES, PostgresServer
from support.psycopg3 import ALPHA, parameters

from generic_connection_pool.asyncio import ConnectionPool
from generic_connection_pool.contrib.psycopg_async import DbConnection, DbConnectionManager

Pool = ConnectionPool[str, DbConnection]


@pytest.fixture
def manager(postgres: PostgresServer) -> DbConnectionManager:
    return DbConnectionManager({name: parameters(postgres, name) for name in DATABASES})


@pytest.fixture
async def conn(manager: DbConnectionManager) -> AsyncIterator[DbConnection]:
    conn = await manager.create(ALPHA)
    yield conn
    await manager.dispose(ALPHA, conn)


@pytest.fixture
async def pool(manager: DbConnectionManager) -> AsyncIterator[Pool]:
    async with opened(manager) as pool:
        yield pool


@contextlib.asynccontextmanager
async def opened(manager: DbConnectionManager, max_size: int = 10) -> AsyncIterator[Pool]:
    """A pool for the length of a block, after which its manager remembers no connection."""
    pool: Pool = ConnectionPool(manager, max_size=max_size)
    try:
        yield pool
    finally:
        await pool.close(timeout=5)
    assert not manager._loans
