"""How much of the library the suite runs: branches of the Python code, with both cores, and lines of the compiled core.

    python tests/coverage/measure.py [--only python|cython] [--work DIR] [--keep]

A copy of the working tree is made under ``--work``. In it the suite runs with either core for the branches of the
Python code (subprocesses included), and once more with a compiled core that is built to be traced, line by line.
What is not reached has to be explained in ``misses.toml``: less than 98 % of the branches, less than 95 % of the lines
of the compiled core, or a miss without an explanation is a failure.

A traced core asks for the GIL at every line, so that its operations are not atomic any more: of the tests that use many
threads at once only some run there.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Tuple

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NAMES = (
    'generic_connection_pool', '_cpool', 'stubs', 'tests', 'docs', 'examples', 'pyproject.toml', 'setup.py',
    'README.md', 'LICENSE', 'CHANGELOG.md',
)  # fmt: skip
LEAST = {'python': 98.0, 'cython': 95.0}
#: what runs for the branches of the Python code, and what is left out: tests of the wheel, and of other programs
SUITE = ('tests/core', 'tests/pool', 'tests/contrib', 'tests/stress', 'tests/fuzz')
#: what runs on the traced core
TRACED = ('tests/core', 'tests/pool')
#: these need operations to be atomic, or measure
UNTRACED = (
    'test_core_threads', 'test_interrupts', 'test_who_waits_uses_no_processor', 'test_lockstep', 'test_twins',
    'leaving_the_queue_costs', 'many_threads', 'many_tasks', 'hammer', 'test_finalizers', 'signal', 'interrupt',
    'thousands', 'flat', 'racing', 'races',
)  # fmt: skip

#: where a test is that hangs
TELL = ('-o', 'faulthandler_timeout=60')

COMMON = """
[run]
data_file = {data}
parallel = true
relative_files = true
"""
PYTHON = (
    COMMON
    + """
branch = true
source = generic_connection_pool
patch = subprocess
"""
)
CYTHON = (
    COMMON
    + """
plugins = inlined
source = _cpool
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
    Extension(path[:-4].replace('/', '.'), [path], define_macros=macros, extra_compile_args=['-O0', '-g0'])
    for path in sorted(glob.glob('_cpool/*.pyx'))
]
distribution = Distribution({'ext_modules': cythonize(modules, compiler_directives={**directives, 'linetrace': True})})
command = distribution.get_command_obj('build_ext')
command.inplace = True
command.ensure_finalized()
command.run()
"""


def copy_tree(to: Path) -> None:
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    for name in NAMES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns('__pycache__', '.*', '*.so', '*.c'))
        elif (ROOT / name).exists():
            shutil.copy2(ROOT / name, to / name)


def run(copy: Path, *command: str, **variables: str) -> None:
    """Run something in the copy. A test that fails is none of this script's business, but worth knowing."""
    environ = {**os.environ, 'PYTHONPATH': f'{copy}{os.pathsep}{HERE}', 'PYTHONHASHSEED': '0', **variables}
    code = subprocess.run([sys.executable, *command], cwd=copy, env=environ, stdin=subprocess.DEVNULL).returncode
    if code:
        print(f'ended with {code}: {" ".join(command)}', flush=True)


def build(copy: Path, kind: str) -> None:
    if kind == 'python':
        run(copy, 'setup.py', '-q', 'build_ext', '--inplace', GENERIC_CONNECTION_POOL_PURE='0', CFLAGS='-O1 -g0')
    else:
        run(copy, '-c', TRACED_BUILD)


