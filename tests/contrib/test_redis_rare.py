"""What seldom happens to Redis connections for threads: servers that misbehave, users that do what few do."""

import logging
import socket
from typing import Any, Iterable, Iterator

import pytest

redis = pytest.importorskip('redis', exc_type=ImportError)

from support.redis_server import RedisServer, agrees_to_all, scripted_server, server as server  # noqa: E402

from generic_connection_pool.contrib.redis import (  # noqa: E402
    RedisConnection,
    RedisConnectionManager,
    client,
    execute,
)


@pytest.fixture
def manager(server: RedisServer) -> RedisConnectionManager:
    return RedisConnectionManager({'main': server.parameters()})


@pytest.fixture
def conn(manager: RedisConnectionManager) -> Iterator[RedisConnection]:
    conn = manager.create('main')
    yield conn
    manager.dispose('main', conn)


def hangs_up_on_a_ping(data: bytes) -> Iterable[bytes]:
    if b'PING' in data:
        raise ConnectionAbortedError
    return agrees_to_all(data)


def test_a_server_that_hangs_up_instead_of_answering_a_ping_is_found_dead() -> None:
    with scripted_server(hangs_up_on_a_ping) as where:
        manager = RedisConnectionManager({'main': {**where, 'protocol': 2}})
        conn = manager.create('main')
        assert not manager.check_aliveness('main', conn, 5)
        manager.dispose('main', conn)


def test_a_session_whose_reset_is_answered_by_something_else_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    with scripted_server(agrees_to_all) as where:
        manager = RedisConnectionManager({'main': {**where, 'protocol': 2}})
        conn = manager.create('main')
        execute(conn, 'SELECT', 3)
        with caplog.at_level(logging.DEBUG, 'generic_connection_pool'):
            manager.on_release('main', conn)
        assert conn.sock is None
        assert "a connection to 'main' was closed: its session could not be reset: ConnectionError" in caplog.text


def test_who_connects_a_connection_that_is_connected_goes_on_with_it(conn: RedisConnection) -> None:
    sock, number = conn.sock, execute(conn, 'CLIENT ID')
    conn.connect()
    assert conn.sock is sock
    assert execute(conn, 'CLIENT ID') == number


@pytest.mark.parametrize('keeps_alive', [False, True])
def test_a_socket_is_kept_alive_if_the_parameters_say_so(server: RedisServer, keeps_alive: bool) -> None:
    manager = RedisConnectionManager({'main': server.parameters(socket_keepalive=keeps_alive)})
    conn = manager.create('main')
    assert conn.sock is not None
    assert bool(conn.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)) is keeps_alive
    manager.dispose('main', conn)


def test_a_client_that_closes_what_it_takes_for_its_pool_closes_nothing(conn: RedisConnection) -> None:
    number = execute(conn, 'CLIENT ID')
    over_it = client(conn)
    lender: Any = over_it.connection_pool
    lender.disconnect()
    lender.close()
    assert over_it.client_id() == number
    assert execute(conn, 'CLIENT ID') == number
