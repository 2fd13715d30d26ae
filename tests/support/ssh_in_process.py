"""asyncssh's server, in a thread of the test process: it lets in by password, and can be told to hesitate."""

import asyncio
import concurrent.futures
import contextlib
import pathlib
import threading
from typing import Any, Coroutine, Dict, Iterator, Set

import asyncssh
from support.servers import PATIENCE

__all__ = ('InProcessServer', 'in_process_server')


class InProcessServer:
    """A server that knows users by their passwords. Each command is answered with ``<user>: <command>``.

    :param host_key: the file of its private key
    """

    host = '127.0.0.1'

    def __init__(self, host_key: pathlib.Path):
        #: who is let in, with which password
        self.passwords: Dict[str, str] = {}
        #: cleared, it has all who want to log in wait
        self.admits = threading.Event()
        self.admits.set()
        #: how many have tried to log in, how many connections are open
        self.attempts = 0
        self.connections: Set[asyncssh.SSHServerConnection] = set()
        self.port = 0
        self._host_key = str(host_key)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name='ssh-server', daemon=True)
        self._thread.start()
        self._acceptor: asyncssh.SSHAcceptor = self._run(self._listen())
        self.port = self._acceptor.get_port()

    def stop(self) -> None:
        """End the server and its connections."""
        self.admits.set()
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        done: 'concurrent.futures.Future[Any]' = asyncio.run_coroutine_threadsafe(work, self._loop)
        return done.result(PATIENCE)

    async def _listen(self) -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            self.host, 0,
            server_factory=lambda: _Gate(self), server_host_keys=[self._host_key], process_factory=_answer,
        )  # fmt: skip

    async def _stop(self) -> None:
        self._acceptor.close()
        await self._acceptor.wait_closed()
        for conn in list(self.connections):
            conn.abort()
        while self.connections:
            await asyncio.sleep(0.001)
        for _ in range(5):
            await asyncio.sleep(0)


class _Gate(asyncssh.SSHServer):
    def __init__(self, server: InProcessServer):
        self._server = server

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._conn = conn
        self._server.connections.add(conn)

    def connection_lost(self, exc: 'Exception | None') -> None:
        self._server.connections.discard(self._conn)

    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    async def validate_password(self, username: str, password: str) -> bool:
        self._server.attempts += 1
        while not self._server.admits.is_set():
            await asyncio.sleep(0.005)
        return self._server.passwords.get(username) == password


def _answer(process: 'asyncssh.SSHServerProcess[str]') -> None:
    process.stdout.write(f'{process.get_extra_info("username")}: {process.command}')
    process.exit(0)


@contextlib.contextmanager
def in_process_server(host_key: pathlib.Path) -> Iterator[InProcessServer]:
    """Run asyncssh's server for the length of a ``with`` block."""
    server = InProcessServer(host_key)
    try:
        yield server
    finally:
        server.stop()
