"""The manager of Redis connections for asyncio, hook by hook, against real servers."""

import asyncio
import contextlib
import logging
import pathlib
import socket
import time
from typing import Any, AsyncIterator, Dict, Iterator

import pytest

redis = pytest.importorskip('redis', exc_type=ImportError)

from support.errors import all_that_is_told  # noqa: E402
from support.redis_server import (  # noqa: E402
    MUTE_USER,
    PASSWORD,
    USER,
    RedisServer,
    find_programs,
    redis_server,
    scripted_server,
    server as server,
    tls_server as tls_server,
)
from support.servers import (  # noqa: E402
    eventually_async,
    full_listener,
    open_descriptors,
    refusing_port,
    silent_server,
)

from generic_connection_pool.contrib import _redis  # noqa: E402
from generic_connection_pool.contrib.redis_async import (  # noqa: E402
    ConnectTimeoutError,
    RedisConnection,
    RedisConnectionManager,
    execute,
)

SECRET = 'tell-nobody-1848'


@pytest.fixture
def manager(server: RedisServer) -> RedisConnectionManager:
    return RedisConnectionManager({
        'main': server.parameters(), 'unix': {'unix_socket_path': server.path},
        'user': server.parameters(username=USER, password=PASSWORD, db=2, client_name='gerda'),
        'mute': server.parameters(username=MUTE_USER, password=PASSWORD),
    })  # fmt: skip


@pytest.fixture
async def conn(manager: RedisConnectionManager) -> AsyncIterator[RedisConnection]:
    conn = await manager.create('main')
    yield conn
    await manager.dispose('main', conn)


async def created(parameters: Any) -> RedisConnection:
    return await RedisConnectionManager({'main': parameters}).create('main')


# parameters


