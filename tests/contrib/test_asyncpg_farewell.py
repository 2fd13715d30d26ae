"""An asyncpg session whose server says farewell, and takes its time to hang up."""

import contextlib
import pathlib
import socket
import threading
from typing import Callable, Iterator, List

import pytest

asyncpg = pytest.importorskip('asyncpg', exc_type=ImportError)

from support.postgres import DATABASES, PostgresServer  # noqa: E402
from support.servers import eventually  # noqa: E402

from generic_connection_pool.asyncio import ConnectionPool  # noqa: E402
from generic_connection_pool.contrib._sockets import is_quiet  # noqa: E402
from generic_connection_pool.contrib.asyncpg import DbConnection, DbConnectionManager  # noqa: E402

ALPHA = DATABASES[0]


class Relay:
    """Passes on what a server and its clients say, but not that the server has hung up.

    :param listener: where clients connect to
    :param server: the path of the server's socket
    """

    def __init__(self, listener: socket.socket, server: str):
        self._listener = listener
        self._server = server
        self._sockets: List[socket.socket] = []
        self._threads: List[threading.Thread] = []
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *args: socket.socket) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self._server)
                self._sockets += [near, far]
                self._start(self._pass_on, near, far)
                self._start(self._pass_on, far, near)

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)

    def close(self) -> None:
        for sock in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for sock in self._sockets:
            sock.close()


@pytest.fixture
def manager(postgres: PostgresServer, tmp_path: pathlib.Path) -> Iterator[DbConnectionManager]:
    """Of sessions that go through a relay."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / '.s.PGSQL.1'))
        listener.listen()
        relay = Relay(listener, postgres.socket_path)
        try:
            yield DbConnectionManager({ALPHA: postgres.parameters(ALPHA, host=str(tmp_path), port=1)})
        finally:
            relay.close()


def wait_until_something_has_arrived(conn: DbConnection) -> None:
    """Wait without letting the event loop read it."""
    descriptor = conn._transport.get_extra_info('socket').fileno()  # type: ignore[attr-defined]
    eventually(lambda: not is_quiet(descriptor))


async def test_a_session_is_replaced_whose_server_has_said_farewell_but_not_hung_up(
    manager: DbConnectionManager, postgres: PostgresServer
) -> None:
    pool: 'ConnectionPool[str, DbConnection]' = ConnectionPool(manager)
    async with pool.connection(ALPHA) as first:
        pid = first.get_server_pid()
    postgres.kill(pid)
    wait_until_something_has_arrived(first)
    async with pool.connection(ALPHA) as second:
        assert await second.fetchval('SELECT 1') == 1
    assert second is not first and pool.get_size() == 1
    await pool.close()
