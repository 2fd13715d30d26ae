"""SSH with asyncssh: ``pool = ConnectionPool(SshConnectionManager({'build': {'host': ...}}))``."""

import asyncio
import contextlib
import inspect
import logging
import socket
from typing import Any, Dict, Iterable, List, Mapping, Optional

import asyncssh

from .._fork import release_descriptor
from .._messages import show
from ..asyncio.manager import BaseConnectionManager
from ..common import EndpointT
from . import _streams
from ._parameters import check_number, check_port
from ._sockets import connect_error, is_quiet
from ._ssh import (
    FILE_ERRORS,
    KEEPALIVE,
    KNOWN_HOSTS,
    MOST_LINGERING,
    KnownHostsFiles,
    Parameters,
    Paths,
    changed_host_key,
    check_parameters,
    check_seconds,
    keywords,
    look_up,
    unknown_host_key,
    where,
)

__all__ = ('Parameters', 'SshConnectionManager')

logger = logging.getLogger(__name__)

#: pauses (in seconds) in which what is still arriving may arrive
_PAUSES = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.1, 0.1, 0.1)

#: how many rounds of the event loop a socket that is being closed may take
_ROUNDS_TO_CLOSE = 5

#: what a server answers about one of the channels; the others and the connection are as good as before
_ANSWERS = (asyncssh.ProcessError, asyncssh.SFTPError)
#: some of these are among those above
_CONNECTION_ERRORS = (
    asyncio.TimeoutError,
    TimeoutError,
    asyncssh.SFTPBadMessage,
    asyncssh.SFTPConnectionLost,
    asyncssh.SFTPNoConnection,
)


