"""SMTP with ``smtplib``, for threads: ``pool = ConnectionPool(SmtpConnectionManager({'main': SmtpServer(...)}))``."""

import base64
import contextlib
import dataclasses
import logging
import smtplib
import ssl
import threading
from typing import Any, Callable, Dict, Iterator, Mapping, Optional, Tuple, Union

from .._fork import release_descriptor, unfinished
from .._messages import show
from ..threading.manager import BaseConnectionManager
from ._endpoints import find_endpoint
from ._sockets import Deadline, place
from ._smtp import SmtpConnection
from ._transports import Transports, check_context, check_io_timeout, check_server, say_goodbye

__all__ = ('Credentials', 'SmtpConnection', 'SmtpConnectionManager', 'SmtpEndpoint', 'SmtpServer')

SmtpEndpoint = str
#: user name and password
Credentials = Tuple[str, str]

logger = logging.getLogger(__name__)

_PORTS = {'starttls': 587, 'tls': smtplib.SMTP_SSL_PORT, 'plain': smtplib.SMTP_PORT}

#: seconds that QUIT may take when a connection is disposed of
_GRACE = 1.0


@dataclasses.dataclass(frozen=True)
class SmtpServer:
    """Where an endpoint's mail is handed in, and how. Its ``repr`` tells no credentials.

    :param host: its name or address; the name that its certificate has to bear
    :param port: by default 587 for ``'starttls'``, 465 for ``'tls'``, 25 for ``'plain'``
    :param security: ``'starttls'`` (the default; there is no falling back to plain text), ``'tls'`` from the first byte
        on, or ``'plain'``: neither mail nor password is encrypted
    :param credentials: user name and password; or what returns them, given the name of the endpoint, each time that a
        connection is made; ``None`` not to log in
    :param local_hostname: what to call oneself, by default one's own address
    :raises TypeError: something is of the wrong kind
    :raises ValueError: something is malformed
    """

    host: str
    port: Optional[int] = None
    security: str = 'starttls'
    credentials: Union[None, Credentials, Callable[[SmtpEndpoint], Credentials]] = dataclasses.field(
        default=None, repr=False
    )
    local_hostname: Optional[str] = None

    def __post_init__(self) -> None:
        if not isinstance(self.security, str) or self.security not in _PORTS:
            raise ValueError(f"security must be 'starttls', 'tls' or 'plain', not {show(self.security)}")
        if self.port is None:
            object.__setattr__(self, 'port', _PORTS[self.security])
        check_server(self.host, self.port)
        if self.credentials is not None and not callable(self.credentials):
            _check_credentials(self.credentials)
        if self.local_hostname is not None:
            if not isinstance(self.local_hostname, str):
                raise TypeError(f'local_hostname must be a string, not a {type(self.local_hostname).__name__}')
            if not self.local_hostname.isascii() or not self.local_hostname.isprintable() or ' ' in self.local_hostname:
                raise ValueError(f'local_hostname must be a name in ASCII, not {show(self.local_hostname)}')

    def credentials_of(self, endpoint: SmtpEndpoint) -> Optional[Credentials]:
        """Return user name and password, or ``None`` not to log in.

        :param endpoint: the name of the endpoint
        :raises TypeError: what was to return them has returned something else
        """
        return _check_credentials(self.credentials(endpoint)) if callable(self.credentials) else self.credentials


