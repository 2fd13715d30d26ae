"""What paramiko lacks for a pool: a login and an agent that keep to one deadline, and an end that waits for nobody."""

import contextlib
import os
import socket
import threading
from typing import Any, Callable, FrozenSet, Iterable, List, NamedTuple, Optional, Sequence, Set, Tuple

import paramiko
import paramiko.agent
import paramiko.common
from paramiko.hostkeys import HostKeyEntry

from .._fork import unfinished
from ._sockets import Deadline, is_quiet, is_writable
from ._ssh import MOST_LINGERING, changed_host_key, fingerprint, unknown_host_key

__all__ = (
    'Agent', 'ChangedHostKeyError', 'KnownHosts', 'Transport', 'UnknownHostKeyError',
    'close_channels', 'disconnect', 'load_known_hosts', 'open_channels', 'settles',
)

#: how long (in seconds) the thread of a transport may take to end, once its socket is shut down
ENDING_GRACE = 1.0
#: less than this is not worth an attempt
_LEAST_GRACE = 0.05

#: how long (in seconds) what has arrived may take to be read; the pauses between two looks grow
_SETTLING, _FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 0.0002, 0.01


class UnknownHostKeyError(paramiko.SSHException):
    """A host has shown a key, and nothing is noted of that host. The message says which key."""


class ChangedHostKeyError(paramiko.BadHostKeyException):
    """A host has shown another key than is noted of it, or one that is revoked. The message says which."""

    def __init__(self, message: str, hostname: str, got: paramiko.PKey, expected: paramiko.PKey):
        super().__init__(hostname, got, expected)
        self._message = message

    def __str__(self) -> str:
        return self._message


class KnownHosts(NamedTuple):
    """The keys of hosts, and the encoded keys that no host may have any more."""

    entries: Sequence[HostKeyEntry]
    revoked: FrozenSet[bytes]

    def teach(self, client: paramiko.SSHClient, name: str) -> None:
        """Tell a client the keys that a host may have: the first of each kind, since it knows no more.

        :param client: the client
        :param name: the host as it is called in files of known hosts
        """
        taught = client.get_host_keys()
        for entry in self.entries:
            key = entry.key
            assert key is not None
            if key.asbytes() not in self.revoked and any(_is_called(name, noted) for noted in entry.hostnames or ()):
                if key.get_name() not in (taught.lookup(name) or ()):
                    taught.add(name, key.get_name(), key)


def _is_called(name: str, noted: str) -> bool:
    if noted.startswith('|1|'):
        try:
            return paramiko.HostKeys.hash_host(name, noted) == noted
        except (ValueError, AssertionError, IndexError):
            return False
    return name == noted


def load_known_hosts(paths: Iterable[str]) -> KnownHosts:
    """Read files in OpenSSH's format. paramiko by itself stumbles over, or overlooks, keys that are revoked.

    What paramiko does not understand, patterns of names and authorities, is passed over: such hosts are not known.

    :raises OSError: one cannot be read
    """
    entries, revoked = [], set()
    for path in paths:
        with open(path, encoding='utf-8', errors='replace') as lines:
            for line in lines:
                # marker, if there is one, names of hosts, kind, key
                fields = line.split()
                marker = fields.pop(0) if fields and fields[0].startswith('@') else None
                entry = _entry(fields)
                if entry is None or entry.key is None:
                    continue
                if marker is None:
                    entries.append(entry)
                elif marker == '@revoked':
                    revoked.add(entry.key.asbytes())
    return KnownHosts(entries, frozenset(revoked))


def _entry(fields: Sequence[str]) -> Optional[HostKeyEntry]:
    if len(fields) < 3 or fields[0].startswith('#'):
        return None
    try:
        return HostKeyEntry.from_line(' '.join(fields[:3]))
    except Exception:
        # of a key that is damaged: what is raised depends on its kind and on the damage
        return None


