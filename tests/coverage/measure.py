"""How much of the library the suite runs: branches of the Python code, with both cores, and lines of the compiled core.

    python tests/coverage/measure.py [--only python|cython] [--work DIR] [--jobs N] [--built | --keep]

A copy of the working tree is made under ``--work``. In it the suite runs with either core for the branches of the
Python code (subprocesses included), and once more with a compiled core that is built to be traced, line by line.
Several parts of that run side by side, each in a process of its own, so that one which breaks off does not take the
rest with it.

What is not reached has to be explained in ``misses.toml``. A miss without an explanation, an explanation of what does
not exist any more, less than 98 % of the branches, less than 95 % of the lines of the compiled core, and a test that
fails or lasts for minutes: each is a failure.

Which tests run on the traced core, and what is done so that its operations are atomic all the same: see
``undisturbed.py`` and ``inlined.py``.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Tuple

from misses import explained, is_explained, misses_of, outdated

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NAMES = (
    'generic_connection_pool', '_cpool', 'stubs', 'tests', 'docs', 'examples', 'pyproject.toml', 'setup.py',
    'README.md', 'LICENSE', 'CHANGELOG.md',
)  # fmt: skip
#: The one measures, and would measure coverage. The other has asynchronous exceptions raised in threads: as long as one
#: is on its way, CPython 3.11 has no other thread that is traced enter any function, and all may wait for ever.
LEFT_OUT = ('tests/stress/test_flat.py', 'tests/process/test_interrupts_at_random.py')
LEAST = {'python': 98.0, 'cython': 95.0}
#: seconds after which a test hangs: where, is told, and its process ended
PATIENCE = 300


class Part(NamedTuple):
    """A part of the suite.

    :param pure: which core the package is to choose
    :param tests: the directories of its tests
    """

    pure: str
    tests: Tuple[str, ...]

    @property
    def name(self) -> str:
        return f'{"pure" if self.pure == "1" else "compiled"} core, {" ".join(self.tests)}'


#: The longest first. What tests the wheel, other programs or these tools is left out; so is what sets trace functions
#: of its own all the time, and would be measured in part only.
PARTS = {
    'python': (
        Part('1', ('tests/pool',)),
        Part('0', ('tests/pool',)),
        Part('1', ('tests/core', 'tests/fuzz', 'tests/secrets')),  # tests/core tests both cores, whichever is chosen
        Part('1', ('tests/contrib', 'tests/process', 'tests/stress')),
        Part('0', ('tests/contrib', 'tests/process', 'tests/stress')),
        Part('0', ('tests/fuzz', 'tests/secrets')),
    ),
    'cython': (
        Part('0', ('tests/pool',)),
        Part('0', ('tests/core', 'tests/fuzz', 'tests/process')),
    ),
}

COMMON = """
[run]
data_file = {data}
parallel = true
relative_files = true
"""
# a forked child goes on collecting, and mostly ends with os._exit()
PYTHON = (
    COMMON
    + """
branch = true
source = generic_connection_pool
patch =
    subprocess
    _exit
"""
)
CYTHON = (
    COMMON
    + """
