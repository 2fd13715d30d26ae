"""The manager of psycopg 3 connections for asyncio, against a real server."""

import asyncio
import contextlib
import time
from typing import Any, Dict, List

import pytest

psycopg = pytest.importorskip('psycopg', exc_type=ImportError)

from support.postgres import DATABASES, PASSWORD, USER_WITH_PASSWORD, PostgresServer  # noqa: E402
from support.psycopg3 import ALPHA, ERRORS, LONG, MALFORMED, fetch_async, nowhere, parameters  # noqa: E402
from support.psycopg3_asyncio import conn as conn, manager as manager  # noqa: E402
from support.servers import eventually_async, open_descriptors, silent_server  # noqa: E402

from generic_connection_pool.asyncio import ConnectionPool  # noqa: E402
from generic_connection_pool.contrib._sockets import is_quiet  # noqa: E402
from generic_connection_pool.contrib.psycopg_async import DbConnection, DbConnectionManager  # noqa: E402

Pool = ConnectionPool[str, DbConnection]
IDLE = psycopg.pq.TransactionStatus.IDLE
ACTIVE = psycopg.pq.TransactionStatus.ACTIVE


# -- creating


@pytest.mark.parametrize('wrong', ['zyqx', ['zyqx'], None, {'main': 'zyqx'}, {'main': ['zyqx']}])
async def test_parameters_of_a_wrong_kind_are_refused_without_telling_them(wrong: Any) -> None:
    with pytest.raises(TypeError, match='dsn_params.*not a') as caught:
        DbConnectionManager(wrong)
    assert 'zyqx' not in str(caught.value)


@pytest.mark.parametrize('name', ['configure', 'reset'])
async def test_a_callback_that_cannot_be_called_is_refused(name: str) -> None:
    wrong: Dict[str, Any] = {name: 'DISCARD ALL'}
    with pytest.raises(TypeError, match=f'{name} must be a callable or None, not a str'):
        DbConnectionManager({}, **wrong)


async def test_an_unknown_endpoint_is_named_and_so_are_the_known_but_no_password(postgres: PostgresServer) -> None:
    manager = DbConnectionManager({'main': parameters(postgres, password=PASSWORD), 'other': parameters(postgres)})
    with pytest.raises(KeyError, match="'typo'.*'main', 'other'") as caught:
        await manager.create('typo')
    assert PASSWORD not in str(caught.value)
    assert PASSWORD not in repr(manager)


async def test_a_wrong_password_is_an_error_that_does_not_tell_it(postgres: PostgresServer) -> None:
    wrong = 'wrong-secret'
    manager = DbConnectionManager({'main': parameters(postgres, user=USER_WITH_PASSWORD, password=wrong)})
    before = open_descriptors()
    with pytest.raises(psycopg.OperationalError, match="endpoint 'main'.*password authentication failed") as caught:
        await manager.create('main')
    assert wrong not in str(caught.value)
    assert open_descriptors() == before


@pytest.mark.parametrize('conninfo', MALFORMED)
async def test_a_conninfo_that_cannot_be_parsed_is_not_told(conninfo: str) -> None:
    with pytest.raises(psycopg.ProgrammingError, match="dsn of endpoint 'main' cannot be parsed") as caught:
        await DbConnectionManager({'main': {'conninfo': conninfo}}).create('main')
    assert not any(part in str(caught.value) for part in ('zy', 'qx'))


async def test_a_right_password_is_accepted(postgres: PostgresServer) -> None:
    manager = DbConnectionManager({'main': parameters(postgres, user=USER_WITH_PASSWORD, password=PASSWORD)})
    conn = await manager.create('main')
    assert PASSWORD not in repr(conn)
    assert await fetch_async(conn, 'SELECT current_user') == USER_WITH_PASSWORD
    await manager.dispose('main', conn)


