"""Without a GIL: how much more do two threads get through than one? In comparison with an empty context manager.

    python benchmarks/free_threading.py FLOOR_DIRECTORY [--rounds 200] [--count 20000]

The throughput of two threads is divided by that of one. References to an object that threads share are counted by both,
so even a context manager that does nothing is far from the ideal of 2: that is the interpreter's own limit. What the pool
gets is divided by what the empty one gets, each round by itself, because a machine whose two processors are parts of one,
or are lent to somebody else for a while, changes all figures at once. A round during which a thread did not have a
processor to itself says nothing, and does not count.
"""

import argparse
import importlib
import statistics
import sys
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from managers import threads_pool

#: the share of the time for which each thread must have had a processor
BUSY = 0.85


def hold(pool: Any, endpoint: Any, count: int) -> None:
    connection = pool.connection
    for _ in range(count):
        with connection(endpoint):
            pass


def throughput(pools: List[Any], endpoints: List[Any], count: int) -> Optional[float]:
    """Blocks a second, of as many threads as there are endpoints; None if they did not run side by side."""
    start = threading.Barrier(len(endpoints) + 1)
    times: List[Tuple[float, float]] = []

    def work(pool: Any, endpoint: Any) -> None:
        start.wait()
        began = time.perf_counter()
        hold(pool, endpoint, count)
        times.append((began, time.perf_counter()))

    threads = [threading.Thread(target=work, args=pair) for pair in zip(pools, endpoints)]
    for thread in threads:
        thread.start()
    start.wait()
    used = time.process_time()
    for thread in threads:
        thread.join()
    used = time.process_time() - used
    took = max(end for _, end in times) - min(began for began, _ in times)
    return count * len(threads) / took if used > BUSY * took * len(threads) else None


def cases(floor: Any, pool: Any, other: Any, count: int) -> 'Dict[str, Callable[[], Optional[float]]]':
    one, two = ('localhost', 1), ('localhost', 2)
    return {
        'floor, 1 thread': lambda: throughput([floor], [one], count),
        'floor, 2 threads': lambda: throughput([floor, floor], [one, two], count),
        'pool, 1 thread': lambda: throughput([pool], [one], count),
        'pool, 2 threads, 2 endpoints': lambda: throughput([pool, pool], [one, two], count),
        'pool, 2 threads, 1 endpoint': lambda: throughput([pool, pool], [one, one], count),
        '2 pools, 2 threads': lambda: throughput([pool, other], [one, two], count),
    }


def measure(floor: Any, rounds: int, count: int) -> List[Dict[str, float]]:
    pool, other = threads_pool(min_idle=2), threads_pool(min_idle=2)
    measured = []
    try:
        for _ in range(rounds):
            row = {name: run() for name, run in cases(floor, pool, other, count).items()}
            if None not in row.values():
                measured.append(row)
    finally:
        pool.close()
        other.close()
    return measured


def main() -> int:
    parser = argparse.ArgumentParser(description='Compare how the pool and an empty context manager scale.')
    parser.add_argument('floor', metavar='FLOOR_DIRECTORY', help='where the compiled module floor is')
    parser.add_argument('--rounds', type=int, default=200)
    parser.add_argument('--count', type=int, default=20_000, help='blocks of one thread in one round')
    arguments = parser.parse_args()
    sys.path.append(arguments.floor)
    floor = importlib.import_module('floor').Floor()
    if getattr(sys, '_is_gil_enabled', lambda: True)():
        print('the GIL is on: nothing to be measured')
        return 1
    rows = measure(floor, arguments.rounds, arguments.count)
    print(f'Python {sys.version.split()[0]} without a GIL; {len(rows)} of {arguments.rounds} rounds ran undisturbed')
    if not rows:
        return 1

    def median(quotient: 'Callable[[Dict[str, float]], float]') -> float:
        return statistics.median(map(quotient, rows))

    for name in ('floor, 1 thread', 'pool, 1 thread'):
        print(f'{name}: {median(lambda row: 1e9 / row[name]):.0f} ns')
    ideal = median(lambda row: row['floor, 2 threads'] / row['floor, 1 thread'])
    print(f'floor, 2 threads: {ideal:.2f} of the throughput of one')
    for name, target in (
        ('pool, 2 threads, 2 endpoints', '>= 1'),
        ('pool, 2 threads, 1 endpoint', '>= 0.8'),
        ('2 pools, 2 threads', 'for comparison'),
    ):
        gained = median(lambda row: row[name] / row['pool, 1 thread'])
        compared = median(
            lambda row: row[name] / row['pool, 1 thread'] / (row['floor, 2 threads'] / row['floor, 1 thread'])
        )
        print(f'{name}: {gained:.2f} of the throughput of one; {compared:.2f} of what the floor gains ({target})')
    return 0


if __name__ == '__main__':
    sys.exit(main())
