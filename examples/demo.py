"""The demo: pooled SQLite, HTTPS, PostgreSQL, Redis and SSH connections, opened once and reused: ``make demo``.

Starts the servers on loopback. Then, with the compiled and the pure-Python core, with threads and with asyncio,
many users ask many questions through a pool of few connections. Every answer is compared with its question.
"""

import contextlib
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, NoReturn

from demo_ledger import BATCH, BATCHES
from demo_servers import Site, all_sites
from table import Column, show_header, show_row

CORES = {'cython': '0', 'python': '1'}  # by the setting of GENERIC_CONNECTION_POOL_PURE
USERS = {'threads': (8, 50), 'asyncio': (50, 8)}  # how many there are, and how many questions each of them asks

#: seconds for one of the jobs, which should take one: more than that means that it hangs
JOB_TIMEOUT = 60
#: seconds until the servers have noticed that connections were closed
NOTICE_TIMEOUT = 3

COLUMNS = (
    Column('core', 6, is_text=True),
    Column('runtime', 7, is_text=True),
    Column('protocol', 10, is_text=True),
    Column('requests', 8),
    Column('opened', 6),
    Column('reused', 6),
    Column('most open', 9),
    Column('limit', 5),
    Column('µs/acquire', 10),
    Column('left open', 9),
)


class DemoFailed(Exception):
    """Something is not as it should be; says what."""


def available_cores() -> List[str]:
    with contextlib.suppress(ModuleNotFoundError):
        if importlib.util.find_spec('_cpool.core') is not None:
            return list(CORES)
    print('The compiled core is not installed: the demo runs with the pure-Python core only.\n')
    return ['python']


@contextlib.contextmanager
def running_job(order: Dict[str, Any]) -> Iterator[Dict[str, Any]]:
    """Have a process do a job. Gives its report, and lets the process end when the block does."""
    environ = {**os.environ, 'GENERIC_CONNECTION_POOL_PURE': CORES[order['core']]}
    command = [sys.executable, str(Path(__file__).with_name('demo_job.py'))]
    with subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        watchdog = threading.Timer(JOB_TIMEOUT, process.kill)
        watchdog.start()
        try:
            process.stdin.write(json.dumps(order) + '\n')
            process.stdin.flush()
            line = process.stdout.readline()
            if not line and watchdog.finished.is_set():
                raise DemoFailed(f'nothing came of it within {JOB_TIMEOUT} seconds')
            if not line:
                raise DemoFailed(f'its process ended without a report (exit code {process.wait()})')
            yield json.loads(line)
            process.stdin.close()
            if process.wait() != 0:
                raise DemoFailed(f'its process ended with exit code {process.returncode}')
        finally:
            watchdog.cancel()
            process.kill()


def left_open(site: Site) -> int:
    """How many connections are open that should not be. Gives the server the time to notice that they are not."""
    deadline = time.monotonic() + NOTICE_TIMEOUT
    while True:
        count = site.open()
        if count == 0 or time.monotonic() > deadline:
            return count
        time.sleep(0.02)


def run_job(site: Site, core: str, runtime: str, protocol: str) -> Dict[str, Any]:
    """Do one job, compare what the client and the server have seen, and return the cells of a row of the table."""
    users, questions = USERS[runtime]
    limit = site.total_max_size
    order = {
        'core': core, 'runtime': runtime, 'protocol': protocol, 'users': users, 'questions': questions,
        'max_size': site.max_size, 'total_max_size': limit, 'where': site.where(runtime),
    }  # fmt: skip
    before = site.accepted()
    with running_job(order) as report:
        if 'error' in report:
            raise DemoFailed(report['error'])
        still_open = max(report['left_open'], left_open(site))
    answers, opened, most_open = report['answers'], report['opened'], report['most_open']
    seen = site.opened(report, before)
    for holds, complaint in (
        (not site.failures(), f'the server complains: {site.failures()}'),
        (answers == users * questions, f'{answers} questions were answered, of {users * questions}'),
        (opened == seen, f'the client opened {opened} connections, but the server has seen {seen}'),
        (most_open <= limit, f'{most_open} connections were open at once, the limit is {limit}'),
        (opened < answers, f'{answers} questions took {opened} connections: none was reused'),
        (still_open == 0, f'{still_open} connections were left open'),
    ):
        if not holds:
            raise DemoFailed(complaint)
    return {
        'core': core, 'runtime': runtime, 'protocol': protocol, 'requests': answers, 'opened': opened,
        'reused': answers - opened, 'most open': most_open, 'limit': limit,
        'µs/acquire': f'{report["microseconds"]:.1f}', 'left open': still_open,
    }  # fmt: skip


def run_demo() -> None:
    began = time.monotonic()
    cores = available_cores()
    requests = opened = 0
    with all_sites() as sites:
        print(f'{"Python":12}{platform.python_version()}')
        for protocol, site in sites.items():
            print(f'{protocol:12}{site.what}')
        print()
        show_header(COLUMNS)
        for core in cores:
            for runtime in USERS:
                for protocol, site in sites.items():
                    if runtime not in site.runtimes:
                        continue
                    try:
                        row = run_job(site, core, runtime, protocol)
                    except DemoFailed as exc:
                        raise DemoFailed(f'{core} core, {runtime}, {protocol}: {exc}') from None
                    show_row(COLUMNS, [row[column.title] for column in COLUMNS])
                    requests += row['requests']
                    opened += row['opened']
    (threads, _), (tasks, _) = USERS.values()
    print(
        f'\nEach pool was shared by {threads} threads or {tasks} tasks. µs/acquire: acquiring and releasing an idle'
        f'\nconnection, including the check that it is alive (the best of {BATCHES} times {BATCH}): for Redis that is a'
        f'\nround trip, for SQLite a query, for the others a look at the socket.'
        f'\n\n{requests} answers, each the right one to its question, came over {opened} connections, '
        f'none of which was left open ({time.monotonic() - began:.1f} s).'
    )


def _terminate(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)  # unlike the default action, this leaves every ``with`` block, which stops the servers


def main() -> int:
    signal.signal(signal.SIGTERM, _terminate)
    try:
        run_demo()
    except KeyboardInterrupt:
        print('\ninterrupted', file=sys.stderr)
        return 130
    except Exception as exc:
        print(f'\nTHE DEMO FAILED: {exc if isinstance(exc, DemoFailed) else repr(exc)}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
