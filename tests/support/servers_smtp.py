"""SMTP servers for tests: a real one, which is aiosmtpd's, and one whose every word is in the hands of the test."""

import asyncio
import contextlib
import logging
import socket
import ssl
import threading
import time
from typing import Any, Dict, Iterator, List, Optional, Set, Tuple

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from support.servers import PATIENCE, eventually

__all__ = ('MailServer', 'ScriptedServer', 'mail_server', 'scripted_server')

USER, PASSWORD = 'user', 'pass-word'


class _Protocol(SMTP):
    """A session that its server knows of."""

    mail_server: 'MailServer'
    counted = False

    def connection_made(self, transport: Any) -> None:
        # after STARTTLS it is called once more
        if not self.counted:
            self.counted = True
            self.mail_server.accepted += 1
            self.mail_server.sessions.add(self)
            self.mail_server.sockets.append(transport.get_extra_info('socket'))
        super().connection_made(transport)

    def connection_lost(self, error: Optional[Exception]) -> None:
        self.mail_server.sessions.discard(self)
        super().connection_lost(error)


class MailServer:
    """Keeps what it gets. A recipient may be ``gone@``: the server says 421, ``refused@``: it says 550, or ``held@``:
    it takes the text and says nothing until :attr:`answer` is set.
    """

    def __init__(self, listener: socket.socket, context: Optional[ssl.SSLContext], security: str, log_in: bool):
        self.port: int = listener.getsockname()[1]
        self.mails: List[Envelope] = []
        self.sessions: Set[_Protocol] = set()
        self.sockets: List[Any] = []
        #: how many connections were accepted, how many texts are held; and how often which command was given
        self.accepted = self.held = 0
        self.commands: Dict[str, int] = {'NOOP': 0, 'QUIT': 0, 'RSET': 0}
        #: set it to have nothing answered to NOOP and RSET
        self.deaf = False
        self.answer = threading.Event()
        self._security, self._context, self._log_in = security, context, log_in
        self._loop = asyncio.new_event_loop()
        self._listener = listener
        self._server: Any = None
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()
        eventually(lambda: self._server is not None, 'the start of the server')

    def stop(self) -> None:
        self.answer.set()
        self._loop.call_soon_threadsafe(self._server.close)
        self.close_connections()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def close_connections(self) -> None:
        """Close every connection, as a server does that restarts."""
        def close() -> None:
            for session in self.sessions:
                if session.transport is not None:
                    session.transport.abort()

        self._loop.call_soon_threadsafe(close)
        # a session is over before its socket is closed
        eventually(lambda: all(sock.fileno() < 0 for sock in self.sockets), 'the end of all connections')

    def say(self, line: bytes) -> None:
        """Say something to every client, unasked."""
        def write() -> None:
            for session in self.sessions:
                session._writer.write(line)

        self._loop.call_soon_threadsafe(write)

    def texts(self) -> List[bytes]:
        """The bodies of the mails that have come."""
        contents = [mail.content for mail in self.mails]
        return [content.rpartition(b'\r\n\r\n')[2].strip() for content in contents if isinstance(content, bytes)]

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._server = self._loop.run_until_complete(self._loop.create_server(
            self._new_session, sock=self._listener, ssl=self._context if self._security == 'tls' else None
        ))
        self._loop.run_forever()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    def _new_session(self) -> _Protocol:
        session = _Protocol(
            self, hostname='mail.test', loop=self._loop, enable_SMTPUTF8=True,
            tls_context=self._context if self._security == 'starttls' else None,
            require_starttls=self._security == 'starttls',
            authenticator=self._authenticate if self._log_in else None,
            auth_required=self._log_in,
        )
        # TLS from the first byte on is none in its eyes; to say so when making it would be a warning
        session._auth_require_tls = self._security != 'tls'
        session.mail_server = self
        return session

    def _authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        right = isinstance(data, LoginPassword) and data == LoginPassword(USER.encode(), PASSWORD.encode())
        return AuthResult(success=right, handled=False)

    # -- hooks of aiosmtpd

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: List[str]
    ) -> str:
        if address.startswith('gone@'):
            return '421 4.3.2 closing down'
        if address.startswith('refused@'):
            return '550 5.1.1 no such user'
        envelope.rcpt_tos.append(address)
        return '250 OK'

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if envelope.rcpt_tos[0].startswith('held@'):
            self.held += 1
            while not self.answer.is_set():
                await asyncio.sleep(0.005)
        self.mails.append(envelope)
        return f'250 OK {len(self.mails)}'

    async def handle_VRFY(self, server: SMTP, session: Session, envelope: Envelope, address: str) -> str:
        return f'252 {address}'

    async def handle_NOOP(self, server: SMTP, session: Session, envelope: Envelope, arg: str) -> str:
        return await self._note('NOOP')

    async def handle_RSET(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        return await self._note('RSET')

    async def handle_QUIT(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.commands['QUIT'] += 1
        return '221 Bye'

    async def _note(self, command: str) -> str:
        self.commands[command] += 1
        while self.deaf:
            await asyncio.sleep(0.005)
        return '250 OK'


@contextlib.contextmanager
def mail_server(
    context: Optional[ssl.SSLContext] = None, security: str = 'plain', log_in: bool = False, port: int = 0
) -> Iterator[MailServer]:
    """A server of aiosmtpd's in a thread of its own."""
    logging.getLogger('mail.log').setLevel(logging.CRITICAL)
    server = MailServer(socket.create_server(('127.0.0.1', port), backlog=128), context, security, log_in)
    server.start()
    try:
        yield server
    finally:
        server.deaf = False
        server.stop()


class ScriptedServer:
    """Says what it was told to after each command: the bytes as they are, or after a NUL one by one with pauses."""

    def __init__(self, listener: socket.socket, greeting: bytes, answers: Dict[str, bytes]):
        self.port: int = listener.getsockname()[1]
        self.accepted = 0
        #: the lines that have come, of all connections
        self.lines: List[str] = []
        self._listener = listener
        self._greeting, self._answers = greeting, answers
        self._stopped = False
        self._connections: List[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def stop(self) -> None:
        self._stopped = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def hang_up(self) -> None:
        for sock in self._connections:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self._connections.append(sock)
                self.accepted += 1
                self._threads.append(threading.Thread(target=self._serve, args=(sock,)))
                self._threads[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError), sock, sock.makefile('rb') as lines:
            self._say(sock, self._greeting)
            for line in lines:
                self.lines.append(line.decode().strip())
                verb = line.split()[0].decode().upper()
                self._say(sock, self._answers.get(verb, b'250 OK\r\n'))

    def _say(self, sock: socket.socket, answer: bytes) -> None:
        at_once, _, slowly = answer.partition(b'\0')
        sock.sendall(at_once)
        for byte in slowly:
            if self._stopped:
                return
            time.sleep(0.02)
            sock.sendall(bytes([byte]))


@contextlib.contextmanager
def scripted_server(greeting: bytes = b'220 hello\r\n', **answers: bytes) -> Iterator[ScriptedServer]:
    """A server that answers 250 to everything but what it has answers for."""
    server = ScriptedServer(socket.create_server(('127.0.0.1', 0)), greeting, answers)
    try:
        yield server
    finally:
        server.stop()


#: (security, logging in) of a server
SERVERS: Tuple[Tuple[str, bool], ...] = (('plain', False), ('starttls', True), ('tls', True))
