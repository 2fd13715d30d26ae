"""A pool of Redis connections for asyncio, against real servers."""

import asyncio
import contextlib
import gc
import os
from typing import Any, AsyncIterator, Awaitable, Callable, List

import pytest

redis = pytest.importorskip('redis', exc_type=ImportError)

from support.crowds import crowd_of_tasks  # noqa: E402
from support.forking import in_child  # noqa: E402
from support.redis_server import RedisServer, server as server  # noqa: E402
from support.servers import (  # noqa: E402
    eventually,
    eventually_async,
    open_descriptors,
    refusing_port,
    silent_server,
)

from generic_connection_pool.asyncio import ConnectionPool  # noqa: E402
from generic_connection_pool.contrib.redis_async import (  # noqa: E402
    RedisConnection,
    RedisConnectionManager,
    client,
    execute,
)

Pool = ConnectionPool[str, RedisConnection]


@pytest.fixture(autouse=True)
def no_data(server: RedisServer) -> None:
    server.ask('FLUSHALL')


@pytest.fixture
def manager(server: RedisServer) -> RedisConnectionManager:
    return RedisConnectionManager({
        'tcp': server.parameters(),
        'url': f'{server.url}/3?protocol=2&decode_responses=true',
        'unix': f'unix://{server.path}',
        'named': server.parameters(db=5, client_name='gerda', protocol=3),
    })  # fmt: skip


@pytest.fixture
async def pool(manager: RedisConnectionManager) -> AsyncIterator[Pool]:
    async with opened(manager) as pool:
        yield pool


@contextlib.asynccontextmanager
async def opened(manager: RedisConnectionManager, **parameters: Any) -> AsyncIterator[Pool]:
    """A pool that is closed at the end of a block."""
    pool: Pool = ConnectionPool(manager, **parameters)
    try:
        yield pool
    finally:
        await pool.close(timeout=5)


async def number_of(conn: RedisConnection) -> int:
    """The number that the server has given to a connection."""
    number: int = await execute(conn, 'CLIENT', 'ID')
    return number


@pytest.mark.parametrize('endpoint', ['tcp', 'url', 'unix', 'named'])
async def test_a_connection_is_reused(pool: Pool, endpoint: str) -> None:
    numbers = []
    for _ in range(3):
        async with pool.connection(endpoint) as conn:
            numbers.append(await number_of(conn))
    assert len(set(numbers)) == 1


async def test_each_endpoint_leads_where_its_parameters_say(pool: Pool, server: RedisServer) -> None:
    for endpoint in ('tcp', 'url', 'unix', 'named'):
        async with pool.connection(endpoint) as conn:
            assert await execute(conn, 'SET', 'here', endpoint) in (b'OK', 'OK')
    assert {db: server.ask('GET', 'here', db=db) for db in (0, 3, 5)} == {0: b'unix', 3: b'url', 5: b'named'}
    async with pool.connection('url') as conn:
        assert await execute(conn, 'GET', 'here') == 'url'


async def add_one(pipeline: Any) -> None:
    pipeline.multi()
    pipeline.incr('n')


async def test_a_client_sends_all_its_commands_over_one_pooled_connection(pool: Pool) -> None:
    async with pool.connection('tcp') as conn:
        assert isinstance(conn, redis.asyncio.Connection)
        number = await number_of(conn)
        async with client(conn) as over_it:
            assert await over_it.client_id() == number
            await over_it.hset('hash', mapping={'a': 1, 'b': 2})
            assert await over_it.hgetall('hash') == {b'a': b'1', b'b': b'2'}
            async with over_it.pipeline() as pipeline:
                assert await pipeline.incr('n').incr('n').client_id().execute() == [1, 2, number]
            assert await over_it.transaction(add_one, 'n') == [3]
    async with pool.connection('tcp') as conn:
        assert await number_of(conn) == number


