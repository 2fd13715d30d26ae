"""Redis and Valkey with redis-py, for threads: ``pool = ConnectionPool(RedisConnectionManager({'cache': 'redis://...'}))``.

Three lines to use it::

    with pool.connection('cache') as conn:
        execute(conn, 'SET', 'greeting', 'hello')
        client(conn).incr('visits')
"""

import contextlib
import logging
import pathlib
import socket
import ssl
import threading
import traceback
from typing import Any, Callable, Dict, Iterable, Iterator, Mapping, Optional, Union

import redis
import redis.connection

from .._fork import release_descriptor, unfinished
from ..threading.manager import BaseConnectionManager
from . import _redis
from ._endpoints import find_endpoint
from ._redis import ConnectTimeoutError, RedisParameters
from ._redis_session import Packed, Session, judge_pong, kinds_of, new_ping, reset_commands, was_reset
from ._sockets import Deadline, close_socket, connect_tcp, resolve
from .unix import UnixSocketConnectionManager

__all__ = (
    'ConnectTimeoutError',
    'RedisConnection',
    'RedisConnectionManager',
    'RedisEndpoint',
    'RedisEndpoints',
    'RedisParameters',
    'client',
    'execute',
)

RedisEndpoint = str

#: the parameters of each endpoint, by its name; a callable is asked again for each new connection
RedisEndpoints = Mapping[RedisEndpoint, Union[RedisParameters, Callable[[], RedisParameters]]]

logger = logging.getLogger(__name__)

_unix_sockets = UnixSocketConnectionManager()


