"""What the two managers of psycopg 3 share: parameters, the state of a connection, and what its user may have set."""

import asyncio
import builtins
import contextlib
import operator
import socket
import traceback
from typing import Any, Callable, Dict, Iterator, Mapping, Optional, Tuple, Union

import psycopg
from psycopg import conninfo, pq
from psycopg.adapt import AdaptersMap

from ._endpoints import find_endpoint
from ._parameters import check_by_endpoint
from ._postgres import malformed_dsn
from ._sockets import is_quiet

#: the keyword arguments of ``psycopg.connect()``
ConnectParameters = Mapping[str, Any]
AnyConnection = Union['psycopg.Connection[Any]', 'psycopg.AsyncConnection[Any]']

#: transaction states between two commands, in which the session can go on
_AT_REST = (pq.TransactionStatus.IDLE, pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR)

#: how often unasked-for messages are taken in by one aliveness check
_ROUNDS = 8

#: several errors at once, of which any may be one that leaves the session in the middle of something
_ERROR_GROUP: Any = getattr(builtins, 'BaseExceptionGroup', ())

#: how URLs begin, as opposed to ``keyword=value`` strings
_SCHEMES = ('postgresql://', 'postgres://')


# -- connect parameters


def check_parameters(dsn_params: Any) -> None:
    """Refuse what are no connect parameters. What is wrong with them is told without their values, which are secret.

    :raises TypeError: they are no mapping of mappings or callables
    """
    check_by_endpoint('dsn_params', dsn_params)
    for endpoint, params in dsn_params.items():
        if not isinstance(params, Mapping) and not callable(params):
            kind = type(params).__name__
            raise TypeError(
                f'dsn_params[{endpoint!r}] must be a mapping of connect keywords, or return one when called, '
                f'not a {kind}'
            )


def check_callback(name: str, callback: object) -> None:
    """Refuse a callback that is none.

    :raises TypeError: it can neither be called nor is it ``None``
    """
    if callback is not None and not callable(callback):
        raise TypeError(f'{name} must be a callable or None, not a {type(callback).__name__}')


def entry_of(dsn_params: Mapping[str, Any], endpoint: str) -> Any:
    """Return the connect parameters of an endpoint; if a callable provides them, what it returns.

    :raises KeyError: the endpoint is not known
    """
    entry: Any = find_endpoint(dsn_params, endpoint)
    return entry() if callable(entry) else entry


def checked(params: object, endpoint: str) -> Dict[str, Any]:
    """Return connect keywords, which name no database that nobody meant, and along with them those of their conninfo.

    :raises TypeError: a callable has returned something else
    :raises psycopg.ProgrammingError: the conninfo cannot be parsed, or not as it was meant
    """
    if not isinstance(params, Mapping):
        kind = type(params).__name__
        raise TypeError(f'the parameters of endpoint {endpoint!r} must be a mapping of connect keywords, not a {kind}')
    string = params.get('conninfo') or ''
    if not isinstance(string, str):
        raise TypeError(f'the conninfo of endpoint {endpoint!r} must be a str, not a {type(string).__name__}')
    try:
        merged = {**conninfo.conninfo_to_dict(string), **params}
    except psycopg.Error:
        raise psycopg.ProgrammingError(malformed_dsn(endpoint)) from None
    if _is_misread(string, str(merged.get('host') or ''), str(merged.get('port') or '')):
        raise psycopg.ProgrammingError(malformed_dsn(endpoint))
    return merged


def _is_misread(string: str, host: str, port: str) -> bool:
    """Tell whether a part of a password was taken for something else, which error messages would quote.

    That is what becomes of a slash or an ``@`` in the user name or password of a URL.
    """
    if port.replace(',', '').strip('0123456789') or any('@' in name[1:] for name in host.split(',')):
        return True
    if not string.startswith(_SCHEMES):
        return False
    _, _, path = string.partition('://')[2].partition('?')[0].partition('/')
    return '@' in path


def naming_endpoint(exc: psycopg.Error, doing: str, endpoint: str) -> psycopg.Error:
    """Return an error of psycopg with the endpoint in its message, and all else as it is."""
    exc.args = (f'{doing} endpoint {endpoint!r}: {exc}', *exc.args[1:])
    return exc


def failed_connect(exc: BaseException, endpoint: str) -> BaseException:
    """Return the error of a failed connect, after closing what is half open."""
    # psycopg leaves that to whenever the variables of its functions go, which the traceback keeps
    traceback.clear_frames(exc.__traceback__)
    return naming_endpoint(exc, 'could not connect to', endpoint) if isinstance(exc, psycopg.Error) else exc


# -- the state of a connection


def is_in_use(conn: AnyConnection) -> bool:
    """Tell whether something has been begun on a connection that is not finished, by whomever."""
    return conn.lock.locked() or conn.pgconn.transaction_status == pq.TransactionStatus.ACTIVE


def unrest(conn: AnyConnection) -> Optional[str]:
    """Tell what keeps the session from going on with somebody else, ``None`` if it can."""
    pgconn = conn.pgconn
    if pgconn.status != pq.ConnStatus.OK:
        return 'it is closed'
    if pgconn.pipeline_status != pq.PipelineStatus.OFF:
        return 'it is still in pipeline mode'
    if pgconn.transaction_status not in _AT_REST:
        return 'a query or COPY is still under way'
    if conn.lock.locked():
        return 'an iterator of stream() or notifies() is unfinished, or somebody else is still using it'
    return None


