"""A pool of Redis connections for threads, against real servers."""

import contextlib
import os
import threading
import time
from typing import Any, Callable, Iterator, List, Optional

import pytest

redis = pytest.importorskip('redis', exc_type=ImportError)

from support.crowds import crowd_of_threads  # noqa: E402
from support.forking import in_child  # noqa: E402
from support.redis_server import RedisServer, alarm, server as server  # noqa: E402
from support.servers import eventually, open_descriptors, refusing_port, silent_server  # noqa: E402

from generic_connection_pool.contrib.redis import (  # noqa: E402
    RedisConnection,
    RedisConnectionManager,
    client,
    execute,
)
from generic_connection_pool.threading import ConnectionPool  # noqa: E402

Pool = ConnectionPool[str, RedisConnection]


@pytest.fixture
def manager(server: RedisServer) -> RedisConnectionManager:
    return RedisConnectionManager({
        'tcp': server.parameters(),
        'url': f'{server.url}/3?protocol=2&decode_responses=true',
        'unix': f'unix://{server.path}',
        'named': server.parameters(db=5, client_name='gerda', protocol=3),
        'named-2': server.parameters(db=5, client_name='gerda', protocol=2),
    })  # fmt: skip


@pytest.fixture
def pool(manager: RedisConnectionManager, server: RedisServer) -> Iterator[Pool]:
    with opened(manager) as pool:
        yield pool


@pytest.fixture(autouse=True)
def no_data(server: RedisServer) -> None:
    server.ask('FLUSHALL')


@contextlib.contextmanager
def opened(manager: RedisConnectionManager, **parameters: Any) -> Iterator[Pool]:
    """A pool that is closed at the end of a block."""
    pool: Pool = ConnectionPool(manager, **parameters)
    try:
        yield pool
    finally:
        pool.close(timeout=5)


def number_of(conn: RedisConnection) -> int:
    """The number that the server has given to a connection."""
    number: int = execute(conn, 'CLIENT', 'ID')
    return number


@pytest.mark.parametrize('endpoint', ['tcp', 'url', 'unix', 'named', 'named-2'])
def test_a_connection_is_reused(pool: Pool, endpoint: str) -> None:
    numbers = []
    for _ in range(3):
        with pool.connection(endpoint) as conn:
            numbers.append(number_of(conn))
    assert len(set(numbers)) == 1


def test_each_endpoint_leads_where_its_parameters_say(pool: Pool, server: RedisServer) -> None:
    for endpoint in ('tcp', 'url', 'unix', 'named'):
        with pool.connection(endpoint) as conn:
            assert execute(conn, 'SET', 'here', endpoint) in (b'OK', 'OK')
    assert {db: server.ask('GET', 'here', db=db) for db in (0, 3, 5)} == {0: b'unix', 3: b'url', 5: b'named'}
    with pool.connection('url') as conn:
        assert execute(conn, 'GET', 'here') == 'url'


def test_a_pooled_connection_is_one_of_redis_pys_own(pool: Pool) -> None:
    with pool.connection('tcp') as tcp, pool.connection('unix') as unix:
        assert isinstance(tcp, redis.Connection) and isinstance(unix, redis.UnixDomainSocketConnection)
        tcp.send_packed_command(tcp.pack_commands([('SET', 'a', 1), ('INCR', 'a')]))
        assert [tcp.read_response(), tcp.read_response()] == [b'OK', 2]


def add_one(pipeline: Any) -> None:
    pipeline.multi()
    pipeline.incr('n')


def test_a_client_sends_all_its_commands_over_one_pooled_connection(pool: Pool, server: RedisServer) -> None:
    with pool.connection('tcp') as conn:
        number = number_of(conn)
        over_it = client(conn)
        with over_it:
            assert over_it.client_id() == number
            over_it.hset('hash', mapping={'a': 1, 'b': 2})
            assert over_it.hgetall('hash') == {b'a': b'1', b'b': b'2'}
            with over_it.pipeline() as pipeline:
                pipeline.incr('n').incr('n').client_id()
                assert pipeline.execute() == [1, 2, number]
            assert over_it.transaction(add_one, 'n') == [3]
    with pool.connection('tcp') as conn:
        assert number_of(conn) == number


def test_a_client_understands_replies_as_the_parameters_say(pool: Pool) -> None:
    with pool.connection('url') as conn:
        over_it = client(conn)
        over_it.zadd('scores', {'a': 1.5})
        assert over_it.zrange('scores', 0, -1, withscores=True) == [('a', 1.5)]


