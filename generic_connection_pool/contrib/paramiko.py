"""SSH with paramiko, for threads: ``pool = ConnectionPool(SshConnectionManager({'build': {'hostname': ...}}))``."""

import contextlib
import functools
import logging
import socket
from typing import Any, Dict, Mapping, Optional

import paramiko

from .._fork import release_descriptor, unfinished
from .._messages import show
from ..common import EndpointT
from ..threading.manager import BaseConnectionManager
from . import _paramiko
from ._paramiko import ChangedHostKeyError, UnknownHostKeyError
from ._parameters import check_number, check_port
from ._sockets import Deadline, connect_error, connect_tcp, resolve
from ._ssh import (
    FILE_ERRORS,
    KEEPALIVE,
    KNOWN_HOSTS,
    KnownHostsFiles,
    Parameters,
    Paths,
    check_parameters,
    check_seconds,
    keywords,
    look_up,
    where,
)

__all__ = ('ChangedHostKeyError', 'Parameters', 'SshConnectionManager', 'UnknownHostKeyError')

logger = logging.getLogger(__name__)

#: errors of paramiko's when a connection fails
_ERRORS = (paramiko.SSHException, OSError, EOFError)


class SshConnectionManager(BaseConnectionManager[EndpointT, paramiko.SSHClient]):
    """SSH connections. The endpoint is a key of ``parameters``, or whatever a callable makes connect keywords of.

    The key of a host must be known, or there is no connection; nothing is ever added to what is known.

    A connection carries several channels at once (``exec_command``, ``open_sftp`` and the like), each independent of
    the others and of those of earlier users. Channels that are open when it comes back are closed. There is nothing
    else to be reset: each command is a process of its own, each SFTP client has its own current directory.
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
        :param parameters: the keyword arguments of ``paramiko.SSHClient.connect()`` for each endpoint, or a callable
            that returns them for an endpoint; it is called for every new connection, so that changed credentials are
            used. ``hostname`` is required; ``sock`` and ``transport_factory`` are not to be given
        :param known_hosts: the file of known hosts or a list of such, in OpenSSH's format. They are read again when
            they have changed. A file that is missing knows no host
        :param keepalive: after so many seconds (more than 0) without traffic something is sent that does nothing, which
            keeps routers from forgetting the connection; ``None`` for never
        :param ping: have each aliveness check ask the server for an answer, and wait so many seconds (more than 0) for
            it at most. ``None``: the check is one system call, and does not find a server that is stuck
        :raises TypeError: an argument is of the wrong kind
        :raises ValueError: a number of seconds is out of range
        """
        self._parameters = check_parameters(parameters)
        self._known_hosts = KnownHostsFiles(known_hosts, _paramiko.load_known_hosts)
        self._keepalive = check_seconds(keepalive, 'keepalive')
        self._ping = check_seconds(ping, 'ping')

    def create(self, endpoint: EndpointT, timeout: Optional[float] = None) -> paramiko.SSHClient:
        """Connect to a host, make sure that it is the right one, and log in.

        :param endpoint: the endpoint
        :param timeout: seconds (0 or more) that all of it may take, to a tenth of a second (paramiko looks at the
            clock no more often); ``None`` for paramiko's bounds. Looking up the name is up to the operating system,
            which takes its own time
        :return: a client that is connected and logged in
        :raises KeyError: there are no parameters for that endpoint
        :raises TypeError: its parameters are no mapping, or name what ``connect()`` does not know
        :raises ValueError: its parameters do not name a host, or something that they must not
        :raises TimeoutError: it took too long
        :raises UnknownHostKeyError: nothing is known of the host; the message tells the fingerprint of its key
        :raises ChangedHostKeyError: the host has another key than is known, or one that is revoked
        :raises paramiko.AuthenticationException: the server does not let us in
        :raises paramiko.SSHException: something else is wrong with the server, or with our keys
        :raises OSError: the server cannot be reached, or a file cannot be read
        """
        deadline = Deadline(timeout)
        params = dict(keywords(look_up(self._parameters, endpoint), endpoint, 'hostname'))
        _refuse(params, endpoint)
        there = where(endpoint, params['hostname'], params.setdefault('port', 22))
        known = self._known_hosts.read()
        refusal = _paramiko.Refusal(there, known, str(self._known_hosts))
        client = paramiko.SSHClient()
        client.set_missing_host_key_policy(refusal)
        known.teach(client, _known_as(params['hostname'], params['port']))
        sock = _connect(params, there, deadline)
        try:
            self._keep_alive(_log_in(client, sock, params, deadline))
        except BaseException as exc:
            _discard(client, sock)
            explained = _explain(exc, there, refusal, deadline, timeout)
            if explained is exc:
                raise
            raise explained from exc
        unfinished.discard(sock)
        return client

    def dispose(self, endpoint: EndpointT, conn: paramiko.SSHClient, timeout: Optional[float] = None) -> None:
        """Close a connection at once, and all of its channels; whoever waits for one gets an error or reads its end.

        :param endpoint: the endpoint of the connection
        :param conn: the connection, whatever its state
        :param timeout: seconds (0 or more) that its thread may take to end, which waits for nothing; at most a second
        """
        transport = conn.get_transport()
        if transport is not None:
            _paramiko.disconnect(transport, timeout)
        conn.close()

    def check_aliveness(self, endpoint: EndpointT, conn: paramiko.SSHClient, timeout: Optional[float] = None) -> bool:
        """Tell whether a connection is up. One system call, as a rule, and a round trip if ``ping`` is set.

        If something has just arrived, it is given half a second to be read by the connection's own thread.

        :param endpoint: the endpoint of the connection
        :param conn: the connection; one that its user has closed is not alive
        :param timeout: seconds that it may take (0 or more), ``None`` for no other bounds than those
        """
        transport = conn.get_transport()
        if transport is None or not _paramiko.settles(transport, timeout):
            return False
        if self._ping is None or not isinstance(transport, _paramiko.Transport):
            return True
        return transport.answers(self._ping if timeout is None else min(timeout, self._ping))

    def on_release(self, endpoint: EndpointT, conn: paramiko.SSHClient) -> None:
        """Close the channels that are open, and restore the keepalive.

        A connection is closed, to be found dead and replaced when it is next to be used, if that cannot be done
        without waiting, or if its user has asked for a forwarding (of ports, X11, the agent), which would hold for the
        next user.

        :param endpoint: the endpoint of the connection
        :param conn: the connection
        """
        transport = conn.get_transport()
        if transport is None or not transport.is_active():
            return
        try:
            clean = _paramiko.close_channels(transport)
            self._keep_alive(transport)
        except _ERRORS as exc:
            clean = False
            logger.warning('a connection to %s was closed: it could not be cleaned up: %s', show(endpoint), exc)
        except BaseException:
            _paramiko.disconnect(transport)
            raise
        if not clean:
            _paramiko.disconnect(transport)

    def on_fork(self, endpoint: EndpointT, conn: paramiko.SSHClient) -> None:
        """Release the descriptor that a connection of the parent has in the child, without a goodbye.

        :param endpoint: the endpoint of the connection
        :param conn: the connection
        """
        transport = conn.get_transport()
        if transport is not None:
            # what it would take to close it are locks that the parent's threads may have held
            setattr(transport, 'active', False)
            release_descriptor(transport.sock)

    def is_reusable(self, endpoint: EndpointT, conn: paramiko.SSHClient, exc: BaseException) -> bool:
        """Tell whether a connection can go on although its user's code failed.

        It can if it is up and the error was the user's own, or an answer of the server: a channel that it did not open,
        a file that it does not have. What goes on in channels does not matter, they are closed. It cannot after
        a timeout, an interrupt, an error of a socket, or any other of paramiko's.

        :param endpoint: the endpoint of the connection
        :param conn: the connection
        :param exc: what the user's code raised
        """
        transport = conn.get_transport()
        if transport is None or not transport.is_active() or not isinstance(exc, Exception):
            return False
        if isinstance(exc, paramiko.ChannelException):
            # unless the reason may be that earlier users have left too many behind
            return isinstance(transport, _paramiko.Transport) and transport.lingering() == 0
        if isinstance(exc, FILE_ERRORS):
            return True
        return not isinstance(exc, (*_ERRORS, paramiko.SFTPError))

    def _keep_alive(self, transport: paramiko.Transport) -> None:
        # annotated as int, and compared with a difference of times
        interval: Any = self._keepalive or 0
        transport.set_keepalive(interval)


