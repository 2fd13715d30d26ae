"""Run everything: the suite on every supported CPython that is installed, with both cores, and then the steps that are
run once, on the newest one: the type checkers, and what runs for a time rather than to an end.

    python tests/run_all.py [--only STEP]... [--seconds N] [--jobs N] [VERSION ...]

Everything is tested as a user has it: as a wheel, built and installed into an environment of its own under ``.venv/``.
Environments are kept, and brought up to date when the sources of the wheel have changed. As many jobs as there are
cores run side by side; what each has written is printed when it ends. After the first failure nothing new is begun. The
last line sums up all jobs. ``PYTHON_FREE_THREADED`` names an interpreter without the global interpreter lock to test
with, too. Needs nothing but the standard library.
"""

import argparse
import sys
from typing import Dict, Iterator, List, Optional, Sequence

from running.environments import Environment
from running.interpreters import SUPPORTED, Interpreter, find_interpreters, newest
from running.jobs import Job, available_cores, report, run_jobs, say
from running.steps import SCRIPTS, interleavings_job, script_jobs, test_jobs, typing_jobs

USUAL = ('tests', 'typing', *(name for name, script in SCRIPTS.items() if script.usual))
STEPS = (*USUAL, 'interleavings', *(name for name in SCRIPTS if name not in USUAL))


def plan(interpreters: Dict[str, Interpreter], steps: Sequence[str], seconds: Optional[int]) -> Iterator[Job]:
    """Yield what there is to do, in the order in which it is to be begun.

    :param steps: which of ``STEPS``
    :param seconds: for how long each step runs that runs for a time, if not for as long as it usually does
    """
    once = newest(interpreters)
    # the newest first: its tests take the longest, and nothing would be left to run beside them
    for label, interpreter in reversed(interpreters.items()):
        if interpreter is not once and 'tests' not in steps:
            continue
        checks_types = interpreter is once and 'typing' in steps and not interpreter.free_threaded
        # the drivers of the databases do not support free-threaded interpreters
        without_drivers = 'test-base' if interpreter.free_threaded else 'test'
        environment = Environment(interpreter, 'typing' if checks_types else without_drivers)
        prepared = Job(label, 'environment', environment.prepare)
        yield prepared
        if 'tests' in steps:
            yield from test_jobs(environment, prepared, once=interpreter is once, alone=len(interpreters) == 1)
        if interpreter is once:
            for name in SCRIPTS:
                if name in steps:
                    yield from script_jobs(name, environment, prepared, seconds)
        if interpreter is once and 'interleavings' in steps:
            yield interleavings_job(environment, prepared)
        if checks_types:
            yield from typing_jobs(environment, prepared)


def main() -> int:
    cores = available_cores()
    parser = argparse.ArgumentParser(description='Run everything on every supported Python that is installed.')
    parser.add_argument('--only', choices=STEPS, action='append', help='run this step; may be given several times')
    parser.add_argument('--seconds', type=int, metavar='N', help='how long each step runs that runs for a time')
    parser.add_argument('--jobs', type=int, metavar='N', default=cores, help='at once; default and most: one a core')
    parser.add_argument('versions', nargs='*', metavar='VERSION', help='such as 3.12; default: all that are installed')
    arguments = parser.parse_args()

    try:
        interpreters = find_interpreters()
    except LookupError as exc:
        say(str(exc))
        return 1
    say('interpreters found:')
    for label, interpreter in interpreters.items():
        say(f'  {label:6}{interpreter.path}')
    wanted: List[str] = arguments.versions or list(interpreters)
    missing = [version for version in wanted if version not in interpreters]
    if missing or not interpreters:
        say(f'not found: CPython {", ".join(missing) or " or ".join(SUPPORTED)}, with its headers and venv')
        return 1

    chosen = {label: interpreter for label, interpreter in interpreters.items() if label in wanted}
    jobs = list(plan(chosen, arguments.only or USUAL, arguments.seconds))
    return report(run_jobs(jobs, max(1, min(arguments.jobs, cores))))


if __name__ == '__main__':
    sys.exit(main())