def test_releasing_asks_nothing_of_the_server_if_only_data_were_used(pool: Pool, server: RedisServer) -> None:
    with pool.connection('tcp') as conn:
        with client(conn).pipeline() as pipeline:
            pipeline.watch('n')
            pipeline.multi()
            pipeline.set('n', 1)
            pipeline.execute()
        execute(conn, 'SCRIPT LOAD', 'return 1')
        execute(conn, 'client', b'id')
        with pytest.raises(redis.ResponseError):
            execute(conn, 'INCR', 'n', 'too', 'many')
        before = server.commands_done()
    assert server.commands_done() == before


def leave_another_database(conn: RedisConnection) -> None:
    execute(conn, 'SELECT', 7)


def leave_another_database_by_lower_case(conn: RedisConnection) -> None:
    execute(conn, b'select', 7)


def leave_a_name(conn: RedisConnection) -> None:
    execute(conn, 'CLIENT SETNAME', 'kay')


def leave_a_transaction(conn: RedisConnection) -> None:
    execute(conn, 'MULTI')
    execute(conn, 'SET', 'n', 1)


def leave_a_watch(conn: RedisConnection) -> None:
    execute(conn, 'WATCH', 'n')


def leave_a_watch_that_no_transaction_ended(conn: RedisConnection) -> None:
    execute(conn, 'WATCH', 'n')
    with pytest.raises(redis.ResponseError):
        execute(conn, 'EXEC')


def leave_another_user(conn: RedisConnection) -> None:
    execute(conn, 'AUTH', 'cassim', 'open-sesame-1848')


def leave_a_change_by_a_pipeline(conn: RedisConnection) -> None:
    with client(conn).pipeline(transaction=False) as pipeline:
        pipeline.set('a', 1).execute_command('SELECT', 7).set('b', 2).execute()


def leave_a_change_by_a_queued_command(conn: RedisConnection) -> None:
    with client(conn).pipeline(transaction=True) as pipeline:
        pipeline.execute_command('SELECT', 7).execute()


@pytest.mark.parametrize('endpoint', ['tcp', 'url', 'unix', 'named', 'named-2'])
@pytest.mark.parametrize('leave', [
    leave_another_database, leave_another_database_by_lower_case, leave_a_name, leave_a_transaction, leave_a_watch,
    leave_a_watch_that_no_transaction_ended, leave_another_user, leave_a_change_by_a_pipeline,
    leave_a_change_by_a_queued_command,
])  # fmt: skip
def test_what_a_user_has_changed_in_the_session_is_reset(
    pool: Pool, server: RedisServer, endpoint: str, leave: Callable[[RedisConnection], None]
) -> None:
    def look(conn: RedisConnection) -> Any:
        described = execute(conn, 'CLIENT', 'INFO')
        text = described if isinstance(described, str) else described.decode()
        told = dict(pair.split('=', 1) for pair in text.split())
        return {name: told.get(name) for name in ('id', 'name', 'db', 'user', 'flags', 'resp', 'lib-name')}

    with pool.connection(endpoint) as conn:
        fresh = look(conn)
        leave(conn)
    with pool.connection(endpoint) as again:
        assert again is conn
        assert look(again) == fresh
        # a watch shows in what becomes of a transaction
        execute(again, 'MULTI')
        server.ask('SET', 'n', 'changed by another', db=int(fresh['db']))
        execute(again, 'GET', 'n')
        assert execute(again, 'EXEC') in ([b'changed by another'], ['changed by another'])


def leave_a_subscription(conn: RedisConnection) -> None:
    pubsub = client(conn).pubsub()
    pubsub.subscribe('news')
    pubsub.get_message(timeout=5)


def leave_a_monitor(conn: RedisConnection) -> None:
    execute(conn, 'MONITOR')


def leave_a_tracking(conn: RedisConnection) -> None:
    execute(conn, 'CLIENT', 'TRACKING', 'ON', 'BCAST')


def leave_another_protocol(conn: RedisConnection) -> None:
    execute(conn, 'HELLO', 3)


def leave_replies_off(conn: RedisConnection) -> None:
    conn.send_command('CLIENT', 'REPLY', 'OFF')


def leave_a_reply(conn: RedisConnection) -> None:
    conn.send_command('GET', 'n')


def leave_one_of_two_replies(conn: RedisConnection) -> None:
    conn.send_packed_command(conn.pack_commands([('GET', 'n'), ('GET', 'm')]))
    conn.read_response()


def leave_what_nobody_can_tell(conn: RedisConnection) -> None:
    conn.send_packed_command([b''.join(conn.pack_command('SELECT', 7))])
    conn.read_response()


