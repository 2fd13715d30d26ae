"""Eight threads stream forty documents from one HTTPS server over no more than four connections of http.client."""

import concurrent.futures
import hashlib
from typing import Iterator

from servers import https_server

from generic_connection_pool.contrib.http import HttpConnection, HttpConnectionManager, HttpEndpoint, origin
from generic_connection_pool.threading import ConnectionPool

Pool = ConnectionPool[HttpEndpoint, HttpConnection]


def fetch(pool: Pool, url: str, chunk_size: int = 16) -> Iterator[bytes]:
    """Yield the body of a document as it comes. Whoever stops half-way costs the pool the connection, and no more."""
    endpoint = origin(url)
    target = url.split('/', 3)[3]
    with pool.connection(endpoint, timeout=5.0) as conn:
        conn.request('GET', f'/{target}')
        response = conn.getresponse()
        if response.status != 200:
            response.read()
            raise ValueError(f'{url}: {response.status} {response.reason}')
        while chunk := response.read(chunk_size):
            yield chunk


def digest(pool: Pool, url: str) -> str:
    total, size = hashlib.sha256(), 0
    for chunk in fetch(pool, url):
        total.update(chunk)
        size += len(chunk)
    return f'{url}: {size} bytes, SHA-256 {total.hexdigest()[:16]}...'


with https_server() as server:
    host, port = server.endpoint
    # ssl.create_default_context(), that is, which trusts the authority of this server
    pool: Pool = ConnectionPool(HttpConnectionManager(server.client_context(), io_timeout=10.0), max_size=4)
    with concurrent.futures.ThreadPoolExecutor(max_workers=8) as threads:
        urls = [f'https://{host}:{port}/document/{number}' for number in range(40)]
        for line in threads.map(lambda url: digest(pool, url), urls):
            print(line)
    # the first piece of a document is enough for this one
    print(next(fetch(pool, urls[0])))
    pool.close()
    print(f'{len(urls) + 1} documents came over {server.accepted} connections')
