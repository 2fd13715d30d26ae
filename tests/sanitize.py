"""Run the suite with the compiled core built by sanitizers, which watch every access to memory and every race.

    setarch -R python tests/sanitize.py [--only address|leaks|threads]... [--jobs N]

``address``
    AddressSanitizer and UndefinedBehaviorSanitizer, on the newest Python: the whole suite but for the tests of the
    build, with Python's own objects taken from ``malloc`` so that they are watched, too.
``leaks``
    LeakSanitizer on the same build: what pools do (``tests/stress/flat``), a few times and often. What was allocated
    through the core and never given back must not depend on how often. The number itself is not 0, because CPython
    does not free everything before it ends.
``threads``
    ThreadSanitizer, on the free-threaded interpreter built with it that ``PYTHON_TSAN`` names; left out if none is
    named. The tests of the core and of the threads pool, and the stress tests. Only races count: everything takes some
    fifty times as long, which is too long for the timeouts of some tests. ``sanitizers/cpython-races.txt`` names races
    inside CPython that are not reported.

Every finding is an error, in whatever process it was made: reports go to files, and there must be none. Linux, GCC.
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Callable, Dict, Iterator, List

from running.environments import Environment
from running.interpreters import Interpreter, examine, find_interpreters, newest
from running.jobs import ROOT, WORK, Counts, Job, Output, StepFailed, available_cores, report, run_jobs, say
from running.steps import ONCE, all_but, run_tests, variables_of

#: names the interpreter for ThreadSanitizer
PYTHON_TSAN = 'PYTHON_TSAN'
PARTS = ('address', 'leaks', 'threads')
TESTS = ROOT / 'tests'
#: what ThreadSanitizer runs: everything with threads that needs no server
THREADED = (
    'core', 'pool/threading', 'pool/test_threading_shared_lock.py', 'stress/test_core_threads.py',
    'stress/test_threading_stress.py',
)  # fmt: skip
#: AddressSanitizer of GCC 12 leaves its own allocator locked in the child if another thread is in it during the fork
FORKS_OF_BUSY_THREADS = 'tests/process/test_fork_threads.py::test_forks_at_random_instants_of_busy_threads'
#: how often the stages run to find leaks: of what leaks each time, the second run leaks more
FEW, OFTEN = 200, 2000
#: personality flag of a process whose addresses are not random
ADDR_NO_RANDOMIZE = 0x0040000

LEAK = re.compile(r'^(?:Direct|Indirect) leak of \d+ byte\(s\) in (\d+) object\(s\)')


def library(name: str) -> str:
    """Return the path of a sanitizer's run-time library."""
    path = subprocess.run(['gcc', f'-print-file-name={name}'], stdout=subprocess.PIPE, check=True, text=True).stdout
    if not Path(path.strip()).is_absolute():
        raise LookupError(f'GCC has no {name}')
    return path.strip()


def build_flags(*sanitizers: str) -> Dict[str, str]:
    flags = f'-fsanitize={",".join(sanitizers)} -fno-omit-frame-pointer -g'
    if 'undefined' in sanitizers:
        # Stops the process by a signal, which AddressSanitizer reports. By itself, UndefinedBehaviorSanitizer writes to
        # the standard error output if both are there, where what a subprocess says may be seen by nobody.
        flags += ' -fsanitize-undefined-trap-on-error'
    return {'CFLAGS': f'-O1 {flags}', 'LDFLAGS': flags}


def options(**values: object) -> str:
    return ':'.join(f'{name}={value}' for name, value in values.items())


class Findings:
    """The files into which the sanitizers of all processes of a job write.

    :param name: of the job
    """

    def __init__(self, name: str):
        self.prefix = WORK / f'findings-{name}'
        for path in self.paths():
            path.unlink()

    def paths(self) -> List[Path]:
        return sorted(WORK.glob(f'{self.prefix.name}.*'))

    def judge(self, counts: Counts, output: Output) -> Counts:
        """Show all findings, and count each as a failure."""
        for path in self.paths():
            output.say(f'--- {path.name}\n{path.read_text("utf-8", "replace")}')
        return counts._replace(failed=counts.failed + len(self.paths()))


# AddressSanitizer, UndefinedBehaviorSanitizer and LeakSanitizer


def address_variables(findings: Findings, **address_options: object) -> Dict[str, str]:
    # 2: whatever pytest does with these signals
    fatal_signals = {'handle_segv': 2, 'handle_sigbus': 2, 'handle_sigill': 2, 'handle_sigfpe': 2}
    return {
        'LD_PRELOAD': library('libasan.so'),
        'PYTHONMALLOC': 'malloc',
        'ASAN_OPTIONS': options(log_path=findings.prefix, **fatal_signals, **address_options),
    }


def test_addresses(environment: Environment, output: Output) -> Counts:
    findings = Findings('address')
    # leaks: see below; here, every subprocess of a test would be late by the search
    variables = address_variables(findings, detect_leaks=0, detect_stack_use_after_return=1)
    tests = all_but('packaging', 'stress/test_flat.py', *ONCE)
    counts = run_tests(environment, '0', output, *tests, f'--deselect={FORKS_OF_BUSY_THREADS}', **variables)
    return findings.judge(counts, output)


