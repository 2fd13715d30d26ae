"""asyncio, one idle connection, no hooks: seconds for one round of acquiring and releasing."""

import asyncio
import time
from typing import Any, Dict

from managers import asyncio_pool

ENDPOINT = ('localhost', 443)
#: rounds that are not timed, the first of which opens the connection
WARM_UP = 100


class Empty:
    """The floor: an asynchronous context manager of empty Python coroutines."""

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *exc_info: object) -> None:
        pass


async def hold(pool: Any, count: int) -> float:
    """Time ``async with pool.connection(endpoint): pass``."""
    connection, endpoint, rounds = pool.connection, ENDPOINT, range(count)
    began = time.perf_counter()
    for _ in rounds:
        async with connection(endpoint):
            pass
    return (time.perf_counter() - began) / count


async def acquire_and_release(pool: Any, count: int) -> float:
    """Time ``await pool.release(await pool.acquire(endpoint), endpoint)``."""
    acquire, release, endpoint, rounds = pool.acquire, pool.release, ENDPOINT, range(count)
    began = time.perf_counter()
    for _ in rounds:
        await release(await acquire(endpoint), endpoint)
    return (time.perf_counter() - began) / count


async def hold_nothing(count: int) -> float:
    """Time ``async with empty: pass``, with the same object over and over."""
    empty, rounds = Empty(), range(count)
    began = time.perf_counter()
    for _ in rounds:
        async with empty:
            pass
    return (time.perf_counter() - began) / count


async def _measure_pool(count: int) -> Dict[str, float]:
    pool = asyncio_pool()
    try:
        await hold(pool, WARM_UP)
        return {'with': await hold(pool, count), 'acquire': await acquire_and_release(pool, count)}
    finally:
        await pool.close()


def measure_pool(count: int) -> Dict[str, float]:
    return asyncio.run(_measure_pool(count))


def measure_floor(count: int) -> Dict[str, float]:
    return {'with': asyncio.run(hold_nothing(count))}
