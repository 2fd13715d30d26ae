"""Servers for the tests of the ready-made managers, on loopback, in threads of the test process."""

import asyncio
import contextlib
import os
import socket
import ssl
import threading
import time
from typing import Any, Callable, Iterator, List, Optional, Tuple

import pytest

#: a test that waits for longer than this (in seconds) has failed
PATIENCE = 10.0


def eventually(condition: Callable[[], Any], what: str = 'the condition') -> None:
    """Return as soon as a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f'{what} did not come about: {condition}'
        time.sleep(0.002)


async def eventually_async(condition: Callable[[], Any], what: str = 'the condition') -> None:
    """Return as soon as a condition holds, the event loop running meanwhile."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f'{what} did not come about: {condition}'
        await asyncio.sleep(0.002)


def open_descriptors() -> int:
    """Return how many file descriptors this process has open."""
    return len(os.listdir('/proc/self/fd' if os.path.isdir('/proc/self/fd') else '/dev/fd'))


class EchoServer:
    """Answers each line with the same line. A few lines are commands:

    - ``twice ...`` is answered twice at once,
    - ``held ...`` is answered when :attr:`answer` is set,
    - ``bye`` is answered and then the connection is closed.
    """

    def __init__(self, listener: socket.socket, context: Optional[ssl.SSLContext] = None):
        self.answer = threading.Event()
        #: how many connections were accepted, how many held lines have arrived
        self.accepted = self.held = 0
        self._context = context
        self._listener = listener
        #: guards all writing: that of a TLS connection is for one thread at a time
        self._writing = threading.Lock()
        self._connections: List[socket.socket] = []
        self._threads: List[threading.Thread] = []
        self._start(self._accept)

    @property
    def address(self) -> Any:
        return self._listener.getsockname()

    @property
    def port(self) -> int:
        port: int = self.address[1]
        return port

    @property
    def is_unix(self) -> bool:
        return self._listener.family == getattr(socket, 'AF_UNIX', None)

    @property
    def is_tls(self) -> bool:
        return self._context is not None

    @property
    def connected(self) -> int:
        """How many connections are open at this end."""
        return sum(sock.fileno() >= 0 for sock in self._connections)

    def close_connections(self) -> None:
        """Close every connection, as a server does that restarts."""
        for sock in self._connections:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        eventually(lambda: not self.connected, 'the end of all connections')

    def send(self, data: bytes) -> None:
        """Send data to every client, unasked."""
        for sock in self._connections:
            if sock.fileno() >= 0:
                with self._writing:
                    sock.sendall(data)

    def stop(self) -> None:
        self.answer.set()
        # wakes accept() on Linux; elsewhere a connection does
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError), socket.socket(self._listener.family) as knock:
            knock.connect(self.address)
        self._listener.close()
        self.close_connections()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        try:
            if self._context is not None:
                self._connections.append(sock)
                sock = self._context.wrap_socket(sock, server_side=True)
            self._connections.append(sock)
            with sock.makefile('rb') as lines:
                for line in lines:
                    if line.startswith(b'held'):
                        self.held += 1
                        assert self.answer.wait(PATIENCE)
                    with self._writing:
                        sock.sendall(line * 2 if line.startswith(b'twice') else line)
                    if line.startswith(b'bye'):
                        break
        except (OSError, ValueError):
            pass
        finally:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


@contextlib.contextmanager
def tcp_echo_server(host: str = '127.0.0.1', context: Optional[ssl.SSLContext] = None) -> Iterator[EchoServer]:
    """An echo server over TCP, or over TLS if there is a context, at a port that the system chooses."""
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        server = EchoServer(listener, context)
        try:
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def unix_echo_server(path: str) -> Iterator[EchoServer]:
    """An echo server over UNIX sockets."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        server = EchoServer(listener)
        try:
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def silent_server(host: str = '127.0.0.1') -> Iterator[Tuple[str, int]]:
    """The address of a server that lets everyone connect and never says a word."""
    # the system completes the connections, which are never accepted
    with socket.create_server((host, 0), backlog=64) as listener:
        yield listener.getsockname()


@contextlib.contextmanager
def full_listener(listener: socket.socket) -> Iterator[socket.socket]:
    """A bound socket whose queue has no room for another connection, until ``accept()`` is called on it."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(listener)
        listener.listen(0)
        while True:
            client = stack.enter_context(socket.socket(listener.family, socket.SOCK_STREAM))
            client.settimeout(0.1)
            try:
                client.connect(listener.getsockname())
            except (TimeoutError, BlockingIOError):
                # this one is not in the queue; leave it no chance to get there
                client.close()
                break
        yield listener


def refusing_port(host: str = '127.0.0.1') -> int:
    """A port that nobody listens at."""
    with socket.create_server((host, 0), family=socket.AF_INET6 if ':' in host else socket.AF_INET) as listener:
        port: int = listener.getsockname()[1]
        return port


def has_ipv6() -> bool:
    """Tell whether there is an IPv6 loopback address."""
    try:
        with socket.create_server(('::1', 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason='there is no IPv6 loopback address')
needs_unix = pytest.mark.skipif(not hasattr(socket, 'AF_UNIX'), reason='there are no UNIX sockets')


def name_of_place(place: Tuple[str, bool]) -> str:
    """The name of a test with an echo server: where that is and, if so, that it encrypts."""
    return place[0] + ('-tls' if place[1] else '')


def ask(sock: socket.socket, line: bytes) -> bytes:
    """Send a line to an echo server and return its answer, byte for byte as long as the question."""
    sock.sendall(line)
    return receive(sock, len(line))


def receive(sock: socket.socket, count: int) -> bytes:
    """Read exactly so many bytes, or up to the end of the stream."""
    data = b''
    while len(data) < count:
        chunk = sock.recv(count - len(data))
        if not chunk:
            break
        data += chunk
    return data


async def ask_async(sock: socket.socket, line: bytes) -> bytes:
    """Like :func:`ask`, with a socket that does not block."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, line)
    data = b''
    while len(data) < len(line):
        chunk = await loop.sock_recv(sock, len(line) - len(data))
        if not chunk:
            break
        data += chunk
    return data


async def ask_stream(stream: Tuple[asyncio.StreamReader, asyncio.StreamWriter], line: bytes) -> bytes:
    """Send a line to an echo server and return its answer."""
    reader, writer = stream
    writer.write(line)
    return await reader.readline()