def has_transaction(conn: AnyConnection) -> bool:
    """Tell whether a transaction is open, in the server's eyes or in psycopg's."""
    return (
        conn.pgconn.transaction_status != pq.TransactionStatus.IDLE
        # a transaction() block, or a two-phase transaction, of which the server knows nothing any more
        or bool(getattr(conn, '_num_transactions', 0))
        or getattr(conn, '_tpc', None) is not None
    )


def check_at_rest(conn: AnyConnection, callback: str) -> None:
    """See to it that a callback has finished all that it has begun.

    :param callback: its name
    :raises psycopg.ProgrammingError: it has not; says what
    """
    reason = unrest(conn)
    if reason is None and has_transaction(conn):
        status = pq.TransactionStatus(conn.pgconn.transaction_status).name
        reason = f'a transaction is open ({status}); it has to be committed or rolled back'
    if reason is not None:
        raise psycopg.ProgrammingError(f'the {callback} callback left a connection unfit for use: {reason}')


def is_fit(conn: AnyConnection) -> bool:
    """Tell whether a session can go on. One system call if nothing has arrived, no round trip, and it never waits."""
    try:
        for _ in range(_ROUNDS):
            if unrest(conn) is not None:
                return False
            if is_quiet(conn.fileno()):
                return True
            _take_in(conn.pgconn)
    except psycopg.Error:
        pass
    return False


def _take_in(pgconn: pq.abc.PGconn) -> None:
    """Read what the server has sent unasked, its farewell being an error; give notifications to whom they are for."""
    pgconn.consume_input()
    while True:
        notification = pgconn.notifies()
        if notification is None:
            break
        if pgconn.notify_handler is not None:
            pgconn.notify_handler(notification)


def is_reusable(conn: AnyConnection, exc: BaseException) -> bool:
    """Tell whether a session can go on although its user's code failed."""
    if not isinstance(exc, Exception) or isinstance(exc, (OSError, asyncio.TimeoutError, _ERROR_GROUP)):
        return False
    if isinstance(exc, psycopg.Error) and not _is_reported(exc):
        return False
    return unrest(conn) is None


def _is_reported(exc: psycopg.Error) -> bool:
    """Tell whether an error comes from a server that goes on, or from psycopg before it has sent anything."""
    if isinstance(exc, psycopg.InterfaceError):
        return False
    if exc.sqlstate is None:
        return not isinstance(exc, (psycopg.OperationalError, psycopg.InternalError))
    # class 08 are losses of the connection; and who says FATAL hangs up next
    return not exc.sqlstate.startswith('08') and exc.diag.severity_nonlocalized not in ('FATAL', 'PANIC')


def cut(conn: AnyConnection) -> None:
    """Make whoever waits for the server's answer give up, without freeing anything under them.

    psycopg's steps of waiting keep pointers to what closing frees: to close a connection while a thread or task is in
    the middle of one crashes the process, or has it listen to the next connection with the same descriptor.
    """
    # whose descriptor is freed when the last one lets go of it, which is intended
    setattr(conn, '_pool', None)
    with contextlib.suppress(psycopg.Error, OSError):
        fd = conn.fileno()
        with socket.fromfd(fd, socket.AF_INET, socket.SOCK_STREAM) as sock:
            # the number may have become somebody else's meanwhile, if the connection was lost
            if conn.fileno() == fd:
                sock.shutdown(socket.SHUT_RDWR)


# -- what a user may have set on the connection object

#: what psycopg lets nobody set in a transaction, and asyncio users only by a coroutine
GUARDED = ('autocommit', 'isolation_level', 'read_only', 'deferrable')
_PLAIN = ('row_factory', 'cursor_factory', 'server_cursor_factory', 'prepare_threshold', 'prepared_max')

_guarded: Callable[[object], Tuple[Any, ...]] = operator.attrgetter(*GUARDED)
_plain: Callable[[object], Tuple[Any, ...]] = operator.attrgetter(*_PLAIN)


class Settings:
    """What is set on a connection object at the time that somebody acquires it."""

    __slots__ = ('_guarded', '_plain', '_adapters', '_notice_handlers', '_notify_handlers')

    def __init__(self, conn: AnyConnection):
        self._guarded = _guarded(conn)
        self._plain = _plain(conn)
        # psycopg tells no handlers, and makes the adapters only when they are asked for
        self._notice_handlers = tuple(getattr(conn, '_notice_handlers', ()))
        self._notify_handlers = tuple(getattr(conn, '_notify_handlers', ()))
        self._adapters: Optional[AdaptersMap] = getattr(conn, '_adapters', None)
        if self._adapters is not None:
            # what the user registers is registered in a copy, which is made when that happens
            setattr(conn, '_adapters', AdaptersMap(self._adapters))

    def changed(self, conn: AnyConnection) -> Iterator[Tuple[str, Any]]:
        """Tell which of :data:`GUARDED` were changed, and what they were before."""
        now = _guarded(conn)
        if now != self._guarded:
            for name, value, before in zip(GUARDED, now, self._guarded):
                if value != before:
                    yield name, before

    def restore(self, conn: AnyConnection) -> None:
        """Set all the others as they were; forget handlers that the user has added, and notifications."""
        if _plain(conn) != self._plain:
            for name, value in zip(_PLAIN, self._plain):
                setattr(conn, name, value)
        if hasattr(conn, '_adapters'):
            setattr(conn, '_adapters', self._adapters)
        for name in ('_notice_handlers', '_notify_handlers'):
            handlers = getattr(conn, name, None)
            if handlers:
                handlers[:] = getattr(self, name)
        backlog = getattr(conn, '_notifies_backlog', None)
        if backlog:
            backlog.clear()
