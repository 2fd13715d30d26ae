"""Run the whole suite: every supported CPython that is installed, each with both cores, then the type checkers.

    python tests/run_all.py [--only tests|typing] [VERSION ...]

Everything is tested as a user has it: as a wheel, built and installed into an environment of its own under ``.venv/``.
Environments are kept, and brought up to date when the sources of the wheel have changed. Stops at the first failure.
The last line sums up all runs. Needs nothing but the standard library.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ROOT / '.venv'
WORK = ENVIRONMENTS / 'run'  # where everything runs: away from the checkout, so that nothing is imported from it
SUPPORTED = ('3.10', '3.11', '3.12', '3.13', '3.14')
WHEEL_SOURCES = ('LICENSE', 'README.md', '_cpool', 'generic_connection_pool', 'pyproject.toml', 'setup.py', 'stubs')
NOT_SOURCES = shutil.ignore_patterns('__pycache__', '*.so', '*.pyd', '*.c', '.*')
CORES = {'0': 'cython', '1': 'python'}
# tests that try both cores in one process, or how they are built: once for each interpreter is enough
BOTH_AT_ONCE = [
    f'--ignore={ROOT / "tests" / path}' for path in ('core', 'packaging', 'stress/test_core_threads.py')
]

PROBE = """
import ensurepip, json, os, sys, sysconfig, venv
print(json.dumps({
    'executable': sys.executable,
    'version': '%d.%d' % sys.version_info[:2],
    'cpython': sys.implementation.name == 'cpython',
    'free-threaded': bool(sysconfig.get_config_var('Py_GIL_DISABLED')),
    'headers': os.path.exists(os.path.join(sysconfig.get_path('include'), 'Python.h')),
}))
"""

WHICH_CORE = """
import sys, generic_connection_pool as package
assert package.__file__.startswith(sys.prefix), f'{package.__file__} is not the installed package'
print(package.core_implementation)
"""


class StepFailed(Exception):
    """A step failed; it has said why."""


class Row(NamedTuple):
    interpreter: str
    step: str
    passed: int
    failed: int
    skipped: int
    seconds: float


def clean_environ(**variables: str) -> Dict[str, str]:
    """Return the environment without what would redirect Python's imports or choose a core."""
    dropped = ('PYTHON', 'GENERIC_CONNECTION_POOL', '__PYVENV')
    return {**{name: value for name, value in os.environ.items() if not name.startswith(dropped)}, **variables}


def say(text: str) -> None:
    print(text, flush=True)


def run(*command: 'str | Path', **variables: str) -> int:
    say(f'$ {" ".join(map(str, command))}')
    return subprocess.run(command, cwd=WORK, env=clean_environ(**variables), stdin=subprocess.DEVNULL).returncode


def must_run(*command: 'str | Path') -> None:
    if run(*command) != 0:
        raise StepFailed(f'{Path(command[0]).name} failed')


# Interpreters


def candidates() -> Iterator[Path]:
    """Yield where interpreters may be: on the PATH, in pyenv, and the one that runs this."""
    pyenv = Path(os.environ.get('PYENV_ROOT') or Path.home() / '.pyenv')
    for version in SUPPORTED:
        for directory in os.get_exec_path():
            yield Path(directory, f'python{version}')
        yield from sorted(pyenv.glob(f'versions/{version}.*/bin/python{version}'), reverse=True)
    yield Path(sys.executable)


def find_interpreters() -> Dict[str, Path]:
    """Return the first usable interpreter of each supported version. A pyenv shim may be there and still not run."""
    found: Dict[str, Path] = {}
    for path in candidates():
        if not path.is_file():
            continue
        try:
            answer = subprocess.run(
                [path, '-c', PROBE], env=clean_environ(), capture_output=True, check=True, timeout=60, text=True
            )
            facts = json.loads(answer.stdout)
        except (OSError, subprocess.SubprocessError, ValueError):
            continue
        if facts['cpython'] and not facts['free-threaded'] and facts['headers'] and facts['version'] in SUPPORTED:
            found.setdefault(facts['version'], Path(facts['executable']))
    return {version: found[version] for version in SUPPORTED if version in found}


# Environments


def fingerprint(python: Path, extra: str) -> str:
    """Return a text that changes when an environment has to be brought up to date."""
    digest = hashlib.sha256(f'{python} {extra}'.encode())
    for name in WHEEL_SOURCES:
        top = ROOT / name
        for path in sorted(top.rglob('*')) if top.is_dir() else [top]:
            if path.suffix in ('.py', '.pyi', '.pyx', '.pxd', '.h', '.toml', '.md', '.typed', ''):
                digest.update(str(path.relative_to(ROOT)).encode())
                digest.update(path.read_bytes() if path.is_file() else b'')
    return digest.hexdigest()


def copy_sources(to: Path) -> None:
    """Copy what a wheel is built from: building in the checkout would leave files, and pick up old ones."""
    for name in WHEEL_SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name, ignore=NOT_SOURCES)
        else:
            shutil.copy2(ROOT / name, to / name)


def executable(environment: Path, name: str) -> Path:
    return environment / ('Scripts' if os.name == 'nt' else 'bin') / name


def prepare(version: str, python: Path, extra: str) -> Path:
    """Return an environment in which the wheel of the present sources is installed."""
    environment = ENVIRONMENTS / version
    stamp = environment / 'installed'
    wanted = fingerprint(python, extra)
    if stamp.is_file() and stamp.read_text() == wanted:
        return environment
    stamp.unlink(missing_ok=True)
    own_python = executable(environment, 'python')
    if not own_python.exists():
        must_run(python, '-m', 'venv', '--clear', environment)
    pip = (own_python, '-m', 'pip', '--quiet', '--disable-pip-version-check')
    with tempfile.TemporaryDirectory() as scratch:
        sources, wheels = Path(scratch, 'sources'), Path(scratch, 'wheels')
        sources.mkdir()
        copy_sources(sources)
        must_run(*pip, 'wheel', '--no-deps', '--wheel-dir', wheels, sources)
        (wheel,) = wheels.glob('*.whl')
        must_run(*pip, 'install', f'{wheel}[{extra}]')
        # the version has not changed since the last time, so pip would leave the old one where it is
        must_run(*pip, 'install', '--no-deps', '--force-reinstall', wheel)
    stamp.write_text(wanted)
    return environment


