"""Eight threads fetch forty pages of one HTTPS server over no more than four connections."""

import concurrent.futures
import http.client
import ssl

from servers import https_server

from generic_connection_pool.contrib.socket import SslEndpoint, SslSocketConnectionManager
from generic_connection_pool.threading import ConnectionPool


def fetch(pool: ConnectionPool[SslEndpoint, ssl.SSLSocket], endpoint: SslEndpoint, path: str) -> str:
    with pool.connection(endpoint, timeout=5.0) as sock:
        sock.sendall(f'GET {path} HTTP/1.1\r\nHost: {endpoint[0]}\r\n\r\n'.encode())
        with http.client.HTTPResponse(sock) as response:
            response.begin()
            return response.read().decode()  # all of it: the connection is to be at rest when the next user gets it


with https_server() as server:
    # ssl.create_default_context(), that is, which trusts the authority of this server
    pool = ConnectionPool(SslSocketConnectionManager(server.client_context()), max_size=4)
    with concurrent.futures.ThreadPoolExecutor(max_workers=8) as threads:
        pages = [threads.submit(fetch, pool, server.endpoint, f'/page/{number}') for number in range(40)]
        for page in pages:
            print(page.result(), end='')
    pool.close()
    print(f'{len(pages)} pages came over {server.accepted} connections')