@pytest.mark.parametrize('asynchronous', [False, True])
async def test_a_callable_is_asked_for_the_parameters_of_each_new_connection(
    postgres: PostgresServer, asynchronous: bool
) -> None:
    names = iter(DATABASES)

    def provide() -> Dict[str, Any]:
        return parameters(postgres, next(names))

    async def provide_later() -> Dict[str, Any]:
        await asyncio.sleep(0)
        return provide()

    manager = DbConnectionManager({'main': provide_later if asynchronous else provide})
    for name in DATABASES:
        conn = await manager.create('main')
        assert conn.info.dbname == name
        await manager.dispose('main', conn)


async def test_a_callable_that_returns_no_mapping_is_an_error_that_does_not_tell_what_it_returned() -> None:
    provide: Any = lambda: 'postgresql://user:zyqx@localhost/db'  # noqa: E731
    with pytest.raises(TypeError, match="parameters of endpoint 'main' must be a mapping.*not a str") as caught:
        await DbConnectionManager({'main': provide}).create('main')
    assert 'zyqx' not in str(caught.value)


async def test_an_unknown_database_is_named(postgres: PostgresServer) -> None:
    with pytest.raises(psycopg.OperationalError, match='"nowhere" does not exist'):
        await DbConnectionManager({'main': parameters(postgres, 'nowhere')}).create('main')


async def test_a_refused_connection_says_where() -> None:
    params = nowhere()
    with pytest.raises(psycopg.OperationalError, match=f"'main'.*{params['port']}"):
        await DbConnectionManager({'main': params}).create('main')


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


async def test_the_timeout_of_the_connect_keywords_holds_too() -> None:
    before = open_descriptors()
    with silent_server() as (host, port):
        conninfo = f'host={host} port={port} user=x connect_timeout=2'
        with pytest.raises(psycopg.errors.ConnectionTimeout, match="'main'") as caught:
            await DbConnectionManager({'main': {'conninfo': conninfo}}).create('main')
    assert caught.tb
    assert open_descriptors() == before


@pytest.mark.parametrize('pause', [None, 0.0, 0.001, 0.003])
@pytest.mark.parametrize('rounds', range(4))
async def test_a_connect_cancelled_at_any_step_leaves_nothing_behind(
    postgres: PostgresServer, rounds: int, pause: 'float | None'
) -> None:
    async def configure(conn: DbConnection) -> None:
        await conn.execute("SET application_name = 'configured'")
        await conn.commit()

    manager = DbConnectionManager({ALPHA: parameters(postgres)}, configure=configure)
    before = open_descriptors()
    creating = asyncio.ensure_future(manager.create(ALPHA))
    for _ in range(rounds):
        await asyncio.sleep(pause or 0)
    creating.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await manager.dispose(ALPHA, await creating)
    await eventually_async(lambda: open_descriptors() == before)


# -- configuring


async def test_each_new_connection_is_configured(postgres: PostgresServer) -> None:
    async def configure(conn: DbConnection) -> None:
        await conn.set_autocommit(True)
        await conn.execute("SET application_name = 'configured'")

    manager = DbConnectionManager({ALPHA: parameters(postgres)}, configure=configure)
    conn = await manager.create(ALPHA)
    assert await fetch_async(conn, 'SHOW application_name') == 'configured'
    await manager.dispose(ALPHA, conn)


@pytest.mark.parametrize('statement', ['SELECT 1', 'SELECT 1/0', 'COPY notes FROM STDIN'])
async def test_a_configuration_that_is_not_finished_is_an_error_and_closes_the_connection(
    postgres: PostgresServer, statement: str
) -> None:
    conns: List[DbConnection] = []

    async def configure(conn: DbConnection) -> None:
        conns.append(conn)
        with contextlib.suppress(psycopg.Error):
            await conn.execute(statement)

    manager = DbConnectionManager({ALPHA: parameters(postgres)}, configure=configure)
    with pytest.raises(psycopg.ProgrammingError, match="'alpha'.*configure callback.*(transaction|under way)"):
        await manager.create(ALPHA)
    assert conns[0].closed


