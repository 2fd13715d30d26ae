"""MySQL and MariaDB with asyncmy: ``pool = ConnectionPool(DbConnectionManager({'main': {'host': ..., ...}}))``."""

import asyncio
import contextlib
import logging
import socket
from typing import Any, Coroutine, Dict, Iterator, NamedTuple, Optional

import asyncmy
import asyncmy.cursors
import asyncmy.errors

from .._fork import release_descriptor
from .._messages import show
from ..asyncio.manager import BaseConnectionManager
from ..common import to_seconds
from ._mysql import has_unread_result
from ._endpoints import find_endpoint
from ._parameters import (
    ConnectArguments, Keywords, check_arguments, check_number, current_keywords, told_error,
)  # fmt: skip
from ._sockets import is_quiet
from ._streams import CLOSING_GRACE

__all__ = ('ConnectArguments', 'DbConnection', 'DbConnectionManager', 'DbEndpoint')

DbEndpoint = str
DbConnection = asyncmy.Connection

logger = logging.getLogger(__name__)

#: the number of the command that gives a session its first state back
_COM_RESET_CONNECTION = 0x1F

#: seconds that logging in may take if the connect keywords do not say; asyncmy's own default for connecting
_CONNECT_TIMEOUT = 10.0

_ERRORS = (
    asyncmy.errors.InterfaceError, asyncmy.errors.InternalError, asyncmy.errors.OperationalError,
    asyncmy.errors.ProgrammingError, asyncmy.errors.Error,
)  # fmt: skip

#: how asyncmy reports that a connection is of no more use; a server has more to say than that it is lost by the third
_CONNECTION_ERRORS = (
    OSError, asyncio.TimeoutError,
    asyncmy.errors.InterfaceError, asyncmy.errors.InternalError, asyncmy.errors.OperationalError,
)  # fmt: skip


class _Session(NamedTuple):
    """The first state of a session."""

    transport: Any
    charset: str
    collation: str
    autocommit: bool
    database: Optional[str]
    #: ``sql_mode`` and ``init_command``, if the connect keywords have them
    settings: Keywords


