"""TCP sockets and streams for asyncio: ``pool = ConnectionPool(TcpStreamConnectionManager())``."""

import asyncio
import ipaddress
import socket
import ssl as _ssl
from typing import Optional, Tuple, Union

from .._fork import release_descriptor
from .._messages import show
from ..asyncio.manager import BaseConnectionManager
from ..common import EndpointT
from ._sockets import connect_error, is_quiet, place, resolve
from ._streams import close_async_socket, close_stream, nothing_unread, read_pending_input

__all__ = (
    'Hostname',
    'IpAddress',
    'Port',
    'SocketAlivenessCheckingMixin',
    'Stream',
    'StreamAlivenessCheckingMixin',
    'TcpEndpoint',
    'TcpSocketConnectionManager',
    'TcpStreamConnectionManager',
    'TcpStreamEndpoint',
)

IpAddress = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
Hostname = str
Port = int
TcpEndpoint = Tuple[IpAddress, Port]
TcpStreamEndpoint = Tuple[Hostname, Port]
Stream = Tuple[asyncio.StreamReader, asyncio.StreamWriter]


class SocketAlivenessCheckingMixin(BaseConnectionManager[EndpointT, socket.socket]):
    """Checks plain sockets: see :meth:`check_aliveness`."""

    async def check_aliveness(self, endpoint: EndpointT, conn: socket.socket) -> bool:
        """Tell whether an idle socket is connected and has nothing to read. One system call, which never waits.

        Unread bytes make it unfit: they are the rest of somebody's answer, not the beginning of the next one.

        :param endpoint: the endpoint of the socket
        :param conn: the socket; one that its user has closed is not alive
        """
        return is_quiet(conn.fileno())


class StreamAlivenessCheckingMixin(BaseConnectionManager[EndpointT, Stream]):
    """Checks streams: see :meth:`check_aliveness`."""

    async def check_aliveness(self, endpoint: EndpointT, conn: Stream) -> bool:
        """Tell whether an idle stream is connected and has nothing to read, not even what the loop has yet to notice.

        One system call. It suspends only for a TLS connection on which something has arrived: the event loop has to
        decrypt it to tell a session ticket, which is harmless, from data or the end. A stream that somebody else
        is reading from is not fit for use either.

        :param endpoint: the endpoint of the stream
        :param conn: the stream; one that its user has closed is not alive
        """
        reader, writer = conn
        if writer.is_closing() or not nothing_unread(reader):
            return False
        sock = writer.get_extra_info('socket')
        if sock is None or is_quiet(sock.fileno()):
            return True
        if writer.get_extra_info('ssl_object') is None:
            return False
        return await read_pending_input(writer.is_closing, sock.fileno) and nothing_unread(reader)

    def on_fork(self, endpoint: EndpointT, conn: Stream) -> None:
        """Release the descriptor that a stream of the parent has in the child, without a goodbye.

        :param endpoint: the endpoint of the stream
        :param conn: the stream
        """
        release_descriptor(conn[1])


class TcpSocketConnectionManager(SocketAlivenessCheckingMixin[TcpEndpoint]):
    """Plain TCP sockets that do not block, for ``loop.sock_recv`` and the like. The endpoint is an IP address and port.

    A socket's options are left as its user set them.
    """

    async def create(self, endpoint: TcpEndpoint) -> socket.socket:
        """Connect to an address.

        :param endpoint: the IP address and the port
        :return: a connected socket that does not block
        :raises OSError: it cannot be connected; the message names the address
        """
        host, port = endpoint
        (family, kind, protocol, _, address), = resolve(str(host), port, socket.AI_NUMERICHOST)
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, address)
        except OSError as exc:
            sock.close()
            raise connect_error(place(str(host), port), [exc]) from exc
        except BaseException:
            sock.close()
            raise
        return sock

    async def dispose(self, endpoint: TcpEndpoint, conn: socket.socket) -> None:
        """Close a socket. Whoever still reads from it, reads its end.

        :param endpoint: the endpoint of the socket
        :param conn: the socket, whatever its state
        """
        await close_async_socket(conn)

    def is_reusable(self, endpoint: TcpEndpoint, conn: socket.socket, exc: BaseException) -> bool:
        """Say no. A byte stream does not tell where one conversation ends and the next begins.

        Whatever was raised, even by code that has nothing to do with the connection: a request may have been sent
        whose answer is still under way, and no look at the socket can tell. A subclass which knows its protocol can.

        :param endpoint: the endpoint of the socket
        :param conn: the socket
        :param exc: what the user's code raised, a cancellation included
        """
        return False


class TcpStreamConnectionManager(StreamAlivenessCheckingMixin[TcpStreamEndpoint]):
    """Streams, ``(StreamReader, StreamWriter)``, over TCP or TLS. The endpoint is a host name and a port."""

    def __init__(self, ssl: Union[None, bool, _ssl.SSLContext] = None):
        """:param ssl: ``None`` (the default) or ``False`` for plain TCP, ``True`` for TLS that verifies certificates as
        ``ssl.create_default_context()`` does, or a context of one's own
        """
        # what is merely false must not mean plain TCP
        if not (ssl is None or isinstance(ssl, (bool, _ssl.SSLContext))):
            raise TypeError(f'ssl must be None, a bool or an ssl.SSLContext, not {show(ssl)}')
        # made once: asyncio would read the certificates of all authorities again for every connection
        self._ssl_context: Optional[_ssl.SSLContext] = _ssl.create_default_context() if ssl is True else ssl or None

    async def create(self, endpoint: TcpStreamEndpoint) -> Stream:
        """Connect to a host, trying each of its addresses in turn, and shake hands if TLS is wanted.

        :param endpoint: the host name, which is also the name that the certificate has to bear, and the port
        :return: the stream
        :raises ssl.SSLError: the handshake failed, or the certificate is not to be trusted
        :raises OSError: it cannot be connected; the message names the addresses
        """
        host, port = endpoint
        return await asyncio.open_connection(host, port, ssl=self._ssl_context)

    async def dispose(self, endpoint: TcpStreamEndpoint, conn: Stream) -> None:
        """Send what is still to be sent, say goodbye, and close; for one second at most, then just close.

        :param endpoint: the endpoint of the stream
        :param conn: the stream, whatever its state
        """
        await close_stream(conn[1])

    def is_reusable(self, endpoint: TcpStreamEndpoint, conn: Stream, exc: BaseException) -> bool:
        """Say no, for the reason given at :meth:`TcpSocketConnectionManager.is_reusable`.

        :param endpoint: the endpoint of the stream
        :param conn: the stream
        :param exc: what the user's code raised, a cancellation included
        """
        return False
