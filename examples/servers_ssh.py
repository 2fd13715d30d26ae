"""An SSH server for the examples, on loopback: asyncssh's, in a thread. It is gone when its ``with`` block ends."""

import asyncio
import contextlib
import pathlib
import tempfile
import threading
from typing import Any, Dict, Iterator, Set

import asyncssh

#: who is let in, with which password
PASSWORDS = {'builder': 'correct horse', 'reader': 'battery staple'}


class SshServer(asyncssh.SSHServer):
    """Lets users in by their passwords; there are files to be read, and commands, each of which it merely repeats."""

    #: the connections that there have been
    accepted: Set[str] = set()

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self.accepted.add('{}:{}'.format(*conn.get_extra_info('peername')))

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


class Running:
    """A server that runs: where it is, and what is known of it."""

    def __init__(self, port: int, directory: pathlib.Path):
        self.host, self.port = '127.0.0.1', port
        #: a file that knows the server's key, as ``~/.ssh/known_hosts`` knows those that one has made sure of
        self.known_hosts = directory / 'known_hosts'

    def credentials(self, user: str) -> Dict[str, Any]:
        """What both client libraries call by the same names."""
        return {'port': self.port, 'username': user, 'password': PASSWORDS[user]}


@contextlib.contextmanager
def ssh_server() -> Iterator[Running]:
    """Run a server for the length of a ``with`` block."""
    with tempfile.TemporaryDirectory(prefix='gcp-example-') as name:
        directory, files = pathlib.Path(name), pathlib.Path(name, 'files')
        files.mkdir()
        (files / 'motto').write_text('pool them all')
        key = asyncssh.generate_private_key('ssh-ed25519')

        def serve_files(chan: 'asyncssh.SSHServerChannel[bytes]') -> asyncssh.SFTPServer:
            return asyncssh.SFTPServer(chan, chroot=str(files).encode())

        async def listen() -> asyncssh.SSHAcceptor:
            return await asyncssh.listen(
                '127.0.0.1', 0, server_factory=SshServer, server_host_keys=[key],
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
            running = Running(acceptor.get_port(), directory)
            public = key.export_public_key().decode()
            running.known_hosts.write_text(f'[{running.host}]:{running.port} {public}')
            yield running
            asyncio.run_coroutine_threadsafe(end(), loop).result()
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()
