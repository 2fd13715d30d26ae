"""An SSH server for the examples, on loopback: asyncssh's, in a thread. It is gone when its ``with`` block ends."""

import asyncio
import contextlib
import pathlib
import tempfile
import threading
from typing import Any, Dict, Iterator, Optional

import asyncssh

#: who is let in, with which password
PASSWORDS = {'builder': 'correct horse', 'reader': 'battery staple'}


class SshServer:
    """A server that runs: where it is, and what is known of it."""

    def __init__(self, directory: pathlib.Path):
        self.host, self.port = '127.0.0.1', 0
        #: a file that knows the server's key, as ``~/.ssh/known_hosts`` knows those that one has made sure of
        self.known_hosts = directory / 'known_hosts'
        #: connections there have been, and those that are open
        self.accepted = self.open = 0

    def credentials(self, user: str) -> Dict[str, Any]:
        """What both client libraries call by the same names."""
        return {'port': self.port, 'username': user, 'password': PASSWORDS[user]}


class _Connection(asyncssh.SSHServer):
    """Lets users in by their passwords; there are files to be read, and commands, each of which it merely repeats."""

    def __init__(self, server: SshServer):
        self._server = server

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._server.accepted += 1
        self._server.open += 1

    def connection_lost(self, exc: Optional[Exception]) -> None:
        self._server.open -= 1

    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return PASSWORDS.get(username) == password


async def _obey(process: 'asyncssh.SSHServerProcess[str]') -> None:
    await asyncio.sleep(0.005)  # some work
    process.stdout.write(f'{process.get_extra_info("username")} has run {process.command!r}\n')
    process.exit(0)


@contextlib.contextmanager
def ssh_server() -> Iterator[SshServer]:
    """Run a server for the length of a ``with`` block."""
    with tempfile.TemporaryDirectory(prefix='gcp-example-') as name:
        directory, files = pathlib.Path(name), pathlib.Path(name, 'files')
        files.mkdir()
        (files / 'motto').write_text('pool them all')
        server = SshServer(directory)
        key = asyncssh.generate_private_key('ssh-ed25519')

        def serve_files(chan: 'asyncssh.SSHServerChannel[bytes]') -> asyncssh.SFTPServer:
            return asyncssh.SFTPServer(chan, chroot=str(files).encode())

        async def listen() -> asyncssh.SSHAcceptor:
            return await asyncssh.listen(
                server.host, 0, server_factory=lambda: _Connection(server), server_host_keys=[key],
                process_factory=_obey, sftp_factory=serve_files,
            )  # fmt: skip

        async def end() -> None:
            acceptor.close()
            await acceptor.wait_closed()

        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name='ssh-server')
        thread.start()
        try:
            acceptor = asyncio.run_coroutine_threadsafe(listen(), loop).result()
            server.port = acceptor.get_port()
            public = key.export_public_key().decode()
            server.known_hosts.write_text(f'[{server.host}]:{server.port} {public}')
            yield server
            asyncio.run_coroutine_threadsafe(end(), loop).result()
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()