async def test_a_client_understands_replies_as_the_parameters_say(pool: Pool) -> None:
    async with pool.connection('url') as conn:
        over_it = client(conn)
        await over_it.zadd('scores', {'a': 1.5})
        assert await over_it.zrange('scores', 0, -1, withscores=True) == [('a', 1.5)]


async def test_releasing_asks_nothing_of_the_server_if_only_data_were_used(pool: Pool, server: RedisServer) -> None:
    async with pool.connection('tcp') as conn:
        async with client(conn).pipeline() as pipeline:
            await pipeline.watch('n')
            pipeline.multi()
            await pipeline.set('n', 1).execute()
        with pytest.raises(redis.ResponseError):
            await execute(conn, 'INCR', 'n', 'too', 'many')
        before = server.commands_done()
    assert server.commands_done() == before


async def leave_another_database(conn: RedisConnection) -> None:
    await execute(conn, 'SELECT', 7)


async def leave_a_name(conn: RedisConnection) -> None:
    await execute(conn, 'CLIENT SETNAME', 'kay')


async def leave_a_transaction(conn: RedisConnection) -> None:
    await execute(conn, 'MULTI')
    await execute(conn, 'SET', 'n', 1)


async def leave_a_watch(conn: RedisConnection) -> None:
    await execute(conn, 'WATCH', 'n')


async def leave_another_user(conn: RedisConnection) -> None:
    await execute(conn, 'AUTH', 'cassim', 'open-sesame-1848')


async def leave_a_change_by_a_pipeline(conn: RedisConnection) -> None:
    await client(conn).pipeline(transaction=False).set('a', 1).execute_command('SELECT', 7).set('b', 2).execute()


@pytest.mark.parametrize('endpoint', ['tcp', 'url', 'unix', 'named'])
@pytest.mark.parametrize('leave', [
    leave_another_database, leave_a_name, leave_a_transaction, leave_a_watch, leave_another_user,
    leave_a_change_by_a_pipeline,
])  # fmt: skip
async def test_what_a_user_has_changed_in_the_session_is_reset(
    pool: Pool, server: RedisServer, endpoint: str, leave: Callable[[RedisConnection], Awaitable[None]]
) -> None:
    async def look(conn: RedisConnection) -> Any:
        described = await execute(conn, 'CLIENT', 'INFO')
        text = described if isinstance(described, str) else described.decode()
        told = dict(pair.split('=', 1) for pair in text.split())
        return {name: told.get(name) for name in ('id', 'name', 'db', 'user', 'flags', 'resp', 'lib-name')}

    async with pool.connection(endpoint) as conn:
        fresh = await look(conn)
        await leave(conn)
    async with pool.connection(endpoint) as again:
        assert again is conn
        assert await look(again) == fresh
        # a watch shows in what becomes of a transaction
        await execute(again, 'MULTI')
        server.ask('SET', 'n', 'changed by another', db=int(fresh['db']))
        await execute(again, 'GET', 'n')
        assert await execute(again, 'EXEC') in ([b'changed by another'], ['changed by another'])


async def leave_a_subscription(conn: RedisConnection) -> None:
    pubsub = client(conn).pubsub()
    await pubsub.subscribe('news')
    await pubsub.get_message(timeout=5)


async def leave_a_tracking(conn: RedisConnection) -> None:
    await execute(conn, 'CLIENT', 'TRACKING', 'ON', 'BCAST')


async def leave_replies_off(conn: RedisConnection) -> None:
    await conn.send_command('CLIENT', 'REPLY', 'OFF')


async def leave_a_reply(conn: RedisConnection) -> None:
    await conn.send_command('GET', 'n')


async def leave_a_reply_that_was_not_there_in_time(conn: RedisConnection) -> None:
    await conn.send_command('BLPOP', 'n', 30)
    assert await conn.read_response(timeout=0.01) is None


async def leave_what_nobody_can_tell(conn: RedisConnection) -> None:
    await conn.send_packed_command(b''.join(conn.pack_command('SELECT', 7)))
    await conn.read_response()