class DbConnectionManager(BaseConnectionManager[DbEndpoint, DbConnection]):
    """MySQL and MariaDB sessions. The endpoint is the name of an entry of ``connect_args``.

    When a connection comes back its session is reset: open transactions, locks, temporary tables, prepared statements,
    session and user variables are gone, ``autocommit``, the character set and the selected database are those of a new
    connection. That takes three round trips.

    :param connect_args: for each endpoint, by its name, the keyword arguments of ``asyncmy.connect()``, or what is
        called before each connect and returns them, so that credentials may change
    :param ping_timeout: seconds that a server may take to answer a check, more than 0. Default: 5
    :param reset_timeout: seconds that a server may take to reset a session, more than 0. Default: 5
    :param reset_session: ``False`` for a rollback instead of the reset, which MySQL before 5.7.3 and MariaDB before
        10.2.4 do not know: of what was changed, only ``autocommit`` and the selected database are then restored
    :raises TypeError: ``connect_args`` is no such mapping
    :raises ValueError: a timeout is not more than 0
    """

    def __init__(
        self,
        connect_args: ConnectArguments,
        *,
        ping_timeout: float = 5.0,
        reset_timeout: float = 5.0,
        reset_session: bool = True,
    ):
        self._connect_args = check_arguments('connect_args', connect_args)
        self._ping_timeout = _check_seconds('ping_timeout', ping_timeout)
        self._reset_timeout = _check_seconds('reset_timeout', reset_timeout)
        self._resets = bool(reset_session)
        self._sessions: Dict[int, _Session] = {}

    async def create(self, endpoint: DbEndpoint) -> DbConnection:
        """Log in to the server of an endpoint. The ``connect_timeout`` of its keywords is for all of the login.

        :param endpoint: the name of the endpoint
        :return: the connection
        :raises KeyError: there are no arguments for that name
        :raises TypeError: the callable for that name did not return a mapping
        :raises TimeoutError: it took too long
        :raises asyncmy.errors.OperationalError: the server cannot be reached, or does not let us in; as all errors
            of the driver, it names the endpoint and quotes no secret
        """
        keywords = current_keywords(find_endpoint(self._connect_args, endpoint), endpoint)
        # asyncmy would leave something unawaited
        check_number(keywords, 'connect_timeout', endpoint)
        try:
            # untyped
            connection: Any = asyncmy.Connection
            conn = connection(**keywords)
            bound = float(keywords.get('connect_timeout') or _CONNECT_TIMEOUT)
            session = await _finish_within(bound, _log_in(conn, keywords), conn)
        except (TimeoutError, asyncio.TimeoutError):
            error: Exception = TimeoutError(f'connecting to endpoint {show(endpoint)} took longer than {bound} seconds')
        except Exception as exc:
            error = told_error(exc, endpoint, keywords, _ERRORS)
        else:
            self._sessions[id(conn)] = session
            made: DbConnection = conn
            return made
        try:
            # out of the handler, so that an exception whose message is not to be told is not its context
            raise error
        finally:
            del error

    async def dispose(self, endpoint: DbEndpoint, conn: DbConnection) -> None:
        """Log out, for one second at most, and close. A query that still runs on the connection fails.

        :param endpoint: the name of the endpoint
        :param conn: the connection, whatever its state
        """
        session = self._sessions.pop(id(conn), None)
        transports = [_transport_of(conn), session and session.transport]
        try:
            with _aborting(CLOSING_GRACE, *transports):
                await conn.ensure_closed()
        except (asyncmy.errors.Error, OSError):
            pass
        except RuntimeError:
            # the connection's event loop has ended, with which went all means to close a transport; its destructor will
            # do that
            _shut_down(transports)
        finally:
            # what asyncmy has closed after a cancellation may still have something to send, for which it would wait
            _abort(*transports)

    async def check_aliveness(self, endpoint: DbEndpoint, conn: DbConnection) -> bool:
        """Tell whether a session can go on: nothing is left to be read, and the server answers a ping in time.

        :param endpoint: the name of the endpoint
        :param conn: the connection; one that its user has closed is not alive
        """
        if not _is_at_rest(conn):
            return False
        try:
            with _aborting(self._ping_timeout, _transport_of(conn)):
                await conn.ping(reconnect=False)
        except (asyncmy.errors.MySQLError, OSError, RuntimeError):
            return False
        return _is_at_rest(conn)

    async def on_release(self, endpoint: DbEndpoint, conn: DbConnection) -> None:
        """Reset the session.

        If that fails, or takes more than ``reset_timeout``, or a result is not read to its end, the connection is
        closed, to be found dead and replaced when it is next to be used. A failure is logged but is no error of the
        user's.

        :param endpoint: the name of the endpoint
        :param conn: the connection
        """
        if not conn.connected:
            return
        session = self._sessions.get(id(conn))
        if session is None or _charset_of(conn) != session.charset or not _is_at_rest(conn):
            _close(conn)
            return
        try:
            with _aborting(self._reset_timeout, _transport_of(conn)):
                await self._reset(conn, session)
        except (asyncmy.errors.MySQLError, OSError) as exc:
            _close(conn)
            logger.warning('a connection to %s was closed: it could not be cleaned up: %s', show(endpoint), exc)
        except BaseException:
            _close(conn)
            raise

    def on_fork(self, endpoint: DbEndpoint, conn: DbConnection) -> None:
        """Release the descriptor that a session of the parent has in the child, without logging out.

        :param endpoint: the name of the endpoint
        :param conn: the connection
        """
        self._sessions.pop(id(conn), None)
        release_descriptor(_transport_of(conn))

    def is_reusable(self, endpoint: DbEndpoint, conn: DbConnection, exc: BaseException) -> bool:
        """Tell whether a session can go on although its user's code failed.

        It can after an error of the user's own, or one of the data or the statement that the server reported. It
        cannot after an ``OperationalError``, ``InterfaceError`` or ``InternalError``, a timeout, a cancellation or a
        network error, nor with something left to read.

        :param endpoint: the name of the endpoint
        :param conn: the connection
        :param exc: what the user's code raised
        """
        if not isinstance(exc, Exception) or isinstance(exc, _CONNECTION_ERRORS):
            return False
        return _is_at_rest(conn)

    async def _reset(self, conn: Any, session: _Session) -> None:
        if self._resets:
            await _give_first_state(conn, session)
        else:
            await conn.rollback()
            await conn.autocommit(session.autocommit)
        if session.database is not None:
            await conn.select_db(session.database)
        elif await _query(conn, 'SELECT DATABASE()') != ((None,),):
            # there is no way back to none
            _close(conn)


