"""What holds of PostgreSQL connections for threads with each driver, against a real server."""

import concurrent.futures
import contextlib
import threading
from typing import Any, Iterator, List

import pytest
from support.connecting import LastMoment, brief_threads as brief_threads
from support.postgres import DATABASES, PASSWORD, USER_WITH_PASSWORD, PostgresServer
from support.postgres_drivers import DRIVERS, Driver, Manager, execute, fetch
from support.servers import eventually, open_descriptors, silent_server

from generic_connection_pool.threading import ConnectionPool

Pool = ConnectionPool[str, Any]
ALPHA = DATABASES[0]
#: a query that lasts until somebody ends it
LONG = 'SELECT 1 FROM pg_sleep(30)'
#: the number of libpq's PQTRANS_IDLE
IDLE = 0


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> Driver:
    return DRIVERS[request.param]()


@pytest.fixture
def manager(driver: Driver, postgres: PostgresServer) -> Manager:
    return driver.manage({name: driver.keywords(postgres, name) for name in DATABASES})


@pytest.fixture
def pool(manager: Manager) -> Iterator[Pool]:
    pool: Pool = ConnectionPool(manager)
    yield pool
    pool.close(timeout=5)
    # what the managers of psycopg remember of connections in use
    assert not getattr(manager, '_loans', None)


@pytest.fixture(autouse=True)
def empty_table(postgres: PostgresServer) -> None:
    postgres.query('DELETE FROM notes', database=ALPHA)


# -- creating


def test_an_unknown_endpoint_is_named_and_so_are_the_known_but_no_password(
    driver: Driver, postgres: PostgresServer
) -> None:
    manager = driver.manage({
        'main': driver.keywords(postgres, password=PASSWORD), 'other': driver.keywords(postgres),
    })  # fmt: skip
    with pytest.raises(KeyError, match="'typo'.*'main', 'other'") as caught:
        manager.create('typo')
    assert PASSWORD not in str(caught.value)
    assert PASSWORD not in repr(manager)


def test_a_right_password_is_accepted(driver: Driver, postgres: PostgresServer) -> None:
    manager = driver.manage({'main': driver.keywords(postgres, user=USER_WITH_PASSWORD, password=PASSWORD)})
    conn = manager.create('main', 5)
    assert PASSWORD not in repr(conn)
    assert fetch(conn, 'SELECT current_user') == USER_WITH_PASSWORD
    manager.dispose('main', conn)


@pytest.mark.parametrize('timeout', [None, 5.0])
def test_an_unknown_database_is_named(driver: Driver, postgres: PostgresServer, timeout: Any) -> None:
    manager = driver.manage({'main': driver.keywords(postgres, 'nowhere')})
    with pytest.raises(driver.module.OperationalError, match='"nowhere" does not exist'):
        manager.create('main', timeout)


def test_an_acquire_gives_up_in_time_when_a_server_never_answers(driver: Driver, brief_threads: None) -> None:
    with silent_server() as (host, port):
        pool: Pool = ConnectionPool(driver.manage({'main': {'host': host, 'port': port, 'user': 'x'}}))
        with pytest.raises(TimeoutError):
            pool.acquire('main', timeout=0.1)
        assert pool.get_size() == 0
        pool.close()


def test_no_time_is_too_little_to_connect(manager: Manager) -> None:
    with pytest.raises(TimeoutError):
        manager.create(ALPHA, timeout=0)


def test_a_connection_that_comes_at_the_last_moment_is_used(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LastMoment, 'end', concurrent.futures.TimeoutError(), raising=False)
    monkeypatch.setattr(concurrent.futures, 'Future', LastMoment)
    conn = manager.create(ALPHA, timeout=10)
    assert fetch(conn, 'SELECT 1') == 1
    manager.dispose(ALPHA, conn)


def test_a_connection_that_comes_at_the_moment_of_an_interrupt_is_closed(
    manager: Manager, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LastMoment, 'end', KeyboardInterrupt(), raising=False)
    monkeypatch.setattr(concurrent.futures, 'Future', LastMoment)
    with pytest.raises(KeyboardInterrupt) as caught:
        manager.create(ALPHA, timeout=10)
    # with what the traceback refers to still alive
    assert caught.tb
    eventually(lambda: postgres.sessions() == 0)


# -- using


def test_a_connection_is_reused(pool: Pool) -> None:
    pids = []
    for _ in range(3):
        with pool.connection(ALPHA) as conn:
            pids.append(fetch(conn, 'SELECT pg_backend_pid()'))
    assert len(set(pids)) == 1


def test_each_endpoint_is_a_database_of_its_own(pool: Pool) -> None:
    with contextlib.ExitStack() as stack:
        conns = {name: stack.enter_context(pool.connection(name)) for name in DATABASES}
        assert {name: fetch(conn, 'SELECT current_database()') for name, conn in conns.items()} == {
            name: name for name in DATABASES
        }
    assert pool.get_size() == 3


