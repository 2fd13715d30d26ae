"""The demo: pooled HTTPS and PostgreSQL connections, opened once and reused. Run it with ``make demo``.

Starts both servers on loopback. Then, with the compiled and the pure-Python core, with threads and with asyncio,
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
from servers import DATABASES, HttpsServer, PostgresServer, https_server, postgres_server
from table import Column, show_header, show_row

CORES = {'cython': '0', 'python': '1'}  # by the setting of GENERIC_CONNECTION_POOL_PURE
USERS = {'threads': (8, 50), 'asyncio': (50, 8)}  # how many there are, and how many questions each of them asks
LIMITS = {'HTTPS': (4, 4), 'PostgreSQL': (2, 2 * len(DATABASES))}  # connections of one endpoint, and of all

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


class Servers:
    """Both servers, and what they know about the connections of a job."""

    def __init__(self, https: HttpsServer, postgres: PostgresServer):
        self._https = https
        self._postgres = postgres
        host, port = https.endpoint
        self.where = {
            'host': host, 'port': port, 'authority': https.authority, 'dsn_params': postgres.dsn_params
        }  # fmt: skip

    def opened(self, protocol: str, report: Dict[str, Any]) -> int:
        """How many connections have been opened: HTTPS ever, PostgreSQL during the job."""
        # a query is answered with the id of the server process, of which each connection has its own
        return self._https.accepted if protocol == 'HTTPS' else int(report['peers'])

    def left_open(self, protocol: str) -> int:
        """How many connections are open that should not be. Gives the server the time to notice that they are not."""
        deadline = time.monotonic() + NOTICE_TIMEOUT
        while True:
            count = self._https.open if protocol == 'HTTPS' else self._postgres.open_connections()
            if count == 0 or time.monotonic() > deadline:
                return count
            time.sleep(0.02)

    def failures(self) -> List[str]:
        return self._https.failures


def run_job(servers: Servers, core: str, runtime: str, protocol: str) -> Dict[str, Any]:
    """Do one job, compare what the client and the server have seen, and return the cells of a row of the table."""
    users, questions = USERS[runtime]
    max_size, total_max_size = LIMITS[protocol]
    order = {
        'core': core, 'runtime': runtime, 'protocol': protocol, 'users': users, 'questions': questions,
        'max_size': max_size, 'total_max_size': total_max_size, **servers.where,
    }  # fmt: skip
    before = servers.opened(protocol, {'peers': 0})
    with running_job(order) as report:
        if 'error' in report:
            raise DemoFailed(report['error'])
        left_open = max(report['left_open'], servers.left_open(protocol))
    answers, opened, most_open = report['answers'], report['opened'], report['most_open']
    seen = servers.opened(protocol, report) - before
    for holds, complaint in (
        (not servers.failures(), f'the server complains: {servers.failures()}'),
        (answers == users * questions, f'{answers} questions were answered, of {users * questions}'),
        (opened == seen, f'the client opened {opened} connections, but the server has seen {seen}'),
        (most_open <= total_max_size, f'{most_open} connections were open at once, the limit is {total_max_size}'),
        (opened < answers, f'{answers} questions took {opened} connections: none was reused'),
        (left_open == 0, f'{left_open} connections were left open'),
    ):
        if not holds:
            raise DemoFailed(complaint)
    return {
        'core': core, 'runtime': runtime, 'protocol': protocol, 'requests': answers, 'opened': opened,
        'reused': answers - opened, 'most open': most_open, 'limit': total_max_size,
        'µs/acquire': f'{report["microseconds"]:.1f}', 'left open': left_open,
    }  # fmt: skip


def run_demo() -> None:
    began = time.monotonic()
    cores = available_cores()
    requests = opened = 0
    with https_server() as https, postgres_server() as postgres:
        servers = Servers(https, postgres)
        print(f'Python      {platform.python_version()}')
        print(f'HTTPS       on {":".join(map(str, https.endpoint))}, certificate verified')
        print(f'PostgreSQL  with the databases {", ".join(DATABASES)}, one endpoint each\n')
        show_header(COLUMNS)
        for core in cores:
            for runtime in USERS:
                for protocol in LIMITS:
                    try:
                        row = run_job(servers, core, runtime, protocol)
                    except DemoFailed as exc:
                        raise DemoFailed(f'{core} core, {runtime}, {protocol}: {exc}') from None
                    show_row(COLUMNS, [row[column.title] for column in COLUMNS])
                    requests += row['requests']
                    opened += row['opened']
    (threads, _), (tasks, _) = USERS.values()
    print(
        f'\nEach pool was shared by {threads} threads or {tasks} tasks. µs/acquire: acquiring and releasing an idle'
        f'\nconnection, including the check that it is alive (the best of {BATCHES} times {BATCH}).'
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
