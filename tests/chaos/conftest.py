"""Fixtures of the chaos tests: servers behind proxies, and a watch over what is left behind."""

from typing import Any, Callable, Iterator

import pytest
from chaos.network import Network
from chaos.proxy import Proxy
from chaos.questions import QuestionServer
from chaos.world import Servers, furnish, running_servers
from support.certificates import Certificates
from support.postgres import PostgresServer
from support.servers import eventually, open_descriptors

#: makes a question server and a proxy before it
OpenServer = Callable[..., 'tuple[QuestionServer, Proxy]']


@pytest.fixture(autouse=True)
def no_descriptor_is_left_open() -> Iterator[None]:
    """Fails any test that leaves a file descriptor open."""
    before = open_descriptors()
    yield
    eventually(lambda: open_descriptors() <= before, 'the closing of all file descriptors')


@pytest.fixture
def network(no_descriptor_is_left_open: None) -> Iterator[Network]:
    with Network() as network:
        yield network


@pytest.fixture
def open_server(network: Network) -> Iterator[OpenServer]:
    """Opens question servers, each with a proxy before it. In the end no connection may be left."""
    opened = []

    def open_server(context: Any = None, seed: int = 0) -> 'tuple[QuestionServer, Proxy]':
        server = QuestionServer(network, context)
        opened.append((server, Proxy(network, server.port, seed)))
        return opened[-1]

    yield open_server
    for server, proxy in opened:
        server.let_go()
        proxy.recover()
    for server, proxy in opened:
        eventually(lambda: proxy.open + server.open == 0, 'the end of all connections')
        proxy.stop()
        server.stop()


@pytest.fixture(scope='session')
def furnished_postgres(postgres: PostgresServer) -> PostgresServer:
    furnish(postgres)
    return postgres


@pytest.fixture
def servers(furnished_postgres: PostgresServer, certificates: Certificates) -> Iterator[Servers]:
    """All servers behind proxies. In the end no session and no connection may be left."""
    with running_servers(furnished_postgres, certificates, seed=0) as servers:
        yield servers
        servers.recover()
        eventually(lambda: not servers.sessions(), 'the end of all sessions')
        for proxy in servers.proxies:
            eventually(lambda: not proxy.open, 'the end of all connections')
