"""Mutation testing of the pure core: does the suite notice each small change of the code?

    python tests/mutation/run.py [--work DIR] [--jobs N] [--module NAME ...] [--wide] [--show KEY]

A copy of the last commit (or of the working tree: ``--tree``) is made under ``--work``, with the compiled core built in
it. Each mutant is loaded in a process of its own, forked from one that has imported the tools already, and put to the
tests that are the most likely to notice it, then to more of them. Its fate is noted in ``fates.jsonl`` there; a run
that was broken off goes on where it stopped. At the end the survivors are compared with ``survivors.toml``, the list of
those that have been looked at: one that is not in it, or less than 90 % killed, is a failure.

Needs what the extra ``mutation`` installs.
"""

import argparse
import collections
import difflib
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Optional

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from mutation.trial import Trial, try_all

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PURE = Path('generic_connection_pool', '_pycore')
NAMES = ('_cpool', 'generic_connection_pool', 'tests', 'stubs', 'pyproject.toml', 'setup.py', 'README.md', 'LICENSE')
LEAST_KILLED = 0.9


def prepare(work: Path, tree: bool) -> str:
    """Make or renew the copy that is tested, and say what it is a copy of."""
    copy = work / 'copy'
    copy.mkdir(parents=True, exist_ok=True)
    commit = subprocess.run(
        ['git', 'rev-parse', '--short', 'HEAD'], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()
    for name in NAMES:
        subprocess.run(['rm', '-rf', copy / name] if name != '_cpool' else ['true'], check=True)
    if tree:
        files = subprocess.run(
            ['git', 'ls-files', '-z', '-co', '--exclude-standard', *NAMES], cwd=ROOT, check=True, capture_output=True
        ).stdout
        packed = subprocess.Popen(
            ['tar', 'c', '--null', '-T', '-'], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert packed.stdin is not None
        packed.stdin.write(files)
        packed.stdin.close()
    else:
        packed = subprocess.Popen(['git', 'archive', 'HEAD', *NAMES], cwd=ROOT, stdout=subprocess.PIPE)
    subprocess.run(['tar', 'x', '-C', copy], stdin=packed.stdout, check=True)
    assert packed.wait() == 0
    subprocess.run(
        [sys.executable, 'setup.py', '-q', 'build_ext', '--inplace'], cwd=copy, check=True,
        env={**os.environ, 'GENERIC_CONNECTION_POOL_PURE': '0', 'CFLAGS': '-O1 -g0'},
    )  # fmt: skip
    return commit + (' with the changes of the working tree' if tree else '')


def change_of(module: str, source: str, number: int) -> List[str]:
    """The lines that a mutant changes: made from the sources alone, apart from the run."""
    import operators

    mutant = operators.mutants_of(module, source)[number]
    changed = operators.apply(mutant)
    lines = list(difflib.unified_diff(source.split('\n'), changed.split('\n'), lineterm='', n=0))[3:]
    return [line[0] + ' ' + line[1:].strip() for line in lines]


def is_to_be_tried(fate: Optional[Dict[str, Any]], stage: int, stages: List[str]) -> bool:
    """Whether a mutant is to go through a stage: it has survived those before, or has not been tried."""
    return fate is None or (fate['killer'] == 'survived' and stages.index(fate['stage']) < stage)


def looked_at() -> Dict[str, str]:
    """The reasons in ``survivors.toml``, by module, function and change."""
    found: Dict[str, str] = {}
    for entry in tomllib.loads((HERE / 'survivors.toml').read_text()).get('survivor', ()):
        for change in entry['changes']:
            found[f'{entry["function"]} | {change}'] = entry['reason']
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description='Mutation testing of the pure core.')
    parser.add_argument('--work', type=Path, default=Path(tempfile.gettempdir(), 'mutation-work'))
    parser.add_argument('--jobs', type=int, default=os.cpu_count() or 1, help='at a time; default: one a processor')
    parser.add_argument('--module', action='append', help='only this module, such as core; may be repeated')
    parser.add_argument('--tree', action='store_true', help='the working tree instead of the last commit')
    parser.add_argument('--keep', action='store_true', help='the copy made before, as it is')
    parser.add_argument('--trust', action='store_true', help='do not try the unchanged code first')
    parser.add_argument('--wide', action='store_true', help='put the survivors of an earlier run to all of the tests')
    parser.add_argument('--again', action='store_true', help='put the survivors of an earlier run to the tests again')
    parser.add_argument('--report', action='store_true', help='only report on the runs so far')
    parser.add_argument('--show', metavar='KEY', help='run this mutant alone and show its output')
    arguments = parser.parse_args()

    work, copy = arguments.work.resolve(), arguments.work.resolve() / 'copy'
    if not (arguments.keep or arguments.report or arguments.show):
        print('testing', prepare(work, arguments.tree), flush=True)
    sys.path[:0] = [str(HERE)]
    import child
    import operators

    child.preload(copy)
    sources = {path.stem: path.read_text() for path in sorted((copy / PURE).glob('*.py'))}
    chosen = [name for name in child.ORDER if name in (arguments.module or sources)]
    mutants = {name: operators.mutants_of(name, sources[name]) for name in chosen}

    log = work / 'fates.jsonl'
    fates: Dict[str, Dict[str, Any]] = {}
    for line in log.read_text().splitlines() if log.exists() else ():
        fate = json.loads(line)
        fates[fate['key']] = fate
    if arguments.show:
        (mutant,) = (one for some in mutants.values() for one in some if one.key == arguments.show)
        print(Trial(mutant, copy, 'wide' if arguments.wide else 'tests', shown=True).wait())
        return 0
    if not (arguments.report or arguments.trust):
        # what kills the unchanged code says nothing of a mutant; modules that have no tests of their own share theirs
        for name in {str(child.FIRST.get(name)): name for name in chosen}.values():
            unchanged = operators.Mutant('', name, '', 0, None, 0)
            fate = Trial(unchanged, copy, 'wide' if arguments.wide else 'tests').wait()
            print(f'{name}, unchanged: {fate["killer"]} in {fate["seconds"]} s', flush=True)
            if fate['killer'] != 'survived':
                return 1
    if not arguments.report:
        stages = ['walks', 'tests', *(['wide'] if arguments.wide else [])]
        if arguments.again:  # survivors start anew
            fates = {key: fate for key, fate in fates.items() if fate['killer'] != 'survived'}
        with log.open('a') as out:
            for stage in stages:
                everyone = [mutant for name in chosen for mutant in mutants[name]]
                random.Random(0).shuffle(everyone)  # so that a run that is broken off has tried a fair sample
                todo = [mutant for mutant in everyone if is_to_be_tried(fates.get(mutant.key), stages.index(stage), stages)]
                for fate in try_all(todo, copy, stage, arguments.jobs):
                    fates[fate['key']] = fate
                    print(json.dumps(fate), file=out, flush=True)
                    if fate['killer'] == 'survived':
                        print(f'survived the {stage}: {fate["key"]} line {fate["line"]}', flush=True)
    return report(mutants, sources, fates, work)


def report(mutants: Dict[str, Any], sources: Dict[str, str], fates: Dict[str, Dict[str, Any]], work: Path) -> int:
    """Print what came of it; write the survivors that nobody has looked at; return the exit code."""
    reasons = looked_at()
    missing: List[Any] = []
    total = killed = 0
    waiting = put = noticed = 0  # of those that the random walks have not noticed: not tried yet, tried, and killed
    print(f'\n{"module":16}{"mutants":>8}{"killed":>8}{"":>4}share')
    for name, found in mutants.items():
        known = [fates[mutant.key] for mutant in found if mutant.key in fates]
        tried = [fate for fate in known if fate['killer'] != 'survived' or fate['stage'] != 'walks']
        dead = sum(fate['killer'] != 'survived' for fate in tried)
        print(f'{name:16}{len(tried):8}{dead:8}{"":4}{dead / len(tried) if tried else 0:.1%}')
        if len(tried) < len(found):
            print(f'{"":16}{len(found) - len(tried)} not tried to the end yet')
        total, killed = total + len(tried), killed + dead
        waiting += len(found) - len(tried)
        put += sum(fate['stage'] != 'walks' for fate in tried)
        noticed += sum(fate['stage'] != 'walks' and fate['killer'] != 'survived' for fate in tried)
        for number, mutant in enumerate(found):
            fate = fates.get(mutant.key, {})
            if fate.get('killer') == 'survived' and fate['stage'] != 'walks':
                change = '  '.join(change_of(name, sources[name], number))
                function = '.'.join([name, mutant.key.split(':')[1]])
                if f'{function} | {change}' not in reasons:
                    missing.append({'function': function, 'line': mutant.line, 'change': change, 'key': mutant.key})
    share = killed / total if total else 0.0
    print(f'{"all":16}{total:8}{killed:8}{"":4}{share:.1%}')
    if waiting and put:
        estimate = (killed + waiting * noticed / put) / (total + waiting)
        print(f'{waiting} wait for the tests; of {put} that were put to them, chosen at random, {noticed} were killed: '
              f'{estimate:.1%} in all, if the others do as well')
    print(f'{total - killed} survivors, {total - killed - len(missing)} of them looked at: see survivors.toml')
    killers = [fate['killer'] for fate in fates.values()]
    ways = collections.Counter('a test' if '::' in killer else killer.split(' (')[0] for killer in killers)
    print('how:', ', '.join(f'{way} {count}' for way, count in ways.most_common()))
    (work / 'new-survivors.json').write_text(json.dumps(missing, indent=1))
    for entry in missing:
        print(f'nobody has looked at: {entry["function"]}, line {entry["line"]}: {entry["change"]}')
    return int(bool(missing) or share < LEAST_KILLED)


if __name__ == '__main__':
    sys.exit(main())
