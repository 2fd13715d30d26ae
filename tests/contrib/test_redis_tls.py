"""Redis connections over TLS, for threads, against a server that speaks it."""

from typing import Any, Dict

import pytest

redis = pytest.importorskip('redis', exc_type=ImportError)

from support.redis_server import RedisServer, scripted_server, tls_server as tls_server  # noqa: E402
from support.servers import open_descriptors  # noqa: E402

from generic_connection_pool.contrib.redis import RedisConnection, RedisConnectionManager, execute  # noqa: E402


def created(parameters: Any, timeout: Any = None) -> RedisConnection:
    return RedisConnectionManager({'main': parameters}).create('main', timeout=timeout)


def test_a_connection_over_tls_is_used_checked_and_reset(tls_server: RedisServer) -> None:
    manager = RedisConnectionManager({'main': tls_server.tls_parameters(db=1)})
    conn = manager.create('main', timeout=10)
    assert isinstance(conn, redis.SSLConnection)
    for database in range(3):
        manager.on_acquire('main', conn)
        execute(conn, 'SELECT', database)
        manager.on_release('main', conn)
        assert manager.check_aliveness('main', conn, 5)
        assert b' db=1 ' in execute(conn, 'CLIENT INFO')
    manager.dispose('main', conn)


def test_a_url_may_ask_for_tls(tls_server: RedisServer) -> None:
    authority = tls_server.directory / 'authority.pem'
    conn = created(f'rediss://localhost:{tls_server.tls_port}/0?ssl_ca_certs={authority}')
    assert execute(conn, 'PING') == b'PONG'
    conn.disconnect()


@pytest.mark.parametrize('change', [{'ssl_ca_certs': None}, {'host': '127.0.0.2'}])
def test_a_server_that_cannot_be_verified_is_refused_by_default(
    tls_server: RedisServer, change: Dict[str, Any]
) -> None:
    before = open_descriptors()
    parameters = tls_server.tls_parameters(**change)
    tls_server.ask('CONFIG', 'SET', 'bind', '127.0.0.1 127.0.0.2')
    with pytest.raises(redis.ConnectionError, match="endpoint 'main': the certificate is not to be trusted"):
        created(parameters, 5)
    assert open_descriptors() <= before
    # it is because of the certificate
    conn = created({**parameters, 'ssl_cert_reqs': 'none', 'ssl_check_hostname': False})
    assert execute(conn, 'PING') == b'PONG'
    conn.disconnect()


def test_a_server_that_does_not_speak_tls_is_refused() -> None:
    with scripted_server(lambda data: [b'-ERR what do you mean\r\n']) as where:
        with pytest.raises(redis.ConnectionError, match="could not connect to endpoint 'main': .*version"):
            created({**where, 'ssl': True}, 5)