class SmtpConnectionManager(BaseConnectionManager[SmtpEndpoint, SmtpConnection]):
    """SMTP sessions. The endpoint is the name of an entry of ``servers``. A connection is an :class:`smtplib.SMTP`.

    A mail that was begun and not sent is forgotten (``RSET``) when a connection comes back, and the attributes of the
    object and the timeout of its socket are restored. A session that its user has changed by anything else than sending
    mail (``EHLO``, ``AUTH``, ``STARTTLS``, extensions) is closed then. So is one in which the server has said 421, or
    in which a command has not been answered, such as ``DATA``.
    """

    def __init__(
        self,
        servers: Mapping[SmtpEndpoint, SmtpServer],
        ssl_context: Optional[ssl.SSLContext] = None,
        *,
        io_timeout: Optional[float] = None,
        patience: float = 5.0,
    ):
        """
        :param servers: the server of each endpoint, by its name
        :param ssl_context: how to secure and to verify; by default :func:`ssl.create_default_context`, which verifies
            certificates and host names
        :param io_timeout: seconds (more than 0) that a user's sending or receiving may wait for the server at a time,
            ``None`` (the default) for no bound. A user can set it for one use by ``conn.sock.settimeout()``
        :param patience: seconds (more than 0) after which an idle connection that does not answer ``NOOP``, or a
            released one that does not answer ``RSET``, is given up
        :raises TypeError: a parameter is of the wrong kind
        :raises ValueError: a number of seconds is not positive
        """
        check_context(ssl_context)
        check_io_timeout(io_timeout)
        if patience is None:
            raise TypeError('patience must be a number of seconds, not None')
        check_io_timeout(patience, 'patience')
        self._servers = _check_servers(servers)
        self._transports = Transports(ssl.create_default_context() if ssl_context is None else ssl_context)
        self._io_timeout = io_timeout
        self._patience = patience
        # the threads that have acquired connections
        self._holders: Dict[SmtpConnection, int] = {}

    def create(self, endpoint: SmtpEndpoint, timeout: Optional[float] = None) -> SmtpConnection:
        """Connect to the server of an endpoint, greet it, secure the connection and log in, as far as it is asked for.

        :param endpoint: the name of the endpoint
        :param timeout: seconds (0 or more) that all of it may take, ``None`` for no bound. Looking up the name of the
            host is up to the operating system, which takes its own time
        :return: a session in which mail can be sent
        :raises KeyError: there is no server of that name
        :raises smtplib.SMTPException: the server has refused (``SMTPAuthenticationError``: the credentials), lacks an
            extension, or has hung up; the message names the endpoint
        :raises ssl.SSLError: the handshake failed, or the certificate is not to be trusted
        :raises OSError: it cannot be connected, or all of it not in time (``TimeoutError``); the message says where
        :raises ValueError: the credentials cannot be sent
        """
        server = find_endpoint(self._servers, endpoint)
        assert server.port is not None
        where = f'endpoint {show(endpoint)} ({place(server.host, server.port)})'
        deadline = Deadline(timeout)
        credentials = server.credentials_of(endpoint)
        sock = self._transports.connect(server.host, server.port, deadline)
        try:
            if server.security == 'tls':
                sock = self._transports.secure(sock, server.host, server.port, deadline)
            conn = SmtpConnection(sock, server.local_hostname)
        except BaseException:
            sock.close()
            raise
        try:
            unfinished.add(conn.transport)
            with _naming(where), conn.bounded(deadline):
                self._greet(conn, server, deadline)
                if credentials is not None:
                    _log_in(conn, *credentials)
            conn.begin(self._io_timeout)
            unfinished.discard(conn.transport)
        except BaseException:
            conn.discard()
            raise
        return conn

    def _greet(self, conn: SmtpConnection, server: SmtpServer, deadline: Deadline) -> None:
        code, message = conn.getreply()
        if code != 220:
            raise smtplib.SMTPConnectError(code, message)
        conn.ehlo_or_helo_if_needed()
        if server.security != 'starttls':
            return
        if not conn.has_extn('starttls'):
            raise smtplib.SMTPNotSupportedError('the server does not offer STARTTLS')
        code, message = conn.docmd('STARTTLS')
        if code != 220:
            raise smtplib.SMTPResponseException(code, message)
        if conn.file is None or conn.file.left():
            # somebody between us and the server wants it to be taken for the server's word
            raise smtplib.SMTPException('there was more than the answer to STARTTLS')
        assert server.port is not None
        # the reader of what was not encrypted holds the old socket open
        conn.file.close()
        conn.adopt(self._transports.secure(conn.transport, server.host, server.port, deadline))
        unfinished.add(conn.transport)
        conn.forget_greetings()
        conn.ehlo_or_helo_if_needed()

    def dispose(self, endpoint: SmtpEndpoint, conn: SmtpConnection, timeout: Optional[float] = None) -> None:
        """Say ``QUIT``, unless something is unanswered, and close.

        A connection that another thread may be using, when the pool is closed by force, is cut: the thread gets
        an error at once.

        :param endpoint: the name of the endpoint
        :param conn: the connection, whatever its state
        :param timeout: seconds (0 or more) that the server has for its answer, one at the most
        """
        if self._holders.pop(conn, threading.get_ident()) != threading.get_ident():
            conn.cut()
            return
        try:
            if conn.is_at_rest() and self._transports.is_quiet(conn.transport):
                with conn.bounded(Deadline(_GRACE if timeout is None else min(timeout, _GRACE))):
                    conn.docmd('QUIT')
                say_goodbye(conn.transport)
        except OSError:
            # SMTPException as well: it is gone, or does not answer
            pass
        finally:
            conn.discard()

    def check_aliveness(self, endpoint: SmtpEndpoint, conn: SmtpConnection, timeout: Optional[float] = None) -> bool:
        """Tell whether a server still answers, by ``NOOP``; if there is no time for that, whether it seems so.

        A connection that the server has closed, or on which it has said anything unasked, such as 421, is found
        without asking.

        :param endpoint: the name of the endpoint
        :param conn: the connection; one that its user has closed is not alive
        :param timeout: seconds (0 or more) to wait for the answer, ``patience`` at the most; with 0 nothing is asked
        """
        if not conn.is_at_rest() or not self._transports.is_quiet(conn.transport):
            return False
        if timeout is not None and timeout <= 0.0:
            return True
        try:
            with conn.bounded(Deadline(self._patience if timeout is None else min(timeout, self._patience))):
                code, _ = conn.noop()
            if code != 250 or not conn.is_at_rest():
                return False
            conn.tidy()
        except OSError:
            # SMTPException as well
            return False
        return True

    def on_acquire(self, endpoint: SmtpEndpoint, conn: SmtpConnection) -> None:
        """Remember which thread has the connection.

        :param endpoint: the name of the endpoint
        :param conn: the connection
        """
        self._holders[conn] = threading.get_ident()

    def on_release(self, endpoint: SmtpEndpoint, conn: SmtpConnection) -> None:
        """Have the server forget a mail that was begun (``RSET``), and restore the attributes; or close the connection.

        A ``RSET`` that fails is logged, and is no error of the user's. Nothing is sent if the user has sent nothing.

        :param endpoint: the name of the endpoint
        :param conn: the connection
        """
        self._holders.pop(conn, None)
        try:
            if conn.is_at_rest():
                if conn.was_used:
                    self._reset(conn)
                conn.tidy()
                return
        except OSError as exc:
            # SMTPException as well
            logger.warning('a connection to %s was closed: it could not be reset: %s', show(endpoint), exc)
        except BaseException:
            conn.discard()
            raise
        conn.discard()

    def _reset(self, conn: SmtpConnection) -> None:
        with conn.bounded(Deadline(self._patience)):
            code, message = conn.rset()
        if code != 250 or not conn.is_at_rest():
            raise smtplib.SMTPResponseException(code, message)

    def on_fork(self, endpoint: SmtpEndpoint, conn: SmtpConnection) -> None:
        """Close a socket of the parent in the child, without a word to the server.

        :param endpoint: the name of the endpoint
        :param conn: the connection
        """
        self._holders.pop(conn, None)
        release_descriptor(conn.transport)
        conn.leave_to_parent()

    def is_reusable(self, endpoint: SmtpEndpoint, conn: SmtpConnection, exc: BaseException) -> bool:
        """Tell whether a session can go on although its user's code failed.

        It can after an error that the server reported (a sender, a recipient or a message was refused), or one of
        the user's own, if each command was answered. It cannot after a loss of the connection, a 421, a timeout or an
        interrupt.

        :param endpoint: the name of the endpoint
        :param conn: the connection
        :param exc: what the user's code raised
        """
        if not isinstance(exc, Exception) or isinstance(exc, smtplib.SMTPServerDisconnected):
            return False
        if isinstance(exc, OSError) and not isinstance(exc, smtplib.SMTPException):
            return False
        return conn.is_at_rest()


