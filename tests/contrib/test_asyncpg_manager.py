"""The manager of asyncpg connections, against a real server."""

import asyncio
import contextlib
import time
from typing import Any, AsyncIterator, Dict

import pytest

asyncpg = pytest.importorskip('asyncpg', exc_type=ImportError)

from support.postgres import DATABASES, PASSWORD, USER_WITH_PASSWORD, PostgresServer  # noqa: E402
from support.servers import eventually_async, open_descriptors, refusing_port, silent_server  # noqa: E402

from generic_connection_pool.asyncio import ConnectionPool  # noqa: E402
from generic_connection_pool.contrib import _streams  # noqa: E402
from generic_connection_pool.contrib._sockets import is_quiet  # noqa: E402
from generic_connection_pool.contrib.asyncpg import DbConnection, DbConnectionManager  # noqa: E402

Pool = ConnectionPool[str, DbConnection]
ALPHA = DATABASES[0]


@pytest.fixture
def manager(postgres: PostgresServer) -> DbConnectionManager:
    return DbConnectionManager({name: postgres.parameters(name) for name in DATABASES})


@pytest.fixture
async def conn(manager: DbConnectionManager) -> AsyncIterator[DbConnection]:
    conn = await manager.create(ALPHA)
    yield conn
    await manager.dispose(ALPHA, conn)


# -- creating


@pytest.mark.parametrize(('settings', 'error', 'text'), [
    ({'command_timeout': 'soon'}, ValueError, 'command_timeout'),
    ({'host': ['127.0.0.1', '127.0.0.1'], 'port': [1, 2, 3]}, asyncpg.InterfaceError, '3 port numbers'),
])  # fmt: skip
async def test_settings_that_make_no_sense_are_the_error_of_the_driver_which_says_why(
    settings: Dict[str, Any], error: Any, text: str
) -> None:
    manager = DbConnectionManager({'main': {'host': '127.0.0.1', 'user': 'somebody', **settings}})
    with pytest.raises(error, match=text):
        await manager.create('main')


async def test_an_unknown_endpoint_is_named_and_so_are_the_known_but_no_password(postgres: PostgresServer) -> None:
    manager = DbConnectionManager({'main': postgres.parameters(password=PASSWORD), 'other': postgres.parameters()})
    with pytest.raises(KeyError, match="'typo'.*'main', 'other'") as caught:
        await manager.create('typo')
    assert PASSWORD not in str(caught.value)
    assert PASSWORD not in repr(manager)


async def test_a_wrong_password_is_an_error_that_does_not_tell_it(postgres: PostgresServer) -> None:
    wrong = 'wrong-secret'
    manager = DbConnectionManager({'main': postgres.parameters(user=USER_WITH_PASSWORD, password=wrong)})
    before = open_descriptors()
    with pytest.raises(asyncpg.InvalidPasswordError) as caught:
        await manager.create('main')
    assert wrong not in str(caught.value)
    await eventually_async(lambda: open_descriptors() == before)


@pytest.mark.parametrize('dsn', ['postgresql://user:zy#qx@localhost/db', 'postgresql://user:zy/qx@localhost/db'])
async def test_a_dsn_that_cannot_be_parsed_is_not_told(dsn: str) -> None:
    with pytest.raises(ValueError, match="dsn of endpoint 'main' cannot be parsed") as caught:
        await DbConnectionManager({'main': {'dsn': dsn}}).create('main')
    assert 'zy' not in str(caught.value)


async def test_a_right_password_is_accepted(postgres: PostgresServer) -> None:
    manager = DbConnectionManager({'main': postgres.parameters(user=USER_WITH_PASSWORD, password=PASSWORD)})
    conn = await manager.create('main')
    assert PASSWORD not in repr(conn)
    assert await conn.fetchval('SELECT current_user') == USER_WITH_PASSWORD
    await manager.dispose('main', conn)


async def test_an_unknown_database_is_named(postgres: PostgresServer) -> None:
    manager = DbConnectionManager({'main': postgres.parameters('nowhere')})
    with pytest.raises(asyncpg.InvalidCatalogNameError, match='"nowhere" does not exist'):
        await manager.create('main')


