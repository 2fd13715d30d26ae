"""Connections of paramiko to a real server, as the tests share them. Imported only where paramiko is installed."""

import threading
from typing import Any, Iterator

import paramiko
import pytest
from support.servers import eventually
from support.sshd import OpenSshServer, for_paramiko

from generic_connection_pool.contrib.paramiko import SshConnectionManager

Manager = SshConnectionManager[str]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Fails any test, of a module that imports it, which leaves a thread of paramiko's running."""
    yield
    eventually(lambda: not any(isinstance(thread, paramiko.Transport) for thread in threading.enumerate()))


@pytest.fixture
def manager(sshd: OpenSshServer) -> Manager:
    return SshConnectionManager({'main': for_paramiko(sshd)}, known_hosts=sshd.known_hosts)


@pytest.fixture
def conn(manager: Manager) -> Iterator[Any]:
    conn = manager.create('main')
    yield conn
    manager.dispose('main', conn)


def run(conn: Any, command: str) -> str:
    """Run a command and return what it prints."""
    _, stdout, _ = conn.exec_command(command)
    return str(stdout.read().decode()).strip()
