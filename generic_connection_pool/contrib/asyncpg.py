"""PostgreSQL with asyncpg: ``pool = ConnectionPool(DbConnectionManager({'main': {'dsn': ...}}))``."""

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

import asyncpg

from .._fork import release_descriptor
from ..asyncio.manager import BaseConnectionManager
from . import _streams
from ._endpoints import find_endpoint
from ._postgres import DsnParameters, check_parameters, malformed_dsn
from ._sockets import is_quiet

__all__ = ('DbConnection', 'DbConnectionManager', 'DbEndpoint', 'DsnParameters')

DbEndpoint = str

if TYPE_CHECKING:
    DbConnection = asyncpg.Connection[asyncpg.Record]
else:
    DbConnection = asyncpg.Connection

logger = logging.getLogger(__name__)

#: how asyncpg reports that a connection is of no more use, or is being used for something else
_CONNECTION_ERRORS = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
)
_ERRORS = (*_CONNECTION_ERRORS, asyncpg.PostgresError)


class DbConnectionManager(BaseConnectionManager[DbEndpoint, DbConnection]):
    """PostgreSQL sessions. The endpoint is the name of an entry of ``dsn_params``.

    A transaction left open is rolled back when the connection comes back; there is no round trip if none is open.
    What else was changed in the session stays: ``SET`` outside a transaction, listeners, temporary tables, advisory
    locks. Who uses these can override :meth:`on_release` to run ``await conn.reset()`` as well.
    """

    def __init__(self, dsn_params: DsnParameters):
        """:param dsn_params: the keyword arguments of ``asyncpg.connect()`` for each endpoint, by its name"""
        self._dsn_params = check_parameters(dsn_params)

    async def create(self, endpoint: DbEndpoint) -> DbConnection:
        """Log in to the database of an endpoint.

        :param endpoint: the name of the endpoint
        :return: the connection
        :raises KeyError: there are no parameters for that name
        :raises ValueError: its DSN cannot be parsed
        :raises asyncpg.PostgresError: the server does not let us in
        :raises OSError: the server cannot be reached
        """
        params = find_endpoint(self._dsn_params, endpoint)
        try:
            conn: DbConnection = await asyncpg.connect(**params)
        except asyncpg.InterfaceError:
            # some are ValueErrors, but speak of settings only
            raise
        except ValueError:
            if 'dsn' not in params:
                raise
            raise ValueError(malformed_dsn(endpoint)) from None
        return conn

    async def dispose(self, endpoint: DbEndpoint, conn: DbConnection) -> None:
        """Log out, for one second at most, and close. A query that still runs on the connection is cancelled.

        :param endpoint: the name of the endpoint
        :param conn: the connection, whatever its state
        """
        try:
            await conn.close(timeout=_streams.CLOSING_GRACE)
        except (*_ERRORS, RuntimeError):
            # the server is gone or does not answer, or the event loop of the connection has ended
            pass
        finally:
            with contextlib.suppress(RuntimeError):
                conn.terminate()

    async def check_aliveness(self, endpoint: DbEndpoint, conn: DbConnection) -> bool:
        """Tell whether a session can go on. One system call, no round trip.

        Only if something has arrived which the event loop has yet to read, such as the server's farewell, it suspends to
        have it read, and has the server answer a query.

        :param endpoint: the name of the endpoint
        :param conn: the connection; one that its user has closed is not alive
        """
        if conn.is_closed():
            return False
        # without a socket to look at, what the loop has noticed has to do
        transport = _transport_of(conn)
        sock = None if transport is None else transport.get_extra_info('socket')
        if sock is None or is_quiet(sock.fileno()):
            return True
        return await _streams.read_pending_input(conn.is_closed, sock.fileno) and await _answers(conn)

    async def on_acquire(self, endpoint: DbEndpoint, conn: DbConnection) -> None:
        """Roll back a transaction that is open: one that somebody else has left behind.

        :param endpoint: the name of the endpoint
        :param conn: the connection
        :raises Exception: that failed, and the connection has been closed
        """
        if conn.is_in_transaction():
            await _roll_back(conn)

    async def on_release(self, endpoint: DbEndpoint, conn: DbConnection) -> None:
        """Roll back a transaction that is open.

        If that fails the connection is closed, to be found dead and replaced when it is next to be used; the failure
        is logged but is no error of the user's, whose open transaction would have been rolled back anyway.

        :param endpoint: the name of the endpoint
        :param conn: the connection
        """
        if conn.is_closed() or not conn.is_in_transaction():
            return
        try:
            await _roll_back(conn)
        except _ERRORS as exc:
            logger.warning('a connection to %r was closed: it could not be cleaned up: %s', endpoint, exc)

    def on_fork(self, endpoint: DbEndpoint, conn: DbConnection) -> None:
        """Release the descriptor that a session of the parent has in the child, without logging out.

        :param endpoint: the name of the endpoint
        :param conn: the connection
        """
        release_descriptor(_transport_of(conn))

    def is_reusable(self, endpoint: DbEndpoint, conn: DbConnection, exc: BaseException) -> bool:
        """Tell whether a session can go on although its user's code failed.

        It can after an error that the server reported (a violated constraint, a deadlock, a statement timeout), or
        one of the user's own. It cannot after a loss of the connection, a timeout, a cancellation, or an error that
        the driver found.

        :param endpoint: the name of the endpoint
        :param conn: the connection
        :param exc: what the user's code raised
        """
        if conn.is_closed() or not isinstance(exc, Exception) or isinstance(exc, _CONNECTION_ERRORS):
            return False
        # a server that says FATAL hangs up next
        return getattr(exc, 'severity_en', None) not in ('FATAL', 'PANIC')


def _transport_of(conn: DbConnection) -> Any:
    # asyncpg has no public way to it
    return getattr(conn, '_transport', None)


async def _answers(conn: DbConnection) -> bool:
    """Ask the server: one that shuts down says so before it hangs up, which asyncpg takes in and does not tell."""
    try:
        await conn.execute('SELECT 1')
    except _ERRORS:
        return False
    return True


async def _roll_back(conn: DbConnection) -> None:
    """Roll back the open transaction, whoever began it; close the connection if that fails."""
    try:
        await conn.execute('ROLLBACK')
    except BaseException:
        conn.terminate()
        raise
    # asyncpg remembers the Transaction object that began it, and would make the next user's transaction a savepoint
    if getattr(conn, '_top_xact', None) is not None:
        setattr(conn, '_top_xact', None)