def _log_in(conn: SmtpConnection, user: str, password: str) -> None:
    """Log in, and leave neither in the connection nor in an error what the password is."""
    refusal: Exception
    try:
        conn.login(user, password)
        return
    except smtplib.SMTPServerDisconnected:
        raise
    except smtplib.SMTPResponseException as exc:
        refusal = type(exc)(exc.smtp_code, _hide(exc.smtp_error, user, password))
    except smtplib.SMTPException as exc:
        refusal = type(exc)(_hide(str(exc), user, password))
    except UnicodeError:
        refusal = ValueError('smtplib sends user names and passwords in ASCII only')
    finally:
        vars(conn).pop('password', None)
    # outside the block: the error as it was, with what it quotes, is not to be found in this one's context
    raise refusal


def _text_of(message: Any) -> str:
    """Return what a server has said, or smtplib in its place."""
    return message.decode('utf-8', 'replace') if isinstance(message, bytes) else str(message)


def _hide(message: Any, user: str, password: str) -> str:
    """Return what a server has said without the password, should it quote that."""
    text = _text_of(message)
    for secret in (f'\0{user}\0{password}', password):
        # the longer one first, of which the other may be a part
        encoded = base64.b64encode(secret.encode('utf-8', 'replace')).decode()
        text = text.replace(encoded, '***') if encoded else text
    return text.replace(password, '***') if password else text


