"""A TLS server that is replaced by another: nobody talks to it, and all are told why."""

import asyncio
import ssl
from typing import Any

import pytest
from chaos.network import PATIENCE
from chaos.tasks import StreamTasks
from chaos.threads import TlsThreads
from support.certificates import Certificates
from support.servers import eventually, eventually_async

from generic_connection_pool import asyncio as asyncio_pools
from generic_connection_pool import threading as threading_pools

WRONG = ['another authority', 'another name']


def wrong(certificates: Certificates, what: str) -> ssl.SSLContext:
    return Certificates().server() if what == 'another authority' else certificates.server('other.example')


def ask(pool: Any, kind: TlsThreads) -> bytes:
    with pool.connection(kind.endpoint, timeout=PATIENCE) as sock:
        sock.settimeout(PATIENCE)
        sock.sendall(b'question 0\n')
        return kind.receive_line(sock)


async def ask_async(pool: Any, kind: StreamTasks) -> bytes:
    async with pool.connection(kind.endpoint, timeout=PATIENCE) as conn:
        await kind.send(conn, b'question 0\n')
        return await asyncio.wait_for(kind.receive_line(conn), PATIENCE)


@pytest.mark.parametrize('what', WRONG)
def test_a_server_with_a_wrong_certificate_is_told_nothing(
    open_server: Any, certificates: Certificates, what: str
) -> None:
    server, proxy = open_server(certificates.server())
    kind = TlsThreads(proxy.port, certificates.client())
    pool: Any = threading_pools.ConnectionPool(kind.manager, max_size=2)
    assert ask(pool, kind) == b'question\n'
    server.replace(wrong(certificates, what))
    eventually(lambda: proxy.open == 0)
    before = server.received
    for _ in range(3):
        with pytest.raises(ssl.SSLCertVerificationError, match='certificate verify failed'):
            ask(pool, kind)
    assert server.received == before
    server.replace(certificates.server())
    assert ask(pool, kind) == b'question\n'
    pool.close(timeout=5)


@pytest.mark.parametrize('what', WRONG)
async def test_a_server_with_a_wrong_certificate_is_told_nothing_by_a_stream(
    open_server: Any, certificates: Certificates, what: str
) -> None:
    server, proxy = open_server(certificates.server())
    kind = StreamTasks(proxy.port, certificates.client())
    pool: Any = asyncio_pools.ConnectionPool(kind.manager, max_size=2)
    assert await ask_async(pool, kind) == b'question\n'
    server.replace(wrong(certificates, what))
    await eventually_async(lambda: proxy.open == 0)
    before = server.received
    for _ in range(3):
        with pytest.raises(ssl.SSLCertVerificationError, match='certificate verify failed'):
            await ask_async(pool, kind)
    assert server.received == before
    server.replace(certificates.server())
    assert await ask_async(pool, kind) == b'question\n'
    await pool.close(timeout=5)
