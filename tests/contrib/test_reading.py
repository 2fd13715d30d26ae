"""The reader that http.client and smtplib are given: what it knows of what nobody has read."""

import socket
import threading
from typing import Any, Iterator, Tuple

import pytest
from support.servers import PATIENCE, eventually

from generic_connection_pool.contrib._reading import AnswerReader
from generic_connection_pool.contrib._sockets import Deadline


@pytest.fixture
def pair() -> Iterator[Tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


@pytest.fixture
def reader(pair: Any) -> Iterator[AnswerReader]:
    with AnswerReader(pair[0]) as reader:
        yield reader


def test_what_was_received_and_not_read_is_left(pair: Any, reader: AnswerReader) -> None:
    assert reader.left() == 0
    pair[1].sendall(b'one\ntwo\nthree')
    assert reader.readline() == b'one\n'
    assert reader.left() == 9
    assert reader.peek() == b'two\nthree'
    assert reader.left() == 9
    assert reader.read1(5) == b'two\nt'
    assert reader.left() == 4
    assert reader.read(4) == b'hree'
    assert reader.left() == 0


def test_what_is_larger_than_the_buffer_is_counted_as_well(pair: Any, reader: AnswerReader) -> None:
    sender = threading.Thread(target=pair[1].sendall, args=(b'x' * 300_000 + b'rest',))
    sender.start()
    assert len(reader.read(100_000)) == 100_000
    target = bytearray(200_000)
    assert reader.readinto(target) == 200_000
    sender.join()
    assert reader.read(1) == b'r'
    assert reader.left() == 3


def test_what_was_left_is_known_when_it_is_closed(pair: Any, reader: AnswerReader) -> None:
    pair[1].sendall(b'one\ntwo')
    reader.readline()
    reader.close()
    reader.close()
    assert reader.left() == 3


def test_the_descriptor_is_open_as_long_as_the_reader(pair: Any, reader: AnswerReader) -> None:
    pair[0].close()
    assert pair[0].fileno() >= 0
    reader.close()
    assert pair[0].fileno() == -1


def test_a_reader_that_has_timed_out_has_failed(pair: Any, reader: AnswerReader) -> None:
    pair[0].settimeout(0.01)
    pair[1].sendall(b'half')
    assert not reader.has_failed()
    with pytest.raises(TimeoutError):
        reader.read(8)
    assert reader.has_failed()


def test_a_reader_that_had_to_wait_without_being_allowed_to_has_failed(pair: Any, reader: AnswerReader) -> None:
    pair[0].settimeout(0)
    assert reader.read1(1) in (None, b'')
    pair[0].settimeout(None)
    pair[1].sendall(b'late')
    assert reader.read(4) == b'late'
    assert reader.has_failed()


def test_a_deadline_bounds_all_reading_together(pair: Any, reader: AnswerReader) -> None:
    reader.set_deadline(Deadline(0.1))
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(0.01):
            pair[1].sendall(b'.')

    dripping = threading.Thread(target=drip)
    dripping.start()
    try:
        with pytest.raises(TimeoutError):
            reader.readline()
    finally:
        stop.set()
        dripping.join()


def test_a_reader_that_is_cut_raises_at_the_end_of_the_stream_instead_of_returning_nothing(
    pair: Any, reader: AnswerReader
) -> None:
    outcome = []

    def read() -> None:
        try:
            outcome.append(reader.read())
        except ConnectionAbortedError as exc:
            outcome.append(exc)

    reading = threading.Thread(target=read)
    pair[1].sendall(b'not all')
    reading.start()
    eventually(lambda: reader._stream.tell() == 7)
    reader.cut()
    pair[0].shutdown(socket.SHUT_RDWR)
    reading.join(PATIENCE)
    assert isinstance(outcome[0], ConnectionAbortedError)
    with pytest.raises(ConnectionAbortedError):
        reader.read(1)