@contextlib.contextmanager
def _naming(where: str) -> Iterator[None]:
    """Have the errors of a block name the endpoint, and call a timeout what smtplib calls a loss of the connection."""
    try:
        yield
    except smtplib.SMTPResponseException as exc:
        # smtplib's own are bytes
        exc.smtp_error = f'{where}: {_text_of(exc.smtp_error)}'.encode()
        exc.args = (exc.smtp_code, exc.smtp_error)
        raise
    except smtplib.SMTPException as exc:
        if isinstance(exc.__context__, TimeoutError):
            raise TimeoutError(f'{where} did not answer in time') from exc
        exc.args = (f'{where}: {exc}',)
        raise
    except TimeoutError as exc:
        raise TimeoutError(f'{where} did not answer in time: {exc}') from exc


def _check_credentials(credentials: Any) -> Credentials:
    """:raises TypeError: they are no pair of strings; it tells nothing else of them"""
    if not isinstance(credentials, (tuple, list)) or [type(part) for part in credentials] != [str, str]:
        kind = type(credentials).__name__
        raise TypeError(f'credentials must be (user name, password), both strings, or return that; not this {kind}')
    user, password = credentials
    return user, password


def _check_servers(servers: Any) -> Mapping[SmtpEndpoint, SmtpServer]:
    """:raises TypeError: they are no mapping of servers"""
    if not isinstance(servers, Mapping):
        raise TypeError(f'servers must be a mapping of SmtpServer by endpoint, not a {type(servers).__name__}')
    for endpoint, server in servers.items():
        if not isinstance(server, SmtpServer):
            raise TypeError(f'servers[{show(endpoint)}] must be an SmtpServer, not a {type(server).__name__}')
    checked: Mapping[SmtpEndpoint, SmtpServer] = servers
    return checked