@pytest.mark.parametrize('leave', [
    leave_a_subscription, leave_a_monitor, leave_a_tracking, leave_another_protocol, leave_replies_off, leave_a_reply,
    leave_one_of_two_replies, leave_what_nobody_can_tell,
])  # fmt: skip
def test_a_connection_on_which_more_may_come_is_closed(
    pool: Pool, server: RedisServer, leave: Callable[[RedisConnection], None]
) -> None:
    with pool.connection('tcp') as conn:
        number = number_of(conn)
        leave(conn)
    eventually(lambda: number not in [int(session['id']) for session in server.sessions()])
    server.ask('PUBLISH', 'news', 'for nobody')
    with pool.connection('tcp') as again:
        assert again is not conn
        assert execute(again, 'ECHO', 'mine') == b'mine'


@pytest.mark.parametrize('failure', [ValueError, KeyError, ZeroDivisionError, TimeoutError])
def test_an_error_of_the_users_own_between_two_commands_does_no_harm(pool: Pool, failure: Any) -> None:
    with pytest.raises(failure):
        with pool.connection('tcp') as conn:
            execute(conn, 'SELECT', 7)
            raise failure
    with pool.connection('tcp') as again:
        assert again is conn
        assert b' db=0 ' in execute(again, 'CLIENT', 'INFO')


def test_an_error_that_the_server_reports_does_no_harm(pool: Pool) -> None:
    with pytest.raises(redis.ResponseError):
        with pool.connection('tcp') as conn:
            execute(conn, 'INCR')
    with pool.connection('tcp') as again:
        assert again is conn
    with pytest.raises(redis.ResponseError):
        with pool.connection('tcp') as conn:
            client(conn).pipeline().set('a', 1).lpush('a', 1).get('a').execute()
    with pool.connection('tcp') as again:
        assert again is conn
        assert execute(again, 'ECHO', 'mine') == b'mine'


def test_an_error_before_a_reply_was_read_leaves_it_to_nobody(pool: Pool) -> None:
    with pytest.raises(ValueError):
        with pool.connection('tcp') as conn:
            conn.send_command('ECHO', 'not yours')
            raise ValueError
    with pool.connection('tcp') as again:
        assert again is not conn
        assert execute(again, 'ECHO', 'mine') == b'mine'


def test_an_interrupt_while_a_reply_is_waited_for_leaves_it_to_nobody(pool: Pool, server: RedisServer) -> None:
    with pytest.raises(KeyboardInterrupt), alarm(0.1):
        with pool.connection('tcp') as conn:
            execute(conn, 'BLPOP', 'queue', 30)
    server.ask('RPUSH', 'queue', 'not yours')
    with pool.connection('tcp') as again:
        assert again is not conn
        assert execute(again, 'ECHO', 'mine') == b'mine'
    assert server.ask('LLEN', 'queue') == 1


def test_a_reply_that_comes_too_late_is_left_to_nobody(server: RedisServer) -> None:
    with opened(RedisConnectionManager({'tcp': server.parameters(socket_timeout=0.1)})) as pool:
        with pytest.raises(redis.TimeoutError):
            with pool.connection('tcp') as conn:
                execute(conn, 'BLPOP', 'queue', 30)
        with pool.connection('tcp') as again:
            assert again is not conn
            assert execute(again, 'ECHO', 'mine') == b'mine'


def test_a_timeout_that_the_user_has_dealt_with_does_no_harm_to_the_next(server: RedisServer) -> None:
    with opened(RedisConnectionManager({'tcp': server.parameters(socket_timeout=0.1)})) as pool:
        with pool.connection('tcp') as conn:
            with pytest.raises(redis.TimeoutError):
                client(conn).blpop('queue', 30)
            with pytest.raises(redis.ConnectionError, match='does not connect again'):
                client(conn).get('a')
        with pool.connection('tcp') as again:
            assert again is not conn
            assert execute(again, 'ECHO', 'mine') == b'mine'


@pytest.mark.parametrize('endpoint', ['tcp', 'unix'])
def test_a_server_restarted_while_connections_are_idle_is_connected_to_again(
    pool: Pool, server: RedisServer, endpoint: str
) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            execute(stack.enter_context(pool.connection(endpoint)), 'PING')
    descriptors = open_descriptors()
    server.restart()
    for _ in range(3):
        with pool.connection(endpoint) as conn:
            assert execute(conn, 'ECHO', 'back') == b'back'
    eventually(lambda: open_descriptors() <= descriptors)
    assert len(server.sessions()) == pool.get_size()


def test_a_server_killed_in_the_middle_of_a_command_is_an_error_and_the_next_user_gets_another_connection(
    pool: Pool, server: RedisServer
) -> None:
    with pytest.raises(redis.ConnectionError):
        with pool.connection('tcp') as conn:
            threading.Timer(0.1, server.kill).start()
            execute(conn, 'BLPOP', 'queue', 30)
    eventually(lambda: server._process is not None and server._process.poll() is not None)
    with pytest.raises(redis.ConnectionError, match="could not connect to endpoint 'tcp': Connection refused"):
        pool.acquire('tcp')
    assert pool.get_size() == 0
    server.start()
    with pool.connection('tcp') as again:
        assert again is not conn
        assert execute(again, 'ECHO', 'mine') == b'mine'


