"""What is particular to UNIX sockets; the rest is tested along with TCP."""

import contextlib
import errno
import pathlib
import socket
import threading
import time
from typing import Iterator

import pytest
from support.servers import ask, full_listener, needs_unix, open_descriptors, unix_echo_server

from generic_connection_pool.contrib.unix import UnixSocketConnectionManager
from generic_connection_pool.threading import ConnectionPool

pytestmark = needs_unix


@pytest.fixture
def manager() -> UnixSocketConnectionManager:
    return UnixSocketConnectionManager()


@pytest.fixture
def full(short_directory: pathlib.Path) -> Iterator[socket.socket]:
    """A listener whose queue is full."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(short_directory / 'full'))
    with full_listener(listener):
        yield listener


def test_a_path_that_does_not_exist_is_named(
    manager: UnixSocketConnectionManager, short_directory: pathlib.Path
) -> None:
    before = open_descriptors()
    with pytest.raises(FileNotFoundError, match=f'could not connect to {short_directory}/nobody'):
        manager.create(short_directory / 'nobody', timeout=1)
    assert open_descriptors() == before


def test_a_socket_that_nobody_listens_at_any_more_is_named(
    manager: UnixSocketConnectionManager, short_directory: pathlib.Path
) -> None:
    path = short_directory / 'left'
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    with pytest.raises(ConnectionRefusedError, match=f'could not connect to {path}'):
        manager.create(path)


def test_a_path_that_is_too_long_is_an_error_that_says_so(manager: UnixSocketConnectionManager) -> None:
    before = open_descriptors()
    with pytest.raises(OSError, match='too long'):
        manager.create(pathlib.Path('/' + 'x' * 500))
    assert open_descriptors() == before


def test_a_full_queue_is_waited_for_until_the_timeout(
    manager: UnixSocketConnectionManager, full: socket.socket
) -> None:
    before = open_descriptors()
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=full.getsockname()):
        manager.create(pathlib.Path(full.getsockname()), timeout=0.1)
    assert 0.09 < time.monotonic() - started < 1
    assert open_descriptors() == before


@pytest.mark.parametrize('timeout', [None, 10])
def test_a_connection_is_made_as_soon_as_the_queue_has_room(
    manager: UnixSocketConnectionManager, full: socket.socket, timeout: 'float | None'
) -> None:
    path = pathlib.Path(full.getsockname())
    with contextlib.ExitStack() as stack:
        connected = threading.Event()

        def connect() -> None:
            stack.push(contextlib.closing(manager.create(path, timeout=timeout)))
            connected.set()

        thread = threading.Thread(target=connect)
        thread.start()
        assert not connected.wait(0.05)
        while not connected.is_set():
            full.settimeout(0.01)
            with contextlib.suppress(TimeoutError):
                stack.push(contextlib.closing(full.accept()[0]))
        thread.join()


def test_a_connect_needs_no_time_if_the_queue_has_room(
    manager: UnixSocketConnectionManager, short_directory: pathlib.Path
) -> None:
    path = short_directory / 'echo'
    with unix_echo_server(str(path)), pool_of(manager) as pool:
        with pool.connection(path, timeout=0) as sock:
            assert ask(sock, b'one\n') == b'one\n'


def test_a_platform_without_unix_sockets_is_told_so(
    manager: UnixSocketConnectionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(socket, 'AF_UNIX')
    with pytest.raises(OSError, match='no UNIX sockets') as caught:
        manager.create(pathlib.Path('/somewhere'))
    assert caught.value.errno == errno.EAFNOSUPPORT


@contextlib.contextmanager
def pool_of(
    manager: UnixSocketConnectionManager
) -> 'Iterator[ConnectionPool[pathlib.Path, socket.socket]]':
    pool: 'ConnectionPool[pathlib.Path, socket.socket]' = ConnectionPool(manager)
    try:
        yield pool
    finally:
        pool.close(timeout=5)
