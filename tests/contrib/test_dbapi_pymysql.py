"""The manager of PEP 249 connections with PyMySQL, against a real MariaDB."""

import contextlib
import os
import socket
import threading
import time
from typing import Any, Dict, Iterator, List, Tuple

import pytest

pymysql = pytest.importorskip('pymysql', exc_type=ImportError)

from pymysql.cursors import DictCursor, SSCursor  # noqa: E402
from support.connecting import await_threads, brief_threads as brief_threads  # noqa: E402
from support.crowds import crowd_of_threads  # noqa: E402
from support.forking import in_child, inode, sockets_of  # noqa: E402
from support.mariadb import DATABASES, PASSWORD, MariadbServer  # noqa: E402
from support.servers import eventually, open_descriptors  # noqa: E402

from generic_connection_pool.contrib._dbapi_drivers import Traits  # noqa: E402
from generic_connection_pool.contrib._sockets import is_quiet  # noqa: E402
from generic_connection_pool.contrib.dbapi import DbConnectionManager  # noqa: E402
from generic_connection_pool.threading import ConnectionPool  # noqa: E402

Manager = DbConnectionManager[Any]
Pool = ConnectionPool[str, Any]
ALPHA, BETA = DATABASES
LONG = 'SELECT SLEEP(30)'
#: more than sockets and their readers hold
LARGE = 'SELECT seq, REPEAT("x", 1000) FROM seq_1_to_20000'

pytestmark = pytest.mark.usefixtures('brief_threads')


@pytest.fixture
def manager(mariadb: MariadbServer) -> Manager:
    return DbConnectionManager(pymysql, {name: mariadb.parameters(name) for name in DATABASES})


@pytest.fixture
def conn(manager: Manager) -> Iterator[Any]:
    conn = manager.create(ALPHA)
    yield conn
    manager.dispose(ALPHA, conn)


@pytest.fixture
def pool(manager: Manager) -> Iterator[Pool]:
    pool: Pool = ConnectionPool(manager, max_size=5)
    yield pool
    pool.close(timeout=5)


@pytest.fixture(autouse=True)
def nothing_left_over(mariadb: MariadbServer) -> None:
    mariadb.clear()


def fetch(conn: Any, sql: str, *args: Any) -> Any:
    """Run a query and return the first value of its answer."""
    with conn.cursor() as cursor:
        cursor.execute(sql, args)
        return cursor.fetchone()[0]


# -- checking


def test_an_idle_connection_is_found_alive_time_and_again(manager: Manager, conn: Any) -> None:
    for timeout in (0, 1.0, None):
        assert manager.check_aliveness(ALPHA, conn, timeout)
    assert fetch(conn, 'SELECT 1') == 1


def test_a_ping_does_not_connect_again(manager: Manager, conn: Any, mariadb: MariadbServer) -> None:
    mariadb.kill(conn.thread_id())
    assert not manager.check_aliveness(ALPHA, conn, None)
    manager.on_release(ALPHA, conn)
    assert mariadb.sessions() == 0


def test_the_end_of_a_session_is_noticed_even_without_time_for_a_ping(
    manager: Manager, conn: Any, mariadb: MariadbServer
) -> None:
    mariadb.kill(conn.thread_id())
    eventually(lambda: not is_quiet(conn._sock.fileno()))
    assert not manager.check_aliveness(ALPHA, conn, 0)


def test_an_unread_answer_makes_a_connection_unfit(manager: Manager, conn: Any) -> None:
    conn._execute_command(3, 'SELECT 1')
    eventually(lambda: not is_quiet(conn._sock.fileno()))
    assert not manager.check_aliveness(ALPHA, conn, 0)
    assert not manager.is_reusable(ALPHA, conn, ValueError())


def test_a_server_that_does_not_answer_a_ping_is_found_out_in_time_and_leaves_nothing_open(
    mariadb: MariadbServer, manager: Manager
) -> None:
    before = open_descriptors()
    conn = manager.create(ALPHA)
    with mariadb.stuck():
        started = time.monotonic()
        assert not manager.check_aliveness(ALPHA, conn, 0.1)
        manager.dispose(ALPHA, conn, 0.1)
        assert 0.09 < time.monotonic() - started < 1
        await_threads()
        assert open_descriptors() == before
    assert not manager._notes


# -- reusing


