"""The servers, the proxies before them, and the pools whose users do not rest."""

import asyncio
import contextlib
import random
import socket
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Type

from chaos import tasks, threads
from chaos.ledger import Ledger
from chaos.network import PATIENCE, Network
from chaos.proxy import Proxy
from chaos.questions import QuestionServer
from support.certificates import Certificates
from support.postgres import DATABASES, PostgresServer
from support.servers import open_descriptors

from generic_connection_pool import asyncio as asyncio_pools
from generic_connection_pool import threading as threading_pools

__all__ = ('ROLE', 'Load', 'ServerIsGone', 'Servers', 'furnish', 'running_servers')

#: the role that the pools log in as; what is left for superusers stays for the tests themselves
ROLE = 'chaos'
#: of which these are
MAX_CONNECTIONS = 40

#: seconds that closing all pools may take when nobody holds a connection
CLOSING = 5.0


class ServerIsGone(Exception):
    """A server does not answer even a client without a pool."""


class Servers(NamedTuple):
    """What a run needs, and the proxies through which it is reached."""

    postgres: PostgresServer
    plain: QuestionServer
    tls: QuestionServer
    certificates: Certificates
    to_postgres: Proxy
    to_plain: Proxy
    to_tls: Proxy

    @property
    def proxies(self) -> 'tuple[Proxy, Proxy, Proxy]':
        return self.to_postgres, self.to_plain, self.to_tls

    def recover(self) -> None:
        """Good weather everywhere."""
        for proxy in self.proxies:
            proxy.recover()

    def postgres_parameters(self) -> Dict[str, Any]:
        """The connect keywords that lead through the proxy."""
        return {'host': '127.0.0.1', 'port': self.to_postgres.port, 'user': ROLE, 'database': DATABASES[0]}

    def await_postgres(self) -> None:
        """Wait until a client without a pool is answered by PostgreSQL, through the proxy."""
        import psycopg2

        def ask() -> None:
            with contextlib.closing(psycopg2.connect(**self.postgres_parameters(), connect_timeout=2)) as conn:
                conn.cursor().execute('SELECT 1')

        until_done(ask, psycopg2.OperationalError)

    def await_questions(self, encrypts: bool) -> None:
        """Wait until a client without a pool is answered by a question server, through its proxy."""
        port = (self.to_tls if encrypts else self.to_plain).port

        def ask() -> None:
            with contextlib.ExitStack() as stack:
                sock = stack.enter_context(socket.create_connection(('127.0.0.1', port), 1.0))
                if encrypts:
                    context = self.certificates.client()
                    sock = stack.enter_context(context.wrap_socket(sock, server_hostname='localhost'))
                sock.sendall(b'control 0\n')
                if not sock.recv(4096):
                    raise ConnectionError

        until_done(ask, OSError)

    def await_all(self) -> None:
        """Wait until all servers answer clients without a pool."""
        self.await_postgres()
        self.await_questions(False)
        self.await_questions(True)

    def cancel(self, pid: int) -> None:
        """Cancel the query of a session."""
        self.postgres.query('SELECT pg_cancel_backend(%s)', pid)

    def sessions(self) -> List[int]:
        """The processes of the pools' sessions."""
        return [pid for (pid,) in self.postgres.query('SELECT pid FROM pg_stat_activity WHERE usename = %s', ROLE)]


