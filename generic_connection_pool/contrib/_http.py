"""Connections of ``http.client`` that know how far their conversation has got.

``http.client`` itself takes a response that was closed half-way for one that was read, forgets what a server sent
beyond the end of a response, and opens another connection when it has lost the first. None of that will do in a pool.
"""

import http.client
import socket
import time
from email.errors import FirstHeaderLineIsContinuationDefect, MissingHeaderBodySeparatorDefect
from typing import Any, Iterable, List, NoReturn, Optional, Tuple, Union

from ._reading import AnswerReader
from ._sockets import close_socket

__all__ = ('HttpConnection', 'HttpResponse', 'HttpsConnection')

#: what there is to be restored of a connection that has been used
_SETTINGS = ('auto_open', 'blocksize', 'debuglevel', 'host', 'port', 'response_class', 'source_address', 'timeout')


class _Rest:
    """What stands for the rest of a response when the connection is no longer its reader's."""

    def close(self) -> None:
        pass

    flush = close

    def read(self, *args: Any) -> NoReturn:
        raise http.client.NotConnected('the response was not read to its end before its connection was released')

    peek = read1 = readinto = readline = read


class HttpResponse(http.client.HTTPResponse):
    """A response that knows whether its last byte was read, and not one more."""

    def __init__(
        self, sock: socket.socket, debuglevel: int = 0, method: Optional[str] = None, url: Optional[str] = None
    ):
        super().__init__(sock, debuglevel, method, url)
        self.fp.close()
        self.fp = self._reader = AnswerReader(sock)
        self._last_chunk_read = False

    def _read_and_discard_trailer(self) -> None:
        # Were it renamed in some Python to come, chunked responses would never count as read.
        super()._read_and_discard_trailer()  # type: ignore[misc]
        self._last_chunk_read = True

    def has_ended(self) -> bool:
        """Tell whether all of it was read, and nothing has come after it."""
        if self.headers is None or not (self.length == 0 or self.chunked and self._last_chunk_read):
            return False
        return self._reader.left() == 0 and not self._reader.has_failed()

    def leaves_open(self) -> bool:
        """Tell whether another request may follow it on the same connection. If in doubt: no."""
        if self.will_close or self.status < 200:
            # after 1xx the actual response comes, which nobody would read; after 101 some other protocol
            return False
        options = _tokens(self.headers.get_all('connection', []))
        if 'close' in options or self.version < 11 and 'keep-alive' not in options:
            return False
        return self._is_framed_clearly()

    def _is_framed_clearly(self) -> bool:
        """Tell whether nobody could disagree with http.client on where the response ends."""
        for defect in self.headers.defects:
            if isinstance(defect, (FirstHeaderLineIsContinuationDefect, MissingHeaderBodySeparatorDefect)):
                return False
        codings: List[str] = self.headers.get_all('transfer-encoding', [])
        lengths = {length.strip() for length in self.headers.get_all('content-length', [])}
        if codings:
            return bool(self.chunked) and len(codings) == 1 and not lengths and self.version == 11
        return len(lengths) <= 1 and all(map(_is_number, lengths))

    def seconds_to_live(self) -> Optional[float]:
        """Return for how long the server says that it keeps an idle connection."""
        for parameter in _tokens(self.headers.get_all('keep-alive', [])):
            name, _, value = parameter.partition('=')
            if name.strip() == 'timeout' and _is_number(value.strip()):
                return float(value)
        return None

    def abandon(self) -> None:
        """Free the descriptor. Reading what has not been read raises an error, instead of pretending an end."""
        self._reader.close()
        rest: Any = _Rest()
        self.fp = rest

    def cut(self) -> None:
        """Have whoever reads it get an error, instead of its end, when the connection is shut down. For any thread."""
        self._reader.cut()


class _Exchange:
    """One request and its response: how far they have got."""

    __slots__ = ('_body_sent', '_chunked', '_head_sent', '_last_chunk_sent', '_length', 'broken', 'response')

    def __init__(self) -> None:
        #: it can no longer be told, or the client has said that it would close
        self.broken = False
        self.response: Optional[HttpResponse] = None
        self._length: Optional[int] = None
        self._chunked = self._head_sent = self._last_chunk_sent = False
        self._body_sent = 0

    def declare(self, name: str, values: List[str]) -> None:
        """Take note of a header of the request."""
        if name == 'connection' and 'close' in _tokens(values):
            self.broken = True
        elif name == 'transfer-encoding':
            self._chunked = True
        elif name == 'content-length':
            if self._length is not None or len(values) != 1 or not _is_number(values[0]):
                self.broken = True
            else:
                self._length = int(values[0])

    def sent(self, data: Any) -> None:
        """Take note of what has been sent. The head comes first and in one piece."""
        if not self._head_sent:
            self._head_sent = True
            return
        self._last_chunk_sent = False
        try:
            self._body_sent += memoryview(data).nbytes
        except TypeError:
            # a file or an iterable: nobody counts what it yields
            self.broken = True

    def sent_last_chunk(self) -> None:
        self._last_chunk_sent = True

    def is_over(self) -> bool:
        """Tell whether both request and response are complete, and the connection is there for the next."""
        if self.broken or not self._head_sent or self.response is None:
            return False
        if self._chunked:
            sent = self._last_chunk_sent and self._length is None
        else:
            sent = self._body_sent == (self._length or 0)
        return sent and self.response.has_ended() and self.response.leaves_open()


