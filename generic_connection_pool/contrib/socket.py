"""TCP and TLS sockets for threads: ``pool = ConnectionPool(TcpSocketConnectionManager())``."""

import contextlib
import ipaddress
import socket
import ssl
import threading
from typing import Dict, Generator, Optional, Tuple, Union

from .._fork import release_descriptor
from .._messages import show
from ..common import EndpointT
from ..threading.manager import BaseConnectionManager
from ._sockets import Deadline, close_socket, connect_tcp, is_quiet, place, resolve
from ._tls import say_goodbye, shake_hands

__all__ = (
    'Hostname',
    'IpAddress',
    'Port',
    'SocketAlivenessCheckingMixin',
    'SslEndpoint',
    'SslSocketAlivenessCheckingMixin',
    'SslSocketConnectionManager',
    'TcpEndpoint',
    'TcpSocketConnectionManager',
    'socket_nonblocking',
    'socket_timeout',
)

IpAddress = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
Hostname = str
Port = int
TcpEndpoint = Tuple[IpAddress, Port]
SslEndpoint = Tuple[Hostname, Port]


@contextlib.contextmanager
def socket_timeout(sock: socket.socket, timeout: Optional[float]) -> Generator[None, None, None]:
    """Set the timeout of a socket for the duration of a block.

    :param sock: the socket; it may be closed inside the block
    :param timeout: seconds, ``None`` to block without bound, ``0`` not to block at all
    """
    before = sock.gettimeout()
    sock.settimeout(timeout)
    try:
        yield
    finally:
        if sock.fileno() >= 0:
            sock.settimeout(before)


@contextlib.contextmanager
def socket_nonblocking(sock: socket.socket) -> Generator[None, None, None]:
    """Keep a socket from blocking for the duration of a block.

    :param sock: the socket; it may be closed inside the block
    """
    with socket_timeout(sock, 0.0):
        yield


class SocketAlivenessCheckingMixin(BaseConnectionManager[EndpointT, socket.socket]):
    """Checks plain sockets: see :meth:`check_aliveness`."""

    def check_aliveness(self, endpoint: EndpointT, conn: socket.socket, timeout: Optional[float] = None) -> bool:
        """Tell whether an idle socket is connected and has nothing to read. One system call, which never waits.

        Unread bytes make it unfit: they are the rest of somebody's answer, not the beginning of the next one.

        :param endpoint: the endpoint of the socket
        :param conn: the socket; one that its user has closed is not alive
        :param timeout: not needed, the check does not wait
        """
        return is_quiet(conn.fileno())


class SslSocketAlivenessCheckingMixin(BaseConnectionManager[EndpointT, ssl.SSLSocket]):
    """Checks TLS sockets: see :meth:`check_aliveness`."""

    def check_aliveness(self, endpoint: EndpointT, conn: ssl.SSLSocket, timeout: Optional[float] = None) -> bool:
        """Tell whether an idle TLS socket is connected and has no data to read.

        One system call if nothing has arrived, and it never waits. Session tickets and other messages of the protocol
        itself, which a TLS 1.3 server sends unasked, are taken in; data, a closing alert, the end of the stream
        and half a record make the connection unfit.

        :param endpoint: the endpoint of the socket
        :param conn: the socket; one that its user has closed or unwrapped is not alive
        :param timeout: not needed, the check does not wait
        """
        # version() is None for what is not, or not any more, a TLS connection
        if conn.version() is None or conn.pending() > 0:
            return False
        return is_quiet(conn.fileno()) or _take_in_protocol_messages(conn)


class TcpSocketConnectionManager(SocketAlivenessCheckingMixin[TcpEndpoint]):
    """Plain TCP connections, which block and have no timeout. The endpoint is an IP address and a port.

    A socket's options and timeout are left as its user set them.
    """

    def create(self, endpoint: TcpEndpoint, timeout: Optional[float] = None) -> socket.socket:
        """Connect to an address.

        :param endpoint: the IP address and the port
        :param timeout: seconds that connecting may take (0 or more), ``None`` for the operating system's bound
        :return: a connected socket that blocks
        :raises OSError: it cannot be connected, or not in time (``TimeoutError``); the message names the address
        """
        address, port = endpoint
        addresses = resolve(str(address), port, socket.AI_NUMERICHOST)
        return connect_tcp(addresses, place(str(address), port), Deadline(timeout))

    def dispose(self, endpoint: TcpEndpoint, conn: socket.socket, timeout: Optional[float] = None) -> None:
        """Close a socket. Whoever still reads from it, reads its end.

        :param endpoint: the endpoint of the socket
        :param conn: the socket, whatever its state
        :param timeout: not needed, closing does not wait
        """
        close_socket(conn)

    def is_reusable(self, endpoint: TcpEndpoint, conn: socket.socket, exc: BaseException) -> bool:
        """Say no. A byte stream does not tell where one conversation ends and the next begins.

        Whatever was raised, even by code that has nothing to do with the connection: a request may have been sent
        whose answer is still under way, and no look at the socket can tell. A subclass which knows its protocol can.

        :param endpoint: the endpoint of the socket
        :param conn: the socket
        :param exc: what the user's code raised
        """
        return False


