"""Any database with a PEP 249 driver, for threads: ``pool = ConnectionPool(DbConnectionManager(sqlite3, {...}))``."""

import contextlib
import inspect
import logging
import threading
from typing import Any, Callable, Dict, Iterable, Optional, Protocol, Tuple, Type, TypeVar, Union

from .._deadlines import deadline_after, remaining
from .._messages import show
from ..common import ConnectionT
from ..threading.manager import BaseConnectionManager
from ._dbapi_drivers import Note, traits_of
from ._endpoints import find_endpoint
from ._parameters import (
    ConnectArguments, Keywords, check_arguments, check_hook, current_keywords, told_error,
)  # fmt: skip
from ._within import call_within

__all__ = ('SESSION_ATTRIBUTES', 'ConnectArguments', 'DbConnectionManager', 'DbEndpoint', 'Driver')

DbEndpoint = str

AnyConnectionT_co = TypeVar('AnyConnectionT_co', covariant=True)

logger = logging.getLogger(__name__)

#: attributes of connections of one driver or another that a user may set
SESSION_ATTRIBUTES = (
    'autocommit', 'isolation_level', 'readonly', 'deferrable', 'cursor_factory', 'row_factory', 'text_factory',
    'cursorclass',
)  # fmt: skip

#: how long (in seconds) a connection may take to log out if nobody says otherwise
CLOSING_GRACE = 1.0
#: and at least
SHORTEST_GRACE = 0.001


class Driver(Protocol[AnyConnectionT_co]):
    """A module that follows PEP 249, as far as the manager needs it."""

    def connect(self, *args: Any, **kwargs: Any) -> AnyConnectionT_co: ...

    @property
    def Error(self) -> Type[Exception]: ...

    @property
    def InterfaceError(self) -> Type[Exception]: ...

    @property
    def InternalError(self) -> Type[Exception]: ...

    @property
    def OperationalError(self) -> Type[Exception]: ...

    @property
    def ProgrammingError(self) -> Type[Exception]: ...

    @property
    def NotSupportedError(self) -> Type[Exception]: ...


_ERRORS = ('InterfaceError', 'InternalError', 'OperationalError', 'ProgrammingError', 'NotSupportedError', 'Error')


