"""PostgreSQL with psycopg 3 for asyncio: ``pool = ConnectionPool(DbConnectionManager({'main': {'dbname': ...}}))``."""

import asyncio
import inspect
import logging
from typing import Any, Awaitable, Callable, Dict, Mapping, Optional, Union

import psycopg

from .._fork import release_descriptor
from ..asyncio.manager import BaseConnectionManager
from . import _psycopg
from ._psycopg import ConnectParameters

__all__ = ('ConnectParameters', 'DbConnection', 'DbConnectionManager', 'DbEndpoint', 'DsnParameters')

DbEndpoint = str
#: what its rows are depends on the ``row_factory`` among the connect keywords
DbConnection = psycopg.AsyncConnection[Any]
#: the connect keywords of each endpoint, or what returns them (or an awaitable of them), by its name
DsnParameters = Mapping[
    DbEndpoint, Union[ConnectParameters, Callable[[], Union[ConnectParameters, Awaitable[ConnectParameters]]]]
]

logger = logging.getLogger(__name__)

#: how many rounds of the event loop a task may take to notice that its connection was cut
_ROUNDS_TO_NOTICE = 16


class DbConnectionManager(BaseConnectionManager[DbEndpoint, DbConnection]):
    """PostgreSQL sessions. The endpoint is the name of an entry of ``dsn_params``.

    A transaction left open is rolled back when the connection comes back. So is what was set on the connection object:
    ``autocommit``, ``isolation_level``, ``read_only``, ``deferrable``, the row and cursor factories, adapters,
    ``prepare_threshold``, ``prepared_max``, and the handlers of notices and notifications are as they were when it was
    acquired; notifications that nobody has read are dropped. None of that costs a round trip if no transaction is open.
    A connection in the middle of a query, a COPY or a pipeline is closed instead.

    What SQL has changed in the session stays: ``SET`` outside a transaction, ``LISTEN``, temporary tables, cursors
    ``WITH HOLD``, advisory locks, prepared statements. That is what ``reset`` is for.
    """

    def __init__(
        self,
        dsn_params: DsnParameters,
        *,
        configure: Optional[Callable[[DbConnection], Awaitable[None]]] = None,
        reset: Optional[Callable[[DbConnection], Awaitable[None]]] = None,
    ):
        """
        :param dsn_params: the keyword arguments of ``psycopg.AsyncConnection.connect()`` for each endpoint, by its
            name; or a callable (a coroutine function, if you like) that returns them, called for each new connection
        :param configure: awaited once with each new connection, before its first user gets it. What it sets on the
            connection object is what later releases restore
        :param reset: awaited with a connection when it comes back, after the rollback, with its attributes restored.
            What it sets on the connection object does not last.
            Both have to end the transactions that they begin
        :raises TypeError: one of these is something else
        """
        _psycopg.check_parameters(dsn_params)
        _psycopg.check_callback('configure', configure)
        _psycopg.check_callback('reset', reset)
        self._dsn_params = dsn_params
        self._configure = configure
        self._reset = reset
        # what was set on a connection when it was acquired, by its id()
        self._loans: Dict[int, _psycopg.Settings] = {}

    async def create(self, endpoint: DbEndpoint) -> DbConnection:
        """Log in to the database of an endpoint.

        :param endpoint: the name of the endpoint
        :return: the connection
        :raises KeyError: there are no parameters for that name
        :raises TypeError: the callable for it has returned no mapping
        :raises psycopg.Error: the conninfo cannot be parsed, the server cannot be reached, or does not let us in; or
            ``configure`` has left a transaction open, or something worse. The message names the endpoint
        :raises Exception: what ``configure``, or the callable for the parameters, has raised
        """
        params = _psycopg.entry_of(self._dsn_params, endpoint)
        if inspect.isawaitable(params):
            params = await params
        _psycopg.checked(params, endpoint)
        try:
            conn: DbConnection = await psycopg.AsyncConnection.connect(**params)
        except BaseException as exc:
            raise _psycopg.failed_connect(exc, endpoint)
        if self._configure is not None:
            try:
                await self._configure(conn)
                _psycopg.check_at_rest(conn, 'configure')
            except psycopg.Error as exc:
                await _close(conn)
                raise _psycopg.naming_endpoint(exc, 'could not configure a connection to', endpoint)
            except BaseException:
                await _close(conn)
                raise
        return conn

    async def dispose(self, endpoint: DbEndpoint, conn: DbConnection) -> None:
        """Close a connection. A task that is still using it, when the pool is closed by force, gets an error at once.

        :param endpoint: the name of the endpoint
        :param conn: the connection, whatever its state
        """
        self._loans.pop(id(conn), None)
        await _close(conn)

    async def check_aliveness(self, endpoint: DbEndpoint, conn: DbConnection) -> bool:
        """Tell whether a session can go on. One system call, no round trip, and it never suspends.

        A server that ends a session says so, or at least closes the connection: both are found waiting to be read.
        Other unasked-for messages (notices, notifications, changed parameters) are taken in and do no harm.

        :param endpoint: the name of the endpoint
        :param conn: the connection; one that its user has closed is not alive
        """
        return _psycopg.is_fit(conn)

    async def on_acquire(self, endpoint: DbEndpoint, conn: DbConnection) -> None:
        """Roll back a transaction that is open: one that somebody else has left behind.

        :param endpoint: the name of the endpoint
        :param conn: the connection
        :raises psycopg.Error: that failed, and the connection has been closed
        """
        if _psycopg.has_transaction(conn):
            try:
                await conn.rollback()
            except BaseException:
                await _close(conn)
                raise
        self._loans[id(conn)] = _psycopg.Settings(conn)

    async def on_release(self, endpoint: DbEndpoint, conn: DbConnection) -> None:
        """Roll back a transaction that is open, restore what was set on the connection object, await ``reset``.

        If that fails, or the connection is in the middle of a query, a COPY or a pipeline, it is closed, to be found
        dead and replaced when it is next to be used; the failure is logged but is no error of the user's, whose open
        transaction would have been rolled back anyway.

        :param endpoint: the name of the endpoint
        :param conn: the connection
        """
        settings = self._loans.pop(id(conn), None)
        if conn.closed:
            return
        try:
            reason = _psycopg.unrest(conn)
            if reason is None:
                await self._clean_up(conn, settings)
        except Exception as exc:
            reason = f'it could not be cleaned up: {exc}'
        except BaseException:
            await _close(conn)
            raise
        if reason is not None:
            await _close(conn)
            logger.warning('a connection to %r was closed: %s', endpoint, reason)

    def on_fork(self, endpoint: DbEndpoint, conn: DbConnection) -> None:
        """Release the descriptor that a session of the parent has in the child, without logging out.

        :param endpoint: the name of the endpoint
        :param conn: the connection
        """
        self._loans.pop(id(conn), None)
        release_descriptor(conn)

    def is_reusable(self, endpoint: DbEndpoint, conn: DbConnection, exc: BaseException) -> bool:
        """Tell whether a session can go on although its user's code failed.

        It can if the server has finished its last answer: after an error that the server reported with an SQLSTATE
        (a violated constraint, a deadlock, a statement timeout), one that psycopg found in what it was told to send, or
        one of the user's own. It cannot after a loss of the connection, a timeout, a cancellation, a group of errors,
        or in the middle of a query, a COPY or a pipeline.

        :param endpoint: the name of the endpoint
        :param conn: the connection
        :param exc: what the user's code raised
        """
        return _psycopg.is_reusable(conn, exc)

    async def _clean_up(self, conn: DbConnection, settings: Optional[_psycopg.Settings]) -> None:
        if _psycopg.has_transaction(conn):
            await conn.rollback()
        if settings is not None:
            await _restore(conn, settings)
        if self._reset is not None:
            await self._reset(conn)
            _psycopg.check_at_rest(conn, 'reset')
            if settings is not None:
                await _restore(conn, settings)


async def _restore(conn: DbConnection, settings: _psycopg.Settings) -> None:
    for name, value in settings.changed(conn):
        await getattr(conn, f'set_{name}')(value)
    settings.restore(conn)


async def _close(conn: DbConnection) -> None:
    """Close a connection. If it is in use, whoever waits for an answer gets an error first.

    A task that still waited for a connection when it is freed would never wake up, or by what the next connection with
    the same descriptor receives.
    """
    if conn.closed:
        return
    if _psycopg.is_in_use(conn):
        _psycopg.cut(conn)
        try:
            for _ in range(_ROUNDS_TO_NOTICE):
                await asyncio.sleep(0)
                if not _psycopg.is_in_use(conn):
                    break
        except GeneratorExit:
            # the event loop has ended, and with it whoever waited
            conn.pgconn.finish()
            raise
    await conn.close()