async def test_a_refused_connection_says_where() -> None:
    port = refusing_port()
    manager = DbConnectionManager({'main': {'host': '127.0.0.1', 'port': port, 'user': 'x'}})
    with pytest.raises(OSError, match=str(port)):
        await manager.create('main')


async def test_an_acquire_gives_up_in_time_when_a_server_never_answers() -> None:
    with silent_server() as (host, port):
        before = open_descriptors()
        pool: Pool = ConnectionPool(DbConnectionManager({'main': {'host': host, 'port': port, 'user': 'x'}}))
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            await pool.acquire('main', timeout=0.1)
        assert 0.09 < time.monotonic() - started < 1
        await eventually_async(lambda: pool.get_size() == 0)
        await eventually_async(lambda: open_descriptors() == before)
        await pool.close()


@pytest.mark.parametrize('pause', [None, 0.0, 0.001, 0.003])
@pytest.mark.parametrize('rounds', range(4))
async def test_a_connect_cancelled_at_any_step_leaves_nothing_behind(
    manager: DbConnectionManager, postgres: PostgresServer, rounds: int, pause: 'float | None'
) -> None:
    before = open_descriptors()
    creating = asyncio.ensure_future(manager.create(ALPHA))
    for _ in range(rounds):
        await asyncio.sleep(pause or 0)
    creating.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await manager.dispose(ALPHA, await creating)
    await eventually_async(lambda: open_descriptors() == before)


# -- checking


async def test_an_idle_connection_is_found_alive_time_and_again(
    manager: DbConnectionManager, conn: DbConnection
) -> None:
    for _ in range(3):
        assert await manager.check_aliveness(ALPHA, conn)
        assert await conn.fetchval('SELECT 1') == 1


async def test_a_check_does_not_suspend_if_nothing_has_arrived(
    manager: DbConnectionManager, conn: DbConnection
) -> None:
    with pytest.raises(StopIteration) as caught:
        manager.check_aliveness(ALPHA, conn).__await__().__next__()
    assert caught.value.value is True


async def test_a_message_that_nobody_asked_for_does_no_harm(
    manager: DbConnectionManager, conn: DbConnection, postgres: PostgresServer
) -> None:
    heard = asyncio.Event()
    await conn.add_listener('news', lambda *args: heard.set())
    postgres.query("SELECT pg_notify('news', 'hello')")
    wait_unnoticed(conn)
    assert await manager.check_aliveness(ALPHA, conn)
    await asyncio.wait_for(heard.wait(), 5)
    assert await conn.fetchval('SELECT 1') == 1


async def test_a_connection_closed_by_its_user_is_found_dead(manager: DbConnectionManager, conn: DbConnection) -> None:
    await conn.close()
    assert not await manager.check_aliveness(ALPHA, conn)


async def test_a_session_whose_end_the_loop_has_noticed_is_found_dead(
    manager: DbConnectionManager, conn: DbConnection, postgres: PostgresServer
) -> None:
    postgres.kill(conn.get_server_pid())
    await eventually_async(conn.is_closed)
    assert not await manager.check_aliveness(ALPHA, conn)


# -- the other hooks


async def test_a_transaction_that_is_open_when_a_connection_is_acquired_is_rolled_back(
    manager: DbConnectionManager, conn: DbConnection
) -> None:
    await conn.execute('BEGIN')
    await manager.on_acquire(ALPHA, conn)
    assert not conn.is_in_transaction()


async def test_a_rollback_that_fails_on_acquiring_is_an_error_and_closes_the_connection(
    manager: DbConnectionManager, conn: DbConnection, postgres: PostgresServer
) -> None:
    await conn.execute('BEGIN')
    postgres.kill(conn.get_server_pid())
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await manager.on_acquire(ALPHA, conn)
    assert conn.is_closed()


