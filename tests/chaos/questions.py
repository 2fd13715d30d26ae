"""A server that answers questions, over TCP or TLS. It can be replaced, by one with another certificate, say."""

import asyncio
import ssl
from typing import Any, Dict, Optional

from chaos.network import Listener, Network


class QuestionServer(Listener):
    """The question is a line: a token, and the milliseconds until it is answered or the word ``hold``, with which it is
    answered by :meth:`let_go`. The answer is a line: the token. Answers come in the order of the questions.

    :param network: where it runs
    :param context: for TLS
    """

    def __init__(self, network: Network, context: Optional[ssl.SSLContext] = None):
        super().__init__(network)
        #: how many pieces of data have come, as the application sees it: after the handshake, decrypted
        self.received = 0
        #: how many questions are held
        self.held = 0
        self._go = asyncio.Event()
        network.call(self.listen(**_options(context)))

    def replace(self, context: Optional[ssl.SSLContext] = None) -> None:
        """End, and have a server with another context (or without TLS) take over the port."""
        self.network.call(self._replace(context))

    def let_go(self) -> None:
        """Answer the questions that are held."""
        self.network.loop.call_soon_threadsafe(self._go.set)

    def stop(self) -> None:
        self.network.call(self.refuse())
        self.network.call(self.end_all())

    async def _replace(self, context: Optional[ssl.SSLContext]) -> None:
        await self.refuse()
        await self.end_all()
        await self.listen(**_options(context))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            question = await reader.readline()
            self.received += bool(question)
            if not question.endswith(b'\n'):
                return
            token, when = question.split()
            if when == b'hold':
                self.held += 1
                await self._go.wait()
            else:
                await asyncio.sleep(int(when) / 1000)
            writer.write(token + b'\n')
            await writer.drain()


def _options(context: Optional[ssl.SSLContext]) -> Dict[str, Any]:
    return {} if context is None else {'ssl': context, 'ssl_handshake_timeout': 5.0}
