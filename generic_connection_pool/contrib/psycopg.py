"""PostgreSQL with psycopg 3 for threads: ``pool = ConnectionPool(DbConnectionManager({'main': {'dbname': ...}}))``."""

import logging
import math
import threading
from typing import Any, Callable, Dict, Mapping, Optional, Tuple, Union

import psycopg

from .._fork import release_descriptor
from ..threading.manager import BaseConnectionManager
from . import _psycopg
from ._psycopg import ConnectParameters
from ._psycopg_connect import Abandonable, Attempt
from ._sockets import Deadline

__all__ = ('ConnectParameters', 'DbConnection', 'DbConnectionManager', 'DbEndpoint', 'DsnParameters')

DbEndpoint = str
#: what its rows are depends on the ``row_factory`` among the connect keywords
DbConnection = psycopg.Connection[Any]
#: the connect keywords of each endpoint, or what returns them, by its name
DsnParameters = Mapping[DbEndpoint, Union[ConnectParameters, Callable[[], ConnectParameters]]]

logger = logging.getLogger(__name__)


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
        configure: Optional[Callable[[DbConnection], None]] = None,
        reset: Optional[Callable[[DbConnection], None]] = None,
    ):
        """
        :param dsn_params: the keyword arguments of ``psycopg.connect()`` for each endpoint, by its name; or a callable
            that returns them, which is called for each new connection, in the thread that acquires it. What time it
            takes counts, but it is not interrupted
        :param configure: called once with each new connection, before its first user gets it; in a thread of its own if
            the connection is opened for an acquire with a deadline. What it sets on the connection object is what later
            releases restore
        :param reset: called with a connection when it comes back, after the rollback, with its attributes restored.
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
        # who has acquired a connection, and what was set on it then, by its id()
        self._loans: Dict[int, Tuple[int, _psycopg.Settings]] = {}

    def create(self, endpoint: DbEndpoint, timeout: Optional[float] = None) -> DbConnection:
        """Log in to the database of an endpoint.

        psycopg knows whole seconds only, from two upwards, and that for each address of a host; and it waits for name
        servers without bound. So a connect with a timeout is made in a thread of its own, which is left alone when the
        time is up; it ends within a moment, unless it is a name server that it waits for.

        :param endpoint: the name of the endpoint
        :param timeout: seconds that it may take (0 or more), ``None`` for the bound of the connect keywords, if any
        :return: the connection
        :raises KeyError: there are no parameters for that name
        :raises TypeError: the callable for it has returned no mapping
        :raises TimeoutError: it took too long
        :raises psycopg.Error: the conninfo cannot be parsed, the server cannot be reached, or does not let us in; or
            ``configure`` has left a transaction open, or something worse. The message names the endpoint
        :raises Exception: what ``configure``, or the callable for the parameters, has raised
        """
        deadline = Deadline(timeout)
        params = _psycopg.entry_of(self._dsn_params, endpoint)
        merged = _psycopg.checked(params, endpoint)
        if timeout is None:
            conn = _connect(psycopg.Connection, endpoint, params)
            try:
                self._prepare(endpoint, conn)
            except BaseException:
                conn.close()
                raise
            return conn
        try:
            left = deadline.left() or 0.0
        except TimeoutError:
            raise TimeoutError(f'no time was left to connect to endpoint {endpoint!r}') from None
        if merged.get('connect_timeout') is None:
            # psycopg is to give up as well, soon after us
            params = {**params, 'connect_timeout': max(2, math.ceil(left) + 1)}
        attempt = Attempt(
            lambda: _connect(Abandonable, endpoint, params),
            lambda conn: self._prepare(endpoint, conn),
        )
        return attempt.outcome(left, endpoint)

    def dispose(self, endpoint: DbEndpoint, conn: DbConnection, timeout: Optional[float] = None) -> None:
        """Close a connection.

        One that another thread may be using, when the pool is closed by force, is only cut: a query under way and all
        later ones fail at once, the session ends, and the descriptor is freed when the thread lets go of it.

        :param endpoint: the name of the endpoint
        :param conn: the connection, whatever its state
        :param timeout: not needed, closing does not wait
        """
        thread, _ = self._loans.pop(id(conn), (None, None))
        _close(conn, thread)

    def check_aliveness(self, endpoint: DbEndpoint, conn: DbConnection, timeout: Optional[float] = None) -> bool:
        """Tell whether a session can go on. One system call, no round trip, and it never waits.

        A server that ends a session says so, or at least closes the connection: both are found waiting to be read.
        Other unasked-for messages (notices, notifications, changed parameters) are taken in and do no harm.

        :param endpoint: the name of the endpoint
        :param conn: the connection; one that its user has closed is not alive
        :param timeout: not needed, the check does not wait
        """
        return _psycopg.is_fit(conn)

    def on_acquire(self, endpoint: DbEndpoint, conn: DbConnection) -> None:
        """Roll back a transaction that is open: one that somebody else has left behind.

        :param endpoint: the name of the endpoint
        :param conn: the connection
        :raises psycopg.Error: that failed, and the connection has been closed
        """
        if _psycopg.has_transaction(conn):
            try:
                conn.rollback()
            except BaseException:
                _close(conn)
                raise
        self._loans[id(conn)] = threading.get_ident(), _psycopg.Settings(conn)

    def on_release(self, endpoint: DbEndpoint, conn: DbConnection) -> None:
        """Roll back a transaction that is open, restore what was set on the connection object, call ``reset``.

        If that fails, or the connection is in the middle of a query, a COPY or a pipeline, it is closed, to be found
        dead and replaced when it is next to be used; the failure is logged but is no error of the user's, whose open
        transaction would have been rolled back anyway.

        :param endpoint: the name of the endpoint
        :param conn: the connection
        """
        thread, settings = self._loans.pop(id(conn), (None, None))
        if conn.closed:
            return
        try:
            reason = _psycopg.unrest(conn)
            if reason is None:
                self._clean_up(conn, settings)
        except Exception as exc:
            reason = f'it could not be cleaned up: {exc}'
        except BaseException:
            _close(conn, thread)
            raise
        if reason is not None:
            _close(conn, thread)
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
        one of the user's own. It cannot after a loss of the connection, a timeout, an interrupt, a group of errors, or
        in the middle of a query, a COPY or a pipeline.

        :param endpoint: the name of the endpoint
        :param conn: the connection
        :param exc: what the user's code raised
        """
        return _psycopg.is_reusable(conn, exc)

    def _prepare(self, endpoint: DbEndpoint, conn: DbConnection) -> None:
        """Have a new connection configured, by whoever is to close it if that fails."""
        if self._configure is None:
            return
        try:
            self._configure(conn)
            _psycopg.check_at_rest(conn, 'configure')
        except psycopg.Error as exc:
            raise _psycopg.naming_endpoint(exc, 'could not configure a connection to', endpoint)

    def _clean_up(self, conn: DbConnection, settings: Optional[_psycopg.Settings]) -> None:
        if _psycopg.has_transaction(conn):
            conn.rollback()
        if settings is not None:
            _restore(conn, settings)
        if self._reset is not None:
            self._reset(conn)
            _psycopg.check_at_rest(conn, 'reset')
            if settings is not None:
                _restore(conn, settings)


def _connect(make: 'type[DbConnection]', endpoint: str, params: ConnectParameters) -> DbConnection:
    try:
        return make.connect(**params)
    except BaseException as exc:
        raise _psycopg.failed_connect(exc, endpoint)


def _restore(conn: DbConnection, settings: _psycopg.Settings) -> None:
    for name, value in settings.changed(conn):
        setattr(conn, name, value)
    settings.restore(conn)


def _close(conn: DbConnection, thread: Optional[int] = None) -> None:
    """Close a connection, but only cut it if a thread may be in the middle of something that is not this one.

    :param conn: the connection, whatever its state
    :param thread: who has acquired it, ``None`` if that is not known
    """
    if conn.closed:
        return
    if thread != threading.get_ident() and _psycopg.is_in_use(conn):
        _psycopg.cut(conn)
    else:
        conn.close()
