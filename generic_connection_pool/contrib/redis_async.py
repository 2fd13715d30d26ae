"""Redis and Valkey with redis-py, for asyncio: ``pool = ConnectionPool(RedisConnectionManager({'cache': 'redis://...'}))``.

Three lines to use it::

    async with pool.connection('cache') as conn:
        await execute(conn, 'SET', 'greeting', 'hello')
        await client(conn).incr('visits')
"""

import asyncio
import contextlib
import inspect
import logging
from typing import Any, Awaitable, Callable, Dict, Iterable, Iterator, Mapping, Optional, Union

import redis.asyncio
import redis.asyncio.connection

from .._fork import release_descriptor
from ..asyncio.manager import BaseConnectionManager
from . import _redis
from ._endpoints import find_endpoint
from ._redis import ConnectTimeoutError, RedisParameters
from ._redis_session import Packed, Session, judge_pong, kinds_of, new_ping, reset_commands, was_reset
from ._sockets import is_quiet
from ._streams import close_stream, nothing_unread

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

#: the parameters of each endpoint, by its name; a callable, also an asynchronous one, is asked for each connection
RedisEndpoints = Mapping[
    RedisEndpoint, Union[RedisParameters, Callable[[], Union[RedisParameters, Awaitable[RedisParameters]]]]
]

logger = logging.getLogger(__name__)

#: how a connection is lost; asyncio.TimeoutError is another class than TimeoutError before Python 3.11
_CONNECTION_ERRORS = (redis.ConnectionError, redis.TimeoutError)
_ERRORS = (redis.RedisError, OSError, asyncio.TimeoutError)


