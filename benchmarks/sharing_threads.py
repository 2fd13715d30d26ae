"""Sixteen threads share four connections, each of which they hold for 500 µs: who gets how many?"""

import threading
import time
from typing import Any, Callable, ContextManager, Dict, List

from managers import threads_pool

THREADS, CONNECTIONS, HOLD = 16, 4, 0.0005


def _share(take: Callable[[], ContextManager[Any]], seconds: float) -> Dict[str, float]:
    """Have all threads take and hold for some time; return the fewest and the most of one, and how many in a second."""
    counts: List[int] = []
    ready = threading.Barrier(THREADS + 1)
    over = threading.Event()

    def use() -> None:
        count = 0
        ready.wait()
        while not over.is_set():
            with take():
                time.sleep(HOLD)
            count += 1
        counts.append(count)

    threads = [threading.Thread(target=use) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    ready.wait()
    began = time.perf_counter()
    time.sleep(seconds)
    over.set()
    elapsed = time.perf_counter() - began
    for thread in threads:
        thread.join()
    return {'fewest': min(counts), 'most': max(counts), 'rate': sum(counts) / elapsed}


def measure_pool(seconds: float) -> Dict[str, float]:
    pool = threads_pool(max_size=CONNECTIONS)
    try:
        return _share(lambda: pool.connection('endpoint'), seconds)
    finally:
        pool.close()


def measure_semaphore(seconds: float) -> Dict[str, float]:
    semaphore = threading.Semaphore(CONNECTIONS)
    return _share(lambda: semaphore, seconds)