class RedisConnection(redis.connection.AbstractConnection):
    """A connection of redis-py, with its methods, that notes what its user leaves behind and never reconnects.

    One that is closed, by its user or after an error, stays closed: whoever uses it then gets a ``ConnectionError``.
    All classes of connections that the manager creates are subclasses also of redis-py's own ``Connection``,
    ``SSLConnection`` or ``UnixDomainSocketConnection``.
    """

    _sock: Any

    def __init__(self, **keywords: Any):
        super().__init__(**keywords)
        self.session = Session()
        #: the thread that has acquired the connection
        self.holder: Optional[int] = None
        #: what a client needs to know, which understands replies as it was told to
        self.client_keywords = {name: keywords[name] for name in _FOR_CLIENTS if name in keywords}

    @property
    def sock(self) -> Optional[socket.socket]:
        """Its socket, ``None`` if it is closed."""
        sock: Optional[socket.socket] = self._sock
        return sock

    def open(self, deadline: Deadline) -> None:
        """Connect and log in. If that fails the caller has to disconnect."""
        self._sock = sock = self._open_socket(deadline)
        unfinished.add(sock)
        sock.settimeout(self.socket_timeout)
        with _cut_off(sock, deadline.left()):
            shake_hands: Any = self.redis_connect_func
            if shake_hands is None:
                shake_hands = self.on_connect
                shake_hands()
            else:
                shake_hands(self)
        # was it cut off?
        deadline.left()
        unfinished.discard(sock)
        self.session = Session()

    def _open_socket(self, deadline: Deadline) -> socket.socket:
        raise NotImplementedError

    def disconnect(self, *args: Any, **kwargs: Any) -> None:
        """Close it, for good."""
        base: Any = super()
        base.disconnect(*args, **kwargs)

    def connect(self) -> None:
        """Do nothing if it is connected.

        :raises redis.ConnectionError: it is not. A second connection that nobody knows of would have none of what was
            done on the first, and a reply that was waited for would be lost silently
        """
        if self._sock is None:
            raise redis.ConnectionError('the connection is closed; one of a pool does not connect again')

    def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        """Do as :meth:`connect` does."""
        self.connect()

    def pack_command(self, *args: Any) -> Packed:
        """Pack a command to be sent."""
        base: Any = super()
        return Packed(base.pack_command(*args), kinds_of((args,)))

    def pack_commands(self, commands: Iterable[Any]) -> Packed:
        """Pack several commands to be sent."""
        base: Any = super()
        commands = list(commands)
        return Packed(base.pack_commands(commands), kinds_of(commands))

    def send_command(self, *args: Any, **kwargs: Any) -> None:
        """Pack and send a command."""
        self.send_packed_command(self.pack_command(*args), check_health=kwargs.get('check_health', True))

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Send commands. Of any that this connection has not packed nobody knows what they do."""
        self.session.sends_packed(command)
        base: Any = super()
        base.send_packed_command(command, check_health=check_health)

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """Read the next reply."""
        session = self.session
        if kwargs.get('push_request'):
            # what is returned may be a message that is no reply
            session.is_uncertain()
        try:
            reply = super().read_response(*args, **kwargs)
        except BaseException as exc:
            session.raised(exc)
            raise
        session.answered()
        return reply

    def is_answering(self, deadline: Deadline) -> bool:
        """Send a PING and tell whether its answer, and nothing else, is what comes next."""
        sock = self.sock
        if sock is None or self.can_read(0):
            return False
        question, answer = new_ping()
        sock.settimeout(deadline.left())
        sock.sendall(question)
        received, verdict = b'', None
        while verdict is None:
            sock.settimeout(deadline.left())
            data = sock.recv(4096)
            if not data:
                return False
            received += data
            verdict = judge_pong(received, answer)
        sock.settimeout(self.socket_timeout)
        return verdict

    def reset(self) -> bool:
        """Make the session as new, in one round trip; tell whether that went well. If not, the caller disconnects."""
        sock = self.sock
        if sock is None or self.redis_connect_func is not None:
            # what somebody else's function has done to the session is not ours to do again
            return False
        commands = reset_commands(int(self.protocol), self._credentials(), self.client_name, self.db)
        with _cut_off(sock, _redis.RESET_GRACE):
            self.send_packed_command(self.pack_commands(commands), check_health=False)
            replies = [self.read_response(disable_decoding=True) for _ in commands]
        if not was_reset(commands, replies):
            return False
        self.session = Session()
        return True

    def _credentials(self) -> Any:
        provider = _redis.credential_provider(self)
        return () if provider is None else provider.get_credentials()


class _TcpConnection(RedisConnection, redis.Connection):
    def _open_socket(self, deadline: Deadline) -> socket.socket:
        bound = Deadline(deadline.left_within(self.socket_connect_timeout))
        sock = connect_tcp(resolve(self.host, self.port), f'{self.host}:{self.port}', bound)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.socket_keepalive:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option, value in self.socket_keepalive_options.items():
                    sock.setsockopt(socket.IPPROTO_TCP, option, value)
            sock.settimeout(bound.left())
            return self._secured(sock)
        except BaseException:
            sock.close()
            raise

    def _secured(self, sock: socket.socket) -> socket.socket:
        return sock


class _TlsConnection(_TcpConnection, redis.SSLConnection):
    def _secured(self, sock: socket.socket) -> socket.socket:
        try:
            # takes over the descriptor
            wrap: Callable[[socket.socket], socket.socket] = self._wrap_socket_with_ssl
            tls = wrap(sock)
        except BaseException as exc:
            _close_tls_sockets(exc)
            raise
        return tls


class _UnixConnection(RedisConnection, redis.UnixDomainSocketConnection):
    def _open_socket(self, deadline: Deadline) -> socket.socket:
        return _unix_sockets.create(pathlib.Path(self.path), deadline.left_within(self.socket_connect_timeout))


_CONNECTIONS: Dict[str, Callable[..., RedisConnection]] = {
    'tcp': _TcpConnection, 'tls': _TlsConnection, 'unix': _UnixConnection,
}  # fmt: skip
_FOR_CLIENTS = ('decode_responses', 'encoding', 'encoding_errors', 'legacy_responses', 'protocol')


class RedisConnectionManager(BaseConnectionManager[RedisEndpoint, RedisConnection]):
    """Sessions of Redis or Valkey. The endpoint is the name of an entry of ``endpoints``.

    What a user changes in the session never reaches the next one. A connection notes each command that it sends, and
    counts replies, so that releasing costs nothing if only data were read and written, transactions that came to an end
    included. After ``SELECT``, ``AUTH``, ``CLIENT SETNAME``, a ``MULTI`` or ``WATCH`` left open, or a command that is
    not known here, one round trip with ``RESET`` and all that the handshake had set brings the session back. After what
    leads to messages that nobody asked for (``SUBSCRIBE``, ``MONITOR``, ``CLIENT TRACKING`` ...) or a reply left unread
    the connection is closed, and also if the server knows no ``RESET`` (before version 6.2).

    (To reset at each acquire, instead of the PING, would cost no more round trips, but would log in each time, and
    would leave in force, as long as a connection is idle, what its last user did to the session.)

    What is set on the connection object itself, such as its timeouts, stays.
    """

    def __init__(self, endpoints: RedisEndpoints):
        """:param endpoints: for each endpoint, by its name, the connect keywords (``host``, ``port``, ``db``,
            ``username``, ``password``, ``ssl=True`` for TLS, ``unix_socket_path`` ... as of ``redis.Redis``), a URL
            (``redis://``, ``rediss://``, ``unix://``), or a callable that returns either. That is called for each new
            connection, so that credentials may change. The server's certificate and host name are verified unless the
            keywords say otherwise
        :raises TypeError: something is of the wrong type
        :raises ValueError: a URL cannot be parsed, or a keyword is not for pooled connections, such as ``retry``
        """
        self._endpoints: RedisEndpoints = _redis.check_endpoints(endpoints, redis.connection.parse_url)

    def create(self, endpoint: RedisEndpoint, timeout: Optional[float] = None) -> RedisConnection:
        """Connect to the server of an endpoint, log in, and select the database.

        :param endpoint: the name of the endpoint
        :param timeout: seconds (0 or more) that all of it may take, ``None`` for the timeouts among the parameters.
            Looking up a host name is up to the operating system, which takes its own time
        :return: the connection
        :raises KeyError: there are no parameters for that name
        :raises TypeError, ValueError: the parameters are wrong
        :raises ConnectTimeoutError: it took too long; it is a ``TimeoutError`` and a ``redis.TimeoutError``
        :raises redis.AuthenticationError: the server does not accept the credentials
        :raises redis.ResponseError: the server refuses something else
        :raises redis.ConnectionError: the server cannot be reached, or its certificate is not to be trusted
        """
        deadline = Deadline(timeout)
        source = find_endpoint(self._endpoints, endpoint)
        parameters = source() if callable(source) else source
        kind, keywords = _redis.connect_keywords(endpoint, parameters, redis.connection.parse_url)
        conn = _redis.construct(endpoint, _CONNECTIONS[kind], keywords)
        try:
            conn.open(deadline)
            return conn
        except BaseException as exc:
            conn.disconnect()
            if not isinstance(exc, (redis.RedisError, OSError)):
                raise
            secrets = (conn.password, conn.username)
            failure = _redis.connect_failure(endpoint, exc, secrets, deadline.is_over, timeout)
        raise failure

    def dispose(self, endpoint: RedisEndpoint, conn: RedisConnection, timeout: Optional[float] = None) -> None:
        """Close a connection. Whoever still waits for a reply on it gets a ``redis.ConnectionError``.

        :param endpoint: the name of the endpoint
        :param conn: the connection, whatever its state
        :param timeout: not needed, closing does not wait
        """
        sock = conn.sock
        if sock is not None:
            close_socket(sock)
        # the parser that another thread is reading with is left alone; that thread finds the end of the stream
        if conn.holder in (None, threading.get_ident()):
            conn.disconnect()

    def check_aliveness(self, endpoint: RedisEndpoint, conn: RedisConnection, timeout: Optional[float] = None) -> bool:
        """Tell whether a session can go on: nothing is left to be read, and a PING is answered.

        What is left to be read (a message, the end of the stream) is found without a round trip. The PING bears a
        number, and its answer has to come next and be the last: no other reply is taken for it.

        :param endpoint: the name of the endpoint
        :param conn: the connection; one that its user has closed is not alive
        :param timeout: seconds that it may take (0 or more), ``None`` for the connection's own ``socket_timeout``, or
            five seconds if it has none
        """
        if not conn.session.is_at_rest or conn.session.is_changed:
            return False
        bound = _redis.pong_timeout(conn.socket_timeout)
        try:
            return conn.is_answering(Deadline(bound if timeout is None else min(timeout, bound)))
        except (redis.RedisError, OSError, ValueError):
            return False

    def on_acquire(self, endpoint: RedisEndpoint, conn: RedisConnection) -> None:
        """Remember which thread has the connection.

        :param endpoint: the name of the endpoint
        :param conn: the connection
        """
        conn.holder = threading.get_ident()

    def on_release(self, endpoint: RedisEndpoint, conn: RedisConnection) -> None:
        """Bring the session back to its first state, if it is not known to be in it.

        A connection with replies that nobody has read is closed. So is one whose session cannot be reset, which is
        logged but is no error of the user's. What is closed is found dead and replaced when it is next to be used.

        :param endpoint: the name of the endpoint
        :param conn: the connection
        """
        conn.holder = None
        if conn.sock is None:
            return
        if not conn.session.is_at_rest:
            conn.disconnect()
        elif not conn.session.is_changed:
            conn.session = Session()
        else:
            _reset(endpoint, conn)

    def on_fork(self, endpoint: RedisEndpoint, conn: RedisConnection) -> None:
        """Release the descriptor that a session of the parent has in the child, in silence.

        :param endpoint: the name of the endpoint
        :param conn: the connection
        """
        release_descriptor(conn.sock)

    def is_reusable(self, endpoint: RedisEndpoint, conn: RedisConnection, exc: BaseException) -> bool:
        """Tell whether a session can go on although its user's code failed.

        It can if all replies were read to their end: after an error that the server reported, or one of the user's own
        between two commands. It cannot after a loss of the connection, a timeout, an interrupt, or while a reply is
        still to be read.

        :param endpoint: the name of the endpoint
        :param conn: the connection
        :param exc: what the user's code raised
        """
        if not isinstance(exc, Exception) or isinstance(exc, (redis.ConnectionError, redis.TimeoutError)):
            return False
        return conn.sock is not None and conn.session.is_at_rest


def execute(conn: RedisConnection, *command: Union[str, bytes, float, int]) -> Any:
    """Send a command over a pooled connection and return its reply.

    :param conn: the connection
    :param command: the name of the command and its arguments
    :return: the reply as redis-py reads it: ``bytes`` (``str`` with ``decode_responses=True``), numbers, lists,
        ``None``, with protocol 3 also ``bool`` and ``dict``
    :raises redis.ResponseError: the server reported an error; the connection can be used further
    :raises redis.ConnectionError, redis.TimeoutError: the connection is lost
    """
    conn.send_command(*command)
    return conn.read_response()


def client(conn: RedisConnection) -> redis.Redis:
    """Return a ``redis.Redis`` whose commands all go over one pooled connection.

    It is of use until the connection is given back. It need not be closed, which would do nothing.

    :param conn: the connection
    """
    return redis.Redis(connection_pool=_OneConnection(conn))


class _OneConnection(redis.ConnectionPool):
    """What a client takes for a pool: it always lends the same connection."""

    def __init__(self, conn: RedisConnection):
        super().__init__(type(conn), max_connections=1, **conn.client_keywords)
        self._conn = conn

    def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        return self._conn

    def release(self, connection: Any) -> None:
        pass

    def disconnect(self, *args: Any, **kwargs: Any) -> None:
        pass

    def close(self) -> None:
        pass


def _reset(endpoint: RedisEndpoint, conn: RedisConnection) -> None:
    """Reset the session of a connection, or close it."""
    try:
        if not conn.reset():
            raise redis.ConnectionError('the session cannot be reset')
    except (redis.RedisError, OSError) as exc:
        conn.disconnect()
        _redis.warn_of_failed_reset(logger, endpoint, exc)
    except BaseException:
        conn.disconnect()
        raise


@contextlib.contextmanager
def _cut_off(sock: socket.socket, seconds: Optional[float]) -> Iterator[None]:
    """Shut a socket down if a block takes too long, however many reads and writes with timeouts of their own it has."""
    if seconds is None:
        yield
        return
    # a little later than the deadline, so that whoever was not too late is certain not to have been cut off
    watchdog = threading.Timer(seconds + 0.01, _shut_down, (sock,))
    watchdog.daemon = True
    watchdog.start()
    try:
        yield
    finally:
        watchdog.cancel()


def _shut_down(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # not the method of a TLS socket, which another thread is using
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _close_tls_sockets(exc: BaseException) -> None:
    """Close the TLS sockets that were being made when something was raised, which redis-py does not always do."""
    for frame, _ in traceback.walk_tb(exc.__traceback__):
        for value in list(frame.f_locals.values()):
            if isinstance(value, ssl.SSLSocket):
                value.close()