def test_what_is_committed_stays_and_a_transaction_left_open_is_rolled_back(
    pool: Pool, postgres: PostgresServer
) -> None:
    with pool.connection(ALPHA) as conn:
        execute(conn, "INSERT INTO notes VALUES ('kept')")
        conn.commit()
        execute(conn, "INSERT INTO notes VALUES ('lost')")
    assert postgres.open_transactions() == 0
    with pool.connection(ALPHA) as again:
        assert again is conn
        assert again.info.transaction_status == IDLE
    assert postgres.query('SELECT * FROM notes') == [('kept',)]


def test_a_transaction_begun_by_hand_in_autocommit_mode_is_rolled_back(pool: Pool, postgres: PostgresServer) -> None:
    with pool.connection(ALPHA) as conn:
        conn.autocommit = True
        execute(conn, 'BEGIN')
        execute(conn, "INSERT INTO notes VALUES ('lost')")
    with pool.connection(ALPHA) as again:
        assert again is conn
        assert again.info.transaction_status == IDLE
    assert postgres.query('SELECT * FROM notes') == []


def test_a_failed_transaction_is_rolled_back_and_its_connection_reused(driver: Driver, pool: Pool) -> None:
    with pytest.raises(driver.error('UniqueViolation')), pool.connection(ALPHA) as conn:
        execute(conn, "INSERT INTO notes VALUES ('twice'), ('twice')")
    with pool.connection(ALPHA) as again:
        assert again is conn
        assert fetch(again, 'SELECT 1') == 1


def test_an_error_of_the_users_own_rolls_back_and_the_connection_is_reused(
    pool: Pool, postgres: PostgresServer
) -> None:
    with pytest.raises(ValueError), pool.connection(ALPHA) as conn:
        execute(conn, "INSERT INTO notes VALUES ('lost')")
        raise ValueError
    with pool.connection(ALPHA) as again:
        assert again is conn
    assert postgres.query('SELECT * FROM notes') == []


# -- what breaks off


def test_a_connection_whose_session_was_ended_while_idle_is_replaced(pool: Pool, postgres: PostgresServer) -> None:
    with pool.connection(ALPHA) as conn:
        pid = fetch(conn, 'SELECT pg_backend_pid()')
    before = open_descriptors()
    postgres.kill(pid)
    with pool.connection(ALPHA) as conn:
        assert fetch(conn, 'SELECT pg_backend_pid()') != pid
    assert pool.get_size() == 1
    assert open_descriptors() == before


def test_the_end_of_a_session_in_use_is_an_error_and_the_next_user_gets_another_connection(
    driver: Driver, pool: Pool, postgres: PostgresServer
) -> None:
    with pytest.raises(driver.module.OperationalError), pool.connection(ALPHA) as conn:
        postgres.kill(fetch(conn, 'SELECT pg_backend_pid()'))
        fetch(conn, 'SELECT 1')
    with pool.connection(ALPHA) as again:
        assert again is not conn
        assert fetch(again, 'SELECT 1') == 1
    assert pool.get_size() == 1


def test_the_end_of_a_session_in_use_that_its_user_has_not_noticed_is_no_error(
    pool: Pool, postgres: PostgresServer
) -> None:
    with pool.connection(ALPHA) as conn:
        postgres.kill(fetch(conn, 'SELECT pg_backend_pid()'))
    with pool.connection(ALPHA) as again:
        assert again is not conn
        assert fetch(again, 'SELECT 1') == 1
    assert pool.get_size() == 1


# to the manager for PEP 249 an OperationalError may be one that ends the session
@pytest.mark.parametrize('driver', ['psycopg2', 'psycopg'], indirect=True)
def test_a_statement_timeout_is_an_error_like_any_other(driver: Driver, pool: Pool) -> None:
    with pytest.raises(driver.error('QueryCanceled')), pool.connection(ALPHA) as conn:
        execute(conn, 'SET LOCAL statement_timeout = 10')
        fetch(conn, LONG)
    with pool.connection(ALPHA) as again:
        assert again is conn
        assert fetch(again, 'SELECT 2') == 2


def test_a_pool_closed_by_force_ends_a_running_query(driver: Driver, pool: Pool, postgres: PostgresServer) -> None:
    outcome: List[BaseException] = []

    def use() -> None:
        try:
            with pool.connection(ALPHA) as conn:
                # so that the server sees the query as it is written
                conn.autocommit = driver.begins_along
                fetch(conn, LONG)
        except driver.module.Error as exc:
            outcome.append(exc)

    user = threading.Thread(target=use)
    user.start()
    eventually(lambda: postgres.is_running(LONG))
    pool.close(timeout=0.02)
    user.join(10)
    assert not user.is_alive()
    assert isinstance(outcome[0], driver.module.OperationalError)
    outcome.clear()
    eventually(lambda: postgres.sessions() == 0)
