"""The manager of asyncmy connections, against a real MariaDB."""

import asyncio
import contextlib
import time
from typing import Any, AsyncIterator, Dict, Iterator

import pytest

asyncmy = pytest.importorskip('asyncmy', exc_type=ImportError)

from asyncmy import errors  # noqa: E402
from asyncmy.cursors import SSCursor  # noqa: E402
from support.mariadb import DATABASES, PASSWORD, USER, MariadbServer  # noqa: E402
from support.servers import eventually_async, open_descriptors, refusing_port, silent_server  # noqa: E402

from generic_connection_pool.asyncio import ConnectionPool  # noqa: E402
from generic_connection_pool.contrib import asyncmy as asyncmy_manager  # noqa: E402
from generic_connection_pool.contrib._sockets import is_quiet  # noqa: E402
from generic_connection_pool.contrib.asyncmy import DbConnectionManager  # noqa: E402

Pool = ConnectionPool[str, Any]
ALPHA, BETA = DATABASES
LONG = 'SELECT SLEEP(30)'


@pytest.fixture
def manager(mariadb: MariadbServer) -> DbConnectionManager:
    return DbConnectionManager({name: mariadb.parameters(name) for name in DATABASES})


@pytest.fixture
async def conn(manager: DbConnectionManager) -> AsyncIterator[Any]:
    conn: Any = await manager.create(ALPHA)
    yield conn
    await manager.dispose(ALPHA, conn)


@pytest.fixture(autouse=True)
def nothing_left_over(mariadb: MariadbServer) -> None:
    mariadb.clear()


@pytest.fixture
def all_forgotten(manager: DbConnectionManager) -> Iterator[None]:
    """Sees to it that a manager remembers nothing of connections that are disposed of."""
    yield
    assert not manager._sessions


async def fetch(conn: Any, sql: str, *args: Any) -> Any:
    """Run a query and return the first value of its answer."""
    async with conn.cursor() as cursor:
        await cursor.execute(sql, args)
        return (await cursor.fetchone())[0]


def noticed_by_nobody(conn: Any) -> None:
    """Wait for input without letting the event loop see it."""
    fd = conn._transport.get_extra_info('socket').fileno()
    deadline = time.monotonic() + 5
    while is_quiet(fd):
        assert time.monotonic() < deadline, 'nothing has arrived'


# -- creating


async def test_an_unknown_endpoint_is_named_and_so_are_the_known_but_no_password(manager: DbConnectionManager) -> None:
    with pytest.raises(KeyError, match="'typo'.*'alpha', 'beta'") as caught:
        await manager.create('typo')
    assert PASSWORD not in str(caught.value) and PASSWORD not in repr(manager)


@pytest.mark.parametrize('arguments, said', [
    (['my-secret'], 'connect_args must be a mapping of connect keywords by endpoint, not a list'),
    ({'main': 'my-secret'}, r"connect_args\['main'\] must be a mapping of connect keywords, or return one, not a str"),
])  # fmt: skip
def test_arguments_of_the_wrong_kind_are_told_by_their_kind(arguments: Any, said: str) -> None:
    with pytest.raises(TypeError, match=f'^{said}$'):
        DbConnectionManager(arguments)


@pytest.mark.parametrize('name', ['ping_timeout', 'reset_timeout'])
@pytest.mark.parametrize('value', [0, -1, 'soon', None, True, float('nan')])
def test_a_timeout_that_is_none_is_refused(name: str, value: Any) -> None:
    wrong: Dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=f'{name} must be a number of seconds, more than 0, not {value!r}'):
        DbConnectionManager({}, **wrong)


async def test_a_wrong_password_is_an_error_that_names_the_endpoint_and_not_the_password(
    mariadb: MariadbServer
) -> None:
    pool: Pool = ConnectionPool(DbConnectionManager({'main': mariadb.parameters(password='wrong-secret')}))
    before = open_descriptors()
    with pytest.raises(errors.OperationalError, match="endpoint 'main': Access denied") as caught:
        await pool.acquire('main')
    assert caught.value.args[0] == 1045
    assert 'wrong-secret' not in str(caught.value)
    assert pool.get_size() == 0
    await eventually_async(lambda: open_descriptors() == before)
    await pool.close()


