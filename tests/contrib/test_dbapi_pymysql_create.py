"""Connecting with PyMySQL, a PEP 249 driver, to a real MariaDB and to servers that do not answer."""

import threading
import time
from typing import Any, Dict

import pytest

pymysql = pytest.importorskip('pymysql', exc_type=ImportError)

from support.connecting import await_threads, brief_threads as brief_threads  # noqa: E402
from support.mariadb import PASSWORD, USER, MariadbServer  # noqa: E402
from support.servers import eventually, open_descriptors, refusing_port, silent_server  # noqa: E402

from generic_connection_pool.contrib.dbapi import DbConnectionManager  # noqa: E402
from generic_connection_pool.threading import ConnectionPool  # noqa: E402

Manager = DbConnectionManager[Any]
Pool = ConnectionPool[str, Any]

pytestmark = pytest.mark.usefixtures('brief_threads')


@pytest.fixture(autouse=True)
def nothing_left_over(mariadb: MariadbServer) -> None:
    mariadb.clear()


def fetch(conn: Any, sql: str) -> Any:
    """Run a query and return the first value of its answer."""
    with conn.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


@pytest.mark.parametrize('timeout', [None, 5.0])
def test_a_wrong_password_is_an_error_that_names_the_endpoint_and_not_the_password(
    mariadb: MariadbServer, timeout: Any
) -> None:
    pool: Pool = ConnectionPool(DbConnectionManager(pymysql, {'main': mariadb.parameters(password='wrong-secret')}))
    before = open_descriptors()
    with pytest.raises(pymysql.OperationalError, match="endpoint 'main': Access denied") as caught:
        pool.acquire('main', timeout)
    assert caught.value.args[0] == 1045
    assert 'wrong-secret' not in str(caught.value)
    assert pool.get_size() == 0
    eventually(lambda: open_descriptors() == before)
    pool.close()


def test_a_secret_that_the_server_quotes_is_not_told(mariadb: MariadbServer) -> None:
    secret = 'zy-token-qx'
    manager: Manager = DbConnectionManager(pymysql, {'main': mariadb.parameters(user=secret, password=secret)})
    with pytest.raises(pymysql.OperationalError, match="^endpoint 'main': OperationalError 1045, whose") as caught:
        manager.create('main')
    assert caught.value.__cause__ is None and caught.value.__context__ is None
    assert secret not in repr(caught.value) and secret not in repr(manager)


def test_credentials_that_have_changed_are_picked_up(mariadb: MariadbServer) -> None:
    valid = {'password': 'stale'}
    pool: Pool = ConnectionPool(DbConnectionManager(pymysql, {'main': lambda: mariadb.parameters(**valid)}))
    with pytest.raises(pymysql.OperationalError, match='Access denied'):
        pool.acquire('main', timeout=5)
    valid['password'] = PASSWORD
    with pool.connection('main', timeout=5) as conn:
        assert fetch(conn, 'SELECT CURRENT_USER()').startswith(USER)
    pool.close()


@pytest.mark.parametrize('timeout', [None, 5.0])
def test_an_unknown_database_is_named(mariadb: MariadbServer, timeout: Any) -> None:
    manager: Manager = DbConnectionManager(pymysql, {'main': mariadb.parameters('nowhere')})
    with pytest.raises(pymysql.OperationalError, match="endpoint 'main': .*'nowhere'"):
        manager.create('main', timeout)


@pytest.mark.parametrize('timeout', [None, 5.0])
def test_a_refused_connection_says_where_and_leaves_the_slot_free(timeout: Any) -> None:
    where = {'host': '127.0.0.1', 'port': refusing_port(), 'user': 'x'}
    pool: Pool = ConnectionPool(DbConnectionManager(pymysql, {'main': where}))
    with pytest.raises(pymysql.OperationalError, match="endpoint 'main': .*127.0.0.1.*refused"):
        pool.acquire('main', timeout)
    assert pool.get_size() == 0
    pool.close()


def test_a_server_that_never_answers_is_given_up_in_time_and_its_connection_closed() -> None:
    with silent_server() as (host, port):
        pool: Pool = ConnectionPool(DbConnectionManager(pymysql, {'main': {'host': host, 'port': port, 'user': 'x'}}))
        before = open_descriptors()
        started = time.monotonic()
        with pytest.raises((TimeoutError, pymysql.OperationalError), match="'main'"):
            pool.acquire('main', timeout=0.1)
        assert 0.09 < time.monotonic() - started < 1
        assert pool.get_size() == 0
        await_threads()
        assert open_descriptors() == before
        pool.close()


def test_timeouts_of_the_login_are_not_those_of_queries(mariadb: MariadbServer) -> None:
    manager: Manager = DbConnectionManager(pymysql, {'main': mariadb.parameters(read_timeout=3)})
    conn = manager.create('main', timeout=0.5)
    assert fetch(conn, 'SELECT SLEEP(0.6)') == 0
    assert conn._read_timeout == 3 and conn._write_timeout is None
    manager.dispose('main', conn)


def test_no_time_is_too_little_to_connect(mariadb: MariadbServer) -> None:
    manager: Manager = DbConnectionManager(pymysql, {'main': mariadb.parameters()})
    with pytest.raises(TimeoutError, match='main'):
        manager.create('main', timeout=0)


def test_a_connection_that_comes_too_late_is_closed(mariadb: MariadbServer) -> None:
    late = threading.Event()

    def arguments() -> Dict[str, Any]:
        assert late.wait(10)
        return dict(mariadb.parameters())

    manager: Manager = DbConnectionManager(pymysql, {'main': arguments})
    before = open_descriptors()
    with pytest.raises(TimeoutError):
        manager.create('main', timeout=0.02)
    late.set()
    await_threads()
    eventually(lambda: open_descriptors() == before and mariadb.sessions() == 0)
    assert not manager._notes
