"""UNIX sockets for threads: ``pool = ConnectionPool(UnixSocketConnectionManager())``."""

import os
import pathlib
import socket
import time
from typing import Optional

from ._sockets import FIRST_PAUSE, LONGEST_PAUSE, Deadline, close_socket, connect_error
from ._sockets import new_unix_socket, try_connect_unix
from .socket import SocketAlivenessCheckingMixin

__all__ = ('CheckSocketAlivenessMixin', 'UnixSocketConnectionManager', 'UnixSocketEndpoint')

UnixSocketEndpoint = pathlib.Path

CheckSocketAlivenessMixin = SocketAlivenessCheckingMixin


class UnixSocketConnectionManager(SocketAlivenessCheckingMixin[UnixSocketEndpoint]):
    """UNIX stream sockets, which block and have no timeout. The endpoint is the path of the listening socket.

    A socket's options and timeout are left as its user set them.
    """

    def create(self, endpoint: UnixSocketEndpoint, timeout: Optional[float] = None) -> socket.socket:
        """Connect to a listening socket.

        :param endpoint: its path
        :param timeout: seconds (0 or more) to wait for room in the listener's queue, ``None`` for no bound
        :return: a connected socket that blocks
        :raises OSError: it cannot be connected, or not in time (``TimeoutError``), and the message names the path;
            or the platform has no UNIX sockets
        """
        deadline = Deadline(timeout)
        sock = new_unix_socket()
        try:
            if timeout is None:
                # blocking, the system wakes us when there is room
                sock.setblocking(True)
            pause = FIRST_PAUSE
            while not try_connect_unix(sock, endpoint):
                time.sleep(min(pause, deadline.left() or pause))
                pause = min(2 * pause, LONGEST_PAUSE)
            sock.setblocking(True)
        except TimeoutError as exc:
            sock.close()
            raise connect_error(os.fspath(endpoint), [exc]) from exc
        except BaseException:
            sock.close()
            raise
        return sock

    def dispose(self, endpoint: UnixSocketEndpoint, conn: socket.socket, timeout: Optional[float] = None) -> None:
        """Close a socket. Whoever still reads from it, reads its end.

        :param endpoint: the endpoint of the socket
        :param conn: the socket, whatever its state
        :param timeout: not needed, closing does not wait
        """
        close_socket(conn)

    def is_reusable(self, endpoint: UnixSocketEndpoint, conn: socket.socket, exc: BaseException) -> bool:
        """Say no. A byte stream does not tell where one conversation ends and the next begins.

        Whatever was raised, even by code that has nothing to do with the connection: a request may have been sent
        whose answer is still under way, and no look at the socket can tell. A subclass which knows its protocol can.

        :param endpoint: the endpoint of the socket
        :param conn: the socket
        :param exc: what the user's code raised
        """
        return False