async def test_a_secret_that_the_server_quotes_is_not_told(mariadb: MariadbServer) -> None:
    secret = 'zy-token-qx'
    manager = DbConnectionManager({'main': mariadb.parameters(user=secret, password=secret)})
    with pytest.raises(errors.OperationalError, match="^endpoint 'main': OperationalError 1045, whose") as caught:
        await manager.create('main')
    assert caught.value.__cause__ is None and caught.value.__context__ is None
    assert secret not in repr(caught.value)


async def test_credentials_that_have_changed_are_picked_up(mariadb: MariadbServer) -> None:
    valid = {'password': 'stale'}
    pool: Pool = ConnectionPool(DbConnectionManager({'main': lambda: mariadb.parameters(**valid)}))
    with pytest.raises(errors.OperationalError, match='Access denied'):
        await pool.acquire('main')
    valid['password'] = PASSWORD
    async with pool.connection('main') as conn:
        assert (await fetch(conn, 'SELECT CURRENT_USER()')).startswith(USER)
    await pool.close()


async def test_an_unknown_database_is_named(mariadb: MariadbServer) -> None:
    manager = DbConnectionManager({'main': mariadb.parameters('nowhere')})
    with pytest.raises(errors.OperationalError, match="endpoint 'main': .*'nowhere'"):
        await manager.create('main')


async def test_a_refused_connection_says_where_and_leaves_the_slot_free() -> None:
    where = {'host': '127.0.0.1', 'port': refusing_port(), 'user': 'x'}
    pool: Pool = ConnectionPool(DbConnectionManager({'main': where}))
    with pytest.raises(errors.OperationalError, match=f"endpoint 'main': .*{where['port']}"):
        await pool.acquire('main')
    assert pool.get_size() == 0
    await pool.close()


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


async def test_the_timeout_of_the_connect_keywords_is_for_all_of_the_login() -> None:
    with silent_server() as (host, port):
        before = open_descriptors()
        where = {'host': host, 'port': port, 'user': 'x', 'connect_timeout': 1}
        started = time.monotonic()
        with pytest.raises(TimeoutError, match="^connecting to endpoint 'main' took longer than 1.0 seconds$"):
            await DbConnectionManager({'main': where}).create('main')
        assert 0.9 < time.monotonic() - started < 3
        await eventually_async(lambda: open_descriptors() == before)


@pytest.mark.parametrize('pause', [None, 0.0, 0.001, 0.003])
@pytest.mark.parametrize('rounds', range(6))
async def test_a_connect_cancelled_at_any_step_leaves_nothing_behind(
    manager: DbConnectionManager, all_forgotten: None, rounds: int, pause: 'float | None'
) -> None:
    before = open_descriptors()
    creating = asyncio.ensure_future(manager.create(ALPHA))
    for _ in range(rounds):
        await asyncio.sleep(pause or 0)
    creating.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await manager.dispose(ALPHA, await creating)
    await eventually_async(lambda: open_descriptors() == before)


