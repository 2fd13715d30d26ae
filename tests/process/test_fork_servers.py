"""What servers see of forked children that leave in all ways: nothing. HAZARD 38"""

import asyncio
import contextlib
import ipaddress
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from typing import Any, Callable, Iterator, List, Tuple

import pytest
from generic_connection_pool.asyncio import ConnectionPool as AsyncConnectionPool
from generic_connection_pool.contrib.socket import SslSocketConnectionManager, TcpSocketConnectionManager
from generic_connection_pool.contrib.socket_async import TcpStreamConnectionManager
from generic_connection_pool.contrib.unix import UnixSocketConnectionManager
from generic_connection_pool.threading import ConnectionPool
from support.certificates import Certificates
from support.forking import fork, in_child, inode, sockets_of
from support.postgres import DATABASES, PostgresServer
from support.servers import ask, ask_stream, silent_server, tcp_echo_server, unix_echo_server
from support.threads import result, start, wait_until

pytestmark = pytest.mark.skipif(not hasattr(os, 'fork'), reason='this platform does not fork')


def leave_by_exit() -> None:
    os._exit(0)


def leave_by_exec() -> None:
    os.execv('/bin/true', ['true'])


def leave_by_crash() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


#: a parent with a pool of TLS connections, for children that end as interpreters do: see test_tls
PARENT = """
import gc, os, ssl, sys
from generic_connection_pool.contrib.socket import SslSocketConnectionManager
from generic_connection_pool.threading import ConnectionPool
context = ssl.create_default_context(cafile={ca!r})
pool = ConnectionPool(SslSocketConnectionManager(context))
endpoint = 'localhost', {port}
held = pool.acquire(endpoint)
with pool.connection(endpoint) as idle: idle.sendall(b'one\\n'); assert idle.recv(9) == b'one\\n'
before = {{os.fstat(conn.fileno()).st_ino for conn in (held, idle)}}
pid = os.fork()
if not pid:
    open_now = set()
    for fd in os.listdir('/proc/self/fd'):
        try: open_now.add(os.fstat(int(fd)).st_ino)
        except OSError: pass
    assert not before & open_now
    pool.release(held, endpoint)
    pool.close()
    del held, idle
    gc.collect()
    sys.exit(7)
_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 7, status
for conn in (held, idle): conn.sendall(b'two\\n'); assert conn.recv(9) == b'two\\n'
print('fine')
pool.release(held, endpoint)
pool.close()
"""


