"""PostgreSQL with psycopg2, for threads: ``pool = ConnectionPool(DbConnectionManager({'main': {'dsn': ...}}))``."""

import contextlib
import functools
import logging
import math
import threading
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

import psycopg2
import psycopg2.extensions as pg

from .._fork import release_descriptor
from ..threading.manager import BaseConnectionManager
from ._endpoints import find_endpoint
from ._postgres import DsnParameters, check_parameters, malformed_dsn
from ._sockets import is_quiet, shut_down
from ._within import call_within

__all__ = ('DbConnectionManager', 'DbEndpoint', 'DsnParameters')

DbEndpoint = str

logger = logging.getLogger(__name__)

#: transaction states between two commands, in which the session can go on
_AT_REST = (pg.TRANSACTION_STATUS_IDLE, pg.TRANSACTION_STATUS_INTRANS, pg.TRANSACTION_STATUS_INERROR)

#: what a user may have set on the connection object itself
_SESSION_ATTRIBUTES = ('autocommit', 'isolation_level', 'readonly', 'deferrable', 'cursor_factory')

#: how often unasked-for messages are taken in by one aliveness check
_ROUNDS = 8


class DbConnectionManager(BaseConnectionManager[DbEndpoint, pg.connection]):
    """PostgreSQL sessions. The endpoint is the name of an entry of ``dsn_params``.

    A transaction left open is rolled back when the connection comes back. So is what was set on the connection object:
    ``autocommit``, ``isolation_level``, ``readonly``, ``deferrable`` and ``cursor_factory`` are as they were when it
    was acquired, its notices and notifications are dropped. None of that costs a round trip if there is nothing to do.
    What SQL has changed in the session stays: ``SET`` outside a transaction, ``LISTEN``, temporary tables, advisory
    locks. Who uses these can override :meth:`on_release` to run ``conn.reset()`` or ``DISCARD ALL`` as well.
    """

    def __init__(self, dsn_params: DsnParameters):
        """:param dsn_params: the keyword arguments of ``psycopg2.connect()`` for each endpoint, by its name"""
        self._dsn_params = check_parameters(dsn_params)
        # who has acquired a connection, and its session attributes then, by its id()
        self._loans: Dict[int, Tuple[int, Tuple[Any, ...]]] = {}

    def create(self, endpoint: DbEndpoint, timeout: Optional[float] = None) -> pg.connection:
        """Log in to the database of an endpoint.

        libpq knows whole seconds only, from two upwards, and that for each address of a host; nor can it be
        interrupted. So a connect with a timeout is made in a thread of its own, which is left alone when the time is
        up; it ends by libpq's own timeout, and closes what it may have connected after all.

        :param endpoint: the name of the endpoint
        :param timeout: seconds that it may take (0 or more), ``None`` for the bound of the connect keywords, if any
        :return: the connection
        :raises KeyError: there are no parameters for that name
        :raises TimeoutError: it took too long
        :raises psycopg2.Error: the DSN cannot be parsed, the server cannot be reached, or does not let us in
        """
        params = find_endpoint(self._dsn_params, endpoint)
        parsed = _parse(params, endpoint)
        if timeout is None:
            conn: pg.connection = psycopg2.connect(**params)
            return conn
        if 'connect_timeout' not in parsed:
            # libpq is to give up as well, soon after us
            params = {**params, 'connect_timeout': max(2, math.ceil(timeout) + 1)}
        connect: Callable[[], pg.connection] = functools.partial(psycopg2.connect, **params)
        return call_within(timeout, connect, pg.connection.close, f'connecting to endpoint {endpoint!r}')

    def dispose(self, endpoint: DbEndpoint, conn: pg.connection, timeout: Optional[float] = None) -> None:
        """Close a connection.

        One that another thread may be using, when the pool is closed by force, is only cut: a query under way and all
        later ones fail at once, the session ends, and the descriptor is freed when the thread lets go of it.

        :param endpoint: the name of the endpoint
        :param conn: the connection, whatever its state
        :param timeout: not needed, closing does not wait
        """
        loan = self._loans.pop(id(conn), None)
        if conn.closed:
            return
        if loan is None:
            used_elsewhere = conn.get_transaction_status() == pg.TRANSACTION_STATUS_ACTIVE
        else:
            used_elsewhere = loan[0] != threading.get_ident()
        if used_elsewhere:
            # close() would wait for the answer to the query, and crash psycopg2 where it meets the end of another call
            with contextlib.suppress(psycopg2.Error, OSError):
                shut_down(conn.fileno())
        else:
            conn.close()

    def check_aliveness(self, endpoint: DbEndpoint, conn: pg.connection, timeout: Optional[float] = None) -> bool:
        """Tell whether a session can go on. One system call, no round trip, and it never waits.

        A server that ends a session says so, or at least closes the connection: both are found waiting to be read.
        Other unasked-for messages (notices, notifications, changed parameters) are taken in and do no harm.

        :param endpoint: the name of the endpoint
        :param conn: the connection; one that its user has closed is not alive
        :param timeout: not needed, the check does not wait
        """
        try:
            for _ in range(_ROUNDS):
                if conn.closed or conn.get_transaction_status() not in _AT_REST:
                    return False
                if is_quiet(conn.fileno()):
                    return True
                conn.poll()
        except psycopg2.Error:
            pass
        return False

    def on_acquire(self, endpoint: DbEndpoint, conn: pg.connection) -> None:
        """Roll back a transaction that is open: one that somebody else has left behind.

        :param endpoint: the name of the endpoint
        :param conn: the connection
        :raises psycopg2.Error: that failed, and the connection has been closed
        """
        if not _is_clean(conn):
            _roll_back(conn)
        self._loans[id(conn)] = threading.get_ident(), _session_attributes(conn)

    def on_release(self, endpoint: DbEndpoint, conn: pg.connection) -> None:
        """Roll back a transaction that is open, and restore the session attributes.

        If that fails the connection is closed, to be found dead and replaced when it is next to be used; the failure
        is logged but is no error of the user's, whose open transaction would have been rolled back anyway.

        :param endpoint: the name of the endpoint
        :param conn: the connection
        """
        _, attributes = self._loans.pop(id(conn), (None, None))
        if conn.closed:
            return
        try:
            if not _is_clean(conn):
                _roll_back(conn)
            if attributes is not None and attributes != _session_attributes(conn):
                for name, value in zip(_SESSION_ATTRIBUTES, attributes):
                    setattr(conn, name, value)
            if conn.notices:
                conn.notices = []
            if conn.notifies:
                conn.notifies = []
        except psycopg2.Error as exc:
            conn.close()
            logger.warning('a connection to %r was closed: it could not be cleaned up: %s', endpoint, exc)
        except BaseException:
            conn.close()
            raise

    def on_fork(self, endpoint: DbEndpoint, conn: pg.connection) -> None:
        """Release the descriptor that a session of the parent has in the child, without logging out.

        The connection object stays open, since closing it would wait for a lock that a thread of the parent may hold.

        :param endpoint: the name of the endpoint
        :param conn: the connection
        """
        self._loans.pop(id(conn), None)
        release_descriptor(conn)

    def is_reusable(self, endpoint: DbEndpoint, conn: pg.connection, exc: BaseException) -> bool:
        """Tell whether a session can go on although its user's code failed.

        It can if the server has finished its last answer: after an error that the server reported with an SQLSTATE
        (a violated constraint, a deadlock, a statement timeout), or one of the user's own. It cannot after a loss of
        the connection, a timeout, an interrupt, or in the middle of a query or COPY.

        :param endpoint: the name of the endpoint
        :param conn: the connection
        :param exc: what the user's code raised
        """
        if conn.closed or not isinstance(exc, Exception) or isinstance(exc, (OSError, psycopg2.InterfaceError)):
            return False
        if isinstance(exc, psycopg2.OperationalError) and exc.pgcode is None:
            return False
        return conn.get_transaction_status() in _AT_REST