# Steps


def count(report: Path) -> 'tuple[int, int, int]':
    """Return how many tests passed, failed and were skipped. No report at all counts as one failure."""
    try:
        suites = list(xml.etree.ElementTree.parse(report).getroot().iter('testsuite'))
    except (OSError, xml.etree.ElementTree.ParseError):
        return 0, 1, 0
    total, failures, errors, skipped = (
        sum(int(suite.get(name, 0)) for suite in suites) for name in ('tests', 'failures', 'errors', 'skipped')
    )
    return total - failures - errors - skipped, failures + errors, skipped


def run_tests(version: str, environment: Path, pure: str) -> Row:
    core = CORES[pure]
    say(f'\n=== {version}, {core} core')
    began = time.monotonic()
    variables = {'GENERIC_CONNECTION_POOL_PURE': pure, 'TESTED_PREFIX': str(environment)}
    answer = subprocess.run(
        [executable(environment, 'python'), '-c', WHICH_CORE],
        cwd=WORK, env=clean_environ(**variables), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    report = WORK / f'{version}-{core}.xml'
    report.unlink(missing_ok=True)
    code = 1
    if answer.returncode != 0 or answer.stdout.strip() != core:
        say(f'the {core} core was asked for; got: {answer.stdout.strip() or "nothing"}')
    else:
        code = run(
            executable(environment, 'pytest'), '-c', ROOT / 'pyproject.toml', '--rootdir', ROOT, ROOT / 'tests',
            '-p', 'no:cacheprovider', f'--junitxml={report}', *(BOTH_AT_ONCE if core == 'python' else ()), **variables,
        )  # fmt: skip
    passed, failed, skipped = count(report)
    if code != 0 and failed == 0:
        failed = 1  # pytest itself gave up
    return Row(version, f'tests, {core} core', passed, failed, skipped, time.monotonic() - began)


def run_type_checkers(version: str, environment: Path) -> Iterator[Row]:
    python = executable(environment, 'python')
    settings = ROOT / 'pyproject.toml'
    uses = ROOT / 'tests' / 'typing'  # code as a user has it, so the checkers see the installed package
    for name, *command in (
        ('mypy, package', 'mypy', '--strict', '--config-file', settings, ROOT / 'generic_connection_pool'),
        ('mypy, tests/typing', 'mypy', '--strict', '--config-file', settings, uses),
        ('stubtest', 'mypy.stubtest', '_cpool'),
        ('pyright, tests/typing', 'pyright', '--pythonpath', python, uses),
    ):
        say(f'\n=== {version}, {name}')
        began = time.monotonic()
        failed = int(run(python, '-m', *command) != 0)
        yield Row(version, name, 1 - failed, failed, 0, time.monotonic() - began)


def run_everything(interpreters: Dict[str, Path], only: Optional[str]) -> Iterator[Row]:
    """Run one step after the other, yielding what came of it."""
    newest = list(interpreters)[-1]
    for version, python in interpreters.items():
        checks_types = version == newest and only != 'tests'
        if only == 'typing' and not checks_types:
            continue
        say(f'\n=== {version}, environment')
        began = time.monotonic()
        try:
            environment = prepare(version, python, 'typing' if checks_types else 'test')
        except StepFailed as exc:
            say(f'{exc}')
            yield Row(version, 'environment', 0, 1, 0, time.monotonic() - began)
            return
        if only != 'typing':
            for pure in CORES:
                yield run_tests(version, environment, pure)
        if checks_types:
            yield from run_type_checkers(version, environment)


def print_table(rows: List[Row]) -> None:
    say(f'\n{"Python":8}{"step":26}{"passed":>8}{"failed":>8}{"skipped":>8}{"seconds":>9}')
    for row in rows:
        say(f'{row.interpreter:8}{row.step:26}{row.passed:8}{row.failed:8}{row.skipped:8}{row.seconds:9.0f}')


def main() -> int:
    parser = argparse.ArgumentParser(description='Run the whole suite on every supported Python that is installed.')
    parser.add_argument('--only', choices=('tests', 'typing'), help='leave out the other half')
    parser.add_argument('versions', nargs='*', metavar='VERSION', help='such as 3.12; default: all that are installed')
    arguments = parser.parse_args()

    interpreters = find_interpreters()
    say('interpreters found:')
    for version, path in interpreters.items():
        say(f'  {version}  {path}')
    wanted = arguments.versions or list(interpreters)
    missing = [version for version in wanted if version not in interpreters]
    if missing or not interpreters:
        say(f'not found: CPython {", ".join(missing) or " or ".join(SUPPORTED)}, with its headers and venv')
        return 1

    WORK.mkdir(parents=True, exist_ok=True)
    chosen = {version: path for version, path in interpreters.items() if version in wanted}
    rows: List[Row] = []
    for row in run_everything(chosen, arguments.only):
        rows.append(row)
        if row.failed:
            say(f'\nFAILED: Python {row.interpreter}, {row.step}')
            break
    print_table(rows)
    passed, failed, skipped = (sum(getattr(row, name) for row in rows) for name in ('passed', 'failed', 'skipped'))
    say(f'{passed} passed, {failed} failed, {skipped} skipped')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