class RedisConnection(redis.asyncio.connection.AbstractConnection):
    """A connection of redis-py, with its methods, that notes what its user leaves behind and never reconnects.

    One that is closed, by its user or after an error, stays closed: whoever uses it then gets a ``ConnectionError``.
    All classes of connections that the manager creates are subclasses also of redis-py's own ``Connection``,
    ``SSLConnection`` or ``UnixDomainSocketConnection`` for asyncio.
    """

    def __init__(self, **keywords: Any):
        super().__init__(**keywords)
        self.session = Session()
        #: what a client needs to know, which understands replies as it was told to
        self.client_keywords = {name: keywords[name] for name in _FOR_CLIENTS if name in keywords}

    @property
    def writer(self) -> Optional[asyncio.StreamWriter]:
        """What it writes to, ``None`` if it is closed."""
        writer: Optional[asyncio.StreamWriter] = self._writer
        return writer

    async def open(self) -> None:
        """Connect and log in. If that fails the caller has to abort."""
        connect: Callable[[], Awaitable[None]] = self._connect
        await connect()
        if self.redis_connect_func is not None:
            outcome: Any = self.redis_connect_func(self)
            if inspect.isawaitable(outcome):
                await outcome
        elif not isinstance(self, redis.asyncio.UnixDomainSocketConnection):
            # redis-py has logged in already over a UNIX socket
            await self.on_connect()
        self.session = Session()

    def abort(self) -> None:
        """Close at once, without a goodbye."""
        writer = self.writer
        self.forget_stream()
        if writer is not None:
            with contextlib.suppress(RuntimeError):
                # the event loop may have ended
                writer.transport.abort()

    def forget_stream(self) -> None:
        """Know no stream any more, which somebody else closes."""
        parser: Any = self._parser
        parser.on_disconnect()
        self._reader = self._writer = None

    async def disconnect(self, nowait: bool = False, *args: Any, **kwargs: Any) -> None:
        """Close it, for good.

        :param nowait: whether to do so at once, as redis-py does after an error, also if that cuts off a TLS goodbye
        """
        if nowait:
            self.abort()
        await super().disconnect(nowait, *args, **kwargs)

    async def connect(self) -> None:
        """Do nothing if it is connected.

        :raises redis.ConnectionError: it is not. A second connection that nobody knows of would have none of what was
            done on the first, and a reply that was waited for would be lost silently
        """
        if not self.is_connected:
            raise redis.ConnectionError('the connection is closed; one of a pool does not connect again')

    async def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        """Do as :meth:`connect` does."""
        await self.connect()

    def pack_command(self, *args: Any) -> Packed:
        """Pack a command to be sent."""
        return Packed(super().pack_command(*args), kinds_of((args,)))

    def pack_commands(self, commands: Iterable[Iterable[Any]]) -> Packed:
        """Pack several commands to be sent."""
        listed = [tuple(command) for command in commands]
        return Packed(super().pack_commands(listed), kinds_of(listed))

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Send commands. Of any that this connection has not packed nobody knows what they do.

        Not with redis-py's own method, which uses ``asyncio.wait_for()``: before Python 3.12 that swallows a
        cancellation if the data have just been sent. There is no health to be checked, since the pool does that.
        """
        await self.connect()
        self.session.sends_packed(command)
        if isinstance(command, (bytes, str)):
            command = [command]
        writer = self.writer
        assert writer is not None
        with self._cut_off(self.socket_timeout) as is_cut_off:
            try:
                writer.writelines(chunk.encode() if isinstance(chunk, str) else chunk for chunk in command)
                await writer.drain()
                # when a connection is cut off, drain() ends as if all was well
                reason = 'it was closed meanwhile' if writer.is_closing() else None
            except OSError as exc:
                reason = str(exc)
            except BaseException:
                # what was sent of the commands nobody knows
                self.abort()
                raise
            if reason is not None:
                self.abort()
                if is_cut_off():
                    raise redis.TimeoutError('timeout while writing to the connection')
                raise redis.ConnectionError(f'error while writing to the connection: {reason}')

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """Read the next reply."""
        session = self.session
        if kwargs.get('push_request'):
            # what is returned may be a message that is no reply
            session.is_uncertain()
        try:
            reply = await super().read_response(*args, **kwargs)
        except BaseException as exc:
            session.raised(exc)
            raise
        if reply is None and (len(args) > 1 or kwargs.get('timeout') is not None):
            # a reply, or none in time
            session.is_uncertain()
        session.answered()
        return reply

    def has_unread_data(self) -> bool:
        """Tell whether something has arrived that nobody has read, be it the end, or the stream is closed."""
        writer, reader = self.writer, self._reader
        if writer is None or reader is None or writer.is_closing() or not nothing_unread(reader):
            return True
        parsing = getattr(self._parser, '_reader', None)
        # hiredis has a reader of its own, other parsers have bytes
        if parsing.has_data() if parsing is not None else getattr(self._parser, '_buffer', None):
            return True
        sock = writer.get_extra_info('socket')
        # what arrives over TLS may be no data; the loop has to decrypt it to tell
        return sock is not None and writer.get_extra_info('ssl_object') is None and not is_quiet(sock.fileno())

    async def is_answering(self, timeout: float) -> bool:
        """Send a PING and tell whether its answer, and nothing else, is what comes next."""
        writer, reader = self.writer, self._reader
        if writer is None or reader is None or self.has_unread_data():
            return False
        question, answer = new_ping()
        received, verdict = b'', None
        with self._cut_off(timeout):
            writer.write(question)
            while verdict is None:
                data = await reader.read(4096)
                if not data:
                    return False
                received += data
                verdict = judge_pong(received, answer)
        return verdict and nothing_unread(reader)

    async def reset(self) -> bool:
        """Make the session as new, in one round trip; tell whether that went well. If not, the caller aborts."""
        if self.redis_connect_func is not None:
            # what somebody else's function has done to the session is not ours to do again
            return False
        credentials = await self._credentials()
        commands = reset_commands(int(self.protocol), credentials, self.client_name, self.db)
        with self._cut_off(_redis.RESET_GRACE):
            await self.send_packed_command(self.pack_commands(commands), check_health=False)
            replies = [await self.read_response(disable_decoding=True) for _ in commands]
        if not was_reset(commands, replies):
            return False
        self.session = Session()
        return True

    async def _credentials(self) -> Any:
        provider = _redis.credential_provider(self)
        return () if provider is None else await provider.get_credentials_async()

    @contextlib.contextmanager
    def _cut_off(self, seconds: Optional[float]) -> Iterator[Callable[[], bool]]:
        """Close the connection if a block takes too long. The block is given what tells it whether that has happened.

        A timer, not ``asyncio.wait_for()``, for the reason given at :meth:`send_packed_command`.
        """
        if seconds is None:
            yield lambda: False
            return
        loop = asyncio.get_running_loop()
        watchdog = loop.call_later(seconds, self.abort)
        try:
            yield lambda: loop.time() >= watchdog.when()
        finally:
            watchdog.cancel()


class _TcpConnection(RedisConnection, redis.asyncio.Connection):
    pass


class _TlsConnection(RedisConnection, redis.asyncio.SSLConnection):
    pass


class _UnixConnection(RedisConnection, redis.asyncio.UnixDomainSocketConnection):
    pass


_CONNECTIONS: Dict[str, Callable[..., RedisConnection]] = {
    'tcp': _TcpConnection, 'tls': _TlsConnection, 'unix': _UnixConnection,
}  # fmt: skip
_FOR_CLIENTS = ('decode_responses', 'encoder_class', 'encoding', 'encoding_errors', 'legacy_responses', 'protocol')


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
            ``username``, ``password``, ``ssl=True`` for TLS, ``unix_socket_path`` ... as of ``redis.asyncio.Redis``),
            a URL (``redis://``, ``rediss://``, ``unix://``), or a callable, also an asynchronous one, that returns
            either. That is called for each new connection, so that credentials may change. The server's certificate and
            host name are verified unless the keywords say otherwise
        :raises TypeError: something is of the wrong type
        :raises ValueError: a URL cannot be parsed, or a keyword is not for pooled connections, such as ``retry``
        """
        self._endpoints: RedisEndpoints = _redis.check_endpoints(endpoints, redis.asyncio.connection.parse_url)

    async def create(self, endpoint: RedisEndpoint) -> RedisConnection:
        """Connect to the server of an endpoint, log in, and select the database.

        :param endpoint: the name of the endpoint
        :return: the connection
        :raises KeyError: there are no parameters for that name
        :raises TypeError, ValueError: the parameters are wrong
        :raises ConnectTimeoutError: it took longer than the timeouts among the parameters; it is a ``TimeoutError`` and
            a ``redis.TimeoutError``
        :raises redis.AuthenticationError: the server does not accept the credentials
        :raises redis.ResponseError: the server refuses something else
        :raises redis.ConnectionError: the server cannot be reached, or its certificate is not to be trusted
        """
        source = find_endpoint(self._endpoints, endpoint)
        parameters = source() if callable(source) else source
        if inspect.isawaitable(parameters):
            parameters = await parameters
        kind, keywords = _redis.connect_keywords(endpoint, parameters, redis.asyncio.connection.parse_url)
        conn = _redis.construct(endpoint, _CONNECTIONS[kind], keywords)
        try:
            await conn.open()
            return conn
        except BaseException as exc:
            conn.abort()
            if not isinstance(exc, _ERRORS):
                raise
            timed_out = isinstance(exc, asyncio.TimeoutError)
            failure = _redis.connect_failure(endpoint, exc, (conn.password, conn.username), timed_out)
        raise failure

    async def dispose(self, endpoint: RedisEndpoint, conn: RedisConnection) -> None:
        """Close a connection, within one second. Whoever waits for a reply on it gets a ``redis.ConnectionError``.

        :param endpoint: the name of the endpoint
        :param conn: the connection, whatever its state
        """
        writer = conn.writer
        if writer is None:
            return
        try:
            await close_stream(writer)
        finally:
            conn.forget_stream()

    async def check_aliveness(self, endpoint: RedisEndpoint, conn: RedisConnection) -> bool:
        """Tell whether a session can go on: nothing is left to be read, and a PING is answered.

        What is left to be read (a message, the end of the stream) is found without a round trip. The PING bears a
        number, and its answer has to come next and be the last: no other reply is taken for it. It is waited for no
        longer than the connection's own ``socket_timeout``, or five seconds if it has none.

        :param endpoint: the name of the endpoint
        :param conn: the connection; one that its user has closed is not alive
        """
        if not conn.session.is_at_rest or conn.session.is_changed:
            return False
        try:
            return await conn.is_answering(_redis.pong_timeout(conn.socket_timeout))
        except (OSError, RuntimeError):
            # a RuntimeError if the connection's event loop has ended
            return False

    async def on_release(self, endpoint: RedisEndpoint, conn: RedisConnection) -> None:
        """Bring the session back to its first state, if it is not known to be in it.

        A connection with replies that nobody has read is closed. So is one whose session cannot be reset, which is
        logged but is no error of the user's. What is closed is found dead and replaced when it is next to be used.

        :param endpoint: the name of the endpoint
        :param conn: the connection
        """
        if conn.writer is None:
            return
        if not conn.session.is_at_rest:
            conn.abort()
        elif not conn.session.is_changed:
            conn.session = Session()
        else:
            await _reset(endpoint, conn)

    def on_fork(self, endpoint: RedisEndpoint, conn: RedisConnection) -> None:
        """Release the descriptor that a session of the parent has in the child, in silence.

        :param endpoint: the name of the endpoint
        :param conn: the connection
        """
        release_descriptor(conn.writer)

    def is_reusable(self, endpoint: RedisEndpoint, conn: RedisConnection, exc: BaseException) -> bool:
        """Tell whether a session can go on although its user's code failed.

        It can if all replies were read to their end: after an error that the server reported, or one of the user's own,
        a timeout or a cancellation between two commands. It cannot after a loss of the connection, or while a reply is
        still to be read, as after a cancellation in the middle of a command.

        :param endpoint: the name of the endpoint
        :param conn: the connection
        :param exc: what the user's code raised, a cancellation included
        """
        if not isinstance(exc, (Exception, asyncio.CancelledError)) or isinstance(exc, _CONNECTION_ERRORS):
            return False
        return conn.writer is not None and conn.session.is_at_rest