class Wire(threading.Thread):
    """Passes on bytes between a client and a server, and notes those of the client."""

    def __init__(self, port: int):
        super().__init__(daemon=True)
        self._server = ('127.0.0.1', port)
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.port: int = self.listener.getsockname()[1]
        self.sent: List[bytes] = []
        self.ends: List[str] = []
        self._sockets: List[socket.socket] = []
        self._threads: List[Any] = []

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                server = socket.create_connection(self._server)
                self._sockets += (client, server)
                self._threads.append(start(self._pass_on, client, server, True))
                self._threads.append(start(self._pass_on, server, client, False))

    def stop(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.join()
        self.listener.close()
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            result(thread)
        for sock in self._sockets:
            sock.close()

    def _pass_on(self, source: socket.socket, target: socket.socket, noted: bool) -> None:
        try:
            while True:
                data = source.recv(1 << 16)
                if noted:
                    self.sent.append(data)
                if not data:
                    break
                target.sendall(data)
        except OSError as exc:
            self.ends.append(type(exc).__name__)
        finally:
            with contextlib.suppress(OSError):
                target.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def wire_to(port: int) -> Iterator[Wire]:
    wire = Wire(port)
    wire.start()
    try:
        yield wire
    finally:
        wire.stop()


def children(*functions: Callable[[], None]) -> None:
    """Fork a child for each function; return when all have gone."""
    for function in functions:
        pid = fork()
        if not pid:
            try:
                function()
            finally:
                os._exit(1)
        os.waitpid(pid, 0)


@pytest.mark.parametrize('leave', [leave_by_exit, leave_by_exec, leave_by_crash], ids=lambda leave: leave.__name__)
def test_the_peer_of_a_tls_connection_hears_nothing_of_a_child(certificates: Certificates, leave: Any) -> None:
    with tcp_echo_server('127.0.0.1', certificates.server()) as server, wire_to(server.port) as wire:
        pool: Any = ConnectionPool(SslSocketConnectionManager(certificates.client()))
        endpoint = ('localhost', wire.port)
        held = pool.acquire(endpoint)
        with pool.connection(endpoint) as idle:
            assert ask(idle, b'before\n') == b'before\n'
        assert ask(held, b'before\n') == b'before\n'
        noted = len(wire.sent)

        def child() -> None:
            assert held.fileno() == idle.fileno() == -1
            with contextlib.suppress(OSError, ValueError):
                held.sendall(b'from the child\n')
            with contextlib.suppress(OSError, ValueError):
                held.unwrap()
            pool.release(held, endpoint)
            pool.close()
            leave()

        children(child, child)
        assert len(wire.sent) == noted and not wire.ends
        assert ask(held, b'after\n') == ask(idle, b'after\n') == b'after\n'
        assert len(wire.sent) == noted + 2
        pool.release(held, endpoint)
        pool.close()


def test_an_interpreter_that_ends_as_a_child_leaves_the_tls_connections_of_its_parent_alone(
    certificates: Certificates, tmp_path: pathlib.Path
) -> None:
    """Its own pool was closed, what it still knew was released, and all modules are torn down."""
    ca = tmp_path / 'ca.pem'
    ca.write_bytes(certificates.authority_pem)
    with tcp_echo_server('127.0.0.1', certificates.server()) as server:
        code = PARENT.format(ca=str(ca), port=server.port)
        environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(
            [sys.executable, '-X', 'dev', '-W', 'ignore::ResourceWarning', '-c', code],
            env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (0, 'fine\n', '')


def test_a_child_releases_the_descriptors_of_plain_sockets() -> None:
    with contextlib.ExitStack() as stack:
        path = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix='gcp-'))) / 'echo'
        tcp = stack.enter_context(tcp_echo_server('127.0.0.1'))
        local = stack.enter_context(unix_echo_server(str(path)))
        by_tcp: Any = ConnectionPool(TcpSocketConnectionManager())
        by_path: Any = ConnectionPool(UnixSocketConnectionManager())
        address = ipaddress.ip_address('127.0.0.1'), tcp.port
        with by_tcp.connection(address) as first, by_path.connection(path) as second:
            file = second.makefile('rb')  # keeps the socket from being closed altogether

            def child() -> Any:
                with by_tcp.connection(address) as sock:
                    assert sock is not first and ask(sock, b'child\n') == b'child\n'
                by_tcp.close()
                return sockets_of(os.getpid())

            mine = {inode(first), inode(second)}
            assert mine <= sockets_of(os.getpid())
            assert not mine & in_child(child)
            assert ask(first, b'parent\n') == ask(second, b'parent\n') == b'parent\n'
            file.close()
        by_tcp.close()
        by_path.close()
        assert tcp.accepted == 2 and local.accepted == 1


def test_a_child_releases_what_another_thread_is_connecting(certificates: Certificates) -> None:
    with silent_server() as (_, port):
        pool: Any = ConnectionPool(SslSocketConnectionManager(certificates.client()))
        before = sockets_of(os.getpid())
        connecting = start(pool.acquire, ('localhost', port), timeout=2)
        wait_until(lambda: len(sockets_of(os.getpid()) - before) == 1)
        mine = sockets_of(os.getpid()) - before
        wait_until(_is_shaking_hands, 'the handshake')
        assert not mine & in_child(lambda: sockets_of(os.getpid()))
        assert isinstance(connecting.exception(20), TimeoutError)
        pool.close()


def _is_shaking_hands() -> bool:
    return any(
        frame.f_code.co_name == 'do_handshake' for top in sys._current_frames().values() for frame in _frames(top)
    )


def _frames(frame: Any) -> Iterator[Any]:
    while frame is not None:
        yield frame
        frame = frame.f_back


