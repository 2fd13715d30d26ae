"""What a forked child releases in silence: the descriptor of a connection, if it has one."""

import os
import socket
from typing import Any

import pytest
from generic_connection_pool._fork import release_descriptor

pytestmark = pytest.mark.skipif(not hasattr(os, 'fork'), reason='this platform does not fork')


class Talker:
    """Something with a ``fileno()``."""

    def __init__(self, answer: Any):
        self.answer = answer

    def fileno(self) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize('conn', [
    object(), Talker(-1), Talker(None), Talker('7'), Talker(ValueError('closed')),
], ids=['no fileno', 'closed', 'nothing', 'no number', 'an error'])  # fmt: skip
def test_of_what_has_no_descriptor_nothing_is_released(conn: Any) -> None:
    before = sorted(os.listdir('/dev/fd'))
    release_descriptor(conn)
    assert sorted(os.listdir('/dev/fd')) == before


def test_a_socket_that_is_closed_is_left_alone() -> None:
    one, other = socket.socketpair()
    one.close()
    release_descriptor(one)
    other.close()


def test_a_descriptor_stays_taken_by_something_that_nobody_hears() -> None:
    one, other = socket.socketpair()
    copy = socket.socket(fileno=os.dup(one.fileno()))  # as the parent has one
    descriptor = one.fileno()
    release_descriptor(Talker(descriptor))
    other.sendall(b'for the parent')
    assert copy.recv(100) == b'for the parent'
    one.setblocking(False)
    with pytest.raises(OSError):
        one.recv(100)
    for sock in (one, other, copy):
        sock.close()
