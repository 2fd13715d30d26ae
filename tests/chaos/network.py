"""The event loop, in a thread of its own, in which the servers and the proxies of these tests run."""

import asyncio
import functools
import socket
import struct
import threading
from typing import Any, Coroutine, Optional, Set, TypeVar

ResultT = TypeVar('ResultT')

#: seconds until something that hangs is given up
PATIENCE = 20.0


class Network:
    """A thread that runs an event loop, as a context manager."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        # clients that break off a handshake are what this is all about
        self.loop.set_exception_handler(lambda loop, context: None)
        self._thread = threading.Thread(target=self.loop.run_forever, name='network', daemon=True)

    def __enter__(self) -> 'Network':
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.call(self._cancel_all())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE)
        self.loop.close()

    def call(self, coro: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Run a coroutine in the network's loop, and return what it returns."""
        return asyncio.run_coroutine_threadsafe(coro, self.loop).result(PATIENCE)

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Listener:
    """What a server and a proxy have in common: a port that stays the same, and connections that can be ended.

    :param network: where it runs
    """

    def __init__(self, network: Network):
        self.network = network
        #: how many connections were accepted so far
        self.accepted = 0
        self.port = 0
        #: how often it has stopped listening: a handshake that was under way then leads to nothing
        self._generation = 0
        self._server: Optional[asyncio.AbstractServer] = None
        self._tasks: Set['asyncio.Task[None]'] = set()

    @property
    def open(self) -> int:
        """How many connections are open at this end."""
        return len(self._tasks)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        raise NotImplementedError

    async def listen(self, **options: Any) -> None:
        """Accept connections, at the same port as before if there was one."""
        sock = socket.create_server(('127.0.0.1', self.port), backlog=256)
        self.port = sock.getsockname()[1]
        accept = functools.partial(self._accept, self._generation)
        self._server = await asyncio.start_server(accept, sock=sock, **options)

    async def refuse(self) -> None:
        """Accept no more connections, as a host does whose server is not running."""
        self._generation += 1
        if self._server is not None:
            self._server.close()
            self._server = None

    async def end_all(self) -> None:
        """End all connections, as when the process of a server ends."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, generation: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if generation != self._generation:
            return writer.transport.abort()
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.accepted += 1
        try:
            await self.serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            # the other end is gone, or we are to go: nobody awaits this task
            pass
        finally:
            writer.transport.abort()
            self._tasks.discard(task)


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection as a host does that knows nothing of it."""
    sock = writer.get_extra_info('socket')
    if sock is not None and sock.family != getattr(socket, 'AF_UNIX', None):
        # no lingering: close() sends a reset instead of what is left and the end
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    writer.transport.abort()
