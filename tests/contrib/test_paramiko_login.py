"""Logins of paramiko's that fail half-way, and the agent that is asked for keys: what happens is told, and in time."""

import pathlib
import socket
import subprocess
import threading
import time
from typing import Any, Dict, Iterator

import pytest

paramiko = pytest.importorskip('paramiko', exc_type=ImportError)
pytest.importorskip('asyncssh', exc_type=ImportError)

from support.servers import PATIENCE, eventually, open_descriptors, silent_server  # noqa: E402
from support.ssh_farewell import server_that_hangs_up  # noqa: E402
from support.ssh_in_process import in_process_server  # noqa: E402
from support.sshd import OpenSshServer, for_paramiko  # noqa: E402

from generic_connection_pool.contrib._paramiko import Agent  # noqa: E402
from generic_connection_pool.contrib._sockets import Deadline  # noqa: E402
from generic_connection_pool.contrib.paramiko import SshConnectionManager  # noqa: E402

Manager = SshConnectionManager[str]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Fails any test that leaves a thread running."""
    before = threading.active_count()
    yield
    eventually(lambda: threading.active_count() <= before, 'the end of all threads')


def for_host(host: str, port: int, **more: Any) -> Dict[str, Any]:
    return {'hostname': host, 'port': port, 'allow_agent': False, 'look_for_keys': False, **more}


# -- servers


def test_a_server_that_hangs_up_while_keys_are_exchanged_is_said_to() -> None:
    before = open_descriptors()
    with server_that_hangs_up() as (host, port):
        manager: Manager = SshConnectionManager({'main': for_host(host, port)})
        with pytest.raises(paramiko.SSHException) as caught:
            manager.create('main', PATIENCE)
    assert str(caught.value) == (
        f"could not connect to endpoint 'main' ({host}:{port}): the server closed the connection"
    )
    assert isinstance(caught.value.__cause__, EOFError)
    assert open_descriptors() == before


def test_a_server_that_resets_the_connection_while_keys_are_exchanged_is_named() -> None:
    with server_that_hangs_up(resets=True) as (host, port):
        manager: Manager = SshConnectionManager({'main': for_host(host, port)})
        with pytest.raises(ConnectionResetError, match=f"could not connect to endpoint 'main' .{host}:{port}.: "):
            manager.create('main', PATIENCE)


def test_a_server_that_takes_passwords_only_is_named_and_what_it_takes_too(
    sshd: OpenSshServer, tmp_path: pathlib.Path
) -> None:
    known_hosts = tmp_path / 'known_hosts'
    with in_process_server(sshd.host_key) as server:
        known_hosts.write_text(f'[{server.host}]:{server.port} {sshd.public_key()}\n')
        params = for_host(server.host, server.port, username='ali', key_filename=str(sshd.user_key))
        manager: Manager = SshConnectionManager({'main': params}, known_hosts=known_hosts)
        with pytest.raises(paramiko.BadAuthenticationType) as caught:
            manager.create('main', PATIENCE)
        assert 'password' in caught.value.allowed_types
        for part in (f"could not connect to endpoint 'main' ({server.host}:{server.port}): ", "'password'"):
            assert part in str(caught.value)
        assert server.attempts == 0
        eventually(lambda: not server.connections)


@pytest.mark.parametrize('keyword, timeout', [(0.2, 60.0), (60.0, 0.2), (0.2, None)])
def test_of_the_two_timeouts_the_shorter_holds(keyword: float, timeout: Any) -> None:
    with silent_server() as (host, port):
        manager: Manager = SshConnectionManager({'main': for_host(host, port, timeout=keyword)})
        started = time.monotonic()
        with pytest.raises((paramiko.SSHException, TimeoutError), match="endpoint 'main'"):
            manager.create('main', timeout)
        assert 0.19 < time.monotonic() - started < PATIENCE


# -- the agent


@pytest.fixture
def agent_path(sshd: OpenSshServer, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """The socket of an SSH agent that has the user's key."""
    path = tmp_path / 'agent'
    process = subprocess.Popen(['ssh-agent', '-D', '-a', str(path)], stdout=subprocess.DEVNULL)
    try:
        eventually(path.exists)
        monkeypatch.setenv('SSH_AUTH_SOCK', str(path))
        subprocess.run(['ssh-add', '-q', str(sshd.user_key)], check=True, stdin=subprocess.DEVNULL)
        yield path
    finally:
        process.kill()
        process.wait()


def test_a_key_of_an_agent_signs_until_the_agent_is_let_go(agent_path: pathlib.Path) -> None:
    before = open_descriptors()
    agent = Agent(Deadline(PATIENCE))
    (key,) = agent.get_keys()
    assert open_descriptors() == before + 1
    assert b'ssh-ed25519' in key.sign_ssh_data(b'data')
    agent.close()
    assert open_descriptors() == before
    # the thread of a transport survives errors of this kind only
    with pytest.raises(paramiko.SSHException, match='not asked any more'):
        key.sign_ssh_data(b'data')


def test_an_agent_that_dies_before_it_has_signed_is_an_error_that_names_the_endpoint(
    sshd: OpenSshServer, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / 'agent'))
        listener.listen()
        monkeypatch.setenv('SSH_AUTH_SOCK', str(tmp_path / 'agent'))

        def die() -> None:
            peer, _ = listener.accept()
            with peer:
                assert peer.recv(5) == b'\0\0\0\x01\x0b'

        thread = threading.Thread(target=die, daemon=True)
        thread.start()
        params = for_paramiko(sshd, key_filename=None, allow_agent=True)
        manager: Manager = SshConnectionManager({'main': params}, known_hosts=sshd.known_hosts)
        with pytest.raises(paramiko.SSHException, match="endpoint 'main'.*agent"):
            manager.create('main', PATIENCE)
        thread.join(PATIENCE)
    eventually(lambda: sshd.connections() == 0)
