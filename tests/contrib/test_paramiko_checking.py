"""The manager of paramiko connections, against a real server: checking and disposing."""

import socket
import threading
import time
from typing import Any, List

import pytest

paramiko = pytest.importorskip('paramiko', exc_type=ImportError)

from support.servers import eventually, open_descriptors  # noqa: E402
from support.ssh_by_paramiko import (  # noqa: E402
    Manager,
    conn as conn,
    manager as manager,
    no_thread_is_left as no_thread_is_left,
    run,
)
from support.sshd import OpenSshServer, for_paramiko  # noqa: E402

from generic_connection_pool.contrib._sockets import is_quiet, is_writable  # noqa: E402
from generic_connection_pool.contrib.paramiko import SshConnectionManager  # noqa: E402

# -- checking


@pytest.mark.parametrize('ping', [None, 5.0])
@pytest.mark.parametrize('timeout', [None, 5.0])
def test_an_idle_connection_is_found_alive_time_and_again(
    sshd: OpenSshServer, timeout: Any, ping: Any
) -> None:
    manager: Manager = SshConnectionManager({'main': for_paramiko(sshd)}, known_hosts=sshd.known_hosts, ping=ping)
    conn = manager.create('main')
    for number in range(3):
        assert manager.check_aliveness('main', conn, timeout)
        assert run(conn, f'echo {number}') == str(number)
    manager.dispose('main', conn)


def test_a_quiet_connection_takes_no_time_to_check(manager: Manager, conn: Any) -> None:
    eventually(lambda: is_quiet(conn.get_transport().sock.fileno()))
    assert manager.check_aliveness('main', conn, 0)


@pytest.mark.parametrize('timeout', [None, 5.0])
def test_a_connection_that_the_server_has_closed_is_found_dead(
    manager: Manager, conn: Any, sshd: OpenSshServer, timeout: Any
) -> None:
    sshd.end_connections()
    assert not manager.check_aliveness('main', conn, timeout)


def test_a_connection_closed_by_its_user_is_found_dead(manager: Manager, conn: Any) -> None:
    conn.close()
    assert not manager.check_aliveness('main', conn)
    assert not manager.is_reusable('main', conn, ValueError())
    manager.on_release('main', conn)


def test_a_connection_whose_transport_was_closed_by_its_user_is_found_dead(manager: Manager, conn: Any) -> None:
    conn.get_transport().close()
    assert not manager.check_aliveness('main', conn)


def test_a_server_that_is_stuck_is_found_dead_in_time_if_pings_are_wanted(sshd: OpenSshServer) -> None:
    params = {'main': for_paramiko(sshd)}
    for ping, timeout in ((0.2, None), (30.0, 0.2), (0.2, 30.0)):
        manager: Manager = SshConnectionManager(params, known_hosts=sshd.known_hosts, ping=ping)
        conn = manager.create('main')
        assert manager.check_aliveness('main', conn)
        with sshd.stopped():
            started = time.monotonic()
            assert not manager.check_aliveness('main', conn, timeout)
            assert 0.19 < time.monotonic() - started < 2
            # as cheap as it is, the look at the socket cannot tell
            assert SshConnectionManager(params).check_aliveness('main', conn)
            started = time.monotonic()
            manager.dispose('main', conn)
            assert time.monotonic() - started < 1


def test_what_has_just_arrived_is_read_before_a_connection_is_judged(manager: Manager, conn: Any) -> None:
    for _ in range(10):
        _, stdout, _ = conn.exec_command('head -c 300000 /dev/zero')
        assert stdout.read(1) == b'\0'
        # the rest, and the end of the channel, are still under way
        stdout.channel.close()
        assert manager.check_aliveness('main', conn)
    assert run(conn, 'echo hello') == 'hello'


# -- disposing


@pytest.mark.parametrize('timeout', [None, 0.0, 5.0])
def test_disposing_does_not_mind_what_state_a_connection_is_in(
    manager: Manager, sshd: OpenSshServer, timeout: Any
) -> None:
    before = open_descriptors()
    for spoil in (lambda conn: None, lambda conn: conn.close(), lambda conn: sshd.end_connections()):
        conn = manager.create('main')
        spoil(conn)
        manager.dispose('main', conn, timeout=timeout)
        manager.dispose('main', conn, timeout=timeout)
        eventually(lambda: sshd.connections() == 0)
        eventually(lambda: open_descriptors() == before)


@pytest.mark.parametrize('give_back', ['on_release', 'dispose'])
def test_a_connection_whose_server_takes_no_more_is_given_up_without_waiting(
    manager: Manager, conn: Any, sshd: OpenSshServer, give_back: str
) -> None:
    sock = conn.get_transport().sock
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    channel = conn.get_transport().open_session()
    channel.exec_command('cat >/dev/null')
    other = conn.get_transport().open_session()
    failures: List[BaseException] = []

    def send() -> None:
        try:
            channel.sendall(b'x' * (1 << 24))
        except (OSError, EOFError, paramiko.SSHException) as exc:
            failures.append(exc)

    with sshd.stopped():
        sender = threading.Thread(target=send)
        sender.start()
        eventually(lambda: not is_writable(sock.fileno()))
        started = time.monotonic()
        getattr(manager, give_back)('main', conn)
        assert time.monotonic() - started < 2
        sender.join(10)
        assert not sender.is_alive()
    assert other.closed
    assert failures
    assert not manager.check_aliveness('main', conn)