def _is_clean(conn: pg.connection) -> bool:
    """Tell whether no transaction is open, neither in the server's eyes nor in psycopg2's.

    They disagree after a COMMIT that was executed as SQL: psycopg2 would not begin the next user's transaction.
    """
    return conn.get_transaction_status() == pg.TRANSACTION_STATUS_IDLE and bool(conn.status == pg.STATUS_READY)


def _session_attributes(conn: pg.connection) -> Tuple[Any, ...]:
    return conn.autocommit, conn.isolation_level, conn.readonly, conn.deferrable, conn.cursor_factory


def _roll_back(conn: pg.connection) -> None:
    """Roll back the open transaction, whoever began it; close the connection if that fails."""
    try:
        conn.rollback()
        if conn.get_transaction_status() != pg.TRANSACTION_STATUS_IDLE:
            # BEGIN was executed by hand, in autocommit mode: rollback() knows nothing of it
            with conn.cursor() as cursor:
                cursor.execute('ROLLBACK')
    except BaseException:
        conn.close()
        raise


def _parse(params: Mapping[str, Any], endpoint: str) -> Mapping[str, Any]:
    """Return connect keywords along with those that their DSN contains."""
    try:
        parsed = pg.parse_dsn(params.get('dsn') or '')
    except psycopg2.ProgrammingError:
        raise psycopg2.ProgrammingError(malformed_dsn(endpoint)) from None
    if not parsed.get('port', '0').replace(',', '').isdigit():
        # what follows a slash in a user name or password is taken for something else
        raise psycopg2.ProgrammingError(malformed_dsn(endpoint))
    return {**parsed, **params}