class Refusal(paramiko.MissingHostKeyPolicy):
    """Lets no host in whose key is not known, and says which key that is.

    :param there: what messages call the endpoint
    :param known: what is noted of hosts
    :param source: where that comes from
    """

    def __init__(self, there: str, known: KnownHosts, source: str):
        self._there = there
        self._known = known
        self._source = source

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        if key.asbytes() in self._known.revoked:
            raise self.changed(hostname, key, key)
        raise UnknownHostKeyError(
            unknown_host_key(self._there, key.get_name(), fingerprint(key.asbytes()), self._source)
        )

    def changed(self, hostname: str, got: paramiko.PKey, expected: paramiko.PKey) -> ChangedHostKeyError:
        """Return the error for a key that is not the one that is noted."""
        message = changed_host_key(self._there, got.get_name(), fingerprint(got.asbytes()), self._source)
        return ChangedHostKeyError(message, hostname, got, expected)


class Agent(paramiko.agent.AgentSSH):
    """The keys of an SSH agent, which may hang, within a deadline. It is not asked before its keys are wanted."""

    def __init__(self, deadline: Deadline):
        super().__init__()
        self._deadline = deadline

    @staticmethod
    def is_near() -> bool:
        """Tell whether there is an agent behind a UNIX socket. What Windows has is left to paramiko."""
        return hasattr(socket, 'AF_UNIX') and bool(os.environ.get('SSH_AUTH_SOCK'))

    def get_keys(self) -> Any:
        conn = socket.socket(getattr(socket, 'AF_UNIX'), socket.SOCK_STREAM)
        unfinished.add(conn)
        self._conn = conn
        try:
            conn.settimeout(self._deadline.left())
            conn.connect(os.environ['SSH_AUTH_SOCK'])
        except OSError:
            # a variable that points nowhere: there is no agent
            self.close()
        else:
            getattr(self, '_connect')(conn)
        return super().get_keys()

    def close(self) -> None:
        """Close the connection to the agent, if there is one."""
        getattr(self, '_close')()

    def _send_message(self, message: Any) -> Any:
        conn = self._conn
        if conn is None:
            # the login is over, and the thread of its transport is still about to sign something
            raise paramiko.SSHException('the SSH agent is not asked any more')
        try:
            conn.settimeout(self._deadline.left())
            return getattr(super(), '_send_message')(message)
        except OSError as exc:
            # the thread of a transport, which asks for signatures, does not survive a socket's error without number
            raise paramiko.SSHException(f'the SSH agent does not answer: {exc}') from exc


class Transport(paramiko.Transport):
    """A transport whose login keeps to a deadline, however many keys it tries."""

    def __init__(self, *args: Any, deadline: Deadline, **kwargs: Any):
        #: when the login has to be over, ``None`` once it is
        self.deadline: Optional[Deadline] = deadline
        #: the numbers of the channels that the server has opened and not yet closed, whatever has become of our ends
        self.opened: Set[int] = set()
        super().__init__(*args, **kwargs)
        self._read_message: Callable[[], Tuple[int, paramiko.Message]] = self.packetizer.read_message
        setattr(self.packetizer, 'read_message', self._take_note)

    @property
    def auth_timeout(self) -> float:
        """How long (in seconds) the server may take to answer one attempt to log in."""
        left = None if self.deadline is None else self.deadline.left()
        return self._auth_timeout if left is None else min(left, self._auth_timeout)

    @auth_timeout.setter
    def auth_timeout(self, timeout: float) -> None:
        self._auth_timeout = timeout

    def _take_note(self) -> Tuple[int, paramiko.Message]:
        """Read a message, in the transport's own thread. What comes for a forgotten channel paramiko does not tell."""
        kind, message = self._read_message()
        if kind == paramiko.common.MSG_CHANNEL_OPEN_SUCCESS:
            self.opened.add(int.from_bytes(message.asbytes()[:4], 'big'))
        elif kind == paramiko.common.MSG_CHANNEL_CLOSE:
            self.opened.discard(int.from_bytes(message.asbytes()[:4], 'big'))
        return kind, message

    def lingering(self) -> int:
        """How many channels are closed here, but not at the server, where what was begun on them goes on."""
        return len(self.opened) - len(open_channels(self))

    def answers(self, patience: float) -> bool:
        """Ask the peer for any answer, and tell whether it came.

        :param patience: seconds that it may take
        """
        deadline = Deadline(patience)
        try:
            # not in the middle of an exchange of keys; and what cannot be sent at once would not be sent for long
            if not self.clear_to_send.wait(deadline.left()) or not is_writable(self.sock.fileno()):
                return False
            answered = self.completion_event = threading.Event()
            request = paramiko.Message()
            request.add_byte(paramiko.common.cMSG_GLOBAL_REQUEST)
            request.add_string('keepalive@openssh.com')
            request.add_boolean(True)
            # global_request(), which does the same, would wait for ever
            send: Callable[[paramiko.Message], None] = getattr(self, '_send_user_message')
            send(request)
            return answered.wait(deadline.left()) and self.is_active()
        except (OSError, EOFError, paramiko.SSHException):
            return False