plugins = inlined
source = _cpool
patch = _exit
[report]
include = _cpool/*
"""
)

TRACED_BUILD = """
import glob, runpy, sys
from Cython.Build import cythonize
from setuptools import Distribution, Extension
setup = open('setup.py').read()
directives = eval(setup[setup.index('DIRECTIVES = ') + 13 : setup.index('}\\n', setup.index('DIRECTIVES = ')) + 1])
macros = [('CYTHON_TRACE', '1'), ('CYTHON_TRACE_NOGIL', '1'), ('CYTHON_USE_SYS_MONITORING', '0')]
modules = [
    Extension(path[:-4].replace('/', '.'), [path], define_macros=macros, extra_compile_args=['-O0', '-g0', '-w'])
    for path in sorted(glob.glob('_cpool/*.pyx'))
]
distribution = Distribution({'ext_modules': cythonize(modules, compiler_directives={**directives, 'linetrace': True})})
command = distribution.get_command_obj('build_ext')
command.inplace = True
command.parallel = True
command.ensure_finalized()
command.run()
"""


def say(text: str) -> None:
    print(text, flush=True)


def copy_tree(to: Path) -> None:
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    for name in NAMES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns('__pycache__', '.*', '*.so', '*.c'))
        elif (ROOT / name).exists():
            shutil.copy2(ROOT / name, to / name)


def run(copy: Path, log: Path, *command: str, **variables: str) -> int:
    """Run Python in the copy, its output going to a file, and return its exit status."""
    environ = {**os.environ, 'PYTHONPATH': f'{copy}{os.pathsep}{HERE}', 'PYTHONHASHSEED': '0', **variables}
    with log.open('wb') as stream:
        return subprocess.run(
            [sys.executable, *command],
            cwd=copy, env=environ, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
        ).returncode  # fmt: skip


def must_run(copy: Path, *command: str, **variables: str) -> None:
    log = copy / 'tool.log'
    if run(copy, log, *command, **variables):
        sys.exit(f'{log.read_text(errors="replace")}\nfailed: {" ".join(command)}')


def build(copy: Path, kind: str) -> None:
    if kind == 'python':
        must_run(
            copy, 'setup.py', '-q', 'build_ext', '--inplace', GENERIC_CONNECTION_POOL_PURE='0', CFLAGS='-O1 -g0 -w'
        )
    else:
        must_run(copy, '-c', TRACED_BUILD)


def prepare(copy: Path, kind: str, built: bool) -> None:
    """Have a copy that is built, what coverage is told, and no data of earlier runs."""
    if not built:
        copy_tree(copy)
        build(copy, kind)
    data = copy / f'data-{kind}'
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir()
    (copy / 'coverage.cfg').write_text((PYTHON if kind == 'python' else CYTHON).format(data=data / 'coverage'))


def run_part(copy: Path, kind: str, number: int) -> bool:
    """Run a part of the suite. Returns whether all of its tests passed."""
    part = PARTS[kind][number]
    log = copy / f'part-{number}.log'
    plugins = ('-p', 'unlocked', *(('-p', 'undisturbed') if kind == 'cython' else ()))
    began = time.monotonic()
    code = run(
        copy, log, '-m', 'coverage', 'run', f'--rcfile={copy / "coverage.cfg"}', '-m', 'pytest', '-q',
        '-p', 'no:cacheprovider', '-o', f'faulthandler_timeout={PATIENCE}', '-o', 'faulthandler_exit_on_timeout=true',
        *plugins, *(f'--ignore={path}' for path in LEFT_OUT), *part.tests,
        GENERIC_CONNECTION_POOL_PURE=part.pure, COVERAGE_CORE='ctrace',
    )  # fmt: skip
    lines = log.read_text(errors='replace').splitlines() or ['']
    say(f'{kind}, {part.name}: {lines[-1].strip("= ")}, {time.monotonic() - began:.0f} s in all')
    if code:
        say('\n'.join([*lines[-200:], f'ended with {code}: {kind}, {part.name}; all of it is in {log}']))
    return code == 0


def report_of(copy: Path) -> Dict[str, Any]:
    """Combine the data of all processes and return coverage's report."""
    rc = f'--rcfile={copy / "coverage.cfg"}'
    must_run(copy, '-m', 'coverage', 'combine', '-q', rc)
    must_run(copy, '-m', 'coverage', 'json', '-q', rc, '-o', str(copy / 'report.json'))
    return dict(json.loads((copy / 'report.json').read_text()))


def is_enough(copy: Path, kind: str, report: Dict[str, Any]) -> bool:
    """Print what came of it. Returns whether that is enough."""
    totals = report['totals']
    if kind == 'python':
        covered, count, what = totals['covered_branches'], totals['num_branches'], 'branches of the Python code'
    else:
        covered, count, what = totals['covered_lines'], totals['num_statements'], 'lines of the compiled core'
    say(f'\n{kind}, Python {sys.version.split()[0]}')
    for name, file in sorted(report['files'].items()):
        summary = file['summary']
        text = f'  {name:56}{summary["covered_lines"]:6} of {summary["num_statements"]:4} lines'
        if kind == 'python':
            text += f'{summary["covered_branches"]:6} of {summary["num_branches"]:4} branches'
        say(text)
    share = 100.0 * covered / count
    say(f'{covered} of {count} {what}: {share:.1f} % (at least {LEAST[kind]:.0f})')
    say(f'lines of the same: {totals["covered_lines"]} of {totals["num_statements"]}')
    reasons = explained()
    found = list(misses_of(copy, report))
    unexplained = [miss for miss in found if not is_explained(miss.miss, reasons)]
    stale = [miss for miss in outdated(copy, reasons) if miss.file.startswith('_cpool') == (kind == 'cython')]
    say(f'{len(found) - len(unexplained)} misses are explained in misses.toml')
    for miss, line in unexplained:
        say(f'not explained: {miss.file}:{line}, {miss.function or "module"}: {miss.text}')
    for miss in stale:
        say(f'explained, but not there: {miss.file}, {miss.function or "module"}: {miss.text}')
    return share >= LEAST[kind] and not unexplained and not stale


def measure(work: Path, kinds: List[str], built: bool, jobs: int) -> bool:
    """Run everything, as many parts at a time as given. Returns whether all tests passed."""
    with ThreadPoolExecutor(jobs) as executor:
        list(executor.map(lambda kind: prepare(work / kind, kind, built), kinds))
        parts = [(kind, number) for kind in kinds for number in range(len(PARTS[kind]))]
        say(f'{len(parts)} parts to be run, {jobs} at a time')
        return all([*executor.map(lambda part: run_part(work / part[0], *part), parts)])


def main() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    parser = argparse.ArgumentParser(description='How much of the library the suite runs.')
    parser.add_argument('--only', choices=LEAST, help='leave out the other half')
    parser.add_argument('--work', type=Path, default=Path(tempfile.gettempdir(), 'coverage-work'))
    parser.add_argument('--jobs', type=int, default=cores, help='parts that run at a time; default: one a processor')
    parser.add_argument('--built', action='store_true', help='use the copies, as they are and built, of the run before')
    parser.add_argument('--keep', action='store_true', help='report once more on the run before')
    arguments = parser.parse_args()

    work = arguments.work.resolve()
    kinds = [kind for kind in LEAST if arguments.only in (None, kind)]
    good = arguments.keep or measure(work, kinds, arguments.built, arguments.jobs)
    for kind in kinds:
        copy = work / kind
        report = json.loads((copy / 'report.json').read_text()) if arguments.keep else report_of(copy)
        good = is_enough(copy, kind, report) and good
    return int(not good)


if __name__ == '__main__':
    sys.exit(main())
