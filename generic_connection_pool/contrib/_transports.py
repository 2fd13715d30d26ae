"""What is beneath the connections of ``http.client`` and ``smtplib``: TCP, or TLS over it."""

import socket
import ssl
from typing import Optional

from .._messages import show
from . import _tls
from ._sockets import Deadline, connect_tcp, is_quiet, place, resolve
from .socket import SslSocketConnectionManager

__all__ = ('Transports', 'check_context', 'check_io_timeout', 'check_server', 'name_place', 'say_goodbye')


class Transports:
    """Opens and checks sockets, with TLS by one context."""

    def __init__(self, ssl_context: ssl.SSLContext):
        """:param ssl_context: how to secure and to verify"""
        self._context = ssl_context
        self._tls = SslSocketConnectionManager(ssl_context)

    def connect(self, host: str, port: int, deadline: Deadline) -> socket.socket:
        """Connect to a host, trying each of its addresses in turn.

        :return: a socket that blocks and sends without delay
        :raises OSError: it cannot be connected, or not in time (``TimeoutError``); the message names the host
        """
        sock = connect_tcp(resolve(host, port), place(host, port), deadline)
        try:
            # a small request is not to wait for the acknowledgment of the one before
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            sock.close()
            raise
        return sock

    def secure(self, sock: socket.socket, host: str, port: int, deadline: Deadline) -> ssl.SSLSocket:
        """Shake hands over a connected socket, which is replaced by the one returned, or closed if that fails.

        :raises ssl.SSLError: the handshake failed, or the certificate is not to be trusted; the message names the host
        :raises OSError: the connection was lost, or the time was not enough (``TimeoutError``)
        """
        where = place(host, port)
        try:
            return _tls.shake_hands(self._context, sock, host, where, deadline)
        except TimeoutError:
            # it says where
            raise
        except OSError as exc:
            name_place(exc, f'no TLS handshake with {where}')
            raise

    def is_quiet(self, sock: socket.socket) -> bool:
        """Tell whether an idle socket is connected and has no data to read. It never waits."""
        if isinstance(sock, ssl.SSLSocket):
            return self._tls.check_aliveness(('', 0), sock)
        return is_quiet(sock.fileno())


def say_goodbye(sock: socket.socket) -> None:
    """Say goodbye over TLS if that needs no waiting. Only for a connection that no other thread uses."""
    if isinstance(sock, ssl.SSLSocket):
        _tls.say_goodbye(sock)


def name_place(exc: OSError, where: str) -> None:
    """Have an error of the system or of OpenSSL, which keeps its class and number, say where it happened."""
    # without a number, str() of an OpenSSL error is that of its arguments' tuple
    said = exc.strerror or (exc.args[0] if len(exc.args) == 1 else exc)
    exc.strerror = f'{where}: {said}'
    if exc.errno is None:
        exc.args = (exc.strerror,)


def check_context(ssl_context: Optional[ssl.SSLContext]) -> None:
    """:raises TypeError: it is not a context"""
    if ssl_context is not None and not callable(getattr(ssl_context, 'wrap_socket', None)):
        raise TypeError(f'ssl_context must be an ssl.SSLContext or None, not {show(ssl_context)}')


def check_io_timeout(io_timeout: Optional[float], name: str = 'io_timeout') -> None:
    """:raises TypeError: it is no number
    :raises ValueError: it is not a positive one
    """
    if io_timeout is None:
        return
    if isinstance(io_timeout, bool) or not isinstance(io_timeout, (int, float)):
        raise TypeError(f'{name} must be a number of seconds or None, not {show(io_timeout)}')
    if not 0.0 < io_timeout < float('inf'):
        raise ValueError(f'{name} must be more than 0 seconds and finite, or None, not {show(io_timeout)}')


def check_server(host: object, port: object) -> None:
    """:raises TypeError: the host is no string, or the port no whole number
    :raises ValueError: the host is empty or contains what no host does, or there is no such port
    """
    if not isinstance(host, str):
        raise TypeError(f'a host must be a string, not a {type(host).__name__}')
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f'a port must be a whole number, not a {type(port).__name__}')
    if not host or any(character <= ' ' or character in '@/\x7f' for character in host):
        # which is not told: before an @ there may be a password
        raise ValueError('a host must be a name or an address, without white space, "@" or "/"')
    if not 0 < port < 65536:
        raise ValueError(f'a port must be from 1 to 65535, not {show(port)}')
