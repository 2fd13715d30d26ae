"""What PEP 249 does not say of a driver and its connections, as far as it can be found out or is known."""

import contextlib
import math
import threading
from typing import Any, Mapping, Optional, Tuple

from .._fork import release_descriptor
from ._mysql import forget_unread_result, has_unread_result
from ._sockets import is_quiet, is_writable, shut_down

__all__ = ('Traits', 'traits_of')

#: transaction states of psycopg2 in which there is something left to be read (ACTIVE), or nothing known (UNKNOWN)
_PSYCOPG2_BUSY = (1, 4)


class Traits:
    """A driver of which nothing is known beforehand. Its connections may show more than PEP 249 asks for."""

    #: whether connections are to a server, for which one may have to wait
    waits = True
    #: whether a connection may be closed while another thread is in the middle of using it
    closes_under_others = False

    def connect(self, driver: Any, keywords: Mapping[str, Any], timeout: Optional[float]) -> Any:
        """Connect, if possible within a timeout.

        :param driver: the module
        :param keywords: the keyword arguments of its ``connect()``
        :param timeout: seconds, ``None`` for no bound. Who calls does not wait longer; but what this opens should end
        """
        return driver.connect(**keywords)

    def descriptor(self, conn: Any) -> Optional[int]:
        """Return the descriptor of a connection's socket, a negative number for one that is closed.

        :return: ``None`` if there is no way to it
        """
        fileno = getattr(conn, 'fileno', None)
        if fileno is None:
            return None
        try:
            fd = fileno()
        except Exception:
            return -1
        return fd if isinstance(fd, int) else None

    def is_closed(self, conn: Any) -> bool:
        """Tell whether a connection is known to be closed at our end."""
        closed = getattr(conn, 'closed', None)
        if isinstance(closed, int):
            return bool(closed)
        is_open = getattr(conn, 'open', None)
        return isinstance(is_open, int) and not is_open

    def is_at_rest(self, conn: Any) -> bool:
        """Tell, without waiting, whether nothing is left to be read. Of some drivers that is not known: they are."""
        fd = self.descriptor(conn)
        return fd is None or is_quiet(fd)

    def has_transaction(self, conn: Any) -> bool:
        """Tell whether a transaction is known to be open."""
        known = getattr(conn, 'in_transaction', None)
        if known is None and hasattr(conn, 'get_transaction_status'):
            known = conn.get_transaction_status()
        return bool(known) if isinstance(known, int) else False

    def wake(self, conn: Any) -> None:
        """Make another thread give up what it is doing with a connection. It must not close what that uses."""
        fd = self.descriptor(conn)
        if fd is not None and fd >= 0:
            shut_down(fd)

    def close(self, conn: Any) -> None:
        """Close a connection, without waiting if its socket is within reach."""
        fd = self.descriptor(conn)
        if fd is not None and fd >= 0 and not is_writable(fd):
            # nothing that close() would say goes through
            with contextlib.suppress(OSError):
                shut_down(fd)
        conn.close()

    def leave_to_parent(self, conn: Any) -> None:
        """In a forked child: release the descriptor of a connection of the parent, as far as it is within reach."""
        release_descriptor(conn)


class SqliteTraits(Traits):
    """``sqlite3``: no server, no socket; but a lock may have to be waited for, and a long query can be interrupted."""

    waits = False

    def connect(self, driver: Any, keywords: Mapping[str, Any], timeout: Optional[float]) -> Any:
        if keywords.get('check_same_thread', False):
            raise ValueError('check_same_thread must be False: a pool hands connections from one thread to the next')
        return driver.connect(**{**keywords, 'check_same_thread': False})

    def is_closed(self, conn: Any) -> bool:
        try:
            conn.in_transaction
        except Exception:
            return True
        return False

    def has_transaction(self, conn: Any) -> bool:
        # with autocommit=False (from Python 3.12 on) there always is one, which is empty after a rollback
        return bool(conn.in_transaction) and getattr(conn, 'autocommit', None) is not False

    def wake(self, conn: Any) -> None:
        conn.interrupt()

    def leave_to_parent(self, conn: Any) -> None:
        # SQLite does not want to be told in a child, not even to close
        pass