@pytest.mark.parametrize('failure', [ValueError('mine'), asyncio.CancelledError()], ids=lambda exc: type(exc).__name__)
async def test_a_configuration_that_fails_closes_the_connection(
    postgres: PostgresServer, failure: BaseException
) -> None:
    conns: List[DbConnection] = []

    async def configure(conn: DbConnection) -> None:
        conns.append(conn)
        raise failure

    with pytest.raises(type(failure)):
        await DbConnectionManager({ALPHA: parameters(postgres)}, configure=configure).create(ALPHA)
    assert conns[0].closed


# -- checking


async def test_an_idle_connection_is_found_alive_time_and_again(
    manager: DbConnectionManager, conn: DbConnection
) -> None:
    for _ in range(3):
        assert await manager.check_aliveness(ALPHA, conn)
        assert await fetch_async(conn, 'SELECT 1') == 1


async def test_a_check_neither_suspends_nor_asks_the_server(
    manager: DbConnectionManager, conn: DbConnection, postgres: PostgresServer
) -> None:
    with postgres.stopped(conn.info.backend_pid), pytest.raises(StopIteration) as caught:
        manager.check_aliveness(ALPHA, conn).__await__().__next__()
    assert caught.value.value is True


async def test_a_session_whose_end_nobody_has_noticed_yet_is_found_dead(
    manager: DbConnectionManager, conn: DbConnection, postgres: PostgresServer
) -> None:
    postgres.kill(conn.info.backend_pid)
    wait_for_input(conn)
    assert not await manager.check_aliveness(ALPHA, conn)


async def test_a_message_that_nobody_asked_for_does_no_harm_and_reaches_its_handler(
    manager: DbConnectionManager, conn: DbConnection, postgres: PostgresServer
) -> None:
    heard: List[str] = []
    conn.add_notify_handler(lambda notify: heard.append(notify.payload))
    await conn.execute('LISTEN news')
    await conn.commit()
    postgres.query("SELECT pg_notify('news', 'hello')")
    wait_for_input(conn)
    assert await manager.check_aliveness(ALPHA, conn)
    assert heard == ['hello']
    assert await fetch_async(conn, 'SELECT 1') == 1


async def test_a_connection_closed_by_its_user_is_found_dead(manager: DbConnectionManager, conn: DbConnection) -> None:
    await conn.close()
    assert not await manager.check_aliveness(ALPHA, conn)


# -- acquiring and releasing


async def test_a_transaction_that_is_open_when_a_connection_is_acquired_is_rolled_back(
    manager: DbConnectionManager, conn: DbConnection
) -> None:
    await conn.execute('SELECT 1')
    await manager.on_acquire(ALPHA, conn)
    assert conn.info.transaction_status == IDLE


async def test_a_rollback_that_fails_on_acquiring_is_an_error_and_closes_the_connection(
    manager: DbConnectionManager, conn: DbConnection, postgres: PostgresServer
) -> None:
    await conn.execute('SELECT 1')
    postgres.kill(conn.info.backend_pid)
    with pytest.raises(psycopg.Error):
        await manager.on_acquire(ALPHA, conn)
    assert conn.closed


