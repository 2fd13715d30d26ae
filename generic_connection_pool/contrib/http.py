"""HTTP/1.1 and HTTPS with ``http.client``, for threads: ``pool = ConnectionPool(HttpConnectionManager())``."""

import http.client
import ssl
import threading
import urllib.parse
from typing import Dict, Optional, Tuple, Union

from .._fork import release_descriptor
from .._messages import show
from ..threading.manager import BaseConnectionManager
from ._http import HttpConnection, HttpResponse, HttpsConnection
from ._sockets import Deadline
from ._transports import Transports, check_context, check_io_timeout, check_server, say_goodbye

__all__ = ('HttpConnection', 'HttpConnectionManager', 'HttpEndpoint', 'HttpOrigin', 'HttpResponse', 'origin')

HttpOrigin = Tuple[str, str, int]
HttpEndpoint = Union[str, HttpOrigin]

_PORTS = {'http': http.client.HTTP_PORT, 'https': http.client.HTTPS_PORT}


def origin(url: str) -> HttpOrigin:
    """Return the endpoint that serves a URL.

    :param url: an absolute URL, ``http:`` or ``https:``, such as ``https://www.example.org/a/page?of=it``
    :return: the scheme and the host in lower case, and the port
    :raises TypeError: it is no string
    :raises ValueError: it is no such URL, or contains a user name, for which the request is the place
    """
    if not isinstance(url, str):
        raise TypeError(f'a URL must be a string, not a {type(url).__name__}')
    # what the URL is, is not told: there may be a password in it
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError('the URL is malformed: an IPv6 address must be in brackets, a port a number') from None
    if '@' in parts.netloc:
        raise ValueError('the URL of an endpoint must not contain a user name or a password')
    if parts.scheme not in _PORTS:
        raise ValueError('the URL of an endpoint must begin with http:// or https://')
    if not parts.hostname:
        raise ValueError('the URL of an endpoint must contain a host')
    return _checked(parts.scheme, parts.hostname, _PORTS[parts.scheme] if port is None else port)


