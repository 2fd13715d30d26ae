"""A thousand tasks share ten connections, each of which they hold for a sleep of 500 µs: who gets how many?"""

import asyncio
import time
from typing import Any, AsyncContextManager, Callable, Dict, List

from managers import asyncio_pool

TASKS, CONNECTIONS, HOLD = 1000, 10, 0.0005


async def _share(take: Callable[[], AsyncContextManager[Any]], seconds: float) -> Dict[str, float]:
    """Have all tasks take and hold for some time; return the fewest and the most of one, and how many in a second."""
    counts: List[int] = []
    over = False

    async def use() -> None:
        count = 0
        while not over:
            async with take():
                await asyncio.sleep(HOLD)
            count += 1
        counts.append(count)

    began = time.perf_counter()
    tasks = [asyncio.ensure_future(use()) for _ in range(TASKS)]
    await asyncio.sleep(seconds)
    over = True
    await asyncio.gather(*tasks)
    # those who had to wait when the time was over have taken one more each, which took its time, too
    return {'fewest': min(counts), 'most': max(counts), 'rate': sum(counts) / (time.perf_counter() - began)}


async def _measure_pool(seconds: float) -> Dict[str, float]:
    pool = asyncio_pool(max_size=CONNECTIONS)
    try:
        return await _share(lambda: pool.connection('endpoint'), seconds)
    finally:
        await pool.close()


async def _measure_semaphore(seconds: float) -> Dict[str, float]:
    semaphore = asyncio.Semaphore(CONNECTIONS)
    return await _share(lambda: semaphore, seconds)


def measure_pool(seconds: float) -> Dict[str, float]:
    return asyncio.run(_measure_pool(seconds))


def measure_semaphore(seconds: float) -> Dict[str, float]:
    return asyncio.run(_measure_semaphore(seconds))