def test_a_connection_is_reused(pool: Pool) -> None:
    seen = set()
    for _ in range(3):
        with pool.connection(ALPHA, timeout=5) as conn:
            seen.add(conn.thread_id())
    assert len(seen) == 1


def test_each_endpoint_is_a_database_of_its_own(pool: Pool) -> None:
    for name in DATABASES:
        with pool.connection(name) as conn:
            assert fetch(conn, 'SELECT DATABASE()') == name
    assert pool.get_size() == 2


def test_what_is_committed_stays_and_a_transaction_left_open_is_rolled_back(
    pool: Pool, mariadb: MariadbServer
) -> None:
    with pool.connection(ALPHA) as conn, conn.cursor() as cursor:
        cursor.execute("INSERT INTO notes VALUES ('kept')")
        conn.commit()
        cursor.execute("INSERT INTO notes VALUES ('lost')")
    assert mariadb.open_transactions() == 0
    with pool.connection(ALPHA) as again:
        assert again is conn
        assert fetch(again, 'SELECT @@in_transaction') == 0
    assert mariadb.query('SELECT * FROM notes') == [('kept',)]


def test_a_transaction_begun_by_hand_in_autocommit_mode_is_rolled_back(pool: Pool, mariadb: MariadbServer) -> None:
    with pool.connection(ALPHA) as conn, conn.cursor() as cursor:
        conn.autocommit(True)
        cursor.execute('BEGIN')
        cursor.execute("INSERT INTO notes VALUES ('lost')")
    assert mariadb.query('SELECT * FROM notes') == []


@pytest.mark.parametrize('sql', ['SET autocommit = 1', None])
def test_autocommit_the_database_and_the_kind_of_cursor_are_not_left_to_the_next_user(pool: Pool, sql: Any) -> None:
    with pool.connection(ALPHA) as conn, conn.cursor() as cursor:
        assert not conn.get_autocommit()
        cursor.execute(sql) if sql else conn.autocommit(True)
        cursor.execute(f'USE {BETA}')
        conn.cursorclass = DictCursor
    with pool.connection(ALPHA) as again:
        assert again is conn
        assert fetch(again, 'SELECT CONCAT(DATABASE(), @@autocommit)') == f'{ALPHA}OFF'


def test_what_only_its_user_knows_of_is_reset_by_a_function(mariadb: MariadbServer) -> None:
    def reset(conn: Any) -> None:
        conn.query('SET SESSION time_zone = DEFAULT, @secret = NULL')

    pool: Pool = ConnectionPool(DbConnectionManager(pymysql, {'main': mariadb.parameters()}, reset=reset))
    with pool.connection('main') as conn:
        conn.query("SET SESSION time_zone = '+05:00', @secret = 5")
    with pool.connection('main') as again:
        assert again is conn
        assert fetch(again, 'SELECT CONCAT(@@time_zone, IFNULL(@secret, " none"))') == 'SYSTEM none'
    pool.close()


def test_after_a_violated_constraint_the_connection_is_rolled_back_and_reused(
    pool: Pool, mariadb: MariadbServer
) -> None:
    with pytest.raises(pymysql.IntegrityError), pool.connection(ALPHA) as conn, conn.cursor() as cursor:
        cursor.execute("INSERT INTO notes VALUES ('twice')")
        cursor.execute("INSERT INTO notes VALUES ('twice')")
    with pool.connection(ALPHA) as again:
        assert again is conn
    assert mariadb.query('SELECT * FROM notes') == []


FAILURES: Dict[Any, bool] = {
    ValueError(): True,
    pymysql.IntegrityError(): True,
    pymysql.ProgrammingError(): True,
    pymysql.OperationalError(): False,
    pymysql.InterfaceError(): False,
    pymysql.InternalError(): False,
    TimeoutError(): False,
    ConnectionResetError(): False,
    KeyboardInterrupt(): False,
}


@pytest.mark.parametrize('failure', FAILURES, ids=lambda failure: type(failure).__name__)
def test_a_failure_tells_whether_a_session_can_go_on(manager: Manager, conn: Any, failure: BaseException) -> None:
    assert manager.is_reusable(ALPHA, conn, failure) is FAILURES[failure]


# -- interrupted exchanges


