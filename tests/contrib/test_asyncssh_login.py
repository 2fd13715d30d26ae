"""Logins of asyncssh's that end in the middle of the handshake."""

import pathlib
import re
from typing import Any, Dict

import pytest

asyncssh = pytest.importorskip('asyncssh', exc_type=ImportError)

from support.servers import open_descriptors  # noqa: E402
from support.ssh_farewell import server_that_hangs_up  # noqa: E402
from support.sshd import OpenSshServer  # noqa: E402

from generic_connection_pool.contrib.asyncssh import SshConnectionManager  # noqa: E402

Manager = SshConnectionManager[str]


@pytest.mark.parametrize('resets, error', [(False, asyncssh.ConnectionLost), (True, ConnectionResetError)])
async def test_of_a_server_that_hangs_up_before_it_has_shown_a_key_those_that_are_known_are_told(
    sshd: OpenSshServer, tmp_path: pathlib.Path, resets: bool, error: Any
) -> None:
    known_hosts = tmp_path / 'known_hosts'
    before = open_descriptors()
    with server_that_hangs_up(resets) as (host, port):
        params: Dict[str, Any] = {
            'host': host, 'port': port, 'config': None, 'agent_path': None, 'client_keys': None,
        }  # fmt: skip
        manager: Manager = SshConnectionManager({'main': params}, known_hosts=known_hosts)
        known_hosts.write_text(f'[{host}]:{port} {sshd.public_key()}\n')
        with pytest.raises(error, match=re.escape(f"could not connect to endpoint 'main' ({host}:{port}): ")) as caught:
            await manager.create('main')
    # that may be what is wrong: a server that has no such key hangs up, too
    hint = f'; it may have no host key of a kind that {known_hosts} knows of it (ssh-ed25519'
    assert hint in str(caught.value)
    assert open_descriptors() == before