class DbConnectionManager(BaseConnectionManager[DbEndpoint, ConnectionT]):
    """Connections of any PEP 249 driver. The endpoint is the name of an entry of ``connect_args``.

    A transaction left open is rolled back when the connection comes back. Attributes that were set on the connection
    (:data:`SESSION_ATTRIBUTES`) are as they were when it was acquired, and the database that ``connect_args`` name is
    selected again where the driver has a ``select_db()``. What else SQL has changed in the session stays, unless
    ``reset`` changes it back.

    :param driver: the module, such as :mod:`sqlite3`
    :param connect_args: for each endpoint, by its name, the keyword arguments of ``driver.connect()``, or what is
        called (in whatever thread, and within the timeout) before each connect and returns them, so that credentials
        may change
    :param ping: how to ask a server whether it is there: a statement; or what is called with the connection and
        raises an exception if not; ``None`` (the default) for the connection's own ``ping()`` if it has one, else
        ``SELECT 1``
    :param configure: called with each new connection; what it does is committed
    :param reset: called with each connection that comes back, after the rollback; what it does is committed
    :param session_attributes: the names of those that are restored; reading them must not need a server
    :raises TypeError: an argument is none of these
    """

    def __init__(
        self,
        driver: Driver[ConnectionT],
        connect_args: ConnectArguments,
        *,
        ping: Union[None, str, Callable[[ConnectionT], object]] = None,
        configure: Optional[Callable[[ConnectionT], object]] = None,
        reset: Optional[Callable[[ConnectionT], object]] = None,
        session_attributes: Iterable[str] = SESSION_ATTRIBUTES,
    ):
        missing = [name for name in ('connect', *_ERRORS) if not hasattr(driver, name)]
        if missing:
            raise TypeError(
                f'driver must be a PEP 249 module: the {type(driver).__name__} that it is lacks {", ".join(missing)}'
            )
        if not isinstance(ping, str):
            check_hook('ping', ping)
        check_hook('configure', configure)
        check_hook('reset', reset)
        self._driver = driver
        self._connect_args = check_arguments('connect_args', connect_args)
        self._ping = ping
        self._configure = configure
        self._reset = reset
        self._session_attributes = _check_attributes(session_attributes)
        self._traits = traits_of(driver)
        self._notes: Dict[int, Note] = {}

    def create(self, endpoint: DbEndpoint, timeout: Optional[float] = None) -> ConnectionT:
        """Connect to an endpoint.

        With a timeout that is done in a thread of its own, which is left alone when the time is up. It closes what it
        may have connected after all. It ends when the driver gives up: of PyMySQL and psycopg2 that is seen to, others
        should be given a timeout among their connect keywords.

        :param endpoint: the name of the endpoint
        :param timeout: seconds that it may take (0 or more), ``None`` for what the driver allows
        :return: the connection
        :raises KeyError: there are no arguments for that name
        :raises TypeError: the callable for that name did not return a mapping
        :raises TimeoutError: it took too long
        :raises Exception: what the driver, ``configure`` or the callable for that name raised; the driver's names the
            endpoint, and quotes none of its secrets
        """
        source = find_endpoint(self._connect_args, endpoint)
        deadline = deadline_after(timeout)

        def connect() -> ConnectionT:
            keywords = current_keywords(source, endpoint)
            conn = self._connect(endpoint, keywords, remaining(deadline))
            self._notes[id(conn)] = Note(_database_of(keywords))
            return conn

        if timeout is None:
            return connect()
        return call_within(timeout, connect, self._close_late, f'connecting to endpoint {show(endpoint)}')

    def dispose(self, endpoint: DbEndpoint, conn: ConnectionT, timeout: Optional[float] = None) -> None:
        """Close a connection, without waiting if its socket is within reach; else for ``timeout`` at most.

        One that another thread may be using, when the pool is closed by force, is cut, or its query interrupted if it
        is SQLite's. PyMySQL's is then closed; others, which might crash, end when that thread lets go of them.

        :param endpoint: the name of the endpoint
        :param conn: the connection, whatever its state
        :param timeout: seconds that logging out may take; ``None`` for one
        """
        note = self._notes.pop(id(conn), None)
        with contextlib.suppress(self._driver.Error, OSError):
            if note is not None and note.is_used_elsewhere:
                self._traits.wake(conn)
                if note.abandoned or not self._traits.closes_under_others:
                    return
            if self._traits.waits and self._traits.descriptor(conn) is None:
                grace = CLOSING_GRACE if timeout is None else max(timeout, SHORTEST_GRACE)
                call_within(grace, lambda: self._traits.close(conn), lambda _: None, f'closing {show(endpoint)}')
            else:
                self._traits.close(conn)

    def check_aliveness(self, endpoint: DbEndpoint, conn: ConnectionT, timeout: Optional[float] = None) -> bool:
        """Tell whether a connection can go on: it has nothing left to read, and its server answers a ping.

        With a timeout the ping is made in a thread of its own, except that of SQLite, which waits for nobody. A
        connection whose ping takes too long is dead. There is no time for one in 0 seconds, so none is made.

        :param endpoint: the name of the endpoint
        :param conn: the connection; one that its user has closed is not alive
        :param timeout: seconds that it may take (0 or more), ``None`` for what the driver allows
        """
        try:
            if self._traits.is_closed(conn) or not self._traits.is_at_rest(conn):
                return False
        except self._driver.Error:
            return False
        if timeout is None or not self._traits.waits:
            return self._answers(conn)
        if timeout <= 0:
            return True
        note = self._notes.setdefault(id(conn), Note(None))
        note.abandoned = True
        try:
            answers = call_within(timeout, lambda: self._answers(conn), lambda _: self._close_late(conn), 'a ping')
        except TimeoutError:
            with contextlib.suppress(self._driver.Error, OSError):
                self._traits.wake(conn)
            return False
        except Exception:
            # there is no thread to be had
            note.abandoned = False
            raise
        note.abandoned = False
        return answers

    def on_acquire(self, endpoint: DbEndpoint, conn: ConnectionT) -> None:
        """Note who uses a connection, and its session attributes. No round trip.

        :param endpoint: the name of the endpoint
        :param conn: the connection
        """
        note = self._notes.setdefault(id(conn), Note(None))
        note.holder = threading.get_ident()
        note.attributes = self._attributes_of(conn)

    def on_release(self, endpoint: DbEndpoint, conn: ConnectionT) -> None:
        """Roll back a transaction that is open, and bring the session back to its first state.

        If that fails, or a result is not read to its end, the connection is closed, to be found dead and replaced when
        it is next to be used. A failure of the driver's is logged, but is no error of the user's. It takes as long as
        the driver waits for its server.

        :param endpoint: the name of the endpoint
        :param conn: the connection
        :raises Exception: what ``reset`` raised, unless it is an error of the driver's
        """
        note = self._notes.setdefault(id(conn), Note(None))
        note.holder = None
        try:
            if self._traits.is_closed(conn):
                return
            if not self._traits.is_at_rest(conn):
                self._close_quietly(conn)
                return
            self._restore(conn, note)
        except (self._driver.Error, OSError) as exc:
            self._close_quietly(conn)
            logger.warning('a connection to %s was closed: it could not be cleaned up: %s', show(endpoint), exc)
        except BaseException:
            self._close_quietly(conn)
            raise

    def on_fork(self, endpoint: DbEndpoint, conn: ConnectionT) -> None:
        """Release the descriptor that a connection of the parent has in the child, if it is within reach.

        :param endpoint: the name of the endpoint
        :param conn: the connection
        """
        self._notes.pop(id(conn), None)
        self._traits.leave_to_parent(conn)

    def is_reusable(self, endpoint: DbEndpoint, conn: ConnectionT, exc: BaseException) -> bool:
        """Tell whether a connection can go on although its user's code failed.

        It can after an error of the user's own, or one that the database reported as an error of the data or the
        statement. It cannot after the driver's ``OperationalError``, ``InterfaceError`` or ``InternalError``, a
        timeout, an interrupt or a network error, nor with something left to read.

        :param endpoint: the name of the endpoint
        :param conn: the connection
        :param exc: what the user's code raised
        """
        driver = self._driver
        fatal = (driver.OperationalError, driver.InterfaceError, driver.InternalError, OSError)
        if not isinstance(exc, Exception) or isinstance(exc, fatal):
            return False
        try:
            return not self._traits.is_closed(conn) and self._traits.is_at_rest(conn)
        except driver.Error:
            return False

    def _connect(self, endpoint: DbEndpoint, keywords: Keywords, timeout: Optional[float]) -> ConnectionT:
        error: Exception
        try:
            conn: ConnectionT = self._traits.connect(self._driver, keywords, timeout)
        except Exception as exc:
            error = told_error(exc, endpoint, keywords, [getattr(self._driver, name) for name in _ERRORS])
        else:
            try:
                if self._configure is not None:
                    self._configure(conn)
                    _commit(conn)
                return conn
            except BaseException:
                self._close_quietly(conn)
                raise
        try:
            # out of the handler, so that an exception whose message is not to be told is not its context
            raise error
        finally:
            del error

    def _answers(self, conn: Any) -> bool:
        """Tell whether the server of a connection answers."""
        try:
            own = getattr(conn, 'ping', None)
            if isinstance(self._ping, str) or (self._ping is None and own is None):
                with contextlib.closing(conn.cursor()) as cursor:
                    cursor.execute('SELECT 1' if self._ping is None else self._ping)
                    if cursor.description:
                        cursor.fetchall()
                self._roll_back(conn)
            elif self._ping is not None:
                self._ping(conn)
            else:
                _own_ping(own)
        except Exception:
            return False
        return True

    def _restore(self, conn: Any, note: Note) -> None:
        self._roll_back(conn)
        for (name, before), (_, now) in zip(note.attributes, self._attributes_of(conn)):
            if now is not before and now != before:
                _set_attribute(conn, name, before)
        if note.database is not None and callable(getattr(conn, 'select_db', None)):
            conn.select_db(note.database)
        if self._reset is not None:
            self._reset(conn)
            _commit(conn)

    def _roll_back(self, conn: Any) -> None:
        """Roll back the open transaction, whoever began it."""
        with contextlib.suppress(AttributeError, self._driver.NotSupportedError):
            conn.rollback()
        if self._traits.has_transaction(conn):
            # BEGIN was executed by hand, in autocommit mode: rollback() knows nothing of it
            with contextlib.closing(conn.cursor()) as cursor:
                cursor.execute('ROLLBACK')

    def _attributes_of(self, conn: Any) -> Tuple[Tuple[str, Any], ...]:
        return tuple((name, _attribute(conn, name)) for name in self._session_attributes if hasattr(conn, name))

    def _close_late(self, conn: ConnectionT) -> None:
        """Close what nobody waits for any more, in the thread that was left alone with it."""
        self._notes.pop(id(conn), None)
        self._close_quietly(conn)

    def _close_quietly(self, conn: Any) -> None:
        with contextlib.suppress(self._driver.Error, OSError):
            self._traits.close(conn)


