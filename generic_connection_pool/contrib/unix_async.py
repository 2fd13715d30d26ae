"""UNIX sockets and streams for asyncio: ``pool = ConnectionPool(UnixSocketStreamConnectionManager())``."""

import asyncio
import pathlib
import socket

from ._sockets import FIRST_PAUSE, LONGEST_PAUSE, new_unix_socket, try_connect_unix
from ._streams import close_async_socket, close_stream
from .socket_async import SocketAlivenessCheckingMixin, Stream, StreamAlivenessCheckingMixin

__all__ = (
    'CheckSocketAlivenessMixin',
    'CheckStreamAlivenessMixin',
    'Stream',
    'UnixSocketConnectionManager',
    'UnixSocketEndpoint',
    'UnixSocketStreamConnectionManager',
)

UnixSocketEndpoint = pathlib.Path

CheckSocketAlivenessMixin = SocketAlivenessCheckingMixin
CheckStreamAlivenessMixin = StreamAlivenessCheckingMixin


class UnixSocketConnectionManager(SocketAlivenessCheckingMixin[UnixSocketEndpoint]):
    """UNIX stream sockets that do not block, for ``loop.sock_recv`` and the like. The endpoint is the listener's path.

    A socket's options are left as its user set them.
    """

    async def create(self, endpoint: UnixSocketEndpoint) -> socket.socket:
        """Connect to a listening socket; if its queue is full, as soon as there is room.

        :param endpoint: its path
        :return: a connected socket that does not block
        :raises OSError: it cannot be connected, and the message names the path; or the platform has no UNIX sockets
        """
        return await _connect(endpoint)

    async def dispose(self, endpoint: UnixSocketEndpoint, conn: socket.socket) -> None:
        """Close a socket. Whoever still reads from it, reads its end.

        :param endpoint: the endpoint of the socket
        :param conn: the socket, whatever its state
        """
        await close_async_socket(conn)

    def is_reusable(self, endpoint: UnixSocketEndpoint, conn: socket.socket, exc: BaseException) -> bool:
        """Say no. A byte stream does not tell where one conversation ends and the next begins.

        Whatever was raised, even by code that has nothing to do with the connection: a request may have been sent
        whose answer is still under way, and no look at the socket can tell. A subclass which knows its protocol can.

        :param endpoint: the endpoint of the socket
        :param conn: the socket
        :param exc: what the user's code raised, a cancellation included
        """
        return False


class UnixSocketStreamConnectionManager(StreamAlivenessCheckingMixin[UnixSocketEndpoint]):
    """Streams, ``(StreamReader, StreamWriter)``, over UNIX sockets. The endpoint is the listener's path."""

    async def create(self, endpoint: UnixSocketEndpoint) -> Stream:
        """Connect to a listening socket; if its queue is full, as soon as there is room.

        :param endpoint: its path
        :return: the stream
        :raises OSError: it cannot be connected, and the message names the path; or the platform has no UNIX sockets
        """
        sock = await _connect(endpoint)
        try:
            return await asyncio.open_connection(sock=sock)
        except BaseException:
            sock.close()
            raise

    async def dispose(self, endpoint: UnixSocketEndpoint, conn: Stream) -> None:
        """Send what is still to be sent, and close; for one second at most, then just close.

        :param endpoint: the endpoint of the stream
        :param conn: the stream, whatever its state
        """
        await close_stream(conn[1])

    def is_reusable(self, endpoint: UnixSocketEndpoint, conn: Stream, exc: BaseException) -> bool:
        """Say no, for the reason given at :meth:`UnixSocketConnectionManager.is_reusable`.

        :param endpoint: the endpoint of the stream
        :param conn: the stream
        :param exc: what the user's code raised, a cancellation included
        """
        return False


async def _connect(path: pathlib.Path) -> socket.socket:
    # not loop.sock_connect(), which takes a listener with a full queue for one that has accepted
    sock = new_unix_socket()
    try:
        pause = FIRST_PAUSE
        while not try_connect_unix(sock, path):
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
    except BaseException:
        sock.close()
        raise
    return sock