def leaked(environment: Environment, count: int, output: Output) -> int:
    """Return how many objects are left that were allocated through the core, after so many operations."""
    findings = Findings(f'leaks-{count}')
    variables = {
        **address_variables(findings, detect_leaks=1, fast_unwind_on_malloc=0, malloc_context_size=20, exitcode=0),
        **variables_of(environment, '0'),
    }
    output.must_run(environment.python, TESTS / 'stress' / 'flat', '--count', str(count), '--report-only', **variables)
    left = 0
    for path in findings.paths():
        text = path.read_text('utf-8', 'replace')
        if 'ERROR: LeakSanitizer' not in text:
            output.say(text)
            raise StepFailed('this is no leak')
        for record in text.split('\n\n'):
            head = LEAK.match(record.strip())
            if head is not None and '/_cpool/' in record:
                left += int(head.group(1))
                if count == OFTEN:
                    output.say(record)
    return left


def test_leaks(environment: Environment, output: Output) -> Counts:
    few, often = (leaked(environment, count, output) for count in (FEW, OFTEN))
    output.say(f'objects allocated through the core and left: {few} after {FEW} operations, {often} after {OFTEN}')
    return Counts(passed=1) if often <= few else Counts(failed=1)


# ThreadSanitizer


def thread_variables(findings: Findings) -> Dict[str, str]:
    suppressions = TESTS / 'sanitizers' / 'cpython-races.txt'
    return {
        'PYTHON_GIL': '0',  # whatever a test imports: the lock would hide the races
        # tests leave daemon threads behind on purpose, which are reported as leaked threads unless that is turned off
        'TSAN_OPTIONS': options(
            log_path=findings.prefix, suppressions=suppressions, halt_on_error=0, exitcode=0, report_thread_leaks=0
        ),
    }


def test_threads(environment: Environment, output: Output) -> Counts:
    findings = Findings('threads')
    arguments = [TESTS / path for path in THREADED]
    counts = run_tests(environment, '0', output, *arguments, **thread_variables(findings))
    if counts.passed and counts.failed:  # if pytest itself had died, none would have passed
        output.say(f'{counts.failed} tests were too slow for their timeouts, or failed otherwise: not counted here')
        counts = counts._replace(failed=0)
    return findings.judge(counts, output)


def interpreter_for_threads() -> Interpreter:
    """Return the interpreter built with ThreadSanitizer.

    :raises LookupError: it cannot be used
    """
    interpreter = examine(Path(os.environ[PYTHON_TSAN]).absolute())
    if interpreter is None or not interpreter.usable or not interpreter.free_threaded:
        raise LookupError(f'{PYTHON_TSAN} does not name a free-threaded CPython with its headers and venv')
    if not int(Path('/proc/self/personality').read_text(), 16) & ADDR_NO_RANDOMIZE:
        raise LookupError('ThreadSanitizer needs addresses that are not random: run this under "setarch -R"')
    return interpreter


def plan(parts: List[str]) -> Iterator[Job]:
    if 'address' in parts or 'leaks' in parts:
        interpreter = newest(find_interpreters())
        environment = Environment(interpreter, 'test', 'address-sanitizer', **build_flags('address', 'undefined'))
        prepared = Job(interpreter.label, 'environment, AddressSanitizer', environment.prepare)
        yield prepared
        for name, work in (('address', test_addresses), ('leaks', test_leaks)):
            if name in parts:
                yield Job(interpreter.label, f'sanitizers, {name}', work_in(environment, work), prepared)
    if 'threads' in parts:
        interpreter = interpreter_for_threads()
        quiet = {'TSAN_OPTIONS': options(report_bugs=0)}  # pip and Cython are no concern of ours
        environment = Environment(interpreter, 'test-base', 'thread-sanitizer', **build_flags('thread'), **quiet)
        prepared = Job(interpreter.label, 'environment, ThreadSanitizer', environment.prepare)
        yield prepared
        yield Job(interpreter.label, 'sanitizers, threads', work_in(environment, test_threads), prepared)


def work_in(
    environment: Environment, work: Callable[[Environment, Output], Counts]
) -> Callable[[Output], Counts]:
    return lambda output: work(environment, output)


def main() -> int:
    parser = argparse.ArgumentParser(description='Run the suite with the compiled core built by sanitizers.')
    parser.add_argument('--only', choices=PARTS, action='append', help='run this part; may be given several times')
    parser.add_argument('--jobs', type=int, metavar='N', default=available_cores(), help='at once; default: one a core')
    arguments = parser.parse_args()
    parts = arguments.only or list(PARTS)
    if 'threads' in parts and not os.environ.get(PYTHON_TSAN):
        say(f'ThreadSanitizer is left out: {PYTHON_TSAN} names no interpreter that was built with it')
        if arguments.only:
            return 1
        parts.remove('threads')
    try:
        jobs = list(plan(parts))
    except LookupError as exc:
        say(str(exc))
        return 1
    return report(run_jobs(jobs, arguments.jobs))


if __name__ == '__main__':
    sys.exit(main())