def until_done(attempt: Callable[[], None], *errors: Type[Exception]) -> None:
    """Try again and again until it is done.

    :raises ServerIsGone: it could not be done for :data:`PATIENCE` seconds
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return attempt()
        except errors as exc:
            if time.monotonic() > deadline:
                raise ServerIsGone(f'the server does not come back: {exc}') from exc
            threading.Event().wait(0.005)


def furnish(postgres: PostgresServer) -> None:
    """Make the role, and leave few connections."""
    postgres.query(f'CREATE ROLE {ROLE} LOGIN')
    postgres.query(f'ALTER SYSTEM SET max_connections = {MAX_CONNECTIONS}')
    postgres.stop()
    postgres.start()


@contextlib.contextmanager
def running_servers(postgres: PostgresServer, certificates: Certificates, seed: int) -> Iterator[Servers]:
    """Start the question servers and the proxies."""
    with Network() as network:
        plain, tls = QuestionServer(network), QuestionServer(network, certificates.server())
        upstreams = postgres.socket_path, plain.port, tls.port
        proxies = [Proxy(network, upstream, seed + number) for number, upstream in enumerate(upstreams)]
        servers = Servers(postgres, plain, tls, certificates, *proxies)
        try:
            yield servers
        finally:
            for server in (*proxies, plain, tls):
                server.stop()


class Load:
    """Pools of all kinds and their users, as a context manager. At its end all that was opened has to be closed.

    :param servers: whom they ask
    :param ledger: where they take down the answers
    :param seed: of what they do, and of the pools' options
    :param users: of each pool
    """

    def __init__(self, servers: Servers, ledger: Ledger, seed: str, users: int = 5):
        self._servers = servers
        self._ledger = ledger
        self._seed = seed
        self._users = users
        self._over = threading.Event()
        self._threads: List[threading.Thread] = []
        self._pools: List[Any] = []
        dice = random.Random(seed)
        self._options: Dict[str, Any] = {
            'max_size': 2,
            'min_idle': dice.randrange(3),
            'idle_timeout': dice.choice((0.0, 0.1, 60.0)),
            'max_lifetime': dice.choice((0.5, 3600.0)),
            'background_collector': dice.random() < 0.5,
        }
        context = servers.certificates.client()
        parameters = servers.postgres_parameters()
        self._thread_kinds = [
            threads.SocketThreads(servers.to_plain.port),
            threads.TlsThreads(servers.to_tls.port, context),
            threads.PostgresThreads(servers.cancel, **parameters),
        ]
        self._task_kinds = [
            tasks.SocketTasks(servers.to_plain.port),
            tasks.StreamTasks(servers.to_plain.port),
            tasks.StreamTasks(servers.to_tls.port, context),
            tasks.PostgresTasks(**parameters),
        ]
        self.kinds = [kind.name for kind in (*self._thread_kinds, *self._task_kinds)]
        self.postgres_kinds = [threads.PostgresThreads.name, tasks.PostgresTasks.name]
        self.tls_kinds = [name for name in self.kinds if 'tls' in name]

    def __enter__(self) -> 'Load':
        self._descriptors = open_descriptors()
        for kind in self._thread_kinds:
            pool: Any = threading_pools.ConnectionPool(kind.manager, **self._options)
            self._pools.append(pool)
            for number in range(self._users):
                self._start(threads.run_user, pool, kind, self._ledger, f'{self._seed} {number}', self._over)
        self._start(asyncio.run, self._run_tasks())
        return self

    def __exit__(self, *_: object) -> None:
        """End the load. Whatever it leaves behind is a violation."""
        self._servers.recover()
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE)
            if thread.is_alive():
                self._ledger.violate(f'{thread.name} hangs')
        began = time.monotonic()
        for pool in self._pools:
            if not pool.closed:
                self._check_at_rest(pool)
                pool.close(timeout=CLOSING)
            if pool.get_size():
                self._ledger.violate(f'{pool!r} has not closed its connections')
            pool._core.check_invariants()
        if time.monotonic() - began > CLOSING:
            self._ledger.violate(f'closing took {time.monotonic() - began:.1f} s')
        self._check_leaks()

    def pause(self, seconds: float) -> None:
        """Let the load go on for a while, and look into the pools meanwhile."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._over.wait(min(0.1, seconds))
            for pool in self._pools:
                pool._core.check_invariants()

    def _start(self, function: Any, *args: Any) -> None:
        thread = threading.Thread(target=function, args=args, name=f'user {len(self._threads)}', daemon=True)
        self._threads.append(thread)
        thread.start()

    async def _run_tasks(self) -> None:
        asyncio.get_running_loop().set_exception_handler(self._note_unhandled)
        users, pools = [], []
        for kind in self._task_kinds:
            pool: Any = asyncio_pools.ConnectionPool(kind.manager, **self._options)
            pools.append(pool)
            self._pools.append(pool)
            for number in range(self._users):
                users.append(tasks.run_user(pool, kind, self._ledger, f'{self._seed} {number}', self._over))
        await asyncio.gather(*users)
        for pool in pools:
            self._check_at_rest(pool)
            await pool.close(timeout=CLOSING)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=PATIENCE)
            for task in others:
                if not task.done():
                    self._ledger.violate(f'a task was left behind: {task!r}')

    def _note_unhandled(self, loop: asyncio.AbstractEventLoop, context: Dict[str, Any]) -> None:
        # asyncpg leaves this one in a future when its connect is cancelled
        if 'unexpected connection_lost() call' not in str(context.get('exception')):
            self._ledger.violate(f'unhandled in the event loop: {context["message"]} {context.get("exception")!r}')

    def _check_at_rest(self, pool: Any) -> None:
        """Nobody uses the pool any more: nothing may be acquired."""
        for endpoint in pool._core.endpoints():
            count = pool._core.lent_size(endpoint)
            if count:
                self._ledger.violate(f'{count} connections of {pool!r} are acquired though nobody has them')

    def _check_leaks(self) -> None:
        servers = self._servers
        ends = {
            'sessions of PostgreSQL': lambda: len(servers.sessions()),
            'connections of the proxies': lambda: sum(proxy.open for proxy in servers.proxies),
            'connections of the question servers': lambda: servers.plain.open + servers.tls.open,
            'threads': lambda: sum(thread.name.startswith('gcp-') for thread in threading.enumerate()),
            # last: the others' ends have descriptors of this process, too
            'file descriptors': lambda: open_descriptors() - self._descriptors,
        }
        for what, count in ends.items():
            began = time.monotonic()
            deadline = began + PATIENCE
            while count() > 0 and time.monotonic() < deadline:
                threading.Event().wait(0.01)
            if count() > 0:
                self._ledger.violate(f'{count()} {what} were left behind')