def settles(transport: paramiko.Transport, patience: Optional[float]) -> bool:
    """Tell whether an idle connection is up and all that has arrived has been read: at once, as a rule.

    What is there to read is taken in by the transport's own thread: the end of the stream, which ends the transport, or
    late messages of channels that are closed. A connection is also unfit if too many of those are not closed by the
    server, which has a limit: it would open no more for the next user.

    :param transport: the transport of the connection
    :param patience: seconds that it may take (0 or more), ``None`` for a bound of our own
    """
    deadline = Deadline(_SETTLING if patience is None else min(patience, _SETTLING))
    pause = _FIRST_PAUSE
    waiting = threading.Event()
    while transport.is_active() and transport.is_alive():
        if is_quiet(transport.sock.fileno()) and not is_clogged(transport):
            return transport.is_active()
        try:
            left = deadline.left() or 0.0
        except TimeoutError:
            return False
        waiting.wait(min(pause, left))
        pause = min(pause * 2, _LONGEST_PAUSE)
    return False


def is_clogged(transport: paramiko.Transport) -> bool:
    """Tell whether too many channels of earlier users are still open at the server."""
    return isinstance(transport, Transport) and transport.lingering() > MOST_LINGERING


def open_channels(transport: paramiko.Transport) -> List[paramiko.Channel]:
    """Return the channels of a connection that are open or being opened."""
    channels = getattr(transport, '_channels').values()
    return [channel for channel in channels if not channel.closed]


def close_channels(transport: paramiko.Transport) -> bool:
    """Close all channels; ``False`` if that takes waiting, or would not bring the connection to its first state.

    What the server still sends on them is thrown away: a channel's number is not used again.
    """
    # once asked for, a forwarding holds for the connection: of ports, of the display, of the agent
    if any(getattr(transport, name, None) for name in ('_tcp_handler', '_x11_handler', '_forward_agent_handler')):
        return False
    channels = open_channels(transport)
    if channels and not is_writable(transport.sock.fileno()):
        return False
    for channel in channels:
        channel.close()
    return all(channel.closed for channel in channels)


def disconnect(transport: paramiko.Transport, timeout: Optional[float] = None) -> None:
    """End a connection, and whoever waits for one of its channels; no waiting for the peer.

    The transport's thread is let go of the socket before that is closed: it would hear of another with the same number.

    :param transport: the transport, whatever its state
    :param timeout: seconds that its thread may take (0 or more), ``None`` for a second
    """
    grace = ENDING_GRACE if timeout is None else min(max(timeout, _LEAST_GRACE), ENDING_GRACE)
    with contextlib.suppress(OSError):
        transport.sock.shutdown(socket.SHUT_RDWR)
    if transport.is_alive() and transport is not threading.current_thread():
        transport.join(grace)
    # a timer, with a thread of its own, that watches over the handshake
    transport.packetizer.complete_handshake()
    transport.close()
    transport.sock.close()