@pytest.mark.parametrize('endpoints, error, message', [
    (None, TypeError, 'not a NoneType'),
    ({'main': 6379}, TypeError, "endpoint 'main' must be connect keywords or a URL, not a int"),
    ({'main': 'redis://localhost?retry_on_timeout=yes'}, ValueError, 'retry_on_timeout'),
    ({'main': f'redis://:12/{SECRET}@localhost'}, ValueError, "the URL of endpoint 'main' cannot be parsed"),
    ({'main': {'ssl_ca_certs': SECRET}}, ValueError, 'ssl=True is missing'),
])  # fmt: skip
def test_parameters_that_cannot_be_are_refused_at_once_and_not_told(endpoints: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        RedisConnectionManager(endpoints)
    assert SECRET not in all_that_is_told(caught.value)


async def test_an_unknown_endpoint_is_named_and_so_are_the_known(manager: RedisConnectionManager) -> None:
    with pytest.raises(KeyError, match="unknown endpoint 'c'; known are: 'main', 'unix', 'user', 'mute'"):
        await manager.create('c')


async def test_parameters_of_an_asynchronous_callable_are_asked_for_again_for_each_connection(
    server: RedisServer,
) -> None:
    passwords = ['first', 'second']
    server.ask('ACL', 'SETUSER', 'rotating', 'reset', 'on', '>first', '~*', '+@all')

    async def parameters() -> Any:
        await asyncio.sleep(0)
        return server.parameters(username='rotating', password=passwords[0])

    manager = RedisConnectionManager({'main': parameters})
    first = await manager.create('main')
    server.ask('ACL', 'SETUSER', 'rotating', '<first', '>second')
    with pytest.raises(redis.AuthenticationError):
        await manager.create('main')
    del passwords[0]
    second = await manager.create('main')
    for conn in (first, second):
        assert await execute(conn, 'ACL WHOAMI') == b'rotating'
        await manager.dispose('main', conn)


# connecting


@pytest.mark.parametrize('protocol', [2, 3])
async def test_wrong_credentials_are_an_error_that_does_not_tell_them(server: RedisServer, protocol: int) -> None:
    before = open_descriptors()
    with pytest.raises(redis.AuthenticationError, match="'main' does not let us in: invalid username") as caught:
        await created(server.parameters(username='nobody', password=SECRET, protocol=protocol))
    await eventually_async(lambda: open_descriptors() == before)
    told = all_that_is_told(caught.value)
    assert SECRET not in told and 'nobody' not in told


async def test_what_a_server_quotes_of_the_credentials_is_not_told() -> None:
    reply = b'-ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `%s`, \r\n' % SECRET.encode()
    with scripted_server(lambda data: [reply]) as where:
        with pytest.raises(redis.ResponseError, match="endpoint 'main'") as caught:
            await created({**where, 'password': SECRET, 'protocol': 3})
    assert SECRET not in all_that_is_told(caught.value)


async def test_a_refused_connection_says_which_endpoint_and_why() -> None:
    with pytest.raises(redis.ConnectionError, match="could not connect to endpoint 'main': Connection refused"):
        await created({'host': '127.0.0.1', 'port': refusing_port(), 'password': SECRET})
    with pytest.raises(redis.ConnectionError, match="could not connect to endpoint 'main': No such file"):
        await created({'unix_socket_path': '/nowhere/redis.sock'})


async def test_the_timeouts_of_the_parameters_hold() -> None:
    with silent_server() as (host, port):
        before = open_descriptors()
        for more in ({'socket_timeout': 0.1, 'password': SECRET}, {'socket_connect_timeout': 0.1, 'ssl': True}):
            with pytest.raises(ConnectTimeoutError, match="connecting to endpoint 'main' took too long") as caught:
                await asyncio.wait_for(created({'host': host, 'port': port, **more}), 10)
            assert isinstance(caught.value, TimeoutError) and isinstance(caught.value, redis.TimeoutError)
        await eventually_async(lambda: open_descriptors() == before)


@pytest.mark.parametrize('pause', [0, 0.001])
@pytest.mark.parametrize('rounds', range(10))
@pytest.mark.parametrize('endpoint', ['user', 'unix'])
async def test_a_connect_cancelled_at_any_step_leaves_nothing_behind(
    manager: RedisConnectionManager, server: RedisServer, endpoint: str, rounds: int, pause: float
) -> None:
    before = open_descriptors()
    creating = asyncio.ensure_future(manager.create(endpoint))
    for _ in range(rounds):
        await asyncio.sleep(pause)
    creating.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await manager.dispose(endpoint, await creating)
    await eventually_async(lambda: open_descriptors() == before)
    await eventually_async(lambda: not server.sessions())


@pytest.mark.parametrize('more', [{}, {'ssl': True}])
async def test_a_connect_cancelled_while_a_server_does_not_answer_leaves_nothing_behind(more: Dict[str, Any]) -> None:
    with silent_server() as (host, port):
        before = open_descriptors()
        creating = asyncio.ensure_future(created({'host': host, 'port': port, 'password': SECRET, **more}))
        await asyncio.wait([creating], timeout=0.1)
        creating.cancel()
        with pytest.raises(asyncio.CancelledError):
            await creating
        await eventually_async(lambda: open_descriptors() == before)


async def test_a_unix_listener_without_room_is_an_error(short_directory: pathlib.Path) -> None:
    path = str(short_directory / 'full')
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    with full_listener(listener):
        before = open_descriptors()
        with pytest.raises(redis.ConnectionError, match="endpoint 'main'"):
            await created({'path': path})
        assert open_descriptors() == before


async def test_a_function_of_the_users_own_may_shake_hands(
    server: RedisServer, manager: RedisConnectionManager
) -> None:
    async def shake_hands(conn: Any) -> None:
        await conn.on_connect()
        await execute(conn, 'SELECT', 4)

    conn = await created(server.parameters(redis_connect_func=shake_hands))
    await manager.on_release('main', conn)
    assert b' db=4 ' in await execute(conn, 'CLIENT INFO')
    # nobody but the user knows how to bring the session back
    await execute(conn, 'SELECT', 5)
    await manager.on_release('main', conn)
    assert conn.writer is None


# TLS


async def test_a_connection_over_tls_is_used_checked_and_reset(tls_server: RedisServer) -> None:
    manager = RedisConnectionManager({'main': tls_server.tls_parameters(db=1)})
    conn = await manager.create('main')
    assert isinstance(conn, redis.asyncio.SSLConnection)
    for database in range(3):
        await execute(conn, 'SELECT', database)
        await manager.on_release('main', conn)
        assert await manager.check_aliveness('main', conn)
        assert b' db=1 ' in await execute(conn, 'CLIENT INFO')
    await manager.dispose('main', conn)


@pytest.mark.parametrize('change', [{'ssl_ca_certs': None}, {'host': '127.0.0.2'}])
async def test_a_server_that_cannot_be_verified_is_refused_by_default(
    tls_server: RedisServer, change: Dict[str, Any]
) -> None:
    parameters = tls_server.tls_parameters(**change)
    tls_server.ask('CONFIG', 'SET', 'bind', '127.0.0.1 127.0.0.2')
    with pytest.raises(redis.ConnectionError, match="endpoint 'main': the certificate is not to be trusted"):
        await created(parameters)
    # it is because of the certificate
    conn = await created({**parameters, 'ssl_cert_reqs': 'none', 'ssl_check_hostname': False})
    assert await execute(conn, 'PING') == b'PONG'
    await conn.disconnect()


@pytest.mark.parametrize('stuck', [False, True])
async def test_a_connection_over_tls_is_disposed_of_in_time(tls_server: RedisServer, stuck: bool) -> None:
    manager = RedisConnectionManager({'main': tls_server.tls_parameters()})
    conn = await manager.create('main')
    before = open_descriptors()
    with tls_server.stopped() if stuck else contextlib.nullcontext():
        started = time.monotonic()
        await manager.dispose('main', conn)
        await eventually_async(lambda: open_descriptors() == before - 1)
        assert time.monotonic() - started < 3


async def test_a_cancelled_command_over_tls_frees_its_descriptor_at_once_though_the_server_is_stuck(
    tls_server: RedisServer,
) -> None:
    before = open_descriptors()
    conn = await created(tls_server.tls_parameters())
    with tls_server.stopped():
        asking = asyncio.ensure_future(execute(conn, 'GET', 'a'))
        await asyncio.wait([asking], timeout=0.05)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        started = time.monotonic()
        await eventually_async(lambda: open_descriptors() == before)
        assert time.monotonic() - started < 3


# checking


@pytest.mark.parametrize('endpoint', ['main', 'unix', 'user', 'mute'])
async def test_an_idle_connection_is_found_alive_time_and_again(manager: RedisConnectionManager, endpoint: str) -> None:
    conn = await manager.create(endpoint)
    for _ in range(3):
        assert await manager.check_aliveness(endpoint, conn)
        assert await execute(conn, 'ECHO', 'mine') == b'mine'
    await manager.dispose(endpoint, conn)


async def test_a_connection_that_the_server_has_closed_is_found_dead(
    manager: RedisConnectionManager, conn: RedisConnection, server: RedisServer
) -> None:
    server.ask('CLIENT KILL', 'ID', await execute(conn, 'CLIENT ID'))
    # the event loop has had no chance to notice
    assert not await manager.check_aliveness('main', conn)


@pytest.mark.parametrize('seen_before', [False, True])
async def test_a_connection_with_something_unread_is_found_unfit(
    manager: RedisConnectionManager, conn: RedisConnection, seen_before: bool
) -> None:
    # what nobody has asked for: behind the back of those that count
    writer: Any = conn.writer
    writer.write(b'ECHO leftover\r\n')
    if seen_before:
        await eventually_async(lambda: conn._reader is not None and b'leftover' in getattr(conn._reader, '_buffer'))
    assert conn.session.is_at_rest
    assert not await manager.check_aliveness('main', conn)


async def test_a_leftover_reply_that_comes_while_the_ping_is_answered_is_not_taken_for_its_answer(
    manager: RedisConnectionManager,
) -> None:
    # as often as it is asked in the handshake
    with scripted_server(lambda data: [b'+PONG\r\n'] * (data.count(b'SETINFO') or 1)) as where:
        conn = await created({**where, 'protocol': 2})
        assert not await manager.check_aliveness('main', conn)
        await manager.dispose('main', conn)


@pytest.mark.parametrize('socket_timeout', [None, 0.1])
async def test_a_check_gives_up_in_time(
    server: RedisServer, socket_timeout: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_redis, 'PONG_GRACE', 0.1)
    manager = RedisConnectionManager({'main': server.parameters(socket_timeout=socket_timeout)})
    conn = await manager.create('main')
    with server.stopped():
        assert not await asyncio.wait_for(manager.check_aliveness('main', conn), 5)
    await manager.dispose('main', conn)


async def test_a_connection_closed_by_its_user_is_found_dead(
    manager: RedisConnectionManager, conn: RedisConnection
) -> None:
    await conn.disconnect()
    assert not await manager.check_aliveness('main', conn)


# releasing


@pytest.fixture(params=sorted(find_programs()) or ['none'])
def server_without_reset(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    if request.param == 'none':
        pytest.skip('no such server to be had')
    with redis_server(find_programs()[request.param], more='rename-command RESET ""\n') as running:
        yield running


async def test_a_session_that_cannot_be_reset_is_closed_and_no_credentials_are_told(
    server_without_reset: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    parameters = server_without_reset.parameters(username=USER, password=PASSWORD)
    manager = RedisConnectionManager({'main': parameters})
    conn = await manager.create('main')
    await execute(conn, 'SELECT', 3)
    with caplog.at_level(logging.DEBUG, 'generic_connection_pool'):
        await manager.on_release('main', conn)
    assert conn.writer is None
    assert not await manager.check_aliveness('main', conn)
    assert "a connection to 'main' was closed: its session could not be reset: ResponseError" in caplog.text
    assert PASSWORD not in caplog.text


async def test_a_reset_that_is_not_answered_closes_the_connection_in_time(
    manager: RedisConnectionManager, conn: RedisConnection, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_redis, 'RESET_GRACE', 0.1)
    await execute(conn, 'SELECT', 3)
    with server.stopped():
        await asyncio.wait_for(manager.on_release('main', conn), 5)
    assert conn.writer is None


@pytest.mark.parametrize('rounds', range(4))
async def test_a_reset_that_is_cancelled_closes_the_connection(
    manager: RedisConnectionManager, conn: RedisConnection, server: RedisServer, rounds: int
) -> None:
    await execute(conn, 'SELECT', 3)
    with server.stopped():
        releasing = asyncio.ensure_future(manager.on_release('main', conn))
        for _ in range(rounds):
            await asyncio.sleep(0)
        releasing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await releasing
    # if it was cancelled before it had begun, the session is as it was
    assert not await manager.check_aliveness('main', conn)
    assert conn.writer is None or not rounds


async def test_hooks_do_not_suspend_if_nothing_was_changed(
    manager: RedisConnectionManager, conn: RedisConnection
) -> None:
    await execute(conn, 'GET', 'a')
    with pytest.raises(StopIteration):
        manager.on_release('main', conn).send(None)


# failures


@pytest.mark.parametrize('failure, reusable', [
    (ValueError(), True), (asyncio.TimeoutError(), True), (redis.ResponseError(), True),
    (asyncio.CancelledError(), True), (redis.ConnectionError(), False), (redis.TimeoutError(), False),
    (KeyboardInterrupt(), False), (GeneratorExit(), False),
])  # fmt: skip
async def test_a_failure_tells_whether_a_session_can_go_on(
    manager: RedisConnectionManager, conn: RedisConnection, failure: BaseException, reusable: bool
) -> None:
    assert manager.is_reusable('main', conn, failure) is reusable
    await conn.send_command('PING')
    assert not manager.is_reusable('main', conn, failure)
    await conn.read_response()
    await conn.disconnect()
    assert not manager.is_reusable('main', conn, failure)


@pytest.mark.parametrize('stopped', [False, True])
async def test_disposing_does_not_mind_a_server_that_is_stuck_or_gone_or_a_connection_that_is_closed(
    manager: RedisConnectionManager, server: RedisServer, stopped: bool
) -> None:
    conns = [await manager.create('main') for _ in range(3)]
    await conns[0].send_command('BLPOP', 'queue', 30)
    await conns[1].disconnect()
    if stopped:
        with server.stopped():
            for conn in conns:
                await asyncio.wait_for(manager.dispose('main', conn), 3)
    else:
        server.restart()
        for conn in conns * 2:
            await manager.dispose('main', conn)
    await eventually_async(lambda: not server.sessions())


async def test_disposing_gives_up_on_a_server_that_does_not_read(server: RedisServer) -> None:
    manager = RedisConnectionManager({'main': server.parameters(socket_timeout=0.2)})
    conn = await manager.create('main')
    with server.stopped():
        # more than fits into all buffers
        with pytest.raises(redis.TimeoutError):
            await execute(conn, 'SET', 'a', b'.' * (1 << 26))
        await asyncio.wait_for(manager.dispose('main', conn), 3)
    assert conn.writer is None


async def test_a_lost_connection_is_not_connected_again_unseen(conn: RedisConnection, server: RedisServer) -> None:
    await execute(conn, 'SELECT', 3)
    server.ask('CLIENT KILL', 'ID', await execute(conn, 'CLIENT ID'))
    with pytest.raises(redis.ConnectionError):
        await execute(conn, 'GET', 'a')
    for again in (lambda: execute(conn, 'GET', 'a'), conn.connect, conn.connect_check_health):
        with pytest.raises(redis.ConnectionError, match='does not connect again'):
            await again()
    assert not server.sessions()
