"""Buffered reading from a socket which knows what it has taken from there and nobody has read yet.

``http.client`` and ``smtplib`` read through a buffer. What is left in it when a user has gone would be invisible to a
look at the socket: it is the rest of an answer, which is lost, or answers the next user.
"""

import io
import socket
from typing import Any, Optional

from ._sockets import Deadline

__all__ = ('AnswerReader',)


class _SocketStream(io.RawIOBase):
    """What a socket receives, unbuffered. Its position is the number of bytes received so far."""

    def __init__(self, sock: socket.socket):
        super().__init__()
        self._sock = sock
        # keeps the descriptor open until it is closed as well
        self._raw: Any = sock.makefile('rb', buffering=0)
        self._received = 0
        self.deadline: Optional[Deadline] = None
        self.cut = self.failed = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> Optional[int]:
        failed, self.failed = self.failed, True
        if self.deadline is not None:
            self._sock.settimeout(self.deadline.left())
        self._refuse_if_cut()
        count: Optional[int] = self._raw.readinto(buffer)
        if not count:
            self._refuse_if_cut()
        if count is not None:
            self._received += count
            self.failed = failed
        return count

    def _refuse_if_cut(self) -> None:
        if self.cut:
            # this end is ours and not the peer's: it must not pass for the end of an answer
            raise ConnectionAbortedError('the connection was closed by force')

    def tell(self) -> int:
        return self._received

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._raw.close()


class AnswerReader(io.BufferedReader):
    """What ``sock.makefile('rb')`` returns, and more."""

    def __init__(self, sock: socket.socket):
        """:param sock: the socket to read from, whose descriptor stays open as long as the reader does"""
        self._stream = _SocketStream(sock)
        self._left = 0
        super().__init__(self._stream)

    def left(self) -> int:
        """Return how many bytes have been received that nobody has read; of a closed reader, how many there were."""
        return self._left if self.closed else self._stream.tell() - self.tell()

    def has_failed(self) -> bool:
        """Tell whether reading was ever interrupted or timed out, in which case bytes may have got lost."""
        return self._stream.failed

    def set_deadline(self, deadline: Optional[Deadline]) -> None:
        """Bound all reading from now on: it sets the timeout of the socket, and raises TimeoutError.

        :param deadline: when the last byte has to have come, ``None`` to leave the socket's timeout alone again
        """
        self._stream.deadline = deadline

    def cut(self) -> None:
        """Have all reading, that under way included, raise ConnectionAbortedError at the end. For any thread."""
        self._stream.cut = True

    def close(self) -> None:
        """Close, and note what was left."""
        if not self.closed:
            self._left = self.left()
        super().close()