class SshConnectionManager(BaseConnectionManager[EndpointT, asyncssh.SSHClientConnection]):
    """SSH connections. The endpoint is a key of ``parameters``, or whatever a callable makes connect keywords of.

    The key of a host must be known, or there is no connection; nothing is ever added to what is known.

    A connection carries several channels at once (``run``, ``create_process``, ``start_sftp_client`` and the like),
    each independent of the others and of those of earlier users. Channels that are open when it comes back are closed.
    There is nothing else to be reset: each command is a process of its own, each SFTP client has its own current
    directory.
    """

    def __init__(
        self,
        parameters: Parameters[EndpointT],
        *,
        known_hosts: Paths = KNOWN_HOSTS,
        keepalive: Optional[float] = KEEPALIVE,
        ping: Optional[float] = None,
    ):
        """
        :param parameters: the keyword arguments of ``asyncssh.connect()`` for each endpoint, or a callable (a coroutine
            function will do) that returns them for an endpoint; it is called for every new connection, so that changed
            credentials are used. ``host`` is required; ``sock`` is not to be given. ``known_hosts`` among them is used
            instead of the argument: with ``None`` asyncssh does not check the host's key
        :param known_hosts: the file of known hosts or a list of such, in OpenSSH's format. They are read again when
            they have changed. A file that is missing knows no host. asyncssh's own default, which a configuration file
            can turn into no check at all, is not used
        :param keepalive: after so many seconds (more than 0) without traffic the server is asked for an answer; the
            connection is closed when three such answers are missing. ``None`` for never. The keyword
            ``keepalive_interval`` takes precedence
        :param ping: have each aliveness check ask the server for an answer, and wait so many seconds (more than 0) for
            it at most. ``None``: the check is one system call, and does not find a server that is stuck
        :raises TypeError: an argument is of the wrong kind
        :raises ValueError: a number of seconds is out of range
        """
        self._parameters = check_parameters(parameters)
        self._known_hosts = KnownHostsFiles(known_hosts, _load_known_hosts)
        self._keepalive = check_seconds(keepalive, 'keepalive')
        self._ping = check_seconds(ping, 'ping')

    async def create(self, endpoint: EndpointT) -> asyncssh.SSHClientConnection:
        """Connect to a host, make sure that it is the right one, and log in.

        :param endpoint: the endpoint
        :return: the connection
        :raises KeyError: there are no parameters for that endpoint
        :raises TypeError: its parameters are no mapping, or name what ``connect()`` does not know
        :raises ValueError: its parameters do not name a host, or something that they must not; a key or the file of
            known hosts cannot be understood
        :raises asyncssh.HostKeyNotVerifiable: nothing is known of the host, or another key is; the message tells the
            fingerprint of its key
        :raises asyncssh.PermissionDenied: the server does not let us in
        :raises asyncssh.DisconnectError: something else is wrong with the server; logging in took longer than the
            keyword ``login_timeout`` says (two minutes)
        :raises OSError: the server cannot be reached, or a file cannot be read
        """
        given = look_up(self._parameters, endpoint)
        if inspect.isawaitable(given):
            given = await given
        params = dict(keywords(given, endpoint, 'host'))
        if params.get('sock') is not None:
            raise ValueError(f"the connect keywords of endpoint {show(endpoint)} must not have a 'sock'")
        _check_values(params, endpoint)
        there = where(endpoint, params['host'], params.get('port'))
        witness = self._prepare(params)
        try:
            conn: asyncssh.SSHClientConnection = await asyncssh.connect(**params)
        except Exception as exc:
            explained = _explain(exc, there, witness, str(self._known_hosts))
            if explained is exc:
                raise
            raise explained from exc
        return conn

    async def dispose(self, endpoint: EndpointT, conn: asyncssh.SSHClientConnection) -> None:
        """Say goodbye if that can be done at once, and close; whoever waits for a channel gets an error or its end.

        :param endpoint: the endpoint of the connection
        :param conn: the connection, whatever its state
        """
        sock = conn.get_extra_info('socket')
        try:
            conn.close()
            await _wait_closed(conn, sock)
        except RuntimeError:
            # the event loop of the connection has ended, with which went all means to close it; its destructor will
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    async def check_aliveness(self, endpoint: EndpointT, conn: asyncssh.SSHClientConnection) -> bool:
        """Tell whether a connection is up. One system call, as a rule, and a round trip if ``ping`` is set.

        Otherwise it suspends only if something has arrived which the event loop has yet to read, half a second at most.

        :param endpoint: the endpoint of the connection
        :param conn: the connection; one that its user has closed is not alive
        """
        if not await _settles(conn):
            return False
        return self._ping is None or await _answers(conn, self._ping)

    async def on_release(self, endpoint: EndpointT, conn: asyncssh.SSHClientConnection) -> None:
        """Close the channels that are open.

        A connection is closed, to be found dead and replaced when it is next to be used, if one of its channels is just
        being opened, or if its user has left ports forwarded, which would hold for the next user.

        :param endpoint: the endpoint of the connection
        :param conn: the connection
        """
        if _is_closing(conn):
            return
        try:
            clean = _close_channels(conn)
        except Exception as exc:
            conn.abort()
            logger.warning('a connection to %s was closed: it could not be cleaned up: %s', show(endpoint), exc)
        else:
            if not clean:
                conn.abort()

    def on_fork(self, endpoint: EndpointT, conn: asyncssh.SSHClientConnection) -> None:
        """Release the descriptor that a connection of the parent has in the child, without a goodbye.

        :param endpoint: the endpoint of the connection
        :param conn: the connection
        """
        release_descriptor(conn)

    def is_reusable(self, endpoint: EndpointT, conn: asyncssh.SSHClientConnection, exc: BaseException) -> bool:
        """Tell whether a connection can go on although its user's code failed.

        It can if it is up and the error was the user's own, or an answer of the server: the exit status of a command,
        a channel that it did not open, a file that it does not have. What goes on in channels does not matter, they are
        closed. It cannot after a cancellation, a timeout, an error of a socket, or any other of asyncssh's.

        :param endpoint: the endpoint of the connection
        :param conn: the connection
        :param exc: what the user's code raised
        """
        if _is_closing(conn) or not isinstance(exc, Exception) or isinstance(exc, _CONNECTION_ERRORS):
            return False
        if isinstance(exc, asyncssh.ChannelOpenError):
            # unless the reason may be that earlier users have left too many behind
            return _lingering(conn) == 0
        return isinstance(exc, (*_ANSWERS, *FILE_ERRORS)) or not isinstance(exc, (OSError, asyncssh.Error))

    def _prepare(self, params: Dict[str, Any]) -> 'Optional[_Witness]':
        """Complete connect keywords; return who gets to see the key of a host that is not known."""
        params.setdefault('keepalive_interval', self._keepalive or 0)
        if 'known_hosts' in params:
            return None
        known = params['known_hosts'] = self._known_hosts.read()
        if 'client_factory' in params:
            return None
        witness = _Witness(known)
        params['client_factory'] = lambda: witness
        return witness


def _check_values(params: Mapping[str, Any], endpoint: object) -> None:
    """Raise a TypeError or ValueError for what asyncssh would take, and then stumble over."""
    if params.get('port', ()) != ():
        check_port(params['port'], endpoint)
    for name in ('connect_timeout', 'keepalive_interval', 'login_timeout'):
        # it also knows '30s'
        if not isinstance(params.get(name), str):
            check_number(params, name, endpoint)


class _Witness(asyncssh.SSHClient):
    """Sees the key of a host that is not known, and does not let it in."""

    def __init__(self, known: asyncssh.SSHKnownHosts):
        self._known = known
        self._conn: Optional[asyncssh.SSHClientConnection] = None
        self.key: Optional[asyncssh.SSHKey] = None
        #: another key is known
        self.changed = False

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self._conn = conn

    def kinds_not_shown(self) -> str:
        """The kinds of keys that are known of a host which, though it has said its name, has not shown a key."""
        conn = self._conn
        if conn is None or conn.get_extra_info('server_version') is None or conn.get_server_host_key() is not None:
            return ''
        return ', '.join(kind.decode() for kind in getattr(conn, '_trusted_host_key_algs', ()))

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.key = key
        self.changed = bool(asyncssh.match_known_hosts(self._known, host, addr, None if port == 22 else port)[0])
        return False


