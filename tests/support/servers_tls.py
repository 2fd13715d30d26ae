"""A TLS server whose every byte on the wire is in the hands of the test."""

import contextlib
import socket
import ssl
import threading
from typing import Callable, TypeVar

ResultT = TypeVar('ResultT')


class TlsPeer:
    """The far end of a TLS connection over a socket pair: it encrypts, and a test sends of that what it likes."""

    def __init__(self, context: ssl.SSLContext):
        #: for the client
        self.near, self._far = socket.socketpair()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def close(self) -> None:
        self.near.close()
        self._far.close()

    def handshake(self, client: Callable[[], ResultT]) -> ResultT:
        """Shake hands with a client that does its part in the call of ``client``; sends no more than it must."""
        thread = threading.Thread(target=self.shake_hands, daemon=True)
        thread.start()
        result = client()
        thread.join()
        return result

    def shake_hands(self) -> None:
        """Do one's part of the handshake, and return when it is done."""
        self._drive(self._tls.do_handshake)
        if self._tls.version() != 'TLSv1.3':
            # with TLS 1.3 the last word is the client's, here it is the server's
            self._far.sendall(self._outgoing.read())

    def encrypt(self, data: bytes) -> bytes:
        """Return the bytes on the wire for some data, and for all that was not sent before, such as session tickets."""
        self._tls.write(data)
        return self._outgoing.read()

    def unsent(self) -> bytes:
        """Return the bytes on the wire for what the protocol itself has to say, such as session tickets."""
        return self._outgoing.read()

    def goodbye(self) -> bytes:
        """Return the bytes on the wire for a goodbye."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        return self._outgoing.read()

    def send(self, wire: bytes) -> None:
        """Send bytes as they are."""
        self._far.sendall(wire)

    def end(self) -> None:
        """Close the connection, without a goodbye."""
        self._far.shutdown(socket.SHUT_RDWR)

    def receive(self) -> bytes:
        """Read and decrypt what the client sends next; ``b''`` is its goodbye, an SSLEOFError an end without one."""
        return self._drive(lambda: self._tls.read(1 << 16))

    def _drive(self, step: Callable[[], ResultT]) -> ResultT:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                unsent = self._outgoing.read()
                if unsent:
                    self._far.sendall(unsent)
                data = self._far.recv(1 << 16)
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
            except ssl.SSLZeroReturnError:
                return b''  # type: ignore[return-value]
