"""The manager of paramiko connections, against real servers: who is connected to, and who is not."""

import os
import pathlib
import signal
import socket
import subprocess
import threading
import time
from typing import Any, Dict, Iterator

import pytest

paramiko = pytest.importorskip('paramiko', exc_type=ImportError)
pytest.importorskip('asyncssh', exc_type=ImportError)

from support.forking import in_child, sockets_of  # noqa: E402
from support.servers import eventually, open_descriptors, refusing_port, silent_server  # noqa: E402
from support.ssh_by_paramiko import Manager, manager as manager, run  # noqa: E402
from support.ssh_in_process import InProcessServer, in_process_server  # noqa: E402
from support.sshd import OpenSshServer, for_paramiko, make_key  # noqa: E402

from generic_connection_pool.contrib.paramiko import (  # noqa: E402
    ChangedHostKeyError,
    SshConnectionManager,
    UnknownHostKeyError,
)
from generic_connection_pool.threading import ConnectionPool  # noqa: E402

SECRET = 'open-sesame-1848'


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Fails any test that leaves a thread of paramiko's running."""
    before = threading.active_count()
    yield
    eventually(lambda: threading.active_count() <= before, 'the end of all threads')


@pytest.fixture(autouse=True)
def no_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('SSH_AUTH_SOCK', raising=False)


@pytest.fixture
def in_process(sshd: OpenSshServer) -> Iterator[InProcessServer]:
    with in_process_server(sshd.host_key) as server:
        yield server


def for_password(server: InProcessServer, password: str) -> Dict[str, Any]:
    return {
        'hostname': server.host, 'port': server.port, 'username': 'ali', 'password': password, 'look_for_keys': False,
    }  # fmt: skip


def knowing(server: InProcessServer, sshd: OpenSshServer, directory: pathlib.Path) -> pathlib.Path:
    """A file of known hosts that knows a server which has the other's key."""
    path = directory / 'known_hosts'
    path.write_text(f'[{server.host}]:{server.port} {sshd.public_key()}\n')
    return path


# -- the host's key


def test_a_host_that_is_not_known_is_refused_and_its_key_is_named(sshd: OpenSshServer, tmp_path: pathlib.Path) -> None:
    known_hosts = tmp_path / 'known_hosts'
    known_hosts.touch()
    manager: Manager = SshConnectionManager({'main': for_paramiko(sshd)}, known_hosts=known_hosts)
    with pytest.raises(UnknownHostKeyError) as caught:
        manager.create('main')
    for part in ("'main'", f'127.0.0.1:{sshd.port}', sshd.fingerprint(), str(known_hosts)):
        assert part in str(caught.value)
    assert isinstance(caught.value, paramiko.SSHException)
    # nothing was added
    assert known_hosts.read_text() == ''
    with pytest.raises(UnknownHostKeyError):
        manager.create('main')
    eventually(lambda: sshd.connections() == 0)