class SslSocketConnectionManager(SslSocketAlivenessCheckingMixin[SslEndpoint]):
    """TLS connections, which block and have no timeout. The endpoint is a host name and a port."""

    def __init__(self, ssl_context: ssl.SSLContext):
        """:param ssl_context: how to secure and to verify; ``ssl.create_default_context()`` is a good choice"""
        if not callable(getattr(ssl_context, 'wrap_socket', None)):
            raise TypeError(f'ssl_context must be an ssl.SSLContext, not {show(ssl_context)}')
        self._ssl_context = ssl_context
        # the threads that have acquired connections
        self._holders: Dict[ssl.SSLSocket, int] = {}

    def create(self, endpoint: SslEndpoint, timeout: Optional[float] = None) -> ssl.SSLSocket:
        """Connect to a host, trying each of its addresses in turn, and shake hands.

        :param endpoint: the host name, which is also the name that the certificate has to bear, and the port
        :param timeout: seconds (0 or more) that connecting and the handshake together may take, ``None`` for no bound.
            Looking up the name is up to the operating system, which takes its own time
        :return: a connected socket that blocks
        :raises ssl.SSLError: the handshake failed, or the certificate is not to be trusted
        :raises OSError: it cannot be connected, or not in time (``TimeoutError``); the message names the host
        """
        host, port = endpoint
        deadline = Deadline(timeout)
        addresses, where = resolve(host, port), place(host, port)
        return shake_hands(self._ssl_context, connect_tcp(addresses, where, deadline), host, where, deadline)

    def dispose(self, endpoint: SslEndpoint, conn: ssl.SSLSocket, timeout: Optional[float] = None) -> None:
        """Say goodbye if that can be done at once, and close.

        A connection that another thread may be using, when the pool is closed by force, is closed without a goodbye;
        the thread reads its end or gets an error.

        :param endpoint: the endpoint of the socket
        :param conn: the socket, whatever its state
        :param timeout: not needed, closing does not wait
        """
        try:
            # OpenSSL crashes if two threads use a connection at once
            if self._holders.pop(conn, threading.get_ident()) == threading.get_ident():
                say_goodbye(conn)
        finally:
            close_socket(conn)

    def on_acquire(self, endpoint: SslEndpoint, conn: ssl.SSLSocket) -> None:
        """Remember which thread has the connection.

        :param endpoint: the endpoint of the socket
        :param conn: the socket
        """
        self._holders[conn] = threading.get_ident()

    def on_release(self, endpoint: SslEndpoint, conn: ssl.SSLSocket) -> None:
        """Forget which thread had the connection.

        :param endpoint: the endpoint of the socket
        :param conn: the socket
        """
        self._holders.pop(conn, None)

    def on_fork(self, endpoint: SslEndpoint, conn: ssl.SSLSocket) -> None:
        """Close a socket of the parent in the child, without a goodbye.

        :param endpoint: the endpoint of the socket
        :param conn: the socket
        """
        self._holders.pop(conn, None)
        release_descriptor(conn)

    def is_reusable(self, endpoint: SslEndpoint, conn: ssl.SSLSocket, exc: BaseException) -> bool:
        """Say no, for the reason given at :meth:`TcpSocketConnectionManager.is_reusable`.

        :param endpoint: the endpoint of the socket
        :param conn: the socket
        :param exc: what the user's code raised
        """
        return False


#: more unread bytes than this are not session tickets
_LARGEST_PEEK = 32 * 1024


def _take_in_protocol_messages(conn: ssl.SSLSocket) -> bool:
    """Read what has arrived; tell whether it was nothing but whole messages of the TLS protocol itself."""
    try:
        with socket_nonblocking(conn):
            # SSLSocket's own recv() allows no flags
            if not _are_whole_records(socket.socket.recv(conn, _LARGEST_PEEK, socket.MSG_PEEK)):
                return False
            conn.recv(1)
    except ssl.SSLWantReadError:
        return True
    except (OSError, ValueError):
        pass
    return False


def _are_whole_records(data: bytes) -> bool:
    """Tell whether bytes end where a TLS record ends.

    If they do not, the peer is in the middle of a message, which OpenSSL would swallow and say that nothing is there.
    """
    position = 0
    while position + 5 <= len(data):
        # type (1 byte), version (2), length of what follows (2)
        position += 5 + int.from_bytes(data[position + 3:position + 5], 'big')
    return position == len(data)
