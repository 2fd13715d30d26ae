"""The manager of paramiko connections, against a real server: checking and disposing."""

import contextlib
import signal
import socket
import threading
import time
from typing import Any, Iterator, List

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


@contextlib.contextmanager
def a_server_that_takes_no_more(conn: Any, sshd: OpenSshServer) -> Iterator[List[BaseException]]:
    """Stop the server and send until nothing more can be sent. The block has to end the connection.

    Yields the errors of whoever sends.
    """
    sock = conn.get_transport().sock
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    channel = conn.get_transport().open_session()
    channel.exec_command('cat >/dev/null')
    failures: List[BaseException] = []

    def send() -> None:
        try:
            channel.sendall(b'x' * (1 << 24))
        except (OSError, EOFError, paramiko.SSHException) as exc:
            failures.append(exc)

    with sshd.stopped():
        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        eventually(lambda: not is_writable(sock.fileno()))
        yield failures
        sender.join(10)
        assert not sender.is_alive()


def test_a_server_that_takes_no_more_is_not_waited_for(sshd: OpenSshServer) -> None:
    manager: Manager = SshConnectionManager({'main': for_paramiko(sshd)}, known_hosts=sshd.known_hosts, ping=60.0)
    conn = manager.create('main')
    with a_server_that_takes_no_more(conn, sshd):
        started = time.monotonic()
        assert not manager.check_aliveness('main', conn)
        assert time.monotonic() - started < 10
        manager.dispose('main', conn)


def test_no_time_is_too_little_for_an_answer(sshd: OpenSshServer) -> None:
    manager: Manager = SshConnectionManager({'main': for_paramiko(sshd)}, known_hosts=sshd.known_hosts, ping=5.0)
    conn: Any = manager.create('main')
    eventually(lambda: is_quiet(conn.get_transport().sock.fileno()))
    assert not manager.check_aliveness('main', conn, 0)
    # nothing is wrong with it
    assert manager.check_aliveness('main', conn)
    manager.dispose('main', conn)


# -- giving back


def test_a_connection_whose_channels_cannot_be_closed_is_ended_and_that_is_logged(
    manager: Manager, conn: Any, sshd: OpenSshServer, caplog: pytest.LogCaptureFixture
) -> None:
    transport = conn.get_transport()
    channel = transport.open_session()
    with sshd.stopped():
        # the server, which would hang up as soon as it has heard of this, does not
        transport.sock.shutdown(socket.SHUT_WR)
        assert transport.is_active()
        manager.on_release('main', conn)
    assert "a connection to 'main' was closed: it could not be cleaned up" in caplog.text
    assert not transport.is_active()
    assert channel.closed
    assert not manager.check_aliveness('main', conn)
    eventually(lambda: sshd.connections() == 0)


def test_an_interrupt_while_channels_are_closed_ends_the_connection(
    manager: Manager, conn: Any, sshd: OpenSshServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = conn.get_transport().open_session()
    monkeypatch.setattr(channel, 'close', lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        manager.on_release('main', conn)
    assert not conn.get_transport().is_active()
    assert channel.closed
    assert not manager.check_aliveness('main', conn)
    eventually(lambda: sshd.connections() == 0)


# -- a child


def test_a_connection_that_its_user_has_closed_is_no_trouble_to_a_child(manager: Manager, conn: Any) -> None:
    conn.close()
    before = open_descriptors()
    # as the hook is called in a child
    manager.on_fork('main', conn)
    assert open_descriptors() == before


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
    other = conn.get_transport().open_session()
    with a_server_that_takes_no_more(conn, sshd) as failures:
        started = time.monotonic()
        getattr(manager, give_back)('main', conn)
        assert time.monotonic() - started < 2
    assert other.closed
    assert failures
    assert not manager.check_aliveness('main', conn)