def test_a_host_is_refused_if_there_is_no_file_of_known_hosts(
    sshd: OpenSshServer, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('HOME', str(tmp_path))
    manager: Manager = SshConnectionManager({'main': for_paramiko(sshd)})
    with pytest.raises(UnknownHostKeyError, match='known_hosts'):
        manager.create('main')
    assert list(tmp_path.iterdir()) == []


def test_a_host_becomes_known_as_soon_as_the_file_says_so(sshd: OpenSshServer, tmp_path: pathlib.Path) -> None:
    known_hosts = tmp_path / 'known_hosts'
    manager: Manager = SshConnectionManager({'main': for_paramiko(sshd)}, known_hosts=[tmp_path / 'none', known_hosts])
    with pytest.raises(UnknownHostKeyError):
        manager.create('main')
    known_hosts.write_text(sshd.known_hosts.read_text())
    manager.dispose('main', manager.create('main'))


def test_a_host_may_be_noted_by_a_hash_of_its_name(sshd: OpenSshServer, tmp_path: pathlib.Path) -> None:
    known_hosts = tmp_path / 'known_hosts'
    known_hosts.write_text(sshd.known_hosts.read_text())
    subprocess.run(['ssh-keygen', '-q', '-H', '-f', str(known_hosts)], check=True, capture_output=True)
    assert '127.0.0.1' not in known_hosts.read_text()
    manager: Manager = SshConnectionManager({'main': for_paramiko(sshd)}, known_hosts=known_hosts)
    manager.dispose('main', manager.create('main'))


def test_a_host_that_has_another_key_than_is_known_is_refused(sshd: OpenSshServer, manager: Manager) -> None:
    expected = sshd.public_key().split()[1]
    sshd.stop()
    sshd.make_host_key()
    sshd.start()
    try:
        with pytest.raises(ChangedHostKeyError, match='not the one that is known') as caught:
            manager.create('main')
        assert isinstance(caught.value, paramiko.BadHostKeyException)
        for part in ("'main'", f'127.0.0.1:{sshd.port}', sshd.fingerprint()):
            assert part in str(caught.value)
        assert caught.value.expected_key.get_base64() == expected
        eventually(lambda: sshd.connections() == 0)
    finally:
        sshd.introduce()


def test_a_host_that_has_no_key_of_the_kind_that_is_known_is_refused(
    sshd: OpenSshServer, tmp_path: pathlib.Path
) -> None:
    make_key(tmp_path / 'other', 'ecdsa')
    known_hosts = tmp_path / 'known_hosts'
    known_hosts.write_text(f'{sshd.name} {(tmp_path / "other.pub").read_text()}')
    manager: Manager = SshConnectionManager({'main': for_paramiko(sshd)}, known_hosts=known_hosts)
    with pytest.raises(ChangedHostKeyError, match="endpoint 'main'"):
        manager.create('main')


def test_a_host_whose_key_is_revoked_is_refused(sshd: OpenSshServer, tmp_path: pathlib.Path) -> None:
    known_hosts = tmp_path / 'known_hosts'
    known_hosts.write_text(f'{sshd.known_hosts.read_text()}@revoked * {sshd.public_key()}\n')
    manager: Manager = SshConnectionManager({'main': for_paramiko(sshd)}, known_hosts=known_hosts)
    with pytest.raises(ChangedHostKeyError, match='revokes'):
        manager.create('main')


# -- credentials


def test_an_unknown_endpoint_is_named_and_so_are_the_known_but_no_password(sshd: OpenSshServer) -> None:
    manager: Manager = SshConnectionManager({'main': for_paramiko(sshd, password=SECRET), 'other': for_paramiko(sshd)})
    with pytest.raises(KeyError, match="'typo'.*'main', 'other'") as caught:
        manager.create('typo')
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(manager)


@pytest.mark.parametrize('kind', ['ed25519', 'ecdsa'])
def test_a_key_that_needs_a_passphrase_is_used_and_the_passphrase_not_told(
    sshd: OpenSshServer, tmp_path: pathlib.Path, kind: str
) -> None:
    key = tmp_path / 'key'
    make_key(key, kind, SECRET)
    authorized = sshd.user_key.parent / 'authorized_keys'
    before = authorized.read_text()
    authorized.write_text(before + (tmp_path / 'key.pub').read_text())
    params = for_paramiko(sshd, key_filename=str(key))
    try:
        manager: Manager = SshConnectionManager({
            'right': {**params, 'passphrase': SECRET},
            'wrong': {**params, 'passphrase': 'zyqx'},
            'none': params,
        }, known_hosts=sshd.known_hosts)
        conn = manager.create('right')
        assert run(conn, 'echo hello') == 'hello'
        manager.dispose('right', conn)
        for name in ('wrong', 'none'):
            with pytest.raises(paramiko.SSHException, match=f"endpoint '{name}'") as caught:
                manager.create(name)
            assert 'zyqx' not in str(caught.value)
    finally:
        authorized.write_text(before)


def test_a_wrong_key_is_an_error_that_names_the_endpoint(
    sshd: OpenSshServer, tmp_path: pathlib.Path
) -> None:
    make_key(tmp_path / 'stranger')
    params = for_paramiko(sshd, key_filename=str(tmp_path / 'stranger'))
    before = open_descriptors()
    pool: ConnectionPool[str, Any] = ConnectionPool(
        SshConnectionManager({'main': params}, known_hosts=sshd.known_hosts), max_size=1
    )
    for _ in range(2):
        with pytest.raises(paramiko.AuthenticationException, match="endpoint 'main'"):
            pool.acquire('main', timeout=10)
    assert pool.get_size() == 0
    assert open_descriptors() == before
    pool.close()


def test_a_wrong_password_is_an_error_that_does_not_tell_it(
    in_process: InProcessServer, sshd: OpenSshServer, tmp_path: pathlib.Path
) -> None:
    in_process.passwords['ali'] = SECRET
    known_hosts = knowing(in_process, sshd, tmp_path)
    manager: Manager = SshConnectionManager({'main': for_password(in_process, 'zyqx')}, known_hosts=known_hosts)
    with pytest.raises(paramiko.AuthenticationException, match="endpoint 'main'") as caught:
        manager.create('main')
    assert 'zyqx' not in str(caught.value)


def test_a_password_that_has_changed_is_used_for_the_next_connection(
    in_process: InProcessServer, sshd: OpenSshServer, tmp_path: pathlib.Path
) -> None:
    wallet = {'password': ''}

    def credentials(endpoint: str) -> Dict[str, Any]:
        return {**for_password(in_process, wallet['password']), 'username': endpoint}

    manager: Manager = SshConnectionManager(credentials, known_hosts=knowing(in_process, sshd, tmp_path))
    for password in ('first', 'second'):
        in_process.passwords['ali'] = wallet['password'] = password
        conn = manager.create('ali')
        assert run(conn, 'hello') == 'ali: hello'
        manager.dispose('ali', conn)


def test_endpoints_may_be_tuples_that_a_callable_makes_parameters_of(sshd: OpenSshServer) -> None:
    def connect_to(endpoint: 'tuple[str, int]') -> Dict[str, Any]:
        return for_paramiko(sshd, hostname=endpoint[0], port=endpoint[1])

    manager: SshConnectionManager['tuple[str, int]'] = SshConnectionManager(connect_to, known_hosts=sshd.known_hosts)
    conn = manager.create((sshd.host, sshd.port))
    assert run(conn, 'echo hello') == 'hello'
    manager.dispose((sshd.host, sshd.port), conn)


@pytest.fixture
def agent(tmp_path: pathlib.Path, sshd: OpenSshServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An SSH agent that has the user's key."""
    path = tmp_path / 'agent'
    process = subprocess.Popen(['ssh-agent', '-D', '-a', str(path)], stdout=subprocess.DEVNULL)
    try:
        eventually(path.exists)
        monkeypatch.setenv('SSH_AUTH_SOCK', str(path))
        subprocess.run(['ssh-add', '-q', str(sshd.user_key)], check=True, stdin=subprocess.DEVNULL)
        yield
    finally:
        process.kill()
        process.wait()


def test_a_key_that_an_agent_has_is_used_and_the_agent_let_go(sshd: OpenSshServer, agent: None) -> None:
    params = for_paramiko(sshd, key_filename=None, allow_agent=True)
    manager: Manager = SshConnectionManager({'main': params}, known_hosts=sshd.known_hosts)
    before = open_descriptors()
    conn = manager.create('main', 10)
    assert run(conn, 'echo hello') == 'hello'
    assert open_descriptors() == before + 1
    manager.dispose('main', conn)


def test_an_agent_that_never_answers_is_given_up_in_time(
    sshd: OpenSshServer, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = for_paramiko(sshd, key_filename=None, allow_agent=True)
    manager: Manager = SshConnectionManager({'main': params}, known_hosts=sshd.known_hosts)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / 'agent'))
        listener.listen()
        monkeypatch.setenv('SSH_AUTH_SOCK', str(tmp_path / 'agent'))
        before = open_descriptors()
        started = time.monotonic()
        with pytest.raises(TimeoutError, match="endpoint 'main'"):
            manager.create('main', 0.5)
        assert time.monotonic() - started < 3
        assert open_descriptors() == before


def test_a_variable_that_points_to_no_agent_does_no_harm(
    sshd: OpenSshServer, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('SSH_AUTH_SOCK', str(tmp_path / 'nobody'))
    params = for_paramiko(sshd, key_filename=None, allow_agent=True)
    manager: Manager = SshConnectionManager({'main': params}, known_hosts=sshd.known_hosts)
    with pytest.raises(paramiko.SSHException, match="endpoint 'main'.*No authentication methods available"):
        manager.create('main', 5)


# -- what cannot be connected to


def test_a_refused_connection_says_where() -> None:
    port = refusing_port()
    manager: Manager = SshConnectionManager({'main': {'hostname': '127.0.0.1', 'port': port}})
    with pytest.raises(ConnectionRefusedError, match=f"endpoint 'main' \\(127.0.0.1:{port}\\)"):
        manager.create('main')


def test_a_name_that_nobody_knows_is_named() -> None:
    manager: Manager = SshConnectionManager({'main': {'hostname': '256.256.256.256'}})
    with pytest.raises(socket.gaierror, match=r"endpoint 'main' \(256.256.256.256:22\)"):
        manager.create('main')


def test_a_key_file_that_is_missing_is_named(sshd: OpenSshServer, tmp_path: pathlib.Path) -> None:
    params = for_paramiko(sshd, key_filename=str(tmp_path / 'none'))
    manager: Manager = SshConnectionManager({'main': params}, known_hosts=sshd.known_hosts)
    with pytest.raises(FileNotFoundError, match=f"endpoint 'main'.*{tmp_path / 'none'}"):
        manager.create('main')


def test_a_server_that_never_says_a_word_is_given_up_in_time() -> None:
    with silent_server() as (host, port):
        pool: ConnectionPool[str, Any] = ConnectionPool(
            SshConnectionManager({'main': {'hostname': host, 'port': port}})
        )
        before, threads = open_descriptors(), threading.active_count()
        started = time.monotonic()
        with pytest.raises(TimeoutError, match="endpoint 'main'"):
            pool.acquire('main', timeout=0.3)
        assert 0.29 < time.monotonic() - started < 2
        assert pool.get_size() == 0
        assert open_descriptors() == before
        assert threading.active_count() == threads
        pool.close()


def test_a_server_that_says_its_name_and_no_more_is_given_up_in_time() -> None:
    with socket.create_server(('127.0.0.1', 0)) as listener:
        manager: Manager = SshConnectionManager({'main': {'hostname': '127.0.0.1', 'port': listener.getsockname()[1]}})
        failures = []

        def connect() -> None:
            try:
                manager.create('main', timeout=0.5)
            except TimeoutError as exc:
                failures.append(str(exc))

        thread = threading.Thread(target=connect)
        thread.start()
        peer, _ = listener.accept()
        with peer:
            peer.sendall(b'SSH-2.0-Silence\r\n')
            thread.join(10)
            # also the timer that watches over the handshake, and would go on for a quarter of a minute
            eventually(lambda: threading.active_count() == 1)
        assert 'within 0.5 seconds' in failures[0]


def test_a_server_that_does_not_decide_whom_to_let_in_is_given_up_in_time(
    in_process: InProcessServer, sshd: OpenSshServer, tmp_path: pathlib.Path
) -> None:
    known_hosts = knowing(in_process, sshd, tmp_path)
    manager: Manager = SshConnectionManager({'main': for_password(in_process, SECRET)}, known_hosts=known_hosts)
    in_process.admits.clear()
    started = time.monotonic()
    with pytest.raises(TimeoutError, match="endpoint 'main'"):
        manager.create('main', 1.0)
    assert 0.99 < time.monotonic() - started < 3
    assert in_process.attempts == 1
    eventually(lambda: not in_process.connections)


def test_a_server_that_hangs_up_is_an_error_that_names_the_endpoint() -> None:
    with socket.create_server(('127.0.0.1', 0)) as listener:
        manager: Manager = SshConnectionManager({'main': {'hostname': '127.0.0.1', 'port': listener.getsockname()[1]}})
        thread = threading.Thread(target=lambda: listener.accept()[0].close())
        thread.start()
        with pytest.raises((paramiko.SSHException, OSError), match="endpoint 'main'"):
            manager.create('main', 5)
        thread.join()


def test_no_time_is_too_little_to_connect(manager: Manager) -> None:
    with pytest.raises(TimeoutError):
        manager.create('main', timeout=0)


@pytest.mark.skipif(not hasattr(signal, 'setitimer'), reason='there is no timer signal')
def test_an_interrupted_connect_leaves_nothing_behind() -> None:
    with silent_server() as (host, port):
        manager: Manager = SshConnectionManager({'main': {'hostname': host, 'port': port}})
        before, threads = open_descriptors(), threading.active_count()
        handler = signal.signal(signal.SIGALRM, signal.default_int_handler)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.15)
            with pytest.raises(KeyboardInterrupt):
                manager.create('main', timeout=10)
        finally:
            signal.signal(signal.SIGALRM, handler)
        assert open_descriptors() == before
        eventually(lambda: threading.active_count() == threads)


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='there is no fork')
def test_a_child_releases_what_another_thread_is_logging_in_to(
    in_process: InProcessServer, sshd: OpenSshServer, tmp_path: pathlib.Path
) -> None:
    known_hosts = knowing(in_process, sshd, tmp_path)
    in_process.passwords['ali'] = SECRET
    in_process.admits.clear()
    manager: Manager = SshConnectionManager({'main': for_password(in_process, SECRET)}, known_hosts=known_hosts)
    conns = []
    thread = threading.Thread(target=lambda: conns.append(manager.create('main')))
    before = sockets_of(os.getpid())
    thread.start()
    eventually(lambda: in_process.attempts)
    ours = sockets_of(os.getpid()) - before
    assert len(ours) == 2  # the client's and the server's
    theirs = in_child(lambda: sockets_of(os.getpid())) & ours
    assert len(theirs) == 1
    in_process.admits.set()
    thread.join()
    assert run(conns[0], 'hello') == 'ali: hello'
    manager.dispose('main', conns[0])


