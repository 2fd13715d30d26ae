"""Fifty tasks fetch a page each of one HTTPS server over no more than four connections."""

import asyncio

from servers import HttpsServer, https_server

from generic_connection_pool.asyncio import ConnectionPool
from generic_connection_pool.contrib.socket_async import Stream, TcpStreamConnectionManager, TcpStreamEndpoint


async def fetch(pool: ConnectionPool[TcpStreamEndpoint, Stream], endpoint: TcpStreamEndpoint, path: str) -> str:
    async with pool.connection(endpoint, timeout=5.0) as (reader, writer):
        writer.write(f'GET {path} HTTP/1.1\r\nHost: {endpoint[0]}\r\n\r\n'.encode())
        await writer.drain()
        head = (await reader.readuntil(b'\r\n\r\n')).decode().lower()
        length = int(head.split('content-length:')[1].split()[0])
        return (await reader.readexactly(length)).decode()


async def main(server: HttpsServer) -> None:
    # ssl=True will do for a server whose certificate is from a well-known authority
    pool = ConnectionPool(TcpStreamConnectionManager(ssl=server.client_context()), max_size=4)
    pages = await asyncio.gather(*(fetch(pool, server.endpoint, f'/page/{number}') for number in range(50)))
    await pool.close()
    print(*pages, sep='', end='')
    print(f'{len(pages)} pages came over {server.accepted} connections')


with https_server() as server:
    asyncio.run(main(server))
