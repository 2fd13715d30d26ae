"""HTTP connections that are closed by force at a bad moment, or were never open."""

import http.client
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Iterator, List

import pytest
from support.certificates import Certificates
from support.servers import PATIENCE
from support.servers_http import HttpServer, http_server

from generic_connection_pool.contrib.http import HttpConnection, HttpConnectionManager, HttpEndpoint, HttpResponse
from generic_connection_pool.threading import ConnectionPool

HttpPool = ConnectionPool[HttpEndpoint, HttpConnection]


@pytest.fixture(params=['http', 'https'])
def server(request: pytest.FixtureRequest, certificates: Certificates) -> Iterator[HttpServer]:
    with http_server(certificates.server() if request.param == 'https' else None) as server:
        yield server


@pytest.fixture
def manager(certificates: Certificates) -> HttpConnectionManager:
    return HttpConnectionManager(certificates.client(), io_timeout=PATIENCE)


def test_a_response_whose_head_is_just_being_read_when_the_pool_is_closed_by_force_does_not_end_there(
    manager: HttpConnectionManager, server: HttpServer
) -> None:
    # it would end wherever the connection does, which stays open
    server.scripts['/up-to-the-end'] = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: x\r\n\r\nnot all', False
    pool: HttpPool = ConnectionPool(manager)
    head_was_read, was_cut = threading.Event(), threading.Event()
    outcome: List[Any] = []

    class ResponseReadSlowly(HttpResponse):
        def begin(self) -> None:
            super().begin()
            head_was_read.set()
            assert was_cut.wait(PATIENCE)

    def use() -> None:
        with pool.connection(server.endpoint) as conn:
            conn.response_class = ResponseReadSlowly
            conn.request('GET', '/up-to-the-end')
            with conn.getresponse() as response:
                try:
                    outcome.append(response.read())
                except OSError as exc:
                    outcome.append(exc)

    user = threading.Thread(target=use)
    user.start()
    assert head_was_read.wait(PATIENCE)
    pool.close(timeout=0.02)
    was_cut.set()
    user.join(PATIENCE)
    assert not user.is_alive()
    assert isinstance(outcome[0], OSError)


def test_a_connection_that_was_never_opened_is_not_alive_and_any_thread_may_dispose_of_it(
    manager: HttpConnectionManager
) -> None:
    endpoint = 'http', '127.0.0.1', 80
    mine, theirs = HttpConnection(*endpoint[1:]), HttpConnection(*endpoint[1:])
    manager.on_acquire(endpoint, mine)
    with ThreadPoolExecutor(1) as elsewhere:
        elsewhere.submit(manager.on_acquire, endpoint, theirs).result()
    for conn in (mine, theirs):
        assert not manager.check_aliveness(endpoint, conn)
        manager.dispose(endpoint, conn)
        with pytest.raises(http.client.NotConnected):
            conn.request('GET', '/')
    assert not manager._holders
