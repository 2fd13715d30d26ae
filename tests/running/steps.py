"""The steps of a run: the suite with either core, the type checkers, and what runs for a time rather than to an end."""

import os
import subprocess
import xml.etree.ElementTree
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from running.environments import Environment
from running.jobs import ROOT, WORK, Counts, Job, Output, clean_environ

SETTINGS = ROOT / 'pyproject.toml'
CORES = {'0': 'cython', '1': 'python'}
# tests that try both cores in one process, or how they are built: once for each interpreter is enough
BOTH_AT_ONCE = ('core', 'exhaustive', 'packaging', 'stress/test_core_threads.py')
# tests of managers, which hardly know the core, and take long
MANAGERS = ('contrib', 'fuzz/test_connect_keywords.py', 'secrets/test_secrets_of_managers.py')
# tests that have nothing, or little, to do with the interpreter: each environment builds a wheel anyway
ONCE = ('exhaustive', 'fuzz/test_public_names.py', 'packaging/test_build.py', 'running', 'test_examples.py')

# the checkers run side by side, and must not write into the same cache
ALONE = ('--cache-dir', os.devnull)

WHICH_CORE = """
import sys, sysconfig, generic_connection_pool as package
from generic_connection_pool import asyncio, threading
assert package.__file__.startswith(sys.prefix), f'{package.__file__} is not the installed package'
if sysconfig.get_config_var('Py_GIL_DISABLED'):
    assert not sys._is_gil_enabled(), 'importing the package has brought the global interpreter lock back'
print(package.core_implementation)
"""


class Script(NamedTuple):
    """A script that is run once with each core, on the newest Python.

    :param command: its path under ``tests/``, and its arguments, in which ``{core}`` and ``{seconds}`` are filled in
    :param seconds: for how long it usually runs, if it does not run to an end
    :param usual: whether it is run unless it is left out
    :param alone: whether nothing else may run meanwhile
    """

    command: Tuple[str, ...]
    seconds: int = 0
    usual: bool = True
    alone: bool = False


SCRIPTS = {
    'simulation': Script(
        ('simulation/soak.py', '--flavour', 'all', '--core', '{core}', '--seconds', '{seconds}'), seconds=60
    ),
    'chaos': Script(('chaos/run.py', '--core', '{core}', '--seconds', '{seconds}'), seconds=30, alone=True),
    'flat': Script(('stress/flat',), usual=False),
}


def variables_of(environment: Environment, pure: str) -> Dict[str, str]:
    """Return what tells the tests which core of which environment is theirs."""
    return {'GENERIC_CONNECTION_POOL_PURE': pure, 'TESTED_PREFIX': str(environment.path)}


