#!/usr/bin/env python3
"""Runs simulations with fresh seeds for as long as asked; the first failure is replayed, shrunk and printed.

    python tests/simulation/soak.py --flavour threads|asyncio|all --seconds N [--seed S] [--core cython|python]

Without ``--core``, half of the time goes to each core that is installed. A failure is to be added to ``seeds/``.
"""

import argparse
import collections
import importlib.util
import os
import pathlib
import random
import subprocess
import sys
import time
import traceback
from typing import Any, Counter, List, Tuple, Union

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FLAVOURS = ('threads', 'asyncio')
CORES = ('cython', 'python')
#: seconds that a failure is shrunk for at the most
SHRINKING = 60.0
#: lines of its trace that are shown
LONGEST_TRACE = 400


def make_importable() -> None:
    """The tests' own modules, and the library if it is not installed."""
    here = [path for path in sys.path if path and pathlib.Path(path).resolve() == HERE]
    for path in here:
        sys.path.remove(path)
    sys.path.insert(0, str(HERE.parent))
    sys.path.append(str(ROOT))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--flavour', choices=(*FLAVOURS, 'all'), default='all')
    parser.add_argument('--seconds', type=float, default=120.0, help='how long to run in all')
    parser.add_argument('--seed', type=int, default=None, help='the first seed; one is made up if it is not given')
    parser.add_argument('--core', choices=CORES, default=None)
    options = parser.parse_args()
    make_importable()
    seed = random.SystemRandom().randrange(10**9) if options.seed is None else options.seed
    flavours = FLAVOURS if options.flavour == 'all' else (options.flavour,)
    cores = installed_cores() if options.core is None else (options.core,)
    seconds = options.seconds / (len(flavours) * len(cores))
    if len(flavours) * len(cores) == 1:
        os.environ['GENERIC_CONNECTION_POOL_PURE'] = str(int(cores[0] == 'python'))
        return soak(flavours[0], cores[0], seed, seconds)
    status = 0
    for flavour in flavours:
        for core in cores:  # which one is decided by the first import, hence a process for each
            arguments = ['--flavour', flavour, '--core', core, '--seed', str(seed), '--seconds', str(seconds)]
            status |= subprocess.run([sys.executable, str(HERE / 'soak.py'), *arguments]).returncode
    return 1 if status else 0


def installed_cores() -> Tuple[str, ...]:
    return CORES if importlib.util.find_spec('_cpool.core') is not None else ('python',)


def soak(flavour: str, core: str, seed: int, seconds: float) -> int:
    """Run one flavour with one core. Returns the exit status."""
    from simulation.choices import Choices
    from simulation.recorded import recorded_runs

    world = importlib.import_module(f'simulation.{flavour}_world')
    import generic_connection_pool

    assert generic_connection_pool.core_implementation == core, generic_connection_pool.core_implementation
    print(f'{flavour}, {core} core, Python {sys.version.split()[0]}: from seed {seed}', flush=True)
    for recorded in recorded_runs(flavour):
        choices = recorded.choices()
        outcome = attempt(world, choices)
        if isinstance(outcome, BaseException):
            return report(world, core, choices, outcome)
    tally: Counter[str] = collections.Counter()
    steps = runs = 0
    started, used = time.monotonic(), time.process_time()
    while time.monotonic() < started + seconds:
        choices = Choices(seed + runs)
        outcome = attempt(world, choices)
        if isinstance(outcome, BaseException):
            return report(world, core, choices, outcome)
        steps += outcome
        runs += 1
        tally.update(choices.tally)
    elapsed, used = time.monotonic() - started, time.process_time() - used
    rate, pure_rate = 60 * steps / elapsed, 60 * steps / max(used, 1e-9)
    print(f'  {runs} runs, {steps} steps in {elapsed:.1f} s, of which {used:.1f} s on a processor')
    print(f'  {rate:,.0f} steps a minute, {pure_rate:,.0f} a minute of processor time')
    print('  ' + ', '.join(f'{what} {count}' for what, count in sorted(tally.items())), flush=True)
    return 0


def attempt(world: Any, choices: Any) -> Union[int, BaseException]:
    """Make a run. Returns its steps, or what went wrong."""
    try:
        return int(world.run(choices))
    except BaseException as exc:
        if type(exc) is KeyboardInterrupt:  # not one of the simulation's
            raise
        return exc


def signature(exc: BaseException) -> Tuple[str, str]:
    """What makes two failures the same one: their kind, and the text up to the first colon."""
    return type(exc).__name__, str(exc).partition(':')[0]


def report(world: Any, core: str, failed: Any, first: BaseException) -> int:
    """Replay a run that has failed, shrink it, and print what happens in it. Returns the exit status."""
    from simulation.choices import Choices
    from simulation.shrinking import shrink

    print(f'FAILED with seed {failed.seed}, {core} core; {len(failed.made)} decisions', flush=True)
    again = Choices(0, failed.made)
    error = attempt(world, again)
    if not isinstance(error, BaseException) or again.made != failed.made:
        print('  and it does not replay exactly: a defect of the simulation, there is chance that it does not know of')
        if not isinstance(error, BaseException):
            error = first
    traceback.print_exception(type(error), error, error.__traceback__)
    if error is first:
        return 1
    wanted = signature(error)

    def fails(script: List[int]) -> bool:
        found = attempt(world, Choices(0, script))
        return isinstance(found, BaseException) and signature(found) == wanted

    script = shrink(fails, failed.made, SHRINKING)
    shown = Choices(0, script)
    shown.trace = []
    found = attempt(world, shown)
    print(f'shrunk to {len(script)} decisions; for seeds/: {core} {",".join(map(str, script))}, {found}')
    if len(shown.trace) > LONGEST_TRACE:
        print(f'... {len(shown.trace) - LONGEST_TRACE} lines ...')
    print('\n'.join(shown.trace[-LONGEST_TRACE:]))
    print(f'{type(found).__name__}: {found}', flush=True)
    return 1


if __name__ == '__main__':
    sys.exit(main())
