"""Connections of asyncssh's without a socket of their own, or without their event loop: how they are let go."""

import asyncio
import gc
import os
import pathlib
import socket
import sys
from typing import Any, AsyncIterator, List

import pytest

asyncssh = pytest.importorskip('asyncssh', exc_type=ImportError)

from support.servers import eventually, eventually_async, open_descriptors  # noqa: E402
from support.sshd import OpenSshServer, for_asyncssh  # noqa: E402

from generic_connection_pool.asyncio import ConnectionPool  # noqa: E402
from generic_connection_pool.contrib.asyncssh import SshConnectionManager  # noqa: E402

Manager = SshConnectionManager[str]

#: a proxy command: it passes on what it reads to an address, and the answers to its output
PROXY = """
import os, socket, sys, threading

def pass_on(read, write):
    while data := read(65536):
        while data:
            data = data[write(data):]

sock = socket.create_connection((sys.argv[1], int(sys.argv[2])))
threading.Thread(target=pass_on, args=(sock.recv, lambda data: os.write(1, data)), daemon=True).start()
pass_on(lambda size: os.read(0, size), sock.send)
"""


@pytest.fixture
def manager(sshd: OpenSshServer) -> Manager:
    return SshConnectionManager({'main': for_asyncssh(sshd)}, known_hosts=sshd.known_hosts)


@pytest.fixture
async def conn(manager: Manager) -> AsyncIterator[Any]:
    conn = await manager.create('main')
    yield conn
    await manager.dispose('main', conn)


async def run(conn: Any, command: str) -> str:
    """Run a command and return what it prints."""
    return str((await conn.run(command)).stdout).strip()


async def use_and_dispose_of(manager: Manager, endpoint: str) -> Any:
    """Take a connection through what a pool does with it, and return it."""
    conn = await manager.create(endpoint)
    for number in range(3):
        assert await manager.check_aliveness(endpoint, conn)
        assert await run(conn, f'echo {number}') == str(number)
        await conn.create_process('exec sleep 30')
        await manager.on_release(endpoint, conn)
    await manager.dispose(endpoint, conn)
    assert not await manager.check_aliveness(endpoint, conn)
    return conn


# -- without a socket of their own


async def test_a_connection_through_another_one_is_let_go_and_the_other_one_kept(
    manager: Manager, conn: Any, sshd: OpenSshServer
) -> None:
    through: Manager = SshConnectionManager(
        {'inner': for_asyncssh(sshd, tunnel=conn)}, known_hosts=sshd.known_hosts, ping=5.0
    )
    inner = await use_and_dispose_of(through, 'inner')
    # the socket is that of the other connection, which is not to be closed, nor to be waited for
    assert inner.is_closed()
    assert await manager.check_aliveness('main', conn)
    assert await run(conn, 'echo hello') == 'hello'
    await eventually_async(lambda: sshd.connections() == 1)


async def test_a_connection_through_another_host_is_let_go_and_so_is_the_connection_to_that_one(
    sshd: OpenSshServer, tmp_path: pathlib.Path
) -> None:
    config = tmp_path / 'config'
    config.write_text(f'IdentityFile {sshd.user_key}\nUserKnownHostsFile {sshd.known_hosts}\nIdentityAgent none\n')
    params = for_asyncssh(sshd, tunnel=f'{sshd.user}@{sshd.host}:{sshd.port}', config=[str(config)])
    manager: Manager = SshConnectionManager({'inner': params}, known_hosts=sshd.known_hosts, ping=5.0)
    before = open_descriptors()
    await use_and_dispose_of(manager, 'inner')
    assert open_descriptors() == before
    await eventually_async(lambda: sshd.connections() == 0)


async def test_a_connection_through_a_command_is_let_go_and_the_command_ends(sshd: OpenSshServer) -> None:
    command = [sys.executable, '-c', PROXY, sshd.host, str(sshd.port)]
    manager: Manager = SshConnectionManager(
        {'main': for_asyncssh(sshd, proxy_command=command)}, known_hosts=sshd.known_hosts, ping=5.0
    )
    before = open_descriptors()
    await use_and_dispose_of(manager, 'main')
    await eventually_async(lambda: open_descriptors() == before)
    await eventually_async(lambda: sshd.connections() == 0)


# -- whose event loop has ended


@pytest.mark.filterwarnings('ignore:unclosed:ResourceWarning')
@pytest.mark.parametrize('has_socket', [True, False])
def test_a_connection_whose_event_loop_has_ended_is_let_go(
    manager: Manager, sshd: OpenSshServer, has_socket: bool
) -> None:
    conns: List[Any] = [asyncio.run(manager.create('main'))]
    # what the system knows of the connection
    with socket.socket(fileno=os.dup(conns[0].get_extra_info('socket').fileno())) as sock, sshd.stopped():
        if not has_socket:
            # as if it were one through a command
            conns[0].set_extra_info(socket=None)
        asyncio.run(manager.dispose('main', conns[0]))
        if has_socket:
            # it is over at once, though somebody may have a reference to the connection for long
            with pytest.raises(BrokenPipeError):
                sock.send(b'x')
    conns.clear()
    gc.collect()
    eventually(lambda: sshd.connections() == 0)


# -- that cannot be cleaned up


async def test_a_connection_whose_channels_cannot_be_closed_is_ended_and_that_is_logged(
    manager: Manager, sshd: OpenSshServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError('what a day')

    pool: ConnectionPool[str, Any] = ConnectionPool(manager)
    async with pool.connection('main') as conn:
        process = await conn.create_process('exec sleep 30')
        monkeypatch.setattr(process.channel, 'abort', fail)
    assert "a connection to 'main' was closed: it could not be cleaned up: what a day" in caplog.text
    async with pool.connection('main') as again:
        assert again is not conn
        assert await run(again, 'echo hello') == 'hello'
    assert conn.is_closed()
    await eventually_async(lambda: sshd.connections() == 1)
    await pool.close()
