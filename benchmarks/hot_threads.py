"""Threads, one idle connection, no hooks: seconds for one round of acquiring and releasing."""

import importlib
import sys
import time
from typing import Any, Dict

from managers import threads_pool

ENDPOINT = ('localhost', 443)
#: rounds that are not timed, the first of which opens the connection
WARM_UP = 100


def hold(pool: Any, count: int) -> float:
    """Time ``with pool.connection(endpoint): pass``."""
    connection, endpoint, rounds = pool.connection, ENDPOINT, range(count)
    began = time.perf_counter()
    for _ in rounds:
        with connection(endpoint):
            pass
    return (time.perf_counter() - began) / count


def acquire_and_release(pool: Any, count: int) -> float:
    """Time ``pool.release(pool.acquire(endpoint), endpoint)``."""
    acquire, release, endpoint, rounds = pool.acquire, pool.release, ENDPOINT, range(count)
    began = time.perf_counter()
    for _ in rounds:
        release(acquire(endpoint), endpoint)
    return (time.perf_counter() - began) / count


def measure_pool(count: int) -> Dict[str, float]:
    pool = threads_pool()
    try:
        hold(pool, WARM_UP)
        return {'with': hold(pool, count), 'acquire': acquire_and_release(pool, count)}
    finally:
        pool.close()


def measure_floor(directory: str, count: int) -> Dict[str, float]:
    """Time ``with`` over an empty compiled context manager returned by a method."""
    if directory not in sys.path:
        sys.path.append(directory)
    return {'with': hold(importlib.import_module('floor').Floor(), count)}