def _refuse(params: Mapping[str, Any], endpoint: object) -> None:
    """Raise a ValueError or TypeError if connect keywords are such that a connection would not be the pool's own."""
    for name in ('sock', 'transport_factory'):
        if params.get(name) is not None:
            raise ValueError(f'the connect keywords of endpoint {show(endpoint)} must not have a {name!r}')
    check_port(params.get('port', 22), endpoint)
    for name in ('timeout', 'banner_timeout', 'auth_timeout', 'channel_timeout'):
        check_number(params, name, endpoint)


def _known_as(host: str, port: int) -> str:
    return host if port == 22 else f'[{host}]:{port}'


def _connect(params: Mapping[str, Any], there: str, deadline: Deadline) -> socket.socket:
    """Connect a socket, which is noted as unfinished; not longer than the keyword ``timeout`` says, either."""
    try:
        addresses = resolve(params['hostname'], params['port'])
    except socket.gaierror as exc:
        raise socket.gaierror(exc.errno, f'could not connect to {there}: {exc.strerror}') from exc
    sock = connect_tcp(addresses, there, Deadline(deadline.left_within(params.get('timeout'))))
    unfinished.add(sock)
    return sock


def _log_in(
    client: paramiko.SSHClient, sock: socket.socket, params: Dict[str, Any], deadline: Deadline
) -> paramiko.Transport:
    """Shake hands over a connected socket, check the host's key and log in."""
    # a question is sent when it is asked, and the system notices in the end that the peer's machine is gone
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    agent = _paramiko.Agent(deadline)
    if _paramiko.Agent.is_near():
        # the client's own would wait for ever for an agent that hangs, and keep the connection to one that does not
        setattr(client, '_agent', agent)

    params['timeout'] = deadline.left_within(params.get('timeout'))
    params['transport_factory'] = functools.partial(_paramiko.Transport, deadline=deadline)
    try:
        client.connect(**params, sock=sock)
    finally:
        agent.close()
        setattr(client, '_agent', None)
    transport = client.get_transport()
    assert isinstance(transport, _paramiko.Transport)
    transport.deadline = None
    return transport


