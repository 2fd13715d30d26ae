"""The servers of the demo, and what they know of the connections of a job."""

import contextlib
import pathlib
import sqlite3
import tempfile
from typing import Any, Dict, Iterator, List, Tuple

import redis
from servers import DATABASES, HttpsServer, PostgresServer, https_server, postgres_server
from servers_redis import redis_server
from servers_ssh import PASSWORDS, SshServer, ssh_server

Report = Dict[str, Any]


class Site:
    """Where the questions of one protocol are answered.

    :param what: what to say of it
    :param max_size: connections of one endpoint at the most
    :param total_max_size: connections of all endpoints at the most
    """

    runtimes: Tuple[str, ...] = ('threads', 'asyncio')

    def __init__(self, what: str, max_size: int, total_max_size: int):
        self.what = what
        self.max_size = max_size
        self.total_max_size = total_max_size

    def where(self, runtime: str) -> Dict[str, Any]:
        """Tell what a job has to know: the endpoints, and what the manager takes."""
        raise NotImplementedError

    def opened(self, report: Report, before: int) -> int:
        """How many connections the server has seen in a job.

        :param before: what :meth:`accepted` was before
        """
        # each connection has a session of its own, whose number is part of its answers
        return int(report['peers'])

    def accepted(self) -> int:
        """How many connections the server has seen so far, if it counts them."""
        return 0

    def open(self) -> int:
        """How many connections are open."""
        raise NotImplementedError

    def failures(self) -> List[str]:
        """What the server complains of."""
        return []


class SqliteSite(Site):
    """Two files; there is no server, so nobody but the job itself counts the connections."""

    runtimes = ('threads',)

    def __init__(self, directory: pathlib.Path):
        super().__init__('two files', 2, 4)
        self._databases = {name: {'database': str(directory / f'{name}.db'), 'timeout': 30.0} for name in DATABASES[:2]}
        for parameters in self._databases.values():
            with contextlib.closing(sqlite3.connect(str(parameters['database']))) as conn:
                conn.execute('PRAGMA journal_mode = WAL')
                conn.execute('CREATE TABLE questions (question TEXT PRIMARY KEY)')

    def where(self, runtime: str) -> Dict[str, Any]:
        return {'endpoints': list(self._databases), 'databases': self._databases}

    def opened(self, report: Report, before: int) -> int:
        return int(report['opened'])

    def open(self) -> int:
        return 0


class HttpsSite(Site):
    def __init__(self, server: HttpsServer):
        super().__init__(f'on {":".join(map(str, server.endpoint))}, certificate verified', 4, 4)
        self._server = server

    def where(self, runtime: str) -> Dict[str, Any]:
        host, port = self._server.endpoint
        endpoint = ('https', host, port) if runtime == 'threads' else (host, port)
        return {'endpoints': [endpoint], 'authority': self._server.authority}

    def opened(self, report: Report, before: int) -> int:
        return self._server.accepted - before

    def accepted(self) -> int:
        return self._server.accepted

    def open(self) -> int:
        return self._server.open

    def failures(self) -> List[str]:
        return self._server.failures


class PostgresSite(Site):
    def __init__(self, server: PostgresServer):
        super().__init__(f'with the databases {", ".join(DATABASES)}, one endpoint each', 2, 2 * len(DATABASES))
        self._server = server

    def where(self, runtime: str) -> Dict[str, Any]:
        return {'endpoints': list(DATABASES), 'dsn_params': self._server.dsn_params}

    def open(self) -> int:
        return self._server.open_connections()


class RedisSite(Site):
    def __init__(self, url: str):
        super().__init__(f'on {url.partition("//")[2]}', 3, 3)
        self._url = url

    def where(self, runtime: str) -> Dict[str, Any]:
        return {'endpoints': ['main'], 'servers': {'main': self._url}}

    def open(self) -> int:
        with contextlib.closing(redis.Redis.from_url(self._url)) as client:
            return len(client.client_list()) - 1  # but for the one that asks


class SshSite(Site):
    def __init__(self, server: SshServer):
        super().__init__(f'on {server.host}:{server.port}, two users, host key verified', 2, 4)
        self._server = server

    def where(self, runtime: str) -> Dict[str, Any]:
        host, alone = ('hostname', {'look_for_keys': False, 'allow_agent': False}) if runtime == 'threads' else (
            'host', {'client_keys': None, 'config': None}
        )  # fmt: skip
        users = {name: {host: self._server.host, **self._server.credentials(name), **alone} for name in PASSWORDS}
        return {'endpoints': list(users), 'users': users, 'known_hosts': str(self._server.known_hosts)}

    def opened(self, report: Report, before: int) -> int:
        return self._server.accepted - before

    def accepted(self) -> int:
        return self._server.accepted

    def open(self) -> int:
        return self._server.open


@contextlib.contextmanager
def all_sites() -> Iterator[Dict[str, Site]]:
    """Run all servers for the length of a ``with`` block."""
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix='gcp-example-'))
        yield {
            'SQLite': SqliteSite(pathlib.Path(directory)),
            'HTTPS': HttpsSite(stack.enter_context(https_server())),
            'PostgreSQL': PostgresSite(stack.enter_context(postgres_server())),
            'Redis': RedisSite(stack.enter_context(redis_server())),
            'SSH': SshSite(stack.enter_context(ssh_server())),
        }