async def test_a_connect_that_is_cancelled_when_it_has_just_succeeded_is_closed(
    manager: DbConnectionManager, all_forgotten: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in = asyncmy_manager._log_in

    async def log_in_and_cancel(*args: Any) -> Any:
        session = await log_in(*args)
        creating.cancel()
        return session

    monkeypatch.setattr(asyncmy_manager, '_log_in', log_in_and_cancel)
    before = open_descriptors()
    creating = asyncio.ensure_future(manager.create(ALPHA))
    with pytest.raises(asyncio.CancelledError):
        await creating
    await eventually_async(lambda: open_descriptors() == before)


async def test_a_connect_that_is_cancelled_at_a_silent_server_ends(all_forgotten: None) -> None:
    with silent_server() as (host, port):
        before = open_descriptors()
        manager = DbConnectionManager({'main': {'host': host, 'port': port, 'user': 'x'}})
        # also in the moment in which the connection is made, when the cancellation may get lost
        for rounds in range(12):
            creating = asyncio.ensure_future(manager.create('main'))
            for _ in range(rounds):
                await asyncio.sleep(0)
            creating.cancel()
            done, _ = await asyncio.wait([creating], timeout=5)
            assert done and creating.cancelled()
        await eventually_async(lambda: open_descriptors() == before)


# -- checking


async def test_an_idle_connection_is_found_alive_time_and_again(manager: DbConnectionManager, conn: Any) -> None:
    for _ in range(3):
        assert await manager.check_aliveness(ALPHA, conn)
        assert await fetch(conn, 'SELECT 1') == 1


async def test_a_connection_closed_by_its_user_is_found_dead(manager: DbConnectionManager, conn: Any) -> None:
    await conn.ensure_closed()
    assert not await manager.check_aliveness(ALPHA, conn)
    assert not manager.is_reusable(ALPHA, conn, ValueError())
    await manager.on_release(ALPHA, conn)


async def test_a_session_that_was_ended_is_found_dead_and_not_begun_again(
    manager: DbConnectionManager, conn: Any, mariadb: MariadbServer
) -> None:
    mariadb.kill(conn.thread_id())
    assert not await manager.check_aliveness(ALPHA, conn)
    assert mariadb.sessions() == 0


@pytest.mark.parametrize('seen', [True, False])
async def test_an_unread_answer_makes_a_connection_unfit(
    manager: DbConnectionManager, conn: Any, seen: bool
) -> None:
    conn._transport.write(b'\x09\0\0\0\x03SELECT 1')
    if seen:
        await eventually_async(lambda: conn._proto.length > conn._proto.pos)
    else:
        noticed_by_nobody(conn)
    assert not await manager.check_aliveness(ALPHA, conn)
    assert not manager.is_reusable(ALPHA, conn, ValueError())


async def test_a_server_that_does_not_answer_a_ping_is_found_out_in_time(mariadb: MariadbServer) -> None:
    manager = DbConnectionManager({ALPHA: mariadb.parameters()}, ping_timeout=0.1)
    before = open_descriptors()
    conn: Any = await manager.create(ALPHA)
    with mariadb.stuck():
        started = time.monotonic()
        assert not await manager.check_aliveness(ALPHA, conn)
        await manager.dispose(ALPHA, conn)
        assert 0.09 < time.monotonic() - started < 1
        await eventually_async(lambda: open_descriptors() == before)


async def test_a_check_that_is_cancelled_closes_the_connection(
    manager: DbConnectionManager, conn: Any, mariadb: MariadbServer
) -> None:
    with mariadb.stuck():
        checking = asyncio.ensure_future(manager.check_aliveness(ALPHA, conn))
        await asyncio.sleep(0.01)
        checking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await checking
    assert not conn.connected


# -- releasing


async def test_what_a_user_has_changed_in_the_session_is_as_in_a_new_one(
    manager: DbConnectionManager, conn: Any, mariadb: MariadbServer
) -> None:
    state = (
        "SELECT CONCAT_WS(',', @@autocommit, @@tx_isolation, @@sql_mode, @@time_zone, @@character_set_client,"
        " @@character_set_results, @@collation_connection, DATABASE(), IFNULL(@mine, 'none'), IS_FREE_LOCK('lock'))"
    )
    before = await fetch(conn, state)
    await conn.autocommit(True)
    for sql in (
        "SET SESSION sql_mode = '', time_zone = '+05:00', @mine = 5", 'SET NAMES latin1 COLLATE latin1_bin',
        'SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE', f'USE {BETA}', 'CREATE TEMPORARY TABLE mine (a int)',
        "SELECT GET_LOCK('lock', 0)", "PREPARE mine FROM 'SELECT 1'", f'LOCK TABLES {ALPHA}.notes WRITE',
    ):  # fmt: skip
        await fetch_none(conn, sql)
    assert await fetch(conn, state.replace("IS_FREE_LOCK('lock')", '1')) != before
    number = conn.thread_id()
    await manager.on_release(ALPHA, conn)
    assert conn.connected and conn.thread_id() == number
    assert await fetch(conn, state) == before
    assert not conn.get_autocommit()
    with pytest.raises(errors.ProgrammingError):
        await fetch_none(conn, f'SELECT * FROM {BETA}.mine')
    with pytest.raises(errors.MySQLError):
        await fetch_none(conn, 'EXECUTE mine')
    # not locked any more
    mariadb.query("INSERT INTO notes VALUES ('free')")


async def fetch_none(conn: Any, sql: str) -> None:
    async with conn.cursor() as cursor:
        await cursor.execute(sql)


@pytest.mark.parametrize('more', [
    {'autocommit': True}, {'autocommit': None}, {'sql_mode': "'ANSI_QUOTES'"}, {'charset': 'latin1'},
    {'init_command': "SET @mine = 7, time_zone = '+03:00'"},
], ids=str)  # fmt: skip
async def test_what_the_connect_keywords_ask_for_is_kept(mariadb: MariadbServer, more: Dict[str, Any]) -> None:
    state = (
        "SELECT CONCAT_WS(',', @@autocommit, @@sql_mode, @@time_zone, @@character_set_client, @@character_set_results,"
        " @@collation_connection, IFNULL(@mine, 'none'))"
    )
    manager = DbConnectionManager({'main': mariadb.parameters(**more)})
    conn: Any = await manager.create('main')
    before = await fetch(conn, state), conn.get_autocommit()
    await conn.autocommit(not conn.get_autocommit())
    await fetch_none(conn, "SET SESSION sql_mode = '', time_zone = '+05:00', @mine = 5")
    await manager.on_release('main', conn)
    assert (await fetch(conn, state), conn.get_autocommit()) == before
    await manager.dispose('main', conn)


async def test_without_a_reset_the_transaction_autocommit_and_the_database_are_put_right(
    mariadb: MariadbServer
) -> None:
    manager = DbConnectionManager({'main': mariadb.parameters()}, reset_session=False)
    conn: Any = await manager.create('main')
    await fetch_none(conn, "INSERT INTO notes VALUES ('lost')")
    await conn.autocommit(True)
    await fetch_none(conn, f'USE {BETA}')
    await fetch_none(conn, 'BEGIN')
    await fetch_none(conn, f"INSERT INTO {ALPHA}.notes VALUES ('lost too')")
    await manager.on_release('main', conn)
    assert await fetch(conn, 'SELECT CONCAT(DATABASE(), @@autocommit, @@in_transaction)') == f'{ALPHA}OFF0'
    await manager.dispose('main', conn)


@pytest.mark.parametrize('changes', [True, False])
async def test_a_session_that_had_no_database_is_not_reused_if_it_has_one(
    mariadb: MariadbServer, changes: bool
) -> None:
    manager = DbConnectionManager({'main': mariadb.parameters(None)})
    conn: Any = await manager.create('main')
    if changes:
        await conn.select_db(BETA)
    await manager.on_release('main', conn)
    assert await manager.check_aliveness('main', conn) is not changes
    await manager.dispose('main', conn)


async def test_a_session_whose_driver_speaks_another_character_set_is_not_reused(
    manager: DbConnectionManager, conn: Any
) -> None:
    conn._charset = 'latin1'
    await manager.on_release(ALPHA, conn)
    assert not await manager.check_aliveness(ALPHA, conn)


async def test_statements_that_were_prepared_before_a_reset_are_prepared_again(mariadb: MariadbServer) -> None:
    manager = DbConnectionManager({'main': mariadb.parameters(stmt_cache_size=10)})
    conn: Any = await manager.create('main')
    for _ in range(2):
        assert await fetch(conn, 'SELECT %s + 1', 1) == 2
        assert conn._stmt_cache
        await manager.on_release('main', conn)
    await manager.dispose('main', conn)


async def test_a_reset_that_fails_closes_the_connection(
    manager: DbConnectionManager, conn: Any, mariadb: MariadbServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(*args: Any) -> None:
        raise errors.OperationalError(1047, 'Unknown command')

    manager._reset = fails  # type: ignore[method-assign,assignment]
    await manager.on_release(ALPHA, conn)
    assert not conn.connected
    assert "a connection to 'alpha' was closed" in caplog.text


async def test_a_reset_that_takes_too_long_closes_the_connection(
    mariadb: MariadbServer, caplog: pytest.LogCaptureFixture
) -> None:
    manager = DbConnectionManager({'main': mariadb.parameters()}, reset_timeout=0.1)
    conn: Any = await manager.create('main')
    with mariadb.stuck():
        started = time.monotonic()
        await manager.on_release('main', conn)
        assert 0.09 < time.monotonic() - started < 1
    assert not conn.connected
    assert "a connection to 'main' was closed" in caplog.text
    await manager.dispose('main', conn)


async def test_a_reset_that_is_cancelled_closes_the_connection(
    manager: DbConnectionManager, conn: Any, mariadb: MariadbServer
) -> None:
    with mariadb.stuck():
        releasing = asyncio.ensure_future(manager.on_release(ALPHA, conn))
        await asyncio.sleep(0.01)
        releasing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await releasing
    assert not conn.connected


FAILURES: Dict[Any, bool] = {
    ValueError(): True,
    errors.IntegrityError(): True,
    errors.ProgrammingError(): True,
    errors.OperationalError(): False,
    errors.InterfaceError(): False,
    errors.InternalError(): False,
    asyncio.TimeoutError(): False,
    TimeoutError(): False,
    ConnectionResetError(): False,
    asyncio.CancelledError(): False,
    KeyboardInterrupt(): False,
    GeneratorExit(): False,
}


@pytest.mark.parametrize('failure', FAILURES, ids=lambda failure: type(failure).__name__)
async def test_a_failure_tells_whether_a_session_can_go_on(
    manager: DbConnectionManager, conn: Any, failure: BaseException
) -> None:
    assert manager.is_reusable(ALPHA, conn, failure) is FAILURES[failure]


async def test_a_session_cannot_go_on_with_a_result_that_is_not_read_to_its_end(
    manager: DbConnectionManager, conn: Any
) -> None:
    cursor = conn.cursor(SSCursor)
    await cursor.execute('SELECT 1 UNION SELECT 2')
    await cursor.fetchone()
    assert not manager.is_reusable(ALPHA, conn, ValueError())
    await manager.on_release(ALPHA, conn)
    assert not conn.connected


# -- closing


async def test_disposing_ends_the_session(
    manager: DbConnectionManager, conn: Any, mariadb: MariadbServer, all_forgotten: None
) -> None:
    await manager.dispose(ALPHA, conn)
    assert not conn.connected
    await eventually_async(lambda: mariadb.sessions() == 0)
    await manager.dispose(ALPHA, conn)


@pytest.mark.parametrize('cancels', [False, True])
async def test_disposing_gives_up_on_a_server_that_does_not_read(
    manager: DbConnectionManager, mariadb: MariadbServer, monkeypatch: pytest.MonkeyPatch, cancels: bool
) -> None:
    monkeypatch.setattr('generic_connection_pool.contrib.asyncmy.CLOSING_GRACE', 0.05)
    before = open_descriptors()
    conn: Any = await manager.create(ALPHA)
    with mariadb.stuck():
        # more than the system takes
        asking = asyncio.ensure_future(fetch(conn, 'SELECT %s', 'x' * 30_000_000))
        await eventually_async(lambda: conn._transport.get_write_buffer_size() > 0)
        if cancels:
            asking.cancel()
            await asyncio.wait([asking])
        await asyncio.wait_for(manager.dispose(ALPHA, conn), 1)
        await asyncio.wait([asking])
        assert asking.cancelled() is cancels
        if not cancels:
            assert isinstance(asking.exception(), errors.OperationalError)
        await eventually_async(lambda: open_descriptors() == before)


async def test_a_cancelled_disposal_closes_the_connection(
    manager: DbConnectionManager, mariadb: MariadbServer
) -> None:
    before = open_descriptors()
    conn: Any = await manager.create(ALPHA)
    disposing = asyncio.ensure_future(manager.dispose(ALPHA, conn))
    await asyncio.sleep(0)
    disposing.cancel()
    await asyncio.wait([disposing])
    assert not conn.connected or conn._transport.is_closing()
    await eventually_async(lambda: open_descriptors() == before)