@pytest.mark.parametrize('sql', [LARGE, 'SELECT 1 UNION SELECT 2'])
@pytest.mark.parametrize('error', [None, ValueError])
def test_a_result_that_is_not_read_to_its_end_is_never_read_by_the_next_user(pool: Pool, sql: str, error: Any) -> None:
    raises: Any = pytest.raises(error) if error else contextlib.nullcontext()
    with raises, pool.connection(ALPHA) as conn:
        cursor = conn.cursor(SSCursor)
        cursor.execute(sql)
        assert cursor.fetchone()[0] == 1
        if error:
            raise error
    with pool.connection(ALPHA) as again:
        assert again is not conn
        assert fetch(again, 'SELECT 7') == 7
    cursor.close()
    assert pool.get_size() == 1


def test_a_second_result_that_is_not_read_is_never_read_by_the_next_user(mariadb: MariadbServer) -> None:
    from pymysql.constants import CLIENT

    arguments = {'main': mariadb.parameters(client_flag=CLIENT.MULTI_STATEMENTS)}
    pool: Pool = ConnectionPool(DbConnectionManager(pymysql, arguments))
    with pool.connection('main') as conn:
        # the second one is yet to come
        conn.query('SELECT 1; SELECT SLEEP(0.2)')
    with pool.connection('main') as again:
        assert again is not conn
        assert fetch(again, 'SELECT 7') == 7
    pool.close()


def test_a_query_that_runs_into_a_timeout_is_never_continued_by_the_next_user(mariadb: MariadbServer) -> None:
    pool: Pool = ConnectionPool(DbConnectionManager(pymysql, {'main': mariadb.parameters(read_timeout=0.05)}))
    with pytest.raises(pymysql.OperationalError, match='timed out'), pool.connection('main') as conn:
        fetch(conn, 'SELECT SLEEP(0.3)')
    with pool.connection('main') as again:
        assert again is not conn
        assert fetch(again, 'SELECT 2') == 2
    pool.close()


# -- a server that goes away


def test_connections_that_were_idle_when_the_server_was_restarted_are_replaced(
    pool: Pool, mariadb: MariadbServer
) -> None:
    with pool.connection(ALPHA) as one, pool.connection(ALPHA) as two:
        assert fetch(one, 'SELECT 1') == fetch(two, 'SELECT 1')
    before = open_descriptors()
    mariadb.restart()
    with pool.connection(ALPHA, timeout=5) as conn:
        assert conn not in (one, two)
        assert fetch(conn, 'SELECT 1') == 1
    with pool.connection(ALPHA) as conn, pool.connection(ALPHA) as other:
        assert fetch(conn, 'SELECT 1') == fetch(other, 'SELECT 1')
    assert pool.get_size() == 2
    assert open_descriptors() == before


def test_the_death_of_a_server_in_use_is_an_error_and_the_next_user_gets_another_connection(
    pool: Pool, mariadb: MariadbServer
) -> None:
    try:
        with pytest.raises(pymysql.OperationalError), pool.connection(ALPHA) as conn:
            mariadb.stop(crash=True)
            fetch(conn, 'SELECT 1')
        assert pool.get_size() == 0
        with pytest.raises(pymysql.OperationalError, match="endpoint 'alpha'.*refused"):
            pool.acquire(ALPHA, timeout=5)
    finally:
        mariadb.start()
    with pool.connection(ALPHA, timeout=5) as again:
        assert fetch(again, 'SELECT 1') == 1
    assert pool.get_size() == 1


def test_the_end_of_a_session_in_use_that_its_user_has_not_noticed_is_no_error(
    pool: Pool, mariadb: MariadbServer, caplog: pytest.LogCaptureFixture
) -> None:
    with pool.connection(ALPHA) as conn:
        mariadb.kill(conn.thread_id())
    with pool.connection(ALPHA) as again:
        assert again is not conn
        assert fetch(again, 'SELECT 1') == 1
    assert PASSWORD not in caplog.text


def test_a_rollback_that_fails_closes_the_connection(
    manager: Manager, conn: Any, caplog: pytest.LogCaptureFixture
) -> None:
    manager.on_acquire(ALPHA, conn)
    # the server's end is still open, and so it is not noticed before
    conn._sock.shutdown(socket.SHUT_WR)
    manager.on_release(ALPHA, conn)
    assert not conn.open
    assert not manager.check_aliveness(ALPHA, conn)