async def test_a_rollback_that_fails_on_releasing_closes_the_connection(
    manager: DbConnectionManager, conn: DbConnection, postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    await conn.execute('SELECT 1')
    postgres.kill(conn.info.backend_pid)
    await manager.on_release(ALPHA, conn)
    assert conn.closed
    assert 'could not be cleaned up' in caplog.text


async def test_a_session_whose_rollback_is_cancelled_is_closed(
    manager: DbConnectionManager, conn: DbConnection, postgres: PostgresServer
) -> None:
    await conn.execute('SELECT 1')
    with postgres.stopped(conn.info.backend_pid):
        releasing = asyncio.ensure_future(manager.on_release(ALPHA, conn))
        await eventually_async(lambda: conn.info.transaction_status == ACTIVE)
        releasing.cancel()
    # psycopg waits until the server has done what it was told
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(releasing, 10)
    assert conn.closed


async def test_hooks_do_not_suspend_if_no_transaction_is_open(manager: DbConnectionManager, conn: DbConnection) -> None:
    for hook in (manager.on_acquire, manager.on_release):
        with pytest.raises(StopIteration):
            hook(ALPHA, conn).__await__().__next__()


@pytest.mark.parametrize('failure, expected', [
    *ERRORS, (asyncio.TimeoutError(), False), (asyncio.CancelledError(), False),
], ids=lambda value: type(value).__name__)  # fmt: skip
async def test_a_failure_tells_whether_a_session_can_go_on(
    manager: DbConnectionManager, conn: DbConnection, failure: BaseException, expected: bool
) -> None:
    assert manager.is_reusable(ALPHA, conn, failure) is expected


async def test_a_closed_session_cannot_go_on(manager: DbConnectionManager, conn: DbConnection) -> None:
    await conn.close()
    assert not manager.is_reusable(ALPHA, conn, ValueError())


# -- disposing


async def test_disposing_ends_the_session_and_does_not_mind_if_it_has_ended(
    manager: DbConnectionManager, conn: DbConnection, postgres: PostgresServer
) -> None:
    await manager.dispose(ALPHA, conn)
    assert conn.closed
    await eventually_async(lambda: postgres.sessions() == 0)
    await manager.dispose(ALPHA, conn)
    other = await manager.create(ALPHA)
    postgres.kill(other.info.backend_pid)
    await manager.dispose(ALPHA, other)
    assert other.closed


async def test_disposing_does_not_wait_for_a_server_that_does_not_answer(
    manager: DbConnectionManager, conn: DbConnection, postgres: PostgresServer
) -> None:
    await conn.execute('SELECT 1')
    with postgres.stopped(conn.info.backend_pid):
        querying = asyncio.ensure_future(conn.execute('SELECT 2'))
        await eventually_async(lambda: conn.info.transaction_status == ACTIVE)
        started = time.monotonic()
        await manager.dispose(ALPHA, conn)
        with pytest.raises(psycopg.OperationalError):
            await asyncio.wait_for(querying, 10)
        assert time.monotonic() - started < 1
    assert conn.closed


async def test_a_task_whose_connection_is_disposed_of_does_not_listen_to_the_next_with_its_descriptor(
    manager: DbConnectionManager, conn: DbConnection, postgres: PostgresServer
) -> None:
    number = conn.fileno()
    querying = asyncio.ensure_future(fetch_async(conn, LONG))
    await eventually_async(lambda: postgres.is_running(LONG))
    await manager.dispose(ALPHA, conn)
    other = await manager.create(ALPHA)
    assert other.fileno() == number
    assert await asyncio.wait_for(fetch_async(other, 'SELECT 2 FROM pg_sleep(0.3)'), 10) == 2
    with pytest.raises(psycopg.OperationalError):
        await asyncio.wait_for(querying, 10)
    await manager.dispose(ALPHA, other)


async def test_a_disposal_in_the_middle_of_a_copy_closes_the_connection(
    manager: DbConnectionManager, conn: DbConnection
) -> None:
    copying = conn.cursor().copy('COPY notes FROM STDIN')
    await copying.__aenter__()
    await manager.dispose(ALPHA, conn)
    assert conn.closed
    with pytest.raises(psycopg.OperationalError):
        await copying.__aexit__(None, None, None)


def test_a_disposal_after_the_end_of_the_event_loop_closes_what_was_in_the_middle_of_something(
    manager: DbConnectionManager, postgres: PostgresServer
) -> None:
    async def leave_unfinished() -> DbConnection:
        conn = await manager.create(ALPHA)
        with pytest.raises(psycopg.ProgrammingError):
            await conn.execute('COPY notes FROM STDIN')
        assert conn.info.transaction_status == ACTIVE
        return conn

    before = open_descriptors()
    conn = asyncio.run(leave_unfinished())
    disposing = manager.dispose(ALPHA, conn)
    disposing.send(None)
    disposing.close()
    assert conn.closed
    assert open_descriptors() == before


def wait_for_input(conn: DbConnection) -> None:
    """Wait for input without letting the event loop run."""
    deadline = time.monotonic() + 5
    while is_quiet(conn.fileno()):
        assert time.monotonic() < deadline, 'nothing has arrived'
