"""Looking at a socket without reading from it, with either of the system calls that there are for that."""

import contextlib
import socket
from typing import Iterator, Tuple

import pytest

from generic_connection_pool.contrib import _sockets
from generic_connection_pool.contrib._sockets import is_quiet, is_writable
from generic_connection_pool.contrib._streams import read_pending_input


@pytest.fixture(autouse=True, params=['poll', 'select'])
def system_call(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has no poll."""
    if request.param == 'select':
        monkeypatch.setattr(_sockets, '_poll', None)
    elif _sockets._poll is None:
        pytest.skip('this platform has no poll')


@pytest.fixture
def pair() -> Iterator[Tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def test_a_socket_is_quiet_until_there_is_something_to_read(pair: Tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    assert is_quiet(one.fileno())
    other.sendall(b'x')
    assert not is_quiet(one.fileno())
    assert one.recv(1) == b'x' and is_quiet(one.fileno())
    other.close()
    assert not is_quiet(one.fileno())


def test_a_socket_is_writable_until_its_peer_does_not_read(pair: Tuple[socket.socket, socket.socket]) -> None:
    one, _ = pair
    assert is_writable(one.fileno())
    one.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while one.send(b'x' * 4096):
            pass
    assert not is_writable(one.fileno())


def test_a_socket_that_is_closed_is_neither(pair: Tuple[socket.socket, socket.socket]) -> None:
    one, _ = pair
    one.close()
    assert not is_quiet(one.fileno()) and not is_writable(one.fileno())


def test_a_descriptor_that_is_not_open_is_not_quiet(pair: Tuple[socket.socket, socket.socket]) -> None:
    one, _ = pair
    descriptor = one.fileno()
    one.close()
    assert not is_quiet(descriptor)


async def test_input_that_nobody_takes_in_is_not_waited_for(pair: Tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    other.sendall(b'x')
    assert not await read_pending_input(lambda: False, one.fileno)
    assert one.recv(1) == b'x'
    assert await read_pending_input(lambda: False, one.fileno)