def measure(copy: Path, kind: str) -> Dict[str, Any]:
    """Run the suite and return coverage's report."""
    settings, report = copy / f'{kind}.cfg', copy / f'{kind}.json'
    data = copy / f'data-{kind}' / 'coverage'
    shutil.rmtree(data.parent, ignore_errors=True)
    data.parent.mkdir()
    settings.write_text((PYTHON if kind == 'python' else CYTHON).format(data=data))
    rc = f'--rcfile={settings}'
    pytest = ('-m', 'coverage', 'run', rc, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', *TELL)
    if kind == 'python':
        for pure in '10':
            tests = [test for test in SUITE if (copy / test).exists() and (pure == '1' or test != 'tests/core')]
            run(copy, *pytest, *tests, GENERIC_CONNECTION_POOL_PURE=pure, COVERAGE_CORE='ctrace')
    else:
        chosen = ' and '.join(f'not {name}' for name in UNTRACED)
        chosen += ' and not python'
        run(copy, *pytest, '-k', chosen, *TRACED, GENERIC_CONNECTION_POOL_PURE='0', COVERAGE_CORE='ctrace')
    run(copy, '-m', 'coverage', 'combine', rc, '-q')
    run(copy, '-m', 'coverage', 'json', rc, '-q', '-o', str(report))
    return dict(json.loads(report.read_text()))


def misses_of(copy: Path, kind: str, report: Dict[str, Any]) -> List[Tuple[str, str, str]]:
    """What was not reached: the file, the text of the line, and for a branch where it would have led."""
    found = []
    for name, file in sorted(report['files'].items()):
        lines = (copy / name).read_text().splitlines()
        for line in file['missing_lines']:
            found.append((name, lines[line - 1].strip(), f'line {line}'))
        for start, end in file.get('missing_branches', ()):
            if start not in file['missing_lines']:
                where = 'the end' if end < 0 else lines[end - 1].strip()
                found.append((name, f'{lines[abs(start) - 1].strip()} -> {where}', f'line {start}'))
    return found


def explained(kind: str) -> Dict[Tuple[str, str], str]:
    entries = tomllib.loads((HERE / 'misses.toml').read_text()).get('miss', ())
    return {(entry['file'], line): entry['reason'] for entry in entries for line in entry['lines']}


def report_on(copy: Path, kind: str, report: Dict[str, Any]) -> bool:
    """Print what came of it. Returns whether that is enough."""
    totals = report['totals']
    if kind == 'python':
        covered, count, what = totals['covered_branches'], totals['num_branches'], 'branches of the Python code'
    else:
        covered, count, what = totals['covered_lines'], totals['num_statements'], 'lines of the compiled core'
    share = 100.0 * covered / count
    reasons = explained(kind)
    unexplained = [miss for miss in misses_of(copy, kind, report) if miss[:2] not in reasons]
    for name, file in sorted(report['files'].items()):
        summary = file['summary']
        print(f'  {name:56}{summary["covered_lines"]:6} of {summary["num_statements"]:4} lines', end='')
        print(f'{summary["covered_branches"]:6} of {summary["num_branches"]:4} branches' if kind == 'python' else '')
    print(f'{covered} of {count} {what}: {share:.1f} % (at least {LEAST[kind]:.0f})')
    print(f'lines of the same: {totals["covered_lines"]} of {totals["num_statements"]}')
    for name, text, where in unexplained:
        print(f'not explained: {name}, {where}: {text}')
    return share >= LEAST[kind] and not unexplained


def main() -> int:
    parser = argparse.ArgumentParser(description='How much of the library the suite runs.')
    parser.add_argument('--only', choices=LEAST, help='leave out the other half')
    parser.add_argument('--work', type=Path, default=Path(tempfile.gettempdir(), 'coverage-work'))
    parser.add_argument('--keep', action='store_true', help='report once more on the run before')
    parser.add_argument('--built', action='store_true', help='use the copies, as they are and built, of the run before')
    arguments = parser.parse_args()

    enough = True
    for kind in LEAST:
        if arguments.only not in (None, kind):
            continue
        copy = arguments.work.resolve() / kind
        if arguments.keep:
            report = json.loads((copy / f'{kind}.json').read_text())
        else:
            if not arguments.built:
                copy_tree(copy)
                build(copy, kind)
            report = measure(copy, kind)
        print(f'\n{kind}, Python {sys.version.split()[0]}')
        enough = report_on(copy, kind, report) and enough
    return int(not enough)


if __name__ == '__main__':
    sys.exit(main())
