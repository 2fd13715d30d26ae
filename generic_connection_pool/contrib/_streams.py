"""What the asyncio managers share: a look at what the event loop has not read yet, and closing that does not hang."""

import asyncio
import contextlib
import socket
from typing import Any, Callable

from ._sockets import is_quiet, is_writable

#: how long (in seconds) a connection may take to send what is left and to say goodbye
CLOSING_GRACE = 1.0

#: how often the event loop is asked to read what has arrived before that counts as more than a few messages
_ROUNDS = 16
#: how many rounds an end may take from the socket to the reader of a stream
_ROUNDS_TO_NOTICE = 3


def nothing_unread(reader: asyncio.StreamReader) -> bool:
    """Tell whether a stream is open, has nothing buffered, and nobody is reading from it.

    The reader does not tell what it has buffered; but a read that is begun and given up at once does.
    """
    if reader.exception() is not None or reader.at_eof():
        return False
    reading = reader.read(1)
    try:
        reading.send(None)
    except StopIteration:
        # data, or the end
        return False
    except RuntimeError:
        # another coroutine is waiting for data
        return False
    finally:
        reading.close()
    return True


async def read_pending_input(is_closing: Callable[[], bool], fileno: Callable[[], int]) -> bool:
    """Let the event loop read what has arrived; tell whether the connection is open and all has been read.

    :param is_closing: tells whether the connection is closed or closing
    :param fileno: tells the file descriptor of its socket, negative once it is closed
    """
    for _ in range(_ROUNDS):
        if is_closing():
            return False
        if is_quiet(fileno()):
            for _ in range(_ROUNDS_TO_NOTICE):
                await asyncio.sleep(0)
            return not is_closing()
        await asyncio.sleep(0)
    return False


async def close_async_socket(sock: socket.socket) -> None:
    """Close a socket of ``loop.sock_recv()`` and the like; whoever still waits for it wakes up.

    It is closed whether or not a loop is running, and by the time that the coroutine is closed.
    """
    try:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        # the loop sees the end in the first round and wakes the reader in the second;
        # from a descriptor that is closed it would hear nothing more
        for _ in range(2):
            await asyncio.sleep(0)
    finally:
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            # a registration that outlived its descriptor would be taken for that of the next socket with this number
            loop = asyncio.get_running_loop()
            loop.remove_reader(sock)
            loop.remove_writer(sock)
        sock.close()


async def close_stream(writer: asyncio.StreamWriter) -> None:
    """Close a stream, which is in any case closed within :data:`CLOSING_GRACE`; a peer that is gone is no error.

    What is still to be sent is sent. With TLS that includes our goodbye, but the peer's is not waited for.
    """
    transport: Any = writer.transport
    sock = None
    try:
        # to close a TLS transport twice would leave no way to abort it
        if not writer.is_closing():
            # None if the connection is lost, which an open transport may be before Python 3.11
            sock = writer.get_extra_info('socket')
            encrypts = writer.get_extra_info('ssl_object') is not None
            writer.close()
            if encrypts and sock is not None and await _all_is_sent(transport, sock):
                transport.abort()
        # a timer, not wait_for(), which may swallow a cancellation before Python 3.12
        watchdog = asyncio.get_running_loop().call_later(CLOSING_GRACE, transport.abort)
        try:
            await writer.wait_closed()
        finally:
            watchdog.cancel()
    except OSError:
        pass
    except RuntimeError:
        # the stream's event loop has ended, with which went all means to close a transport; its destructor will do that
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
    except BaseException:
        with contextlib.suppress(RuntimeError):
            transport.abort()
        raise


async def _all_is_sent(transport: Any, sock: Any) -> bool:
    """Tell whether a TLS transport has nothing left to send.

    It does not tell what the transport below it has buffered; but that has nothing to wait for if the socket takes
    more, before and after the event loop has had the time to send.
    """
    if not is_writable(sock.fileno()):
        return False
    for _ in range(2):
        await asyncio.sleep(0)
    return sock.fileno() >= 0 and not transport.get_write_buffer_size() and is_writable(sock.fileno())