def _database_of(keywords: Keywords) -> Optional[str]:
    name = keywords.get('database') or keywords.get('db')
    return name if isinstance(name, str) else None


def _check_attributes(names: Any) -> Tuple[str, ...]:
    """:raises TypeError: they are no names; a string, of which each letter would be one, is not meant to be that"""
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(f'session_attributes must be names of attributes, not a {type(names).__name__}')
    checked = tuple(names)
    for name in checked:
        if not isinstance(name, str):
            raise TypeError(f'session_attributes must be names of attributes, not contain a {type(name).__name__}')
    return checked


def _commit(conn: Any) -> None:
    commit = getattr(conn, 'commit', None)
    if commit is not None:
        commit()


def _own_ping(ping: Any) -> None:
    """Call a connection's own ``ping()``, which must not connect again: the session would be another one."""
    try:
        reconnects = 'reconnect' in inspect.signature(ping).parameters
    except (TypeError, ValueError):
        # a function in C that does not tell
        reconnects = False
    ping(reconnect=False) if reconnects else ping()


def _attribute(conn: Any, name: str) -> Any:
    value = getattr(conn, name)
    # MySQL's drivers have a method to set it, and another to get it
    return conn.get_autocommit() if name == 'autocommit' and callable(value) else value


def _set_attribute(conn: Any, name: str, value: Any) -> None:
    if name == 'autocommit' and callable(getattr(conn, name)):
        conn.autocommit(value)
    else:
        setattr(conn, name, value)