def test_a_connection_closed_by_its_user_is_replaced(pool: Pool) -> None:
    with pool.connection('tcp') as conn:
        conn.disconnect()
    with pool.connection('tcp') as again:
        assert again is not conn
        assert execute(again, 'PING') == b'PONG'


def test_a_server_that_has_stopped_answering_is_noticed_in_time(server: RedisServer) -> None:
    with opened(RedisConnectionManager({'tcp': server.parameters()}), acquire_timeout=0.3) as pool:
        with pool.connection('tcp') as conn:
            execute(conn, 'PING')
        with server.stopped():
            started = time.monotonic()
            with pytest.raises(TimeoutError):
                pool.acquire('tcp')
            assert time.monotonic() - started < 3
        eventually(lambda: pool.get_size() == 0)
        with pool.connection('tcp', timeout=10) as again:
            assert execute(again, 'ECHO', 'mine') == b'mine'


def test_an_acquire_gives_up_in_time_when_a_server_never_answers() -> None:
    with silent_server() as (host, port):
        before = open_descriptors()
        with opened(RedisConnectionManager({'mute': {'host': host, 'port': port}})) as pool:
            started = time.monotonic()
            with pytest.raises(TimeoutError, match='mute'):
                pool.acquire('mute', timeout=0.2)
            assert time.monotonic() - started < 3
            assert pool.get_size() == 0
            assert open_descriptors() == before


def test_a_refused_connection_leaves_its_slot_free() -> None:
    manager = RedisConnectionManager({'none': {'host': '127.0.0.1', 'port': refusing_port()}})
    with opened(manager, max_size=1) as pool:
        for _ in range(3):
            with pytest.raises(redis.ConnectionError, match="endpoint 'none': Connection refused"):
                pool.acquire('none', timeout=5)
        assert pool.get_size() == 0


def test_threads_that_share_a_pool_do_not_share_connections(
    manager: RedisConnectionManager, server: RedisServer
) -> None:
    with opened(manager, max_size=5) as pool:

        def ask(question: str) -> Any:
            with pool.connection('tcp') as conn:
                if question.endswith('3'):
                    execute(conn, 'SELECT', 9)
                    execute(conn, 'SET', 'place', question)
                if question.endswith('7'):
                    with contextlib.suppress(ZeroDivisionError), pool.connection('unix') as other:
                        other.send_command('ECHO', 'left behind')
                        raise ZeroDivisionError
                with client(conn).pipeline() as pipeline:
                    return [question.encode()] * 2, pipeline.echo(question).echo(question).execute()

        crowd_of_threads(ask)
        assert pool.get_endpoint_pool_size('tcp') <= 5
    assert server.ask('EXISTS', 'place') == 0


def test_a_pool_closed_by_force_ends_a_command_that_waits(manager: RedisConnectionManager, server: RedisServer) -> None:
    pool = ConnectionPool(manager)
    failures: List[Optional[BaseException]] = []

    def wait_long() -> None:
        try:
            with pool.connection('tcp') as conn:
                execute(conn, 'BLPOP', 'queue', 60)
        except BaseException as exc:
            failures.append(exc)

    thread = threading.Thread(target=wait_long)
    thread.start()
    eventually(lambda: any(session['cmd'] == 'blpop' for session in server.sessions()))
    pool.close(timeout=0.1)
    thread.join(10)
    assert [type(failure) for failure in failures] == [redis.ConnectionError]
    eventually(lambda: not server.sessions())


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='this platform does not fork')
def test_the_end_of_a_forked_child_is_not_heard_by_the_server(pool: Pool, server: RedisServer) -> None:
    with pool.connection('tcp') as held:
        with pool.connection('tcp') as idle:
            numbers = {number_of(held), number_of(idle)}
            sock: Any = idle.sock
            peer = sock.getpeername()

        def look() -> Any:
            # the descriptors of the child lead nowhere
            outcome = []
            for conn in (held, idle):
                with contextlib.suppress(OSError):
                    outcome.append(conn._sock.getpeername())
            with pool.connection('tcp') as own:
                return outcome, number_of(own)

        connected, own = in_child(look)
        assert peer not in connected and own not in numbers
        assert execute(held, 'ECHO', 'still') == b'still'
    assert numbers <= {int(session['id']) for session in server.sessions()}
    with pool.connection('tcp') as conn:
        assert number_of(conn) in numbers