WRONG: Dict[str, Any] = {
    "parameters must be a mapping .* not a str": lambda: SshConnectionManager('host'),  # type: ignore[arg-type]
    r"parameters\['main'\] must be a mapping of connect keywords, not a str": lambda: SshConnectionManager(
        {'main': SECRET}),  # type: ignore[dict-item]
    'known_hosts must be the path of a file': lambda: SshConnectionManager(
        {}, known_hosts=None),  # type: ignore[arg-type]
    'keepalive must be a number of seconds': lambda: SshConnectionManager(
        {}, keepalive='30'),  # type: ignore[arg-type]
    'ping must be more than 0': lambda: SshConnectionManager({}, ping=0),
    "must have a 'hostname'": lambda: SshConnectionManager({'main': {'password': SECRET}}).create('main'),
    'must be a mapping of connect keywords, not a list': lambda: SshConnectionManager[str](
        lambda _: [SECRET]).create('main'),
    "must not have a 'sock'": lambda: SshConnectionManager({'main': {'hostname': 'h', 'sock': 1}}).create('main'),
    'the port of endpoint': lambda: SshConnectionManager({'main': {'hostname': 'h', 'port': '22'}}).create('main'),
}


@pytest.mark.parametrize('message', WRONG)
def test_a_wrong_argument_is_named_without_secrets(message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        WRONG[message]()
    assert SECRET not in str(caught.value)


def test_a_keyword_that_paramiko_does_not_know_is_named_and_nothing_left_open(sshd: OpenSshServer) -> None:
    manager: Manager = SshConnectionManager({'main': for_paramiko(sshd, colour=SECRET)}, known_hosts=sshd.known_hosts)
    with pytest.raises(TypeError, match='colour') as caught:
        manager.create('main')
    assert SECRET not in str(caught.value)