class HttpConnection(http.client.HTTPConnection):
    """A pooled connection: one of ``http.client`` in all respects but one. It is connected, and never connects again.

    A request on a connection that has been closed, such as after a response that said ``Connection: close``, raises
    :class:`http.client.NotConnected`.
    """

    auto_open = 0
    response_class = HttpResponse

    def __init__(self, host: str, port: int, **options: Any):
        super().__init__(host, port, **options)
        self._socket: Optional[socket.socket] = None
        self._io_timeout: Optional[float] = None
        self._exchange: Optional[_Exchange] = None
        self._spoiled = self._is_cut = False
        self._use_by: Optional[float] = None
        self._settings: Tuple[Any, ...] = ()

    # -- what a user calls

    def connect(self) -> None:
        """Refuse: the pool would not know of the connection."""
        raise http.client.NotConnected(
            f'the connection to {self.host!r}, port {self.port}, has been closed; release it and acquire another'
        )

    def putrequest(
        self, method: str, url: str, skip_host: bool = False, skip_accept_encoding: bool = False
    ) -> None:
        """Begin a request: see :meth:`http.client.HTTPConnection.putrequest`."""
        previous = self._exchange
        if previous is not None and not previous.is_over():
            self._spoiled = True
        elif previous is not None and previous.response is not None:
            # read to its end, which http.client does not see if that was of length 0 and read() was not called
            previous.response.close()
        self._exchange = exchange = _Exchange()
        # what follows a CONNECT is no HTTP
        exchange.broken = method.upper() == 'CONNECT'
        super().putrequest(method, url, skip_host, skip_accept_encoding)

    def putheader(self, header: Union[str, bytes], *values: Any) -> None:
        """Add a header to the request: see :meth:`http.client.HTTPConnection.putheader`."""
        super().putheader(header, *values)
        if self._exchange is not None:
            self._exchange.declare(_text(header).lower(), [_text(value).strip() for value in values])

    def endheaders(self, message_body: Any = None, *, encode_chunked: bool = False) -> None:
        """Send the request: see :meth:`http.client.HTTPConnection.endheaders`."""
        super().endheaders(message_body, encode_chunked=encode_chunked)
        if encode_chunked and message_body is not None and self._exchange is not None:
            self._exchange.sent_last_chunk()

    def send(self, data: Any) -> None:
        """Send a piece of the request: see :meth:`http.client.HTTPConnection.send`.

        :raises http.client.NotConnected: the connection has been closed
        """
        if self.sock is None:
            self.connect()
        spoiled, self._spoiled = self._spoiled, True
        super().send(data)
        if self._exchange is not None:
            self._exchange.sent(data)
            self._spoiled = spoiled

    def getresponse(self) -> http.client.HTTPResponse:
        """Wait for the response: see :meth:`http.client.HTTPConnection.getresponse`."""
        spoiled, self._spoiled = self._spoiled, True
        response = super().getresponse()
        if self._exchange is not None and isinstance(response, HttpResponse):
            self._exchange.response = response
            self._spoiled = spoiled
            if self._is_cut:
                response.cut()
        return response

    # -- what the manager calls

    def adopt(self, sock: socket.socket, io_timeout: Optional[float]) -> None:
        """Begin with a connected socket."""
        self.sock = self._socket = sock
        self._io_timeout = io_timeout
        sock.settimeout(io_timeout)
        self._settings = tuple(getattr(self, name) for name in _SETTINGS)

    @property
    def transport(self) -> Optional[socket.socket]:
        """The socket that the connection has or had, whoever holds it now; ``None`` before :meth:`adopt`."""
        return self._socket

    def is_at_rest(self) -> bool:
        """Tell whether it is open and each request has been sent, and each response been read, to the end."""
        if self._spoiled or self._is_cut or self.sock is None or self.sock is not self._socket:
            return False
        return self._exchange is None or self._exchange.is_over()

    def has_expired(self) -> bool:
        """Tell whether the server has probably closed it by now, or is just about to."""
        return self._use_by is not None and time.monotonic() >= self._use_by

    def tidy(self) -> None:
        """Make a connection that is at rest as good as new."""
        assert self._socket is not None
        response = self._exchange.response if self._exchange is not None else None
        if response is not None:
            response.close()
            seconds = response.seconds_to_live()
            # a request takes its time to get there
            self._use_by = None if seconds is None else time.monotonic() + max(seconds - 1.0, seconds / 2.0)
        self._exchange = None
        self._socket.settimeout(self._io_timeout)
        for name, value in zip(_SETTINGS, self._settings):
            if getattr(self, name) != value:
                setattr(self, name, value)

    def discard(self) -> None:
        """Close it and what is still open of its response. Only for a connection that no other thread uses."""
        response = self._exchange.response if self._exchange is not None else None
        unread = response is not None and not response.isclosed() and response.length != 0
        try:
            self.close()
        finally:
            if response is not None:
                response.close()
                if unread:
                    response.abandon()
            if self._socket is not None:
                close_socket(self._socket)

    def leave_to_parent(self) -> None:
        """In a forked child, once the descriptor has been released: have whoever uses it get an error."""
        self.sock = None
        self.cut()

    def cut(self) -> None:
        """Have whoever uses it, in any thread, get an error at once."""
        self._is_cut = True
        response = self._exchange.response if self._exchange is not None else None
        if response is not None:
            response.cut()
        if self._socket is not None:
            close_socket(self._socket)


class HttpsConnection(HttpConnection, http.client.HTTPSConnection):
    """The same over TLS."""


def _text(value: Any) -> str:
    return value.decode('latin-1') if isinstance(value, bytes) else str(value)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _tokens(values: Iterable[str]) -> List[str]:
    """Return the elements of comma-separated lists, in lower case."""
    return [token.strip().lower() for value in values for token in value.split(',')]
