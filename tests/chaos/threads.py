"""Users that are threads: of sockets, of TLS, and of PostgreSQL with psycopg2."""

import contextlib
import ipaddress
import random
import socket
import ssl
import threading
from typing import Any, Callable, Iterator

from chaos.ledger import Ledger
from chaos.turns import Bored, Cut, Turn, from_line, question_line, whole_line

from generic_connection_pool.contrib.socket import SslSocketConnectionManager, TcpSocketConnectionManager
from generic_connection_pool.threading import ConnectionPool

__all__ = ('PostgresThreads', 'SocketThreads', 'TlsThreads', 'run_user')


class SocketThreads:
    """Asks a question server, over plain TCP.

    :param port: of the server or of a proxy before it
    """

    name = 'tcp, threads'

    def __init__(self, port: int):
        self.endpoint: Any = (ipaddress.ip_address('127.0.0.1'), port)
        self.manager: Any = TcpSocketConnectionManager()

    def is_expected(self, turn: Turn, exc: BaseException) -> bool:
        # errors of TLS and timeouts, those of the pool too, are OSErrors
        return isinstance(exc, (OSError, Bored))

    def use(self, sock: socket.socket, turn: Turn) -> None:
        for _ in turn.questions():
            token = turn.new_token()
            sock.settimeout(turn.patience)
            sock.sendall(question_line(token, turn.pause()))
            if turn.wants(0.06):
                raise Bored
            if turn.wants(0.08):
                sock.settimeout(turn.impatience())
            turn.answered(token, from_line(self.receive_line(sock)))

    def receive_line(self, sock: socket.socket) -> bytes:
        answer = b''
        while not whole_line(answer):
            data = sock.recv(4096)
            if not data:
                raise Cut
            answer += data
        return answer


class TlsThreads(SocketThreads):
    """Asks a question server, over TLS."""

    name = 'tls, threads'

    def __init__(self, port: int, context: ssl.SSLContext):
        super().__init__(port)
        self.endpoint = 'localhost', port
        self.manager = SslSocketConnectionManager(context)


class PostgresThreads:
    """Asks PostgreSQL.

    :param cancel: cancels the query of a server process. The driver's own ``conn.cancel()`` would keep all threads from
        running until the server, and the proxy in another of these threads, have dealt with it
    :param parameters: connect keywords
    """

    name = 'psycopg2'

    def __init__(self, cancel: Callable[[int], Any], **parameters: Any):
        # here, because it may not be installed
        import psycopg2
        import psycopg2.errors

        from generic_connection_pool.contrib.psycopg2 import DbConnectionManager

        self.endpoint = 'main'
        self.manager: Any = DbConnectionManager({'main': parameters})
        self._driver = psycopg2
        self._cancel = cancel
        self._cancelled = psycopg2.errors.QueryCanceled

    def is_expected(self, turn: Turn, exc: BaseException) -> bool:
        if isinstance(exc, self._cancelled):
            return turn.cancels
        # of the drivers' errors only these: a syntax error, say, would show that messages have been mixed up
        return isinstance(exc, (OSError, Bored, self._driver.OperationalError, self._driver.InterfaceError))

    def use(self, conn: Any, turn: Turn) -> None:
        with conn.cursor() as cursor:
            for _ in turn.questions():
                mood = turn.dice.random()
                # from now on: a statement timeout lasts as long as the transaction
                turn.cancels = turn.cancels or mood < 0.15
                with contextlib.ExitStack() as stack:
                    stack.enter_context(_after(turn.patience, cut, conn))
                    if mood < 0.1:
                        cursor.execute('SET LOCAL statement_timeout = %s', (turn.dice.randrange(1, 30),))
                    elif mood < 0.15:
                        stack.enter_context(_after(turn.impatience(), self._cancel, conn.info.backend_pid))
                    elif mood < 0.2:
                        stack.enter_context(_after(turn.impatience(), cut, conn))
                    try:
                        self._ask(cursor, turn)
                        if turn.wants(0.3):
                            conn.commit()
                    except self._cancelled:
                        if turn.wants(0.5):
                            raise
                        conn.rollback()
                if turn.wants(0.1):
                    raise Bored

    def _ask(self, cursor: Any, turn: Turn) -> None:
        token = turn.new_token()
        cursor.execute('SELECT %s, pg_sleep(%s)', (token, turn.pause()))
        turn.answered(token, cursor.fetchone()[0])


def cut(conn: Any) -> None:
    """Shut down the socket of a psycopg2 connection: the only way to end a wait of libpq."""
    with socket.fromfd(conn.fileno(), socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def _after(seconds: float, action: Any, *args: Any) -> Iterator[None]:
    """Do something in another thread if the block has not ended by then; it has been done when the block is left."""

    def act() -> None:
        # the connection may be gone
        with contextlib.suppress(Exception):
            action(*args)

    timer = threading.Timer(seconds, act)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()




def run_user(pool: 'ConnectionPool[Any, Any]', kind: Any, ledger: Ledger, seed: str, over: threading.Event) -> None:
    """Use connections of a pool, one after the other, until it is over.

    :param kind: of user, such as :class:`SocketThreads`
    :param seed: of what this user does
    """
    dice = random.Random(seed)
    while not over.is_set():
        turn = Turn(ledger, kind.name, dice)
        try:
            with pool.connection(kind.endpoint, turn.acquire_timeout()) as conn:
                kind.use(conn, turn)
        except Exception as exc:
            turn.failed(exc, kind.is_expected(turn, exc))
        over.wait(turn.rest())
