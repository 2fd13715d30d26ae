"""The manager of asyncssh connections, against real servers: connecting and checking."""

import asyncio
import contextlib
import pathlib
import socket
import subprocess
import time
from typing import Any, AsyncIterator, Dict, Iterator

import pytest

asyncssh = pytest.importorskip('asyncssh', exc_type=ImportError)

from support.servers import eventually_async, open_descriptors, refusing_port, silent_server  # noqa: E402
from support.ssh_in_process import InProcessServer, in_process_server  # noqa: E402
from support.sshd import OpenSshServer, for_asyncssh, make_key  # noqa: E402

from generic_connection_pool.asyncio import ConnectionPool  # noqa: E402
from generic_connection_pool.contrib import _streams  # noqa: E402
from generic_connection_pool.contrib._sockets import is_quiet  # noqa: E402
from generic_connection_pool.contrib.asyncssh import SshConnectionManager  # noqa: E402

Manager = SshConnectionManager[str]
SECRET = 'open-sesame-1848'
NO_CONFIG: Dict[str, Any] = {'config': None, 'agent_path': None, 'client_keys': None}


@pytest.fixture
def manager(sshd: OpenSshServer) -> Manager:
    return SshConnectionManager({'main': for_asyncssh(sshd)}, known_hosts=sshd.known_hosts)


@pytest.fixture
async def conn(manager: Manager) -> AsyncIterator[Any]:
    conn = await manager.create('main')
    yield conn
    await manager.dispose('main', conn)


@pytest.fixture
def in_process(sshd: OpenSshServer) -> Iterator[InProcessServer]:
    with in_process_server(sshd.host_key) as server:
        yield server


async def run(conn: Any, command: str) -> str:
    """Run a command and return what it prints."""
    return str((await conn.run(command)).stdout).strip()


def for_password(server: InProcessServer, password: str) -> Dict[str, Any]:
    return {'host': server.host, 'port': server.port, 'username': 'ali', 'password': password, **NO_CONFIG}


def knowing(server: InProcessServer, sshd: OpenSshServer, directory: pathlib.Path) -> pathlib.Path:
    """A file of known hosts that knows a server which has the other's key."""
    path = directory / 'known_hosts'
    path.write_text(f'[{server.host}]:{server.port} {sshd.public_key()}\n')
    return path


# -- the host's key


async def test_a_host_that_is_not_known_is_refused_and_its_key_is_named(
    sshd: OpenSshServer, tmp_path: pathlib.Path
) -> None:
    known_hosts = tmp_path / 'known_hosts'
    known_hosts.touch()
    manager: Manager = SshConnectionManager({'main': for_asyncssh(sshd)}, known_hosts=known_hosts)
    with pytest.raises(asyncssh.HostKeyNotVerifiable, match='is not known') as caught:
        await manager.create('main')
    for part in ("'main'", f'127.0.0.1:{sshd.port}', sshd.fingerprint(), str(known_hosts)):
        assert part in str(caught.value)
    # nothing was added
    assert known_hosts.read_text() == ''
    with pytest.raises(asyncssh.HostKeyNotVerifiable):
        await manager.create('main')
    await eventually_async(lambda: sshd.connections() == 0)


