"""A MariaDB server for the length of a test run, with two databases."""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
from typing import Any, Dict, Iterator, List, Optional, Tuple

from support.servers import eventually, refusing_port

DATABASES = ('alpha', 'beta')
USER = 'ali_baba'
PASSWORD = 'open-sesame-1848'

#: what it takes of the Debian package ``mariadb-server``
PROGRAMS = ('mariadbd', 'mariadb-install-db')

#: small, fast to start, and not made to survive a crash of the machine
_OPTIONS = (
    '--bind-address=127.0.0.1', '--skip-name-resolve', '--skip-log-bin', '--performance-schema=OFF',
    '--innodb-buffer-pool-size=16M', '--innodb-log-file-size=4M', '--innodb-flush-log-at-trx-commit=0',
    '--innodb-fast-shutdown=2', '--innodb-flush-method=nosync', '--key-buffer-size=1M',
    '--aria-pagecache-buffer-size=1M', '--max-connections=300',
)  # fmt: skip


class MariadbServer:
    """A running server, reached through TCP by a user with a password, and through a UNIX socket by its administrator.

    :param directory: where its data are
    """

    def __init__(self, directory: pathlib.Path):
        self._directory = directory
        self._process: Optional[subprocess.Popen[bytes]] = None
        self.port = refusing_port()

    def parameters(self, database: Optional[str] = DATABASES[0], **more: Any) -> Dict[str, Any]:
        """The connect keywords, which all drivers understand, for a database."""
        named = {} if database is None else {'database': database}
        return {'host': '127.0.0.1', 'port': self.port, 'user': USER, 'password': PASSWORD, **named, **more}

    def query(self, sql: str, database: Optional[str] = DATABASES[0]) -> List[Tuple[Any, ...]]:
        """Run a statement on a connection of its own, as the administrator."""
        # here, because it may not be installed
        import pymysql

        conn = pymysql.connect(unix_socket=self._socket_path, user='root', database=database, autocommit=True)
        with contextlib.closing(conn), conn.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def start(self) -> None:
        """Start the server, and return when it accepts connections."""
        assert self._process is None
        log = self._directory / 'log'
        with log.open('ab') as output:
            self._process = subprocess.Popen(
                [_program('mariadbd'), '--no-defaults', *_as_user(), *_OPTIONS, f'--datadir={self._directory / "data"}',
                 f'--socket={self._socket_path}', f'--port={self.port}', f'--pid-file={self._directory / "pid"}'],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=_environ(self._directory),
            )  # fmt: skip
        process = self._process

        def is_up() -> bool:
            assert process.poll() is None, f'MariaDB does not start: {log.read_text()[-2000:]}'
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                return sock.connect_ex(self._socket_path) == 0

        eventually(is_up, 'the start of MariaDB')

    def stop(self, crash: bool = False) -> None:
        """End the server, in an orderly way or with a crash, and return when it is gone."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL if crash else signal.SIGTERM)
            self._process.wait(30)
            self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    @contextlib.contextmanager
    def stuck(self) -> Iterator[None]:
        """Keep the server from doing anything. The system goes on to accept connections for it."""
        assert self._process is not None
        pid = self._process.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            # which takes its threads a moment
            eventually(lambda: all(state == 'T' for state in _thread_states(pid)), 'the stop of all threads')
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def kill(self, session: int) -> None:
        """End a session, and return when it has ended."""
        self.query(f'KILL {session}')
        eventually(lambda: session not in self._sessions(), 'the end of the session')

    def clear(self) -> None:
        """Empty the table, and end the sessions that are still executing something, whose clients have gone."""
        self.query('DELETE FROM notes')
        for session in self._sessions():
            with contextlib.suppress(Exception):  # it has just ended by itself
                self.query(f'KILL {session}')
        eventually(lambda: not self._sessions(), 'the end of all sessions')

    def sessions(self) -> int:
        """How many sessions of users there are."""
        return len(self._sessions())

    def is_running(self, sql: str) -> bool:
        """Tell whether a user's session is executing a statement."""
        return any(info == sql for info, in self.query('SELECT info FROM information_schema.processlist'))

    def open_transactions(self) -> int:
        """How many transactions are open that have touched a table of InnoDB."""
        (count,), = self.query('SELECT count(*) FROM information_schema.innodb_trx')
        return int(count)

    def _sessions(self) -> List[int]:
        rows = self.query(f"SELECT id FROM information_schema.processlist WHERE user = '{USER}'")
        return [int(session) for session, in rows]

    @property
    def _socket_path(self) -> str:
        return str(self._directory / 'socket')


def _environ(directory: pathlib.Path) -> Dict[str, str]:
    """A place of its own for temporary tables: a server that starts deletes those that it finds, also another one's."""
    return {**os.environ, 'TMPDIR': str(directory)}


@contextlib.contextmanager
def mariadb_server(directory: pathlib.Path) -> Iterator[MariadbServer]:
    """Start a server whose data live in an empty directory."""
    subprocess.run(
        [_program('mariadb-install-db'), '--no-defaults', *_as_user(), f'--datadir={directory / "data"}',
         '--skip-test-db', '--auth-root-authentication-method=normal'],
        check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=_environ(directory),
    )  # fmt: skip
    server = MariadbServer(directory)
    try:
        server.start()
        _furnish(server)
        yield server
    finally:
        server.stop(crash=True)


def _thread_states(pid: int) -> List[str]:
    tasks = pathlib.Path(f'/proc/{pid}/task')
    return [(task / 'stat').read_text().rpartition(')')[2].split()[0] for task in tasks.iterdir()]


def missing_programs() -> List[str]:
    return [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]


def _program(name: str) -> str:
    path = shutil.which(name, path=_path())
    assert path is not None
    return path


def _path() -> str:
    # where Debian puts servers, and not everybody looks
    return f'{os.environ.get("PATH", os.defpath)}:/usr/sbin'


def _as_user() -> List[str]:
    # it does not run as root unless it is told to
    return ['--user=root'] if os.geteuid() == 0 else []


def _furnish(server: MariadbServer) -> None:
    server.query(f"CREATE USER {USER}@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'", database=None)
    for database in DATABASES:
        server.query(f'CREATE DATABASE {database}', database=None)
        server.query(f"GRANT ALL ON {database}.* TO {USER}@'127.0.0.1'", database=None)
        server.query('CREATE TABLE notes (note varchar(100) UNIQUE) ENGINE=InnoDB', database=database)