class PyMySqlTraits(Traits):
    """PyMySQL: pure Python over a socket with timeouts."""

    closes_under_others = True

    def connect(self, driver: Any, keywords: Mapping[str, Any], timeout: Optional[float]) -> Any:
        conn = driver.connect(**{**keywords, 'defer_connect': True})
        # PyMySQL takes what compares like a number, of which a socket wants to know nothing and is left open
        conn.connect_timeout = float(conn.connect_timeout)
        bounds = _bounds(conn, timeout)
        kept = {name: getattr(conn, name) for name in bounds}
        vars(conn).update(bounds)
        try:
            conn.connect()
        finally:
            vars(conn).update(kept)
        return conn

    def descriptor(self, conn: Any) -> Optional[int]:
        sock = getattr(conn, '_sock', None)
        if sock is None:
            return -1
        fd: int = sock.fileno()
        return fd

    def is_at_rest(self, conn: Any) -> bool:
        return not has_unread_result(conn) and super().is_at_rest(conn)

    def close(self, conn: Any) -> None:
        forget_unread_result(conn)
        if conn.open:
            super().close(conn)

    def wake(self, conn: Any) -> None:
        with contextlib.suppress(AttributeError):  # the other thread has closed it meanwhile
            super().wake(conn)

    def leave_to_parent(self, conn: Any) -> None:
        release_descriptor(getattr(conn, '_sock', None))


def _bounds(conn: Any, timeout: Optional[float]) -> Mapping[str, Any]:
    """Return the timeouts of a PyMySQL connection during login: without them a server that keeps silent is waited for.

    Those of reading and writing are of each single call.
    """
    if timeout is None:
        return {}
    bound = max(timeout, 0.001)
    return {
        name: bound if before is None else min(before, bound)
        for name in ('connect_timeout', '_read_timeout', '_write_timeout')
        for before in (getattr(conn, name, bound),)
        if hasattr(conn, name)
    }


class Psycopg2Traits(Traits):
    """psycopg2, for which there is a manager of its own."""

    def connect(self, driver: Any, keywords: Mapping[str, Any], timeout: Optional[float]) -> Any:
        if timeout is not None and not any('connect_timeout' in str(text) for text in (*keywords, keywords.get('dsn'))):
            # whole seconds, from two upwards, soon after our own deadline
            keywords = {**keywords, 'connect_timeout': max(2, math.ceil(timeout) + 1)}
        return driver.connect(**keywords)

    def is_at_rest(self, conn: Any) -> bool:
        return conn.get_transaction_status() not in _PSYCOPG2_BUSY and super().is_at_rest(conn)


_KNOWN = {'sqlite3': SqliteTraits, 'pymysql': PyMySqlTraits, 'psycopg2': Psycopg2Traits}


def traits_of(driver: Any) -> Traits:
    """Return what is known of a driver, which is told by the name of its module."""
    return _KNOWN.get(str(getattr(driver, '__name__', '')), Traits)()


class Note:
    """What a manager remembers of one connection."""

    __slots__ = ('database', 'holder', 'attributes', 'abandoned')

    def __init__(self, database: Optional[str]):
        #: the database that its connect keywords name
        self.database = database
        #: the thread that has acquired it
        self.holder: Optional[int] = None
        #: what was set on it when it was acquired
        self.attributes: Tuple[Tuple[str, Any], ...] = ()
        #: a thread of ours, which is stuck, will close it
        self.abandoned = False

    @property
    def is_used_elsewhere(self) -> bool:
        return self.abandoned or self.holder not in (None, threading.get_ident())