@pytest.mark.parametrize('encrypts', [False, True])
def test_the_streams_of_an_event_loop_go_on_though_a_child_closes_its_pool(
    certificates: Certificates, encrypts: bool
) -> None:
    async def parent(port: int) -> None:
        pool: Any = AsyncConnectionPool(TcpStreamConnectionManager(certificates.client() if encrypts else None))
        endpoint = 'localhost', port
        held = await pool.acquire(endpoint)
        async with pool.connection(endpoint) as idle:
            assert await ask_stream(idle, b'before\n') == b'before\n'
        assert await ask_stream(held, b'before\n') == b'before\n'
        mine = {os.fstat(stream[1].get_extra_info('socket').fileno()).st_ino for stream in (held, idle)}

        async def use() -> Any:
            async with pool.connection(endpoint) as stream:
                assert stream not in (held, idle)
                answer = await ask_stream(stream, b'child\n')
            await pool.release(held, endpoint)
            await pool.close()
            return answer

        def child() -> Any:
            assert pool.get_size() == 0 and not mine & sockets_of(os.getpid())
            for stream in (held, idle):
                with contextlib.suppress(Exception):
                    stream[1].transport.abort()
            return asyncio.run(use())

        assert in_child(child) == b'child\n'
        for stream in (held, idle):
            assert await asyncio.wait_for(ask_stream(stream, b'after\n'), 10) == b'after\n'
        await pool.release(held, endpoint)
        await pool.close()

    context = certificates.server() if encrypts else None
    with tcp_echo_server('127.0.0.1', context) as server, wire_to(server.port) as wire:
        asyncio.run(parent(wire.port))
        assert not wire.ends


def session_of(conn: Any) -> int:
    with conn.cursor() as cursor:
        cursor.execute('SELECT pg_backend_pid()')
        (pid,) = cursor.fetchone()
        return int(pid)


@pytest.mark.parametrize('leave', [leave_by_exit, leave_by_exec, leave_by_crash], ids=lambda leave: leave.__name__)
def test_sessions_of_psycopg2_survive_children_that_close_all_they_know(postgres: PostgresServer, leave: Any) -> None:
    from generic_connection_pool.contrib.psycopg2 import DbConnectionManager

    pool: Any = ConnectionPool(DbConnectionManager({'alpha': postgres.parameters(DATABASES[0])}))
    with pool.connection('alpha') as held:
        with pool.connection('alpha') as idle:
            sessions = [session_of(idle), session_of(held)]
        held.rollback()
        mine = {os.fstat(conn.fileno()).st_ino for conn in (held, idle)}

        def check() -> None:
            assert not mine & sockets_of(os.getpid())
            with pool.connection('alpha') as conn:
                assert session_of(conn) not in sessions
            for conn in (held, idle):
                conn.close()  # says goodbye, to nobody
            pool.release(held, 'alpha')
            pool.close()

        reader, writer = os.pipe()

        def checked() -> None:
            check()
            os.write(writer, b'.')
            leave()

        children(checked, checked)
        os.close(writer)
        with os.fdopen(reader, 'rb') as pipe:
            assert pipe.read() == b'..'
        assert [session_of(idle), session_of(held)] == sessions
        idle.rollback()
    pool.close()


def test_sessions_of_asyncpg_survive_a_child_that_closes_all_it_knows(postgres: PostgresServer) -> None:
    pytest.importorskip('asyncpg')
    from generic_connection_pool.contrib.asyncpg import DbConnectionManager

    async def parent() -> None:
        pool: Any = AsyncConnectionPool(DbConnectionManager({'alpha': postgres.parameters(DATABASES[0])}))
        held = await pool.acquire('alpha')
        async with pool.connection('alpha') as idle:
            sessions = [idle.get_server_pid(), held.get_server_pid()]
        mine = {os.fstat(conn._transport.get_extra_info('socket').fileno()).st_ino for conn in (held, idle)}

        async def use() -> Tuple[bool, bool]:
            async with pool.connection('alpha') as conn:
                fresh = await conn.fetchval('SELECT pg_backend_pid()') not in sessions
            await pool.release(held, 'alpha')
            await pool.close()
            return fresh, pool.closed

        def child() -> Any:
            assert not mine & sockets_of(os.getpid())
            for conn in (held, idle):
                with contextlib.suppress(Exception):
                    conn.terminate()
            return asyncio.run(use())

        assert in_child(child) == (True, True)
        for conn, session in zip((idle, held), sessions):
            assert await conn.fetchval('SELECT pg_backend_pid()', timeout=10) == session
        await pool.release(held, 'alpha')
        await pool.close()

    asyncio.run(parent())