@pytest.mark.parametrize('leave', [
    leave_a_subscription, leave_a_tracking, leave_replies_off, leave_a_reply, leave_a_reply_that_was_not_there_in_time,
    leave_what_nobody_can_tell,
])  # fmt: skip
async def test_a_connection_on_which_more_may_come_is_closed(
    pool: Pool, server: RedisServer, leave: Callable[[RedisConnection], Awaitable[None]]
) -> None:
    async with pool.connection('tcp') as conn:
        number = await number_of(conn)
        await leave(conn)
    await eventually_async(lambda: number not in [int(session['id']) for session in server.sessions()])
    server.ask('PUBLISH', 'news', 'for nobody')
    async with pool.connection('tcp') as again:
        assert again is not conn
        assert await execute(again, 'ECHO', 'mine') == b'mine'


async def test_errors_between_two_commands_do_no_harm(pool: Pool) -> None:
    for failure in (ValueError, KeyError, asyncio.TimeoutError):
        with pytest.raises(failure):
            async with pool.connection('tcp') as conn:
                await execute(conn, 'SELECT', 7)
                raise failure
        async with pool.connection('tcp') as again:
            assert again is conn
            assert b' db=0 ' in await execute(again, 'CLIENT', 'INFO')


async def test_an_error_that_the_server_reports_does_no_harm(pool: Pool) -> None:
    with pytest.raises(redis.ResponseError):
        async with pool.connection('tcp') as conn:
            await client(conn).pipeline().set('a', 1).lpush('a', 1).get('a').execute()
    async with pool.connection('tcp') as again:
        assert again is conn
        assert await execute(again, 'ECHO', 'mine') == b'mine'


async def test_an_error_before_a_reply_was_read_leaves_it_to_nobody(pool: Pool) -> None:
    with pytest.raises(ValueError):
        async with pool.connection('tcp') as conn:
            await conn.send_command('ECHO', 'not yours')
            raise ValueError
    async with pool.connection('tcp') as again:
        assert again is not conn
        assert await execute(again, 'ECHO', 'mine') == b'mine'


async def read_gently(conn: RedisConnection) -> Any:
    # as redis-py did for all before it learned better
    await conn.send_command('BLPOP', 'queue', 30)
    return await conn.read_response(disconnect_on_error=False)


async def read_as_usual(conn: RedisConnection) -> Any:
    return await execute(conn, 'BLPOP', 'queue', 30)


async def read_with_a_client(conn: RedisConnection) -> Any:
    return await client(conn).blpop(['queue'], 30)


async def read_with_a_pipeline(conn: RedisConnection) -> Any:
    return await client(conn).pipeline(transaction=False).get('a').blpop(['queue'], 30).execute()


