"""Puts each known hazard back into the code, one after the other: the suite has to catch every one.

    python tests/hazards/put_back.py [--hazard N ...] [--table FILE]

A copy of the working tree is made, and each change of ``cancellation.py``, ``waiting.py``, ``closing.py``,
``connections.py`` and ``process.py`` applied to it in turn; its tests run with the pure core and each of them has to
fail. Beforehand they have to pass on the unchanged copy. A text that is to be replaced and is not there exactly once is
an error: the code has changed, and so must the change. ``--table`` writes what came of it as a page of the docs.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree
from pathlib import Path
from typing import Dict, List, Set, Tuple

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / 'tests')]

from hazards import cancellation, closing, connections, process, waiting
from hazards.change import Change
from support.watching import Watch

CHANGES: List[Change] = [
    *cancellation.CHANGES, *waiting.CHANGES, *closing.CHANGES, *connections.CHANGES, *process.CHANGES,
]  # fmt: skip
HAZARDS = range(1, 44)
DIRECTORIES = {'t': 'pool/threading', 'a': 'pool/asyncio', 'c': 'core', 'm': 'contrib', 'p': 'process'}
NAMES = ('generic_connection_pool', 'tests', '_cpool', 'stubs', 'pyproject.toml', 'README.md', 'docs')
OPTIONS = ('-p', 'no:cacheprovider', '-p', 'hazards.once', '-k', 'not cython')
#: a run that has not used the processor for so many seconds hangs: the test that it is at has noticed the hazard, too
STUCK = 10.0


def copy_tree(to: Path) -> None:
    for name in NAMES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns('__pycache__', '.*', '*.so', '*.c'))
        else:
            shutil.copy2(ROOT / name, to / name)


def find_tests(tree: Path) -> Dict[str, str]:
    """The node ids of all tests, by the letter of their directory and their name."""
    found: Dict[str, str] = {}
    for letter, directory in DIRECTORIES.items():
        for path in sorted((tree / 'tests' / directory).rglob('test_*.py')):
            cls = ''
            for line in path.read_text().splitlines():
                if match := re.match(r'class (Test\w*)', line):
                    cls = f'{match[1]}::'
                elif match := re.match(r'( *)(?:async )?def (test_\w+)', line):
                    found[f'{letter} {match[2]}'] = f'{path.relative_to(tree)}::{cls if match[1] else ""}{match[2]}'
    return found


def run(tree: Path, nodes: List[str]) -> Tuple[int, Set[str]]:
    """Run tests with the pure core. Returns pytest's exit code (-1: one hangs), and which failed or hang."""
    report = tree / 'report.xml'
    report.unlink(missing_ok=True)
    environ = {
        **os.environ, 'GENERIC_CONNECTION_POOL_PURE': '1', 'PYTHONPATH': f'{tree}{os.pathsep}{tree / "tests"}',
        'PYTHONDONTWRITEBYTECODE': '1', 'PYTHONHASHSEED': '0',
    }  # fmt: skip
    said = tree / 'output.txt'
    with said.open('w') as output:
        started = subprocess.Popen(
            [sys.executable, '-m', 'pytest', '-v', *OPTIONS, f'--junitxml={report}', *nodes],
            cwd=tree, env=environ, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        watch = Watch(started.pid, STUCK)
        while started.poll() is None:
            if watch.stuck():
                os.killpg(started.pid, signal.SIGKILL)
                started.wait()
                # the line of a test that has not ended has no verdict
                lines = [line for line in said.read_text().splitlines() if not re.search(' (PASSED|SKIPPED)', line)]
                return -1, {match[1] for line in lines if (match := re.search(r'::(test_\w+)', line))}
            time.sleep(0.05)
    if not report.exists():
        print(said.read_text())
        return started.returncode, set()
    failed = set()
    for case in xml.etree.ElementTree.parse(report).getroot().iter('testcase'):
        if case.find('failure') is not None or case.find('error') is not None:
            failed.add(case.get('name', '').partition('[')[0])
    if started.returncode not in (0, 1):
        print(said.read_text())
    return started.returncode, failed


def apply(change: Change, tree: Path) -> str:
    """Change the file in the copy, and return what it was."""
    path = tree / change.path
    before = text = path.read_text()
    for old, new in change.edits:
        if text.count(old) != 1:
            what = f'hazard {change.hazard} ({change.what})'
            raise SystemExit(f'{what}: {text.count(old)} times in {change.path}:\n{old}')
        text = text.replace(old, new)
    compile(text, change.path, 'exec')
    path.write_text(text)
    return before


def try_change(change: Change, tree: Path, tests: Dict[str, str]) -> Tuple[bool, str]:
    """Put a hazard back. Returns whether each of its tests has caught it, and how to say so."""
    before = apply(change, tree)
    try:
        code, failed = run(tree, [tests[name] for name in change.tests])
        if code == -1:  # those after the one that hangs have not run
            for name in change.tests:
                if name.split()[1] not in failed:
                    failed |= run(tree, [tests[name]])[1]
    finally:
        (tree / change.path).write_text(before)
    caught = [name for name in change.tests if name.split()[1] in failed]
    missed = [name for name in change.tests if name not in caught]
    if missed or code == 0:
        return False, f'NOT CAUGHT by {", ".join(missed)}'
    return True, ('(it hangs) ' if code == -1 else '') + ', '.join(caught)


def write_table(path: Path, rows: List[Tuple[Change, str]]) -> None:
    lines = [
        '# Hazards put back',
        '',
        'Written by `tests/hazards/put_back.py`, which puts each hazard of [guarantees.md](guarantees.md) back into',
        'the code (of the pure core, which the compiled one follows step by step, and of what is above it), and has',
        'seen each of these tests fail for it. **t** with threads, **a** with asyncio, **c** in the core, **m** with',
        'ready-made managers, **p** with processes that fork.',
        '',
        '| | what was put back | in | caught by |',
        '| --- | --- | --- | --- |',
    ]
    for change, said in rows:
        caught = ' '.join(f'{name.split()[0]} `{name.split()[1]}`' for name in change.tests)
        name = change.path.replace('generic_connection_pool/', '')
        hang = ' (it hangs)' if said.startswith('(it hangs)') else ''
        lines.append(f'| {change.hazard} | {change.what} | `{name}` | {caught}{hang} |')
    lines += ['', 'Not put back:', '']
    lines += [f'- {number}: {reason}' for number, reason in sorted(process.NOT_PUT_BACK.items())]
    path.write_text('\n'.join(lines) + '\n')


def main() -> int:
    parser = argparse.ArgumentParser(description='Put each known hazard back into the code: the suite has to catch it.')
    parser.add_argument('--hazard', type=int, action='append', help='only this one; may be repeated')
    parser.add_argument('--table', type=Path, help='write the table to this file, as a page of the docs')
    parser.add_argument('--trust', action='store_true', help='do not run the tests on the unchanged code first')
    arguments = parser.parse_args()

    missing = set(HAZARDS) - {change.hazard for change in CHANGES} - set(process.NOT_PUT_BACK)
    if missing:
        raise SystemExit(f'nothing is said of the hazards {sorted(missing)}')
    chosen = [change for change in CHANGES if not arguments.hazard or change.hazard in arguments.hazard]
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch)
        copy_tree(tree)
        tests = find_tests(tree)
        unknown = {name for change in chosen for name in change.tests if name not in tests}
        if unknown:
            raise SystemExit(f'no such tests: {sorted(unknown)}')
        for change in chosen:
            (tree / change.path).write_text(apply(change, tree))
        nodes = sorted({tests[name] for change in chosen for name in change.tests})
        code, failed = (0, set()) if arguments.trust else run(tree, nodes)
        if code != 0:
            raise SystemExit(f'these fail without any change: {sorted(failed)}')
        rows, escaped = [], 0
        for change in chosen:
            caught, said = try_change(change, tree, tests)
            escaped += not caught
            rows.append((change, said))
            print(f'{change.hazard:3}  {change.what}\n     {said}', flush=True)
    covered = {change.hazard for change, _ in rows}
    print(f'{len(rows)} changes, {len(rows) - escaped} caught; {len(covered)} of {len(HAZARDS)} hazards')
    for number, reason in sorted(process.NOT_PUT_BACK.items()):
        print(f'not put back: {number}, {reason}')
    if arguments.table and not escaped:
        write_table(arguments.table, rows)
    return int(bool(escaped))


if __name__ == '__main__':
    sys.exit(main())
