"""What seldom happens to Redis connections for asyncio: servers that misbehave, users that do what few do."""

import asyncio
import gc
import logging
from typing import Any, AsyncIterator, Iterable

import pytest

redis = pytest.importorskip('redis', exc_type=ImportError)

from support.redis_server import RedisServer, agrees_to_all, scripted_server, server as server  # noqa: E402
from support.servers import eventually, eventually_async, open_descriptors  # noqa: E402

from generic_connection_pool.contrib.redis_async import (  # noqa: E402
    RedisConnection,
    RedisConnectionManager,
    client,
    execute,
)


@pytest.fixture
def manager(server: RedisServer) -> RedisConnectionManager:
    return RedisConnectionManager({'main': server.parameters()})


@pytest.fixture
async def conn(manager: RedisConnectionManager) -> AsyncIterator[RedisConnection]:
    conn = await manager.create('main')
    yield conn
    await manager.dispose('main', conn)


# -- checking


def begins_an_answer(data: bytes) -> Iterable[bytes]:
    """Only the length of an answer to ECHO; what is sent after it, back."""
    if b'ECHO' in data:
        return [b'$8\r\n']
    # a PING bears what its answer consists of
    return [data.partition(b'PING\r\n')[2]] if b'PING' in data else agrees_to_all(data)


async def test_what_the_parser_has_read_of_an_answer_makes_a_connection_unfit() -> None:
    with scripted_server(begins_an_answer) as where:
        manager = RedisConnectionManager({'main': {**where, 'protocol': 2}})
        conn = await manager.create('main')
        assert await manager.check_aliveness('main', conn)
        parser: Any = conn._parser
        if not hasattr(parser, '_chunks'):
            pytest.skip('another parser is in use')
        # behind the back of those that count
        writer: Any = conn.writer
        writer.write(b'ECHO leftover\r\n')
        for part in ('_chunks', '_buffer'):
            reading = asyncio.ensure_future(parser.read_response())
            await eventually_async(lambda: getattr(parser, part))
            reading.cancel()
            await asyncio.wait([reading])
        assert conn.session.is_at_rest
        assert not await manager.check_aliveness('main', conn)
        await manager.dispose('main', conn)


@pytest.mark.filterwarnings('ignore:unclosed:ResourceWarning', 'ignore::pytest.PytestUnraisableExceptionWarning')
def test_a_connection_whose_event_loop_has_ended_is_found_dead(
    manager: RedisConnectionManager, server: RedisServer
) -> None:
    before = open_descriptors()
    conn = asyncio.run(manager.create('main'))
    assert not asyncio.run(manager.check_aliveness('main', conn))
    asyncio.run(manager.dispose('main', conn))
    assert conn.writer is None
    del conn
    gc.collect()
    assert open_descriptors() == before
    eventually(lambda: not server.sessions())


# -- sending and reading


async def test_a_command_that_is_cancelled_while_it_is_sent_closes_the_connection_at_once(
    conn: RedisConnection, server: RedisServer
) -> None:
    before = open_descriptors()
    with server.stopped():
        writer: Any = conn.writer
        # more than the system takes; before Python 3.13.2 several pieces at once, as of a command, are not waited for
        writer.write(b'x' * 30_000_000)
        sending = asyncio.ensure_future(conn.send_command('SET', 'a', b'x'))
        await asyncio.sleep(0)
        assert not conn.session.is_at_rest
        assert not sending.done()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert conn.writer is None
        await eventually_async(lambda: open_descriptors() < before)


@pytest.mark.parametrize('command, seconds', [
    (('BLPOP', 'queue', 30), 0),
    # this one is answered; but that it has nothing to tell cannot be told from having told nothing yet
    (('GET', 'nothing'), 30),
])  # fmt: skip
@pytest.mark.parametrize('is_named', [False, True])
async def test_a_reply_that_its_user_may_not_have_waited_for_reaches_nobody_else(
    manager: RedisConnectionManager, conn: RedisConnection, command: Any, seconds: float, is_named: bool
) -> None:
    await conn.send_command(*command)
    reply = await (conn.read_response(timeout=seconds) if is_named else conn.read_response(False, seconds))
    assert reply is None
    assert not manager.is_reusable('main', conn, ValueError())
    await manager.on_release('main', conn)
    assert conn.writer is None


# -- releasing


async def test_a_session_whose_reset_is_answered_by_something_else_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    with scripted_server(agrees_to_all) as where:
        manager = RedisConnectionManager({'main': {**where, 'protocol': 2}})
        conn = await manager.create('main')
        await execute(conn, 'SELECT', 3)
        with caplog.at_level(logging.DEBUG, 'generic_connection_pool'):
            await manager.on_release('main', conn)
        assert conn.writer is None
        assert "a connection to 'main' was closed: its session could not be reset: ConnectionError" in caplog.text


# -- users' ways


async def test_a_function_of_the_users_own_that_shakes_hands_need_not_be_a_coroutine(server: RedisServer) -> None:
    def say_nothing(conn: Any) -> None:
        conn._parser.on_connect(conn)

    manager = RedisConnectionManager({'main': server.parameters(redis_connect_func=say_nothing)})
    conn = await manager.create('main')
    assert await execute(conn, 'ECHO', 'mine') == b'mine'
    assert await manager.check_aliveness('main', conn)
    await manager.dispose('main', conn)


async def test_a_client_that_closes_what_it_takes_for_its_pool_closes_nothing(conn: RedisConnection) -> None:
    number = await execute(conn, 'CLIENT ID')
    over_it = client(conn)
    lender: Any = over_it.connection_pool
    await lender.disconnect()
    await lender.aclose()
    assert await over_it.client_id() == number
    assert await execute(conn, 'CLIENT ID') == number
