"""A real SMTP server for the example, on loopback, which asks for TLS and a password: aiosmtpd's."""

import asyncio
import contextlib
import logging
import ssl
import threading
from typing import Any, Iterator, List, Tuple

import trustme
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

#: what the server lets in
CREDENTIALS = ('postmaster', 'correct horse battery staple')


class MailServer:
    """Keeps the mails that it gets."""

    def __init__(self) -> None:
        authority = trustme.CA()
        self._authority = authority.cert_pem.bytes().decode()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert('localhost').configure_cert(self._context)
        #: how many connections there have been, and from whom mails have come
        self.accepted = 0
        self.senders: List[str] = []
        self.port = 0

    def client_context(self) -> ssl.SSLContext:
        """Python's default client context, which verifies certificates and host names, for this server's authority."""
        return ssl.create_default_context(cadata=self._authority)

    def new_session(self) -> SMTP:
        self.accepted += 1
        return SMTP(
            self, tls_context=self._context, require_starttls=True, authenticator=self._authenticate, auth_required=True
        )

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.senders.append(envelope.mail_from or '')
        return '250 OK'

    def _authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        right = LoginPassword(*(part.encode() for part in CREDENTIALS))
        return AuthResult(success=data == right, handled=False)


@contextlib.contextmanager
def mail_server() -> Iterator[MailServer]:
    """Take mail for the length of a ``with`` block."""
    # aiosmtpd warns of what it does itself
    logging.getLogger('mail.log').setLevel(logging.ERROR)
    server = MailServer()
    ready = threading.Event()
    handles: List[Tuple[asyncio.AbstractEventLoop, 'asyncio.Event']] = []

    async def serve() -> None:
        over = asyncio.Event()
        listener = await asyncio.get_running_loop().create_server(server.new_session, '127.0.0.1', 0)
        server.port = listener.sockets[0].getsockname()[1]
        handles.append((asyncio.get_running_loop(), over))
        ready.set()
        await over.wait()
        listener.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name='mail-server')
    thread.start()
    ready.wait()
    try:
        yield server
    finally:
        loop, over = handles[0]
        loop.call_soon_threadsafe(over.set)
        thread.join()
