"""Users that are tasks: of sockets, of streams over TCP and TLS, and of PostgreSQL with asyncpg."""

import asyncio
import ipaddress
import random
import ssl
import threading
from typing import Any, Optional

from chaos.ledger import Ledger
from chaos.turns import Bored, Cut, Turn, from_line, question_line, whole_line

from generic_connection_pool.asyncio import ConnectionPool
from generic_connection_pool.contrib.socket_async import TcpSocketConnectionManager, TcpStreamConnectionManager

__all__ = ('PostgresTasks', 'SocketTasks', 'StreamTasks', 'run_user')


class SocketTasks:
    """Asks a question server, over plain TCP, with sockets that do not block.

    :param port: of the server or of a proxy before it
    """

    name = 'tcp, asyncio'

    def __init__(self, port: int):
        self.endpoint: Any = (ipaddress.ip_address('127.0.0.1'), port)
        self.manager: Any = TcpSocketConnectionManager()

    def is_expected(self, turn: Turn, exc: BaseException) -> bool:
        # asyncio's TimeoutError is another class before Python 3.11
        return isinstance(exc, (OSError, asyncio.TimeoutError, Bored))

    async def use(self, conn: Any, turn: Turn) -> None:
        for _ in turn.questions():
            token = turn.new_token()
            await asyncio.wait_for(self.send(conn, question_line(token, turn.pause())), turn.patience)
            if turn.wants(0.06):
                raise Bored
            timeout = turn.impatience() if turn.wants(0.08) else turn.patience
            answer = await asyncio.wait_for(self.receive_line(conn), timeout)
            turn.answered(token, from_line(answer))

    async def receive_line(self, conn: Any) -> bytes:
        answer = b''
        while not whole_line(answer):
            data = await self.receive(conn)
            if not data:
                raise Cut
            answer += data
        return answer

    async def send(self, conn: Any, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(conn, data)

    async def receive(self, conn: Any) -> bytes:
        return await asyncio.get_running_loop().sock_recv(conn, 4096)


class StreamTasks(SocketTasks):
    """Asks a question server, over streams.

    :param port: of the server or of a proxy before it
    :param context: for TLS
    """

    def __init__(self, port: int, context: Optional[ssl.SSLContext] = None):
        super().__init__(port)
        self.name = 'stream, asyncio' if context is None else 'tls stream, asyncio'
        self.endpoint = 'localhost' if context else '127.0.0.1', port
        self.manager = TcpStreamConnectionManager(context)

    async def send(self, conn: Any, data: bytes) -> None:
        conn[1].write(data)
        await conn[1].drain()

    async def receive(self, conn: Any) -> bytes:
        return await conn[0].read(4096)


class PostgresTasks:
    """Asks PostgreSQL.

    :param parameters: connect keywords
    """

    name = 'asyncpg'

    def __init__(self, **parameters: Any):
        # here, because it may not be installed
        import asyncpg

        from generic_connection_pool.contrib.asyncpg import DbConnectionManager

        self.endpoint = 'main'
        self.manager: Any = DbConnectionManager({'main': parameters})
        self._cancelled = asyncpg.QueryCanceledError
        self._confused = asyncpg.InternalClientError
        self._errors = (
            OSError,
            asyncio.TimeoutError,
            Bored,
            asyncpg.PostgresConnectionError,
            asyncpg.OperatorInterventionError,
            asyncpg.TooManyConnectionsError,
            asyncpg.InterfaceError,
        )

    def is_expected(self, turn: Turn, exc: BaseException) -> bool:
        if isinstance(exc, self._cancelled):
            return turn.cancels
        # what asyncpg says, before it sends anything, of a session whose farewell came while it was idle
        was_ended = isinstance(exc, self._confused) and str(exc).startswith('cannot switch to state')
        return was_ended or isinstance(exc, self._errors)

    async def use(self, conn: Any, turn: Turn) -> None:
        for _ in turn.questions():
            if turn.wants(0.2):
                # left open unless the user happens to end it
                await conn.execute('BEGIN', timeout=turn.patience)
                if turn.wants(0.5):
                    # from now on: it lasts as long as the transaction
                    turn.cancels = True
                    milliseconds = turn.dice.randrange(1, 30)
                    await conn.execute(f'SET LOCAL statement_timeout = {milliseconds}', timeout=turn.patience)
            if turn.wants(0.1):
                try:
                    await self._ask(conn, turn, turn.impatience())
                except asyncio.TimeoutError:
                    if conn.is_closed() or conn.is_in_transaction() or turn.wants(0.5):
                        raise
            else:
                await self._ask(conn, turn, turn.patience)
            if turn.wants(0.1):
                raise Bored
            if not conn.is_closed() and conn.is_in_transaction() and turn.wants(0.3):
                await conn.execute('COMMIT', timeout=turn.patience)

    async def _ask(self, conn: Any, turn: Turn, timeout: float) -> None:
        token = turn.new_token()
        row = await conn.fetchrow('SELECT $1::text, pg_sleep($2)', token, turn.pause(), timeout=timeout)
        turn.answered(token, row[0])


async def run_user(
    pool: 'ConnectionPool[Any, Any]', kind: Any, ledger: Ledger, seed: str, over: threading.Event
) -> None:
    """Use connections of a pool, one after the other, until it is over. Some requests are cancelled at any moment.

    :param kind: of user, such as :class:`SocketTasks`
    :param seed: of what this user does
    """
    dice = random.Random(seed)
    while not over.is_set():
        turn = Turn(ledger, kind.name, dice)
        request = asyncio.ensure_future(_request(pool, kind, turn))
        if turn.wants(0.1):
            await asyncio.wait({request}, timeout=dice.uniform(0.0, 0.03))
            request.cancel()
        await asyncio.wait({request})
        if request.cancelled():
            turn.failed(asyncio.CancelledError(), True)
        elif request.exception() is not None:
            turn.failed(request.exception(), kind.is_expected(turn, request.exception()))
        await asyncio.sleep(turn.rest())


async def _request(pool: 'ConnectionPool[Any, Any]', kind: Any, turn: Turn) -> None:
    async with pool.connection(kind.endpoint, turn.acquire_timeout()) as conn:
        await kind.use(conn, turn)
