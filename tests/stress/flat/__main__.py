"""Whether what a pool takes stays the same however long it is used: memory, references, file descriptors.

    python tests/stress/flat [--count N] [--only threads|asyncio] [--report-only] [STAGE ...]

Does each kind of thing that a pool does N times (1,000,000), in ten rounds. What is measured after the last round has
to be what was measured after the fourth, but for the noise that ``measuring.NOISE`` allows. Uses whichever core
``GENERIC_CONNECTION_POOL_PURE`` chooses. Prints by how much each figure has grown; the exit status is 1 if one has.
"""

import argparse
import asyncio
import logging
import sys
import time
import warnings
from typing import Any, AsyncIterator, Callable, Iterator, List

import in_tasks
import in_threads
import leaking
from generic_connection_pool import core_implementation
from measuring import ROUNDS, SETTLED, Measurement, Series, too_much

def run_in_threads(stage: 'Callable[[int], Iterator[None]]', count: int) -> Series:
    rounds: Any = stage(count)
    series = Series()
    for _ in range(ROUNDS):
        next(rounds)
        series.take()
    rounds.close()
    return series


async def run_in_tasks(stage: 'Callable[[int], AsyncIterator[None]]', count: int) -> Series:
    rounds: Any = stage(count)
    series = Series()
    for _ in range(ROUNDS):
        await rounds.__anext__()
        series.take()
    await rounds.aclose()
    return series


def tell(runtime: str, stage: str, count: int, series: Series, seconds: float) -> List[str]:
    """Print by how much the figures have grown in a stage, and return the names of those that must not have."""
    grown = series.growth()
    leaks = too_much(grown)
    figures = ''.join(f'{figure:>12}' for figure in grown)
    print(f'{runtime:9}{stage:22}{count:>9}{figures}{seconds:>9.1f}  {" ".join(leaks) or "flat"}', flush=True)
    for name in leaks:
        print(f'  {name} after each round: {series.of(name)}')
    return leaks


def main() -> int:
    parser = argparse.ArgumentParser(description='See whether memory, references and descriptors stay the same.')
    parser.add_argument('--count', type=int, default=1_000_000, help='of each kind of operation')
    parser.add_argument('--only', choices=('threads', 'asyncio'), help='only this runtime')
    parser.add_argument('--report-only', action='store_true', help='exit with status 0 whatever was measured')
    parser.add_argument('--self-test', action='store_true', help='see whether leaks made on purpose are found')
    parser.add_argument('stages', nargs='*', help='only these')
    arguments = parser.parse_args()
    logging.disable()  # what fails is told to the log, a million times
    warnings.simplefilter('ignore', ResourceWarning)  # of the pools that are dropped open on purpose
    print(f'Python {sys.version.split()[0]}, {core_implementation} core; growth from round {SETTLED} to {ROUNDS}')
    print(f'{"":9}{"stage":22}{"count":>9}{"".join(f"{name:>12}" for name in Measurement._fields)}{"seconds":>9}')
    failed = False
    runtimes: Any = [('threads', leaking)] if arguments.self_test else [('threads', in_threads), ('asyncio', in_tasks)]
    for runtime, module in runtimes:
        if arguments.only not in (None, runtime):
            continue
        for name, (stage, share) in module.STAGES.items():
            if arguments.stages and name not in arguments.stages:
                continue
            count = arguments.count // share
            began = time.monotonic()
            if runtime == 'threads':
                series = run_in_threads(stage, max(count // ROUNDS, 1))
            else:
                series = asyncio.run(run_in_tasks(stage, max(count // ROUNDS, 1)))
            leaks = tell(runtime, name, count, series, time.monotonic() - began)
            failed |= name not in leaks if arguments.self_test else bool(leaks)
    return int(failed and not arguments.report_only)


if __name__ == '__main__':
    sys.exit(main())