async def _log_in(conn: Any, keywords: Keywords) -> _Session:
    await conn.connect()
    (collation, autocommit, database), = await _query(conn, 'SELECT @@collation_connection, @@autocommit, DATABASE()')
    await conn.rollback()
    settings = {name: keywords[name] for name in ('sql_mode', 'init_command') if keywords.get(name) is not None}
    return _Session(_transport_of(conn), _charset_of(conn), collation, bool(autocommit), database, settings)


async def _give_first_state(conn: Any, session: _Session) -> None:
    await conn._execute_command(_COM_RESET_CONNECTION, b'')
    await conn._read_ok_packet()
    # statements that asyncmy has prepared for its cache are gone
    conn._stmt_cache.clear()
    autocommit = int(session.autocommit)
    await _query(conn, f'SET NAMES {session.charset} COLLATE {session.collation}, autocommit = {autocommit}')
    conn.autocommit_mode = session.autocommit
    # as a login does it
    if 'sql_mode' in session.settings:
        await conn.query(f'SET sql_mode={session.settings["sql_mode"]}')
    if 'init_command' in session.settings:
        await conn.query(session.settings['init_command'])
        await conn.commit()


async def _query(conn: Any, sql: str) -> Any:
    async with conn.cursor(asyncmy.cursors.Cursor) as cursor:
        await cursor.execute(sql)
        return await cursor.fetchall()


async def _finish_within(timeout: float, steps: Coroutine[Any, Any, _Session], conn: Any) -> _Session:
    """Take the steps of a login, and close what they have opened if they fail, take too long or are cancelled.

    Before Python 3.12 a step may swallow its cancellation, so it may take more than one.

    :raises TimeoutError: they took too long
    """
    login = asyncio.ensure_future(steps)
    try:
        done, _ = await asyncio.wait([login], timeout=timeout)
        if not done:
            raise TimeoutError
        return login.result()
    except BaseException:
        login.add_done_callback(lambda outcome: _discard(outcome, conn))
        while not login.done():
            login.cancel()
            await asyncio.sleep(0)
        raise
    finally:
        # an error refers to this frame, and the task to the error
        del login


def _discard(login: 'asyncio.Future[_Session]', conn: Any) -> None:
    # looked at, so that nobody complains that it was not
    if not login.cancelled():
        login.exception()
    transport = _transport_of(conn)
    _close(conn)
    _abort(transport)


def _check_seconds(name: str, value: Any) -> float:
    seconds = to_seconds(value)
    if not seconds > 0.0:
        raise ValueError(f'{name} must be a number of seconds, more than 0, not {show(value)}')
    return seconds


def _transport_of(conn: Any) -> Any:
    # asyncmy has no public way to it
    return getattr(conn, '_transport', None)


def _charset_of(conn: Any) -> str:
    charset: str = conn.character_set_name()
    return charset


def _is_at_rest(conn: Any) -> bool:
    """Tell whether a connection is open and has nothing left to read. One system call."""
    transport = _transport_of(conn)
    if not conn.connected or transport is None or transport.is_closing() or has_unread_result(conn):
        return False
    arrived = getattr(conn, '_proto', None)
    if arrived is not None and (arrived.eof or arrived.length != arrived.pos):
        return False
    sock = transport.get_extra_info('socket')
    return sock is None or is_quiet(sock.fileno())


@contextlib.contextmanager
def _aborting(timeout: float, *transports: Any) -> Iterator[None]:
    """Abort transports if a block takes too long, which wakes whoever waits for them.

    Not ``wait_for()``, which may swallow a cancellation before Python 3.12.
    """
    watchdog = asyncio.get_running_loop().call_later(timeout, _abort, *transports)
    try:
        yield
    finally:
        watchdog.cancel()


def _abort(*transports: Any) -> None:
    for transport in transports:
        if transport is not None:
            with contextlib.suppress(RuntimeError):
                transport.abort()


def _close(conn: Any) -> None:
    with contextlib.suppress(RuntimeError):
        conn.close()


def _shut_down(transports: Any) -> None:
    for transport in transports:
        sock = None if transport is None else transport.get_extra_info('socket')
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