async def test_a_host_is_refused_if_there_is_no_file_of_known_hosts_whatever_a_configuration_file_says(
    sshd: OpenSshServer, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('HOME', str(tmp_path))
    config = tmp_path / 'config'
    # asyncssh takes this for a wish to check nothing
    config.write_text('UserKnownHostsFile none\n')
    manager: Manager = SshConnectionManager({'main': for_asyncssh(sshd, config=[str(config)])})
    with pytest.raises(asyncssh.HostKeyNotVerifiable, match='known_hosts'):
        await manager.create('main')
    assert list(tmp_path.iterdir()) == [config]


async def test_a_host_becomes_known_as_soon_as_the_file_says_so(sshd: OpenSshServer, tmp_path: pathlib.Path) -> None:
    known_hosts = tmp_path / 'known_hosts'
    manager: Manager = SshConnectionManager({'main': for_asyncssh(sshd)}, known_hosts=[tmp_path / 'none', known_hosts])
    with pytest.raises(asyncssh.HostKeyNotVerifiable):
        await manager.create('main')
    known_hosts.write_text(sshd.known_hosts.read_text())
    await manager.dispose('main', await manager.create('main'))


async def test_a_host_that_has_another_key_than_is_known_is_refused(sshd: OpenSshServer, manager: Manager) -> None:
    sshd.stop()
    sshd.make_host_key()
    sshd.start()
    with pytest.raises(asyncssh.HostKeyNotVerifiable, match='not the one that is known') as caught:
        await manager.create('main')
    for part in ("'main'", f'127.0.0.1:{sshd.port}', sshd.fingerprint()):
        assert part in str(caught.value)
    await eventually_async(lambda: sshd.connections() == 0)


async def test_a_host_that_has_no_key_of_the_kind_that_is_known_is_refused(
    sshd: OpenSshServer, tmp_path: pathlib.Path
) -> None:
    make_key(tmp_path / 'other', 'ecdsa')
    known_hosts = tmp_path / 'known_hosts'
    known_hosts.write_text(f'{sshd.name} {(tmp_path / "other.pub").read_text()}')
    manager: Manager = SshConnectionManager({'main': for_asyncssh(sshd)}, known_hosts=known_hosts)
    # whoever of the two is the first to notice
    wrong = (asyncssh.KeyExchangeFailed, asyncssh.ConnectionLost, ConnectionResetError)
    with pytest.raises(wrong, match="endpoint 'main'.*no host key of a kind that .* knows of it .ecdsa-"):
        await manager.create('main')


async def test_a_host_whose_key_is_revoked_is_refused(sshd: OpenSshServer, tmp_path: pathlib.Path) -> None:
    known_hosts = tmp_path / 'known_hosts'
    known_hosts.write_text(f'{sshd.known_hosts.read_text()}@revoked * {sshd.public_key()}\n')
    manager: Manager = SshConnectionManager({'main': for_asyncssh(sshd)}, known_hosts=known_hosts)
    with pytest.raises(asyncssh.HostKeyNotVerifiable, match="endpoint 'main'.*revoked"):
        await manager.create('main')


async def test_a_client_of_ones_own_does_not_undo_the_check(sshd: OpenSshServer, tmp_path: pathlib.Path) -> None:
    params = for_asyncssh(sshd, client_factory=asyncssh.SSHClient)
    manager: Manager = SshConnectionManager({'main': params}, known_hosts=tmp_path / 'none')
    with pytest.raises(asyncssh.HostKeyNotVerifiable, match="endpoint 'main'.*not trusted"):
        await manager.create('main')
    manager = SshConnectionManager({'main': params}, known_hosts=sshd.known_hosts)
    await manager.dispose('main', await manager.create('main'))


async def test_a_file_of_known_hosts_that_cannot_be_read_is_an_error(
    sshd: OpenSshServer, tmp_path: pathlib.Path
) -> None:
    manager: Manager = SshConnectionManager({'main': for_asyncssh(sshd)}, known_hosts=tmp_path)
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        await manager.create('main')


async def test_an_endpoint_may_have_known_hosts_of_its_own(sshd: OpenSshServer, tmp_path: pathlib.Path) -> None:
    params = for_asyncssh(sshd, known_hosts=str(sshd.known_hosts))
    manager: Manager = SshConnectionManager({'main': params}, known_hosts=tmp_path / 'none')
    await manager.dispose('main', await manager.create('main'))


# -- credentials


async def test_an_unknown_endpoint_is_named_and_so_are_the_known_but_no_password(sshd: OpenSshServer) -> None:
    manager: Manager = SshConnectionManager({'main': for_asyncssh(sshd, password=SECRET), 'other': for_asyncssh(sshd)})
    with pytest.raises(KeyError, match="'typo'.*'main', 'other'") as caught:
        await manager.create('typo')
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(manager)


async def test_a_key_that_needs_a_passphrase_is_used_and_the_passphrase_not_told(
    sshd: OpenSshServer, tmp_path: pathlib.Path
) -> None:
    key = tmp_path / 'key'
    # asyncssh needs another library for passphrases in OpenSSH's own format
    make_key(key, 'ecdsa', SECRET, 'PEM')
    authorized = sshd.user_key.parent / 'authorized_keys'
    before = authorized.read_text()
    authorized.write_text(before + (tmp_path / 'key.pub').read_text())
    params = for_asyncssh(sshd, client_keys=[str(key)])
    try:
        manager: Manager = SshConnectionManager({
            'right': {**params, 'passphrase': SECRET},
            'wrong': {**params, 'passphrase': 'zyqx'},
        }, known_hosts=sshd.known_hosts)
        conn = await manager.create('right')
        assert await run(conn, 'echo hello') == 'hello'
        await manager.dispose('right', conn)
        with pytest.raises(ValueError, match="endpoint 'wrong'") as caught:
            await manager.create('wrong')
        assert 'zyqx' not in str(caught.value)
    finally:
        authorized.write_text(before)


async def test_a_wrong_key_is_an_error_that_names_the_endpoint(sshd: OpenSshServer, tmp_path: pathlib.Path) -> None:
    make_key(tmp_path / 'stranger')
    params = for_asyncssh(sshd, client_keys=[str(tmp_path / 'stranger')])
    before = open_descriptors()
    pool: ConnectionPool[str, Any] = ConnectionPool(
        SshConnectionManager({'main': params}, known_hosts=sshd.known_hosts), max_size=1
    )
    for _ in range(2):
        with pytest.raises(asyncssh.PermissionDenied, match="endpoint 'main'"):
            await pool.acquire('main', timeout=10)
    assert pool.get_size() == 0
    await eventually_async(lambda: open_descriptors() == before)
    await pool.close()


async def test_a_wrong_password_is_an_error_that_does_not_tell_it(
    in_process: InProcessServer, sshd: OpenSshServer, tmp_path: pathlib.Path
) -> None:
    in_process.passwords['ali'] = SECRET
    known_hosts = knowing(in_process, sshd, tmp_path)
    manager: Manager = SshConnectionManager({'main': for_password(in_process, 'zyqx')}, known_hosts=known_hosts)
    with pytest.raises(asyncssh.PermissionDenied, match="endpoint 'main'") as caught:
        await manager.create('main')
    assert 'zyqx' not in str(caught.value)


@pytest.mark.parametrize('asynchronous', [False, True])
async def test_a_password_that_has_changed_is_used_for_the_next_connection(
    in_process: InProcessServer, sshd: OpenSshServer, tmp_path: pathlib.Path, asynchronous: bool
) -> None:
    wallet = {'password': ''}

    def credentials(endpoint: str) -> Dict[str, Any]:
        return {**for_password(in_process, wallet['password']), 'username': endpoint}

    async def fetch_credentials(endpoint: str) -> Dict[str, Any]:
        await asyncio.sleep(0)
        return credentials(endpoint)

    manager: Manager = SshConnectionManager(
        fetch_credentials if asynchronous else credentials, known_hosts=knowing(in_process, sshd, tmp_path)
    )
    for password in ('first', 'second'):
        in_process.passwords['ali'] = wallet['password'] = password
        conn = await manager.create('ali')
        assert await run(conn, 'hello') == 'ali: hello'
        await manager.dispose('ali', conn)


async def test_a_key_that_an_agent_has_is_used_and_the_agent_let_go(
    sshd: OpenSshServer, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / 'agent'
    process = subprocess.Popen(['ssh-agent', '-D', '-a', str(path)], stdout=subprocess.DEVNULL)
    try:
        await eventually_async(path.exists)
        subprocess.run(
            ['ssh-add', '-q', str(sshd.user_key)],
            check=True, stdin=subprocess.DEVNULL, env={'SSH_AUTH_SOCK': str(path)},
        )  # fmt: skip
        params = for_asyncssh(sshd, client_keys=(), agent_path=str(path))
        manager: Manager = SshConnectionManager({'main': params}, known_hosts=sshd.known_hosts)
        before = open_descriptors()
        conn = await manager.create('main')
        assert await run(conn, 'echo hello') == 'hello'
        await eventually_async(lambda: open_descriptors() == before + 1)
        await manager.dispose('main', conn)
    finally:
        process.kill()
        process.wait()


# -- what cannot be connected to


async def test_a_refused_connection_says_where() -> None:
    port = refusing_port()
    manager: Manager = SshConnectionManager({'main': {'host': '127.0.0.1', 'port': port, **NO_CONFIG}})
    with pytest.raises(ConnectionRefusedError, match=f"endpoint 'main' \\(127.0.0.1:{port}\\)"):
        await manager.create('main')


async def test_a_name_that_nobody_knows_is_named() -> None:
    manager: Manager = SshConnectionManager({'main': {'host': '256.256.256.256', **NO_CONFIG}})
    with pytest.raises(socket.gaierror, match=r"endpoint 'main' \(256.256.256.256\)"):
        await manager.create('main')


async def test_a_key_file_that_is_missing_is_named(sshd: OpenSshServer, tmp_path: pathlib.Path) -> None:
    params = for_asyncssh(sshd, client_keys=[str(tmp_path / 'none')])
    manager: Manager = SshConnectionManager({'main': params}, known_hosts=sshd.known_hosts)
    with pytest.raises(FileNotFoundError, match=f"endpoint 'main'.*{tmp_path / 'none'}"):
        await manager.create('main')


async def test_a_server_that_never_says_a_word_is_given_up_in_time() -> None:
    with silent_server() as (host, port):
        before = open_descriptors()
        pool: ConnectionPool[str, Any] = ConnectionPool(
            SshConnectionManager({'main': {'host': host, 'port': port, **NO_CONFIG}})
        )
        started = time.monotonic()
        with pytest.raises(TimeoutError, match="'main'"):
            await pool.acquire('main', timeout=0.2)
        assert 0.19 < time.monotonic() - started < 2
        await eventually_async(lambda: pool.get_size() == 0)
        await eventually_async(lambda: open_descriptors() == before)
        await pool.close()


@pytest.mark.parametrize('keyword', ['login_timeout', 'connect_timeout'])
async def test_the_timeouts_of_the_connect_keywords_hold_too(keyword: str) -> None:
    with silent_server() as (host, port):
        before = open_descriptors()
        manager: Manager = SshConnectionManager({'main': {'host': host, 'port': port, keyword: 0.1, **NO_CONFIG}})
        with pytest.raises((asyncssh.ConnectionLost, asyncio.TimeoutError), match="endpoint 'main'"):
            await manager.create('main')
        await eventually_async(lambda: open_descriptors() == before)


async def test_a_server_that_does_not_decide_whom_to_let_in_is_given_up_in_time(
    in_process: InProcessServer, sshd: OpenSshServer, tmp_path: pathlib.Path
) -> None:
    known_hosts = knowing(in_process, sshd, tmp_path)
    pool: ConnectionPool[str, Any] = ConnectionPool(
        SshConnectionManager({'main': for_password(in_process, SECRET)}, known_hosts=known_hosts)
    )
    in_process.admits.clear()
    with pytest.raises(TimeoutError, match="'main'"):
        await pool.acquire('main', timeout=1)
    assert in_process.attempts == 1
    await eventually_async(lambda: not in_process.connections)
    await pool.close()


@pytest.mark.parametrize('pause', [None, 0.001, 0.005])
@pytest.mark.parametrize('rounds', range(0, 24, 3))
async def test_a_connect_cancelled_at_any_step_leaves_nothing_behind(
    manager: Manager, sshd: OpenSshServer, rounds: int, pause: 'float | None'
) -> None:
    before = open_descriptors()
    creating = asyncio.ensure_future(manager.create('main'))
    for _ in range(rounds):
        await asyncio.sleep(pause or 0)
    creating.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await manager.dispose('main', await creating)
    await eventually_async(lambda: open_descriptors() == before)
    await eventually_async(lambda: sshd.connections() == 0)


WRONG: Dict[str, Any] = {
    'parameters must be a mapping .* not a str': lambda: SshConnectionManager('host'),  # type: ignore[arg-type]
    'known_hosts must be the path of a file': lambda: SshConnectionManager(
        {}, known_hosts=None),  # type: ignore[arg-type]
    'keepalive must be more than 0': lambda: SshConnectionManager({}, keepalive=-1),
    'ping must be a number of seconds': lambda: SshConnectionManager({}, ping=True),
}


@pytest.mark.parametrize('message', WRONG)
def test_a_wrong_argument_is_named(message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        WRONG[message]()


WRONG_PARAMETERS: Dict[str, Any] = {
    "must have a 'host'": {'password': SECRET},
    'must be a mapping of connect keywords, not a list': [SECRET],
    "must not have a 'sock'": {'host': 'h', 'sock': 1},
    'colour': {'host': 'h', 'colour': SECRET},
}


@pytest.mark.parametrize('message', WRONG_PARAMETERS)
async def test_a_wrong_connect_keyword_is_named_without_secrets(message: str) -> None:
    manager: Manager = SshConnectionManager(lambda _: WRONG_PARAMETERS[message])
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        await manager.create('main')
    assert SECRET not in str(caught.value)


# -- checking


@pytest.mark.parametrize('ping', [None, 5.0])
async def test_an_idle_connection_is_found_alive_time_and_again(sshd: OpenSshServer, ping: Any) -> None:
    manager: Manager = SshConnectionManager({'main': for_asyncssh(sshd)}, known_hosts=sshd.known_hosts, ping=ping)
    conn = await manager.create('main')
    for number in range(3):
        assert await manager.check_aliveness('main', conn)
        assert await run(conn, f'echo {number}') == str(number)
    await manager.dispose('main', conn)


async def test_a_check_does_not_suspend_if_nothing_has_arrived(manager: Manager, conn: Any) -> None:
    # the server has something to say of its keys
    await eventually_async(lambda: is_quiet(conn.get_extra_info('socket').fileno()))
    with pytest.raises(StopIteration) as caught:
        manager.check_aliveness('main', conn).__await__().__next__()
    assert caught.value.value is True


async def test_a_connection_that_the_server_has_closed_is_found_dead(
    manager: Manager, conn: Any, sshd: OpenSshServer
) -> None:
    # the event loop has no chance to notice
    sshd.end_connections()
    assert not await manager.check_aliveness('main', conn)


async def test_a_connection_closed_by_its_user_is_found_dead(manager: Manager, conn: Any) -> None:
    conn.close()
    assert not await manager.check_aliveness('main', conn)
    assert not manager.is_reusable('main', conn, ValueError())
    await manager.on_release('main', conn)
    await conn.wait_closed()
    assert not await manager.check_aliveness('main', conn)


async def test_a_server_that_is_stuck_is_found_dead_in_time_if_pings_are_wanted(sshd: OpenSshServer) -> None:
    params = {'main': for_asyncssh(sshd)}
    manager: Manager = SshConnectionManager(params, known_hosts=sshd.known_hosts, ping=0.2)
    conn = await manager.create('main')
    assert await manager.check_aliveness('main', conn)
    with sshd.stopped():
        started = time.monotonic()
        assert not await manager.check_aliveness('main', conn)
        assert 0.19 < time.monotonic() - started < 2
        # as cheap as it is, the look at the socket cannot tell
        assert await SshConnectionManager(params).check_aliveness('main', conn)
        started = time.monotonic()
        await manager.dispose('main', conn)
        assert time.monotonic() - started < 1
        assert conn.is_closed()


async def test_a_server_that_is_stuck_is_noticed_by_the_keepalive(sshd: OpenSshServer) -> None:
    manager: Manager = SshConnectionManager(
        {'main': for_asyncssh(sshd, keepalive_count_max=2)}, known_hosts=sshd.known_hosts, keepalive=0.05
    )
    conn = await manager.create('main')
    with sshd.stopped():
        await eventually_async(conn.is_closed)
    assert not await manager.check_aliveness('main', conn)
    await manager.dispose('main', conn)


async def test_what_has_just_arrived_is_read_before_a_connection_is_judged(manager: Manager, conn: Any) -> None:
    for _ in range(10):
        process = await conn.create_process('head -c 300000 /dev/zero', encoding=None)
        assert await process.stdout.readexactly(1) == b'\0'
        # the rest, and the end of the channel, are still under way
        await manager.on_release('main', conn)
        assert await manager.check_aliveness('main', conn)
    assert await run(conn, 'echo hello') == 'hello'


# -- disposing


async def test_disposing_does_not_mind_what_state_a_connection_is_in(manager: Manager, sshd: OpenSshServer) -> None:
    before = open_descriptors()
    for spoil in (lambda conn: None, lambda conn: conn.close(), lambda conn: sshd.end_connections()):
        conn = await manager.create('main')
        spoil(conn)
        await manager.dispose('main', conn)
        await manager.dispose('main', conn)
        assert open_descriptors() == before
        await eventually_async(lambda: sshd.connections() == 0)


async def test_disposing_waits_for_nothing_that_does_not_come(
    manager: Manager, sshd: OpenSshServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_streams, 'CLOSING_GRACE', 0.1)
    conn = await manager.create('main')
    never = asyncio.Event()
    monkeypatch.setattr(conn, 'wait_closed', never.wait)
    started = time.monotonic()
    await manager.dispose('main', conn)
    assert 0.09 < time.monotonic() - started < 2