@pytest.mark.parametrize('read', [read_gently, read_as_usual, read_with_a_client, read_with_a_pipeline])
@pytest.mark.parametrize('endpoint', ['tcp', 'unix'])
async def test_a_reader_cancelled_in_the_middle_of_a_command_leaves_its_reply_to_nobody(
    pool: Pool, server: RedisServer, read: Callable[[RedisConnection], Awaitable[Any]], endpoint: str
) -> None:
    conns: List[RedisConnection] = []

    async def use() -> None:
        async with pool.connection(endpoint) as conn:
            conns.append(conn)
            await read(conn)

    task = asyncio.ensure_future(use())
    await eventually_async(lambda: any(session['cmd'] == 'blpop' for session in server.sessions()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    server.ask('RPUSH', 'queue', 'not yours')
    async with pool.connection(endpoint) as again:
        assert again is not conns[0]
        assert await execute(again, 'ECHO', 'mine') == b'mine'
    await eventually_async(lambda: len(server.sessions()) == 1)


@pytest.mark.parametrize('rounds', range(8))
async def test_a_command_cancelled_at_any_step_leaves_its_reply_to_nobody(pool: Pool, rounds: int) -> None:
    async def use() -> None:
        async with pool.connection('tcp') as conn:
            for _ in range(100):
                assert await execute(conn, 'ECHO', 'not yours') == b'not yours'

    async with pool.connection('tcp'):
        pass
    task = asyncio.ensure_future(use())
    for _ in range(rounds):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with pool.connection('tcp') as again:
        for number in range(3):
            assert await execute(again, 'ECHO', number) == b'%d' % number


async def test_a_cancellation_between_two_commands_does_no_harm(pool: Pool) -> None:
    resting = asyncio.Event()
    conns: List[RedisConnection] = []

    async def use() -> None:
        async with pool.connection('tcp') as conn:
            conns.append(conn)
            await execute(conn, 'SELECT', 7)
            resting.set()
            await asyncio.sleep(30)

    task = asyncio.ensure_future(use())
    await resting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with pool.connection('tcp') as again:
        assert again is conns[0]
        assert b' db=0 ' in await execute(again, 'CLIENT', 'INFO')


async def test_a_timeout_that_the_user_has_dealt_with_does_no_harm_to_the_next(server: RedisServer) -> None:
    async with opened(RedisConnectionManager({'tcp': server.parameters(socket_timeout=0.1)})) as pool:
        async with pool.connection('tcp') as conn:
            with pytest.raises(redis.TimeoutError):
                await client(conn).blpop(['queue'], 30)
            with pytest.raises(redis.ConnectionError, match='does not connect again'):
                await client(conn).get('a')
        async with pool.connection('tcp') as again:
            assert again is not conn
            assert await execute(again, 'ECHO', 'mine') == b'mine'


@pytest.mark.parametrize('endpoint', ['tcp', 'unix'])
async def test_a_server_restarted_while_connections_are_idle_is_connected_to_again(
    pool: Pool, server: RedisServer, endpoint: str
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(3):
            await execute(await stack.enter_async_context(pool.connection(endpoint)), 'PING')
    descriptors = open_descriptors()
    # the event loop has no chance to notice before the next acquire
    server.restart()
    for _ in range(3):
        async with pool.connection(endpoint) as conn:
            assert await execute(conn, 'ECHO', 'back') == b'back'
    await eventually_async(lambda: open_descriptors() <= descriptors)
    assert len(server.sessions()) == pool.get_size()


async def test_a_server_killed_in_the_middle_of_a_command_is_an_error_and_the_next_user_gets_another_connection(
    pool: Pool, server: RedisServer
) -> None:
    with pytest.raises(redis.ConnectionError):
        async with pool.connection('tcp') as conn:
            asyncio.get_running_loop().call_later(0.05, server.kill)
            await execute(conn, 'BLPOP', 'queue', 30)
    with pytest.raises(redis.ConnectionError, match="could not connect to endpoint 'tcp': Connection refused"):
        await pool.acquire('tcp')
    assert pool.get_size() == 0
    server.start()
    async with pool.connection('tcp') as again:
        assert again is not conn
        assert await execute(again, 'ECHO', 'mine') == b'mine'


async def test_a_server_that_has_stopped_answering_is_noticed_in_time(server: RedisServer) -> None:
    async with opened(RedisConnectionManager({'tcp': server.parameters()}), acquire_timeout=0.3) as pool:
        async with pool.connection('tcp') as conn:
            await execute(conn, 'PING')
        with server.stopped():
            with pytest.raises(TimeoutError):
                await pool.acquire('tcp')
            await eventually_async(lambda: pool.get_size() == 0)
        async with pool.connection('tcp', timeout=10) as again:
            assert await execute(again, 'ECHO', 'mine') == b'mine'


@pytest.mark.parametrize('more', [{}, {'ssl': True}])
async def test_an_acquire_gives_up_in_time_when_a_server_never_answers(more: Any) -> None:
    with silent_server() as (host, port):
        before = open_descriptors()
        async with opened(RedisConnectionManager({'mute': {'host': host, 'port': port, **more}})) as pool:
            with pytest.raises(TimeoutError, match='mute'):
                await pool.acquire('mute', timeout=0.2)
            await eventually_async(lambda: pool.get_size() == 0)
            await eventually_async(lambda: open_descriptors() <= before)


async def test_a_refused_connection_leaves_its_slot_free() -> None:
    manager = RedisConnectionManager({'none': {'host': '127.0.0.1', 'port': refusing_port()}})
    async with opened(manager, max_size=1) as pool:
        for _ in range(3):
            with pytest.raises(redis.ConnectionError, match="endpoint 'none': Connection refused"):
                await pool.acquire('none', timeout=5)
        assert pool.get_size() == 0


async def test_tasks_that_share_a_pool_do_not_share_connections(
    manager: RedisConnectionManager, server: RedisServer
) -> None:
    async with opened(manager, max_size=5) as pool:

        async def ask(question: str) -> Any:
            async with pool.connection('tcp') as conn:
                if question.endswith('1'):
                    await execute(conn, 'SELECT', 9)
                    await execute(conn, 'SET', 'place', question)
                if '7-' in question:
                    with contextlib.suppress(ZeroDivisionError):
                        async with pool.connection('unix') as other:
                            await other.send_command('ECHO', 'left behind')
                            raise ZeroDivisionError
                return [question.encode()] * 2, await client(conn).pipeline().echo(question).echo(question).execute()

        await crowd_of_tasks(ask)
        assert await pool.get_endpoint_pool_size('tcp') <= 5
    assert server.ask('EXISTS', 'place') == 0


async def test_a_pool_closed_by_force_ends_a_command_that_waits(
    manager: RedisConnectionManager, server: RedisServer
) -> None:
    pool: Pool = ConnectionPool(manager)

    async def wait_long() -> None:
        async with pool.connection('tcp') as conn:
            await execute(conn, 'BLPOP', 'queue', 60)

    task = asyncio.ensure_future(wait_long())
    await eventually_async(lambda: any(session['cmd'] == 'blpop' for session in server.sessions()))
    await pool.close(timeout=0.1)
    with pytest.raises(redis.ConnectionError):
        await asyncio.wait_for(task, 10)
    await eventually_async(lambda: not server.sessions())


@pytest.mark.filterwarnings('ignore:unclosed:ResourceWarning', 'ignore::pytest.PytestUnraisableExceptionWarning')
def test_a_pool_can_be_used_again_by_another_event_loop(manager: RedisConnectionManager, server: RedisServer) -> None:
    pool: Pool = ConnectionPool(manager)

    async def use() -> Any:
        async with pool.connection('tcp') as conn:
            return await execute(conn, 'ECHO', 'mine')

    async def use_and_close() -> Any:
        answer = await use()
        await pool.close(timeout=5)
        return answer

    before = open_descriptors()
    assert asyncio.run(use()) == b'mine'
    assert asyncio.run(use_and_close()) == b'mine'
    gc.collect()
    assert open_descriptors() == before
    eventually(lambda: not server.sessions())


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='this platform does not fork')
async def test_the_end_of_a_forked_child_is_not_heard_by_the_server(pool: Pool, server: RedisServer) -> None:
    async with pool.connection('tcp') as held, pool.connection('tcp') as idle:
        numbers = {await number_of(held), await number_of(idle)}

        def look() -> Any:
            # the descriptors of the child lead nowhere
            outcome = []
            for conn in (held, idle):
                sock: Any = conn.writer and conn.writer.get_extra_info('socket')
                with contextlib.suppress(OSError):
                    outcome.append(sock.getpeername())
            return outcome

        peer = ('127.0.0.1', server.port)
        assert peer not in in_child(look)
        assert await execute(held, 'ECHO', 'still') == b'still'
    assert numbers <= {int(session['id']) for session in server.sessions()}
    async with pool.connection('tcp') as conn:
        assert await number_of(conn) in numbers