def _discard(client: paramiko.SSHClient, sock: socket.socket) -> None:
    """Close what a login that failed has left."""
    transport = client.get_transport()
    try:
        if transport is not None:
            _paramiko.disconnect(transport)
        client.close()
    finally:
        with contextlib.suppress(OSError):
            sock.close()


def _explain(
    exc: BaseException, there: str, refusal: _paramiko.Refusal, deadline: Deadline, timeout: Optional[float]
) -> BaseException:
    """Return an error of the same kind that says which endpoint could not be connected to."""
    if isinstance(exc, UnknownHostKeyError):
        return exc
    if isinstance(exc, paramiko.BadHostKeyException):
        return refusal.changed(exc.hostname, exc.key, exc.expected_key)
    failed = f'could not connect to {there}'
    if isinstance(exc, _ERRORS) and deadline.is_over:
        return TimeoutError(f'{failed} within {timeout} seconds')
    if isinstance(exc, EOFError):
        return paramiko.SSHException(f'{failed}: the server closed the connection')
    if isinstance(exc, paramiko.BadAuthenticationType):
        exc.explanation = f'{failed}: {exc.explanation}'
    elif isinstance(exc, OSError):
        # one with a file name speaks of a key
        return type(exc)(exc.errno, f'{failed}: {exc.strerror}', exc.filename) if exc.filename else connect_error(
            there, [exc]
        )
    elif isinstance(exc, (paramiko.SSHException, ValueError)) and len(exc.args) == 1:
        exc.args = (f'{failed}: {exc}',)
    return exc
