"""A real HTTP server for tests, over TLS if it is given a context, which also sends what no good server would."""

import contextlib
import http.server
import socket
import ssl
import sys
import threading
from typing import Any, Dict, Iterator, List, Optional, Tuple

from support.servers import PATIENCE, eventually

__all__ = ('HttpServer', 'http_server')


class _Handler(http.server.BaseHTTPRequestHandler):
    """``/echo/...`` is answered with its own path. A path that a test has scripted is answered with the bytes of the
    script, whatever they are. ``/held`` gets one half of its answer, and the other when :attr:`HttpServer.answer` is
    set; ``/time-out`` gets an answer and, when that is set, another that nobody asked for. A POST is answered with what
    was posted, unless its path is scripted: then the body is not read.
    """

    protocol_version = 'HTTP/1.1'
    disable_nagle_algorithm = True
    wbufsize = -1
    server: 'HttpServer'

    def do_GET(self) -> None:
        script = self.server.scripts.get(self.path)
        if script is not None:
            self._send_script(*script)
        elif self.path == '/held':
            self._send_in_halves()
        elif self.path == '/time-out':
            self._send_another()
        elif self.path == '/chunked':
            self._send_chunks()
        else:
            self._send(self.path.encode())

    do_HEAD = do_CONNECT = do_GET

    def do_POST(self) -> None:
        if self.path in self.server.scripts:
            self.do_GET()
        elif self.headers.get('Transfer-Encoding') == 'chunked':
            self._send(b''.join(self._chunks()))
        else:
            self._send(self.rfile.read(int(self.headers.get('Content-Length', 0))))

    def _chunks(self) -> Iterator[bytes]:
        while True:
            line = self.rfile.readline()
            if not line:
                raise EOFError
            size = int(line, 16)
            chunk = self.rfile.read(size)
            self.rfile.readline()
            if not chunk:
                return
            yield chunk

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body)

    def _send_script(self, answer: bytes, then_close: bool) -> None:
        self.wfile.write(answer)
        self.close_connection = then_close

    def _send_in_halves(self) -> None:
        self.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\none ')
        self.wfile.flush()
        self.server.held += 1
        assert self.server.answer.wait(PATIENCE)
        self.wfile.write(b'half')

    def _send_another(self) -> None:
        # here and not in the thread of the test: a TLS connection is not for two threads at a time
        self._send(self.path.encode())
        self.wfile.flush()
        assert self.server.answer.wait(PATIENCE)
        self.wfile.write(b'HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n')

    def _send_chunks(self) -> None:
        self.wfile.write(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n')
        for size in (1, 1000, 100000):
            self.wfile.write(b'%x;name=value\r\n%s\r\n' % (size, b'x' * size))
        self.wfile.write(b'0\r\nX-Sum: 101001\r\n\r\n')

    def log_message(self, format: str, *args: Any) -> None:
        pass


class HttpServer(http.server.ThreadingHTTPServer):
    """Counts its connections and requests, and lets tests close them."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, context: Optional[ssl.SSLContext], port: int = 0):
        #: for each path the bytes to answer with, and whether to close the connection then
        self.scripts: Dict[str, Tuple[bytes, bool]] = {}
        self.answer = threading.Event()
        #: how many connections were accepted, how many held requests have arrived
        self.accepted = self.held = 0
        self.failures: List[BaseException] = []
        self._context = context
        self._lock = threading.Lock()
        self._connections: List[socket.socket] = []
        super().__init__(('127.0.0.1', port), _Handler)

    @property
    def scheme(self) -> str:
        return 'http' if self._context is None else 'https'

    @property
    def endpoint(self) -> Tuple[str, str, int]:
        return self.scheme, '127.0.0.1', self.server_port

    @property
    def connected(self) -> int:
        """How many connections are open at this end."""
        with self._lock:
            return len(self._connections)

    def close_connections(self) -> None:
        """Close every connection, as a server does that restarts."""
        self.cut_connections()
        eventually(lambda: not self.connected, 'the end of all connections')

    def cut_connections(self) -> None:
        """Have every connection end, without waiting until the server has noticed."""
        with self._lock:
            for sock in self._connections:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def get_request(self) -> Tuple[socket.socket, Any]:
        sock, address = super().get_request()
        if self._context is not None:
            # the handshake is made by the first read, in the connection's own thread
            sock = self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        with self._lock:
            self.accepted += 1
            self._connections.append(sock)
        return sock, address

    def shutdown_request(self, request: Any) -> None:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(request, socket.SHUT_RDWR)
        request.close()
        with self._lock:
            self._connections.remove(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        exc = sys.exc_info()[1]
        if exc is not None and not isinstance(exc, (EOFError, OSError)):
            self.failures.append(exc)


@contextlib.contextmanager
def http_server(context: Optional[ssl.SSLContext] = None, port: int = 0) -> Iterator[HttpServer]:
    """An HTTP server, or an HTTPS server if there is a context."""
    with HttpServer(context, port) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
            server.answer.set()
            server.close_connections()
            assert not server.failures
