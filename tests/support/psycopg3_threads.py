"""A pool of psycopg 3 connections for threads, as its tests share it. Imported only where psycopg is installed."""

import contextlib
from typing import Iterator

import pytest
from support.postgres import DATABASES, PostgresServer
from support.psycopg3 import ALPHA, parameters

from generic_connection_pool.contrib.psycopg import DbConnection, DbConnectionManager
from generic_connection_pool.threading import ConnectionPool

Pool = ConnectionPool[str, DbConnection]


@pytest.fixture
def manager(postgres: PostgresServer) -> DbConnectionManager:
    return DbConnectionManager({name: parameters(postgres, name) for name in DATABASES})


@pytest.fixture
def conn(manager: DbConnectionManager) -> Iterator[DbConnection]:
    conn = manager.create(ALPHA)
    yield conn
    manager.dispose(ALPHA, conn)


@pytest.fixture
def pool(manager: DbConnectionManager) -> Iterator[Pool]:
    with opened(manager) as pool:
        yield pool


@contextlib.contextmanager
def opened(manager: DbConnectionManager, max_size: int = 10) -> Iterator[Pool]:
    """A pool for the length of a block, after which its manager remembers no connection."""
    pool: Pool = ConnectionPool(manager, max_size=max_size)
    try:
        yield pool
    finally:
        pool.close(timeout=5)
    assert not manager._loans
