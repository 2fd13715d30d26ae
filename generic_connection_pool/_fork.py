"""What becomes of pools and connections in a forked child: the pools start empty, the connections are the parent's.

The child has the thread that forked and no other. What the others were in the middle of stays as it was at that instant,
locks that they held included. So nothing here looks into the state of a pool: each gets a new one.
"""

import contextlib
import gc
import os
import socket
import weakref
from typing import TYPE_CHECKING, Any, List, Optional

if TYPE_CHECKING:
    from .common import BaseConnectionPool

__all__ = ('follow', 'keep', 'release_descriptor', 'unfinished')

#: all pools of the process
_pools: 'weakref.WeakSet[BaseConnectionPool[Any, Any]]' = weakref.WeakSet()
#: what nobody must finalize in this process: a farewell to the peer would be one from the parent
_kept: List[object] = []
#: sockets that are being connected, which no pool knows of yet
unfinished: 'weakref.WeakSet[socket.socket]' = weakref.WeakSet()


def follow(pool: 'BaseConnectionPool[Any, Any]') -> None:
    """Have a pool start over whenever the process is a forked child from now on. It is known by a weak reference."""
    _pools.add(pool)


def keep(*things: object) -> None:
    """Keep things that are the parent's from being finalized as long as the process lives."""
    _kept.extend(things)


def release_descriptor(conn: object) -> None:
    """Release the file descriptor that a connection has in this process, in silence: the parent's stays as it is.

    Something takes its place that can neither be read from nor written to, so that whatever still knows the number
    (the connection's own farewell, an event loop that forgets it) reaches nobody. A socket is closed as well.

    :param conn: what has a ``fileno()``, or knows what has by ``get_extra_info('socket')``; anything else is left alone
    """
    get_extra_info = getattr(conn, 'get_extra_info', None)
    subject = conn if get_extra_info is None else get_extra_info('socket')
    fileno = getattr(subject, 'fileno', None)
    if fileno is None:
        return
    fd = -1
    with contextlib.suppress(Exception):  # of a connection that is closed, as a rule
        fd = fileno()
    if not isinstance(fd, int) or fd < 0:
        return
    # not a pair of which one end is closed: writing to that would be a signal to those who have not ignored it
    with socket.socket(getattr(socket, 'AF_UNIX'), socket.SOCK_STREAM) as inert:
        os.dup2(inert.fileno(), fd, inheritable=False)
    if isinstance(conn, socket.socket):
        conn.close()


def _start_over() -> None:
    """In the child: all pools at first, since what the managers do may call any of them."""
    error: Optional[BaseException] = None
    inherited = []
    collects = gc.isenabled()
    gc.disable()  # a finalizer may use a pool; there is no other thread which might want this otherwise
    try:
        for pool in list(_pools):
            inherited.append((pool, pool._start_over()))
    finally:
        if collects:
            gc.enable()
    for pool, connections in inherited:
        for endpoint, conn in connections:
            try:
                pool._leave_to_parent(endpoint, conn)
            except BaseException as exc:  # the others are released nevertheless
                error = exc
    for sock in list(unfinished):
        release_descriptor(sock)
    if error is not None:
        raise error


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_start_over)