class HttpConnectionManager(BaseConnectionManager[HttpEndpoint, HttpConnection]):
    """Connections of ``http.client``: an :class:`HttpConnection` is an :class:`http.client.HTTPConnection`.

    The endpoint is ``(scheme, host, port)``, the scheme being ``'http'`` or ``'https'``, or a URL's origin as a string,
    such as ``'https://www.example.org'``. Endpoints that are spelt differently have connections of their own;
    :func:`origin` returns the same for all URLs of one server. There is no support for proxies.

    A connection is used again if its last response was read to the end and neither side has said that it would close
    the connection; otherwise it is closed when it is released. The timeout of its socket and the attributes of the
    connection object are restored then; options of the socket stay as they are.
    """

    def __init__(self, ssl_context: Optional[ssl.SSLContext] = None, *, io_timeout: Optional[float] = None):
        """
        :param ssl_context: how to secure and to verify HTTPS; by default :func:`ssl.create_default_context`, which
            verifies certificates and host names
        :param io_timeout: seconds (more than 0) that a user's reading or writing may wait for the server at a time,
            ``None`` (the default) for no bound. A user can set it for one use by ``conn.sock.settimeout()``
        :raises TypeError: a parameter is of the wrong kind
        :raises ValueError: ``io_timeout`` is not positive
        """
        check_context(ssl_context)
        check_io_timeout(io_timeout)
        self._ssl_context = _default_context() if ssl_context is None else ssl_context
        self._transports = Transports(self._ssl_context)
        self._io_timeout = io_timeout
        # the threads that have acquired connections
        self._holders: Dict[HttpConnection, int] = {}

    def create(self, endpoint: HttpEndpoint, timeout: Optional[float] = None) -> HttpConnection:
        """Connect to a host, trying each of its addresses in turn, and shake hands if it is to be HTTPS.

        :param endpoint: ``(scheme, host, port)`` or an origin
        :param timeout: seconds (0 or more) that connecting and the handshake together may take, ``None`` for no bound.
            Looking up the name is up to the operating system, which takes its own time
        :return: a connection that is connected and stays so: it does not connect again by itself
        :raises TypeError: the endpoint is of the wrong kind
        :raises ValueError: the endpoint is malformed
        :raises ssl.SSLError: the handshake failed, or the certificate is not to be trusted
        :raises OSError: it cannot be connected, or not in time (``TimeoutError``); the message names host and port
        """
        scheme, host, port = _parse(endpoint)
        deadline = Deadline(timeout)
        conn: HttpConnection
        if scheme == 'https':
            conn = HttpsConnection(host, port, context=self._ssl_context)
        else:
            conn = HttpConnection(host, port)
        sock = self._transports.connect(host, port, deadline)
        try:
            if scheme == 'https':
                sock = self._transports.secure(sock, host, port, deadline)
            conn.adopt(sock, self._io_timeout)
        except BaseException:
            sock.close()
            raise
        return conn

    def dispose(self, endpoint: HttpEndpoint, conn: HttpConnection, timeout: Optional[float] = None) -> None:
        """Close a connection, along with a response that has not been read. TLS says goodbye if it needs no waiting.

        One that another thread may be using, when the pool is closed by force, is cut: whoever reads or writes gets
        an error at once, and never takes what has come of a response for all of it.

        :param endpoint: the endpoint of the connection
        :param conn: the connection, whatever its state
        :param timeout: not needed, closing does not wait
        """
        if self._holders.pop(conn, threading.get_ident()) != threading.get_ident():
            conn.cut()
            return
        try:
            if conn.transport is not None and conn.is_at_rest():
                say_goodbye(conn.transport)
        finally:
            conn.discard()

    def check_aliveness(self, endpoint: HttpEndpoint, conn: HttpConnection, timeout: Optional[float] = None) -> bool:
        """Tell whether a request may be sent. One system call if nothing has arrived, no round trip, no waiting.

        It may not if the server has closed the connection, or said anything at all, or probably is about to close it:
        when the time that it gave in a ``Keep-Alive`` header is over.

        :param endpoint: the endpoint of the connection
        :param conn: the connection; one that its user has closed is not alive
        :param timeout: not needed, the check does not wait
        """
        if not conn.is_at_rest() or conn.has_expired():
            return False
        return conn.transport is not None and self._transports.is_quiet(conn.transport)

    def on_acquire(self, endpoint: HttpEndpoint, conn: HttpConnection) -> None:
        """Remember which thread has the connection.

        :param endpoint: the endpoint of the connection
        :param conn: the connection
        """
        self._holders[conn] = threading.get_ident()

    def on_release(self, endpoint: HttpEndpoint, conn: HttpConnection) -> None:
        """Restore timeout and attributes; or close the connection, if it is not to be used again.

        :param endpoint: the endpoint of the connection
        :param conn: the connection
        """
        self._holders.pop(conn, None)
        try:
            if conn.is_at_rest():
                conn.tidy()
                return
        except Exception:
            # such as OSError, of a socket that its user has closed: to be found dead
            pass
        except BaseException:
            conn.discard()
            raise
        conn.discard()

    def on_fork(self, endpoint: HttpEndpoint, conn: HttpConnection) -> None:
        """Close a socket of the parent in the child, without a word to the server.

        :param endpoint: the endpoint of the connection
        :param conn: the connection
        """
        self._holders.pop(conn, None)
        release_descriptor(conn.transport)
        conn.leave_to_parent()

    def is_reusable(self, endpoint: HttpEndpoint, conn: HttpConnection, exc: BaseException) -> bool:
        """Tell whether another request may be sent although the user's code failed.

        It may after an error of the user's own, such as bad data in a response, if each request was sent and each
        response read to the end. It may not after an error of the system or of the protocol, a timeout or an interrupt.

        :param endpoint: the endpoint of the connection
        :param conn: the connection
        :param exc: what the user's code raised
        """
        if not isinstance(exc, Exception) or isinstance(exc, (OSError, http.client.HTTPException)):
            return False
        return conn.is_at_rest()


def _default_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(['http/1.1'])
    return context


def _parse(endpoint: object) -> HttpOrigin:
    """Return scheme, host and port of an endpoint.

    :raises TypeError: it is neither a string nor a tuple of three
    :raises ValueError: there is something wrong with it
    """
    if isinstance(endpoint, str):
        found = origin(endpoint)
        if urllib.parse.urlsplit(endpoint)[2:] not in (('', '', ''), ('/', '', '')):
            raise ValueError(f'an endpoint is the origin of a URL, without path or query; see origin(): {found}')
        return found
    if not isinstance(endpoint, tuple) or len(endpoint) != 3:
        raise TypeError(f'an endpoint must be (scheme, host, port) or an origin, not a {type(endpoint).__name__}')
    return _checked(*endpoint)


def _checked(scheme: object, host: object, port: object) -> HttpOrigin:
    if not isinstance(scheme, str) or scheme not in _PORTS:
        raise ValueError(f"the scheme of an endpoint must be 'http' or 'https', not {show(scheme)}")
    check_server(host, port)
    assert isinstance(host, str) and isinstance(port, int)
    return scheme, host, port
