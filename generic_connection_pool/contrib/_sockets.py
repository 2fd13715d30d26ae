"""What the managers of sockets share: deadlines, connecting, and the look at an idle socket."""

import errno
import os
import pathlib
import select
import socket
import time
from typing import Any, List, Optional, Sequence, Tuple

from .._fork import unfinished
from .._messages import show

#: what :func:`socket.getaddrinfo` answers, one entry an address
AddressInfo = Tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]

_poll: Any = getattr(select, 'poll', None)
_READABLE = getattr(select, 'POLLIN', 0) | getattr(select, 'POLLPRI', 0)
_WRITABLE = getattr(select, 'POLLOUT', 0)

#: a UNIX socket whose listener's queue is full is tried again after pauses that grow from the first to the second
FIRST_PAUSE, LONGEST_PAUSE = 0.001, 0.05


class Deadline:
    """A timeout that several steps share."""

    __slots__ = ('_at',)

    def __init__(self, timeout: Optional[float]):
        """:param timeout: seconds from now (0 or more), ``None`` for no bound"""
        self._at = None if timeout is None else time.monotonic() + timeout

    def left(self, parts: int = 1) -> Optional[float]:
        """Return a fair share of the seconds left, ``None`` if there is no bound.

        :param parts: how many steps are to share the time that is left
        :raises TimeoutError: no time is left
        """
        if self._at is None:
            return None
        left = self._at - time.monotonic()
        if left <= 0.0:
            raise TimeoutError('timed out')
        return left / parts

    def left_within(self, bound: Optional[float]) -> Optional[float]:
        """Return the seconds left, or those of another bound if that is shorter, ``None`` if there is neither.

        :raises TimeoutError: no time is left
        """
        left = self.left()
        if left is None or bound is None:
            return bound if left is None else left
        return min(left, bound)

    @property
    def is_over(self) -> bool:
        """Whether no time is left."""
        return self._at is not None and self._at <= time.monotonic()


def is_quiet(fd: int) -> bool:
    """Tell, with one system call, whether a socket is open, free of errors and has nothing to read.

    A connection that is not in use has nothing to say: what is there to read is the end of the stream,
    an error, or somebody's leftover answer. Polling does not depend on the socket's own timeout, unlike reading.

    :param fd: the socket's file descriptor, negative for a socket that has been closed
    """
    if fd < 0:
        return False
    if _poll is not None:
        poller = _poll()
        poller.register(fd, _READABLE)
        return not poller.poll(0)
    try:
        return not any(select.select([fd], [], [fd], 0))
    except (OSError, ValueError):
        return False


def is_writable(fd: int) -> bool:
    """Tell, with one system call, whether an open socket would take more to be sent.

    :param fd: the socket's file descriptor, negative for a socket that has been closed
    """
    if fd < 0:
        return False
    if _poll is not None:
        poller = _poll()
        poller.register(fd, _WRITABLE)
        return bool(poller.poll(0))
    try:
        return bool(select.select([], [fd], [], 0)[1])
    except (OSError, ValueError):
        return False


def close_socket(sock: socket.socket) -> None:
    """Close a socket, without a complaint if its peer is gone or it was closed before."""
    try:
        # unlike close() this also wakes whoever is still reading from it; and unlike the method of a TLS socket
        # it leaves no moment in which that would send as plain text what somebody is still writing
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        pass
    finally:
        sock.close()


def shut_down(fd: int) -> None:
    """Make whoever waits for a socket give up, without closing its descriptor under them.

    :param fd: the file descriptor of an open socket
    :raises OSError: it is none, or not connected
    """
    sock = socket.fromfd(fd, socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.shutdown(socket.SHUT_RDWR)
    finally:
        sock.close()


def place(host: str, port: int) -> str:
    """Return how messages name a host and port."""
    return f'[{host}]:{port}' if ':' in host else f'{host}:{port}'


def connect_error(where: str, errors: Sequence[OSError]) -> OSError:
    """Return the error of a failed connect that says to where: of the same kind as the last of ``errors``."""
    last = errors[-1]
    reasons = (str(error) if error.errno is None else os.strerror(error.errno) for error in errors)
    message = f'could not connect to {where}: ' + '; '.join(dict.fromkeys(reasons))
    if isinstance(last, TimeoutError) and last.errno is None:
        return TimeoutError(message)
    # OSError picks the subclass (ConnectionRefusedError ...) that belongs to the number
    return OSError(message) if last.errno is None else OSError(last.errno, message)


def resolve(host: str, port: int, flags: int = 0) -> Sequence[AddressInfo]:
    """Return the addresses of a stream endpoint.

    :param host: a name or a numeric address
    :param port: the port number
    :param flags: flags for :func:`socket.getaddrinfo`, ``AI_NUMERICHOST`` to ask no name server
    :raises socket.gaierror: the name is not known; says which
    :raises ValueError: it cannot be a name
    """
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except socket.gaierror as exc:
        raise socket.gaierror(exc.errno, f'could not resolve {host!r}: {exc.strerror}') from exc
    except UnicodeError as exc:
        raise ValueError(f'a host must be a name or an address, which {show(host)} is not: {exc}') from None


def connect_tcp(addresses: Sequence[AddressInfo], where: str, deadline: Deadline) -> socket.socket:
    """Connect to the first address that answers. Each gets a fair share of the time that is left.

    :param addresses: what to try, in this order
    :param where: the endpoint, for the error message
    :param deadline: how long all of it may take
    :return: a socket that blocks
    :raises OSError: no address could be connected to; ``TimeoutError`` if the last one took too long
    """
    errors: List[OSError] = []
    for tried, (family, kind, protocol, _, address) in enumerate(addresses):
        sock: Optional[socket.socket] = None
        try:
            timeout = deadline.left(parts=len(addresses) - tried)
            sock = socket.socket(family, kind, protocol)
            unfinished.add(sock)
            sock.settimeout(timeout)
            sock.connect(address)
            sock.settimeout(None)
            unfinished.discard(sock)
            return sock
        except BaseException as exc:
            if sock is not None:
                sock.close()
            if not isinstance(exc, OSError):
                raise
            errors.append(exc)
    raise connect_error(where, errors) from errors[-1]


def new_unix_socket() -> socket.socket:
    """Return a UNIX stream socket that does not block, or raise an OSError where the platform has none."""
    family = getattr(socket, 'AF_UNIX', None)
    if family is None:
        raise OSError(errno.EAFNOSUPPORT, 'this platform has no UNIX sockets')
    sock = socket.socket(family, socket.SOCK_STREAM)
    unfinished.add(sock)
    sock.setblocking(False)
    return sock


def try_connect_unix(sock: socket.socket, path: pathlib.Path) -> bool:
    """Connect a socket that does not block; ``False`` if the listener's queue is full just now.

    There is no waiting for room in the queue by polling: an unconnected UNIX socket always looks writable.
    So the caller pauses and tries again.

    :raises OSError: it cannot be connected; the message names the path
    """
    try:
        sock.connect(os.fspath(path))
    except BlockingIOError:
        return False
    except OSError as exc:
        raise connect_error(str(path), [exc]) from exc
    unfinished.discard(sock)
    return True
