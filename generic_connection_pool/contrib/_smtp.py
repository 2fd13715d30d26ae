"""Sessions of ``smtplib`` that know whether each of their commands has been answered."""

import contextlib
import smtplib
import socket
from typing import Any, Iterator, NoReturn, Optional, Tuple, Union

from ._reading import AnswerReader
from ._sockets import Deadline, close_socket

__all__ = ('SmtpConnection',)

#: the commands that leave nothing behind which RSET would not undo; of others that is not known
_HARMLESS = frozenset({'BDAT', 'DATA', 'EXPN', 'HELP', 'MAIL', 'NOOP', 'QUIT', 'RCPT', 'RSET', 'VRFY'})

#: what there is to be restored of a connection that has been used
_SETTINGS = ('command_encoding', 'debuglevel', 'does_esmtp', 'local_hostname', 'source_address', 'timeout')

#: a reply that says that the server is closing the connection
SERVICE_NOT_AVAILABLE = 421


class SmtpConnection(smtplib.SMTP):
    """A pooled session: one of :class:`smtplib.SMTP` in all respects but one. It never connects by itself."""

    def __init__(self, sock: socket.socket, local_hostname: Optional[str] = None):
        """
        :param sock: a connected socket, which is the connection's from now on
        :param local_hostname: what to call oneself, by default the socket's own address
        """
        # without a host smtplib does not connect, with a local name it does not look one up
        super().__init__(local_hostname=local_hostname or _address_literal(sock))
        self._deadline: Optional[Deadline] = None
        self._io_timeout: Optional[float] = None
        self._settings: Tuple[Any, ...] = ()
        self._features: Any = {}
        # the greeting is to come
        self._unanswered = 1
        self._continues = self._altered = self._spoiled = self._is_cut = False
        self._used = True
        self.adopt(sock)

    # -- what a user calls

    def connect(self, host: str = '', port: int = 0, source_address: Any = None) -> NoReturn:
        """Refuse: the pool would not know of the connection."""
        raise smtplib.SMTPServerDisconnected('a pooled connection does not connect again; release it, acquire another')

    def send(self, s: Any) -> None:
        """Send a command, or the text of a message: see :mod:`smtplib`."""
        spoiled, self._spoiled = self._spoiled, True
        self._used = True
        if not self._continues and _verb(s) not in _HARMLESS:
            self._altered = True
        if self._deadline is not None and self.sock is not None:
            self.sock.settimeout(self._deadline.left())
        super().send(s)
        self._unanswered += 1
        self._spoiled = spoiled

    def getreply(self) -> Tuple[int, bytes]:
        """Wait for the reply to a command: see :mod:`smtplib`."""
        spoiled, self._spoiled = self._spoiled, True
        code, message = super().getreply()
        self._unanswered -= 1
        # after 354 the text of the message is to follow, after 334 more of AUTH
        self._continues = 300 <= code < 400
        self._spoiled = spoiled or code == SERVICE_NOT_AVAILABLE or not 200 <= code < 600
        return code, message

    # -- what the manager calls

    def adopt(self, sock: socket.socket) -> None:
        """Use a socket from now on."""
        self.sock = self._socket = sock
        self.file = self._reader = AnswerReader(sock)
        self._reader.set_deadline(self._deadline)

    def forget_greetings(self) -> None:
        """Forget what the server has said of itself."""
        self.ehlo_resp = self.helo_resp = None
        self.esmtp_features = {}
        self.does_esmtp = False

    def begin(self, io_timeout: Optional[float]) -> None:
        """Take the session as it is now for its first state, in which each user gets it."""
        self._altered = self._used = False
        self._io_timeout = io_timeout
        self._socket.settimeout(io_timeout)
        self._settings = tuple(getattr(self, name) for name in _SETTINGS)
        self._features = dict(self.esmtp_features)

    @property
    def transport(self) -> socket.socket:
        """The socket that the connection has or had."""
        return self._socket

    @property
    def was_used(self) -> bool:
        """Whether anything has been sent since the session was in its first state."""
        return self._used

    def is_at_rest(self) -> bool:
        """Tell whether it is open, each command was answered, and nothing was done that cannot be undone."""
        if self._spoiled or self._is_cut or self._altered or self._continues or self._unanswered:
            return False
        if self.sock is not self._socket or self.file is not self._reader:
            return False
        return self._reader.left() == 0 and not self._reader.has_failed()

    @contextlib.contextmanager
    def bounded(self, deadline: Deadline) -> Iterator[None]:
        """Bound all sending and receiving in a block. The socket has its usual timeout afterwards.

        :raises TimeoutError: the time is over when something is to be sent. If it is while a reply is waited for,
            smtplib closes the connection and raises SMTPServerDisconnected
        """
        self._deadline = deadline
        self._reader.set_deadline(deadline)
        try:
            yield
        finally:
            self._deadline = None
            self._reader.set_deadline(None)
            if self._socket.fileno() >= 0:
                self._socket.settimeout(self._io_timeout)

    def tidy(self) -> None:
        """Restore what a user may have set on the connection object."""
        self._used = False
        self._socket.settimeout(self._io_timeout)
        for name, value in zip(_SETTINGS, self._settings):
            setattr(self, name, value)
        self.esmtp_features = dict(self._features)

    def discard(self) -> None:
        """Close it. Only for a connection that no other thread uses."""
        try:
            self.close()
        finally:
            self._reader.close()
            close_socket(self._socket)

    def cut(self) -> None:
        """Have whoever uses it, in any thread, get an error at once."""
        self._is_cut = True
        self._reader.cut()
        close_socket(self._socket)

    def leave_to_parent(self) -> None:
        """In a forked child, once the descriptor has been released: have whoever uses it get an error."""
        self.sock = None
        self.cut()


def _verb(command: Union[str, bytes]) -> str:
    text = command.decode('latin-1') if isinstance(command, bytes) else str(command)
    return text.partition('\r')[0].partition(' ')[0].upper()


def _address_literal(sock: socket.socket) -> str:
    """Return the address of our end as RFC 5321 would have it, for clients that do not know their name."""
    address = str(sock.getsockname()[0]).partition('%')[0]
    return f'[IPv6:{address}]' if ':' in address else f'[{address}]'