async def execute(conn: RedisConnection, *command: Union[str, bytes, float, int]) -> Any:
    """Send a command over a pooled connection and return its reply.

    :param conn: the connection
    :param command: the name of the command and its arguments
    :return: the reply as redis-py reads it: ``bytes`` (``str`` with ``decode_responses=True``), numbers, lists,
        ``None``, with protocol 3 also ``bool`` and ``dict``
    :raises redis.ResponseError: the server reported an error; the connection can be used further
    :raises redis.ConnectionError, redis.TimeoutError: the connection is lost
    """
    await conn.send_command(*command)
    return await conn.read_response()


def client(conn: RedisConnection) -> redis.asyncio.Redis:
    """Return a ``redis.asyncio.Redis`` whose commands all go over one pooled connection.

    It is of use until the connection is given back. It need not be closed, which would do nothing.

    :param conn: the connection
    """
    return redis.asyncio.Redis(connection_pool=_OneConnection(conn))


class _OneConnection(redis.asyncio.ConnectionPool):
    """What a client takes for a pool: it always lends the same connection."""

    def __init__(self, conn: RedisConnection):
        super().__init__(type(conn), max_connections=1, **conn.client_keywords)
        self._conn = conn

    async def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        return self._conn

    async def release(self, connection: Any) -> None:
        pass

    async def disconnect(self, *args: Any, **kwargs: Any) -> None:
        pass

    async def aclose(self) -> None:
        pass


async def _reset(endpoint: RedisEndpoint, conn: RedisConnection) -> None:
    """Reset the session of a connection, or close it."""
    try:
        if not await conn.reset():
            raise redis.ConnectionError('the session cannot be reset')
    except _ERRORS as exc:
        conn.abort()
        _redis.warn_of_failed_reset(logger, endpoint, exc)
    except BaseException:
        conn.abort()
        raise