def _load_known_hosts(paths: Iterable[str]) -> asyncssh.SSHKnownHosts:
    return asyncssh.read_known_hosts(list(paths))


def _explain(exc: Exception, there: str, witness: Optional[_Witness], source: str) -> Exception:
    """Return an error of the same kind that says which endpoint could not be connected to."""
    failed = f'could not connect to {there}'
    if isinstance(exc, asyncssh.HostKeyNotVerifiable) and witness is not None and witness.key is not None:
        say = changed_host_key if witness.changed else unknown_host_key
        kind = witness.key.get_algorithm()
        return asyncssh.HostKeyNotVerifiable(say(there, kind, witness.key.get_fingerprint(), source))
    hint = ''
    kinds = '' if witness is None else witness.kinds_not_shown()
    if kinds and isinstance(exc, (asyncssh.ConnectionLost, asyncssh.KeyExchangeFailed, ConnectionError)):
        # a server that has no such key hangs up; which others it has, it did not get to say
        hint = f'; it may have no host key of a kind that {source} knows of it ({kinds})'
    if isinstance(exc, asyncssh.DisconnectError):
        exc.reason = f'{failed}: {exc.reason}{hint}'
        exc.args = (exc.reason,)
    elif isinstance(exc, asyncio.TimeoutError):
        # of the keyword connect_timeout; it comes without a word
        exc.args = (f'{failed} in time',)
    elif isinstance(exc, OSError):
        if exc.filename:
            # it speaks of a key
            return type(exc)(exc.errno, f'{failed}: {exc.strerror}', exc.filename)
        if isinstance(exc, socket.gaierror):
            return socket.gaierror(exc.errno, f'{failed}: {exc.strerror}')
        if hint:
            return OSError(exc.errno, f'{failed}: {exc.strerror}{hint}')
        return connect_error(there, [exc])
    elif isinstance(exc, ValueError) and len(exc.args) == 1:
        exc.args = (f'{failed}: {exc}',)
    return exc


def _is_closing(conn: asyncssh.SSHClientConnection) -> bool:
    # it says that it is closed one round after it has let go of its transport
    return conn.is_closed() or getattr(conn, '_transport', None) is None


def _channels(conn: asyncssh.SSHClientConnection) -> List[Any]:
    """Return the channels that are open, or are not yet closed by the server."""
    return list(getattr(conn, '_channels').values())


def _lingering(conn: asyncssh.SSHClientConnection) -> int:
    """How many channels are closed here, but not at the server, where what was begun on them goes on."""
    closing = [channel for channel in _channels(conn) if channel.is_closing()]
    # one that was never opened has nothing more to receive
    return sum(getattr(channel, '_recv_state', None) != 'closed' for channel in closing)


async def _settles(conn: asyncssh.SSHClientConnection) -> bool:
    """Tell whether an idle connection is up and the event loop has read all that has arrived.

    It is also unfit if too many channels are not closed by the server, which has a limit: it would open no more for
    the next user.
    """
    sock = conn.get_extra_info('socket')
    # without a socket to look at, what the loop has noticed has to do
    quiet = sock is None or is_quiet(sock.fileno())
    for pause in _PAUSES:
        quiet = quiet or await _streams.read_pending_input(lambda: _is_closing(conn), sock.fileno)
        if _is_closing(conn):
            return False
        if quiet and _lingering(conn) <= MOST_LINGERING:
            return True
        await asyncio.sleep(pause)
        quiet = sock is None or is_quiet(sock.fileno())
    return False


async def _answers(conn: asyncssh.SSHClientConnection, patience: float) -> bool:
    """Ask the peer for any answer, and tell whether it came within so many seconds."""
    request = getattr(conn, '_make_global_request')
    answer = asyncio.ensure_future(request(b'keepalive@openssh.com'))
    try:
        await asyncio.wait({answer}, timeout=patience)
        return answer.done() and answer.exception() is None and not _is_closing(conn)
    finally:
        answer.cancel()


def _close_channels(conn: asyncssh.SSHClientConnection) -> bool:
    """Close all channels; ``False`` if that would not bring the connection to its first state.

    What the server still sends on them is thrown away: a channel's number is not used again before the server, too, has
    closed it.
    """
    if any(getattr(conn, name, None) for name in ('_local_listeners', '_remote_listeners')):
        return False
    channels = _channels(conn)
    for channel in channels:
        channel.abort()
    return not any(getattr(channel, '_open_waiter', None) for channel in channels)


async def _wait_closed(conn: asyncssh.SSHClientConnection, sock: Any) -> None:
    """Wait until a connection that is being closed has closed its socket, a second at most."""
    closing = asyncio.ensure_future(conn.wait_closed())
    try:
        await asyncio.wait({closing}, timeout=_streams.CLOSING_GRACE)
    finally:
        if not closing.cancel() and not closing.cancelled():
            # that the loop it was made for has ended is no news
            closing.exception()
    for _ in range(_ROUNDS_TO_CLOSE):
        if sock is None or sock.fileno() < 0:
            break
        await asyncio.sleep(0)
