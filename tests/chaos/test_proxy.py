"""The proxy injects the faults that it says, and no others."""

import asyncio
import contextlib
import socket
from typing import Any, Iterator, List, Tuple

import pytest
from chaos.network import Network
from chaos.phases import ALL_FAULTS
from chaos.proxy import REACH, Fault, Proxy, Weather

#: a token longer than the reach of any fault
LONG = b'q' * (2 * REACH)


@contextlib.contextmanager
def client(proxy: Proxy, timeout: float = 5.0) -> Iterator[socket.socket]:
    with socket.create_connection(('127.0.0.1', proxy.port), timeout) as sock:
        yield sock


def read_to_end(sock: socket.socket) -> bytes:
    data = b''
    while True:
        piece = sock.recv(4096)
        if not piece:
            return data
        data += piece


def read(sock: socket.socket, count: int) -> bytes:
    data = b''
    while len(data) < count:
        data += sock.recv(4096)
    return data


@pytest.mark.parametrize('fault', [Fault.NONE, Fault.DELAY, Fault.TRICKLE])
def test_what_is_slow_arrives_unchanged(open_server: Any, fault: Fault) -> None:
    server, proxy = open_server()
    proxy.weather = Weather((fault,), 1.0)
    with client(proxy) as sock:
        sock.sendall(LONG + b' 0\n')
        assert read(sock, len(LONG) + 1) == LONG + b'\n'
    assert proxy.injected[fault] == (fault is not Fault.NONE)


def test_a_cut_ends_the_stream_in_the_middle_of_a_message(open_server: Any) -> None:
    server, proxy = open_server()
    proxy.weather = Weather((Fault.CUT,), 1.0)
    lengths = []
    for _ in range(8):
        with client(proxy) as sock:
            sock.sendall(LONG + b' 0\n')
            got = read_to_end(sock)
        assert LONG.startswith(got)
        lengths.append(len(got))
    # some in the question, some in the answer
    assert min(lengths) == 0 < max(lengths)
    assert proxy.injected[Fault.CUT] == 8


def test_a_reset_is_noticed_as_such(open_server: Any) -> None:
    server, proxy = open_server()
    proxy.weather = Weather((Fault.RESET,), 1.0)
    with client(proxy) as sock, pytest.raises(ConnectionResetError):
        sock.sendall(LONG + b' 0\n')
        read_to_end(sock)
    assert proxy.injected[Fault.RESET] == 1


@pytest.mark.parametrize('fault', [Fault.DROP, Fault.MUTE])
def test_after_a_silence_the_connection_is_reset(open_server: Any, fault: Fault) -> None:
    server, proxy = open_server()
    proxy.weather = Weather((fault,), 1.0)
    with client(proxy, timeout=0.1) as sock:
        sock.sendall(LONG + b' 0\n')
        with pytest.raises(TimeoutError):
            read(sock, len(LONG) + 1)
        assert proxy.injected[fault] == 1
        proxy.recover()
        sock.settimeout(5.0)
        with pytest.raises(ConnectionResetError):
            read_to_end(sock)
    assert server.accepted == (fault is Fault.DROP)


@pytest.mark.parametrize('fault', [Fault.DROP, Fault.CUT, Fault.RESET])
def test_a_fault_strikes_connections_that_are_open(open_server: Any, fault: Fault) -> None:
    server, proxy = open_server()
    with client(proxy) as sock:
        sock.sendall(b'before 0\n')
        assert read(sock, 7) == b'before\n'
        proxy.strike(fault)
        if fault is Fault.CUT:
            assert read_to_end(sock) == b''
        elif fault is Fault.RESET:
            with pytest.raises(ConnectionResetError):
                read_to_end(sock)
        else:
            sock.sendall(b'after 0\n')
            sock.settimeout(0.1)
            with pytest.raises(TimeoutError):
                sock.recv(1)


def test_while_it_is_down_connections_are_refused_and_then_they_are_not(open_server: Any) -> None:
    server, proxy = open_server()
    with client(proxy) as sock:
        sock.sendall(b'before 0\n')
        assert read(sock, 7) == b'before\n'
        proxy.go_down()
        with pytest.raises(ConnectionResetError):
            read_to_end(sock)
    with pytest.raises(ConnectionRefusedError), client(proxy):
        pass
    proxy.come_up()
    with client(proxy) as sock:
        sock.sendall(b'after 0\n')
        assert read(sock, 6) == b'after\n'


def test_a_client_is_reset_if_the_server_is_not_there(network: Network, tmp_path: Any) -> None:
    proxy = Proxy(network, str(tmp_path / 'nobody'))
    # perhaps as early as in connect()
    with pytest.raises(ConnectionResetError), client(proxy) as sock:
        read_to_end(sock)
    proxy.stop()


def test_the_same_seed_means_the_same_faults(network: Network, tmp_path: Any) -> None:
    async def draw(seed: int) -> 'List[Tuple[Fault, bool, int]]':
        proxy.weather, proxy._seed, proxy._numbers = Weather(ALL_FAULTS, 0.5), seed, iter(range(1000))
        links = [proxy._new_link() for _ in range(100)]
        await asyncio.sleep(0)
        return [(link.fault, link.strikes_answers, link.reach) for link in links]

    proxy = Proxy(network, str(tmp_path / 'nobody'))
    assert network.call(draw(1)) == network.call(draw(1)) != network.call(draw(2))
    assert {fault for fault, _, _ in network.call(draw(1))} == set(Fault)
    proxy.stop()