# -- closing


def test_disposing_ends_the_session(manager: Manager, conn: Any, mariadb: MariadbServer) -> None:
    manager.dispose(ALPHA, conn)
    assert not conn.open
    eventually(lambda: mariadb.sessions() == 0)
    manager.dispose(ALPHA, conn)


def test_disposing_does_not_wait_for_a_server_that_is_stuck(manager: Manager, mariadb: MariadbServer) -> None:
    conn = manager.create(ALPHA)
    with mariadb.stuck():
        # not even if there is no room for the farewell
        conn._sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                conn._sock.send(b'\0' * 65536)
        conn._sock.setblocking(True)
        disposing = threading.Thread(target=manager.dispose, args=(ALPHA, conn), daemon=True)
        disposing.start()
        disposing.join(5)
        assert not disposing.is_alive()
    assert not conn.open


def test_a_pool_closed_by_force_ends_a_running_query_and_closes_its_connection(
    pool: Pool, mariadb: MariadbServer
) -> None:
    before = open_descriptors()
    outcome: List[BaseException] = []

    def use() -> None:
        try:
            with pool.connection(ALPHA) as conn:
                fetch(conn, LONG)
        except BaseException as exc:
            outcome.append(exc)

    user = threading.Thread(target=use)
    user.start()
    eventually(lambda: mariadb.is_running(LONG))
    pool.close(timeout=0.02)
    user.join(10)
    assert not user.is_alive()
    assert isinstance(outcome[0], (pymysql.OperationalError, pymysql.InterfaceError))
    eventually(lambda: open_descriptors() == before)


def test_a_child_does_not_end_the_sessions_of_its_parent(pool: Pool, mariadb: MariadbServer) -> None:
    with pool.connection(ALPHA) as conn:
        number = inode(conn._sock)

    def look() -> Tuple[bool, int]:
        return number in sockets_of(os.getpid()), pool.get_size()

    assert in_child(look) == (False, 0)
    with pool.connection(ALPHA) as again:
        assert again is conn
        assert fetch(again, 'SELECT 1') == 1


def test_a_child_inherits_nothing_of_a_connection_that_its_parent_has_closed(manager: Manager) -> None:
    conn = manager.create(ALPHA)
    conn.close()

    def fork_off() -> int:
        before = sockets_of(os.getpid())
        manager.on_fork(ALPHA, conn)
        assert sockets_of(os.getpid()) == before
        return len(manager._notes)

    assert in_child(fork_off) == 0
    manager.dispose(ALPHA, conn)


class OutOfReach(Traits):
    """A driver of which nothing is known."""

    def __init__(self) -> None:
        self.closed: List[Any] = []

    def descriptor(self, conn: Any) -> None:
        return None

    def close(self, conn: Any) -> None:
        self.closed.append(conn)
        super().close(conn)


# -- many threads


def test_fifty_threads_share_five_connections(pool: Pool) -> None:
    def ask(question: str) -> Tuple[str, str]:
        with pool.connection(ALPHA, timeout=60) as conn:
            answer: str = fetch(conn, "SELECT CONCAT(%s, '!')", question)
        assert pool.get_size() <= 5
        return question + '!', answer

    crowd_of_threads(ask, threads=50, questions=5)


def test_a_driver_whose_sockets_are_out_of_reach_is_bounded_all_the_same(
    mariadb: MariadbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as any driver of which nothing is known: what it does takes place in threads
    manager: Manager = DbConnectionManager(pymysql, {'main': mariadb.parameters(read_timeout=2)}, ping='SELECT 1')
    traits = OutOfReach()
    monkeypatch.setattr(manager, '_traits', traits)
    before = open_descriptors()
    conn, idle = manager.create('main', timeout=5), manager.create('main', timeout=5)
    assert manager.check_aliveness('main', conn, 5)
    with mariadb.stuck():
        started = time.monotonic()
        assert not manager.check_aliveness('main', conn, 0.1)
        manager.dispose('main', conn, 0.1)
        manager.dispose('main', idle, 0.1)
        assert time.monotonic() - started < 1
        # what is left alone ends when the driver gives up
        await_threads()
        assert open_descriptors() == before
    assert not manager._notes
    # by the thread that was using it, and nobody else
    assert traits.closed.count(conn) == traits.closed.count(idle) == 1
