"""TLS connections are made to the host that was asked for, certified by somebody who is trusted, or not at all."""

import asyncio
import datetime
import importlib
import inspect
import pathlib
import ssl
from typing import Any, Callable

import pytest
from generic_connection_pool import asyncio as asyncio_pools
from generic_connection_pool import threading as threads_pools
from generic_connection_pool.contrib.socket import SslSocketConnectionManager
from generic_connection_pool.contrib.socket_async import TcpStreamConnectionManager
from support.servers import EchoServer, ask, ask_stream, tcp_echo_server

trustme = pytest.importorskip('trustme', exc_type=ImportError)

PAST = datetime.datetime(2020, 1, 1)
NAMES = ('localhost', '127.0.0.1')


def server_context(authority: Any, *names: str, **terms: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names, **terms).configure_cert(context)
    return context


@pytest.fixture
def authority(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Those who trust whom their system trusts, trust this one."""
    made = trustme.CA()
    made.cert_pem.write_to_path(str(tmp_path / 'trusted.pem'))
    monkeypatch.setenv('SSL_CERT_FILE', str(tmp_path / 'trusted.pem'))
    return made


def ask_in_thread(server: EchoServer, context: Any) -> bytes:
    pool: Any = threads_pools.ConnectionPool(SslSocketConnectionManager(context or ssl.create_default_context()))
    try:
        with pool.connection(('127.0.0.1', server.port), timeout=10) as sock:
            return ask(sock, b'hello\n')
    finally:
        pool.close()
        assert pool.get_size() == 0


def ask_in_task(server: EchoServer, context: Any) -> bytes:
    async def run() -> bytes:
        pool: Any = asyncio_pools.ConnectionPool(TcpStreamConnectionManager(ssl=context or True))
        try:
            async with pool.connection(('127.0.0.1', server.port), timeout=10) as stream:
                return await ask_stream(stream, b'hello\n')
        finally:
            await pool.close()
            assert pool.get_size() == 0

    return asyncio.run(run())


Ask = Callable[[EchoServer, Any], bytes]


@pytest.fixture(params=[ask_in_thread, ask_in_task], ids=['threads', 'asyncio'])
def ask_server(request: pytest.FixtureRequest) -> Ask:
    chosen: Ask = request.param
    return chosen


def test_by_default_who_is_trusted_is_answered(authority: Any, ask_server: Ask) -> None:
    with tcp_echo_server('127.0.0.1', server_context(authority, *NAMES)) as server:
        assert ask_server(server, None).strip() == b'hello'


def impostor(what: str, authority: Any) -> ssl.SSLContext:
    """Return the context of a server that is not to be believed."""
    if what == 'a stranger':
        return server_context(trustme.CA(), *NAMES)
    if what == 'another host':
        return server_context(authority, 'www.example.org', '127.0.0.2')
    if what == 'expired':
        until = datetime.datetime.now() - datetime.timedelta(days=1)
        return server_context(authority, *NAMES, not_before=until - datetime.timedelta(days=9), not_after=until)
    return server_context(authority, *NAMES, not_before=PAST, not_after=PAST + datetime.timedelta(days=90))


impostors = pytest.mark.parametrize('what', ['a stranger', 'another host', 'expired', 'expired long ago'])


@impostors
def test_by_default_nobody_else_is_answered(authority: Any, ask_server: Ask, what: str) -> None:
    with tcp_echo_server('127.0.0.1', impostor(what, authority)) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            ask_server(server, None)


def connect(kind: str, port: int) -> None:
    """Have a ready-made manager connect to a port, with TLS as it is by default, and disconnect."""
    pytest.importorskip({'http': 'http', 'smtp': 'smtplib'}.get(kind, 'redis'), exc_type=ImportError)
    module = importlib.import_module(f'generic_connection_pool.contrib.{kind}')
    endpoint: Any = 'main'
    if kind == 'http':
        manager, endpoint = module.HttpConnectionManager(), ('https', '127.0.0.1', port)
    elif kind == 'smtp':
        manager = module.SmtpConnectionManager({'main': module.SmtpServer('127.0.0.1', port, 'tls')})
    else:
        manager = module.RedisConnectionManager({'main': f'rediss://127.0.0.1:{port}'})
    if inspect.iscoroutinefunction(manager.create):

        async def run() -> None:
            await manager.dispose(endpoint, await asyncio.wait_for(manager.create(endpoint), 10))

        asyncio.run(run())
    else:
        manager.dispose(endpoint, manager.create(endpoint, 10))


@impostors
@pytest.mark.parametrize('kind', ['http', 'smtp', 'redis', 'redis_async'])
def test_by_default_no_ready_made_manager_connects_to_anybody_else(authority: Any, kind: str, what: str) -> None:
    with tcp_echo_server('127.0.0.1', impostor(what, authority)) as server:
        with pytest.raises(Exception) as caught:
            connect(kind, server.port)
    # that of redis-py is its own, and has a cause
    causes = (caught.value, caught.value.__cause__, getattr(caught.value.__cause__, '__cause__', None))
    assert any(isinstance(exc, ssl.SSLCertVerificationError) for exc in causes), repr(caught.value)


def test_who_is_trusted_is_connected_to_by_the_manager_of_http(authority: Any) -> None:
    with tcp_echo_server('127.0.0.1', server_context(authority, *NAMES)) as server:
        connect('http', server.port)
        assert server.accepted == 1


def test_a_context_of_ones_own_is_used_as_it_is(ask_server: Ask) -> None:
    careless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    careless.check_hostname = False
    careless.verify_mode = ssl.CERT_NONE
    with tcp_echo_server('127.0.0.1', server_context(trustme.CA(), 'www.example.org')) as server:
        assert ask_server(server, careless).strip() == b'hello'
        with pytest.raises(ssl.SSLCertVerificationError):
            ask_server(server, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    assert (careless.check_hostname, careless.verify_mode) == (False, ssl.CERT_NONE)


@pytest.mark.parametrize('wrong', [None, True, 'context', object()])
def test_what_is_no_context_is_refused_for_threads(wrong: Any) -> None:
    with pytest.raises(TypeError, match='ssl_context must be'):
        SslSocketConnectionManager(wrong)


@pytest.mark.parametrize('wrong', [0, 1, '', 'yes', [], ssl, ssl.SSLContext])
def test_what_is_merely_false_does_not_mean_no_encryption(wrong: Any) -> None:
    with pytest.raises(TypeError, match='ssl must be'):
        TcpStreamConnectionManager(ssl=wrong)