def has_core(environment: Environment, pure: str, output: Output, **variables: str) -> bool:
    """Tell whether the package that is installed is the one that is used, with the core asked for."""
    answer = subprocess.run(
        [environment.python, '-c', WHICH_CORE],
        cwd=WORK, env=clean_environ(**variables), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    if answer.returncode == 0 and answer.stdout.strip() == CORES[pure]:
        return True
    output.say(f'the {CORES[pure]} core was asked for; got: {answer.stdout.strip() or "nothing"}')
    return False


def count(report: Path) -> Counts:
    """Return how many tests passed, failed and were skipped. No report at all counts as one failure."""
    try:
        suites = list(xml.etree.ElementTree.parse(report).getroot().iter('testsuite'))
    except (OSError, xml.etree.ElementTree.ParseError):
        return Counts(failed=1)
    total, failures, errors, skipped = (
        sum(int(suite.get(name, 0)) for suite in suites) for name in ('tests', 'failures', 'errors', 'skipped')
    )
    return Counts(total - failures - errors - skipped, failures + errors, skipped)


def run_tests(
    environment: Environment, pure: str, output: Output, *arguments: 'str | Path', **variables: str
) -> Counts:
    """Run pytest in an environment.

    :param pure: which core
    :param arguments: for pytest: what to run
    :param variables: for the environment of the tests, beside those that choose the core
    """
    if not has_core(environment, pure, output, **variables_of(environment, pure), **variables):
        return Counts(failed=1)
    report = output.path.with_suffix('.xml')
    report.unlink(missing_ok=True)
    code = output.run(
        environment.executable('pytest'), '-c', SETTINGS, '--rootdir', ROOT, '-p', 'no:cacheprovider',
        f'--junitxml={report}', *arguments, **variables_of(environment, pure), **variables,
    )  # fmt: skip
    counts = count(report)
    if code != 0 and not counts.failed:
        return counts._replace(failed=1)  # pytest itself gave up
    return counts


def outcome(output: Output, *command: 'str | Path', **variables: str) -> Counts:
    """Run a command that passes or fails as a whole."""
    failed = int(output.run(*command, **variables) != 0)
    return Counts(passed=1 - failed, failed=failed)


def all_but(*paths: str) -> 'List[str | Path]':
    """Return the arguments with which pytest runs all tests but some."""
    return [ROOT / 'tests', *(f'--ignore={ROOT / "tests" / path}' for path in paths)]


def test_jobs(environment: Environment, prepared: Job, once: bool, alone: bool) -> Iterator[Job]:
    """Yield the runs of the suite, one for each core.

    :param once: whether the tests that have nothing to do with the interpreter are among them, and those of managers with
        the compiled core
    :param alone: whether no other interpreter is tested: then those of managers run with the pure core, too
    """
    for pure, core in CORES.items():
        left_out: Tuple[str, ...] = () if once else ONCE
        if core == 'python':
            left_out += BOTH_AT_ONCE
        if not once or (core == 'python' and not alone):
            left_out += MANAGERS
        yield Job(prepared.interpreter, f'tests, {core} core', _testing(environment, pure, left_out), prepared)


def _testing(environment: Environment, pure: str, left_out: Sequence[str]) -> Callable[[Output], Counts]:
    return lambda output: run_tests(environment, pure, output, *all_but(*left_out))


def interleavings_job(environment: Environment, prepared: Job) -> Job:
    """Return the run of the exhaustive tests in which each interleaving is run by itself."""
    tests = ROOT / 'tests' / 'exhaustive' / 'test_core_interleavings.py'
    return Job(
        prepared.interpreter, 'each interleaving',
        lambda output: run_tests(environment, '0', output, tests, TEST_EACH_INTERLEAVING='1'), prepared,
    )  # fmt: skip


def typing_jobs(environment: Environment, prepared: Job) -> Iterator[Job]:
    uses = ROOT / 'tests' / 'typing'  # code as a user has it, so the checkers see the installed package
    python = environment.python
    examples = sorted((ROOT / 'examples').glob('*.py'))
    for name, *arguments in (
        ('mypy, package', 'mypy', *ALONE, '--strict', '--config-file', SETTINGS, ROOT / 'generic_connection_pool'),
        ('mypy, examples', 'mypy', *ALONE, '--strict', '--config-file', SETTINGS, *examples),
        ('mypy, tests/typing', 'mypy', *ALONE, '--strict', '--config-file', SETTINGS, uses),
        ('stubtest', 'mypy.stubtest', '_cpool'),
        ('pyright, tests/typing', 'pyright', '--pythonpath', python, uses),
    ):
        yield Job(prepared.interpreter, name, _checking(python, arguments), prepared)


def _checking(python: Path, arguments: Sequence[Any]) -> Callable[[Output], Counts]:
    return lambda output: outcome(output, python, '-m', *arguments)


def script_jobs(name: str, environment: Environment, prepared: Job, seconds: Optional[int]) -> Iterator[Job]:
    """Yield the jobs of a script, one for each core.

    :param seconds: for how long, if not for as long as it usually runs
    """
    script = SCRIPTS[name]
    for pure, core in CORES.items():
        command = [part.format(core=core, seconds=seconds or script.seconds) for part in script.command]
        work = _running(environment, pure, command)
        yield Job(prepared.interpreter, f'{name}, {core} core', work, prepared, script.alone)


def _running(environment: Environment, pure: str, command: List[str]) -> Callable[[Output], Counts]:
    path, *arguments = command

    def work(output: Output) -> Counts:
        variables = variables_of(environment, pure)
        if not has_core(environment, pure, output, **variables):
            return Counts(failed=1)
        return outcome(output, environment.python, ROOT / 'tests' / path, *arguments, **variables)

    return work
