"""Very many endpoints with one idle connection each: what one costs in bytes, and what finding it costs in time."""

import gc
import os
import random
import time
from typing import Any, Dict, List, Optional

from managers import Connection, ThreadsManager

import generic_connection_pool.threading

#: passes over all keys, the fastest of which counts
REPEATS = 5


class StockManager(ThreadsManager):
    """Hands out connections that were there before, so that the memory taken meanwhile is the pool's own."""

    def __init__(self, count: int):
        self.stock = [Connection() for _ in range(count)]
        self._next = iter(self.stock)

    def create(self, endpoint: Any, timeout: Optional[float] = None) -> Connection:
        return next(self._next)


def resident_bytes() -> Optional[int]:
    """The memory that the process occupies; ``None`` where the system is not Linux.

    Unlike tracemalloc this sees what C code allocates.
    """
    gc.collect()
    if not os.path.exists('/proc/self/statm'):
        return None
    with open('/proc/self/statm') as statm:
        return int(statm.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')


def make_keys(count: int) -> List[Any]:
    return [(f'host-{number}.example.com', 443) for number in range(count)]


def use_each(pool: Any, keys: List[Any]) -> float:
    """Acquire and release a connection for each key. Returns the seconds that one took on average."""
    acquire, release = pool.acquire, pool.release
    began = time.perf_counter()
    for key in keys:
        release(acquire(key), key)
    return (time.perf_counter() - began) / len(keys)


def use_bare(idle: Dict[Any, List[Connection]], keys: List[Any]) -> float:
    """Do the same with a dict of lists, the least that a pool can be: no lock, no limit, no deadline.

    It meets the same keys and connections, few of which are in the processor's cache.
    """
    began = time.perf_counter()
    for key in keys:
        connection = idle[key].pop()
        idle[key].append(connection)
    return (time.perf_counter() - began) / len(keys)


def measure(count: int) -> Dict[str, Optional[float]]:
    """Fill a pool, see what memory that has taken, and use its connections in random order.

    To be run in a fresh process, in which no freed memory lies about to be used again.
    """
    keys = make_keys(count)
    manager = StockManager(count)
    pool = generic_connection_pool.threading.ConnectionPool(manager, max_size=1, total_max_size=count)
    before = resident_bytes()
    use_each(pool, keys)
    after = resident_bytes()
    assert pool.get_size() == count

    bare = {key: [connection] for key, connection in zip(keys, manager.stock)}
    random.Random(1).shuffle(keys)
    result = {
        'bytes': None if before is None or after is None else (after - before) / count,
        'random': min(use_each(pool, keys) for _ in range(REPEATS)),
        'bare': min(use_bare(bare, keys) for _ in range(REPEATS)),
    }
    pool.close()
    return result


def measure_one(count: int) -> Dict[str, float]:
    """Use the one connection of the one endpoint as often."""
    (key,) = make_keys(1)
    pool = generic_connection_pool.threading.ConnectionPool(StockManager(1), max_size=1, total_max_size=count)
    result = {'random': min(use_each(pool, [key] * count) for _ in range(REPEATS))}
    pool.close()
    return result
