"""Pools that are checked and closed at the end of each test."""

from typing import Any, AsyncIterator, List, Optional, Tuple

import pytest_asyncio
from support.tasks import Manager, OpenPool, Pool, finish, other_tasks, until

from generic_connection_pool.asyncio import ConnectionPool


@pytest_asyncio.fixture
async def open_pool() -> AsyncIterator[OpenPool]:
    """Opens a pool: ``open_pool(manager, **options)``. At the end of the test, its connections being given back, it is
    closed; every connection must have been disposed of once, and nothing may be left of it.
    """
    opened: List[Tuple[Pool, Manager]] = []

    def open_pool(manager: Optional[Manager] = None, **options: Any) -> Pool:
        manager = Manager() if manager is None else manager
        pool: Pool = ConnectionPool(manager, **options)
        opened.append((pool, manager))
        return pool

    yield open_pool
    try:
        for pool, manager in opened:
            await finish(pool, manager)
    finally:
        for pool, _ in opened:  # so that the failure is reported, and not what it leaves behind
            pool._core.close()
        for task in other_tasks():
            task.cancel()
        await until(lambda: not other_tasks())
