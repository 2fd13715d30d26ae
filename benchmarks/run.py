"""Measure what the library has to reach, and print a table. Run it with ``make bench``; see README.md beside this file.

    python benchmarks/run.py [--quick] [--only NAME] [--json FILE] [--floor DIRECTORY] [--rival PYTHON]
"""

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import List, Optional

from driver import SideFailed
from plan import FULL, PLAN, QUICK, Sides
from report import Line, show


def parse_arguments() -> argparse.Namespace:
    environment = Path(sys.prefix)
    parser = argparse.ArgumentParser(description='Measure what the library has to reach.')
    parser.add_argument('--quick', action='store_true', help='fewer and shorter rounds, for a first impression')
    parser.add_argument('--only', choices=PLAN, action='append', help='only this part; may be given more than once')
    parser.add_argument('--json', metavar='FILE', type=Path, help='also write what was measured to a file')
    parser.add_argument(
        '--floor', metavar='DIRECTORY', type=Path, default=environment / 'floor',
        help='where floor.pyx has been compiled to (%(default)s)',
    )  # fmt: skip
    parser.add_argument(
        '--rival', metavar='PYTHON', type=Path, default=environment.parent / 'rival' / 'bin' / 'python',
        help='the interpreter that has generic-connection-pool 0.8.1 (%(default)s)',
    )  # fmt: skip
    return parser.parse_args()


def if_there(path: Path, what: str) -> Optional[str]:
    if path.exists():
        return str(path)
    print(f'There is no {what} ({path}): what is compared with it is left out.')
    return None


def tell_load() -> None:
    if hasattr(os, 'getloadavg'):
        load, cpus = os.getloadavg()[0], os.cpu_count() or 1
        if load > cpus / 2:
            print(f'The machine is busy (load {load:.1f} on {cpus} processors): repeat this when it is not.')


def main() -> int:
    arguments = parse_arguments()
    sides = Sides(
        sys.executable,
        if_there(arguments.rival, 'release 0.8.1 to compare with'),
        if_there(arguments.floor, 'compiled floor'),
    )
    effort = QUICK if arguments.quick else FULL
    tell_load()
    began = time.monotonic()
    lines: List[Line] = []
    try:
        about = sides.describe()
        for name in arguments.only or PLAN:
            print(f'measuring {name} ...', file=sys.stderr, flush=True)
            lines += PLAN[name](sides, effort)
    except SideFailed as exc:
        print(f'THE BENCHMARK FAILED: {exc}', file=sys.stderr)
        return 1
    print(
        f'\nCPython {platform.python_version()}, {platform.system()} {platform.machine()}; '
        f'the {about["compiled"]["core"]} core, unless a line says "pure"; {time.monotonic() - began:.0f} s\n'
    )
    show(lines)
    if arguments.json is not None:
        facts = {
            'python': platform.python_version(), 'system': platform.system(), 'machine': platform.machine(),
            'sides': about, 'effort': effort._asdict(), 'lines': [line.as_json() for line in lines],
        }  # fmt: skip
        arguments.json.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