async def test_a_rollback_that_fails_on_releasing_closes_the_connection(
    manager: DbConnectionManager, conn: DbConnection, postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    await conn.execute('BEGIN')
    postgres.kill(conn.get_server_pid())
    await manager.on_release(ALPHA, conn)
    assert conn.is_closed()
    assert 'could not be cleaned up' in caplog.text


async def test_a_rollback_that_is_cancelled_closes_the_connection(
    manager: DbConnectionManager, conn: DbConnection
) -> None:
    await conn.execute('BEGIN')
    releasing = asyncio.ensure_future(manager.on_release(ALPHA, conn))
    await asyncio.sleep(0)
    releasing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await releasing
    assert conn.is_closed()


async def test_hooks_do_not_suspend_if_no_transaction_is_open(manager: DbConnectionManager, conn: DbConnection) -> None:
    for hook in (manager.on_acquire, manager.on_release):
        with pytest.raises(StopIteration):
            hook(ALPHA, conn).__await__().__next__()


FAILURES: Dict[Any, bool] = {
    ValueError(): True,
    asyncpg.PostgresSyntaxError(): True,
    asyncpg.DeadlockDetectedError(): True,
    asyncpg.PostgresError.new({'S': 'FEHLER', 'V': 'ERROR', 'C': '57014', 'M': 'cancelled'}): True,
    asyncpg.PostgresError.new({'S': 'FATAL', 'V': 'FATAL', 'C': '57P01', 'M': 'shutting down'}): False,
    asyncpg.InterfaceError('busy'): False,
    asyncpg.ConnectionDoesNotExistError(): False,
    asyncio.TimeoutError(): False,
    TimeoutError(): False,
    ConnectionResetError(): False,
    asyncio.CancelledError(): False,
    KeyboardInterrupt(): False,
    GeneratorExit(): False,
}


@pytest.mark.parametrize('failure', FAILURES, ids=lambda failure: type(failure).__name__)
async def test_a_failure_tells_whether_a_session_can_go_on(
    manager: DbConnectionManager, conn: DbConnection, failure: BaseException
) -> None:
    assert manager.is_reusable(ALPHA, conn, failure) is FAILURES[failure]


async def test_a_closed_session_cannot_go_on(manager: DbConnectionManager, conn: DbConnection) -> None:
    await conn.close()
    assert not manager.is_reusable(ALPHA, conn, ValueError())


async def test_disposing_ends_the_session(
    manager: DbConnectionManager, conn: DbConnection, postgres: PostgresServer
) -> None:
    await manager.dispose(ALPHA, conn)
    assert conn.is_closed()
    await eventually_async(lambda: postgres.sessions() == 0)


async def test_disposing_does_not_mind_a_server_that_is_gone_or_a_connection_that_is_closed(
    manager: DbConnectionManager, conn: DbConnection, postgres: PostgresServer
) -> None:
    postgres.kill(conn.get_server_pid())
    await manager.dispose(ALPHA, conn)
    await manager.dispose(ALPHA, conn)


async def test_disposing_gives_up_on_a_server_that_does_not_answer(
    manager: DbConnectionManager, conn: DbConnection, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_streams, 'CLOSING_GRACE', 0.05)
    with postgres.stopped(conn.get_server_pid()):
        started = time.monotonic()
        await manager.dispose(ALPHA, conn)
        assert time.monotonic() - started < 1
        assert conn.is_closed()


async def test_a_cancelled_disposal_closes_the_connection(
    manager: DbConnectionManager, conn: DbConnection, postgres: PostgresServer
) -> None:
    before = open_descriptors()
    with postgres.stopped(conn.get_server_pid()):
        disposing = asyncio.ensure_future(manager.dispose(ALPHA, conn))
        await asyncio.sleep(0.01)
        assert not disposing.done()
        disposing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await disposing
        assert conn.is_closed()
        await eventually_async(lambda: open_descriptors() < before)


def wait_unnoticed(conn: DbConnection) -> None:
    """Wait for input without letting the event loop see it."""
    fd = conn._transport.get_extra_info('socket').fileno()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 5
    while is_quiet(fd):
        assert time.monotonic() < deadline, 'nothing has arrived'
