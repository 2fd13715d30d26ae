"""A server that takes its leave in the middle of an SSH handshake."""

import contextlib
import socket
import struct
import threading
from typing import Iterator, Tuple

from support.servers import PATIENCE

__all__ = ('server_that_hangs_up',)


@contextlib.contextmanager
def server_that_hangs_up(resets: bool = False) -> Iterator[Tuple[str, int]]:
    """The address of a server that says its name, hears what its one client has to offer, and says no more.

    :param resets: it does not just end what it says, but resets the connection
    """

    def serve() -> None:
        peer, _ = listener.accept()
        with peer:
            peer.settimeout(PATIENCE)
            peer.sendall(b'SSH-2.0-Farewell\r\n')
            with peer.makefile('rb') as said:
                assert said.readline().startswith(b'SSH-2.0-')
                size = int.from_bytes(said.read(4), 'big')
                assert len(said.read(size)) == size
                if resets:
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
                else:
                    peer.shutdown(socket.SHUT_WR)
                    # to close before the client does might be a reset
                    said.read()

    with socket.create_server(('127.0.0.1', 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()
        thread.join(PATIENCE)
