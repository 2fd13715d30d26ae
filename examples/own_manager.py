"""A manager of one's own: what it takes to pool the connections of http.client."""

import concurrent.futures
import http.client
import select
import ssl
from typing import Optional, Tuple

from servers import https_server

from generic_connection_pool.threading import BaseConnectionManager, ConnectionPool

Endpoint = Tuple[str, int]


class HttpsConnectionManager(BaseConnectionManager[Endpoint, http.client.HTTPSConnection]):
    """Opens and closes :class:`http.client.HTTPSConnection`. Only ``create`` and ``dispose`` are a must."""

    def __init__(self, context: ssl.SSLContext):
        self._context = context

    def create(self, endpoint: Endpoint, timeout: Optional[float] = None) -> http.client.HTTPSConnection:
        host, port = endpoint
        conn = http.client.HTTPSConnection(host, port, timeout=timeout, context=self._context)
        conn.connect()
        assert conn.sock is not None
        conn.sock.settimeout(None)
        return conn

    def dispose(
        self, endpoint: Endpoint, conn: http.client.HTTPSConnection, timeout: Optional[float] = None
    ) -> None:
        conn.close()

    def check_aliveness(
        self, endpoint: Endpoint, conn: http.client.HTTPSConnection, timeout: Optional[float] = None
    ) -> bool:
        # asked before an idle connection is handed out: nothing is to be read from it, unless the server has closed it
        return conn.sock is not None and not select.select([conn.sock], [], [], 0)[0]

    def is_reusable(self, endpoint: Endpoint, conn: http.client.HTTPSConnection, exc: BaseException) -> bool:
        # asked when a block has failed: the answer may be half read, and the next user would get the rest
        return False


def fetch(pool: ConnectionPool[Endpoint, http.client.HTTPSConnection], endpoint: Endpoint, path: str) -> str:
    with pool.connection(endpoint, timeout=5.0) as conn:
        conn.request('GET', path)
        return conn.getresponse().read().decode()


with https_server() as server:
    pool = ConnectionPool(HttpsConnectionManager(server.client_context()), max_size=4)
    with concurrent.futures.ThreadPoolExecutor(max_workers=8) as threads:
        pages = [threads.submit(fetch, pool, server.endpoint, f'/page/{number}') for number in range(40)]
        for page in pages:
            print(page.result(), end='')
    pool.close()
    print(f'{len(pages)} pages came over {server.accepted} connections')
