"""OpenSSH's server for the length of a test run, on loopback, with keys that were made for the occasion."""

import contextlib
import getpass
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
from typing import Any, Dict, Iterator, List, Set

import pytest
from support.servers import eventually, refusing_port

__all__ = ('OpenSshServer', 'make_key', 'ssh_server')

#: bash reads the user's ~/.bashrc, which may take long, unless it believes to be called by another shell
_CONFIG = """
ListenAddress 127.0.0.1
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
PubkeyAuthentication yes
AllowTcpForwarding yes
PrintMotd no
PrintLastLog no
UseDNS no
LogLevel ERROR
MaxStartups 200
MaxSessions 10
SetEnv SHLVL=2
Subsystem sftp internal-sftp
"""


def make_key(path: pathlib.Path, kind: str = 'ed25519', passphrase: str = '', form: str = 'RFC4716') -> None:
    """Make a pair of keys; the public one has the suffix ``.pub``. ``RFC4716`` stands for OpenSSH's own format."""
    path.unlink(missing_ok=True)
    subprocess.run(
        ['ssh-keygen', '-q', '-t', kind, '-N', passphrase, '-C', '', '-a', '1', '-m', form, '-f', str(path)],
        check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip


class OpenSshServer:
    """A running ``sshd``, which lets in the user of this process who has :attr:`user_key`.

    :param directory: where its keys and its configuration are made
    """

    host = '127.0.0.1'

    def __init__(self, directory: pathlib.Path):
        self._directory = directory
        self.port = refusing_port()
        self.user_key = directory / 'user_key'
        #: what is known of this server, in OpenSSH's format
        self.known_hosts = directory / 'known_hosts'
        self.user = getpass.getuser()
        make_key(self.user_key)
        shutil.copy(directory / 'user_key.pub', directory / 'authorized_keys')
        (directory / 'sshd_config').write_text(_CONFIG.format(directory=directory))
        self.make_host_key()
        self.introduce()
        self._process = self._launch()

    @property
    def host_key(self) -> pathlib.Path:
        return self._directory / 'host_key'

    @property
    def name(self) -> str:
        """What the server is called in files of known hosts."""
        return f'[{self.host}]:{self.port}'

    def fingerprint(self) -> str:
        """The fingerprint of the host key, as OpenSSH shows it."""
        shown = subprocess.run(
            ['ssh-keygen', '-l', '-f', f'{self.host_key}.pub'],
            check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return shown.stdout.split()[1]

    def public_key(self) -> str:
        """The host key as it is written in files of known hosts, behind the name."""
        return ' '.join(pathlib.Path(f'{self.host_key}.pub').read_text().split()[:2])

    def make_host_key(self) -> None:
        """Make a host key, which the server has from its next start on."""
        make_key(self.host_key)

    def introduce(self) -> None:
        """Write the host key to the file of known hosts."""
        self.known_hosts.write_text(f'{self.name} {self.public_key()}\n')

    def start(self) -> None:
        """Start the server again after :meth:`stop`, on the same port, and return when it answers."""
        self._process = self._launch()

    def stop(self) -> None:
        """Kill the server and end all of its connections."""
        self._process.kill()
        self._process.wait()
        self.end_connections()

    def restore(self) -> None:
        """Start the server if it was left stopped, make its key known, and end what was left of connections."""
        self.introduce()
        self.end_connections()
        self._end_commands()
        if self._process.poll() is not None:
            self.start()

    def end_connections(self) -> None:
        """Kill the processes that serve the connections there are, and return when they are gone."""
        # orphans are nobody's children, so they are known by the port that they are named after
        pids = self.serving()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        eventually(lambda: not self.serving() & pids, 'the end of all connections')

    def _end_commands(self) -> None:
        """Kill what was begun by users of the server and goes on without it."""
        mark = f' {self.host} {self.port}'.encode()
        for pid in filter(str.isdigit, os.listdir('/proc')):
            with contextlib.suppress(OSError):
                settings = pathlib.Path('/proc', pid, 'environ').read_bytes().split(b'\0')
                if any(setting.startswith(b'SSH_CONNECTION=') and setting.endswith(mark) for setting in settings):
                    os.kill(int(pid), signal.SIGKILL)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Keep the processes that serve the connections there are from doing anything."""
        pids = self.serving()
        assert pids
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def connections(self) -> int:
        """How many connections there are: those whose socket is open at the server's end."""
        return len(self.serving())

    def serving(self) -> Set[int]:
        """The processes that serve connections, each of which has one of our sockets as its standard input."""
        inodes = _sockets_at(self.port)
        if not inodes:
            return set()
        return {pid for pid in map(int, filter(str.isdigit, os.listdir('/proc'))) if _holds(pid, inodes)}

    def _launch(self) -> 'subprocess.Popen[bytes]':
        program = shutil.which('sshd', path=f'{os.environ.get("PATH", "")}:/usr/sbin:/usr/local/sbin')
        assert program is not None
        process = subprocess.Popen(
            [program, '-D', '-e', '-f', str(self._directory / 'sshd_config'), '-p', str(self.port)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            eventually(lambda: _answers(process, self.host, self.port), 'the start of sshd')
        except BaseException:
            process.kill()
            process.wait()
            raise
        return process


def _answers(process: 'subprocess.Popen[bytes]', host: str, port: int) -> bool:
    assert process.poll() is None, f'sshd ended with status {process.returncode}'
    try:
        with socket.create_connection((host, port), 5) as sock:
            return sock.recv(4) == b'SSH-'
    except OSError:
        return False


def _sockets_at(port: int) -> Set[int]:
    """The numbers (inodes) of the sockets of established connections whose local end is a port."""
    found = set()
    with open('/proc/net/tcp', encoding='ascii') as table:
        for line in list(table)[1:]:
            fields = line.split()
            # local address, remote address, state
            if int(fields[1].rpartition(':')[2], 16) == port and fields[3] != '0A':
                found.add(int(fields[9]))
    return found


def _holds(pid: int, inodes: Set[int]) -> bool:
    if pid == os.getpid():
        return False
    names: List[str] = []
    with contextlib.suppress(OSError):
        # of a newer server they are called sshd-session
        if pathlib.Path('/proc', str(pid), 'comm').read_text().startswith('sshd'):
            names = os.listdir(f'/proc/{pid}/fd')
    for name in names:
        with contextlib.suppress(OSError):
            target = os.readlink(f'/proc/{pid}/fd/{name}')
            if target.startswith('socket:[') and int(target[len('socket:['):-1]) in inodes:
                return True
    return False


@contextlib.contextmanager
def ssh_server() -> Iterator[OpenSshServer]:
    """Run OpenSSH's server; the test is skipped if it is not installed."""
    path = f'{os.environ.get("PATH", "")}:/usr/sbin:/usr/local/sbin'
    missing = [name for name in ('sshd', 'ssh-keygen') if shutil.which(name, path=path) is None]
    if missing or not os.path.isfile('/proc/net/tcp'):
        pytest.skip(f'no OpenSSH server to be had: there is no {missing[0] if missing else "/proc"}')
    if os.geteuid() == 0:
        # where unprivileged processes of the server are locked up
        os.makedirs('/run/sshd', mode=0o755, exist_ok=True)
    directory = pathlib.Path(tempfile.mkdtemp(prefix='gcp-sshd-'))
    try:
        server = OpenSshServer(directory)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory)


def for_paramiko(server: OpenSshServer, **more: Any) -> Dict[str, Any]:
    """The connect keywords of paramiko for a server."""
    return {
        'hostname': server.host, 'port': server.port, 'username': server.user, 'key_filename': str(server.user_key),
        'allow_agent': False, 'look_for_keys': False, **more,
    }  # fmt: skip


def for_asyncssh(server: OpenSshServer, **more: Any) -> Dict[str, Any]:
    """The connect keywords of asyncssh for a server."""
    return {
        'host': server.host, 'port': server.port, 'username': server.user, 'client_keys': [str(server.user_key)],
        'agent_path': None, 'config': None, **more,
    }  # fmt: skip
